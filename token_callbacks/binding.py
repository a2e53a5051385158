"""Carry a run to where Python does not carry it: into threads and executors, and along iterators read elsewhere."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

from token_callbacks.errors import InvalidArgument

Entering = Callable[[], AbstractContextManager[Any]]
"""Gives what makes the run current while it is entered."""


def bound(entering: Entering, target: Any) -> Any:
    """Return what behaves as the target does, with the run current whenever its code runs.

    Raises ``InvalidArgument`` for what can neither be called nor iterated, and for a pool of processes.
    """
    if isinstance(target, Executor):
        if isinstance(target, ProcessPoolExecutor):
            raise InvalidArgument(
                "a run cannot be bound to a ProcessPoolExecutor, whose processes share no memory with this one: hand"
                " over run.token, or set TOKEN_CALLBACKS_RUN for them"
            )
        return BoundExecutor(entering, target)
    if hasattr(target, "__anext__"):
        return BoundAsyncIterator(entering, target)
    if hasattr(target, "__next__"):
        return BoundIterator(entering, target)
    if inspect.iscoroutine(target):
        return _awaiting(entering, target)
    if callable(target):
        return _bound_function(entering, target)
    raise InvalidArgument(
        f"run.bind takes a function, an iterator, a coroutine or an executor, not {type(target).__name__}: bind what"
        " makes the calls, run.bind(function)"
    )


def _bound_function(entering: Entering, function: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            with entering():
                return await function(*args, **kwargs)

        return call_async

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with entering():
            made = function(*args, **kwargs)
        runs_later = inspect.isgenerator(made) or inspect.isasyncgen(made) or inspect.iscoroutine(made)
        return bound(entering, made) if runs_later else made

    return call


async def _awaiting(entering: Entering, coroutine: Any) -> Any:
    with entering():
        return await coroutine


class BoundIterator(Iterator[Any]):
    """An iterator, or a generator with all it can do, each step of which is made in the run."""

    def __init__(self, entering: Entering, iterator: Any) -> None:
        self._entering = entering
        self._iterator = iterator

    def __next__(self) -> Any:
        """Make the next step."""
        with self._entering():
            return next(self._iterator)

    def send(self, value: Any) -> Any:
        """Make the next step with a value."""
        with self._entering():
            return self._iterator.send(value)

    def throw(self, *error: Any) -> Any:
        """Raise an exception inside."""
        with self._entering():
            return self._iterator.throw(*error)

    def close(self) -> None:
        """Close it, if it can be closed."""
        close = getattr(self._iterator, "close", None)
        if close is not None:
            with self._entering():
                close()


class BoundAsyncIterator(AsyncIterator[Any]):
    """The same for ``async for``."""

    def __init__(self, entering: Entering, iterator: Any) -> None:
        self._entering = entering
        self._iterator = iterator

    async def __anext__(self) -> Any:
        """Make the next step."""
        with self._entering():
            return await anext(self._iterator)

    async def asend(self, value: Any) -> Any:
        """Make the next step with a value."""
        with self._entering():
            return await self._iterator.asend(value)

    async def athrow(self, *error: Any) -> Any:
        """Raise an exception inside."""
        with self._entering():
            return await self._iterator.athrow(*error)

    async def aclose(self) -> None:
        """Close it, if it can be closed."""
        close = getattr(self._iterator, "aclose", None)
        if close is not None:
            with self._entering():
                await close()


class BoundExecutor(Executor):
    """An executor whose work is done in the run; it is the executor that was given, which may be used beside it."""

    def __init__(self, entering: Entering, executor: Executor) -> None:
        self._entering = entering
        self._executor = executor

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have a function called in the run."""
        return self._executor.submit(_bound_function(self._entering, function), *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut the executor down."""
        self._executor.shutdown(wait, cancel_futures=cancel_futures)
