"""``token-callbacks report``: sums, filters, limits, and folders that hold something else."""

from __future__ import annotations

import csv
import io
import json
import shutil
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner, Result

from tests.cli.rows import NOON, RUN_ID, record, written
from token_callbacks.cli import main
from token_callbacks.records import Operation, Outcome, Provenance, Sources, Usage
from token_callbacks.schemas import shipped

GROUPINGS = ["run", "day", "week", "month", "model", "provider", "step", "agent", "tag:team"]
SUMMED = [
    "embedding_tokens", "llm_prompt_tokens", "cache_read_tokens", "cache_write_tokens", "llm_completion_tokens",
    "reasoning_tokens", "total_llm_tokens", "unpriced_calls", "calls", "failed_calls", "cached_calls",
]  # fmt: skip


def _run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, ["report", *map(str, arguments), "--tz", "UTC"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def _told(*arguments: object) -> dict[str, Any]:
    result = _run(*arguments, "--json")
    assert 0 == result.exit_code, result.output
    told: dict[str, Any] = json.loads(result.stdout)
    jsonschema.validate(told, json.loads(shipped("report")))
    return told


def _sums(rows: list[dict[str, Any]]) -> dict[str, Any]:
    sums: dict[str, Any] = {name: sum(row[name] or 0 for row in rows) for name in SUMMED}
    for part in ("calls_by_source", "tokens_by_source"):
        sums[part] = {name: sum(row[part][name] for row in rows) for name in rows[0][part]}
    sums["costs"] = sum(Decimal(cost["amount"]) for row in rows for cost in row["costs"])
    return sums


@pytest.mark.parametrize("details", [[], ["--details"]])
@pytest.mark.parametrize("by", GROUPINGS)
def test_the_sums_are_equal_however_they_are_grouped(wide_log: Path, by: str, details: list[str]) -> None:
    """The rows of every grouping add up to the total, and the total is that of every other grouping."""
    told = _told(wide_log, "--by", by, *details)
    total = _sums([told["total"]])

    assert 700 == total["calls"]
    assert _sums([_told(wide_log)["total"]]) == total == _sums(told["rows"])
    for row in told["rows"] if details else []:
        assert _sums([row]) == _sums(row["models"])


def test_the_total_is_that_of_the_runs_own_summaries(real_log: Path) -> None:
    """What was read back is what was written."""
    runs = [json.loads(path.read_text()) for path in (real_log / "runs").glob("*.json")]
    total = _told(real_log)["total"]

    names = ("embedding_tokens", "llm_prompt_tokens", "llm_completion_tokens", "total_llm_tokens")
    assert {name: sum(run[name] for run in runs) for name in names} == {name: total[name] for name in names}
    assert total["embedding_tokens"] > 0
    assert total["cache_read_tokens"] > 0
    assert total["reasoning_tokens"] > 0


def test_runs_are_told_with_their_names(real_log: Path) -> None:
    """An id alone says little."""
    rows = _told(real_log, "--by", "run")["rows"]

    assert {"nightly-digest", "inner", "weekly-digest"} == {row["name"] for row in rows}


def test_a_runs_name_stands_where_a_narrow_terminal_keeps_it(real_log: Path) -> None:
    """Before its id, of which the end goes first."""
    result = CliRunner(env={"COLUMNS": "60"}).invoke(main, ["report", str(real_log), "--by", "run"])

    assert any(line.startswith("nightly-digest") for line in result.stdout.splitlines())


@pytest.mark.parametrize(
    ("arguments", "calls"),
    [
        (["--run", "nightly-digest"], 2),
        (["--model", "*4O-mini"], 4),
        (["--tag", "team=search"], 2),
        (["--tag", "team"], 4),
        (["--since", "2000-01-01", "--until", "today"], 5),
        (["--since", "1h", "--model", "text-*"], 1),
    ],
)
def test_filters_take_what_they_name(real_log: Path, arguments: list[str], calls: int) -> None:
    """And nothing else."""
    assert calls == _told(real_log, *arguments)["total"]["calls"]


def test_filters_that_nothing_passes_are_told_and_no_error(real_log: Path) -> None:
    """A day without a call is a day that cost nothing."""
    result = _run(real_log, "--until", "2001-01-01", "--fail-over", "0")

    assert (0, "") == (result.exit_code, result.stdout)
    assert f"no calls in {real_log} fit --until" == result.stderr.strip()
    assert [] == _told(real_log, "--until", "2001-01-01")["rows"]


def test_days_are_those_of_the_zone(tmp_path: Path) -> None:
    """A call at 23:30 in London is one of the next day in Berlin, in a week and a month of its own."""
    log = written(tmp_path, record(started_at=NOON.replace(month=10, day=31, hour=23, minute=30)))

    def group(by: str, zone: str) -> str:
        result = CliRunner().invoke(main, ["report", str(log), "--by", by, "--tz", zone, "--json"])
        return str(json.loads(result.stdout)["rows"][0]["group"])

    assert ("2026-10-31", "2026-11-01") == (group("day", "Europe/London"), group("day", "Europe/Berlin"))
    assert ("2026-10", "2026-11") == (group("month", "UTC"), group("month", "Asia/Kathmandu"))


def test_the_hour_that_comes_twice_is_of_one_day(tmp_path: Path) -> None:
    """On the night on which clocks go back in Berlin, a day has 25 hours."""
    begins = NOON.replace(month=10, day=24, hour=22, minute=0)
    log = written(tmp_path, *(record(number, started_at=begins + timedelta(hours=number)) for number in range(25)))
    result = CliRunner().invoke(main, ["report", str(log), "--tz", "Europe/Berlin", "--json"])

    assert [("2026-10-25", 25)] == [(row["group"], row["calls"]) for row in json.loads(result.stdout)["rows"]]


def test_csv_and_json_tell_the_same(wide_log: Path) -> None:
    """Group by group."""
    read = list(csv.DictReader(io.StringIO(_run(wide_log, "--by", "day", "--csv").stdout)))
    rows = _told(wide_log, "--by", "day")["rows"]

    assert [(row["group"], str(row["llm_prompt_tokens"])) for row in rows] == [
        (row["group"], row["llm_prompt_tokens"]) for row in read if row["kind"] == "group"
    ]


def test_markdown_is_a_table_with_its_notes(tmp_path: Path, prices: Path) -> None:
    """What the marks mean, whose the prices are and what is not in the figures stands below it, as Markdown."""
    estimated = Sources(prompt=Provenance.REPORTED, completion=Provenance.ESTIMATED)
    partial = Sources(prompt=Provenance.REPORTED, completion=Provenance.PARTIAL)
    log = written(
        tmp_path / "log", record(1, provenance=estimated), record(2, model="*nobodys*", outcome=Outcome.ABANDONED,
        provenance=partial), record(3, model=None), record(4, usage=Usage()),
    )  # fmt: skip
    (log / "package.json").write_text("[]")
    result = _run(log, "--markdown", "--by", "model", "--prices", prices)
    table, notes = result.stdout.split("\n\n")

    assert table.splitlines()[1].startswith("| --- |")
    assert [
        "- ≥ at least so much: what some calls used is not known, or not in full",
        "- \\~ holds an estimate",
        "- prices: own table, for 2026-11-03",
        "- 2 calls are not in the cost, no price is known for (none), \\*nobodys\\*",
        "- 1 call is not in the cost, its figures are missing or contradict each other",
    ] == notes.splitlines()[:5]
    assert notes.splitlines()[5].startswith("- not in it: 1 file of somebody else (first: ")
    assert "" == result.stderr


def test_markdown_without_anything_to_note_is_the_table(priced_log: Path) -> None:
    """No empty list below it."""
    (priced_log / "calls-2026-11-03-1-00000000.jsonl").touch()
    result = _run(priced_log, "--markdown", "--until", "2001-01-01")

    assert 3 == len(result.stdout.splitlines())


def test_figures_that_contradict_each_other_are_told_apart_from_prices_that_nobody_knows(
    tmp_path: Path, prices: Path
) -> None:
    """More cached than prompt tokens: the model has a price, the call has none."""
    usage = Usage(prompt_tokens=3, completion_tokens=4, cache_read_tokens=5)
    result = _run(written(tmp_path / "log", record(usage=usage)), "--prices", prices)

    assert "1 call is not in the cost, its figures are missing or contradict each other" in result.stdout
    assert "no price is known" not in result.stdout


def test_a_call_without_a_model_has_one_name(tmp_path: Path) -> None:
    """In the table, in the note below it and in JSON."""
    log = written(tmp_path / "log", record(model=None, provider=None))
    lines = _run(log, "--by", "model").stdout.splitlines()

    assert 1 == len([line for line in lines if line.startswith("(none) ")])
    assert "1 call is not in the cost, no price is known for (none)" in lines
    assert ["(none)"] == _told(log)["total"]["unpriced_models"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--by", "colour"], ["--by", "tag:"], ["--since", "soon"], ["--until", "2026-99-01"], ["--tz", "Mars/Base"],
        ["--fail-over", "-1"], ["--fail-over", "cheap"], ["--fail-over", "nan"], ["--fail-over-tokens", "-3"],
        ["--tag", "=x"], ["--prices", "nowhere.toml"], ["--since", "2026-11-03", "--until", "2026-11-01"],
        ["--json", "--csv"],
    ],
)  # fmt: skip
def test_wrong_use_ends_with_2(real_log: Path, arguments: list[str]) -> None:
    """And says what was wrong."""
    result = CliRunner().invoke(main, ["report", str(real_log), *arguments])

    assert 2 == result.exit_code
    assert "Error: " in result.stderr


