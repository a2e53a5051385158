"""LlamaIndex's LiteLLM classes with both hooks in: two frameworks tell of one request, and it is one record."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from typing import Any

import pytest
from llama_index.core.llms import ChatMessage
from llama_index.embeddings.litellm import LiteLLMEmbedding
from llama_index.llms.litellm import LiteLLM

from loopback_server import LoopbackServer
from token_callbacks import TokenCounter
from token_callbacks.records import CallRecord, Outcome, Provenance, RunSummary
from token_callbacks.runs import Run
from token_callbacks.sinks.memory import MemorySink

MESSAGES = [ChatMessage(role="user", content="Name the opening hours of the library.")]
TEXTS = ["the library", "the baths", "the park"]


def _llm(server: LoopbackServer) -> LiteLLM:
    return LiteLLM(model="openai/gpt-4o-mini", api_base=server.base_url, api_key="sk-loopback", max_retries=0)


def _embedding(server: LoopbackServer) -> LiteLLMEmbedding:
    return LiteLLMEmbedding(
        model_name="openai/text-embedding-3-small", api_base=server.base_url, api_key="sk-loopback", max_retries=0
    )


# --- embeddings

EMBEDDINGS: dict[str, Callable[[LiteLLMEmbedding], Any]] = {
    "text": lambda model: model.get_text_embedding(TEXTS[0]),
    "query": lambda model: model.get_query_embedding(TEXTS[0]),
    "batch": lambda model: model.get_text_embedding_batch(TEXTS),
    "async text": lambda model: model.aget_text_embedding(TEXTS[0]),
    "async query": lambda model: model.aget_query_embedding(TEXTS[0]),
    "async batch": lambda model: model.aget_text_embedding_batch(TEXTS),
}


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_an_embedding_request_is_one_record_with_the_reported_tokens(
    loopback: Any, counter: TokenCounter, memory: MemorySink, name: str
) -> None:
    """LlamaIndex drops an embedding's usage; LiteLLM below knows it, and the run has it when it ends."""
    server = loopback()
    with counter.run("embedding") as run:
        _run(lambda: EMBEDDINGS[name](_embedding(server)))

    assert sorted(entry.embedding_tokens for entry in server.ledger) == sorted(
        record.usage.embedding_tokens or 0 for record in memory.records
    )
    assert {Provenance.REPORTED} == {record.provenance.weakest for record in memory.records}
    assert server.ledger_totals().embedding_tokens == run.summary.embedding_tokens
    assert 0 == run.summary.internal_errors


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_an_embedding_request_without_usage_is_one_counted_record(
    loopback: Any, counter: TokenCounter, memory: MemorySink, name: str
) -> None:
    """Where nobody tells, the texts are counted, once."""
    server = loopback(usage="absent")
    with counter.run("embedding") as run:
        _run(lambda: EMBEDDINGS[name](_embedding(server)))

    assert len(server.ledger) == len(memory.records)
    assert {Provenance.COUNTED} == {record.provenance.weakest for record in memory.records}
    assert 0 < run.summary.embedding_tokens


# --- streams


@pytest.mark.parametrize("constant_id", [False, True], ids=["own ids", "one id for all"])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_streams_read_by_turns_land_where_they_were_opened(
    loopback: Any, counter: TokenCounter, memory: MemorySink, constant_id: bool, is_async: bool
) -> None:
    """Two streams, opened in two runs and read piece by piece by turns outside of both, keep their runs and figures."""
    server = loopback(stream_usage="always_last", constant_id=constant_id)
    asyncio.run(_by_turns_async(counter, server)) if is_async else _by_turns(counter, server)
    counter.close()
    first, second = sorted(memory.summaries.values(), key=lambda summary: summary.name)

    assert sorted((entry.prompt_tokens, entry.completion_tokens) for entry in server.ledger) == sorted(
        (summary.llm_prompt_tokens, summary.llm_completion_tokens) for summary in (first, second)
    )
    assert first.llm_prompt_tokens < second.llm_prompt_tokens
    assert [1, 1] == [first.calls.llm, second.calls.llm]


def _by_turns(counter: TokenCounter, server: LoopbackServer) -> None:
    streams = []
    for name in ("first", "second"):
        with counter.run(name):
            stream = _llm(server).stream_chat(MESSAGES)
            next(stream)  # the request goes out with the first piece
            streams.append(stream)
    for _ in zip_longest(*streams):
        pass


async def _by_turns_async(counter: TokenCounter, server: LoopbackServer) -> None:
    streams = []
    for name in ("first", "second"):
        async with counter.run(name):
            stream = await _llm(server).astream_chat(MESSAGES)
            await anext(stream)
            streams.append(stream)
    while [piece for stream in streams if (piece := await anext(stream, None)) is not None]:
        pass


