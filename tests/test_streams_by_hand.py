"""Streams read by hand become records: whatever the items are, and wherever the text is cut."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import httpx
import openai
import pytest
import requests
from httpx_sse import ServerSentEvent, connect_sse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loopback_server import CountedTokens, Reply, ToolCall
from token_callbacks import CallRecord, TokenCounter
from token_callbacks.errors import CounterClosed, InvalidArgument
from token_callbacks.ledger import Seat
from token_callbacks.records import Outcome, Provenance
from token_callbacks.sinks.memory import MemorySink
from token_callbacks.streams import AsyncCountedStream, CountedStream

from .conftest import Loopback

MESSAGES = [{"role": "user", "content": "Say « bonjour » and 你好 by hand."}]
CANARY = "canary-5f1c"


def _body(path: str, **more: Any) -> dict[str, Any]:
    request = {"input": "Say it.", "stream": True} if path == "responses" else {"messages": MESSAGES, "stream": True}
    if path == "completions":
        request = {"prompt": "Say it.", "stream": True}
    if path in ("chat/completions", "completions"):
        request["stream_options"] = {"include_usage": True}
    return {"model": "gpt-4o", **request, **more}


def _httpx_lines(url: str, body: Any) -> Iterator[str]:
    with httpx.stream("POST", url, json=body) as response:
        yield from response.iter_lines()


def _httpx_bytes(size: int | None) -> Callable[[str, Any], Iterator[bytes]]:
    def read(url: str, body: Any) -> Iterator[bytes]:
        with httpx.stream("POST", url, json=body) as response:
            yield from response.iter_bytes(size)

    return read


def _httpx_raw(url: str, body: Any) -> Iterator[bytes]:
    with httpx.stream("POST", url, json=body) as response:
        yield from response.iter_raw()


def _httpx_text(url: str, body: Any) -> Iterator[str]:
    with httpx.stream("POST", url, json=body) as response:
        yield from response.iter_text(5)


def _httpx_sse(url: str, body: Any) -> Iterator[ServerSentEvent]:
    with httpx.Client() as client, connect_sse(client, "POST", url, json=body) as source:
        yield from source.iter_sse()


def _requests_lines(size: int, **options: Any) -> Callable[[str, Any], Iterator[Any]]:
    def read(url: str, body: Any) -> Iterator[Any]:
        with requests.post(url, json=body, stream=True, timeout=30) as response:
            yield from response.iter_lines(chunk_size=size, **options)

    return read


def _requests_lines_with_text(url: str, body: Any) -> Iterator[bytes]:
    return filter(None, _requests_lines(512)(url, body))


def _requests_response(url: str, body: Any) -> Iterable[bytes]:
    return requests.post(url, json=body, stream=True, timeout=30)


def _parsed(url: str, body: Any) -> Iterator[Any]:
    for line in _httpx_lines(url, body):
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))


READERS: dict[str, Callable[[str, Any], Iterable[Any]]] = {
    "httpx iter_lines": _httpx_lines,
    "httpx iter_bytes": _httpx_bytes(None),
    "httpx iter_bytes(1)": _httpx_bytes(1),
    "httpx iter_bytes(7)": _httpx_bytes(7),
    "httpx iter_raw": _httpx_raw,
    "httpx iter_text(5)": _httpx_text,
    "httpx-sse": _httpx_sse,
    "requests iter_lines(1)": _requests_lines(1),
    "requests iter_lines(512)": _requests_lines(512, decode_unicode=True),
    "requests iter_lines, events whole": _requests_lines(512, delimiter=b"\n\n"),
    "requests iter_lines, no empty ones": _requests_lines_with_text,
    "requests.Response": _requests_response,
    "dicts": _parsed,
}
PATHS = ["chat/completions", "completions", "messages", "responses"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_gives_the_providers_figures(
    loopback: Loopback, counter: TokenCounter, memory: MemorySink, reader: str, path: str
) -> None:
    """However a stream is read, the record holds what the server's ledger holds."""
    server = loopback()
    for _ in counter.stream(READERS[reader](f"{server.base_url}/{path}", _body(path)), model="gpt-4o"):
        pass

    [entry], [record] = server.ledger, memory.records
    assert (entry.prompt_tokens, entry.completion_tokens) == _figures(record)
    assert (entry.response_id, "gpt-4o") == (record.response_id, record.response_model)
    assert (Outcome.COMPLETED, Provenance.REPORTED) == (record.outcome, record.provenance.weakest)
    assert ("stream", True) == (record.framework, record.streamed)
    assert record.time_to_first_token_seconds is not None


