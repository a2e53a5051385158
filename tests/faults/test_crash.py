"""A process that dies loses no call that had closed, and the next one sums up what it left."""

from __future__ import annotations

import json
import os
import random
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.calls import make_call
from tests.conftest import Loopback
from token_callbacks import CallRecord, TokenCounter
from token_callbacks.cli import main
from token_callbacks.recovery import recover
from token_callbacks.sinks import log_folder

from .conftest import Start, Started, ended, go_on, line_from, markers, records, summaries

REPETITIONS = int(os.environ.get("TOKEN_CALLBACKS_FAULT_REPETITIONS", "2"))


def _killed_after(process: Started, calls: int, number: int) -> set[tuple[str, ...]]:
    """Kill a loaded program once it told of so many calls; return all that it told of."""
    told = [tuple(line_from(process)) for _ in range(calls)]
    process.send_signal(number)
    rest, _ = process.communicate()
    assert -number == process.returncode
    return {*told, *(tuple(line.split()) for line in rest.decode().splitlines())}


@pytest.mark.parametrize("repetition", range(REPETITIONS))
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
def test_a_killed_load_keeps_every_call_that_had_closed(
    start: Start, loopback: Loopback, log_dir: Path, number: int, repetition: int
) -> None:
    """Every call that was told of has its line, with the server's figures; the summaries are rebuilt from the lines.

    The out-of-memory killer of the kernel sends SIGKILL too.
    """
    server = loopback()
    seed = random.Random(repetition * 100 + number)
    told = _killed_after(start("load", server.base_url, log_dir), seed.randint(10, 60), number)
    ledger = {entry.response_id: entry for entry in server.ledger}
    by_id = {record.response_id: record for record in records(log_dir)}

    assert {response_id for _, response_id in told} <= set(by_id)
    assert set(by_id) <= set(ledger)
    for response_id, record in by_id.items():
        entry = ledger[response_id]
        assert (entry.prompt_tokens, entry.completion_tokens) == (
            record.usage.prompt_tokens,
            record.usage.completion_tokens,
        )
    assert {} == summaries(log_dir)
    opened = {name.partition(".")[0] for name in markers(log_dir)}
    done = recover(log_dir)
    assert opened == {summary.run_id for summary in done.summaries}
    assert {summary.name for summary in done.summaries} <= {"default", "first", "second"}
    assert [] == markers(log_dir)
    for run_id, summary in summaries(log_dir).items():
        _assert_sum(summary.total_llm_tokens, [it for it in by_id.values() if it.run_id == run_id])
        assert ("interrupted", True) == (summary.outcome, summary.lower_bound)


def _assert_sum(total: int, made: list[CallRecord]) -> None:
    assert total == sum(it.usage.total_llm_tokens for it in made)


@pytest.mark.parametrize("is_forked", [False, True])
@pytest.mark.parametrize("kind", ["completion", "stream", "text", "embedding", "responses"])
def test_a_call_that_litellm_returned_has_its_line(
    start: Start, loopback: Loopback, log_dir: Path, kind: str, is_forked: bool
) -> None:
    """LiteLLM tells of its end on another thread, later, and in a forked child whose parent made a call never."""
    server = loopback(stream_usage="always_last")
    process = start("litellm_and_die", server.base_url, log_dir, kind, is_forked)
    process.communicate()
    total = server.ledger_totals()
    made = records(log_dir)

    assert process.returncode == (0 if is_forked else -signal.SIGKILL)
    assert (2 if is_forked else 1) == total.requests == len(made)
    assert {"completed"} == {record.outcome for record in made}
    assert (total.embedding_tokens, total.prompt_tokens, total.completion_tokens) == tuple(
        sum(figure or 0 for figure in of_kind)
        for of_kind in zip(
            *((it.usage.embedding_tokens, it.usage.prompt_tokens, it.usage.completion_tokens) for it in made),
            strict=True,
        )
    )


