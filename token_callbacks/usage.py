"""A provider's usage, of whatever dialect and wherever in the answer it stands, read into ``Usage``.

The dialects and the places are data (``dialects.py``). Reading is pure and never raises: what is not a sensible token
count (a negative, a fraction, a string, a boolean, more than 2**53) is as good as not told. Where it stood, and what it
is, can be asked for afterwards: a reading of it is ``unreadable``, and ``misfits_in_first`` and its like name it.

In a stream the usage may be told again and again. It is then cumulative, so the last word counts; but where each choice
of ``n`` tells its own, the choices are added up; and what fills in for a usage object counts only where there is none.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, cast

import msgspec

from token_callbacks.charges import MONEY_NAMES
from token_callbacks.dialects import DIALECTS, PLACES, USAGE_NAMES, Dialect
from token_callbacks.lanes import Copy, Lane, Parts, Places, fields_of, lane_for, names_of
from token_callbacks.records import LARGEST, LARGEST_CONTEXT, Doubt, Operation, Usage

View = Mapping[Any, Any]
"""A payload as keys and values."""

Misfits = dict[str, str]
"""What stands in a provider's usage and is no count: by the name of the field, which is one that we know, its type or
what is wrong with the number. Never the value: it may be text of the host's."""

UNKNOWN_SHAPE = "unknown shape"
"""Stands for a usage object in which no name is known: nothing in it is broken."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """Usage as the provider told it, and what it stood in."""

    usage: Usage
    found: tuple[Found, ...] = ()
    shrank: bool = False
    """A stream told fewer completion tokens than before."""
    grew: bool = False
    """A stream told more completion tokens than before: what it told last is its count up to there, and no opening."""
    unreadable: bool = False
    """Some of the answer could not be read."""
    parts: Parts = ()
    """The usage object, as a lane took it apart."""
    copy: Copy | None = None
    """Makes plain JSON values of the parts."""
    is_counts: bool = False
    """It is certain that there is nothing but counts in the payload, and that nothing speaks against them.

    Nor against a price of each part: they lie beside one another.
    """
    names: tuple[str, str] | None = None
    """The id and the model of the answer that was read, where they were seen on the way to its usage."""

    @property
    def payload(self) -> dict[str, Any]:
        """The provider's usage object as plain JSON values; several objects of one answer are one."""
        if self.copy is not None:
            copied = self.copy(self.parts)
            return as_plain(self.parts[0]) if copied is None else copied
        plain: dict[str, Any] = {}
        for found in reversed(self.found):
            try:
                plain |= found.plain()
            except Exception:  # noqa: BLE001, S112 - objects of any class: what cannot be copied is left out
                continue
        return plain

    @property
    def doubts(self) -> list[Doubt]:
        """What speaks against the figures, though the provider told them."""
        usage = self.usage
        doubts = [Doubt.SHRANK] if self.shrank else []
        if self.unreadable:
            doubts.append(Doubt.UNREADABLE_PART)
        prompt, completion = usage.prompt_tokens, usage.completion_tokens
        read, thought = usage.cache_read_tokens, usage.reasoning_tokens
        if (prompt or 0) > LARGEST_CONTEXT or (completion or 0) > LARGEST_CONTEXT:
            doubts.append(Doubt.LARGER_THAN_ANY_CONTEXT)
        if (read and prompt is not None and read > prompt) or (
            thought and completion is not None and thought > completion
        ):
            doubts.append(Doubt.PART_EXCEEDS_WHOLE)
        return doubts


class Found(msgspec.Struct, frozen=True):
    """An object that held usage."""

    value: Any
    is_usage: bool
    """It is a usage object; else it is a whole answer, with figures beside its text: only those are kept of it."""
    place: str = ""
    """The name that it stands under."""

    def plain(self) -> dict[str, Any]:
        """Copy it into plain JSON values."""
        return as_plain(self.value) if self.is_usage else _numbers_of(self.value)


def read_usage(payload: object, operation: Operation) -> Reading | None:
    """Read one usage object; ``None`` where it tells no figure of this operation."""
    return read_usage_like(payload, operation) or _read_one(payload, operation)


def read_usage_like(payload: object, operation: Operation) -> Reading | None:
    """Read a usage object that is shaped like those before, and stands in its usual place; ``None`` for any other."""
    for lane in _lanes_of(payload, operation):
        if lane is not None and (reading := lane.read(payload)) is not None:
            return reading
    return None


def read_answer(answer: object, operation: Operation, odd: list[Any] | None = None) -> Reading | None:
    """Read the usage in an answer, wherever it is; ``None`` where it tells no figure of this operation.

    ``odd``: is given the answer, if something stands where its usage may be and not all of that was read.
    """
    reading = read_like(answer, operation)
    return read_anew(answer, operation, odd) if reading is None else reading


