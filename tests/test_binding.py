"""``run.bind``: the run goes along where Python would not take it."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import pytest

from token_callbacks import TokenCounter
from token_callbacks.errors import InvalidArgument
from token_callbacks.sinks.memory import MemorySink

from .calls import make_call


def _ask(prompt: int = 3) -> int:
    make_call(prompt=prompt, completion=1)
    return prompt


async def _aask(prompt: int = 3) -> int:
    return _ask(prompt)


def _stream() -> Iterator[int]:
    received = 0
    try:
        while True:
            received = (yield _ask(received + 3)) or 0
    finally:
        _ask(100)


async def _astream() -> AsyncIterator[int]:
    try:
        yield _ask(3)
        yield _ask(4)
    finally:
        _ask(100)


def _in_thread(function: Any, *args: Any) -> None:
    thread = threading.Thread(target=function, args=args)
    thread.start()
    thread.join()


def _prompts(memory: MemorySink, run_id: str) -> list[int | None]:
    return [record.usage.prompt_tokens for record in memory.records if record.run_id == run_id]


def test_a_thread_calls_in_the_run(counter: TokenCounter, memory: MemorySink) -> None:
    """A bare thread has no context of its own; a bound function brings the run."""
    with counter.run("outer") as run:
        _in_thread(run.bind(_ask), 5)
        _in_thread(_ask, 6)

    assert [5] == _prompts(memory, run.run_id)
    assert [6] == _prompts(memory, counter.default_run.run_id)


def test_the_step_goes_along(counter: TokenCounter, memory: MemorySink) -> None:
    """What was bound in a step is made in it."""
    with counter.run("outer") as run, run.step("judge"):
        bound = run.bind(_ask)
    _in_thread(bound)

    assert ["judge"] == [record.step for record in memory.records]


def test_an_executor_works_in_the_run(counter: TokenCounter, memory: MemorySink) -> None:
    """Its map and its submit."""
    with counter.run("pool") as run, ThreadPoolExecutor(3) as pool:
        assert [1, 2, 3] == list(run.bind(pool).map(_ask, [1, 2, 3]))
        assert 4 == run.bind(pool).submit(_ask, 4).result()

    assert [1, 2, 3, 4] == sorted(tokens or 0 for tokens in _prompts(memory, run.run_id))


def test_a_coroutine_function_awaits_in_the_run(counter: TokenCounter, memory: MemorySink) -> None:
    """Also on a loop in another thread."""
    with counter.run("async") as run:
        bound = run.bind(_aask)
    _in_thread(lambda: asyncio.run(bound(7)))

    assert [7] == _prompts(memory, run.run_id)


class _Asker:
    async def __call__(self) -> int:
        return await _aask(4)


@pytest.mark.parametrize(
    "ask", [lambda: _aask(4), _Asker(), functools.partial(_aask, 4)], ids=["lambda", "object", "partial"]
)
def test_what_gives_a_coroutine_gives_it_bound(counter: TokenCounter, memory: MemorySink, ask: Any) -> None:
    """Whatever Python takes it for: decorators hide a coroutine function."""
    with counter.run("outer") as run:
        bound = run.bind(ask)

    assert 4 == asyncio.run(bound())
    assert [4] == _prompts(memory, run.run_id)


def test_a_coroutine_is_awaited_in_the_run(counter: TokenCounter, memory: MemorySink) -> None:
    """One that is made already."""
    with counter.run("async") as run:
        bound = run.bind(_aask(8))
    _in_thread(lambda: asyncio.run(bound))

    assert [8] == _prompts(memory, run.run_id)


def test_a_generator_makes_its_steps_in_the_run_and_keeps_its_protocol(
    counter: TokenCounter, memory: MemorySink
) -> None:
    """``next``, ``send``, ``throw`` and ``close`` do what they do without us."""
    with counter.run("stream") as run:
        stream = run.bind(_stream())

    assert (3, 8) == (next(stream), stream.send(5))
    with pytest.raises(ValueError, match="stop"):
        stream.throw(ValueError("stop"))
    assert [3, 8, 100] == _prompts(memory, run.run_id)


def test_a_generator_that_is_closed_cleans_up_in_the_run(counter: TokenCounter, memory: MemorySink) -> None:
    """Its ``finally`` may call as well."""
    with counter.run("stream") as run:
        stream = run.bind(_stream())
    next(stream)
    stream.close()

    assert [3, 100] == _prompts(memory, run.run_id)


def test_an_async_generator_makes_its_steps_in_the_run(counter: TokenCounter, memory: MemorySink) -> None:
    """Read in another task, to its end or not."""
    with counter.run("stream") as run:
        stream = run.bind(_astream())

    async def read() -> None:
        await anext(stream)
        await stream.aclose()

    asyncio.run(read())
    assert [3, 100] == _prompts(memory, run.run_id)


def test_a_generator_function_gives_bound_generators(counter: TokenCounter, memory: MemorySink) -> None:
    """The function runs when it is read."""
    with counter.run("stream") as run:
        bound = run.bind(_stream)
    stream = bound()
    next(stream)
    stream.close()

    assert [3, 100] == _prompts(memory, run.run_id)


def test_the_readers_own_run_stays_current(counter: TokenCounter, memory: MemorySink) -> None:
    """Between the steps of a bound stream the reader is in his own run."""
    with counter.run("maker") as maker:
        stream = maker.bind(_stream())
    with counter.run("reader") as reader:
        next(stream)
        _ask(50)
        stream.close()

    assert ([3, 100], [50]) == (_prompts(memory, maker.run_id), _prompts(memory, reader.run_id))


def test_a_pool_of_processes_is_refused_with_the_next_step(counter: TokenCounter) -> None:
    """Its workers have memory of their own."""
    with (
        counter.run("pool") as run,
        ProcessPoolExecutor(1) as pool,
        pytest.raises(InvalidArgument, match=r"run\.token"),
    ):
        run.bind(pool)


@pytest.mark.parametrize("target", [None, 3, "ask", [1, 2]])
def test_what_cannot_be_called_or_iterated_is_refused(counter: TokenCounter, target: Any) -> None:
    """The error says what to bind."""
    with counter.run("odd") as run, pytest.raises(InvalidArgument, match="bind what makes the calls"):
        run.bind(target)
