"""The user's own table of prices: a TOML or JSON file, or a mapping of the same shape."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec

from token_callbacks.charges import Charge
from token_callbacks.errors import InvalidPrices
from token_callbacks.imports import importing
from token_callbacks.prices.names import sold_as
from token_callbacks.prices.rates import Rates

SOURCE = "own table"

_RATES = tuple(name for name in Rates.__struct_fields__ if name not in {"currency", "source", "dated"})
_WHOLES = ("prompt", "embedding", "request")
_GLOBS = ("model", "provider", "service_tier")
_KEYS = (*_GLOBS, "currency", "from", "until", *_RATES)
_CURRENCY_LETTERS = 3


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    provider: str | None
    service_tier: str | None
    since: date | None
    until: date | None
    rates: Rates

    def is_for(self, charge: Charge, model: str) -> bool:
        provider, name = sold_as(charge, model)
        return (
            (self.since is None or self.since <= charge.day)
            and (self.until is None or charge.day < self.until)
            and (_matches(self.model, model) or _matches(self.model, name))
            and (self.provider is None or _matches(self.provider, charge.provider) or _matches(self.provider, provider))
            and (self.service_tier is None or _matches(self.service_tier, charge.service_tier))
        )


class OwnTable:
    """Knows what the user wrote down; of the entries that fit a call, the first one counts."""

    def __init__(self, entries: tuple[_Entry, ...] = ()) -> None:
        self._entries = entries

    @property
    def is_there(self) -> bool:
        """Whether the table has an entry."""
        return bool(self._entries)

    def rates(self, charge: Charge, model: str) -> Rates | None:
        """Look up what a model of this name charges; ``None``: no entry is for it."""
        for entry in self._entries:
            if entry.is_for(charge, model) and entry.rates.cover(charge):
                return entry.rates
        return None


def read_table(table: str | os.PathLike[str] | Mapping[str, Any]) -> OwnTable:
    """Read a table from its file (``.json``, else TOML) or a mapping; raises ``InvalidPrices`` for mistakes in it."""
    if isinstance(table, Mapping):
        return OwnTable(tuple(_entries(table, "prices")))
    path = Path(table)
    return OwnTable(tuple(_entries(_content(path), str(path))))


def _content(path: Path) -> object:
    with importing:
        import json
        import tomllib

    try:
        text = path.read_text(encoding="utf-8")
        return (
            json.loads(text, parse_float=Decimal)
            if path.suffix == ".json"
            else tomllib.loads(text, parse_float=Decimal)
        )
    except OSError as error:
        raise InvalidPrices(
            f"the table of prices {path} cannot be read: {error.strerror}; name one that can"
        ) from error
    except ValueError as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise InvalidPrices(f"the table of prices {path} is no {kind}: {error}; correct it there") from error


def _entries(content: object, where: str) -> Iterator[_Entry]:
    entries = content.get("price") if isinstance(content, Mapping) else None
    if not isinstance(content, Mapping) or not isinstance(entries, list | tuple):
        raise InvalidPrices(f'{where}: a table of prices has a list of entries, [[price]] in TOML, "price": [] in JSON')
    _require_known(content, ("currency", "price"), where)
    currency = _currency(content.get("currency", "USD"), where)
    for number, entry in enumerate(entries, start=1):
        place = f"{where}, price {number}"
        if not isinstance(entry, Mapping):
            raise InvalidPrices(f'{place}: an entry is a table such as {{model = "my-model*", prompt = "2.50"}}')
        named = f"{place} ({entry['model']!r})" if "model" in entry else place
        yield _entry(entry, named, currency)


def _entry(entry: Mapping[str, Any], where: str, currency: str) -> _Entry:
    _require_known(entry, _KEYS, where)
    model, provider, tier = (_glob(entry, key, where) for key in _GLOBS)
    rates = {name: _rate(entry[name], name, where) for name in _RATES if name in entry}
    if model is None or rates.keys().isdisjoint(_WHOLES):
        raise InvalidPrices(f"{where}: an entry needs a model, and a price for {', '.join(_WHOLES)}: add it")
    if "completion" in rates and "prompt" not in rates:
        raise InvalidPrices(f'{where}: beside completion, prompt is missing: add it, "0" where it costs nothing')
    since, until = _day(entry, "from", where), _day(entry, "until", where)
    if since is not None and until is not None and until <= since:
        raise InvalidPrices(f"{where}: until {until} is not after from {since}; it is the first day the price is over")
    currency = _currency(entry.get("currency", currency), where)
    return _Entry(
        model=model,
        provider=provider,
        service_tier=tier,
        since=since,
        until=until,
        rates=Rates(currency=currency, source=SOURCE, dated=since, **rates),
    )


def _require_known(content: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    unknown = [key for key in content if key not in known]
    if unknown:
        raise InvalidPrices(f"{where}: there is no {', '.join(map(repr, unknown))}; there are {', '.join(known)}")


def _currency(currency: object, where: str) -> str:
    is_code = isinstance(currency, str) and len(currency) == _CURRENCY_LETTERS and currency.isascii()
    if not isinstance(currency, str) or not is_code or not currency.isalpha() or not currency.isupper():
        raise InvalidPrices(f'{where}: currency is a code of three letters, such as "EUR", not {currency!r}')
    return currency


def _glob(entry: Mapping[str, Any], key: str, where: str) -> str | None:
    pattern = entry.get(key)
    if key in entry and (not isinstance(pattern, str) or not pattern):
        raise InvalidPrices(f'{where}: {key} is a name or a glob, such as "my-*", not {pattern!r}')
    return pattern


def _rate(figure: object, name: str, where: str) -> Decimal:
    try:
        is_number = isinstance(figure, int | float | str | Decimal) and not isinstance(figure, bool)
        rate = Decimal(repr(figure) if isinstance(figure, float) else figure) if is_number else None  # type: ignore[arg-type]
    except InvalidOperation:
        rate = None
    if rate is None or not rate.is_finite() or rate < 0:
        unit = "a request" if name == "request" else "a million tokens"
        raise InvalidPrices(f'{where}: {name} is the price of {unit}, 0 or more, such as "2.50", not {figure!r}')
    return rate


def _day(entry: Mapping[str, Any], key: str, where: str) -> date | None:
    day = entry.get(key)
    try:
        day = date.fromisoformat(day) if isinstance(day, str) else day
    except ValueError:
        day = entry
    if day is not None and (not isinstance(day, date) or isinstance(day, datetime)):
        raise InvalidPrices(f"{where}: {key} is a day, such as 2026-07-01, not {entry[key]!r}")
    return day


def _matches(pattern: str, name: str | None) -> bool:
    return name is not None and fnmatchcase(name.lower(), pattern.lower())
