"""What an engine hands over: the calls of one file or many, added up by all that a report may tell apart.

An engine adds up; what the groups, the filters by name and the prices are is decided afterwards, on the sums, in one
place for all engines. That is why they give the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol

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
    with_reported_cost: bool = False
    since: datetime | None = None
    until: datetime | None = None
    """Exclusive."""

    @property
    def slot(self) -> timedelta | None:
        """The length of a slot."""
        return None if self.slot_seconds is None else timedelta(seconds=self.slot_seconds)


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
    reported_cost: str | None
    """``provider_usage.cost`` as JSON."""
    outcome: Outcome
    cached: bool
    embedding_source: Provenance | None
    prompt_source: Provenance | None
    completion_source: Provenance | None


class Part(NamedTuple):
    """Calls with one key, added up."""

    key: Key
    calls: int
    used: int
    """Calls among them that used a token."""
    figures: Sequence[int | None]
    """The sums of the figures of ``Usage``, in its order."""


class Engine(Protocol):
    """Adds up."""

    def parts(self, plan: Plan) -> Iterator[Part]:
        """Yield parts, in any order; the same key may come again."""
