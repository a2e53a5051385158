"""An HTTP answer of a provider, kept as it came and read when the call ends: the provider's own word.

While a stream goes on, its bytes are only put aside: they are taken apart when somebody asks, once, and only the events
that may hold usage are parsed for it.
"""

from __future__ import annotations

import base64
import codecs
import copy
import importlib
import itertools
import json
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from token_callbacks.answers import Answer
from token_callbacks.dialects import DIALECTS, PLACES
from token_callbacks.evidence import NO_NAMES, Completion, Names
from token_callbacks.imports import importing
from token_callbacks.records import Operation
from token_callbacks.usage import Misfits, Reading, UsageReader, part, read_answer, read_usage_like

_MOST_HELD = 4 * 2**20
"""Bytes of a stream kept as they came for its end; of a longer one the usage is read on the way, and it is packed."""


class WireEvidence:
    """What the wire carried of one request. Fed by the thread that reads the answer, read when the call ends."""

    __slots__ = (
        "_answered",
        "_came",
        "_encoding",
        "_figures",
        "_has_ended",
        "_is_accepted",
        "_is_spoiled",
        "_is_whole",
        "_most",
        "_on_the_way",
        "_operation",
        "_packed",
        "_pieces",
        "_read",
        "_read_at",
        "_reader",
        "_told_error",
        "is_unreadable",
        "kind",
    )

    def __init__(self, operation: Operation) -> None:
        self.kind = ""
        """The media type of the answer."""
        self.is_unreadable = False
        self._operation = operation
        self._encoding = ""
        """The encoding that has yet to be taken off."""
        self._figures: Mapping[str, int | str] = {}
        """What the headers told."""
        self._pieces: list[bytes] = []
        self._came = 0
        """Bytes, so far."""
        self._most = _MOST_HELD
        """So many may have come before they are looked at."""
        self._packed: list[bytes] = []
        """What came before the pieces, of which the usage was read on the way."""
        self._answered: tuple[int, Answer] | None = None
        """What was put together when it was asked for last, and of how many bytes."""
        self._is_accepted = False
        self._is_whole = False
        self._has_ended = False
        self._is_spoiled = False
        """Something in what is packed could not be read."""
        self._on_the_way: UsageReader | None = None
        """Of what is packed."""
        self._told_error = False
        """What is packed did."""
        self._read: Reading | None = None
        self._read_at = -1
        """So many bytes had come when it was read last."""
        self._reader: UsageReader | None = None
        """Of an answer that comes, or has to be read, event by event."""

    def begin(self, headers: Mapping[str, str], *, is_accepted: bool = True) -> None:
        """Take the head of an answer or a refusal; a mapping that minds the case of names has them in lower case."""
        self._is_accepted = is_accepted
        self._encoding = headers.get("content-encoding", "")
        if any(map(headers.__contains__, _TELLING)):
            self._figures = {name.lower(): _counted(it) for name, it in headers.items() if _COUNT_HEADER.match(name)}
        self.kind = headers.get("content-type", "").partition(";")[0].strip().lower()

    def take(self, piece: bytes) -> None:
        """Put aside a piece of the body, as it came over the wire. Per chunk: nothing else may happen here."""
        self._pieces.append(piece)
        self._came += len(piece)
        if self._came > self._most:
            self._read_on_the_way()

    def end(self) -> None:
        """Note that the body came to its end."""
        self._has_ended = True

    def take_whole(self, body: bytes) -> None:
        """Put aside the body of an answer that was not streamed, as its encoding was taken off already."""
        self._pieces = [body]
        self._came += len(body)
        self._is_whole = True
        self._encoding = ""

    def tells_error(self) -> bool:
        """Tell whether the answer itself says that it is none, or that it broke off.

        It may with a status of 200: https://openrouter.ai/docs/api-reference/errors,
        https://docs.anthropic.com/en/api/messages-streaming#error-events. vLLM's goes on with ``[DONE]``.
        """
        if self._told_error or not (self._encoding or b'"error"' in self._body()):
            return self._told_error
        was_unreadable = self.is_unreadable
        told = any(map(_is_error, self._parsed(_may_be_error)))
        self.is_unreadable = was_unreadable  # what is for whoever reads the usage to say
        return told

    def _read_on_the_way(self) -> None:
        self._most = self._came + _MOST_HELD
        body = b"".join(self._pieces)
        end = max(body.rfind(b"\n\n"), body.rfind(b"\r\n\r\n"), body.rfind(b"\n") if self.kind in _BY_LINE else -1)
        if end < 0 or self.kind not in (*_BY_LINE, "text/event-stream") or self._encoding:
            self._pieces = [body]
            return
        self._pieces = [body[: end + 1]]
        self._told_error = self.tells_error()
        self.is_unreadable = self._is_spoiled
        self._on_the_way = self._fed(self._on_the_way or UsageReader(self._operation))
        self._is_spoiled = self.is_unreadable
        self._packed.append(zlib.compress(body[: end + 1], level=1))
        self._pieces = [body[end + 1 :]]

    def _read_usage(self) -> UsageReader:
        # A counter that closes asks while the stream goes on: what it was told is to be read again then.
        self.is_unreadable = self._is_spoiled
        before = UsageReader(self._operation) if self._on_the_way is None else copy.deepcopy(self._on_the_way)
        self._reader = self._fed(before)
        return self._reader

    def _fed(self, reader: UsageReader) -> UsageReader:
        for event in self._parsed(_may_hold_usage):
            reader.take(event)
        return reader

    # --- Evidence

    def reading(self, operation: Operation) -> Reading | None:  # noqa: ARG002 - told at the start
        """Read the usage that the body, or else the headers, told."""
        if self._read_at != self._came:
            self._read = self._plain_reading() or self._full_reading()
            self._read_at = self._came
        return self._read

    def _plain_reading(self) -> Reading | None:
        """Read what nearly every whole answer is: one object of JSON, without headers that have a word in it."""
        if not self._is_whole or self._reader_of_kind() is not _json or self._figures:
            return None
        body = self._pieces[0]
        try:
            # Most of it is text or vectors, which nobody asks for yet.
            reading = read_usage_like(_usage_only(body).usage, self._operation)
        except (ValueError, RecursionError):
            reading = None
        try:
            return reading or read_answer(_loads(body), self._operation)
        except ValueError:
            return None

    def _full_reading(self) -> Reading | None:
        reader = self._read_usage()
        if self._figures:
            reader.take(self._figures)
        reading = reader.reading()
        if reading is not None and self.is_unreadable:
            return msgspec.structs.replace(reading, unreadable=True)
        return reading

    def misfits(self, operation: Operation) -> Misfits:  # noqa: ARG002 - told at the start
        """Name what is no count in the usage that the body, or else the headers, told."""
        return (self._reader or self._read_usage()).misfits()

    def rules_out_usage(self) -> bool:
        """Tell whether the body was read: figures that others have and it does not are then nobody's but theirs."""
        has_come = any(self._pieces) or bool(self._packed)
        return has_come and self._reader_of_kind() is not None and not self.is_unreadable

    def has_last_word(self) -> bool:
        """Tell whether all of the answer had come: then what it told is final, also for a reader that left."""
        return (self._has_ended and not self.tells_error()) or self._answer().is_whole

    def model(self) -> str | None:
        """Tell the model as the answer names it, of a request that no framework tells of."""
        return self._answer().model

    def prompt(self) -> None:
        """Leave it to the framework, which has it in one shape for all providers."""

    def completion(self) -> Completion | None:
        """Gather the text and tool calls of a streamed answer, as far as they arrived: none where it had just begun."""
        if self._is_whole:  # then the framework knows better
            return None
        answer = self._answer()
        completion = answer.completion()
        if completion is not None and not completion.is_empty:
            return completion
        return Completion(text="") if self._has_begun(answer) else None

    def _has_begun(self, answer: Answer) -> bool:
        """Tell of an answer that was left before anything came whether it was one: the prompt was accepted then."""
        if self._has_ended or not self._is_accepted or self._reader_of_kind() is None:
            return False
        return answer.has_begun or not (answer.has_failed or self.tells_error())

    def _answer(self) -> Answer:
        if self._answered is not None and self._answered[0] == self._came:
            return self._answered[1]
        answer = Answer()
        for body in (*map(zlib.decompress, self._packed), self._body()):
            for event in self._events(body, _anything):
                if event is _DONE:
                    answer.is_over = True
                else:
                    answer.take(event)
        self._answered = self._came, answer
        return answer

    def inputs(self) -> None:
        """Leave it to the framework."""

    def names(self) -> Names:
        """Leave them to the framework."""
        return NO_NAMES

    # --- reading the body

    def _reader_of_kind(self) -> _Reader | None:
        return _READERS.get(self.kind) or (_json if "json" in self.kind else None)

    def _body(self) -> bytes:
        body = b"".join(self._pieces)
        self._pieces = [body]
        return body

    def _parsed(self, is_wanted: Callable[[bytes], bool]) -> Iterator[Any]:
        return self._events(self._body(), is_wanted)

    def _events(self, body: bytes, is_wanted: Callable[[bytes], bool]) -> Iterator[Any]:
        read = self._reader_of_kind()
        if read is None:
            return
        try:
            for event in read(_decoded(body, self._encoding), is_wanted):
                if event is _UNREADABLE:
                    self.is_unreadable = True
                else:
                    yield event
        except (ValueError, ImportError):
            self.is_unreadable = True


