"""What a reader passed over: counted, with one place of each kind to look at, never an error."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from token_callbacks.reports.texts import numbered, readable

_TOLD = {
    "torn": ("unfinished last line", "unfinished last lines", "still being written, or cut off by a crash"),
    "unreadable": ("line that is no call of token_callbacks", "lines that are no calls of token_callbacks", ""),
    "newer": (
        "line of a newer major schema version", "lines of a newer major schema version",
        "upgrade token-callbacks to read it all",
    ),
    "too_long": ("line longer than any call's", "lines longer than any call's", ""),
    "unreadable_files": ("file that cannot be read", "files that cannot be read", ""),
    "foreign_files": ("file of somebody else", "files of somebody else", ""),
    "copied_files": ("file that is a copy of another", "files that are copies of others", "calls are counted once"),
}  # fmt: skip
"""For each kind how one of it is told, how several are, and what there is to say of it."""


class Skipped(msgspec.Struct, kw_only=True):
    """How many lines and files were passed over. It grows while a reader reads."""

    torn: int = 0
    """Last lines of a file that break off: it is being written, or a crash cut it off."""
    unreadable: int = 0
    """Lines that are no JSON, or no record of a call."""
    newer: int = 0
    """Lines of a major version of the schema that this version does not know."""
    too_long: int = 0
    """Lines longer than ``log_folder.LONGEST_LINE_BYTES``."""
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
        for kind, (one, several, remark) in _TOLD.items():
            if number := getattr(self, kind):
                words = numbered(number, one, several)
                yield f"{words}{remark and f': {remark}'} (first: {readable(self.examples[kind])})"
