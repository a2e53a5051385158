"""The running fold of a run's records into its summary.

Every record is folded in once, when it is made, so that a summary costs the same after ten calls and after a hundred
thousand, and no record has to stay in memory. Folding the lines of the log gives the same summary again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from token_callbacks.charges import EXACT, Charge, Charged, Key, charge_from, key_of
from token_callbacks.records import (
    CallRecord,
    Calls,
    FourTotals,
    GroupTotals,
    MissingShare,
    Operation,
    Outcome,
    Provenance,
    ProvenanceShares,
    Share,
    Sources,
    TokenDetails,
    Usage,
)

_WHOLES = 3
"""``Usage`` begins with embedding, prompt and completion; the parts after them are in ``TokenDetails``' order."""

_NOTHING = Usage()

_MODEL = Charge.__struct_fields__.index("model")

# A member of an enumeration takes longer to reach than a global, and this is on the path of every call.
_EMBEDDING, _PARTIAL, _MISSING = Operation.EMBEDDING, Provenance.PARTIAL, Provenance.MISSING
_FAILED, _ABANDONED, _CANCELLED, _NOT_STARTED = (
    Outcome.FAILED,
    Outcome.ABANDONED,
    Outcome.CANCELLED,
    Outcome.NOT_STARTED,
)


class _Group:
    """The running totals of one model or step."""

    __slots__ = ("calls", "completion", "embedding", "prompt")

    def __init__(self) -> None:
        self.calls = self.embedding = self.prompt = self.completion = 0

    def add(self, embedding: int, prompt: int, completion: int) -> None:
        self.calls += 1
        self.embedding += embedding
        self.prompt += prompt
        self.completion += completion

    def absorb(self, other: _Group) -> None:
        self.calls += other.calls
        self.embedding += other.embedding
        self.prompt += other.prompt
        self.completion += other.completion


class _Bill:
    """The running totals of one charge."""

    __slots__ = ("calls", "figures", "reported")

    def __init__(self) -> None:
        self.calls = 0
        self.figures = [0] * len(Usage.__struct_fields__)
        self.reported: Decimal | None = None

    def add(self, figures: Sequence[Any], reported: Decimal | None) -> None:
        self.calls += 1
        sums = self.figures
        for position, figure in enumerate(figures):
            if figure:  # nothing to add: not told, or none
                sums[position] += figure
        if reported is not None:
            self.reported = reported if self.reported is None else EXACT.add(self.reported, reported)

    def absorb(self, other: _Bill) -> None:
        self.calls += other.calls
        self.figures = [mine + theirs for mine, theirs in zip(self.figures, other.figures, strict=True)]
        if other.reported is not None:
            self.reported = EXACT.add(self.reported or Decimal(0), other.reported)


