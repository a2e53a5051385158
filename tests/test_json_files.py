"""The files: one whole line an attempt, one summary a run, and a full or missing folder that hurts nobody."""

from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jsonschema
import msgspec
import pytest

from token_callbacks import CallRecord, TokenCounter
from token_callbacks.records import Outcome
from token_callbacks.schemas import shipped
from token_callbacks.totals import Totals

from .calls import make_call, open_call

FOUR_KEYS = ["embedding_tokens", "llm_prompt_tokens", "llm_completion_tokens", "total_llm_tokens"]
SUMMARY_KEYS = [
    *FOUR_KEYS,
    "schema_version",
    "run_id",
    "parent_run_id",
    "name",
    "tags",
    "outcome",
    "started_at",
    "ended_at",
    "duration_seconds",
    "calls",
    "token_details",
    "provenance",
    "lower_bound",
    "cost",
    "by_model",
    "by_step",
    "by_agent",
    "budget",
    "including_nested",
    "internal_errors",
    "lost_records",
    "producer",
]


def _lines(log_dir: Path) -> list[bytes]:
    return [line for path in sorted(log_dir.glob("calls-*.jsonl")) for line in path.read_bytes().splitlines()]


def test_the_summary_opens_with_lavagues_four_keys(counter: TokenCounter) -> None:
    """The four keys come first, as integers, at top level; the others follow in the published order."""
    with counter.run("nightly", tags={"team": "search"}) as run:
        make_call(prompt=1729, completion=512)
        make_call(embedding=1605)
    assert run.summary_path is not None
    summary = json.loads(run.summary_path.read_text())

    assert SUMMARY_KEYS == list(summary)
    assert [1605, 1729, 512, 2241] == [summary[key] for key in FOUR_KEYS]
    assert [int] * 4 == [type(summary[key]) for key in FOUR_KEYS]
    assert ["reported", "counted", "estimated", "partial", "missing", "error_tokens"] == list(summary["provenance"])
    assert {"calls": 2, "tokens": 3846} == summary["provenance"]["reported"]
    assert summary["started_at"].endswith("Z")


def test_every_line_and_summary_fits_its_schema(counter: TokenCounter, log_dir: Path) -> None:
    """What is written is what the published schemas say."""
    with counter.run("nightly") as run:
        make_call(prompt=3, completion=4)
        make_call(embedding=5)
        make_call(prompt=None, completion=None, outcome=Outcome.FAILED)
    assert run.summary_path is not None

    jsonschema.validate(json.loads(run.summary_path.read_text()), json.loads(shipped("run")))
    assert 3 == len(_lines(log_dir))
    for line in _lines(log_dir):
        jsonschema.validate(json.loads(line), json.loads(shipped("call")))


def test_the_schema_refuses_what_is_not_a_summary() -> None:
    """A schema that takes everything would say nothing."""
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"embedding_tokens": -3}, json.loads(shipped("run")))


def test_lines_carry_both_ids_and_the_providers_words(counter: TokenCounter, log_dir: Path) -> None:
    """Our own id is unique, the provider's may repeat, and its usage object is kept as it came."""
    with counter.run("nightly"):
        make_call(prompt=3, completion=4)
        make_call(prompt=5, completion=6)
    first, second = (msgspec.json.decode(line, type=CallRecord) for line in _lines(log_dir))

    assert first.call_id != second.call_id
    assert ("response-3", "response-3") == (first.response_id, second.response_id)
    assert {"prompt_tokens": 3, "completion_tokens": 4} == first.provider_usage
    assert (1, "gpt-4o", "gpt-4o-2024-08-06") == (first.attempt, first.model, first.response_model)


def test_the_lines_rebuild_the_summary(counter: TokenCounter, log_dir: Path) -> None:
    """The lines are the source of truth."""
    with counter.run("nightly") as run:
        for size in range(1, 30):
            make_call(prompt=size, completion=2 * size)
    rebuilt = Totals(msgspec.json.decode(line, type=CallRecord) for line in _lines(log_dir))

    assert run.summary.total_llm_tokens == rebuilt.four.total_llm_tokens
    assert (run.summary.calls, run.summary.by_model) == (rebuilt.calls, rebuilt.by_model)


