"""What our hooks add to LiteLLM's calls over loopback, beside an empty callback of LiteLLM's own kind."""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Callable, Iterator

import litellm
from litellm.integrations.custom_logger import CustomLogger

from benchmarks.side_by_side import Variant, side_by_side
from benchmarks.tables import Row, limited
from loopback_server import LoopbackServer, Reply
from token_callbacks import TokenCounter
from token_callbacks.ledger import process_ledger

WORDS = 50
_CALLS = 4
_TURNS, _STREAM_TURNS = 200, 30
"""The median of 30 turns of a completion is 0.05 ms off now and then, which is a half of what it is to show."""


def rows() -> Iterator[Row]:
    """Measure a completion, and a stream of 50 chunks."""
    counter = TokenCounter(log_dir=None, frameworks=("litellm",))
    with LoopbackServer(replies=lambda _: Reply(text="word " * WORDS), stream_usage="always_last") as server:
        yield _row("completion", functools.partial(call, server, is_streamed=False), _TURNS)
        yield _row(f"{WORDS}-chunk stream", functools.partial(call, server, is_streamed=True), _STREAM_TURNS)
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
        from token_callbacks.adapters import httpx
        from token_callbacks.adapters import litellm as adapter

        adapter.uninstall()
        httpx.uninstall()
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


def attach() -> None:
    """Attach us: what looks at LiteLLM, and what looks at its HTTP client."""
    from token_callbacks.adapters import httpx
    from token_callbacks.adapters import litellm as adapter

    httpx.install(process_ledger())
    adapter.install(process_ledger())


def _row(what: str, call: Callable[[], None], turns: int) -> Row:
    timings = side_by_side(
        {
            "none": variant(call, lambda: None),
            "empty": variant(call, lambda: litellm.callbacks.append(CustomLogger())),
            "ours": variant(call, attach),
        },
        turns=turns,
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
