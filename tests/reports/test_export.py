"""Exports: Parquet by day that says what the lines say, however often it is made."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from token_callbacks import load
from token_callbacks.errors import InvalidArgument
from token_callbacks.records import CallRecord, Doubt, Provenance, Sources
from token_callbacks.reports import bulk, duck
from token_callbacks.reports.columns import SCHEMA
from token_callbacks.reports.export import exported
from token_callbacks.reports.logs import CallsFile
from token_callbacks.reports.parts import Plan

from .records import NEWER, NOON, ODD, RUNS, UNREADABLE, WORDS, open_run, record, records, write
from .test_groups import ALL, KNOWN_RUNS, Book, report


@given(found=st.lists(records, min_size=1, max_size=12), zone=st.sampled_from(["UTC", "Europe/Berlin"]))
@settings(max_examples=10, deadline=None)
def test_an_export_gives_the_same_rows_as_the_lines(found: list[CallRecord], zone: str) -> None:
    """What was exported reports as the logs do, with either engine."""
    with tempfile.TemporaryDirectory() as name:
        lines, parquet = Path(name, "lines"), Path(name, "parquet")
        write(lines, found, runs=KNOWN_RUNS)
        exported(load(lines), parquet)
        for by in ALL:
            options: dict[str, Any] = {"tz": ZoneInfo(zone), "book": Book()}

            assert report(lines, by, **options) == report(parquet, by, **options)


@given(found=st.lists(records, min_size=1, max_size=9), words=st.lists(st.sampled_from(WORDS[:6]), min_size=9))
@settings(max_examples=15, deadline=None)
def test_duckdb_takes_lines_apart_as_python_does(found: list[CallRecord], words: list[dict[str, Any]]) -> None:
    """The columns are the same, text in quotation marks, costs and lists included, whoever made them."""
    found = [
        msgspec.structs.replace(
            each, call_id=f"call-{number}", provider_usage=words[number], tags=['a "b', "é"][: number % 3],
            doubts=[Doubt.SHRANK][: number % 2], time_to_first_token_seconds=number / 3,
            provenance=Sources(prompt=Provenance.ESTIMATED, prompt_error_band=number / 7),
        )
        for number, each in enumerate(found)
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), found, runs=KNOWN_RUNS)
        logs = load(name)
        with duck.connected() as connection:
            made = bulk.batches(connection, logs.files[0], logs.run_facts())
            assert made is not None
            told = pa.Table.from_batches(list(made), schema=SCHEMA)

        assert logs.to_arrow().sort_by("call_id").to_pylist() == told.sort_by("call_id").to_pylist()


@pytest.mark.parametrize("line", [*UNREADABLE, *ODD, *NEWER])
def test_a_file_with_a_doubtful_line_is_left_to_python(tmp_path: Path, line: bytes) -> None:
    """Which tells which line it was, and takes the others."""
    path = write(tmp_path, [record()])
    path.write_bytes(path.read_bytes() + line + b"\n" + path.read_bytes())
    with duck.connected() as connection:
        made = bulk.batches(connection, load(tmp_path).files[0], {})
        calls = None if made is None else sum(batch.num_rows for batch in made)

    assert calls in (None, len(list(load(tmp_path).records())))
    if line in UNREADABLE:
        assert calls is None


def test_days_are_folders_and_columns_are_flat(tmp_path: Path) -> None:
    """A folder a UTC day, a file a file of calls; the run's name and tags stand beside the figures."""
    found = [record(number, started_at=NOON + timedelta(days=number), prompt_tokens=number + 3) for number in range(2)]
    source = write(tmp_path / "logs", found, runs=KNOWN_RUNS)
    done = exported(load(tmp_path / "logs"), tmp_path / "out")
    names = [f"day={day}/{source.stem}.parquet" for day in ("2026-11-21", "2026-11-22")]

    assert (2, 2) == (done.calls, done.files)
    assert sorted([*names, "_runs.jsonl"]) == sorted(
        str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()
    )
    [row] = (
        pq.ParquetFile(tmp_path / "out" / names[1])
        .read(["prompt_tokens", "prompt_source", "run_name", "run_tags", "cache_read_tokens"])
        .to_pylist()
    )
    assert {
        "prompt_tokens": 4,
        "prompt_source": "reported",
        "run_name": "nightly",
        "run_tags": [("team", "search")],
        "cache_read_tokens": None,
    } == row


