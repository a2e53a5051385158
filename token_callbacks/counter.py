"""``TokenCounter``, the one object most users meet: it ties hooks, runs, ledger and sinks together."""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import os
import secrets
import time
from collections.abc import AsyncIterable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, cast, overload

from token_callbacks import hooks
from token_callbacks.errors import CounterClosed, InvalidArgument, InvalidPrices, UnknownOption
from token_callbacks.imports import importing, is_of_class
from token_callbacks.ledger import Draft, Ledger, OpenCall, Seat, name_of, process_ledger
from token_callbacks.records import CallRecord, Cost, OpenRun, RunOutcome, RunSummary
from token_callbacks.runs import JoinScope, Run, RunScope, Scope, chain_from, checked_name, checked_tags, current_scope
from token_callbacks.sinks import Sink
from token_callbacks.sinks.json_files import JsonFiles
from token_callbacks.sinks.log_folder import is_run_id
from token_callbacks.summaries import summed_up
from token_callbacks.totals import Totals

if TYPE_CHECKING:
    from token_callbacks.counting.registry import Tokenizer
    from token_callbacks.prices import PriceBook
    from token_callbacks.streams import AsyncCountedStream, CountedStream, Request

_Item = TypeVar("_Item")

DEFAULT_LOG_DIR = "token_logs"
DEFAULT_RUN_NAME = "default"

JOINED_RUN_VARIABLE = "TOKEN_CALLBACKS_RUN"
"""In the environment of a process: the token of the run that its calls outside any other are part of."""

_LOCK_SECONDS = 2.0
_LATE_SHARE = 20
"""What ends late has lines read and summaries written again for one part in so many of the time, at most."""
_NEAREST = 10
"""Runs around one that ends after them, whose summaries are written again at once; those of the others wait."""
_MOST_UNWRITTEN = 1000
_MOST_RECOVERED_BYTES = 64 << 20
"""Of lines that a start may read to sum up the runs of the dead: a third of a second."""

_log = logging.getLogger("token_callbacks")