@pytest.mark.parametrize("path", ["chat/completions", "completions", "messages", "responses"])
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_gives_the_same_text_to_count(
    loopback: Loopback, counter: TokenCounter, memory: MemorySink, reader: str, path: str
) -> None:
    """Where the stream tells no usage, it is counted from the text, which every way of reading shows whole."""
    server = loopback(tokens=TOKENS, stream_usage="never")
    stream = counter.stream(
        READERS[reader](f"{server.base_url}/{path}", _body(path)),
        model="gpt-4o",
        messages="Say it." if path in ("completions", "responses") else MESSAGES,
        operation={"completions": "completion", "responses": "responses"}.get(path, "chat"),
    )
    for _ in stream:
        pass

    [entry], [record] = server.ledger, memory.records
    ends = 1 if path == "responses" else 0  # the real Responses API counts the token that ends an answer, this one not
    assert (entry.prompt_tokens, entry.completion_tokens + ends) == _figures(record)
    assert Provenance.COUNTED is record.provenance.completion
    assert Outcome.COMPLETED is record.outcome


def test_the_async_lines_of_httpx(loopback: Loopback, counter: TokenCounter, memory: MemorySink) -> None:
    """``async for`` works as ``for`` does, and only that is offered for an async stream."""
    server = loopback()

    async def read() -> list[Any]:
        async with (
            httpx.AsyncClient() as client,
            client.stream("POST", f"{server.base_url}/chat/completions", json=_body("chat/completions")) as response,
        ):
            stream = counter.stream(response.aiter_lines())

            assert (False, True) == (isinstance(stream, CountedStream), isinstance(stream, AsyncCountedStream))
            return [line async for line in stream]

    lines = asyncio.run(read())

    [entry], [record] = server.ledger, memory.records
    assert "data: [DONE]" in lines
    assert (entry.prompt_tokens, entry.completion_tokens) == _figures(record)
    assert "gpt-4o" == record.model


@pytest.mark.parametrize("path", ["chat/completions", "responses"])
def test_chunks_of_the_openai_sdk(loopback: Loopback, counter: TokenCounter, memory: MemorySink, path: str) -> None:
    """The SDK's own objects are read as their JSON is; the very same objects go on."""
    server = loopback()
    with openai.OpenAI(base_url=server.base_url) as client:
        chunks = list(_asked(client, path))
        handed_on = list(counter.stream(iter(chunks)))

    [entry], [record] = server.ledger, memory.records
    assert all(mine is theirs for mine, theirs in zip(chunks, handed_on, strict=True))
    assert (entry.prompt_tokens, entry.completion_tokens) == _figures(record)
    assert Provenance.REPORTED is record.provenance.weakest


def test_an_async_stream_of_the_openai_sdk(loopback: Loopback, counter: TokenCounter, memory: MemorySink) -> None:
    """Left half-way, the SDK's stream is closed by ours, and what arrived is counted."""
    server = loopback(tokens=TOKENS)

    async def read() -> Any:
        async with openai.AsyncOpenAI(base_url=server.base_url) as client:
            chunks = await _asked(client, "chat/completions")
            async with counter.stream(chunks, model="gpt-4o", messages=MESSAGES) as stream:
                async for _ in stream:
                    if (yield_count := len(pieces)) == 3:
                        break
                    pieces.append(yield_count)
            return chunks

    pieces: list[int] = []
    chunks = asyncio.run(read())

    [entry], [record] = server.ledger, memory.records
    assert chunks.response.is_closed
    assert Outcome.ABANDONED is record.outcome
    assert (entry.prompt_tokens, Provenance.PARTIAL) == (record.usage.prompt_tokens, record.provenance.completion)
    assert 0 < (record.usage.completion_tokens or 0) < entry.completion_tokens


def test_tool_calls_are_counted(loopback: Loopback, counter: TokenCounter, memory: MemorySink) -> None:
    """Names and arguments of the tools called are part of what came back, in every manner of streaming them."""
    server = loopback(replies=_two_calls, stream_usage="never")
    counted = []
    for path in ("chat/completions", "messages", "responses"):
        for _ in counter.stream(_httpx_lines(f"{server.base_url}/{path}", _body(path)), model="gpt-4o"):
            pass
        counted.append(memory.records[-1].usage.completion_tokens)

    assert 1 == len(set(counted))
    assert 10 < (counted[0] or 0)


# --- wherever the text is cut


