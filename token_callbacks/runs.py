"""Runs and steps: which run a call belongs to, in sync code, asyncio, threads and nested runs.

One context variable holds the chain of open runs and steps, innermost first. It follows the context that Python itself
copies: into asyncio tasks, ``asyncio.to_thread`` and LlamaIndex's own threads, but not into a bare
``ThreadPoolExecutor.submit`` (give that one ``contextvars.copy_context().run``).
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import inspect
import os
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from token_callbacks.errors import InvalidArgument, RunOrderError
from token_callbacks.imports import importing
from token_callbacks.records import Cost, RunOutcome, RunSummary
from token_callbacks.totals import Totals

if TYPE_CHECKING:
    import asyncio

_F = TypeVar("_F", bound=Callable[..., Any])


class RunOwner(Protocol):
    """The counter, as far as a run needs it."""

    def leave_run(self, run: Run) -> None:
        """Drain the run's calls and end this process's part in it, unless it was opened here."""

    async def leave_run_async(self, run: Run) -> None:
        """Drain without blocking the event loop and end this process's part in the run."""

    def token_of(self, run: Run) -> str:
        """Return what another process takes part in the run with."""

    def finish_run(self, run: Run, outcome: RunOutcome) -> None:
        """Drain the run's calls and write its summary."""

    async def finish_run_async(self, run: Run, outcome: RunOutcome) -> None:
        """Drain the run's calls without blocking the event loop and write its summary."""

    def summary_of(self, run: Run) -> RunSummary:
        """Read the run's totals as of now."""

    def summary_path_of(self, run: Run) -> Path | None:
        """Tell where the run's summary is written."""

    def require_open(self) -> None:
        """Raise ``CounterClosed`` after ``close()``."""

    def take(self, draft: Any, scope: Scope) -> None:
        """Make a call that has ended a record of the run and step it was made in."""


class Run:
    """One run of the user's program: what ``counter.run(...)`` opens. Safe to read from any thread."""

    def __init__(
        self,
        *,
        run_id: str,
        name: str,
        tags: Mapping[str, str],
        parent: Run | None,
        owner: RunOwner,
        started_at: datetime,
    ) -> None:
        self.run_id = run_id
        """Ours, unique, sorts by start time; also the name of the summary file."""
        self.name = name
        self.tags = dict(tags)
        self.parent = parent
        """The run this one was opened in, or ``None``."""
        self.owner = owner
        self.started_at = started_at
        self.ended_at: datetime | None = None
        self.outcome = RunOutcome.RUNNING
        self.totals = Totals()
        self.nested_totals = [0, 0, 0]
        self.internal_errors = 0
        self.lost_records = 0
        self.cost: Cost | None = None
        """What the run's calls cost, as last written."""
        self.is_unpriceable = False
        """Whether working out the cost failed, which is counted and not tried again."""
        self.process = os.getpid()
        self.parent_run_id = None if parent is None else parent.run_id
        self.is_part = False
        """Whether another process opened the run, and this one only takes part."""
        self.is_shared = False
        """Whether other processes may take part in the run."""
        self.lacks_marker = False
        """Whether the first record has yet to tell the log folder that this process takes part."""
        self.entered = 0
        """How often this process takes part right now."""
        self.elsewhere: tuple[Totals, Sequence[int]] | None = None
        """What other processes used, and used in runs inside this one; known at the end."""
        self.losses_elsewhere = (0, 0)
        """The records that other processes lost, and their faults."""

    def become_part(self) -> None:
        """Go on in a forked child: what was used up to now is the parent's, and so is the summary."""
        self.is_part = self.lacks_marker = True
        self.entered = 1
        self.totals = Totals()
        self.nested_totals = [0, 0, 0]
        self.internal_errors = self.lost_records = 0

    def __repr__(self) -> str:
        return f"<Run {self.name!r} {self.run_id} {self.outcome.value}>"

    @property
    def is_open(self) -> bool:
        """Whether the run goes on."""
        return self.ended_at is None

    @property
    def summary(self) -> RunSummary:
        """What the run used up to now; after the run's end, the object that is written to disk."""
        return self.owner.summary_of(self)

    @property
    def summary_path(self) -> Path | None:
        """The summary's file, written at the run's end; ``None`` for a counter that writes no files."""
        return self.owner.summary_path_of(self)

    @property
    def token(self) -> str:
        """What another process takes part in this run with: ``counter.join_run(token)``, or ``TOKEN_CALLBACKS_RUN``.

        Raises ``InvalidArgument`` for a counter that writes no files: in the log folder the parts come together.
        """
        return self.owner.token_of(self)

    def step(self, name: str) -> Step:
        """Name a part of the run: ``with run.step("judge"):``, also ``async with``. Calls made inside carry the name.

        Raises ``InvalidArgument`` for an empty name and ``CounterClosed`` after ``counter.close()``.
        """
        self.owner.require_open()
        return Step(self, checked_name(name, "step"))

    def bind(self, target: Any) -> Any:
        """Carry this run, and the step that is current in it now, to where Python does not carry it by itself.

        A function or coroutine function is then called in the run, on whatever thread; an iterator or generator, sync
        or async, makes each of its steps in the run, whoever reads it; a coroutine is awaited in it; and an executor
        works in it: ``with ThreadPoolExecutor() as pool: run.bind(pool).map(ask, questions)``. ``asyncio`` tasks,
        ``asyncio.to_thread`` and LlamaIndex's own threads need none of this.

        Raises ``InvalidArgument`` for anything else, and for a pool of processes.
        """
        with importing:  # concurrent.futures, which it imports, costs more than all of this package
            from token_callbacks.binding import bound

        step = next((link.step for link in chain_from(current_scope()) if link.run is self), None)
        return bound(functools.partial(within, self, step), target)