class TokenCounter:
    """Counts what every LLM and embedding call of this process uses, run by run, and writes it down.

    Making one hooks LlamaIndex and LiteLLM, whichever is imported, before or after; neither is imported by it. Calls
    outside any ``counter.run(...)`` land in a default run, whose summary is written at ``close()`` or at exit. Several
    counters may live side by side: each writes its own log, with every call in it once. All methods are thread-safe.

    ``log_dir``: the folder, made at the first call; ``None`` writes no files.
    ``sinks``: further places for records and summaries.
    ``frameworks``: which frameworks to hook.
    ``request_stream_usage``: ``"auto"`` asks servers that speak like OpenAI to tell a stream's usage
    (``stream_options.include_usage``), which they seldom do by themselves; the caller sees the stream as without it. A
    host that refuses is named in one warning and not asked again. ``False`` asks nobody; what is not told is counted.
    ``prices``: your own table of prices, a file (TOML, JSON) or a mapping, which goes before those of ``genai-prices``
    and LiteLLM; ``None``: the one that ``TOKEN_CALLBACKS_PRICES`` names, if it does. ``False`` prices nothing.
    ``drain_seconds``: how long the end of a run may wait for calls that were answered but not yet reported by their
    framework. What is being counted here at that moment is waited for besides, up to 15 s.

    Raises ``UnknownOption`` and ``InvalidArgument`` for what it cannot use.
    """

    def __init__(
        self,
        *,
        log_dir: str | os.PathLike[str] | None = DEFAULT_LOG_DIR,
        sinks: Sequence[Sink] = (),
        frameworks: Collection[str] = tuple(hooks.FRAMEWORKS),
        request_stream_usage: Literal["auto", False] = "auto",
        drain_seconds: float = 2.0,
        prices: str | os.PathLike[str] | Mapping[str, Any] | Literal[False] | None = None,
        **unknown: Any,
    ) -> None:
        if unknown:
            raise UnknownOption(
                f"TokenCounter has no option {', '.join(map(repr, unknown))}; it has log_dir, sinks, frameworks,"
                " request_stream_usage, drain_seconds and prices"
            )
        self.frameworks = _checked_frameworks(frameworks)
        self.request_stream_usage = _checked_request(request_stream_usage)
        self._drain_seconds = _checked_seconds(drain_seconds)
        self._ledger: Ledger = process_ledger()
        self._book = _checked_prices(prices)
        self._files = None if log_dir is None else _checked_files(log_dir)
        self._sinks: tuple[Sink, ...] = (
            *(() if self._files is None else (self._files,)),
            *_checked_sinks(sinks),
        )
        self._outermost: Scope | None = None
        """Where calls outside any run belong, once there is one."""
        self._open_runs: dict[Run, None] = {}
        self._parts: dict[str, Run] = {}
        """The runs of other processes that this one takes part in."""
        self._unsettled: dict[Run, None] = {}
        """Runs that span processes, left here or called in late, whose summary is to be made anew."""
        self._settling = _Seldom()
        self._unwritten: dict[Run, None] = {}
        """Runs whose summary the log folder did not take: it is offered again when another run ends, and at the end."""
        self._outdated: dict[Run, None] = {}
        """Runs that ended before many inside them: written again when another run ends, and at the end."""
        self._rewriting = _Seldom()
        self._is_closed = False
        # Each by itself: one that fails must not keep the others from their part.
        self._record_writers = [sink.write_record for sink in self._sinks]
        self._summary_writers = [self._ledger.shielded(sink.write_summary) for sink in self._sinks]
        self._writing_for: Run | None = None
        self._note_elsewhere = self._ledger.shielded(self._read_elsewhere)
        self._settle = self._ledger.shielded(self._settle_left)
        self._unmark = self._ledger.shielded(self._forget_marker)
        self._work_out = self._ledger.shielded(self._worked_out)
        self._load_prices = self._ledger.shielded(self._load_book)
        self._joined_token = None if self._files is None else _token_of_environment()
        if self._files is not None:
            _recover(self._files, self._pricing)
        self._ledger.join(self)
        for framework in (*self.frameworks, *hooks.ABOVE):
            hooks.attach(framework, beside=_import_prices)
        atexit.register(self.close)

    def __repr__(self) -> str:
        return f"<TokenCounter {'closed' if self._is_closed else 'open'} for {', '.join(self.frameworks)}>"

    def run(self, name: str, *, tags: Mapping[str, str] | None = None) -> RunScope:
        """Open a run: ``with``, ``async with``, or a decorator for functions and coroutine functions.

        A run opened inside another one is its child; a call lands in the innermost run of the context it was made in.

        Raises ``CounterClosed`` after ``close()`` and ``InvalidArgument`` for a bad name or bad tags.
        """
        self.require_open()
        return RunScope(self, functools.partial(self.open_run, checked_name(name, "run"), checked_tags(tags)))

    def join_run(self, token: str) -> JoinScope:
        """Take part in a run of another process, whose ``run.token`` this is: ``with``, ``async with``, a decorator.

        Calls made inside are the run's, wherever they are made, and there is one summary: of all that has ended when
        the run does, and again when the last process leaves it later. Both processes write to the same log folder.

        Raises ``CounterClosed`` after ``close()`` and ``InvalidArgument`` for what is no token.
        """
        self.require_open()
        if self._files is None:
            raise InvalidArgument("a counter without log_dir cannot take part in a run: that is where the parts meet")
        if not is_run_id(token):
            raise InvalidArgument(f"join_run takes the run.token of the process that opened the run, not {token!r:.80}")
        return JoinScope(self, functools.partial(self._open_part, token))

    @overload
    def stream(self, chunks: Iterable[_Item], **request: Unpack[Request]) -> CountedStream[_Item]: ...

    @overload
    def stream(self, chunks: AsyncIterable[_Item], **request: Unpack[Request]) -> AsyncCountedStream[_Item]: ...

    def stream(
        self,
        chunks: Any,
        *,
        model: str | None = None,
        messages: Sequence[Any] | str | None = None,
        operation: str = "chat",
        provider: str | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> Any:
        """Count a stream read by hand: ``for chunk in counter.stream(chunks, model="qwen3", messages=messages)``.

        ``chunks``: an iterable, or an async one for ``async for``, of Server-Sent Events (lines or pieces, bytes or
        text), JSON lines, parsed events, or chunks of the SDK of OpenAI, Anthropic, Google or DashScope. Each is handed
        on as it is. The call belongs to the run that is current now; how it ends, ``CountedStream`` tells.
        ``model``, ``messages`` (a list of messages as OpenAI shapes them, or a prompt) and ``tools``: what was sent;
        where the stream tells no usage, it is counted from these. Without ``model``, that of the answer is taken.
        ``operation``: ``chat``, ``completion`` or ``responses``.

        Raises ``CounterClosed`` after ``close()`` and ``InvalidArgument`` for what cannot be used.
        """
        self.require_open()
        with importing:
            from token_callbacks.streams import open_stream

        return open_stream(
            self._ledger,
            self._current_scope(),
            self.frameworks,
            chunks,
            model=model,
            messages=messages,
            operation=operation,
            provider=provider,
            tools=tools,
        )

    def register_tokenizer(
        self, pattern: str, tokenizer: Tokenizer | None = None, *, endpoint: str | None = None
    ) -> None:
        """Count the models whose name matches a glob by your own tokenizer, where their provider tells no usage.

        It holds for every counter of this process, as the hooks do. ``counting.registry.register_tokenizer`` tells how
        names are matched, what ``tokenizer`` returns and what happens when it fails. ``endpoint``, instead of it, is
        the address of the server that runs them, if it can count: vLLM's, llama-server's, llama-cpp-python's, or one
        with Anthropic's ``count_tokens``. It is asked by a thread of ours, 2 s at most, and never while a caller waits;
        ``counting_method`` in the record tells which way it was asked, or what counted here instead.

        Raises ``InvalidArgument`` for what is no glob, cannot be called, or is no address.
        """
        if (tokenizer is None) == (endpoint is None):
            raise InvalidArgument(
                "register_tokenizer takes a tokenizer or an endpoint: register_tokenizer('my-model*', tokenize) or"
                " register_tokenizer('my-model*', endpoint='http://127.0.0.1:8000')"
            )
        if endpoint is not None:
            with importing:
                from token_callbacks.servers import register

            register(pattern, endpoint)
            return
        with importing:
            from token_callbacks.counting.registry import register_tokenizer

        register_tokenizer(pattern, cast("Tokenizer", tokenizer))

    @property
    def default_run(self) -> Run:
        """The run of the calls that were made outside any other; opened by the first of them, or by asking for it."""
        return self._default_scope().run

    def close(self) -> None:
        """Drain, end what is open, write the summaries and let go of the files; harmless the second time.

        Streams that are still open get their record now, as abandoned. What was counted stays readable.
        """
        with self._ledger.lock:
            if self._is_closed:
                return
            self._is_closed = True
        self._ledger.drain(self._has_seat, self._drain_seconds)
        self._ledger.part_with(self)
        self._ledger.abandon(self)
        for part in list(self._parts.values()):
            self._note_end(part)
        self._settle(_LOCK_SECONDS)
        for run in list(self._open_runs):
            is_default = self._outermost is not None and run is self._outermost.run
            self._end_run(run, RunOutcome.COMPLETED if is_default else RunOutcome.CANCELLED)
        with self._ledger.lock:
            self._write_outdated()
        self._settle(_LOCK_SECONDS)
        self._write_unwritten()
        for sink in self._sinks:
            self._ledger.shielded(sink.close)()
        atexit.unregister(self.close)

    def uninstall(self) -> None:
        """Close this counter and, if no other one is open, take the hooks out of the frameworks."""
        self.close()
        if not self._ledger.participants:
            hooks.detach_all()

    # What a run needs of its counter (runs.RunOwner).

    def require_open(self) -> None:
        """Raise ``CounterClosed`` after ``close()``."""
        if self._is_closed:
            raise CounterClosed("this TokenCounter is closed and counts nothing any more: make a new TokenCounter()")

    def open_run(self, name: str, tags: Mapping[str, str]) -> Run:
        """Make a run inside the current one."""
        self.require_open()
        outer = (link.run for link in chain_from(current_scope()) if link.run.owner is self)
        # What is scheduled in a run, and begins after it, is none of it: else each such run would hold the one before.
        parent = next((run for run in outer if run.is_open), None)
        if parent is None and self._joined_token is not None:
            parent = self._default_scope().run
        with self._ledger.lock:
            return self._make_run(name, tags, parent)

    def leave_run(self, run: Run) -> None:
        """Drain the run's calls and end this process's part in it, unless it was opened here."""
        self.drain_run(run)
        self._leave_part(run)

    async def leave_run_async(self, run: Run) -> None:
        """Drain without blocking the event loop and end this process's part in the run."""
        try:
            await self._ledger.drain_async(_in_run(run), self._drain_seconds)
        finally:
            self._leave_part(run)

    def token_of(self, run: Run) -> str:
        """Return what another process takes part in the run with."""
        if self._files is None:
            raise InvalidArgument("a run of a counter without log_dir cannot span processes: that is where they meet")
        run.is_shared = True
        return run.run_id

    def finish_run(self, run: Run, outcome: RunOutcome) -> None:
        """Drain the run's calls, end it and write its summary."""
        self.drain_run(run)
        self._end_run(run, outcome)

    def drain_run(self, run: Run) -> None:
        """Wait, as long as ``drain_seconds`` at most, for the run's calls that were answered and not yet reported."""
        self._ledger.drain(_in_run(run), self._drain_seconds)

    async def finish_run_async(self, run: Run, outcome: RunOutcome) -> None:
        """Drain the run's calls without blocking the event loop, end it and write its summary."""
        try:
            await self._ledger.drain_async(_in_run(run), self._drain_seconds)
        finally:  # a web server that stops a request cancels every await in it (anyio): the run ends all the same
            self._end_run(run, outcome)

    def summary_of(self, run: Run) -> RunSummary:
        """Read the run's totals as of now; what is waiting to be counted is counted first."""
        self._ledger.finish_counting(_in_run(run))
        self._load_prices(run)
        with self._ledger.lock:
            return self._summary(run)

    def summary_path_of(self, run: Run) -> Path | None:
        """Tell where the run's summary is written."""
        return next((path for sink in self._sinks if (path := sink.summary_path(run.run_id)) is not None), None)

    # What the ledger needs of a counter (ledger.Participant).

    def seat(self) -> Scope:
        """Settle the run and step that a call opening now belongs to."""
        scope = current_scope()
        while scope is not None:
            if scope.run.owner is self:  # also when the run has ended: what it started may go on calling
                return scope
            scope = scope.outer
        return self._outermost or self._default_scope()

    _current_scope = seat  # where no call asks; LaVague's counter, which looks at the agent first, overrides only seat

    def seat_in(self, run_id: str) -> Scope | None:
        """Find the scope of an open run by its id."""
        run = self._parts.get(run_id) or next((run for run in list(self._open_runs) if run.run_id == run_id), None)
        return None if run is None else Scope(run, None, None)

    def note_internal_error(self, seat: Seat | None = None) -> None:
        """Count a fault in the run of a seat, else in the one that is being written, else in the current one."""
        with self._ledger.lock:
            run = seat.run if is_of_class(seat, Scope) else self._writing_for or self._current_scope().run
            run.internal_errors += 1

    def take(self, draft: Draft, scope: Scope) -> None:
        """Fold a call into the run it was made in and write its record, if anybody takes one; under the lock."""
        run = scope.run
        run.totals.fold(draft.entry, scope.step)
        if run.parent is not None:
            _add_to_ancestors(run.parent, draft)
        if run.lacks_marker:
            self._mark(run)
        if self._record_writers:
            self._write_record(run, draft.record(run.run_id, scope.step))
        if run.ended_at is not None:  # late: the summary is already written and must not stay wrong
            self._reissue(run)
            self._reissue_around(run)
        if self._unsettled:
            self._settle_seldom()

    def _write_record(self, run: Run, record: CallRecord) -> None:
        self._writing_for = run
        is_lost = False
        for write in self._record_writers:
            try:  # what shielded() does, without the call of one more function
                write(record)
            except Exception as error:  # noqa: BLE001
                self._ledger.note_internal_error(error, name_of(write))
                is_lost = True
        if is_lost:
            run.lost_records += 1
        self._writing_for = None

    def _make_run(self, name: str, tags: Mapping[str, str], parent: Run | None) -> Run:
        started_at = self._ledger.clock()
        run_id = f"{started_at:%Y%m%dT%H%M%S}-{secrets.token_hex(6)}"
        run = Run(run_id=run_id, name=name, tags=tags, parent=parent, owner=self, started_at=started_at)
        self._open_runs[run] = None
        self._mark(run)
        while parent is not None:  # a forked child takes part in those around it from here on, if it did not before
            if parent.lacks_marker:
                self._mark(parent)
            parent = parent.parent
        return run

    def _mark(self, run: Run) -> None:
        run.lacks_marker = False
        if self._files is not None:
            self._writing_for = run
            self._ledger.shielded(self._files.open_run)(_marker(run))
            self._writing_for = None

    def _end_run(self, run: Run, outcome: RunOutcome) -> None:
        if run.is_part:  # opened before this process was forked: it is the parent's
            self._note_end(run)
            self._settle(_LOCK_SECONDS)
            return
        with self._ledger.lock:
            if not run.is_open:
                return
            run.outcome = outcome
            run.ended_at = self._ledger.clock()
            self._open_runs.pop(run, None)
            if self._unwritten:
                self._write_unwritten()
        if run.parent is None or run.parent.is_open:
            self._settle(0.0)
        else:  # those around it have ended before, and wait for what ends inside them, one after the other
            self._settle_seldom()
        self._load_prices(run)
        with self._adding_up(run), self._ledger.lock:
            self._write_summary(run)
        with self._ledger.lock:
            if any(run.nested_totals) or not run.totals.is_empty:
                self._reissue_around(run)
            self._settle_seldom()

    @contextlib.contextmanager
    def _adding_up(self, run: Run) -> Iterator[None]:
        """Read what others have of a run that may span processes, and keep them from adding it up meanwhile."""
        with contextlib.ExitStack() as stack:
            if run.is_shared and self._files is not None:
                self._ledger.shielded(stack.enter_context)(self._files.folder.locked(_LOCK_SECONDS))
                self._note_elsewhere(run)
            yield

    def _read_elsewhere(self, run: Run) -> None:
        with importing:
            from token_callbacks import recovery

        if self._files is not None:
            folded = recovery.told_elsewhere(self._files.folder, run.run_id, writer=self._files.writer)
            run.elsewhere = folded.totals, folded.nested
            run.losses_elsewhere = folded.losses

    def _write_summary(self, run: Run) -> None:
        run.cost = self._cost(run)
        self._writing_for = run
        errors = run.internal_errors
        for write in self._summary_writers:
            write(self._summary(run))
        if run.internal_errors == errors:
            self._unmark(run)
        elif len(self._unwritten) < _MOST_UNWRITTEN:
            self._unwritten[run] = None
        self._writing_for = None

    def _reissue_around(self, run: Run) -> None:
        """Write the summaries of those that ended before what is inside them: they tell of that, too."""
        outer, nearest = run.parent, _NEAREST
        while outer is not None:
            if not outer.is_open:
                if nearest > 0:
                    self._reissue(outer)
                else:
                    self._outdated[outer] = None
                nearest -= 1
            outer = outer.parent
        if self._outdated and self._rewriting.is_due:
            self._write_outdated()

    def _write_outdated(self) -> None:
        with self._rewriting:
            for run in list(self._outdated):
                del self._outdated[run]
                self._reissue(run)

    def _write_unwritten(self) -> None:
        waiting, self._unwritten = self._unwritten, {}
        for run in waiting:
            self._write_summary(run)

    def _summary(self, run: Run) -> RunSummary:
        cost = self._cost(run) if run.is_open else run.cost
        totals, nested = _with_elsewhere(run)
        return summed_up(
            totals,
            nested=nested,
            run_id=run.run_id,
            parent_run_id=run.parent_run_id,
            name=run.name,
            tags=run.tags,
            outcome=run.outcome,
            started_at=run.started_at,
            ended_at=run.ended_at,
            until=self._ledger.clock(),
            internal_errors=run.internal_errors + run.losses_elsewhere[1],
            lost_records=run.lost_records + run.losses_elsewhere[0],
            has_gaps=run.losses_elsewhere[0] > 0 or (not run.is_open and self._ledger.has_sent(_in_run(run))),
            cost=cost,
        )

    def _cost(self, run: Run) -> Cost | None:
        """Work out what a run cost, under the lock; a fault of ours leaves it out, and is counted once a run."""
        if self._book is None or run.is_unpriceable:
            return None
        outer, self._writing_for = self._writing_for, run
        errors = run.internal_errors
        done = self._work_out(_with_elsewhere(run)[0])
        self._writing_for = outer
        if done is None:
            run.is_unpriceable = True
            run.internal_errors = max(run.internal_errors, errors + 1)  # a counter that closes is told of no faults
            return None
        return done[0]

    def _worked_out(self, totals: Totals) -> tuple[Cost | None]:
        with importing:
            from token_callbacks.prices import cost_of

        return (None if self._book is None else cost_of(totals.charges, self._book, now=self._ledger.clock()),)

    def _pricing(self, totals: Totals) -> Cost | None:
        done = self._work_out(totals)
        return None if done is None else done[0]

    def _load_book(self, run: Run) -> None:
        """Import what knows the prices before the lock is taken, for others wait for that one."""
        if not run.totals.is_empty:
            self.load_prices()

    def load_prices(self) -> None:
        """Import what knows the prices, once, unless this counter prices nothing."""
        if self._book is not None:
            self._book.load()

    def _forget_marker(self, run: Run) -> None:
        if self._files is None:
            return
        if run.is_shared:
            with importing:
                from token_callbacks import recovery

            if recovery.goes_on_elsewhere(self._files.folder, run.run_id, writer=self._files.writer):
                self._files.mark_done(run.run_id)
                return
        self._files.forget_run(run.run_id)

    def _mark_done(self, run: Run) -> None:
        with importing:
            from token_callbacks import recovery

        if self._files is not None:
            losses = (run.lost_records, run.internal_errors) if run.is_part else (0, 0)
            recovery.end_part(self._files, run.run_id, self._pricing, losses)
            if run.is_part:
                run.lost_records = run.internal_errors = 0  # told

    def _settle_left(self, seconds: float) -> None:
        """Sum up anew what this process has left; while another one is adding up, that is tried again later.

        The folder's lock is waited for without the ledger's: nobody else's calls wait with this thread.
        """
        if not self._unsettled or self._files is None:
            return
        with self._files.folder.locked(seconds) as is_ours, self._settling:
            if not is_ours and seconds:
                raise TimeoutError("another process holds open/.lock")
            with self._ledger.lock:
                for run in list(self._unsettled) if is_ours else ():
                    again = self._parts.get(run.run_id)
                    if again is None:
                        self._mark_done(run)
                    elif run.is_part:  # it was entered again meanwhile, and will be left; else its summary tells them
                        again.lost_records += run.lost_records
                        again.internal_errors += run.internal_errors
                        run.lost_records = run.internal_errors = 0
                    del self._unsettled[run]

    def _settle_seldom(self) -> None:
        if self._settling.is_due:
            self._settle(0.0)

    def _reissue(self, run: Run) -> None:
        if self._files is not None and (run.is_part or run.is_shared or run.process != os.getpid()):
            self._mark(run)
            self._unsettled[run] = None
        else:
            self._write_summary(run)

    def _open_part(self, token: str) -> Run:
        self.require_open()
        return self._part(token)

    def _part(self, token: str) -> Run:
        with self._ledger.lock:
            run = self._parts.get(token) or next((run for run in self._open_runs if run.run_id == token), None)
            if run is None:
                run = self._parts[token] = self._make_part(token)
                self._mark(run)
            run.entered += 1
            return run

    def _make_part(self, token: str) -> Run:
        with importing:
            from token_callbacks import recovery

        known = self._files and self._ledger.shielded(recovery.known)(self._files.folder, token)
        run = Run(
            run_id=token,
            name=known.name if known else recovery.NAME_UNKNOWN,
            tags=known.tags if known else {},
            parent=None,
            owner=self,
            started_at=known.started_at if known else self._ledger.clock(),
        )
        if known:
            run.parent_run_id = known.parent_run_id
        else:
            _log.warning("no run %s is known in the log folder; do both processes write to the same one?", token)
        run.is_part = True
        return run

    def _leave_part(self, run: Run) -> None:
        with self._ledger.lock:
            run.entered -= 1
            if not run.is_part or run.entered > 0:
                return
            self._note_end(run)
        self._settle(_LOCK_SECONDS)

    def _note_end(self, run: Run) -> None:
        with self._ledger.lock:
            if not run.is_open:
                return
            run.ended_at = self._ledger.clock()
            run.outcome = RunOutcome.COMPLETED
            run.cost = self._cost(run)
            self._parts.pop(run.run_id, None)
            if not run.lacks_marker:
                self._unsettled[run] = None

    def start_afresh(self) -> None:
        """Leave the files to the process that this one was forked from, and take part in its runs."""
        self._writing_for = None
        self._outermost = None
        inherited = (*self._open_runs, *self._parts.values())
        self._open_runs = {}
        self._unwritten = {}
        self._outdated = {}
        self._unsettled = {}
        self._parts = {run.run_id: run for run in inherited}
        for run in inherited:
            run.become_part()
        if self._files is not None:
            self._files.start_afresh()

    def share_runs(self) -> None:
        """Note that a forked child may take part in the runs that are open."""
        for run in list(self._open_runs):
            run.is_shared = True

    def _default_scope(self) -> Scope:
        with self._ledger.lock:
            if self._outermost is None:
                token = self._joined_token
                run = self._make_run(DEFAULT_RUN_NAME, {}, None) if token is None else self._part(token)
                self._outermost = Scope(run, None, None)
            return self._outermost

    def _has_seat(self, call: OpenCall) -> bool:
        return any(seat.participant is self for seat in call.seats)


class _Seldom:
    """Keeps what is done in ``with`` blocks to a part of the time, as far as who does it asks whether it is due."""

    def __init__(self) -> None:
        self._begun_at = self._again_at = 0.0
        """In seconds, on the monotonic clock."""

    @property
    def is_due(self) -> bool:
        return self._again_at <= time.monotonic()

    def __enter__(self) -> None:
        self._begun_at = time.monotonic()

    def __exit__(self, *exception: object) -> None:
        ended_at = time.monotonic()
        self._again_at = ended_at + _LATE_SHARE * (ended_at - self._begun_at)


def _open_counters() -> list[TokenCounter]:
    """List the counters of this process that are open, oldest first."""
    return [participant for participant in process_ledger().participants if is_of_class(participant, TokenCounter)]


def _after_fork_in_child() -> None:
    for counter in _open_counters():
        counter.start_afresh()


def _after_fork_in_parent() -> None:
    for counter in _open_counters():
        counter.share_runs()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child, after_in_parent=_after_fork_in_parent)


