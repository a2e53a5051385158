"""One embedding request, one record, whichever method sends it, with the server's ledger as the truth."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index.core.llms import CompletionResponse
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.schema import TextNode
from llama_index.core.storage.kvstore import SimpleKVStore

from loopback_server import LoopbackServer
from token_callbacks import TokenCounter, uninstall
from token_callbacks.adapters import httpx as wire
from token_callbacks.records import Operation, Outcome, Provenance, Sources
from token_callbacks.sinks.memory import MemorySink

from .conftest import EMBEDDERS, Loopback
from .figures import embedding_figures, embedding_truth
from .methods import Call
from .shaped import ShapedLLM

pytestmark = pytest.mark.usefixtures("nothing_left")

TEXT = "The library opens at nine\nand closes at six."
TEXTS = [f"Shelf {number}:\n\n{'novels, ' * number}and a ladder." for number in range(1, 8)]
BATCH = 3
REFUSED = r"401|loopback fault"


def _sync(call: Callable[[Any], Any]) -> Call:
    async def run(embedder: Any) -> None:
        call(embedder)

    return run


def _async(call: Callable[[Any], Awaitable[Any]]) -> Call:
    async def run(embedder: Any) -> None:
        await call(embedder)

    return run


METHODS: dict[str, Call] = {
    "get_text_embedding": _sync(lambda embedder: embedder.get_text_embedding(TEXT)),
    "get_query_embedding": _sync(lambda embedder: embedder.get_query_embedding(TEXT)),
    "aget_text_embedding": _async(lambda embedder: embedder.aget_text_embedding(TEXT)),
    "aget_query_embedding": _async(lambda embedder: embedder.aget_query_embedding(TEXT)),
    "get_agg_embedding_from_queries": _sync(lambda embedder: embedder.get_agg_embedding_from_queries(TEXTS)),
    "aget_agg_embedding_from_queries": _async(lambda embedder: embedder.aget_agg_embedding_from_queries(TEXTS)),
    "get_text_embedding_batch": _sync(lambda embedder: embedder.get_text_embedding_batch(TEXTS)),
    "aget_text_embedding_batch": _async(lambda embedder: embedder.aget_text_embedding_batch(TEXTS)),
    "__call__": _sync(lambda embedder: embedder([TextNode(text=text) for text in TEXTS])),
    "acall": _async(lambda embedder: embedder.acall([TextNode(text=text) for text in TEXTS])),
}
WORKERS = pytest.mark.parametrize("num_workers", [None, 2], ids=["no workers", "two workers"])
BOTH = pytest.mark.parametrize("integration", EMBEDDERS)


@WORKERS
@pytest.mark.parametrize("method", METHODS)
def test_litellm_embedding_records_are_what_the_provider_reported(
    loopback: Loopback, counter: TokenCounter, memory: MemorySink, method: str, num_workers: int | None
) -> None:
    """LiteLLMEmbedding drops the usage, LiteLLM beneath it knows, and each request is one record with that figure."""
    server = loopback()
    embedder = EMBEDDERS["LiteLLMEmbedding"](server, embed_batch_size=BATCH, num_workers=num_workers)
    _embed(counter, METHODS[method], embedder)

    assert embedding_truth(server) == embedding_figures(memory.records)
    assert [Sources(embedding=Provenance.REPORTED)] * len(server.ledger) == _sources(memory)


@WORKERS
@pytest.mark.parametrize("method", METHODS)
def test_openai_embedding_records_are_what_the_provider_reported(
    loopback: Loopback, counter: TokenCounter, memory: MemorySink, method: str, num_workers: int | None
) -> None:
    """OpenAIEmbedding drops the usage, the wire beneath it has it, and each request is one record with that figure."""
    server = loopback()
    embedder = EMBEDDERS["OpenAIEmbedding"](server, embed_batch_size=BATCH, num_workers=num_workers)
    _embed(counter, METHODS[method], embedder)

    assert embedding_truth(server) == embedding_figures(memory.records)
    assert [Sources(embedding=Provenance.REPORTED)] * len(server.ledger) == _sources(memory)


@pytest.mark.parametrize("method", METHODS)
def test_openai_embeddings_are_counted_where_the_wire_is_not_seen(
    counting: LoopbackServer, counter: TokenCounter, memory: MemorySink, method: str
) -> None:
    """Without the tap each request is counted here, with the blanks that OpenAIEmbedding sends for newlines."""
    wire.uninstall()
    _embed(counter, METHODS[method], EMBEDDERS["OpenAIEmbedding"](counting, embed_batch_size=BATCH))

    assert embedding_truth(counting) == embedding_figures(memory.records)
    assert [Sources(embedding=Provenance.COUNTED)] * len(counting.ledger) == _sources(memory)


@BOTH
def test_the_summary_has_the_embedding_tokens_apart(
    counting: LoopbackServer, counter: TokenCounter, integration: str
) -> None:
    """Embedding tokens have a total of their own, and none of them is among the LLM tokens."""
    embedder = EMBEDDERS[integration](counting, embed_batch_size=BATCH)
    with counter.run("indexing") as run:
        embedder.get_text_embedding_batch(TEXTS)

    assert counting.ledger_totals().embedding_tokens == run.summary.embedding_tokens
    assert (3, 0, 0) == (run.summary.calls.embedding, run.summary.calls.llm, run.summary.total_llm_tokens)


@BOTH
def test_an_empty_batch_is_no_record(
    loopback: Loopback, counter: TokenCounter, memory: MemorySink, integration: str
) -> None:
    """Where nothing is sent, nothing is recorded."""
    _embed(counter, _async(lambda embedder: embedder.aget_text_embedding_batch([])), EMBEDDERS[integration](loopback()))

    assert [] == memory.records


@BOTH
@pytest.mark.parametrize("method", ["get_text_embedding", "aget_query_embedding", "get_text_embedding_batch"])
def test_a_refused_request_is_one_failed_record(
    loopback: Loopback, counter: TokenCounter, memory: MemorySink, integration: str, method: str
) -> None:
    """A request that the provider refuses leaves a failed record without a figure."""
    server = loopback()
    server.fail_next(status=401)
    with pytest.raises(Exception, match=REFUSED):
        _embed(counter, METHODS[method], EMBEDDERS[integration](server, embed_batch_size=BATCH))

    [record] = memory.records
    assert (Outcome.FAILED, "AuthenticationError") == (record.outcome, record.error)
    assert (None, Provenance.MISSING) == (record.usage.embedding_tokens, record.provenance.embedding)


@BOTH
def test_an_async_batch_with_a_refused_request_has_a_record_for_each_request(
    loopback: Loopback, counter: TokenCounter, memory: MemorySink, integration: str
) -> None:
    """The requests that run beside a refused one are recorded as well, though LlamaIndex tells their end no more."""
    server = loopback()
    server.fail_next(status=401)
    with pytest.raises(Exception, match=REFUSED):
        _embed(counter, METHODS["aget_text_embedding_batch"], EMBEDDERS[integration](server, embed_batch_size=BATCH))

    assert len(server.ledger) == len(memory.records)
    assert Outcome.FAILED in [record.outcome for record in memory.records]


@BOTH
@pytest.mark.parametrize("method", ["get_text_embedding", "aget_text_embedding", "get_text_embedding_batch"])
def test_the_caller_sees_the_same_exception_as_without_us(
    loopback: Loopback, memory: MemorySink, integration: str, method: str
) -> None:
    """The exception of a refused request reaches the caller as if nobody counted."""
    server = loopback()
    uninstall()
    expected = _error(server, METHODS[method], EMBEDDERS[integration](server))
    counter = TokenCounter(log_dir=None, sinks=[memory])
    actual = _error(server, METHODS[method], EMBEDDERS[integration](server))
    counter.close()

    assert (type(expected), str(expected)) == (type(actual), str(actual))
    assert [Outcome.FAILED] == [record.outcome for record in memory.records]


CACHED_CALLS: dict[str, Call] = {
    "single": _sync(lambda embedder: embedder.get_text_embedding(TEXTS[1])),
    "async single": _async(lambda embedder: embedder.aget_query_embedding(TEXTS[1])),
    "whole batch": _sync(lambda embedder: embedder.get_text_embedding_batch(TEXTS[:BATCH])),
    "part of the batches": _sync(lambda embedder: embedder.get_text_embedding_batch(TEXTS)),
    "async batch": _async(lambda embedder: embedder.aget_text_embedding_batch(TEXTS)),
}


@pytest.mark.parametrize("call", CACHED_CALLS.values(), ids=CACHED_CALLS)
def test_litellm_embeddings_from_a_cache_are_no_records(
    loopback: Loopback, counter: TokenCounter, memory: MemorySink, call: Call
) -> None:
    """What LlamaIndex finds in its embeddings cache was not sent and is not recorded, also before the first miss."""
    server = loopback()
    cache = _warm_cache(EMBEDDERS["LiteLLMEmbedding"], server, memory)
    _embed(counter, call, EMBEDDERS["LiteLLMEmbedding"](server, embed_batch_size=BATCH, embeddings_cache=cache))

    assert embedding_truth(server) == embedding_figures(memory.records)


@pytest.mark.parametrize("call", CACHED_CALLS.values(), ids=CACHED_CALLS)
def test_openai_embeddings_from_a_cache_are_no_records(
    counting: LoopbackServer, counter: TokenCounter, memory: MemorySink, call: Call
) -> None:
    """What LlamaIndex finds in its embeddings cache was not sent, and so is not recorded."""
    cache = _warm_cache(EMBEDDERS["OpenAIEmbedding"], counting, memory)
    _embed(counter, call, EMBEDDERS["OpenAIEmbedding"](counting, embed_batch_size=BATCH, embeddings_cache=cache))

    assert embedding_truth(counting) == embedding_figures(memory.records)


def test_litellm_embedding_is_reported_where_litellm_is_not_hooked(
    counting: LoopbackServer, memory: MemorySink
) -> None:
    """A counter for LlamaIndex alone reads off the wire what LiteLLMEmbedding drops."""
    uninstall()
    counter = TokenCounter(log_dir=None, sinks=[memory], frameworks=["llama_index"])
    EMBEDDERS["LiteLLMEmbedding"](counting).get_text_embedding(TEXT)
    counter.close()

    assert embedding_truth(counting) == embedding_figures(memory.records)
    assert [Sources(embedding=Provenance.REPORTED)] == _sources(memory)


def _embed(counter: TokenCounter, call: Call, embedder: Any) -> None:
    with counter.run("embedding") as run:
        asyncio.run(call(embedder))
    assert 0 == run.summary.internal_errors


def _error(server: LoopbackServer, call: Call, embedder: Any) -> BaseException:
    server.fail_next(status=401)
    with pytest.raises(Exception, match=REFUSED) as caught:
        asyncio.run(call(embedder))
    return caught.value


def _warm_cache(build: Callable[..., Any], server: LoopbackServer, memory: MemorySink) -> SimpleKVStore:
    """Fill a cache with the texts of the first batch, and forget what that took."""
    cache = SimpleKVStore()
    build(server, embed_batch_size=BATCH, embeddings_cache=cache).get_text_embedding_batch(TEXTS[:BATCH])
    server.clear()
    memory.records.clear()
    return cache


def _sources(memory: MemorySink) -> list[Sources]:
    return [record.provenance for record in memory.records]


class _Embedding(ShapedLLM):
    """A model that embeds something while it answers, and tells so with no span of its own."""

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        dispatcher = get_dispatcher("tests.embedding")
        dispatcher.event(EmbeddingStartEvent(model_dict={"model_name": "text-embedding-3-small"}))
        dispatcher.event(EmbeddingEndEvent(chunks=["When does the library open?"], embeddings=[[0.1]]))
        return CompletionResponse(text="At nine.")


def test_an_embedding_in_the_span_of_an_llm_call_is_a_record(counter: TokenCounter, memory: MemorySink) -> None:
    """Its start is not taken for a second one of the call that is open there."""
    with counter.run("both"):
        _Embedding().complete("When?")

    assert {Operation.EMBEDDING, Operation.COMPLETION} == {record.operation for record in memory.records}
    assert 2 == len(memory.records)
