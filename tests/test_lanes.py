"""Lanes: whatever a lane reads, the general reader reads in the same way; what is odd is left to that one."""

from __future__ import annotations

import enum
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion
from openai.types.completion_usage import CompletionTokensDetails, PromptTokensDetails
from openai.types.create_embedding_response import Usage as EmbeddingUsage

from token_callbacks import usage as room
from token_callbacks.records import LARGEST_CONTEXT, Operation, Usage
from token_callbacks.usage import Reading, as_plain, read_answer, read_usage


class _Count(enum.IntEnum):
    FIVE = 5


PROMPT_PARTS = tuple(PromptTokensDetails.model_fields)
COMPLETION_PARTS = tuple(CompletionTokensDetails.model_fields)
COUNTS = st.integers(0, 9) | st.sampled_from([LARGEST_CONTEXT, LARGEST_CONTEXT + 1, 2**53])
ODD = st.sampled_from([None, -1, 2**53 + 1, True, 3.0, 2.5, "3", "two words", "\ud800", [], {}, {"n": 1}, _Count.FIVE])
VALUES = st.one_of(COUNTS, COUNTS, ODD)
MORE = st.dictionaries(
    st.sampled_from(["service_tier", "prompt_cache_hit_tokens", "cached_tokens", "cost", "more"]), VALUES, max_size=1
)


def _parts(names: tuple[str, ...], values: st.SearchStrategy[Any] = VALUES) -> st.SearchStrategy[dict[str, Any]]:
    named = st.fixed_dictionaries({}, optional=dict.fromkeys(names, values))
    return st.builds(dict.__or__, named, MORE)


def _payloads(values: st.SearchStrategy[Any] = VALUES) -> st.SearchStrategy[dict[str, Any]]:
    told = st.fixed_dictionaries(
        {"completion_tokens": values, "prompt_tokens": values},
        optional={
            "total_tokens": values,
            "completion_tokens_details": st.none() | _parts(COMPLETION_PARTS, values),
            "prompt_tokens_details": st.none() | _parts(PROMPT_PARTS, values),
        },
    )
    return st.builds(dict.__or__, told, MORE)


def _constructed(payload: dict[str, Any]) -> CompletionUsage:
    """Make what the client makes of an answer, without a look at its values."""
    parts = {"completion_tokens_details": CompletionTokensDetails, "prompt_tokens_details": PromptTokensDetails}
    values = {
        name: parts[name].model_construct(**value) if name in parts and isinstance(value, dict) else value
        for name, value in payload.items()
    }
    return CompletionUsage.model_construct(**values)


def _generally(payload: object, operation: Operation) -> tuple[Usage, dict[str, Any]] | None:
    figures = room._figures(payload, operation, {})
    return None if figures is None else (figures[0], as_plain(payload))


def _told(reading: Reading | None) -> tuple[Usage, dict[str, Any]] | None:
    assert reading is None or not (reading.is_counts and reading.doubts), "nobody asks such a reading for its doubts"
    return None if reading is None else (reading.usage, reading.payload)


def _is_by_lane(reading: Reading | None) -> bool:
    return reading is not None and reading.is_counts


