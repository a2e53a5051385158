"""Where logs lie: on a disk of this machine, or anywhere fsspec reaches (``s3://``, ``memory://``)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

from token_callbacks.errors import MissingExtra


class Entry(NamedTuple):
    """A file or folder in a folder."""

    path: str
    size: int
    """Bytes; 0 for a folder."""
    is_folder: bool

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rstrip("/").rpartition("/")[2]


class Place(Protocol):
    """A file system, as far as reading logs and writing exports needs one; its methods raise ``OSError``."""

    def entries(self, folder: str) -> list[Entry]:
        """List a folder, by name; empty where there is none."""

    def entry(self, path: str) -> Entry | None:
        """Look at one path; ``None`` where there is nothing."""

    def opened(self, path: str) -> IO[bytes]:
        """Open a file for reading."""

    def write(self, path: str, content: IO[bytes]) -> None:
        """Put a whole file in place, and the folders above it."""

    def shown(self, path: str) -> str:
        """Give the path as the user would write it."""


class Disk:
    """This machine's file systems."""

    def entries(self, folder: str) -> list[Entry]:
        """List the files and folders of a folder, by name; empty where there is none. Pipes and devices are neither."""
        try:
            with os.scandir(folder) as found:
                return sorted(self._entries(found))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def entry(self, path: str) -> Entry | None:
        """Look at one path; ``None`` where there is nothing."""
        try:
            is_folder = Path(path).is_dir()
            return Entry(path, 0 if is_folder else Path(path).stat().st_size, is_folder)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def opened(self, path: str) -> IO[bytes]:
        """Open a file for reading; ``OSError`` for a pipe or device, which could block for ever."""
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path} is not a file")
        return Path(path).open("rb")

    def write(self, path: str, content: IO[bytes]) -> None:
        """Put a whole file in place, and the folders above it; a reader sees the old one or the new one."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.{os.getpid()}.draft")
        try:
            with draft.open("wb") as file:
                shutil.copyfileobj(content, file)
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)

    def shown(self, path: str) -> str:
        """Give the path as the user would write it."""
        return path

    def _entries(self, found: Iterator[os.DirEntry[str]]) -> Iterator[Entry]:
        for entry in found:
            try:
                is_folder = entry.is_dir()
                if is_folder or entry.is_file():  # a pipe could block whoever reads it for ever, as DuckDB would
                    yield Entry(entry.path, 0 if is_folder else entry.stat().st_size, is_folder)
            except OSError:  # a link to nowhere, or tidied away meanwhile
                continue


class Remote:
    """Any file system of fsspec's."""

    def __init__(self, filesystem: Any) -> None:
        self.filesystem = filesystem

    def entries(self, folder: str) -> list[Entry]:
        """List a folder, by name; empty where there is none."""
        try:
            told = self.filesystem.ls(folder, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(_entry(one) for one in told if one["name"].rstrip("/") != folder.rstrip("/"))

    def entry(self, path: str) -> Entry | None:
        """Look at one path; ``None`` where there is nothing."""
        try:
            return _entry(self.filesystem.info(path))
        except FileNotFoundError:
            return None

    def opened(self, path: str) -> IO[bytes]:
        """Open a file for reading."""
        file: IO[bytes] = self.filesystem.open(path, "rb")
        return file

    def write(self, path: str, content: IO[bytes]) -> None:
        """Put a whole file in place; object stores do so at once."""
        self.filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
        with self.filesystem.open(path, "wb") as file:
            shutil.copyfileobj(content, file)

    def shown(self, path: str) -> str:
        """Give the path with its protocol."""
        shown: str = self.filesystem.unstrip_protocol(path)
        return shown


def _entry(told: dict[str, Any]) -> Entry:
    is_folder = told["type"] == "directory"
    return Entry(str(told["name"]), 0 if is_folder else int(told["size"] or 0), is_folder)


def placed(path: str | os.PathLike[str]) -> tuple[Place, str]:
    """Tell which place a path or URL is in, and its name there; ``MissingExtra`` where that takes fsspec."""
    text = os.fspath(path)
    if "://" not in text:
        return Disk(), os.path.expanduser(text)  # noqa: PTH111 - stays a string, as given
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise MissingExtra(f"{text} needs fsspec: pip install 'token-callbacks[analytics]'") from error
    try:
        filesystem, name = url_to_fs(text)
    except ImportError as error:  # s3fs and the like: fsspec says which
        raise MissingExtra(f"{text} cannot be opened: {error}") from error
    return Remote(filesystem), name
