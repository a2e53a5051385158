"""The values of this package: what one call used, and what one run used.

Pure values: frozen, with no behaviour but arithmetic, and no import but msgspec, so that every other room can lean on
them. Their JSON shape is the file format (``CallRecord`` is a line of ``calls-*.jsonl``, ``RunSummary`` is
``runs/<run_id>.json``) and their JSON Schema ships with the package.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from datetime import UTC, date, datetime, tzinfo
from typing import Annotated, Any, TypeVar

import msgspec

SCHEMA_VERSION = "1.0"

Tokens = Annotated[int, msgspec.Meta(ge=0)]
"""A number of tokens."""

_LARGEST_KEPT = 2**63 - 1

CallTokens = Annotated[int, msgspec.Meta(ge=0, le=_LARGEST_KEPT)]
"""A number of tokens of one call: one that a column of 64 bits holds, so that every table can have it."""

LARGEST = 2**53
"""The largest integer that every JSON reader keeps exact: what is larger is taken for no number of tokens."""

LARGEST_CONTEXT = 10_000_000
"""Tokens: the longest context window there is, https://www.llama.com/models/llama-4/ (2026-11)."""

Moment = Annotated[datetime, msgspec.Meta(extra_json_schema={"format": "date-time"})]
"""A moment, which we write in UTC; in files of others it may have another zone, or none: see ``read_record``."""

Amount = Annotated[str, msgspec.Meta(pattern=r"^\d+(\.\d+)?$")]
"""An amount of money: a decimal number in a string."""

Band = Annotated[float, msgspec.Meta(ge=0)]
"""A relative error."""


def in_zone(moment: datetime, zone: tzinfo = UTC) -> datetime:
    """Tell a moment in a zone; as it is, where that would lie before the first or after the last day there is.

    A moment without a zone is one in UTC.
    """
    try:
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).astimezone(zone)
    except OverflowError:
        return moment.replace(tzinfo=zone)


class _Word(enum.StrEnum):
    """A word of the file format."""

    __hash__ = str.__hash__  # that of Enum is written in Python, and the totals are kept by these words


class Operation(_Word):
    """What was asked of the provider."""

    CHAT = "chat"
    COMPLETION = "completion"
    RESPONSES = "responses"
    EMBEDDING = "embedding"


class Outcome(_Word):
    """How a call ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ABANDONED = "abandoned"
    NOT_STARTED = "not_started"


class RunOutcome(_Word):
    """How a run ended; ``running`` until then."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    """Its process died inside the run; the summary was made from the lines afterwards."""


class Provenance(_Word):
    """Where a figure comes from, best first: a later member is a weaker source."""

    REPORTED = "reported"
    """The provider's own word, as the wire carried it."""
    COUNTED = "counted"
    """Counted here, by the rule and the vocabulary that are known to be this model's."""
    ESTIMATED = "estimated"
    """Counted here, by the nearest rule or vocabulary."""
    PARTIAL = "partial"
    """A lower bound: counted from the part that arrived."""
    MISSING = "missing"
    """Nobody told, and there was nothing to count."""


class Doubt(_Word):
    """What speaks against figures that a provider told; they are kept as told."""

    SHRANK = "shrank"
    """A stream told its usage again, with fewer completion tokens than before; the last word is kept."""
    LARGER_THAN_ANY_CONTEXT = "larger_than_any_context"
    """More tokens than the context window of any model."""
    PART_EXCEEDS_WHOLE = "part_exceeds_whole"
    """More cached than prompt tokens, or more reasoning than completion tokens."""
    UNREADABLE_PART = "unreadable_part"
    """Some of the answer, or a count in its usage, could not be read; the usage may be older than the last word."""


