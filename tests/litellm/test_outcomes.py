"""How a call of LiteLLM can end but well, as a table: each way to call it, against each way to end.

What is read to its end is in ``test_calls``. Not in the table, since LiteLLM 1.106.2 has no such thing: a sync stream
is not closed (it has no ``close``) and not cancelled; the streams of text completion and of the Responses API have no
``aclose``, and that of ``anthropic_messages`` tells nobody of it: its record comes when the garbage collector does.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, suppress
from importlib.util import find_spec
from typing import Any

import litellm
import pytest
from litellm.integrations.custom_logger import CustomLogger

from loopback_server import CANNED, CountedTokens, Endpoint, LoopbackServer, pieces_of
from token_callbacks import Run, TokenCounter
from token_callbacks.counting import count_completion
from token_callbacks.records import CallRecord, Outcome, Provenance, RunOutcome
from token_callbacks.sinks.memory import MemorySink

from .calls import CHAT, EMBEDDINGS, MESSAGES, PLAIN, STREAMS, TEXT, Case

EVENTS = 9
"""So many have been sent when a stream is left, cut or held: more than the opening ones of any of the dialects."""

OPENING: dict[Endpoint, int] = {"chat": 1, "completions": 0, "responses": 4, "messages": 3}
"""Events without text at the start of a stream."""

PROMPTS: dict[Endpoint, Provenance] = {
    "chat": Provenance.COUNTED,
    "completions": Provenance.COUNTED,
    "responses": Provenance.COUNTED,
    "messages": Provenance.REPORTED,
}
"""Where the prompt's figure of a stream that has no end comes from: Anthropic tells it in the first event."""

TIMEOUT_SECONDS = 0.8

PATIENCE_SECONDS = 60.0


class ReaderError(Exception):
    """What a reader of a stream raises on its own account."""


def _marks(case: Case) -> tuple[pytest.MarkDecorator, ...]:
    if case.name != "anthropic_messages streamed" or find_spec("litellm_proxy_extras") is not None:
        return ()
    return (pytest.mark.skip(reason="LiteLLM 1.106.2 streams anthropic_messages only with litellm[proxy]"),)


def _is_async(case: Case) -> bool:
    return inspect.iscoroutinefunction(case.call)


def _params(cases: list[Case]) -> Any:
    return pytest.mark.parametrize("case", [pytest.param(case, id=case.name, marks=_marks(case)) for case in cases])


ASYNC_STREAMS = [case for case in STREAMS if _is_async(case)]
CLOSED_STREAMS = [case for case in ASYNC_STREAMS if "acompletion" in case.name]
EMBEDDING_CALLS = [
    case for case in EMBEDDINGS if case.name.endswith(("string", "router_embedding", "router_aembedding"))
]
SENT_WHEN_READ = [case for case in STREAMS if "text_completion" in case.name]
SENT_AT_ONCE = [case for case in STREAMS if case not in SENT_WHEN_READ]
ASYNC_SENT_AT_ONCE = [case for case in SENT_AT_ONCE if _is_async(case)]


@pytest.fixture(scope="session")
def counted_tokens() -> CountedTokens:
    """Give the figures that a provider reports who counts as OpenAI does."""
    return CountedTokens()


@pytest.fixture
def server(loopback: Any, counted_tokens: CountedTokens) -> LoopbackServer:
    """Give a server whose prompts our count can equal."""
    server: LoopbackServer = loopback(tokens=counted_tokens)
    return server


# --- streams


@_params(STREAMS)
def test_a_stream_that_is_dropped_is_abandoned(
    server: LoopbackServer, counter: TokenCounter, memory: MemorySink, case: Case
) -> None:
    """Whoever leaves a stream half read and forgets it has its record once the garbage collector has been by."""
    with counter.run("dropped") as run, server.hold(after_chunks=EVENTS):
        _drop(case, server, _collector(run, memory), is_read=True)

    # A task of LiteLLM (1.106.2) holds a stream of anthropic_messages, and the loop that ends cancels what is in it.
    may_end = (Outcome.ABANDONED, Outcome.CANCELLED) if "_messages" in case.name else (Outcome.ABANDONED,)
    assert _only(memory, run).outcome in may_end
    _assert_partial(memory, server)


@_params(CLOSED_STREAMS)
def test_a_stream_that_is_closed_is_abandoned(
    server: LoopbackServer, counter: TokenCounter, memory: MemorySink, case: Case
) -> None:
    """``aclose`` ends the call, and with it the provider's work, before the garbage collector comes by."""
    with counter.run("closed") as run, server.hold(after_chunks=EVENTS):
        asyncio.run(_close_half_read(case, server))

    assert Outcome.ABANDONED is _only(memory, run).outcome
    _assert_partial(memory, server)


