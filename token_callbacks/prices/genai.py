"""The prices of the ``genai-prices`` library as it is installed: by day, hour, service tier and size of the prompt.

Nothing is fetched: the library goes online only where the host starts its ``UpdatePrices``, and then these are newer.
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

from token_callbacks.charges import EXACT, PERIOD_STARTS, Charge
from token_callbacks.imports import importing
from token_callbacks.prices.imports import import_whole
from token_callbacks.prices.names import LOCAL, STANDARD_TIERS, sold_as
from token_callbacks.prices.rates import Ambiguous, Rates, is_beyond, with_version

_ALIASES = {
    "azure_ai": "azure",
    "azure_text": "azure",
    "cohere_chat": "cohere",
    "fireworks_ai": "fireworks",
    "text-completion-openai": "openai",
}
"""Providers that LiteLLM and the library call differently, where the library does not see through it itself."""

_RATES = {
    "prompt": ("input_mtok",),
    "completion": ("output_mtok",),
    "cache_read": ("cache_read_mtok",),
    "cache_write": ("cache_write_5m_mtok", "cache_write_mtok"),
    "cache_write_1h": ("cache_write_1h_mtok",),
    "audio_prompt": ("input_audio_mtok",),
    "image_prompt": ("input_image_mtok",),
    "video_prompt": ("input_video_mtok",),
    "reasoning": ("output_reasoning_mtok",),
    "audio_completion": ("output_audio_mtok",),
}

_REMEMBERED = 4096


class GenaiPrices:
    """Knows what the library knows, and nothing where it is not installed."""

    def __init__(self) -> None:
        self._is_loaded = False
        self._changes: dict[tuple[datetime | None, str | None, str], tuple[date, ...]] = {}
        """The days on which the prices of a model change, ascending, by the edition that says so."""
        self._remembered = functools.lru_cache(maxsize=_REMEMBERED)(self._rates)

    @functools.cached_property
    def is_there(self) -> bool:
        """Whether the library is installed."""
        with importing:
            from importlib.util import find_spec

        return find_spec("genai_prices") is not None

    def load(self) -> None:
        """Import the library, if it is there, with its data."""
        if self.is_there and not self._is_loaded:
            self._is_loaded = True
            with importing:
                with suppress(ImportError):  # older releases do without
                    import_whole("httpx2")
                self._remembered(Charge(provider=None, model=None, day=date.min), "openai", "gpt-4o", None)

    @property
    def edition(self) -> datetime | None:
        """When its prices were taken in: later ones after the host's ``UpdatePrices``; ``None``: not imported yet."""
        if not self._is_loaded:
            return None
        with importing:
            from genai_prices.data_snapshot import get_snapshot

        taken_in: datetime = get_snapshot().timestamp
        return taken_in

    def rates(self, charge: Charge, model: str) -> Rates | None:
        """Look up what a model of this name charges; ``None``: the library does not know it, or not for sure."""
        provider, name = sold_as(charge, model)
        if not self.is_there or provider in LOCAL:
            return None
        self.load()
        edition = self.edition
        provider = None if provider is None else _ALIASES.get(provider, provider)
        alike = Charge(
            provider=None,
            model=None,
            day=self._first_day_alike(charge.day, provider, name, edition),
            period=charge.period,
            band=charge.band,
            service_tier=charge.service_tier,
        )
        try:
            return self._remembered(alike, provider, name, edition)
        except (LookupError, ValueError):  # unknown, or prices that the library itself finds inconsistent
            return None

    def _first_day_alike(self, day: date, provider: str | None, model: str, edition: datetime | None) -> date:
        """Tell the first day on which the prices of a model are those of ``day``, as far as it was looked up yet."""
        changes = self._changes.get((edition, provider, model))
        if changes is None:
            return day
        passed = bisect_right(changes, day)
        return changes[passed - 1] if passed else date.min

    def _rates(self, charge: Charge, provider: str | None, model: str, edition: datetime | None) -> Rates | None:
        with importing:  # not with this file: nobody may have asked for prices
            from genai_prices import Usage, calc_price

        context = None if charge.service_tier in STANDARD_TIERS else _context(str(charge.service_tier))
        found = calc_price(
            Usage(),
            model,
            provider_id=provider,
            genai_request_timestamp=_moment(charge),
            price_context=context,
        )
        if len(self._changes) >= _REMEMBERED:
            self._changes.clear()  # they are only to save look-ups
        self._changes[edition, provider, model] = _change_days(found.model)
        if not _is_same_all_period(found.model) or not _has_tier(found, context):
            return None
        told = {name: _rate(found.model_price, keys, charge.band) for name, keys in _RATES.items()}
        requests = _rate(found.model_price, ("requests_kcount",), charge.band)
        return Rates(
            currency="USD",
            source=_source(found),
            dated=_dated(found),
            request=None if requests is None else requests.scaleb(-3, EXACT),
            **told,
        )


def _context(tier: str) -> dict[str, str]:
    if tier == "fast":
        return {"speed": "fast", "service_tier": "fast"}
    return {"processing": "batch"} if tier == "batch" else {"service_tier": tier}


def _moment(charge: Charge) -> datetime:
    minutes = 0 if charge.period == 0 else PERIOD_STARTS[charge.period - 1]
    return datetime.combine(charge.day, time(minutes // 60, minutes % 60), UTC)


def _constraints(model: Any) -> Iterator[Any]:
    prices = model.prices if isinstance(model.prices, list) else ()
    for priced in (*prices, *(model.price_variants or ())):
        if priced.constraint is not None:
            yield priced.constraint


def _change_days(model: Any) -> tuple[date, ...]:
    days = (getattr(constraint, "start_date", None) for constraint in _constraints(model))
    return tuple(sorted({day for day in days if day is not None}))


def _is_same_all_period(model: Any) -> bool:
    """Tell whether no price of the model changes within a period."""
    for constraint in _constraints(model):
        for moment in (getattr(constraint, "start_time", None), getattr(constraint, "end_time", None)):
            if moment is not None and _utc_minute(moment) not in (0, *PERIOD_STARTS):
                return False
    return True


def _utc_minute(moment: time) -> float:
    if moment.tzinfo is not None:
        moment = datetime.combine(date(2000, 1, 2), moment).astimezone(UTC).time()
    return moment.hour * 60 + moment.minute + moment.second / 60


def _has_tier(found: Any, context: dict[str, str] | None) -> bool:
    """Tell whether the prices are those of the tier: where a model has none for it, its plain ones are not right."""
    if context is None:
        return True
    is_at_home = any(model is found.model for model in found.provider.models)
    variants = found.model.price_variants or ()
    return is_at_home and any(variant.when.items() <= context.items() for variant in variants)


def _rate(price: Any, keys: tuple[str, ...], band: int) -> Decimal | None:
    told = next((rate for key in keys if (rate := getattr(price, key, None)) is not None), None)
    if told is None or isinstance(told, Decimal):
        return told
    tiers = [tier for tier in told.tiers if is_beyond(band, tier.start + 1)]
    rate = tiers[-1].price if tiers else told.base
    if not isinstance(rate, Decimal):
        raise Ambiguous(f"{keys[0]} is no number")
    return rate


def _source(found: Any) -> str:
    release = with_version("genai-prices")
    if found.auto_update_timestamp is None:
        return release
    return f"{release} updated {found.auto_update_timestamp.astimezone(UTC):%Y-%m-%d}"


def _dated(found: Any) -> date | None:
    prices = found.model.prices if isinstance(found.model.prices, list) else ()
    starts = (getattr(priced.constraint, "start_date", None) for priced in prices if priced.prices is found.model_price)
    return next(starts, None)
