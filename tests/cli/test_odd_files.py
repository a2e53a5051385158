"""Whatever somebody wrote into the files of a log: every command tells what it can, and none dies of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from token_callbacks.cli import main

COMMANDS = (
    ["runs"],
    ["runs", "--json"],
    ["show", "last"],
    ["show", "nightly-digest", "--json"],
    ["report"],
    ["report", "--by", "run", "--details"],
    ["report", "--by", "month", "--tz", "Asia/Tokyo", "--json"],
    ["watch", "--once"],
    ["recover"],
)
ENDS_OF_TIME = ("0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00")
VALUES: list[Any] = [
    *(None, True, 0, -1, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, 0.5, -0.5, 1e308, 1e-320),
    *("", "x" * 5000, "9" * 5000, "a\nb", "../x", "\x1b[31m", "\ud800", "NaN", "-3", "1e5"),
    *("2026-11-21", "2026-11-21T00:00:00", "9999-12-31T23:59:59Z", "1969-12-31T23:59:59.999999Z", *ENDS_OF_TIME),
    *("embedding", "completed", "estimated", "running"),
    *([], {}, [None], [1], ["a"], {"a": 1}, {"a": {"b": [1]}}, [[[]]]),
    *({"cost": 1e300}, {"cost": {"total_cost": 10**25, "currency": "\x1b"}}, {"cost_in_usd_ticks": 10**40}),
]


@pytest.fixture(scope="session")
def odd_log(tmp_path_factory: pytest.TempPathFactory, real_log: Path) -> Callable[[], Path]:
    """Make the log whole again, each time it is asked for."""
    folder = tmp_path_factory.mktemp("odd") / "token_logs"

    def made() -> Path:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(real_log, folder)
        return folder

    return made


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Go through the places in a JSON value, but for its top."""
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in below:
        yield (*place, name)
        yield from _places(inner, (*place, name))


def _put(text: str, data: st.DataObject) -> str:
    """Put another value somewhere into a line, or take something out."""
    top = whole = json.loads(text)
    *way, last = data.draw(st.sampled_from(list(_places(whole))))
    for name in way:
        whole = whole[name]
    if data.draw(st.integers(0, 9)):
        whole[last] = data.draw(st.sampled_from(VALUES))
    else:
        del whole[last]
    return json.dumps(top)


def _run(command: list[str], folder: Path) -> str:
    result = CliRunner().invoke(
        main,
        [*command[:2], str(folder), *command[2:]] if command[0] == "show" else [command[0], str(folder), *command[1:]],
    )
    assert result.exception is None or isinstance(result.exception, SystemExit), (command, result.exception)
    return result.output


@given(st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_command_dies_of_what_is_in_a_file(odd_log: Callable[[], Path], data: st.DataObject) -> None:
    """Of a value of another kind, too large, too long, from the ends of time, or gone."""
    folder = odd_log()
    for path in data.draw(st.lists(st.sampled_from(sorted(folder.rglob("*.json*"))), min_size=1, max_size=2)):
        lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        number = data.draw(st.integers(0, len(lines) - 1))
        lines[number] = _put(lines[number], data)
        path.write_text("".join(f"{line}\n" for line in lines))
    for command in COMMANDS:
        _run(command, folder)


@pytest.mark.parametrize("command", [it for it in COMMANDS if "--json" not in it], ids=" ".join)
def test_what_somebody_put_into_the_folder_cannot_act_on_the_terminal(
    odd_log: Callable[[], Path], command: list[str]
) -> None:
    """A run's id, a currency and the names of files are spelled, as names and tags are."""
    folder, evil = odd_log(), "\x1b[2J\nx\u202e"
    path = max((folder / "runs").iterdir())
    summary = json.loads(path.read_text())
    summary["cost"] |= {"amount": "1", "currency": evil, "price_source": evil}
    path.write_text(json.dumps(summary | {"run_id": f"9{evil}", "started_at": "2099-01-01T00:00:00Z"}))
    (folder / f"calls-{evil}.jsonl").write_text("junk\n")
    (folder / f"{evil}.json").write_text("{}")
    told = _run(command, folder)

    assert "\x1b" not in told
    assert "\u202e" not in told
    assert "x" not in told.splitlines()


@pytest.mark.parametrize("moment", ENDS_OF_TIME)
@pytest.mark.parametrize("command", COMMANDS[:-2], ids=" ".join)
def test_what_is_from_the_ends_of_time_is_told(odd_log: Callable[[], Path], command: list[str], moment: str) -> None:
    """Python cannot tell such a moment in UTC: it is told as it stands."""
    folder = odd_log()
    odd = {"started_at": moment, "ended_at": moment, "duration_seconds": 1e308}
    for path in (folder / "runs").iterdir():
        path.write_text(json.dumps(json.loads(path.read_text()) | odd))
    for path in folder.glob("calls-*.jsonl"):
        lines = [json.loads(line) | {"started_at": moment} for line in path.read_text().splitlines()]
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))

    if command[:3] == ["report", "--by", "run"]:
        assert "nightly-digest" in _run(command, folder)
    else:
        assert moment[:7] in _run(command, folder)


def test_a_summary_without_a_zone_is_in_utc(odd_log: Callable[[], Path]) -> None:
    """It is shown, and recovering leaves it alone."""
    folder = odd_log()
    for path in (folder / "runs").iterdir():
        told = json.loads(path.read_text())
        bare = {name: told[name].removesuffix("Z") for name in ("started_at", "ended_at")}
        path.write_text(json.dumps(told | bare))
    before = {path: path.read_text() for path in (folder / "runs").iterdir()}
    _run(["recover"], folder)
    listed = json.loads(_run(["runs", "--json"], folder))["runs"]

    assert before == {path: path.read_text() for path in (folder / "runs").iterdir()}
    assert len(before) == len(listed)
    assert all(run["started_at"].endswith("Z") and run["ended_at"].endswith("Z") for run in listed)


@pytest.mark.parametrize("day", ["20269999", "00000000"])
def test_a_mark_of_a_day_that_there_is_not_keeps_no_run_from_being_summed_up(
    odd_log: Callable[[], Path], day: str
) -> None:
    """Its name is shaped as those of ours are."""
    folder = odd_log()
    [written, *_] = sorted(folder.glob("calls-*.jsonl"))
    record = json.loads(written.read_text().splitlines()[0]) | {"run_id": "20261121T120000-0123456789ab"}
    (folder / "calls-2026-11-21-1-01234567.jsonl").write_text(json.dumps(record) + "\n")
    (folder / "open").mkdir(exist_ok=True)
    for run_id in (f"{day}T999999-0123456789ab", record["run_id"]):
        (folder / "open" / f"{run_id}.1-01234567.open.json").write_text("{}")
    for command in COMMANDS:
        _run(command, folder)

    assert (folder / "runs" / f"{record['run_id']}.json").exists()


def test_an_error_band_of_any_size_is_summed_up(odd_log: Callable[[], Path]) -> None:
    """By how much figures may be off is a number of tokens that JSON can hold."""
    folder = odd_log()
    for path in folder.glob("calls-*.jsonl"):
        bands = {"prompt": "estimated", "completion": "estimated", "prompt_error_band": 1e308}
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        odd = [line | {"run_id": "20261121T120000-0123456789ab", "provenance": bands} for line in lines]
        path.write_text("".join(f"{json.dumps(line)}\n" for line in odd))
    _run(["recover"], folder)
    told = json.loads((folder / "runs" / "20261121T120000-0123456789ab.json").read_text())

    assert 2**53 == told["provenance"]["error_tokens"]
