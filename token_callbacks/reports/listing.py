"""Runs as a table: the columns of ``token-callbacks runs`` and ``token-callbacks watch``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from token_callbacks.records import RunOutcome, RunSummary, in_zone, merged_sources
from token_callbacks.reports.cells import money
from token_callbacks.reports.fitting import Entry, Fitted, Sheet, fitted_table
from token_callbacks.reports.texts import LONGEST_NAME, Signs, priced, readable

RUN_SHEET = Sheet(
    head="name",
    headings={
        name: name
        for name in (
            "run", "started", "outcome", "duration", "calls", "embedding", "prompt", "completion", "total", "cost",
        )
    },
    left_out_first=("duration", "embedding", "calls", "started", "completion", "prompt", "cost", "outcome"),
    left_aligned=frozenset({"run", "started", "outcome"}),
)  # fmt: skip
_STYLES = {RunOutcome.RUNNING: "green", RunOutcome.FAILED: "red", RunOutcome.INTERRUPTED: "yellow"}
_MINUTE = 60
_LONGEST = 86_399_999_999_999
"""Seconds: what a span of Python's can have."""


def fitted_runs(
    runs: Sequence[RunSummary], *, zone: ZoneInfo, width: int | None, signs: Signs, with_total: bool = False
) -> Fitted:
    """Make a table of runs, in the order given, for a terminal of so many columns; ``None``: as wide as it takes."""
    entries = [Entry(run.name, run_cells(run, zone, signs), style=_STYLES.get(run.outcome, "")) for run in runs]
    if with_total:
        entries.append(Entry("total", _sums(runs, signs), style="bold", is_total=True))
    return fitted_table(RUN_SHEET, entries, width=width, signs=signs)


def run_cells(run: RunSummary, zone: ZoneInfo, signs: Signs) -> dict[str, str]:
    """Show a run's facts and figures, by the name of their column."""
    mark = mark_of(run, signs)
    llm, embedding = (mark if calls else "" for calls in (run.calls.llm, run.calls.embedding))
    return {
        "run": readable(run.run_id, LONGEST_NAME),
        "started": in_zone(run.started_at, zone).replace(tzinfo=None).isoformat(" ", "seconds"),
        "outcome": run.outcome.value,
        "duration": duration(run.duration_seconds),
        "calls": f"{run.calls.llm + run.calls.embedding:,}",
        "embedding": f"{embedding}{run.embedding_tokens:,}",
        "prompt": f"{llm}{run.llm_prompt_tokens:,}",
        "completion": f"{llm}{run.llm_completion_tokens:,}",
        "total": f"{llm}{run.total_llm_tokens:,}",
        "cost": _cost(run, mark, signs),
    }


def price_note(runs: Iterable[RunSummary]) -> str | None:
    """Tell whose prices the costs of runs are, and of which days; ``None``: no cost tells."""
    sources = merged_sources(told for run in runs if run.cost is not None for told in run.cost.price_sources)
    return f"prices: {priced(sources)}" if sources else None


def mark_of(run: RunSummary, signs: Signs) -> str:
    """Choose the mark of a run's figures: a summary tells of all of them whether any is a bound or an estimate."""
    if run.lower_bound:
        return signs.at_least
    return signs.about if run.provenance.estimated.calls else ""


def duration(seconds: float) -> str:
    """Show a span of time: ``0.31 s``, ``4.2 s``, ``1:02:03``."""
    if seconds < 1:
        return f"{seconds:.2f} s"
    return f"{seconds:.1f} s" if seconds < _MINUTE else str(timedelta(seconds=round(min(seconds, _LONGEST))))


def _sums(runs: Sequence[RunSummary], signs: Signs) -> dict[str, str]:
    marks = {mark_of(run, signs) for run in runs}
    mark = next((mark for mark in (signs.at_least, signs.about) if mark in marks), "")
    llm, embedding = sum(run.calls.llm for run in runs), sum(run.calls.embedding for run in runs)
    of_llm = mark if llm else ""
    return dict.fromkeys(RUN_SHEET.headings, "") | {
        "calls": f"{llm + embedding:,}",
        "embedding": f"{mark if embedding else ''}{sum(run.embedding_tokens for run in runs):,}",
        "prompt": f"{of_llm}{sum(run.llm_prompt_tokens for run in runs):,}",
        "completion": f"{of_llm}{sum(run.llm_completion_tokens for run in runs):,}",
        "total": f"{of_llm}{sum(run.total_llm_tokens for run in runs):,}",
    }


def _cost(run: RunSummary, mark: str, signs: Signs) -> str:
    if run.cost is None or run.cost.amount is None or run.cost.currency is None:
        return signs.unknown
    amounts = {run.cost.currency: run.cost.amount} | run.cost.other_currencies
    shown = money({currency: Decimal(amount) for currency, amount in amounts.items()})
    return f"{signs.at_least if run.cost.unpriced_calls else mark}{readable(shown)}"
