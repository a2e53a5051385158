"""What the calls of a group cost, who says so, and what nobody has a price for."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

from token_callbacks.charges import EXACT, NAMELESS


class Costs:
    """The running costs of a group; money is never rounded and never converted."""

    __slots__ = ("amounts", "sources", "unpriced_calls", "unpriced_models", "without_figures")

    def __init__(self) -> None:
        self.amounts: dict[str, Decimal] = {}
        """By currency."""
        self.sources: dict[str, date | None] = {}
        """Who told the prices, and the latest day from which on one of them holds, or a cost was told; ``None``: that
        is not told."""
        self.unpriced_calls = 0
        self.unpriced_models: set[str] = set()
        """Models that nobody knows a price for."""
        self.without_figures = 0
        """Among the unpriced calls, those with a figure that a price takes missing, or contradicting another."""

    def add(self, amount: Decimal, *, currency: str, source: str, dated: date | None = None) -> None:
        """Add what some calls cost."""
        self.amounts[currency] = EXACT.add(self.amounts.get(currency, Decimal()), amount)
        self._note(source, dated)

    def add_unpriced(self, calls: int, *, model: str | None, lacks_figures: bool) -> None:
        """Add calls without a price; ``model``: whose they are, ``None`` where that is not told."""
        self.unpriced_calls += calls
        if lacks_figures:
            self.without_figures += calls
        else:
            self.unpriced_models.add(model or NAMELESS)

    def absorb(self, other: Costs) -> None:
        """Add the costs of another group."""
        for currency, amount in other.amounts.items():
            self.amounts[currency] = EXACT.add(self.amounts.get(currency, Decimal()), amount)
        for source, dated in other.sources.items():
            self._note(source, dated)
        self.unpriced_calls += other.unpriced_calls
        self.unpriced_models |= other.unpriced_models
        self.without_figures += other.without_figures

    def _note(self, source: str, dated: date | None) -> None:
        known = self.sources.get(source)
        self.sources[source] = known if dated is None else dated if known is None else max(known, dated)
