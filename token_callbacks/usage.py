"""A provider's usage payload, of whatever dialect, read into ``Usage``.

A dialect is a row of ``DIALECTS``: which keys tell it apart, and from which paths each figure is added up. Reading is
pure and never raises: what is not a sensible token count (a negative, a fraction, a string, a boolean, more than 2**53)
is as good as not told.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, cast

import msgspec

from token_callbacks.records import Operation, Usage

_LARGEST = 2**53
"""The largest integer that every JSON reader keeps exact."""


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """How one provider words its usage. Each figure is the sum of the paths that are told; a path is dotted."""

    name: str
    marks: tuple[str, ...]
    """Paths, any one of which, present and not null, says that a payload is of this dialect."""
    prompt_tokens: tuple[str, ...] = ()
    completion_tokens: tuple[str, ...] = ()
    embedding_tokens: tuple[str, ...] = ()
    cache_read_tokens: tuple[str, ...] = ()
    cache_write_tokens: tuple[str, ...] = ()
    reasoning_tokens: tuple[str, ...] = ()
    audio_prompt_tokens: tuple[str, ...] = ()
    audio_completion_tokens: tuple[str, ...] = ()
    image_prompt_tokens: tuple[str, ...] = ()
    lies_open: bool = False
    """The figures stand in the answer itself, beside its text: then only they are kept of it."""
    source: str
    """Where the provider documents it."""


DIALECTS: tuple[Dialect, ...] = (
    Dialect(
        name="openai",
        marks=("prompt_tokens", "completion_tokens"),
        prompt_tokens=("prompt_tokens",),
        completion_tokens=("completion_tokens",),
        embedding_tokens=("prompt_tokens",),
        cache_read_tokens=("prompt_tokens_details.cached_tokens",),
        cache_write_tokens=("cache_creation_input_tokens",),  # as LiteLLM adds it to its OpenAI-shaped usage
        reasoning_tokens=("completion_tokens_details.reasoning_tokens",),
        audio_prompt_tokens=("prompt_tokens_details.audio_tokens",),
        audio_completion_tokens=("completion_tokens_details.audio_tokens",),
        image_prompt_tokens=("prompt_tokens_details.image_tokens",),
        source="https://platform.openai.com/docs/api-reference/chat/object",
    ),
    Dialect(  # input_tokens leaves out what was read from and written to the cache
        name="anthropic",
        marks=("cache_read_input_tokens", "cache_creation_input_tokens"),
        prompt_tokens=("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"),
        completion_tokens=("output_tokens",),
        cache_read_tokens=("cache_read_input_tokens",),
        cache_write_tokens=("cache_creation_input_tokens",),
        source="https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching#tracking-cache-performance",
    ),
    Dialect(
        name="openai-responses",
        marks=("input_tokens", "output_tokens"),
        prompt_tokens=("input_tokens",),
        completion_tokens=("output_tokens",),
        embedding_tokens=("input_tokens",),
        cache_read_tokens=("input_tokens_details.cached_tokens",),
        reasoning_tokens=("output_tokens_details.reasoning_tokens",),
        source="https://platform.openai.com/docs/api-reference/responses/object",
    ),
    Dialect(  # inputTokens leaves out what was read from and written to the cache
        name="bedrock-converse",
        marks=("inputTokens", "outputTokens"),
        prompt_tokens=("inputTokens", "cacheReadInputTokens", "cacheWriteInputTokens"),
        completion_tokens=("outputTokens",),
        cache_read_tokens=("cacheReadInputTokens",),
        cache_write_tokens=("cacheWriteInputTokens",),
        source="https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html",
    ),
    Dialect(  # thoughts stand beside the candidates, tool-use prompts beside the prompt
        name="gemini",
        marks=("promptTokenCount", "candidatesTokenCount"),
        prompt_tokens=("promptTokenCount", "toolUsePromptTokenCount"),
        completion_tokens=("candidatesTokenCount", "thoughtsTokenCount"),
        cache_read_tokens=("cachedContentTokenCount",),
        reasoning_tokens=("thoughtsTokenCount",),
        source="https://ai.google.dev/api/generate-content#UsageMetadata",
    ),
    Dialect(  # the same, as Google's Python SDK spells it
        name="gemini-python",
        marks=("prompt_token_count", "candidates_token_count"),
        prompt_tokens=("prompt_token_count", "tool_use_prompt_token_count"),
        completion_tokens=("candidates_token_count", "thoughts_token_count"),
        cache_read_tokens=("cached_content_token_count",),
        reasoning_tokens=("thoughts_token_count",),
        source="https://ai.google.dev/api/generate-content#UsageMetadata",
    ),
    Dialect(
        name="cohere",
        marks=("tokens.input_tokens", "tokens.output_tokens"),
        prompt_tokens=("tokens.input_tokens",),
        completion_tokens=("tokens.output_tokens",),
        embedding_tokens=("tokens.input_tokens",),
        cache_read_tokens=("cached_tokens",),
        source="https://docs.cohere.com/reference/chat#response.body.usage",
    ),
    Dialect(
        name="cohere-billed",
        marks=("billed_units.input_tokens", "billed_units.output_tokens"),
        prompt_tokens=("billed_units.input_tokens",),
        completion_tokens=("billed_units.output_tokens",),
        embedding_tokens=("billed_units.input_tokens",),
        source="https://docs.cohere.com/reference/embed#response.body.meta.billed_units",
    ),
    Dialect(
        name="ollama",
        marks=("prompt_eval_count", "eval_count"),
        prompt_tokens=("prompt_eval_count",),
        completion_tokens=("eval_count",),
        embedding_tokens=("prompt_eval_count",),
        lies_open=True,
        source="https://github.com/ollama/ollama/blob/main/docs/api.md#response-1",
    ),
    Dialect(
        name="total-only",
        marks=("total_tokens",),
        embedding_tokens=("total_tokens",),
        source="https://help.aliyun.com/zh/model-studio/text-embedding-synchronous-api",
    ),
)


class _Plan:
    """A dialect made ready: its paths taken apart and sorted by the part they are in, so that each is opened once."""

    __slots__ = ("_marks", "embedding", "lies_open", "llm")

    def __init__(self, dialect: Dialect) -> None:
        self._marks = tuple(map(_split, dialect.marks))
        self.embedding = _by_part(dialect, ("embedding_tokens",))
        self.llm = _by_part(dialect, [figure for figure in Usage.__struct_fields__ if figure != "embedding_tokens"])
        self.lies_open = dialect.lies_open

    def is_marked(self, payload: object) -> bool:
        """Tell whether a payload is of this dialect."""
        return any(part(part(payload, within) if within else payload, name) is not None for within, name in self._marks)


def _split(path: str) -> tuple[str, str]:
    """Take a path apart into the part it is in, "" for the payload itself, and the name there."""
    within, _, name = path.rpartition(".")
    return within, name


def _by_part(dialect: Dialect, figures: Iterable[str]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Sort the (name, figure) pairs of some figures by the part they are in."""
    parts: dict[str, list[tuple[str, str]]] = {}
    for figure in figures:
        for within, name in map(_split, getattr(dialect, figure)):
            parts.setdefault(within, []).append((name, figure))
    return list(parts.items())


