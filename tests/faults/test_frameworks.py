"""What the other tests of faults prove of calls made by hand, proved of LiteLLM's and LlamaIndex's."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path

import pytest

from loopback_server import LoopbackServer
from tests.conftest import Loopback
from token_callbacks import TokenCounter
from token_callbacks.ledger import process_ledger
from token_callbacks.records import CallRecord, Provenance
from token_callbacks.recovery import recover

from .conftest import disk_full_at, environment, go_on, line_from, markers, records, size_of, summaries
from .frameworks import WAYS, WORKERS, ask, is_async


class Forked:
    """A program of ``frameworks`` in a process of its own, with as much of ``Popen`` as is needed."""

    returncode: int | None = None

    def __init__(self, channel: socket.socket, request: list[str]) -> None:
        self._channel = channel
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - as long as it runs
        its_stdin, stdin = os.pipe()
        stdout, its_stdout = os.pipe()
        socket.send_fds(channel, [json.dumps(request).encode()], [its_stdin, its_stdout, self._errors.fileno()])
        os.close(its_stdin)
        os.close(its_stdout)
        self.stdin, self.stdout = os.fdopen(stdin, "wb"), os.fdopen(stdout, "rb")
        self.pid = int(channel.recv(99))

    def communicate(self) -> tuple[bytes, bytes]:
        """Wait for its end; return what was not read yet, and its errors."""
        with self.stdin, self.stdout, self._errors:
            told = self.stdout.read()
            self.returncode = int(self._channel.recv(99))
            self._errors.seek(0)
            return told, self._errors.read()


Fork = Callable[..., Forked]


@pytest.fixture(scope="module")
def channel() -> Iterator[socket.socket]:
    """Start the process that the programs are forked from."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-m", "tests.faults.frameworks", str(theirs.fileno())]
    with subprocess.Popen(command, env=environment(), pass_fds=[theirs.fileno()]), ours:
        theirs.close()
        yield ours


@pytest.fixture
def fork(channel: socket.socket) -> Iterator[Fork]:
    """Start one of the programs; one that is left at the end is killed."""
    forked: list[Forked] = []

    def fork(name: str, *arguments: object) -> Forked:
        forked.append(Forked(channel, [name, *map(str, arguments)]))
        return forked[-1]

    yield fork
    for process in forked:
        if process.returncode is None:
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()


def _assert_equal_to_ledger(made: list[CallRecord], server: LoopbackServer) -> None:
    """Every request has one record, with its figures, and no other record is there."""
    assert sorted(_figures(it) for it in made) == sorted(
        (it.response_id, it.prompt_tokens, it.completion_tokens) for it in server.ledger
    )


def _figures(record: CallRecord) -> tuple[str | None, int | None, int | None]:
    return record.response_id, record.usage.prompt_tokens, record.usage.completion_tokens


DEATHS = {"kill": -signal.SIGKILL, "term": -signal.SIGTERM, "exit": 3}
CALLS = 12
"""So many have been told when a loaded process dies."""


@pytest.mark.parametrize(("way", "death"), list(zip(WAYS * 2, cycle(DEATHS), strict=False)))
def test_a_load_that_dies_keeps_every_call_that_was_returned(
    fork: Fork, loopback: Loopback, log_dir: Path, way: str, death: str
) -> None:
    """Whatever the framework tells later, on another thread or in another task: who got his answer has its line."""
    server = loopback()
    process = fork("load", server.base_url, log_dir, way, CALLS if death == "exit" else 0)
    told = {line_from(process)[0] for _ in range(CALLS)}
    if death != "exit":
        os.kill(process.pid, -DEATHS[death])
    rest, _ = process.communicate()
    told |= set(rest.decode().split())
    made = records(log_dir)
    done = recover(log_dir)

    assert DEATHS[death] == process.returncode
    assert told <= {record.response_id for record in made}
    assert {(it.response_id, it.prompt_tokens, it.completion_tokens) for it in server.ledger} >= set(
        map(_figures, made)
    )
    assert len({record.response_id for record in made}) == len(made)
    assert 0 == done.unreadable_lines
    [summary] = done.summaries
    assert ("load", "interrupted", True) == (summary.name, summary.outcome, summary.lower_bound)
    assert sum(record.usage.total_llm_tokens for record in made) == summary.total_llm_tokens
    assert [] == markers(log_dir)


