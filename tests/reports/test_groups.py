"""Reports: the same rows from every engine, sums that agree in every grouping, days that begin where people live."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from token_callbacks import TokenCounter, load
from token_callbacks.charges import EXACT, reported_cost
from token_callbacks.errors import InvalidArgument, TokenCallbacksError
from token_callbacks.prices import PriceBook, cost_of
from token_callbacks.records import CallRecord, Operation, Outcome, PriceSource, Provenance, Usage
from token_callbacks.reports import duck
from token_callbacks.reports.columns import pa, pq, table
from token_callbacks.reports.groups import GROUPINGS, Aggregate, Filter, aggregated
from token_callbacks.reports.logs import CallsFile
from token_callbacks.reports.parts import Plan
from token_callbacks.reports.rows import Row
from token_callbacks.totals import Totals

from ..calls import make_call
from .records import BLANK, NEWER, NOON, ODD, RUNS, UNREADABLE, open_run, record, records, write

ENGINES = ("duckdb", "streaming")
ALL = (*GROUPINGS, "tag:team")
BERLIN = ZoneInfo("Europe/Berlin")
KNOWN_RUNS = [
    open_run(RUNS[0], "nightly", team="search"),
    open_run(RUNS[1], "nightly", team="ads"),
    open_run(RUNS[2], "x"),
]


class Charge(NamedTuple):
    """What calls of the book below share."""

    model: str | None
    day: date
    half_hour: int
    band: int
    shape: tuple[bool, ...]
    tier: str | None


def _told_by(source: str, day: date) -> PriceSource:
    return PriceSource(source=source, dated=None, first_day=day, last_day=day)


class Price(NamedTuple):
    """A price of the book below."""

    amount: Decimal
    currency: str
    told_by: PriceSource


class Book:
    """Prices LLM calls by model, dearer at night and for long prompts; what a provider told comes first."""

    band_starts = (4, 200_000)
    period_starts = tuple(range(30, 1440, 30))

    def charge(self, record: CallRecord) -> Charge:
        usage, told = record.usage, record.provider_usage or {}
        band = sum(start <= (usage.prompt_tokens or 0) for start in self.band_starts)
        lacks = usage.prompt_tokens is None or record.operation is Operation.EMBEDDING
        parts = (usage.cache_read_tokens or 0) + (usage.cache_write_tokens or 0)
        half_hour = record.started_at.hour * 2 + record.started_at.minute // 30
        shape = (lacks, parts > (usage.prompt_tokens or 0))
        return Charge(record.model, record.started_at.date(), half_hour, band, shape, told.get("service_tier"))

    def load(self) -> None:
        """It is all there."""

    def lacks_figures(self, charge: Charge) -> bool:
        return any(charge.shape)

    def price(self, charge: Charge, usage: Usage, *, calls: int) -> Price | None:
        if charge.model is None or self.lacks_figures(charge):
            return None
        rate = Decimal("0.3") * (1 + charge.band) + charge.half_hour + (charge.tier == "flex")
        currency = "EUR" if charge.model == "claude-sonnet-4-5" else "USD"
        return Price(
            EXACT.add(EXACT.multiply(rate, Decimal(usage.total_llm_tokens + (usage.embedding_tokens or 0))), calls),
            currency,
            _told_by("own table", charge.day),
        )

    def price_of(self, record: CallRecord) -> Price | None:
        told = reported_cost(record)
        if told is not None:
            return Price(*told, _told_by("reported", record.started_at.date()))
        return self.price(self.charge(record), record.usage, calls=1)


def report(folder: Path, by: str = "run", **options: Any) -> Aggregate:
    """Add up with both engines, which must agree, and return what they said."""
    told = [aggregated(load(folder), by=by, engine=engine, **options) for engine in ENGINES]

    assert told[0] == told[1]
    return told[0]


def rows(folder: Path, by: str, **options: Any) -> dict[str | None, int]:
    """Return the LLM tokens by group, in order."""
    return {row.group: row.usage.total_llm_tokens for row in report(folder, by, **options).rows}


def added_up(rows: Sequence[Row]) -> tuple[Any, ...]:
    """Add rows up."""
    costs: dict[str, Decimal] = {}
    for row in rows:
        for currency, amount in row.costs.items():
            costs[currency] = EXACT.add(costs.get(currency, Decimal()), amount)
    return (
        sum((row.usage for row in rows), start=Usage()),
        *(sum(getattr(row, name) for row in rows) for name in ("calls", "failed", "cached", "unpriced_calls")),
        any(row.lower_bound for row in rows),
        {source: sum(row.tokens_by_source[source] for row in rows) for source in Provenance},
        {source: sum(row.calls_by_source[source] for row in rows) for source in Provenance},
        costs,
    )


lines = st.one_of(
    records.map(lambda record: ("call", msgspec.json.encode(record))),
    *(
        st.sampled_from([(kind, line) for line in found])
        for kind, found in {"unreadable": UNREADABLE, "odd": ODD}.items()
    ),
    *(st.sampled_from([(kind, line) for line in found]) for kind, found in {"newer": NEWER, "blank": BLANK}.items()),
)
files = st.lists(
    st.lists(records.map(lambda record: ("call", msgspec.json.encode(record))), max_size=8)
    | st.lists(lines, max_size=8),
    max_size=4,
)


@given(files=files, zone=st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu"]), is_priced=st.booleans())
@settings(max_examples=25, deadline=None)
def test_engines_agree_and_every_grouping_adds_up(
    files: list[list[tuple[str, bytes]]], zone: str, is_priced: bool
) -> None:
    """Whatever the lines, DuckDB and streaming give the same rows, whose sums are those of the readable calls."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, [record()], runs=KNOWN_RUNS).unlink()
        for number, content in enumerate(files):
            text = b"".join(line + b"\n" for _, line in content)
            (folder / f"calls-2026-11-21-3-0000000{number}.jsonl").write_bytes(text)
        kinds = Counter(kind for content in files for kind, _ in content)
        totals = Totals(
            msgspec.json.decode(line, type=CallRecord)
            for content in files
            for kind, line in content
            if kind in ("call", "odd")
        )
        told = {by: report(folder, by, tz=ZoneInfo(zone), book=Book() if is_priced else None) for by in ALL}

    assert 1 == len({repr(each.total) for each in told.values()})
    total = told["run"].total
    assert totals.four.llm_prompt_tokens == (total.usage.prompt_tokens or 0)
    assert totals.four.llm_completion_tokens == (total.usage.completion_tokens or 0)
    assert totals.four.embedding_tokens == (total.usage.embedding_tokens or 0)
    assert totals.lower_bound is total.lower_bound
    assert totals.calls.cached == total.cached
    assert totals.provenance.estimated.tokens == total.tokens_by_source[Provenance.ESTIMATED]
    assert totals.provenance.missing.calls == total.calls_by_source[Provenance.MISSING]
    assert kinds["call"] + kinds["odd"] == total.calls
    for each in told.values():
        assert added_up([total]) == added_up(each.rows)
        assert (kinds["unreadable"], kinds["newer"]) == (each.skipped.unreadable, each.skipped.newer)


