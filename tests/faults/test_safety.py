"""Names, links and modes: nothing that a run is called, and nothing that somebody planted, leads out of the folder."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.calls import OwnString, make_call
from token_callbacks import TokenCounter
from token_callbacks.cli import main
from token_callbacks.errors import InvalidArgument
from token_callbacks.recovery import recover
from token_callbacks.sinks import json_files

from .conftest import markers, records, summaries

ODD_NAMES = [
    "../../etc/passwd",
    "/etc/passwd",
    "a\nb\r\u2028c",
    "\0",
    "\ud83d",
    "🏛️",
    "x" * 10_240,
    ".",
    '"}\n{"',
    "\x1b[2J",
    OwnString("nightly"),
    OwnString("\ud83d"),
]


@pytest.mark.parametrize("name", ODD_NAMES, ids=lambda name: ascii(name)[:20])
def test_a_name_is_a_word_and_no_path(counter: TokenCounter, tmp_path: Path, log_dir: Path, name: str) -> None:
    """Runs, steps and tags may be called anything: it stays inside one line, and no file is made of it."""
    with counter.run(name, tags={name: name}) as run, run.step(name):
        make_call(prompt=3, completion=4)
    told = name.encode("utf-8", "backslashreplace").decode()
    [path] = log_dir.glob("calls-*.jsonl")

    assert 1 == path.read_bytes().count(b"\n")
    assert told == json.loads(path.read_bytes())["step"]
    summary = summaries(log_dir)[run.run_id]
    assert (told, {told: told}, 0) == (summary.name, summary.tags, summary.internal_errors)
    assert {log_dir} == set(tmp_path.iterdir())
    assert {"runs", "open", path.name} == {it.name for it in log_dir.iterdir()}


def test_everything_is_for_its_owner_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a umask to help, folders are made as 0700 and files as 0600, and no mode is changed afterwards."""
    monkeypatch.delattr(os, "chmod")
    monkeypatch.delattr(os, "fchmod")
    before = os.umask(0)
    try:
        counter = TokenCounter(log_dir=tmp_path / "logs")
        with counter.run("nightly") as run:
            make_call(prompt=3, completion=4)
            assert run.token
            modes = {it: stat.S_IMODE(it.stat().st_mode) for it in (tmp_path / "logs").rglob("*")}
        modes |= {it: stat.S_IMODE(it.stat().st_mode) for it in (tmp_path / "logs", *(tmp_path / "logs").rglob("*"))}
        counter.close()
    finally:
        os.umask(before)

    assert 6 <= len(modes)
    assert {(True, 0o700), (False, 0o600)} == {
        ("." not in path.name or path == tmp_path / "logs", mode) for path, mode in modes.items()
    }


def test_folders_above_the_log_folder_are_made_for_their_owner(tmp_path: Path) -> None:
    """Whoever may write to one of them could put another folder in place of ours."""
    before = os.umask(0)
    try:
        counter = TokenCounter(log_dir=tmp_path / "deep" / "deeper" / "logs")
        make_call(prompt=3, completion=4)
        counter.close()
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "deep", tmp_path / "deep" / "deeper")]
    finally:
        os.umask(before)

    assert [0o700, 0o700] == modes


def test_a_link_to_another_disk_is_the_users_right(tmp_path: Path) -> None:
    """``log_dir`` may be a link, also one that leads through ``..``."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "logs").symlink_to(tmp_path / "disk")
    counter = TokenCounter(log_dir=tmp_path / "disk" / ".." / "logs")
    make_call(prompt=3, completion=4)
    counter.close()

    assert 1 == len(summaries(tmp_path / "disk"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a link of another user's")
@pytest.mark.parametrize("mode", [0o1777, 0o777])
def test_a_link_that_somebody_else_put_into_a_shared_folder_is_refused(tmp_path: Path, mode: int) -> None:
    """As in /tmp: where our files lie would be theirs to say. The error tells what to do."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(mode)
    (shared / "logs").symlink_to(tmp_path)
    os.lchown(shared / "logs", 12345, 12345)

    with pytest.raises(InvalidArgument, match=r"a link of another user's, .*; name a folder of your own"):
        TokenCounter(log_dir=shared / "logs" / "below")