def shared_counter(framework: str) -> TokenCounter:
    """Return the newest open counter that takes calls of a framework, or make one for it alone."""
    for counter in reversed(_open_counters()):
        if framework in counter.frameworks:
            return counter
    return TokenCounter(frameworks=(framework,))


def uninstall() -> None:
    """Close every counter of this process and take the hooks out of the frameworks."""
    for counter in _open_counters():
        counter.close()
    hooks.detach_all()


def _with_elsewhere(run: Run) -> tuple[Totals, Sequence[int]]:
    """Add what other processes used of a run, and used in runs inside it, once that is known."""
    if run.elsewhere is None:
        return run.totals, run.nested_totals
    nested = [mine + theirs for mine, theirs in zip(run.nested_totals, run.elsewhere[1], strict=True)]
    return run.totals.merged(run.elsewhere[0]), nested


def _add_to_ancestors(ancestor: Run | None, draft: Draft) -> None:
    usage = draft.usage
    while ancestor is not None and not draft.ending.cached:
        ancestor.nested_totals[0] += usage.embedding_tokens or 0
        ancestor.nested_totals[1] += usage.prompt_tokens or 0
        ancestor.nested_totals[2] += usage.completion_tokens or 0
        ancestor = ancestor.parent


def _in_run(run: Run) -> Callable[[OpenCall], bool]:
    return lambda call: any(is_of_class(seat, Scope) and seat.run is run for seat in call.seats)


