"""No fault loses one of many calls: 2,000, or as many as ``TOKEN_CALLBACKS_FAULT_CALLS`` says (100000 for a judge)."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.calls import make_call
from tests.faults.programs import FILLED
from token_callbacks import TokenCounter
from token_callbacks.recovery import recover

from .conftest import Start, Started, disk_full_at, ended, let_all_in, records, size_of

CALLS = int(os.environ.get("TOKEN_CALLBACKS_FAULT_CALLS", "2000"))
TURNS = 20
_MEMORY = 512 * 2**20
"""Bytes that the control group has."""

_GROUPS = Path("/sys/fs/cgroup/memory")

_HOARD = f"import sys; len(bytearray({FILLED} if sys.stdin.readline() else 0))"


def _prompts(log_dir: Path) -> Counter[int | None]:
    return Counter(record.usage.prompt_tokens for record in records(log_dir))


@pytest.mark.parametrize(
    ("death", "status"), [("kill", -signal.SIGKILL), ("term", -signal.SIGTERM), ("exit", 0)], ids=str
)
def test_a_process_that_dies_loses_none(start: Start, log_dir: Path, death: str, status: int) -> None:
    """All calls that had closed are in the lines, and in the summary that is made of them."""
    process = start("bare_load", log_dir, CALLS, death)
    process.communicate()

    assert status == process.returncode
    _assert_recovered(log_dir)


@pytest.mark.parametrize("death", ["kill", "exit"])
def test_a_process_that_dies_among_its_threads_loses_none(start: Start, log_dir: Path, death: str) -> None:
    """Dying at any call, while others are under way: what had closed is in a line, once, and summed up."""
    dies_at = random.Random(death).randint(CALLS // 2, CALLS)
    told, _ = start("bare_threads", log_dir, 4, dies_at, death).communicate()
    closed = {int.from_bytes(told[at : at + 4]) for at in range(0, len(told), 4)}
    found = _prompts(log_dir)
    [summary] = recover(log_dir).summaries

    assert dies_at - 4 <= len(closed)
    assert closed <= set(found)
    assert {1} == set(found.values())
    assert (sum(found.values()), sum(found)) == (summary.calls.llm, summary.llm_prompt_tokens)


@pytest.fixture
def in_little_memory() -> Iterator[Callable[[Started], None]]:
    """Put a process into a control group of its own, of which the kernel ends what takes more memory than there is."""
    group = _GROUPS / f"token-callbacks-{os.getpid()}"
    members = group / "cgroup.procs"

    def join(process: Started) -> None:
        members.write_text(str(process.pid))

    if (reason := _why_unlimited(group, join)) is not None:
        pytest.skip(f"no control group of memory can be made here: {reason}")
    yield join
    with suppress(OSError):  # the kernel may not have let go of the last member yet
        group.rmdir()


def _why_unlimited(group: Path, join: Callable[[Started], None]) -> str | None:
    try:
        group.mkdir()
        if not (group / "cgroup.procs").exists():
            return "it is a mere folder"
        (group / "memory.limit_in_bytes").write_text(str(_MEMORY))
        with subprocess.Popen([sys.executable, "-c", _HOARD], stdin=subprocess.PIPE) as hoarder:
            join(hoarder)
            hoarder.communicate(b"go on\n")
    except OSError as error:
        return str(error)
    return None if hoarder.returncode == -signal.SIGKILL else "it limits nothing"


def test_a_process_that_the_kernel_ends_for_its_memory_loses_none(
    start: Start, log_dir: Path, in_little_memory: Callable[[int], None]
) -> None:
    """The real out-of-memory killer, in a control group."""
    process = start("bare_load", log_dir, CALLS, "memory")
    in_little_memory(process)
    process.communicate()

    assert -signal.SIGKILL == process.returncode
    _assert_recovered(log_dir)


def _assert_recovered(log_dir: Path) -> None:
    [summary] = recover(log_dir).summaries

    assert {3: CALLS} == _prompts(log_dir)
    assert (CALLS, 7 * CALLS) == (summary.calls.llm, summary.total_llm_tokens)


def test_processes_that_share_a_folder_lose_none(start: Start, log_dir: Path) -> None:
    """Four of them, of one run."""
    assert [str(7 * CALLS)] == ended(start("bare_workers", log_dir, 4, CALLS))
    assert {3: CALLS} == _prompts(log_dir)


def test_a_disk_that_fills_again_and_again_loses_what_it_had_no_room_for(counter: TokenCounter, log_dir: Path) -> None:
    """The lines and those that are told as lost are all calls; the sums have every one."""
    turn = CALLS // TURNS // 2
    with counter.run("full") as run:
        for number in range(TURNS):
            for _ in range(turn):
                make_call(prompt=3, completion=4)
            with disk_full_at(size_of(log_dir) + number * 100):
                for _ in range(turn):
                    make_call(prompt=5, completion=6)
    found = _prompts(log_dir)

    assert TURNS * turn == found[3]
    assert TURNS * turn == found[5] + run.summary.lost_records
    assert run.summary.lost_records
    assert 18 * TURNS * turn == run.summary.total_llm_tokens


def test_a_folder_that_is_deleted_again_and_again_loses_what_was_in_it(counter: TokenCounter, log_dir: Path) -> None:
    """What was written since the last time is there, and nothing is doubled; the sums have every call."""
    turn = CALLS // TURNS
    with counter.run("deleted") as run:
        for number in range(1, TURNS + 1):
            for _ in range(turn):
                make_call(prompt=number, completion=0)
            if number < TURNS:
                shutil.rmtree(log_dir, ignore_errors=True)  # it may not have been made anew yet
    found = _prompts(log_dir)

    assert turn == found[TURNS]
    assert all(times <= turn for times in found.values())
    assert (0, 0) == (run.summary.lost_records, run.summary.internal_errors)
    assert turn * TURNS * (TURNS + 1) // 2 == run.summary.total_llm_tokens


def test_a_folder_that_may_not_be_written_to_loses_the_calls_of_that_time(start: Start, tmp_path: Path) -> None:
    """Each of them is told as lost, and the sums have all."""
    let_all_in(tmp_path)  # the program gives root's rights away, which would not be stopped

    assert [str(26 * CALLS), str(CALLS)] == ended(start("lose_permission", tmp_path, CALLS))
    assert {3: 1, 7: CALLS} == _prompts(tmp_path / "logs")
