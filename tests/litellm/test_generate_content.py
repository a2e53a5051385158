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
from litellm.integrations.custom_logger import CustomLogger

from token_callbacks import TokenCounter
from token_callbacks.adapters.litellm_evidence import LiteLLMEvidence
from token_callbacks.records import Operation, Outcome
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
    if not record.streamed:
        assert ("answer-1", "gemini-2.5-flash-001") == (record.response_id, record.response_model)
    assert (Outcome.COMPLETED, 7, 3) == (record.outcome, record.usage.prompt_tokens, record.usage.completion_tokens)
    assert ("stream" in name, run.run_id) == (record.streamed, record.run_id)
    assert 10 == summary.total_llm_tokens


def test_googles_contents_and_candidates_are_counted_where_it_tells_no_usage() -> None:
    """As the messages and the answer that they are."""
    evidence = LiteLLMEvidence(Operation.CHAT, CONTENTS, {})
    evidence.response = {name: value for name, value in ANSWER.items() if name != "usageMetadata"}
    prompt, completion = evidence.prompt(), evidence.completion()

    assert prompt is not None
    assert completion is not None
    assert [{"role": "user", "content": "When does it open?"}] == prompt.messages
    assert "At nine." == completion.text


def test_a_fallback_of_a_router_is_an_attempt_of_one_call(
    loopback: Any, counter: TokenCounter, memory: MemorySink
) -> None:
    """Though LiteLLM makes a completion of each."""
    server = loopback()
    deployment = {"model": "hosted_vllm/gpt-4o-mini", **openai(server)}
    router = litellm.Router(
        model_list=[{"model_name": name, "litellm_params": deployment} for name in ("desk", "cellar")],
        fallbacks=[{"desk": ["cellar"]}],
        num_retries=0,
    )
    server.fail_next(status=500)
    with counter.run("asking"):
        asyncio.run(router.agenerate_content(model="desk", contents=CONTENTS))
        asyncio.run(router.agenerate_content(model="desk", contents=CONTENTS))
    counter.close()

    assert [(1, Outcome.FAILED), (2, Outcome.COMPLETED), (1, Outcome.COMPLETED)] == [
        (record.attempt, record.outcome) for record in memory.records
    ]
    first, second, third = (record.logical_call_id for record in memory.records)
    assert first == second != third


def test_litellms_dict_prints_nothing_of_a_call(loopback: Any, counter: TokenCounter) -> None:
    """It is printed where LiteLLM is verbose."""
    printed: list[str] = []

    class Printing(CustomLogger):
        def log_pre_api_call(self, model: Any, messages: Any, kwargs: Any) -> None:
            printed.append(repr(kwargs["_token_callbacks"]))

    litellm.callbacks.append(Printing())
    litellm.completion(model="openai/gpt-4o-mini", messages=[{"role": "user", "content": "x"}], **openai(loopback()))

    assert {"<CallState>"} == set(printed)


def test_a_stream_of_google_that_is_left_is_abandoned(
    gemini: dict[str, Any], counter: TokenCounter, memory: MemorySink
) -> None:
    """Nobody has read to its end."""
    with counter.run("asking"):
        next(generate_content_stream(contents=CONTENTS, **gemini))
    counter.close()

    assert [Outcome.ABANDONED] == [record.outcome for record in memory.records]
