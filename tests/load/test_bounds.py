"""What is kept is bounded: nothing a call that has ended, a known amount an open one, no thread and no file a run.

``TOKEN_CALLBACKS_FULL=1`` makes 1,000,000 calls and 10,000 streams at once, and prints the bytes of each.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import litellm
import openai
import pytest
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai import OpenAI

from tests.calls import make_call
from tests.llama_index.figures import what_is_left
from token_callbacks import TokenCounter, uninstall
from token_callbacks.adapters.litellm import CallState
from token_callbacks.exchanges import Exchange
from token_callbacks.wire import WireEvidence

from .test_concurrent_runs import IS_FULL, open_files, workers

CALLS = 1_000_000 if IS_FULL else 20_000
STREAMS = 10_000 if IS_FULL else 50
MOST_BYTES = 16_000
"""Of ours an open stream of which two chunks were read; the frameworks keep several times as much."""


class _NoSink:
    def write_record(self, record: object) -> None:
        """Keep nothing."""

    def write_summary(self, summary: object) -> None:
        """Keep nothing."""

    def summary_path(self, run_id: str) -> None:
        """Tell that there is no file."""

    def close(self) -> None:
        """Let go of nothing."""


def _kept() -> int:
    """Tell the bytes that are kept: of many by the process, which is not slowed down by it."""
    gc.collect()
    if IS_FULL:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return tracemalloc.get_traced_memory()[0]


@pytest.fixture
def traced() -> Iterator[None]:
    """Trace what is allocated."""
    if not IS_FULL:
        tracemalloc.start()
    yield
    tracemalloc.stop()


def _tell(text: str) -> None:
    os.write(sys.__stdout__.fileno() if sys.__stdout__ else 1, f"\n{text}\n".encode())


def test_memory_is_flat_over_many_calls(traced: None, tmp_path: Path) -> None:
    """After a warm-up, calls that have ended leave nothing behind, in runs that end and in one that goes on."""
    counter = TokenCounter(log_dir=tmp_path / "logs", sinks=[_NoSink()])

    def pairs(number: int) -> None:
        for _ in range(number):
            make_call(prompt=3, completion=4)
            make_call(embedding=5)

    def some(number: int) -> None:
        with counter.run("many"):
            pairs(number // 2)
        pairs(number - number // 2)

    with counter.run("around"):
        some(1000)
        before = _kept()
        for _ in range(10):
            some(CALLS // 20)
        after = _kept()
    counter.close()

    if IS_FULL:
        _tell(f"{CALLS} calls: {after - before} bytes more than before")
    assert after - before < (4_000_000 if IS_FULL else 50_000)


def test_a_run_has_no_file_and_no_thread_of_its_own(tmp_path: Path) -> None:
    """Many runs that are open at once write to one file, from the threads that make the calls."""
    counter = TokenCounter(log_dir=tmp_path / "logs")
    threads = threading.active_count()
    scopes = [counter.run(f"run {number}") for number in range(200)]
    for scope in scopes:
        scope.__enter__()
        make_call(prompt=3, completion=4)
    open_then = len(open_files(tmp_path))
    for scope in reversed(scopes):
        scope.__exit__(None, None, None)
    open_now = len(open_files(tmp_path))
    counter.close()

    assert (1, 1, 0) == (open_then, open_now, len(open_files(tmp_path)))
    assert threads == threading.active_count()


_PIECES = [
    (
        b'data: {"id": "c-3", "object": "chat.completion.chunk", "created": 3, "model": "gpt-4o",'
        b' "choices": [{"index": 0, "delta": {"role": "assistant", "content": "piece"}}]}\n\n'
    )
] * 8 + [b"data: [DONE]\n\n"]


def _answer(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=iter(_PIECES))


def _llama_index() -> Callable[[], Any]:
    llm = OpenAI(model="gpt-4o", api_key="sk-x", http_client=httpx.Client(transport=httpx.MockTransport(_answer)))
    return lambda: llm.stream_chat([ChatMessage(role="user", content="When?")])


def _litellm() -> Callable[[], Any]:
    client = openai.OpenAI(api_key="sk-x", http_client=httpx.Client(transport=httpx.MockTransport(_answer)))
    messages = [{"role": "user", "content": "When?"}]
    return lambda: litellm.completion("openai/gpt-4o", messages, stream=True, client=client)


def _kept_by_open_streams(opener: Callable[[], Callable[[], Any]]) -> tuple[float, list[Any]]:
    make = opener()
    list(make())
    before = _kept()
    gc.freeze()  # collections take ever longer otherwise
    streams = [make() for _ in range(STREAMS)]
    for stream in streams:
        next(stream)
        next(stream)
    gc.unfreeze()
    return (_kept() - before) / STREAMS, streams


@pytest.mark.parametrize("opener", [_llama_index, _litellm])
def test_an_open_stream_keeps_few_bytes_and_gives_them_back(
    traced: None, tmp_path: Path, opener: Callable[[], Callable[[], Any]]
) -> None:
    """Of many streams that are open at once, each costs some kilobytes beside the framework's own, and no thread."""
    uninstall()
    others = len(workers())
    without, streams = _kept_by_open_streams(opener)
    del streams
    counter = TokenCounter(log_dir=tmp_path / "logs", sinks=[_NoSink()])
    with counter.run("streams") as run:
        list(opener()())
        attached, streams = _kept_by_open_streams(opener)
        ours = len(workers()) - others  # LiteLLM has a pool
        for stream in streams:
            list(stream)
        del streams, stream
    left = what_is_left()
    gc.collect()
    ours_left = [thing for thing in gc.get_objects() if isinstance(thing, Exchange | WireEvidence | CallState)]
    counter.close()

    if IS_FULL:
        _tell(f"{STREAMS} open streams, {opener.__name__}: {attached:.0f} bytes each, {without:.0f} without us")
    assert attached - without < MOST_BYTES
    assert 1 >= ours
    assert [] == left
    assert 2 >= len(ours_left)  # LiteLLM holds on to the dict of its latest call
    assert STREAMS + 2 == run.summary.calls.llm