def test_a_stream_whose_request_goes_out_later_lands_where_it_was_opened(
    loopback: Any, counter: TokenCounter, memory: MemorySink
) -> None:
    """LlamaIndex sends a stream's request with the first piece that is asked for: the run is that of the call."""
    server = loopback(stream_usage="always_last")
    with counter.run("opened") as opened:
        stream = _llm(server).stream_chat(MESSAGES)
    with counter.run("read") as read:
        for _ in stream:
            pass
    [entry] = server.ledger

    assert [opened.run_id] == [record.run_id for record in memory.records]
    assert entry.prompt_tokens + entry.completion_tokens == opened.summary.total_llm_tokens
    assert 0 == read.summary.total_llm_tokens


def _leave(stream: Any) -> None:
    for number, _ in enumerate(stream):
        if number == 2:
            break
    stream.close()


def _drop(stream: Any) -> None:
    for number, _ in enumerate(stream):
        if number == 2:
            break
    del stream
    gc.collect()


@pytest.mark.parametrize("leave", [_leave, _drop], ids=["closed", "dropped"])
def test_an_abandoned_stream_is_one_record_of_what_arrived(
    loopback: Any, counter: TokenCounter, memory: MemorySink, leave: Callable[[Any], None]
) -> None:
    """A stream that is left half-read is one abandoned call, its completion a lower bound."""
    server = loopback(stream_usage="always_last")
    with counter.run("left") as run:
        leave(_llm(server).stream_chat(MESSAGES))

    _assert_abandoned(memory.records, run.summary)


def test_an_abandoned_async_stream_is_one_record_of_what_arrived(
    loopback: Any, counter: TokenCounter, memory: MemorySink
) -> None:
    """What holds for sync streams holds for async ones."""
    server = loopback(stream_usage="always_last")

    async def leave() -> Run:
        async with counter.run("left") as run:
            stream = await _llm(server).astream_chat(MESSAGES)
            for _ in range(3):
                await anext(stream)
            await stream.aclose()
        return run

    with server.hold(after_chunks=3):
        run = asyncio.run(leave())

    _assert_abandoned(memory.records, run.summary)


def _assert_abandoned(records: list[CallRecord], summary: RunSummary) -> None:
    [record] = records
    assert Outcome.ABANDONED is record.outcome
    assert Provenance.PARTIAL is record.provenance.completion
    assert 3 == record.usage.completion_tokens
    assert (1, 1) == (summary.calls.llm, summary.calls.abandoned)
    assert summary.lower_bound


# --- many at once

MIXED: tuple[Callable[[LoopbackServer], Any], ...] = (
    lambda server: _llm(server).chat(MESSAGES),
    lambda server: [None for _ in _llm(server).stream_chat(MESSAGES)],
    lambda server: _embedding(server).get_text_embedding(TEXTS[0]),
    lambda server: _embedding(server).get_text_embedding_batch(TEXTS),
    lambda server: _llm(server).complete("When?"),
)


async def _read(server: LoopbackServer) -> None:
    async for _ in await _llm(server).astream_chat(MESSAGES):
        pass


AMIXED: tuple[Callable[[LoopbackServer], Any], ...] = (
    lambda server: _llm(server).achat(MESSAGES),
    _read,
    lambda server: _embedding(server).aget_text_embedding(TEXTS[0]),
    lambda server: _embedding(server).aget_query_embedding(TEXTS[0]),
    lambda server: _llm(server).acomplete("When?"),
)


def test_eight_threads_of_mixed_calls(loopback: Any, counter: TokenCounter, memory: MemorySink) -> None:
    """Eight threads with ten calls each: as many records as requests, with the ledger's sums."""
    server = loopback(stream_usage="always_last")

    def work() -> None:
        for call in MIXED * 2:
            call(server)

    with counter.run("threads") as run, ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(contextvars.copy_context().run, work) for _ in range(8)]:
            done.result()

    _assert_sums(server, memory, run, requests=80)


def test_a_gather_of_mixed_calls(loopback: Any, counter: TokenCounter, memory: MemorySink) -> None:
    """Fifty calls in one gather: as many records as requests, with the ledger's sums, when the run ends."""
    server = loopback(stream_usage="always_last")

    async def work() -> None:
        await asyncio.gather(*(call(server) for call in AMIXED * 10))

    with counter.run("gather") as run:
        asyncio.run(work())

    _assert_sums(server, memory, run, requests=50)


def _assert_sums(server: LoopbackServer, memory: MemorySink, run: Run, *, requests: int) -> None:
    totals, summary = server.ledger_totals(), run.summary
    assert requests == totals.requests == len(memory.records)
    assert (totals.prompt_tokens, totals.completion_tokens, totals.embedding_tokens) == (
        summary.llm_prompt_tokens,
        summary.llm_completion_tokens,
        summary.embedding_tokens,
    )
    assert (requests, 0) == (summary.provenance.reported.calls, summary.internal_errors)


def _run(call: Callable[[], Any]) -> None:
    result = call()
    if asyncio.iscoroutine(result):

        async def wait() -> None:
            await result

        asyncio.run(wait())