@pytest.fixture
def no_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start without any."""
    monkeypatch.setattr(room, "_lanes", ({}, {}))
    monkeypatch.setattr(room, "_readers", ({}, {}))


ORDINARY = {
    "prompt_tokens": 9,
    "completion_tokens": 7,
    "total_tokens": 16,
    "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 2, "audio_tokens": 3},
}
LIKE_IT = {
    "prompt_tokens": 13,
    "completion_tokens": 11,
    "total_tokens": 24,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 5},
    "completion_tokens_details": None,
}


@pytest.mark.parametrize("kind", [dict, CompletionUsage.model_validate, _constructed])
def test_what_is_like_the_first_goes_by_its_lane(kind: Any, no_lanes: None) -> None:
    """The first of a kind, which is also what of it is null, is read the general way, those after it in one go."""
    payloads = (ORDINARY, LIKE_IT, LIKE_IT, ORDINARY | {"total_tokens": 17})
    readings = [read_answer({"usage": kind(payload)}, Operation.CHAT) for payload in payloads]

    assert [False, False, True, True] == [_is_by_lane(reading) for reading in readings]
    assert (
        Usage(prompt_tokens=13, completion_tokens=11, cache_read_tokens=0, audio_prompt_tokens=5),
        LIKE_IT,
    ) == _told(readings[2])


def test_doubtful_figures_take_nobody_elses_lane(no_lanes: None) -> None:
    """They are read the general way, and what is like them but for the doubts has its lane afterwards."""
    doubtful = ORDINARY | {"prompt_tokens_details": {"cached_tokens": 10, "audio_tokens": 0}}
    readings = [read_usage(payload, Operation.CHAT) for payload in (*[doubtful] * 4, ORDINARY, doubtful, ORDINARY)]

    assert [False] * 6 + [True] == [_is_by_lane(reading) for reading in readings]


def test_an_embedding_has_a_lane_of_its_own(no_lanes: None) -> None:
    """The same class tells other figures where texts were embedded."""
    payloads = [EmbeddingUsage(prompt_tokens=3, total_tokens=3), EmbeddingUsage(prompt_tokens=4, total_tokens=4)]
    readings = [read_usage(payload, Operation.EMBEDDING) for payload in payloads]

    assert readings[1] is not None
    assert (True, Usage(embedding_tokens=4)) == (_is_by_lane(readings[1]), readings[1].usage)


def test_what_says_more_than_counts_has_no_lane(no_lanes: None) -> None:
    """A tier or a cost decides on the price, which is told from the payload."""
    readings = [read_usage(ORDINARY | {"cost": 1}, Operation.CHAT) for _ in range(2)]

    assert [False, False] == [_is_by_lane(reading) for reading in readings]


@pytest.mark.usefixtures("no_lanes")
@pytest.mark.parametrize("name", ["two words", "class", "it", "x" * 200, "'+open('f')+'", "\ud800", "n\n"])
def test_what_a_key_is_called_makes_no_difference(name: str) -> None:
    """A lane is written as code, and what a provider calls a key is never part of it but as a string."""
    payload = ORDINARY | {name: 1, "prompt_tokens_details": {"cached_tokens": 4, name: 2}}

    assert [_generally(payload, Operation.CHAT)] * 2 == [_told(read_usage(payload, Operation.CHAT)) for _ in range(2)]


def test_a_part_of_another_class_is_read_the_general_way(no_lanes: None) -> None:
    """A part may be of a class that knows more than the one the lane was laid for."""

    class More(PromptTokensDetails):
        image_tokens: int = 0

    first, other = CompletionUsage.model_validate(ORDINARY), CompletionUsage.model_validate(ORDINARY)
    other.prompt_tokens_details = More(image_tokens=6)
    read_usage(first, Operation.CHAT)
    reading = read_usage(other, Operation.CHAT)

    assert reading is not None
    assert 6 == reading.usage.image_prompt_tokens


@pytest.mark.usefixtures("no_lanes")
@pytest.mark.parametrize("missing", ["__pydantic_fields_set__", "__pydantic_extra__"])
def test_a_model_that_was_made_without_its_class_is_read_the_general_way(missing: str) -> None:
    """Pickles and proxies may leave out what pydantic itself always sets; nothing raises."""
    read_usage(CompletionUsage.model_validate(ORDINARY), Operation.CHAT)
    bare = CompletionUsage.model_validate(ORDINARY)
    object.__delattr__(bare, missing)
    told = _told(read_usage(bare, Operation.CHAT))

    assert told is not None
    assert (9, 7) == (told[0].prompt_tokens, told[0].completion_tokens)
    assert isinstance(told[1], dict)


@pytest.mark.usefixtures("no_lanes")
@pytest.mark.parametrize("name", ["completion_tokens", "prompt_tokens"])
@pytest.mark.parametrize("odd", [{}, None])
@pytest.mark.parametrize("kind", [dict, _constructed])
def test_an_object_in_the_place_of_a_count_is_none(name: str, odd: Any, kind: Any) -> None:
    """No lane takes it for a count, and the figure is that of the total."""
    told = {"completion_tokens": 3, "prompt_tokens": 3, "total_tokens": 9, name: odd}
    payload = kind(told | {"completion_tokens_details": {"reasoning_tokens": 2}})

    assert [_generally(payload, Operation.CHAT)] * 2 == [_told(read_usage(payload, Operation.CHAT)) for _ in range(2)]


@settings(max_examples=300)
@example([], [{"completion_tokens": 0, "prompt_tokens": None, "total_tokens": 1}], dict, Operation.EMBEDDING)
@given(
    st.lists(_payloads(COUNTS), min_size=1, max_size=2),
    st.lists(_payloads() | _payloads(COUNTS), min_size=1, max_size=4),
    st.sampled_from([dict, _constructed]),
    st.sampled_from([Operation.CHAT, Operation.EMBEDDING]),
)
def test_a_lane_reads_what_the_dialects_read(
    ordinary: list[dict[str, Any]], others: list[dict[str, Any]], kind: Any, operation: Operation
) -> None:
    """With odd values, parts and extras, whatever was read before."""
    for lanes in room._lanes:
        lanes.clear()
    payloads = [kind(payload) for payload in (ORDINARY, *ordinary, *others, LIKE_IT)]

    assert [_generally(payload, operation) for payload in payloads] == [
        _told(read_usage(payload, operation)) for payload in payloads
    ]


def _chat(**values: Any) -> ChatCompletion:
    return ChatCompletion.model_construct(**{"id": "chatcmpl-1", "model": "gpt-4o-2024-08-06"} | values)


@pytest.fixture
def door(no_lanes: None) -> None:
    """Have the door of openai's answers made, and the lane behind it."""
    for _ in range(3):
        read_answer(_chat(usage=_constructed(ORDINARY)), Operation.CHAT)
    assert room._readers[0][ChatCompletion]


