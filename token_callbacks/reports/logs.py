"""Logs that are read back: which files there are, the calls in them, and what is known of their runs."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec

from token_callbacks.errors import InvalidArgument, MissingExtra, NoLogs
from token_callbacks.records import CallRecord, RunSummary, read_record, read_summary
from token_callbacks.reports import lines
from token_callbacks.reports.places import Entry, Place, placed
from token_callbacks.reports.skipped import Skipped

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import polars as pl
    import pyarrow as pa

RUNS_FILE = "_runs.jsonl"
"""The runs of an export: a line a run. Readers of Parquet folders pass over names that begin so."""

_CALLS = re.compile(r"calls-.+\.(jsonl|parquet)")
_UNIQUE = re.compile(r"calls-\d{4}-\d\d-\d\d-\d+-[0-9a-f]{8}(\.\d+)?")
"""A name that only one writer ever gave: files of this name are copies of each other."""

_DAY = re.compile(r"day=\d{4}-\d\d-\d\d")
_FOREIGN = (".json", ".jsonl", ".ndjson", ".parquet")
_MOST_BYTES = 16 << 20
"""Of a summary or a marker: ours are a few kB."""


class RunFacts(msgspec.Struct, frozen=True):
    """What is known of a run besides its calls."""

    run_id: str
    name: str
    tags: dict[str, str] = {}


_facts = msgspec.json.Decoder(RunFacts)


class CallsFile(NamedTuple):
    """A file of calls."""

    place: Place
    path: str
    size: int
    is_parquet: bool

    @property
    def shown(self) -> str:
        """The path as the user would write it."""
        return self.place.shown(self.path)

    @property
    def name(self) -> str:
        """The last part of the path, without its ending."""
        return self.path.rpartition("/")[2].rpartition(".")[0]

    @property
    def source(self) -> str:
        """The same for all copies of the same file of calls, also for what was exported from it."""
        return self.name if _UNIQUE.fullmatch(self.name) else self.shown


class Logs:
    """The calls and runs of some folders and files, as they are when they are read. Nothing is kept in memory."""

    def __init__(self, files: Iterable[CallsFile], folders: Iterable[tuple[Place, str]], skipped: Skipped) -> None:
        self.files = tuple(files)
        """The files of calls, oldest first by their names."""
        self._folders = tuple(folders)
        self._at_load = skipped
        self.skipped = msgspec.structs.replace(skipped, examples=dict(skipped.examples))
        """What the latest reading passed over, and what ``load`` did; complete when the reading is."""

    def fresh_skipped(self) -> Skipped:
        """Start the account of a new reading, and return it."""
        self.skipped = msgspec.structs.replace(self._at_load, examples=dict(self._at_load.examples))
        return self.skipped

    def records(self) -> Iterator[CallRecord]:
        """Read the calls, file by file; what cannot be read is passed over and told by ``skipped``."""
        return self._records(self.fresh_skipped())

    def _records(self, skipped: Skipped) -> Iterator[CallRecord]:
        for file in self.files:
            yield from self.records_of(file, skipped)

    def records_of(self, file: CallsFile, skipped: Skipped) -> Iterator[CallRecord]:
        """Read the calls of one file."""
        try:
            with file.place.opened(file.path) as opened:
                if file.is_parquet:
                    from token_callbacks.reports.columns import records_of_parquet

                    yield from records_of_parquet(opened, shown=file.shown, skipped=skipped)
                else:
                    yield from lines.read(opened, read_record, shown=file.shown, skipped=skipped)
        except FileNotFoundError:  # tidied away meanwhile
            return
        except OSError:
            skipped.note("unreadable_files", file.shown)

    def summaries(self) -> Iterator[RunSummary]:
        """Read the summaries of the runs that have one, each once; the latest where copies differ."""
        found: dict[str, RunSummary] = {}
        for content in self._run_contents("runs"):
            summary = _decoded(read_summary, content)
            if summary is not None:
                known = found.get(summary.run_id)
                if known is None or (known.ended_at or known.started_at) <= (summary.ended_at or summary.started_at):
                    found[summary.run_id] = summary
        yield from (found[run_id] for run_id in sorted(found))

    def run_facts(self) -> dict[str, RunFacts]:
        """Read names and tags of the runs, also of those that are open still."""
        found: dict[str, RunFacts] = {}
        for below in ("open", "runs"):  # a summary has the last word
            for content in self._run_contents(below):
                facts = _decoded(_facts.decode, content)
                if facts is not None:
                    found[facts.run_id] = facts
        return found

    def to_arrow(self) -> pa.Table:
        """Return all calls as an Arrow table, a column a figure (docs/reading.md); it holds every line in memory."""
        from token_callbacks.reports.columns import table

        records = self.records()
        return table(records, self.run_facts())

    def to_pandas(self) -> pd.DataFrame:
        """Return all calls as a pandas frame; figures that nobody told are ``<NA>``."""
        with _extra("pandas"):
            import pandas as pd
        return self.to_arrow().to_pandas(types_mapper=pd.ArrowDtype)

    def to_polars(self) -> pl.DataFrame:
        """Return all calls as a Polars frame."""
        with _extra("polars"):
            import polars as pl
        frame = pl.from_arrow(self.to_arrow())
        assert isinstance(frame, pl.DataFrame)  # noqa: S101 - its type says it may be a series
        return frame

    def to_duckdb(self, connection: duckdb.DuckDBPyConnection | None = None) -> duckdb.DuckDBPyRelation:
        """Return all calls as a DuckDB relation; ``None``: on a connection of its own."""
        with _extra("duckdb"):
            import duckdb
        return (connection or duckdb.connect()).from_arrow(self.to_arrow())

    def _run_contents(self, below: str) -> Iterator[bytes]:
        for place, folder in self._folders:
            for entry in place.entries(f"{folder}/{below}"):
                if entry.name.endswith(".json") and entry.size < _MOST_BYTES:
                    yield from _content(place, entry.path)
            if below == "runs":
                for content in _content(place, f"{folder}/{RUNS_FILE}"):
                    yield from content.splitlines()


def load(*paths: str | os.PathLike[str]) -> Logs:
    """Find the logs in folders and files; nothing is read yet.

    A path is a log folder, a file of calls, a folder that ``export`` made, or an fsspec URL of one of these; none:
    ``token_logs``. Copies of a file of calls, and what was exported from it, are read once, from the longest.

    Raises ``NoLogs`` where a path does not exist, ``InvalidArgument`` where it can be no log, ``MissingExtra`` where a
    URL needs a library that is not installed.
    """
    skipped = Skipped()
    files: list[CallsFile] = []
    folders: list[tuple[Place, str]] = []
    for path in paths or ("token_logs",):
        place, name = placed(path)
        entry = place.entry(name)
        if entry is None:
            raise NoLogs(f"there is no {os.fspath(path)}: give the folder that TokenCounter(log_dir=...) writes to")
        if entry.is_folder:
            folders.append((place, name))
            files.extend(_files_in(place, name, skipped))
        else:
            folders.append((place, name.rpartition("/")[0] or "."))
            files.append(_given(place, entry))
    return Logs(_once(files, skipped), folders, skipped)


def _given(place: Place, entry: Entry) -> CallsFile:
    ending = entry.name.rpartition(".")[2]
    if ending not in ("jsonl", "parquet"):
        raise InvalidArgument(f"{place.shown(entry.path)} is no file of calls: they are named calls-*.jsonl")
    return CallsFile(place, entry.path, entry.size, ending == "parquet")


def _files_in(place: Place, folder: str, skipped: Skipped) -> Iterator[CallsFile]:
    for entry in place.entries(folder):
        if entry.is_folder and _DAY.fullmatch(entry.name):
            yield from _files_in(place, entry.path, skipped)
        elif not entry.is_folder and (match := _CALLS.fullmatch(entry.name)):
            yield CallsFile(place, entry.path, entry.size, match[1] == "parquet")
        elif not entry.is_folder and entry.name.endswith(_FOREIGN) and entry.name != RUNS_FILE:
            skipped.note("foreign_files", place.shown(entry.path))


def _once(files: Iterable[CallsFile], skipped: Skipped) -> list[CallsFile]:
    read: dict[tuple[str, str], CallsFile] = {}
    # The lines before what was exported of them, and the longest copy first.
    for file in sorted(files, key=lambda file: (file.is_parquet, -file.size)):
        day = file.path.split("/")[-2] if file.is_parquet and "/" in file.path else ""
        if (file.source, "") in read or (file.source, day) in read:
            skipped.note("copied_files", file.shown)
        else:
            read[file.source, day] = file
    return sorted(read.values(), key=lambda file: (file.name, file.path))


def _content(place: Place, path: str) -> Iterator[bytes]:
    try:
        with place.opened(path) as file:
            yield file.read()
    except OSError:
        return


_Shape = TypeVar("_Shape")


def _decoded(decode: Callable[[bytes], _Shape], content: bytes) -> _Shape | None:
    try:
        return decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


@contextmanager
def _extra(library: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        extra = "analytics" if library in ("duckdb", "pyarrow") else None
        step = f"'token-callbacks[{extra}]'" if extra else library
        raise MissingExtra(f"this needs {library}: pip install {step}") from error