@_params(CLOSED_STREAMS)
def test_a_reader_who_fails_and_closes_his_stream_has_abandoned_it(
    server: LoopbackServer, counter: TokenCounter, memory: MemorySink, case: Case
) -> None:
    """His exception is not the stream's."""
    with counter.run("closed") as run, server.hold(after_chunks=EVENTS), pytest.raises(ReaderError):
        asyncio.run(_close_half_read(case, server, error=ReaderError()))

    record = _only(memory, run)
    assert (Outcome.ABANDONED, None) == (record.outcome, record.error)
    _assert_partial(memory, server)


@_params(CLOSED_STREAMS)
def test_a_stream_that_is_closed_at_its_end_has_its_end(
    server: LoopbackServer, counter: TokenCounter, memory: MemorySink, case: Case
) -> None:
    """``aclosing`` closes what was read to its end too."""

    async def read() -> None:
        async with aclosing(await case.call(server, stream=True)) as stream:
            async for _ in stream:
                pass

    with counter.run("closed") as run:
        asyncio.run(read())

    record = _only(memory, run)
    assert (Outcome.COMPLETED, Provenance.REPORTED) == (record.outcome, record.provenance.completion)


@_params(ASYNC_STREAMS)
def test_a_cancelled_reader_leaves_a_cancelled_record(
    server: LoopbackServer, counter: TokenCounter, memory: MemorySink, case: Case
) -> None:
    """As a web server cancels the request of a browser that has gone."""
    with counter.run("cancelled") as run, server.hold(after_chunks=EVENTS):
        asyncio.run(_cancel_once_read(functools.partial(_read_on, case, server)))

    assert Outcome.CANCELLED is _only(memory, run).outcome
    _assert_partial(memory, server)


@_params(CLOSED_STREAMS)
def test_a_cancelled_reader_who_closes_his_stream_leaves_a_cancelled_record(
    server: LoopbackServer, counter: TokenCounter, memory: MemorySink, case: Case
) -> None:
    """With ``aclosing``, and the run inside the task that is cancelled."""

    async def read(has_text: asyncio.Event) -> None:
        async with counter.run("cancelled"), aclosing(await case.call(server, stream=True)) as stream:
            await _read_some(stream, server)
            has_text.set()
            await anext(stream)

    with server.hold(after_chunks=EVENTS):
        asyncio.run(_cancel_once_read(read))

    [summary] = memory.summaries.values()
    assert [Outcome.CANCELLED] == [record.outcome for record in memory.records]
    assert (1, RunOutcome.CANCELLED) == (summary.calls.abandoned, summary.outcome)
    _assert_partial(memory, server)


@pytest.mark.parametrize("fault", ["cut_after", "error_after"])
@_params(STREAMS)
def test_a_stream_that_breaks_has_failed(
    server: LoopbackServer, counter: TokenCounter, memory: MemorySink, *, case: Case, fault: str
) -> None:
    """LiteLLM tells of the failure on a thread or task of its own, later than its reader sees it, or never."""
    server.fail_next(**{fault: EVENTS})
    with counter.run("broken") as run, suppress(Exception):
        case.run(server)

    record = _only(memory, run)
    assert Outcome.FAILED is record.outcome
    assert record.error
    _assert_partial(memory, server)


@_params(STREAMS)
def test_a_stream_that_stalls_has_failed(
    server: LoopbackServer, counter: TokenCounter, memory: MemorySink, case: Case
) -> None:
    """``timeout=`` is the longest time between two pieces; what came before was used."""
    with counter.run("stalled") as run, server.hold(after_chunks=EVENTS), suppress(Exception):
        case.run(server, timeout=TIMEOUT_SECONDS)

    record = _only(memory, run)
    assert Outcome.FAILED is record.outcome
    assert "Time" in str(record.error)
    _assert_partial(memory, server)


@_params(SENT_WHEN_READ)
def test_a_stream_that_is_never_read_was_not_started(
    server: LoopbackServer, counter: TokenCounter, memory: MemorySink, case: Case
) -> None:
    """LiteLLM 1.106.2 sends the request of a text completion with the first chunk: what nobody reads costs nothing."""
    with counter.run("never read") as run:
        _drop(case, server, _collector(run, memory), is_read=False)

    assert [] == server.ledger
    assert Outcome.NOT_STARTED is _only(memory, run).outcome
    assert (False, 0) == (run.summary.lower_bound, run.summary.total_llm_tokens)