EVENTS: list[Any] = [
    {"id": "r-3", "model": "qwen3", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
    {"choices": [{"index": 0, "delta": {"content": "Bonjour « 你好 » 🎈 data: {x} "}}]},
    {"choices": [{"index": 1, "delta": {"content": "\u2028 second\x85 choice"}}]},
    {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": '{"a'}}]}}]},
    {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": '":1}'}}]}}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}},
]


def _wire(line_end: str, *, usage: bool, noise: bool) -> bytes:
    lines: list[str] = []
    for event in EVENTS if usage else EVENTS[:-1]:
        lines += [": keep-alive", "", "event: message", "id: 7", "retry: 3"] if noise else []
        lines += [f"data: {json.dumps(event, ensure_ascii=False)}", ""]
    return line_end.join([*lines, "data: [DONE]", "", ""]).encode()


@st.composite
def _cut(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """Draw a stream, and the same one cut into pieces."""
    wire = _wire(draw(st.sampled_from(["\n", "\r\n", "\r"])), usage=draw(st.booleans()), noise=draw(st.booleans()))
    cuts = sorted(draw(st.sets(st.integers(1, len(wire) - 1), max_size=40)))
    return wire, [wire[start:end] for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True)]


@given(_cut())
@settings(deadline=None, max_examples=200)
def test_any_cut_of_the_bytes_gives_the_same_record(cut: tuple[bytes, list[bytes]]) -> None:
    """Inside a character, between CR and LF, in the middle of a name: the record does not depend on it."""
    wire, pieces = cut

    assert _told(_read([wire])) == _told(_read(pieces))


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_smallest_pieces(line_end: str, size: int) -> None:
    """Byte by byte, too, with every noise that the format allows."""
    wire = _wire(line_end, usage=False, noise=True)
    pieces = [wire[at : at + size] for at in range(0, len(wire), size)]

    assert _told(_read([wire])) == _told(_read(pieces))


@pytest.mark.parametrize("noise", [True, False])
@pytest.mark.parametrize("keep_empty", [True, False])
@pytest.mark.parametrize("usage", [True, False])
def test_lines_without_their_ends(*, noise: bool, keep_empty: bool, usage: bool) -> None:
    """Lines say the same as the bytes, with the empty ones or without."""
    wire = _wire("\n", usage=usage, noise=noise)
    lines = [line for line in wire.split(b"\n") if line or keep_empty]

    assert _told(_read([wire])) == _told(_read(lines))
    assert _told(_read([wire])) == _told(_read([line.decode() for line in lines]))


def test_lines_cut_at_every_unicode_line_break() -> None:
    """``iter_lines()`` of httpx also cuts at U+2028 and the like, inside the JSON: the parts are one line again."""
    wire = _wire("\n", usage=True, noise=True)
    told = _told(_read([line for line in wire.decode().splitlines() if line]))

    assert (3, 4) == told[:2]


def test_a_first_line_in_single_bytes() -> None:
    """Before the first line break, too, a part of a character is no line of its own."""
    wire = f"data: {json.dumps(EVENTS[1] | EVENTS[6] | {'model': '你好'}, ensure_ascii=False)}".encode()
    record = _read([wire[at : at + 1] for at in range(len(wire))])

    assert (3, 4, "你好") == (*_figures(record), record.response_model)


def test_single_characters_cost_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that might end with every one of its characters is not parsed at every one of them."""
    parsed: list[int] = []
    monkeypatch.setattr("token_callbacks.framing._parsed", lambda data: parsed.append(len(data)))
    line = "data: {" + "}" * 1000
    _read(list(line))

    assert sum(parsed) < 4 * len(line)


def test_an_event_of_several_data_lines() -> None:
    """JSON spread over several data lines is one event."""
    pretty = json.dumps(EVENTS[-1], indent=1)
    lines = [*(f"data: {line}" for line in pretty.splitlines()), "", "data: [DONE]", ""]

    assert (3, 4) == _told(_read(lines))[:2]
    assert (3, 4) == _told(_read(["\n".join(lines)]))[:2]


def test_a_broken_line_costs_no_other_one() -> None:
    """A line of JSON that breaks off is left out, and the next one read."""
    good = f"data: {json.dumps(EVENTS[-1])}"
    bad = ['data: {"choices": [{', "", "data: nothing", "data", "nothing"]

    assert (3, 4) == _told(_read([*bad, good]))[:2]
    assert (3, 4) == _told(_read(["\n".join([*bad, "", good, "", ""])]))[:2]


def test_the_last_event_may_lack_its_end() -> None:
    """A stream that ends without the last line break has still told what it told."""
    assert (3, 4) == _told(_read([f"data: {json.dumps(EVENTS[0])}\n\ndata: {json.dumps(EVENTS[-1])}"]))[:2]


def test_not_a_number_and_half_a_character() -> None:
    """What Python's JSON allows and the standard does not is read all the same."""
    line = 'data: {"choices": [{"delta": {"content": "\\ud83c"}, "logprobs": [NaN, -Infinity]}], "usage": '
    usage = '{"prompt_tokens": 3, "completion_tokens": 4}}'

    assert (3, 4) == _told(_read([line + usage]))[:2]


def test_a_broken_usage_is_a_fault_of_its_run(counter: TokenCounter, memory: MemorySink) -> None:
    """What a stream tells and is no count is noted, and the rest of it is read."""
    line = 'data: {"choices": [{"delta": {"content": "Hi"}}], "usage": {"prompt_tokens": 3, "completion_tokens": "4"}}'

    assert [line] == list(counter.stream([line]))
    assert (1, 3) == (counter.default_run.summary.internal_errors, memory.records[0].usage.prompt_tokens)


def test_a_line_without_end_is_given_up(counter: TokenCounter, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that never breaks its lines is not kept in memory, and passes unharmed."""
    monkeypatch.setattr("token_callbacks.framing._LONGEST_LINE", 10)
    items = ["x" * 6, "x" * 6, "x" * 6]

    assert items == list(counter.stream(items))
    assert 1 == counter.default_run.summary.internal_errors


def test_the_decoders_of_httpx_sse() -> None:
    """These two classes have no public name; this is all that is used of them."""
    from httpx_sse._decoders import SSEDecoder, SSELineDecoder

    lines, events = SSELineDecoder(), SSEDecoder()

    assert [] == lines.decode("data: a\r")
    assert ["data: a", ""] == lines.decode("\n\r\nda")
    assert None is events.decode("data: a")
    assert "a" == getattr(events.decode(""), "data", None)


# --- anything at all


_NAMES = [
    "choices",
    "delta",
    "content",
    "tool_calls",
    "function",
    "index",
    "message",
    "output",
    "text",
    "type",
    "usage",
]
_NAMES += ["candidates", "parts", "response", "error", "code", "item", "done", "name", "arguments", "finish_reason"]
_NAMES += ["id", "model", "prompt_tokens", "completion_tokens"]
_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(_NAMES) | st.text(max_size=3),
            inner,
            max_size=5,
        )
        | st.dictionaries(
            st.just("type"), st.sampled_from(["message_start", "content_block_delta", "response.output_text.delta"])
        )
    ),
    max_leaves=15,
)


@given(st.lists(_JSON | st.binary(max_size=20) | st.text(max_size=20)))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_anything_passes_unchanged(items: list[Any]) -> None:
    """Whatever the items are, they go on as they are, and there is one record and no fault of ours."""
    counter, memory = _fresh()
    with closing(counter):
        handed_on = list(counter.stream(items))

        assert all(mine is theirs for mine, theirs in zip(items, handed_on, strict=True))
        assert 1 == len(memory.records)
        assert 0 == counter.faults_of_ours


@given(st.lists(_JSON))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_json_in_a_stream_passes(events: list[Any]) -> None:
    """The same as lines of SSE and of JSON."""
    for prefix in ("data: ", ""):
        record = _read([f"{prefix}{json.dumps(event)}" for event in events])

        assert record.outcome in (Outcome.COMPLETED, Outcome.FAILED)


def test_usage_told_twice_and_odd_figures() -> None:
    """The last sensible word counts; giants and nonsense are as good as not told."""
    told = [
        {"usage": {"prompt_tokens": 3, "completion_tokens": 4}},
        {"usage": {"prompt_tokens": 3, "completion_tokens": 5}},
    ]
    odd = [{"usage": {"prompt_tokens": 10**30, "completion_tokens": -1}}, {"usage": "many"}, {"usage": [3]}]

    assert (3, 5) == _told(_read([*told, *odd]))[:2]


# --- dialects without a server here


def test_ollama() -> None:
    """Lines of JSON without ``data:``, the figures in the last one, which also ends the call."""
    lines = [
        {"model": "llama3", "message": {"role": "assistant", "content": "Hi"}, "done": False},
        {"model": "llama3", "message": {"content": " there"}, "done": False},
    ]
    last = {"model": "llama3", "message": {"content": ""}, "done": True, "prompt_eval_count": 3, "eval_count": 4}
    record = _read([json.dumps(line).encode() for line in [*lines, last]])

    assert (3, 4) == _figures(record)
    assert _same_text("Hi there") == _completion_tokens(lines)


def test_llama_cpp() -> None:
    """The native endpoint of llama.cpp says ``content`` at the top."""
    events = [{"content": "Hi", "stop": False}, {"content": " there", "stop": False}]

    assert _same_text("Hi there") == _completion_tokens(events)


def test_gemini() -> None:
    """Candidates with parts, thoughts and function calls among them."""
    events = [
        {"candidates": [{"content": {"parts": [{"text": "Hi"}, {"text": " there"}]}}], "responseId": "g-3"},
        {"candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "args": {"a": 1}}}]}}]},
    ]
    usage = {"candidates": [], "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 4}}

    assert _same_text("Hi there") < _completion_tokens(events)
    assert (3, 4) == _figures(_read([*events, usage]))


FULL = ["Qwen", "Qwen says", "Qwen says hello.", "Qwen says hello."]
BITS = ["Qwen", " says", " hello.", ""]


@pytest.mark.parametrize("texts", [FULL, BITS], ids=["full", "incremental"])
@pytest.mark.parametrize("shape", ["text", "message"])
def test_dashscope_as_json(texts: list[str], shape: str) -> None:
    """DashScope sends all of the text so far each time, or what is new: both are the same text."""
    events = [{"output": _dashscope_output(text, shape)} for text in texts]

    assert _same_text("Qwen says hello.") == _completion_tokens(events)


@pytest.mark.parametrize("texts", [FULL, BITS], ids=["full", "incremental"])
def test_responses_of_the_dashscope_sdk(texts: list[str]) -> None:
    """The SDK's objects are mappings with attributes of their own."""
    responses = pytest.importorskip(
        "dashscope.api_entities.dashscope_response", reason="the DashScope SDK is not installed"
    )
    chunks = [
        responses.GenerationResponse(
            status_code=200,
            request_id="d-3",
            output=responses.GenerationOutput(**_dashscope_output(text, "message")),
            usage=responses.GenerationUsage(input_tokens=3, output_tokens=number, total_tokens=3 + number),
        )
        for number, text in enumerate(texts, start=1)
    ]
    record = _read(chunks)
    left = _left_after(chunks, 3)

    assert (3, 4, "d-3") == (*_figures(record), record.response_id)
    assert (Outcome.ABANDONED, Provenance.PARTIAL) == (left.outcome, left.provenance.completion)
    assert max(3, _same_text("Qwen says hello.")) == left.usage.completion_tokens


def test_a_refusal_of_dashscope_is_a_failure() -> None:
    """Its SDK yields an error as an item; nothing was used then."""
    refusal = {"status_code": 400, "code": "InvalidParameter", "message": "no", "output": None, "usage": None}

    assert Outcome.FAILED is _read([refusal]).outcome


# --- how streams end


def test_break_at_done_is_completed(counter: TokenCounter, memory: MemorySink) -> None:
    """Nobody reads on after ``[DONE]``: the record is there before the caller has it."""
    stream = counter.stream(line.decode() for line in _wire("\n", usage=True, noise=False).split(b"\n"))
    for line in stream:
        if line == "data: [DONE]":
            break

    [record] = memory.records
    assert (Outcome.COMPLETED, Provenance.REPORTED) == (record.outcome, record.provenance.weakest)


def test_left_after_the_finish_reason(counter: TokenCounter, memory: MemorySink) -> None:
    """The answer was whole, only the usage was not read: that is counted, and nothing was abandoned."""
    with counter.stream(EVENTS[:2] + EVENTS[5:], model="gpt-4o", messages=MESSAGES) as stream:
        for event in stream:
            if event["choices"][0].get("finish_reason"):
                break

    [record] = memory.records
    assert (Outcome.COMPLETED, Provenance.COUNTED) == (record.outcome, record.provenance.completion)


@pytest.mark.parametrize("how", ["dropped", "closed", "counter closed"])
def test_left_half_way(counter: TokenCounter, memory: MemorySink, how: str) -> None:
    """A stream that is left is abandoned, and its text so far a lower bound."""
    stream = counter.stream(iter(EVENTS), model="gpt-4o", messages=MESSAGES)
    next(stream), next(stream)
    if how == "dropped":
        del stream
        gc.collect()
        for _ in counter.stream([]):  # the next call closes what was dropped
            pass
    elif how == "closed":
        stream.close()
        stream.close()
    else:
        counter.close()
        assert EVENTS[2] == next(stream)

    record = memory.records[0]
    assert (Outcome.ABANDONED, Provenance.PARTIAL) == (record.outcome, record.provenance.completion)
    assert 0 < (record.usage.completion_tokens or 0)
    assert Provenance.COUNTED is record.provenance.prompt


def test_close_goes_through_to_the_stream(counter: TokenCounter) -> None:
    """Closing ours closes what is underneath, once per way to it; and its exceptions pass."""
    closed: list[str] = []

    class Source:
        def __iter__(self) -> Iterator[int]:
            try:
                yield 3
                yield 4
            finally:
                closed.append("iterator")

        def close(self) -> None:
            closed.append("source")
            raise OSError("gone")

    stream = counter.stream(Source())
    next(stream)
    with pytest.raises(OSError, match="gone"):
        stream.close()

    assert ["iterator", "source"] == closed


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(RuntimeError("x"), Outcome.FAILED), (KeyboardInterrupt(), Outcome.CANCELLED), (SystemExit(3), Outcome.CANCELLED)],
)
def test_exceptions_pass_through(
    counter: TokenCounter, memory: MemorySink, error: BaseException, outcome: Outcome
) -> None:
    """What the stream raises is what the caller gets, the very object, and the record says so."""

    def broken() -> Iterator[Any]:
        yield from EVENTS[:2]
        raise error

    with pytest.raises(type(error)) as caught:
        list(counter.stream(broken(), model="gpt-4o"))

    [record] = memory.records
    assert error is caught.value
    assert (outcome, type(error).__name__) == (record.outcome, record.error)
    assert Provenance.PARTIAL is record.provenance.completion


def test_a_cut_connection(loopback: Loopback, counter: TokenCounter, memory: MemorySink) -> None:
    """A read raises where the server cuts the stream; the placeholder that Anthropic sends first is not believed."""
    server = loopback()
    server.fail_next(cut_after=9)
    with pytest.raises(httpx.RemoteProtocolError):
        list(counter.stream(_httpx_lines(f"{server.base_url}/messages", _body("messages"))))

    [record] = memory.records
    assert Outcome.FAILED is record.outcome
    assert server.ledger[0].prompt_tokens == record.usage.prompt_tokens
    assert 1 < (record.usage.completion_tokens or 0)


@pytest.mark.parametrize("path", ["messages", "responses"])
def test_a_message_without_its_end(loopback: Loopback, counter: TokenCounter, memory: MemorySink, path: str) -> None:
    """Where the format has an end, a stream that stops without it is not completed, though nothing raises."""
    server = loopback()
    events = list(_parsed(f"{server.base_url}/{path}", _body(path)))
    list(counter.stream(events[:9]))

    assert Outcome.FAILED is memory.records[0].outcome


@pytest.mark.parametrize("path", PATHS)
def test_an_error_inside_the_stream(loopback: Loopback, counter: TokenCounter, memory: MemorySink, path: str) -> None:
    """An error that the stream tells instead of raising is a failure all the same."""
    server = loopback()
    server.fail_next(error_after=5)
    list(counter.stream(_httpx_lines(f"{server.base_url}/{path}", _body(path))))

    assert Outcome.FAILED is memory.records[0].outcome


def test_cancellation(counter: TokenCounter, memory: MemorySink) -> None:
    """A task cancelled while it waits for the next chunk leaves a cancelled call."""

    async def chunks() -> AsyncIterator[Any]:
        yield EVENTS[1]
        waiting.set()
        await asyncio.Event().wait()

    async def read() -> None:
        async for _ in counter.stream(chunks(), model="gpt-4o"):
            pass

    async def main() -> None:
        task = asyncio.create_task(read())
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    waiting = asyncio.Event()
    asyncio.run(main())

    [record] = memory.records
    assert (Outcome.CANCELLED, Provenance.PARTIAL) == (record.outcome, record.provenance.completion)


def test_cancelled_between_two_chunks(counter: TokenCounter, memory: MemorySink) -> None:
    """In an ``async with``, a cancellation that strikes the reader itself counts as one, too."""

    async def chunks() -> AsyncIterator[Any]:
        yield EVENTS[1]

    async def main() -> None:
        async with counter.stream(chunks(), model="gpt-4o") as stream:
            await anext(stream)
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())

    assert Outcome.CANCELLED is memory.records[0].outcome


