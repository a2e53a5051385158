"""What the fault tests share: programs in processes of their own, and what they left in the folder."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from token_callbacks import CallRecord, RunSummary

ROOT = Path(__file__).parent.parent.parent
Started = subprocess.Popen[bytes]
Start = Callable[..., Started]


def environment() -> dict[str, str]:
    """Give the environment in which a process finds the tests' own modules."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "examples")])}


@pytest.fixture
def start() -> Iterator[Start]:
    """Start one of the programs; whatever of them is left at the end is killed."""
    started: list[Started] = []

    def start(name: str, *args: object, **environ: str) -> Started:
        command = [sys.executable, "-m", "tests.faults.programs", name, *map(str, args)]
        env = environment() | environ
        started.append(subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def line_from(process: Started) -> list[str]:
    """Read the next line that a program tells."""
    assert process.stdout is not None
    return process.stdout.readline().decode().split()


def go_on(process: Started) -> None:
    """Let a program that waits go on."""
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()


def ended(process: Started) -> list[str]:
    """Wait for a program's end and return the words of what it told last."""
    told, _ = process.communicate()
    assert 0 == process.returncode
    return told.decode().splitlines()[-1].split() if told else []


def records(log_dir: Path) -> list[CallRecord]:
    """Read every whole line of a folder."""
    found = []
    for path in sorted(log_dir.glob("calls-*.jsonl")):
        for line in path.read_bytes().splitlines():
            try:
                found.append(msgspec.json.decode(line, type=CallRecord))
            except msgspec.DecodeError:
                continue
    return found


def summaries(log_dir: Path) -> dict[str, RunSummary]:
    """Read every summary of a folder."""
    found = [msgspec.json.decode(it.read_bytes(), type=RunSummary) for it in (log_dir / "runs").glob("*.json")]
    return {summary.run_id: summary for summary in found}


def markers(log_dir: Path) -> list[str]:
    """List who has which runs open."""
    folder = log_dir / "open"
    return sorted(it.name for it in folder.glob("*.json")) if folder.exists() else []


@contextmanager
def disk_full_at(size: int) -> Iterator[None]:
    """Let no file grow past a size."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))


def size_of(log_dir: Path) -> int:
    """Tell how many bytes the lines of a folder take."""
    return sum(path.stat().st_size for path in log_dir.glob("calls-*.jsonl"))


def let_all_in(folder: Path) -> None:
    """Let any user into a test's own folder, and through those that it lies in: pytest makes them for one."""
    folder.chmod(0o777)
    for above in folder.parents:
        if not above.stat().st_mode & 0o001:
            above.chmod(0o755)
