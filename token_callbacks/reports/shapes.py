"""The JSON that the command prints: values with a published schema, in which every key is always there.

Words and rules are those of the files: ``None`` is "not told", ``0`` is "none", money is a decimal number in a string
beside its currency, times are UTC.
"""

from __future__ import annotations

from datetime import date, datetime

import msgspec

from token_callbacks.records import SCHEMA_VERSION, Amount, CallRecord, PriceSource, Provenance, RunSummary, Tokens


class Money(msgspec.Struct, frozen=True, kw_only=True):
    """An amount in one currency."""

    amount: Amount
    currency: str


class CallsBySource(msgspec.Struct, frozen=True, kw_only=True):
    """Calls by the weakest source among their figures."""

    reported: Tokens
    counted: Tokens
    estimated: Tokens
    partial: Tokens
    missing: Tokens


class TokensBySource(msgspec.Struct, frozen=True, kw_only=True):
    """Embedding, prompt and completion tokens by the source of the very figure."""

    reported: Tokens
    counted: Tokens
    estimated: Tokens
    partial: Tokens


class WeakestSources(msgspec.Struct, frozen=True, kw_only=True):
    """The weakest source of each figure; ``None``: no call has such a figure."""

    embedding: Provenance | None
    prompt: Provenance | None
    completion: Provenance | None


class ReportRow(msgspec.Struct, frozen=True, kw_only=True):
    """What the calls of one group used; cached and written tokens are parts of the prompt, reasoning is of the rest."""

    group: str | None
    """``None``: the calls that have none (no step, no such tag), and the total."""
    name: str | None
    """Of the run, where the groups are runs and it is known."""
    embedding_tokens: Tokens | None
    llm_prompt_tokens: Tokens | None
    cache_read_tokens: Tokens | None
    cache_write_tokens: Tokens | None
    llm_completion_tokens: Tokens | None
    reasoning_tokens: Tokens | None
    total_llm_tokens: Tokens | None
    costs: list[Money]
    """One a currency, by its name; empty: nothing priced."""
    price_sources: list[PriceSource]
    """Who told the prices, by name, and of which days they are; empty: nothing priced."""
    unpriced_calls: Tokens
    """Calls whose price, or what they used, is not known; they are not in ``costs``."""
    unpriced_models: list[str]
    """Models that nobody knows a price for."""
    calls_without_figures: Tokens
    """Among the unpriced calls, those with a figure that a price takes missing, or contradicting another."""
    calls: Tokens
    failed_calls: Tokens
    cached_calls: Tokens
    calls_by_source: CallsBySource
    tokens_by_source: TokensBySource
    weakest_sources: WeakestSources
    lower_bound: bool
    """A figure is partial or missing: the group used at least this much."""
    models: list[ReportRow] | None
    """The same by model; ``None``: not asked for (``--details``), or this is a model's own row."""


class SkippedLines(msgspec.Struct, frozen=True, kw_only=True):
    """Lines or files that are not in the figures."""

    reason: str
    """``torn``, ``unreadable``, ``newer``, ``too_long``, ``unreadable_files``, ``foreign_files``, ``copied_files``."""
    count: Tokens
    example: str
    """Where the first one is."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What ``token-callbacks report --json`` prints."""

    schema_version: str = SCHEMA_VERSION
    by: str
    timezone: str
    """Whose days, weeks and months these are."""
    since: datetime | None
    until: datetime | None
    """The first moment that is no more in it."""
    rows: list[ReportRow]
    total: ReportRow
    skipped: list[SkippedLines]


class RunList(msgspec.Struct, frozen=True, kw_only=True):
    """What ``token-callbacks runs --json`` prints: newest first."""

    schema_version: str = SCHEMA_VERSION
    runs: list[RunSummary]
    left_out: Tokens
    """Older ones, past ``--limit``."""


class RunBranch(msgspec.Struct, frozen=True, kw_only=True):
    """The calls that a run made in one step, by one agent."""

    step: str | None
    agent: str | None
    embedding_tokens: Tokens
    llm_prompt_tokens: Tokens
    llm_completion_tokens: Tokens
    total_llm_tokens: Tokens
    calls: list[CallRecord]
    """The first ones, in the order they began."""
    calls_left_out: Tokens
    """Those past ``--calls``; the figures have them."""


class RunTree(msgspec.Struct, frozen=True, kw_only=True):
    """A run with its calls and the runs that were opened in it."""

    run: RunSummary
    branches: list[RunBranch]
    nested: list[RunTree]
    nested_left_out: Tokens
    """The runs of the levels below, where this is the last one that is shown."""


class ShownRun(msgspec.Struct, frozen=True, kw_only=True):
    """What ``token-callbacks show --json`` prints."""

    schema_version: str = SCHEMA_VERSION
    tree: RunTree


class CountedFile(msgspec.Struct, frozen=True, kw_only=True):
    """The tokens of one file; ``-`` is what came in."""

    name: str
    tokens: Tokens
    is_exact: bool


class PromptPrice(msgspec.Struct, frozen=True, kw_only=True):
    """What a prompt costs."""

    amount: Amount
    currency: str
    source: str
    """Who told the price."""
    dated: date | None
    """The day from which on it holds; ``None``: the source does not say."""
    day: date
    """The UTC day that it is the price of: today."""


class CountedFiles(msgspec.Struct, frozen=True, kw_only=True):
    """What ``token-callbacks count --json`` prints."""

    model: str
    files: list[CountedFile]
    tokens: Tokens
    is_exact: bool
    prompt_price: PromptPrice | None
    """``None``: nobody knows the price."""
