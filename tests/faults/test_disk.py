"""Disks that fill, folders that vanish and permissions that are lost: the host goes on, the loss is counted and told.

A full disk is ``RLIMIT_FSIZE``, which cuts a write in the middle as ``ENOSPC`` does, without needing a disk to fill.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import pytest

from tests.calls import make_call
from tests.open_files import open_files
from token_callbacks import TokenCounter
from token_callbacks.ledger import process_ledger
from token_callbacks.records import CallRecord, Operation, Outcome, Sources, Usage
from token_callbacks.recovery import recover
from token_callbacks.sinks.json_files import JsonFiles

from .conftest import Start, disk_full_at, ended, let_all_in, markers, records, size_of, summaries


@pytest.mark.parametrize("room", [0, 1, 300])
def test_lines_before_and_after_a_full_disk_are_whole(counter: TokenCounter, log_dir: Path, room: int) -> None:
    """Wherever the disk cuts a line off, none of it stays; what was lost is counted, and lines go on afterwards."""
    with counter.run("full") as run:
        make_call(prompt=3, completion=4)
        with disk_full_at(size_of(log_dir) + room):
            make_call(prompt=5, completion=6)
            make_call(prompt=7, completion=8)
        make_call(prompt=9, completion=10)
    [path] = log_dir.glob("calls-*.jsonl")

    assert [3, 9] == [record.usage.prompt_tokens for record in records(log_dir)]
    assert 2 == len(path.read_bytes().splitlines())
    assert (52, 2, 2) == (run.summary.total_llm_tokens, run.summary.lost_records, run.summary.internal_errors)


def test_a_line_that_cannot_be_cut_back_swallows_no_other(
    counter: TokenCounter, log_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where even the torn piece has to stay, the next line starts on a line of its own."""

    def refuse(*args: object) -> None:
        raise OSError

    monkeypatch.setattr(os, "ftruncate", refuse)
    with counter.run("full") as run:
        make_call(prompt=3, completion=4)
        with disk_full_at(size_of(log_dir) + 100):
            make_call(prompt=5, completion=6)
        make_call(prompt=7, completion=8)
        make_call(prompt=9, completion=10)

    assert [3, 7, 9] == [record.usage.prompt_tokens for record in records(log_dir)]
    assert 1 == run.summary.lost_records


