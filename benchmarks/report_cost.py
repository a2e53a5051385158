"""What a report over many calls costs: ``python -m benchmarks report``, or of another size as below.

    python -m benchmarks.report_cost --lines 10000000 --folder /somewhere/with/20/GB

Each way of adding up runs in a process of its own, which tells its time and the most memory it held.
"""

from __future__ import annotations

import argparse
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from benchmarks.tables import Row, print_table
from token_callbacks import load
from token_callbacks.prices import PriceBook
from token_callbacks.records import CallRecord, Operation, Outcome, Provenance, Sources, Usage
from token_callbacks.reports.groups import Engine, aggregated
from token_callbacks.sinks.json_files import ROTATE_BYTES

_LINES = 500_000
_PANDAS_LINES = 200_000
"""``read_json`` takes everything into memory, some 5 kB a line."""

_FULL = 10_000_000
"""What the limits below are for."""

_DAYS = 180
_CALLS_A_RUN = 100
_MODELS = [
    ("openai", "gpt-4o-mini", "gpt-4o-mini-2024-07-18"),
    ("openai", "gpt-4o", "gpt-4o-2024-08-06"),
    ("anthropic", "claude-sonnet-4-5", "claude-sonnet-4-5-20250929"),
    ("gemini", "gemini-2.5-pro", "gemini-2.5-pro"),
]


class Measured(msgspec.Struct):
    """What one way of adding up took."""

    seconds: float
    cpu_seconds: float
    megabytes: float
    calls: int
    tokens: int