def test_nested_runs_of_a_dead_process_keep_what_they_are(start: Start, loopback: Loopback, log_dir: Path) -> None:
    """After ``os._exit``, name, parent and the sum with the runs inside are in the summaries."""
    server = loopback()
    process = start("exit_at_once", server.base_url, log_dir)
    inner_id, outer_id = line_from(process)[0], line_from(process)[0]
    process.communicate()
    recover(log_dir)
    outer, inner = summaries(log_dir)[outer_id], summaries(log_dir)[inner_id]
    total = server.ledger_totals().prompt_tokens + server.ledger_totals().completion_tokens

    assert ("outer", "inner", outer_id) == (outer.name, inner.name, inner.parent_run_id)
    assert (0, total, total) == (
        outer.total_llm_tokens,
        outer.including_nested.total_llm_tokens,
        inner.total_llm_tokens,
    )


def test_death_at_any_step_leaves_what_can_be_summed_up(start: Start, tmp_path: Path) -> None:
    """Killed at each change of a file in turn, half-way through each write: what had closed is there, and summed up."""
    [steps] = ended(start("die_at_each_step", tmp_path))

    assert 20 < int(steps)
    for step in range(int(steps)):
        log_dir = tmp_path / str(step) / "logs"
        closed = tmp_path / str(step) / "closed"
        before = {run_id for run_id, it in summaries(log_dir).items() if it.outcome == "completed"}
        if log_dir.exists():
            recover(log_dir)
        after = summaries(log_dir)
        assert (closed.stat().st_size if closed.exists() else 0) <= len(records(log_dir))
        assert sum(it.total_llm_tokens for it in after.values()) == 7 * len(records(log_dir))
        assert {*before} == {run_id for run_id, it in after.items() if it.outcome == "completed"}
        assert {it.name for it in after.values()} <= {"outer", "inner"}
        assert [] == markers(log_dir)
        assert [] == list(log_dir.rglob("*.draft"))


def test_the_next_start_recovers_by_itself(start: Start, log_dir: Path) -> None:
    """A counter on the same folder sums up what the one before it left."""
    start("bare_load", log_dir, 3).communicate()
    TokenCounter(log_dir=log_dir).close()

    assert [("bare", "interrupted", 21)] == [
        (it.name, it.outcome, it.total_llm_tokens) for it in summaries(log_dir).values()
    ]


def test_a_run_that_goes_on_is_left_alone(start: Start, log_dir: Path) -> None:
    """A process that lives writes its own summary, whoever recovers meanwhile."""
    process = start("stay", log_dir)
    [run_id] = line_from(process)
    done = recover(log_dir)

    assert (1, []) == (done.alive, done.summaries)
    go_on(process)
    ended(process)
    assert "completed" == summaries(log_dir)[run_id].outcome
    assert [] == markers(log_dir)


def test_recovering_twice_changes_nothing(start: Start, log_dir: Path) -> None:
    """The second time finds nothing to do."""
    start("bare_load", log_dir, 3).communicate()
    first = CliRunner().invoke(main, ["recover", str(log_dir)])
    files = {path: path.read_bytes() for path in log_dir.rglob("*.json*")}
    second = CliRunner().invoke(main, ["recover", str(log_dir)])

    assert "1 summary written, 0 runs go on" in first.output
    assert "0 summaries written, 0 runs go on" in second.output
    assert files == {path: path.read_bytes() for path in log_dir.rglob("*.json*")}


def test_recoverers_at_once_do_no_harm(start: Start, log_dir: Path) -> None:
    """However many recover a folder at the same time, each run has one true summary."""
    for _ in range(3):
        start("bare_load", log_dir, 30).communicate()
    recoverers = [start("recover_folder", log_dir) for _ in range(3)]
    for process in recoverers:
        process.communicate()

    assert [210, 210, 210] == [it.total_llm_tokens for it in summaries(log_dir).values()]
    assert [] == markers(log_dir)


