"""What calls must have in common so that their tokens may be added up before they are priced.

Prices change with the day, the hour, the size of the prompt and the service tier; within one charge they do not, so
that the price of a sum is the sum of the prices. That is why a run need not keep its calls to know what it cost, and
why a query engine may group the lines first. Every column of a charge is a function of columns of the line; the
functions below are that definition, and ``docs/prices.md`` tells it in words.
"""

from __future__ import annotations

import enum
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal
from typing import Any

import msgspec

from token_callbacks.records import CallRecord, Operation, Outcome, Usage, in_zone

BAND_STARTS = (32_001, 100_001, 128_000, 128_001, 200_000, 200_001, 252_001, 256_001, 272_001, 512_001, 524_289)
"""The sizes of a prompt, in tokens, from which on some known price differs; a test holds them to the sources."""

PERIOD_STARTS = (30, 60, 240, 360, 600, 990)
"""The minutes of the UTC day, whole half hours, from which on some known price differs (DeepSeek's off-peak hours)."""

EXACT = Context(prec=200)
"""For sums and products of money: nothing is ever rounded, whatever the host's context is."""

REPORTED = "reported"
"""The source of a cost that the provider told."""

NAMELESS = "(none)"
"""What a call without a model is named where names are listed."""

_HALF_HOUR = timedelta(minutes=30)
_PERIODS = tuple(bisect_right(PERIOD_STARTS, 30 * half_hour) for half_hour in range(48))

_PARTS = slice(3, 11)
"""Of a usage as a tuple: what has, or may have, a price of its own."""

_TICKS = "cost_in_usd_ticks"

MONEY_NAMES = frozenset({"service_tier", "speed", "cost", _TICKS})
"""What of a provider's usage object, at its top, says more of the price than its counts do."""

_SMALLEST, _LARGEST = -40, 18
"""Powers of ten that no cost of a call lies beyond; what does is no word on money."""


class Basis(enum.StrEnum):
    """What a call's price rests on; the first that holds."""

    FREE = "free"
    """Answered by the framework's cache, or never sent: nothing was billed."""
    REPORTED = "reported"
    """The provider told the cost."""
    MISSING = "missing"
    """A figure that the price needs is not told."""
    EXCEEDING = "exceeding"
    """A part is larger than its whole (more cached than prompt tokens): nobody can tell what was billed."""
    OVERLAPPING = "overlapping"
    """Parts that may each have a price of their own (cached, audio) are together larger than their whole."""
    TOKENS = "tokens"
    """The figures are there, and their parts lie beside one another."""


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """What calls have in common that are priced alike; a group key."""

    basis: Basis = Basis.TOKENS
    operation: Operation = Operation.CHAT
    provider: str | None
    model: str | None
    """As it was asked for."""
    response_model: str | None = None
    """As the provider named it: for where nobody knows the other name."""
    service_tier: str | None = None
    """As the provider told it in its usage object (``flex``, ``priority``, ``batch``); ``fast`` for that speed."""
    day: date
    """UTC, of the call's start."""
    period: int = 0
    """How many of ``PERIOD_STARTS`` are past at the call's start."""
    band: int = 0
    """How many of ``BAND_STARTS`` are no larger than the prompt; 0 for embeddings."""
    currency: str | None = None
    """Of a reported cost."""


class Charged(msgspec.Struct, frozen=True, kw_only=True):
    """The calls of one charge, added up."""

    charge: Charge
    usage: Usage
    calls: int
    reported: Decimal | None = None
    """The cost that their provider told, in the charge's currency."""


Key = tuple[Any, ...]
"""The columns of a charge, in its order: cheaper than one where a record is folded in."""


# A member of an enumeration takes longer to reach than a global, and this is on the path of every call.
_EMBEDDING, _NOT_STARTED = Operation.EMBEDDING, Outcome.NOT_STARTED
_FREE, _TOKENS = Basis.FREE, Basis.TOKENS


Asked = tuple[Operation, str | None, str | None, datetime]
"""What was asked for, of whom (the provider), of which model, and when."""


def charge_of(record: CallRecord) -> Charge:
    """Tell the charge of a record."""
    key, _ = key_of(
        (record.operation, record.provider, record.model, record.started_at),
        msgspec.structs.astuple(record.usage),
        outcome=record.outcome,
        is_cached=record.cached,
        response_model=record.response_model,
        told=record.provider_usage,
    )
    return charge_from(key)


def charge_from(key: Key) -> Charge:
    """Make the charge of its columns."""
    return Charge(**dict(zip(Charge.__struct_fields__, key, strict=True)))


