"""vLLM's own counters and our records agree, whatever the load is mixed of.

What vLLM (0.32.0) counts, and its usage does not say: the prompt of a request with ``n`` answers goes into
``vllm:prompt_tokens_total`` ``n`` times, into ``usage`` once. Prompts from its cache count as any other. When a client
leaves, vLLM may have made more tokens than it sent, all of them where the client's SDK keeps the connection, as that of
OpenAI underneath LlamaIndex does for a sync stream: nobody tells the client of them.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

import httpx
import litellm
import msgspec
import pytest
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

from token_callbacks import TokenCounter
from token_callbacks.records import CallRecord, Outcome, Provenance
from token_callbacks.sinks.memory import MemorySink

from .conftest import Served

WORDS = " self"
"""One token of the tiny vocabulary: what is made of it alone is the same tokens when it is counted again."""

MESSAGES = [{"role": "user", "content": "When does the library open? " * 20}]
WHOLE, LONG = 9, 500
"""Tokens that are asked for: of calls that are read to their end, and of calls that are left."""


class Counts(msgspec.Struct, frozen=True):
    """Two of the counters that vLLM shows to Prometheus."""

    prompt: int
    generation: int

    def __sub__(self, other: Counts) -> Counts:
        return Counts(self.prompt - other.prompt, self.generation - other.generation)


def read_counts(server: Served) -> Counts:
    """Read the counters, once they have come to rest: the engine that is left stops a moment later."""
    before, counts = None, _counts(server)
    while before != counts:
        time.sleep(0.5)  # a server of others, whose counters are all that it tells
        before, counts = counts, _counts(server)
    return counts


def _counts(server: Served) -> Counts:
    lines = httpx.get(f"{server.url}/metrics").raise_for_status().text.splitlines()

    def total(name: str) -> int:
        return int(sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"vllm:{name}{{")))

    return Counts(total("prompt_tokens_total"), total("generation_tokens_total"))


@pytest.fixture
def only_words(vllm: Served) -> dict[str, Any]:
    """Have the model, whose weights are random, say nothing but ``WORDS``, and not stop by itself."""
    body = {"model": vllm.model, "prompt": WORDS, "add_special_tokens": False}
    tokens = httpx.post(f"{vllm.url}/tokenize", json=body).raise_for_status().json()["tokens"]
    assert 1 == len(tokens)
    return {"extra_body": {"allowed_token_ids": tokens, "ignore_eos": True}}


Ask = Callable[..., None]


def plain(server: Served, **options: Any) -> None:
    """Ask through LiteLLM."""
    litellm.completion(messages=MESSAGES, max_tokens=WHOLE, **server.options, **options)


def streamed(server: Served, **options: Any) -> None:
    """Ask for a stream through LiteLLM."""
    for _ in litellm.completion(messages=MESSAGES, max_tokens=WHOLE, stream=True, **server.options, **options):
        pass


def _llm(server: Served, *, max_tokens: int, **options: Any) -> OpenAILike:
    return OpenAILike(
        model=server.model,
        api_base=f"{server.url}/v1",
        api_key="sk-loopback",
        is_chat_model=True,
        max_tokens=max_tokens,
        additional_kwargs=options,
    )


def llama_plain(server: Served, **options: Any) -> None:
    """Ask through LlamaIndex."""
    _llm(server, max_tokens=WHOLE, **options).chat([ChatMessage(content="Hi there")])


def llama_streamed(server: Served, **options: Any) -> None:
    """Ask for a stream through LlamaIndex."""
    for _ in _llm(server, max_tokens=WHOLE, **options).stream_chat([ChatMessage(content="Hi there")]):
        pass


def leave(server: Served, *, chunks: int, **options: Any) -> None:
    """Leave a stream of LiteLLM's after so many chunks with text."""

    async def read() -> None:
        answer: Any = await litellm.acompletion(
            messages=MESSAGES, max_tokens=LONG, stream=True, **server.options, **options
        )
        async with aclosing(answer) as stream:
            received = 0
            async for chunk in stream:
                received += bool(chunk.choices and chunk.choices[0].delta.content)
                if received == chunks:
                    break

    asyncio.run(read())


def llama_leave(server: Served, *, chunks: int, **options: Any) -> None:
    """Leave a stream of LlamaIndex's after so many chunks."""
    stream: Iterator[Any] = _llm(server, max_tokens=LONG, **options).stream_chat([ChatMessage(content="Hi there")])
    for _ in range(chunks):
        next(stream)
    stream.close()  # type: ignore[attr-defined]


def _sums(records: list[CallRecord]) -> Counts:
    return Counts(
        sum(record.usage.prompt_tokens or 0 for record in records),
        sum(record.usage.completion_tokens or 0 for record in records),
    )


WHOLE_LOAD: tuple[Ask, ...] = (plain, plain, streamed, llama_plain, llama_plain, llama_streamed, streamed)


def test_calls_read_to_their_end_sum_up_to_the_servers_counters(
    vllm: Served, only_words: dict[str, Any], counter: TokenCounter, memory: MemorySink
) -> None:
    """Plain, streamed and from the prefix cache, by both frameworks: equal to the token, and reported."""
    before = read_counts(vllm)
    with counter.run("load") as run:
        for ask in WHOLE_LOAD:
            ask(vllm, **only_words)
    used = read_counts(vllm) - before

    assert used == _sums(memory.records)
    assert len(WHOLE_LOAD) == run.summary.provenance.reported.calls
    assert WHOLE * len(WHOLE_LOAD) == used.generation
    assert run.summary.token_details.cache_read > 0


