"""Render the tools of a request as OpenAI's models read them: a namespace in TypeScript.

Nobody documents it for the API; https://github.com/openai/harmony/blob/main/src/encoding.rs has it for gpt-oss, and
what differs was found by counting 240 recorded requests with tools (docs/counting.md), 2023-12 to 2026-07. Only the
number of its tokens matters. What was never seen in a recording is rendered as best as can be, and is not sure.
"""

import json
from collections.abc import Iterator, Mapping

import msgspec

from token_callbacks.counting.texts import compact_json, field, items_of, text_of

UNSEEN = ("oneOf", "allOf", "not", "format", "pattern", "examples", "nullable", "patternProperties", "const")
"""Keywords of JSON Schema whose rendering no recording has shown."""

MOST_LEVELS = 16
"""Deeper schemas, and those that hold themselves, are cut."""


class Rendered(msgspec.Struct, frozen=True, kw_only=True):
    """The text of the tools, whether it is known to be rendered so, and whether any tool has a description."""

    text: str
    is_sure: bool
    is_described: bool


def rendered_tools(tools: object, *, breaks_unions: bool, is_older: bool = False) -> Rendered:
    """Render the tools, in one of OpenAI's shapes; `breaks_unions` is how the chat API writes ``string | null``.

    `is_older`: the models of 2023 read no titles, and every property in a line of its own.
    """
    functions = [_function(tool) for tool in items_of(tools)]
    renderer = _Renderer(breaks_unions=breaks_unions, is_older=is_older)
    named = [function for function in functions if isinstance(field(function, "name"), str)]
    renderer.is_sure = len(named) == len(functions)
    lines = ["namespace functions {", ""]
    for function in named:
        lines += [*renderer.declaration(function), ""]
    lines.append("} // namespace functions")
    is_described = any(text_of(field(function, "description")) for function in named)
    return Rendered(text="\n".join(lines), is_sure=renderer.is_sure, is_described=is_described)


def _function(tool: object) -> object:
    if field(tool, "type") not in (None, "function"):
        return None
    function = field(tool, "function")
    return tool if function is None else function


class _Property(msgspec.Struct, frozen=True):
    comments: list[str]
    name: str
    kind: str
    end: str

    @property
    def in_line(self) -> str:
        """The property without its comments, a union in one line and, by its count, without the blank before it."""
        gap = "" if self.kind.startswith("\n") else " "
        return f"{self.name}:{gap}{' '.join(self.kind.split()).removeprefix('| ')}"


class _Renderer:
    """Renders schemas, and remembers whether it was sure of all of them."""

    def __init__(self, *, breaks_unions: bool, is_older: bool) -> None:
        self.is_sure = True
        self._is_older = is_older
        self._breaks_unions = breaks_unions
        self._definitions: dict[str, object] = {}

    def declaration(self, function: object) -> Iterator[str]:
        """Yield the lines of one tool."""
        yield from _comment(field(function, "description"))
        schema = field(function, "parameters")
        name = text_of(field(function, "name"))
        if not isinstance(schema, Mapping) or not field(schema, "properties"):
            yield f"type {name} = () => any;"
            return
        above = "" if self._breaks_unions else "".join(f"{line}\n" for line in _comment(schema.get("description")))
        self.is_sure = self.is_sure and not (self._breaks_unions and schema.get("description"))
        self._definitions = {**_mapping(schema, "definitions"), **_mapping(schema, "$defs")}
        yield f"type {name} = (_: {above}{self._object(schema, level=0)}) => any;"

    def _object(self, schema: Mapping[str, object], *, level: int) -> str:
        properties = _mapping(schema, "properties")
        if not properties:
            return "object"
        required = [name for name in items_of(schema.get("required")) if isinstance(name, str)]
        parts = [self._property(name, value, name in required, level=level) for name, value in properties.items()]
        if not self._is_older and not any(part.comments or part.end != "," or "{\n" in part.kind for part in parts):
            return f"{{ {', '.join(part.in_line for part in parts)} }}"
        own = self._comments(schema) if level == 0 and self._breaks_unions else self._title(schema)
        lines = [*own]
        for part in parts:
            gap = "" if part.kind.startswith("\n") else " "
            lines += [*part.comments, f"{part.name}:{gap}{part.kind}{part.end}"]
        return "{\n" + "\n".join(lines) + "\n}"

    def _title(self, schema: Mapping[str, object]) -> list[str]:
        return [] if self._is_older else _comment(schema.get("title"))

    def _comments(self, schema: Mapping[str, object]) -> list[str]:
        title, description = self._title(schema), _comment(schema.get("description"))
        return [*title, "//", *description] if title and description else [*title, *description]

    def _property(self, name: str, value: object, is_required: bool, *, level: int) -> _Property:
        schema = value if isinstance(value, Mapping) else {}
        end = f", // default: {compact_json(schema['default'])}" if "default" in schema else ","
        comments = self._comments(schema)
        kind = self._kind(schema, level=level + 1)
        if self._breaks_unions and level > 0 and isinstance(schema.get("type"), list) and schema.get("description"):
            described = "\n".join(_comment(schema["description"]))
            kind = "\n" + "".join(f"{described}\n| {alternative}\n" for alternative in kind.strip("\n| ").split(" | "))
        return _Property(comments, name if is_required else f"{name}?", kind, end)

    def _kind(self, schema: Mapping[str, object], *, level: int) -> str:
        if level > MOST_LEVELS:
            self.is_sure = False
            return "any"
        if any(word in schema for word in UNSEEN):
            self.is_sure = False
        reference = schema.get("$ref")
        if isinstance(reference, str):
            found = self._definitions.get(reference.rpartition("/")[2])
            return self._kind(found if isinstance(found, Mapping) else {}, level=level + 1)
        if isinstance(schema.get("enum"), list):
            return " | ".join(_literal(value) for value in items_of(schema["enum"]))
        if "const" in schema:
            return _literal(schema["const"])
        return self._union(schema, level=level) or self._plain_kind(schema, level=level)

    def _union(self, schema: Mapping[str, object], *, level: int) -> str | None:
        for word in ("anyOf", "oneOf", "allOf"):
            if isinstance(schema.get(word), list):
                members = [member for member in items_of(schema[word]) if isinstance(member, Mapping)]
                kinds = [self._kind(member, level=level + 1) for member in members]
                if self._breaks_unions:
                    return "\n" + "".join(f"| {kind}\n" for kind in kinds)
                return " | ".join(kinds)
        return None

    def _plain_kind(self, schema: Mapping[str, object], *, level: int) -> str:
        kind = schema.get("type")
        if isinstance(kind, list):
            members = [{**schema, "type": member} for member in kind if isinstance(member, str)]
            return " | ".join(self._plain_kind(member, level=level) for member in members)
        if kind in ("integer", "number"):
            return "number"
        if kind == "object":
            return self._object(schema, level=level)
        if kind == "array":
            return self._array(schema.get("items"), level=level)
        return kind if isinstance(kind, str) else "any"

    def _array(self, items: object, *, level: int) -> str:
        if not isinstance(items, Mapping) or not items:
            return "any[]"
        kind = self._kind(items, level=level + 1)
        return f"Array<\n{kind}\n>" if kind.startswith("{\n") else f"{kind}[]"


def _mapping(schema: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = schema.get(name)
    return found if isinstance(found, Mapping) else {}


def _comment(text: object) -> list[str]:
    """Comment a text out: every line of it loses its indentation."""
    if not isinstance(text, str) or not text.strip():
        return []
    return [f"// {line.strip()}".rstrip() for line in text.strip().split("\n")]


def _literal(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return "any"
