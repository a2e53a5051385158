"""What a counter recorded of a played exchange, beside what the provider said."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from tests.corpus.folder import Exchange
from tests.corpus.plays import Play
from token_callbacks.records import CallRecord, Provenance
from token_callbacks.runs import Run

FIGURES = {
    "prompt": ("prompt_tokens", "prompt_tokens"),
    "completion": ("completion_tokens", "completion_tokens"),
    "cache read": ("cache_read_tokens", "cached_prompt_tokens"),
    "cache write": ("cache_write_tokens", "cache_write_tokens"),
    "reasoning": ("reasoning_tokens", "reasoning_tokens"),
    "embedding": ("embedding_tokens", "embedding_tokens"),
}
"""Each figure's name in a record's usage, and in the truth of an exchange."""

PARTS = ("cache read", "cache write", "reasoning")
"""Figures of which "not told" and 0 are worth the same."""

RECORDS, FAULTS, SOURCE = "records", "faults", "source"
"""What else is judged: one record an exchange, no internal error, and nothing ``reported`` that was not."""


class Played(msgspec.Struct, frozen=True, kw_only=True):
    """How a play went; ``error`` is the class of what it raised, ``requests`` how often it asked the server."""

    play: Play
    run: Run
    error: str | None
    requests: int

    @property
    def reason_not_judged(self) -> str | None:
        """Tell why the play is not the recorded exchange: there was no answer, or more than one."""
        if self.requests == 1:
            return None
        return self.error or f"asked {self.requests} times"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One judged figure of one play."""

    figure: str
    ours: int | None
    truth: int | None
    provenance: str | None
    is_exact: bool


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A play with its findings; none, where it could not be judged."""

    played: Played
    findings: tuple[Finding, ...]
    provider_usage: dict[str, Any] | None = None

    @property
    def is_answered(self) -> bool:
        """Tell whether the framework gave an answer back; it may have asked and then raised over what came."""
        return self.played.error is None

    @property
    def misses(self) -> list[Finding]:
        """List the findings that are not exact."""
        return [finding for finding in self.findings if not finding.is_exact]


def verdict(played: Played, records: list[CallRecord]) -> Verdict:
    """Judge a play by the records of its run."""
    if played.reason_not_judged is not None:
        return Verdict(played=played, findings=())
    exchange = played.play.exchange
    faults = played.run.internal_errors
    first = (
        _finding(RECORDS, len(records), 1, None, is_exact=len(records) == 1),
        *([_finding(FAULTS, faults, 0, None, is_exact=False)] if faults else []),
    )
    if not records:
        return Verdict(played=played, findings=first)
    record = records[-1]
    findings = (*first, *_findings(exchange, record))
    return Verdict(played=played, findings=findings, provider_usage=record.provider_usage)


def _findings(exchange: Exchange, record: CallRecord) -> Iterator[Finding]:
    if exchange["truth_confidence"] == "ambiguous":
        return
    if exchange["reported_usage"] is None:
        weakest = record.provenance.weakest
        yield _finding(SOURCE, None, None, weakest, is_exact=weakest is not Provenance.REPORTED)
        return
    embeds = exchange["truth"]["embedding_tokens"] is not None
    for figure in ("embedding",) if embeds else FIGURES:
        ours_name, truth_name = FIGURES[figure]
        ours, truth = getattr(record.usage, ours_name), exchange["truth"][truth_name]
        if truth is None or (figure in PARTS and not truth and not ours):
            continue
        source = getattr(record.provenance, figure, None)
        if figure not in PARTS and not any(exchange["truth"][name] for name in _WHOLES) and source in _OURS:
            continue  # 0/0 beside a text is not told, whoever says it
        is_told = figure in PARTS or source is Provenance.REPORTED
        yield _finding(figure, ours, truth, source, is_exact=ours == truth and is_told)


_WHOLES = ("prompt_tokens", "completion_tokens", "embedding_tokens")
_OURS = (Provenance.COUNTED, Provenance.ESTIMATED)


def _finding(figure: str, ours: int | None, truth: int | None, source: Provenance | None, *, is_exact: bool) -> Finding:
    provenance = None if source is None else str(source)
    return Finding(figure=figure, ours=ours, truth=truth, provenance=provenance, is_exact=is_exact)