def test_exporting_again_doubles_nothing_and_adds_what_is_new(tmp_path: Path) -> None:
    """A file that grew replaces its export; what was exported of logs that are gone stays."""
    logs, out = tmp_path / "logs", tmp_path / "out"
    first = write(logs, [record(0, prompt_tokens=3)])
    for _ in range(2):
        exported(load(logs), out)
    assert 1 == len(list(load(out).records()))
    with first.open("ab") as file:
        file.write(first.read_bytes().replace(b"call-0", b"call-1"))
    write(logs, [record(2)])
    exported(load(logs), out)
    first.unlink()
    exported(load(logs), out)

    assert ["call-0", "call-1", "call-2"] == sorted(each.call_id for each in load(out).records())


def test_an_export_beside_its_lines_counts_once(tmp_path: Path) -> None:
    """Lines and their export name the same calls: the lines are read, the copy is told."""
    write(tmp_path / "logs", [record(0), record(1, started_at=NOON + timedelta(days=1))])
    exported(load(tmp_path / "logs"), tmp_path / "out")
    both = load(tmp_path / "out", tmp_path / "logs")

    assert (2, 2) == (len(list(both.records())), both.skipped.copied_files)


@given(found=st.lists(records, min_size=1, max_size=5))
@settings(max_examples=20, deadline=None)
def test_records_survive_the_round_trip(found: list[CallRecord]) -> None:
    """Every field of a record comes back from Parquet as it was."""
    with tempfile.TemporaryDirectory() as name:
        write(Path(name, "logs"), found)
        exported(load(Path(name, "logs")), Path(name, "out"))
        back = list(load(Path(name, "out")).records())

    assert sorted(map(repr, found)) == sorted(map(repr, back))


def test_runs_come_along(tmp_path: Path) -> None:
    """Names and tags are known to who has nothing but the export."""
    write(tmp_path / "logs", [record()], runs=[open_run(RUNS[0], "nightly", team="search")])
    exported(load(tmp_path / "logs"), tmp_path / "out")

    assert ["search"] == [row.group for row in report(tmp_path / "out", "tag:team").rows]


def test_any_fsspec_path_can_be_read_and_written(tmp_path: Path) -> None:
    """Logs in an object store are read, exported to one, and reported on from there."""
    import fsspec

    source = write(tmp_path, [record(0, prompt_tokens=3), record(1, prompt_tokens=4)], runs=KNOWN_RUNS)
    memory = fsspec.filesystem("memory")
    memory.pipe_file(f"/logs-of-a-test/{source.name}", source.read_bytes())
    done = exported(load("memory://logs-of-a-test"), "memory://out-of-a-test")

    assert (2, 1) == (done.calls, done.files)
    for url in ("memory://logs-of-a-test", "memory://out-of-a-test", f"memory://logs-of-a-test/{source.name}"):
        logs, left = load(url), list[CallsFile]()
        with duck.connected() as connection:
            plan = Plan(columns=frozenset())
            parts = list(duck.added(connection, logs.files, plan, left))

        assert (2, 7, []) == (len(list(logs.records())), parts[0].figures[1], left)


def test_a_target_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """Wrong use raises our own error with the next step."""
    target = tmp_path / "out"
    target.write_text("mine")
    (tmp_path / "logs").mkdir()

    with pytest.raises(InvalidArgument, match="give a folder"):
        exported(load(tmp_path / "logs"), target)
    assert "mine" == target.read_text()


def test_a_figure_no_column_holds_is_told_by_every_reader(tmp_path: Path) -> None:
    """A number past 63 bits is passed over and counted in reports, tables and exports alike, and stops nothing."""
    path = write(tmp_path / "logs", [record(0), record(1, prompt_tokens=2**63), record(2, prompt_tokens=2**63 - 1)])
    logs, told = load(tmp_path / "logs"), report(tmp_path / "logs")
    done = exported(logs, tmp_path / "out")

    assert (2, 2, 2) == (told.total.calls, len(logs.to_pandas()), done.calls)
    for skipped in (told.skipped, logs.skipped, done.skipped):
        assert (1, f"{path}:2") == (skipped.unreadable, skipped.examples["unreadable"])


def test_a_parquet_file_of_somebody_else_is_told(tmp_path: Path) -> None:
    """Junk under our name, in a folder of a day, is one unreadable file."""
    write(tmp_path / "logs", [record()])
    exported(load(tmp_path / "logs"), tmp_path / "out")
    (tmp_path / "out" / "day=2026-11-21" / "calls-junk.parquet").write_bytes(b"no Parquet")
    told = report(tmp_path / "out")

    assert (1, 1) == (told.total.calls, told.skipped.unreadable_files)


def test_the_day_is_that_of_utc(tmp_path: Path) -> None:
    """The folder does not depend on where the export is made."""
    write(tmp_path / "logs", [record(started_at=datetime(2026, 11, 21, 23, 59, tzinfo=UTC))])
    exported(load(tmp_path / "logs"), tmp_path / "out")

    assert ["day=2026-11-21"] == [path.name for path in (tmp_path / "out").glob("day=*")]
