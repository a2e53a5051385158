"""What ``import token_callbacks`` and a counter cost, in processes of their own.

Python compiles what it imports once and keeps that, unless it may not (``PYTHONDONTWRITEBYTECODE``) and nothing was
compiled when it was installed. These processes keep it in a folder of their own, which the first turn, that is not
counted, fills.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.side_by_side import Variant, side_by_side
from benchmarks.tables import Row, limited

JSON = "import json"
IMPORT = "import token_callbacks"
COUNTER = "from token_callbacks import TokenCounter; TokenCounter(log_dir=None)"

# Of LiteLLM's import Python leaves a collection of all its objects to be made, which falls to what is imported next, or
# to LiteLLM's first call.
LITELLM = "import gc, litellm; from token_callbacks import TokenCounter; gc.collect()"
PRICED = "TokenCounter(log_dir=None)"
UNPRICED = "TokenCounter(log_dir=None, prices=False)"

_LIMIT_MILLISECONDS = 60
"""Of the import alone. A counter takes wrapt, which imports asyncio, as every program with a framework does."""
_TURNS = 25
_TURNS_WITH_LITELLM = 7


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
    yield _prices()


def _prices() -> Row:
    """Measure what a counter takes longer that loads the prices, beside one that does not, after LiteLLM's import."""
    variants = {it: _fresh(it, after=LITELLM, clock="thread_time") for it in (PRICED, UNPRICED)}
    timings = side_by_side(variants, turns=_TURNS_WITH_LITELLM)
    return Row(
        what=f"after import litellm, on a processor: {PRICED}",
        ours=f"{timings.seconds(PRICED) * 1e3:.0f} ms",
        baseline=f"{UNPRICED}: {timings.seconds(UNPRICED) * 1e3:.0f} ms",
        compared=f"+{timings.added(PRICED, over=UNPRICED) * 1e3:.0f} ms",
    )


def _fresh(statement: str, *, after: str = "", clock: str = "perf_counter") -> Variant:
    program = f"{after}\nfrom time import {clock} as clock; start = clock(); {statement}; print(clock() - start)"
    compiled = {"PYTHONPYCACHEPREFIX": _compiled().name, "PYTHONDONTWRITEBYTECODE": ""}
    environment = os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"} | compiled

    def seconds() -> float:
        return float(subprocess.check_output([sys.executable, "-c", program], cwd=_SOURCE, env=environment))

    return seconds


@functools.cache
def _compiled() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="token-callbacks-compiled-")


_SOURCE = Path(__file__).parents[1]