def _untouched() -> Iterator[Any]:
    yield from EVENTS


def _given_a_response(response: httpx.Response) -> Iterator[Any]:
    for line in response.iter_lines():
        yield json.loads(line)


RESPONSE = httpx.Response(200, text="{}\n{}")


@pytest.mark.parametrize(
    ("chunks", "outcome"),
    [
        (_untouched, Outcome.NOT_STARTED),
        (lambda: (event for event in _untouched()), Outcome.NOT_STARTED),
        (RESPONSE.iter_lines, Outcome.ABANDONED),
        (lambda: (line for line in RESPONSE.iter_lines()), Outcome.ABANDONED),
        (lambda: _given_a_response(RESPONSE), Outcome.ABANDONED),
        (lambda: iter(EVENTS), Outcome.ABANDONED),
    ],
    ids=["generator", "generator expression", "iter_lines", "over iter_lines", "over a response", "iterator"],
)
def test_never_read(
    counter: TokenCounter, memory: MemorySink, chunks: Callable[[], Iterable[Any]], outcome: Outcome
) -> None:
    """A request that is sent was paid for; only where it surely is not, nothing was started."""
    counter.stream(chunks()).close()

    assert [outcome] == [record.outcome for record in memory.records]


# --- runs


def test_the_run_is_that_of_the_opening(counter: TokenCounter, memory: MemorySink) -> None:
    """A stream belongs to the run and step in which it was asked for, wherever it is read."""
    with counter.run("first") as first, first.step("ask"):
        mine = counter.stream(EVENTS)
    with counter.run("second") as second:
        list(counter.stream(EVENTS))
        list(mine)
        with counter.run("inner") as inner:
            list(counter.stream(EVENTS))

    assert [1, 1, 1] == [run.summary.calls.llm for run in (first, second, inner)]
    assert [None, "ask", None] == [record.step for record in memory.records]
    assert 14 == second.summary.including_nested.total_llm_tokens