@pytest.fixture
def priced_log(tmp_path: Path) -> Path:
    """Write a million prompt tokens of gpt-4o."""
    return written(tmp_path / "token_logs", record(usage=Usage(prompt_tokens=1_000_000, completion_tokens=0)))


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    """Write prices of the user's own: three dollars a million."""
    path = tmp_path / "prices.toml"
    path.write_text('currency = "USD"\n[[price]]\nmodel = "gpt-4o"\nprompt = "3"\ncompletion = "4"\n')
    return path


@pytest.mark.parametrize(("limit", "code"), [("2.99", 3), ("3", 0), ("3.01", 0), ("0", 3)])
def test_a_cost_over_the_limit_ends_with_3(priced_log: Path, prices: Path, limit: str, code: int) -> None:
    """As much as the limit is not over it; the report is printed all the same."""
    result = _run(priced_log, "--prices", prices, "--fail-over", limit)

    assert code == result.exit_code
    assert "$3.0000" in result.stdout
    assert ("over the limit: it cost 3" in result.stderr) == (code == 3)


@pytest.mark.parametrize(("limit", "code"), [("999999", 3), ("1000000", 0)])
def test_tokens_over_the_limit_end_with_3(priced_log: Path, limit: str, code: int) -> None:
    """The total is what counts: prompt and completion."""
    assert code == _run(priced_log, "--fail-over-tokens", limit).exit_code


