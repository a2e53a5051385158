"""One row of a report: what the calls of one group used, in the one shape that every grouping has."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from token_callbacks.records import PriceSource, Provenance, Sources, Usage


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """The sums of one group of calls; a total is a row as well, of all groups."""

    group: str | None
    """The run, day, model … as it is shown; ``None``: the calls that have none (no step, no such tag)."""
    calls: int
    failed: int
    cached: int
    """Answered from a framework's own cache: among ``calls``, no tokens and no cost."""
    usage: Usage
    """Tokens; ``None`` where no call of the group was told such a figure."""
    weakest: Sources
    """For each of the three figures, the weakest source among the calls that have it."""
    lower_bound: bool
    """A figure is partial or missing: the group used at least this much."""
    tokens_by_source: dict[Provenance, int]
    calls_by_source: dict[Provenance, int]
    """Calls by the weakest of their figures."""
    costs: dict[str, Decimal]
    """By currency; empty: nothing priced."""
    price_sources: tuple[PriceSource, ...]
    """Who told the prices, by name, and of which days they are; empty: nothing priced."""
    unpriced_calls: int
    """Calls whose price, or what they used, is not known; never part of ``costs``."""
    unpriced_models: tuple[str, ...]
    """Models that nobody knows a price for."""
    calls_without_figures: int
    """Among the unpriced calls, those with a figure that a price takes missing, or contradicting another."""
