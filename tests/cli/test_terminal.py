"""Every command in real terminals, pipes and odd encodings."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from rich.cells import cell_len

from tests.cli.screens import COMMAND, environment, piped, shown, typed
from token_callbacks.cli import terminal
from token_callbacks.reports.tables import COLUMNS, LEFT_OUT_FIRST
from token_callbacks.schemas import shipped

COMMANDS = [
    ["report"], ["report", "--by", "model"], ["report", "--by", "run", "--details"], ["report", "--by", "step"],
    ["runs"], ["show", "nightly-digest"], ["watch", "--once"],
]  # fmt: skip


def _at(command: list[str], log: Path) -> list[str]:
    return [*command[:2], str(log), *command[2:]] if command[0] == "show" else [command[0], str(log), *command[1:]]


@pytest.mark.parametrize("columns", [60, 100, 160])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_line_is_wider_than_the_terminal(real_log: Path, command: list[str], columns: int) -> None:
    """Nothing wraps, nothing is cut off by the terminal."""
    sent, code = typed(*_at(command, real_log), columns=columns)
    lines = shown(sent, columns=400)

    assert 0 == code
    assert [] == [line for line in lines if cell_len(line) > columns]
    assert lines == shown(sent, columns=columns)


@pytest.mark.parametrize("columns", [60, 100, 160])
def test_every_digit_is_there_at_every_width(wide_log: Path, columns: int) -> None:
    """The figures of the columns that are left are those of the JSON, and those that went are the documented ones."""
    told = json.loads(piped("report", str(wide_log), "--by", "model", "--json").stdout)
    sent, _ = typed("report", str(wide_log), "--by", "model", columns=columns)
    lines = shown(sent, columns=columns)
    left_out = re.search(r"no room for: ([a-z, ]+)", " ".join(lines))
    gone = re.findall(r"[a-z]+", left_out[1])[: len(LEFT_OUT_FIRST)] if left_out else []
    gone = [name for name in gone if name in COLUMNS]

    assert set(LEFT_OUT_FIRST[: len(gone)]) == set(gone)
    above, below = (number for number, line in enumerate(lines) if line.startswith("─"))
    rows = [*lines[above + 1 : below], lines[below + 1]]
    for row, line in zip([*told["rows"], told["total"]], rows, strict=True):
        total = row["total_llm_tokens"]
        assert ("–" if total is None else f"{total:,}") in re.split(r"[\s≥~]+", line)


def test_colours_are_for_terminals_that_want_them(real_log: Path) -> None:
    """Not in a pipe, and not where ``NO_COLOR`` says no."""
    coloured, _ = typed("runs", str(real_log), columns=100)
    plain, _ = typed("runs", str(real_log), columns=100, NO_COLOR="1")
    failed = re.compile(rb"\x1b\[[\d;]*3[1-7]")

    assert b"\x1b[1m" in coloured
    assert None is failed.search(plain)
    assert b"\x1b" not in piped("runs", str(real_log)).stdout


def test_a_run_that_failed_is_red_unless_no_colour_is_wanted(tmp_path: Path) -> None:
    """So that ``NO_COLOR`` has something to take away."""
    program = (
        "import contextlib\nfrom token_callbacks import TokenCounter\nfrom tests.calls import make_call\n"
        f"with contextlib.suppress(KeyError), TokenCounter(log_dir={str(tmp_path)!r}).run('broken'):\n"
        "    make_call(prompt=3, completion=4)\n    raise KeyError\n"
    )
    subprocess.run([sys.executable, "-c", program], env=environment(), check=True)

    assert b"\x1b[31m" in typed("runs", str(tmp_path), columns=100)[0]
    assert b"\x1b[31m" not in typed("runs", str(tmp_path), columns=100, NO_COLOR="1")[0]


def test_a_pipe_gets_every_column(real_log: Path) -> None:
    """Unless ``COLUMNS`` says how wide it is."""
    assert b"no room for" not in piped("report", str(real_log)).stdout
    assert b"no room for" in piped("report", str(real_log), COLUMNS="60").stdout


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_encoding_can_say_it(wide_log: Path, real_log: Path, command: list[str], encoding: str) -> None:
    """ASCII signs where there are no others, and no traceback whatever a model is called."""
    log = wide_log if command[0] == "report" else real_log
    done = piped(*_at(command, log), PYTHONIOENCODING=encoding)

    assert 0 == done.returncode
    assert b"Traceback" not in done.stderr
    text = done.stdout.decode(encoding)
    if command == ["report", "--by", "model"]:
        assert (">=" in text, "≥" in text) == (encoding != "utf-8", encoding == "utf-8")


@pytest.mark.parametrize("command", [*COMMANDS, ["report", "--csv"], ["report", "--json"]], ids=" ".join)
def test_a_reader_that_leaves_is_no_traceback(wide_log: Path, real_log: Path, command: list[str]) -> None:
    """As ``| head`` does."""
    log = wide_log if command[0] == "report" else real_log
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*COMMAND, *_at(command, log)], env=environment(), stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)

    assert b"" == done.stderr.replace(b"no run is open\n", b"")


@pytest.mark.parametrize(
    "name", ["report", "runs", "show", "watch", "recover", "schema", "export", "completion", "count"]
)
def test_every_help_has_an_example(name: str) -> None:
    """That begins with the command."""
    done = piped(name, "--help")

    assert 0 == done.returncode
    assert f" token-callbacks {name}" in done.stdout.decode().partition("Usage:")[2].partition("\n")[2] or name in (
        "completion", "count",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["report", "runs", "show", "watch", "export"])
def test_exit_codes_are_in_the_help(name: str) -> None:
    """For who writes a script."""
    assert b"Exit codes:" in piped(name, "--help").stdout


def test_alone_it_gives_help_with_where_to_begin(tmp_path: Path) -> None:
    """And a path in the place of a command is answered with the command for it."""
    alone, path = piped(), piped(str(tmp_path))

    assert (0, True) == (alone.returncode, b"token-callbacks show" in alone.stdout)
    assert (2, True) == (path.returncode, f"token-callbacks report {tmp_path}".encode() in path.stderr)


def test_importing_the_command_imports_nothing_heavy() -> None:
    """``--help`` and completion are to be quick."""
    program = "import sys; import token_callbacks.cli; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}

    assert set() == loaded & {"rich", "duckdb", "pyarrow", "pandas", "tiktoken", "litellm", "genai_prices", "tzlocal"}


@pytest.mark.parametrize(("seconds", "is_shown"), [(0.0, True), (3600.0, False)])
@pytest.mark.parametrize(
    "command", [["report"], ["runs"], ["show", "last"], ["recover"], ["export", "--parquet", "memory://out"]]
)
def test_a_bar_is_shown_when_reading_takes_long(
    real_log: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], *, seconds: float, is_shown: bool
) -> None:
    """On a terminal's standard error, and taken away at the end, whatever reads the logs."""
    program = (
        f"import token_callbacks.cli.terminal as terminal; terminal._PATIENCE_SECONDS = {seconds}; "
        "from token_callbacks.cli import main; main()"
    )
    monkeypatch.setattr("tests.cli.screens.COMMAND", [sys.executable, "-c", program])
    sent, code = typed(*_at(command, real_log), columns=100)

    assert (0, is_shown) == (code, b"reading" in sent)
    assert not [line for line in shown(sent, columns=100) if line.startswith("reading")]