class Scope:
    """One link in the chain of open runs and steps; also the seat that a counter takes in a call made there."""

    __slots__ = ("entered", "is_over", "outer", "participant", "reader", "run", "step")

    def __init__(self, run: Run, step: str | None, outer: Scope | None) -> None:
        self.run = run
        self.participant: Any = run.owner
        """The counter that the run belongs to."""
        self.step = step
        self.outer = outer
        self.entered: contextvars.Token[Scope | None] | None = None
        """While it is the innermost one of a context, or was before others: what tells that context from its copies."""
        self.is_over = False
        """It was left, but not as the innermost one of the context that it was entered in, which still has it."""
        self.reader: weakref.ref[asyncio.Task[Any]] | None = None
        """The task that entered it, if any; where it was left otherwise than by a generator that was dropped, none."""


_innermost: contextvars.ContextVar[Scope | None] = contextvars.ContextVar("token_callbacks_scope", default=None)


def current_scope() -> Scope | None:
    """Find the innermost run or step of this context; ``None`` outside of any.

    An async generator that is dropped is closed in a task of its own, and so is what was opened inside it. Its reader
    is out of that, then, and so is what either of them started: a copy of their context does not tell whose it is. Once
    the reader has ended, as a web server's does when the browser leaves, what goes on is what was started inside.
    """
    scope = _innermost.get()
    while scope is not None and scope.is_over:
        if _is_restored_around(scope):
            scope = _innermost.get()
        elif _has_lost_its_reader(scope):
            break
        else:
            scope = scope.outer
    return scope


def _is_restored_around(scope: Scope) -> bool:
    """Restore what was innermost before, where this is the context that the scope was entered in, and no copy of it.

    Its reader's, that is; and of whatever goes on in that context when the reader's task has ended.
    """
    if scope.entered is None:
        return False
    try:
        _innermost.reset(scope.entered)
    except (ValueError, RuntimeError):  # a copy; and where another thread, whose context it is, has just done so
        return False
    scope.entered = None
    return True


def _has_lost_its_reader(scope: Scope) -> bool:
    if scope.reader is None:
        return False
    reader = scope.reader()
    return reader is None or reader.done()


def running_task() -> asyncio.Task[Any] | None:
    """Find the task that this code is a part of; ``None`` outside of any."""
    module = sys.modules.get("asyncio")  # not imported for it: that costs more than this whole package
    try:
        return None if module is None else module.current_task()
    except RuntimeError:  # no loop runs here
        return None


def is_closing_generator() -> bool:
    """Tell whether the task that runs does nothing but close an async generator, which its reader has dropped.

    An event loop makes such a task, and cancels it with all others where it is about to end.
    """
    task = running_task()
    return task is not None and type(task.get_coro()).__name__ == "async_generator_athrow"