_PLANS = tuple(map(_Plan, DIALECTS))
_MARKING_NAMES = frozenset(mark.partition(".")[0] for dialect in DIALECTS for mark in dialect.marks)


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """A usage payload, read: the figures, and the payload itself as plain values."""

    usage: Usage
    payload: dict[str, Any]


def read_usage(payload: object, operation: Operation) -> Reading | None:
    """Read one payload; ``None`` where it tells no figure of this operation. Never raises for any payload."""
    if not _may_be_marked(payload):
        return None
    opened = _opened(payload)
    for plan in _PLANS:
        if plan.is_marked(opened):
            usage = _usage(opened, plan, operation)
            if usage is not None:
                return Reading(usage=usage, payload=_numbers_of(opened) if plan.lies_open else as_plain(opened))
    return None


def read_first(payloads: Iterable[object], operation: Operation) -> Reading | None:
    """Read the first payload that tells a figure other than zero, else the first that tells any."""
    fallback = None
    for payload in payloads:
        reading = read_usage(payload, operation)
        if reading is not None and _is_all_zero(reading.usage):
            fallback = fallback or reading
        elif reading is not None:
            return reading
    return fallback


def read_stream(payloads: Iterable[object], operation: Operation) -> Reading | None:
    """Read the payloads of one stream, in its order: repeated usage is cumulative, so the last figure told counts."""
    merged: Reading | None = None
    for payload in payloads:
        reading = read_usage(payload, operation)
        if reading is not None:
            merged = (
                reading
                if merged is None
                else Reading(usage=merged.usage.updated(reading.usage), payload=reading.payload)
            )
    return merged


def _may_be_marked(payload: object) -> bool:
    # Most of what is asked has no usage, and asking a pydantic object for an attribute that it does not have is slow.
    if type(payload) is dict:
        return not _MARKING_NAMES.isdisjoint(payload)
    sent = _names_sent(payload)
    return payload is not None if sent is None else not _MARKING_NAMES.isdisjoint(sent)