def _checked_frameworks(frameworks: object) -> tuple[str, ...]:
    names = tuple(frameworks) if isinstance(frameworks, Collection) and not isinstance(frameworks, str) else ()
    if not names or not all(name in hooks.FRAMEWORKS for name in names):
        raise InvalidArgument(f"frameworks are some of {', '.join(map(repr, hooks.FRAMEWORKS))}, not {frameworks!r}")
    return names


def _checked_request(request_stream_usage: object) -> bool:
    if request_stream_usage is not False and request_stream_usage != "auto":
        raise InvalidArgument(f'request_stream_usage is "auto" or False, not {request_stream_usage!r}')
    return request_stream_usage == "auto"


def _checked_seconds(seconds: object) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < float("inf"):
        raise InvalidArgument(f"drain_seconds is a number of seconds, 0 or more, not {seconds!r}")
    return float(seconds)


def _checked_prices(prices: object) -> PriceBook | None:
    if prices is False:
        return None
    with importing:
        from token_callbacks.prices import PriceBook

    if prices is not None:
        return PriceBook(cast("Any", prices))
    try:
        return PriceBook()
    except InvalidPrices as error:  # who set the variable is not who made this counter, which therefore must not fail
        _log.warning("your table of prices is left alone: %s", error)
        return PriceBook({"price": []})


