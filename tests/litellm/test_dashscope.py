"""DashScope through LiteLLM: its compatible mode speaks as OpenAI does, and tells a stream's usage when asked.

https://help.aliyun.com/zh/model-studio/compatibility-of-openai-with-dashscope
"""

from __future__ import annotations

import asyncio
from typing import Any

import litellm
import pytest

from loopback_server import LoopbackServer
from token_callbacks import TokenCounter
from token_callbacks.records import Provenance
from token_callbacks.sinks.memory import MemorySink

from .calls import DETAILED, MESSAGES

MODEL = "dashscope/qwen-max"

plain_and_streamed = pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
sync_and_async = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


def _ask(server: LoopbackServer, *, stream: bool, is_async: bool) -> None:
    asked: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, "stream": stream}
    asked |= {"api_base": server.base_url, "api_key": "sk-loopback", "max_retries": 0}

    async def ask() -> None:
        answer: Any = await litellm.acompletion(**asked)
        if stream:
            async for _ in answer:
                pass

    if is_async:
        asyncio.run(ask())
        return
    for _ in litellm.completion(**asked) if stream else [litellm.completion(**asked)]:
        pass


@plain_and_streamed
@sync_and_async
def test_the_answer_is_one_record_with_what_dashscope_told(
    loopback: Any, counter: TokenCounter, memory: MemorySink, *, stream: bool, is_async: bool
) -> None:
    """Also of a stream, whose usage nobody but us asks for; cached tokens and thoughts are told apart."""
    server = loopback(tokens=DETAILED)
    with counter.run("qwen"):
        _ask(server, stream=stream, is_async=is_async)

    [entry], [record] = server.ledger, memory.records
    assert ("dashscope", Provenance.REPORTED) == (record.provider, record.provenance.weakest)
    assert (entry.prompt_tokens, entry.completion_tokens, entry.cache_read_tokens, entry.reasoning_tokens) == (
        record.usage.prompt_tokens,
        record.usage.completion_tokens,
        record.usage.cache_read_tokens,
        record.usage.reasoning_tokens,
    )


@sync_and_async
def test_cumulative_usage_in_every_chunk_is_not_added_up(
    loopback: Any, counter: TokenCounter, memory: MemorySink, *, is_async: bool
) -> None:
    """As DashScope's own API tells it: the last chunk has the whole."""
    server = loopback(stream_usage="every_chunk")
    with counter.run("qwen"):
        _ask(server, stream=True, is_async=is_async)

    [entry], [record] = server.ledger, memory.records
    assert (entry.prompt_tokens, entry.completion_tokens, Provenance.REPORTED) == (
        record.usage.prompt_tokens,
        record.usage.completion_tokens,
        record.provenance.weakest,
    )


@sync_and_async
def test_a_stream_that_tells_nothing_is_counted_as_qwen_counts(
    loopback: Any, counter: TokenCounter, memory: MemorySink, *, is_async: bool
) -> None:
    """LiteLLM's zero for it is nobody's word."""
    with counter.run("qwen"):
        _ask(loopback(stream_usage="never"), stream=True, is_async=is_async)

    [record] = memory.records
    assert record.provenance.weakest in {Provenance.COUNTED, Provenance.ESTIMATED}
    assert "qwen" in (record.counting_method or "")
    assert (record.usage.prompt_tokens or 0) > 0