@pytest.mark.parametrize("way", WAYS)
def test_a_call_that_is_interrupted_is_cancelled(fork: Fork, loopback: Loopback, log_dir: Path, way: str) -> None:
    """Ctrl-C while the server has it wait, or in the middle of a stream; the program ends as it does without us."""
    server = loopback()
    is_streamed = way.endswith("stream")
    without_us = _interrupted(fork, server, "", way)
    with_us = _interrupted(fork, server, str(log_dir), way)
    [record] = records(log_dir)
    [summary] = summaries(log_dir).values()

    assert -signal.SIGINT == without_us[0]
    assert without_us == with_us
    assert ("cancelled", "cancelled") == (record.outcome, summary.outcome)
    assert ("CancelledError" if is_async(way) else "KeyboardInterrupt") == record.error
    assert is_streamed == record.streamed == bool(record.usage.completion_tokens)
    assert (Provenance.PARTIAL if is_streamed else Provenance.MISSING) == record.provenance.completion
    assert (1, 1, True) == (summary.calls.llm, summary.calls.abandoned, summary.lower_bound)


def _interrupted(fork: Fork, server: LoopbackServer, log_dir: str, way: str) -> tuple[int | None, list[str]]:
    """Interrupt a call that is held; return how the program ended, and what it said then but for the frames."""
    is_streamed = way.endswith("stream")
    with server.hold(after_chunks=9 if is_streamed else 0) as hold:
        process = fork("wait_for_answer", server.base_url, log_dir, way)
        assert hold.reached.wait(60)
        if is_streamed:
            assert ["heard"] == line_from(process)
        go_on(process)
        while (told := line_from(process)) != ["waits"]:
            assert told
        os.kill(process.pid, signal.SIGINT)
    # Python may begin to wait without a look at the signals that have come: what is released then wakes it.
    _, errors = process.communicate()
    return process.returncode, [line for line in errors.decode().splitlines() if not line.startswith(" ")]


@pytest.mark.parametrize(
    ("is_in_run", "is_warm"),
    [(True, True), (True, False), (False, True)],
    ids=["warm in a run", "cold in a run", "warm"],
)
def test_forked_workers_lose_no_call_and_double_none(
    fork: Fork, loopback: Loopback, log_dir: Path, is_in_run: bool, is_warm: bool
) -> None:
    """Also where the parent has called before, whose clients and tasks the workers inherit; a run has one summary."""
    server = loopback()
    process = fork("prefork", server.base_url, log_dir, is_in_run, is_warm)
    told, _ = process.communicate()
    total = server.ledger_totals()
    found = summaries(log_dir).values()

    assert ["0"] * WORKERS == told.decode().split()
    assert len(WAYS) * (WORKERS + is_warm) == total.requests
    _assert_equal_to_ledger(records(log_dir), server)
    assert total.prompt_tokens + total.completion_tokens == sum(it.total_llm_tokens for it in found)
    assert (1 if is_in_run else WORKERS + is_warm) == len(found)
    assert {("completed", 0, False)} == {(it.outcome, it.internal_errors, it.lower_bound) for it in found}
    assert [] == markers(log_dir)


def test_workers_of_a_forkserver_are_part_of_a_run(fork: Fork, loopback: Loopback, log_dir: Path) -> None:
    """By the environment that they are forked with; the one summary is the server's sum."""
    server = loopback()
    told, _ = fork("forkserver", server.base_url, log_dir).communicate()
    [(run_id, summary)] = summaries(log_dir).items()
    total = server.ledger_totals()

    assert 2 * len(WAYS) == total.requests
    _assert_equal_to_ledger(records(log_dir), server)
    assert [run_id, str(total.prompt_tokens + total.completion_tokens)] == told.decode().split()
    assert int(told.split()[1]) == summary.total_llm_tokens


@pytest.mark.parametrize("way", WAYS)
def test_a_full_disk_is_told_and_hurts_no_call(
    loopback: Loopback, counter: TokenCounter, log_dir: Path, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    """The answers come as before and after; what had no room is counted as lost and is in the sums."""
    process_ledger()._warned.clear()
    server = loopback()
    with caplog.at_level(logging.WARNING, logger="token_callbacks"), counter.run("full") as run:
        answered = [ask(way, server.base_url)]
        with disk_full_at(size_of(log_dir) + 100):
            answered += [ask(way, server.base_url) for _ in range(3)]
        answered.append(ask(way, server.base_url))
    total = server.ledger_totals()

    assert [entry.response_id for entry in server.ledger] == answered
    assert [answered[0], answered[-1]] == [record.response_id for record in records(log_dir)]
    assert (3, 3) == (run.summary.lost_records, run.summary.internal_errors)
    assert total.prompt_tokens + total.completion_tokens == run.summary.total_llm_tokens
    told = [it.message for it in caplog.records if it.name.startswith("token_callbacks")]
    assert ["OSError in JsonFiles.write_record"] == [message.partition(":")[0] for message in told]
