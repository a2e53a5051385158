"""HTTP answers as their bytes: what they told is read whatever they are packed in, and however they end."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from token_callbacks import wire
from token_callbacks.evidence import Completion
from token_callbacks.records import Doubt, Operation, Usage
from token_callbacks.usage import Reading, read_answer
from token_callbacks.wire import WireEvidence

from .versions.bedrock_server import frame

Json = dict[str, Any]

SSE = "text/event-stream"
LINES = "application/x-ndjson"
FRAMES = "application/vnd.amazon.eventstream"

TOLD = Usage(prompt_tokens=3, completion_tokens=4)
ANSWER = {"id": "a-3", "usage": {"prompt_tokens": 3, "completion_tokens": 4}}
CHUNKS: list[Json] = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hé"}}], "usage": None},
    {"choices": [{"index": 0, "delta": {"content": " there"}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}},
]
OLLAMA: list[Json] = [
    {"model": "llama3", "message": {"role": "assistant", "content": "Hé"}, "done": False},
    {"model": "llama3", "message": {"role": "assistant", "content": " there"}, "done": False},
    {"model": "llama3", "message": {"content": ""}, "done": True, "prompt_eval_count": 3, "eval_count": 4},
]
GEMINI: list[Json] = [
    {"candidates": [{"content": {"parts": [{"text": "Hé"}]}}], "usageMetadata": {"promptTokenCount": 3}},
    {
        "candidates": [{"content": {"parts": [{"text": " there"}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 4, "totalTokenCount": 7},
    },
]
TEXT = "Hé there"


def _streamed(kind: str, *pieces: bytes, operation: Operation = Operation.CHAT, **headers: str) -> WireEvidence:
    """Give the evidence of a stream that was read to its last piece, and not to its end."""
    evidence = WireEvidence(operation)
    evidence.begin({"content-type": kind} | {name.replace("_", "-"): value for name, value in headers.items()})
    for piece in pieces:
        evidence.take(piece)
    return evidence


def _whole(body: bytes, *, kind: str = "application/json", operation: Operation = Operation.CHAT) -> WireEvidence:
    evidence = WireEvidence(operation)
    evidence.begin({"content-type": kind})
    evidence.take_whole(body)
    evidence.end()
    return evidence


def _sse(events: list[Any], *, line_end: str = "\n", prefix: str = "data: ", done: bool = True) -> bytes:
    datas = [json.dumps(event, ensure_ascii=False) for event in events] + (["[DONE]"] if done else [])
    return "".join(f"{prefix}{data}{line_end}{line_end}" for data in datas).encode()


def _lines(events: list[Any]) -> bytes:
    return "".join(json.dumps(event) + "\n" for event in events).encode()


def _array(events: list[Any]) -> bytes:
    """Write an array as Gemini streams it, https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent."""
    return ("[" + "\n,\r\n".join(json.dumps(event, indent=2) for event in events) + "\n]").encode()


def _pieces(body: bytes, size: int) -> list[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)]


def _usage(evidence: WireEvidence) -> Usage | None:
    reading = _reading(evidence)
    return None if reading is None else reading.usage


def _reading(evidence: WireEvidence) -> Reading | None:
    return evidence.reading(Operation.CHAT)


def _doubts(evidence: WireEvidence) -> list[Doubt]:
    reading = _reading(evidence)

    assert reading is not None
    return reading.doubts


def _text(evidence: WireEvidence) -> str | None:
    completion = evidence.completion()
    return None if completion is None else completion.text


# --- whole answers


@pytest.mark.parametrize(
    "kind", ["application/json", "application/json; charset=utf-8", "Application/JSON", "text/json"]
)
def test_a_whole_answer(kind: str) -> None:
    """An answer that was not streamed is read from its body; its text is left to the framework."""
    evidence = _whole(json.dumps(ANSWER).encode(), kind=kind)

    assert (TOLD, None, True) == (_usage(evidence), evidence.completion(), evidence.has_last_word())
    assert evidence.rules_out_usage()


_counts = st.integers(-1, 9) | st.none() | st.sampled_from(["3", 2.5, 2**60, [4], True])
_usages = st.dictionaries(st.sampled_from(["prompt_tokens", "completion_tokens", "total_tokens", "odd"]), _counts)


@given(
    usage=_usages | st.lists(_usages, max_size=2) | _counts,
    beside=st.dictionaries(st.sampled_from(["id", "model", "data", "x_groq", "meta"]), _usages | st.just("a text")),
    is_embedding=st.booleans(),
)
@example(usage=ANSWER["usage"], beside={}, is_embedding=False)
@example(usage=ANSWER["usage"], beside={"id": "a text"}, is_embedding=True)
@example(usage={}, beside={"x_groq": {"prompt_tokens": 3}}, is_embedding=False)
def test_a_whole_answer_is_read_as_if_it_were_parsed_whole(usage: Any, beside: Json, is_embedding: bool) -> None:
    """Of its body only the usage is parsed at first: what is told is the same, whatever stands there and beside it."""
    operation = Operation.EMBEDDING if is_embedding else Operation.CHAT
    answer = {**beside, "usage": usage}

    for _ in range(2):  # the second time its shape is known
        told, expected = (
            _whole(json.dumps(answer).encode(), operation=operation).reading(operation),
            read_answer(answer, operation),
        )
        assert (told is None) == (expected is None)
        if told is not None and expected is not None:
            assert (expected.usage, expected.payload, expected.doubts) == (told.usage, told.payload, told.doubts)


def test_the_text_of_a_whole_answer_is_left_to_the_framework() -> None:
    """It has all of it, in one shape for all providers."""
    evidence = _whole(json.dumps({"choices": [{"message": {"content": TEXT}}]}).encode())

    assert evidence.completion() is None


def test_a_whole_answer_had_its_encoding_taken_off() -> None:
    """The client decodes what it reads itself; the header still says gzip."""
    evidence = WireEvidence(Operation.CHAT)
    evidence.begin({"content-type": "application/json", "content-encoding": "gzip"})
    evidence.take_whole(json.dumps(ANSWER).encode())

    assert TOLD == _usage(evidence)


def test_an_encoding_that_the_host_takes_out_of_the_headers_is_known_still() -> None:
    """A proxy passes a decoded answer on with the headers of the encoded one, less those that lie."""
    evidence, headers = WireEvidence(Operation.CHAT), {"content-type": "application/json", "content-encoding": "gzip"}
    evidence.begin(headers)
    headers.clear()
    evidence.take(gzip.compress(json.dumps(ANSWER).encode()))
    evidence.end()

    assert TOLD == _usage(evidence)


def test_an_answer_without_usage_rules_it_out() -> None:
    """Where the body was read and told nothing, figures that others have are their own."""
    evidence = _whole(b'{"id": "a-3", "choices": []}')

    assert _usage(evidence) is None
    assert evidence.rules_out_usage()


def test_nothing_taken_rules_nothing_out() -> None:
    """Before anything came, nothing is known."""
    evidence = _streamed("application/json")

    assert (None, False) == (_usage(evidence), evidence.rules_out_usage())
    assert not evidence.has_last_word()


@pytest.mark.parametrize(
    "body", [b"<html>no</html>", b"[" * 100_000, b'{"usage": {"prompt_tok'], ids=["html", "deep", "cut"]
)
def test_a_body_that_is_not_json_rules_nothing_out(body: bytes) -> None:
    """What cannot be read says nothing about what others know."""
    evidence = _whole(body)

    assert (None, True, False) == (_usage(evidence), evidence.is_unreadable, evidence.rules_out_usage())


@pytest.mark.parametrize("kind", ["text/plain", "application/octet-stream", "", "text/html"])
def test_an_unknown_media_type_rules_nothing_out(kind: str) -> None:
    """A body that is of no kind we read is not looked into."""
    evidence = _whole(json.dumps(ANSWER).encode(), kind=kind)

    assert (None, False) == (_usage(evidence), evidence.rules_out_usage())


def test_an_embedding() -> None:
    """The operation says which figure is meant."""
    evidence = _whole(b'{"data": [], "usage": {"prompt_tokens": 3, "total_tokens": 3}}', operation=Operation.EMBEDDING)
    reading = evidence.reading(Operation.EMBEDDING)

    assert reading is not None
    assert Usage(embedding_tokens=3) == reading.usage


def test_json_that_msgspec_does_not_take() -> None:
    """Python servers write NaN and half surrogate pairs, and a byte order mark may come first."""
    body = b'\xef\xbb\xbf{"text": "\\ud83d \xff", "score": NaN, "usage": {"prompt_tokens": 3, "completion_tokens": 4}}'

    assert TOLD == _usage(_whole(body))
    assert TOLD == _usage(_streamed(SSE, b"data: ", body.removeprefix(b"\xef\xbb\xbf"), b"\n\n"))


def test_reading_twice_gives_the_same() -> None:
    """Each question may be asked again."""
    evidence = _streamed(SSE, _sse(CHUNKS))

    assert _reading(evidence) == _reading(evidence)
    assert (TEXT, TEXT) == (_text(evidence), _text(evidence))


def test_a_reading_that_failed_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nobody would know that there was a fault: an answer without usage looks the same."""
    evidence = _whole(json.dumps(ANSWER).encode())
    with monkeypatch.context() as patches:
        patches.setattr(wire, "read_answer", None)
        patches.setattr(wire, "read_usage_like", None)
        for _ in range(2):
            with pytest.raises(TypeError):
                evidence.reading(Operation.CHAT)

    assert TOLD == _reading(evidence).usage


