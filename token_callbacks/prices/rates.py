"""What one model charges, whoever says so, and the sum that follows from it: exact, in ``Decimal``."""

from __future__ import annotations

import functools
from datetime import date
from decimal import Decimal

import msgspec

from token_callbacks.charges import BAND_STARTS, EXACT, Basis, Charge
from token_callbacks.imports import version_of
from token_callbacks.records import Operation, Usage

_MILLION = -6
_ZERO = Decimal(0)


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Prices per million tokens, and per request; ``None``: there is no such price, the whole's counts."""

    currency: str
    source: str
    dated: date | None = None
    """The day from which on these are the prices; ``None``: not told."""
    prompt: Decimal | None = None
    completion: Decimal | None = None
    embedding: Decimal | None = None
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    audio_prompt: Decimal | None = None
    image_prompt: Decimal | None = None
    video_prompt: Decimal | None = None
    reasoning: Decimal | None = None
    audio_completion: Decimal | None = None
    request: Decimal | None = None

    def cover(self, charge: Charge) -> bool:
        """Tell whether a call can be priced by these: whether no price that it needs is missing."""
        if charge.operation is Operation.EMBEDDING:
            return self.embedding is not None or self.prompt is not None
        if self.prompt is None or self.completion is None:
            return self.request is not None and self.prompt is None and self.completion is None
        return charge.basis is not Basis.OVERLAPPING or not self._may_meet()

    def _may_meet(self) -> bool:
        """Tell whether one token may have two prices: read from the cache, and audio."""
        caches = (self.cache_read, self.cache_write, self.cache_write_1h)
        senses = (self.audio_prompt, self.image_prompt, self.video_prompt)
        in_prompt = any(rate is not None for rate in caches) and any(rate is not None for rate in senses)
        return in_prompt or (self.reasoning is not None and self.audio_completion is not None)

    def amounts(self, operation: Operation, usage: Usage, calls: int) -> tuple[Decimal, Decimal, Decimal]:
        """Price the prompts (or what was embedded), the completions, and the requests of calls that these cover."""
        requests = EXACT.multiply(self.request or _ZERO, Decimal(calls))
        if operation is Operation.EMBEDDING:
            rate = self.prompt if self.embedding is None else self.embedding
            return _priced(usage.embedding_tokens, rate), _ZERO, requests
        return self._prompt_amount(usage), self._completion_amount(usage), requests

    def _prompt_amount(self, usage: Usage) -> Decimal:
        whole, write = self.prompt, self.prompt if self.cache_write is None else self.cache_write
        return _sum(
            _priced(usage.prompt_tokens, whole),
            _difference(usage.cache_read_tokens, self.cache_read, whole),
            _difference(usage.cache_write_tokens, self.cache_write, whole),
            _difference(usage.cache_write_1h_tokens, self.cache_write_1h, write),
            _difference(usage.audio_prompt_tokens, self.audio_prompt, whole),
            _difference(usage.image_prompt_tokens, self.image_prompt, whole),
            _difference(usage.video_prompt_tokens, self.video_prompt, whole),
        )

    def _completion_amount(self, usage: Usage) -> Decimal:
        return _sum(
            _priced(usage.completion_tokens, self.completion),
            _difference(usage.reasoning_tokens, self.reasoning, self.completion),
            _difference(usage.audio_completion_tokens, self.audio_completion, self.completion),
        )


@functools.cache
def with_version(package: str) -> str:
    """Name a source by its package and the release that is installed."""
    version = version_of(package)
    return package if version is None else f"{package} {version}"


class Ambiguous(LookupError):
    """The prices known today change within a band or a period that calls were added up over."""


def band_limits(band: int) -> tuple[int, int | None]:
    """Tell the smallest and the largest prompt of a band; ``None``: any."""
    lowest = 0 if band == 0 else BAND_STARTS[band - 1]
    return lowest, BAND_STARTS[band] - 1 if band < len(BAND_STARTS) else None


def is_beyond(band: int, start: int) -> bool:
    """Tell whether the prompts of a band are of a size from ``start`` on; raises ``Ambiguous`` if only some are."""
    lowest, largest = band_limits(band)
    if lowest < start and (largest is None or largest >= start):
        raise Ambiguous(f"a price changes at {start} tokens, inside the band from {lowest} to {largest}")
    return lowest >= start


def _sum(*amounts: Decimal) -> Decimal:
    total = _ZERO
    for amount in amounts:
        total = EXACT.add(total, amount)
    return total


def _priced(tokens: int | None, rate: Decimal | None) -> Decimal:
    if not tokens or rate is None:
        return _ZERO
    return EXACT.multiply(Decimal(tokens), rate).scaleb(_MILLION, EXACT)


def _difference(tokens: int | None, rate: Decimal | None, whole: Decimal | None) -> Decimal:
    if not tokens or rate is None or whole is None:
        return _ZERO
    return _priced(tokens, EXACT.subtract(rate, whole))
