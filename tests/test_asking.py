"""Asking for the usage of streams: the provider's figures arrive, and the caller sees nothing of it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from operator import attrgetter
from typing import Any

import litellm
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopback_server import LoopbackServer
from token_callbacks import TokenCounter
from token_callbacks.adapters import httpx as tap
from token_callbacks.asking import Unasked, asking, is_asked
from token_callbacks.records import Provenance
from token_callbacks.sinks.memory import MemorySink

MESSAGES = [{"role": "user", "content": "Name the opening hours of the library."}]


def _litellm(server: LoopbackServer, **options: Any) -> list[Any]:
    return list(
        litellm.completion(
            model="openai/gpt-4o-mini", messages=MESSAGES, stream=True, api_base=server.base_url, api_key="sk-loopback",
            max_retries=0, **options,
        )
    )  # fmt: skip


def _alitellm(server: LoopbackServer, **options: Any) -> list[Any]:
    async def read() -> list[Any]:
        stream = await litellm.acompletion(
            model="openai/gpt-4o-mini", messages=MESSAGES, stream=True, api_base=server.base_url, api_key="sk-loopback",
            max_retries=0, **options,
        )  # fmt: skip
        return [chunk async for chunk in stream]

    return asyncio.run(read())


def _litellm_text(server: LoopbackServer, **options: Any) -> list[Any]:
    return list(
        litellm.text_completion(
            model="text-completion-openai/gpt-3.5-turbo-instruct", prompt="Name it.", stream=True,
            api_base=server.base_url, api_key="sk-loopback", max_retries=0, **options,
        )
    )  # fmt: skip


def _chat() -> list[Any]:
    from llama_index.core.llms import ChatMessage

    return [ChatMessage(role="user", content="Name the opening hours of the library.")]


def _openai(server: LoopbackServer, **options: Any) -> list[Any]:
    from llama_index.llms.openai import OpenAI

    llm = OpenAI(model="gpt-4o-mini", api_base=server.base_url, api_key="sk-loopback", max_retries=0)
    return list(llm.stream_chat(_chat(), **options))


def _openai_async(server: LoopbackServer, **options: Any) -> list[Any]:
    from llama_index.llms.openai import OpenAI

    async def read() -> list[Any]:
        llm = OpenAI(model="gpt-4o-mini", api_base=server.base_url, api_key="sk-loopback", max_retries=0)
        return [chunk async for chunk in await llm.astream_chat(_chat(), **options)]

    return asyncio.run(read())


def _openai_like(server: LoopbackServer, **options: Any) -> list[Any]:
    from llama_index.llms.openai_like import OpenAILike

    llm = OpenAILike(model="local", api_base=server.base_url, api_key="sk-loopback", max_retries=0, is_chat_model=True)
    return list(llm.stream_chat(_chat(), **options))


Stream = Callable[..., list[Any]]
STREAMS: dict[str, Stream] = {"LiteLLM": _litellm, "LiteLLM async": _alitellm, "LiteLLM text": _litellm_text}
if find_spec("llama_index") is not None:  # not there where old releases of LiteLLM are tested
    STREAMS |= {"OpenAI": _openai, "OpenAI async": _openai_async, "OpenAILike": _openai_like}
EACH = pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)


@pytest.fixture(autouse=True)
def _nothing_is_known_of_any_host() -> None:
    tap.uninstall()


@pytest.fixture
def count(loopback: Any, memory: MemorySink) -> Callable[..., Any]:
    """Give what streams once from a server, attached with some options, and returns chunks, records and ledger."""

    def run(stream: Stream, *, stream_usage: str = "asked", asked: Any = "auto", **options: Any) -> Any:
        server = loopback(stream_usage=stream_usage)
        counter = TokenCounter(log_dir=None, sinks=[memory], request_stream_usage=asked)
        with counter.run("asking") as told:
            chunks = stream(server, **options)
        counter.close()
        assert 0 == told.summary.internal_errors
        return chunks, memory.records, server.ledger

    return run


@EACH
def test_a_stream_is_asked_and_reported_without_the_users_doing(count: Any, stream: Stream) -> None:
    """The server is asked once, and what it tells is what the record says."""
    _, [record], [entry] = count(stream)

    assert entry.usage_asked
    assert (entry.prompt_tokens, entry.completion_tokens) == (
        record.usage.prompt_tokens,
        record.usage.completion_tokens,
    )
    assert Provenance.REPORTED is record.provenance.weakest


@EACH
def test_the_caller_sees_the_stream_as_without_us(count: Any, loopback: Any, stream: Stream) -> None:
    """The chunks are the same, one for one and field for field, but for what differs from call to call."""
    without = stream(loopback(stream_usage="asked"))
    chunks, _, [entry] = count(stream)

    assert entry.usage_asked
    assert [_constant(chunk) for chunk in without] == [_constant(chunk) for chunk in chunks]


@EACH
def test_nobody_is_asked_where_the_counter_says_no(count: Any, stream: Stream) -> None:
    """``request_stream_usage=False`` leaves the request as it is; the figures are counted, and marked so."""
    _, [record], [entry] = count(stream, asked=False)

    assert not entry.usage_asked
    assert record.provenance.weakest in (Provenance.COUNTED, Provenance.ESTIMATED)


@EACH
def test_a_host_that_refuses_is_asked_once_and_named_in_one_warning(
    count: Any, loopback: Any, caplog: pytest.LogCaptureFixture, stream: Stream
) -> None:
    """The refused request goes out again as the caller made it, the next ones at once; one warning names the host."""
    server = loopback(stream_usage="refused")
    with caplog.at_level(logging.WARNING, logger="token_callbacks"):
        _, records, ledger = count(lambda server: stream(server) and stream(server), stream_usage="refused")

    assert [(400, True), (200, False), (200, False)] == [(entry.status, entry.usage_asked) for entry in ledger]
    assert 2 == len(records)
    [warning] = [entry.message for entry in caplog.records if entry.name == "token_callbacks"]
    assert warning.startswith(server.url.removeprefix("http://"))


@EACH
def test_a_refusal_for_another_reason_reaches_the_caller(count: Any, loopback: Any, stream: Stream) -> None:
    """Where the request as the caller made it is refused as well, the host is not blamed, and is asked again."""
    loopback(stream_usage="asked").fail_next(status=400, times=2)

    def refused_then_answered(server: LoopbackServer) -> list[Any]:
        with pytest.raises(Exception, match=r"400|loopback fault"):
            stream(server)
        return stream(server)

    _, records, ledger = count(refused_then_answered)

    assert [400, 400, 200] == [entry.status for entry in ledger]
    assert [True, False, True] == [entry.usage_asked for entry in ledger]
    by_start = sorted(records, key=attrgetter("started_at"))  # LiteLLM 1.80 may tell of a failure later
    assert ["failed", "completed"] == [record.outcome.value for record in by_start]


def test_a_caller_who_asks_gets_the_answer(count: Any) -> None:
    """What the caller asked for is his: the chunk with the usage stays in the stream."""
    chunks, [record], [entry] = count(_litellm, stream_options={"include_usage": True})

    assert entry.usage_asked
    assert chunks[-1].usage.completion_tokens == entry.completion_tokens
    assert Provenance.REPORTED is record.provenance.weakest


def test_a_caller_who_declines_is_not_overruled(count: Any) -> None:
    """``include_usage: False`` is the caller's word."""
    _, [record], [entry] = count(_litellm, stream_options={"include_usage": False})

    assert not entry.usage_asked
    assert record.provenance.weakest in (Provenance.COUNTED, Provenance.ESTIMATED)


