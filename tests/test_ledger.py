"""What the ledger owes its callers when evidence breaks, a counter closes on a long call, or the process forks."""

from __future__ import annotations

import contextvars
import functools
import gc
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import msgspec
import pytest

from token_callbacks import TokenCounter
from token_callbacks.evidence import Names
from token_callbacks.ledger import (
    INLINE_CHARACTERS,
    Draft,
    OpenCall,
    is_inside,
    process_ledger,
    running_call,
    running_for,
)
from token_callbacks.records import CallRecord, Operation, Outcome, Provenance
from token_callbacks.sinks.memory import MemorySink
from token_callbacks.usage import Reading

from .calls import Told, make_call, open_call


class _Broken(Told):
    def reading(self, operation: Operation) -> Reading | None:
        raise ZeroDivisionError


def test_broken_evidence_of_a_wrapper_does_not_reach_who_closes_it(counter: TokenCounter, memory: MemorySink) -> None:
    """What a wrapper's evidence raises is counted as ours, and the call inside still has its end and its record."""
    ledger = process_ledger()
    with counter.run("broken") as run:
        outer = open_call()
        inner = ledger.open_call(
            ledger.origin("litellm", outer), framework="litellm", operation=Operation.CHAT, provider=None, model="m"
        )
        ledger.close_call(outer, outcome=Outcome.COMPLETED, evidence=[_Broken(None)])
        make_call(prompt=3, completion=4, call=inner)

    assert [7] == [
        (record.usage.prompt_tokens or 0) + (record.usage.completion_tokens or 0) for record in memory.records
    ]
    assert 1 == run.summary.internal_errors


class _Misnamed(Told):
    def names(self) -> Names:
        raise ZeroDivisionError


MOMENT = datetime(2026, 11, 22, tzinfo=UTC)
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


