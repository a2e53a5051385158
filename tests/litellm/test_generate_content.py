"""Google's own API, as LiteLLM offers it for every provider: asked as it is, or made a completion."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import litellm
import pytest
from litellm.google_genai import (
    agenerate_content,
    agenerate_content_stream,
    generate_content,
    generate_content_stream,
)

from token_callbacks import TokenCounter
from token_callbacks.records import Outcome
from token_callbacks.sinks.memory import MemorySink

from .calls import openai

CONTENTS = [{"role": "user", "parts": [{"text": "When does it open?"}]}]
ANSWER = {
    "candidates": [{"content": {"role": "model", "parts": [{"text": "At nine."}]}, "finishReason": "STOP", "index": 0}],
    "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 3, "totalTokenCount": 10},
    "modelVersion": "gemini-2.5-flash-001",
    "responseId": "answer-1",
}
"""https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse"""


class _Gemini(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        is_streamed = ":streamGenerateContent" in self.path
        text = json.dumps(ANSWER)
        body = f"data: {text}\r\n\r\n".encode() if is_streamed else text.encode()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream" if is_streamed else "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep still."""


@pytest.fixture
def gemini() -> Iterator[dict[str, Any]]:
    """Give what LiteLLM needs to ask a server that speaks as Google's does."""
    pytest.importorskip("orjson", reason="asking Google itself needs what litellm[proxy] installs")
    pytest.importorskip("soundfile")
    with ThreadingHTTPServer(("127.0.0.1", 0), _Gemini) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        yield {"model": "gemini/gemini-2.5-flash", "api_base": url, "api_key": "sk-loopback"}
        server.shutdown()


async def _aread(**options: Any) -> None:
    stream = await agenerate_content_stream(contents=CONTENTS, **options)
    with contextlib.suppress(ImportError):  # LiteLLM itself, at the end of it, where not all of its proxy is installed
        async for _ in stream:
            pass


def _routed(**options: Any) -> Any:
    router = litellm.Router(model_list=[{"model_name": "desk", "litellm_params": options}])
    return asyncio.run(router.agenerate_content(model="desk", contents=CONTENTS))


CALLS: dict[str, Callable[..., Any]] = {
    "generate_content": lambda **options: generate_content(contents=CONTENTS, **options),
    "agenerate_content": lambda **options: asyncio.run(agenerate_content(contents=CONTENTS, **options)),
    "agenerate_content_stream": lambda **options: asyncio.run(_aread(**options)),
    "router": _routed,
}


@pytest.mark.parametrize("name", CALLS)
def test_what_is_made_a_completion_is_one_record(
    loopback: Any, counter: TokenCounter, memory: MemorySink, name: str
) -> None:
    """The completion is the call, and there is none beside it."""
    server = loopback(stream_usage="always_last")
    with counter.run("asking") as run:
        CALLS[name](model="hosted_vllm/gpt-4o-mini", **openai(server))
    counter.close()

    [entry], [record] = server.ledger, memory.records
    usage = record.usage
    assert (entry.prompt_tokens, entry.completion_tokens) == (usage.prompt_tokens, usage.completion_tokens)
    assert (Outcome.COMPLETED, run.run_id) == (record.outcome, record.run_id)


@pytest.mark.parametrize(
    "name", [*CALLS, pytest.param("generate_content_stream", id="generate_content_stream, whose end nobody tells")]
)
def test_what_google_is_asked_is_one_record(
    gemini: dict[str, Any], counter: TokenCounter, memory: MemorySink, name: str
) -> None:
    """With what it told, in the summary of a run that ends at once."""
    calls = CALLS | {"generate_content_stream": lambda **it: list(generate_content_stream(contents=CONTENTS, **it))}
    with counter.run("asking") as run:
        calls[name](**gemini)
    summary = run.summary

    [record] = memory.records
    assert ("answer-1", "gemini-2.5-flash-001") == (record.response_id, record.response_model) or "stream" in name
    assert (Outcome.COMPLETED, 7, 3) == (record.outcome, record.usage.prompt_tokens, record.usage.completion_tokens)
    assert ("stream" in name, run.run_id) == (record.streamed, record.run_id)
    assert 10 == summary.total_llm_tokens


def test_a_stream_of_google_that_is_left_is_abandoned(
    gemini: dict[str, Any], counter: TokenCounter, memory: MemorySink
) -> None:
    """Nobody has read to its end."""
    with counter.run("asking"):
        next(generate_content_stream(contents=CONTENTS, **gemini))
    counter.close()

    assert [Outcome.ABANDONED] == [record.outcome for record in memory.records]
