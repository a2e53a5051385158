"""Rows as tables: what is marked, what gives way to a narrow terminal, and what a spreadsheet gets."""

from __future__ import annotations

import csv
import io
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from tests.cli.rows import row
from token_callbacks.records import PriceSource, Provenance, Sources, Usage
from token_callbacks.reports.cells import cells, share
from token_callbacks.reports.fitting import Fitted
from token_callbacks.reports.rows import Row
from token_callbacks.reports.tables import COLUMNS, LEFT_OUT_FIRST, as_csv, as_markdown, fitted_lines, lines
from token_callbacks.reports.texts import LONGEST_NAME, PLAIN, PRETTY, Signs, fitted, priced, readable, signs_for

ESTIMATED = Sources(prompt=Provenance.REPORTED, completion=Provenance.ESTIMATED)
HOSTILE = "\x1b[31mred\x1b[0m\nsecond\u202eline\t🎉" + "x" * 10_240


def _table(rows: list[Row], width: int | None, signs: Signs = PRETTY) -> Fitted:
    return fitted_lines(list(lines(rows, row(None))), head="model", width=width, signs=signs)


def _printed(table: Fitted, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(table.table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_what_a_provider_told_has_no_mark() -> None:
    """Reported figures are plain numbers."""
    shown = cells(row(), PRETTY)

    expected = ("1,234,567", "4,321", "89,012", "1,323,579", "$1.2500", "3")
    assert expected == tuple(shown[name] for name in ("prompt", "cached", "completion", "total", "cost", "calls"))


def test_an_estimate_is_marked_where_it_stands_and_in_what_it_adds_to() -> None:
    """The completion, the total and the cost hold the estimate; the prompt does not."""
    shown = cells(row(weakest=ESTIMATED), PRETTY)

    assert ("1,234,567", "~89,012", "~1,323,579", "~$1.2500") == tuple(
        shown[name] for name in ("prompt", "completion", "total", "cost")
    )


@pytest.mark.parametrize("source", [Provenance.PARTIAL, Provenance.MISSING])
def test_a_lower_bound_is_marked(source: Provenance) -> None:
    """A figure of which a part is not known is at least so much."""
    weakest = Sources(prompt=Provenance.REPORTED, completion=source)
    shown = cells(row(weakest=weakest, lower_bound=True), PRETTY)

    assert ("1,234,567", "≥89,012", "≥1,323,579", "≥$1.2500") == tuple(
        shown[name] for name in ("prompt", "completion", "total", "cost")
    )


@pytest.mark.parametrize("source", [Provenance.COUNTED, Provenance.ESTIMATED])
def test_a_part_is_a_lower_bound_where_a_whole_was_counted(source: Provenance) -> None:
    """Only providers tell what of a prompt was cached: of the calls that were counted here nobody knows."""
    usage = Usage(prompt_tokens=1_000, completion_tokens=50, cache_read_tokens=900, reasoning_tokens=21)
    shown = cells(row(usage=usage, weakest=Sources(prompt=source, completion=Provenance.REPORTED)), PRETTY)

    assert ("≥900", "21") == (shown["cached"], shown["reasoning"])


def test_a_stream_that_nobody_read_makes_no_lower_bound() -> None:
    """Its figures are missing, and nothing was used: the row says so by ``lower_bound``."""
    weakest = Sources(prompt=Provenance.REPORTED, completion=Provenance.MISSING)

    assert "89,012" == cells(row(weakest=weakest), PRETTY)["completion"]


def test_what_is_not_known_is_a_dash_and_never_zero() -> None:
    """``None`` is a dash, 0 is 0."""
    shown = cells(row(usage=Usage(embedding_tokens=0), costs={}, calls_by_source={}, calls=0), PRETTY)

    names = ("embedding", "prompt", "total", "cost", "reported")
    assert ("0", "–", "–", "–", "–") == tuple(shown[name] for name in names)


def test_unpriced_calls_make_the_cost_a_lower_bound() -> None:
    """What has no price is not in it."""
    assert "≥$1.2500" == cells(row(unpriced_calls=1), PRETTY)["cost"]


def test_money_keeps_currencies_apart_and_says_when_there_is_less_than_it_shows() -> None:
    """Dollars first, others by name; a cost that rounds to nothing is not shown as nothing."""
    costs = {"EUR": Decimal(2), "USD": Decimal("0.00001"), "CNY": Decimal("1234.5")}

    assert "$<0.0001 + 1,234.5000 CNY + 2.0000 EUR" == cells(row(costs=costs), PRETTY)["cost"]


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [(0, 7, "0%"), (7, 7, "100%"), (1, 1000, "<1%"), (999, 1000, ">99%"), (1, 3, "33%"), (0, 0, "–")],
)
def test_all_and_none_are_said_of_all_and_none_only(part: int, whole: int, shown: str) -> None:
    """Rounding never makes a share complete or empty."""
    assert shown == share(part, whole, PRETTY)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 160, 200])
@pytest.mark.parametrize("signs", [PRETTY, PLAIN])
def test_no_line_is_wider_than_the_terminal_and_no_digit_is_cut(width: int, signs: Signs) -> None:
    """Columns go, figures stay whole."""
    rows = [row("claude-sonnet-4-5-20250929"), row(HOSTILE, weakest=ESTIMATED), row(None)]
    table = _table(rows, width, signs)
    printed = _printed(table, width)

    assert [] == [line for line in printed if cell_len(line) > width]
    for line, shown in zip(printed[-5:-2], [cells(one, signs) for one in rows], strict=True):
        assert [shown[name] for name in COLUMNS if name not in table.left_out] == line.split()[-len(_kept(table)) :]