@pytest.mark.parametrize("path", ["file", "file/below", "file/below/../deep", "link"])
def test_what_cannot_be_a_folder_is_said_at_once(tmp_path: Path, path: str) -> None:
    """A file, a path below a file, or a link to one."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "file")

    with pytest.raises(InvalidArgument, match="is not a folder; name a folder of your own"):
        TokenCounter(log_dir=tmp_path / path)
    assert "mine" == (tmp_path / "file").read_text()


@pytest.mark.parametrize("path", ["\ud800", "a\0b", ""])
def test_what_is_no_path_is_our_own_error(path: str) -> None:
    """Also where the system has no bytes for it."""
    with pytest.raises(InvalidArgument, match="path of a folder"):
        TokenCounter(log_dir=path)


def test_a_link_at_the_name_of_a_file_of_calls_is_not_followed(
    tmp_path: Path, log_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should anybody guess the name: the record is lost and counted, and the next ones go to another file."""
    monkeypatch.setattr(json_files, "new_writer", lambda: "3-0123abcd")
    counter = TokenCounter(log_dir=log_dir)
    day = f"{counter.default_run.started_at:%Y-%m-%d}"
    counter.close()
    victim = tmp_path / "victim"
    (log_dir / f"calls-{day}-3-0123abcd.jsonl").symlink_to(victim)
    counter = TokenCounter(log_dir=log_dir)
    with counter.run("watched") as run:
        make_call(prompt=3, completion=4)
    counter.close()

    assert not victim.exists()
    (log_dir / f"calls-{day}-3-0123abcd.jsonl").unlink()
    assert 1 <= run.summary.internal_errors
    assert (7, [3]) == (run.summary.total_llm_tokens, [it.usage.prompt_tokens for it in records(log_dir)])


def test_a_link_at_the_name_of_a_summary_is_replaced(counter: TokenCounter, tmp_path: Path, log_dir: Path) -> None:
    """What it leads to is left as it is."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    with counter.run("watched") as run:
        assert run.summary_path is not None
        run.summary_path.parent.mkdir(exist_ok=True)
        run.summary_path.symlink_to(victim)

    assert "mine" == victim.read_text()
    assert not run.summary_path.is_symlink()
    assert "watched" == summaries(log_dir)[run.run_id].name


@pytest.mark.parametrize("name", ["runs", "open"])
def test_a_link_at_the_name_of_a_folder_of_ours_is_not_followed(tmp_path: Path, log_dir: Path, name: str) -> None:
    """Nothing is written where it leads; what that costs is counted."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    log_dir.mkdir()
    (log_dir / name).symlink_to(elsewhere)
    counter = TokenCounter(log_dir=log_dir)
    with counter.run("watched") as run:
        make_call(prompt=3, completion=4)
    counter.close()

    assert [] == list(elsewhere.iterdir())
    assert 1 <= run.summary.internal_errors
    assert [3] == [record.usage.prompt_tokens for record in records(log_dir)]


def test_a_folder_with_the_name_of_a_marker_stops_no_recovery(log_dir: Path) -> None:
    """It is none of ours."""
    counter = TokenCounter(log_dir=log_dir)
    with counter.run("open"):
        make_call(prompt=3, completion=4)
        [marker] = (log_dir / "open").glob("*.open.json")
        planted = marker.with_name(marker.name.replace(marker.name.partition(".")[0], "20260101T000000-0123456789ab"))
        planted.mkdir()
        (log_dir / "runs").mkdir(exist_ok=True)
        assert 1 <= recover(log_dir).alive
    counter.close()
    recover(log_dir)

    assert planted.is_dir()
    assert 1 <= len(list((log_dir / "runs").glob("*.json")))


def test_a_folder_with_the_name_of_a_summary_stops_no_other_one(log_dir: Path) -> None:
    """It is told, and once it is gone the run is summed up."""
    stands, free = "20261121T050000-0123456789ab", "20261121T060000-0123456789ab"
    for run_id in (stands, free):
        (log_dir / "open").mkdir(parents=True, exist_ok=True)
        (log_dir / "open" / f"{run_id}.3-0123abcd.open.json").write_text("{}")
    (log_dir / "runs" / f"{stands}.json").mkdir(parents=True)
    told = CliRunner().invoke(main, ["recover", str(log_dir)])

    assert 1 == told.exit_code
    assert f"runs/{stands}.json" in told.stderr
    assert (log_dir / "runs" / f"{free}.json").is_file()

    (log_dir / "runs" / f"{stands}.json").rmdir()
    assert [stands] == [it.run_id for it in recover(log_dir).summaries]
    assert [] == markers(log_dir)


def test_planted_files_stop_no_recovery(log_dir: Path, tmp_path: Path) -> None:
    """Fifos, links, and files that say anything, at names like ours: they are passed over."""
    run_id, writer = "20261121T050000-0123456789ab", "3-0123abcd"
    (log_dir / "open").mkdir(parents=True)
    (log_dir / "runs").mkdir()
    os.mkfifo(log_dir / f"calls-2026-11-21-{writer}.jsonl")
    (log_dir / "calls-2026-11-21-4-0123abcd.jsonl").symlink_to("/dev/zero")
    (log_dir / "calls-2026-11-21-5-0123abcd.jsonl").write_bytes(b"[" * 100_000 + b'\n\xff\n{"run_id": "../../x"}\n')
    (log_dir / "open" / f"{run_id}.{writer}.open.json").write_text('{"run_id": "../../../etc/passwd"}')
    (log_dir / "open" / "../x.y.open.json").write_text("{}")
    (log_dir / "runs" / f"{run_id}.json").write_text("[" * 100_000)
    done = recover(log_dir)

    assert [run_id] == [it.run_id for it in done.summaries]
    assert {log_dir} == set(tmp_path.iterdir())
    assert [] == markers(log_dir)
