"""Tables for a terminal that may be narrow: it gets fewer columns, and shorter names, but never shorter figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from token_callbacks.reports.texts import LONGEST_NAME, Signs, fitted, readable

if TYPE_CHECKING:
    from rich.table import Table

_GAP = 2
_LEAST_NAME = 12
_NAME_SHARE = 4
"""Columns give way before names are cut to less than a quarter of the terminal."""
_RULED = "    \n    \n {0}{0} \n    \n {0}{0} \n {0}{0} \n    \n    \n"
"""A rule below the head and one above the total, as rich reads it."""


class Sheet(NamedTuple):
    """The columns of a table: the names stand first, and all else is figures of which no character is cut."""

    head: str
    """Above the names."""
    headings: dict[str, str]
    """By column, in the order they stand."""
    left_out_first: Sequence[str]
    """The order in which columns give way; what is not in it always stays."""
    left_aligned: frozenset[str] = frozenset()


class Entry(NamedTuple):
    """One line of a table."""

    name: str
    """As it came: it is made readable here."""
    cells: dict[str, str]
    style: str = ""
    is_total: bool = False
    indent: str = ""


class Fitted(NamedTuple):
    """A table, and the columns that it had no room for."""

    table: Table
    left_out: list[str]


def fitted_table(sheet: Sheet, entries: Sequence[Entry], *, width: int | None, signs: Signs) -> Fitted:
    """Make a table no wider than a terminal of so many columns; ``None``: as wide as it takes."""
    names = [entry.indent + readable(entry.name, LONGEST_NAME, signs.cut) for entry in entries]
    head = readable(sheet.head, LONGEST_NAME, signs.cut)
    columns = list(sheet.headings)
    if width is not None:
        widths = {column: _width(sheet, column, entries) + _GAP for column in columns}
        least = min(_widest([head, *names]), max(_LEAST_NAME, width // _NAME_SHARE))
        columns = _kept(sheet, widths, width - least)
        room = max(_LEAST_NAME, width - sum(widths[column] for column in columns))
        head, *names = (fitted(name, room, signs.cut) for name in (head, *names))
    table = _table(sheet, columns, head, signs)
    _fill(table, columns, names, entries)
    return Fitted(table, [column for column in sheet.headings if column not in columns])


def _kept(sheet: Sheet, widths: dict[str, int], room: int) -> list[str]:
    columns = list(sheet.headings)
    for column in sheet.left_out_first:
        if sum(widths[kept] for kept in columns) <= room:
            break
        columns.remove(column)
    return columns


def _width(sheet: Sheet, column: str, entries: Iterable[Entry]) -> int:
    lines = [*sheet.headings[column].split("\n"), *(entry.cells[column] for entry in entries)]
    return max(len(line) for line in lines)


def _widest(names: Iterable[str]) -> int:
    from rich.cells import cell_len

    return max(cell_len(name) for name in names)


def _table(sheet: Sheet, columns: Iterable[str], head: str, signs: Signs) -> Table:
    from rich.box import Box
    from rich.table import Table
    from rich.text import Text

    ruled = Box(_RULED.format(signs.rule), ascii=signs.rule.isascii())
    table = Table(box=ruled, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0), header_style="bold")
    table.add_column(Text(head), no_wrap=True, vertical="bottom")
    for column in columns:
        is_left = column in sheet.left_aligned
        table.add_column(
            sheet.headings[column], justify="left" if is_left else "right", no_wrap=True, vertical="bottom"
        )
    return table


def _fill(table: Table, columns: Sequence[str], names: Iterable[str], entries: Iterable[Entry]) -> None:
    from rich.text import Text

    for name, entry in zip(names, entries, strict=True):
        if entry.is_total:
            table.add_section()
        table.add_row(Text(name), *(Text(entry.cells[column]) for column in columns), style=entry.style)