def test_only_the_counter_that_was_asked(counter: TokenCounter, memory: MemorySink) -> None:
    """Another counter of the process is not told of it."""
    other, others_memory = _fresh()
    with closing(other):
        list(counter.stream(EVENTS))

    assert ([], 1) == (others_memory.records, len(memory.records))


def test_inside_a_llama_index_llm(counter: TokenCounter, memory: MemorySink) -> None:
    """A LlamaIndex LLM of the user's own that reads its server by hand makes one request, and one record."""
    _by_hand(lambda: counter.stream(EVENTS)).complete("Hello")

    [record] = memory.records
    assert ("stream", (3, 4)) == (record.framework, _figures(record))


@pytest.mark.parametrize("reader", ["httpx iter_lines", "requests iter_lines(512)"])
def test_over_http_inside_a_llama_index_llm(
    loopback: Loopback, counter: TokenCounter, memory: MemorySink, reader: str
) -> None:
    """Where the wire is tapped as well, it is still one record, and the figures are those of the server."""
    server = loopback()
    url = f"{server.base_url}/chat/completions"
    _by_hand(lambda: counter.stream(READERS[reader](url, _body("chat/completions")))).complete("Hello")

    [entry], [record] = server.ledger, memory.records
    assert (entry.prompt_tokens, entry.completion_tokens) == _figures(record)
    assert 0 == counter.default_run.summary.internal_errors


