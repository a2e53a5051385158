"""The log folder, as far as safety goes: who may be told what lies in it, and which names are never followed.

Everything below the folder is opened relative to it, with ``O_NOFOLLOW``, and made with ``O_EXCL`` for its owner only:
a link that somebody planted at a name of ours leads nowhere. The folder itself may be a link, to another disk say.

Every writer (one a counter and process) holds a lock on the file of calls that it writes. The kernel lets go of it when
the process dies, however it dies, so that anybody can tell the runs of the dead from those of the living; a process id
could not, it is used again and means nothing in another container.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, NamedTuple

FOLDER_MODE = 0o700
FILE_MODE = 0o600

RUNS = "runs"
OPEN = "open"

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a planted fifo must not block either
_MAKE = os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_CALLS_NAME = re.compile(r"calls-\d{4}-\d\d-\d\d-(\d+-[0-9a-f]{8})(?:\.\d+)?\.jsonl")
_WRITER = re.compile(r"\d+-[0-9a-f]{8}")
_RUN_ID = re.compile(r"\d{8}T\d{6}-[0-9a-f]{12}")
_LOCK_NAME = ".lock"
_LOCK_POLL_SECONDS = 0.002
_LOOK_SECONDS = 0.1
"""Somebody who looks whether a writer lives holds a lock on its file for microseconds."""
_MOST_READ_BYTES = 16 << 20
"""Of a summary or marker: ours are a few kB, and a planted one must not fill the memory."""

LONGEST_LINE_BYTES = 16 << 20
"""DuckDB's own bound; lines of ours are about a kB."""


class Marker(NamedTuple):
    """The name of a file in ``open/``: one a run and process that has calls in it.

    ``is_open``: whether the process still has the run open, by its own word.
    """

    run_id: str
    writer: str
    is_open: bool

    @property
    def name(self) -> str:
        """The file's name."""
        return f"{self.run_id}.{self.writer}.{'open' if self.is_open else 'done'}.json"


def new_writer() -> str:
    """Make the name of a writer: this process, and something that nobody else has."""
    return f"{os.getpid()}-{secrets.token_hex(4)}"


def is_run_id(text: object) -> bool:
    """Tell whether this is shaped as our run ids are: what is not, is never made part of a path."""
    return isinstance(text, str) and _RUN_ID.fullmatch(text) is not None


def writer_of(calls_name: str) -> str | None:
    """Tell who wrote a file of calls from its name; ``None`` for any other file."""
    match = _CALLS_NAME.fullmatch(calls_name)
    return None if match is None else match[1]