def test_an_answer_like_the_ones_before_tells_its_names_with_its_usage(door: None) -> None:
    """Nobody has to look into it a second time, also where its provider sends more than the client knows."""
    usage = _constructed(ORDINARY | {"prompt_tokens": 13})
    readings = [read_answer(_chat(usage=usage, **more), Operation.CHAT) for more in ({}, {"kv": 1})]

    assert [("chatcmpl-1", "gpt-4o-2024-08-06")] * 2 == [reading and reading.names for reading in readings]
    assert [13, 13] == [reading and reading.usage.prompt_tokens for reading in readings]


@pytest.mark.parametrize(
    ("name", "value", "prompt_tokens"),
    [
        ("id", None, 9),
        ("id", "", 9),
        ("model", 4, 9),
        ("usage", None, None),
        ("usage", "two words", None),
        ("usage", ORDINARY, 9),
        ("usage", [ORDINARY], 9),
    ],
)
def test_an_answer_unlike_the_ones_before_is_read_the_general_way(
    door: None, name: str, value: Any, prompt_tokens: int | None
) -> None:
    """Where a name is none, who asks for it looks for it elsewhere, too."""
    answer = _chat(usage=_constructed(ORDINARY))
    object.__setattr__(answer, name, value)
    reading = read_answer(answer, Operation.CHAT)

    assert prompt_tokens == (None if reading is None else reading.usage.prompt_tokens)
    assert reading is None or reading.names is None


@pytest.mark.parametrize("name", ["id", "model", "usage"])
def test_what_stands_beside_the_fields_goes_before_them(door: None, name: str) -> None:
    """As everywhere: what the provider sent and the class does not know is seen first."""
    answer = _chat(usage=_constructed(ORDINARY))
    extra = {"usage": _constructed(LIKE_IT), "id": "other", "model": "other"}[name]
    object.__setattr__(answer, "__pydantic_extra__", {name: extra})
    reading = read_answer(answer, Operation.CHAT)

    assert reading is not None
    assert (13 if name == "usage" else 9) == reading.usage.prompt_tokens
    assert reading.names is None


def test_what_should_be_extras_and_is_something_else_is_passed_over(door: None) -> None:
    """As everywhere."""
    answer = _chat(usage=_constructed(ORDINARY))
    object.__setattr__(answer, "__pydantic_extra__", 5)
    reading = read_answer(answer, Operation.CHAT)

    assert reading is not None
    assert 9 == reading.usage.prompt_tokens


def test_an_answer_whose_class_raises_is_read_every_time(no_lanes: None) -> None:
    """A class may import what it is asked for, and fail."""

    class Lazy(type):
        def __getattr__(cls, name: str) -> Any:
            raise ImportError(name)

    class Answer(metaclass=Lazy):
        def __init__(self) -> None:
            self.usage = _constructed(ORDINARY)

    readings = [read_answer(Answer(), Operation.CHAT) for _ in range(4)]

    assert [9] * 4 == [reading and reading.usage.prompt_tokens for reading in readings]


@pytest.mark.parametrize("name", ["id", "model", "usage", "__pydantic_extra__"])
def test_an_answer_made_without_one_of_them_raises_nothing(door: None, name: str) -> None:
    """Pickles and proxies may leave out what the client always sets."""
    answer = _chat(usage=_constructed(ORDINARY))
    object.__delattr__(answer, name)
    reading = read_answer(answer, Operation.CHAT)

    assert (None if name == "usage" else 9) == (None if reading is None else reading.usage.prompt_tokens)
