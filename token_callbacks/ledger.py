"""The ledger: it opens calls, closes each one once, joins what two frameworks say of one request, and delivers.

It is the only state that the hooks share, and its lock the only lock. Adapters tell it what their framework did;
counters take part in it and get a seat in every call that opens while they do.

A call that opens inside another open call makes that one a wrapper: the inner one is the request, and the outer one
makes no record. This is what removes LlamaIndex's double events and LiteLLM under LlamaIndex. An embedding inside an
LLM call is no request of that one, nor the other way round; and where no request had an answer, the outer one's answer
is from elsewhere, and is recorded.
"""

from __future__ import annotations

import contextvars
import functools
import itertools
import logging
import os
import secrets
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, ParamSpec, Protocol, TypeVar

import msgspec

from token_callbacks.evidence import (
    BOTH_REPORTED,
    NO_NAMES,
    Asked,
    Evidence,
    Figures,
    Names,
    Told,
    has_answer,
    misfits_in,
    settle,
    told_by,
    unsettled,
)
from token_callbacks.imports import importing, is_of_class
from token_callbacks.records import CallRecord, Doubt, Operation, Outcome, Sources, Usage
from token_callbacks.runs import current_agent
from token_callbacks.totals import COUNTS, Entry
from token_callbacks.usage import Reading, is_broken, is_whole
from token_callbacks.worker import Worker

_log = logging.getLogger("token_callbacks")

_P = ParamSpec("_P")
_T = TypeVar("_T")


utc_now: Callable[[], datetime] = functools.partial(datetime.now, UTC)
"""Reads the clock."""


class Listener(Protocol):
    """Somebody who wants to hear of a call and is no counter."""

    def receive(self, draft: Draft) -> None:
        """Hear of a call that has ended; called under the ledger's lock, once a call."""


class Seat(Protocol):
    """A counter's place in one call."""

    @property
    def participant(self) -> Participant:
        """Whose seat it is."""


class Participant(Protocol):
    """A counter, as far as the ledger needs it."""

    request_stream_usage: bool
    """Whether servers may be asked to tell the usage of a stream."""

    @property
    def frameworks(self) -> Collection[str]:
        """Those whose calls are wanted."""

    def seat(self) -> Seat:
        """Settle the run that a call opening now belongs to."""

    def seat_in(self, run_id: str) -> Seat | None:
        """Find the seat of an open run, for a caller who names it; ``None`` where it is not this counter's."""

    def take(self, draft: Draft, seat: Any) -> None:
        """Take a call that has ended, in which it had this seat; called under the ledger's lock, once a call."""

    def note_internal_error(self, seat: Seat | None = None) -> None:
        """Count a fault in the run of a seat in the call that it belongs to; without one, in the current run."""


Receivers = tuple[Sequence[Seat], Sequence[Listener]]
"""Those who are given a call."""

Origin = tuple[Sequence[Seat], "OpenCall | None"]
"""Who makes a call: the seats it takes, and the open call that it is made inside."""


class Group(Protocol):
    """What several calls are attempts of."""

    logical_call_id: str | None
    """Of what is recorded of them; ``None`` until something is."""


class OpenCall(msgspec.Struct, kw_only=True, eq=False, weakref=True):
    """A call under way. Mutable, private to the ledger and the adapter that opened it."""

    framework: str
    operation: Operation
    provider: str | None
    model: str | None
    seats: Sequence[Seat]
    outer: OpenCall | None
    started_at: datetime
    agent: str | None = None
    """Who makes it, where the framework tells."""
    session_id: str | None = None
    tags: list[str] = []
    inner: list[OpenCall] = []
    listeners: list[Listener] = []
    group: Group | None = None
    """What it is one attempt of, where its framework makes a call of each."""
    last_attempt: int = 1
    """Of those made inside it so far."""
    logical_call_id: str | None = None
    """Of what is recorded of it and of what is inside it; ``None`` until something is."""
    first_token_at: datetime | None = None
    evidence: Evidence | None = None
    """What the adapter knows so far; used where the end event never comes."""
    streamed: bool = False
    attempt: int = 1
    is_open: bool = True
    is_wrapper: bool = False
    is_request: bool = False
    """It is a request of the call around it, and not something else that is done inside that one."""
    reports_late: bool = False
    """Its framework tells of its end on another thread or task, a moment after the caller knows."""
    shows_requests: bool = False
    """Whatever it sends is seen: while nothing was, nobody was asked."""
    is_asked_once: bool = False
    """One request of it is answered: what is sent in its context afterwards, while it is read, is not its own."""
    failure: str | None = None
    """Why no answer came, of a call whose framework may try again or not say so."""
    break_off: str | None = None
    """Why its answer broke, though nobody may say so; what came before is a part of it."""
    was_cancelled: bool = False
    """Who waited for a request of it was cancelled."""
    ends_with_outer: bool = False
    """It has no end of its own to wait for: it ends when the call around it does."""
    is_awaited: bool = False
    """Its answer has not begun, and who sent it tells how it ends, also after the end of the call around it."""
    is_answered: bool = False
    """Everything has come back from the provider, only the framework's end event has not."""

    @property
    def is_asked(self) -> bool:
        """Its one request was sent, and has not failed."""
        if self.is_asked_once:
            for inner in self.inner:
                if inner.ends_with_outer and inner.is_request and not (inner.failure or inner.break_off):
                    return True
        return False

    @property
    def outcome_if_left(self) -> Outcome:
        """How it ends where nobody waits for its answer any more."""
        is_unsent = self.shows_requests and not self.is_wrapper  # a request makes its call a wrapper
        return Outcome.NOT_STARTED if is_unsent else Outcome.ABANDONED