def test_litellms_chunks_are_counted_already(loopback: Loopback, counter: TokenCounter, memory: MemorySink) -> None:
    """A stream of a framework that the counter hooks keeps its one record."""
    import litellm

    server = loopback()
    options: dict[str, Any] = {"stream_options": {"include_usage": True}, "api_base": server.base_url}
    with counter.run("once"):
        chunks = litellm.completion(model="openai/gpt-4o", messages=MESSAGES, stream=True, **options)
        assert list(counter.stream(chunks))

    assert ["litellm"] == [record.framework for record in memory.records]


# --- wrong use


@pytest.mark.parametrize(
    ("chunks", "options", "message"),
    [
        (None, {}, "not NoneType"),
        ("data: x", {}, r"\[body\]"),
        ({"a": 3}, {}, "not dict"),
        (RESPONSE, {}, "iter_lines"),
        ([], {"model": 3}, "model is a non-empty string"),
        ([], {"provider": ""}, "provider is a non-empty string"),
        ([], {"operation": "embedding"}, "'chat', 'completion', 'responses'"),
        ([], {"operation": []}, "operation is one of"),
        ([], {"messages": [CANARY]}, "not a list with str"),
        ([], {"messages": 3}, "not int"),
        ([], {"tools": CANARY}, "tools are a list"),
    ],
)
def test_wrong_arguments(
    counter: TokenCounter, memory: MemorySink, chunks: Any, options: dict[str, Any], message: str
) -> None:
    """What cannot be used is our own error, which says what can, and never quotes a prompt."""
    with pytest.raises(InvalidArgument, match=message) as caught:
        counter.stream(chunks, **options)

    assert CANARY not in str(caught.value)
    assert [] == memory.records


