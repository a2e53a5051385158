"""Bodies of every kind that ``wire.py`` reads, and what has to hold whatever becomes of them."""

from __future__ import annotations

import base64
import gzip
import json
import struct
import zlib
from collections.abc import Iterable
from typing import Any

import msgspec

from token_callbacks.records import Operation, Usage
from token_callbacks.wire import WireEvidence

Head = dict[str, str]

_CHUNKS: list[Any] = [
    {"id": "c-3", "model": "gpt-4o", "choices": [{"index": 0, "delta": {"content": "Hé"}}], "usage": None},
    {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{}"}}]}}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": {"prompt_tokens": 3}}]},
    {
        "choices": [],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 2}},
    },
]
_CLAUDE: list[Any] = [
    {
        "type": "message_start",
        "message": {"usage": {"input_tokens": 3, "cache_read_input_tokens": 2, "output_tokens": 1}},
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "name": "f"}},
    {"type": "content_block_delta", "index": 0, "delta": {"partial_json": "{}"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}},
    {"type": "message_stop", "amazon-bedrock-invocationMetrics": {"inputTokenCount": 3, "outputTokenCount": 4}},
]
_GEMINI: list[Any] = [
    {"candidates": [{"content": {"parts": [{"text": "Hé"}]}}], "usageMetadata": {"promptTokenCount": 3}},
    {
        "candidates": [{"finishReason": "STOP"}],
        "usageMetadata": {
            "promptTokenCount": 3,
            "candidatesTokenCount": 4,
            "totalTokenCount": 7,
            "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 2}],
        },
    },
]
_OLLAMA: list[Any] = [
    {"message": {"content": "Hé"}, "done": False},
    {"message": {"content": ""}, "done": True, "prompt_eval_count": 3, "eval_count": 4},
]
_WHOLES: list[Any] = [
    {"usage": {"prompt_tokens": 3, "total_tokens": 7}, "timings": {"cache_n": 2, "prompt_n": 1, "predicted_n": 4}},
    {"predictions": [{"embeddings": {"statistics": {"token_count": 3}}}]},
    {"results": [{"tokenCount": 4}], "inputTextTokenCount": 3},
    {"output": {"text": "Hé", "finish_reason": "null"}, "usage": {"input_tokens": 3, "output_tokens": 4}},
    {"text": "Hé", "meta": {"billed_units": {"input_tokens": 3}, "tokens": {"input_tokens": 3, "output_tokens": 4}}},
]


def framed(payload: bytes, headers: bytes = b"") -> bytes:
    """Encode a frame of Amazon's event stream, with checksums that are right whatever is in it."""
    prelude = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    body = prelude + struct.pack("!I", zlib.crc32(prelude)) + headers + payload
    return body + struct.pack("!I", zlib.crc32(body))


def header(name: str, value: str) -> bytes:
    """Encode a header of a frame, whose value is a string."""
    return bytes([len(name)]) + name.encode() + struct.pack("!BH", 7, len(value)) + value.encode()


def _event(kind: str, payload: Any) -> bytes:
    return framed(json.dumps(payload).encode(), header(":event-type", kind))


def _sse(events: list[Any]) -> bytes:
    return (
        "".join(f"data: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events).encode() + b"data: [DONE]\n\n"
    )


def _lines(events: list[Any]) -> bytes:
    return "".join(json.dumps(event) + "\n" for event in events).encode()


_CONVERSE = [
    _event("contentBlockStart", {"contentBlockIndex": 0, "start": {"toolUse": {"name": "f"}}}),
    _event("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"text": "Hé"}}),
    _event("messageStop", {"stopReason": "end_turn"}),
    _event("metadata", {"usage": {"inputTokens": 1, "outputTokens": 4, "cacheReadInputTokens": 2}}),
]
_INVOKE = [_event("chunk", {"bytes": base64.b64encode(json.dumps(event).encode()).decode()}) for event in _CLAUDE]

SSE, LINES, JSON, FRAMES = (
    {"content-type": kind}
    for kind in ("text/event-stream", "application/x-ndjson", "application/json", "application/vnd.amazon.eventstream")
)
COUNTS = {"x-amzn-bedrock-input-token-count": "3", "x-amzn-bedrock-output-token-count": "4"}

BODIES: list[tuple[Head, bytes]] = [
    (SSE, _sse(_CHUNKS)),
    (SSE, _sse(_CHUNKS).replace(b"\n", b"\r\n")),
    (SSE, _sse(_CHUNKS).replace(b"\n\n", b"\n")),
    (SSE, b": ping\n\nevent: message_start\n" + _sse(_CLAUDE)),
    (SSE, _sse(_GEMINI)),
    (SSE | {"content-encoding": "gzip"}, gzip.compress(_sse(_CHUNKS), mtime=0)),
    (SSE | {"content-encoding": "deflate"}, zlib.compress(_sse(_CLAUDE))),
    (LINES, _lines(_OLLAMA)),
    (JSON, _lines(_OLLAMA)),
    (JSON, json.dumps(_GEMINI, indent=2).encode()),
    (JSON | {"content-encoding": "gzip"}, gzip.compress(json.dumps(_GEMINI).encode(), mtime=0)),
    *((JSON | COUNTS, json.dumps(answer).encode()) for answer in _WHOLES),
    (FRAMES, b"".join(_CONVERSE)),
    (FRAMES | COUNTS, b"".join(_INVOKE)),
]
"""The head of an answer, and its body."""

OPERATIONS = list(Operation)


def check(head: Head, pieces: Iterable[bytes], operation: Operation, *, is_whole: bool = False) -> None:
    """Feed an answer, ask all that is ever asked of it, and see that the answers are sensible."""
    evidence = WireEvidence(operation)
    evidence.begin(head)
    if is_whole:
        evidence.take_whole(b"".join(pieces))
    else:
        for piece in pieces:
            evidence.take(piece)
    reading = evidence.reading(operation)
    for tokens in [] if reading is None else _figures(reading.usage):
        assert type(tokens) is int, tokens
        assert tokens >= 0, tokens
    if reading is not None:
        assert reading.payload == msgspec.json.decode(msgspec.json.encode(reading.payload))
        assert isinstance(reading.doubts, list)
    came = evidence.completion()
    if came is not None:
        assert isinstance(came.text, str)
        json.dumps(came.tool_calls)
    assert isinstance(evidence.has_last_word(), bool)
    assert isinstance(evidence.rules_out_usage(), bool)
    evidence.end()
    assert evidence.completion() == (None if came is None or came.is_empty else came)
    assert reading == evidence.reading(operation) or evidence.is_unreadable


def _figures(usage: Usage) -> list[Any]:
    return [told for name in Usage.__struct_fields__ if (told := getattr(usage, name)) is not None]
