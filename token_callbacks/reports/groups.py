"""The calls of some logs -> rows of a report: what each run, day, model ... used, and all of them together."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta, tzinfo
from operator import attrgetter
from typing import Any, Literal, Protocol

import msgspec

from token_callbacks.charges import REPORTED
from token_callbacks.errors import InvalidArgument, MissingExtra
from token_callbacks.records import CallRecord, Operation, Outcome, PriceSource, Provenance, Sources, Usage, in_zone
from token_callbacks.reports.costs import Costs
from token_callbacks.reports.logs import CallsFile, Logs, RunFacts
from token_callbacks.reports.parts import Key, Part, Plan, Progress, typical
from token_callbacks.reports.rows import Row
from token_callbacks.reports.skipped import Skipped

GROUPINGS = ("run", "day", "week", "month", "model", "provider", "step", "agent")
"""What calls can be grouped by, besides ``tag:KEY``."""

TAG = "tag:"
Engine = Literal["auto", "duckdb", "streaming"]

_TIMES = {"day": "%Y-%m-%d", "week": "%G-W%V", "month": "%Y-%m"}
_WEAKNESS = {provenance: rank for rank, provenance in enumerate(Provenance)}


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which calls to take; ``None``: all."""

    since: datetime | None = None
    """Calls that started at this moment or later; must have a time zone."""
    until: datetime | None = None
    """Calls that started before this moment."""
    run: str | None = None
    """The id of a run, the beginning of one, or a run's name."""
    model: str | None = None
    """A pattern as of file names (``gpt-4o*``), for the model that was asked for; upper and lower case are the same."""
    tag: tuple[str, str | None] | None = None
    """A tag of the run, and its value; ``None``: any value."""

    def __post_init__(self) -> None:
        """Raise ``InvalidArgument`` for a moment without a time zone."""
        for moment in (self.since, self.until):
            if moment is not None and moment.tzinfo is None:
                raise InvalidArgument(f"{moment} has no time zone: pass one, as in moment.astimezone()")

    @property
    def asks_for_runs(self) -> bool:
        """Whether it takes the run to tell."""
        return self.run is not None or self.tag is not None