def chain_from(scope: Scope | None) -> Iterator[Scope]:
    """Walk from a scope outwards."""
    while scope is not None:
        yield scope
        scope = scope.outer


def enter(run: Run, step: str | None) -> Scope:
    """Make a run or step the innermost one of this context."""
    outer = current_scope()
    # A job that starts the next one from inside its run: each would hold all those before it.
    while outer is not None and outer.run.owner is run.owner and not outer.run.is_open:
        outer = outer.outer
    scope = Scope(run, step, outer)
    scope.entered = _innermost.set(scope)
    task = running_task()
    scope.reader = None if task is None else weakref.ref(task)
    return scope


@contextlib.contextmanager
def within(run: Run, step: str | None) -> Iterator[None]:
    """Make a run or step the innermost one of this context for a block, whatever is left open inside it."""
    token = _innermost.set(Scope(run, step, current_scope()))
    try:
        yield
    finally:
        _innermost.reset(token)


_agent: contextvars.ContextVar[str | None] = contextvars.ContextVar("token_callbacks_agent", default=None)

current_agent = _agent.get
"""Read who is at work in this context, where an adapter said so; ``None`` where none did."""


@contextlib.contextmanager
def acting(agent: str) -> Iterator[None]:
    """Name who makes the calls of a block, for a framework that cannot tell it with the call."""
    token = _agent.set(agent)
    try:
        yield
    finally:
        _agent.reset(token)


