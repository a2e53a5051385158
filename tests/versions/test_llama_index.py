"""What holds on every release of LlamaIndex from LaVague's pin on: a request, a record, as the provider reported."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from token_callbacks import TokenCounter, TokenCountingHandler
from token_callbacks.records import Outcome, Provenance
from token_callbacks.sinks.memory import MemorySink

pytest.importorskip("llama_index.llms.openai")

TEXT = "Name the opening hours."


def _llm(server: Any, **options: Any) -> Any:
    from llama_index.llms.openai import OpenAI

    return OpenAI(model="gpt-4o-mini", api_base=server.base_url, api_key="sk-loopback", max_retries=0, **options)


def _embedder(server: Any) -> Any:
    from llama_index.embeddings.openai import OpenAIEmbedding

    return OpenAIEmbedding(api_base=server.base_url, api_key="sk-loopback", embed_batch_size=2)


def _messages() -> list[Any]:
    from llama_index.core.llms import ChatMessage

    return [ChatMessage(role="user", content=TEXT)]


async def _aread(stream: Any) -> None:
    async for _ in await stream:
        pass


LLM_CALLS: dict[str, Callable[[Any], Any]] = {
    "chat": lambda llm: llm.chat(_messages()),
    "stream_chat": lambda llm: list(llm.stream_chat(_messages())),
    "complete": lambda llm: llm.complete(TEXT),
    "stream_complete": lambda llm: list(llm.stream_complete(TEXT)),
    "achat": lambda llm: asyncio.run(llm.achat(_messages())),
    "astream_chat": lambda llm: asyncio.run(_aread(llm.astream_chat(_messages()))),
    "acomplete": lambda llm: asyncio.run(llm.acomplete(TEXT)),
    "astream_complete": lambda llm: asyncio.run(_aread(llm.astream_complete(TEXT))),
}
EMBEDDING_CALLS: dict[str, Callable[[Any], Any]] = {
    "get_text_embedding": lambda embedder: embedder.get_text_embedding(TEXT),
    "get_query_embedding": lambda embedder: embedder.get_query_embedding(TEXT),
    "get_text_embedding_batch": lambda embedder: embedder.get_text_embedding_batch(["a", "b", "c"]),
    "aget_text_embedding_batch": lambda embedder: asyncio.run(embedder.aget_text_embedding_batch(["a", "b", "c"])),
}


@pytest.mark.parametrize("call", LLM_CALLS.values(), ids=LLM_CALLS)
def test_an_llm_call_is_one_reported_record(
    loopback: Any, counter: TokenCounter, memory: MemorySink, call: Callable[[Any], Any]
) -> None:
    """Streamed or not, sync or async."""
    server = loopback()
    with counter.run("call") as run:
        call(_llm(server))

    [entry], [record] = server.ledger, memory.records
    assert (entry.prompt_tokens, entry.completion_tokens) == (
        record.usage.prompt_tokens,
        record.usage.completion_tokens,
    )
    assert (Provenance.REPORTED, 0) == (record.provenance.weakest, run.summary.internal_errors)


@pytest.mark.parametrize("call", EMBEDDING_CALLS.values(), ids=EMBEDDING_CALLS)
def test_an_embedding_request_is_one_reported_record(
    loopback: Any, counter: TokenCounter, memory: MemorySink, call: Callable[[Any], Any]
) -> None:
    """What LlamaIndex drops is read off the wire."""
    server = loopback()
    with counter.run("call"):
        call(_embedder(server))

    expected = sorted(entry.embedding_tokens for entry in server.ledger)
    assert expected == sorted(record.usage.embedding_tokens or 0 for record in memory.records)


def test_a_query_engine_is_recorded_whole(loopback: Any, counter: TokenCounter, memory: MemorySink) -> None:
    """Indexing, retrieval and a streamed answer."""
    from llama_index.core import Document, VectorStoreIndex

    server = loopback()
    with counter.run("rag") as run:
        index = VectorStoreIndex.from_documents([Document(text=TEXT)], embed_model=_embedder(server))
        list(index.as_query_engine(llm=_llm(server), streaming=True).query(TEXT).response_gen)

    truth, summary = server.ledger_totals(), run.summary
    assert (truth.requests, truth.prompt_tokens, truth.completion_tokens, truth.embedding_tokens) == (
        len(memory.records),
        summary.llm_prompt_tokens,
        summary.llm_completion_tokens,
        summary.embedding_tokens,
    )


def test_a_stream_that_is_left_is_one_abandoned_record(
    loopback: Any, counter: TokenCounter, memory: MemorySink
) -> None:
    """Where the reader leaves half-way."""
    server = loopback()
    with counter.run("left"), server.hold(after_chunks=3):
        stream = _llm(server).stream_chat(_messages())
        next(stream)
        stream.close()

    assert [Outcome.ABANDONED] == [record.outcome for record in memory.records]


def test_a_refused_call_raises_and_is_one_failed_record(
    loopback: Any, counter: TokenCounter, memory: MemorySink
) -> None:
    """The error is the client's own."""
    server = loopback()
    server.fail_next(status=401)
    with counter.run("refused"), pytest.raises(Exception, match=r"401|loopback fault"):
        _llm(server).chat(_messages())

    assert [Outcome.FAILED] == [record.outcome for record in memory.records]


def test_the_handler_in_the_place_of_llama_indexs_counts_the_same(loopback: Any) -> None:
    """``TokenCountingHandler`` in a ``CallbackManager``."""
    from llama_index.core.callbacks import CallbackManager

    server = loopback()
    handler = TokenCountingHandler()
    _llm(server, callback_manager=CallbackManager([handler])).chat(_messages())

    [entry] = server.ledger
    assert (entry.prompt_tokens, entry.completion_tokens) == (
        handler.prompt_llm_token_count,
        handler.completion_llm_token_count,
    )
