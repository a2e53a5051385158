"""What ``import token_callbacks`` costs, in processes that have imported nothing yet."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.side_by_side import Variant, side_by_side
from benchmarks.tables import Row, limited

JSON = "import json"
IMPORT = "import token_callbacks"
COUNTER = "from token_callbacks import TokenCounter; TokenCounter(log_dir=None)"

_LIMIT_MILLISECONDS = 60
_TURNS = 25


def rows() -> Iterator[Row]:
    """Measure the import alone, and with a counter made, which loads all of the core."""
    timings = side_by_side({statement: _fresh(statement) for statement in (JSON, IMPORT, COUNTER)}, turns=_TURNS)
    baseline = f"{JSON}: {timings.seconds(JSON) * 1e3:.1f} ms"
    more = {name: f"+{timings.added(name, over=JSON) * 1e3:.1f} ms" for name in (IMPORT, COUNTER)}
    milliseconds = {name: timings.seconds(name) * 1e3 for name in (IMPORT, COUNTER)}
    yield limited(
        f"fresh process: {IMPORT}",
        milliseconds[IMPORT],
        limit=_LIMIT_MILLISECONDS,
        unit="ms",
        baseline=baseline,
        compared=more[IMPORT],
    )
    yield Row(
        what=f"fresh process: {COUNTER}",
        ours=f"{milliseconds[COUNTER]:.0f} ms",
        baseline=baseline,
        compared=more[COUNTER],
    )


def _fresh(statement: str) -> Variant:
    program = f"import time; start = time.perf_counter(); {statement}; print(time.perf_counter() - start)"

    def seconds() -> float:
        return float(subprocess.check_output([sys.executable, "-c", program], cwd=_SOURCE))

    return seconds


_SOURCE = Path(__file__).parents[1]
