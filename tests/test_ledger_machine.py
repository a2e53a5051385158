"""Any order of events: whatever a framework tells, twice, late or never, each call ends once and nothing is left.

``python -m tests.test_ledger_machine 1000000`` makes so many steps and prints what they did.
"""

from __future__ import annotations

import asyncio
import collections
import functools
import itertools
import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from token_callbacks.evidence import Figures, Later, settle, unsettled
from token_callbacks.exchanges import Exchange, starter
from token_callbacks.ledger import Draft, Ledger, OpenCall, Seat
from token_callbacks.records import Operation, Outcome
from token_callbacks.usage import Reading
from token_callbacks.worker import Worker

from .calls import Told

USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
BODY = b'{"id": "c-3", "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}'
CHUNKS = (
    b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n',
    b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}\n\n',
    b"data: [DONE]\n\n",
    b"data: {spoi",
)
ENDS = st.sampled_from([outcome for outcome in Outcome if outcome is not Outcome.NOT_STARTED])


class _Broken(Told):
    """Evidence that fails when it is asked."""

    def __init__(self) -> None:
        super().__init__(None)

    def reading(self, operation: Operation) -> Reading | None:
        raise ZeroDivisionError

    def completion(self) -> Any:
        raise ZeroDivisionError


class _Lengthy(Told):
    """Evidence that has more to count than is counted while the host waits."""


WITNESSES: tuple[Callable[[], Any], ...] = (
    functools.partial(Told, USAGE),
    functools.partial(Told, None),
    functools.partial(_Lengthy, None),
    _Broken,
)
EVIDENCE = st.none() | st.sampled_from(WITNESSES)


class _Seat:
    def __init__(self, participant: _Participant) -> None:
        self.participant = participant


class _Participant:
    """A counter, as it were."""

    request_stream_usage = True
    frameworks = ("litellm",)

    def __init__(self) -> None:
        self.received: list[Draft] = []
        self.internal_errors = 0

    def take(self, draft: Draft, seat: Seat) -> None:
        self.received.append(draft)

    def seat(self) -> Seat:
        return _Seat(self)

    def seat_in(self, run_id: str) -> Seat | None:
        return _Seat(self) if run_id == "mine" else None

    def note_internal_error(self, seat: Seat | None = None) -> None:
        self.internal_errors += 1


class _Listener:
    def __init__(self) -> None:
        self.received: list[Draft] = []

    def receive(self, draft: Draft) -> None:
        self.received.append(draft)


class _Clock:
    def __init__(self) -> None:
        self._milliseconds = itertools.count()

    def __call__(self) -> datetime:
        return datetime(2026, 11, 21, tzinfo=UTC) + timedelta(milliseconds=next(self._milliseconds))


