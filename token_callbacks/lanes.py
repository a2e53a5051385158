"""Lanes: the commonest usage objects read in one go, once their like has been read the general way.

Nearly every call of a program brings a usage object of the same class, or with the same keys, as the call before it. Of
the first one a lane is laid: a function is written, as ``dataclasses`` writes them, that takes exactly such an object
apart, one of counts and of objects of counts and nothing else, with the places of the figures in it, which ``usage.py``
found by its dialects. An object that is not exactly so (a key more, null for a count, a count that is a string,
negative or huge) does not fit and is read the general way: a lane only repeats what that one has done.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from token_callbacks.records import LARGEST, LARGEST_CONTEXT, Usage

_T = TypeVar("_T")

Places = Mapping[str, Sequence[str]]
"""The figures, among them ``total_tokens``, and the names that lead to each."""

Parts = tuple[Any, ...]
"""An object taken apart: it, the objects in it, and all counts as one tuple."""

_EXTRA, _NAMES_SET = "__pydantic_extra__", "__pydantic_fields_set__"
_WHOLES = ("embedding_tokens", "prompt_tokens", "completion_tokens")
_PROMPT_PARTS = (
    "cache_read_tokens",
    "cache_write_tokens",
    "audio_prompt_tokens",
    "image_prompt_tokens",
    "video_prompt_tokens",
)
_COMPLETION_PARTS = ("reasoning_tokens", "audio_completion_tokens")
_MOST_NAMES = 20
_LONGEST_NAME = 100
_DEEPEST = 2


Copy = Callable[[Parts], "dict[str, Any] | None"]
"""Makes plain JSON values of what was sent; ``None`` where other fields of a model were set than of the first."""


class Lane(Generic[_T]):
    """Reads objects like the one that it was laid for."""

    __slots__ = ("_body", "_names", "read")

    def __init__(self, body: Sequence[str], names: dict[str, Any]) -> None:
        self._body = body
        self._names = names
        self.read = self._written("it", ["names = None"])
        """Takes an object; returns what was ``made`` of it, ``None`` for one that does not fit."""

    def behind(self, fields: Sequence[str]) -> Callable[[Any], _T | None]:
        """Return what reads answers of a pydantic class.

        ``fields``: of an answer; that of the object, and of the names to hand on with what is made, if both are told.
        What the provider sent, and the class does not know, goes before them: such an answer does not fit.
        """
        self._names |= {"take": operator.itemgetter(*fields), "fields": frozenset(fields)}
        head = [
            f"extra = answer.{_EXTRA}",
            "if extra and type(extra) is dict and not fields.isdisjoint(extra): return None",
            "it, first, second = take(answer.__dict__)",
            "if type(it) is not kind: return None",
            "names = (first, second) if type(first) is str and type(second) is str and first and second else None",
        ]
        return self._written("answer", head)

    def _written(self, argument: str, head: Sequence[str]) -> Callable[[Any], _T | None]:
        lines = f"\n{' ' * 8}".join([*head, *self._body])
        source = f"""
def read({argument}):
    try:
        {lines}
    except (AttributeError, KeyError, TypeError):
        return None
"""
        functions = dict(self._names)
        exec(source, functions)  # noqa: S102 - of names that are identifiers, see _is_name
        read: Callable[[Any], _T | None] = functions["read"]
        return read


def lane_for(example: object, places: Places, made: Callable[..., _T], *, reasoning_is_in: bool) -> Lane[_T] | None:
    """Lay a lane for what is like an example; ``None`` where there is more to it than counts.

    Returned by it is what ``made`` makes of an object's ``usage``, its ``parts``, what makes a ``copy`` of them, the
    ``names``, and that it ``is_counts``; an object that tells too little, or is doubtful, does not fit.
    ``reasoning_is_in``: whether it is certain that the completion has the reasoning in it.
    """
    if not _holds_counts(example, _DEEPEST):
        return None
    taken = _Taken(example)
    figures = {figure: variable for figure, path in places.items() if (variable := taken.variable(path)) is not None}
    if any(whole in places and whole not in figures for whole in _WHOLES):
        return None  # it is told by something else than where it stands
    tests = [f"not {figures[whole]}" for whole in _WHOLES if whole in figures]
    reasoning = figures.get("reasoning_tokens")
    if reasoning is not None and not reasoning_is_in:
        beside = [figures.get(name, "None") for name in ("prompt_tokens", "completion_tokens", "total_tokens")]
        tests.append(f"{reasoning} and {_beside(reasoning, *beside)}")
    tests += _doubts(figures)
    usage = ", ".join(f"{figure}={figures[figure]}" for figure in Usage.__struct_fields__ if figure in figures)
    body = [
        *taken.lines,
        f"counts = {', '.join(taken.counts)},",
        "if [*map(type, counts)] != types: return None",
        # One is negative or huge.
        f"if ({' | '.join(taken.told)}) >> {LARGEST.bit_length() - 1}: return None",
        f"if {' or '.join(tests)}: return None",
        f"return made(usage=Usage({usage}), parts=({taken.objects}, counts), copy=copy, names=names, is_counts=True)",
    ]
    functions = {"Usage": Usage, "made": made, "copy": taken.copied(), "types": taken.types, "kind": type(example)}
    return Lane(body, functions | taken.constants)


def names_of(example: object) -> Mapping[Any, Any] | None:
    """Tell what a dict, or an object of a pydantic class, holds; ``None`` for anything else, or for what holds more."""
    if type(example) is dict:
        return example
    fields, values = fields_of(type(example)), getattr(example, "__dict__", None)
    if fields is None or not isinstance(values, dict) or not isinstance(getattr(example, _NAMES_SET, 0), set):
        return None
    return values if values.keys() == fields.keys() and not getattr(example, _EXTRA, None) else None


def fields_of(kind: type[Any]) -> Mapping[str, Any] | None:
    """Tell the fields of a pydantic class; ``None`` for any other."""
    try:
        fields = getattr(kind, "model_fields", None)
    except Exception:  # noqa: BLE001 - classes of any class
        return None
    return fields if isinstance(fields, dict) else None


class _Taken:
    """An object like the example, as code that takes it apart."""

    def __init__(self, example: object) -> None:
        self.counts: list[str] = []
        """The variables of all counts."""
        self.types: list[type] = []
        """Of each."""
        self.constants: dict[str, Any] = {}
        self._objects = ["it"]
        self._differences: list[str] = []
        """Whether other names were set than of the example."""
        self._by_path: dict[Sequence[str], str] = {}
        """The variables of those that are told."""
        self.lines, self._copy = self._object("it", example, ())

    def variable(self, path: Sequence[str]) -> str | None:
        """Name what holds the count at the end of a path; ``None`` where it is null."""
        return self._by_path.get(tuple(path))

    @property
    def told(self) -> list[str]:
        """The variables of the counts that are not null."""
        return [*self._by_path.values()]

    @property
    def objects(self) -> str:
        """The variables of it and the objects in it."""
        return ", ".join(self._objects)

    def copied(self) -> Copy:
        """Write what makes a copy."""
        source = f"""
