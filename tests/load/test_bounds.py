"""What is kept is bounded: nothing a call that has ended, a known amount an open one, no thread and no file a run.

``TOKEN_CALLBACKS_FULL=1`` makes 1,000,000 calls and 10,000 streams at once, and prints the bytes of each.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import resource
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from litellm.litellm_core_utils.thread_pool_executor import executor

from tests.calls import make_call
from tests.llama_index.figures import what_is_left
from tests.open_files import open_files
from token_callbacks import TokenCounter
from token_callbacks.adapters.litellm import CallState
from token_callbacks.exchanges import Exchange
from token_callbacks.wire import WireEvidence

from .kept import CALLS as CALLS_OF
from .kept import STREAMS as STREAMS_OF
from .kept import NoSink
from .test_concurrent_runs import IS_FULL, workers

CALLS = 1_000_000 if IS_FULL else 20_000
STREAMS = 10_000 if IS_FULL else 50
FRAMEWORK_CALLS = 10_000 if IS_FULL else 100
MOST_BYTES = 8_000
"""Of ours an open stream of which two chunks were read; the frameworks keep several times as much."""

MOST_BYTES_LEFT = 400
"""Of a call that has ended: the frameworks' clients learn for some more; one object of ours a call would be more."""

_ROOT = Path(__file__).parents[2]


def _kept() -> int:
    """Tell the bytes that are kept: of many by the process, which is not slowed down by it."""
    gc.collect()
    if IS_FULL:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return tracemalloc.get_traced_memory()[0]


def _tell(text: str) -> None:
    os.write(sys.__stdout__.fileno() if sys.__stdout__ else 1, f"\n{text}\n".encode())


def _grown(log_dir: Path) -> int:
    if not IS_FULL:
        tracemalloc.start()
    counter = TokenCounter(log_dir=log_dir, sinks=[NoSink()])

    def pairs(number: int) -> None:
        for _ in range(number):
            make_call(prompt=3, completion=4)
            make_call(embedding=5)

    def some(number: int) -> None:
        with counter.run("many"):
            pairs(number // 2)
        pairs(number - number // 2)

    with counter.run("around"):
        some(1000)
        before = _kept()
        for _ in range(10):
            some(CALLS // 20)
        after = _kept()
    counter.close()
    return after - before


def test_memory_is_flat_over_many_calls(tmp_path: Path) -> None:
    """After a warm-up, calls that have ended leave nothing behind, in runs that end and in one that goes on."""
    # In a process without another test's counter, which would take these calls, too.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        grown = process.submit(_grown, tmp_path / "logs").result()

    if IS_FULL:
        _tell(f"{CALLS} calls: {grown} bytes more than before")
    assert grown < (4_000_000 if IS_FULL else 50_000)


def test_a_run_has_no_file_and_no_thread_of_its_own(tmp_path: Path) -> None:
    """Many runs that are open at once write to one file, from the threads that make the calls."""
    counter = TokenCounter(log_dir=tmp_path / "logs")
    threads = threading.active_count()
    scopes = [counter.run(f"run {number}") for number in range(200)]
    for scope in scopes:
        scope.__enter__()
        make_call(prompt=3, completion=4)
    open_then = len(open_files(tmp_path))
    for scope in reversed(scopes):
        scope.__exit__(None, None, None)
    open_now = len(open_files(tmp_path))
    counter.close()

    assert (1, 1, 0) == (open_then, open_now, len(open_files(tmp_path)))
    assert threads == threading.active_count()


def _ours() -> list[object]:
    """Find what an adapter keeps of calls; a test before may have left LiteLLM with some that it holds on to."""
    gc.collect()
    return [thing for thing in gc.get_objects() if isinstance(thing, Exchange | WireEvidence | CallState)]


def _ours_besides(others: list[object]) -> set[int]:
    return set(map(id, _ours())).difference(map(id, others))


def _measuring(measure: str, kind: str, number: int, state: str) -> subprocess.Popen[bytes]:
    paths = os.pathsep.join([str(_ROOT), str(_ROOT / "examples")])
    command = [sys.executable, "-m", "tests.load.kept", measure, kind, str(number), state]
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths}, stdout=subprocess.PIPE)


def _told_by(measuring: subprocess.Popen[bytes]) -> int:
    told, _ = measuring.communicate()
    return int(told)


@pytest.mark.parametrize("kind", CALLS_OF)
def test_memory_is_flat_over_many_calls_through_the_frameworks(kind: str) -> None:
    """After a warm-up nothing of a call stays: not in the ledger, and not in what the adapters know of it."""
    kept = _told_by(_measuring("ended", kind, FRAMEWORK_CALLS, "attached"))

    if IS_FULL:
        _tell(f"{FRAMEWORK_CALLS} calls, {kind}: {kept} bytes kept of each")
    assert kept < MOST_BYTES_LEFT


@pytest.mark.parametrize("kind", STREAMS_OF)
def test_an_open_stream_keeps_few_bytes(kind: str) -> None:
    """Of many streams that are open at once, each costs some kilobytes beside the framework's own."""
    attached, alone = map(_told_by, [_measuring("open", kind, STREAMS, state) for state in ("attached", "alone")])

    if IS_FULL:
        _tell(f"{STREAMS} open streams, {kind}: {attached} bytes each, {alone} without us")
    assert 0 < attached - alone < MOST_BYTES


@pytest.mark.parametrize("opener", STREAMS_OF.values(), ids=list(STREAMS_OF))
def test_streams_that_were_open_at_once_leave_nothing(tmp_path: Path, opener: Callable[[], Callable[[], Any]]) -> None:
    """Read to their end, they are let go of, and no thread was made for one of them."""
    others, of_others = len(workers()), _ours()
    counter = TokenCounter(log_dir=tmp_path / "logs", sinks=[NoSink()])
    with counter.run("streams") as run:
        make = opener()
        streams = [make() for _ in range(50)]
        for stream in streams:
            next(stream)
        ours = len(workers()) - others  # LiteLLM has a pool
        for stream in streams:
            list(stream)
        del streams, stream
    left = what_is_left()
    ours_left = _ours_besides(of_others)
    late = time.monotonic() + 30
    while len(ours_left) > 3 and time.monotonic() < late:  # LiteLLM's threads tell of some ends still
        executor.submit(int).result()
        ours_left = _ours_besides(of_others)
    counter.close()

    assert 1 >= ours
    assert [] == left
    assert 3 >= len(ours_left)  # those of one call: LiteLLM holds on to its latest one
    assert 50 == run.summary.calls.llm