def test_calls_without_a_price_make_a_limit_uncertain(tmp_path: Path, prices: Path) -> None:
    """Nobody knows whether it was passed: 4, and a word on standard error."""
    log = written(tmp_path / "token_logs", record(1), record(2, model="nobodys-model"))
    result = _run(log, "--prices", prices, "--fail-over", "5")

    assert 4 == result.exit_code
    assert "within the limit as far as is known, but 1 call has no known price" in result.stderr
    assert 0 == _run(log, "--prices", prices, "--fail-over-tokens", "5000").exit_code


def test_a_lower_bound_makes_a_limit_uncertain_and_one_over_it_is_over(tmp_path: Path, prices: Path) -> None:
    """It used at least so much."""
    sources = Sources(prompt=Provenance.REPORTED, completion=Provenance.PARTIAL)
    log = written(tmp_path / "token_logs", record(outcome=Outcome.ABANDONED, provenance=sources))

    assert 4 == _run(log, "--prices", prices, "--fail-over-tokens", "500").exit_code
    assert 3 == _run(log, "--prices", prices, "--fail-over-tokens", "50").exit_code


def test_other_currencies_make_a_limit_uncertain(tmp_path: Path, prices: Path) -> None:
    """Euros are not compared with dollars, and not left out in silence."""
    prices.write_text(prices.read_text().replace("USD", "EUR"))
    log = written(tmp_path / "token_logs", record())
    result = _run(log, "--prices", prices, "--fail-over", "5")

    assert 4 == result.exit_code
    assert "some calls are priced in EUR" in result.stderr


def test_lines_that_cannot_be_read_make_a_limit_uncertain(priced_log: Path, prices: Path) -> None:
    """They may have cost anything."""
    (priced_log / "calls-2026-11-03-1-00000000.jsonl").write_bytes(b"\x00\xff junk\n" * 3)
    result = _run(priced_log, "--prices", prices, "--fail-over", "5")

    assert 4 == result.exit_code
    assert "3 lines or files could not be read" in result.stderr


def test_without_a_limit_nothing_is_uncertain(priced_log: Path) -> None:
    """A report is not a test."""
    (priced_log / "calls-2026-11-03-1-00000000.jsonl").write_bytes(b"\x00\xff junk\n" * 3)

    assert 0 == _run(priced_log).exit_code


def test_an_empty_folder_says_what_would_fill_it(tmp_path: Path) -> None:
    """Exit code 1, so that a script notices, and nothing that looks like a report."""
    result = _run(tmp_path)

    assert (1, "") == (result.exit_code, result.stdout)
    assert "TokenCounter()" in result.stderr


