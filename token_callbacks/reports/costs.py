"""What the calls of a group cost, who says so, and what nobody has a price for."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from token_callbacks.charges import EXACT, NAMELESS
from token_callbacks.records import PriceSource, merged_sources


class Costs:
    """The running costs of a group; money is never rounded and never converted."""

    __slots__ = ("amounts", "sources", "unpriced_calls", "unpriced_models", "without_figures")

    def __init__(self) -> None:
        self.amounts: dict[str, Decimal] = {}
        """By currency."""
        self.sources: list[PriceSource] = []
        """Who told the prices, by name, and of which days they are."""
        self.unpriced_calls = 0
        self.unpriced_models: set[str] = set()
        """Models that nobody knows a price for."""
        self.without_figures = 0
        """Among the unpriced calls, those with a figure that a price takes missing, or contradicting another."""

    def add(self, amount: Decimal, *, currency: str, told_by: PriceSource) -> None:
        """Add what some calls cost."""
        self.amounts[currency] = EXACT.add(self.amounts.get(currency, Decimal()), amount)
        self.sources = merged_sources((*self.sources, told_by))

    def add_unpriced(self, calls: int, *, models: Iterable[str | None], lacks_figures: bool) -> None:
        """Add calls without a price; ``models``: whose they are, ``None`` where that is not told."""
        self.unpriced_calls += calls
        if lacks_figures:
            self.without_figures += calls
        else:
            self.unpriced_models.update(model or NAMELESS for model in models)

    def absorb(self, other: Costs) -> None:
        """Add the costs of another group."""
        for currency, amount in other.amounts.items():
            self.amounts[currency] = EXACT.add(self.amounts.get(currency, Decimal()), amount)
        self.sources = merged_sources((*self.sources, *other.sources))
        self.unpriced_calls += other.unpriced_calls
        self.unpriced_models |= other.unpriced_models
        self.without_figures += other.without_figures
