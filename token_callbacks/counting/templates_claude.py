"""What Claude reads and writes beside texts: tools as JSON in a system text of Anthropic's own, calls in XML.

The form is the one that Claude itself tells, https://docs.anthropic.com/en/docs/agents-and-tools/tool-use/overview has
the length of the system text, and its constants were counted from recordings, 2024-03 to 2026-07 (docs/counting.md).
"""

import enum
import json
from collections.abc import Callable, Mapping, Sequence

import msgspec

from token_callbacks.counting.texts import field, text_of, tool_call_texts

Count = Callable[[str], int]


class Choice(enum.Enum):
    """Whether a tool must be called, and whether it is known which."""

    AUTO = "auto"
    ANY = "any"
    NAMED = "named"


def choice_of(tool_choice: object) -> Choice:
    """Read a tool choice in the shape of OpenAI, Anthropic or Bedrock."""
    if tool_choice in ("required", "any") or field(tool_choice, "type") == "any":
        return Choice.ANY
    if isinstance(tool_choice, Mapping) and "any" in tool_choice:
        return Choice.ANY
    names = (field(tool_choice, name) for name in ("name", "function", "tool"))
    return Choice.NAMED if any(name is not None for name in names) else Choice.AUTO


class ClaudeTools(msgspec.Struct, frozen=True, kw_only=True):
    """What comes with tools: a system text, longer by `forced` where one must be called, and `tool` for each.

    In a chat, calls that were made at once cost `together` with their results, and `parallel` for each after the first.
    `schema` comes with an output schema.
    """

    system: int
    forced: int
    tool: int = 12
    together: int = 27
    parallel: int = 47
    schema: int = 83

    def tools_tokens(self, tools: Sequence[object], choice: Choice, count: Count) -> int:
        """Count the tools that are offered, in one of the shapes of OpenAI, Anthropic and Bedrock."""
        tokens = self.system if choice is Choice.AUTO else self.system + self.forced
        return tokens + sum(self.tool + count(rendered_tool(tool)) for tool in tools)

    def round_tokens(self, calls: Sequence[object], count: Count) -> int:
        """Count calls that were made at once, and the frames of their results."""
        return self.together + self.parallel * (len(calls) - 1) + sum(call_tokens(call, count) for call in calls)

    def schema_tokens(self, schema: object, count: Count) -> int:
        """Count an output schema, by itself or in what names it: Claude reads it as JSON with two blanks a level."""
        inner = field(schema, "schema")
        told = schema if inner is None else inner
        return self.schema + count(spaced_json(_parsed(told) if isinstance(told, str) else told, indent=2))


class ClaudeCalls(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer of calls costs beside them, its end included; less where the server began them.

    `begun` is what a tool that must be called saves. Of one that is named, the name is given as well: `named` is all.
    """

    frame: int = 18
    begun: int = 15
    named: int = 17

    def tokens(self, calls: Sequence[object], choice: Choice, count: Count) -> int:
        """Count the calls of an answer."""
        counted = sum(call_tokens(call, count) for call in calls)
        if choice is Choice.NAMED:
            return self.named + counted - CALL - count(tool_call_texts(calls[0])[0])
        return self.frame + counted - (self.begun if choice is Choice.ANY else 0)


CALL, PARAMETER = 16, 14
"""What XML adds to the name of a tool, and to a parameter's name and value."""


def call_tokens(call: object, count: Count) -> int:
    """Count a call as the XML that Claude writes: its name, and the names and values of its parameters."""
    name, *texts = tool_call_texts(call)
    parameters = _parsed("".join(texts))
    if not isinstance(parameters, Mapping):
        return CALL + count(name) + count(text_of(parameters))
    values = [(text_of(key), spaced_json(value)) for key, value in parameters.items()]
    return CALL + count(name) + sum(PARAMETER + count(key) + count(value) for key, value in values)


def rendered_tool(tool: object) -> str:
    """Render a tool as the JSON that Claude reads."""
    function = next((inner for name in ("function", "toolSpec") if (inner := field(tool, name)) is not None), tool)
    schemas = (field(function, name) for name in ("input_schema", "parameters", "inputSchema"))
    schema = next((schema for schema in schemas if schema is not None), None)
    inner = field(schema, "json")
    rendered = {
        "description": field(function, "description"),
        "name": field(function, "name"),
        "parameters": schema if inner is None else inner,
    }
    return spaced_json({name: value for name, value in rendered.items() if value not in (None, "")})


def is_hosted(tool: object) -> bool:
    """Tell whether a tool is one of Anthropic's own, by the day its type ends in.

    What it reads before it is used is not sent; and what one that Anthropic runs finds is billed and not seen.
    """
    kind = field(tool, "type")
    return isinstance(kind, str) and kind[-8:].isdigit()


def spaced_json(value: object, *, indent: int | None = None) -> str:
    """Return a text as it is, and what else there is as JSON with blanks; "" for what cannot be written so."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, indent=indent)
    except (TypeError, ValueError, RecursionError):
        return text_of(value)


def _parsed(arguments: str) -> object:
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