def _checked_sinks(sinks: object) -> tuple[Sink, ...]:
    wanted = ("write_record", "write_summary", "summary_path", "close")
    given = tuple(sinks) if isinstance(sinks, Sequence) else (sinks,)
    for sink in given:
        if not all(callable(getattr(sink, name, None)) for name in wanted):
            raise InvalidArgument(
                f"sinks are objects with {', '.join(wanted)}, not {sink!r}: see token_callbacks.sinks"
            )
    return given


def _checked_files(log_dir: object) -> JsonFiles:
    try:
        path = os.fspath(log_dir)  # type: ignore[call-overload]
        is_path = isinstance(path, str) and path != "" and b"\0" not in os.fsencode(path)
    except (TypeError, UnicodeError):
        is_path = False
    if not is_path:
        raise InvalidArgument(f"log_dir is the path of a folder, or None for no files, not {log_dir!r}")
    files = JsonFiles(path)
    reason = files.folder.why_unusable()
    if reason is not None:
        raise InvalidArgument(f"log_dir {path!r} cannot be written to: {reason}; name a folder of your own")
    return files


def _token_of_environment() -> str | None:
    token = os.environ.get(JOINED_RUN_VARIABLE)
    if token is None or any(it.seat_in(token) for it in process_ledger().participants):
        return None
    if not is_run_id(token):  # who set it is not who made this counter, which therefore must not fail
        _log.warning("%s is not the token of a run, and is left alone", JOINED_RUN_VARIABLE)
        return None
    return token


