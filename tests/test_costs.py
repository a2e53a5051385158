"""What a run cost, in its summary: added up by charge, dated, rebuilt from lines, and never at the host's expense."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.calls import Told, make_call, open_call
from tests.test_prices import a_call, a_million
from token_callbacks import TokenCounter
from token_callbacks.charges import NAMELESS
from token_callbacks.errors import InvalidPrices
from token_callbacks.ledger import process_ledger
from token_callbacks.prices import PRICES_VARIABLE, PriceBook, cost_of
from token_callbacks.prices.book import PriceBook as Book
from token_callbacks.records import Cost, Outcome, PriceSource
from token_callbacks.recovery import recover
from token_callbacks.sinks.memory import MemorySink
from token_callbacks.totals import Totals

NOW = datetime(2026, 11, 21, 5, tzinfo=UTC)
OWN = {"currency": "EUR", "price": [{"model": "gpt-4o", "prompt": 3, "completion": 4}]}


@pytest.fixture
def priced(log_dir: Path) -> Iterator[TokenCounter]:
    """Give a counter with a table of its own."""
    counter = TokenCounter(log_dir=log_dir, prices=OWN)
    yield counter
    counter.close()


def _cost(*records: Any, own: Any = OWN) -> Cost | None:
    return cost_of(Totals(records).charges, PriceBook(own), now=NOW)


def test_a_run_tells_what_it_cost(priced: TokenCounter) -> None:
    """Amount, currency, source and date; the file says the same as the object."""
    with priced.run("r") as run:
        make_call(prompt=1_000_000, completion=500_000)
        make_call(prompt=1, completion=0)
    written = json.loads(run.summary_path.read_bytes())["cost"]  # type: ignore[union-attr]

    assert run.summary.cost is not None
    assert ("5.000003", "EUR", "own table", 0) == (
        run.summary.cost.amount, run.summary.cost.currency, run.summary.cost.price_source,
        run.summary.cost.unpriced_calls,
    )  # fmt: skip
    assert msgspec.to_builtins(run.summary.cost) == written


def test_an_open_run_tells_what_it_cost_up_to_now(priced: TokenCounter) -> None:
    """As its other figures are of now."""
    with priced.run("r") as run:
        assert run.summary.cost is None
        make_call(prompt=1_000_000, completion=0)
        assert "3" == run.summary.cost.amount  # type: ignore[union-attr]
        make_call(prompt=1_000_000, completion=0)
        assert "6" == run.summary.cost.amount  # type: ignore[union-attr]


def test_a_call_that_ends_after_its_run_is_priced_too(priced: TokenCounter) -> None:
    """The summary is written again, with its cost."""
    with priced.run("r") as run:
        late = open_call()
    make_call(prompt=1_000_000, completion=0, call=late)

    assert "3" == run.summary.cost.amount  # type: ignore[union-attr]
    assert "3" == json.loads(run.summary_path.read_bytes())["cost"]["amount"]  # type: ignore[union-attr]


def test_a_summary_made_from_the_lines_has_the_same_cost(priced: TokenCounter, log_dir: Path) -> None:
    """And so has every price that is worked out when the lines are read."""
    with priced.run("r") as run:
        make_call(prompt=1729, completion=512)
        make_call(embedding=7)
        make_call(call=open_call(), outcome=Outcome.FAILED)
    path = run.summary_path
    assert path is not None
    path.unlink()
    book = PriceBook(OWN)
    priced.close()
    [summary] = [
        it
        for it in recover(log_dir, pricing=lambda totals: cost_of(totals.charges, book, now=NOW)).summaries
        if it.run_id == run.run_id
    ]

    assert run.summary.cost is not None
    assert msgspec.structs.replace(run.summary.cost, priced_at=NOW) == summary.cost
    assert 1 == summary.cost.calls_without_figures


def test_a_dead_processs_run_has_a_cost(log_dir: Path) -> None:
    """The next counter on the folder writes it."""
    program = (
        "import os, sys\n"
        "from token_callbacks import TokenCounter\n"
        "from tests.calls import make_call\n"
        "counter = TokenCounter(log_dir=sys.argv[1])\n"
        "with counter.run('r'):\n"
        "    make_call(prompt=1_000_000, completion=0)\n"
        "    os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(log_dir)], check=True, cwd=Path(__file__).parent.parent)
    TokenCounter(log_dir=log_dir, prices=OWN).close()
    [path] = (log_dir / "runs").iterdir()

    assert "3" == json.loads(path.read_bytes())["cost"]["amount"]


def test_unknown_prices_are_counted_and_named() -> None:
    """A failed call without figures lacks those, not a price; what a cache answered lacks nothing."""
    cost = _cost(
        a_million("nobodys"), a_million("nobodys"), a_million("another"), a_million("gpt-4o"),
        a_call("gpt-4o", outcome=Outcome.FAILED), a_million("third", cached=True),
    )  # fmt: skip

    assert cost is not None
    assert ("7", 4, ["another", "nobodys"], 1) == (
        cost.amount, cost.unpriced_calls, cost.unpriced_models, cost.calls_without_figures,
    )  # fmt: skip


def test_a_call_without_a_model_is_named_as_reports_name_it() -> None:
    """By one name, which no model has."""
    cost = _cost(a_million(None))

    assert cost is not None
    assert [NAMELESS] == ["(none)"] == cost.unpriced_models


def test_where_nothing_has_a_price_there_is_no_amount() -> None:
    """Which is not zero, and still told and named."""
    cost = _cost(a_million("nobodys"))

    assert cost is not None
    assert (None, None, None, 1) == (cost.amount, cost.currency, cost.price_source, cost.unpriced_calls)


def test_where_there_is_nothing_to_price_there_is_no_cost() -> None:
    """A run without calls, or all of them answered by a cache."""
    assert _cost() is None
    assert _cost(a_million("gpt-4o", cached=True)) is None


def test_currencies_are_not_mixed() -> None:
    """The amount is in that of most calls, the others stand beside it, whatever came first."""
    table = {
        "price": [
            {"model": "euro", "currency": "EUR", "prompt": 3, "completion": 0},
            {"model": "franc", "currency": "CHF", "prompt": 4, "completion": 0},
        ]
    }
    records = [a_million("franc"), a_million("euro"), a_million("euro")]
    cost = _cost(*records, own=table)

    assert cost is not None
    assert ("6", "EUR", {"CHF": "4"}) == (cost.amount, cost.currency, cost.other_currencies)
    assert cost == _cost(*reversed(records), own=table)
    assert "CHF" == _cost(*records[:2], own=table).currency  # type: ignore[union-attr]


def test_a_cost_names_all_its_sources() -> None:
    """And the latest day from which on one of its prices holds, and of which days they are."""
    table = {"price": [{"model": "m", "prompt": 1, "completion": 1, "from": "2026-01-01"}]}
    days = [datetime(2026, 11, day, tzinfo=UTC) for day in (20, 19, 21)]
    records = [a_million("m", at=day) for day in days]
    cost = _cost(*records, a_million("x", "openrouter", provider_usage={"cost": 0.25}), own=table)

    assert cost is not None
    assert ("6.25", "own table, reported", "2026-01-01") == (cost.amount, cost.price_source, str(cost.prices_from))
    assert [
        PriceSource(
            source="own table", dated=date(2026, 1, 1), first_day=date(2026, 11, 19), last_day=date(2026, 11, 21)
        ),
        PriceSource(source="reported", dated=None, first_day=date(2026, 11, 20), last_day=date(2026, 11, 20)),
    ] == cost.price_sources


def test_days_of_several_processes_add_up() -> None:
    """In either order; the sums of a run are those of its processes put together."""
    early, late = (Totals([a_million("gpt-4o", at=datetime(2026, 11, day, tzinfo=UTC))]) for day in (3, 4))
    days = [
        [(told.first_day.day, told.last_day.day) for told in cost.price_sources]
        for totals in (early.merged(late), late.merged(early))
        if (cost := cost_of(totals.charges, PriceBook(OWN), now=NOW)) is not None
    ]

    assert [[(3, 4)], [(3, 4)]] == days


def test_a_cost_written_before_it_told_days_is_read() -> None:
    """Nothing in a file went away, and what it lacks is not made up."""
    cost = _cost(a_million("gpt-4o"))
    old = {name: figure for name, figure in msgspec.to_builtins(cost).items() if name != "price_sources"}

    assert [] == msgspec.convert(old, Cost).price_sources


def test_reported_costs_reach_the_summary(priced: TokenCounter) -> None:
    """Off the wire, added up as decimal numbers."""
    with priced.run("r") as run:
        for _ in range(3):
            payload = {"prompt_tokens": 3, "completion_tokens": 4, "cost": 0.1, "cost_details": {}}
            process_ledger().close_call(open_call(), outcome=Outcome.COMPLETED, evidence=[Told(payload)])

    assert ("0.3", "reported") == (run.summary.cost.amount, run.summary.cost.price_source)  # type: ignore[union-attr]


def test_prices_can_be_switched_off(memory: MemorySink) -> None:
    """Then nothing is priced, and no library of prices imported."""
    with TokenCounter(log_dir=None, sinks=[memory], prices=False).run("r") as run:
        make_call(prompt=3, completion=4)

    assert run.summary.cost is None


def test_a_table_with_a_mistake_is_an_error_where_it_is_given() -> None:
    """In code, that is where the counter is made."""
    with pytest.raises(InvalidPrices, match="no 'prompts'"):
        TokenCounter(log_dir=None, prices={"price": [{"model": "m", "prompts": 3}]})


def test_a_mistake_in_the_environments_table_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Who set it is not who made the counter."""
    monkeypatch.setenv(PRICES_VARIABLE, "nowhere.toml")
    TokenCounter(log_dir=None).close()

    assert "nowhere.toml cannot be read" in caplog.text


