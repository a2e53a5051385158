"""What a long run costs: reading its totals, and the memory it keeps."""

from __future__ import annotations

import gc
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

from benchmarks.record_cost import ReportedEvidence, open_and_close
from benchmarks.side_by_side import repeated, side_by_side
from benchmarks.tables import Row, limited
from token_callbacks import TokenCounter
from token_callbacks.ledger import process_ledger

_FEW = 10
_MANY = 100_000
_WARM_UP = 1_000
_TURNS = 40


def rows() -> Iterator[Row]:
    """Measure the summary of a short and of a long run, and what the calls of the long one leave in memory."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        counter = TokenCounter(log_dir=folder, frameworks=("litellm",))
        with counter.run("few") as few:
            _make_calls(_FEW)
        with counter.run("many") as many:
            _make_calls(_WARM_UP)
            bytes_a_call = _bytes_left_by(_MANY - _WARM_UP) / (_MANY - _WARM_UP)
        timings = side_by_side(
            {
                "few": repeated(lambda: few.summary, number=200),
                "many": repeated(lambda: many.summary, number=200),
            },
            turns=_TURNS,
        )
        counter.close()
    ratio = timings.seconds("many") / timings.seconds("few")
    yield limited(
        f"run.summary after {_MANY:,} calls",
        ratio,
        limit=1.2,
        unit="x",
        ours=f"{timings.seconds('many') * 1e6:.1f} us",
        baseline=f"after {_FEW}: {timings.seconds('few') * 1e6:.1f} us",
        compared=f"{ratio:.2f} x",
    )
    yield limited(
        f"memory kept, {_MANY:,} calls written to files",
        bytes_a_call,
        limit=1.0,
        unit="B/call",
        baseline=f"after the first {_WARM_UP:,}",
        compared=f"{bytes_a_call * _MANY / 1024:.0f} KiB in all",
    )


def _make_calls(number: int) -> None:
    ledger, evidence = process_ledger(), (ReportedEvidence(),)
    for _ in range(number):
        open_and_close(ledger, evidence)


def _bytes_left_by(calls: int) -> int:
    tracemalloc.start()
    _make_calls(1)
    gc.collect()
    before, _ = tracemalloc.get_traced_memory()
    _make_calls(calls - 1)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return after - before
