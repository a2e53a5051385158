"""Render an output schema (structured outputs) as OpenAI's models read it: a section with compact JSON.

Found by counting 92 recorded requests of the chat API, 2024-10 to 2026-03 (docs/counting.md): the keywords below are
taken out, titles, descriptions and references stay. The heading is that of https://cookbook.openai.com/articles/openai-harmony.
"""

from collections.abc import Mapping

from token_callbacks.counting.texts import compact_json, field, text_of

TAKEN_OUT = ("required", "additionalProperties", "default", "minimum", "maximum", "maxItems", "minItems")
NAMES_BELOW = ("properties", "$defs", "definitions")
"""Keywords that hold names of the user's own, which are no keywords."""

UNSEEN = (
    *("pattern", "format", "oneOf", "allOf", "not", "multipleOf", "minLength", "maxLength", "uniqueItems", "examples"),
    *("exclusiveMinimum", "exclusiveMaximum", "minProperties", "maxProperties", "prefixItems"),
)
"""Keywords that no recorded output schema had: whether they stay is not known."""

MOST_LEVELS = 32


def rendered_schema(schema: object, *, escapes: bool = False) -> str:
    """Render what stands under ``json_schema`` in a chat's response format, or the format of the Responses API.

    `escapes` is how gpt-4o-mini reads what is not ASCII.
    """
    body = field(schema, "schema")
    kept = _without(body, level=0) if isinstance(body, Mapping) else {}
    description = text_of(field(schema, "description"))
    comment = f"// {description}\n" if description else ""
    return (
        f"# Response Formats\n\n## {text_of(field(schema, 'name'))}\n\n{comment}{compact_json(kept, escapes=escapes)}"
    )


def is_seen(rendered: str) -> bool:
    """Tell whether a rendered schema holds only what recordings have shown; a property may be named like a keyword."""
    return not any(f'"{word}":' in rendered for word in UNSEEN)


def _without(value: object, *, level: int, is_names: bool = False) -> object:
    if level > MOST_LEVELS:
        return None
    if isinstance(value, Mapping):
        return {
            name: _without(below, level=level + 1, is_names=not is_names and name in NAMES_BELOW)
            for name, below in value.items()
            if is_names or name not in TAKEN_OUT
        }
    if isinstance(value, list | tuple):
        return [_without(below, level=level + 1) for below in value]
    return value