@_params(SENT_WHEN_READ)
@pytest.mark.parametrize("is_shared", [False, True], ids=["alone", "beside another counter"])
def test_a_stream_that_is_held_unread_when_its_counter_closes_was_not_started(
    server: LoopbackServer,
    new_counter: Callable[..., TokenCounter],
    memory: MemorySink,
    case: Case,
    is_shared: bool,
) -> None:
    """So too for the counter that closes while another one waits on."""
    counter = new_counter(sinks=[memory])
    _ = new_counter() if is_shared else None
    with counter.run("held") as run:
        answer = case.call(server, stream=True)
        _held = asyncio.run(answer) if inspect.iscoroutine(answer) else answer
    counter.close()

    assert [] == server.ledger
    assert Outcome.NOT_STARTED is _only(memory, run).outcome
    assert not run.summary.lower_bound


@_params([case for case in SENT_AT_ONCE if not _is_async(case)])
def test_a_counter_that_closes_does_not_spoil_what_another_one_is_told(
    server: LoopbackServer, new_counter: Callable[..., TokenCounter], memory: MemorySink, case: Case
) -> None:
    """It takes what had come by then; the provider's last word comes after that."""
    _counter, other = new_counter(sinks=[memory]), new_counter()
    stream = case.call(server, stream=True)
    next(stream)
    other.close()
    for _ in stream:
        pass
    _wait(lambda: bool(memory.records))

    [record], [entry] = memory.records, server.ledger
    assert (Outcome.COMPLETED, Provenance.REPORTED) == (record.outcome, record.provenance.weakest)
    told = record.usage.prompt_tokens, record.usage.completion_tokens
    assert (entry.prompt_tokens, entry.completion_tokens) == told


@_params(SENT_AT_ONCE)
def test_a_stream_that_is_sent_and_never_read_is_abandoned(
    server: LoopbackServer, counter: TokenCounter, memory: MemorySink, case: Case
) -> None:
    """The others send it with the call itself, so what nobody read was used all the same: its prompt, at the least."""
    with counter.run("never read") as run, server.hold(after_chunks=EVENTS):
        _drop(case, server, _collector(run, memory), is_read=False)

    assert Outcome.ABANDONED is _only(memory, run).outcome
    _assert_prompt_alone(memory, server)
    assert run.summary.lower_bound


@_params(ASYNC_SENT_AT_ONCE)
def test_a_reader_who_is_cancelled_before_anything_came_has_sent_his_prompt(
    server: LoopbackServer, counter: TokenCounter, memory: MemorySink, case: Case
) -> None:
    """As one who has waited long enough for a model that thinks."""

    async def read(has_begun: asyncio.Event) -> None:
        stream = await case.call(server, stream=True)
        has_begun.set()
        async for _ in stream:
            pass

    with counter.run("cancelled") as run, server.hold(after_chunks=1):
        asyncio.run(_cancel_once_read(read))

    assert _only(memory, run).outcome in (Outcome.ABANDONED, Outcome.CANCELLED)
    _assert_prompt_alone(memory, server)


def test_a_stream_of_a_mock_that_is_dropped_is_abandoned(counter: TokenCounter, memory: MemorySink) -> None:
    """A mock asks nobody: that no request of it was seen tells nothing."""
    with counter.run("mock") as run:
        litellm.completion(model=CHAT, messages=MESSAGES, mock_response=TEXT, stream=True)
        _wait(_collector(run, memory))

    assert Outcome.ABANDONED is _only(memory, run).outcome


# --- calls, streamed or not, that have no answer


@pytest.mark.parametrize("status", [401, 500])
@_params(PLAIN + STREAMS)
def test_a_refused_call_has_failed(
    server: LoopbackServer, counter: TokenCounter, memory: MemorySink, *, case: Case, status: int
) -> None:
    """What the provider refuses costs nothing that anybody could tell."""
    _assert_fails(server, counter, memory, case=case, status=status)


@_params(SENT_WHEN_READ)
def test_a_refused_text_stream_names_what_the_client_raised(
    server: LoopbackServer, counter: TokenCounter, memory: MemorySink, case: Case
) -> None:
    """Not what that one caught before: LiteLLM (1.106.2) wraps the client's exception, save where it is async."""
    server.fail_next(status=429)
    with counter.run("refused") as run, suppress(Exception):
        case.run(server)

    assert "RateLimitError" == _only(memory, run).error


@_params(EMBEDDING_CALLS)
def test_a_refused_embedding_has_failed(
    server: LoopbackServer, counter: TokenCounter, memory: MemorySink, case: Case
) -> None:
    """Not so with 500: LiteLLM 1.106.2 has an embedding tried again, whatever ``max_retries`` says."""
    _assert_fails(server, counter, memory, case=case, status=401)