class Ending(msgspec.Struct, frozen=True):
    """How a call ended."""

    outcome: Outcome
    error: str | None = None
    """The class of the exception, or the status of the answer."""
    cached: bool = False


_COMPLETED, _EMBEDDING = Outcome.COMPLETED, Operation.EMBEDDING  # reached sooner than members of their enumerations
_PLAIN_ENDING = Ending(_COMPLETED)


class Draft(msgspec.Struct, kw_only=True, frozen=True, eq=False):
    """A call that has ended, with everything a record needs but the run it belongs to."""

    call: OpenCall
    call_id: str
    logical_call_id: str | None = None
    """``None``: its own."""
    ending: Ending
    ended_at: datetime
    usage: Usage
    sources: Sources
    counting_method: str | None = None
    reading: Reading | None = None
    names: Names
    doubts: list[Doubt] = []

    @property
    def entry(self) -> Entry:
        """What is added to totals for it, as would be for its record."""
        call, ending, reading = self.call, self.ending, self.reading
        likeness = (
            call.operation,
            call.provider,
            call.model,
            self.names[1],
            call.agent,
            self.sources,
            ending.outcome,
            call.attempt > 1,
            bool(self.doubts),
            ending.cached,
        )
        usage = self.usage
        if reading is not None:
            return likeness, call.started_at, usage, COUNTS if reading.is_counts else reading.payload
        is_whole = (usage.prompt_tokens is not None and usage.completion_tokens is not None) or usage.embedding_tokens
        return likeness, call.started_at, usage, COUNTS if is_whole else None

    def record(self, run_id: str, step: str | None) -> CallRecord:
        """Make the record for one run."""
        call, reading = self.call, self.reading
        first_token = call.first_token_at
        response_id, response_model = self.names
        return CallRecord(
            call_id=self.call_id,
            logical_call_id=self.logical_call_id or self.call_id,
            run_id=run_id,
            step=step,
            agent=call.agent,
            session_id=call.session_id,
            tags=call.tags,
            framework=call.framework,
            operation=call.operation,
            provider=call.provider,
            model=call.model,
            response_model=response_model,
            response_id=response_id,
            streamed=call.streamed,
            attempt=call.attempt,
            outcome=self.ending.outcome,
            cached=self.ending.cached,
            error=self.ending.error,
            started_at=call.started_at,
            ended_at=self.ended_at,
            time_to_first_token_seconds=None
            if first_token is None
            else max(0.0, (first_token - call.started_at).total_seconds()),
            usage=self.usage,
            provenance=self.sources,
            counting_method=self.counting_method,
            provider_usage=None if reading is None else reading.payload,
            doubts=self.doubts,
        )