class _ByHand(Worker):
    """The worker, whose thread is the machine."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.current_thread()

    def do_one(self) -> None:
        """Do the oldest job."""
        job = self._taken(lambda key: True)
        if job is not None:
            job()


class _Opened:
    """What the machine knows of a call that it opened."""

    def __init__(self, call: OpenCall, number: int) -> None:
        self.number = number
        self.seated = [seat.participant for seat in call.seats]
        self.begot: list[OpenCall] = []
        """The requests of its own that opened inside it while it was open."""


steps: collections.Counter[str] = collections.Counter()


def _settle(  # noqa: PLR0917 - as the ledger asks
    operation: Operation,
    model: str | None,
    outcome: Outcome,
    evidence: Sequence[Any],
    at_most: Callable[[], float],
    told: Any,
) -> Figures | Later:
    """Settle as the ledger does, and leave what is long to the worker without a tokenizer."""
    if any(isinstance(witness, _Lengthy) for witness in evidence):
        return functools.partial(unsettled, operation)
    return settle(operation, model, outcome, evidence, at_most, told)


class LedgerMachine(RuleBasedStateMachine):
    """Everything that an adapter, a tap, a counter or a finalizer may do to a ledger, in any order."""

    calls = Bundle("calls")
    exchanges = Bundle("exchanges")
    participants = Bundle("participants")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(clock=_Clock())
        self.patches = pytest.MonkeyPatch()
        self.patches.setattr("token_callbacks.ledger.settle", _settle)
        # The worker's thread is this one: whoever waited for it to count would wait for himself.
        self.patches.setattr("token_callbacks.ledger._CLOSING_SECONDS", 0.0)
        self.ledger._worker = _ByHand()
        self.fruitless: set[OpenCall] = set()
        self.deliver = self.ledger._deliver
        self.patches.setattr(self.ledger, "_deliver", self._delivered)
        self.start_exchange = starter(self.ledger)
        self.locators: list[Callable[[], OpenCall | None]] = []
        self.opened: dict[OpenCall, _Opened] = {}
        self.everybody: list[_Participant] = []
        self.parted: set[_Participant] = set()
        self.listeners: list[tuple[_Listener, OpenCall]] = []
        self.forked_away: set[OpenCall] = set()
        self._note("a ledger")

    def _note(self, step: str) -> None:
        steps[step] += 1

    def _delivered(self, call: OpenCall, *args: Any, **kwargs: Any) -> bool:
        if call in self.opened:  # else it was opened and closed in one step, and begot nothing
            self.fruitless.update(inner for inner in self.opened[call].begot if _has_brought_nothing(inner))
        return self.deliver(call, *args, **kwargs)

    def _saw(self, call: OpenCall, outer: OpenCall | None) -> OpenCall:
        self.opened[call] = _Opened(call, len(self.opened))
        if outer is not None and outer.is_open and call.is_request:
            self.opened[outer].begot.append(call)
        return call

    @initialize(target=participants)
    def begin_with_one(self) -> _Participant:
        return self._join()

    @precondition(lambda self: len(self.everybody) < 3)
    @rule(target=participants)
    def join(self) -> _Participant:
        self._note("join")
        return self._join()

    def _join(self) -> _Participant:
        participant = _Participant()
        self.everybody.append(participant)
        self.ledger.join(participant)
        self.ledger.join(participant)
        return participant

    @precondition(lambda self: len(self.parted) < len(self.everybody))
    @rule(participant=participants)
    def part(self, participant: _Participant) -> None:
        self._note("part")
        self.ledger.part_with(participant)
        self.parted.add(participant)

    @precondition(lambda self: len(self.opened) > 3)
    @rule(participant=participants)
    def abandon(self, participant: _Participant) -> None:
        self._note("abandon")
        self.ledger.part_with(participant)
        self.ledger.abandon(participant)
        self.parted.add(participant)

    @rule(target=calls, operation=st.sampled_from(Operation), evidence=EVIDENCE, named=st.booleans())
    def open(self, operation: Operation, evidence: Any, named: bool) -> OpenCall:
        self._note("open")
        return self._open(None, operation, evidence, named=named)

    @rule(target=calls, outer=calls, operation=st.sampled_from(Operation), evidence=EVIDENCE)
    def open_inside(self, outer: OpenCall, operation: Operation, evidence: Any) -> OpenCall:
        self._note("open inside")
        return self._open(outer, operation, evidence)

    def _open(self, outer: OpenCall | None, operation: Operation, evidence: Any, *, named: bool = False) -> OpenCall:
        origin = self.ledger.origin("litellm", outer)
        if named:
            origin = self.ledger.origin_in("mine", origin)
        call = self.ledger.open_call(
            origin, framework="litellm", operation=operation, provider="openai", model="gpt-4o"
        )
        call.evidence = None if evidence is None else evidence()
        return self._saw(call, outer)

    @rule(call=calls, late=st.booleans(), once=st.booleans())
    def manner(self, call: OpenCall, late: bool, once: bool) -> None:
        call.reports_late, call.is_asked_once = late, once

    @rule(call=calls)
    def listen(self, call: OpenCall) -> None:
        self._note("listen")
        listener = _Listener()
        self.listeners.append((listener, call))
        call.listeners.append(listener)

    @rule(target=exchanges, outer=calls, path=st.sampled_from(["/v1/chat/completions", "/somewhere"]))
    def begin(self, outer: OpenCall, path: str) -> Any:
        self._note("begin")

        def locator() -> OpenCall:
            return outer

        self.ledger.add_locator(locator)
        exchange = self.start_exchange("POST", path)
        self.ledger.remove_locator(locator)
        if exchange is None:
            return multiple()
        self._see(exchange)
        return exchange

    def _see(self, exchange: Exchange) -> None:
        if exchange.call is not None and exchange.call not in self.opened:
            self._saw(exchange.call, exchange.outer)

    @rule(exchange=exchanges, status=st.sampled_from([200, 429, 500]), streams=st.booleans())
    def answer(self, exchange: Exchange, status: int, streams: bool) -> None:
        self._note("answer")
        kind = "text/event-stream" if streams else "application/json"
        if exchange.begin(status, {"content-type": kind}):
            if streams:
                exchange.begin_stream()
            else:
                exchange.take_whole(BODY)
            self._see(exchange)

    @rule(exchange=exchanges, chunk=st.sampled_from(CHUNKS))
    def chunk(self, exchange: Exchange, chunk: bytes) -> None:
        self._note("chunk")
        exchange.take(chunk)

    @rule(exchange=exchanges)
    def finish(self, exchange: Exchange) -> None:
        self._note("finish")
        exchange.end()

    @rule(exchange=exchanges)
    def fail(self, exchange: Exchange) -> None:
        self._note("fail")
        exchange.fail(ConnectionError("refused"))

    @rule(call=calls)
    def come_back(self, call: OpenCall) -> None:
        call.is_answered = True

    @rule(call=calls, outcome=ENDS, evidence=EVIDENCE, error=st.none() | st.just("HTTP 500") | st.just(OSError(3)))
    def close(self, call: OpenCall, outcome: Outcome, evidence: Any, error: Any) -> None:
        self._note("close" if call.is_open else "close again")
        given = () if evidence is None else (evidence(),)
        self.ledger.close_call(call, outcome=outcome, evidence=given, error=error)
        assert not call.is_open

    @rule(call=calls)
    def end(self, call: OpenCall) -> None:
        if call.operation is not Operation.EMBEDDING:
            self._note("end" if call.is_open else "end again")
            self.ledger.close_llm(call)
            assert not call.is_open

    @rule(call=calls, outcome=ENDS)
    def close_twice(self, call: OpenCall, outcome: Outcome) -> None:
        self._note("close twice")
        self.ledger.close_call(call, outcome=outcome)
        self.ledger.close_call(call, outcome=Outcome.COMPLETED, evidence=(Told(USAGE),))

    @rule(call=calls, outcome=st.sampled_from([Outcome.ABANDONED, Outcome.NOT_STARTED]))
    def gone(self, call: OpenCall, outcome: Outcome) -> None:
        self._note("gone")
        self.ledger.call_gone(call, outcome)

    @rule(whose=st.integers(0, 3), is_async=st.booleans())
    def drain(self, whose: int, is_async: bool) -> None:
        self._note("drain")

        def is_wanted(call: OpenCall) -> bool:
            return whose == 0 or self.opened[call].number % 3 == whose - 1

        if is_async:
            asyncio.run(self.ledger.drain_async(is_wanted, 0.0))
        else:
            self.ledger.drain(is_wanted, 0.0)

    @precondition(lambda self: self.ledger._worker._waiting)
    @rule()
    def work(self) -> None:
        self._note("work")
        cast("_ByHand", self.ledger._worker).do_one()

    @precondition(lambda self: len(self.opened) % 7 == 6)
    @rule()
    def fork(self) -> None:
        """Go on as the child of a fork: what was open is the parent's, and ended there."""
        self._note("fork")
        self.forked_away |= {call for call in self.opened if call in self.ledger._under_way or call.is_open}
        self.ledger._start_afresh()
        self.ledger._worker = _ByHand()
        assert not self.ledger._under_way

    def teardown(self) -> None:
        """End what is open as the end of a program would, and check everything."""
        try:
            self._end_and_check()
        finally:
            self.patches.undo()

    def _end_and_check(self) -> None:
        ledger = self.ledger
        for call in self.opened:
            ledger.call_gone(call, Outcome.ABANDONED)
        ledger.drain(lambda call: True, 0.0)
        for participant in self.everybody:
            ledger.part_with(participant)
            ledger.abandon(participant)

        assert {} == ledger._under_way
        assert not ledger._gone
        assert 0 == ledger._waiting
        assert _is_free(ledger.lock)
        for call, opened in self.opened.items():
            self._check(call, opened)
        for listener, _ in self.listeners:
            _check_once(listener.received)
        for participant in self.everybody:
            _check_once(participant.received)

    def _check(self, call: OpenCall, opened: _Opened) -> None:
        assert not call.is_open
        for participant in self.everybody:
            drafts = [draft for draft in participant.received if draft.call is call]
            if call in self.forked_away:
                continue  # in the parent it has its record
            if participant not in opened.seated:
                assert [] == drafts
            elif not opened.begot:
                assert 1 == len(drafts), (call, drafts)
            elif drafts and (begot := [inner for inner in opened.begot if participant in self.opened[inner].seated]):
                assert 1 == len(drafts)  # it had an answer from somewhere, and no request had brought one by then
                assert self.fruitless.issuperset(begot)
            else:  # one that left before anything was begot has its record of the call itself
                assert len(drafts) <= 1


