"""Loading: the right calls or a clear word, whatever lies in the folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import token_callbacks
from token_callbacks import TokenCounter, load
from token_callbacks.errors import InvalidArgument, NoLogs

from ..calls import make_call
from .records import BLANK, NEWER, ODD, RUNS, UNREADABLE, open_run, record, write


def test_records_and_summaries_are_what_was_written(counter: TokenCounter, log_dir: Path) -> None:
    """``token_callbacks.load`` gives the calls and the runs of a folder."""
    with counter.run("nightly") as run:
        make_call(prompt=3, completion=4)
        make_call(embedding=5)
    logs = token_callbacks.load(log_dir)

    assert [3, None] == [each.usage.prompt_tokens for each in logs.records()]
    assert [run.summary] == list(logs.summaries())
    assert (0, []) == (logs.skipped.lines, list(logs.skipped.told()))


@pytest.mark.parametrize("line", UNREADABLE)
def test_a_line_that_is_no_call_is_passed_over_and_told(tmp_path: Path, line: bytes) -> None:
    """The calls around it count, and its place is named."""
    path = write(tmp_path, [record(0), record(1)])
    first, second = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join((first, line, second, b"")))
    logs = load(tmp_path)

    assert ["call-0", "call-1"] == [each.call_id for each in logs.records()]
    assert (1, 1, f"{path}:2") == (logs.skipped.lines, logs.skipped.unreadable, logs.skipped.examples["unreadable"])


def test_newer_minor_versions_are_read_and_newer_major_ones_told(tmp_path: Path) -> None:
    """A minor version only adds keys; a line of a major one that we do not know is left out, and said to be."""
    (tmp_path / "calls-mixed.jsonl").write_bytes(b"\n".join([*ODD, *NEWER, *BLANK]))
    logs = load(tmp_path)

    assert len(ODD) == len(list(logs.records()))
    assert len(NEWER) == logs.skipped.newer
    assert "upgrade token-callbacks" in "".join(logs.skipped.told())


def test_the_line_being_written_is_torn_and_no_error(tmp_path: Path) -> None:
    """Every prefix of a file is read up to its last whole line."""
    path = write(tmp_path, [record(0), record(1)])
    whole = path.read_bytes()
    end = whole.index(b"\n") + 1
    for size in range(end, len(whole) - 1):
        path.write_bytes(whole[:size])
        logs = load(path)

        assert ["call-0"] == [each.call_id for each in logs.records()]
        assert (size > end) == logs.skipped.torn == logs.skipped.lines
    path.write_bytes(whole[:-1])
    assert 2 == len(list(load(path).records()))


def test_an_endless_line_costs_no_memory(tmp_path: Path) -> None:
    """A line of 800 MB is passed over in pieces; the calls around it are read."""
    path = write(tmp_path, [record(0)])
    line = path.read_bytes()
    with path.open("ab") as file:
        file.write(b'{"schema_version":"')
        file.truncate(800 << 20)  # a hole of zeros
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + line.replace(b"call-0", b"call-1"))
    program = (
        "import re, sys, token_callbacks as t; from token_callbacks.reports.groups import aggregated\n"
        "logs = t.load(sys.argv[1]); print(*[r.call_id for r in logs.records()], logs.skipped.too_long)\n"
        "calls = aggregated(logs, by='run').total.calls\n"
        "peak = re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1]  # maxrss has the parent's too\n"
        "print(calls, peak)"
    )
    output = subprocess.run(
        [sys.executable, "-c", program, tmp_path], check=True, capture_output=True, text=True
    ).stdout
    *told, calls, kilobytes = output.split()

    assert ["call-0", "call-1", "1", "2"] == [*told, calls]
    assert int(kilobytes) < 500_000


def test_two_machines_logs_and_copies_of_them(tmp_path: Path) -> None:
    """Folders of two machines add up; a copy of a file is read once, the longer one, wherever it lies."""
    one, two, copy = tmp_path / "one", tmp_path / "two", tmp_path / "copy"
    first = write(one, [record(0), record(1)])
    write(two, [record(2)])
    shutil.copytree(one, copy)
    (copy / first.name).write_bytes(first.read_bytes().splitlines(keepends=True)[0])
    for paths in ((one, two, copy), (copy, two, one), (one, one, two)):
        logs = load(*paths)

        assert ["call-0", "call-1", "call-2"] == sorted(each.call_id for each in logs.records())
        assert 1 == logs.skipped.copied_files


def test_files_of_the_same_name_that_are_no_copies_both_count(tmp_path: Path) -> None:
    """Only a name that one writer alone can have given says that two files are the same."""
    for number, folder in enumerate((tmp_path / "one", tmp_path / "two")):
        write(folder, [record(number)]).rename(folder / "calls-all.jsonl")

    assert 2 == len(list(load(tmp_path / "one", tmp_path / "two").records()))


def test_an_empty_folder_has_no_calls(tmp_path: Path) -> None:
    """A program that made no call yet is no mistake."""
    logs = load(tmp_path)

    assert ([], [], ()) == (list(logs.records()), list(logs.summaries()), logs.files)


def test_no_folder_is_our_own_error(tmp_path: Path) -> None:
    """The message names the path and the next step."""
    with pytest.raises(NoLogs, match=r"there is no .*nowhere: give the folder that TokenCounter"):
        load(tmp_path / "nowhere")


def test_a_file_that_can_be_no_log_is_refused(tmp_path: Path) -> None:
    """A picture is no file of calls."""
    (tmp_path / "cat.png").write_bytes(b"")

    with pytest.raises(InvalidArgument, match=r"cat\.png is no file of calls"):
        load(tmp_path / "cat.png")


def test_somebody_elses_json_is_told(tmp_path: Path) -> None:
    """A folder of other JSON gives no calls and says so, with an example."""
    for name in ("package.json", "events.jsonl"):
        (tmp_path / name).write_text(json.dumps({"name": 3}))
    logs = load(tmp_path)

    assert [] == list(logs.records())
    assert (2, str(tmp_path / "events.jsonl")) == (logs.skipped.foreign_files, logs.skipped.examples["foreign_files"])


def test_a_pipe_a_broken_link_and_a_folder_stop_nothing(tmp_path: Path) -> None:
    """What cannot be read is passed over; nothing blocks, as DuckDB would at a pipe that it was told to read."""
    path = write(tmp_path, [record(0)])
    os.mkfifo(tmp_path / "calls-pipe.jsonl")
    (tmp_path / "calls-link.jsonl").symlink_to(tmp_path / "gone")
    (tmp_path / "calls-folder.jsonl").mkdir()

    logs = load(tmp_path)

    assert ["call-0"] == [each.call_id for each in logs.records()]
    assert [str(path)] == [file.path for file in logs.files]


def test_junk_in_runs_and_open_is_passed_over(tmp_path: Path) -> None:
    """Whatever lies beside the summaries, the others are read."""
    write(tmp_path, [record()], runs=[open_run(RUNS[0], "nightly", team="search")])
    (tmp_path / "runs").mkdir()
    for folder, content in (("runs", b"{}"), ("open", b"\xff")):
        (tmp_path / folder / "x.json").write_bytes(content)
    logs = load(tmp_path)

    assert [] == list(logs.summaries())
    assert {RUNS[0]: ("nightly", {"team": "search"})} == {
        run_id: (facts.name, facts.tags) for run_id, facts in logs.run_facts().items()
    }


def test_tables_hold_what_the_lines_hold(tmp_path: Path) -> None:
    """Arrow, pandas, Polars and DuckDB get the same calls; what nobody told is null, not zero."""
    found = [
        record(0, prompt_tokens=3),
        record(1, prompt_tokens=4, cache_read_tokens=0),
        record(2, completion_tokens=5),
    ]
    write(tmp_path, found, runs=[open_run(RUNS[0], "nightly", team="search")])
    logs = load(tmp_path)
    frame = logs.to_pandas()

    assert [3, 4, None] == logs.to_arrow()["prompt_tokens"].to_pylist()
    assert (7, 1) == (frame["prompt_tokens"].sum(), frame["prompt_tokens"].isna().sum())
    assert [None, 0, None] == logs.to_polars()["cache_read_tokens"].to_list()
    assert [("nightly", 7)] == logs.to_duckdb().aggregate("run_name, sum(prompt_tokens)").fetchall()


def test_tables_of_nothing_have_all_columns(tmp_path: Path) -> None:
    """An empty folder is an empty table."""
    table = load(tmp_path).to_arrow()

    assert 0 == table.num_rows
    assert {"call_id", "prompt_tokens", "prompt_source", "run_name"} <= set(table.column_names)


@pytest.mark.parametrize(
    ("module", "code", "step"),
    [
        ("pyarrow", "t.load(p).to_arrow()", "token-callbacks[analytics]"),
        ("duckdb", "t.load(p).to_duckdb()", "token-callbacks[analytics]"),
        ("duckdb", "aggregated(t.load(p), by='run', engine='duckdb')", "token-callbacks[analytics]"),
        ("fsspec", "t.load('memory://logs')", "token-callbacks[analytics]"),
        ("polars", "t.load(p).to_polars()", "polars"),
        ("pandas", "t.load(p).to_pandas()", "pandas"),
    ],
)
def test_what_is_not_installed_is_named_with_its_extra(tmp_path: Path, module: str, code: str, step: str) -> None:
    """The error says what to install."""
    program = (
        f"import sys; sys.modules[{module!r}] = None; p = {str(tmp_path)!r}; import token_callbacks as t\n"
        f"from token_callbacks.reports.groups import aggregated\n{code}"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)

    assert "MissingExtra: " in done.stderr
    assert f"pip install {step}" in done.stderr.replace("'", "")


def test_reports_work_with_nothing_installed(tmp_path: Path) -> None:
    """Without DuckDB, Arrow and fsspec the streaming engine gives the rows."""
    write(tmp_path, [record(prompt_tokens=3)])
    program = (
        "import sys; sys.modules.update(dict.fromkeys(['duckdb', 'pyarrow', 'fsspec', 'pandas']))\n"
        "from token_callbacks import load; from token_callbacks.reports.groups import aggregated\n"
        f"print(aggregated(load({str(tmp_path)!r}), by='run').total.usage.prompt_tokens)"
    )
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout

    assert "3\n" == output