def test_what_is_left_to_the_framework() -> None:
    """It has the prompt, the inputs and the names in one shape for all providers."""
    evidence = _whole(b'{"id": "a-3", "model": "gpt-4o"}')

    assert (None, None, (None, None)) == (evidence.prompt(), evidence.inputs(), evidence.names())


# --- encodings


def _deflated(body: bytes) -> bytes:
    raw = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return raw.compress(body) + raw.flush()


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("encoding", "encoded"),
    [
        ("gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", _deflated),
        ("identity", bytes),
        ("", bytes),
    ],
)
def test_a_stream_is_decoded(encoding: str, encoded: Any, size: int) -> None:
    """The pieces are as they came over the wire; both kinds of deflate are about."""
    evidence = _streamed(SSE, *_pieces(encoded(_sse(CHUNKS)), size), content_encoding=encoding)

    assert (TOLD, TEXT) == (_usage(evidence), _text(evidence))


def test_an_encoded_whole_answer_that_came_in_pieces() -> None:
    """A client may stream what the server did not mean as a stream."""
    evidence = _streamed(
        "application/json", *_pieces(gzip.compress(json.dumps(ANSWER).encode()), 9), content_encoding="gzip"
    )

    assert TOLD == _usage(evidence)


def test_an_encoded_stream_that_was_left() -> None:
    """Without its end a gzip stream gives what had come."""
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    body = packer.compress(_sse(CHUNKS[:2], done=False)) + packer.flush(zlib.Z_SYNC_FLUSH)
    evidence = _streamed(SSE, body, content_encoding="gzip")

    assert TEXT == _text(evidence)
    assert not evidence.is_unreadable