_WEAKNESS = {provenance: rank for rank, provenance in enumerate(Provenance)}


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The tokens of one call, or of many added up; ``None`` (absent in JSON) is "not told", ``0`` is "none".

    ``prompt_tokens`` includes cached, image and audio prompt tokens, ``completion_tokens`` includes reasoning and
    audio: the other figures are parts of these two and are never added to them.
    """

    embedding_tokens: CallTokens | None = None
    prompt_tokens: CallTokens | None = None
    completion_tokens: CallTokens | None = None
    cache_read_tokens: CallTokens | None = None
    cache_write_tokens: CallTokens | None = None
    reasoning_tokens: CallTokens | None = None
    audio_prompt_tokens: CallTokens | None = None
    audio_completion_tokens: CallTokens | None = None
    image_prompt_tokens: CallTokens | None = None
    video_prompt_tokens: CallTokens | None = None
    cache_write_1h_tokens: CallTokens | None = None
    """Those of the written ones that live an hour; the others live five minutes."""
    accepted_prediction_tokens: CallTokens | None = None
    rejected_prediction_tokens: CallTokens | None = None

    def __add__(self, other: Usage) -> Usage:
        """Add figure by figure; "not told" adds nothing, so ``Usage()`` is the neutral element."""
        if not isinstance(other, Usage):
            return NotImplemented
        mine, theirs = msgspec.structs.astuple(self), msgspec.structs.astuple(other)
        added = (b if a is None else a if b is None else a + b for a, b in zip(mine, theirs, strict=True))
        return Usage(**dict(zip(Usage.__struct_fields__, added, strict=True)))

    def updated(self, later: Usage) -> Usage:
        """Take what a later part of the same stream tells; a later 0 or silence never erases an earlier figure."""
        told = {name: figure for name in Usage.__struct_fields__ if (figure := getattr(later, name))}
        return msgspec.structs.replace(self, **told)

    @property
    def total_llm_tokens(self) -> int:
        """Prompt plus completion tokens; embedding tokens are never in it."""
        return (self.prompt_tokens or 0) + (self.completion_tokens or 0)


class Sources(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The provenance of each figure of a call; ``None`` (absent in JSON) where the call has no such figure."""

    embedding: Provenance | None = None
    prompt: Provenance | None = None
    completion: Provenance | None = None
    embedding_error_band: Band | None = None
    """How far off an estimate may be, relative: 0.04 is 4 % to either side. ``None``: it is no estimate, or unknown."""
    prompt_error_band: Band | None = None
    completion_error_band: Band | None = None

    @property
    def weakest(self) -> Provenance:
        """The weakest source among the figures: what the call as a whole is worth."""
        if self.prompt is self.completion and self.prompt is not None and self.embedding is None:
            return self.prompt
        told = [source for source in (self.embedding, self.prompt, self.completion) if source is not None]
        return max(told, key=_WEAKNESS.__getitem__, default=Provenance.MISSING)


class CallRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at one request to a provider: a line of ``calls-*.jsonl``. It holds no text, no key and no header."""

    schema_version: str = SCHEMA_VERSION
    call_id: str
    """Ours, unique."""
    logical_call_id: str | None = None
    """The ``call_id`` of the first record of the same call of the host's: its retries and fallbacks are told by it."""
    run_id: str
    step: str | None
    agent: str | None = None
    """Who made the call: LlamaIndex's agent by its name, or LaVague's ``world_model`` or ``action_engine``."""
    session_id: str | None = None
    """The caller's, as told to LiteLLM."""
    tags: list[str] = []
    """The caller's, as told to LiteLLM."""
    framework: str
    """Whose hook saw the call: ``llama_index`` or ``litellm``; ``stream`` for ``counter.stream(...)``."""
    operation: Operation
    provider: str | None
    model: str | None
    """As it was asked for."""
    response_model: str | None
    """As the provider named it."""
    response_id: str | None
    """The provider's; may repeat, some servers send a constant."""
    streamed: bool
    attempt: Annotated[int, msgspec.Meta(ge=1, le=_LARGEST_KEPT)]
    outcome: Outcome
    cached: bool
    """Answered from the framework's own cache: nothing was billed, the usage is that of the original answer."""
    error: str | None
    """The class of the exception; its text may hold anything and is not kept."""
    started_at: Moment
    ended_at: Moment
    time_to_first_token_seconds: float | None
    usage: Usage
    provenance: Sources
    counting_method: str | None
    """Which vocabulary or rule counted, where it was us."""
    provider_usage: dict[str, Any] | None
    """The provider's usage object as it came, without strings that are more than a word."""
    doubts: list[Doubt] = []
    """What speaks against the provider's figures; empty, as nearly always: nothing."""