def test_a_fault_of_ours_costs_the_cost_and_is_counted_once(
    priced: TokenCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run has its summary, without a cost, and the host sees nothing of it."""

    def broken(*args: object, **options: object) -> None:
        raise RuntimeError("no price today")

    monkeypatch.setattr(Book, "price", broken)
    with priced.run("r") as run:
        make_call(prompt=3, completion=4)
        assert run.summary.cost is None
    written = json.loads(run.summary_path.read_bytes())  # type: ignore[union-attr]

    assert (None, 1, 0) == (written["cost"], written["internal_errors"], written["lost_records"])
    assert 1 == run.summary.internal_errors
    assert 7 == run.summary.total_llm_tokens


def test_what_a_run_counts_needs_no_library_of_prices() -> None:
    """Neither calls nor totals import one; the first cost does, where it is installed."""
    program = (
        "import sys\n"
        "from token_callbacks import TokenCounter\n"
        "from tests.calls import make_call\n"
        "counter = TokenCounter(log_dir=None)\n"
        "with counter.run('r') as run:\n"
        "    make_call(prompt=3, completion=4)\n"
        "    assert run.totals.four.total_llm_tokens == 7 and run.totals.charges\n"
        "    assert 'genai_prices' not in sys.modules\n"
        "assert run.summary.cost.amount\n"
        "assert 'litellm' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parent.parent)


def test_a_run_keeps_no_calls_for_its_cost() -> None:
    """Calls of one charge are one row, however many they are."""
    totals = Totals([a_call("gpt-4o", "openai", prompt_tokens=3, completion_tokens=4)] * 1000)
    [charged] = totals.charges

    assert (1000, 3000, 4000) == (charged.calls, charged.usage.prompt_tokens, charged.usage.completion_tokens)
    [both] = totals.merged(totals).charges
    assert (2000, 6000) == (both.calls, both.usage.prompt_tokens)