def test_a_coroutine_is_not_awaited(counter: TokenCounter) -> None:
    """A forgotten ``await`` is told as such."""

    async def ask() -> None:
        raise AssertionError

    with pytest.raises(InvalidArgument, match="await it"):
        counter.stream(ask())  # type: ignore[call-overload]


def test_after_close(counter: TokenCounter) -> None:
    """A closed counter opens no stream."""
    counter.close()
    with pytest.raises(CounterClosed):
        counter.stream([])


def test_no_text_in_a_file(counter: TokenCounter, log_dir: Any) -> None:
    """Neither the prompt nor the answer is written anywhere."""
    events = [{"choices": [{"delta": {"content": CANARY, "reasoning": CANARY}}]}, {"error": CANARY, "content": CANARY}]
    list(counter.stream(events, messages=CANARY, tools=[{"name": CANARY}]))
    counter.close()
    files = [path for path in log_dir.rglob("*") if path.is_file()]

    assert files
    assert all(CANARY not in path.read_text() for path in files)


TOKENS = CountedTokens()


def _by_hand(ask: Callable[[], Iterable[Any]]) -> Any:
    """Make a LlamaIndex LLM of one's own, as the documentation tells to."""
    from llama_index.core.llms import CompletionResponse, CompletionResponseGen, CustomLLM, LLMMetadata
    from llama_index.core.llms.callbacks import llm_completion_callback

    class ByHand(CustomLLM):
        @property
        def metadata(self) -> LLMMetadata:
            return LLMMetadata(model_name="by-hand")

        @llm_completion_callback()
        def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
            return CompletionResponse(text=f"{len(list(ask()))} items")

        @llm_completion_callback()
        def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
            raise NotImplementedError

    return ByHand()