def rows() -> Iterator[Row]:
    """Measure with some lines; the limits are for more."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        yield from _rows(Path(folder), _LINES)


def _rows(folder: Path, lines: int) -> Iterator[Row]:
    logs, parquet, few = folder / "logs", folder / "parquet", folder / "few"
    _write(logs, lines)
    few.mkdir()
    for path in sorted(logs.iterdir())[: max(1, _PANDAS_LINES * len(list(logs.iterdir())) // lines)]:
        (few / path.name).symlink_to(path)
    gigabytes = sum(path.stat().st_size for path in logs.iterdir()) / 1e9
    told = {
        "export": _in_a_child("export", logs, parquet),
        "duckdb": _in_a_child("duckdb", logs),
        "parquet": _in_a_child("duckdb", parquet),
        "streaming": _in_a_child("streaming", logs),
        "pandas": _in_a_child("pandas", few),
    }
    sums = {(each.calls, each.tokens) for name, each in told.items() if name in ("duckdb", "parquet", "streaming")}
    if len(sums) != 1:
        raise SystemExit(f"the engines disagree: {sums}")
    pandas = told["pandas"]
    baseline = f"pandas read_json, {pandas.calls:,} lines: {_cost(pandas)}"
    size = f"{lines:,} lines, {gigabytes:.1f} GB"
    yield _row(f"priced report by day, DuckDB, {size}", told["duckdb"], baseline, lines, limits=(30, 2048))
    yield _row("the same over its export to Parquet", told["parquet"], baseline, lines, limits=(3, 2048))
    yield _row("the same line by line, without DuckDB", told["streaming"], baseline, lines)
    yield _row("the export", told["export"], "", lines)


def _row(what: str, told: Measured, baseline: str, lines: int, limits: tuple[float, float] | None = None) -> Row:
    has_target = limits is not None and lines >= _FULL
    return Row(
        what=what,
        ours=_cost(told),
        baseline=baseline,
        compared=f"{told.seconds / told.calls * 1e6:.2f} us/line",
        target="" if limits is None else f"<= {limits[0]:g} s, {limits[1]:g} MB at {_FULL:,}",
        met=told.seconds <= limits[0] and told.megabytes <= limits[1] if limits and has_target else None,
    )


def _cost(told: Measured) -> str:
    return f"{told.seconds:.1f} s ({told.cpu_seconds:.1f} s of CPU), {told.megabytes:.0f} MB"


def _in_a_child(way: str, *folders: Path) -> Measured:
    print(f"measuring {way} of {folders[0].name} ...", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "benchmarks.report_cost", "--measure", way, *map(str, folders)]
    done = subprocess.run(command, check=True, capture_output=True)
    return msgspec.json.decode(done.stdout, type=Measured)


def _measured(way: str, folders: list[str]) -> Measured:
    ways: dict[str, Callable[[], tuple[int, int]]] = {
        "duckdb": lambda: _aggregated(folders[0], "duckdb"),
        "streaming": lambda: _aggregated(folders[0], "streaming"),
        "pandas": lambda: _with_pandas(folders[0]),
        "export": lambda: _exported(*folders),
    }
    start, cpu_start = time.perf_counter(), time.process_time()
    calls, tokens = ways[way]()
    return Measured(
        seconds=time.perf_counter() - start,
        cpu_seconds=time.process_time() - cpu_start,
        megabytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        calls=calls,
        tokens=tokens,
    )


def _aggregated(folder: str, engine: Engine) -> tuple[int, int]:
    total = aggregated(load(folder), by="day", engine=engine, book=PriceBook()).total
    return total.calls, total.usage.total_llm_tokens


def _exported(folder: str, target: str) -> tuple[int, int]:
    from token_callbacks.reports.export import exported  # here: the streaming engine is measured without pyarrow

    return exported(load(folder), target).calls, 0


def _with_pandas(folder: str) -> tuple[int, int]:
    import pandas as pd

    frame = pd.concat(pd.read_json(path, lines=True) for path in sorted(Path(folder).iterdir()))
    usage = pd.DataFrame(frame["usage"].tolist())
    days = usage.groupby(pd.to_datetime(frame["started_at"]).dt.date.to_numpy()).sum()
    return len(frame), int(days["prompt_tokens"].sum() + days["completion_tokens"].sum())


def _write(folder: Path, lines: int) -> None:
    """Write lines as counters do, in files of the size that they rotate at."""
    print(f"writing {lines:,} lines ...", file=sys.stderr, flush=True)
    folder.mkdir()
    chance = random.Random(3)  # noqa: S311 - the same lines every time
    encoder, lines_of_a_file = msgspec.json.Encoder(), bytearray()
    for record in _records(lines, chance):
        lines_of_a_file += encoder.encode(record) + b"\n"
        if len(lines_of_a_file) > ROTATE_BYTES:
            _write_file(folder, lines_of_a_file)
            lines_of_a_file.clear()
    _write_file(folder, lines_of_a_file)


def _write_file(folder: Path, content: bytearray) -> None:
    number = len(list(folder.iterdir())) + 1
    (folder / f"calls-2026-07-01-4711-{number:08x}.jsonl").write_bytes(content)


def _records(lines: int, chance: random.Random) -> Iterator[CallRecord]:
    start, apart = datetime(2026, 1, 1, tzinfo=UTC), timedelta(days=_DAYS) / lines
    run_id = ""
    for number in range(lines):
        moment = start + number * apart
        if number % _CALLS_A_RUN == 0:
            run_id = f"{moment:%Y%m%dT%H%M%S}-{chance.getrandbits(48):012x}"
        yield _record(number, run_id, moment, chance)


def _record(number: int, run_id: str, moment: datetime, chance: random.Random) -> CallRecord:
    provider, model, response_model = _MODELS[chance.randrange(len(_MODELS))]
    prompt, completion, has_failed = chance.randrange(100, 9000), chance.randrange(10, 2000), chance.random() < 0.02
    cached = prompt // 2 if chance.random() < 0.3 else None
    told = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    usage = Usage(prompt_tokens=prompt, completion_tokens=completion, cache_read_tokens=cached)
    return CallRecord(
        call_id=f"d36e7f7924553eb2-{number}",
        run_id=run_id,
        step="draft" if number % 3 else None,
        framework="litellm",
        operation=Operation.CHAT,
        provider=provider,
        model=model,
        response_model=None if has_failed else response_model,
        response_id=None if has_failed else f"chatcmpl-{number}",
        streamed=False,
        attempt=1,
        outcome=Outcome.FAILED if has_failed else Outcome.COMPLETED,
        cached=False,
        error="RateLimitError" if has_failed else None,
        started_at=moment,
        ended_at=moment + timedelta(seconds=3),
        time_to_first_token_seconds=None,
        usage=Usage() if has_failed else usage,
        provenance=Sources() if has_failed else Sources(prompt=Provenance.REPORTED, completion=Provenance.REPORTED),
        counting_method=None,
        provider_usage=None if has_failed else told,
    )


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=_LINES)
    parser.add_argument("--folder", help="where to write them; they are deleted afterwards")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        way, *folders = asked.measure
        sys.stdout.buffer.write(msgspec.json.encode(_measured(way, folders)))
        return
    with tempfile.TemporaryDirectory(dir=asked.folder or Path.cwd()) as folder:
        print_table(_rows(Path(folder), asked.lines), title="reports")


if __name__ == "__main__":
    _main()
