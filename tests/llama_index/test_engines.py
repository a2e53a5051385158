"""Indexes, query engines and chat engines: a record for each request they make, in the run they were asked in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.chat_engine.types import ChatMode
from llama_index.core.response_synthesizers import ResponseMode

from loopback_server import LoopbackServer
from token_callbacks import TokenCounter
from token_callbacks.runs import Run
from token_callbacks.sinks.memory import MemorySink

from .conftest import BUILDERS, EMBEDDERS, Loopback
from .figures import llm_figures, llm_truth

pytestmark = pytest.mark.usefixtures("nothing_left")

Ask = Callable[[Any], Awaitable[Any]]
"""Asks an engine once, reads the answer to its end, and gives it; a streamed one with its pieces."""

QUESTION = "When does the library open?"
DOCUMENTS = [Document(text=f"The library's floor {number} opens at {number + 6}.") for number in (1, 2, 3)]
INTEGRATIONS = pytest.mark.parametrize("integration", ["OpenAI", "LiteLLM"])


@pytest.fixture
def server(loopback: Loopback) -> LoopbackServer:
    """Give a server that tells the usage of a stream though LlamaIndex's OpenAI class does not ask for it."""
    return loopback(stream_usage="always_last")


async def _query(engine: Any) -> Any:
    return engine.query(QUESTION)


async def _aquery(engine: Any) -> Any:
    return await engine.aquery(QUESTION)


async def _streaming_query(engine: Any) -> Any:
    response = engine.query(QUESTION)
    return response, list(response.response_gen)


async def _streaming_aquery(engine: Any) -> Any:
    response = await engine.aquery(QUESTION)
    return response, [piece async for piece in response.async_response_gen()]


QUERIES: dict[str, tuple[Ask, dict[str, Any]]] = {
    "query": (_query, {}),
    "aquery": (_aquery, {}),
    "streaming query": (_streaming_query, {"streaming": True}),
    "streaming aquery": (_streaming_aquery, {"streaming": True}),
    "tree_summarize": (_aquery, {"response_mode": ResponseMode.TREE_SUMMARIZE, "use_async": True}),
    "refine": (_query, {"response_mode": ResponseMode.REFINE}),
}


async def _chat(engine: Any) -> Any:
    return engine.chat(QUESTION)


async def _achat(engine: Any) -> Any:
    return await engine.achat(QUESTION)


async def _stream_chat(engine: Any) -> Any:
    response = engine.stream_chat(QUESTION)
    return response, list(response.response_gen)


async def _astream_chat(engine: Any) -> Any:
    response = await engine.astream_chat(QUESTION)
    return response, [piece async for piece in response.async_response_gen()]


CHATS: dict[str, Ask] = {
    "chat": _chat,
    "achat": _achat,
    "stream_chat": _stream_chat,
    "astream_chat": _astream_chat,
}
MODES = [
    ChatMode.SIMPLE,
    ChatMode.CONTEXT,
    ChatMode.CONDENSE_QUESTION,
    ChatMode.CONDENSE_PLUS_CONTEXT,
    ChatMode.BEST,
]


@INTEGRATIONS
@pytest.mark.parametrize(("ask", "options"), QUERIES.values(), ids=QUERIES)
def test_a_query_is_a_record_for_each_request_in_its_run(
    server: LoopbackServer,
    counter: TokenCounter,
    memory: MemorySink,
    *,
    integration: str,
    ask: Ask,
    options: dict[str, Any],
) -> None:
    """Indexing and one query leave a record for each embedding and LLM request, all in the run around them."""
    with counter.run("question") as run:
        engine = _index(server, integration).as_query_engine(llm=BUILDERS[integration](server), **options)
        asyncio.run(ask(engine))

    _check(server, memory, run)


@INTEGRATIONS
@pytest.mark.parametrize("ask", CHATS.values(), ids=CHATS)
@pytest.mark.parametrize("mode", MODES)
def test_two_turns_of_a_chat_engine_are_a_record_for_each_request(
    server: LoopbackServer, counter: TokenCounter, memory: MemorySink, *, integration: str, mode: ChatMode, ask: Ask
) -> None:
    """Two turns, of which the second may condense the first, leave a record for each request they made."""

    async def two_turns(engine: Any) -> None:
        await ask(engine)
        await ask(engine)

    index = _index(server, integration)
    server.clear()
    memory.records.clear()
    with counter.run("chat") as run:
        asyncio.run(two_turns(index.as_chat_engine(mode, llm=BUILDERS[integration](server))))

    _check(server, memory, run)


@INTEGRATIONS
def test_the_summary_in_the_block_has_what_was_asked_so_far(
    server: LoopbackServer, counter: TokenCounter, integration: str
) -> None:
    """A summary read inside the run has every call that has returned by then."""
    index = _index(server, integration)
    server.clear()
    with counter.run("question") as run:
        engine = index.as_query_engine(llm=BUILDERS[integration](server))
        engine.query(QUESTION)
        actual = run.summary.llm_prompt_tokens, run.summary.llm_completion_tokens
        truth = server.ledger_totals()
        engine.query(QUESTION)

    assert (truth.prompt_tokens, truth.completion_tokens) == actual


def _index(server: LoopbackServer, integration: str) -> Any:
    return VectorStoreIndex.from_documents(
        DOCUMENTS, embed_model=EMBEDDERS[f"{integration}Embedding"](server, embed_batch_size=2)
    )


def _check(server: LoopbackServer, memory: MemorySink, run: Run) -> None:
    summary = run.summary
    truth = server.ledger_totals()

    assert sorted(llm_truth(server)) == sorted(llm_figures(memory.records))
    assert len(server.ledger) == len(memory.records)
    assert {run.run_id} == {record.run_id for record in memory.records}
    assert (truth.prompt_tokens, truth.completion_tokens) == (
        summary.llm_prompt_tokens,
        summary.llm_completion_tokens,
    )
    assert (0, False) == (summary.internal_errors, summary.lower_bound)