def read_like(answer: object, operation: Operation) -> Reading | None:
    """Read the usage of an answer like those before; ``None`` for any other.

    Its names are read with it: the reading must not be taken for another answer's.
    """
    for read in _readers[operation is _EMBEDDING].get(type(answer), _NO_READERS).values():
        reading = read(answer)
        if reading is not None:
            return reading
    return None


def read_anew(answer: object, operation: Operation, odd: list[Any] | None = None) -> Reading | None:
    """Do what ``read_answer`` does for an answer that is not like those before."""
    view = answer if type(answer) is dict else view_of(answer)
    if view is None or (type(view) is dict and not view):
        return None
    payload = view.get(_FIRST_PLACE)
    if payload is not None:
        for lane in _lanes_of(payload, operation):
            if lane is not None and (reading := lane.read(payload)) is not None:
                if view is not answer:  # of a class, which may have fields
                    _lead_to(lane, type(answer), operation)
                return reading
    places, is_itself = _places_in(_keys(view))
    if not places and not is_itself:
        return None
    reading, may_tell = _read_at(places, view, operation)
    if reading is None:
        if not may_tell and not is_itself:
            return None
        reading = read_stream((answer,), operation)
    if odd is not None and (reading is None or reading.unreadable):
        odd.append(answer)
    return reading


def _read_at(places: Iterable[_Steps], view: View, operation: Operation) -> tuple[Reading | None, bool]:
    """Read the first of the places that tells all; and tell whether something stands at any."""
    is_there = False
    for steps in places:  # nearly always the first one tells it all
        value = view.get(steps[0][0]) if len(steps) == 1 else _follow(view, steps)
        if value is None:
            continue
        is_there = True
        if type(value) is list:  # one for each choice
            break
        if (reading := _read_one(value, operation, is_all=True)) is not None:
            return reading, True
    return None, is_there


def read_stream(events: Iterable[object], operation: Operation) -> Reading | None:
    """Read the usage that the events of one streamed answer tell, in their order."""
    reader = UsageReader(operation)
    for event in events:
        reader.take(event)
    return reader.reading()


def read_first(
    answers: Iterable[object], operation: Operation, first: Reading | None = None, odd: list[Any] | None = None
) -> Reading | None:
    """Read the first answer that tells a figure other than zero, else the first that tells any.

    ``first``: what was read of an answer that goes before them. ``odd``: see ``read_answer``.
    """
    if first is not None and not _is_all_zero(first.usage):
        return first
    fallback = first
    for answer in answers:
        reading = read_anew(answer, operation, odd)  # without its names: who asks has names of his own
        if reading is not None and not _is_all_zero(reading.usage):
            return reading
        fallback = fallback or reading
    return fallback


def misfits_in_stream(events: Iterable[object], operation: Operation) -> Misfits:
    """Name what is no count in the usage that the events of one streamed answer tell."""
    reader = UsageReader(operation)
    for event in events:
        reader.take(event)
    return reader.misfits()


def misfits_in_first(answers: Iterable[object], operation: Operation) -> Misfits:
    """Name what is no count in the usage of the first answer that has such a thing."""
    return next(filter(None, (misfits_in_stream((answer,), operation) for answer in answers)), {})


def is_broken(misfits: Misfits) -> bool:
    """Tell whether a value is not what its field, or a usage, can be; else it only is of a shape that is not known."""
    return any(found != UNKNOWN_SHAPE for found in misfits.values())