def _decoded(body: bytes, encoding: str) -> bytes:
    """Take an encoding off; what decompresses does not mind that of a stream that was left the end is missing."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    try:
        return _DECODERS[encoding](body)
    except Exception as error:  # each of the packages raises its own
        raise ValueError(encoding) from error


def _inflated(body: bytes) -> bytes:
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(body)
    except zlib.error:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(body)


def _from_brotli(body: bytes) -> bytes:
    with importing:
        brotli = importlib.import_module("brotli")
    decoded: bytes = brotli.Decompressor().process(body)
    return decoded


def _from_zstd(body: bytes) -> bytes:
    with importing:
        zstandard = importlib.import_module("zstandard")
    decoded: bytes = zstandard.ZstdDecompressor().decompressobj().decompress(body)
    return decoded


# httpx asks for the last two where their packages are installed.
_DECODERS = {"gzip": _inflated, "deflate": _inflated, "br": _from_brotli, "zstd": _from_zstd}

_DONE = object()
"""Stands for ``[DONE]``, with which streams in OpenAI's manner end."""

_UNREADABLE = object()
"""Stands for an event that cannot be read; those after it can."""


def _json(body: bytes, is_wanted: Callable[[bytes], bool]) -> Iterator[Any]:  # noqa: ARG001 - see _Reader
    try:
        answer = _loads(body)
    except ValueError:
        yield from _json_values(body)
        return
    yield from answer if isinstance(answer, list) else (answer,)