def _usage(payload: object, plan: _Plan, operation: Operation) -> Usage | None:
    figures: dict[str, int] = {}
    for within, pairs in plan.embedding if operation is Operation.EMBEDDING else plan.llm:
        there = part(payload, within) if within else payload
        if there is None:
            continue
        read = there.get if type(there) is dict else functools.partial(part, there)
        for name, figure in pairs:
            tokens = token_count(read(name))
            if tokens is not None:
                figures[figure] = figures.get(figure, 0) + tokens
    return None if _WHOLES.isdisjoint(figures) else Usage(**figures)


_WHOLES = {"embedding_tokens", "prompt_tokens", "completion_tokens"}
"""One of them has to be told: the other figures are only parts."""


def _is_all_zero(usage: Usage) -> bool:
    return not (usage.embedding_tokens or usage.prompt_tokens or usage.completion_tokens)


def token_count(value: object) -> int | None:
    """Return the value if it is a sensible number of tokens, else ``None``."""
    if type(value) is int:
        return value if 0 <= value <= _LARGEST else None
    if isinstance(value, int) and not isinstance(value, bool):
        return token_count(int(value))
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return token_count(int(value))
    return None


def part(whole: Any, name: str) -> Any:
    """Read a key of a mapping or an attribute of an object; ``None`` where there is none."""
    if whole is None:
        return None
    if type(whole) is dict or _is_mapping(type(whole)):  # type: ignore[arg-type]  # mypy: are classes hashable?
        return whole.get(name)
    return getattr(whole, name, None)


@functools.lru_cache(maxsize=512)
def _is_mapping(kind: type[Any]) -> bool:
    return issubclass(kind, Mapping)


def _names_sent(value: object) -> set[str] | None:
    """Name the fields of a pydantic object that the provider sent; ``None`` for another object."""
    names, extra = getattr(value, "model_fields_set", None), getattr(value, "model_extra", None)
    if not isinstance(names, set):
        return None
    return names | extra.keys() if extra else names


def _opened(payload: object) -> object:
    """Turn a pydantic object into a mapping of what the provider sent; anything else stays what it is."""
    dump = None if type(payload) is dict else getattr(payload, "model_dump", None)
    if dump is None:
        return payload
    try:
        return cast("object", dump(exclude_unset=True, warnings=False))
    except (TypeError, ValueError, RecursionError):  # something in it that pydantic cannot write
        return payload


_DEEPEST = 6
_LONGEST_WORD = 100
_WIDEST = 100

WORDS = frozenset(
    {"inference_geo", "modality", "service_tier", "speed", "trafficType", "traffic_type", "type", "version"}
)
"""The keys whose strings are kept: the words that providers put into a usage object. Any other string may be text."""

_Name = Annotated[str, msgspec.Meta(max_length=_LONGEST_WORD)]
_Bounds = msgspec.Meta(ge=-_LARGEST, le=_LARGEST)
_Number = None | bool | Annotated[int, _Bounds] | Annotated[float, _Bounds]
_Part = Annotated[dict[_Name, _Number], msgspec.Meta(max_length=_WIDEST)]


class _Ordinary(msgspec.Struct, frozen=True):
    """What almost every payload is, so that msgspec can see in one go that nothing is odd about it."""

    payload: Annotated[dict[_Name, _Number | _Part], msgspec.Meta(max_length=_WIDEST)]


def as_plain(payload: object) -> dict[str, Any]:
    """Copy a payload into plain JSON values, bounded in depth and width, so that nothing odd reaches the file.

    Numbers are kept, strings only under the keys in ``WORDS``: text must not reach the log by this door.
    """
    try:
        return msgspec.convert({"payload": payload}, _Ordinary).payload
    except (msgspec.ValidationError, RecursionError):  # something else in it: piece by piece then
        plain = _plain(payload, "", _DEEPEST)
        return plain if isinstance(plain, dict) else {}


def _numbers_of(answer: object) -> dict[str, Any]:
    fields = _fields(answer) or ()
    return {str(name): value for name, value in fields if token_count(value) is not None}


def _plain(value: object, name: str, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if abs(value) <= _LARGEST else None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value if name in WORDS and len(value) <= _LONGEST_WORD else None
    if depth == 0:
        return None
    if isinstance(value, list | tuple):
        return [_plain(item, name, depth - 1) for item in value[:_WIDEST]]
    fields = _fields(value)
    if fields is None:
        return None
    return {str(key)[:_LONGEST_WORD]: _plain(field, str(key), depth - 1) for key, field in fields[:_WIDEST]}


def _fields(value: object) -> list[tuple[Any, Any]] | None:
    if isinstance(value, Mapping):
        return list(value.items())
    names = _names_sent(value)
    if names is not None:
        return [(name, getattr(value, name, None)) for name in sorted(names)]
    attributes = getattr(value, "__dict__", None)
    if isinstance(attributes, dict):
        return [(name, attribute) for name, attribute in attributes.items() if not str(name).startswith("_")]
    return None