class LogFolder:
    """A log folder, which need not exist yet; every method raises ``OSError`` where the disk does not do it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # Absolute from the start: the host may change its working directory later.
        self.path = Path(path).absolute()

    def why_unusable(self) -> str | None:
        """Tell why nothing can ever be written here, or should not; ``None`` where there is no reason yet.

        A link is fine, it may be the user's way to another disk. Not so a link that somebody else put where everybody
        may put something, as in ``/tmp``: it would be theirs to say where our files lie. It is the rule of Linux's
        ``fs.protected_symlinks``.
        """
        for step in (*reversed(self.path.parents), self.path):
            try:
                about = step.lstat()
            except OSError:  # not there yet, or not for us to see: writing will tell
                return None
            if stat.S_ISLNK(about.st_mode) and _is_somebody_elses(about, step.parent.stat()):
                return f"{step} is a link of another user's, in a folder that everybody may write to"
            with contextlib.suppress(OSError):  # a link to what is yet to be made, or to be mounted
                if not stat.S_ISDIR(step.stat().st_mode):
                    return f"{step} is not a folder"
        return None

    def make_calls_file(self, day: str, writer: str, number: int) -> int:
        """Make a file of calls of the writer, lock it and return its descriptor; none of that name may exist."""
        name = f"calls-{day}-{writer}{f'.{number}' if number > 1 else ''}.jsonl"
        with self._directory(None, make=True) as folder:
            descriptor = os.open(name, os.O_RDWR | os.O_APPEND | _MAKE, FILE_MODE, dir_fd=folder)
        _lock(descriptor, _LOOK_SECONDS)  # where there are no locks, nobody is ever taken for dead
        return descriptor

    def calls_files(self) -> dict[str, list[str]]:
        """List the files of calls by their writer, oldest first."""
        files: dict[str, list[str]] = {}
        for name in sorted(self.names(None), key=_by_age):
            if (writer := writer_of(name)) is not None:
                files.setdefault(writer, []).append(name)
        return files

    def is_alive(self, writer: str) -> bool:
        """Tell whether the writer's process still lives and writes."""
        return writer in self.living({writer})

    def living(self, writers: Collection[str]) -> set[str]:
        """Tell which of some writers' processes still live and write; the folder is listed twice, however many."""
        looked_at: set[str] = set()
        found: set[str] = set()
        is_new = True
        while is_new:  # a writer locks its next file before it lets go of the one before
            is_new = False
            files = self.calls_files()
            for writer in writers:
                new = () if writer in found else [name for name in files.get(writer, ()) if name not in looked_at]
                if any(self._is_locked(name) for name in new):
                    found.add(writer)
                looked_at.update(new)
                is_new = is_new or (bool(new) and writer not in found)
        return found

    def _is_locked(self, name: str) -> bool:
        try:
            with self.reading(None, name) as file:
                fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:  # locked, or no locks on this file system
            return True
        return False

    def markers(self) -> list[Marker]:
        """List who has which runs open, or had and has not been summed up yet."""
        return [marker for name in self.names(OPEN) if (marker := _marker(name)) is not None]

    def drafts(self) -> list[tuple[str, str]]:
        """List the names of drafts, and who writes each of them."""
        named = [(name, name[1:].split(".")) for name in self.names(OPEN) if name.endswith(".draft")]
        return [(name, parts[0]) for name, parts in named if _WRITER.fullmatch(parts[0])]

    def names(self, below: str | None) -> list[str]:
        """List the names in the folder, or in one below it; none where it does not exist."""
        try:
            with self._directory(below) as folder:
                return os.listdir(folder)  # noqa: PTH208 - Path takes no descriptor
        except FileNotFoundError:
            return []

    def exists(self, below: str, name: str) -> bool:
        """Tell whether there is such a file."""
        try:
            with self._directory(below) as folder:
                return stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return False

    def identity(self, name: str) -> tuple[int, int] | None:
        """Tell which file of calls has this name; ``None`` where none has."""
        try:
            with self._directory(None) as folder:
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def size(self, name: str) -> int:
        """Tell how many bytes a file of calls holds; 0 where there is none."""
        try:
            with self._directory(None) as folder:
                return os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
        except FileNotFoundError:
            return 0

    @contextlib.contextmanager
    def reading(self, below: str | None, name: str) -> Iterator[IO[bytes]]:
        """Open a regular file for reading; what is none, a link say, is not found."""
        with self._directory(below) as folder:
            try:
                descriptor = os.open(name, _READ, dir_fd=folder)
            except OSError as error:
                if error.errno == errno.ELOOP:
                    raise FileNotFoundError(f"{name} is a link") from error
                raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # looked at first: fdopen() takes no folder
            os.close(descriptor)
            raise FileNotFoundError(f"{name} is not a file")
        with os.fdopen(descriptor, "rb") as file:
            yield file

    def read(self, below: str, name: str) -> bytes | None:
        """Read a small file; ``None`` where there is none, or one that cannot be ours."""
        try:
            with self.reading(below, name) as file:
                content = file.read(_MOST_READ_BYTES)
        except FileNotFoundError:
            return None
        return content if len(content) < _MOST_READ_BYTES else None

    def replace(self, below: str, name: str, content: bytes, *, writer: str) -> None:
        """Write a file as a whole, in place of an earlier one; a reader sees either."""
        draft = f".{writer}.{secrets.token_hex(4)}.draft"
        with self._directory(OPEN, make=True) as drafts, self._directory(below, make=True) as folder:
            descriptor = os.open(draft, os.O_WRONLY | _MAKE, FILE_MODE, dir_fd=drafts)
            try:
                try:
                    _write_whole(descriptor, content)
                finally:
                    os.close(descriptor)
                os.replace(draft, name, src_dir_fd=drafts, dst_dir_fd=folder)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(draft, dir_fd=drafts)
                raise

    def rename(self, below: str, old: str, new: str) -> None:
        """Give a file another name."""
        with self._directory(below) as folder:
            os.replace(old, new, src_dir_fd=folder, dst_dir_fd=folder)

    def unlink(self, below: str | None, name: str) -> None:
        """Take a file away, if it is there."""
        with contextlib.suppress(FileNotFoundError, IsADirectoryError), self._directory(below) as folder:
            os.unlink(name, dir_fd=folder)  # a folder of this name is none of ours

    @contextlib.contextmanager
    def locked(self, seconds: float) -> Iterator[bool]:
        """Keep all others from adding up runs that span processes; false where somebody else does, past the time."""
        with self._directory(OPEN, make=True) as folder:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(_LOCK_NAME, flags, FILE_MODE, dir_fd=folder)
        try:
            yield _lock(descriptor, seconds)
        finally:
            with contextlib.suppress(OSError):  # else a child that was forked meanwhile holds it as long as it lives
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    @contextlib.contextmanager
    def _directory(self, below: str | None, *, make: bool = False) -> Iterator[int]:
        # No descriptor of it is kept: it may be deleted and made anew under us.
        descriptor = self._opened(below, make=make)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _opened(self, below: str | None, *, make: bool) -> int:
        try:
            top = os.open(self.path, _FOLDER)
        except FileNotFoundError:
            if not make:
                raise
            for step in (*reversed(self.path.parents), self.path):  # mkdir(parents=True) asks the umask for their modes
                if not step.exists():
                    step.mkdir(mode=FOLDER_MODE, exist_ok=True)
            top = os.open(self.path, _FOLDER)
        if below is None:
            return top
        try:
            return _opened_below(top, below, make=make)
        finally:
            os.close(top)