@pytest.mark.parametrize(
    ("encoding", "body"), [("br", b"\x0b\x02\x80"), ("zstd", b"("), ("gzip", b"no"), ("deflate", b"\xff" * 9)]
)
def test_an_encoding_that_is_not_understood(encoding: str, body: bytes) -> None:
    """It is not guessed at, and rules nothing out."""
    evidence = _streamed(SSE, body, content_encoding=encoding)
    evidence.end()

    assert (None, None) == (_usage(evidence), evidence.completion())
    assert not evidence.rules_out_usage()


# --- server-sent events


@pytest.mark.parametrize("size", [1, 5, 10_000])
@pytest.mark.parametrize("prefix", ["data: ", "data:", "event: chunk\nid: 3\ndata: ", ": ping\n\ndata: "])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_server_sent_events(line_end: str, prefix: str, size: int) -> None:
    """Line ends, comments, other fields and a blank after the colon change nothing, nor do the pieces."""
    body = _sse(CHUNKS, line_end=line_end, prefix=prefix.replace("\n", line_end))
    evidence = _streamed(SSE, *_pieces(body, size))

    assert (TOLD, TEXT, []) == (_usage(evidence), _text(evidence), _doubts(evidence))
    assert evidence.rules_out_usage()


@pytest.mark.parametrize("kind", ["text/event-stream; charset=utf-8", "Text/Event-Stream ;charset=UTF-8"])
def test_a_media_type_with_a_charset(kind: str) -> None:
    """Parameters and capitals do not make another kind of it."""
    assert TOLD == _usage(_streamed(kind, _sse(CHUNKS)))


def test_an_event_of_several_data_lines() -> None:
    """A JSON text over several lines is one event."""
    body = "".join(f"data: {line}\n" for line in json.dumps(ANSWER, indent=1).splitlines())
    evidence = _streamed(SSE, body.encode(), b"\n")

    assert (TOLD, []) == (_usage(evidence), _doubts(evidence))


@pytest.mark.parametrize("end", ["", "\n", '\ndata: {"choi'])
def test_events_without_empty_lines_between(end: str) -> None:
    """Some servers leave them out: then each line is an event, also when the last one is cut off."""
    body = _sse(CHUNKS, done=not end).decode().replace("\n\n", "\n").rstrip("\n") + end
    evidence = _streamed(SSE, body.encode())

    assert (TOLD, TEXT, []) == (_usage(evidence), _text(evidence), _doubts(evidence))