class Aggregate(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of a report."""

    rows: list[Row]
    """Days, weeks and months ascending; others by total tokens, most first. Calls without a group come last."""
    total: Row
    """Of all rows; its ``group`` is ``None``."""
    skipped: Skipped
    details: list[list[Row]] = []
    """For each row the rows of its models, most tokens first; empty where nobody asked."""


class Prices(Protocol):
    """A price book, as far as a report needs one (``prices.PriceBook``)."""

    @property
    def band_starts(self) -> tuple[int, ...]:
        """Prompt sizes at which a price changes."""

    @property
    def period_starts(self) -> tuple[int, ...]:
        """Minutes of the UTC day at which a price changes."""

    def load(self) -> None:
        """Get ready what the first price would take long for."""

    def charge(self, record: CallRecord) -> Any:
        """Tell what calls must share so that their tokens may be priced as a sum."""

    def price(self, charge: Any, usage: Usage, *, calls: int) -> Any:
        """Price the sum; ``None``: it has no price."""

    def lacks_figures(self, charge: Any) -> bool:
        """Tell whether a figure of these calls is missing that any price takes, or contradicts another."""


def aggregated(
    logs: Logs,
    *,
    by: str,
    where: Filter | None = None,
    tz: tzinfo = UTC,
    book: Prices | None = None,
    details: bool = False,
    engine: Engine = "auto",
    progress: Progress | None = None,
) -> Aggregate:
    """Add up the calls of logs by group.

    ``by``: one of ``GROUPINGS``, or ``tag:KEY``, a tag of the run. A call is of the day on which it started in ``tz``.
    ``book``: ``None``: nothing is priced. ``details``: each group also by model. ``engine``: ``auto`` takes DuckDB
    where it is installed. ``progress`` is told the bytes read and all there are, now and then.

    A call that a framework answered from its own cache counts as a call and adds no tokens. Raises ``InvalidArgument``
    for a grouping or an engine that does not exist, ``MissingExtra`` where the engine is not installed, and what
    ``book.load`` raises.
    """
    where = where or Filter()
    skipped = logs.fresh_skipped()
    runs = logs.run_facts() if by.startswith(TAG) or where.asks_for_runs else {}
    groups = _Groups(by, where, tz, book, runs, details=details)
    with ThreadPoolExecutor(1) as beside:
        # While DuckDB, which lets go of the interpreter, is at work.
        loading = None if book is None else beside.submit(book.load)
        for part in _parts(logs, groups.plan, engine, skipped, progress):
            groups.add(part)
        if loading is not None:
            loading.result()
    return groups.aggregate(skipped)


def _parts(logs: Logs, plan: Plan, engine: Engine, skipped: Skipped, progress: Progress | None) -> Iterator[Part]:
    if engine not in ("auto", "duckdb", "streaming"):
        raise InvalidArgument(f"no engine {engine!r}: there are 'auto', 'duckdb' and 'streaming'")
    steps = _Steps(sum(file.size for file in logs.files), progress)
    if engine != "streaming":
        try:
            from token_callbacks.reports import duck
        except MissingExtra:
            if engine == "duckdb":
                raise
        else:
            with duck.connected() as connection:
                for batch in duck.batches(logs.files):
                    left: list[CallsFile] = []
                    yield from duck.added(connection, batch, plan, left)
                    for file in left:
                        yield from _streamed(logs, file, plan, skipped)
                    steps.done(sum(file.size for file in batch))
            return
    for file in logs.files:
        yield from _streamed(logs, file, plan, skipped)
        steps.done(file.size)


def _streamed(logs: Logs, file: CallsFile, plan: Plan, skipped: Skipped) -> Iterator[Part]:
    from token_callbacks.reports.streaming import added, added_lines

    if file.is_parquet:
        yield from added(logs.records_of(file, skipped), plan)
        return
    try:
        with file.place.opened(file.path) as opened:
            yield from added_lines(opened, plan, shown=file.shown, skipped=skipped)
    except FileNotFoundError:  # tidied away meanwhile
        return
    except OSError:
        skipped.note("unreadable_files", file.shown)


class _Steps:
    """The progress of a reading."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._progress, self._done = total, progress, 0

    def done(self, size: int) -> None:
        self._done += size
        if self._progress is not None:
            self._progress(self._done, self._total)


class _Groups:
    """The groups so far."""

    def __init__(
        self, by: str, where: Filter, zone: tzinfo, book: Prices | None, runs: Mapping[str, RunFacts], *, details: bool
    ) -> None:
        self._where = where
        self._runs = runs
        self._pricing = None if book is None else _Pricing(book)
        self._is_in_time = by in _TIMES
        self._total = _Sums()
        self._sums: dict[str | None, _Sums] = {}
        self._models: dict[str | None, dict[str | None, _Sums]] | None = {} if details else None
        self.plan = Plan(
            columns=frozenset((*_columns(by, where, is_priced=book is not None), *(("model",) if details else ()))),
            cuts=_cuts(zone if self._is_in_time else None, book),
            band_starts=() if book is None else tuple(book.band_starts),
            is_priced=book is not None,
            since=where.since,
            until=where.until,
        )
        self._group_of = _group_of(by, zone, self.plan, runs)

    def add(self, part: Part) -> None:
        """Add a part, if it is wanted."""
        if not self._is_wanted(part.key):
            return
        group = self._group_of(part.key)
        wanted = [_sums_of(self._sums, group)]
        if self._models is not None:
            wanted.append(_sums_of(self._models.setdefault(group, {}), part.key.model))
        self._total.add(part)
        for sums in wanted:
            sums.add(part)
            if self._pricing is not None:
                sums.charge(
                    part, self._pricing.charge_of(part.key, self.plan), day=self.plan.start_of(part.key.slot).date()
                )

    def aggregate(self, skipped: Skipped) -> Aggregate:
        """Return the rows, in order."""
        for sums in self._sums.values():
            if self._pricing is not None:
                sums.price(self._pricing.book)
            self._total.costs.absorb(sums.costs)
        ordered = sorted(self._sums.items(), key=_by_name if self._is_in_time else _by_size)
        return Aggregate(
            rows=[sums.row(group) for group, sums in ordered],
            total=self._total.row(None),
            skipped=skipped,
            details=[] if self._models is None else [self._detailed(self._models[group]) for group, _ in ordered],
        )

    def _detailed(self, models: dict[str | None, _Sums]) -> list[Row]:
        if self._pricing is not None:
            for sums in models.values():
                sums.price(self._pricing.book)
        return [sums.row(model) for model, sums in sorted(models.items(), key=_by_size)]

    def _is_wanted(self, key: Key) -> bool:
        where = self._where
        if where.model is not None and not _matches(key.model, where.model):
            return False
        if not where.asks_for_runs:
            return True
        run_id = key.run_id or ""
        facts = self._runs.get(run_id)
        if where.run is not None and not run_id.startswith(where.run) and (facts is None or facts.name != where.run):
            return False
        return where.tag is None or _has_tag(facts, *where.tag)


def _sums_of(groups: dict[str | None, _Sums], group: str | None) -> _Sums:
    sums = groups.get(group)
    if sums is None:
        sums = groups[group] = _Sums()
    return sums


def _matches(model: str | None, pattern: str) -> bool:
    return model is not None and fnmatch.fnmatchcase(model.lower(), pattern.lower())


def _has_tag(facts: RunFacts | None, name: str, value: str | None) -> bool:
    if facts is None or name not in facts.tags:
        return False
    return value is None or facts.tags[name] == value


def _columns(by: str, where: Filter, *, is_priced: bool) -> Iterator[str]:
    if by == "run" or by.startswith(TAG) or where.asks_for_runs:
        yield "run_id"
    if by in ("step", "agent", "model", "provider"):
        yield by
    if where.model is not None:
        yield "model"
    if is_priced:
        yield from ("provider", "model", "response_model", "operation")


def _cuts(zone: tzinfo | None, book: Prices | None) -> tuple[int, ...]:
    """Tell the seconds of the UTC day at which a day of the zone may begin, or a price change."""
    if zone is None and book is None:
        return ()
    cuts = {0} if book is None else {0, *(60 * minute for minute in book.period_starts)}
    if zone is not None:
        months = (datetime(year, month, 1, tzinfo=zone) for year in range(1900, 2050) for month in range(1, 13))
        offsets = {moment.utcoffset() or timedelta() for moment in months}
        cuts.update(int(-offset.total_seconds()) % _DAY for offset in offsets)
    return tuple(sorted(cuts))


_DAY = 86_400


def _group_of(by: str, zone: tzinfo, plan: Plan, runs: Mapping[str, RunFacts]) -> Callable[[Key], str | None]:
    if by in _TIMES:
        return _time_of(_TIMES[by], zone, plan)
    if by.startswith(TAG) and by != TAG:
        return _tag_of(by.removeprefix(TAG), runs)
    if by in GROUPINGS:
        return attrgetter("run_id" if by == "run" else by)
    raise InvalidArgument(f"nothing is grouped by {by!r}: take one of {', '.join(GROUPINGS)}, or tag:KEY")


def _time_of(form: str, zone: tzinfo, plan: Plan) -> Callable[[Key], str]:
    known: dict[int | None, str] = {}

    def time(key: Key) -> str:
        if key.slot not in known:
            moment = in_zone(plan.start_of(key.slot), zone)
            known[key.slot] = moment.strftime(form.replace("%Y", f"{moment.year:04}"))  # strftime has year 1 as "1"
        return known[key.slot]

    return time


def _tag_of(name: str, runs: Mapping[str, RunFacts]) -> Callable[[Key], str | None]:
    def tag(key: Key) -> str | None:
        facts = runs.get(key.run_id or "")
        return None if facts is None else facts.tags.get(name)

    return tag


def _by_name(item: tuple[str | None, _Sums]) -> str:
    return item[0] or ""


def _by_size(item: tuple[str | None, _Sums]) -> tuple[bool, int, int, str]:
    group, sums = item
    usage = sums.usage
    return group is None, -usage.total_llm_tokens, -(usage.embedding_tokens or 0), group or ""


class _Pricing:
    """What parts are charged as, each kind asked for once."""

    def __init__(self, book: Prices) -> None:
        self.book = book
        self._known: dict[Key, Any] = {}

    def charge_of(self, key: Key, plan: Plan) -> Any:
        """Return the charge of the calls with a key."""
        # None of these changes what a call costs.
        bare = key._replace(
            run_id=None, step=None, agent=None, embedding_source=None, prompt_source=None, completion_source=None
        )
        if bare not in self._known:
            self._known[bare] = self.book.charge(_record(key, plan))
        return self._known[bare]


def _record(key: Key, plan: Plan) -> CallRecord:
    """Make a record that is charged as the calls with this key are."""
    moment = plan.start_of(key.slot)
    operation = key.operation or Operation.CHAT
    return CallRecord(
        call_id="",
        run_id="",
        step=None,
        framework="",
        operation=operation,
        provider=key.provider,
        model=key.model,
        response_model=key.response_model,
        response_id=None,
        streamed=False,
        attempt=1,
        outcome=key.outcome,
        cached=key.cached,
        error=None,
        started_at=moment,
        ended_at=moment,
        time_to_first_token_seconds=None,
        usage=typical(key.shape, operation, plan.band_starts[key.band - 1] if key.band else 0),
        provenance=_sources(key),
        counting_method=None,
        provider_usage=None if key.tier is None else {"service_tier": key.tier},
    )


def _sources(key: Key) -> Sources:
    return Sources(embedding=key.embedding_source, prompt=key.prompt_source, completion=key.completion_source)


class _Sums:
    """The running sums of a group, by the rules of ``totals.Totals``."""

    def __init__(self) -> None:
        self.calls = self.failed = self.cached = 0
        self.lower_bound = False
        self.costs = Costs()
        self._figures: list[int | None] = [None] * len(Usage.__struct_fields__)
        self._weakest: list[Provenance | None] = [None, None, None]
        self._calls_by_source = dict.fromkeys(Provenance, 0)
        self._tokens_by_source = dict.fromkeys(Provenance, 0)
        self._charges: dict[Any, tuple[frozenset[str | None], int, list[int | None]]] = {}
        """What is yet to be priced: the models, the calls and their figures."""

    def add(self, part: Part) -> None:
        """Add a part."""
        key = part.key
        self.calls += part.calls
        if key.outcome is Outcome.FAILED:
            self.failed += part.calls
        weakest = _sources(key).weakest
        self._calls_by_source[weakest] += part.calls
        if weakest in (Provenance.PARTIAL, Provenance.MISSING) and key.outcome is not Outcome.NOT_STARTED:
            self.lower_bound = True
        if key.cached:
            self.cached += part.calls
            return
        self._figures = _added(self._figures, part.figures)
        for position, source in enumerate(key[-3:]):
            if source is not None:
                self._tokens_by_source[source] += part.figures[position] or 0
                self._weakest[position] = max(self._weakest[position] or source, source, key=_WEAKNESS.__getitem__)

    def charge(self, part: Part, charge: Any, *, day: date) -> None:
        """Keep what there is to price of a part; a provider's own word on the cost is taken as it is.

        ``day``: the calls', in UTC.
        """
        if part.key.cached or part.key.outcome is Outcome.NOT_STARTED:
            return
        if part.key.currency is not None and part.reported is not None:
            told_by = PriceSource(source=REPORTED, dated=None, first_day=day, last_day=day)
            self.costs.add(part.reported, currency=part.key.currency, told_by=told_by)
            return
        models, calls, figures = self._charges.get(charge, (frozenset(), 0, [None] * len(part.figures)))
        models |= {part.key.model or part.key.response_model}  # several may be charged alike, or not at all
        self._charges[charge] = (models, calls + part.calls, _added(figures, part.figures))

    def price(self, book: Prices) -> None:
        """Price what was kept."""
        for charge, (models, calls, figures) in self._charges.items():
            price = book.price(charge, _usage(figures), calls=calls)
            if price is None:
                self.costs.add_unpriced(calls, models=models, lacks_figures=book.lacks_figures(charge))
            else:
                self.costs.add(price.amount, currency=price.currency, told_by=price.told_by)

    @property
    def usage(self) -> Usage:
        """The tokens."""
        return _usage(self._figures)

    def row(self, group: str | None) -> Row:
        """Return the row."""
        embedding, prompt, completion = self._weakest
        return Row(
            group=group,
            calls=self.calls,
            failed=self.failed,
            cached=self.cached,
            usage=self.usage,
            weakest=Sources(embedding=embedding, prompt=prompt, completion=completion),
            lower_bound=self.lower_bound,
            tokens_by_source=self._tokens_by_source,
            calls_by_source=self._calls_by_source,
            costs=dict(sorted(self.costs.amounts.items())),
            price_sources=tuple(self.costs.sources),
            unpriced_calls=self.costs.unpriced_calls,
            unpriced_models=tuple(sorted(self.costs.unpriced_models)),
            calls_without_figures=self.costs.without_figures,
        )


def _added(mine: Any, theirs: Any) -> list[int | None]:
    return [b if a is None else a if b is None else a + b for a, b in zip(mine, theirs, strict=True)]


def _usage(figures: Any) -> Usage:
    return Usage(**dict(zip(Usage.__struct_fields__, figures, strict=True)))
