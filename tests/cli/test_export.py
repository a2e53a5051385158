"""``token-callbacks export``, and what is read of its Parquet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.screens import piped


def _total(*paths: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(piped("report", *map(str, paths), "--json").stdout)["total"]
    return told


def test_an_export_reports_what_its_lines_report(real_log: Path, tmp_path: Path) -> None:
    """Alone, and beside the lines, of which it is a copy; exporting twice changes nothing."""
    for _ in range(2):
        done = piped("export", str(real_log), "--parquet", str(tmp_path / "parquet"))

        assert (0, b"5 calls in 1 file\n", b"") == (done.returncode, done.stdout, done.stderr)
    assert _total(real_log) == _total(tmp_path / "parquet") == _total(real_log, tmp_path / "parquet")
    assert 5 == _total(real_log)["calls"]


def test_what_an_export_passes_over_is_told(real_log: Path, tmp_path: Path) -> None:
    """On standard error, with its place; the rest is there."""
    [lines] = real_log.glob("calls-*.jsonl")
    (tmp_path / lines.name).write_bytes(b"no call\n" + lines.read_bytes())
    done = piped("export", str(tmp_path), "--parquet", str(tmp_path / "parquet"))

    assert (0, b"5 calls in 1 file\n") == (done.returncode, done.stdout)
    assert f"{lines.name}:1".encode() in done.stderr


@pytest.mark.parametrize("command", [["report"], ["recover"], ["export", "--parquet", "memory://out"]])
def test_a_folder_without_calls_is_told_alike(tmp_path: Path, command: list[str]) -> None:
    """With exit code 1, and a word on what lies there instead, if anything does."""
    empty, foreign = tmp_path / "empty", tmp_path / "foreign"
    empty.mkdir()
    foreign.mkdir()
    (foreign / "package.json").write_text("{}")
    (foreign / "calls-mine.jsonl").write_text('{"a": 1}\n')
    name, *options = command
    told = {folder: piped(name, str(folder), *options) for folder in (empty, foreign)}

    assert [(1, b"")] * 2 == [(done.returncode, done.stdout) for done in told.values()]
    assert f"there are no calls in {empty}. A TokenCounter() writes them".encode() in told[empty].stderr
    assert b"1 line that is no call of token_callbacks (first: " in told[foreign].stderr
    assert b"1 file of somebody else (first: " in told[foreign].stderr


@pytest.mark.parametrize("command", [["recover"], ["export", "--parquet", "memory://out"]])
def test_a_folder_with_calls_is_no_error(real_log: Path, command: list[str]) -> None:
    """Also where there is nothing left to recover."""
    name, *options = command

    assert 0 == piped(name, str(real_log), *options).returncode


@pytest.mark.parametrize("target", ["", "blocked"])
def test_a_target_that_is_no_folder_is_told(real_log: Path, tmp_path: Path, target: str) -> None:
    """In one line, without a traceback."""
    (tmp_path / "blocked").touch()
    done = piped("export", str(real_log), "--parquet", target and str(tmp_path / target))

    assert 2 == done.returncode
    assert b"give a folder to export to" in done.stderr
