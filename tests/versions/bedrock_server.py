"""Fake Amazon's Bedrock Runtime on 127.0.0.1, true to the wire, with a ledger of what every request used.

Bedrock tells its figures in four ways, none of which another provider has: `usage` in a Converse answer, a `metadata`
event of a Converse stream, headers beside an Invoke answer, and `amazon-bedrock-invocationMetrics` in the last chunk of
an Invoke stream; streams are not server-sent events but binary frames. `test_bedrock_server.py` reads all of it with
Amazon's own client, so nothing here may import `token_callbacks`.

    with BedrockServer() as server:
        litellm.completion(model="bedrock/...", aws_bedrock_runtime_endpoint=server.url, ...)
    print(server.ledger)

API: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_Operations_Amazon_Bedrock_Runtime.html
Prompt caching: https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html
"""

from __future__ import annotations

import base64
import json
import socket
import struct
import threading
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Literal, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from loopback_server import CANNED, Figures, pieces_of

Json = dict[str, Any]
RouteName = Literal["converse", "converse-stream", "invoke", "invoke-with-response-stream"]

WRITE_HI = Figures(prompt_tokens=5, completion_tokens=5)
"""What the prompt "Write Hi" cost in the report of BerriAI/litellm#9577."""

SLICE_BYTES = 97
"""Bodies of streams go out in cuts of this size, so that frames end in the middle of them, as over a real network."""

_CRC = struct.Struct("!I")
_PRELUDE = struct.Struct("!II")
_STRING_HEADER = 7
_TIMES = {"invocationLatency": 340, "firstByteLatency": 120}


class BedrockEntry(Figures, frozen=True, kw_only=True):
    """One request and what it used; the prompt includes both cache buckets."""

    route: RouteName
    model: str

    @property
    def streamed(self) -> bool:
        """Whether the answer was a stream."""
        return self.route in ("converse-stream", "invoke-with-response-stream")


class BedrockServer:
    """A Bedrock Runtime on a free port of 127.0.0.1, served by uvicorn in a thread, for use in a `with`.

    Every chat uses `chat`, every embedding `embedding` tokens, whatever is asked.
    """

    def __init__(self, *, chat: Figures = WRITE_HI, embedding: int = 5) -> None:
        self._chat = chat
        self._embedding = Figures(embedding_tokens=embedding)
        self._entries: list[BedrockEntry] = []
        self._started = threading.Event()

    def __enter__(self) -> Self:
        """Listen, and serve from a daemon thread."""
        # asyncio sends small answers at once (TCP_NODELAY) only on sockets that name their protocol.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        routes = [
            Route(f"/model/{{model:path}}/{name}", partial(self._answer, name), methods=["POST"]) for name in _ANSWERS
        ]
        app = Starlette(routes=routes, lifespan=self._lifespan)
        config = uvicorn.Config(
            app, lifespan="on", log_config=None, log_level="critical", access_log=False, timeout_graceful_shutdown=1
        )
        self._uvicorn = uvicorn.Server(config)
        serve = partial(self._uvicorn.run, sockets=[listener])
        self._thread = threading.Thread(target=serve, name="bedrock-server", daemon=True)
        self._thread.start()
        if not self._started.wait(timeout=30):
            raise RuntimeError("the Bedrock server did not start within 30 s: see the traceback of its thread above")
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._uvicorn.should_exit = True
        self._thread.join()

    @property
    def ledger(self) -> list[BedrockEntry]:
        """The requests so far, in order of arrival."""
        return list(self._entries)

    def clear(self) -> None:
        """Forget the ledger."""
        self._entries.clear()

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self._started.set()
        yield

    async def _answer(self, route: RouteName, request: Request) -> Response:
        model, body = request.path_params["model"], await request.json()
        figures = self._embedding if _is_embedding(model) else self._chat
        self._entries.append(BedrockEntry(route=route, model=model, **_fields(figures)))
        return _ANSWERS[route](model, body, figures)


def frame(payload: Json, *, event: str) -> bytes:
    """Encode one event as a frame of `application/vnd.amazon.eventstream`.

    Total length, headers' length and the checksum of these two; headers; payload; the checksum of all before it.
    https://smithy.io/2.0/aws/amazon-eventstream.html
    """
    told = {":event-type": event, ":content-type": "application/json", ":message-type": "event"}
    headers = b"".join(_header(name, value) for name, value in told.items())
    body = json.dumps(payload).encode()
    prelude = _PRELUDE.pack(_PRELUDE.size + _CRC.size + len(headers) + len(body) + _CRC.size, len(headers))
    framed = prelude + _CRC.pack(zlib.crc32(prelude)) + headers + body
    return framed + _CRC.pack(zlib.crc32(framed))


def _header(name: str, value: str) -> bytes:
    return bytes([len(name)]) + name.encode() + struct.pack("!BH", _STRING_HEADER, len(value)) + value.encode()


def _converse(model: str, body: Json, figures: Figures) -> Response:
    message = {"role": "assistant", "content": [{"text": CANNED}]}
    told = {"output": {"message": message}, "stopReason": "end_turn", "metrics": {"latencyMs": 340}}
    return _plain(told | {"usage": _converse_usage(figures)})