class Calls(msgspec.Struct, frozen=True, kw_only=True):
    """How many calls. ``llm + embedding`` are all; the others are among them, ``abandoned`` includes cancelled ones."""

    llm: Tokens = 0
    embedding: Tokens = 0
    failed: Tokens = 0
    abandoned: Tokens = 0
    retried: Tokens = 0
    cached: Tokens = 0
    doubted: Tokens = 0
    """Calls whose record names a doubt."""


class TokenDetails(msgspec.Struct, frozen=True, kw_only=True):
    """Parts of the prompt and completion tokens, as far as providers tell them."""

    cache_read: Tokens = 0
    cache_write: Tokens = 0
    reasoning: Tokens = 0
    audio_prompt: Tokens = 0
    audio_completion: Tokens = 0
    image_prompt: Tokens = 0
    video_prompt: Tokens = 0
    cache_write_1h: Tokens = 0
    accepted_prediction: Tokens = 0
    rejected_prediction: Tokens = 0


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """Calls whose weakest figure has this source, and tokens whose own figure has it."""

    calls: Tokens = 0
    tokens: Tokens = 0


class MissingShare(msgspec.Struct, frozen=True, kw_only=True):
    """Calls with a figure that nobody told."""

    calls: Tokens = 0


class ProvenanceShares(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a run rests on which source."""

    reported: Share = Share()
    counted: Share = Share()
    estimated: Share = Share()
    partial: Share = Share()
    missing: MissingShare = MissingShare()
    error_tokens: Tokens = 0
    """By how many tokens, in all, the figures with an error band may be off."""


class PriceSource(msgspec.Struct, frozen=True, kw_only=True):
    """Who told prices, since when these hold, and the days that they were taken for."""

    source: str
    """Such as ``genai-prices 0.2.3``; ``own table``; ``reported``: the provider told the cost."""
    dated: date | None
    """The latest day from which on one of its prices holds; ``None``: it does not say, as of a cost that was told."""
    first_day: date
    """UTC, of the first call that it told a price of: a price is that of the day of its call."""
    last_day: date
    """UTC, of the last such call."""

    def __or__(self, other: PriceSource) -> PriceSource:
        """Tell of the days of both; they are of one source."""
        if not isinstance(other, PriceSource):
            return NotImplemented
        return PriceSource(
            source=self.source,
            dated=max((day for day in (self.dated, other.dated) if day is not None), default=None),
            first_day=min(self.first_day, other.first_day),
            last_day=max(self.last_day, other.last_day),
        )


def merged_sources(told: Iterable[PriceSource]) -> list[PriceSource]:
    """Put together what each source told: one each, by its name."""
    merged: dict[str, PriceSource] = {}
    for one in told:
        known = merged.get(one.source)
        merged[one.source] = one if known is None else known | one
    return [merged[name] for name in sorted(merged)]


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What a run cost, by the prices known when this was written; amounts are decimal numbers in strings.

    Calls that a framework's cache answered cost nothing. The calls of runs inside this one are in theirs.
    """

    amount: Amount | None
    """Of the calls that have a price; ``None``: none has one."""
    currency: str | None
    price_source: str | None
    """Who told the prices, with the version; several with a comma. ``reported``: the provider told the cost."""
    unpriced_calls: Tokens
    """Calls that are not in the amount: their model's price is not known, or a figure of theirs is missing."""
    priced_at: Moment
    """When this was worked out."""
    prices_from: date | None = None
    """The latest day from which on a price that was applied holds; ``None``: no source tells."""
    unpriced_models: list[str] = []
    """The models whose price is not known."""
    calls_without_figures: Tokens = 0
    """Of the unpriced calls, those with a figure that is missing or impossible: most of them failed."""
    other_currencies: dict[str, Amount] = {}
    """What was priced in other currencies than ``currency``, the one of most calls; none is in the amount."""
    price_sources: list[PriceSource] = []
    """Who told the prices, by name, and of which days they are; empty: nothing priced, or written before this was."""


class GroupTotals(msgspec.Struct, frozen=True, kw_only=True):
    """The share of one model, step or agent in a run; ``name`` is ``None`` where a call had none."""

    name: str | None
    calls: Tokens
    embedding_tokens: Tokens
    llm_prompt_tokens: Tokens
    llm_completion_tokens: Tokens
    total_llm_tokens: Tokens


class FourTotals(msgspec.Struct, frozen=True, kw_only=True):
    """LaVague's four keys."""

    embedding_tokens: Tokens
    llm_prompt_tokens: Tokens
    llm_completion_tokens: Tokens
    total_llm_tokens: Tokens


class Producer(msgspec.Struct, frozen=True, kw_only=True):
    """Who wrote the file."""

    name: str
    version: str


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What one run used: ``runs/<run_id>.json``, opening with the four keys that LaVague made known.

    The figures are those of the calls that landed in this very run; ``including_nested`` adds the runs opened in it.
    """

    embedding_tokens: Tokens
    llm_prompt_tokens: Tokens
    llm_completion_tokens: Tokens
    total_llm_tokens: Tokens
    schema_version: str = SCHEMA_VERSION
    run_id: str
    parent_run_id: str | None
    name: str
    tags: dict[str, str]
    outcome: RunOutcome
    started_at: Moment
    ended_at: Moment | None
    duration_seconds: float
    calls: Calls
    token_details: TokenDetails
    provenance: ProvenanceShares
    lower_bound: bool
    """True where a figure is partial or missing: the run used at least this much."""
    cost: Cost | None
    """``None``: not priced, or nothing to price."""
    by_model: list[GroupTotals]
    by_step: list[GroupTotals]
    by_agent: list[GroupTotals]
    budget: dict[str, Any] | None
    """``None``: none was set."""
    including_nested: FourTotals
    internal_errors: Tokens
    """Faults inside token_callbacks or of its log folder, and usage of a provider's that is broken; each is logged."""
    lost_records: Tokens = 0
    """Calls that are in the figures above while the log folder, or another sink, did not take their record."""
    producer: Producer


class OpenRun(msgspec.Struct, frozen=True, kw_only=True):
    """What the lines of a run do not tell of it: a file in ``open/`` until the run has its summary."""

    schema_version: str = SCHEMA_VERSION
    run_id: str
    parent_run_id: str | None
    name: str
    tags: dict[str, str]
    started_at: Moment
    is_joined: bool = False
    """Whether another process opened the run and this one only takes part."""
    lost_records: Tokens = 0
    """Of a part that is done: calls of it that have no line."""
    internal_errors: Tokens = 0


_Dated = TypeVar("_Dated", CallRecord, RunSummary, OpenRun)

_record = msgspec.json.Decoder(CallRecord)
_summary = msgspec.json.Decoder(RunSummary)
_open_run = msgspec.json.Decoder(OpenRun)


def read_record(line: bytes) -> CallRecord:
    """Read a line of ``calls-*.jsonl``, with its moments in UTC; one without a zone, which is none of ours, is so.

    Raises ``msgspec.DecodeError``, ``UnicodeDecodeError`` or ``RecursionError`` for what is no such line.
    """
    return _in_utc(_record.decode(line))


def read_summary(content: bytes) -> RunSummary:
    """Read a file of ``runs/`` in the same way; raises the same."""
    return _in_utc(_summary.decode(content))


def read_open_run(content: bytes) -> OpenRun:
    """Read a file of ``open/`` in the same way; raises the same."""
    return _in_utc(_open_run.decode(content))


def _in_utc(dated: _Dated) -> _Dated:
    odd = {
        name: in_zone(moment)
        for name in ("started_at", "ended_at")
        if (moment := getattr(dated, name, None)) is not None and moment.tzinfo is not UTC
    }
    return msgspec.structs.replace(dated, **odd) if odd else dated
