"""Which run a LlamaIndex call lands in: the innermost one of the context that made it, wherever it is read."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
from llama_index.core import Document, VectorStoreIndex

from loopback_server import LoopbackServer
from token_callbacks import TokenCounter
from token_callbacks.records import Outcome, RunSummary
from token_callbacks.runs import Run
from token_callbacks.sinks.memory import MemorySink

from .conftest import BUILDERS, EMBEDDERS, Loopback
from .methods import MESSAGES

pytestmark = pytest.mark.usefixtures("nothing_left")

INTEGRATIONS = pytest.mark.parametrize("integration", ["OpenAI", "LiteLLM"])
STREAMING = pytest.mark.parametrize("integration", ["OpenAI", "OpenAIResponses", "Anthropic", "LiteLLM"])


@pytest.fixture
def server(loopback: Loopback) -> LoopbackServer:
    """Give a server that tells the usage of every stream."""
    return loopback(stream_usage="always_last")


@pytest.fixture
def llm(server: LoopbackServer, integration: str) -> Any:
    """Give the integration under test."""
    return BUILDERS[integration](server)


@INTEGRATIONS
def test_a_call_lands_in_the_innermost_run(llm: Any, counter: TokenCounter, memory: MemorySink) -> None:
    """A call belongs to the run that was opened last, and after that one's end to the one around it."""
    with counter.run("outer") as outer:
        llm.chat(MESSAGES)
        with counter.run("inner") as inner:
            llm.chat(MESSAGES)
        llm.complete("When?")

    assert [outer.run_id, inner.run_id, outer.run_id] == _run_ids(memory)


@INTEGRATIONS
def test_the_outer_run_sums_up_the_runs_inside_it(llm: Any, server: LoopbackServer, counter: TokenCounter) -> None:
    """The outer run's own figures leave out the inner run's, and including_nested has both."""
    with counter.run("outer") as outer:
        llm.chat(MESSAGES)
        with counter.run("inner"):
            llm.chat(MESSAGES)

    own, _ = (entry.prompt_tokens for entry in server.ledger)
    truth = server.ledger_totals()
    assert (own, truth.prompt_tokens) == (
        outer.summary.llm_prompt_tokens,
        outer.summary.including_nested.llm_prompt_tokens,
    )


@INTEGRATIONS
def test_a_call_carries_the_innermost_step(llm: Any, counter: TokenCounter, memory: MemorySink) -> None:
    """A call made in a step carries its name, the inner name of two, and none outside."""
    with counter.run("answer") as run:
        llm.chat(MESSAGES)
        with run.step("draft"):
            llm.chat(MESSAGES)
            with run.step("judge"):
                llm.chat(MESSAGES)
            llm.chat(MESSAGES)

    assert [None, "draft", "judge", "draft"] == [record.step for record in memory.records]


@INTEGRATIONS
def test_a_call_outside_any_run_lands_in_the_default_run(llm: Any, counter: TokenCounter, memory: MemorySink) -> None:
    """Where no run is open, the call is counted in the counter's default run."""
    llm.chat(MESSAGES)

    assert [counter.default_run.run_id] == _run_ids(memory)


@INTEGRATIONS
def test_runs_in_one_event_loop_do_not_mix(integration: str, server: LoopbackServer, counter: TokenCounter) -> None:
    """Of runs under asyncio.gather, each has its own calls, streamed ones among them."""

    async def one(calls: int) -> Run:
        llm = BUILDERS[integration](server)
        async with counter.run(f"{calls} calls") as run:
            for _ in range(calls):
                async for _ in await llm.astream_chat(MESSAGES):
                    pass
                await llm.achat(MESSAGES)
        return run

    async def together() -> list[Run]:
        return await asyncio.gather(*map(one, (1, 2, 3)))

    runs = asyncio.run(together())

    assert [2, 4, 6] == [run.summary.calls.llm for run in runs]
    assert server.ledger_totals().completion_tokens == sum(run.summary.llm_completion_tokens for run in runs)