def _opened_below(top: int, below: str, *, make: bool) -> int:
    try:
        return os.open(below, _FOLDER | os.O_NOFOLLOW, dir_fd=top)
    except FileNotFoundError:
        if not make:
            raise
    with contextlib.suppress(FileExistsError):
        os.mkdir(below, FOLDER_MODE, dir_fd=top)
    return os.open(below, _FOLDER | os.O_NOFOLLOW, dir_fd=top)


def lines_of(file: IO[bytes]) -> Iterator[bytes | None]:
    """Yield the lines of a file; ``None`` for each that is longer than any of ours can be, and is not kept."""
    while line := file.readline(LONGEST_LINE_BYTES):
        if len(line) < LONGEST_LINE_BYTES or line.endswith(b"\n"):
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(LONGEST_LINE_BYTES)
        yield None


def _is_somebody_elses(link: os.stat_result, folder: os.stat_result) -> bool:
    return bool(folder.st_mode & stat.S_IWOTH) and link.st_uid not in (os.geteuid(), folder.st_uid)


def _marker(name: str) -> Marker | None:
    parts = name.split(".")
    match parts:
        case [run_id, writer, "open" | "done" as state, "json"] if is_run_id(run_id) and _WRITER.fullmatch(writer):
            return Marker(run_id, writer, state == "open")
    return None


def _by_age(name: str) -> tuple[str, int]:
    stem, _, number = name.removesuffix(".jsonl").partition(".")
    return stem, int(number) if number.isdecimal() else 1


def _write_whole(descriptor: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


def _lock(descriptor: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_LOCK_POLL_SECONDS)
        except OSError:  # no locks on this file system: adding up twice at once changes nothing
            return True
        else:
            return True
