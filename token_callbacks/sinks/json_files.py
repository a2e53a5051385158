"""The files users read: a line an attempt in ``calls-*.jsonl``, a summary a run in ``runs/<run_id>.json``.

The lines are the source of truth: each is one ``write`` on a descriptor opened with ``O_APPEND``, in a file that nobody
else writes to, so that what was written stays whole whatever happens to the process. A summary is replaced atomically.
While a run is open, a small marker in ``open/`` tells what its lines do not: its name, its tags and its parent.
"""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from token_callbacks.records import CallRecord, OpenRun, RunSummary
from token_callbacks.sinks.log_folder import OPEN, RUNS, LogFolder, Marker, new_writer

ROTATE_BYTES = 64 << 20
"""A file of calls that grew to this is followed by another one."""

_LOOK_AFTER = timedelta(seconds=1)
"""How often a writer looks whether its file is still there; a look costs as much as half a write."""

_COPY_BYTES = 1 << 20
_NEVER = datetime.min.replace(tzinfo=UTC)


class JsonFiles:
    """Writes below ``log_dir``, which is made when the first thing is written. One descriptor, however many runs.

    A process and counter writes a file a day, and a further one past ``rotate_bytes``.
    """

    def __init__(self, log_dir: str | os.PathLike[str], *, rotate_bytes: int = ROTATE_BYTES) -> None:
        self.folder = LogFolder(log_dir)
        self.writer = new_writer()
        self._rotate_bytes = rotate_bytes
        self._encoder = msgspec.json.Encoder(enc_hook=_plain_string)
        self._markers: dict[str, OpenRun] = {}
        self._told: dict[str, tuple[int, int]] = {}
        """The losses in the marks of runs that are done here; a run that is joined again is marked again."""
        self._file = _CallsFile()
        self._number = 0
        self._day = ""
        self._look_at = _NEVER

    def write_record(self, record: CallRecord) -> None:
        """Append one line; raises ``OSError`` where the folder or the disk does not take it."""
        line = self._encoded(record) + b"\n"
        if record.ended_at >= self._look_at or self._file.size + len(line) > self._rotate_bytes:
            self._look_after(record.ended_at, len(line))
        self._file.append(line)

    def write_summary(self, summary: RunSummary) -> None:
        """Replace the run's summary; raises ``OSError`` where the folder or the disk does not take it."""
        if self._file.is_open and not self._is_there():  # its lines go first, they are the truth
            self._open_file()
        content = msgspec.json.format(self._encoded(summary), indent=1) + b"\n"
        self.folder.replace(RUNS, f"{summary.run_id}.json", content, writer=self.writer)

    def summary_path(self, run_id: str) -> Path | None:
        """Tell the file of a run's summary."""
        return self.folder.path / RUNS / f"{run_id}.json"

    def open_run(self, run: OpenRun) -> None:
        """Mark a run as open here, so that its summary can be made from its lines if this process cannot."""
        self._markers[run.run_id] = run
        if not self._file.is_open:  # whose lock says that we live
            self._open_file(run.started_at)
        self._write_marker(run)

    def forget_run(self, run_id: str) -> None:
        """Take the mark away: the run has its summary."""
        if self._markers.pop(run_id, None) is not None:
            self.folder.unlink(OPEN, Marker(run_id, self.writer, is_open=True).name)

    def mark_done(self, run_id: str, *, lost_records: int = 0, internal_errors: int = 0) -> None:
        """Mark a run as done here, with what was lost here; others may have it open still."""
        run = self._markers.get(run_id)
        if run is not None:
            before_lost, before_errors = self._told.get(run_id, (0, 0))
            lost_records, internal_errors = lost_records + before_lost, internal_errors + before_errors
            if lost_records or internal_errors:
                self._write_marker(
                    msgspec.structs.replace(run, lost_records=lost_records, internal_errors=internal_errors)
                )
            del self._markers[run_id]
            before, after = (Marker(run_id, self.writer, is_open=is_open).name for is_open in (True, False))
            self.folder.rename(OPEN, before, after)
            if lost_records or internal_errors:
                self._told[run_id] = lost_records, internal_errors

    def start_afresh(self) -> None:
        """Become a writer of its own in a forked child: the files and the runs are the parent's."""
        self._file.close()
        self._file = _CallsFile()
        self._markers, self._told = {}, {}
        self.writer = new_writer()
        self._number = 0
        self._look_at = _NEVER

    def close(self) -> None:
        """Close the file; a later record opens a new one."""
        if self._file.is_open and not self._file.is_in_place() and self._file.size:
            self._open_file()
        file, self._file, self._look_at = self._file, _CallsFile(), _NEVER
        if file.is_open and not file.size and file.is_in_place():
            self.folder.unlink(None, self._name())
        file.close()

    def _look_after(self, moment: datetime, more: int) -> None:
        is_new_day = f"{moment.astimezone(UTC):%Y-%m-%d}" > self._day
        is_full = self._file.size > 0 and self._file.size + more > self._rotate_bytes
        if is_new_day or is_full or not self._file.is_open or not self._is_there():
            self._open_file(moment)
        self._file.is_sound_up_to = self._file.size
        midnight = datetime.fromisoformat(self._day).replace(tzinfo=UTC) + timedelta(days=1)
        self._look_at = max(moment, min(moment + _LOOK_AFTER, midnight))

    def _open_file(self, moment: datetime | None = None) -> None:
        # The next file is there and locked before the last one goes: a writer that lives always holds a lock.
        # And where the clock was set back, no day comes twice: its files are there.
        day = self._day if moment is None else max(self._day, f"{moment.astimezone(UTC):%Y-%m-%d}")
        is_there = self._is_there()
        self._number = self._number + 1 if day == self._day else 1
        self._day = day
        last = self._file
        self._file = _CallsFile(self.folder.make_calls_file(day, self.writer, self._number))
        if last.is_open:
            if not is_there:
                if not last.is_in_place():  # else it was moved away, with all its lines
                    last.copy_tail_to(self._file)
                self._write_markers_again()
            last.close()

    def _is_there(self) -> bool:
        """Tell whether the file is still in the folder, under its name; deleted or moved away it is not."""
        if not self._file.is_open or not self._file.is_in_place():
            return False
        try:
            return self._file.identity == self.folder.identity(self._name())
        except OSError:  # not for us to see right now: what is written there is not lost
            return True

    def _write_markers_again(self) -> None:
        for run in list(self._markers.values()):
            with contextlib.suppress(OSError):  # the lines are what matters, and they tell of themselves
                self._write_marker(run)

    def _write_marker(self, run: OpenRun) -> None:
        name = Marker(run.run_id, self.writer, is_open=True).name
        self.folder.replace(OPEN, name, self._encoded(run), writer=self.writer)

    def _name(self) -> str:
        return f"calls-{self._day}-{self.writer}{f'.{self._number}' if self._number > 1 else ''}.jsonl"

    def _encoded(self, value: CallRecord | RunSummary | OpenRun) -> bytes:
        try:
            return self._encoder.encode(value)
        except UnicodeEncodeError:  # half a surrogate pair, which a name or a foreign payload may hold
            return self._encoder.encode(_without_surrogates(msgspec.to_builtins(value, enc_hook=_plain_string)))


