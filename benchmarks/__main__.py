"""Measure and print: ``python -m benchmarks``, or some of it: ``python -m benchmarks import record``."""

from __future__ import annotations

import importlib
import os
import platform
import sys
from collections.abc import Iterator

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # before anything imports litellm: it would go online

from benchmarks.tables import Row, print_table

TOPICS = {
    "import": "benchmarks.import_cost",
    "llama_index": "benchmarks.llama_index_cost",
    "record": "benchmarks.record_cost",
    "run": "benchmarks.run_cost",
    "counting": "benchmarks.counting_cost",
    "report": "benchmarks.report_cost",
    "litellm": "benchmarks.litellm_cost",
}
"""Each module has a function ``rows``. The last two import LiteLLM, which makes everything after it slower."""


def main(topics: list[str]) -> None:
    """Print the table of the topics, of all of them if none is named."""
    unknown = [topic for topic in topics if topic not in TOPICS]
    if unknown:
        raise SystemExit(f"no topic {', '.join(unknown)}; there are {', '.join(TOPICS)}")
    title = f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}"
    print_table(_rows(topics or list(TOPICS)), title=title)


def _rows(topics: list[str]) -> Iterator[Row]:
    for topic in topics:
        print(f"measuring {topic} ...", file=sys.stderr, flush=True)
        yield from importlib.import_module(TOPICS[topic]).rows()


if __name__ == "__main__":
    main(sys.argv[1:])
