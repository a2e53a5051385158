"""Find the events of a stream in its text, cut anywhere: Server-Sent Events, and lines of JSON."""

from __future__ import annotations

import codecs
import json
from typing import Any

import msgspec

from token_callbacks.imports import importing

DONE = object()
"""Stands for ``[DONE]``, with which streams in OpenAI's manner end."""

_LONGEST_LINE = 2**26
"""Characters: as much of a line without an end is kept; an image may be one line, a stream without lines is no SSE."""

_OPENINGS = ("data:", "event:", "id:", "retry:")


class TextReader:
    """Finds the events in text that comes in items cut anywhere."""

    def __init__(self) -> None:
        # Not before there is text to read: it imports httpx. Its public functions want a whole httpx response, so these
        # are the two classes underneath (0.4.3); test_the_decoders_of_httpx_sse pins what is used of them.
        with importing:
            from httpx_sse._decoders import SSEDecoder, SSELineDecoder

            decoder = codecs.getincrementaldecoder("utf-8-sig")  # a module of its own
        self._decode_bytes = decoder("replace").decode
        self._lines = SSELineDecoder()
        self._events = SSEDecoder()
        self._pending: list[str] = []
        """The last line so far, which the line decoder has too."""
        self._pending_length = 0
        self._has_line_breaks = False
        self._received = 0
        self._probed = 0

    def decoded(self, piece: bytes) -> str:
        """Decode bytes, a character of which may be in two pieces."""
        return self._decode_bytes(piece)

    def take(self, item: str) -> list[Any]:
        """Find the events that end with or in this item."""
        self._received += len(item)
        if not self._has_line_breaks and ("\n" in item or "\r" in item):
            self._has_line_breaks = True
        events: list[Any] = []
        if not self._has_line_breaks and (not item or item.startswith(_OPENINGS)):
            events += self._read("\n" if self._pending else "")
            events += [] if item else self._read("\n")
        events += self._read(item)
        if self._is_line_over():
            events += self._read("\n\n")
        return events

    def finish(self) -> list[Any]:
        """Find the event in what is left."""
        return self._read("\n\n")

    def _read(self, text: str) -> list[Any]:
        if not text:
            return []
        self._remember(text)
        events: list[Any] = []
        for line in self._lines.decode(text):
            if line.startswith("{"):  # a line of JSON, as Ollama sends it
                events += events_in(line)
            elif (sent := self._events.decode(line)) is not None and sent.data:
                events += events_in(sent.data)
        return events

    def _remember(self, text: str) -> None:
        start = max(text.rfind("\n"), text.rfind("\r")) + 1
        if start:
            self._pending = []
            self._pending_length = 0
        if start < len(text):
            self._pending.append(text[start:])
            self._pending_length += len(text) - start
        if self._pending_length > _LONGEST_LINE:
            raise OverflowError

    def _is_line_over(self) -> bool:
        """Tell whether what is pending is a whole line though no line break has come."""
        if not self._pending or not self._pending[-1].rstrip().endswith(("}", "[DONE]")):
            return False
        # Lines are looked at once each; in single characters one would be looked at again and again.
        if self._probed + self._pending_length > 2 * self._received:
            return False
        self._probed += self._pending_length
        self._pending = ["".join(self._pending)]
        line = self._pending[0]
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return True
        if len(data) == len(line.strip()) and not line.startswith("{"):
            return False
        return isinstance(_parsed(data), dict)


def events_in(data: str) -> list[Any]:
    """Parse the data of an event; where lines of several events came without the empty ones between, line by line."""
    event = _from_json(data)
    if event is not None:
        return [event]
    lines = data.split("\n")
    return [event for line in lines if (event := _from_json(line)) is not None] if len(lines) > 1 else []


def _from_json(data: str) -> Any:
    data = data.strip()
    if not data.startswith("{"):
        return DONE if data == "[DONE]" else None
    event = _parsed(data)
    if event is None:
        try:
            event = json.loads(data)  # takes what msgspec does not: NaN, half a surrogate pair
        except (ValueError, RecursionError):
            return None
    return event if isinstance(event, dict) else None


def _parsed(data: str) -> Any:
    try:
        return _decode_json(data)
    except (ValueError, RecursionError):
        return None


_decode_json = msgspec.json.Decoder().decode