def test_duckdb_itself_reads_all_but_the_files_with_a_doubtful_line(tmp_path: Path) -> None:
    """What DuckDB leaves to the other engine is the odd file out, not everything."""
    good, mixed = (write(tmp_path, [record(number)]) for number in range(2))
    mixed.write_bytes(mixed.read_bytes() + b"{}\n")
    left: list[CallsFile] = []
    with duck.connected() as connection:
        plan = Plan(columns=frozenset({"model"}))
        parts = list(duck.added(connection, load(tmp_path).files, plan, left))

    assert [str(mixed)] == [file.path for file in left]
    assert [(1, 3)] == [(part.calls, part.figures[1]) for part in parts]
    assert good != mixed


@pytest.mark.parametrize(
    ("moments", "zone", "days"),
    [
        ([None, 0], "UTC", ["1970-01-01"]),
        ([2**63 - 1, 0], "UTC", ["1970-01-01"]),
        ([-62_135_596_800_000_001, -62_135_596_800_000_000], "UTC", ["0001-01-01"]),
        ([253_402_300_800_000_000, 253_402_300_799_999_999], "UTC", ["9999-12-31"]),
        ([0, 82_800_000_000], "Europe/Berlin", ["1970-01-01"]),
    ],
)
def test_engines_agree_on_the_moments_of_a_foreign_parquet_file(
    tmp_path: Path, moments: list[int | None], zone: str, days: list[str]
) -> None:
    """What no line could hold is passed over by both; another zone is the same moment."""
    made = table([record(number) for number in range(2)], {})
    column = pa.array(moments, pa.timestamp("us", tz=zone))
    made = made.set_column(made.schema.get_field_index("started_at"), "started_at", column)
    pq.write_table(made, tmp_path / "calls-2026-11-21-1-01234567.parquet")

    assert days == [row.group for row in report(tmp_path, "day").rows]
    assert 2 == report(tmp_path, "day").total.calls + report(tmp_path, "day").skipped.unreadable


