"""A log folder as it grows: which runs go on, what they used by now, and which have ended since one began to look.

Only what was appended since the last look is read. Nothing is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

import msgspec

from token_callbacks.records import OpenRun, RunOutcome, RunSummary, read_open_run, read_record, read_summary
from token_callbacks.sinks.log_folder import OPEN, RUNS, LogFolder, Marker, is_run_id
from token_callbacks.summaries import summed_up
from token_callbacks.totals import Totals

_LONGEST_LINE = 16 << 20
_PIECE = 1 << 20


class _Tail:
    """How far a file was read: whole lines, and the beginning of one that is still being written."""

    __slots__ = ("_begun", "_is_lost", "_read")

    def __init__(self, read: int) -> None:
        self._read = read
        self._begun = b""
        self._is_lost = False

    def lines(self, folder: LogFolder, name: str) -> Iterator[bytes]:
        if folder.size(name) <= self._read:
            return
        try:
            with folder.reading(None, name) as file:
                file.seek(self._read)
                while piece := file.read(_PIECE):
                    self._read += len(piece)
                    yield from self._whole_lines(piece)
        except FileNotFoundError:  # tidied away meanwhile
            return

    def _whole_lines(self, piece: bytes) -> Iterator[bytes]:
        *whole, rest = piece.split(b"\n")
        if whole:
            whole[0] = self._begun + whole[0]
            yield from whole[1 if self._is_lost else 0 :]
            self._begun, self._is_lost = rest, False
        else:
            self._begun += rest
        if len(self._begun) > _LONGEST_LINE:  # no line of ours, and it must not fill the memory
            self._begun, self._is_lost = b"", True


class Following:
    """Looks at a folder, which need not exist yet; ``OSError`` where it cannot be read."""

    def __init__(self, log_dir: str | os.PathLike[str]) -> None:
        self._folder = LogFolder(Path(log_dir))
        self._tails: dict[str, _Tail] | None = None
        self._totals: dict[str, Totals] = {}
        self._running: dict[str, OpenRun] = {}
        self._old: set[str] = set()
        self.ended: dict[str, RunSummary] = {}
        """Those that ended since the first look, in that order."""

    def look(self, now: datetime) -> list[RunSummary]:
        """Tell the runs that go on, in the order they began, with the figures they have by now.

        Their ``including_nested`` tells of themselves only.
        """
        before = set(self._running)
        self._running = self._open_runs()
        if self._tails is None:
            self._old = {name.removesuffix(".json") for name in self._folder.names(RUNS)}
        self._read_on(is_first=self._tails is None)
        for run_id in {*before, *self._totals} - set(self._running) - self._old - set(self.ended):
            self._end(run_id)
        running = sorted(self._running.values(), key=lambda run: (run.started_at, run.run_id))
        return [self._so_far(run, now) for run in running]

    def _open_runs(self) -> dict[str, OpenRun]:
        markers = sorted(self._folder.markers(), reverse=True)
        living = self._folder.living({marker.writer for marker in markers})
        found: dict[str, OpenRun] = {}
        for marker in markers:
            if marker.is_open and marker.writer in living and (facts := self._facts(marker)) is not None:
                known = found.get(marker.run_id)
                if known is None or known.is_joined:
                    found[marker.run_id] = facts
        return found

    def _facts(self, marker: Marker) -> OpenRun | None:
        try:
            return read_open_run(self._folder.read(OPEN, marker.name) or b"")
        except (msgspec.DecodeError, RecursionError):
            return None

    def _read_on(self, *, is_first: bool) -> None:
        # At first what the dead wrote is passed over: it belongs to no run that goes on.
        if self._tails is None:
            self._tails = {}
        files = self._folder.calls_files()
        living = self._folder.living(files) if is_first else set()
        for writer, names in files.items():
            is_passed_over = is_first and writer not in living
            for name in names:
                tail = self._tails.get(name)
                if tail is None:
                    tail = self._tails[name] = _Tail(self._folder.size(name) if is_passed_over else 0)
                self._add(tail.lines(self._folder, name))

    def _add(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            try:
                record = read_record(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
            totals = self._totals.get(record.run_id)
            if totals is None:
                totals = self._totals[record.run_id] = Totals()
            totals.add(record)

    def _end(self, run_id: str) -> None:
        self._totals.pop(run_id, None)
        content = self._folder.read(RUNS, f"{run_id}.json") if is_run_id(run_id) else None
        try:
            self.ended[run_id] = read_summary(content or b"")
        except (msgspec.DecodeError, RecursionError):
            self._old.add(run_id)  # its process died: token-callbacks recover sums it up

    def _so_far(self, run: OpenRun, now: datetime) -> RunSummary:
        return summed_up(
            self._totals.get(run.run_id) or Totals(),
            nested=(0, 0, 0),
            run_id=run.run_id,
            parent_run_id=run.parent_run_id,
            name=run.name,
            tags=run.tags,
            outcome=RunOutcome.RUNNING,
            started_at=run.started_at,
            ended_at=None,
            until=now,
            cost=None,
            internal_errors=0,
            lost_records=0,
        )