def _json_values(body: bytes) -> Iterator[Any]:
    """Read values one after the other: lines of JSON, as some stream, or an array that broke off, as Gemini's."""
    text = body.decode("utf-8-sig", "replace").lstrip().removeprefix("[")
    position, has_read = _after_gap(text, 0), False
    while position < len(text):
        try:
            value, end = _JSON.raw_decode(text, position)
            yield value
            has_read = True
        except (ValueError, RecursionError):
            end = text.find("\n{", position)
            if end < 0:  # the last one may be cut off
                break
            yield _UNREADABLE
        position = _after_gap(text, end)
    if not has_read and text:
        yield _UNREADABLE


def _after_gap(text: str, position: int) -> int:
    gap = _GAP.match(text, position)
    return position if gap is None else gap.end()


def _json_lines(body: bytes, is_wanted: Callable[[bytes], bool]) -> Iterator[Any]:
    lines = body.splitlines()
    for number, line in enumerate(lines, 1):
        if is_wanted(line) and line.strip():
            try:
                yield _loads(line)
            except ValueError:
                if number < len(lines) or body.endswith(b"\n"):  # else it may be cut off
                    yield _UNREADABLE


def _server_sent_events(body: bytes, is_wanted: Callable[[bytes], bool]) -> Iterator[Any]:
    pending: list[bytes] = []
    lines = body.removeprefix(codecs.BOM_UTF8).splitlines()
    is_cut = not body.endswith((b"\n", b"\r"))
    for number, line in enumerate([*lines, b""]):
        if line.startswith(b"data:"):
            pending.append(line[5:])
        elif not line and pending:
            data = pending[0] if len(pending) == 1 else b"\n".join(pending)
            if is_wanted(data):
                yield from _of_one_event(data, pending, may_be_cut=is_cut and number == len(lines))
            pending = []


def _of_one_event(data: bytes, lines: list[bytes], *, may_be_cut: bool) -> Iterator[Any]:
    """Read the data of an event. Some servers leave out the empty line between events: then each line is one."""
    try:
        yield _DONE if data.strip() == b"[DONE]" else _loads(data)
    except ValueError:
        if len(lines) > 1:
            for number, line in enumerate(lines, 1):
                yield from _of_one_event(line, [line], may_be_cut=may_be_cut and number == len(lines))
        elif not may_be_cut:
            yield _UNREADABLE