class Ledger:
    """The open calls of this process and who takes part. Thread-safe; the clock is an argument for tests."""

    def __init__(self, *, clock: Callable[[], datetime] = utc_now) -> None:
        self.clock = clock
        self._participants: tuple[Participant, ...] = ()
        self._locators: tuple[Callable[[], OpenCall | None], ...] = ()
        self._under_way: dict[OpenCall, None] = {}
        """The calls that are open, or being closed by some thread right now.

        Looked through as ``list(...)``, here and wherever others may add meanwhile. Before Python 3.12 ``tuple(...)``
        may run the garbage collector, and so finalizers and other threads, between its first look and its walk.
        """
        self._gone: deque[tuple[OpenCall, Outcome]]
        self._warned: set[tuple[str, ...]] = set()
        self._start_afresh()
        self._is_told = self.shielded(_is_told)
        self._is_answered_alone = self.shielded(_is_answered_alone)
        self._has_answer = self.shielded(has_answer)
        self._has_begun = self.shielded(_has_begun)
        self._note_misfits = self.shielded(self._log_misfits)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._start_afresh)

    def _start_afresh(self) -> None:
        # A forked child must not wait for a lock that a thread of its parent held, nor share its parent's ids, nor
        # record the calls that were open at the fork: the parent does.
        for call in self._under_way:
            call.is_open = False
        self._under_way = {}
        self._gone = deque()
        self.lock = threading.RLock()
        self._call_closed = threading.Condition(self.lock)
        self._waiting = 0
        self._worker = Worker()
        self._call_ids = map(f"{secrets.token_hex(8)}-{{}}".format, itertools.count(1))

    def join(self, participant: Participant) -> None:
        """Give a counter a seat in every call that opens from now on."""
        with self.lock:
            if participant not in self._participants:
                self._participants += (participant,)

    def part_with(self, participant: Participant) -> None:
        """Give a counter no more seats; the calls it has one in still reach it."""
        with self.lock:
            self._participants = tuple(other for other in self._participants if other is not participant)

    @property
    def participants(self) -> tuple[Participant, ...]:
        """The counters that take part now, oldest first."""
        return self._participants

    def add_locator(self, locator: Callable[[], OpenCall | None], *, is_innermost: bool = False) -> None:
        """Add a way to find the open call that the running code was called by; a framework that has one adds it.

        ``is_innermost``: the framework is called by others and not the other way round, so it is asked first.
        """
        self._locators = (locator, *self._locators) if is_innermost else (*self._locators, locator)

    def remove_locator(self, locator: Callable[[], OpenCall | None]) -> None:
        """Take a way to find it out again."""
        self._locators = tuple(other for other in self._locators if other != locator)

    def enclosing_call(self, *, besides: Callable[[], OpenCall | None] | None = None) -> OpenCall | None:
        """Find the open call that the code running right now was called by; innermost framework first.

        That a call is still open in this context does not make it the caller: its end may only be told late, or its
        stream be half read, while another framework's call, made after it and not around it, sends its request.
        ``besides``: the locator of the framework that asks, whose own calls do not count, but for one for which code of
        the user's runs.
        """
        found = None if runs_for() is None else running_call()
        for locator in self._locators:
            call = None if locator == besides else locator()
            if call is not None and (found is None or is_inside(call, found)):
                found = call
        return found

    def origin(self, framework: str, outer: OpenCall | None = None) -> Origin:
        """Settle who makes a call, from the context of the caller.

        The runs are settled here and not at the end: a stream may be read in another context, or reported from none. A
        call made inside another one belongs to the run of that one.
        """
        seats: list[Seat] = []
        for participant in self._participants:
            if (outer is None or _seat_of(participant, outer.seats) is None) and framework in participant.frameworks:
                seats.append(participant.seat())  # noqa: PERF401 - which calls a function more, before Python 3.12
        # The seats of that one may be those of a counter that is just closing: it takes part no more, and waits for it.
        return seats if outer is None else [*outer.seats, *seats], outer

    def origin_in(self, run_id: str, origin: Origin) -> Origin:
        """Settle that a call belongs to a run that its caller names, for the counter whose run it is."""
        named = {participant: participant.seat_in(run_id) for participant in self._participants}
        seats, outer = origin
        return [named.get(seat.participant) or seat for seat in seats], outer

    def open_call(
        self, origin: Origin, *, framework: str, operation: Operation, provider: str | None, model: str | None
    ) -> OpenCall:
        """Open a call."""
        if self._gone:
            self._close_gone()
        seats, outer = origin
        call = OpenCall(
            framework=framework,
            operation=operation,
            provider=provider,
            model=model,
            seats=seats,
            outer=outer,
            started_at=self.clock(),
            agent=current_agent(),
        )
        if outer is not None:
            call.agent = outer.agent
            call.session_id = outer.session_id
            call.tags = outer.tags
            outer.inner.append(call)
            if (operation is _EMBEDDING) == (outer.operation is _EMBEDDING):
                outer.is_wrapper = call.is_request = True
        self._under_way[call] = None
        return call

    def close_call(
        self,
        call: OpenCall,
        *,
        outcome: Outcome,
        evidence: Sequence[Evidence] = (),
        error: BaseException | str | None = None,
        cached: bool = False,
        counts_here: bool = False,
    ) -> None:
        """Close a call into its record; does nothing if it is closed, so that a late or second end event is harmless.

        The end of a wrapper is also the end of the calls inside it: their own end event may come later, or never.
        ``counts_here``: nothing is left to the worker, however long it is.
        """
        with self.lock:  # whoever else may be about to
            is_open, call.is_open = call.is_open, False
        if not is_open:
            return
        if outcome is _COMPLETED and error is None and not cached:
            ending = _PLAIN_ENDING
        else:
            ending = Ending(outcome, error if error is None or isinstance(error, str) else type(error).__name__, cached)
        self._close(call, ending, evidence, counts_here=counts_here)

    def _close(
        self,
        call: OpenCall,
        ending: Ending,
        evidence: Sequence[Evidence] = (),
        *,
        counts_here: bool = False,
    ) -> None:
        """Close a call that was claimed."""
        is_over = True
        try:
            is_plain = ending is _PLAIN_ENDING and len(call.inner) == 1 and not evidence
            if is_plain and self._close_by_request(call, counts_here):
                return
            known = call.evidence
            if known is not None and known not in evidence:
                evidence = (known, *evidence) if evidence else (known,)
            is_completed, own = ending.outcome is _COMPLETED, evidence
            # What a broken stream delivered, the call around it may have seen; and what a mere request was about.
            if not is_completed or call.ends_with_outer:
                evidence = (*evidence, *self._told_around(call, evidence))
            if call.inner:
                if is_completed:  # what was dropped inside it brought nothing of its answer
                    self._close_gone()
                self._end_inner(call, ending, evidence, counts_here)
            # Who has an answer though every request failed, as far as one was seen, has it from somewhere else.
            is_in_vain = not call.is_wrapper or _have_failed(call.inner)
            # An embedding's answer is not kept; what only stands around its requests has none to show.
            is_told = is_completed and (not call.is_wrapper or (bool(own) and call.operation is _EMBEDDING))
            is_asked = is_in_vain and not is_told and (call.is_wrapper or call.is_request)
            has_answer = is_told or (is_asked and bool(self._has_answer(call.operation, own)))
            if is_in_vain and not has_answer and call.is_request and ending.outcome in _FRUITLESS:
                call.failure = call.failure or ending.error or ending.outcome.value
            if not call.is_wrapper or (is_in_vain and has_answer):
                receivers = call.seats, (call.listeners if call.outer is None else _listeners(call))
                is_over = self._deliver(call, receivers, ending, evidence, counts_here)
        finally:
            call.inner = []  # inner calls know their wrapper: without the cycle all of them go at once
            if is_over:
                self._forget(call)

    def _close_by_request(self, call: OpenCall, counts_here: bool) -> bool:
        """Close a call that was claimed and came to its end by the one request that it made, if that is all there is.

        Tells whether it is closed: then the call around it makes no record.
        """
        if call.outer is not None:
            return False
        if self._gone:  # what was dropped inside it brought nothing of its answer
            self._close_gone()
        request, *others = call.inner
        is_sent = request.is_request and request.ends_with_outer and not request.is_awaited
        if not is_sent or others or request.inner or request.failure is not None or request.break_off is not None:
            return False
        if request.evidence is None or request.operation is _EMBEDDING:  # of which there may be several
            return False
        is_ours, is_over = False, True
        try:
            with self.lock:
                is_ours, request.is_open = request.is_open, False
            if is_ours:
                is_over = self._deliver_request(request, request.evidence, call, counts_here)
        finally:
            if is_ours and is_over:
                self._forget(request)
        return is_ours

    def _deliver_request(self, request: OpenCall, witness: Evidence, call: OpenCall, counts_here: bool) -> bool:
        """Give the one request of a call that came to its end; tells whether that is done, and not left to the worker.

        Where its answer told prompt and completion, there is nothing to settle or to count.
        """
        request.streamed = request.streamed or call.streamed
        evidence: Sequence[Evidence] = (witness,) if call.evidence is None else (witness, call.evidence)
        receivers = request.seats, (_listeners(request) if request.listeners else call.listeners)
        names = None
        try:
            reading = witness.reading(request.operation)
            if reading is not None and not reading.unreadable and is_whole(reading.usage, request.operation):
                names = reading.names or _names(evidence)
        except Exception:  # noqa: BLE001 - it is asked again, and that is noted
            reading = None
        if reading is None or names is None:
            return self._deliver(request, receivers, _PLAIN_ENDING, evidence, counts_here)
        if any(receivers):
            call_id = next(self._call_ids)
            draft = Draft(
                call=request,
                call_id=call_id,
                logical_call_id=self._logical_call_id(request, call_id),
                ending=_PLAIN_ENDING,
                ended_at=self.clock(),
                usage=reading.usage,
                sources=BOTH_REPORTED,
                reading=reading,
                names=names,
                doubts=[] if reading.is_counts else reading.doubts,
            )
            with self.lock:
                self._give(draft, *receivers)
        return True

    def close_llm(self, call: OpenCall) -> None:
        """Close an LLM call that came to its end, as ``close_call`` does, in fewer steps where that can be.

        Where nothing is around it or in it, and its usage is told in a shape that was read before, there is nothing to
        join, to settle or to doubt.
        """
        with self.lock:  # whoever else may be about to
            is_open, call.is_open = call.is_open, False
        if not is_open:
            return
        witness = call.evidence
        if witness is None or call.is_wrapper or call.inner or call.outer or not (call.seats or call.listeners):
            self._close(call, _PLAIN_ENDING)
            return
        told, reading, names, is_over = None, None, None, True
        try:
            try:
                reading = witness.reading(call.operation)
                told = reading, None if reading is None else witness
                if reading is not None and reading.is_counts:
                    names = reading.names or witness.names()
            except Exception:  # noqa: BLE001, S110 - it is asked again, and that is noted
                pass
            if reading is None or names is None:
                receivers = call.seats, call.listeners
                is_over = self._deliver(call, receivers, _PLAIN_ENDING, (witness,), counts_here=False, told=told)
                return
            draft = Draft(
                call=call,
                call_id=next(self._call_ids),
                ending=_PLAIN_ENDING,
                ended_at=self.clock(),
                usage=reading.usage,
                sources=BOTH_REPORTED,
                reading=reading,
                names=names,
            )
            with self.lock:
                self._give(draft, call.seats, call.listeners)
        finally:  # what _forget() does, without the call of one more function
            if is_over:
                self._under_way.pop(call, None)
                if self._waiting:
                    self._tell_waiting()

    def _forget(self, call: OpenCall) -> None:
        self._under_way.pop(call, None)
        if self._waiting:  # looked at after the call is out: who waits was there first, or finds it gone
            self._tell_waiting()

    def _tell_waiting(self) -> None:
        with self._call_closed:
            self._call_closed.notify_all()

    def _end_inner(self, wrapper: OpenCall, ending: Ending, evidence: Sequence[Evidence], counts_here: bool) -> None:
        for call in [call for call in wrapper.inner if call.is_open and not call.is_awaited]:
            # An inner call whose usage only its own end event will tell is left to that event.
            is_over = call.is_request and ending.outcome is not Outcome.COMPLETED
            ends = call.ends_with_outer or call.is_answered or is_over
            # What both frameworks tell of is one answer; where it is one framework, each call has its own.
            is_one_answer = call.is_request and not (call.reports_late and call.framework == wrapper.framework)
            if ends or (is_one_answer and self._is_told(call.operation, evidence)):
                call.streamed = call.streamed or wrapper.streamed
                own = self._own_ending(call, ending)
                self.close_call(
                    call,
                    outcome=own.outcome,
                    evidence=self._told_of(call, evidence),
                    error=own.error,
                    cached=own.cached,
                    counts_here=counts_here,
                )

    def _told_around(self, call: OpenCall, known: Sequence[Evidence]) -> Sequence[Evidence]:
        """Gather what the open calls around a request can say of it, besides what is known."""
        others: list[Evidence] = []
        link = call.outer
        while link is not None:
            if link.is_open and link.evidence is not None and link.evidence not in known:
                others.append(link.evidence)
            link = link.outer
        return self._told_of(call, others)

    def _told_of(self, call: OpenCall, others: Sequence[Evidence]) -> Sequence[Evidence]:
        """Choose what those around a call can say of it: of a request all, but what came, if nothing of its own did."""
        if not call.is_request or not others:
            return ()
        if call.failure is None:
            return others
        return [Asked(witness) for witness in others] if self._has_begun(call) else ()

    def _own_ending(self, call: OpenCall, ending: Ending) -> Ending:
        """Tell how an inner call ended, when the call around it ended so."""
        why = call.failure or call.break_off
        if why is not None and (not call.is_request or ending.outcome in _NOT_FAILED):
            return Ending(Outcome.FAILED, why)
        if call.ends_with_outer and self._is_answered_alone(call):
            return _PLAIN_ENDING
        return ending

    def _deliver(  # noqa: PLR0917 - told to nobody else
        self,
        call: OpenCall,
        receivers: Receivers,
        ending: Ending,
        evidence: Sequence[Evidence],
        counts_here: bool,
        told: Told | None = None,
    ) -> bool:
        """Settle a call and give it to those who want it; tells whether that is done, and not left to the worker."""
        if not any(receivers):
            return True
        try:  # what shielded() does, without the call of one more function
            told = told or told_by(evidence, call.operation)
            reading, teller = told
            if reading is None or reading.unreadable:
                self._note_misfits(evidence, call.operation, teller, receivers[0])
            figures = settle(call.operation, call.model, ending.outcome, evidence, _most_counted_here, told)
            names = (not callable(figures) and figures.names) or _names(evidence)
        except Exception as error:  # noqa: BLE001
            self.note_internal_error(error, "settle")
            figures, names = unsettled(call.operation), NO_NAMES
        ended_at = self.clock()
        if callable(figures):  # not by the class: it may have been loaded again
            count = self.shielded(figures)
            if not counts_here:
                hand_out = functools.partial(self._hand_out, call, receivers, ending, ended_at, names)
                self._leave_to_worker(call, count, hand_out)
                return False
            figures = count() or unsettled(call.operation)
        self._hand_out(call, receivers, ending, ended_at, names, figures)
        return True

    def _leave_to_worker(
        self, call: OpenCall, count: Callable[[], Figures | None], hand_out: Callable[[Figures], None]
    ) -> None:
        def finish() -> None:
            try:
                hand_out(count() or unsettled(call.operation))
            finally:
                self._forget(call)

        # In this context, so that a fault is noted in the run that is current here.
        self._worker.submit(call, functools.partial(contextvars.copy_context().run, self.shielded(finish)))

    def _hand_out(  # noqa: PLR0917 - what a draft is made of
        self,
        call: OpenCall,
        receivers: Receivers,
        ending: Ending,
        ended_at: datetime,
        names: Names,
        figures: Figures,
    ) -> None:
        reading, call_id = figures.reading, next(self._call_ids)
        draft = Draft(
            call=call,
            call_id=call_id,
            logical_call_id=self._logical_call_id(call, call_id),
            ending=ending,
            ended_at=ended_at,
            usage=figures.usage,
            sources=figures.sources,
            counting_method=figures.counting_method,
            reading=reading,
            names=names,
            doubts=[] if reading is None or reading.is_counts else reading.doubts,
        )
        with self.lock:
            self._give(draft, *receivers)

    def _logical_call_id(self, call: OpenCall, call_id: str) -> str:
        """Tell what is recorded together with a call, which is recorded now."""
        if call.group is None and not (call.inner or call.outer or call.logical_call_id):  # so far by itself
            call.logical_call_id = call_id
            return call_id
        while call.outer is not None:
            call = call.outer
        group = call if call.group is None else call.group
        with self.lock:
            if group.logical_call_id is None:
                group.logical_call_id = call_id
            return group.logical_call_id

    def _give(self, draft: Draft, seats: Sequence[Seat], listeners: Sequence[Listener]) -> None:
        for seat in seats:
            try:
                seat.participant.take(draft, seat)
            except Exception as error:  # noqa: BLE001 - the others, and the host, have no part in it
                self.note_internal_error(error, f"{type(seat.participant).__name__}.take")
        for listener in listeners:
            try:
                listener.receive(draft)
            except Exception as error:  # noqa: BLE001
                self.note_internal_error(error, f"{type(listener).__name__}.receive")

    def finish_counting(self, is_wanted: Callable[[OpenCall], bool]) -> None:
        """Close what the host dropped, and count, here and now, what the worker has not begun of the wanted calls."""
        self._close_gone()
        self._worker.finish(lambda call: is_of_class(call, OpenCall) and is_wanted(call))

    def call_gone(self, call: OpenCall, outcome: Outcome) -> None:
        """Note, for a finalizer, that the host dropped a call's stream: the next open, drain or summary closes it.

        Takes no lock, since it may run in the middle of anything.
        """
        self._gone.append((call, outcome))

    def _close_gone(self) -> None:
        while self._gone:
            try:
                call, outcome = self._gone.popleft()
            except IndexError:  # another thread was faster
                return
            self.close_call(call, outcome=outcome)

    def drain(self, is_wanted: Callable[[OpenCall], bool], seconds: float) -> None:
        """Wait until the wanted calls that were answered are closed; past the time, close them from what is known.

        On the thread of a running event loop there is no wait for end events, which the loop itself would deliver. What
        is being closed, or counted by the worker, right now is waited for however short the time is: it is our own.
        """
        self.finish_counting(is_wanted)
        awaited = self._awaited(is_wanted, 0 if _is_in_event_loop() else seconds)
        with self._call_closed:
            self._waiting += 1
            while (left := awaited()) > 0:
                self._call_closed.wait(left)
            self._waiting -= 1
        self._close_answered(is_wanted)

    def has_sent(self, is_wanted: Callable[[OpenCall], bool]) -> bool:
        """Tell whether a wanted call is open that may have been sent: what it uses is in nobody's figures yet."""
        return any(
            call.is_open
            and is_wanted(call)
            and call.outcome_if_left is not Outcome.NOT_STARTED
            and all(inner.ends_with_outer for inner in call.inner)  # else those have the figures, and it gets no record
            for call in list(self._under_way)
        )

    async def drain_async(self, is_wanted: Callable[[OpenCall], bool], seconds: float) -> None:
        """Do what ``drain`` does while the event loop, and with it the framework's own end events, goes on."""
        with importing:  # it already is, where somebody awaits this
            import asyncio

        self._close_gone()
        awaited = self._awaited(is_wanted, seconds)
        try:
            while awaited() > 0:
                await asyncio.sleep(_POLL_SECONDS)
        finally:  # also where the waiting task is cancelled
            self._close_answered(is_wanted)

    def abandon(self, participant: Participant) -> None:
        """Give a counter that closes its record of the calls still open, now; for everybody else they go on.

        However long they are, they are counted here: the counter lets go of its files next.
        """
        # Again, while others open calls inside those that it has a seat in.
        while wanted := [call for call in list(self._under_way) if call.is_open and _seat_of(participant, call.seats)]:
            for call in wanted:
                self._abandon(call, participant)

    def _abandon(self, call: OpenCall, participant: Participant) -> None:
        seat = _seat_of(participant, call.seats)
        if seat is None:
            return
        if call.seats == [seat] and not _listeners(call):
            self.close_call(call, outcome=call.outcome_if_left, counts_here=True)
            return
        with self.lock:
            if not call.is_open:  # who is closing it gives it to this counter too
                return
            call.seats = [other for other in call.seats if other is not seat]
        own = () if call.evidence is None else (call.evidence,)
        evidence = (*own, *self._told_around(call, own))
        if not call.is_wrapper or (_have_failed(call.inner) and self._has_answer(call.operation, own)):
            self._deliver(call, ([seat], ()), Ending(call.outcome_if_left), evidence, counts_here=True)

    def _awaited(self, is_wanted: Callable[[OpenCall], bool], for_events: float) -> Callable[[], float]:
        """Return what tells how many seconds are left to wait, 0 or less for none."""
        start = time.monotonic()

        def left() -> float:
            longest = 0.0
            for call in list(self._under_way):
                if is_wanted(call):
                    if not call.is_open:
                        longest = max(longest, for_events, _CLOSING_SECONDS)
                    elif call.is_answered:
                        longest = max(longest, for_events)
            return start + longest - time.monotonic()

        return left

    def _close_answered(self, is_wanted: Callable[[OpenCall], bool]) -> None:
        for call in list(self._under_way):
            if call.is_answered and is_wanted(call):
                self.close_call(call, outcome=Outcome.COMPLETED)
        self.finish_counting(is_wanted)

    def shielded(self, function: Callable[_P, _T]) -> Callable[_P, _T | None]:
        """Wrap a function that the host's program runs through: what it raises is counted, logged, and goes no further.

        It then returns ``None``. The first fault of a kind is a warning, the others are debug lines.
        """
        where = name_of(function)

        @functools.wraps(function)
        def shield(*args: _P.args, **kwargs: _P.kwargs) -> _T | None:
            try:
                return function(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - the one place that may: the host must never see our faults
                self.note_internal_error(error, where)
                return None

        return shield

    def note_internal_error(self, error: BaseException, where: str) -> None:
        """Count a fault of ours in the current runs and log it."""
        kind = (type(error).__name__, where)
        # A foreign exception's message may quote the user's text; that of an OSError names a file and a reason.
        reason = f": {error}" if isinstance(error, OSError) and error.errno is not None else ""
        self._warn_once(kind, f"{' in '.join(kind)}{reason}")
        for participant in self._participants:
            participant.note_internal_error()

    def _log_misfits(
        self, evidence: Sequence[Evidence], operation: Operation, teller: Evidence | None, seats: Sequence[Seat]
    ) -> None:
        """Log what a provider's usage has that is no count; where it is broken, count it in the runs of the call."""
        misfits = misfits_in(evidence, operation, teller)
        if not misfits:
            return
        if not is_broken(misfits):
            _log.debug("no known name in what a provider told as its %s", ", ".join(misfits))
            return
        kind = tuple(f"{name} ({found})" for name, found in misfits.items())
        self._warn_once(kind, f"a provider's usage is broken: {', '.join(kind)}")
        for seat in seats:
            seat.participant.note_internal_error(seat)

    def _warn_once(self, kind: tuple[str, ...], what: str) -> None:
        """Log the first fault of a kind as a warning, the others as debug lines."""
        level = logging.DEBUG if kind in self._warned else logging.WARNING
        self._warned.add(kind)
        _log.log(level, "%s; the host goes on, see internal_errors in the summary", what)


def name_of(function: Callable[..., object]) -> str:
    """Name a function for the log: a method with its class, an object that can be called by its own class."""
    return getattr(function, "__qualname__", type(function).__name__)


_NOT_FAILED = (Outcome.COMPLETED, Outcome.ABANDONED)


_FRUITLESS = (Outcome.FAILED, Outcome.CANCELLED, Outcome.NOT_STARTED)
"""How a call may end that brought nothing; an abandoned one may have been answered, and nobody looked."""


def _have_failed(calls: Sequence[OpenCall]) -> bool:
    failed = [_has_failed(call) for call in calls if call.is_request]
    return bool(failed) and all(failed)


def _has_failed(call: OpenCall) -> bool:
    # LiteLLM does not tell that a call of it was cancelled: it stays open, and its request has failed. What is awaited
    # when the call around it ends has brought nothing to that one.
    return call.failure is not None or call.is_awaited or (call.is_open and _have_failed(call.inner))


def is_around(outer: OpenCall, call: OpenCall) -> bool:
    """Tell whether a call was made inside another one, however deep."""
    link = call.outer
    while link is not None and link is not outer:
        link = link.outer
    return link is not None


def is_inside(call: OpenCall, other: OpenCall) -> bool:
    """Tell which of two open calls that enclose the running code is the inner one."""
    # The clock may show both the same moment, or be set back in between.
    return is_around(other, call) or (call.started_at > other.started_at and not is_around(call, other))


_runs_for: contextvars.ContextVar[weakref.ref[OpenCall] | None] = contextvars.ContextVar(
    "token_callbacks_runs_for", default=None
)

runs_for = _runs_for.get
"""Returns a reference to the call for which code of the user's runs right now; ``None`` where none does."""


@contextmanager
def running_for(call: OpenCall | None) -> Iterator[None]:
    """Tell that the code inside is the user's, and runs for a call of a framework that asks it for its answer.

    What it asks is asked inside that call. ``None`` changes nothing.
    """
    before = _runs_for.get()
    now = before if call is None else weakref.ref(call)
    _runs_for.set(now)
    try:
        yield
    finally:
        if _runs_for.get() is now:  # else a coroutine that was left is closed in the context of somebody else
            _runs_for.set(before)


def running_call() -> OpenCall | None:
    """Find the call for which code of the user's runs right now, if it has not ended meanwhile."""
    reference = _runs_for.get()
    call = None if reference is None else reference()
    return call if call is not None and call.is_open and not call.is_answered else None


def _seat_of(participant: Participant, seats: Sequence[Seat]) -> Seat | None:
    for seat in seats:
        if seat.participant is participant:
            return seat
    return None


def _listeners(call: OpenCall) -> Sequence[Listener]:
    listeners: list[Listener] = []
    link: OpenCall | None = call
    while link is not None:
        listeners += [listener for listener in link.listeners if listener not in listeners]
        link = link.outer
    return listeners


def _names(evidence: Sequence[Evidence]) -> Names:
    response_id = response_model = None
    for witness in evidence:
        named = witness.names()
        response_id, response_model = response_id or named[0], response_model or named[1]
    return response_id, response_model


def _has_begun(call: OpenCall) -> bool:
    return call.evidence is not None and call.evidence.completion() is not None


def _most_counted_here() -> int:
    # On an event loop not even the first vocabulary is read.
    is_first = "token_callbacks.counting" not in sys.modules and _is_in_event_loop()
    return 0 if is_first else INLINE_CHARACTERS


def _is_told(operation: Operation, evidence: Sequence[Evidence]) -> bool:
    return any(witness.reading(operation) is not None for witness in evidence)


def _is_answered_alone(call: OpenCall) -> bool:
    """Tell whether a request was answered, however the call around it ends, whose answer it is not, or not all of it.

    An embedding method may send several, each for a text of its own.
    """
    if call.evidence is None or call.failure is not None:
        return False
    if not call.is_request:
        return call.evidence.has_last_word()
    return call.operation is _EMBEDDING and _is_told(call.operation, (call.evidence,))


def _is_in_event_loop() -> bool:
    # Without importing asyncio: who has not, runs no loop, and it costs more than this whole package.
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None  # noqa: SLF001 - public, and raises nothing


_POLL_SECONDS = 0.002

_CLOSING_SECONDS = 15.0
"""How long a drain waits at most for a call that has ended and is being counted: chosen, not measured."""

INLINE_CHARACTERS = 8192
"""So much is counted where a call ends; more, by the worker."""

_process_ledger: Ledger = globals().get("_process_ledger") or Ledger()


def process_ledger() -> Ledger:
    """Return the one ledger that this process's hooks report to."""
    return _process_ledger