def test_a_byte_order_mark_before_the_first_event() -> None:
    """The specification allows one."""
    evidence = _streamed(SSE, b"\xef\xbb\xbf", _sse(CHUNKS))

    assert (TOLD, TEXT) == (_usage(evidence), _text(evidence))


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_stream_cut_inside_its_last_event(cut: int) -> None:
    """What had come whole counts, and the cut is no fault of the answer."""
    usage = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}
    body = _sse([CHUNKS[0], usage], done=False) + b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completi'[:cut]
    evidence = _streamed(SSE, body)

    assert (TOLD, []) == (_usage(evidence), _doubts(evidence))


def test_an_unreadable_event_is_a_doubt_and_the_rest_is_read() -> None:
    """One event that is not JSON costs no other one."""
    body = _sse(CHUNKS[:1], done=False) + b'data: {"usage": {"prompt_tok\n\n' + _sse(CHUNKS[1:])
    evidence = _streamed(SSE, body)

    assert (TOLD, TEXT) == (_usage(evidence), _text(evidence))
    assert [Doubt.UNREADABLE_PART] == _doubts(evidence)
    assert not evidence.rules_out_usage()


def test_only_events_that_may_hold_usage_are_parsed_for_it() -> None:
    """An event without a known name costs a search, whatever is wrong with it; ``null`` is as good as none."""
    body = b'data: {"delta": oops}\n\ndata: {"usage": null, oops}\n\n' + _sse([ANSWER])
    evidence = _streamed(SSE, body)

    assert (TOLD, []) == (_usage(evidence), _doubts(evidence))


def test_an_event_that_is_no_object() -> None:
    """Whatever JSON an event holds, it is passed over."""
    evidence = _streamed(SSE, _sse([3, None, ["usage"], '"usage": ', *CHUNKS]))

    assert (TOLD, TEXT) == (_usage(evidence), _text(evidence))


def test_a_stream_without_usage_rules_it_out() -> None:
    """A host that tells nothing in a stream told nothing, whatever a framework makes up."""
    evidence = _streamed(SSE, _sse(CHUNKS[:2]))

    assert _usage(evidence) is None
    assert evidence.rules_out_usage()


# --- lines of JSON, and arrays


@pytest.mark.parametrize("size", [1, 11, 10_000])
@pytest.mark.parametrize(
    "kind",
    ["application/x-ndjson", "application/jsonl", "application/json", "application/stream+json", "application/ndjson"],
)
def test_lines_of_json(kind: str, size: int) -> None:
    """Ollama streams lines, and not everybody calls them what they are."""
    evidence = _streamed(kind, *_pieces(_lines(OLLAMA), size))

    assert (TOLD, TEXT, []) == (_usage(evidence), _text(evidence), _doubts(evidence))
    assert evidence.has_last_word()


@pytest.mark.parametrize("kind", [LINES, "application/json"])
def test_a_line_that_is_cut_off(kind: str) -> None:
    """The last line may lack its end."""
    evidence = _streamed(kind, _lines(OLLAMA), b'{"eval_count": 5, "prompt_ev')

    assert (TOLD, []) == (_usage(evidence), _doubts(evidence))


@pytest.mark.parametrize("kind", [LINES, "application/json"])
def test_an_unreadable_line_is_a_doubt_and_the_rest_is_read(kind: str) -> None:
    """One line that is not JSON costs no other one."""
    evidence = _streamed(kind, _lines(OLLAMA[:1]), b'{"eval_count": oops}\n', _lines(OLLAMA[1:]))

    assert (TOLD, TEXT) == (_usage(evidence), _text(evidence))
    assert [Doubt.UNREADABLE_PART] == _doubts(evidence)


def test_empty_lines_between_lines_of_json() -> None:
    """A heartbeat is an empty line."""
    evidence = _streamed(LINES, _lines(OLLAMA).replace(b"\n", b"\r\n\r\n"))

    assert (TOLD, TEXT, []) == (_usage(evidence), _text(evidence), _doubts(evidence))


def test_a_stream_of_cohere_v1() -> None:
    """https://docs.cohere.com/v1/docs/streaming: the last line has the answer, with its usage."""
    events = [
        {"is_finished": False, "event_type": "text-generation", "text": "Hi"},
        {
            "is_finished": True,
            "event_type": "stream-end",
            "response": {"text": "Hi", "meta": {"tokens": {"input_tokens": 3, "output_tokens": 4}}},
        },
    ]

    assert TOLD == _usage(_streamed("application/stream+json", _lines(events)))