class UsageReader:
    """Reads the usage of one streamed answer while its events come; holds the usage objects and nothing else."""

    __slots__ = ("_finished", "_last_finished", "_misfits", "_operation", "_told")

    def __init__(self, operation: Operation) -> None:
        self._operation = operation
        self._told: list[_Told] = []
        self._misfits: Misfits = {}
        """Those in what told no figure at all."""
        self._finished: set[int] = set()
        """The choices that finished since an event without choices came last."""
        self._last_finished: frozenset[int] | None = None

    def take(self, event: object) -> None:
        """Take the next event."""
        choice = self._about(event)
        candidates = _candidates(event)
        if not candidates:
            return
        for found in candidates:
            misfits: Misfits = {}
            figures = _figures(found.value, self._operation, misfits)
            if figures is None:
                self._misfits |= misfits or _misfit_of_place(found)
                continue
            usage, plan = figures
            self._merge(found, plan, choice)
            if is_whole(usage, self._operation) and not plan.fills_in:
                return

    def _about(self, event: object) -> _About:
        """Tell what an event is about: one choice, those that have just finished, or the request (``None``)."""
        choices = part(event, "choices")
        if choices is None:
            choices = part(part(event, "output"), "choices")  # DashScope's own API
        if not isinstance(choices, list):
            return None
        indexes = [token_count(part(choice, "index")) for choice in choices]
        for choice, index in zip(choices, indexes, strict=True):
            if index is not None and part(choice, "finish_reason"):
                self._finished.add(index)
        if len(indexes) == 1:
            return indexes[0]
        if not indexes and self._finished:
            # One usage for all choices at the end, or, from llama-server, one after each of them.
            self._last_finished = frozenset(self._finished)
            self._finished.clear()
        return None if indexes else self._last_finished

    def reading(self) -> Reading | None:
        """Read what has been told so far."""
        return self._read()[0]

    def misfits(self) -> Misfits:
        """Name what is no count in what has been told so far, where no later word made up for it."""
        return self._read()[1]

    def _read(self) -> tuple[Reading | None, Misfits]:
        misfits: Misfits = {}
        words: list[tuple[_Told, Usage]] = []
        fillers: list[tuple[_Told, Usage]] = []
        for told in self._told:
            figures = _figures(told.view, self._operation, misfits)
            if figures is not None:
                (fillers if told.fills_in else words).append((told, figures[0]))
        words = _of_whole_request(words)
        usage: Usage | None = None
        for _, word in words:
            usage = word if usage is None else _with_choice(usage, word)
        for _, filler in fillers:
            usage = filler if usage is None else _filled_in(usage, filler)
        if usage is None or not is_whole(usage, self._operation):
            misfits = self._misfits | misfits
        if usage is None:
            return None, misfits
        told_by = words + fillers
        reading = Reading(
            usage=usage,
            found=tuple(Found(told.view, told.is_usage) for told, _ in told_by),
            shrank=any(told.shrank for told, _ in told_by),
            grew=any(told.grew for told, _ in told_by),
            unreadable=is_broken(misfits),
        )
        return reading, misfits

    def _merge(self, found: Found, plan: _Plan, choice: _About) -> None:
        view = view_of(found.value) or {}
        for told in self._told:
            if told.is_same(plan, choice, view):
                told.choice = told.choice if choice is None else choice
                told.update(view, plan, self._operation)
                return
        self._told.append(_Told(dict(view), found.is_usage, plan, choice))


_About = int | frozenset[int] | None
"""What a usage object is about: one choice, the choices that had just finished, or the request as a whole."""


class _Told:
    """One usage object, with what later events of the stream said instead."""

    __slots__ = ("choice", "fills_in", "grew", "is_usage", "shrank", "view")

    def __init__(self, view: dict[Any, Any], is_usage: bool, plan: _Plan, choice: _About) -> None:
        self.view = view
        self.is_usage = is_usage
        self.fills_in = plan.fills_in
        self.choice = choice
        self.shrank = self.grew = False

    def is_same(self, plan: _Plan, choice: _About, view: View) -> bool:
        is_about_same = self.choice == choice or (
            not isinstance(self.choice, int) and not isinstance(choice, int) and None in (self.choice, choice)
        )
        return (
            self.fills_in == plan.fills_in
            and is_about_same
            and any(name in view and name in self.view for name in plan.names)
        )

    def update(self, later: View, plan: _Plan, operation: Operation) -> None:
        """Let the later word count: all of it where it tells a total, else what it tells.

        A 0 is only a word about the prompt where the prompt as a whole is told.
        """
        before = _figures(self.view, operation, {})
        if any(token_count(later.get(name)) for name in plan.total_names):
            self.view = {}
        tells_prompt = any(token_count(later.get(name)) for name in plan.prompt_names)
        for name, value in later.items():
            if value or name not in self.view or (value == 0 and tells_prompt and name in plan.prompt_names):
                self.view[name] = value
        after = _figures(self.view, operation, {})
        if before is not None and after is not None:
            self.shrank = self.shrank or _exceeds(before[0].completion_tokens, after[0].completion_tokens)
            self.grew = self.grew or _exceeds(after[0].completion_tokens, before[0].completion_tokens)


def _of_whole_request(words: list[tuple[_Told, Usage]]) -> list[tuple[_Told, Usage]]:
    """Leave out what single choices told where the request as a whole is told, and objects of zeros beside others."""
    whole = [word for word in words if not _is_all_zero(word[1])] or words[:1]
    of_request = [word for word in whole if not isinstance(word[0].choice, int)] or whole
    best: dict[_About, tuple[_Told, Usage]] = {}
    for word in of_request:  # one word about each: a gateway may tell the same in two dialects
        if isinstance(word[0].choice, type(of_request[0][0].choice)):
            best.setdefault(word[0].choice, word)
    return list(best.values())


