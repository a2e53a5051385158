"""What is kept of open streams, and of calls that have ended, without us or with us attached.

    PYTHONPATH=examples python -m tests.load.kept open litellm 10000 alone
    PYTHONPATH=examples python -m tests.load.kept ended loopback 1000 attached

Prints bytes for each stream or call, as tracemalloc counts them. A process of its own: what one measurement frees is
filled by the next. LiteLLM's executor is run empty first: what waits there, for whatever callback, holds copies of its
calls.
"""

from __future__ import annotations

import gc
import os
import sys
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

if __name__ == "__main__":  # LiteLLM reads it when it is imported
    os.environ["LOGGING_EXECUTOR_MAX_THREADS"] = "1"  # a task that has run tells that all before it have

import tests.conftest  # noqa: F401 - keeps LiteLLM offline, and its finalizers from crashing

# isort: split
import httpx
import litellm
import openai
from litellm.litellm_core_utils.thread_pool_executor import executor
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.llms import ChatMessage, MockLLM
from llama_index.llms.openai import OpenAI

from loopback_server import LoopbackServer
from token_callbacks import TokenCounter

_ROUNDS = 4
_MESSAGES = [ChatMessage(role="user", content="When?")]
_SHAPED = [{"role": "user", "content": "When?"}]
_PIECES = [
    (
        b'data: {"id": "c-3", "object": "chat.completion.chunk", "created": 3, "model": "gpt-4o",'
        b' "choices": [{"index": 0, "delta": {"role": "assistant", "content": "piece"}}]}\n\n'
    )
] * 8 + [b"data: [DONE]\n\n"]


class NoSink:
    """A sink that keeps nothing."""

    def write_record(self, record: object) -> None:
        """Keep nothing."""

    def write_summary(self, summary: object) -> None:
        """Keep nothing."""

    def summary_path(self, run_id: str) -> None:
        """Tell that there is no file."""

    def close(self) -> None:
        """Let go of nothing."""


def _answer(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=iter(_PIECES))


def llama_index_streams() -> Callable[[], Any]:
    """Make what opens a stream of LlamaIndex's, from a transport without a network."""
    llm = OpenAI(model="gpt-4o", api_key="sk-x", http_client=httpx.Client(transport=httpx.MockTransport(_answer)))
    return lambda: llm.stream_chat(_MESSAGES)


def litellm_streams() -> Callable[[], Any]:
    """Make what opens a stream of LiteLLM's, from a transport without a network."""
    client = openai.OpenAI(api_key="sk-x", http_client=httpx.Client(transport=httpx.MockTransport(_answer)))
    return lambda: litellm.completion("openai/gpt-4o", _SHAPED, stream=True, client=client)


STREAMS = {"llama_index": llama_index_streams, "litellm": litellm_streams}


def of_open_streams(kind: str, number: int) -> float:
    """Measure what a stream keeps of which two chunks were read, while as many are open."""
    make = STREAMS[kind]()
    list(make())
    tracemalloc.start()  # not before: what is imported and read for the first call would take minutes
    before = _bytes_now()
    gc.freeze()  # collections take ever longer otherwise
    streams = [make() for _ in range(number)]
    for stream in streams:
        next(stream)
        next(stream)
    gc.unfreeze()
    return (_bytes_now() - before) / number


def _read(stream: Any) -> None:
    deque(stream, maxlen=0)


def _llama_index_calls() -> None:
    llm = MockLLM(max_tokens=3)
    llm.chat(_MESSAGES)
    _read(llm.stream_chat(_MESSAGES))
    llm.complete("When?")
    MockEmbedding(embed_dim=3).get_text_embedding("the library")


def _litellm_calls() -> None:
    for _ in range(2):
        litellm.completion("openai/gpt-4o", _SHAPED, mock_response="At nine.")
        _read(litellm.completion("openai/gpt-4o", _SHAPED, mock_response="At nine.", stream=True))


@contextmanager
def _loopback_calls() -> Iterator[Callable[[], None]]:
    with LoopbackServer(stream_usage="asked") as server:
        here = {"api_base": server.base_url, "api_key": "sk-loopback"}
        llm = OpenAI(model="gpt-4o", **here)

        def calls() -> None:
            llm.chat(_MESSAGES)
            _read(llm.stream_chat(_MESSAGES))
            litellm.completion("openai/gpt-4o", _SHAPED, **here)
            _read(litellm.completion("openai/gpt-4o", _SHAPED, stream=True, **here))
            server.clear()

        yield calls


@contextmanager
def _plainly(calls: Callable[[], None]) -> Iterator[Callable[[], None]]:
    yield calls


CALLS = {
    "llama_index": lambda: _plainly(_llama_index_calls),
    "litellm": lambda: _plainly(_litellm_calls),
    "loopback": _loopback_calls,
}
"""What makes four calls."""


def of_ended_calls(kind: str, number: int) -> float:
    """Measure what a call leaves, once as many were made to warm up: the least that one of some rounds left."""
    with CALLS[kind]() as four:

        def bytes_then() -> int:
            for _ in range(number // 4):
                four()
            return _bytes_now()

        four()
        tracemalloc.start()
        kept = [bytes_then() for _ in range(1 + _ROUNDS)]
    return min(after - before for before, after in pairwise(kept)) / number


def _bytes_now() -> int:
    executor.submit(int).result()
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


MEASURES = {"open": of_open_streams, "ended": of_ended_calls}


def _main(measure: str, kind: str, number: str, state: str) -> None:
    if state == "attached":
        TokenCounter(log_dir=None, sinks=[NoSink()]).run("measured").__enter__()
    os.write(1, f"{MEASURES[measure](kind, int(number)):.0f}\n".encode())
    os._exit(0)  # collecting what is open would take long


if __name__ == "__main__":
    _main(*sys.argv[1:])