def test_one_file_that_stops_duckdb_stops_no_other(tmp_path: Path) -> None:
    """A line past DuckDB's bound fails a whole query; only that file is left to the other engine."""
    paths = [write(tmp_path, [record(number)]) for number in range(4)]
    paths[2].write_bytes(b'{"a":"' + b"x" * (33 << 20) + b'"}\n' + paths[2].read_bytes())
    left: list[CallsFile] = []
    with duck.connected() as connection:
        parts = list(duck.added(connection, load(tmp_path).files, Plan(columns=frozenset()), left))

    assert [str(paths[2])] == [file.path for file in left]
    assert 3 == sum(part.calls for part in parts)
    told = report(tmp_path)
    assert (4, 1, f"{paths[2]}:1") == (told.total.calls, told.skipped.too_long, told.skipped.examples["too_long"])


def test_the_rows_of_runs_are_those_of_their_summaries(counter: TokenCounter, log_dir: Path) -> None:
    """A report by run says what each run's own file says."""
    with counter.run("first") as first:
        make_call(prompt=3, completion=4)
        make_call(embedding=5)
    with counter.run("second") as second:
        make_call(prompt=6, completion=7)
        make_call(prompt=None, completion=None)
    told = {row.group: row for row in report(log_dir, "run").rows}

    assert {first.run_id, second.run_id} == set(told)
    for run in (first, second):
        row, summary = told[run.run_id], run.summary
        assert summary.total_llm_tokens == row.usage.total_llm_tokens
        assert summary.embedding_tokens == (row.usage.embedding_tokens or 0)
        assert summary.calls.llm + summary.calls.embedding == row.calls
        assert summary.lower_bound is row.lower_bound


def test_a_day_is_the_local_day(tmp_path: Path) -> None:
    """A call just after midnight in Berlin is of that day there, and of the day before in UTC."""
    write(tmp_path, [record(started_at=datetime(2026, 7, 1, 22, 0, tzinfo=UTC), prompt_tokens=3)])

    assert {"2026-07-01": 3} == rows(tmp_path, "day")
    assert {"2026-07-02": 3} == rows(tmp_path, "day", tz=BERLIN)


def test_days_of_a_clock_change_have_23_and_25_hours(tmp_path: Path) -> None:
    """One call an hour: the day that loses an hour has 23, the one that gains one has 25."""
    starts = [datetime(2026, month, day, tzinfo=BERLIN).astimezone(UTC) for month, day in ((3, 28), (10, 24))]
    hours = [start + timedelta(hours=hour) for start in starts for hour in range(72)]
    write(tmp_path, [record(number, started_at=hour, prompt_tokens=1) for number, hour in enumerate(hours)])
    told = rows(tmp_path, "day", tz=BERLIN)

    assert (24, 23, 24) == (told["2026-03-28"], told["2026-03-29"], told["2026-03-30"])
    assert (24, 25, 23) == (told["2026-10-24"], told["2026-10-25"], told["2026-10-26"])


def test_a_zone_of_quarter_hours_has_its_own_midnight(tmp_path: Path) -> None:
    """Kathmandu is 5:45 ahead: its day begins at 18:15 UTC."""
    times = [datetime(2026, 7, 1, 18, minute, tzinfo=UTC) for minute in (14, 15)]
    write(tmp_path, [record(number, started_at=time, prompt_tokens=3 + number) for number, time in enumerate(times)])

    assert {"2026-07-01": 3, "2026-07-02": 4} == rows(tmp_path, "day", tz=ZoneInfo("Asia/Kathmandu"))


def test_weeks_are_iso_weeks_and_months_are_months(tmp_path: Path) -> None:
    """The first days of a year may be of the last week of the year before."""
    write(tmp_path, [record(started_at=datetime(2027, 1, 2, tzinfo=UTC), prompt_tokens=3)])

    assert {"2026-W53": 3} == rows(tmp_path, "week")
    assert {"2027-01": 3} == rows(tmp_path, "month")