def _assert_fails(
    server: LoopbackServer, counter: TokenCounter, memory: MemorySink, *, case: Case, status: int
) -> None:
    server.fail_next(status=status)
    with counter.run("refused") as run, suppress(Exception):
        case.run(server)

    assert [status] == [entry.status for entry in server.ledger]
    record = _only(memory, run)
    assert Outcome.FAILED is record.outcome
    assert record.error
    _assert_nothing_came(record)


@_params(PLAIN + STREAMS + EMBEDDING_CALLS)
def test_a_call_that_waits_too_long_has_failed(
    server: LoopbackServer, counter: TokenCounter, memory: MemorySink, case: Case
) -> None:
    """A request whose answer does not begin within ``timeout=`` has failed, and nobody knows what it cost."""
    with counter.run("late") as run, server.hold(), suppress(Exception):
        case.run(server, timeout=TIMEOUT_SECONDS)

    # One, save for embeddings: see above.
    summary = run.summary
    assert (
        len(server.ledger) == len(memory.records) == summary.calls.failed == summary.calls.llm + summary.calls.embedding
    )
    for record in memory.records:
        assert Outcome.FAILED is record.outcome
        assert "Time" in str(record.error)
        _assert_nothing_came(record)
    assert summary.lower_bound


@_params([case for case in PLAIN + STREAMS + EMBEDDING_CALLS if _is_async(case)])
def test_a_call_that_is_cancelled_before_its_answer_leaves_a_cancelled_record(
    server: LoopbackServer, counter: TokenCounter, memory: MemorySink, case: Case
) -> None:
    """LiteLLM tells nobody of it: the record is there when the run ends, and not when the garbage goes."""

    async def cancel() -> None:
        async with counter.run("cancelled"):
            calling = asyncio.create_task(case.read_async(server))
            await asyncio.to_thread(hold.reached.wait, 120)
            await _cancel(calling)

    gc.disable()
    try:
        with server.hold() as hold:
            asyncio.run(cancel())
            records = list(memory.records)
    finally:
        gc.enable()

    [summary] = memory.summaries.values()
    assert [(Outcome.CANCELLED, "CancelledError")] == [(record.outcome, record.error) for record in records]
    assert (1, True) == (summary.calls.abandoned, summary.lower_bound)
    _assert_nothing_came(records[0])


@_params([case for case in PLAIN if _is_async(case) and "text_completion" in case.name])
def test_a_call_that_is_cancelled_before_it_is_sent_was_not_started(
    server: LoopbackServer, counter: TokenCounter, memory: MemorySink, case: Case
) -> None:
    """LiteLLM announces that of a text completion on a thread, and comes back to the loop to send it."""

    async def cancel() -> None:
        calling = asyncio.create_task(case.read_async(server))
        canceller = _Canceller(calling)
        litellm.callbacks.append(canceller)
        try:
            await asyncio.gather(calling, return_exceptions=True)
        finally:
            litellm.callbacks.remove(canceller)

    with counter.run("cancelled") as run:
        asyncio.run(cancel())
        _wait(_collector(run, memory))

    assert [] == server.ledger
    assert Outcome.NOT_STARTED is _only(memory, run).outcome
    assert (False, 0) == (run.summary.lower_bound, run.summary.total_llm_tokens)


