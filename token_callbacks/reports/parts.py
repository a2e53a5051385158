"""What an engine hands over: the calls of one file or many, added up by all that a report may tell apart.

An engine adds up; what the groups, the filters by name and the prices are is decided afterwards, on the sums, in one
place for all engines. That is why they give the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec

from token_callbacks.records import Operation, Outcome, Provenance, Usage

Progress = Callable[[int, int], None]
"""Told the bytes that are done, and all there are."""

EPOCH = datetime.fromtimestamp(0, UTC)
FIGURES = Usage.__struct_fields__


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine has to tell apart and to leave out."""

    columns: frozenset[str]
    """Of ``CHOSEN``: which of them; the others are ``None`` in every key."""
    slot_seconds: int | None
    """How finely to tell times apart; ``None``: not at all."""
    band_starts: tuple[int, ...] = ()
    """Prompt sizes at which a price changes."""
    is_priced: bool = False
    """Whether to tell apart what a price depends on."""
    since: datetime | None = None
    until: datetime | None = None
    """Exclusive."""

    @property
    def slot(self) -> timedelta | None:
        """The length of a slot."""
        return None if self.slot_seconds is None else timedelta(seconds=self.slot_seconds)


TOLD = ("cost", "cost_details", "cost_in_usd_ticks", "is_byok", "service_tier", "speed")
"""What of a provider's own usage object bears on the price."""

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
    """Since 1970, in ``Plan.slot_seconds``."""
    band: int
    """How many of ``Plan.band_starts`` are at most the prompt tokens."""
    shape: int
    """Which figures are told and which parts exceed their whole, as bits: prices may depend on it."""
    told: tuple[str | None, ...] | None
    """The members ``TOLD`` of ``provider_usage``, as JSON; ``None``: it has none of them."""
    outcome: Outcome
    cached: bool
    embedding_source: Provenance | None
    prompt_source: Provenance | None
    completion_source: Provenance | None


def shape_of(usage: Usage) -> int:
    """Tell the shape of a usage; ``duck`` says the same in SQL."""
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    cached = (usage.cache_read_tokens or 0) + (usage.cache_write_tokens or 0)
    seen = (usage.audio_prompt_tokens or 0) + (usage.image_prompt_tokens or 0) + (usage.video_prompt_tokens or 0)
    thought, spoken = usage.reasoning_tokens or 0, usage.audio_completion_tokens or 0
    bits = (
        usage.embedding_tokens is None,
        prompt is None,
        completion is None,
        cached > (prompt or 0),
        seen > (prompt or 0),
        cached + seen > (prompt or 0),
        thought > (completion or 0),
        spoken > (completion or 0),
        thought + spoken > (completion or 0),
        (usage.cache_write_1h_tokens or 0) > (usage.cache_write_tokens or 0),
        cached + seen > (usage.embedding_tokens or 0),
    )
    return sum(1 << position for position, bit in enumerate(bits) if bit)


class Part(NamedTuple):
    """Calls with one key, added up."""

    key: Key
    calls: int
    sample: Sequence[int | None] | None
    """The figures of one of the calls, where prices are asked for."""
    figures: Sequence[int | None]
    """The sums of the figures of ``Usage``, in its order."""