def test_a_plain_call_is_not_asked(count: Any) -> None:
    """Without a stream the usage is there anyway, and the field would be refused."""
    _, _, [entry] = count(lambda server: [litellm.completion(
        model="openai/gpt-4o-mini", messages=MESSAGES, api_base=server.base_url, api_key="sk-loopback"
    )])  # fmt: skip

    assert not entry.usage_asked


@pytest.mark.parametrize(("host", "expected"), [("api.mistral.ai", False), ("api.openai.com", True), ("ai", True)])
def test_hosts_that_tell_unasked_or_refuse_are_left_alone(host: str, expected: bool) -> None:
    """Known hosts are in a table."""
    assert expected is is_asked(host)


@pytest.mark.parametrize(
    "body",
    [
        b'{"stream": false}',
        b'{"model": "m"}',
        b"[]",
        b"",
        b'{"stream": true',
        b'{"stream": true, "stream_options": null}',
        b'{"stream": true, "stream_options": {"include_obfuscation": false}}',
        b'{"stream": true, "data_sources": []}',
        b'{"stream": "true"}',
    ],
)
def test_a_body_that_cannot_be_asked_stays_as_it_is(body: bytes) -> None:
    """No stream, a word of the caller's own, Azure's data sources, or no request at all."""
    assert asking(body) is None


def test_the_question_is_added_and_the_rest_stays_byte_for_byte() -> None:
    """A body is not written anew."""
    body = b'{"stream":true,  "x": "\\u00e9\xc3\xa9"}\n'

    assert b'{"stream":true,  "x": "\\u00e9\xc3\xa9","stream_options":{"include_usage":true}}' == asking(body)


CHUNKS = [
    '{"choices":[{"index":0,"delta":{"content":"a \\"usage\\":null b"}}],"usage":null}',
    '{"choices":[{"index":0,"delta":{"content":"\\u00e9"}}]}',
    '{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null,"x":1}',
    '{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}',
    '{"choices":[],"prompt_filter_results":[{}]}',
    "[DONE]",
]


@given(st.lists(st.integers(0, 500), max_size=12), st.sampled_from(["\n\n", "\r\n\r\n"]), st.booleans())
def test_however_it_is_cut_only_the_answer_to_the_question_is_taken_out(cuts: list[int], end: str, ends: bool) -> None:
    """Every event but the one that tells the usage arrives, with nothing changed but the nulls that we asked for."""
    events = [f"data: {chunk}{end}" for chunk in CHUNKS]
    body = "".join(events).encode() if ends else "".join(events).removesuffix(end).encode()
    places = sorted({min(cut, len(body)) for cut in cuts} | {0, len(body)})
    unasked = Unasked()
    passed = b"".join(unasked.passed(body[a:b]) for a, b in pairwise(places)) + unasked.rest()

    kept = [event.replace(',"usage":null}', "}").replace(',"usage":null,', ",") for event in events]
    expected = "".join(kept[:3] + kept[4:])
    assert (expected if ends else expected.removesuffix(end)) == passed.decode()


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n", "\r\r"], ids=repr)
def test_events_that_come_one_by_one_go_on_one_by_one(end: str) -> None:
    """What nearly every server sends in one piece reaches the reader in that piece, byte for byte."""
    unasked = Unasked()
    passed = [unasked.passed(f"data: {chunk}{end}".encode()).decode() for chunk in CHUNKS]

    kept = [f"data: {chunk}{end}".replace(',"usage":null}', "}").replace(',"usage":null,', ",") for chunk in CHUNKS]
    assert [*kept[:3], "", *kept[4:]] == passed
    assert b"" == unasked.rest()


def _constant(chunk: Any) -> Any:
    dumped = json.loads(chunk.model_dump_json(exclude_unset=True))
    for part in (dumped, dumped.get("raw") or {}):
        for name in ("id", "created"):
            part.pop(name, None)
    return dumped


def test_an_event_nested_too_deeply_to_be_read_goes_on_as_it_is() -> None:
    """What cannot be told to be the answer is the caller's, and raises nothing here."""
    event = b'data: {"choices": [], "usage": ' + b"[" * 3000 + b"]" * 3000 + b"}\n\n"

    assert event == Unasked().passed(event)