def test_threads_never_mix_their_lines(counter: TokenCounter, log_dir: Path) -> None:
    """Every line is whole, whoever writes beside it."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda size: make_call(prompt=size, completion=0), range(1, 501)))

    prompts = sorted(msgspec.json.decode(line, type=CallRecord).usage.prompt_tokens or 0 for line in _lines(log_dir))
    assert list(range(1, 501)) == prompts


def test_files_are_for_their_owner_only(counter: TokenCounter, log_dir: Path) -> None:
    """Usage says a lot about a business."""
    with counter.run("nightly") as run:
        make_call(prompt=3, completion=4)
    [lines] = log_dir.glob("calls-*.jsonl")
    assert run.summary_path is not None

    modes = [stat.S_IMODE(path.stat().st_mode) for path in (log_dir, lines, run.summary_path)]
    assert [0o700, 0o600, 0o600] == modes


def test_nothing_is_left_beside_a_summary(counter: TokenCounter, log_dir: Path) -> None:
    """The draft that replaces a summary is gone afterwards."""
    with counter.run("nightly") as run:
        make_call(prompt=3, completion=4)

    assert [run.summary_path] == list((log_dir / "runs").iterdir())


def test_a_forked_child_writes_a_file_of_its_own(counter: TokenCounter, log_dir: Path) -> None:
    """Parent and child each leave whole lines under different ids."""
    make_call(prompt=3, completion=4)
    child = os.fork()
    if child == 0:
        make_call(prompt=5, completion=6)
        os._exit(0)
    os.waitpid(child, 0)
    make_call(prompt=7, completion=8)

    assert 2 == len(list(log_dir.glob("calls-*.jsonl")))
    records = [msgspec.json.decode(line, type=CallRecord) for line in _lines(log_dir)]
    assert {3, 5, 7} == {record.usage.prompt_tokens for record in records}
    assert 3 == len({record.call_id for record in records})


def test_an_unusable_folder_is_told_once_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where the folder should be lies a file: the totals stay right, the summary tells how often writing failed."""
    counter = TokenCounter(log_dir=tmp_path / "token_logs")
    (tmp_path / "token_logs").write_text("not a folder")
    with caplog.at_level(logging.WARNING, logger="token_callbacks"), counter.run("doomed") as run:
        make_call(prompt=3, completion=4)
        make_call(prompt=5, completion=6)
        make_call(prompt=7, completion=8)

    assert 33 == run.summary.total_llm_tokens
    assert 3 <= run.summary.internal_errors
    assert 3 == run.summary.lost_records
    assert 1 == sum("write_record" in message for message in caplog.messages)
    counter.close()


def test_a_full_disk_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    """Past the disk's limit lines are lost, counted and told; none stays torn, and the next one is whole."""
    script = tmp_path / "script.py"
    script.write_text(
        "import resource, signal\n"
        "from token_callbacks import TokenCounter\n"
        "from tests.calls import make_call\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "counter = TokenCounter(log_dir='logs')\n"
        "with counter.run('full') as run:\n"
        "    make_call(prompt=3, completion=4)\n"
        "    [path] = __import__('pathlib').Path('logs').glob('calls-*')\n"
        "    limit = path.stat().st_size + 100\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))\n"
        "    make_call(prompt=5, completion=6)\n"
        "    make_call(prompt=7, completion=8)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "    make_call(prompt=9, completion=10)\n"
        "print(run.summary.total_llm_tokens, run.summary.internal_errors, run.summary.lost_records)\n"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, script],
        check=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )

    assert "52 2 2" == done.stdout.strip()
    assert 1 == done.stderr.count("write_record")
    records = [msgspec.json.decode(line, type=CallRecord) for line in _lines(tmp_path / "logs")]
    assert [3, 9] == [record.usage.prompt_tokens for record in records]


def test_no_log_dir_means_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A counter without a folder counts in memory."""
    monkeypatch.chdir(tmp_path)
    counter = TokenCounter(log_dir=None)
    with counter.run("light") as run:
        make_call(prompt=3, completion=4)
    counter.close()

    assert (7, None) == (run.summary.total_llm_tokens, run.summary_path)
    assert [] == list(tmp_path.iterdir())


def test_a_counter_that_saw_no_call_writes_nothing(tmp_path: Path) -> None:
    """No folder appears for nothing."""
    TokenCounter(log_dir=tmp_path / "logs").close()

    assert [] == list(tmp_path.iterdir())


def test_memory_holds_no_record_after_it_is_written(log_dir: Path) -> None:
    """Details go to the file: a closed call leaves nothing behind but the totals."""
    import gc

    counter = TokenCounter(log_dir=log_dir)
    with counter.run("long") as run:
        for _ in range(300):
            make_call(prompt=3, completion=4)
        open_call()
        gc.collect()
        kept = sum(isinstance(it, CallRecord) and it.run_id == run.run_id for it in gc.get_objects())
    counter.close()

    assert (300, 0) == (run.summary.calls.llm - 1, kept)
