"""What an engine hands over: the calls of one file or many, added up by all that a report may tell apart.

An engine adds up; what the groups, the filters by name and the prices are is decided afterwards, on the sums, in one
place for all engines. That is why they give the same rows.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

from token_callbacks.charges import reported_cost, service_tier
from token_callbacks.records import Operation, Outcome, Provenance, Usage

Progress = Callable[[int, int], None]
"""Told the bytes that are done, and all there are."""

EPOCH = datetime.fromtimestamp(0, UTC)
FIGURES = Usage.__struct_fields__


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine has to tell apart and to leave out."""

    columns: frozenset[str]
    """Of ``CHOSEN``: which of them; the others are ``None`` in every key."""
    cuts: tuple[int, ...] = ()
    """Seconds of the UTC day at which times are told apart, ascending, the first of them 0; empty: not at all."""
    band_starts: tuple[int, ...] = ()
    """Prompt sizes at which a price changes."""
    is_priced: bool = False
    """Whether to tell apart what a price depends on."""
    since: datetime | None = None
    until: datetime | None = None
    """Exclusive."""

    def slot_of(self, moment: datetime) -> int | None:
        """Tell the slot of a moment: which piece of which day it lies in; ``duck`` says the same in SQL."""
        if not self.cuts:
            return None
        passed = moment - EPOCH
        return passed.days * len(self.cuts) + bisect_right(self.cuts, passed.seconds) - 1

    def start_of(self, slot: int | None) -> datetime:
        """Tell the moment at which a slot begins."""
        if slot is None:
            return EPOCH
        day, piece = divmod(slot, len(self.cuts))
        return EPOCH + timedelta(days=day, seconds=self.cuts[piece])


CHOSEN = ("run_id", "step", "agent", "provider", "model", "response_model", "operation")


class Key(NamedTuple):
    """What the calls of a part have in common."""

    run_id: str | None
    step: str | None
    agent: str | None
    provider: str | None
    model: str | None
    response_model: str | None
    operation: Operation | None
    slot: int | None
    """Since 1970: days, each in as many pieces as ``Plan.cuts`` has."""
    band: int
    """How many of ``Plan.band_starts`` are at most the prompt tokens."""
    shape: int
    """Which figures are told and which parts exceed their whole, as bits: prices may depend on it."""
    tier: str | None
    """The service tier, as ``charges`` tells it."""
    currency: str | None
    """Of the costs that the provider told; ``None``: it told none."""
    outcome: Outcome
    cached: bool
    embedding_source: Provenance | None
    prompt_source: Provenance | None
    completion_source: Provenance | None


class Told(NamedTuple):
    """What a provider's own usage object says that bears on the price."""

    tier: str | None = None
    cost: Decimal | None = None
    currency: str | None = None


NOTHING_TOLD = Told()


def told_of(line: Any) -> Told:
    """Tell what the provider of a call told, by the rules of ``charges``; ``duck`` says the same in SQL."""
    told = line.provider_usage
    if not isinstance(told, dict) or not told:
        return NOTHING_TOLD
    cost, currency = reported_cost(line) or (None, None)
    return Told(service_tier(told), cost, currency)


def shape_of(usage: Usage, operation: Operation) -> int:
    """Tell the shape of a usage; ``duck`` says the same in SQL, and ``typical`` the way back."""
    is_embedding = operation is Operation.EMBEDDING
    whole = (usage.embedding_tokens if is_embedding else usage.prompt_tokens) or 0
    completion = 0 if is_embedding else usage.completion_tokens or 0
    cached = (usage.cache_read_tokens or 0) + (usage.cache_write_tokens or 0)
    seen = (usage.audio_prompt_tokens or 0) + (usage.image_prompt_tokens or 0) + (usage.video_prompt_tokens or 0)
    thought, spoken = usage.reasoning_tokens or 0, usage.audio_completion_tokens or 0
    bits = (
        usage.embedding_tokens is None,
        usage.prompt_tokens is None,
        usage.completion_tokens is None,
        cached > whole,
        seen > whole,
        cached + seen > whole,
        thought > completion,
        spoken > completion,
        thought + spoken > completion,
        (usage.cache_write_1h_tokens or 0) > (usage.cache_write_tokens or 0),
    )
    return sum(1 << position for position, bit in enumerate(bits) if bit)


def typical(shape: int, operation: Operation, prompt_tokens: int) -> Usage:
    """Make a usage of a shape; ``prompt_tokens``: the smallest prompt of its band."""
    told = [not shape & 1 << position for position in range(3)]
    size = max(prompt_tokens, 1)
    whole = size if told[0 if operation is Operation.EMBEDDING else 1] else 0
    completion = 1 if told[2] and operation is not Operation.EMBEDDING else 0
    cached, seen = _parts(shape >> 3, whole)
    thought, spoken = _parts(shape >> 6, completion)
    return Usage(
        embedding_tokens=size if told[0] else None,
        prompt_tokens=size if told[1] else None,
        completion_tokens=1 if told[2] else None,
        cache_read_tokens=cached,
        audio_prompt_tokens=seen,
        reasoning_tokens=thought,
        audio_completion_tokens=spoken,
        cache_write_1h_tokens=1 if shape & 1 << 9 else None,
    )


def _parts(bits: int, whole: int) -> tuple[int, int]:
    is_first_larger, is_second_larger, are_both_larger = bits & 1, bits & 2, bits & 4
    if is_first_larger or is_second_larger:
        return (whole + 1 if is_first_larger else 0), (whole + 1 if is_second_larger else 0)
    return (whole, 1) if are_both_larger else (0, 0)


class Part(NamedTuple):
    """Calls with one key, added up."""

    key: Key
    calls: int
    figures: Sequence[int | None]
    """The sums of the figures of ``Usage``, in its order."""
    reported: Decimal | None = None
    """The sum of the costs that the provider told, in the key's currency."""