@INTEGRATIONS
def test_gathered_calls_of_one_run_are_all_in_its_summary(
    integration: str, server: LoopbackServer, counter: TokenCounter
) -> None:
    """A summary read right after asyncio.run has each of many calls that ran at once."""

    async def many() -> None:
        llm = BUILDERS[integration](server)
        await asyncio.gather(*(llm.achat(MESSAGES) for _ in range(30)))

    with counter.run("many") as run:
        asyncio.run(many())

    assert 30 == run.summary.calls.llm
    assert server.ledger_totals().prompt_tokens == run.summary.llm_prompt_tokens


@INTEGRATIONS
def test_tasks_of_a_group_are_where_they_were_started(
    integration: str, server: LoopbackServer, counter: TokenCounter, memory: MemorySink
) -> None:
    """A task of a TaskGroup is in the run and step of its start; the run that one of them opens is that one's alone."""

    async def read(llm: Any) -> None:
        async for _ in await llm.astream_chat(MESSAGES):
            pass

    async def in_a_run(llm: Any) -> None:
        async with counter.run("inner"):
            await llm.achat(MESSAGES)

    async def grouped() -> None:
        llm = BUILDERS[integration](server)
        async with counter.run("outer") as run, asyncio.TaskGroup() as group:
            for step in ("draft", "judge"):
                with run.step(step):
                    group.create_task(read(llm))
                    group.create_task(in_a_run(llm))
            group.create_task(read(llm))

    asyncio.run(grouped())
    told = Counter((memory.summaries[record.run_id].name, record.step) for record in memory.records)

    assert Counter({("outer", "draft"): 1, ("outer", "judge"): 1, ("outer", None): 1, ("inner", None): 2}) == told


@INTEGRATIONS
def test_a_task_that_its_group_cancels_is_in_the_groups_run(
    integration: str, server: LoopbackServer, counter: TokenCounter, memory: MemorySink
) -> None:
    """Where one task of a TaskGroup fails, the call of another one is a cancelled record of the run."""

    async def fail_after(reached: threading.Event) -> None:
        await asyncio.to_thread(reached.wait, 120)
        raise LookupError

    async def grouped() -> None:
        llm = BUILDERS[integration](server)
        with server.hold() as hold:
            async with asyncio.TaskGroup() as group:
                group.create_task(llm.achat(MESSAGES))
                group.create_task(fail_after(hold.reached))

    with counter.run("group") as run, pytest.raises(ExceptionGroup):
        asyncio.run(grouped())

    assert [(run.run_id, Outcome.CANCELLED)] == [(record.run_id, record.outcome) for record in memory.records]


def _in_thread(call: Callable[[], Any]) -> None:
    asyncio.run(asyncio.to_thread(call))


def _in_executor(call: Callable[[], Any]) -> None:
    with ThreadPoolExecutor(max_workers=1) as executor:
        executor.submit(contextvars.copy_context().run, call).result()


def _in_bare_executor(call: Callable[[], Any]) -> None:
    with ThreadPoolExecutor(max_workers=1) as executor:
        executor.submit(call).result()


@INTEGRATIONS
@pytest.mark.parametrize("elsewhere", [_in_thread, _in_executor], ids=["to_thread", "copy_context in an executor"])
def test_a_thread_with_the_context_is_in_the_run(
    llm: Any, counter: TokenCounter, memory: MemorySink, elsewhere: Callable[..., None]
) -> None:
    """A thread that got a copy of the caller's context makes its calls in the caller's run and step."""
    with counter.run("threads") as run, run.step("thread"):
        elsewhere(lambda: llm.chat(MESSAGES))
        elsewhere(lambda: list(llm.stream_chat(MESSAGES)))

    assert [(run.run_id, "thread")] * 2 == [(record.run_id, record.step) for record in memory.records]


@INTEGRATIONS
def test_a_thread_without_the_context_is_in_the_default_run(
    llm: Any, counter: TokenCounter, memory: MemorySink
) -> None:
    """A bare executor.submit passes no context on, so its call is counted in the default run."""
    with counter.run("threads"):
        _in_bare_executor(lambda: llm.chat(MESSAGES))

    assert [counter.default_run.run_id] == _run_ids(memory)