def test_a_torn_line_is_passed_over(start: Start, log_dir: Path) -> None:
    """What a death cut off is told of and skipped; the lines before it count."""
    start("bare_load", log_dir, 3).communicate()
    [path] = log_dir.glob("calls-*.jsonl")
    with path.open("ab") as file:
        file.write(b'{"schema_version":"1.0","call_id":"torn')
    done = recover(log_dir)

    assert (1, [21]) == (done.unreadable_lines, [it.total_llm_tokens for it in done.summaries])


@pytest.mark.parametrize("end", [b"\n", b""])
def test_a_line_of_any_length_is_passed_over(
    start: Start, log_dir: Path, monkeypatch: pytest.MonkeyPatch, end: bytes
) -> None:
    """It is a line that cannot be read, never as a whole in memory; those after it count."""
    start("bare_load", log_dir, 3).communicate()
    [path] = log_dir.glob("calls-*.jsonl")
    monkeypatch.setattr(log_folder, "LONGEST_LINE_BYTES", 4096)
    lines = path.read_bytes()
    too_long = b" " * 10_000 + lines.splitlines()[0]  # which JSON allows
    path.write_bytes(too_long + end + lines if end else lines + too_long)
    done = recover(log_dir)

    assert (1, [21]) == (done.unreadable_lines, [it.total_llm_tokens for it in done.summaries])


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00", "2026-11-21T12:00:00"])
def test_any_moment_that_a_line_tells_is_summed_up(start: Start, log_dir: Path, moment: str) -> None:
    """Also one that Python cannot tell in UTC, and one without a zone, which no line of ours has."""
    start("bare_load", log_dir, 3).communicate()
    [path] = log_dir.glob("calls-*.jsonl")
    first, *others = path.read_text().splitlines(keepends=True)
    path.write_text("".join([json.dumps(json.loads(first) | {"started_at": moment}) + "\n", *others]))
    TokenCounter(log_dir=log_dir).close()

    assert [21] == [it.total_llm_tokens for it in summaries(log_dir).values()]


def test_what_cannot_be_recovered_keeps_nobody_from_counting(
    start: Start, log_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault of ours in there is logged; the counter is made, and counts."""
    start("bare_load", log_dir, 3).communicate()
    monkeypatch.setattr("token_callbacks.recovery.recover", lambda *_args, **_options: 1 / 0)
    counter = TokenCounter(log_dir=log_dir)
    make_call(prompt=3, completion=4)
    counter.close()

    assert "raised ZeroDivisionError" in caplog.text
    assert [7] == [it.total_llm_tokens for it in summaries(log_dir).values()]


def test_lines_that_nobody_marked_are_summed_up_on_demand(start: Start, log_dir: Path) -> None:
    """The command reads every file: a run of which there are only lines gets a summary too, under no name."""
    start("bare_load", log_dir, 3).communicate()
    for path in (log_dir / "open").iterdir():
        path.unlink()
    done = CliRunner().invoke(main, ["recover", str(log_dir)])

    assert "1 summary written" in done.output
    assert [("unknown", 21)] == [(it.name, it.total_llm_tokens) for it in summaries(log_dir).values()]


def test_a_start_reads_no_more_than_it_may(start: Start, log_dir: Path) -> None:
    """What would take long is left to the command."""
    start("bare_load", log_dir, 3).communicate()
    done = recover(log_dir, most_bytes=100, with_unknown=False)

    assert (1, []) == (done.left, done.summaries)
    assert 1 == len(markers(log_dir))


def test_a_summary_is_true_before_its_marker_is_gone(counter: TokenCounter, log_dir: Path) -> None:
    """No marker is left of a run that ended."""
    with counter.run("nightly"):
        make_call(prompt=3, completion=4)
        assert 1 == len(markers(log_dir))

    assert [] == markers(log_dir)