class _Canceller(CustomLogger):
    """Cancels a task when LiteLLM announces its request."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        super().__init__()
        self._cancels: list[Callable[[], object]] = [task.cancel]
        self._loop = asyncio.get_running_loop()

    def log_pre_api_call(self, model: Any, messages: Any, kwargs: Any) -> None:
        # Once: LiteLLM keeps its handlers, and the task has everything of the call.
        while self._cancels:
            self._loop.call_soon_threadsafe(self._cancels.pop())


# --- how it is done


def _drop(case: Case, server: LoopbackServer, is_collected: Callable[[], bool], *, is_read: bool) -> None:
    """Make a call, read what came of its stream or nothing, and forget it.

    LiteLLM (1.106.2) tells of each chunk of a sync stream on a thread, which holds on to the stream until then.
    """
    if _is_async(case):
        asyncio.run(_drop_async(case, server, is_read=is_read))
    else:
        stream = case.call(server, stream=True)
        said = ""
        while is_read and (not said or said != _sent(server)):
            said += _said(next(stream))
        del stream
    _wait(is_collected)


async def _drop_async(case: Case, server: LoopbackServer, *, is_read: bool) -> None:
    stream = await case.call(server, stream=True)
    if is_read:
        await _read_some(stream, server)
    del stream
    gc.collect()
    for _ in range(10):  # the loop closes the async generators that were dropped
        await asyncio.sleep(0)


def _wait(is_over: Callable[[], bool]) -> None:
    while not is_over():
        threading.Event().wait(0.01)


def _collector(run: Run, memory: MemorySink) -> Callable[[], bool]:
    """Return what collects the garbage, and tells whether the record is there, or has not come in a long time."""
    latest = time.monotonic() + PATIENCE_SECONDS

    def is_collected() -> bool:
        gc.collect()
        _ = run.summary  # which closes what has gone
        return bool(memory.records) or time.monotonic() > latest

    return is_collected


async def _close_half_read(case: Case, server: LoopbackServer, *, error: Exception | None = None) -> None:
    async with aclosing(await case.call(server, stream=True)) as stream:
        await _read_some(stream, server)
        if error is not None:
            raise error


async def _read_on(case: Case, server: LoopbackServer, has_text: asyncio.Event) -> None:
    stream = await case.call(server, stream=True)
    await _read_some(stream, server)
    has_text.set()
    async for _ in stream:
        pass


async def _read_some(stream: AsyncIterator[Any], server: LoopbackServer) -> None:
    """Read all that the server has sent before it waits."""
    said = ""
    while not said or said != _sent(server):
        said += _said(await anext(stream))


async def _cancel_once_read(read: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    has_text = asyncio.Event()
    reading = asyncio.create_task(read(has_text))
    waiting = asyncio.create_task(has_text.wait())
    await asyncio.wait((reading, waiting), return_when=asyncio.FIRST_COMPLETED)
    await _cancel(reading)


async def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def _sent(server: LoopbackServer) -> str:
    """Join the text of the first events."""
    endpoint = server.ledger[0].endpoint
    return "".join(pieces_of(CANNED)[: EVENTS - OPENING[endpoint]])


def _said(chunk: Any) -> str:
    """Take the text out of a chunk, of whatever kind."""
    if isinstance(chunk, bytes):
        told = [json.loads(line[6:]) for line in chunk.decode().splitlines() if line.startswith("data: {")]
        return "".join(part.get("delta", {}).get("text", "") for part in told)
    if (delta := getattr(chunk, "delta", None)) is not None:
        return delta if isinstance(delta, str) else ""
    choices = getattr(chunk, "choices", None) or ()
    return "".join(
        getattr(choice, "text", None) or getattr(choice.get("delta"), "content", None) or "" for choice in choices
    )


def _only(memory: MemorySink, run: Run) -> CallRecord:
    """Return the one record, once it is in the summary that the run has ended with."""
    summary = run.summary
    [record] = memory.records
    counts = summary.calls
    assert 1 == counts.llm + counts.embedding
    assert int(record.outcome is Outcome.FAILED) == counts.failed
    assert int(record.outcome in (Outcome.ABANDONED, Outcome.CANCELLED)) == counts.abandoned
    assert (record.usage.prompt_tokens or 0) == summary.llm_prompt_tokens
    assert (record.usage.completion_tokens or 0) == summary.llm_completion_tokens
    assert 0 == summary.internal_errors
    return record


def _assert_partial(memory: MemorySink, server: LoopbackServer) -> None:
    """Assert that a record has the whole prompt, and the text that came."""
    [record] = memory.records
    [entry] = server.ledger
    assert (PROMPTS[entry.endpoint], Provenance.PARTIAL) == (record.provenance.prompt, record.provenance.completion)
    assert entry.prompt_tokens == record.usage.prompt_tokens
    came = count_completion(model=record.model, text=_sent(server), is_at_limit=True)
    assert came.tokens == record.usage.completion_tokens
    assert record.streamed


def _assert_prompt_alone(memory: MemorySink, server: LoopbackServer) -> None:
    """Assert that a record has the whole prompt, and of the completion what can be told with none of it there."""
    [record] = memory.records
    [entry] = server.ledger
    assert Provenance.PARTIAL is record.provenance.completion
    if record.provenance.prompt is Provenance.ESTIMATED:
        assert ("messages", True) == (entry.endpoint, bool(record.usage.prompt_tokens))
    else:
        assert PROMPTS[entry.endpoint] is record.provenance.prompt
        assert entry.prompt_tokens == record.usage.prompt_tokens


def _assert_nothing_came(record: CallRecord) -> None:
    usage = record.usage
    assert (None, None, None) == (usage.prompt_tokens, usage.completion_tokens, usage.embedding_tokens)
