"""The running fold of a run's records into its summary.

Every call is folded in once, when it ends, so that a summary costs the same after ten calls and after a hundred
thousand like them, and no record has to stay in memory. Folding the lines of the log gives the same summary again.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import compress
from typing import Any

import msgspec
from msgspec.structs import astuple

from token_callbacks.charges import BAND_STARTS, EXACT, Charge, Charged, Key, charge_from, half_hour_of, key_of
from token_callbacks.records import (
    LARGEST,
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

_CHARGE = len(Charge.__struct_fields__)
_MODEL = Charge.__struct_fields__.index("model")
_OPERATION = Charge.__struct_fields__.index("operation")
_ABANDONED = (Outcome.ABANDONED, Outcome.CANCELLED)
_LOWER_BOUNDS = (Provenance.PARTIAL, Provenance.MISSING)


class _Group:
    """The totals of one model, step or agent."""

    __slots__ = ("calls", "completion", "embedding", "prompt")

    def __init__(self) -> None:
        self.calls = self.embedding = self.prompt = self.completion = 0

    def add(self, sums: _Sums) -> None:
        self.calls += sums.calls
        self.embedding += sums.figures[0]
        self.prompt += sums.figures[1]
        self.completion += sums.figures[2]


class _Sums:
    """The running totals of calls that differ in nothing but their figures."""

    __slots__ = ("calls", "figures", "reported")

    def __init__(self) -> None:
        self.calls = 0
        self.figures = [0] * len(Usage.__struct_fields__)
        self.reported: Decimal | None = None

    def report(self, amount: Decimal | None) -> None:
        if amount is not None:
            self.reported = amount if self.reported is None else EXACT.add(self.reported, amount)

    def absorb(self, other: _Sums) -> None:
        self.calls += other.calls
        self.figures = [mine + theirs for mine, theirs in zip(self.figures, other.figures, strict=True)]
        self.report(other.reported)


class _Kind(msgspec.Struct, frozen=True):
    """What the calls of one sum have in common beside their charge; the end of its key, in its order."""

    agent: str | None
    sources: Sources
    outcome: Outcome
    is_retried: bool
    is_doubted: bool
    is_cached: bool
    step: str | None
    """The one thing that a call's entry does not tell: each counter has steps of its own."""


Likeness = tuple[Any, ...]
"""What calls have in common, as far as it is known without a look at their figures.

Whose and what it was: the operation, the provider, the model asked for and the response's; then what is in ``_Kind``,
but for the step.
"""

Entry = tuple[Likeness, datetime, Usage, Mapping[str, Any] | None]
"""What is added for a call: its likeness, its start in UTC, the usage, and the provider's usage object."""

COUNTS: Mapping[str, Any] = {}
"""In its place, where only counts are in it, none of them doubtful, of parts that lie beside one another."""


_POSITIONS = range(len(Usage.__struct_fields__))
_MOST_WAITING = 32
_ASKED = slice(0, 3)
_RESPONSE_MODEL = 3
_KIND = slice(4, None)
"""Where in a likeness they are."""

_OUTCOME, _IS_CACHED = (4 + _Kind.__struct_fields__.index(name) for name in ("outcome", "is_cached"))
_AGENT, _STEP = (_CHARGE + _Kind.__struct_fields__.index(name) for name in ("agent", "step"))
"""Where in a key they are."""

_NEVER = datetime.max.replace(tzinfo=UTC)