def carried(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a coroutine function that runs where this code runs: in its run and step, in whatever context it starts.

    Only that is carried, and who is at work; all else of the context is the host's business.
    """
    kept = _kept()
    if not kept:
        return function

    @functools.wraps(function)
    async def run(*args: Any, **kwargs: Any) -> Any:
        for variable, value in kept:  # in a context that ends with the coroutine
            variable.set(value)
        return await function(*args, **kwargs)

    return run


def carried_call(function: Callable[..., Any]) -> Callable[..., Any]:
    """Do for a function that another thread calls what ``carried`` does for a coroutine function."""
    kept = _kept()
    if not kept:
        return function

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        context = contextvars.copy_context()
        for variable, value in kept:
            context.run(variable.set, value)
        return context.run(function, *args, **kwargs)

    return call


def _kept() -> list[tuple[contextvars.ContextVar[Any], Any]]:
    return [(variable, value) for variable in (_innermost, _agent) if (value := variable.get()) is not None]


def leave(scope: Scope, error: BaseException | None) -> None:
    """Restore what was innermost before; raises ``RunOrderError`` while something opened inside is still open.

    Left in another context than it was entered in (an async fixture, a framework's dependency), there is nothing to
    restore here. While an exception is on its way to the host, it goes first.
    """
    innermost = next((link for link in chain_from(current_scope()) if not link.is_over), None)
    if innermost is scope and scope.entered is not None:
        if _is_restored_around(scope):
            return
        _innermost.set(scope.outer)  # in a copy of its context
    elif innermost is not None and error is None and any(link is scope for link in chain_from(innermost)):
        raise RunOrderError(
            f"{_title(scope)} is left while {_title(innermost)}, opened inside it, is still open: leave that one first,"
            " or use `with` blocks, which close in the right order by themselves"
        )
    scope.is_over = True
    if not is_closing_generator():
        scope.entered = scope.reader = None


class Step:
    """A named part of a run, as a context manager; ``with`` and ``async with``, once each."""

    def __init__(self, run: Run, name: str) -> None:
        self._run = run
        self._name = name
        self._scope: Scope | None = None

    def __enter__(self) -> Run:
        """Make the step current and hand out its run."""
        self._scope = enter(self._run, self._name)
        return self._run

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Make what was current before current again."""
        if self._scope is not None:
            leave(self._scope, error)
            self._scope = None

    async def __aenter__(self) -> Run:
        """Make the step current and hand out its run."""
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Make what was current before current again."""
        self.__exit__(kind, error, trace)


class RunScope:
    """What ``counter.run(...)`` gives: ``with``, ``async with`` or a decorator, each use a run of its own."""

    def __init__(self, owner: RunOwner, open_run: Callable[[], Run]) -> None:
        self._owner = owner
        self._open_run = open_run
        self._entered: list[Scope] = []

    def __enter__(self) -> Run:
        """Open the run, inside the current one if there is one."""
        run = self._open_run()
        self._entered.append(enter(run, None))
        return run

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drain the run's calls, end it and write its summary; raises ``RunOrderError`` if one inside is open."""
        run = self._leave(error)
        if run is not None:
            self._finish(run, outcome_of(error))

    async def __aenter__(self) -> Run:
        """Open the run, inside the current one if there is one."""
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drain the run's calls without blocking the event loop, end it and write its summary."""
        run = self._leave(error)
        if run is not None:
            await self._finish_async(run, outcome_of(error))

    def _finish(self, run: Run, outcome: RunOutcome) -> None:
        self._owner.finish_run(run, outcome)

    async def _finish_async(self, run: Run, outcome: RunOutcome) -> None:
        await self._owner.finish_run_async(run, outcome)

    def _leave(self, error: BaseException | None) -> Run | None:
        if not self._entered:
            return None
        # Two tasks may use one object at once: each leaves what is open around itself.
        mine = (scope for scope in chain_from(current_scope()) if scope in self._entered)
        scope = next(mine, self._entered[-1])
        leave(scope, error)
        self._entered.remove(scope)
        return scope.run

    def __call__(self, function: _F) -> _F:
        """Decorate a function or coroutine function: every call of it is a run.

        Raises ``InvalidArgument`` for a generator function, whose body runs in pieces inside its consumer.
        """
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise InvalidArgument(
                f"{function.__qualname__} is a generator function: open the run in the code that consumes it,"
                " `with counter.run(...): for item in ...`"
            )
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def run_async(*args: Any, **kwargs: Any) -> Any:
                async with type(self)(self._owner, self._open_run):
                    return await function(*args, **kwargs)

            return cast("_F", run_async)

        @functools.wraps(function)
        def run_sync(*args: Any, **kwargs: Any) -> Any:
            with type(self)(self._owner, self._open_run):
                return function(*args, **kwargs)

        return cast("_F", run_sync)


class JoinScope(RunScope):
    """What ``counter.join_run(...)`` gives: the same uses, each of them a part in the run that another one opened."""

    # How a part ends does not decide how the run ends.
    def _finish(self, run: Run, outcome: RunOutcome) -> None:  # noqa: ARG002
        self._owner.leave_run(run)

    async def _finish_async(self, run: Run, outcome: RunOutcome) -> None:  # noqa: ARG002
        await self._owner.leave_run_async(run)


def outcome_of(error: BaseException | None) -> RunOutcome:
    """Tell a run's outcome from the exception that leaves it."""
    if error is None or (isinstance(error, SystemExit) and not error.code):
        return RunOutcome.COMPLETED
    if isinstance(error, SystemExit):
        return RunOutcome.FAILED
    return RunOutcome.CANCELLED if is_cancellation(error) else RunOutcome.FAILED


def is_cancellation(error: BaseException) -> bool:
    """Tell whether the exception says that nobody waits for the result any more."""
    # asyncio's CancelledError by name: importing asyncio costs more than this whole package.
    return isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit) or any(
        kind.__name__ == "CancelledError" for kind in type(error).__mro__
    )


def checked_name(name: object, what: str) -> str:
    """Return the name; raises ``InvalidArgument`` unless it is a string with something in it."""
    if not isinstance(name, str) or not name:
        raise InvalidArgument(f"a {what} needs a name, a non-empty string, not {name!r}: .{what}('nightly-digest')")
    return name


def checked_tags(tags: object) -> Mapping[str, str]:
    """Return the tags; raises ``InvalidArgument`` unless they are a mapping of strings to strings."""
    if tags is None:
        return {}
    if not isinstance(tags, Mapping) or not all(isinstance(k, str) and isinstance(v, str) for k, v in tags.items()):
        raise InvalidArgument(f"tags are a mapping of strings to strings, such as {{'team': 'search'}}, not {tags!r}")
    return tags


def _title(scope: Scope) -> str:
    return f"run {scope.run.name!r}" if scope.step is None else f"step {scope.step!r}"