@pytest.mark.parametrize("around", ["nothing", "a wrapper", "a failed request inside", "a request inside"])
@pytest.mark.parametrize(
    "witness",
    [
        Told(USAGE),
        Told({**USAGE, "service_tier": "flex"}),
        Told({"prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3}, text="Hello, librarian."),
        Told({"prompt_tokens": 3, "completion_tokens": 20_000_000, "total_tokens": 20_000_003}),
        Told(None, text="Hello, librarian.", messages=[{"role": "user", "content": "When does it open?"}]),
        Told(None),
        _Broken(None),
        _Misnamed(USAGE),
        None,
    ],
    ids=["told", "and more", "0", "doubtful", "not told", "nothing", "broken", "misnamed", "no evidence"],
)
def test_an_llm_call_that_is_closed_the_short_way_leaves_what_it_leaves_the_long_way(
    witness: Told | None, around: str
) -> None:
    """``close_llm`` says of every call what ``close_call`` says."""
    short, long = (_left_of(witness, around, is_short=is_short) for is_short in (True, False))

    assert long == short


def _left_of(witness: Told | None, around: str, *, is_short: bool) -> object:
    ledger, memory = process_ledger(), MemorySink()
    counter = TokenCounter(log_dir=None, sinks=[memory])
    runs, listener = [], _Listener()
    for _ in range(3):  # the first of its kind is read the general way
        with counter.run("one") as run:
            runs.append(run)
            outer = open_call() if around == "a wrapper" else None
            call = _open_inside(outer)
            call.evidence = witness
            (outer or call).listeners.append(listener)
            if around.endswith("request inside"):
                inner = _open_inside(call)
                inner.failure = "HTTP 500" if "failed" in around else None
                inner.ends_with_outer = True
            if is_short:
                ledger.close_llm(call)
                ledger.close_llm(call)
            else:
                ledger.close_call(call, outcome=Outcome.COMPLETED)
            if outer is not None:
                ledger.close_call(outer, outcome=Outcome.COMPLETED)
        assert not ledger._under_way
    counter.close()
    assert len(memory.records) >= len(runs)
    sums = [(run.totals.four, run.totals.calls, run.summary.internal_errors) for run in runs]
    return sums, [draft.usage for draft in listener.received], [_alike(record) for record in memory.records]


def _open_inside(outer: OpenCall | None) -> OpenCall:
    ledger = process_ledger()
    return ledger.open_call(
        ledger.origin("litellm", outer), framework="litellm", operation=Operation.CHAT, provider=None, model="gpt-4o"
    )


def _alike(record: CallRecord) -> CallRecord:
    """Leave out what tells two calls apart."""
    return msgspec.structs.replace(
        record, call_id="", logical_call_id="", run_id="", started_at=MOMENT, ended_at=MOMENT
    )


def test_a_call_that_is_recorded_by_itself_can_be_the_first_attempt_of_several(
    counter: TokenCounter, memory: MemorySink
) -> None:
    """What its framework makes later, of the same call of the host's, is told together with it."""
    call = open_call()
    process_ledger().close_call(call, outcome=Outcome.FAILED)

    assert [call.logical_call_id] == [record.call_id for record in memory.records]


def test_evidence_is_asked_for_its_usage_once(counter: TokenCounter) -> None:
    """What a call was found not to tell is not looked for again."""
    witness = _Counting(None, text="Hello, librarian.", messages=[{"role": "user", "content": "When does it open?"}])
    with counter.run("one"):
        call = open_call()
        call.evidence = witness
        process_ledger().close_llm(call)

    assert 1 == witness.times


class _Counting(Told):
    times = 0

    def reading(self, operation: Operation) -> Reading | None:
        self.times += 1
        return super().reading(operation)


class _Listener:
    def __init__(self) -> None:
        self.received: list[Draft] = []

    def receive(self, draft: Draft) -> None:
        self.received.append(draft)


@pytest.mark.parametrize("around", ["nothing", "a failed request inside"])
@pytest.mark.parametrize("is_short", [True, False], ids=["short", "long"])
def test_a_counter_that_lets_go_while_a_call_is_being_closed_has_it_once(around: str, is_short: bool) -> None:
    """Whoever comes first, the closing of the counter or of the call: one record, for this counter and for others."""
    sinks = [MemorySink(), MemorySink()]
    leaving, staying = (TokenCounter(log_dir=None, sinks=[sink]) for sink in sinks)
    call = open_call()
    call.evidence = _Leaving(USAGE, lambda: process_ledger().abandon(leaving))
    if around != "nothing":
        _open_inside(call).failure = "HTTP 500"
    if is_short:
        process_ledger().close_llm(call)
    else:
        process_ledger().close_call(call, outcome=Outcome.COMPLETED)
    leaving.close()
    staying.close()

    told = [[(record.usage.prompt_tokens, record.outcome) for record in sink.records] for sink in sinks]
    assert [[(3, Outcome.COMPLETED)]] * 2 == [[figure for figure in figures if figure[0]] for figures in told]


@pytest.mark.parametrize("is_short", [True, False], ids=["short", "long"])
def test_a_call_whose_closing_was_interrupted_is_waited_for_by_nobody(counter: TokenCounter, is_short: bool) -> None:
    """Ctrl-C in the host's code that evidence runs through ends the call, and goes on to the host."""
    call = open_call()
    call.evidence = _Leaving(USAGE, _interrupt)
    ledger = process_ledger()
    close = ledger.close_llm if is_short else functools.partial(ledger.close_call, outcome=Outcome.COMPLETED)
    with pytest.raises(KeyboardInterrupt):
        close(call)

    assert call not in process_ledger()._under_way


def test_of_two_calls_of_one_moment_the_inner_one_is_inside(counter: TokenCounter) -> None:
    """A clock ticks every 16 ms on some systems."""
    outer = open_call()
    inner = _open_inside(outer)
    inner.started_at = outer.started_at

    assert is_inside(inner, outer)
    assert not is_inside(outer, inner)


def test_code_that_is_closed_elsewhere_leaves_what_runs_there(counter: TokenCounter) -> None:
    """As a coroutine that nobody awaited to its end, which the garbage collector closes in anybody's context."""

    async def run() -> None:
        with running_for(open_call()):
            await _Forever()

    left, call = run(), open_call()
    contextvars.copy_context().run(left.send, None)
    with running_for(call):
        left.close()
        assert running_call() is call

    assert running_call() is None


class _Forever:
    def __await__(self) -> Iterator[None]:
        yield


def test_a_request_that_is_being_read_is_nobody_elses_to_close(counter: TokenCounter, memory: MemorySink) -> None:
    """Another thread that comes to its end meanwhile, a drain or a counter that closes, finds it taken."""
    ledger, call = process_ledger(), open_call()
    request = _open_inside(call)
    request.ends_with_outer = True
    request.evidence = _Leaving(USAGE, lambda: ledger.close_call(request, outcome=Outcome.ABANDONED))
    ledger.close_call(call, outcome=Outcome.COMPLETED)

    [record] = memory.records
    assert (Outcome.COMPLETED, Provenance.REPORTED) == (record.outcome, record.provenance.prompt)
    assert not {call, request} & set(ledger._under_way)


def test_a_request_whose_reading_is_interrupted_is_waited_for_by_nobody(counter: TokenCounter) -> None:
    """Nor is the call around it."""
    ledger, call = process_ledger(), open_call()
    request = _open_inside(call)
    request.ends_with_outer = True
    request.evidence = _Leaving(USAGE, _interrupt)
    with pytest.raises(KeyboardInterrupt):
        ledger.close_call(call, outcome=Outcome.COMPLETED)

    assert not {call, request} & set(ledger._under_way)


def test_a_call_whose_closing_was_interrupted_at_once_is_waited_for_by_nobody(counter: TokenCounter) -> None:
    """Before anything was read of it."""
    call = open_call()
    call.evidence = _Unlike(USAGE)
    with pytest.raises(KeyboardInterrupt):
        process_ledger().close_call(call, outcome=Outcome.COMPLETED, evidence=[Told(USAGE)])

    assert call not in process_ledger()._under_way


def _interrupt() -> None:
    raise KeyboardInterrupt


class _Unlike(Told):
    """Evidence that is compared when Ctrl-C comes."""

    __hash__ = Told.__hash__

    def __eq__(self, other: object) -> bool:
        _interrupt()
        return False


class _Leaving(Told):
    """Evidence on whose first question something happens."""

    def __init__(self, payload: object, leave: Callable[[], None]) -> None:
        super().__init__(payload)
        self._leave: Callable[[], None] | None = leave

    def reading(self, operation: Operation) -> Reading | None:
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()
        return super().reading(operation)


@pytest.mark.parametrize("others", [0, 1], ids=["alone", "beside another counter"])
def test_a_long_call_that_is_open_at_close_is_recorded_before_the_files_are_let_go(others: int) -> None:
    """A counter that closes has the record of a call still open when ``close`` returns, however long it is."""
    memory = MemorySink()
    beside = [TokenCounter(log_dir=None) for _ in range(others)]
    counter = TokenCounter(log_dir=None, sinks=[memory])
    call = open_call()
    call.evidence = Told(None, text="library " * INLINE_CHARACTERS, messages="When?")
    counter.close()
    recorded = len(memory.records)
    for other in beside:
        assert call in process_ledger()._under_way
        other.close()

    assert 1 == recorded == len(memory.records)


def test_a_request_sent_while_its_counter_closes_is_the_counters() -> None:
    """Another thread's call sends its request while a call before it is counted: there is a record of both."""
    memory = MemorySink()
    counter = TokenCounter(log_dir=None, sinks=[memory])
    counted, sending = open_call(), open_call()
    counted.evidence = _Leaving(USAGE, lambda: _open_inside(sending))
    counter.close()

    assert [Outcome.ABANDONED] * 2 == [record.outcome for record in memory.records]
    assert not process_ledger()._under_way


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_call_that_is_open_while_the_process_forks_is_the_parents(counter: TokenCounter, memory: MemorySink) -> None:
    """The child neither waits for the parent's open calls nor records them."""
    call = open_call()
    process = os.fork()
    if process == 0:
        try:
            process_ledger().close_call(call, outcome=Outcome.ABANDONED)
            os._exit(len(memory.records) + len(process_ledger()._under_way))
        finally:
            os._exit(99)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    make_call(prompt=3, completion=4, call=call)

    assert 0 == status
    assert 1 == len(memory.records)


@pytest.mark.parametrize("looks", ["drain", "abandon", "seat_in", "share_runs", "close"])
def test_others_may_open_calls_and_runs_during_a_collection_while_these_are_looked_through(
    memory: MemorySink, looks: str
) -> None:
    """A collection runs the host's finalizers, and may let another thread open calls and runs: nobody sees an error."""
    counter = TokenCounter(log_dir=None, sinks=[memory])
    look = {
        "drain": lambda: process_ledger().drain(lambda _: False, 1),
        "abandon": lambda: process_ledger().abandon(counter),
        "seat_in": lambda: counter.seat_in("none of them"),
        "share_runs": counter.share_runs,
        "close": counter.close,
    }[looks]
    opened: list[object] = []

    def at_each_collection(phase: str, _: object) -> None:
        if phase == "start" and len(opened) < 100:
            opened.append(open_call())
            counter._make_run(f"late {len(opened)}", {}, None)

    for number in range(30):  # a tuple of up to 20 is made without a collection
        open_call()
        counter._make_run(str(number), {}, None)
    thresholds = gc.get_threshold()
    gc.callbacks.append(at_each_collection)
    gc.set_threshold(1)
    try:
        for _ in range(3):
            look()
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(at_each_collection)
        counter.close()

    assert opened
