"""What a reader passed over: counted, with one place of each kind to look at, never an error."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

_TOLD = {
    "torn": "{n} unfinished last lines: still being written, or cut off by a crash",
    "unreadable": "{n} lines that are no calls of token_callbacks",
    "newer": "{n} lines of a newer major schema version: upgrade token-callbacks to read them",
    "too_long": "{n} lines longer than any call's",
    "unreadable_files": "{n} files that cannot be read",
    "foreign_files": "{n} files of somebody else",
    "copied_files": "{n} files that are copies of others: their calls are counted once",
}


class Skipped(msgspec.Struct, kw_only=True):
    """How many lines and files were passed over. It grows while a reader reads."""

    torn: int = 0
    """Last lines of a file that break off: it is being written, or a crash cut it off."""
    unreadable: int = 0
    """Lines that are no JSON, or no record of a call."""
    newer: int = 0
    """Lines of a major version of the schema that this version does not know."""
    too_long: int = 0
    """Lines longer than ``lines.LONGEST_LINE_BYTES``."""
    unreadable_files: int = 0
    foreign_files: int = 0
    """JSON and Parquet files in the folder that are none of ours."""
    copied_files: int = 0
    """Files of which a longer or equal copy was read."""
    examples: dict[str, str] = {}
    """By the names above, the first place: ``path:line`` for lines, ``path`` for files."""

    @property
    def lines(self) -> int:
        """All lines that were passed over."""
        return self.torn + self.unreadable + self.newer + self.too_long

    def note(self, kind: str, where: str) -> None:
        """Count one; ``kind`` is the name of a figure above."""
        setattr(self, kind, getattr(self, kind) + 1)
        self.examples.setdefault(kind, where)

    def absorb(self, other: Skipped) -> None:
        """Add what another reader passed over."""
        for kind in _TOLD:
            setattr(self, kind, getattr(self, kind) + getattr(other, kind))
        for kind, where in other.examples.items():
            self.examples.setdefault(kind, where)

    def told(self) -> Iterable[str]:
        """Say it in words, a sentence a kind, each with its example; nothing where nothing was passed over."""
        for kind, words in _TOLD.items():
            if number := getattr(self, kind):
                yield f"{words.format(n=f'{number:,}')} (first: {self.examples[kind]})"
