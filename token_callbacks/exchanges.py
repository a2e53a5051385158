"""One HTTP request of an open call, and its answer: what the taps in the HTTP clients have in common.

A request that is sent inside an open call of a framework opens a call of its own inside that one, which makes the outer
one a wrapper: one HTTP request, one record. Requests of nobody's call are not looked at. A request whose answer has not
begun when the call around it ends goes on, and its call ends when it does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import msgspec

from token_callbacks.dialects import CHATS, EMBEDDINGS, OTHERS, REQUESTS
from token_callbacks.evidence import has_answer
from token_callbacks.ledger import Ledger, OpenCall
from token_callbacks.records import Operation, Outcome
from token_callbacks.runs import is_cancellation
from token_callbacks.wire import WireEvidence

_NO_ANSWER = 300
"""From this status on there is none: a client that follows redirections shows what it came to."""


class Exchange:
    """One request and its answer, sent inside an open call. Used by the thread or task that sends it."""

    __slots__ = ("_ledger", "_operation", "_started_at", "call", "evidence", "outer")

    def __init__(self, ledger: Ledger, outer: OpenCall, operation: Operation) -> None:
        self._ledger = ledger
        self._operation = operation
        self.outer = outer
        self.evidence = WireEvidence(operation)
        self.call: OpenCall | None = None
        """The call for this request; ``None`` until it is known to be one to a model."""
        self._started_at = ledger.clock()

    def open(self) -> None:
        """Open a call for this request; the one before it, if it failed, was tried in vain and is over."""
        outer, ledger = self.outer, self._ledger
        if not outer.is_open:  # it ended while its request was under way
            return
        attempt, is_its_own = outer.attempt, self._operation is outer.operation
        for before in outer.inner:
            why = before.failure or before.break_off
            if before.operation is self._operation and why is not None:
                attempt = max(attempt, before.attempt + 1)
                ledger.close_call(before, outcome=Outcome.FAILED, error=why)
        call = self.call = ledger.open_call(
            ledger.origin(outer.framework, outer),
            framework=outer.framework,
            operation=self._operation,
            provider=outer.provider if is_its_own else None,
            model=outer.model if is_its_own else None,
        )
        call.started_at = self._started_at
        call.attempt = attempt
        outer.last_attempt = max(outer.last_attempt, attempt)
        call.evidence = self.evidence
        call.ends_with_outer = call.is_awaited = True

    def begin(self, status: int, headers: Mapping[str, str]) -> bool:
        """Take the head of the answer, whose headers do not mind case; tells whether the rest of it is wanted."""
        is_accepted = status < _NO_ANSWER
        self.evidence.begin(headers, is_accepted=is_accepted)
        if not is_accepted:
            self._give_up(f"HTTP {status}")
            return False
        if self.call is not None:
            self.call.is_awaited = False
        return True

    def take_whole(self, body: bytes) -> None:
        """Take the body of an answer that is not streamed, its encoding taken off."""
        self.evidence.take_whole(body)
        if self.call is None and self.evidence.reading(self._operation) is not None:
            self.open()
        self.end()

    def begin_stream(self) -> bool:
        """Take that the body will come piece by piece; tells whether the pieces are wanted."""
        if self.call is None and self.evidence.kind == "text/event-stream":
            self.open()
        if self.call is None:
            return False
        self.call.streamed, self.call.is_awaited = True, False
        return True

    def take(self, piece: bytes) -> None:
        """Take a piece of a streamed body."""
        if self.call is not None and self.call.first_token_at is None:
            self.call.first_token_at = self._ledger.clock()
        self.evidence.take(piece)

    def end(self) -> None:
        """Note that the answer came to its end."""
        self.evidence.end()
        call = self.call
        if call is None:
            return
        if self.evidence.tells_error():
            self._note_break(call, "error in the answer")
        if self.outer.reports_late:
            self.outer.is_answered = True
        if call.model is None and not call.is_request:  # the call around it asked another one
            call.model = self.evidence.model()
        self._close_if_left(Outcome.COMPLETED)

    def fail(self, error: BaseException) -> None:
        """Note that no answer came; of a request that was cancelled, LiteLLM does not tell."""
        if self.call is not None and is_cancellation(error):
            self.call.failure = type(error).__name__
            self._cancel(self.call, error)
        self._give_up(type(error).__name__)

    def break_off(self, error: BaseException) -> None:
        """Note that the body broke, or that nobody waits for the rest of it; what had come by then counts."""
        if self.call is not None:
            self._note_break(self.call, type(error).__name__)
            if is_cancellation(error):
                self._cancel(self.call, error)
            self._close_if_left(Outcome.FAILED)

    def _cancel(self, call: OpenCall, error: BaseException) -> None:
        self.outer.was_cancelled = True
        self._ledger.close_call(call, outcome=Outcome.CANCELLED, error=error)

    def _note_break(self, call: OpenCall, why: str) -> None:
        if has_answer(self._operation, (self.evidence,)):
            call.break_off = why
        else:
            call.failure = why

    def _give_up(self, why: str) -> None:
        if self.call is not None:
            self.call.failure = why
            self._close_if_left(Outcome.FAILED)

    def _close_if_left(self, outcome: Outcome) -> None:
        """Close the call by itself, if the one around it has ended and left it to its own end."""
        call = self.call
        if call is not None:
            # Before the other one is looked at: a thread that ends it right now does not leave this one any more.
            call.is_awaited = False
            if not self.outer.is_open:
                why = call.failure or call.break_off
                self._ledger.close_call(call, outcome=outcome if why is None else Outcome.FAILED, error=why)


class _Kind(msgspec.Struct, frozen=True):
    """What a request is, as far as its path tells."""

    is_other: bool
    """It uses no tokens."""
    is_to_model: bool
    is_chat: bool
    is_embedding: bool

    def operation_in(self, outer: OpenCall) -> Operation:
        """Tell what it asks for: mostly what the call around it is; a path may say that it is something else."""
        if outer.operation is Operation.EMBEDDING:
            return Operation.CHAT if self.is_chat else Operation.EMBEDDING
        return Operation.EMBEDDING if self.is_embedding else outer.operation


@functools.lru_cache(maxsize=512)
def _kind_of(path: str) -> _Kind:
    return _Kind(*(pattern.search(path) is not None for pattern in (OTHERS, REQUESTS, CHATS, EMBEDDINGS)))


def starter(ledger: Ledger) -> Callable[[str, str], Exchange | None]:
    """Return what begins an exchange: told a method and a path, it gives one where an open call encloses the code.

    It is not shielded: a tap shields it together with what else it does then.
    """

    def start(method: str, path: str) -> Exchange | None:
        if method != "POST":
            return None
        kind = _kind_of(path)
        if kind.is_other:
            return None
        outer = ledger.enclosing_call()
        if outer is None or not outer.is_open:
            return None
        exchange = Exchange(ledger, outer, kind.operation_in(outer))
        if kind.is_to_model:
            exchange.open()
        return exchange

    return start