def copy(parts):
    {self.objects}, ({", ".join(self.counts)},) = parts
    try:
        if {" or ".join(self._differences) or "False"}:
            return None
    except AttributeError:
        return None
    return {self._copy}
"""
        functions = dict(self.constants)
        exec(source, functions)  # noqa: S102 - of names that are identifiers, see _is_name
        copy: Copy = functions["copy"]
        return copy

    def _object(self, it: str, example: Any, path: tuple[str, ...]) -> tuple[list[str], str]:
        """Write, line by line, how an object is taken apart, and a copy of what of it was sent."""
        values: Any = names_of(example)
        sent, lines = values, [f"within = {it}"]
        if type(example) is not dict:
            sent = set(getattr(example, _NAMES_SET))
            lines = [f"if {it}.{_EXTRA}: return None", f"within = {it}.__dict__"]
            self._differences.append(f"{it}.{_NAMES_SET} != {self._constant(sent)}")
        variables = {name: f"{it}_{number}" for number, name in enumerate(values)}
        lines += [
            f"if len(within) != {len(values)}: return None",
            f"{', '.join(variables.values())} = {self._constant(operator.itemgetter(*values))}(within)",
        ]
        copied = []
        for name, value in values.items():
            variable = copy = variables[name]
            if _may_be_count(value):
                self.counts.append(variable)
                self.types.append(type(value))
                if value is not None:
                    self._by_path[*path, name] = variable
            else:
                self._objects.append(variable)
                inner, copy = self._object(variable, value, (*path, name))
                lines += [f"if type({variable}) is not {self._constant(type(value))}: return None", *inner]
            if name in sent:
                copied.append(f"{name!r}: {copy}")
        return lines, f"{{{', '.join(copied)}}}"

    def _constant(self, value: object) -> str:
        name = f"known_{len(self.constants)}"
        self.constants[name] = value
        return name


def _holds_counts(example: object, depth: int) -> bool:
    """Tell whether there are counts, and objects that hold counts, and nothing else."""
    values = names_of(example)
    return (
        values is not None
        and 0 < len(values) <= _MOST_NAMES
        and depth > 0
        and all(_is_name(name) for name in values)
        and all(_may_be_count(value) or _holds_counts(value, depth - 1) for value in values.values())
    )


def _may_be_count(value: object) -> bool:
    return value is None or type(value) is int


def _is_name(name: object) -> bool:
    return type(name) is str and name.isidentifier() and name.isascii() and len(name) <= _LONGEST_NAME


def _beside(reasoning: str, prompt: str, completion: str, total: str) -> str:
    """Write whether a provider that may count reasoning beside the completion seems to do so; no whole is ``None``."""
    if "None" in (prompt, completion):
        return "True"
    return f"({reasoning} > {completion} or {total} == {prompt} + {completion} + {reasoning})"


def _doubts(figures: Mapping[str, str]) -> list[str]:
    """Write what speaks against the figures (``Reading.doubts``), or against a price of each part (``Basis``)."""
    tests = [f"{figures[whole]} > {LARGEST_CONTEXT}" for whole in _WHOLES if whole in figures]
    prompt = figures.get("prompt_tokens") or figures.get("embedding_tokens")
    for whole, names in ((prompt, _PROMPT_PARTS), (figures.get("completion_tokens"), _COMPLETION_PARTS)):
        parts = [figures[name] for name in names if name in figures]
        if parts:
            tests.append(f"{' + '.join(parts)} > {whole or 0}")
    if "cache_write_1h_tokens" in figures:
        tests.append(f"{figures['cache_write_1h_tokens']} > {figures.get('cache_write_tokens', '0')}")
    return tests
