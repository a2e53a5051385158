"""The fenced blocks of the pages, with what is said of them in the HTML comments above them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]

_BLOCK = re.compile(r"((?:^<!-- [^\n]* -->\n)*)^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
_NOTE = re.compile(r"^<!-- (.*) -->$", flags=re.MULTILINE)


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """One fenced block."""

    page: str
    line: int
    """Of the page, on which the text begins."""
    language: str
    text: str
    notes: list[str]
    """What the comments right above it say."""

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    def noted(self, word: str) -> str | None:
        """Return what follows ``word:`` in a comment; ``None``: there is no such comment."""
        return next((note.removeprefix(f"{word}: ") for note in self.notes if note.startswith(f"{word}: ")), None)

    @property
    def is_run(self) -> bool:
        return self.noted("not run") is None


def blocks(*languages: str, page: str | None = None) -> list[Block]:
    """Return the blocks of a page, or of all, that are in one of the languages."""
    pages = PAGES if page is None else [page]
    return [block for name in pages for block in _blocks(name) if block.language in languages]


def _blocks(page: str) -> Iterator[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        yield Block(
            page=page,
            line=text.count("\n", 0, found.start(3)) + 1,
            language=found[2],
            text=found[3],
            notes=_NOTE.findall(found[1]),
        )
