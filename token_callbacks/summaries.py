"""A run's facts and its totals -> its summary: the same from a run in memory and from the lines of a log."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from datetime import datetime

from token_callbacks.imports import version_of
from token_callbacks.records import Cost, FourTotals, Producer, RunOutcome, RunSummary
from token_callbacks.totals import Totals


def summed_up(
    totals: Totals,
    *,
    nested: Sequence[int],
    run_id: str,
    parent_run_id: str | None,
    name: str,
    tags: Mapping[str, str],
    outcome: RunOutcome,
    started_at: datetime,
    ended_at: datetime | None,
    until: datetime,
    internal_errors: int,
    lost_records: int,
    cost: Cost | None,
    has_gaps: bool = False,
) -> RunSummary:
    """Make a summary.

    ``nested``: embedding, prompt and completion tokens of the runs inside this one. ``until``: where the duration of a
    run that has not ended is measured to.
    """
    four = totals.four
    return RunSummary(
        embedding_tokens=four.embedding_tokens,
        llm_prompt_tokens=four.llm_prompt_tokens,
        llm_completion_tokens=four.llm_completion_tokens,
        total_llm_tokens=four.total_llm_tokens,
        run_id=run_id,
        parent_run_id=parent_run_id,
        name=name,
        tags=dict(tags),
        outcome=outcome,
        started_at=started_at,
        ended_at=ended_at,
        duration_seconds=max(0.0, ((ended_at or until) - started_at).total_seconds()),
        calls=totals.calls,
        token_details=totals.token_details,
        provenance=totals.provenance,
        # What was under way when a process died was paid for and left no record.
        lower_bound=totals.lower_bound
        or outcome is RunOutcome.INTERRUPTED
        or has_gaps,  # what has no line, or goes on, is not in it
        cost=cost,
        by_model=totals.by_model,
        by_step=totals.by_step,
        by_agent=totals.by_agent,
        budget=None,
        including_nested=_including(four, nested),
        internal_errors=internal_errors,
        lost_records=lost_records,
        producer=_producer(),
    )


def _including(own: FourTotals, nested: Sequence[int]) -> FourTotals:
    embedding, prompt, completion = nested
    prompt += own.llm_prompt_tokens
    completion += own.llm_completion_tokens
    return FourTotals(
        embedding_tokens=embedding + own.embedding_tokens,
        llm_prompt_tokens=prompt,
        llm_completion_tokens=completion,
        total_llm_tokens=prompt + completion,
    )


@functools.cache
def _producer() -> Producer:
    return Producer(name="token-callbacks", version=version_of("token-callbacks") or "0+unknown")