def _import_prices() -> None:
    """Import what knows the prices while a framework is imported, and not when the first run ends, on an event loop.

    Only for counters that are open by now: one that is closed asks for no prices any more.
    """
    for counter in _open_counters():
        counter.load_prices()


def _recover(files: JsonFiles, pricing: Callable[[Totals], Cost | None]) -> None:
    try:
        if not files.folder.markers():
            return
        with importing:
            from token_callbacks.recovery import recover

        done = recover(files.folder.path, pricing=pricing, most_bytes=_MOST_RECOVERED_BYTES, with_unknown=False)
    except OSError as error:
        _log.warning("what an earlier process left open in the log folder cannot be summed up: %s", error)
        return
    except Exception as error:  # noqa: BLE001 - what others left in the folder must keep nobody from counting
        _log.warning("what an earlier process left open in the log folder raised %s", type(error).__name__)
        return
    if done.summaries:
        _log.info("summed up %d runs whose process had died", len(done.summaries))
    if left := done.left + len(done.in_the_way):
        _log.warning("%d runs whose process died are left to sum up: run `token-callbacks recover`", left)


def _marker(run: Run) -> OpenRun:
    return OpenRun(
        run_id=run.run_id,
        parent_run_id=run.parent_run_id,
        name=run.name,
        tags=run.tags,
        started_at=run.started_at,
        # A late call's process is one of those that are added up, as if it had joined.
        is_joined=run.is_part or not run.is_open or run.process != os.getpid(),
    )