def test_days_ascend_and_others_come_by_size(tmp_path: Path) -> None:
    """A clock that goes backwards does not mix the days up; calls without a group come last."""
    days = [NOON, NOON - timedelta(days=2), NOON + timedelta(days=1)]
    steps = ["small", "large", None]
    found = [
        record(number, started_at=day, step=step, prompt_tokens=3 + number)
        for number, (day, step) in enumerate(zip(days, steps, strict=True))
    ]
    write(tmp_path, found)

    assert ["2026-11-19", "2026-11-21", "2026-11-22"] == list(rows(tmp_path, "day"))
    assert ["large", "small", None] == list(rows(tmp_path, "step"))


def test_tags_are_those_of_the_run(tmp_path: Path) -> None:
    """A tag joins by the run; runs without it, or that nobody knows, are in none."""
    found = [record(number, run_id=run_id, prompt_tokens=number + 3) for number, run_id in enumerate(RUNS)]
    write(tmp_path, found, runs=KNOWN_RUNS)

    assert {"ads": 4, "search": 3, None: 11} == rows(tmp_path, "tag:team")


@pytest.mark.parametrize(
    ("where", "tokens"),
    [
        (Filter(), 18),
        (Filter(since=NOON + timedelta(hours=1)), 15),
        (Filter(until=NOON + timedelta(hours=1)), 3),
        (Filter(since=NOON, until=NOON), 0),
        (Filter(run="nightly"), 7),
        (Filter(run=RUNS[2]), 5),
        (Filter(run="20261121T120003"), 6),
        (Filter(run="no such"), 0),
        (Filter(model="gpt-4o*"), 9),
        (Filter(model="GPT-4O"), 3),
        (Filter(tag=("team", None)), 7),
        (Filter(tag=("team", "ads")), 4),
    ],
)
def test_filters_take_what_they_say(tmp_path: Path, where: Filter, tokens: int) -> None:
    """Time, run, model and tag leave out the other calls, in both engines."""
    models = ["gpt-4o", "claude-sonnet-4-5", None, "gpt-4o-mini"]
    found = [
        record(number, run_id=run_id, model=model, started_at=NOON + timedelta(hours=number), prompt_tokens=number + 3)
        for number, (run_id, model) in enumerate(zip(RUNS, models, strict=True))
    ]
    write(tmp_path, found, runs=KNOWN_RUNS)

    assert tokens == report(tmp_path, "day", where=where).total.usage.total_llm_tokens


def test_an_answer_from_the_cache_is_a_call_without_tokens(tmp_path: Path) -> None:
    """Nothing was billed, so it adds no tokens, no cost, and is not unpriced."""
    write(tmp_path, [record(cached=True, prompt_tokens=3, model=None), record(1, prompt_tokens=4)])
    total = report(tmp_path, "model", book=Book()).total

    assert (2, 1, 4, 0) == (total.calls, total.cached, total.usage.prompt_tokens, total.unpriced_calls)


def test_a_stream_nobody_read_makes_no_lower_bound(tmp_path: Path) -> None:
    """A call that did not start used nothing; one that failed without a figure may have."""
    lost = {"usage": Usage(), "provenance": record().provenance.__class__(prompt=Provenance.MISSING)}
    write(tmp_path / "a", [record(outcome=Outcome.NOT_STARTED, **lost)])
    write(tmp_path / "b", [record(outcome=Outcome.FAILED, **lost)])

    assert report(tmp_path / "a").total.lower_bound is False
    assert report(tmp_path / "b").total.lower_bound is True


def test_a_cost_that_was_told_is_of_its_day_as_in_the_summary(tmp_path: Path) -> None:
    """Of the UTC days of its calls, whatever the zone of the groups is."""
    late = NOON.replace(hour=23, minute=30) + timedelta(days=1)
    told = [
        record(number, started_at=moment, provider_usage={"cost": 0.25, "cost_details": {}})
        for number, moment in enumerate([NOON, late])
    ]
    write(tmp_path, told)
    total = report(tmp_path, "day", book=PriceBook(), tz=ZoneInfo("Asia/Kathmandu")).total
    cost = cost_of(Totals(told).charges, PriceBook(), now=late)

    told_by = PriceSource(source="reported", dated=None, first_day=NOON.date(), last_day=late.date())
    assert (told_by,) == total.price_sources
    assert cost is not None
    assert ([told_by], "reported", None) == (cost.price_sources, cost.price_source, cost.prices_from)


