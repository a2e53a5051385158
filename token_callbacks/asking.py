"""Ask a server that speaks like OpenAI for the usage of a stream, and take what that adds out of its answer again.

``stream_options: {"include_usage": true}`` (https://platform.openai.com/docs/api-reference/chat/create#stream_options)
adds one event without choices, which tells the usage, and ``"usage": null`` to the others. Whoever reads the stream has
not asked for either and does not get them.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from token_callbacks.usage import part

ASKED = re.compile(r"/(?:chat/)?completions/?$")
"""What the path of a request that may be asked ends in."""

UNASKED: tuple[tuple[str, str], ...] = (
    ("api.mistral.ai", "https://docs.mistral.ai/api/: the last chunk has it; a field that is not known is refused"),
    ("api.perplexity.ai", "https://docs.perplexity.ai/api-reference/chat-completions-post: every chunk has it"),
)
"""Hosts that are not asked, and why."""

_ADDED = b'"stream_options":{"include_usage":true}'


class _Request(msgspec.Struct):
    """What matters of a request's body."""

    stream: Any = None
    stream_options: Any = None
    data_sources: Any = None


def is_asked(host: str) -> bool:
    """Tell whether a host may be asked."""
    return not any(host == unasked or host.endswith(f".{unasked}") for unasked, _ in UNASKED)


def asking(body: bytes) -> bytes | None:
    """Add the question to the body of a request; ``None`` where it is no stream, or asks or declines by itself."""
    if b'"stream"' not in body:  # most do not stream, and that is soon seen
        return None
    try:
        request = msgspec.json.decode(body, type=_Request)
    except (msgspec.MsgspecError, RecursionError):
        return None
    # Azure refuses the question together with data sources of the user's own:
    # https://learn.microsoft.com/azure/ai-foundry/openai/references/on-your-data
    if request.stream is not True or request.stream_options is not None or request.data_sources is not None:
        return None
    if b'"stream_options"' in body:  # it is there, and null
        return None
    opening, closing = body.rstrip().removesuffix(b"}"), b"}"
    return opening + b"," + _ADDED + closing


class Unasked:
    """Takes the answer to the question out of the bytes of a stream; an event goes on when all of it has come."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def passed(self, piece: bytes) -> bytes:
        """Take the next piece and return what goes on to the reader."""
        held = self._held + piece
        ends = _ends_of(held)
        end = ends[-1] if ends else 0
        self._held = held[end:]
        return _without_usage(held, ends) if b'"usage"' in held else held[:end]

    def rest(self) -> bytes:
        """Return what is left when the stream has ended."""
        held, self._held = self._held, b""
        return _without_usage(held, [len(held)])


_BOUNDARY = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_NULL = re.compile(rb',[ ]*"usage"[ ]*:[ ]*null')


def _ends_of(events: bytes) -> list[int]:
    """Tell where the events end; nearly every piece is one of them, and that is soon seen."""
    if events.endswith(b"\n\n") and events.find(b"\n\n") == len(events) - 2 and b"\r" not in events:
        return [len(events)]
    return [boundary.end() for boundary in _BOUNDARY.finditer(events)]


def _without_usage(events: bytes, ends: list[int]) -> bytes:
    kept: list[bytes] = []
    start = 0
    for end in ends:
        event = events[start:end]
        start = end
        plain = _NULL.sub(b"", event)
        if b'"usage"' not in plain or not _is_answer(event):
            kept.append(plain)
    return b"".join(kept)


def _is_answer(event: bytes) -> bool:
    data = event.strip()
    if not data.startswith(b"data:"):
        return False
    try:
        told = msgspec.json.decode(data.removeprefix(b"data:"))
    except (ValueError, RecursionError):
        return False
    return part(told, "choices") == [] and part(told, "usage") is not None
