"""Tools, calls and output schemas as Claude reads and writes them."""

from typing import Any

import pytest

from token_callbacks.counting import count_completion, count_prompt
from token_callbacks.counting.templates_claude import (
    Choice,
    call_tokens,
    choice_of,
    is_hosted,
    rendered_tool,
    spaced_json,
)

MODEL = "claude-sonnet-4-5"
SCHEMA = {"type": "object", "properties": {"town": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "bake", "description": "Bake it.", "parameters": SCHEMA}}
HELLO = {"role": "user", "content": "hello world"}


def call(name: str, arguments: Any) -> dict[str, Any]:
    """Shape a call as OpenAI does."""
    return {"function": {"name": name, "arguments": arguments}}


def words(text: str) -> int:
    """Count words, in the place of a vocabulary."""
    return len(text.split())


def prompt(*messages: dict[str, Any], **extras: Any) -> int:
    """Count a chat."""
    return count_prompt(model=MODEL, messages=messages, **extras).tokens


def answer(*calls: dict[str, Any], **extras: Any) -> int:
    """Count an answer of calls."""
    return count_completion(model=MODEL, text="", tool_calls=calls, tools=[TOOL], **extras).tokens


@pytest.mark.parametrize(
    "tool",
    [
        TOOL,
        {"name": "bake", "description": "Bake it.", "input_schema": SCHEMA},
        {"toolSpec": {"name": "bake", "description": "Bake it.", "inputSchema": {"json": SCHEMA}}},
    ],
)
def test_tool_is_one_json_in_every_shape(tool: dict[str, Any]) -> None:
    """OpenAI's, Anthropic's and Bedrock's shape of a tool become the same text."""
    assert (
        '{"description": "Bake it.", "name": "bake", "parameters": '
        '{"type": "object", "properties": {"town": {"type": "string"}}}}'
    ) == rendered_tool(tool)


def test_empty_description_is_left_out() -> None:
    """A tool with no description counts as one with an empty one."""
    assert rendered_tool({"name": "bake", "input_schema": {}}) == rendered_tool(
        {"name": "bake", "description": "", "input_schema": {}}
    )


@pytest.mark.parametrize(
    ("told", "choice"),
    [
        (None, Choice.AUTO),
        ("auto", Choice.AUTO),
        ({"type": "auto", "disable_parallel_tool_use": True}, Choice.AUTO),
        ({"auto": {}}, Choice.AUTO),
        ("required", Choice.ANY),
        ({"type": "any"}, Choice.ANY),
        ({"any": {}}, Choice.ANY),
        ({"type": "function", "function": {"name": "bake"}}, Choice.NAMED),
        ({"type": "tool", "name": "bake"}, Choice.NAMED),
        ({"tool": {"name": "bake"}}, Choice.NAMED),
    ],
)
def test_choice_in_every_shape(told: object, choice: Choice) -> None:
    """OpenAI, Anthropic and Bedrock say each in their own way that a tool must be called."""
    assert choice is choice_of(told)


def test_parameters_are_counted_one_by_one() -> None:
    """A call is a name, and for each parameter a name and a value in XML; a value that is no text is JSON."""
    arguments = '{"town": "New York", "tags": ["a", "b"]}'

    assert (16 + 1) + (14 + 1 + 2) + (14 + 1 + 2) == call_tokens(call("bake", arguments), words)


@pytest.mark.parametrize("arguments", ["", "not {json", "[3]", None, '{"a": NaN}'])
def test_odd_arguments_are_counted_somehow(arguments: Any) -> None:
    """What is no JSON object, or was cut, is counted as it is."""
    assert call_tokens(call("bake", arguments), words) >= 16 + 1


def test_answer_of_calls_has_one_frame() -> None:
    """Two calls cost one frame, and each its own."""
    one, two = answer(call("bake", "{}")), answer(call("bake", "{}"), call("bake", "{}"))

    assert (18, 16) == (one - (two - one), two - one - words("bake"))


def test_server_begins_a_call_that_must_be_made() -> None:
    """Of a call that must be made the server writes the beginning, of a named one the name, too."""
    told = [answer(call("bake", "{}"), tool_choice=choice) for choice in (None, "required", {"name": "bake"})]

    assert [18 + 16 + 1, 18 + 16 + 1 - 15, 17] == told


def test_system_text_comes_with_tools_once() -> None:
    """The first tool brings Anthropic's own system text, every further one costs itself alone."""
    none, one, two = prompt(HELLO), prompt(HELLO, tools=[TOOL]), prompt(HELLO, tools=[TOOL, TOOL])

    assert 493 == (one - none) - (two - one)
    assert 91 == prompt(HELLO, tools=[TOOL], tool_choice="required") - one


def test_calls_and_results_have_a_frame_together() -> None:
    """A call and its result cost 27, a second call at once 47 more, and results no message of their own."""
    calls = [call("bake", "{}"), call("bake", "{}")]
    result = {"role": "tool", "content": ""}
    one = prompt(HELLO, {"role": "assistant", "content": None, "tool_calls": calls[:1]}, result)
    two = prompt(HELLO, {"role": "assistant", "content": None, "tool_calls": calls}, result, result)

    assert (3 + 27 + 16 + 1, 47 + 16 + 1) == (one - prompt(HELLO), two - one)


def test_output_schema_is_indented() -> None:
    """An output schema is read with two blanks a level, whatever it stands in."""
    formats = [
        {"type": "json_schema", "json_schema": {"name": "town", "schema": SCHEMA}},
        {"type": "json_schema", "json_schema": {"name": "town", "schema": spaced_json(SCHEMA)}},
    ]
    counted = {prompt(HELLO, response_format=told) - prompt(HELLO) for told in formats}

    assert {83 + count_completion(model=MODEL, text=spaced_json(SCHEMA, indent=2), is_at_limit=True).tokens} == counted


def test_tools_that_anthropic_runs_make_a_lower_bound() -> None:
    """What a search finds is billed in the same request, and not seen."""
    hosted = {"type": "web_search_20250305", "name": "web_search"}
    told = [count_prompt(model=MODEL, messages=[HELLO], tools=[tool]).is_lower_bound for tool in (hosted, TOOL)]

    assert [True, False] == told
    assert is_hosted(hosted)
