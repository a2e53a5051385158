"""``token-callbacks watch``: a real process writes, a real terminal shows it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pexpect
import pytest
from rich.cells import cell_len

from tests.cli.rows import record, written
from tests.cli.screens import Writer, piped, shown, spawned
from token_callbacks.records import RunOutcome
from token_callbacks.reports.following import Following

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@pytest.fixture
def log_dir(tmp_path: Path) -> Path:
    """Name a folder that is not there yet."""
    return tmp_path / "token_logs"


@pytest.fixture
def writer(log_dir: Path) -> Iterator[Writer]:
    """Start a program that writes to it."""
    with Writer(log_dir) as writer:
        yield writer


@pytest.mark.parametrize("columns", [60, 100, 160])
def test_runs_are_shown_while_they_go_on(log_dir: Path, writer: Writer, columns: int) -> None:
    """From a folder that is not there yet to a run that ended; Ctrl-C ends it, and the cursor is back."""
    child = spawned("watch", str(log_dir), "--interval", "0.05", columns=columns)
    child.expect_exact("waiting")
    writer.tell("open nightly\\x1b[31m")
    writer.tell("call 1234567 89012")
    child.expect_exact("1,323,579")
    writer.tell("call 3 4")
    child.expect_exact("1,323,586")
    writer.tell("close")
    child.expect_exact("0 running, 1 ended")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()

    assert (0, None) == (child.exitstatus, child.signalstatus)
    assert child.before.rfind(b"\x1b[?25h") > child.before.rfind(b"\x1b[?25l")
    assert b"Traceback" not in child.before


def test_the_last_picture_has_no_line_wider_than_the_terminal(log_dir: Path, writer: Writer) -> None:
    """Whatever a run is called."""
    writer.tell("open " + "\\U0001f389" * 99)
    writer.tell("call 1234567 89012")
    child = spawned("watch", str(log_dir), "--interval", "0.05", columns=60)
    child.expect_exact("1 running")
    child.sendintr()
    lines = shown(child.before + child.read(), columns=200)

    assert [] == [line for line in lines if cell_len(line) > 60]
    assert any("1,323,579" in line for line in lines)


def test_a_terminal_is_left_well_when_it_is_told_to_end(log_dir: Path, writer: Writer) -> None:
    """SIGTERM, from a service manager say."""
    child = spawned("watch", str(log_dir), columns=100)
    child.expect_exact("waiting")
    child.kill(signal.SIGTERM)
    child.expect(pexpect.EOF)
    child.close()

    assert 143 == child.exitstatus
    assert b"\x1b[?25h" in child.before


def test_what_is_no_terminal_gets_lines(log_dir: Path, writer: Writer) -> None:
    """A line a run, without a colour, and an end."""
    writer.tell("open nightly")
    writer.tell("call 3 4")
    done = piped("watch", str(log_dir), "--once")

    line = done.stdout.decode()
    assert 0 == done.returncode
    assert line.endswith("  nightly  running  calls 1  embedding 0  prompt 3  completion 4  total 7\n")
    assert "\x1b" not in line


def test_once_says_so_where_nothing_goes_on(log_dir: Path) -> None:
    """Nothing on standard output, a word on standard error."""
    done = piped("watch", str(log_dir), "--once")

    assert (0, b"", b"no run is open\n") == (done.returncode, done.stdout, done.stderr)


def test_a_file_is_no_folder_to_watch(tmp_path: Path) -> None:
    """Wrong use, not a traceback."""
    (tmp_path / "file").touch()

    assert 2 == piped("watch", str(tmp_path / "file")).returncode


def test_only_what_was_appended_is_read(log_dir: Path, writer: Writer) -> None:
    """Figures grow by what comes, and a run that ended has its own summary."""
    following = Following(log_dir)

    assert [] == following.look(NOW)
    writer.tell("open outer")
    writer.tell("call 3 4")
    (outer,) = following.look(NOW)
    assert ("outer", RunOutcome.RUNNING, 7) == (outer.name, outer.outcome, outer.total_llm_tokens)
    writer.tell("open inner")
    writer.tell("call 5 6")
    assert [("outer", 7), ("inner", 11)] == [(run.name, run.total_llm_tokens) for run in following.look(NOW)]
    writer.tell("close")
    assert [("outer", 7)] == [(run.name, run.total_llm_tokens) for run in following.look(NOW)]
    (inner,) = following.ended.values()
    assert ("inner", RunOutcome.COMPLETED, 11) == (inner.name, inner.outcome, inner.total_llm_tokens)


def test_a_run_that_came_and_went_between_two_looks_is_told(log_dir: Path, writer: Writer) -> None:
    """Its lines are there, and so is its summary."""
    following = Following(log_dir)
    following.look(NOW)
    writer.tell("open short")
    writer.tell("call 3 4")
    writer.tell("close")

    assert [] == following.look(NOW)
    assert ["short"] == [run.name for run in following.ended.values()]


def test_what_ended_before_is_not_told(log_dir: Path, writer: Writer) -> None:
    """Watching begins when it begins."""
    writer.tell("open before")
    writer.tell("call 3 4")
    writer.tell("close")
    following = Following(log_dir)

    assert ([], {}) == (following.look(NOW), following.ended)


def test_the_runs_of_the_dead_do_not_go_on(log_dir: Path, writer: Writer) -> None:
    """Nobody will end them; ``recover`` sums them up."""
    writer.tell("open doomed")
    writer.tell("call 3 4")
    following = Following(log_dir)
    assert 1 == len(following.look(NOW))
    writer.kill()

    assert ([], {}) == (following.look(NOW), following.ended)


def test_a_line_that_is_still_being_written_is_read_when_it_is_whole(log_dir: Path, writer: Writer) -> None:
    """And junk between lines costs nothing but itself."""
    writer.tell("open nightly")
    writer.tell("call 3 4")
    following = Following(log_dir)
    (run,) = following.look(NOW)
    (path,) = log_dir.glob("calls-*.jsonl")
    line = next(iter(written(log_dir.parent / "other", record(run_id=run.run_id)).glob("*.jsonl"))).read_bytes()
    with path.open("ab", buffering=0) as file:
        file.write(b"\x00\xff junk\n" + line[:50])
        assert 7 == following.look(NOW)[0].total_llm_tokens
        file.write(line[50:])

    assert 7 + 108 == following.look(NOW)[0].total_llm_tokens


def test_a_line_without_an_end_does_not_fill_the_memory(
    log_dir: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given up where no line of ours is so long, and what follows it is read."""
    monkeypatch.setattr("token_callbacks.reports.following._LONGEST_LINE", 1000)
    monkeypatch.setattr("token_callbacks.reports.following._PIECE", 100)
    writer.tell("open nightly")
    following = Following(log_dir)
    following.look(NOW)
    (path,) = log_dir.glob("calls-*.jsonl")
    with path.open("ab", buffering=0) as file:
        file.write(b"x" * 5000)
        following.look(NOW)
        kept = following._tails[path.name]._begun if following._tails is not None else b""
        file.write(b"\n")
    writer.tell("call 3 4")

    assert len(kept) <= 1000
    assert 7 == following.look(NOW)[0].total_llm_tokens