class _CallsFile:
    """The file that lines are appended to now, or none."""

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = -1 if descriptor is None else descriptor
        self.identity = None if descriptor is None else _identity(descriptor)
        self.size = 0
        self.is_sound_up_to = 0
        """How much of it was surely in its folder."""
        self._ends_torn = False

    @property
    def is_open(self) -> bool:
        return self._descriptor >= 0

    def is_in_place(self) -> bool:
        """Tell whether the descriptor is still the file that was opened, and the file still in a folder."""
        try:
            found = os.fstat(self._descriptor)
        except OSError:
            return False
        return found.st_nlink > 0 and (found.st_dev, found.st_ino) == self.identity

    def append(self, line: bytes) -> None:
        """Write one line; where the disk takes a part of it only, none of it stays."""
        if self._ends_torn:
            line = b"\n" + line
        written = os.write(self._descriptor, line)
        try:
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
        except OSError:
            self._cut(written)
            raise
        self._ends_torn = False
        self.size += written

    def _cut(self, written: int) -> None:
        try:
            os.ftruncate(self._descriptor, self.size)
        except OSError:  # then the next line begins with the end of this one
            self._ends_torn = True
            self.size += written

    def copy_tail_to(self, other: _CallsFile) -> None:
        """Save what was written since the file was deleted, as long as its descriptor is ours."""
        position = self.is_sound_up_to
        with contextlib.suppress(OSError):
            if _identity(self._descriptor) != self.identity:
                return
            tail = b""
            while piece := os.pread(self._descriptor, _COPY_BYTES, position):
                position += len(piece)
                tail += piece
            if tail:
                other.append(tail)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # whoever closed it before us, or has the number now, is the host
            if self.is_open and _identity(self._descriptor) == self.identity:
                os.close(self._descriptor)
        self._descriptor = -1


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def _plain_string(value: object) -> str:
    """Take the text out of a string of a class of its own, as numpy and TOML readers hand out, for msgspec."""
    if isinstance(value, str):
        return str.__str__(value)
    raise NotImplementedError  # msgspec names the class


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    return value
