"""What stands below the table of a report: what its marks mean, whose its prices are, and what is not in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from token_callbacks.reports.cells import has_mark
from token_callbacks.reports.groups import Aggregate
from token_callbacks.reports.texts import LONGEST_NAME, Signs, numbered, priced, readable

_MOST_NAMED = 5


def notes(made: Aggregate, sign: Signs) -> Iterator[str]:
    """Say what the marks mean, whose the prices are, and what is not in the figures."""
    total = made.total
    rows = (*made.rows, total)
    if any(has_mark(row, sign.at_least, sign) for row in rows):
        yield f"{sign.at_least} at least so much: what some calls used is not known, or not in full"
    if any(has_mark(row, sign.about, sign) for row in rows):
        yield f"{sign.about} holds an estimate"
    if total.price_sources:
        yield f"prices: {priced(total.price_sources)}"
    if unpriced := total.unpriced_calls - total.calls_without_figures:
        yield f"{_not_in_the_cost(unpriced)}, no price is known for {_named(total.unpriced_models, sign)}"
    if total.calls_without_figures:
        whose = "its" if total.calls_without_figures == 1 else "their"
        yield f"{_not_in_the_cost(total.calls_without_figures)}, {whose} figures are missing or contradict each other"
    for note in made.skipped.told():
        yield f"not in it: {note}"


def _not_in_the_cost(calls: int) -> str:
    return numbered(calls, "call is not in the cost", "calls are not in the cost")


def _named(models: Sequence[str], sign: Signs) -> str:
    more = f" and {len(models) - _MOST_NAMED:,} more" if len(models) > _MOST_NAMED else ""
    return ", ".join(readable(model, LONGEST_NAME, sign.cut) for model in models[:_MOST_NAMED]) + more