@pytest.mark.parametrize("size", [1, 10_000])
def test_an_array_of_gemini(size: int) -> None:
    """Without ``alt=sse`` Gemini streams one array, object by object."""
    evidence = _streamed("application/json", *_pieces(_array(GEMINI), size))

    assert (TOLD, TEXT, []) == (_usage(evidence), _text(evidence), _doubts(evidence))
    assert evidence.has_last_word()


def test_an_array_of_gemini_cut_off() -> None:
    """Of an array that broke off, the objects that had come whole are read."""
    body = _array([*GEMINI, GEMINI[0]])
    whole = len(_array(GEMINI)) - 2
    evidences = [_streamed("application/json", body[:end]) for end in range(whole, len(body))]

    assert [(TOLD, [])] * len(evidences) == [(_usage(evidence), _doubts(evidence)) for evidence in evidences]


# --- Amazon's event stream

CONVERSE = [
    frame({"role": "assistant"}, event="messageStart"),
    frame({"contentBlockIndex": 0, "delta": {"text": "Hé"}}, event="contentBlockDelta"),
    frame({"contentBlockIndex": 0, "delta": {"text": " there"}}, event="contentBlockDelta"),
    frame({"contentBlockIndex": 0}, event="contentBlockStop"),
    frame({"contentBlockIndex": 1, "start": {"toolUse": {"toolUseId": "t", "name": "f"}}}, event="contentBlockStart"),
    frame({"contentBlockIndex": 1, "delta": {"toolUse": {"input": '{"a": 1}'}}}, event="contentBlockDelta"),
    frame({"stopReason": "tool_use"}, event="messageStop"),
    frame({"usage": {"inputTokens": 1, "outputTokens": 4, "cacheReadInputTokens": 2}}, event="metadata"),
]
CACHED = Usage(prompt_tokens=3, completion_tokens=4, cache_read_tokens=2)


def _chunk(event: Json) -> bytes:
    return frame({"bytes": base64.b64encode(json.dumps(event).encode()).decode(), "p": "abc"}, event="chunk")


@pytest.fixture
def botocore() -> None:
    """Skip where Amazon's client is not installed: without it nobody reads such a stream."""
    pytest.importorskip("botocore", reason="botocore is not installed")