@pytest.mark.parametrize("told", [None, {"cost": 0.25, "cost_details": {}}])
def test_a_call_that_did_not_start_costs_nothing_as_in_the_summary(tmp_path: Path, told: dict[str, Any] | None) -> None:
    """Not even where a line has figures, or a cost, beside that outcome: none of ours does."""
    calls = [record(outcome=Outcome.NOT_STARTED, provider_usage=told)]
    write(tmp_path, calls)
    total = report(tmp_path, "day", book=PriceBook()).total

    assert ({}, 0, ()) == (total.costs, total.unpriced_calls, total.price_sources)
    assert cost_of(Totals(calls).charges, PriceBook(), now=NOON) is None


def test_a_book_that_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    """Its error is the reader's, even where no call needed the book."""

    class Torn(Book):
        def load(self) -> None:
            raise ZeroDivisionError

    write(tmp_path, [record(provider_usage={"cost": 0.25, "is_byok": False})])
    with pytest.raises(ZeroDivisionError):
        aggregated(load(tmp_path), by="day", book=Torn())


def test_costs_are_by_currency_and_what_has_no_price_is_counted(tmp_path: Path) -> None:
    """A prompt in a dearer band, another currency, a cost the provider told, and a model that nobody knows."""
    write(
        tmp_path,
        [
            record(0, prompt_tokens=3),
            record(1, prompt_tokens=5),
            record(2, prompt_tokens=2, model="claude-sonnet-4-5"),
            record(3, prompt_tokens=9, model=None),
            record(4, prompt_tokens=9, provider_usage={"cost": 0.25, "is_byok": False}),
            record(5, usage=Usage(), model=None, outcome=Outcome.FAILED),
            record(6, embedding_tokens=1, operation=Operation.EMBEDDING),
        ],
    )
    total = report(tmp_path, "day", book=Book()).total

    usd = 3 * Decimal("24.3") + 5 * Decimal("24.6") + 2 + Decimal("0.25")
    assert {"EUR": 2 * Decimal("24.3") + 1, "USD": usd} == total.costs
    assert (3, 2, ("gpt-4o-2024-08-06",)) == (total.unpriced_calls, total.calls_without_figures, total.unpriced_models)
    assert (_told_by("own table", NOON.date()), _told_by("reported", NOON.date())) == total.price_sources


def test_each_row_says_who_told_its_prices_as_of_when_and_who_has_none(tmp_path: Path) -> None:
    """The real book: the sources of the calls in the row, and no others; the total has them all."""
    table = {"price": [{"model": "mine", "prompt": "1", "completion": "2", "from": date(2026, 1, 3)}]}
    day, later = ({"started_at": NOON + timedelta(days=days), "completion_tokens": 4} for days in (0, 2))
    write(
        tmp_path,
        [
            record(0, model="mine", response_model=None, prompt_tokens=3, **later),
            record(1, model="nobody-knows-3", response_model=None, prompt_tokens=3, **day),
            record(2, model="gpt-4o", prompt_tokens=3, **day),
            record(3, model="gpt-4o", usage=Usage(), outcome=Outcome.FAILED, started_at=NOON + timedelta(days=3)),
            record(4, model="mine", response_model=None, prompt_tokens=3, **day),
        ],
    )
    made = report(tmp_path, "model", book=PriceBook(table))
    rows = {row.group: row for row in made.rows}
    days = {"first_day": NOON.date(), "last_day": NOON.date() + timedelta(days=2)}

    assert (PriceSource(source="own table", dated=date(2026, 1, 3), **days),) == rows["mine"].price_sources
    assert ((), ("nobody-knows-3",)) == (rows["nobody-knows-3"].price_sources, rows["nobody-knows-3"].unpriced_models)
    assert [("genai-prices", NOON.date(), NOON.date())] == [
        (told.source.split()[0], told.first_day, told.last_day) for told in rows["gpt-4o"].price_sources
    ]
    assert ((), 1) == (rows["gpt-4o"].unpriced_models, rows["gpt-4o"].calls_without_figures)
    assert ("nobody-knows-3",) == made.total.unpriced_models
    assert (*rows["gpt-4o"].price_sources, *rows["mine"].price_sources) == made.total.price_sources


