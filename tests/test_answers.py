"""Events of every provider's streams, put together into the text and the calls that came back."""

from __future__ import annotations

from typing import Any

import pytest

from token_callbacks.answers import _BY_KEY, _BY_TYPE, Answer

Json = dict[str, Any]

STARTED = {"type": "message_start", "message": {"id": "m-3", "model": "claude-opus-4-1", "content": []}}


def _taken(*events: Any) -> Answer:
    answer = Answer()
    for event in events:
        answer.take(event)
    return answer


def _text(*events: Any) -> str | None:
    completion = _taken(*events).completion()
    return None if completion is None else completion.text


def _calls(*events: Any) -> list[tuple[str, str]]:
    completion = _taken(*events).completion()

    assert completion is not None
    return [(call["function"]["name"], call["function"]["arguments"]) for call in completion.tool_calls]


def _block(index: int, **delta: str) -> Json:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def _converse(index: int, **delta: Any) -> Json:
    return {"contentBlockDelta": {"contentBlockIndex": index, "delta": delta}}


def _event(kind: str, **more: Any) -> Json:
    return {"type": f"response.{kind}", **more}


TEXTS: dict[str, tuple[list[Json], str]] = {
    # https://docs.anthropic.com/en/docs/build-with-claude/streaming
    "Anthropic's text": ([STARTED, _block(0, type="text_delta", text="Hi"), _block(0, text=" there")], "Hi there"),
    "Anthropic's thinking": ([_block(0, thinking="Hm"), _block(0, signature="abc"), _block(1, text="Hi")], "HmHi"),
    "Anthropic's first bit": (
        [{"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "Hi"}}],
        "Hi",
    ),
    # https://platform.openai.com/docs/api-reference/responses-streaming
    "the Responses API's text": (
        [
            _event("output_text.delta", output_index=0, delta="Hi"),
            _event("output_text.delta", output_index=0, delta=" there"),
            _event("output_text.done", output_index=0, text="Hi there"),
        ],
        "Hi there",
    ),
    "the Responses API's refusal": ([_event("refusal.delta", output_index=0, delta="No")], "No"),
    "the Responses API's reasoning": (
        [
            _event("reasoning_text.delta", output_index=0, delta="Hm"),
            _event("output_text.delta", output_index=1, delta="Hi"),
        ],
        "HmHi",
    ),
    # https://docs.cohere.com/docs/streaming
    "Cohere's text": (
        [
            {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": bit}}}}
            for bit in ("Hi", "!")
        ],
        "Hi!",
    ),
    # https://github.com/ollama/ollama/blob/main/docs/api.md
    "Ollama's thinking": ([{"message": {"thinking": "Hm", "content": ""}}, {"message": {"content": "Hi"}}], "HmHi"),
    "Ollama's generate": ([{"response": "Hi", "done": False}, {"response": "!", "done": True}], "Hi!"),
    # https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse
    "Gemini's thoughts": (
        [{"candidates": [{"content": {"parts": [{"text": "Hm", "thought": True}, {"text": "Hi"}]}}]}],
        "HmHi",
    ),
    "Gemini's candidates": (
        [
            {"candidates": [{"index": index, "content": {"parts": [{"text": bit}]}}]}
            for index, bit in ((0, "a"), (1, "b"))
        ],
        "ab",
    ),
    # https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html
    "Bedrock's text": ([_converse(0, text="Hi"), _converse(0, text=" there")], "Hi there"),
    "Bedrock's reasoning": ([_converse(0, reasoningContent={"text": "Hm"}), _converse(1, text="Hi")], "HmHi"),
    # https://platform.openai.com/docs/api-reference/chat/streaming
    "a chunk's reasoning and refusal": (
        [{"choices": [{"delta": {name: bit}}]} for name, bit in (("reasoning_content", "Hm"), ("refusal", "No"))],
        "HmNo",
    ),
    "choices in turn": (
        [{"choices": [{"index": index, "delta": {"content": bit}}]} for index, bit in ((0, "a"), (1, "c"), (0, "b"))],
        "abc",
    ),
    "the parts of a whole message": (
        [{"choices": [{"message": {"content": [{"type": "text", "text": "Hi"}, {"type": "image"}]}}]}],
        "Hi",
    ),
}


@pytest.mark.parametrize("name", TEXTS)
def test_the_text_of_a_stream(name: str) -> None:
    """Whoever streams, the text is all that was generated, once."""
    events, text = TEXTS[name]

    assert text == _text(*events)


CALLS: dict[str, tuple[list[Json], list[tuple[str, str]]]] = {
    "Anthropic's": (
        [
            {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "t", "name": "f"}},
            _block(1, type="input_json_delta", partial_json='{"a"'),
            _block(1, type="input_json_delta", partial_json=": 1}"),
            {"type": "content_block_start", "index": 2, "content_block": {"type": "server_tool_use", "name": "g"}},
        ],
        [("f", '{"a": 1}'), ("g", "")],
    ),
    "the Responses API's": (
        [
            _event("output_item.added", output_index=1, item={"type": "function_call", "name": "f", "arguments": ""}),
            _event("function_call_arguments.delta", output_index=1, delta='{"a"'),
            _event("function_call_arguments.delta", output_index=1, delta=": 1}"),
        ],
        [("f", '{"a": 1}')],
    ),
    "the Responses API's custom and MCP ones": (
        [
            _event("output_item.added", output_index=0, item={"type": "custom_tool_call", "name": "f"}),
            _event("custom_tool_call_input.delta", output_index=0, delta="ls"),
            _event("output_item.added", output_index=1, item={"type": "mcp_call", "name": "g"}),
            _event("mcp_call_arguments.delta", output_index=1, delta="{}"),
            _event("output_item.added", output_index=2, item={"type": "message", "name": "no call"}),
        ],
        [("f", "ls"), ("g", "{}")],
    ),
    "Bedrock's": (
        [
            {"contentBlockStart": {"contentBlockIndex": 1, "start": {"toolUse": {"toolUseId": "t", "name": "f"}}}},
            _converse(1, toolUse={"input": '{"a"'}),
            _converse(1, toolUse={"input": ": 1}"}),
            {"contentBlockStart": {"contentBlockIndex": 2, "start": {"toolUse": {"toolUseId": "u", "name": "g"}}}},
        ],
        [("f", '{"a": 1}'), ("g", "")],
    ),
    "Ollama's": (
        [{"message": {"content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}}] * 2,
        [("f", '{"a":1}'), ("f", '{"a":1}')],
    ),
    "the old function_call": (
        [{"choices": [{"delta": {"function_call": {"name": "f", "arguments": bit}}}]} for bit in ('{"a"', ": 1}")],
        [("f", '{"a": 1}')],
    ),
    "another id in the same place is another call": (
        [
            {"choices": [{"delta": {"tool_calls": [{"index": 0, "id": call, "function": {"name": call}}]}}]}
            for call in ("f", "f", "g")
        ],
        [("f", ""), ("g", "")],
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_calls_of_a_stream(name: str) -> None:
    """Whoever streams, each call of a tool is there once, with its name and all of its arguments."""
    events, calls = CALLS[name]

    assert calls == _calls(*events)


# Events after which (all has come, the message is cut, it failed).
ENDS: dict[str, tuple[list[Any], tuple[bool, bool, bool]]] = {
    "nothing": ([], (False, False, False)),
    "Anthropic's start": ([STARTED], (False, True, False)),
    "Anthropic's reason": (
        [STARTED, {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {}}],
        (True, False, False),
    ),
    "Anthropic's delta without a reason": (
        [STARTED, {"type": "message_delta", "delta": {"stop_reason": None}}],
        (False, True, False),
    ),
    "Anthropic's stop": ([STARTED, {"type": "message_stop"}], (True, False, False)),
    "Anthropic's error": (
        [STARTED, {"type": "error", "error": {"type": "overloaded_error"}}],
        (False, True, True),
    ),
    "an error without more": ([{"type": "error"}], (False, False, True)),
    "OpenAI's error": ([{"error": {"message": "no"}}], (False, False, True)),
    "the Responses API's start": ([_event("created", response={})], (False, True, False)),
    "the Responses API's end": ([_event("created"), _event("completed", response={})], (True, False, False)),
    "the Responses API's early end": ([_event("created"), _event("incomplete", response={})], (True, False, False)),
    "the Responses API's failure": ([_event("created"), _event("failed", response={})], (True, False, True)),
    "Cohere's end": ([{"type": "message-end", "delta": {"finish_reason": "COMPLETE"}}], (True, False, False)),
    "Ollama's line": ([{"message": {"content": "Hi"}, "done": False}], (False, False, False)),
    "Ollama's last line": ([{"message": {"content": ""}, "done": True}], (True, False, False)),
    "Ollama's last word": ([{"response": "", "done": True}], (True, False, False)),
    "llama.cpp's bit": ([{"content": "Hi", "stop": False}], (False, False, False)),
    "llama.cpp's end": ([{"content": "", "stop": True}], (True, False, False)),
    "Gemini's bit": ([{"candidates": [{"content": {}}]}], (False, False, False)),
    "Gemini's reason": ([{"candidates": [{"finishReason": "STOP"}]}], (True, False, False)),
    "DashScope's bit": ([{"output": {"text": "Hi", "finish_reason": "null"}}], (False, False, False)),
    "DashScope's reason": ([{"output": {"text": "Hi", "finish_reason": "stop"}}], (True, False, False)),
    "DashScope's refusal": ([{"code": "InvalidParameter", "message": "no"}], (False, False, True)),
    "DashScope's success": ([{"code": "", "output": {"text": "Hi"}}], (False, False, False)),
    "DashScope's success with a code": ([{"code": "Success", "output": {}}], (False, False, False)),
    "Bedrock's bit": ([_converse(0, text="Hi")], (False, False, False)),
    "Bedrock's reason": ([_converse(0, text="Hi"), {"messageStop": {"stopReason": "end_turn"}}], (True, False, False)),
    "Bedrock's stop without a reason": ([{"messageStop": {}}], (False, False, False)),
    "one of two choices": (
        [{"choices": [{"index": 0, "finish_reason": "stop"}, {"index": 1, "finish_reason": None}]}],
        (False, False, False),
    ),
    "both choices": (
        [{"choices": [{"index": index, "finish_reason": "stop"}]} for index in (0, 1)],
        (True, False, False),
    ),
    "a reason, then silence": (
        [{"choices": [{"index": 0, "finish_reason": reason}]} for reason in ("stop", None)],
        (True, False, False),
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_how_a_stream_ends(name: str) -> None:
    """Each provider says in its own way that nothing but the usage can still come, or that it failed."""
    events, ends = ENDS[name]
    answer = _taken(*events)

    assert ends == (answer.is_whole, answer.is_cut, answer.has_failed)


def test_every_row_has_an_event_here() -> None:
    """A new row comes with an example."""
    events = [event for rows in (TEXTS, CALLS, ENDS) for events, _ in rows.values() for event in events]
    types = {event.get("type") for event in events}

    assert set() == _BY_TYPE.keys() - types
    assert set() == _BY_KEY.keys() - {name for event in events for name in event}


@pytest.mark.parametrize(
    ("event", "names"),
    [
        (STARTED, ("m-3", "claude-opus-4-1")),
        ({"id": "a-3", "model": "gpt-4o", "choices": []}, ("a-3", "gpt-4o")),
        (_event("created", response={"id": "r-3", "model": "gpt-5"}), ("r-3", "gpt-5")),
        ({"responseId": "g-3", "modelVersion": "gemini-3", "candidates": []}, ("g-3", "gemini-3")),
        ({"request_id": "d-3", "output": {"text": "Hi"}}, ("d-3", None)),
        ({"id": 3, "model": None}, (None, None)),
    ],
)
def test_the_names_of_an_answer(event: Json, names: tuple[str | None, str | None]) -> None:
    """The first event that tells them names the response and its model."""
    answer = _taken(event, {"id": "later", "model": "later"})

    assert tuple(name or "later" for name in names) == (answer.id, answer.model)


@pytest.mark.parametrize(
    "event",
    [
        None,
        3,
        "Hi",
        [],
        {},
        {"type": 3},
        {"type": "ping"},
        {"type": ["message_start"]},
        {"candidates": "none"},
        {"output": []},
        {"message": "no"},
        {"response": {"text": "Hi"}},
        {"content": [{"text": "Hi"}]},
        {"code": 3},
    ],
    ids=repr,
)
def test_what_is_not_understood(event: object) -> None:
    """An event of no known shape gives no completion: nothing came back is something else."""
    assert _taken(event).completion() is None


@pytest.mark.parametrize(
    "event",
    [
        {
            "choices": [
                None,
                3,
                {"delta": 3},
                {"delta": {"tool_calls": 3, "content": 3}},
                {"message": {"tool_calls": [3]}},
            ]
        },
        {"candidates": [None, {"content": {"parts": 3}}, {"content": {"parts": [3]}}]},
        {"contentBlockDelta": 3},
        {"contentBlockStart": {"start": 3}},
        {"messageStop": 3},
        {"type": "content_block_start", "index": "0", "content_block": {"type": "tool_use", "name": 3}},
        {"type": "content_block_delta", "delta": {"text": 3, "partial_json": 3}},
        {"type": "response.output_item.added", "item": {"type": "function_call", "name": 3}},
        {"type": "content-delta", "delta": {"message": []}},
    ],
    ids=repr,
)
def test_nonsense_in_an_event_is_passed_over(event: Json) -> None:
    """What stands where a text should be is no text."""
    assert "" == _text(event)


@pytest.mark.parametrize(
    ("event", "is_at_limit"),
    [
        ({"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "length"}]}, True),
        ({"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}, False),
        ({"type": "message_delta", "delta": {"stop_reason": "max_tokens"}}, True),
        ({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, False),
        ({"candidates": [{"content": {"parts": [{"text": "Hi"}]}, "finishReason": "MAX_TOKENS"}]}, True),
        ({"messageStop": {"stopReason": "max_tokens"}}, True),
        ({"messageStop": {"stopReason": "end_turn"}}, False),
        ({"type": "response.incomplete", "response": {"incomplete_details": {"reason": "max_output_tokens"}}}, True),
        ({"type": "response.incomplete", "response": {"incomplete_details": {"reason": "content_filter"}}}, False),
        ({"message": {"content": "Hi"}, "done": True, "done_reason": "length"}, True),
        ({"response": "Hi", "done": True, "done_reason": "length"}, True),
        ({"response": "Hi", "done": True, "done_reason": "stop"}, False),
    ],
)
def test_answer_at_its_limit_has_no_end(event: Json, is_at_limit: bool) -> None:
    """An answer that was stopped lacks the tokens that end one, which only its finish reason tells."""
    completion = _taken(event).completion()

    assert completion is not None
    assert is_at_limit is completion.is_at_limit


@pytest.mark.parametrize("kind", ["message", "delta"])
def test_choices_have_texts_of_their_own(kind: str) -> None:
    """Several choices are several texts, however their bits come in; one choice is one text."""
    bits = [{"index": index, kind: {"content": text}} for index, text in ((0, "Hi."), (1, "Ho."))]
    taken = _taken({"choices": bits[:1]}, {"choices": bits[1:]}).completion()
    alone = _taken({"choices": bits[:1]}).completion()

    assert taken is not None
    assert alone is not None
    assert (["Hi.", "Ho."], "Hi.Ho.") == (taken.texts, taken.text)
    assert ((), "Hi.") == (alone.texts, alone.text)


@pytest.mark.parametrize("kind", ["message", "delta"])
@pytest.mark.parametrize(("refusal", "is_refused"), [("No.", True), ("", False), (None, False)])
def test_refusal_is_told_apart(kind: str, refusal: str | None, is_refused: bool) -> None:
    """A refusal is text, and known to be one."""
    completion = _taken({"choices": [{"index": 0, kind: {"refusal": refusal}}]}).completion()

    assert completion is not None
    assert (refusal or "", is_refused) == (completion.text, completion.is_refused)
