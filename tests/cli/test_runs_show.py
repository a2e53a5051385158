"""``token-callbacks runs`` and ``show``: which runs there are, and one of them as a tree."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner, Result

from tests.calls import make_call
from tests.cli.rows import NOON, RUN_ID, record, written
from tests.cli.screens import Writer
from token_callbacks import TokenCounter
from token_callbacks.cli import main
from token_callbacks.schemas import shipped


def _run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [*map(str, arguments), "--tz", "UTC"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def _told(command: str, *arguments: object) -> dict[str, Any]:
    result = _run(command, *arguments, "--json")
    assert 0 == result.exit_code, result.output
    told: dict[str, Any] = json.loads(result.stdout)
    jsonschema.validate(told, json.loads(shipped(command)))
    return told


@contextmanager
def _counter(log_dir: Path, *, prices: Any) -> Iterator[TokenCounter]:
    counter = TokenCounter(log_dir=log_dir, prices=prices)
    yield counter
    counter.close()


def _names(tree: dict[str, Any]) -> list[Any]:
    return [tree["run"]["name"], *(_names(nested) for nested in tree["nested"])]


def test_runs_are_listed_newest_first(real_log: Path) -> None:
    """With the summaries as they are in the files."""
    told = _told("runs", real_log)

    assert ["weekly-digest", "inner", "nightly-digest"] == [run["name"] for run in told["runs"]]
    for run in told["runs"]:
        assert json.loads((real_log / "runs" / f"{run['run_id']}.json").read_text()) == run


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--tag", "team=search"], ["nightly-digest"]),
        (["--tag", "team"], ["weekly-digest", "nightly-digest"]),
        (["--limit", "1"], ["weekly-digest"]),
        (["--until", "2001-01-01"], []),
        (["--since", "1h"], ["weekly-digest", "inner", "nightly-digest"]),
    ],
)
def test_runs_are_filtered(real_log: Path, arguments: list[str], names: list[str]) -> None:
    """By tag, by time, by number."""
    assert names == [run["name"] for run in _told("runs", real_log, *arguments)["runs"]]


def test_what_the_limit_leaves_out_is_told(real_log: Path) -> None:
    """Nobody is to take a part for the whole."""
    assert 2 == _told("runs", real_log, "--limit", "1")["left_out"]
    assert "2 older ones are left out" in _run("runs", real_log, "--limit", "1").stderr


def test_a_run_that_goes_on_is_listed_with_what_it_used_by_now(tmp_path: Path) -> None:
    """And one whose process died is told apart from it."""
    with Writer(tmp_path) as writer:
        writer.tell("open doomed")
        writer.tell("call 3 4")
        writer.kill()
    with Writer(tmp_path) as writer:
        writer.tell("open going")
        writer.tell("call 5 6")
        (going,) = (run for run in _told("runs", tmp_path)["runs"] if run["name"] == "going")

        assert ("running", None, 11) == (going["outcome"], going["ended_at"], going["total_llm_tokens"])
        assert "running" in _run("show", "going", tmp_path).stdout
    # The second program has summed up the first one's run when it began.
    assert "interrupted" == _told("show", "doomed", tmp_path)["tree"]["run"]["outcome"]


def test_what_a_dead_process_left_is_shown_without_being_written(tmp_path: Path) -> None:
    """Looking is not recovering."""
    with Writer(tmp_path) as writer:
        writer.tell("open doomed")
        writer.tell("call 3 4")
        writer.kill()
    (run,) = _told("runs", tmp_path)["runs"]

    assert ("doomed", "interrupted", 7, True) == (
        run["name"], run["outcome"], run["total_llm_tokens"], run["lower_bound"],
    )  # fmt: skip
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("command", [["runs"], ["show", "last"]])
def test_a_folder_without_runs_says_what_would_make_some(tmp_path: Path, command: list[str]) -> None:
    """Exit code 1; 2 where there is no folder."""
    result = _run(*command, tmp_path)

    assert (1, "") == (result.exit_code, result.stdout)
    assert "TokenCounter()" in result.stderr
    assert "token-callbacks recover" in result.stderr
    assert 2 == _run(*command, tmp_path / "nowhere").exit_code


def test_a_run_is_shown_with_the_runs_inside_it(real_log: Path) -> None:
    """As they were nested, each with its own calls."""
    tree = _told("show", "nightly-digest", real_log)["tree"]

    assert ["nightly-digest", ["inner"]] == _names(tree)
    assert [(None, 1), ("judge", 1)] == [(branch["step"], len(branch["calls"])) for branch in tree["branches"]]
    assert 1 == len(tree["nested"][0]["branches"][0]["calls"])


def test_runs_in_runs_are_shown_so_far_and_told_further_down(tmp_path: Path) -> None:
    """As a job makes them that starts itself again from inside its run."""
    with _counter(tmp_path, prices=False) as counter, contextlib.ExitStack() as runs:
        for number in range(600):
            runs.enter_context(counter.run(f"job {number}"))

    tree, shown = _told("show", "job 0", tmp_path)["tree"], []
    while True:
        shown.append(tree["run"]["name"])
        if not tree["nested"]:
            break
        assert 0 == tree["nested_left_out"]
        [tree] = tree["nested"]

    assert [f"job {number}" for number in range(50)] == shown
    assert 550 == tree["nested_left_out"]
    assert "550 runs more, in one another" in _run("show", "job 0", tmp_path).stdout


def test_a_tree_tells_what_each_call_used_and_how_long_it_took(real_log: Path) -> None:
    """With where the figure comes from, and when the first part of a stream came."""
    text = _run("show", "nightly-digest", real_log).stdout

    for word in ("step judge", "gpt-4o-mini", "reported", "first token", "took", "cached", "reasoning", "team=search"):
        assert word in text


def test_runs_and_a_tree_say_whose_prices_theirs_are_and_of_which_days(tmp_path: Path) -> None:
    """Put together, of those that are shown; nothing is said where nothing is priced."""
    table = {"price": [{"model": "gpt-4o", "prompt": 3, "completion": 4}]}
    with _counter(tmp_path, prices=table) as counter, counter.run("outer") as outer:
        make_call(prompt=3, completion=4)
        with counter.run("inner"):
            make_call(prompt=3, completion=4)
    with _counter(tmp_path, prices=False) as counter, counter.run("unpriced"):
        make_call(prompt=3, completion=4)
    for path in (tmp_path / "runs").iterdir():
        day = "2026-11-03" if path == outer.summary_path else "2026-11-04"
        path.write_text(re.sub(r'(_day": ?)"[-0-9]+', rf'\1"{day}', path.read_text()))

    note = "prices: own table, for 2026-11-03 to 2026-11-04"
    assert note == _run("runs", tmp_path).stdout.splitlines()[-1]
    assert note == _run("show", "outer", tmp_path).stdout.splitlines()[-1]
    assert "prices" not in _run("show", "unpriced", tmp_path).stdout


def test_a_call_that_failed_tells_its_error(real_log: Path) -> None:
    """By its class."""
    assert "failed InternalServerError" in _run("show", "weekly-digest", real_log).stdout


def test_what_a_run_is_called_is_found_by_id_beginning_name_and_last(real_log: Path) -> None:
    """The four ways to say which."""
    run_id = _told("runs", real_log)["runs"][0]["run_id"]

    for wanted in (run_id, run_id[:-3], "weekly-digest", "last"):
        assert run_id == _told("show", wanted, real_log)["tree"]["run"]["run_id"]


@pytest.mark.parametrize(("wanted", "told"), [("2", "3 runs have an id that begins with '2'"), ("x\x1b", "no run has")])
def test_a_run_that_is_not_clear_is_wrong_use(real_log: Path, wanted: str, told: str) -> None:
    """With what to do, and without a control character."""
    result = _run("show", wanted, real_log)

    assert 2 == result.exit_code
    assert told in result.stderr
    assert "\x1b" not in result.stderr


def test_of_many_calls_the_first_are_shown_and_all_are_counted(tmp_path: Path) -> None:
    """In the order they began, whatever the order of their lines."""
    counter = TokenCounter(log_dir=tmp_path)
    with counter.run("many") as run:
        make_call(prompt=3, completion=4)
    counter.close()
    late_first = (record(n, run_id=run.run_id, step="s", started_at=NOON - timedelta(seconds=n)) for n in range(300))
    written(tmp_path, *late_first)
    (branch,) = (b for b in _told("show", "many", tmp_path, "--calls", "3")["tree"]["branches"] if b["step"] == "s")

    assert (["call-299", "call-298", "call-297"], 297) == (
        [call["call_id"] for call in branch["calls"]], branch["calls_left_out"],
    )  # fmt: skip
    assert sum(100 + n for n in range(300)) == branch["llm_prompt_tokens"]
    assert "297 calls more" in _run("show", "many", tmp_path, "--calls", "3").stdout


def test_runs_that_are_each_others_parents_are_no_endless_tree(real_log: Path, tmp_path: Path) -> None:
    """Somebody edited the files."""
    for path in (real_log / "runs").iterdir():
        summary = json.loads(path.read_text()) | {"parent_run_id": path.stem}
        (tmp_path / "runs").mkdir(exist_ok=True)
        (tmp_path / "runs" / path.name).write_text(json.dumps(summary))

    assert ["weekly-digest"] == _names(_told("show", "last", tmp_path)["tree"])


def test_a_summary_that_is_none_is_passed_over(tmp_path: Path) -> None:
    """Junk in ``runs/`` is no traceback."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / f"{RUN_ID}.json").write_bytes(b"\x00\xff{")
    (tmp_path / "runs" / "package.json").write_text('{"name": "x"}')

    assert 1 == _run("runs", tmp_path).exit_code


def test_names_cannot_act_on_the_terminal(real_log: Path) -> None:
    """A tag holds an escape sequence and a newline: it is spelled."""
    text = _run("show", "weekly-digest", real_log).stdout

    assert r"team=\x1b[31mred\x1b[0m\n" in text
    assert "\x1b" not in text


def test_show_alone_shows_the_newest_run(real_log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is the one that somebody who has just run a program wants to see."""
    (tmp_path / "token_logs").symlink_to(real_log)
    monkeypatch.chdir(tmp_path)

    assert "weekly-digest" == _told("show")["tree"]["run"]["name"]


def test_a_folder_in_the_place_of_a_run_is_told(real_log: Path) -> None:
    """With the command that was meant."""
    result = _run("show", real_log)

    assert 2 == result.exit_code
    assert f"and no run; for its newest: token-callbacks show last {real_log}" in result.stderr
