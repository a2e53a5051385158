"""Classes that answer for a provider of the user's own (``custom_provider_map``): LiteLLM tells nobody of a request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import litellm
import pytest
from litellm.types.llms.openai import ChatCompletionUsageBlock
from litellm.types.utils import GenericStreamingChunk

from token_callbacks import TokenCounter
from token_callbacks.records import Outcome
from token_callbacks.sinks.memory import MemorySink

MESSAGES = [{"role": "user", "content": "When does it open?"}]
USAGE = ChatCompletionUsageBlock(prompt_tokens=3, completion_tokens=4, total_tokens=7)


def _chunk(text: str) -> GenericStreamingChunk:
    return {
        "text": text,
        "tool_use": None,
        "is_finished": not text,
        "finish_reason": "" if text else "stop",
        "usage": None if text else USAGE,
        "index": 0,
    }


class Librarian(litellm.CustomLLM):
    """Answers by itself."""

    def completion(self, *args: Any, **kwargs: Any) -> litellm.ModelResponse:
        return litellm.ModelResponse(choices=[{"message": {"content": "At nine."}}], usage=litellm.Usage(**USAGE))

    async def acompletion(self, *args: Any, **kwargs: Any) -> litellm.ModelResponse:
        return self.completion()

    def streaming(self, *args: Any, **kwargs: Any) -> Iterator[GenericStreamingChunk]:
        yield from map(_chunk, ("At", " nine.", ""))

    async def astreaming(self, *args: Any, **kwargs: Any) -> AsyncIterator[GenericStreamingChunk]:
        for chunk in self.streaming():
            yield chunk


@pytest.fixture(autouse=True)
def librarian(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let LiteLLM know the class."""
    monkeypatch.setattr(litellm, "custom_provider_map", [{"provider": "library", "custom_handler": Librarian()}])


def _ask(**options: Any) -> Any:
    return litellm.completion(model="library/desk", messages=MESSAGES, **options)


async def _aask(**options: Any) -> Any:
    return await litellm.acompletion(model="library/desk", messages=MESSAGES, **options)


async def _aread() -> None:
    async for _ in await _aask(stream=True):
        pass


async def _ahalf_read() -> None:
    await anext(await _aask(stream=True))


def _drop() -> None:
    _ask(stream=True)


def _half_read() -> None:
    next(_ask(stream=True))


ANSWERED: dict[str, Callable[[], Any]] = {
    "completion": _ask,
    "acompletion": lambda: asyncio.run(_aask()),
    "completion streamed": lambda: list(_ask(stream=True)),
    "acompletion streamed": lambda: asyncio.run(_aread()),
}
LEFT: dict[str, Callable[[], Any]] = {
    "unread": _drop,
    "async unread": lambda: asyncio.run(_aask(stream=True)) and None,
    "half read": _half_read,
    "async half read": lambda: asyncio.run(_ahalf_read()),
}


@pytest.mark.parametrize("name", ANSWERED)
def test_an_answer_is_in_the_summary_of_a_run_that_ends_at_once(
    counter: TokenCounter, memory: MemorySink, name: str
) -> None:
    """Nobody waits for LiteLLM's success event, which may come late, or never."""
    with counter.run("asking") as run:
        ANSWERED[name]()
    summary = run.summary

    [record] = memory.records
    assert (Outcome.COMPLETED, 3, 4) == (record.outcome, record.usage.prompt_tokens, record.usage.completion_tokens)
    assert (1, 7) == (summary.calls.llm, summary.total_llm_tokens)


@pytest.mark.parametrize("name", LEFT)
def test_a_stream_that_is_left_is_abandoned(counter: TokenCounter, memory: MemorySink, name: str) -> None:
    """Whether the class has done anything for it, nobody can tell."""
    with counter.run("asking") as run:
        LEFT[name]()
    counter.close()

    [record] = memory.records
    assert (Outcome.ABANDONED, run.run_id) == (record.outcome, record.run_id)
    assert 1 == run.summary.calls.abandoned