class Totals:
    """Running totals of records; not thread-safe, the ledger's lock guards it.

    Calls that the framework answered from its own cache are counted as calls and add no tokens: nothing was billed.
    """

    __slots__ = (
        "_abandoned",
        "_agents",
        "_bills",
        "_cached",
        "_doubted",
        "_embedding_calls",
        "_error_tokens",
        "_failed",
        "_lower_bound",
        "_retried",
        "_source_calls",
        "_source_tokens",
        "_steps",
        "_whole",
    )

    def __init__(self, records: Iterable[CallRecord] = ()) -> None:
        self._whole = _Group()
        self._embedding_calls = self._failed = self._abandoned = self._retried = self._cached = self._doubted = 0
        self._bills: dict[Key, _Bill] = {}
        self._source_calls = dict.fromkeys(Provenance, 0)
        self._source_tokens = dict.fromkeys(Provenance, 0)
        self._steps: dict[str | None, _Group] = {}
        self._agents: dict[str | None, _Group] = {}
        self._lower_bound = False
        self._error_tokens = 0.0
        for record in records:
            self.add(record)

    def add(self, record: CallRecord) -> None:
        """Fold one record in."""
        usage, sources, outcome = record.usage, record.provenance, record.outcome
        if record.operation is _EMBEDDING:
            self._embedding_calls += 1
        if record.attempt > 1:
            self._retried += 1
        if outcome is _FAILED:
            self._failed += 1
        elif outcome is _ABANDONED or outcome is _CANCELLED:
            self._abandoned += 1
        if record.doubts:
            self._doubted += 1
        if record.cached:
            self._cached += 1
            usage = _NOTHING
        else:
            self._add_sources(usage, sources)
        self._add_bill(record)
        figures = (usage.embedding_tokens or 0, usage.prompt_tokens or 0, usage.completion_tokens or 0)
        self._whole.add(*figures)
        if record.step is not None:
            _group(self._steps, record.step).add(*figures)
        if record.agent is not None:
            _group(self._agents, record.agent).add(*figures)
        weakest = sources.weakest
        self._source_calls[weakest] += 1
        if (weakest is _PARTIAL or weakest is _MISSING) and outcome is not _NOT_STARTED:
            self._lower_bound = True

    def _add_bill(self, record: CallRecord) -> None:
        figures = msgspec.structs.astuple(record.usage)
        key, reported = key_of(record, figures)
        bill = self._bills.get(key)
        if bill is None:
            bill = self._bills[key] = _Bill()
        bill.add(() if record.cached else figures, reported)

    def _add_sources(self, usage: Usage, sources: Sources) -> None:
        tokens = self._source_tokens
        if usage.embedding_tokens is not None and sources.embedding is not None:
            tokens[sources.embedding] += usage.embedding_tokens
        if usage.prompt_tokens is not None and sources.prompt is not None:
            tokens[sources.prompt] += usage.prompt_tokens
        if usage.completion_tokens is not None and sources.completion is not None:
            tokens[sources.completion] += usage.completion_tokens
        if sources.prompt_error_band is not None:
            self._error_tokens += sources.prompt_error_band * (usage.prompt_tokens or 0)
        if sources.completion_error_band is not None:
            self._error_tokens += sources.completion_error_band * (usage.completion_tokens or 0)
        if sources.embedding_error_band is not None:
            self._error_tokens += sources.embedding_error_band * (usage.embedding_tokens or 0)

    def merged(self, other: Totals) -> Totals:
        """Return the totals of the records of both."""
        sums = Totals()
        for part in (self, other):
            sums._absorb(part)
        return sums

    def _absorb(self, other: Totals) -> None:
        self._whole.absorb(other._whole)
        self._embedding_calls += other._embedding_calls
        self._failed += other._failed
        self._abandoned += other._abandoned
        self._retried += other._retried
        self._cached += other._cached
        self._doubted += other._doubted
        self._lower_bound = self._lower_bound or other._lower_bound
        self._error_tokens += other._error_tokens
        for key, bill in other._bills.items():
            self._bills.setdefault(key, _Bill()).absorb(bill)
        for source in Provenance:
            self._source_calls[source] += other._source_calls[source]
            self._source_tokens[source] += other._source_tokens[source]
        for mine, theirs in ((self._steps, other._steps), (self._agents, other._agents)):
            for name, group in theirs.items():
                _group(mine, name).absorb(group)

    @property
    def four(self) -> FourTotals:
        """LaVague's four figures."""
        whole = self._whole
        return FourTotals(
            embedding_tokens=whole.embedding,
            llm_prompt_tokens=whole.prompt,
            llm_completion_tokens=whole.completion,
            total_llm_tokens=whole.prompt + whole.completion,
        )

    @property
    def calls(self) -> Calls:
        """How many calls, and how they ended."""
        return Calls(
            llm=self._whole.calls - self._embedding_calls,
            embedding=self._embedding_calls,
            failed=self._failed,
            abandoned=self._abandoned,
            retried=self._retried,
            cached=self._cached,
            doubted=self._doubted,
        )

    @property
    def token_details(self) -> TokenDetails:
        """Parts of the prompt and completion tokens."""
        figures = [0] * len(Usage.__struct_fields__)
        for bill in self._bills.values():
            figures = [mine + theirs for mine, theirs in zip(figures, bill.figures, strict=True)]
        return TokenDetails(**dict(zip(TokenDetails.__struct_fields__, figures[_WHOLES:], strict=True)))

    @property
    def charges(self) -> list[Charged]:
        """What there is to be priced, in order of first use."""
        return [
            Charged(
                charge=charge_from(key),
                usage=Usage(**dict(zip(Usage.__struct_fields__, bill.figures, strict=True))),
                calls=bill.calls,
                reported=bill.reported,
            )
            for key, bill in self._bills.items()
        ]

    @property
    def provenance(self) -> ProvenanceShares:
        """How much rests on which source."""
        shares = {
            source.value: Share(calls=self._source_calls[source], tokens=self._source_tokens[source])
            for source in Provenance
            if source is not Provenance.MISSING
        }
        missing = MissingShare(calls=self._source_calls[Provenance.MISSING])
        return ProvenanceShares(missing=missing, error_tokens=math.ceil(round(self._error_tokens, 6)), **shares)

    @property
    def lower_bound(self) -> bool:
        """Whether any figure is partial or missing."""
        return self._lower_bound

    @property
    def by_model(self) -> list[GroupTotals]:
        """Totals by the model that was asked for, in order of first use."""
        models: dict[str | None, _Group] = {}
        for key, bill in self._bills.items():
            group = _group(models, key[_MODEL])
            group.calls += bill.calls
            group.embedding += bill.figures[0]
            group.prompt += bill.figures[1]
            group.completion += bill.figures[2]
        return _rows(models)

    @property
    def by_step(self) -> list[GroupTotals]:
        """Totals by step, in order of first use; calls outside any step are in none."""
        return _rows(self._steps)

    @property
    def by_agent(self) -> list[GroupTotals]:
        """Totals by agent, in order of first use; calls that no agent made are in none."""
        return _rows(self._agents)


def _group(groups: dict[str | None, _Group], name: str | None) -> _Group:
    group = groups.get(name)
    if group is None:
        group = groups[name] = _Group()
    return group


def _rows(groups: dict[str | None, _Group]) -> list[GroupTotals]:
    return [
        GroupTotals(
            name=name,
            calls=group.calls,
            embedding_tokens=group.embedding,
            llm_prompt_tokens=group.prompt,
            llm_completion_tokens=group.completion,
            total_llm_tokens=group.prompt + group.completion,
        )
        for name, group in groups.items()
    ]
