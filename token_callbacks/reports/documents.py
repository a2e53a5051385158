"""A report as the JSON that is printed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from token_callbacks.prices.costs import as_text
from token_callbacks.records import Provenance
from token_callbacks.reports.cells import total_tokens
from token_callbacks.reports.rows import Row
from token_callbacks.reports.shapes import (
    CallsBySource,
    Money,
    ReportRow,
    SkippedLines,
    TokensBySource,
    WeakestSources,
)
from token_callbacks.reports.skipped import Skipped


def shaped_row(row: Row, *, name: str | None = None, models: Sequence[Row] | None = None) -> ReportRow:
    """Shape a row, with the name of the run that it is of, and with the rows of its models if they were asked for."""
    usage = row.usage
    return ReportRow(
        group=row.group,
        name=name,
        embedding_tokens=usage.embedding_tokens,
        llm_prompt_tokens=usage.prompt_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        llm_completion_tokens=usage.completion_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        total_llm_tokens=total_tokens(row),
        costs=[Money(amount=as_text(amount), currency=currency) for currency, amount in sorted(row.costs.items())],
        price_sources=list(row.price_sources),
        unpriced_calls=row.unpriced_calls,
        unpriced_models=list(row.unpriced_models),
        calls_without_figures=row.calls_without_figures,
        calls=row.calls,
        failed_calls=row.failed,
        cached_calls=row.cached,
        calls_by_source=CallsBySource(**_by_source(row.calls_by_source, CallsBySource.__struct_fields__)),
        tokens_by_source=TokensBySource(**_by_source(row.tokens_by_source, TokensBySource.__struct_fields__)),
        weakest_sources=WeakestSources(
            embedding=row.weakest.embedding, prompt=row.weakest.prompt, completion=row.weakest.completion
        ),
        lower_bound=row.lower_bound,
        models=None if models is None else [shaped_row(model) for model in models],
    )


def shaped_skipped(skipped: Skipped) -> list[SkippedLines]:
    """Shape what was passed over; empty where nothing was."""
    counts = {kind: getattr(skipped, kind) for kind in Skipped.__struct_fields__ if kind != "examples"}
    return [
        SkippedLines(reason=kind, count=count, example=skipped.examples.get(kind, ""))
        for kind, count in counts.items()
        if count
    ]


def _by_source(figures: Mapping[Provenance, int], names: Iterable[str]) -> dict[str, int]:
    return {name: figures.get(Provenance(name), 0) for name in names}
