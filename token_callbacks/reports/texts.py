"""Text that a terminal can be given: what a log holds may be anything, escape sequences and ten kilobytes included."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from token_callbacks.records import PriceSource

LONGEST_NAME = 60
"""Characters that are shown of a name."""

_JOINER = "\u200d"


class Signs(NamedTuple):
    """The signs that stand beside figures."""

    at_least: str
    about: str
    unknown: str
    cut: str
    rule: str


PRETTY = Signs(at_least="≥", about="~", unknown="\N{EN DASH}", cut="…", rule="─")
PLAIN = Signs(at_least=">=", about="~", unknown="-", cut="...", rule="-")


def signs_for(encoding: str | None) -> Signs:
    """Choose the signs that an encoding can say; ``None`` is one that nobody knows."""
    try:
        "".join(PRETTY).encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return PLAIN
    return PRETTY


def readable(text: str, most: int | None = None, cut: str = PRETTY.cut) -> str:
    """Make one line of a text that no terminal acts upon, of at most so many characters.

    What does not print (escape sequences, newlines, marks that turn the direction of writing) is spelled as in Python.
    Joiners between emoji are left out: terminals do not agree how wide the joined ones are.
    """
    start = text if most is None else text[: most + 1]
    shown = "".join(_spelled(character) for character in start.replace(_JOINER, ""))
    if most is None or (len(shown) <= most and len(text) <= most):
        return shown
    return shown[: max(0, most - len(cut))] + cut


def fitted(text: str, cells: int, cut: str = PRETTY.cut) -> str:
    """Cut a readable text where it is wider than so many cells of a terminal."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= cells:
        return text
    return set_cell_size(text, max(0, cells - cell_len(cut))).rstrip() + cut


def _spelled(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def numbered(number: int, one: str, several: str) -> str:
    """Tell how many of something there are: ``1 line``, ``2,000 lines``."""
    return f"{number:,} {one if number == 1 else several}"


def priced(sources: Iterable[PriceSource]) -> str:
    """Tell who told prices, and of which days they are: ``genai-prices 0.2.3, for 2026-11-21 to 2026-11-22``.

    Since when they hold is told where that was before the first of the days: later on, it is true of some calls only.
    """
    return "; ".join(map(_sourced, sources))


def _sourced(told: PriceSource) -> str:
    since = f" since {told.dated}" if told.dated is not None and told.dated < told.first_day else ""
    until = f" to {told.last_day}" if told.last_day != told.first_day else ""
    source = readable(told.source, LONGEST_NAME, PLAIN.cut)  # a summary that is read may hold anything
    return f"{source}{since}, for {told.first_day}{until}"
