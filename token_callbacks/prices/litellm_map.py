"""The price map that ships with LiteLLM, read from its file: neither LiteLLM is imported nor anything fetched."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from token_callbacks.charges import EXACT, Charge
from token_callbacks.imports import importing
from token_callbacks.prices.names import LOCAL, STANDARD_TIERS, sold_as
from token_callbacks.prices.rates import Rates, is_beyond, with_version

_FILE = "model_prices_and_context_window_backup.json"

_RATES = {
    "prompt": "input_cost_per_token",
    "completion": "output_cost_per_token",
    "cache_read": "cache_read_input_token_cost",
    "cache_write": "cache_creation_input_token_cost",
    "cache_write_1h": "cache_creation_input_token_cost_above_1hr",
    "audio_prompt": "input_cost_per_audio_token",
    "image_prompt": "input_cost_per_image_token",
    "video_prompt": "input_cost_per_video_token",
    "reasoning": "output_cost_per_reasoning_token",
    "audio_completion": "output_cost_per_audio_token",
}

_SUFFIXES = {"flex": "_flex", "priority": "_priority", "batch": "_batches"}

_THRESHOLD = re.compile(r"_above_(\d+)(k?)_tokens")

_entry = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)
_map = msgspec.json.Decoder(dict[str, msgspec.Raw])


class LiteLLMMap:
    """Knows what the map of the installed LiteLLM knows, and nothing where it is not installed."""

    @property
    def is_there(self) -> bool:
        """Whether LiteLLM is installed, with a map that can be read."""
        return bool(_entries())

    def rates(self, charge: Charge, model: str) -> Rates | None:
        """Look up what a model of this name charges; ``None``: the map does not know it, or not for sure."""
        provider, name = sold_as(charge, model)
        if provider in LOCAL:
            return None
        for key in dict.fromkeys((model, f"{provider}/{name}", name)):
            entry = _entries().get(key)
            told = None if entry is None else _entry.decode(entry)
            if told is not None and _is_sold_by(told, provider):
                return _rates(told, charge)
        return None


def _rates(told: Mapping[str, Any], charge: Charge) -> Rates | None:
    if "off_peak_pricing" in told:
        return None
    try:
        rates: dict[str, Any] = dict(_tiered(told, charge.band) if told.get("tiered_pricing") else _flat(told, charge))
    except (LookupError, TypeError, ValueError, ArithmeticError):  # ambiguous, or of a shape not met so far
        return None
    # 0 is what the map says of what has no price, such as a model on one's own machine.
    if not any(rates.values()):
        return None
    request = told.get("input_cost_per_request")
    return Rates(currency="USD", source=with_version("litellm"), request=_decimal(request), dated=None, **rates)


def _flat(told: Mapping[str, Any], charge: Charge) -> Iterator[tuple[str, Decimal]]:
    suffix = "" if charge.service_tier in STANDARD_TIERS else _SUFFIXES.get(str(charge.service_tier))
    is_inclusive = told.get("litellm_provider") == "xai"  # litellm 1.106.2, _uses_inclusive_token_thresholds
    if suffix is None or (suffix and told.get(f"{_RATES['prompt']}{suffix}") is None):
        return
    for name, key in _RATES.items():
        rate = told.get(f"{key}{suffix}")
        for start, above in _thresholds(told, key, suffix):
            if is_beyond(charge.band, start if is_inclusive else start + 1):
                rate = above
        if rate is not None:
            yield name, _per_million(rate)


def _thresholds(told: Mapping[str, Any], key: str, suffix: str) -> list[tuple[int, Any]]:
    """List the rates above a size of the prompt, smallest size first."""
    found = []
    for name, rate in told.items():
        match = _THRESHOLD.match(name, len(key)) if name.startswith(key) else None
        if match is not None and name[match.end() :] == suffix and rate is not None:
            found.append((int(match[1]) * (1000 if match[2] else 1), rate))
    return sorted(found, key=lambda pair: pair[0])


def _tiered(told: Mapping[str, Any], band: int) -> Iterator[tuple[str, Decimal]]:
    tiers = sorted(told["tiered_pricing"], key=lambda tier: tier["range"][0])
    chosen = tiers[0]
    for tier in tiers[1:]:
        if is_beyond(band, int(tier["range"][0]) + 1):
            chosen = tier
    for name, key in _RATES.items():
        rate = chosen.get(key)
        if rate is not None:
            yield name, _per_million(rate)


def _per_million(rate: Any) -> Decimal:
    return EXACT.create_decimal(rate).scaleb(6, EXACT)


def _decimal(figure: Any) -> Decimal | None:
    return None if figure is None else EXACT.create_decimal(figure)


def _is_sold_by(told: Mapping[str, Any], provider: str | None) -> bool:
    seller = str(told.get("litellm_provider", ""))
    if provider is None:
        return seller not in LOCAL
    return seller == provider or seller.startswith((f"{provider}_", f"{provider}-")) or seller.endswith(f"-{provider}")


@functools.cache
def _entries() -> Mapping[str, msgspec.Raw]:
    with importing:
        from importlib.util import find_spec

    spec = find_spec("litellm")
    if spec is None or spec.origin is None:
        return {}
    try:
        return _map.decode((Path(spec.origin).parent / _FILE).read_bytes())
    except (OSError, msgspec.DecodeError):  # another release may keep it elsewhere
        return {}