def _kept(table: Fitted) -> list[str]:
    return [name for name in COLUMNS if name not in table.left_out]


def test_columns_give_way_in_the_documented_order() -> None:
    """At every width, those left out are the first of the list, and the total is never among them."""
    left_out = [set(_table([row()], width).left_out) for width in range(20, 200)]

    assert all(gone == set(LEFT_OUT_FIRST[: len(gone)]) for gone in left_out)
    assert (set(LEFT_OUT_FIRST), set()) == (left_out[0], left_out[-1])


def test_what_is_no_terminal_gets_every_column() -> None:
    """A file has no width."""
    assert [] == _table([row("x" * 50)], None).left_out


def test_a_name_cannot_act_on_the_terminal() -> None:
    """Escape sequences, newlines and marks of direction are spelled out, and ten kilobytes are cut."""
    shown = readable(HOSTILE, 60)

    assert shown.startswith(r"\x1b[31mred\x1b[0m\nsecond\u202eline\t🎉x")
    assert shown.isprintable()
    assert (60, "…") == (len(shown), shown[-1])


def test_a_short_name_is_left_as_it_is() -> None:
    """Nothing is cut that fits."""
    assert ("Größe 🎉", "Größe 🎉") == (readable("Größe 🎉", 7), fitted("Größe 🎉", 8))


def test_a_lone_surrogate_is_spelled() -> None:
    """A name may come from a broken file name."""
    assert r"\udc80" == readable("\udc80")


@pytest.mark.parametrize(
    ("encoding", "signs"), [("utf-8", PRETTY), ("ascii", PLAIN), ("latin-1", PLAIN), (None, PLAIN)]
)
def test_an_encoding_gets_the_signs_it_can_say(encoding: str | None, signs: Signs) -> None:
    """``>=`` and ``-`` where there is no ≥ and no dash."""
    assert signs == signs_for(encoding)
    if encoding is not None:
        "".join(signs).encode(encoding)


def _read(text: str) -> list[dict[str, Any]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize(
    ("dated", "last", "shown"),
    [
        (None, 21, "x, for 2026-11-21"),
        (None, 22, "x, for 2026-11-21 to 2026-11-22"),
        (3, 22, "x since 2026-11-03, for 2026-11-21 to 2026-11-22"),
        (21, 22, "x, for 2026-11-21 to 2026-11-22"),
        (22, 22, "x, for 2026-11-21 to 2026-11-22"),
    ],
)
def test_prices_are_told_with_their_days(dated: int | None, last: int, shown: str) -> None:
    """Since when they hold, only where all of them held before the first day."""
    since = None if dated is None else date(2026, 11, dated)
    told = PriceSource(source="x", dated=since, first_day=date(2026, 11, 21), last_day=date(2026, 11, last))

    assert shown == priced([told])
    assert f"{shown}; {shown}" == priced([told, told])


def test_a_price_source_from_a_foreign_summary_does_nothing_to_the_terminal() -> None:
    """Escape sequences and newlines are spelled, and it is as short as a name."""
    day = date(2026, 11, 21)
    told = priced([PriceSource(source="x\x1b[31m\n" + "y" * 99, dated=None, first_day=day, last_day=day)])

    assert told.startswith(r"x\x1b[31m\nyyy")
    assert told.endswith("y..., for 2026-11-21")
    assert LONGEST_NAME + len(", for 2026-11-21") == len(told)


def test_csv_holds_rows_models_and_the_total_apart() -> None:
    """``kind`` tells them apart, so that nobody adds a sum to its parts."""
    shown = lines([row("2026-11-03")], row(None), [[row("gpt-4o", calls=1), row("=1+1", calls=2)]])
    read = _read(as_csv(shown))

    assert [
        ("group", "2026-11-03", ""), ("model", "2026-11-03", "gpt-4o"), ("model", "2026-11-03", "'=1+1"),
        ("total", "total", ""),
    ] == [(one["kind"], one["group"], one["model"]) for one in read]  # fmt: skip
    assert ("1234567", "", "1.25", "false") == (
        read[0]["llm_prompt_tokens"], read[0]["embedding_tokens"], read[0]["cost_usd"], read[0]["lower_bound"],
    )  # fmt: skip


def test_a_cost_is_written_as_in_summaries() -> None:
    """Without the zeros that adding up leaves at its end."""
    assert "1.25" == _read(as_csv(lines([], row(None, costs={"USD": Decimal("1.2500")}))))[0]["cost_usd"]


def test_a_tiny_cost_is_written_without_an_exponent() -> None:
    """Spreadsheets and people read decimals."""
    assert "0.00000012" == _read(as_csv(lines([], row(None, costs={"USD": Decimal("1.2E-7")}))))[0]["cost_usd"]


def test_markdown_keeps_its_columns_whatever_a_name_holds() -> None:
    """A bar in a name is no column, a newline no row, and a tag no HTML."""
    head, rule, first, total = as_markdown(lines([row("a|b\n<img>")], row(None)), head="model").splitlines()

    assert len(COLUMNS) + 2 == head.count("|") == rule.count("|") == total.count("|")
    assert first.startswith("| a\\|b\\\\n&lt;img> |")