@pytest.mark.parametrize("ask", [plain, streamed])
def test_several_answers_are_counted_as_vllm_reports_them(
    vllm: Served, only_words: dict[str, Any], counter: TokenCounter, memory: MemorySink, ask: Ask
) -> None:
    """All completions, and the prompt once: vLLM's counter has it twice for two answers."""
    before = read_counts(vllm)
    ask(vllm, n=2, **only_words)
    used = read_counts(vllm) - before
    counter.close()

    [record] = memory.records
    assert (used.prompt, used.generation) == ((record.usage.prompt_tokens or 0) * 2, record.usage.completion_tokens)
    assert (WHOLE * 2, Provenance.REPORTED) == (used.generation, record.provenance.weakest)


@pytest.mark.parametrize("chunks", [1, 4, 40])
@pytest.mark.parametrize("ask", [leave, llama_leave])
def test_a_stream_that_is_left_is_a_lower_bound(
    vllm: Served, only_words: dict[str, Any], counter: TokenCounter, memory: MemorySink, *, ask: Ask, chunks: int
) -> None:
    """The prompt is the server's own count of it; the completion what came here, which is never more than was made."""
    counter.register_tokenizer(f"*{vllm.model}", endpoint=vllm.url)
    before = read_counts(vllm)
    with counter.run("left") as run:
        ask(vllm, chunks=chunks, **only_words)
    used = read_counts(vllm) - before

    [record] = memory.records
    assert (Outcome.ABANDONED, "vllm /tokenize") == (record.outcome, record.counting_method)
    assert (used.prompt, Provenance.COUNTED) == (record.usage.prompt_tokens, record.provenance.prompt)
    # LlamaIndex's first chunk is the role, without text.
    assert chunks - 1 <= (record.usage.completion_tokens or 0) <= used.generation
    assert (Provenance.PARTIAL, True) == (record.provenance.completion, run.summary.lower_bound)


def test_continuous_usage_tells_what_a_left_stream_had_used(
    vllm: Served, only_words: dict[str, Any], counter: TokenCounter, memory: MemorySink
) -> None:
    """``continuous_usage_stats`` puts the usage so far into each chunk: the prompt is then reported."""
    before = read_counts(vllm)
    options = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    with counter.run("left"):
        leave(vllm, chunks=4, **options, **only_words)
    used = read_counts(vllm) - before

    [record] = memory.records
    assert (used.prompt, Provenance.REPORTED) == (record.usage.prompt_tokens, record.provenance.prompt)
    assert 4 <= (record.usage.completion_tokens or 0) <= used.generation


def test_a_mixed_load_adds_up_to_the_servers_counters(
    vllm: Served, only_words: dict[str, Any], counter: TokenCounter, memory: MemorySink
) -> None:
    """All kinds at once, from eight threads: equal but for what vLLM counts and its usage does not say (see above)."""
    counter.register_tokenizer(f"*{vllm.model}", endpoint=vllm.url)
    left = [functools.partial(leave, chunks=chunks) for chunks in (1, 4, 40)]
    doubled = [functools.partial(ask, n=2) for ask in (plain, streamed)]
    before = read_counts(vllm)
    with counter.run("mixed") as run, ThreadPoolExecutor(8) as pool:
        list(run.bind(pool).map(lambda ask: ask(vllm, **only_words), (*WHOLE_LOAD, *left, *doubled, *WHOLE_LOAD)))
    used = read_counts(vllm) - before
    whole = [record for record in memory.records if record.outcome is Outcome.COMPLETED]
    parts = [record for record in memory.records if record.outcome is Outcome.ABANDONED]
    twice = [record for record in whole if record.usage.completion_tokens == WHOLE * 2]

    assert (2 * len(WHOLE_LOAD) + 2, 3, 2) == (len(whole), len(parts), len(twice))
    assert used.prompt == _sums(whole).prompt + _sums(parts).prompt + _sums(twice).prompt
    assert _sums(whole).generation == WHOLE * (2 * len(WHOLE_LOAD) + 4)
    assert 1 + 4 + 40 <= _sums(parts).generation <= used.generation - _sums(whole).generation


@pytest.mark.parametrize("ask", [streamed, llama_streamed])
def test_the_servers_tokenizer_counts_what_nobody_asked_for(
    vllm: Served, only_words: dict[str, Any], memory: MemorySink, ask: Ask
) -> None:
    """Without a question for usage, the server's own ``/tokenize`` gives what its counters say, to the token."""
    counter = TokenCounter(log_dir=None, sinks=[memory], request_stream_usage=False)
    counter.register_tokenizer(f"*{vllm.model}", endpoint=vllm.url)
    before = read_counts(vllm)
    with counter.run("not asked"):
        ask(vllm, **only_words)
    used = read_counts(vllm) - before
    counter.close()

    assert used == _sums(memory.records)
    assert [(Provenance.COUNTED, "vllm /tokenize")] == [
        (record.provenance.weakest, record.counting_method) for record in memory.records
    ]
