"""What a run cost, as its summary tells it: the prices of its charges, added up."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from token_callbacks.charges import EXACT, NAMELESS, Basis, Charged
from token_callbacks.prices.book import Price, PriceBook
from token_callbacks.records import Cost, merged_sources


def cost_of(charges: Sequence[Charged], book: PriceBook, *, now: datetime) -> Cost | None:
    """Add up what calls cost; ``None`` where nothing could cost anything, or nobody was there to ask for a price.

    Currencies are never converted: the amount is in the one that most calls are priced in (of several, the first by
    name), and what was priced in others stands beside it.
    """
    billed = [charged for charged in charges if charged.charge.basis is not Basis.FREE]
    priced = [(charged, _price(charged, book)) for charged in billed]
    known = [(charged, price) for charged, price in priced if price is not None]
    if not billed or (not known and book.is_empty):
        return None
    unpriced = [charged for charged, price in priced if price is None]
    amounts = _amounts(known)
    currency = _main_currency(known)
    sources = merged_sources(price.told_by for _, price in known)
    return Cost(
        amount=None if currency is None else as_text(amounts.pop(currency)),
        currency=currency,
        price_source=", ".join(told.source for told in sources) or None,
        prices_from=max((told.dated for told in sources if told.dated is not None), default=None),
        priced_at=now,
        unpriced_calls=sum(charged.calls for charged in unpriced),
        unpriced_models=_models([charged for charged in unpriced if not book.lacks_figures(charged.charge)]),
        calls_without_figures=sum(charged.calls for charged in unpriced if book.lacks_figures(charged.charge)),
        other_currencies={name: as_text(amount) for name, amount in sorted(amounts.items())},
        price_sources=sources,
    )


def as_text(amount: Decimal) -> str:
    """Write an amount out in full: ``0.0081625``, without an exponent and without zeros at its end."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _price(charged: Charged, book: PriceBook) -> Price | None:
    return book.price(charged.charge, charged.usage, calls=charged.calls, reported=charged.reported)


def _amounts(known: Sequence[tuple[Charged, Price]]) -> dict[str, Decimal]:
    amounts: dict[str, Decimal] = {}
    for _, price in known:
        amounts[price.currency] = EXACT.add(amounts.get(price.currency, Decimal(0)), price.amount)
    return amounts


def _main_currency(known: Sequence[tuple[Charged, Price]]) -> str | None:
    calls: dict[str, int] = {}
    for charged, price in known:
        calls[price.currency] = calls.get(price.currency, 0) + charged.calls
    return min(calls, key=lambda currency: (-calls[currency], currency), default=None)


def _models(charges: Sequence[Charged]) -> list[str]:
    return sorted({charged.charge.model or charged.charge.response_model or NAMELESS for charged in charges})
