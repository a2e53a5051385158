"""The figures of a row as they are shown: marked where they are not the whole truth, and with every digit."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from token_callbacks.records import Provenance
from token_callbacks.reports.rows import Row
from token_callbacks.reports.texts import Signs

_BOUNDS = (Provenance.PARTIAL, Provenance.MISSING)
_SMALLEST = Decimal("0.0001")


def cells(row: Row, signs: Signs) -> dict[str, str]:
    """Show the figures of a row, by the name of their column."""
    usage, weakest = row.usage, row.weakest
    whole = (weakest.prompt, weakest.completion)
    return {
        "embedding": _figure(usage.embedding_tokens, _mark(row, signs, weakest.embedding), signs),
        "prompt": _figure(usage.prompt_tokens, _mark(row, signs, weakest.prompt), signs),
        "cached": _figure(usage.cache_read_tokens, _part_mark(row, signs, weakest.prompt), signs),
        "written": _figure(usage.cache_write_tokens, _part_mark(row, signs, weakest.prompt), signs),
        "completion": _figure(usage.completion_tokens, _mark(row, signs, weakest.completion), signs),
        "reasoning": _figure(usage.reasoning_tokens, _part_mark(row, signs, weakest.completion), signs),
        "total": _figure(total_tokens(row), _mark(row, signs, *whole), signs),
        "cost": _cost(row, signs),
        "calls": f"{row.calls:,}",
        **{source.value: share(row.calls_by_source.get(source, 0), row.calls, signs) for source in Provenance},
    }


def has_mark(row: Row, mark: str, signs: Signs) -> bool:
    """Tell whether a figure of a row is shown with this mark."""
    return any(shown.startswith(mark) for shown in cells(row, signs).values())


def total_tokens(row: Row) -> int | None:
    """Add prompt and completion up; ``None`` where neither was told."""
    usage = row.usage
    return None if usage.prompt_tokens is usage.completion_tokens is None else usage.total_llm_tokens


def share(part: int, whole: int, signs: Signs) -> str:
    """Show a part in percent; "100%" is said of all and "0%" of none only."""
    if whole == 0:
        return signs.unknown
    if 0 < part * 100 < whole:
        return "<1%"
    if part < whole and part * 100 > whole * 99:
        return ">99%"
    return f"{round(part * 100 / whole)}%"


def money(amounts: Mapping[str, Decimal]) -> str:
    """Show amounts to four decimals, dollars with their sign and other currencies by name."""
    shown = [(currency, _amount(amount)) for currency, amount in sorted(amounts.items(), key=_dollars_first)]
    return " + ".join(f"${text}" if currency == "USD" else f"{text} {currency}" for currency, text in shown)


def _dollars_first(item: tuple[str, Decimal]) -> tuple[bool, str]:
    return item[0] != "USD", item[0]


def _amount(amount: Decimal) -> str:
    return f"<{_SMALLEST}" if 0 < amount < _SMALLEST / 2 else f"{amount:,.4f}"


def _figure(figure: int | None, mark: str, signs: Signs) -> str:
    return signs.unknown if figure is None else f"{mark}{figure:,}"


def _part_mark(row: Row, signs: Signs, whole: Provenance | None) -> str:
    """Mark a part of a whole, which providers alone tell: of calls whose whole was counted here it is not known."""
    is_counted = whole in {Provenance.COUNTED, Provenance.ESTIMATED}
    return signs.at_least if is_counted else _mark(row, signs, whole)


def _mark(row: Row, signs: Signs, *sources: Provenance | None) -> str:
    if row.lower_bound and any(source in _BOUNDS for source in sources):
        return signs.at_least
    return signs.about if Provenance.ESTIMATED in sources else ""


def _cost(row: Row, signs: Signs) -> str:
    if not row.costs:
        return signs.unknown
    weakest = row.weakest
    mark = _mark(row, signs, weakest.embedding, weakest.prompt, weakest.completion)
    return f"{signs.at_least if row.unpriced_calls else mark}{money(row.costs)}"
