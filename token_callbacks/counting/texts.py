"""Find the text in what a framework hands over, whatever shape it has; nothing in here raises on odd shapes."""

import json
from collections.abc import Mapping, Sequence

_MAPPINGS = (dict, Mapping)
_LISTS = (list, tuple)  # a union of them is made anew by whoever names one
_SIZED = (str, list, tuple, dict)


def field(value: object, name: str) -> object:
    """Return the named entry of a mapping or attribute of an object, None where there is none.

    LiteLLM's and OpenAI's users append the answer's message object to the list of dicts that they send next.
    """
    # dict and list are asked for first, here and below: an abstract class takes ten times as long to say yes.
    if type(value) is dict or isinstance(value, _MAPPINGS):
        return value.get(name)
    return getattr(value, name, None)


def items_of(value: object) -> Sequence[object]:
    """Return a sequence as it is, nothing for None, and anything else, a string too, as the only item."""
    if isinstance(value, _LISTS):
        return value
    if value is None:
        return ()
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        return value
    return (value,)


def is_told(value: object) -> bool:
    """Tell whether a field holds anything: None and empty text or containers are how frameworks leave one out."""
    return value is not None and not (isinstance(value, _SIZED) and len(value) == 0)


def text_of(value: object) -> str:
    """Return the text that a value stands for: a string as it is, bytes decoded, the rest as compact JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bytes | bytearray):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, bool | int | float | Mapping | list | tuple):
        return compact_json(value)
    return ""


def texts_of(content: object) -> list[str]:
    """Return the texts of a message's content: one of a string, one a text part of a list, none of an image."""
    if isinstance(content, str):
        return [content]
    return [part_text(part) for part in items_of(content)]


def part_text(part: object) -> str:
    """Return the text or the refusal of a part of a message's content, "" for a part that holds neither."""
    if isinstance(part, str | bytes | bytearray | int | float):
        return text_of(part)
    texts = (field(part, name) for name in ("text", "refusal"))
    return next((text_of(text) for text in texts if text is not None), "")


def is_text_part(part: object) -> bool:
    """Tell whether a part of a message's content is text and nothing else."""
    return field(part, "type") == "text" and isinstance(field(part, "text"), str)


def tool_call_texts(call: object) -> list[str]:
    """Return the name and the arguments of a tool call in one of OpenAI's shapes."""
    shapes = (field(call, "function"), field(call, "custom"))
    function = next((shape for shape in shapes if shape is not None), call)
    return [text_of(field(function, name)) for name in ("name", "arguments", "input")]


def compact_json(value: object, *, escapes: bool = False) -> str:
    """Return the value as JSON without blanks, "" for a cyclic or bottomless one; `escapes` what is not ASCII."""
    try:
        return json.dumps(value, ensure_ascii=escapes, separators=(",", ":"), skipkeys=True, default=_json_value)
    except (TypeError, ValueError, RuntimeError):
        # RuntimeError: nested too deep, or changed by the caller's thread meanwhile. ValueError: a cycle, or an int of
        # more than 4,300 digits.
        return ""


def _json_value(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    return text_of(value) or None
