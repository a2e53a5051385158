"""What our hooks add to LiteLLM's calls over loopback, beside an empty callback of LiteLLM's own kind."""

from __future__ import annotations

import functools
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import litellm
from litellm.integrations.custom_logger import CustomLogger

from benchmarks.side_by_side import Variant, side_by_side
from benchmarks.tables import Row, limited
from token_callbacks import TokenCounter
from token_callbacks.ledger import process_ledger

sys.path.append(str(Path(__file__).parents[1] / "examples"))
from loopback_server import LoopbackServer, Reply

WORDS = 50
_CALLS = 4
_TURNS = 30


def rows() -> Iterator[Row]:
    """Measure a completion, and a stream of 50 chunks."""
    from token_callbacks.adapters import litellm as adapter

    counter = TokenCounter(log_dir=None, frameworks=("litellm",))
    with LoopbackServer(replies=lambda _: Reply(text="word " * WORDS), stream_usage="always_last") as server:
        for what, is_streamed in (("completion", False), (f"{WORDS}-chunk stream", True)):
            yield _row(what, functools.partial(call, server, is_streamed=is_streamed), adapter)
    counter.uninstall()


def call(server: LoopbackServer, *, is_streamed: bool) -> None:
    """Ask, and read the answer."""
    answer = litellm.completion(
        model="openai/gpt-4o-mini",
        messages=[{"role": "user", "content": "When does the library open?"}],
        api_base=server.base_url,
        api_key="sk-loopback",
        stream=is_streamed,
    )
    if is_streamed:
        deque(answer, maxlen=0)


def variant(
    call: Callable[[], None], prepare: Callable[[], None], take_out: Callable[[], None] = lambda: None
) -> Variant:
    """Measure a call with nobody attached but whom ``prepare`` attaches; ``take_out`` detaches him, if it is not us."""

    def seconds() -> float:
        from token_callbacks.adapters import litellm as adapter

        adapter.uninstall()
        take_out()
        for name in adapter.CALLBACK_LISTS:
            getattr(litellm, name).clear()
        prepare()
        call()  # LiteLLM sorts its callbacks into its lists in the first call
        start = time.perf_counter()
        for _ in range(_CALLS):
            call()
        return (time.perf_counter() - start) / _CALLS

    return seconds


def _row(what: str, call: Callable[[], None], adapter: Any) -> Row:
    timings = side_by_side(
        {
            "none": variant(call, lambda: None),
            "empty": variant(call, lambda: litellm.callbacks.append(CustomLogger())),
            "ours": variant(call, lambda: adapter.install(process_ledger())),
        },
        turns=_TURNS,
    )
    none = timings.seconds("none")
    added = {name: timings.added(name, over="none") for name in ("empty", "ours")}
    return limited(
        f"LiteLLM over loopback, {what}",
        (none + added["ours"]) / (none + added["empty"]),
        limit=1.05,
        unit="x",
        ours=f"{added['ours'] * 1e3:+.2f} ms",
        baseline=f"no callback: {none * 1e3:.1f} ms",
        compared=f"{1 + added['ours'] / none:.2f} x; an empty CustomLogger {1 + added['empty'] / none:.2f} x",
    )
