"""Lanes: the commonest usage objects read in one go, by msgspec, once their like has been read the general way.

Nearly every call of a program brings a usage object of the same class, or with the same keys, as the call before it. Of
the first one a lane is laid: a shape of counts and of objects of counts, and nothing else, with the places of the
figures in it, which ``usage.py`` found by its dialects. An object that is not exactly so (a key more, a count that is a
string, negative or huge) does not fit and is read the general way: a lane only repeats what that one has done.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Optional

import msgspec

from token_callbacks.records import Usage

LARGEST = 2**53
"""The largest integer that every JSON reader keeps exact."""

Places = Mapping[str, str]
"""The figures, among them ``total_tokens``, and the dotted path to each."""

_Count = Annotated[int, msgspec.Meta(ge=0, le=LARGEST)] | None
_NoExtra = Annotated[dict[str, Any], msgspec.Meta(max_length=0)]
_EXTRA, _NAMES_SET, _NOTHING = "__pydantic_extra__", "__pydantic_fields_set__", "nothing_of_this_name"
_WHOLES = ("embedding_tokens", "prompt_tokens", "completion_tokens")
_MOST_NAMES = 20
_DEEPEST = 2


class Lane:
    """How the usage objects of one shape are read and copied."""

    __slots__ = (
        "_figures",
        "_has_attributes",
        "_kinds",
        "_kinds_of",
        "_parts",
        "_paths",
        "_reasoning_is_in",
        "_shape",
        "_wholes",
    )

    def __init__(
        self,
        shape: type[msgspec.Struct],
        places: Places,
        example: object,
        parts: Sequence[str],
        *,
        reasoning_is_in: bool,
    ) -> None:
        self._shape = shape
        self._reasoning_is_in = reasoning_is_in
        self._paths = [places.get(figure, _NOTHING).split(".") for figure in (*Usage.__struct_fields__, "total_tokens")]
        self._figures = operator.attrgetter(*map(".".join, self._paths))
        self._wholes = [position for position, name in enumerate(_WHOLES) if name in places]
        self._has_attributes = type(example) is not dict
        self._parts = parts
        self._kinds_of = operator.attrgetter(*(f"{part}.__class__" for part in parts), "__class__", "__class__")
        self._kinds = self._kinds_of(example) if self._has_attributes else ()

    def read(self, payload: object) -> tuple[Usage, Any] | None:
        """Read an object's usage and copy it into the shape; ``None`` where it does not fit, or tells less than most.

        In one function, for each call of one costs more here than what it does.
        """
        try:
            if self._has_attributes and self._kinds_of(payload) != self._kinds and not self._is_alike(payload):
                return None
            shaped = msgspec.convert(payload, self._shape, from_attributes=self._has_attributes)
        except (ValueError, AttributeError, RecursionError):  # ValidationError among them, and half a surrogate pair
            return None
        try:
            figures: Sequence[Any] = self._figures(shaped)
        except AttributeError:  # a part is null
            figures = [_at(shaped, path) for path in self._paths]
        for whole in self._wholes:
            if not figures[whole]:
                return None
        embedding, prompt, completion, read, written, thought, heard, spoken, seen, watched, hour, taken, left, _ = (
            figures
        )
        if thought and not self._reasoning_is_in and _may_stand_beside(thought, prompt, completion, figures[-1]):
            return None
        usage = Usage(
            embedding_tokens=embedding,
            prompt_tokens=prompt,
            completion_tokens=completion,
            cache_read_tokens=read,
            cache_write_tokens=written,
            reasoning_tokens=thought,
            audio_prompt_tokens=heard,
            audio_completion_tokens=spoken,
            image_prompt_tokens=seen,
            video_prompt_tokens=watched,
            cache_write_1h_tokens=hour,
            accepted_prediction_tokens=taken,
            rejected_prediction_tokens=left,
        )
        return usage, shaped

    def _is_alike(self, payload: object) -> bool:
        """Tell whether only parts that are null make a difference."""
        kinds = zip(self._kinds_of(payload), self._kinds, strict=True)
        return all(kind is known or kind is type(None) for kind, known in kinds)

    def plain(self, shaped: Any, payload: object) -> dict[str, Any] | None:
        """Make plain JSON values of what was sent; ``None`` where there was a null that the shape does not tell of."""
        plain: dict[str, Any] = msgspec.to_builtins(shaped)
        return plain if not self._has_attributes or self._is_what_was_sent(plain, payload) else None

    def _is_what_was_sent(self, plain: Mapping[str, Any], payload: object) -> bool:
        """Tell whether the names that are not null are those that somebody set."""
        if plain.keys() != getattr(payload, _NAMES_SET):
            return False
        for name in self._parts:
            part = plain.get(name)
            if part is not None and part.keys() != getattr(getattr(payload, name), _NAMES_SET, part.keys()):
                return False
        return True


def lane_for(example: object, places: Places, *, reasoning_is_in: bool) -> Lane | None:
    """Lay a lane for what is shaped like an example; ``None`` where there is more to it than counts.

    ``reasoning_is_in``: whether it is certain that the completion has the reasoning in it.
    """
    shape = _shape_of(example, _DEEPEST)
    if shape is None:
        return None
    parts = [name for name, value in (names_of(example) or {}).items() if value is not None and type(value) is not int]
    return Lane(shape, places, example, parts, reasoning_is_in=reasoning_is_in)


def names_of(example: object) -> Mapping[Any, Any] | None:
    """Tell what a dict, or an object of a pydantic class, holds; ``None`` for anything else, or for what holds more."""
    if type(example) is dict:
        return example
    fields: Any = getattr(type(example), "model_fields", None)
    values: Any = getattr(example, "__dict__", None)
    is_model = (
        isinstance(fields, dict) and isinstance(values, dict) and isinstance(getattr(example, _NAMES_SET, 0), set)
    )
    return values if is_model and values.keys() == fields.keys() and not getattr(example, _EXTRA, None) else None


def _shape_of(example: object, depth: int) -> type[msgspec.Struct] | None:
    names = names_of(example)
    if names is None or depth == 0 or len(names) > _MOST_NAMES or not all(map(_is_name, names)):
        return None
    fields: list[Any] = []
    for name, value in names.items():
        inner = None if value is None or type(value) is int else _shape_of(value, depth - 1)
        if inner is None and not (value is None or type(value) is int):
            return None
        fields.append((name, _Count if inner is None else Optional[inner]))  # noqa: UP045 - of a value
    options: dict[str, Any] = {"forbid_unknown_fields": True, "namespace": {_NOTHING: None}}
    if type(example) is dict:  # all its keys, and no others
        return msgspec.defstruct("Shape", fields, **options)
    fields = [(name, kind, None) for name, kind in fields]
    if getattr(example, _EXTRA, None) is not None:
        fields.append((_EXTRA, _NoExtra, msgspec.field(default_factory=dict)))
    return msgspec.defstruct("Shape", fields, omit_defaults=True, **options)


def _may_stand_beside(reasoning: int, prompt: int | None, completion: int | None, total: int | None) -> bool:
    """Tell whether a provider that may count reasoning beside the completion seems to do so."""
    return prompt is None or completion is None or reasoning > completion or total == prompt + completion + reasoning


def _is_name(name: object) -> bool:
    return isinstance(name, str) and name.isidentifier() and name.isascii() and name != _NOTHING


def _at(shaped: Any, path: Sequence[str]) -> Any:
    for name in path:
        shaped = getattr(shaped, name, None)
    return shaped
