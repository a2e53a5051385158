"""Counting long texts: not where the host waits, and not lost either."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from token_callbacks import TokenCounter, counting
from token_callbacks.ledger import INLINE_CHARACTERS, process_ledger
from token_callbacks.records import Outcome, Provenance
from token_callbacks.sinks.memory import MemorySink
from token_callbacks.worker import Worker

from .calls import Told, open_call

LONG = "The library opens at nine. " * (INLINE_CHARACTERS // 27 + 1)
SHORT = "The library opens at nine."


def _end(text: str) -> None:
    told = Told(None, text=text, messages=[{"role": "user", "content": "Hi"}])
    process_ledger().close_call(open_call(), outcome=Outcome.COMPLETED, evidence=[told])


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the threads that completions are counted on."""
    names: list[str] = []
    original = counting.count_completion

    def count(**arguments: Any) -> Any:
        names.append(threading.current_thread().name)
        return original(**arguments)

    monkeypatch.setattr(counting, "count_completion", count)
    return names


def test_a_short_text_is_counted_where_its_call_ends(
    counter: TokenCounter, memory: MemorySink, threads: list[str]
) -> None:
    """The record is there when the call is over."""
    with counter.run("short"):
        _end(SHORT)

        assert 1 == len(memory.records)
    assert [threading.current_thread().name] == threads


def test_a_long_text_is_not_counted_where_its_call_ends(
    counter: TokenCounter, memory: MemorySink, threads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in sync code nor on an event loop is anything counted while the caller waits."""
    kept: list[Any] = []
    monkeypatch.setattr(process_ledger(), "_worker", _Idle(kept))

    async def main() -> None:
        _end(LONG)

    asyncio.run(main())
    _end(LONG)

    assert ([], []) == (threads, memory.records)
    for job in kept:
        job()
    assert 2 == len(memory.records)


class _Idle:
    def __init__(self, kept: list[Any]) -> None:
        self._kept = kept

    def submit(self, key: object, job: Any) -> None:
        self._kept.append(job)

    def finish(self, is_wanted: object) -> None:
        """Do nothing."""


def test_a_run_ends_with_all_of_its_long_texts_counted(counter: TokenCounter, memory: MemorySink) -> None:
    """A record each, exact, and the summary has them."""
    with counter.run("long") as run:
        for _ in range(20):
            _end(LONG)

    expected = counting.count_completion(model="gpt-4o", text=LONG).tokens
    assert [expected] * 20 == [record.usage.completion_tokens for record in memory.records]
    assert 20 * expected == run.summary.llm_completion_tokens
    assert {Provenance.COUNTED} == {record.provenance.completion for record in memory.records}


def test_a_summary_that_is_read_on_the_way_has_counted_what_was_waiting(counter: TokenCounter) -> None:
    """``run.summary`` is what the run used up to now."""
    with counter.run("long") as run:
        _end(LONG)

        assert 1 == run.summary.calls.llm or _thread_is_at_it()


def _thread_is_at_it() -> bool:
    return any(thread.name == "token_callbacks" for thread in threading.enumerate())


def test_an_async_run_ends_with_its_long_texts_counted(counter: TokenCounter, memory: MemorySink) -> None:
    """It holds for ``async with``."""

    async def main() -> None:
        async with counter.run("long"):
            _end(LONG)

    asyncio.run(main())
    assert 1 == len(memory.records)


def test_a_fault_while_counting_is_a_record_without_figures(
    counter: TokenCounter, memory: MemorySink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is noted, and the call is not lost."""
    monkeypatch.setattr(counting, "count_completion", lambda **_: 1 / 0)
    with counter.run("faulty") as run:
        _end(LONG)

    [record] = memory.records
    assert (Provenance.MISSING, 1) == (record.provenance.completion, run.summary.internal_errors)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_counts_its_own(counter: TokenCounter) -> None:
    """The parent's thread is not there in the child, which starts one of its own."""
    with counter.run("parent"):
        _end(LONG)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            memory = MemorySink()
            own = TokenCounter(log_dir=None, sinks=[memory])
            with own.run("child"):
                _end(LONG)
            status = 0 if len(memory.records) == 1 else 2
        finally:
            os._exit(status)

    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_the_first_count_of_a_process_is_not_made_on_its_event_loop() -> None:
    """Reading a vocabulary takes longer than a loop should wait."""
    script = """
import asyncio, threading
from token_callbacks import TokenCounter
from token_callbacks.sinks.memory import MemorySink
from tests.test_worker import SHORT, _end
import sys
for name in [name for name in sys.modules if name.startswith("token_callbacks.counting")]:
    del sys.modules[name]
memory = MemorySink()
counter = TokenCounter(log_dir=None, sinks=[memory])
async def main():
    async with counter.run("first"):
        _end(SHORT)
        print(any(thread.name == "token_callbacks" for thread in threading.enumerate()))
asyncio.run(main())
print(len(memory.records))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert ["True", "1"] == done.stdout.split()


class _Held:
    """Counting that takes as long as the test wants it to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.has_begun, self.may_end = threading.Event(), threading.Event()
        self._original = counting.count_completion
        monkeypatch.setattr(counting, "count_completion", self._count)

    def _count(self, **arguments: Any) -> Any:
        self.has_begun.set()
        self.may_end.wait(60)
        return self._original(**arguments)


@pytest.fixture
def hasty(memory: MemorySink) -> Iterator[TokenCounter]:
    """Give a counter that waits for no event of a framework when a run ends."""
    counter = TokenCounter(log_dir=None, sinks=[memory], drain_seconds=0)
    yield counter
    counter.close()


def test_a_run_waits_for_what_is_being_counted(
    hasty: TokenCounter, memory: MemorySink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a slow machine the first count may take longer than the wait for a framework's events."""
    held = _Held(monkeypatch)

    def end_when_waited_for() -> None:
        while not held.may_end.is_set():
            if vars(process_ledger())["_waiting"]:
                held.may_end.set()

    helper = threading.Thread(target=end_when_waited_for)
    with hasty.run("slow"):
        _end(LONG)
        assert held.has_begun.wait(60)
        helper.start()
    seen = len(memory.records)
    held.may_end.set()

    assert 1 == seen


def test_a_run_in_an_event_loop_waits_for_what_is_being_counted(
    hasty: TokenCounter, memory: MemorySink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the loop goes on meanwhile."""
    held = _Held(monkeypatch)

    async def end_later() -> None:
        await asyncio.sleep(0)
        held.may_end.set()

    async def main() -> None:
        async with hasty.run("slow"):
            _end(LONG)
            assert held.has_begun.wait(60)
            later = asyncio.create_task(end_later())
        seen.append(len(memory.records))
        await later

    seen: list[int] = []
    asyncio.run(main())

    assert [1] == seen


def test_the_worker_does_jobs_in_their_order() -> None:
    """First come, first served."""
    worker, seen, done = Worker(), [], threading.Event()
    for number in range(5):
        worker.submit(number, lambda number=number: seen.append(number))
    worker.submit("last", done.set)

    assert done.wait(120)
    assert [0, 1, 2, 3, 4] == seen
