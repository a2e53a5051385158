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

        assert (0, b"5 calls in 1 files\n", b"") == (done.returncode, done.stdout, done.stderr)
    assert _total(real_log) == _total(tmp_path / "parquet") == _total(real_log, tmp_path / "parquet")
    assert 5 == _total(real_log)["calls"]


def test_what_an_export_passes_over_is_told(real_log: Path, tmp_path: Path) -> None:
    """On standard error, with its place; the rest is there."""
    [lines] = real_log.glob("calls-*.jsonl")
    (tmp_path / lines.name).write_bytes(b"no call\n" + lines.read_bytes())
    done = piped("export", str(tmp_path), "--parquet", str(tmp_path / "parquet"))

    assert (0, b"5 calls in 1 files\n") == (done.returncode, done.stdout)
    assert f"{lines.name}:1".encode() in done.stderr


@pytest.mark.parametrize("target", ["", "blocked"])
def test_a_target_that_is_no_folder_is_told(real_log: Path, tmp_path: Path, target: str) -> None:
    """In one line, without a traceback."""
    (tmp_path / "blocked").touch()
    done = piped("export", str(real_log), "--parquet", target and str(tmp_path / target))

    assert 2 == done.returncode
    assert b"give a folder to export to" in done.stderr