def _has_brought_nothing(call: OpenCall) -> bool:
    is_waiting = call.is_open and any(map(_has_brought_nothing, call.inner))
    return call.failure is not None or call.is_awaited or is_waiting


def _check_once(drafts: Sequence[Draft]) -> None:
    assert len(drafts) == len({id(draft.call) for draft in drafts})
    assert len(drafts) == len({draft.call_id for draft in drafts})
    assert all(draft.ended_at >= draft.call.started_at for draft in drafts)


def _is_free(lock: Any) -> bool:
    """Tell whether another thread can have the lock."""
    got: list[bool] = []

    def attempt() -> None:
        got.append(lock.acquire(blocking=False))
        if got[0]:
            lock.release()

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    return got[0]


_QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=_QUIET
)


def _make_steps(wanted: int) -> None:
    logging.getLogger("token_callbacks").setLevel(logging.ERROR)
    begun = time.monotonic()
    while sum(steps.values()) < wanted:
        run_state_machine_as_test(
            LedgerMachine,
            settings=settings(
                max_examples=1000,
                stateful_step_count=50,
                deadline=None,
                suppress_health_check=_QUIET,
                database=None,
                phases=(Phase.generate,),
            ),
        )
        sys.stdout.write(f"{sum(steps.values())} steps, {time.monotonic() - begun:.0f} s\n")
    for step, times in steps.most_common():
        sys.stdout.write(f"{times:9} {step}\n")


if __name__ == "__main__":
    _make_steps(int(sys.argv[1]))
