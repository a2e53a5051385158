"""The files users read: a line an attempt in ``calls-*.jsonl``, a summary a run in ``runs/<run_id>.json``.

The lines are the source of truth: each is one ``write`` on a descriptor opened with ``O_APPEND``, so that what was
written stays whole whatever happens to the process. A summary is replaced atomically.
"""

from __future__ import annotations

import os
import secrets
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from token_callbacks.records import CallRecord, RunSummary

_FOLDER_MODE = 0o700
_FILE_MODE = 0o600


class JsonFiles:
    """Writes below ``log_dir``, which is made when the first thing is written. A file a process and day."""

    def __init__(self, log_dir: str | os.PathLike[str]) -> None:
        # Absolute from the start: the host may change its working directory later.
        self._folder = Path(log_dir).absolute()
        self._encoder = msgspec.json.Encoder()
        self._descriptor: int | None = None
        self._opened_for: tuple[int, int] | None = None
        self._ends_torn = False

    def write_record(self, record: CallRecord) -> None:
        """Append one line; raises ``OSError`` where the folder or the disk does not take it."""
        line = self._encoder.encode(record) + b"\n"
        if self._ends_torn:  # what a full disk cut off must not swallow this line too
            line = b"\n" + line
        descriptor = self._file_for(record.ended_at)
        written = os.write(descriptor, line)
        self._ends_torn = written < len(line)
        if self._ends_torn:
            raise OSError(f"only {written} of {len(line)} bytes of a line fitted on the disk")

    def write_summary(self, summary: RunSummary) -> None:
        """Replace the run's summary; raises ``OSError`` where the folder or the disk does not take it."""
        path = self.summary_path(summary.run_id)
        path.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _FILE_MODE)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.format(self._encoder.encode(summary), indent=1) + b"\n")
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

    def summary_path(self, run_id: str) -> Path:
        """Tell the file of a run's summary."""
        return self._folder / "runs" / f"{run_id}.json"

    def close(self) -> None:
        """Close the file; a later record opens a new one."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _file_for(self, moment: datetime) -> int:
        # A forked child gets a file of its own: two processes never share a descriptor's fate.
        key = (os.getpid(), moment.toordinal())
        if self._descriptor is not None and key == self._opened_for:
            return self._descriptor
        if self._descriptor is not None:
            self.close()
        self._folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        name = f"calls-{moment.astimezone(UTC):%Y-%m-%d}-{key[0]}-{secrets.token_hex(4)}.jsonl"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(self._folder / name, flags, _FILE_MODE)
        self._opened_for = key
        self._ends_torn = False
        return self._descriptor
