"""One row a figure, and the table they stand in."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from rich.console import Console
from rich.table import Table

LINE_LIMIT_MICROSECONDS = 15.0
"""What a record closed and written to the JSONL may take."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of ours beside its baseline; texts, ready to print."""

    what: str
    ours: str
    baseline: str
    compared: str
    """The ratio or the difference."""
    target: str = ""
    met: bool | None = None
    """``None`` where there is no target."""


def limited(
    what: str, value: float, *, limit: float, unit: str, baseline: str, compared: str = "", ours: str = ""
) -> Row:
    """Make the row of a figure that has a limit."""
    return Row(
        what=what,
        ours=ours or f"{value:.2f} {unit}",
        baseline=baseline,
        compared=compared,
        target=f"<= {limit:g} {unit}",
        met=value <= limit,
    )


def print_table(rows: Iterable[Row], *, title: str) -> None:
    """Print rows as they come in, in one table."""
    table = Table("what", "ours", "baseline", "ratio or difference", "target", "met", title=title, title_justify="left")
    for row in rows:
        table.add_row(row.what, row.ours, row.baseline, row.compared, row.target, _verdict(row.met))
    Console(width=None if Console().is_terminal else _WIDTH_OF_A_FILE).print(table)


def _verdict(met: bool | None) -> str:
    if met is None:
        return ""
    return "[green]yes[/]" if met else "[red]no[/]"


_WIDTH_OF_A_FILE = 170