def test_a_write_that_is_cut_short_is_finished(
    counter: TokenCounter, log_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that takes a line in pieces has all of it in the end."""
    write = os.write
    with counter.run("slow") as run:
        make_call(prompt=3, completion=4)
        monkeypatch.setattr(os, "write", lambda descriptor, line: write(descriptor, bytes(line)[:100]))
        make_call(prompt=5, completion=6)
        monkeypatch.setattr(os, "write", write)

    assert [3, 5] == [record.usage.prompt_tokens for record in records(log_dir)]
    assert 0 == run.summary.internal_errors


def test_a_summary_that_found_no_room_is_written_later(counter: TokenCounter, log_dir: Path) -> None:
    """The next run that ends, or the counter's end, writes it, as it was."""
    with disk_full_at(10):
        with counter.run("first") as first:
            make_call(prompt=3, completion=4)
        assert {} == summaries(log_dir)
    with counter.run("second"):
        pass

    assert ("first", 7, 1) == (
        summaries(log_dir)[first.run_id].name,
        summaries(log_dir)[first.run_id].total_llm_tokens,
        summaries(log_dir)[first.run_id].lost_records,
    )
    assert [] == markers(log_dir)


def test_a_deleted_folder_is_made_anew(counter: TokenCounter, log_dir: Path) -> None:
    """Deleted while its file is open: what is written from then on is in a new one, and so is the run's marker."""
    with counter.run("cleaned", tags={"team": "search"}) as run:
        make_call(prompt=3, completion=4)
        shutil.rmtree(log_dir)
        make_call(prompt=5, completion=6)
        with counter.run("inside"):
            make_call(prompt=7, completion=8)
        assert [run.run_id] == [name[: len(run.run_id)] for name in markers(log_dir)]
        make_call(prompt=9, completion=10)

    prompts = [record.usage.prompt_tokens for record in records(log_dir)]
    assert {5, 7, 9} <= set(prompts)
    assert sorted(set(prompts)) == prompts
    assert (37, 0) == (run.summary.total_llm_tokens, run.summary.internal_errors)
    assert {run.run_id} < set(summaries(log_dir))


def test_a_folder_that_is_moved_away_is_left(log_dir: Path) -> None:
    """As logs are that somebody puts aside: what comes is in the new one, with what tells that the process lives."""
    counter = TokenCounter(log_dir=log_dir)
    with counter.run("goes on") as run:
        make_call(prompt=3, completion=4)
        with counter.run("before"):
            pass
        log_dir.rename(log_dir.with_name("aside"))
        with counter.run("after"):
            make_call(prompt=5, completion=6)
        make_call(prompt=7, completion=8)
        done = recover(log_dir)
    counter.close()

    assert (1, []) == (min(done.alive, 1), done.summaries)
    assert 7 in {record.usage.prompt_tokens for record in records(log_dir)}
    assert "completed" == summaries(log_dir)[run.run_id].outcome
    aside = [record.usage.prompt_tokens for record in records(log_dir.with_name("aside"))]
    assert sorted([*aside, *(record.usage.prompt_tokens for record in records(log_dir))]) == [3, 5, 7]


def test_a_deleted_folder_costs_no_line_of_a_counter_that_closes(log_dir: Path) -> None:
    """What went into the deleted file since it was last looked for is copied to a new one, at the latest at the end."""
    counter = TokenCounter(log_dir=log_dir)
    make_call(prompt=3, completion=4)
    shutil.rmtree(log_dir)
    for prompt in (5, 6, 7):
        make_call(prompt=prompt, completion=0)
    counter.close()

    assert {5, 6, 7} <= {record.usage.prompt_tokens for record in records(log_dir)}


def test_a_lost_permission_costs_the_records_of_that_time(start: Start, tmp_path: Path) -> None:
    """Where a program may not write it goes on, and writes again when it may."""
    let_all_in(tmp_path)  # the program gives root's rights away, which would not be stopped

    assert ["26", "1"] == ended(start("lose_permission", tmp_path, 1))
    assert {3, 7} == {record.usage.prompt_tokens for record in records(tmp_path / "logs")}


def test_a_loss_is_told_once(
    counter: TokenCounter, log_dir: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One warning, however many records are lost; each is counted in the summary."""
    monkeypatch.setattr(process_ledger(), "_warned", set())
    with caplog.at_level(logging.WARNING, logger="token_callbacks"), counter.run("full") as run:
        make_call(prompt=3, completion=4)
        with disk_full_at(size_of(log_dir)):
            for _ in range(5):
                make_call(prompt=5, completion=6)

    assert ["OSError in JsonFiles.write_record"] == [message.partition(":")[0] for message in caplog.messages]
    assert (5, 5) == (run.summary.lost_records, run.summary.internal_errors)


def _record(counter: TokenCounter, prompt: int, day: int) -> CallRecord:
    moment = counter.default_run.started_at.replace(month=3, day=day)
    return CallRecord(
        call_id=f"call-{prompt}",
        run_id=counter.default_run.run_id,
        step=None,
        framework="litellm",
        operation=Operation.CHAT,
        provider=None,
        model=None,
        response_model=None,
        response_id=None,
        streamed=False,
        attempt=1,
        outcome=Outcome.COMPLETED,
        cached=False,
        error=None,
        started_at=moment,
        ended_at=moment,
        time_to_first_token_seconds=None,
        usage=Usage(prompt_tokens=prompt),
        provenance=Sources(),
        counting_method=None,
        provider_usage=None,
    )


def test_a_file_that_grew_is_followed_by_another(counter: TokenCounter, tmp_path: Path) -> None:
    """By size and by day; one descriptor is open, and no line is lost or cut on the way."""
    files = JsonFiles(tmp_path / "rotated", rotate_bytes=2000)
    assert counter.default_run.is_open
    for prompt in range(20):
        files.write_record(_record(counter, prompt, day=3 if prompt < 15 else 4))
    opened = open_files(tmp_path / "rotated")
    files.close()
    paths = sorted((tmp_path / "rotated").glob("calls-*.jsonl"))

    assert 1 == len(opened)
    assert 4 < len(paths)
    assert {"03-03", "03-04"} == {path.name[11:16] for path in paths}
    assert all(path.stat().st_size <= 2000 for path in paths)
    assert list(range(20)) == sorted(record.usage.prompt_tokens or 0 for record in records(tmp_path / "rotated"))


def test_a_clock_that_is_set_back_loses_no_line(counter: TokenCounter, tmp_path: Path) -> None:
    """Past midnight it falls behind it, and files grow full before it comes there again."""
    files = JsonFiles(tmp_path / "rotated", rotate_bytes=2000)
    for prompt, day in enumerate([3] * 5 + [4] * 5 + [3] * 15 + [4] * 5):
        files.write_record(_record(counter, prompt, day=day))
    files.close()

    assert list(range(30)) == sorted(record.usage.prompt_tokens or 0 for record in records(tmp_path / "rotated"))


def test_runs_take_no_descriptor(counter: TokenCounter, log_dir: Path) -> None:
    """However many are open, one file is."""
    scopes = [counter.run(f"run {number}") for number in range(50)]
    for scope in scopes:
        scope.__enter__()
    opened = open_files(log_dir)
    for scope in reversed(scopes):
        scope.__exit__(None, None, None)

    assert 1 == len(opened)


def test_a_rotated_run_is_recovered_from_all_its_files(log_dir: Path) -> None:
    """The writer's files belong together, and one lock on the newest tells that it lives."""
    child = os.fork()
    if child == 0:
        counter = TokenCounter(log_dir=log_dir)
        counter._files._rotate_bytes = 2000  # type: ignore[union-attr]
        counter.run("long").__enter__()
        for _ in range(20):
            make_call(prompt=3, completion=4)
        os._exit(0)
    os.waitpid(child, 0)

    assert 4 < len(list(log_dir.glob("calls-*.jsonl")))
    assert [140] == [it.total_llm_tokens for it in recover(log_dir).summaries]