def prices_of(found: list[CallRecord]) -> tuple[dict[str, Decimal], int]:
    """Price every call by itself."""
    costs: dict[str, Decimal] = {}
    unpriced = 0
    for each in found:
        if each.cached or each.outcome is Outcome.NOT_STARTED:
            continue
        price = Book().price_of(each)
        if price is None:
            unpriced += 1
        else:
            costs[price.currency] = EXACT.add(costs.get(price.currency, Decimal()), price.amount)
    return costs, unpriced


@given(found=st.lists(records, max_size=12))
@settings(max_examples=25, deadline=None)
def test_the_cost_is_that_of_the_calls_one_by_one(found: list[CallRecord]) -> None:
    """Adding up first and pricing then changes no cent."""
    with tempfile.TemporaryDirectory() as name:
        if found:
            write(Path(name), found)
        total = report(Path(name), "month", book=Book()).total

    assert prices_of(found) == (total.costs, total.unpriced_calls)


@given(found=st.lists(records, max_size=8))
@settings(max_examples=15, deadline=None)
def test_the_real_book_prices_the_sums_as_it_prices_the_calls(found: list[CallRecord]) -> None:
    """So does the book of this package, by run, with both engines."""
    book = PriceBook()
    costs: dict[str, Decimal] = {}
    unpriced = 0
    for each in found:
        if each.cached or each.outcome is Outcome.NOT_STARTED:
            continue
        price = book.price_of(each)
        if price is None:
            unpriced += 1
        else:
            costs[price.currency] = EXACT.add(costs.get(price.currency, Decimal()), price.amount)
    with tempfile.TemporaryDirectory() as name:
        if found:
            write(Path(name), found)
        total = report(Path(name), "run", book=book).total

    assert (costs, unpriced) == (total.costs, total.unpriced_calls)


def test_the_cost_of_a_run_is_that_of_its_summary(counter: TokenCounter, log_dir: Path) -> None:
    """Read back, a run costs what it was thought to cost."""
    with counter.run("nightly") as run:
        make_call(prompt=1729, completion=512)
        make_call(prompt=None, completion=None)
    [row] = report(log_dir, "run", book=PriceBook()).rows
    cost = run.summary.cost
    assert cost is not None

    assert {cost.currency: Decimal(cost.amount or "")} == row.costs
    assert cost.unpriced_calls == row.unpriced_calls == 1


def test_progress_goes_up_to_all_bytes(tmp_path: Path) -> None:
    """Whoever draws a bar is told the bytes done and all there are."""
    sizes = [write(tmp_path, [record(number)]).stat().st_size for number in range(3)]
    for engine in ENGINES:
        told: list[tuple[int, int]] = []
        aggregated(
            load(tmp_path),
            by="run",
            engine=engine,
            progress=lambda done, total: told.append((done, total)),  # noqa: B023
        )

        assert (sum(sizes), sum(sizes)) == told[-1]
        assert sorted(told) == told


@pytest.mark.parametrize("by", ["colour", "tag:", ""])
def test_an_unknown_grouping_says_which_there_are(tmp_path: Path, by: str) -> None:
    """Wrong use raises our own error with the next step."""
    with pytest.raises(TokenCallbacksError, match="take one of run, day, week"):
        aggregated(load(tmp_path), by=by)


def test_an_unknown_engine_and_a_moment_without_a_zone_are_refused(tmp_path: Path) -> None:
    """So are an engine that does not exist and a moment that could be anywhere."""
    with pytest.raises(InvalidArgument, match="'auto', 'duckdb' and 'streaming'"):
        aggregated(load(tmp_path), by="run", engine="spark")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="no time zone"):
        Filter(since=datetime(2026, 11, 21))  # noqa: DTZ001


@pytest.mark.parametrize("by", ALL)
def test_models_that_are_priced_alike_are_each_told_where_nobody_has_a_price(tmp_path: Path, by: str) -> None:
    """Whatever is grouped by: what a name stands for is part of the price, and not each name is."""
    calls = [record(number, model=None, response_model=name) for number, name in enumerate((None, "draft", "sketch"))]
    write(tmp_path, calls, runs=KNOWN_RUNS)

    assert ("(none)", "draft", "sketch") == report(tmp_path, by, tz=BERLIN, book=Book()).total.unpriced_models
