"""``PriceBook``: what a call, or calls that may be added up, cost; the first source that knows wins."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import msgspec

from token_callbacks.charges import (
    BAND_STARTS,
    EXACT,
    PERIOD_STARTS,
    REPORTED,
    Basis,
    Charge,
    charge_of,
    reported_cost,
)
from token_callbacks.errors import InvalidPrices
from token_callbacks.prices.genai import GenaiPrices
from token_callbacks.prices.litellm_map import LiteLLMMap
from token_callbacks.prices.names import asked_names
from token_callbacks.prices.own import OwnTable, read_table
from token_callbacks.prices.rates import Rates
from token_callbacks.records import CallRecord, PriceSource, Usage

PRICES_VARIABLE = "TOKEN_CALLBACKS_PRICES"
"""In the environment: the file of the user's own table, where none is given in code."""

NOT_BILLED = "not billed"

_REMEMBERED = 4096


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What something cost, who says so, and of when that is."""

    amount: Decimal
    currency: str
    source: str
    """``own table``, ``genai-prices 0.2.3``, ``litellm 1.106.2``; ``reported``: the provider told the cost; ``not
    billed``: a cache answered."""
    dated: date | None
    """The day from which on the source's price holds; ``None``: it does not say, as of a cost that was told."""
    day: date
    """UTC, of the calls: the price is that of this day."""
    prompt: Decimal | None = None
    """Of the amount, that of the prompt tokens, or of what was embedded; ``None``: not told."""
    completion: Decimal | None = None
    """Of the amount, that of the completion tokens; ``None``: not told."""

    @property
    def told_by(self) -> PriceSource:
        """Who told it, and of which day it is."""
        return PriceSource(source=self.source, dated=self.dated, first_day=self.day, last_day=self.day)


class PriceBook:
    """Prices calls from the user's own table, then ``genai-prices``, then LiteLLM's map. Thread-safe.

    ``own``: the table's file (TOML, or JSON by its suffix) or a mapping of the same shape; ``None``: the file that
    ``TOKEN_CALLBACKS_PRICES`` names, if it does. A provider's own word on the cost goes before all tables. Nothing is
    fetched, and no library is imported before a price is asked for.

    Raises ``InvalidPrices`` for a table that cannot be read or says what is no price.
    """

    band_starts = BAND_STARTS
    """The sizes of a prompt from which on some known price differs: the band of a call is how many of them are no
    larger than its prompt."""

    period_starts = PERIOD_STARTS
    """The minutes of the UTC day from which on some known price differs."""

    def __init__(self, own: str | os.PathLike[str] | Mapping[str, Any] | None = None) -> None:
        if own is not None and not isinstance(own, str | os.PathLike | Mapping):
            raise InvalidPrices(f"prices are the path of a table, or a mapping of that shape, not {own!r}")
        table = own if own is not None else os.environ.get(PRICES_VARIABLE) or None
        self._genai = GenaiPrices()
        self._sources = (OwnTable() if table is None else read_table(table), self._genai, LiteLLMMap())
        self._rates = functools.lru_cache(maxsize=_REMEMBERED)(self._looked_up)

    @property
    def is_empty(self) -> bool:
        """Whether there is no table at all; what providers tell is known even then."""
        return not any(source.is_there for source in self._sources)

    def load(self) -> None:
        """Import ``genai-prices`` now, if it is there: once, 50 to 80 ms, which the first price takes else.

        Of processor time, and several times that where Python keeps no byte code: ``docs/prices.md`` has the figures.
        """
        self._genai.load()

    def charge(self, record: CallRecord) -> Charge:
        """Tell what a record has to have in common with others to be added up with them."""
        return charge_of(record)

    def price(self, charge: Charge, usage: Usage, *, calls: int, reported: Decimal | None = None) -> Price | None:
        """Price the calls of one charge, added up; the same as adding up their prices, to the last digit.

        ``reported``: the sum of the costs that their provider told (``charges.reported_cost``), for a charge of that
        basis. ``None``: unpriced, because a figure is missing, contradicts another, or no source knows the price.
        """
        if charge.basis is Basis.FREE:
            nothing = Decimal(0)
            return Price(
                amount=nothing,
                currency="USD",
                source=NOT_BILLED,
                dated=None,
                day=charge.day,
                prompt=nothing,
                completion=nothing,
            )
        if charge.basis is Basis.REPORTED:
            return _as_told(charge, reported)
        rates = self._rates(charge, self._genai.edition)
        return None if rates is None else _applied(rates, charge, usage, calls)

    def lacks_figures(self, charge: Charge) -> bool:
        """Tell whether calls of this charge have no price because a figure is missing, or contradicts another."""
        return charge.basis in {Basis.MISSING, Basis.EXCEEDING}

    def price_of(self, record: CallRecord) -> Price | None:
        """Price one call; ``None``: unpriced."""
        told = reported_cost(record)
        return self.price(charge_of(record), record.usage, calls=1, reported=None if told is None else told[0])

    def _looked_up(self, charge: Charge, _edition: datetime | None) -> Rates | None:
        """Look up what a charge's calls are charged; what was looked up is remembered of one edition of prices."""
        if self.lacks_figures(charge):
            return None
        for source in self._sources:
            for name in asked_names(charge):
                rates = source.rates(charge, name)
                if rates is not None and rates.cover(charge):
                    return rates
        return None


def _as_told(charge: Charge, reported: Decimal | None) -> Price | None:
    if reported is None or charge.currency is None:
        return None
    return Price(amount=reported, currency=charge.currency, source=REPORTED, dated=None, day=charge.day)


def _applied(rates: Rates, charge: Charge, usage: Usage, calls: int) -> Price:
    prompt, completion, requests = rates.amounts(charge.operation, usage, calls)
    amount = EXACT.add(EXACT.add(prompt, completion), requests)
    return Price(
        amount=amount,
        currency=rates.currency,
        source=rates.source,
        dated=rates.dated,
        day=charge.day,
        prompt=prompt,
        completion=completion,
    )