def _with_choice(usage: Usage, other: Usage) -> Usage:
    added = usage + other
    prompt_side = {name: _larger(getattr(usage, name), getattr(other, name)) for name in _PROMPT_SIDE}
    return msgspec.structs.replace(added, **prompt_side)


def _larger(tokens: int | None, other: int | None) -> int | None:
    return max((told for told in (tokens, other) if told is not None), default=None)


def _filled_in(usage: Usage, filler: Usage) -> Usage:
    missing = {
        name: getattr(filler, name)
        for name in Usage.__struct_fields__
        if not getattr(usage, name) and getattr(filler, name)
    }
    return msgspec.structs.replace(usage, **missing) if missing else usage


_PROMPT_SIDE = (
    "prompt_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "audio_prompt_tokens",
    "image_prompt_tokens",
    "video_prompt_tokens",
)
"""The choices of one request share its prompt."""


def is_whole(usage: Usage, operation: Operation) -> bool:
    """Tell whether nothing is left to be told: the figures of such an operation are there, and not 0."""
    if operation is _EMBEDDING:
        return bool(usage.embedding_tokens)
    return bool(usage.prompt_tokens and usage.completion_tokens)


def _is_all_zero(usage: Usage) -> bool:
    return not (usage.embedding_tokens or usage.prompt_tokens or usage.completion_tokens)


def _exceeds(part_: int | None, whole: int | None) -> bool:
    return part_ is not None and whole is not None and part_ > whole


def token_count(value: object) -> int | None:
    """Return the value if it is a sensible number of tokens, else ``None``."""
    if type(value) is int:
        return value if 0 <= value <= LARGEST else None
    if isinstance(value, int) and not isinstance(value, bool):
        return token_count(int(value))
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return token_count(int(value))
    return None