def test_the_bar_waits_a_second_and_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its clock starts where somebody can see it, and stops with the reading."""
    with terminal.ReadingBar() as bar:
        assert (1.0, False) == (bar._timer.interval, bar._timer.is_alive())
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with terminal.ReadingBar() as bar:
        assert bar._timer.is_alive()
    assert not bar._timer.is_alive()


@pytest.mark.parametrize(
    ("shape", "command"),
    [
        ("report", ["report"]), ("report", ["report", "--by", "run", "--details"]), ("runs", ["runs"]),
        ("show", ["show", "last"]),
    ],
)  # fmt: skip
def test_the_json_of_every_command_fits_its_schema(real_log: Path, shape: str, command: list[str]) -> None:
    """Standard output is that one object, and nothing else."""
    done = piped(*_at(command, real_log), "--json")

    jsonschema.validate(json.loads(done.stdout), json.loads(shipped(shape)))
    assert b"" == done.stderr


def test_the_json_of_count_fits_its_schema(tmp_path: Path) -> None:
    """A file, counted."""
    (tmp_path / "one.txt").write_text("one two three")
    done = piped("count", str(tmp_path / "one.txt"), "--json")

    jsonschema.validate(json.loads(done.stdout), json.loads(shipped("count")))


@pytest.mark.parametrize("shape", ["report", "runs", "show", "count"])
def test_a_schema_refuses_what_is_something_else(shape: str) -> None:
    """A schema that takes everything would say nothing."""
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"rows": 3, "runs": 3, "tree": 3, "files": 3}, json.loads(shipped(shape)))