def key_of(
    asked: Asked,
    figures: Sequence[Any],
    *,
    outcome: Outcome,
    is_cached: bool,
    response_model: str | None,
    told: Mapping[str, Any] | None,
) -> tuple[Key, Decimal | None]:
    """Tell the columns of a call's charge, and the cost that it reports.

    ``figures``: its usage as a tuple; ``told``: the provider's usage object, ``None`` also where only counts are in it.
    """
    operation, provider, model, started_at = asked
    if started_at.tzinfo is not UTC:
        started_at = in_zone(started_at)
    basis = _basis(figures, operation, outcome, is_cached)
    band, tier, amount, currency = 0, None, None, None
    if (prompt := figures[1]) is not None and prompt >= BAND_STARTS[0] and operation is not _EMBEDDING:
        band = band_of(prompt)
    if told is not None and not MONEY_NAMES.isdisjoint(told):
        tier = service_tier(told)
        if basis is not _FREE and (reported := _reported(told, provider, model)) is not None:
            basis, (amount, currency) = Basis.REPORTED, reported
    period = _PERIODS[started_at.hour * 2 + started_at.minute // 30]
    day = started_at.date()
    return (basis, operation, provider, model, response_model, tier, day, period, band, currency), amount


def half_hour_of(moment: datetime) -> tuple[datetime, datetime]:
    """Tell the ends of the half hour of a moment in UTC: calls that start in it are of one day and one period."""
    since = moment.replace(minute=moment.minute // 30 * 30, second=0, microsecond=0)
    return since, since + _HALF_HOUR


def period_of(moment: datetime) -> int:
    """Tell the period of the day of a moment in UTC."""
    return _PERIODS[moment.hour * 2 + moment.minute // 30]


def band_of(prompt_tokens: int) -> int:
    """Tell the band of a prompt of this size."""
    return bisect_right(BAND_STARTS, prompt_tokens)


def reported_cost(record: CallRecord) -> tuple[Decimal, str] | None:
    """Tell the cost that the provider told, and its currency; ``None`` if it told none.

    OpenRouter tells ``cost`` in USD, and beside it what the owner of the key pays upstream
    (https://openrouter.ai/docs/use-cases/usage-accounting), Perplexity ``cost.total_cost``
    (https://docs.perplexity.ai/api-reference/chat-completions-post), xAI ``cost_in_usd_ticks``
    (https://docs.x.ai/developers/cost-tracking). A bare ``cost`` of anybody else may be a guess, such as the one that
    LiteLLM's proxy adds to streams, and is not taken.
    """
    told = record.provider_usage
    return None if told is None else _reported(told, record.provider, record.model)


def _reported(told: Mapping[str, Any], provider: str | None, model: str | None) -> tuple[Decimal, str] | None:
    ticks, cost = told.get(_TICKS), told.get("cost")
    if ticks is not None:
        return _money(ticks, "USD", exponent=-10)
    if isinstance(cost, dict):
        currency = cost.get("currency")
        return _money(cost.get("total_cost"), currency if isinstance(currency, str) and currency else "USD")
    return _openrouter(told, cost, (provider or "", model or ""))


def _openrouter(told: Mapping[str, Any], cost: object, names: Sequence[str]) -> tuple[Decimal, str] | None:
    if not ("cost_details" in told or "is_byok" in told or any(name.startswith("openrouter") for name in names)):
        return None
    details = told.get("cost_details")
    upstream = details.get("upstream_inference_cost") if isinstance(details, dict) else None
    fee, theirs = _money(cost, "USD"), _money(upstream, "USD")
    if fee is None or told.get("is_byok") is not True or theirs is None:
        return fee
    return EXACT.add(fee[0], theirs[0]), "USD"


def _money(figure: object, currency: str, *, exponent: int = 0) -> tuple[Decimal, str] | None:
    if isinstance(figure, bool) or not isinstance(figure, int | float):
        return None
    amount = Decimal(figure if isinstance(figure, int) else repr(figure)).scaleb(exponent, EXACT)
    is_money = amount.is_finite() and amount >= 0 and _SMALLEST < amount.adjusted() < _LARGEST
    return (amount, currency) if is_money else None


def service_tier(told: Mapping[str, Any]) -> str | None:
    """Tell the service tier that a provider's usage object names; ``fast`` for that speed, ``None``: none."""
    if told.get("speed") == "fast":  # https://platform.claude.com/docs/en/build-with-claude/fast-mode
        return "fast"
    tier = told.get("service_tier")
    return tier if isinstance(tier, str) else None


def _basis(figures: Sequence[Any], operation: Operation, outcome: Outcome, is_cached: bool) -> Basis:
    if is_cached or outcome is _NOT_STARTED:
        return _FREE
    is_embedding = operation is _EMBEDDING
    whole, completion = (figures[0], 0) if is_embedding else (figures[1], figures[2])
    if whole is None or completion is None:
        return Basis.MISSING
    read, written, thought, heard, spoken, images, videos, written_1h = figures[_PARTS]
    cached, seen = (read or 0) + (written or 0), (heard or 0) + (images or 0) + (videos or 0)
    thought, spoken = thought or 0, spoken or 0
    if cached + seen <= whole and thought + spoken <= completion and (written_1h or 0) <= (written or 0):
        return _TOKENS
    is_larger = cached > whole or seen > whole or thought > completion or spoken > completion
    return Basis.EXCEEDING if is_larger or (written_1h or 0) > (written or 0) else Basis.OVERLAPPING