def _what_it_is(value: object) -> str:
    """Tell why a value is no count, without the value."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return type(value).__name__
    if not math.isfinite(value):
        return "not finite"
    if value < 0:
        return "negative"
    return "too large" if value > LARGEST else "a fraction"


def part(whole: Any, name: str) -> Any:
    """Read a key of a mapping or an attribute of an object; ``None`` where there is none."""
    if whole is None:
        return None
    if type(whole) is dict or _sort(type(whole)) is _IS_MAPPING:  # type: ignore[arg-type]  # see view_of
        return whole.get(name)
    return getattr(whole, name, None)


def tells(answer: object, name: str) -> bool:
    """Tell whether a key or attribute is there and not null; that a pydantic object has none, sooner than ``part``."""
    view = view_of(answer)
    return view is not None and view.get(name) is not None


# --- where the usage is


def _candidates(answer: object) -> list[Found]:
    """List the objects of an answer that may hold usage, best first."""
    view = view_of(answer)
    if view is None:
        return []
    places, is_itself = _places_in(_keys(view))
    candidates: list[Found] = []
    for steps in places:
        value = _follow(view, steps)
        if type(value) is list:  # one for each choice
            objects = [item for item in value if view_of(item) is not None]
            candidates += [Found(item, True, steps[-1][0]) for item in objects or [value]]
        elif value is not None:
            candidates.append(Found(value, True, steps[-1][0]))
    if is_itself:
        candidates.append(Found(answer, False))
    return candidates


def _misfit_of_place(found: Found) -> Misfits:
    """Name a usage that is none: no object at all, or one in which no name is known."""
    if found.place not in USAGE_NAMES:
        return {}
    if isinstance(found.value, _PLAIN):
        return {found.place: type(found.value).__name__}
    view = view_of(found.value)
    is_told = view is not None and any(value is not None for value in view.values())
    is_known = view is not None and any(name in _KNOWN_NAMES for name in view)
    return {found.place: UNKNOWN_SHAPE} if is_told and not is_known else {}


@functools.lru_cache(maxsize=1024)
def _places_in(keys: tuple[Any, ...]) -> tuple[tuple[_Steps, ...], bool]:
    here = set(keys)
    return tuple(steps for steps in _PLACES if steps[0][0] in here), not _MARKING_NAMES.isdisjoint(here)


def _keys(view: View) -> tuple[Any, ...]:
    keys = tuple(view)
    return keys if len(keys) <= _WIDEST else tuple(key for key in keys if key in _KNOWN_NAMES)


# --- reading one object


class _Plan:
    """A dialect made ready for payloads with certain keys: only the terms that can be there, taken apart."""

    __slots__ = (
        "_marks",
        "_told",
        "fills_in",
        "names",
        "plain_marks",
        "prompt_names",
        "reasoning_may_stand_beside",
        "sums",
        "total_names",
        "wanted",
    )

    def __init__(self, dialect: Dialect, keys: tuple[Any, ...], is_embedding: bool) -> None:
        here = set(keys)
        self.fills_in = dialect.fills_in
        self.names = {_top(mark) for mark in dialect.marks}
        self.prompt_names = {_top(path) for figure in _PROMPT_SIDE for path in _paths(dialect, figure)}
        self.total_names = {_top(path) for path in dialect.total_tokens}
        marks = [_steps(mark) for mark in dialect.marks if _top(mark) in here]
        self.plain_marks = [steps[0][0] for steps in marks if len(steps) == 1 and steps[0][1] is None]
        self._marks = [steps for steps in marks if len(steps) > 1 or steps[0][1] is not None]
        self.sums: list[tuple[str, list[str]]] = []
        self.reasoning_may_stand_beside = dialect.reasoning_may_stand_beside
        self.wanted: list[tuple[_Steps, str]] = []
        for figure in _FIGURES_OF[is_embedding]:
            terms = [[path for path in term.split("|") if _top(path) in here] for term in getattr(dialect, figure)]
            terms = [paths for paths in terms if paths]
            slots = [figure] if len(terms) == 1 else [f"{figure} {number}" for number in range(len(terms))]
            self.wanted += [(_steps(path), slot) for paths, slot in zip(terms, slots, strict=True) for path in paths]
            if len(slots) > 1:
                self.sums.append((figure, slots))
        self._told = _Wanted(self.wanted).among(keys)

    def is_marked(self, view: View) -> bool:
        """Tell whether a payload is of this dialect."""
        for name in self.plain_marks:
            if view.get(name) is not None:
                return True
        return any(_follow(view, steps) is not None for steps in self._marks) if self._marks else False

    def read(self, view: View, misfits: Misfits) -> Usage | None:
        """Read the figures, and note what is none."""
        figures: dict[str, int] = {}
        _take(self._told, view, figures, misfits)
        for figure, slots in self.sums:
            told = [figures.pop(slot) for slot in slots if slot in figures]
            if told:
                figures[figure] = sum(told)
        if _WHOLES.isdisjoint(figures):
            return None
        _complete(figures, figures.pop("total_tokens", None), self.reasoning_may_stand_beside)
        return Usage(**figures)


class _Wanted:
    """The paths to figures below one object, taken apart once for all objects with the same keys."""

    __slots__ = ("_paths", "among")

    def __init__(self, paths: Sequence[tuple[_Steps, str]]) -> None:
        self._paths = paths
        self.among = functools.lru_cache(maxsize=64)(self._found_among)

    def _found_among(self, keys: tuple[Any, ...]) -> _Paths:
        paths = [(steps, slot) for steps, slot in self._paths if steps[0][0] in keys]
        below: dict[str, list[tuple[_Steps, str]]] = {}
        for steps, slot in paths:
            if steps[0][1] is None and len(steps) > 1:
                below.setdefault(steps[0][0], []).append((steps[1:], slot))
        return (
            [(steps[0][0], slot) for steps, slot in paths if steps[0][1] is None and len(steps) == 1],
            [(name, _Wanted(inner)) for name, inner in below.items()],
            [(steps, slot) for steps, slot in paths if steps[0][1] is not None],
        )


def _take(paths: _Paths, view: View, figures: dict[str, int], misfits: Misfits) -> None:
    """Put the figures into their slots; where a slot has one other than 0, that one stays."""
    here, below, in_lists = paths
    for name, slot in here:
        value = view.get(name)
        if value is not None and (slot not in figures or not figures[slot]):
            if type(value) is int and 0 <= value <= LARGEST:
                figures[slot] = value
            elif (tokens := token_count(value)) is not None:
                figures[slot] = tokens
            else:
                misfits[name] = _what_it_is(value)
    for name, wanted in below:
        value = view.get(name)
        if value is None:
            continue
        inner = value if type(value) is dict else view_of(value)
        if inner:
            _take(wanted.among(_keys(inner)), inner, figures, misfits)
        elif inner is None:
            misfits[name] = type(value).__name__
    if in_lists:
        _take_from_lists(in_lists, view, figures, misfits)


def _take_from_lists(
    paths: Sequence[tuple[_Steps, str]], view: View, figures: dict[str, int], misfits: Misfits
) -> None:
    for steps, slot in paths:
        if not figures.get(slot) and (ends := _follow(view, steps)) is not None:
            tokens = _added(ends, steps[-1][0], misfits)
            if tokens is not None:
                figures[slot] = tokens


def _complete(figures: dict[str, int], total: int | None, reasoning_may_stand_beside: bool) -> None:
    """Add what the total says of a figure that was left out."""
    prompt, completion = figures.get("prompt_tokens"), figures.get("completion_tokens")
    if prompt is not None and completion is not None:
        reasoning = figures.get("reasoning_tokens") if reasoning_may_stand_beside else None
        if reasoning and (reasoning > completion or total == prompt + completion + reasoning):
            figures["completion_tokens"] = completion + reasoning
    elif total is not None and prompt is not None and total >= prompt:
        figures["completion_tokens"] = total - prompt
    elif total is not None and completion is not None and total >= completion:
        figures["prompt_tokens"] = total - completion


def _read_one(payload: object, operation: Operation, *, is_all: bool = False) -> Reading | None:
    """Read one payload by its dialect; with ``is_all`` only if nothing is left to be told elsewhere."""
    misfits: Misfits = {}
    figures = _figures(payload, operation, misfits)
    if figures is None:
        return None
    usage, plan = figures
    reading = Reading(usage=usage, found=(Found(payload, True),), unreadable=bool(misfits))
    if not is_whole(usage, operation) or plan.fills_in:
        return None if is_all else reading
    if not reading.doubts:
        _lay_lane(payload, usage, plan, operation)
    return reading


def _figures(payload: object, operation: Operation, misfits: Misfits) -> tuple[Usage, _Plan] | None:
    """Read one payload by the first dialect that it is marked as and that finds a figure in it; note the misfits."""
    view = payload if type(payload) is dict else view_of(payload)
    if view is None:
        return None
    for plan in _plans(_keys(view), operation is _EMBEDDING):
        if plan.is_marked(view):
            usage = plan.read(view, misfits)
            if usage is not None:
                return usage, plan
    return None


@functools.lru_cache(maxsize=1024)
def _plans(keys: tuple[Any, ...], is_embedding: bool) -> tuple[_Plan, ...]:
    here = set(keys)
    return tuple(
        _Plan(dialect, keys, is_embedding) for dialect in DIALECTS if any(_top(mark) in here for mark in dialect.marks)
    )


# --- the lane in front, for objects that are shaped like one that was read before


def _lanes_of(payload: object, operation: Operation) -> Sequence[Lane[Reading] | None]:
    """Find the lanes of what is shaped like a payload; ``None`` for what none could be laid for."""
    return _lanes[operation is _EMBEDDING].get(tuple(payload) if type(payload) is dict else type(payload), ())


def _lead_to(lane: Lane[Reading], kind: type[Any], operation: Operation) -> None:
    """Lead the answers of a class straight into a lane, if they have their usage, and the names, in fields."""
    readers = _readers[operation is _EMBEDDING]
    known, fields = readers.get(kind, _NO_READERS), fields_of(kind)
    is_room = kind in readers or len(readers) < _MOST_KEYS
    if is_room and lane not in known and fields is not None and fields.keys() >= set(_BEHIND):
        readers[kind] = {**known, lane: lane.behind(_BEHIND)}


def _lay_lane(payload: object, usage: Usage, plan: _Plan, operation: Operation) -> None:
    """Lay a lane for what is like a payload that was read, if it then gives what its dialect gave."""
    lanes = _lanes[operation is _EMBEDDING]
    key: Any = tuple(payload) if type(payload) is dict else type(payload)
    known = lanes.get(key, ())
    if len(known) >= _MOST_ALIKE or (not known and len(lanes) >= _MOST_KEYS):
        return
    places = _places_of(payload, plan, operation)
    is_in = not plan.reasoning_may_stand_beside
    lane = None if places is None else lane_for(payload, places, Reading, reasoning_is_in=is_in)
    reading = None if lane is None else lane.read(payload)
    lanes[key] = (*known, lane if reading is not None and reading.usage == usage else None)


def _places_of(payload: object, plan: _Plan, operation: Operation) -> Places | None:
    """Tell where each figure is; ``None`` where one is a sum or in two places, or a dialect goes before this one."""
    names = names_of(payload)
    if names is None or plan.sums or plan is not _plans(_keys(names), operation is _EMBEDDING)[0]:
        return None
    places: dict[str, Sequence[str]] = {}
    for steps, figure in plan.wanted:
        if _leads_to_count(payload, steps):
            if figure in places and figure not in _WHOLES:
                return None
            places.setdefault(figure, [name for name, _ in steps])
    is_marked_by_whole = any(places.get(whole) == [mark] for whole in _WHOLES for mark in plan.plain_marks)
    return places if is_marked_by_whole and MONEY_NAMES.isdisjoint(names) else None


def _leads_to_count(payload: Any, steps: _Steps) -> bool:
    for name, _ in steps:
        names = names_of(payload)
        if names is None or name not in names:
            return False
        payload = names[name]
    return payload is None or type(payload) is int


_EMBEDDING = Operation.EMBEDDING  # reached sooner than a member of its enumeration

_lanes: tuple[_Lanes, _Lanes] = ({}, {})
"""Those of LLM calls, and those of embeddings."""

_Lanes = dict[Any, tuple[Lane[Reading] | None, ...]]
"""The lanes by the class of an object, or by the keys of a dict; ``None`` for what none could be laid for."""

_Readers = dict[Lane[Reading], Callable[[Any], Reading | None]]

_readers: tuple[dict[type[Any], _Readers], dict[type[Any], _Readers]] = ({}, {})
"""The same, from where an answer begins: by its class, what reads it, by the lane that it leads to."""

_NO_READERS: _Readers = {}

_MOST_ALIKE = 6
"""Objects of one class may differ in what of them is null."""

_MOST_KEYS = 256

_Steps = tuple[tuple[str, Any], ...]
"""A path taken apart: names, each with what selects among the items of a list there, or ``None``."""

_STEP = re.compile(r"([^.\[]+)(?:\[(?:([^=\]]+)=([^\]]+))?\])?")


_Paths = tuple[list[tuple[str, str]], list[tuple[str, "_Wanted"]], list[tuple[_Steps, str]]]
"""Of the paths wanted: those that end here, those that go on, by their first name, and those that go through a list."""


@functools.cache
def _steps(path: str) -> _Steps:
    return tuple(
        (match[1], None if not match[0].endswith("]") else (match[2], match[3])) for match in _STEP.finditer(path)
    )


def _top(path: str) -> str:
    """Name what a path begins with."""
    return _steps(path)[0][0]


def _paths(dialect: Dialect, figure: str) -> list[str]:
    return [path for term in getattr(dialect, figure) for path in term.split("|")]


def _follow(whole: Any, steps: _Steps) -> Any:
    """Walk a path; ``None`` where it leads nowhere. Through a list it ends in a list."""
    for position, (name, selector) in enumerate(steps):
        # A pydantic object takes long to say that it has no such attribute.
        view = whole if type(whole) is dict else view_of(whole)
        whole = None if view is None else view.get(name)
        if whole is None:
            return None
        if selector is not None:
            if not isinstance(whole, list | tuple):
                return None
            key, wanted = selector
            rest, ends = steps[position + 1 :], []
            for item in whole[:_WIDEST]:
                if key is None or part(item, key) == wanted:
                    end = _follow(item, rest) if rest else item
                    if end is not None:
                        ends.append(end)
            return ends or None
    return whole


def _added(value: Any, name: str, misfits: Misfits) -> int | None:
    """Add up the token counts at the end of a path, and note what is none."""
    if not isinstance(value, list):
        tokens = token_count(value)
        if tokens is None:
            misfits[name] = _what_it_is(value)
        return tokens
    counts = [tokens for item in value if (tokens := _added(item, name, misfits)) is not None]
    return sum(counts) if counts else None


_WHOLES = {"embedding_tokens", "prompt_tokens", "completion_tokens"}
"""One of them has to be told: the other figures are only parts."""

_FIGURES_OF: tuple[list[str], list[str]] = (
    [*(figure for figure in Usage.__struct_fields__ if figure != "embedding_tokens"), "total_tokens"],
    ["embedding_tokens"],
)
"""The figures of an LLM call, and those of an embedding."""

_PLACES = tuple(map(_steps, PLACES))
_FIRST_PLACE = PLACES[0]
_NAMES = ("id", "model")
_BEHIND = (_FIRST_PLACE, *_NAMES)
_MARKING_NAMES = frozenset(_top(mark) for dialect in DIALECTS for mark in dialect.marks)
_DIALECT_NAMES = frozenset(
    name
    for dialect in DIALECTS
    for figure in (*Usage.__struct_fields__, "total_tokens")
    for path in _paths(dialect, figure)
    for name, _ in _steps(path)
)
"""The names that some dialect reads, at the top of a payload or inside it."""
_KNOWN_NAMES = _DIALECT_NAMES | _MARKING_NAMES | {steps[0][0] for steps in _PLACES} | {"choices"}


# --- payloads of any kind


def view_of(value: Any) -> View | None:
    """See a payload as keys and values; ``None`` where it has none.

    For who asks for several: that a pydantic object has no such attribute is told sooner than by ``part``.
    """
    kind = type(value)
    if kind is dict:
        return cast("View", value)
    sort = _sort(kind)  # type: ignore[arg-type]  # mypy: are classes hashable?
    if sort is _IS_MODEL:
        try:
            if not value.__pydantic_extra__:
                return cast("View", value.__dict__)
        except AttributeError:  # made without it
            pass
    if sort is _HAS_NAMES or sort is _IS_MODEL:
        attributes = getattr(value, "__dict__", None)
        if type(attributes) is dict:
            extra = getattr(value, "__pydantic_extra__", None)  # what a provider sent and the class does not know
            return {**attributes, **extra} if extra and type(extra) is dict else attributes
        # an object with slots
        seen = {name: attribute for name in _KNOWN_NAMES if (attribute := getattr(value, name, None)) is not None}
        return seen or None
    return cast("View", value) if sort is _IS_MAPPING else None


_HAS_NAMES, _IS_MODEL, _IS_MAPPING, _IS_PLAIN = range(4)


@functools.lru_cache(maxsize=512)
def _sort(kind: type[Any]) -> int:
    """Tell how a payload of some class is looked into."""
    if issubclass(kind, Mapping):
        return _IS_MAPPING
    if issubclass(kind, _PLAIN):
        return _IS_PLAIN
    return _HAS_NAMES if fields_of(kind) is None else _IS_MODEL


_PLAIN = (str, bytes, int, float, list, tuple, set, frozenset, type(None))


_DEEPEST = 6
_LONGEST_NAME = 100
_WIDEST = 100

_Name = Annotated[str, msgspec.Meta(max_length=_LONGEST_NAME)]
_Bounds = msgspec.Meta(ge=-LARGEST, le=LARGEST)
_Word = Annotated[str, msgspec.Meta(pattern=r"\A[\w.:/+-]{1,64}\Z")]
_Number = None | bool | Annotated[int, _Bounds] | Annotated[float, _Bounds] | _Word
_Part = Annotated[dict[_Name, _Number], msgspec.Meta(max_length=_WIDEST)]
_IS_WORD = re.compile(r"\A[\w.:/+-]{1,64}\Z")
"""A string in a usage object is kept if it is one word: a service tier, a modality, an amount. Others may be text."""


class _Ordinary(msgspec.Struct, frozen=True):
    """What almost every payload is, so that msgspec can see in one go that nothing is odd about it."""

    payload: Annotated[dict[_Name, _Number | _Part], msgspec.Meta(max_length=_WIDEST)]


def as_plain(payload: object) -> dict[str, Any]:
    """Copy a usage object into plain JSON values, bounded in depth and width, so that nothing odd reaches the file.

    Strings are kept where they are one word: text must not reach the log by this door.
    """
    opened = _opened(payload)
    try:
        ordinary = msgspec.convert({"payload": opened}, _Ordinary).payload
        msgspec.json.encode(ordinary)
    except (TypeError, ValueError, RecursionError):  # of a class of its own, or half a surrogate pair: piece by piece
        plain = _plain(opened, _DEEPEST)
        return plain if isinstance(plain, dict) else {}
    return ordinary


def _opened(payload: object) -> object:
    """Turn a pydantic object into a mapping of what the provider sent; anything else stays what it is."""
    dump = None if type(payload) is dict else getattr(payload, "model_dump", None)
    if dump is None:
        return payload
    try:
        return cast("object", dump(exclude_unset=True, warnings=False))
    except (AttributeError, TypeError, ValueError, RecursionError):  # something that pydantic cannot write
        return payload


def _numbers_of(answer: object) -> dict[str, Any]:
    return {_name(name): _plain(value, 0) for name, value in _fields(answer) or () if token_count(value) is not None}


def _plain(value: object, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if abs(value) <= LARGEST else None
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, str):
        return str(value) if _IS_WORD.match(value) else None
    if depth == 0:
        return None
    if isinstance(value, list | tuple):
        return [_plain(item, depth - 1) for item in value[:_WIDEST]]
    fields = _fields(value)
    if fields is None:
        return None
    return {_name(key): _plain(field, depth - 1) for key, field in fields[:_WIDEST]}


def _name(key: object) -> str:
    return str(key)[:_LONGEST_NAME].encode(errors="replace").decode()


def _fields(value: object) -> list[tuple[Any, Any]] | None:
    names = getattr(value, "model_fields_set", None)
    if isinstance(names, set):
        extra = getattr(value, "model_extra", None) or {}
        return [(name, getattr(value, name, None)) for name in sorted(names | extra.keys())]
    if isinstance(value, Mapping):
        return list(value.items())
    attributes = getattr(value, "__dict__", None)
    if isinstance(attributes, dict):
        return [(name, attribute) for name, attribute in attributes.items() if not str(name).startswith("_")]
    view = view_of(value)  # an object with slots
    return None if view is None else list(view.items())