def _two_calls(body: Any) -> Reply:
    return Reply(calls=(ToolCall(name="find", arguments={"q": "x"}), ToolCall(name="open", arguments={"n": 3})))


def _asked(client: Any, path: str) -> Any:
    if path == "responses":
        return client.responses.create(model="gpt-4o", input="Say it.", stream=True)
    options = {"stream": True, "stream_options": {"include_usage": True}}
    return client.chat.completions.create(model="gpt-4o", messages=MESSAGES, **options)


class _Counter(TokenCounter):
    """Tells faults of ours from usage that a stream brought broken, which is one of its call."""

    faults_of_ours = 0

    def note_internal_error(self, seat: Seat | None = None) -> None:
        self.faults_of_ours += seat is None
        super().note_internal_error(seat)


def _fresh() -> tuple[_Counter, MemorySink]:
    memory = MemorySink()
    return _Counter(log_dir=None, sinks=[memory]), memory


@contextmanager
def _counting() -> Iterator[tuple[TokenCounter, MemorySink]]:
    counter, memory = _fresh()
    with closing(counter):
        yield counter, memory
        assert 0 == counter.faults_of_ours


def _read(items: Iterable[Any]) -> CallRecord:
    """Read a stream to its end, without saying anything of the request."""
    with _counting() as (counter, memory):
        list(counter.stream(items, model="gpt-4o"))
    [record] = memory.records
    return record


def _left_after(items: Iterable[Any], count: int) -> CallRecord:
    with _counting() as (counter, memory), counter.stream(items, model="gpt-4o") as stream:
        for _ in range(count):
            next(stream)
    [record] = memory.records
    return record


def _figures(record: CallRecord) -> tuple[int | None, int | None]:
    return record.usage.prompt_tokens, record.usage.completion_tokens


def _told(record: CallRecord) -> tuple[Any, ...]:
    return (*_figures(record), record.provenance, record.outcome, record.response_id, record.response_model)


def _completion_tokens(events: list[Any]) -> int:
    return _read(events).usage.completion_tokens or 0


def _same_text(text: str) -> int:
    return _completion_tokens([{"choices": [{"delta": {"content": text}}]}])


def _dashscope_output(text: str, shape: str) -> dict[str, Any]:
    if shape == "text":
        return {"text": text, "finish_reason": "null"}
    return {"choices": [{"finish_reason": "null", "message": {"role": "assistant", "content": text}}]}
