"""Rows of a report as a table for a terminal, as Markdown and as CSV: the same columns in every one of them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from token_callbacks.charges import NAMELESS
from token_callbacks.prices.costs import as_text
from token_callbacks.reports.cells import cells, total_tokens
from token_callbacks.reports.fitting import Entry, Fitted, Sheet, fitted_table
from token_callbacks.reports.rows import Row
from token_callbacks.reports.texts import LONGEST_NAME, PRETTY, Signs, priced, readable

COLUMNS = (
    "embedding", "prompt", "cached", "written", "completion", "reasoning", "total", "cost", "calls",
    "reported", "counted", "estimated", "partial", "missing",
)  # fmt: skip
"""In the order they stand; the group stands before them."""

LEFT_OUT_FIRST = (
    "partial", "counted", "written", "reasoning", "cached", "missing", "estimated", "reported", "embedding",
    "completion", "prompt", "calls", "cost",
)  # fmt: skip
"""The order in which columns give way to a narrow terminal; the group and the total always stay."""

_HEADS = {"cached": "of which\ncached", "written": "of which\nwritten", "reasoning": "of which\nreasoning"}
_STYLES = {"group": "", "model": "dim", "total": "bold"}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class Line(NamedTuple):
    """A row where it stands: one of a group, one of a model within a group (``--details``), or the total."""

    kind: str
    group: str | None
    row: Row


def lines(
    rows: Iterable[Row],
    total: Row,
    details: Sequence[Sequence[Row]] = (),
    names: Mapping[str | None, str] | None = None,
) -> Iterator[Line]:
    """Put the rows in a line: each one followed by its details, if there are any, and the total last.

    ``details``: for each row, the rows of its models; empty where nobody asked. ``names``: what to add to groups that
    have one, for reading.
    """
    named = {group: f"{name}  {group}" for group, name in (names or {}).items()}
    for position, row in enumerate(rows):
        yield Line("group", named.get(row.group, row.group), row)
        for model in details[position] if details else ():
            yield Line("model", model.group, model)
    yield Line("total", "total", total)


def fitted_lines(shown: Sequence[Line], *, head: str, width: int | None, signs: Signs) -> Fitted:
    """Make a table no wider than a terminal of so many columns; ``None``: as wide as it takes."""
    headings = {column: _HEADS.get(column, column) for column in COLUMNS}
    entries = [
        Entry(
            _name(line),
            cells(line.row, signs),
            style=_STYLES[line.kind],
            is_total=line.kind == "total",
            indent="  " if line.kind == "model" else "",
        )
        for line in shown
    ]
    return fitted_table(Sheet(head, headings, LEFT_OUT_FIRST), entries, width=width, signs=signs)


def as_markdown(shown: Iterable[Line], *, head: str) -> str:
    """Write a Markdown table, with all columns."""
    heads = [_markdown(head), *(_HEADS.get(column, column).replace("\n", " ") for column in COLUMNS)]
    written = [heads, ["---", *["---:"] * len(COLUMNS)]]
    for line in shown:
        figures = cells(line.row, PRETTY)
        name = _markdown(_name(line))
        written.append([f"**{name}**" if line.kind == "total" else name, *(figures[column] for column in COLUMNS)])
    return "".join(f"| {' | '.join(row)} |\n" for row in written)


def notes_as_markdown(notes: Iterable[str]) -> str:
    """Write notes as the list that stands below a Markdown table; nothing where there are none."""
    items = [f"- {_SYNTAX.sub(_escape, note)}\n" for note in notes]
    return "".join(["\n", *items]) if items else ""


_SYNTAX = re.compile(r"[\\`*_\[\]<>|~]")
"""What Markdown may take for more than itself within a line."""


def as_csv(shown: Iterable[Line]) -> str:
    """Write CSV: a head, a row a line, and in ``kind`` what is a group's, a model's within it, or the total.

    What is not told is left empty. A name that a spreadsheet would take for a formula has a ``'`` before it.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    group: str | None = None
    for line in shown:
        group = line.group if line.kind != "model" else group
        writer.writerow({"kind": line.kind, "group": _cell(group), "model": _model(line), **_csv_figures(line.row)})
    return text.getvalue()


CSV_COLUMNS = (
    "kind", "group", "model", "embedding_tokens", "llm_prompt_tokens", "cache_read_tokens", "cache_write_tokens",
    "llm_completion_tokens", "reasoning_tokens", "total_llm_tokens", "cost_usd", "other_costs", "price_sources",
    "unpriced_calls", "unpriced_models", "calls_without_figures",
    "calls", "failed_calls", "cached_calls", "reported_calls", "counted_calls", "estimated_calls", "partial_calls",
    "missing_calls", "lower_bound",
)  # fmt: skip


def _escape(found: re.Match[str]) -> str:
    return f"\\{found[0]}"


def _csv_figures(row: Row) -> dict[str, object]:
    usage = row.usage
    others = {currency: amount for currency, amount in sorted(row.costs.items()) if currency != "USD"}
    return {
        "embedding_tokens": usage.embedding_tokens,
        "llm_prompt_tokens": usage.prompt_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "llm_completion_tokens": usage.completion_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "total_llm_tokens": total_tokens(row),
        "cost_usd": as_text(row.costs["USD"]) if "USD" in row.costs else None,
        "other_costs": "; ".join(f"{as_text(amount)} {currency}" for currency, amount in others.items()),
        "price_sources": priced(row.price_sources),
        "unpriced_calls": row.unpriced_calls,
        "unpriced_models": "; ".join(map(_cell, row.unpriced_models)),
        "calls_without_figures": row.calls_without_figures,
        "calls": row.calls,
        "failed_calls": row.failed,
        "cached_calls": row.cached,
        **{f"{source.value}_calls": calls for source, calls in row.calls_by_source.items()},
        "lower_bound": str(row.lower_bound).lower(),
    }


def _model(line: Line) -> str:
    return _cell(line.group) if line.kind == "model" else ""


def _cell(text: str | None) -> str:
    text = readable(text or "")
    return f"'{text}" if text.startswith(_FORMULA) else text


def _markdown(text: str) -> str:
    return readable(text, LONGEST_NAME).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _name(line: Line) -> str:
    return NAMELESS if line.group is None else line.group