def _converse_stream(model: str, body: Json, figures: Figures) -> Response:
    frames = [frame({"role": "assistant"}, event="messageStart")]
    frames += [
        frame({"contentBlockIndex": 0, "delta": {"text": piece}}, event="contentBlockDelta")
        for piece in pieces_of(CANNED)
    ]
    frames += [
        frame({"contentBlockIndex": 0}, event="contentBlockStop"),
        frame({"stopReason": "end_turn"}, event="messageStop"),
        frame({"usage": _converse_usage(figures), "metrics": {"latencyMs": 340}}, event="metadata"),
    ]
    return _streamed(frames)


def _invoke(model: str, body: Json, figures: Figures) -> Response:
    return _plain(_invoke_answer(model, body, figures), headers=_count_headers(figures))


def _invoke_answer(model: str, body: Json, figures: Figures) -> Json:
    if "titan-embed" in model:
        return {"embedding": [0.25, -0.5, 0.125], "inputTextTokenCount": figures.embedding_tokens}
    if "cohere.embed" in model:  # the body tells no figure: it stands in the headers alone
        vectors = [[0.25, -0.5, 0.125] for _ in body["texts"]]
        return {"id": "embed_1", "texts": body["texts"], "embeddings": vectors, "response_type": "embeddings_floats"}
    answered = {"content": [{"type": "text", "text": CANNED}], "stop_reason": "end_turn"}
    return _claude_message(model) | answered | {"usage": _claude_usage(figures, output=figures.completion_tokens)}


def _invoke_stream(model: str, body: Json, figures: Figures) -> Response:
    started = _claude_message(model) | {"content": [], "stop_reason": None, "usage": _claude_usage(figures, output=1)}
    deltas = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
        for piece in pieces_of(CANNED)
    ]
    ended = {"stop_reason": "end_turn", "stop_sequence": None}
    events = [
        {"type": "message_start", "message": started},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *deltas,
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": ended, "usage": {"output_tokens": figures.completion_tokens}},
        {"type": "message_stop", "amazon-bedrock-invocationMetrics": _invocation_metrics(figures)},
    ]
    frames = [frame({"bytes": base64.b64encode(json.dumps(it).encode()).decode()}, event="chunk") for it in events]
    return _streamed(frames, headers={"x-amzn-bedrock-content-type": "application/json"})


Answer = Callable[[str, Json, Figures], Response]

_ANSWERS: dict[RouteName, Answer] = {
    "converse": _converse,
    "converse-stream": _converse_stream,
    "invoke": _invoke,
    "invoke-with-response-stream": _invoke_stream,
}


def _is_embedding(model: str) -> bool:
    return "embed" in model


def _fields(figures: Figures) -> dict[str, int]:
    return {name: getattr(figures, name) for name in Figures.__struct_fields__}


def _fresh_tokens(figures: Figures) -> int:
    """Return the input as Bedrock tells it: without what was read from or written to the cache."""
    chat = figures.prompt_tokens - figures.cache_read_tokens - figures.cache_write_tokens
    return chat + figures.embedding_tokens


def _converse_usage(figures: Figures) -> Json:
    usage = {
        "inputTokens": _fresh_tokens(figures),
        "outputTokens": figures.completion_tokens,
        "totalTokens": figures.prompt_tokens + figures.completion_tokens,
    }
    cached = {
        "cacheReadInputTokens": figures.cache_read_tokens,
        "cacheWriteInputTokens": figures.cache_write_tokens,
    }
    return usage | (cached if any(cached.values()) else {})


def _claude_usage(figures: Figures, *, output: int) -> Json:
    return {
        "input_tokens": _fresh_tokens(figures),
        "cache_creation_input_tokens": figures.cache_write_tokens,
        "cache_read_input_tokens": figures.cache_read_tokens,
        "output_tokens": output,
    }


def _claude_message(model: str) -> Json:
    return {"id": "msg_bdrk_1", "type": "message", "role": "assistant", "model": model, "stop_sequence": None}


def _invocation_metrics(figures: Figures) -> Json:
    counts = {"inputTokenCount": _fresh_tokens(figures), "outputTokenCount": figures.completion_tokens}
    cached = {
        "cacheReadInputTokenCount": figures.cache_read_tokens,
        "cacheWriteInputTokenCount": figures.cache_write_tokens,
    }
    return counts | _TIMES | cached


def _count_headers(figures: Figures) -> dict[str, str]:
    counts = {"input": _fresh_tokens(figures)}
    if figures.completion_tokens:
        counts |= {
            "output": figures.completion_tokens,
            "cache-read-input": figures.cache_read_tokens,
            "cache-write-input": figures.cache_write_tokens,
        }
    told = {f"x-amzn-bedrock-{name}-token-count": str(tokens) for name, tokens in counts.items()}
    return told | {"x-amzn-bedrock-invocation-latency": "340"}


def _plain(payload: Json, *, headers: dict[str, str] | None = None) -> Response:
    named = {"x-amzn-requestid": "3b9f1c27-0000-4000-8000-000000000001"} | (headers or {})
    return Response(json.dumps(payload), media_type="application/json", headers=named)


def _streamed(frames: Iterable[bytes], *, headers: dict[str, str] | None = None) -> Response:
    named = {"x-amzn-requestid": "3b9f1c27-0000-4000-8000-000000000001"} | (headers or {})
    return StreamingResponse(_cuts(b"".join(frames)), media_type="application/vnd.amazon.eventstream", headers=named)


def _cuts(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), SLICE_BYTES):
        yield body[start : start + SLICE_BYTES]