def test_no_folder_says_what_to_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The very first thing that a new user may see."""
    monkeypatch.chdir(tmp_path)
    result = _run()

    assert 2 == result.exit_code
    assert "there is no folder token_logs here" in result.stderr
    assert 2 == _run("elsewhere").exit_code


def test_somebody_elses_json_is_told_and_not_read(tmp_path: Path) -> None:
    """With the name of a file, so that one sees which folder it is."""
    (tmp_path / "package.json").write_text('{"name": "x", "version": [1, 2]}')
    (tmp_path / "data.jsonl").write_text('{"a": 1}\n[]\n')
    (tmp_path / "calls-mine.jsonl").write_text('{"a": 1}\n[]\nnull\n3\n"text"\n')
    result = _run(tmp_path)

    assert (1, "") == (result.exit_code, result.stdout)
    assert "5 lines that are no calls" in result.stderr


def test_what_cannot_be_read_is_told_with_its_place(priced_log: Path) -> None:
    """Junk, a torn line, a newer major version: the rest is read; a newer minor version is."""
    (line,) = next(iter(priced_log.glob("calls-*.jsonl"))).read_bytes().splitlines()
    newer = line.replace(b'"schema_version":"1.0"', b'"schema_version":"1.99","shade":"blue"')
    major = line.replace(b'"schema_version":"1.0"', b'"schema_version":"9.0"')
    (priced_log / "calls-2026-11-03-1-00000000.jsonl").write_bytes(
        b"\n".join([newer, b"\x00\x01\xfe\xff" * 300, major, b"{" * 5000, line[:100]])
    )
    told = _told(priced_log)

    assert 2 == told["total"]["calls"]
    assert {"unreadable": 2, "newer": 1, "torn": 1} == {one["reason"]: one["count"] for one in told["skipped"]}
    assert all("calls-2026-11-03-1-00000000.jsonl" in one["example"] for one in told["skipped"])


def test_a_line_without_an_end_is_passed_over(priced_log: Path) -> None:
    """It is longer than any call's; what is around it is read."""
    (line,) = next(iter(priced_log.glob("calls-*.jsonl"))).read_bytes().splitlines()
    with (priced_log / "calls-2026-11-03-1-00000000.jsonl").open("wb") as file:
        file.write(line + b"\n")
        for _ in range(40):
            file.write(b"x" * (1 << 20))
        file.write(b"\n" + line + b"\n")
    told = _told(priced_log)

    assert 3 == told["total"]["calls"]
    assert ["too_long"] == [one["reason"] for one in told["skipped"]]


def test_a_clock_that_goes_backwards_loses_nothing(tmp_path: Path) -> None:
    """The call that ended before it began is a call."""
    log = written(
        tmp_path,
        record(1),
        record(2, started_at=NOON - timedelta(days=1)),
        record(3, ended_at=NOON - timedelta(hours=1)),
    )

    assert [("2026-11-02", 1), ("2026-11-03", 2)] == [(row["group"], row["calls"]) for row in _told(log)["rows"]]


def test_the_logs_of_two_machines_add_up_and_a_copy_adds_nothing(tmp_path: Path) -> None:
    """Two folders, and the first one again."""
    here, there = written(tmp_path / "here", record(1)), written(tmp_path / "there", record(2), record(3))
    shutil.copytree(here, tmp_path / "copy")
    told = _told(here, there, tmp_path / "copy")

    assert 3 == told["total"]["calls"]
    assert ["copied_files"] == [one["reason"] for one in told["skipped"]]


def test_a_folder_that_may_not_be_read_is_no_traceback(tmp_path: Path) -> None:
    """A file of calls that is a folder, a link to nowhere, and a summary that is none."""
    (tmp_path / "calls-2026-11-03-1-00000000.jsonl").mkdir()
    (tmp_path / "calls-2026-11-03-2-00000000.jsonl").symlink_to(tmp_path / "nowhere")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / f"{RUN_ID}.json").write_bytes(b"\xff" * 99)

    assert 1 == _run(tmp_path).exit_code


def test_figures_that_nobody_can_have_are_no_traceback(tmp_path: Path) -> None:
    """A model of ten kilobytes, and more tokens than 64 bits hold."""
    log = written(
        tmp_path, record(1, model="m\n" * 5000), record(2, usage=Usage(prompt_tokens=2**63 - 1)),
        record(3, operation=Operation.EMBEDDING, usage=Usage(embedding_tokens=2**63 - 1)),
    )  # fmt: skip

    for by in GROUPINGS:
        assert 0 == _run(log, "--by", by).exit_code


def test_every_summary_is_still_what_it_was(real_log: Path) -> None:
    """Reading changes nothing."""
    before = {path: path.read_bytes() for path in sorted(real_log.rglob("*")) if path.is_file()}
    for by in GROUPINGS:
        _run(real_log, "--by", by, "--details")

    assert before == {path: path.read_bytes() for path in sorted(real_log.rglob("*")) if path.is_file()}
