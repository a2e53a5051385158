"""Logs as Parquet, a folder a day: for a warehouse, and for reports that take seconds over millions of calls."""

from __future__ import annotations

import hashlib
import itertools
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Self

import msgspec

from token_callbacks.errors import InvalidArgument, MissingExtra
from token_callbacks.records import CallRecord
from token_callbacks.reports.columns import SCHEMA, batches, pa, pq
from token_callbacks.reports.logs import RUNS_FILE, CallsFile, Logs, RunFacts
from token_callbacks.reports.parts import Progress
from token_callbacks.reports.places import Place, placed
from token_callbacks.reports.skipped import Skipped

if TYPE_CHECKING:
    import duckdb

_RECORDS = 4_000
"""Calls that are objects of Python at one time; many more, and the garbage collector takes half of the time."""

_ROWS = 200_000
"""Calls that wait as columns, so that the parts of a file are not too small to be read fast."""

_IN_MEMORY_BYTES = 8 << 20
"""Of a file that is being made; a larger one waits on the disk until it is whole."""


class Exported(msgspec.Struct, kw_only=True):
    """What an export wrote."""

    calls: int = 0
    files: int = 0
    skipped: Skipped


def exported(logs: Logs, target: str | os.PathLike[str], *, progress: Progress | None = None) -> Exported:
    """Write the calls of logs to ``target/day=YYYY-MM-DD/<file of calls>.parquet``; ``target`` may be an fsspec URL.

    The day is the UTC day on which the call started. Doing it again replaces what is there by the same, so that nothing
    is doubled; days and files of which the logs are gone stay. The runs go to ``target/_runs.jsonl``. ``progress`` is
    told the bytes read and all there are, after each file.

    Raises ``InvalidArgument`` where the target is empty or a file, ``MissingExtra`` without pyarrow, ``OSError`` where
    the target cannot be written.
    """
    if not os.fspath(target):
        raise InvalidArgument("the target is empty: give a folder to export to, such as 'parquet'")
    place, folder = placed(target)
    entry = place.entry(folder)
    if entry is not None and not entry.is_folder:
        raise InvalidArgument(f"{os.fspath(target)} is a file: give a folder to export to")
    done = Exported(skipped=logs.fresh_skipped())
    runs = logs.run_facts()
    total, read = sum(file.size for file in logs.files), 0
    with _engine() as engine:
        for file in logs.files:
            with _Days() as days:
                if not _collect_fast(engine, file, runs, days, done):
                    _collect(logs, file, runs, days, done)
                for day, content in days.finished():
                    place.write(f"{folder}/day={day}/{_name(file)}.parquet", content)
                    done.files += 1
            read += file.size
            if progress is not None:
                progress(read, total)
    _export_runs(logs, place, folder)
    return done


@contextmanager
def _engine() -> Iterator[duckdb.DuckDBPyConnection | None]:
    try:
        from token_callbacks.reports import duck
    except MissingExtra:
        yield None
        return
    with duck.connected() as connection:
        yield connection


def _collect_fast(
    engine: duckdb.DuckDBPyConnection | None, file: CallsFile, runs: Mapping[str, RunFacts], days: _Days, done: Exported
) -> bool:
    """Let DuckDB take the lines apart; ``False``: it is not there, or the file has a line that it may misread."""
    if engine is None:
        return False
    from token_callbacks.reports import bulk

    found = bulk.batches(engine, file, runs)
    if found is None:
        return False
    for batch in found:
        for day, of_day in _day_by_day(batch):
            days.write(day, of_day)
        done.calls += batch.num_rows
    return True


def _day_by_day(batch: pa.RecordBatch) -> Iterator[tuple[str, pa.RecordBatch]]:
    import pyarrow.compute as pc

    moments = batch.column(batch.schema.get_field_index("started_at"))
    days = moments.cast(pa.timestamp("us")).cast(pa.date32(), safe=False)
    for day in sorted(days.unique().to_pylist()):
        yield day.isoformat(), batch.filter(pc.equal(days, pa.scalar(day, pa.date32())))


def _collect(logs: Logs, file: CallsFile, runs: Mapping[str, RunFacts], days: _Days, done: Exported) -> None:
    for day, records in _by_day(logs.records_of(file, done.skipped)):
        for batch in batches(records, runs):
            days.write(day, batch)
            done.calls += batch.num_rows


def _by_day(records: Iterator[CallRecord]) -> Iterator[tuple[str, list[CallRecord]]]:
    while chunk := list(itertools.islice(records, _RECORDS)):
        days: dict[str, list[CallRecord]] = {}
        for record in chunk:
            days.setdefault(record.started_at.date().isoformat(), []).append(record)
        yield from days.items()


def _name(file: CallsFile) -> str:
    if file.source == file.name:
        return file.name
    # A name that others may have as well: told apart by where it lies.
    return f"calls-{hashlib.sha256(file.shown.encode()).hexdigest()[:12]}-{file.name.removeprefix('calls-')}"


class _Days:
    """The files that are being made of one file of calls, one a day."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[IO[bytes], pq.ParquetWriter]] = {}
        self._waiting: dict[str, list[pa.RecordBatch]] = {}
        self._rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for content, _writer in self._open.values():
            content.close()

    def write(self, day: str, batch: pa.RecordBatch) -> None:
        """Append calls of a day."""
        self._waiting.setdefault(day, []).append(batch)
        self._rows += batch.num_rows
        if self._rows >= _ROWS:
            self._flush()

    def finished(self) -> Iterator[tuple[str, IO[bytes]]]:
        """Yield each day with what to write, once it is whole."""
        self._flush()
        for day, (content, writer) in sorted(self._open.items()):
            writer.close()
            content.seek(0)
            yield day, content

    def _flush(self) -> None:
        for day, waiting in self._waiting.items():
            if day not in self._open:
                content = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 - closed on leaving
                self._open[day] = (content, pq.ParquetWriter(content, SCHEMA, compression="zstd"))
            self._open[day][1].write_table(pa.Table.from_batches(waiting, schema=SCHEMA))
        self._waiting = {}
        self._rows = 0


def _export_runs(logs: Logs, place: Place, folder: str) -> None:
    known: dict[str, Any] = {}
    for line in _lines(place, f"{folder}/{RUNS_FILE}"):
        run = msgspec.json.decode(line)
        known[run["run_id"]] = run
    for facts in logs.run_facts().values():
        known.setdefault(facts.run_id, facts)
    for summary in logs.summaries():
        known[summary.run_id] = summary
    if known:
        content = b"".join(msgspec.json.encode(known[run_id]) + b"\n" for run_id in sorted(known))
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as file:
            file.write(content)
            file.seek(0)
            place.write(f"{folder}/{RUNS_FILE}", file)


def _lines(place: Place, path: str) -> list[bytes]:
    try:
        with place.opened(path) as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []
