"""The loopback server is the truth of the other tests, so it has to be true to the official clients itself."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import httpx
import jsonschema  # type: ignore[import-untyped]
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseFunctionToolCall
from tiktoken.registry import ENCODINGS

from loopback_server import (
    CANNED,
    CountedTokens,
    InventedTokens,
    LedgerEntry,
    LoopbackServer,
    Reply,
    ToolCall,
    example_of,
    pieces_of,
)

WIRE = httpx.Client(timeout=30)
HELLO: list[Any] = [{"role": "user", "content": "When does the library open?"}]
SCHEMA = {
    "type": "object",
    "properties": {
        "day": {"$ref": "#/$defs/Day"},
        "floor": {"type": "integer", "minimum": 3},
        "quiet": {"type": "boolean"},
        "shelves": {"type": "array", "items": {"type": "string"}, "minItems": 2},
        "weight": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        "unasked": {"type": "string"},
    },
    "required": ["day", "floor", "quiet", "shelves", "weight"],
    "additionalProperties": False,
    "$defs": {"Day": {"enum": ["Monday", "Tuesday"]}},
}
TOOL: Any = {"type": "function", "function": {"name": "opening_hours", "parameters": SCHEMA}}
CLAUDE_TOOL: Any = {"name": "opening_hours", "input_schema": SCHEMA}
RESPONSES_TOOL: Any = {"type": "function", "name": "opening_hours", "parameters": SCHEMA, "strict": False}


@pytest.fixture(scope="module")
def running() -> Iterator[LoopbackServer]:
    """Run one server with detailed figures for all tests that need nothing special."""
    with LoopbackServer(tokens=InventedTokens(details=True)) as server:
        yield server


@pytest.fixture
def server(running: LoopbackServer) -> LoopbackServer:
    """Give the running server, its ledger empty."""
    running.clear()
    return running


@pytest.fixture(scope="module")
def counting() -> Iterator[LoopbackServer]:
    """Run a server that counts."""
    with LoopbackServer(tokens=CountedTokens()) as server:
        yield server


@pytest.fixture(scope="module", autouse=True)
def wire() -> Iterator[None]:
    """Close the connections of all clients in the end."""
    with WIRE:
        yield


def openai_of(server: LoopbackServer, *, max_retries: int = 0) -> openai.OpenAI:
    """Return the official OpenAI client for a server."""
    return openai.OpenAI(base_url=server.base_url, api_key="canary", max_retries=max_retries, http_client=WIRE)


def anthropic_of(server: LoopbackServer) -> anthropic.Anthropic:
    """Return the official Anthropic client for a server."""
    return anthropic.Anthropic(base_url=server.url, api_key="canary", max_retries=0, http_client=WIRE)


def only_entry(server: LoopbackServer) -> LedgerEntry:
    """Return the ledger's only entry."""
    [entry] = server.ledger
    return entry


def streamed_chat(server: LoopbackServer, *, headers: dict[str, str] | None = None, **options: Any) -> list[Any]:
    """Return every chunk of a streamed chat completion."""
    client = openai_of(server)
    chunks = client.chat.completions.create(
        model="gpt-4o", messages=HELLO, stream=True, extra_headers=headers or {}, **options
    )
    return list(chunks)


def usages(chunks: list[Any]) -> list[tuple[int, int]]:
    """Return prompt and completion tokens of each chunk that tells them."""
    return [(chunk.usage.prompt_tokens, chunk.usage.completion_tokens) for chunk in chunks if chunk.usage]


class TestPlainAnswers:
    """Answers without streaming carry the figures that the ledger has."""

    def test_chat(self, server: LoopbackServer) -> None:
        """A chat completion tells prompt, completion, cached and reasoning tokens of its entry."""
        answer = openai_of(server).chat.completions.create(model="gpt-4o", messages=HELLO)

        entry = only_entry(server)
        usage = answer.usage
        assert usage is not None
        assert usage.prompt_tokens_details is not None
        assert usage.completion_tokens_details is not None
        assert (entry.prompt_tokens, entry.completion_tokens) == (usage.prompt_tokens, usage.completion_tokens)
        assert entry.cache_read_tokens == usage.prompt_tokens_details.cached_tokens
        assert entry.reasoning_tokens == usage.completion_tokens_details.reasoning_tokens
        assert ("chat", "gpt-4o", answer.id) == (entry.endpoint, entry.model, entry.response_id)
        assert (True, True, False) == (entry.completed, entry.usage_sent, entry.streamed)
        assert CANNED == answer.choices[0].message.content

    def test_chat_with_several_choices(self, server: LoopbackServer) -> None:
        """The request's `n` gives that many answers and one usage."""
        answer = openai_of(server).chat.completions.create(model="gpt-4o", messages=HELLO, n=3)

        assert [0, 1, 2] == [choice.index for choice in answer.choices]
        assert 1 == len(server.ledger)

    def test_completions(self, server: LoopbackServer) -> None:
        """A text completion gives one choice a prompt."""
        answer = openai_of(server).completions.create(model="gpt-3.5-turbo-instruct", prompt=["open", "closed"])

        entry = only_entry(server)
        assert answer.usage is not None
        assert [CANNED, CANNED] == [choice.text for choice in answer.choices]
        assert entry.prompt_tokens == answer.usage.prompt_tokens
        assert entry.completion_tokens == answer.usage.completion_tokens
        assert "completions" == entry.endpoint

    def test_responses(self, server: LoopbackServer) -> None:
        """A response tells its input and output tokens, with details."""
        answer = openai_of(server).responses.create(model="gpt-4o", input="When does the library open?")

        entry = only_entry(server)
        usage = answer.usage
        assert usage is not None
        assert (entry.prompt_tokens, entry.completion_tokens) == (usage.input_tokens, usage.output_tokens)
        assert entry.cache_read_tokens == usage.input_tokens_details.cached_tokens
        assert entry.reasoning_tokens == usage.output_tokens_details.reasoning_tokens
        assert CANNED == answer.output_text

    def test_messages(self, server: LoopbackServer) -> None:
        """Anthropic's input tokens and both cache buckets add up to the entry's prompt tokens."""
        answer = anthropic_of(server).messages.create(model="claude-sonnet-4-5", max_tokens=9, messages=HELLO)

        entry = only_entry(server)
        usage = answer.usage
        read, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
        assert entry.prompt_tokens == usage.input_tokens + read + written
        assert (entry.cache_read_tokens, entry.cache_write_tokens) == (read, written)
        assert entry.completion_tokens == usage.output_tokens
        assert (entry.response_id, "messages") == (answer.id, entry.endpoint)
        assert 0 not in (read, written)

    def test_embeddings(self, server: LoopbackServer) -> None:
        """Embeddings tell embedding tokens only, and the client's base64 decodes to the floats."""
        client = openai_of(server)
        coded = client.embeddings.create(model="text-embedding-3-small", input=["open doors", "closed"])
        plain = client.embeddings.create(model="text-embedding-3-small", input="open doors", encoding_format="float")

        first, second = server.ledger
        assert (first.embedding_tokens, second.embedding_tokens) == (coded.usage.total_tokens, plain.usage.total_tokens)
        assert (0, 0, None) == (first.prompt_tokens, first.completion_tokens, first.response_id)
        assert [0, 1] == [row.index for row in coded.data]
        assert pytest.approx(plain.data[0].embedding, abs=1e-6) == coded.data[0].embedding
        assert 1536 == len(plain.data[0].embedding)

    @pytest.mark.parametrize(
        ("mode", "expected"),
        [
            ("absent", "no key"),
            ("null", None),
            ("zero", {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}),
        ],
    )
    def test_usage_modes(self, mode: Any, expected: object) -> None:
        """A server that hides its usage leaves it out, sends null, or zeros; the ledger keeps the truth."""
        with LoopbackServer(usage=mode) as server:
            answer = httpx.post(f"{server.base_url}/chat/completions", json={"model": "m", "messages": HELLO}).json()

            assert expected == answer.get("usage", "no key")
            entry = only_entry(server)
            assert (1007, 103, False) == (entry.prompt_tokens, entry.completion_tokens, entry.usage_sent)


class TestStreams:
    """Streams carry the text in pieces and the usage where the mode puts it."""

    def test_chat_tells_usage_when_asked(self, server: LoopbackServer) -> None:
        """The usage comes in a last chunk without choices, as OpenAI sends it."""
        chunks = streamed_chat(server, stream_options={"include_usage": True})

        entry = only_entry(server)
        assert [(entry.prompt_tokens, entry.completion_tokens)] == usages(chunks)
        assert [] == chunks[-1].choices
        assert CANNED == "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
        assert (True, True, True) == (entry.completed, entry.usage_sent, entry.streamed)

    @pytest.mark.parametrize(
        ("mode", "told_chunks", "usage_sent"),
        [
            ("asked", 0, False),
            ("never", 0, False),
            ("null", 0, False),
            ("always_last", 1, True),
            ("finish_chunk", 1, True),
            ("every_chunk", 20, True),
        ],
    )
    def test_usage_modes_unasked(
        self, server: LoopbackServer, *, mode: str, told_chunks: int, usage_sent: bool
    ) -> None:
        """Each mode tells the usage in as many chunks as it should, the last one complete."""
        chunks = streamed_chat(server, headers={"x-loopback-usage": mode})

        entry = only_entry(server)
        told = usages(chunks)
        assert told_chunks == len(told)
        assert ([(entry.prompt_tokens, entry.completion_tokens)] if usage_sent else []) == told[-1:]
        assert usage_sent == entry.usage_sent
        assert entry.completed

    def test_never_means_never(self, server: LoopbackServer) -> None:
        """The mode `never` ignores that the client asked, as llama_cpp.server does."""
        headers = {"x-loopback-usage": "never"}
        chunks = streamed_chat(server, headers=headers, stream_options={"include_usage": True})

        assert [] == usages(chunks)

    def test_every_chunk_is_cumulative(self, server: LoopbackServer) -> None:
        """Usage in every chunk grows from zero to the whole completion."""
        chunks = streamed_chat(server, headers={"x-loopback-usage": "every_chunk"})

        completions = [completion for _, completion in usages(chunks)]
        assert sorted(completions) == completions
        assert (0, only_entry(server).completion_tokens) == (completions[0], completions[-1])

    def test_zero_usage_beside_text(self, server: LoopbackServer) -> None:
        """The mode `zero` tells 0/0, which is not what the ledger has."""
        chunks = streamed_chat(server, headers={"x-loopback-usage": "zero"})

        assert [(0, 0)] == usages(chunks)
        assert not only_entry(server).usage_sent

    def test_mode_of_the_constructor(self) -> None:
        """A server keeps the mode that it was made with."""
        with LoopbackServer(stream_usage="finish_chunk") as server:
            chunks = streamed_chat(server)

            assert "stop" == chunks[-1].choices[0].finish_reason
            assert [(1007, 103)] == usages(chunks)

    def test_several_choices(self, server: LoopbackServer) -> None:
        """Each of `n` choices streams its own text and finish."""
        chunks = streamed_chat(server, n=2)

        for index in (0, 1):
            own = [chunk.choices[0] for chunk in chunks if chunk.choices[0].index == index]
            assert CANNED == "".join(choice.delta.content or "" for choice in own)
            assert "stop" == own[-1].finish_reason

    def test_completions(self, server: LoopbackServer) -> None:
        """A text completion streams its text, and its usage when asked."""
        chunks = list(
            openai_of(server).completions.create(
                model="gpt-3.5-turbo-instruct", prompt="open", stream=True, stream_options={"include_usage": True}
            )
        )

        entry = only_entry(server)
        assert CANNED == "".join(chunk.choices[0].text for chunk in chunks[:-1])
        assert [(entry.prompt_tokens, entry.completion_tokens)] == usages(chunks)

    def test_responses(self, server: LoopbackServer) -> None:
        """The SDK's own accumulator accepts the events, and finds the entry's figures."""
        with openai_of(server).responses.stream(model="gpt-4o", input="open?") as stream:
            text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
            usage = stream.get_final_response().usage

        entry = only_entry(server)
        assert CANNED == text
        assert usage is not None
        assert (entry.prompt_tokens, entry.completion_tokens) == (usage.input_tokens, usage.output_tokens)
        assert entry.usage_sent

    def test_messages(self, server: LoopbackServer) -> None:
        """The SDK's own accumulator puts input usage from the first and output from the last event together."""
        with anthropic_of(server).messages.stream(model="claude-sonnet-4-5", max_tokens=9, messages=HELLO) as stream:
            text = "".join(stream.text_stream)
            usage = stream.get_final_message().usage

        entry = only_entry(server)
        read, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
        assert CANNED == text
        assert entry.prompt_tokens == usage.input_tokens + read + written
        assert entry.completion_tokens == usage.output_tokens
        assert entry.usage_sent

    @pytest.mark.parametrize(("mode", "expected"), [("never", "no key"), ("null", None)])
    def test_messages_without_usage(self, server: LoopbackServer, *, mode: str, expected: object) -> None:
        """A stream of messages can hide its usage too."""
        body = {"model": "claude", "max_tokens": 9, "messages": HELLO, "stream": True}
        answer = httpx.post(f"{server.base_url}/messages", json=body, headers={"x-loopback-usage": mode})

        lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
        [delta] = [event for line in lines if (event := json.loads(line))["type"] == "message_delta"]
        assert expected == delta.get("usage", "no key")
        assert not only_entry(server).usage_sent


class TestTools:
    """A request that offers tools gets a call of the first, until a tool has answered."""

    def test_chat(self, server: LoopbackServer) -> None:
        """The arguments conform to the tool's schema, with nothing that was not required."""
        answer = openai_of(server).chat.completions.create(model="gpt-4o", messages=HELLO, tools=[TOOL])

        [call] = answer.choices[0].message.tool_calls or []
        arguments = json.loads(call.function.arguments)  # type: ignore[union-attr]
        jsonschema.validate(arguments, SCHEMA)
        assert "unasked" not in arguments
        assert (None, "tool_calls") == (answer.choices[0].message.content, answer.choices[0].finish_reason)

    def test_streamed_chat(self, server: LoopbackServer) -> None:
        """The call's id and name come first, then its arguments in several fragments."""
        chunks = streamed_chat(server, tools=[TOOL])

        calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
        assert ("opening_hours", "") == (calls[0].function.name, calls[0].function.arguments)
        assert [None] * len(calls[1:]) == [call.id for call in calls[1:]]
        assert len(calls) > 3
        jsonschema.validate(json.loads("".join(call.function.arguments for call in calls)), SCHEMA)

    def test_chat_after_the_tool(self, server: LoopbackServer) -> None:
        """Once the tool has answered, the model speaks."""
        called = {"id": "call_1", "type": "function", "function": {"name": "opening_hours", "arguments": "{}"}}
        messages: Any = [
            *HELLO,
            {"role": "assistant", "content": None, "tool_calls": [called]},
            {"role": "tool", "tool_call_id": "call_1", "content": "nine"},
        ]
        answer = openai_of(server).chat.completions.create(model="gpt-4o", messages=messages, tools=[TOOL])

        assert CANNED == answer.choices[0].message.content

    def test_a_new_question_after_the_tool(self, server: LoopbackServer) -> None:
        """A tool result before the last question does not count."""
        messages: Any = [{"role": "tool", "tool_call_id": "call_1", "content": "nine"}, *HELLO]
        answer = openai_of(server).chat.completions.create(model="gpt-4o", messages=messages, tools=[TOOL])

        assert answer.choices[0].message.tool_calls

    @pytest.mark.parametrize(
        ("choice", "expected"),
        [
            ("none", None),
            ("required", "opening_hours"),
            ({"type": "function", "function": {"name": "close"}}, "close"),
        ],
    )
    def test_tool_choice(self, server: LoopbackServer, *, choice: Any, expected: str | None) -> None:
        """A choice forces a tool, also one that is not the first, or forbids all."""
        tools = [TOOL, {"type": "function", "function": {"name": "close", "parameters": {"type": "object"}}}]
        client = openai_of(server)
        answer = client.chat.completions.create(model="gpt-4o", messages=HELLO, tools=tools, tool_choice=choice)

        names = [call.function.name for call in answer.choices[0].message.tool_calls or []]  # type: ignore[union-attr]
        assert ([expected] if expected else []) == names

    def test_streamed_messages(self, server: LoopbackServer) -> None:
        """The SDK's own accumulator puts the fragments of a tool's input together."""
        stream = anthropic_of(server).messages.stream(
            model="claude-sonnet-4-5", max_tokens=9, messages=HELLO, tools=[CLAUDE_TOOL]
        )
        with stream as events:
            message = events.get_final_message()

        [block] = message.content
        assert ("tool_use", "tool_use") == (block.type, message.stop_reason)
        jsonschema.validate(block.input, SCHEMA)  # type: ignore[union-attr]

    def test_messages_after_the_tool(self, server: LoopbackServer) -> None:
        """A tool result inside a user's message counts as an answer."""
        result: Any = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "nine"}
        answer = anthropic_of(server).messages.create(
            model="claude", max_tokens=9, messages=[{"role": "user", "content": [result]}], tools=[CLAUDE_TOOL]
        )

        assert "end_turn" == answer.stop_reason

    def test_streamed_responses(self, server: LoopbackServer) -> None:
        """A streamed response calls functions as well."""
        with openai_of(server).responses.stream(model="gpt-4o", input="open?", tools=[RESPONSES_TOOL]) as stream:
            [item] = stream.get_final_response().output

        assert isinstance(item, ResponseFunctionToolCall)
        jsonschema.validate(json.loads(item.arguments), SCHEMA)

    def test_json_schema_as_response_format(self, server: LoopbackServer) -> None:
        """An answer that has to follow a JSON schema does."""
        wanted: Any = {"type": "json_schema", "json_schema": {"name": "hours", "schema": SCHEMA}}
        answer = openai_of(server).chat.completions.create(model="gpt-4o", messages=HELLO, response_format=wanted)

        jsonschema.validate(json.loads(answer.choices[0].message.content or ""), SCHEMA)


class TestScript:
    """The `replies` script decides what the model says."""

    def test_text(self) -> None:
        """A script sees the request, and its string is streamed without loss."""
        thought = "Thought: I can answer.\n\nAnswer: it opens at nine: 9:00 \N{EN DASH} 18:30."
        with LoopbackServer(replies=lambda body: thought + body["model"]) as server:
            chunks = streamed_chat(server)

            assert thought + "gpt-4o" == "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    def test_text_waits_for_the_tool(self) -> None:
        """A string is what is said when no tool call is due, so the tool is called first."""
        with LoopbackServer(replies=lambda _: "nine") as server:
            answer = openai_of(server).chat.completions.create(model="gpt-4o", messages=HELLO, tools=[TOOL])

            assert answer.choices[0].message.tool_calls

    def test_text_yields_to_the_schema(self) -> None:
        """A string does not keep a request for JSON from getting JSON."""
        wanted: Any = {"type": "json_schema", "json_schema": {"name": "hours", "schema": SCHEMA}}
        with LoopbackServer(replies=lambda _: "nine") as server:
            answer = openai_of(server).chat.completions.create(model="gpt-4o", messages=HELLO, response_format=wanted)

            jsonschema.validate(json.loads(answer.choices[0].message.content or ""), SCHEMA)

    def test_reply_is_taken_as_it_stands(self) -> None:
        """A Reply gives text and calls, with arguments of its own, whatever the request offers."""
        reply = Reply(text="Let me see.", calls=(ToolCall(name="opening_hours", arguments={"day": "Friday"}),))
        with LoopbackServer(replies=lambda _: reply) as server:
            answer = openai_of(server).chat.completions.create(model="gpt-4o", messages=HELLO, tools=[TOOL])

            message = answer.choices[0].message
            [call] = message.tool_calls or []
            assert "Let me see." == message.content
            assert {"day": "Friday"} == json.loads(call.function.arguments)  # type: ignore[union-attr]

    @given(st.text())
    def test_pieces_lose_nothing(self, text: str) -> None:
        """Pieces of any text join to the text."""
        assert text == "".join(pieces_of(text))

    @pytest.mark.parametrize(
        "schema",
        [
            SCHEMA,
            {"const": 3},
            {"type": ["string", "null"]},
            {"allOf": [{"type": "boolean"}]},
            {"type": "object", "properties": {"x": {"type": "null"}}, "required": ["x"]},
            {"type": "array", "items": {"type": "number", "minimum": 4}},
        ],
    )
    def test_example_conforms(self, schema: dict[str, Any]) -> None:
        """An example conforms to the schema that it was made of."""
        jsonschema.validate(example_of(schema), schema)


class TestFaults:
    """Requests fail as asked, by header or by queue, and the ledger says how."""

    @pytest.mark.parametrize(
        ("status", "error"),
        [(401, openai.AuthenticationError), (429, openai.RateLimitError), (503, openai.InternalServerError)],
    )
    def test_status(self, server: LoopbackServer, *, status: int, error: type[Exception]) -> None:
        """A status makes the client raise its own error; the refusal costs nothing."""
        with pytest.raises(error, match=f"loopback fault {status}"):
            streamed_chat(server, headers={"x-loopback-fault": f"status={status}"})

        entry = only_entry(server)
        assert (status, 0, 0) == (entry.status, entry.prompt_tokens, entry.completion_tokens)
        assert (False, False, None) == (entry.completed, entry.usage_sent, entry.response_id)

    def test_anthropic_status(self, server: LoopbackServer) -> None:
        """A refusal of the messages endpoint has Anthropic's form."""
        server.fail_next(status=529)
        with pytest.raises(anthropic.APIStatusError, match="loopback fault 529") as raised:
            anthropic_of(server).messages.create(model="claude", max_tokens=9, messages=HELLO)

        error = {"type": "overloaded_error", "message": "loopback fault 529"}
        assert {"type": "error", "error": error} == raised.value.body

    def test_retries(self, server: LoopbackServer) -> None:
        """Refusals in the queue meet the next requests, so that a retry gets through."""
        server.fail_next(status=500, times=2)
        openai_of(server, max_retries=2).chat.completions.create(model="gpt-4o", messages=HELLO)

        assert [500, 500, 200] == [entry.status for entry in server.ledger]

    def test_cut_stream(self, server: LoopbackServer) -> None:
        """A cut drops the connection after that many events."""
        server.fail_next(cut_after=3)
        seen: list[Any] = []
        with (
            pytest.raises(httpx.RemoteProtocolError),
            openai_of(server).chat.completions.create(model="gpt-4o", messages=HELLO, stream=True) as stream,
        ):
            seen.extend(stream)

        entry = only_entry(server)
        assert (3, 3) == (len(seen), entry.chunks_sent)
        assert (200, False, False) == (entry.status, entry.completed, entry.usage_sent)

    def test_cut_plain_answer(self, server: LoopbackServer) -> None:
        """A cut plain answer ends in the middle of its body."""
        server.fail_next(cut_after=0)
        with pytest.raises(openai.APIConnectionError):
            openai_of(server).chat.completions.create(model="gpt-4o", messages=HELLO)

        assert not only_entry(server).completed

    def test_error_event(self, server: LoopbackServer) -> None:
        """An error event in a stream makes OpenAI's client raise, after the events before it."""
        seen: list[Any] = []
        client = openai_of(server)
        headers = {"x-loopback-fault": "error_after=2"}
        stream = client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True, extra_headers=headers)
        with pytest.raises(openai.APIError, match="loopback fault 500"):
            seen.extend(stream)

        assert 2 == len(seen)
        assert not only_entry(server).completed

    def test_anthropic_error_event(self, server: LoopbackServer) -> None:
        """An error event in a stream makes Anthropic's client raise."""
        server.fail_next(error_after=4)
        stream = anthropic_of(server).messages.create(model="claude", max_tokens=9, messages=HELLO, stream=True)
        with pytest.raises(anthropic.APIStatusError):
            list(stream)

        assert not only_entry(server).completed

    @pytest.mark.parametrize(
        ("header", "value"), [("x-loopback-fault", "explode=1"), ("x-loopback-usage", "sometimes")]
    )
    def test_unknown_wish(self, server: LoopbackServer, *, header: str, value: str) -> None:
        """A header with an unknown value is refused, with what was expected."""
        with pytest.raises(openai.BadRequestError, match="expected one of"):
            streamed_chat(server, headers={header: value})

    def test_body_that_is_not_json(self, server: LoopbackServer) -> None:
        """A body that cannot be read is refused, and makes no entry."""
        answer = httpx.post(f"{server.base_url}/chat/completions", content=b"{")

        assert 400 == answer.status_code
        assert [] == server.ledger


class TestHold:
    """A test can hold answers back and let them go when it wants."""

    def test_plain_answer(self, server: LoopbackServer) -> None:
        """A held answer has an open entry, and arrives after the release."""
        with ThreadPoolExecutor() as pool:
            with server.hold() as hold:
                answer = pool.submit(openai_of(server).chat.completions.create, model="gpt-4o", messages=HELLO)
                assert hold.reached.wait(timeout=120)
                assert not answer.done()
                assert not only_entry(server).completed

            answer.result(timeout=120)
        assert only_entry(server).completed

    def test_client_that_gives_up(self, server: LoopbackServer) -> None:
        """An answer whose client went away before the release is never completed."""
        with server.hold() as hold:
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{server.base_url}/chat/completions", json={"messages": HELLO}, timeout=0.1)
            assert hold.abandoned.wait(timeout=120)

        assert not only_entry(server).completed

    def test_abandoned_stream(self, server: LoopbackServer) -> None:
        """A stream that is closed while held has sent just the events before the hold."""
        client = openai_of(server)
        with server.hold(after_chunks=2) as hold:
            with client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True) as stream:
                next(stream)
                next(stream)
            assert hold.abandoned.wait(timeout=120)

        assert (2, False) == (only_entry(server).chunks_sent, only_entry(server).completed)


class TestLedger:
    """The ledger identifies every request and keeps no secret."""

    def test_totals(self, server: LoopbackServer) -> None:
        """Totals are the sums over the entries, of calls that came from many threads at once."""
        client = openai_of(server)
        with ThreadPoolExecutor(max_workers=8) as pool:
            calls = [
                pool.submit(client.chat.completions.create, model="gpt-4o", messages=HELLO, stream=bool(number % 2))
                for number in range(40)
            ]
            for call in calls:
                answer = call.result()
                if isinstance(answer, openai.Stream):
                    list(answer)

        entries, totals = server.ledger, server.ledger_totals()
        assert 40 == totals.requests
        assert 40 == len({entry.prompt_tokens for entry in entries})
        assert sum(entry.prompt_tokens for entry in entries) == totals.prompt_tokens
        assert sum(entry.completion_tokens for entry in entries) == totals.completion_tokens
        assert all(entry.completed for entry in entries)

    def test_keeps_no_key_and_no_text(self, server: LoopbackServer) -> None:
        """Neither the key nor the prompt nor the answer is kept."""
        openai_of(server).chat.completions.create(model="gpt-4o", messages=HELLO)

        assert not [word for word in ("canary", "library") if word in repr(server.ledger)]

    def test_constant_id(self) -> None:
        """A server can give all its answers one id."""
        with LoopbackServer(constant_id=True) as server:
            for _ in range(2):
                openai_of(server).chat.completions.create(model="gpt-4o", messages=HELLO)

            assert ["chatcmpl-0", "chatcmpl-0"] == [entry.response_id for entry in server.ledger]

    def test_stop_ends_the_thread(self) -> None:
        """Leaving the block frees the port and ends the thread, also with an open client connection."""
        before = set(threading.enumerate())
        with httpx.Client() as client:
            with LoopbackServer() as server:
                client.post(f"{server.base_url}/embeddings", json={"input": "open", "model": "m"})

            with pytest.raises(httpx.ConnectError):
                httpx.post(f"{server.base_url}/embeddings", json={})
        assert set(threading.enumerate()) <= before


class TestCountedTokens:
    """Counted figures are those that OpenAI published."""

    COOKBOOK: tuple[tuple[str, str | None, str], ...] = (
        (
            "system",
            None,
            "You are a helpful, pattern-following assistant that translates corporate jargon into plain English.",
        ),
        ("system", "example_user", "New synergies will help drive top-line growth."),
        ("system", "example_assistant", "Things working well together will increase revenue."),
        (
            "system",
            "example_user",
            "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage.",
        ),
        ("system", "example_assistant", "Let's talk later when we're less busy about how to do better."),
        ("user", None, "This late pivot means we don't have time to boil the ocean for the client deliverable."),
    )

    @pytest.mark.parametrize(("model", "prompt_tokens"), [("gpt-4o-mini", 124), ("gpt-4", 129)])
    def test_cookbook(self, counting: LoopbackServer, *, model: str, prompt_tokens: int) -> None:
        """The cookbook's example costs what the API said, https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken."""
        messages: Any = [
            {"role": role, "content": text} | ({"name": name} if name else {}) for role, name, text in self.COOKBOOK
        ]
        answer = openai_of(counting).chat.completions.create(model=model, messages=messages)

        assert answer.usage is not None
        assert prompt_tokens == answer.usage.prompt_tokens

    def test_parts_count_as_text(self, counting: LoopbackServer) -> None:
        """Content as a list of text parts costs what the text costs."""
        client = openai_of(counting)
        parts: Any = [{"role": "user", "content": [{"type": "text", "text": HELLO[0]["content"]}]}]
        plain = client.chat.completions.create(model="gpt-4o", messages=HELLO)
        cut = client.chat.completions.create(model="gpt-4o", messages=parts)

        assert plain.usage == cut.usage

    def test_embedding_inputs(self, counting: LoopbackServer) -> None:
        """Texts are counted together, and a list of tokens by its length."""
        client = openai_of(counting)
        texts = client.embeddings.create(model="text-embedding-3-small", input=["tiktoken is great!", "hello world"])
        tokens = client.embeddings.create(model="text-embedding-3-small", input=[31, 32, 33])

        assert (6 + 2, 3) == (texts.usage.prompt_tokens, tokens.usage.prompt_tokens)

    def test_tiktoken_learns_nothing(self) -> None:
        """The server's vocabularies stay its own: the package under test has to find its own way."""
        before = set(ENCODINGS), dict(os.environ)
        CountedTokens()

        assert before == (set(ENCODINGS), dict(os.environ))