@STREAMING
def test_a_stream_belongs_to_the_run_that_opened_it(llm: Any, counter: TokenCounter, memory: MemorySink) -> None:
    """A stream that is opened in one run and read in another one is a record of the first."""
    with counter.run("opens") as opens:
        stream = llm.stream_chat(MESSAGES)
    with counter.run("reads"):
        list(stream)

    assert [opens.run_id] == _run_ids(memory)


@STREAMING
def test_an_async_stream_belongs_to_the_run_that_opened_it(llm: Any, counter: TokenCounter, memory: MemorySink) -> None:
    """An async stream that is opened in one run and read in another one is a record of the first."""

    async def open_and_read() -> str:
        async with counter.run("opens") as opens:
            stream = await llm.astream_chat(MESSAGES)
        async with counter.run("reads"):
            async for _ in stream:
                pass
        return opens.run_id

    opens = asyncio.run(open_and_read())

    assert [opens] == _run_ids(memory)


@STREAMING
def test_a_stream_read_after_its_run_puts_the_summary_right(
    llm: Any, server: LoopbackServer, counter: TokenCounter
) -> None:
    """The file of a run whose stream is read after its end is written again, with that stream in it."""
    with counter.run("opens") as run:
        llm.chat(MESSAGES)
        stream = llm.stream_chat(MESSAGES)
    before = _file_of(run)
    list(stream)
    after = _file_of(run)

    truth = server.ledger
    assert (1, truth[0].prompt_tokens) == (before.calls.llm, before.llm_prompt_tokens)
    assert (2, sum(entry.prompt_tokens for entry in truth)) == (after.calls.llm, after.llm_prompt_tokens)
    assert run.summary == after


def test_a_streaming_query_is_asked_by_the_one_who_reads_it(
    server: LoopbackServer, counter: TokenCounter, memory: MemorySink
) -> None:
    """LlamaIndex asks the model of a streaming query when its answer is first read, so the call is the reader's."""
    index = VectorStoreIndex.from_documents([Document(text="It opens at nine.")], embed_model=_embedder(server))
    with counter.run("asks"):
        engine = index.as_query_engine(streaming=True, llm=BUILDERS["OpenAI"](server))
        response = engine.query("When does the library open?")
    with counter.run("reads") as reads:
        list(response.response_gen)

    assert reads.run_id == memory.records[-1].run_id


@INTEGRATIONS
def test_every_call_of_a_decorated_function_is_a_run(llm: Any, counter: TokenCounter, memory: MemorySink) -> None:
    """A decorated function opens a run each time it is called, and returns what it returned before."""

    @counter.run("decorated")
    def ask(question: str) -> str:
        return str(llm.complete(question))

    answers = [ask("When?"), ask("Where?")]

    assert all(isinstance(answer, str) for answer in answers)
    assert 2 == len(set(_run_ids(memory)))
    assert ["decorated"] * 2 == [summary.name for summary in memory.summaries.values()]


@INTEGRATIONS
def test_every_call_of_a_decorated_coroutine_function_is_a_run(
    integration: str, server: LoopbackServer, counter: TokenCounter, memory: MemorySink
) -> None:
    """A decorated coroutine function opens a run each time it is awaited, also side by side."""

    async def together() -> None:
        llm = BUILDERS[integration](server)

        @counter.run("decorated")
        async def ask(question: str) -> None:
            async for _ in await llm.astream_complete(question):
                pass

        await asyncio.gather(ask("When?"), ask("Where?"))

    asyncio.run(together())

    assert 2 == len(set(_run_ids(memory)))
    assert [1, 1] == [summary.calls.llm for summary in memory.summaries.values()]


def _embedder(server: LoopbackServer) -> Any:
    return EMBEDDERS["OpenAIEmbedding"](server)


def _file_of(run: Run) -> RunSummary:
    path = run.summary_path
    assert path is not None
    return msgspec.json.decode(path.read_bytes(), type=RunSummary)


def _run_ids(memory: MemorySink) -> list[str]:
    return [record.run_id for record in memory.records]