def _amazon_event_stream(body: bytes, is_wanted: Callable[[bytes], bool]) -> Iterator[Any]:  # noqa: ARG001 - see _Reader
    with importing:
        from botocore.eventstream import EventStreamBuffer, ParserError  # type: ignore[import-untyped]

    buffer = EventStreamBuffer()
    try:
        for start in range(0, len(body), _SLICE):  # it copies what it holds for every message
            buffer.add_data(body[start : start + _SLICE])
            for message in buffer:
                yield _of_message(message.headers.get(":event-type"), message.payload)
    except (ParserError, LookupError, struct.error) as error:
        raise ValueError(str(error)) from error


def _of_message(kind: object, payload: bytes) -> Any:
    """Read an event of Bedrock's, named as its SDK names it."""
    try:
        event = _loads(payload) if payload else None
        inner = part(event, "bytes")
        if isinstance(inner, str):  # InvokeModel wraps what the model's own API would have said
            return _loads(base64.b64decode(inner))
    except ValueError:
        return _UNREADABLE
    return {kind: event} if isinstance(kind, str) else event


def _loads(data: bytes) -> Any:
    """Parse JSON; what cannot be is a ``ValueError``."""
    try:
        return msgspec.json.decode(data)
    except (ValueError, RecursionError):
        try:  # takes what msgspec does not: NaN, half a surrogate pair
            return json.loads(data.decode("utf-8-sig", "replace"))
        except RecursionError as error:
            raise ValueError("nested too deeply") from error


class _UsageOnly(msgspec.Struct):
    """An answer as far as its usage, in its usual place, is concerned: the rest is passed over."""

    usage: Any = None


_usage_only = msgspec.json.Decoder(_UsageOnly).decode
_JSON = json.JSONDecoder()
_GAP = re.compile(r"[\s,\]]*")

_SLICE = 2**14
"""Bytes of an event stream that are taken apart at once."""

_Reader = Callable[[bytes, Callable[[bytes], bool]], Iterator[Any]]

_READERS: dict[str, _Reader] = {
    "application/x-ndjson": _json_lines,
    "application/jsonl": _json_lines,
    "text/event-stream": _server_sent_events,
    "application/vnd.amazon.eventstream": _amazon_event_stream,
}
"""Media types that are understood."""

_BY_LINE = ("application/x-ndjson", "application/jsonl")


def _ends(paths: Iterable[str]) -> set[str]:
    return {re.split(r"[.\[\]]+", path.removesuffix("[]"))[-1] for path in paths}


_MARKS = _ends(PLACES) | _ends(mark for dialect in DIALECTS for mark in dialect.marks)


def _any_of(names: Iterable[str]) -> str:
    """Make a pattern of names, by their first letter: ``re`` tries them one after the other."""
    by_letter = itertools.groupby(sorted(names), key=lambda name: name[0])
    return "|".join(f"{letter}(?:{'|'.join(re.escape(name[1:]) for name in group)})" for letter, group in by_letter)


_may_hold_usage_at = re.compile(f'"(?:{_any_of(_MARKS | {"finish_reason"})})"[ ]*:[ ]*+(?!null)'.encode()).search
"""Finds the events that hold usage, and those that end a choice: a usage may be about the choices that have ended."""


def _may_hold_usage(event: bytes) -> bool:
    return _may_hold_usage_at(event) is not None


def _may_be_error(event: bytes) -> bool:
    return b'"error"' in event


def _is_error(event: Any) -> bool:
    kind = part(event, "type")  # of other events an error may be a part, that of a tool say
    return kind == "error" or (kind is None and bool(part(event, "error")))


def _anything(event: bytes) -> bool:  # noqa: ARG001 - as _may_hold_usage
    return True


def _counted(value: str) -> int | str:
    return int(value) if _COUNT.match(value) else value


_COUNT_HEADER = re.compile(r"x-amzn-bedrock-.*-token-count$", re.IGNORECASE)
_COUNT = re.compile(r"[0-9]{1,15}$")
_TELLING = tuple(mark for dialect in DIALECTS for mark in dialect.marks if _COUNT_HEADER.match(mark))
"""The headers, one of which is there where the headers tell the usage."""