class Totals:
    """Running totals of calls; not thread-safe, the ledger's lock guards it.

    A call is added to one sum, that of the calls like it in everything but the figures; all else is told from the sums
    when it is asked for. Calls that the framework answered from its own cache add no tokens: nothing was billed. A few
    calls wait and are added together, which takes about 1 us a call less than each at its end (LlamaIndex's calls,
    Python 3.11): what the host did meanwhile has driven all of this out of the processor's cache.
    """

    __slots__ = ("_folded", "_last", "_last_plain", "_waiting")

    def __init__(self, records: Iterable[CallRecord] = ()) -> None:
        self._waiting: list[tuple[Entry, str | None]] = []
        self._folded: dict[Key, _Sums] = {}
        self._last: tuple[Key, _Sums] = (), _Sums()
        self._last_plain: tuple[Likeness, str | None, datetime, datetime, _Sums] = (), None, _NEVER, _NEVER, _Sums()
        for record in records:
            self.add(record)

    def add(self, record: CallRecord) -> None:
        """Fold one record in."""
        whose = (record.operation, record.provider, record.model, record.response_model)
        is_retried, is_doubted = record.attempt > 1, bool(record.doubts)
        kind = (record.agent, record.provenance, record.outcome, is_retried, is_doubted, record.cached)
        self.fold(((*whose, *kind), record.started_at, record.usage, record.provider_usage), record.step)

    def fold(self, entry: Entry, step: str | None) -> None:
        """Fold one call in, for which there need be no record, as part of a step or of none."""
        waiting = self._waiting
        waiting.append((entry, step))
        if len(waiting) >= _MOST_WAITING:
            self._fold_waiting()

    def _fold_waiting(self) -> None:
        waiting = self._waiting
        like, last_step, since, until, last = self._last_plain
        while waiting:
            (likeness, started_at, usage, told), step = waiting.pop(0)
            figures, reported = astuple(usage), None
            is_plain = told is COUNTS and (figures[1] or 0) < BAND_STARTS[0]
            if is_plain and likeness == like and step == last_step and since <= started_at < until:
                sums = last  # mostly one call is like the one before it
            else:
                sums, reported = self._look_up(likeness, started_at, figures, told, step)
                if is_plain:
                    since, until = half_hour_of(started_at)
                    like, last_step, last = likeness, step, sums
                    self._last_plain = like, last_step, since, until, last
            sums.calls += 1
            if likeness[_IS_CACHED]:
                continue
            added = sums.figures
            for position in compress(_POSITIONS, figures):  # nothing to add: not told, or none
                added[position] += figures[position]
            if reported is not None:
                sums.report(reported)

    def _look_up(
        self,
        likeness: Likeness,
        started_at: datetime,
        figures: Sequence[Any],
        told: Mapping[str, Any] | None,
        step: str | None,
    ) -> tuple[_Sums, Decimal | None]:
        """Find the sum that a call is added to, and the cost that it reports."""
        charge, reported = key_of(
            (*likeness[_ASKED], started_at),
            figures,
            outcome=likeness[_OUTCOME],
            is_cached=likeness[_IS_CACHED],
            response_model=likeness[_RESPONSE_MODEL],
            told=told,
        )
        key = (*charge, *likeness[_KIND], step)
        last, sums = self._last
        if key != last:
            last, sums = self._last = key, self._folded.setdefault(key, _Sums())
        return sums, reported

    @property
    def _sums(self) -> dict[Key, _Sums]:
        if self._waiting:
            self._fold_waiting()
        return self._folded

    @property
    def is_empty(self) -> bool:
        """Whether no call is in it; the one thing that may be asked without the lock."""
        return not self._waiting and not self._folded

    def merged(self, other: Totals) -> Totals:
        """Return the totals of the calls of both."""
        both = Totals()
        for part in (self, other):
            both._absorb(part)
        return both

    def _absorb(self, other: Totals) -> None:
        for key, sums in other._sums.items():
            self._sums.setdefault(key, _Sums()).absorb(sums)

    def _kinds(self) -> Iterator[tuple[_Kind, _Sums]]:
        for key, sums in self._sums.items():
            yield _Kind(*key[_CHARGE:]), sums

    def _calls(self, is_meant: Callable[[_Kind], bool]) -> int:
        return sum(sums.calls for kind, sums in self._kinds() if is_meant(kind))

    def _figures(self) -> list[int]:
        return [
            sum(column) for column in zip(_NO_FIGURES, *(sums.figures for sums in self._sums.values()), strict=True)
        ]

    def _groups(self, name_of: Callable[[Key], str | None]) -> dict[str | None, _Group]:
        groups: dict[str | None, _Group] = {}
        for key, sums in self._sums.items():
            name = name_of(key)
            group = groups.get(name)
            if group is None:
                group = groups[name] = _Group()
            group.add(sums)
        return groups

    @property
    def four(self) -> FourTotals:
        """LaVague's four figures."""
        embedding, prompt, completion = self._figures()[:_WHOLES]
        return FourTotals(
            embedding_tokens=embedding,
            llm_prompt_tokens=prompt,
            llm_completion_tokens=completion,
            total_llm_tokens=prompt + completion,
        )

    @property
    def calls(self) -> Calls:
        """How many calls, and how they ended."""
        embedding = sum(sums.calls for key, sums in self._sums.items() if key[_OPERATION] is Operation.EMBEDDING)
        return Calls(
            llm=self._calls(lambda _: True) - embedding,
            embedding=embedding,
            failed=self._calls(lambda kind: kind.outcome is Outcome.FAILED),
            abandoned=self._calls(lambda kind: kind.outcome in _ABANDONED),
            retried=self._calls(lambda kind: kind.is_retried),
            cached=self._calls(lambda kind: kind.is_cached),
            doubted=self._calls(lambda kind: kind.is_doubted),
        )

    @property
    def token_details(self) -> TokenDetails:
        """Parts of the prompt and completion tokens."""
        return TokenDetails(**dict(zip(TokenDetails.__struct_fields__, self._figures()[_WHOLES:], strict=True)))

    @property
    def charges(self) -> list[Charged]:
        """What there is to be priced, in order of first use."""
        bills: dict[Key, _Sums] = {}
        for key, sums in self._sums.items():
            bills.setdefault(key[:_CHARGE], _Sums()).absorb(sums)
        return [
            Charged(
                charge=charge_from(key),
                usage=Usage(**dict(zip(Usage.__struct_fields__, bill.figures, strict=True))),
                calls=bill.calls,
                reported=bill.reported,
            )
            for key, bill in bills.items()
        ]

    @property
    def provenance(self) -> ProvenanceShares:
        """How much rests on which source."""
        calls, tokens, error_tokens = dict.fromkeys(Provenance, 0), dict.fromkeys(Provenance, 0), 0.0
        for kind, sums in self._kinds():
            sources = kind.sources
            calls[sources.weakest] += sums.calls
            for source, figure in zip(
                (sources.embedding, sources.prompt, sources.completion), sums.figures, strict=False
            ):
                if source is not None:
                    tokens[source] += figure
            bands = (sources.embedding_error_band, sources.prompt_error_band, sources.completion_error_band)
            error_tokens += sum(
                band * figure for band, figure in zip(bands, sums.figures, strict=False) if band is not None
            )
        shares = {
            source.value: Share(calls=calls[source], tokens=tokens[source])
            for source in Provenance
            if source is not Provenance.MISSING
        }
        missing = MissingShare(calls=calls[Provenance.MISSING])
        return ProvenanceShares(missing=missing, error_tokens=math.ceil(min(round(error_tokens, 6), LARGEST)), **shares)

    @property
    def lower_bound(self) -> bool:
        """Whether any figure is partial or missing."""
        return any(
            kind.sources.weakest in _LOWER_BOUNDS and kind.outcome is not Outcome.NOT_STARTED
            for kind, _ in self._kinds()
        )

    @property
    def by_model(self) -> list[GroupTotals]:
        """Totals by the model that was asked for, in order of first use."""
        return _rows(self._groups(operator.itemgetter(_MODEL)))

    @property
    def by_step(self) -> list[GroupTotals]:
        """Totals by step, in order of first use; calls outside any step are in none."""
        return _rows(self._groups(operator.itemgetter(_STEP)), without_name=False)

    @property
    def by_agent(self) -> list[GroupTotals]:
        """Totals by agent, in order of first use; calls that no agent made are in none."""
        return _rows(self._groups(operator.itemgetter(_AGENT)), without_name=False)


_NO_FIGURES = [0] * len(Usage.__struct_fields__)


def _rows(groups: dict[str | None, _Group], *, without_name: bool = True) -> list[GroupTotals]:
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
        if without_name or name is not None
    ]
