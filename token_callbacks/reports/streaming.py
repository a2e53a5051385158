"""Adding up line by line, with nothing installed: needs memory by the number of groups, not of lines."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from operator import attrgetter
from typing import Any

import msgspec

from token_callbacks.charges import EXACT
from token_callbacks.records import Operation, Outcome, Provenance, Usage, in_zone
from token_callbacks.reports import lines
from token_callbacks.reports.parts import CHOSEN, NOTHING_TOLD, Key, Part, Plan, Told, shape_of, told_of
from token_callbacks.reports.skipped import Skipped


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """The provenance of the figures, without error bands."""

    embedding: Provenance | None = None
    prompt: Provenance | None = None
    completion: Provenance | None = None


class Line(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """As much of a line as is added up; a line of which that much can be read counts."""

    schema_version: str = "1.0"
    call_id: str
    run_id: str
    step: str | None = None
    agent: str | None = None
    operation: Operation
    provider: str | None = None
    model: str | None = None
    response_model: str | None = None
    outcome: Outcome
    cached: bool
    started_at: datetime
    usage: Usage
    provenance: Sources


class PricedLine(Line, frozen=True, kw_only=True, gc=False):
    """The same with what the provider told, which may be a price."""

    provider_usage: Any = None


_line = msgspec.json.Decoder(Line)
_priced_line = msgspec.json.Decoder(PricedLine)


class Sums:
    """The running sums of one key."""

    __slots__ = ("calls", "figures", "reported")

    def __init__(self) -> None:
        self.calls = 0
        self.reported: Decimal | None = None
        self.figures: list[int | None] = [None] * len(Usage.__struct_fields__)

    def add(self, usage: Usage, cost: Decimal | None) -> None:
        """Add one call; ``cost``: what its provider told."""
        self.calls += 1
        if cost is not None:
            self.reported = cost if self.reported is None else EXACT.add(self.reported, cost)
        figures = self.figures
        for position, figure in enumerate(msgspec.structs.astuple(usage)):
            if figure is not None:
                figures[position] = figure + (figures[position] or 0)


def added_lines(file: Any, plan: Plan, *, shown: str, skipped: Skipped) -> Iterator[Part]:
    """Add up the lines of a file of calls."""
    decoder = _priced_line if plan.is_priced else _line
    return added(lines.read(file, decoder.decode, shown=shown, skipped=skipped), plan)


def added(found: Iterable[Any], plan: Plan) -> Iterator[Part]:
    """Add up lines, or records."""
    sums: dict[Key, Sums] = {}
    key_of = _key_of(plan)
    for line in found:
        told = told_of(line) if plan.is_priced else NOTHING_TOLD
        key = key_of(line, told)
        if key is None:
            continue
        group = sums.get(key)
        if group is None:
            group = sums[key] = Sums()
        group.add(line.usage, told.cost)
    return (Part(key, group.calls, group.figures, group.reported) for key, group in sums.items())


def _key_of(plan: Plan) -> Callable[[Any, Told], Key | None]:
    getters = [attrgetter(name) if name in plan.columns else _nothing for name in CHOSEN]
    since, until, band_starts = plan.since, plan.until, plan.band_starts

    def key(line: Any, told: Told) -> Key | None:
        moment = line.started_at
        if moment.tzinfo is not UTC:  # none of ours
            moment = in_zone(moment)
        if (since is not None and moment < since) or (until is not None and moment >= until):
            return None
        sources = line.provenance
        return Key._make(
            (
                *(getter(line) for getter in getters),
                plan.slot_of(moment),
                bisect_right(band_starts, line.usage.prompt_tokens or 0) if band_starts else 0,
                shape_of(line.usage, line.operation) if plan.is_priced else 0,
                told.tier,
                told.currency,
                line.outcome,
                line.cached,
                sources.embedding,
                sources.prompt,
                sources.completion,
            )
        )

    return key


def _nothing(_line: Any) -> None:
    return None