@pytest.mark.usefixtures("botocore")
@pytest.mark.parametrize("size", [1, 97, 10_000])
def test_a_converse_stream(size: int) -> None:
    """The frames have the text, the call of the tool and, after the end of the message, the usage."""
    evidence = _streamed(FRAMES, *_pieces(b"".join(CONVERSE), size))
    call = {"type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}

    assert CACHED == _usage(evidence)
    assert Completion(text=TEXT, tool_calls=[call]) == evidence.completion()
    assert (True, []) == (evidence.has_last_word(), _doubts(evidence))


@pytest.mark.usefixtures("botocore")
@pytest.mark.parametrize("frames", [1, 3, 6])
def test_a_converse_stream_that_was_left(frames: int) -> None:
    """Before the message ends, nobody has the last word."""
    evidence = _streamed(FRAMES, *CONVERSE[:frames])

    assert (None, False) == (_usage(evidence), evidence.has_last_word())


@pytest.mark.usefixtures("botocore")
def test_an_invoke_stream() -> None:
    """The frames wrap what the model's own API would have said; Bedrock's metrics stand in the last one."""
    metrics = {"inputTokenCount": 1, "outputTokenCount": 4, "cacheReadInputTokenCount": 2}
    frames = [
        _chunk({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": TEXT}}),
        _chunk({"type": "message_stop", "amazon-bedrock-invocationMetrics": metrics}),
    ]
    evidence = _streamed(FRAMES, *frames)

    assert (CACHED, TEXT, True) == (_usage(evidence), _text(evidence), evidence.has_last_word())


@pytest.mark.usefixtures("botocore")
@pytest.mark.parametrize("cut", [1, 11, 12, 50])
def test_a_frame_cut_off(cut: int) -> None:
    """Part of a frame is no fault of the answer."""
    evidence = _streamed(FRAMES, *CONVERSE, CONVERSE[1][:cut])

    assert (CACHED, []) == (_usage(evidence), _doubts(evidence))


@pytest.mark.usefixtures("botocore")
def test_a_spoiled_frame_is_a_doubt() -> None:
    """After a wrong checksum nobody knows where the next frame begins; what came before counts."""
    spoiled = CONVERSE[1][:-1] + b"\x00"
    evidence = _streamed(FRAMES, *CONVERSE, spoiled, CONVERSE[-1])

    assert (CACHED, [Doubt.UNREADABLE_PART]) == (_usage(evidence), _doubts(evidence))


@pytest.mark.usefixtures("botocore")
@pytest.mark.parametrize("bytes_", ["oops!", "e30", base64.b64encode(b"oops").decode()])
def test_a_frame_that_wraps_nonsense_is_a_doubt(bytes_: str) -> None:
    """What is inside a frame may be spoiled while the frame is not; the rest is read."""
    evidence = _streamed(FRAMES, frame({"bytes": bytes_}, event="chunk"), *CONVERSE)

    assert (CACHED, [Doubt.UNREADABLE_PART]) == (_usage(evidence), _doubts(evidence))


@pytest.mark.usefixtures("botocore")
def test_many_frames_are_read_in_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The buffer of botocore copies all it holds for every message, so it never holds much."""
    from botocore import eventstream

    held: list[int] = []
    add_data = eventstream.EventStreamBuffer.add_data

    def spy(buffer: Any, piece: bytes) -> None:
        add_data(buffer, piece)
        held.append(len(buffer._data))

    monkeypatch.setattr(eventstream.EventStreamBuffer, "add_data", spy)
    evidence = _streamed(FRAMES, *CONVERSE[1:2] * 3000, *CONVERSE)

    assert CACHED == _usage(evidence)
    assert max(held) < 2**16


# --- headers


def test_headers_tell_what_the_body_does_not() -> None:
    """Cohere's embeddings on Bedrock tell their tokens in a header alone."""
    evidence = WireEvidence(Operation.EMBEDDING)
    evidence.begin({"content-type": "application/json", "x-amzn-bedrock-input-token-count": "5"})
    evidence.take_whole(b'{"embeddings": [[0.25]]}')
    reading = evidence.reading(Operation.EMBEDDING)

    assert reading is not None
    assert (Usage(embedding_tokens=5), {"x-amzn-bedrock-input-token-count": 5}) == (reading.usage, reading.payload)


def test_headers_do_not_overrule_the_body() -> None:
    """The body is the provider's word, the headers fill in."""
    evidence = WireEvidence(Operation.CHAT)
    evidence.begin({"content-type": "application/json", "x-amzn-bedrock-input-token-count": "50"})
    evidence.take_whole(json.dumps(ANSWER).encode())

    assert TOLD == _usage(evidence)


@pytest.mark.parametrize("value", ["", "-5", "5.5", "five", "9" * 40, "٥", " 5"])
def test_a_header_that_is_no_count(value: str) -> None:
    """What is not digits, or too many of them, is not told."""
    evidence = WireEvidence(Operation.CHAT)
    evidence.begin({"content-type": "application/json", "x-amzn-bedrock-input-token-count": value})
    evidence.take_whole(b"{}")

    assert _usage(evidence) is None
    assert ["x-amzn-bedrock-input-token-count"] == list(evidence.misfits(Operation.CHAT))


def test_no_other_header_is_kept() -> None:
    """A rate limit is no usage, and nothing of it gets into the payload."""
    evidence = WireEvidence(Operation.CHAT)
    evidence.begin({"content-type": "application/json", "x-ratelimit-remaining-tokens": "5"})
    evidence.take_whole(json.dumps(ANSWER).encode())
    reading = _reading(evidence)

    assert reading is not None
    assert ANSWER["usage"] == reading.payload


# --- streams larger than what is held

LONG = [{"choices": [{"index": 0, "delta": {"content": "Hé" * 20}}]} for _ in range(20)]


@pytest.mark.parametrize("size", [1, 33, 500])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_of_a_long_stream_the_usage_is_read_on_the_way(
    monkeypatch: pytest.MonkeyPatch, line_end: str, size: int
) -> None:
    """However long it is, its usage is read, and its text is there."""
    monkeypatch.setattr(wire, "_MOST_HELD", 200)
    body = _sse([CHUNKS[2], *LONG, {"usage": {"prompt_tokens": 3, "completion_tokens": 9}}], line_end=line_end)
    evidence = _streamed(SSE, *_pieces(body, size))

    assert Usage(prompt_tokens=3, completion_tokens=9) == _usage(evidence)
    assert "Hé" * 20 * len(LONG) == _text(evidence)


@pytest.mark.parametrize("kind", [LINES, "application/jsonl"])
def test_of_long_lines_the_usage_is_read_on_the_way(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """The same for lines of JSON."""
    monkeypatch.setattr(wire, "_MOST_HELD", 200)
    evidence = _streamed(kind, *_pieces(_lines([*LONG, OLLAMA[-1]]), 33))

    assert TOLD == _usage(evidence)
    assert "Hé" * 20 * len(LONG) == _text(evidence)


@pytest.mark.parametrize("most", [60, 4 * 2**20])
@pytest.mark.parametrize("size", [1, 33])
def test_who_asks_before_the_end_does_not_spoil_what_is_told_there(
    monkeypatch: pytest.MonkeyPatch, size: int, most: int
) -> None:
    """One counter may close while a stream goes on for another one: in the middle of an event, too."""
    monkeypatch.setattr(wire, "_MOST_HELD", most)
    body = _sse([*LONG, *CHUNKS])
    evidence = _streamed(SSE)
    for piece in _pieces(body, size):
        evidence.take(piece)
        evidence.reading(Operation.CHAT)
        evidence.completion()
    evidence.end()

    asked_once = _streamed(SSE, body)
    asked_once.end()
    assert (TOLD, []) == (_usage(evidence), _doubts(evidence))
    assert asked_once.completion() == evidence.completion()
    assert evidence.rules_out_usage()


def test_a_long_stream_is_held_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read on the way takes little room, and what came is the same however it is held."""
    events = [{"id": "chatcmpl-3", "choices": [{"index": 0, "delta": {"content": f" {n}"}}]} for n in range(500)]
    body = _sse(events, done=False)
    whole = _text(_streamed(SSE, body))
    monkeypatch.setattr(wire, "_MOST_HELD", len(body) // 4)
    evidence = _streamed(SSE, *_pieces(body, 33))

    assert len(body) // 2 > sum(map(len, (*evidence._pieces, *evidence._packed)))
    assert "".join(f" {n}" for n in range(500)) == whole == _text(evidence)


@pytest.mark.parametrize("pieces", [_pieces(gzip.compress(_sse([*LONG, *CHUNKS]), level), 33) for level in (0, 9)])
def test_a_long_encoded_stream_is_kept(monkeypatch: pytest.MonkeyPatch, pieces: list[bytes]) -> None:
    """It cannot be cut between events, so it is kept, packed as it is."""
    monkeypatch.setattr(wire, "_MOST_HELD", 40)
    evidence = _streamed(SSE, *pieces, content_encoding="gzip")

    assert TOLD == _usage(evidence)
    assert evidence.completion() is not None


def test_a_long_array_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """So is one JSON text, which nobody can read before its end."""
    monkeypatch.setattr(wire, "_MOST_HELD", 40)
    evidence = _streamed("application/json", *_pieces(_array(GEMINI), 33))

    assert (TOLD, TEXT) == (_usage(evidence), _text(evidence))


@pytest.mark.parametrize(
    ("kind", "broken", "rest"),
    [
        (SSE, b'data: {"usage": {oops}\n\n', _pieces(_sse([*LONG, CHUNKS[2]]), 33)),
        (LINES, b'{"usage": {' + b"x" * 200 + b"}\n", _pieces(_lines([*LONG, OLLAMA[-1]]), 33)),
    ],
)
def test_an_unreadable_event_on_the_way_is_a_doubt(
    monkeypatch: pytest.MonkeyPatch, kind: str, broken: bytes, rest: list[bytes]
) -> None:
    """It is remembered when its bytes are gone."""
    monkeypatch.setattr(wire, "_MOST_HELD", 200)
    evidence = _streamed(kind, broken, *rest)

    assert (TOLD, [Doubt.UNREADABLE_PART]) == (_usage(evidence), _doubts(evidence))


# --- what came back


def test_the_calls_of_a_streamed_answer() -> None:
    """The calls of tools are put together from their pieces."""
    calls = [
        {"tool_calls": [{"index": 0, "id": "c-3", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]},
    ]
    events = [{"choices": [{"index": 0, "delta": delta}]} for delta in calls]
    call = {"type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}

    assert Completion(text="", tool_calls=[call]) == _streamed(SSE, _sse(events)).completion()


def test_a_stream_without_text_has_nothing_to_count() -> None:
    """Nothing came back, which is not an empty text."""
    for body in (_sse([CHUNKS[2]]), _sse([{"ping": 3}]), b""):
        evidence = _streamed(SSE, body)
        evidence.end()

        assert evidence.completion() is None


ROLE = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
REFUSAL = {"error": {"message": "no", "type": "server_error"}}


@pytest.mark.parametrize(
    ("kind", "body", "has_begun"),
    [
        (SSE, b"", True),
        (SSE, b": keep-alive\n\n", True),
        (SSE, _sse([ROLE], done=False), True),
        (SSE, _sse([{"type": "response.created"}], done=False), True),
        (SSE, _sse([REFUSAL], done=False), False),
        (SSE, _sse([ROLE, REFUSAL], done=False), True),
        (SSE, _sse([{"type": "ping"}, {"type": "error", "error": {"type": "overloaded_error"}}], done=False), False),
        (SSE, _sse([REFUSAL | {"choices": [{"index": 0, "finish_reason": "error"}]}], done=False), False),
        ("application/json", b"", True),
        ("application/json", b'{"choices": [{"mess', True),
        ("application/json", json.dumps(REFUSAL).encode(), False),
        ("text/html", b"<html>", False),
    ],
)
def test_an_answer_that_was_left_before_anything_came_has_begun(kind: str, body: bytes, has_begun: bool) -> None:
    """Its prompt was accepted; that of an error was not, and of what is no answer nobody knows."""
    completion = _streamed(kind, body).completion()

    assert has_begun is (completion is not None)
    assert completion is None or completion.is_empty


@pytest.mark.parametrize("most", [60, 4 * 2**20])
@pytest.mark.parametrize("size", [1, 33, 10_000])
@pytest.mark.parametrize("done", [True, False])
def test_an_error_is_told_however_it_comes(
    monkeypatch: pytest.MonkeyPatch, size: int, most: int, *, done: bool
) -> None:
    """In pieces, in what is packed already, and before the end that vLLM sends after it."""
    monkeypatch.setattr(wire, "_MOST_HELD", most)

    assert _streamed(SSE, *_pieces(_sse([ROLE, REFUSAL], done=done), size)).tells_error()
    assert not _streamed(SSE, *_pieces(_sse([*CHUNKS, {"error": None}], done=done), size)).tells_error()


def test_an_error_that_is_a_part_of_something_else_is_none_of_the_answer() -> None:
    """A tool that failed, say, after which the model goes on."""
    failed_tool = {"type": "response.mcp_call.failed", "error": "timed out"}

    assert not _streamed(SSE, _sse([ROLE, failed_tool, *CHUNKS])).tells_error()


def test_an_error_is_heard_in_what_is_compressed() -> None:
    """Whatever the encoding is."""
    body = gzip.compress(_sse([ROLE, REFUSAL]))

    assert _streamed(SSE, body, content_encoding="gzip").tells_error()


def test_who_asks_for_an_error_changes_no_other_answer() -> None:
    """A broken event is a matter of whoever reads the usage."""
    evidence = _streamed(SSE, b'data: {"error": {oops}\n\n', _sse(CHUNKS))
    before = evidence.rules_out_usage()
    evidence.tells_error()

    assert before is evidence.rules_out_usage()


def test_what_was_refused_has_not_begun() -> None:
    """Whatever its body is."""
    evidence = WireEvidence(Operation.CHAT)
    evidence.begin({"content-type": SSE}, is_accepted=False)

    assert evidence.completion() is None


@pytest.mark.parametrize(
    ("body", "is_last"),
    [
        (_sse(CHUNKS), True),
        (_sse(CHUNKS, done=False), True),
        (_sse(CHUNKS[:2], done=False), True),
        (_sse(CHUNKS[:1], done=False), False),
        (_sse(CHUNKS[:1]), True),
        (b"", False),
        (_sse([{"type": "message_start", "message": {}}], done=False), False),
        (_sse([{"type": "message_delta", "delta": {"stop_reason": "end_turn"}}], done=False), True),
        (_sse([{"type": "message_stop"}], done=False), True),
        (_sse([{"type": "response.completed", "response": {}}], done=False), True),
    ],
)
def test_who_has_the_last_word(body: bytes, *, is_last: bool) -> None:
    """A stream that was left had come to its end if it said so: by a reason, a last event or ``[DONE]``."""
    assert is_last == _streamed(SSE, body).has_last_word()


def test_a_body_that_came_to_its_end_has_the_last_word() -> None:
    """Whatever it said."""
    evidence = _streamed(SSE, _sse(CHUNKS[:1], done=False))
    evidence.end()

    assert evidence.has_last_word()
