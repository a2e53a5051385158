"""Usage payloads as the providers document them, and payloads as nobody should send them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from token_callbacks.records import Operation, Usage
from token_callbacks.usage import DIALECTS, as_plain, read_first, read_stream, read_usage, token_count

GOLDEN: dict[str, tuple[dict[str, Any], Usage]] = {
    # https://platform.openai.com/docs/api-reference/chat/object
    "openai": (
        {
            "prompt_tokens": 19,
            "completion_tokens": 10,
            "total_tokens": 29,
            "prompt_tokens_details": {"cached_tokens": 3, "audio_tokens": 2},
            "completion_tokens_details": {
                "reasoning_tokens": 4,
                "audio_tokens": 1,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        Usage(
            prompt_tokens=19,
            completion_tokens=10,
            cache_read_tokens=3,
            reasoning_tokens=4,
            audio_prompt_tokens=2,
            audio_completion_tokens=1,
        ),
    ),
    # https://platform.openai.com/docs/api-reference/responses/object
    "openai-responses": (
        {
            "input_tokens": 36,
            "input_tokens_details": {"cached_tokens": 5},
            "output_tokens": 87,
            "output_tokens_details": {"reasoning_tokens": 6},
            "total_tokens": 123,
        },
        Usage(prompt_tokens=36, completion_tokens=87, cache_read_tokens=5, reasoning_tokens=6),
    ),
    # https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching#tracking-cache-performance
    "anthropic": (
        {
            "input_tokens": 21,
            "cache_creation_input_tokens": 188,
            "cache_read_input_tokens": 7,
            "output_tokens": 393,
        },
        Usage(prompt_tokens=216, completion_tokens=393, cache_read_tokens=7, cache_write_tokens=188),
    ),
    # https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html
    "bedrock-converse": (
        {
            "inputTokens": 30,
            "outputTokens": 628,
            "totalTokens": 671,
            "cacheReadInputTokens": 11,
            "cacheWriteInputTokens": 2,
        },
        Usage(prompt_tokens=43, completion_tokens=628, cache_read_tokens=11, cache_write_tokens=2),
    ),
    # https://ai.google.dev/api/generate-content#UsageMetadata
    "gemini": (
        {
            "promptTokenCount": 9,
            "candidatesTokenCount": 41,
            "thoughtsTokenCount": 100,
            "toolUsePromptTokenCount": 3,
            "cachedContentTokenCount": 2,
            "totalTokenCount": 153,
        },
        Usage(prompt_tokens=12, completion_tokens=141, cache_read_tokens=2, reasoning_tokens=100),
    ),
    "gemini-python": (
        {"prompt_token_count": 9, "candidates_token_count": 41, "thoughts_token_count": None, "total_token_count": 50},
        Usage(prompt_tokens=9, completion_tokens=41),
    ),
    # https://docs.cohere.com/reference/chat#response.body.usage
    "cohere": (
        {
            "billed_units": {"input_tokens": 5, "output_tokens": 418},
            "tokens": {"input_tokens": 71, "output_tokens": 419},
            "cached_tokens": 16,
        },
        Usage(prompt_tokens=71, completion_tokens=419, cache_read_tokens=16),
    ),
    # https://docs.cohere.com/v1/reference/chat
    "cohere-billed": (
        {"api_version": {"version": "1"}, "billed_units": {"input_tokens": 5, "output_tokens": 418}},
        Usage(prompt_tokens=5, completion_tokens=418),
    ),
    # https://github.com/ollama/ollama/blob/main/docs/api.md#response-1
    "ollama": (
        {"model": "llama3.2", "done": True, "prompt_eval_count": 26, "eval_count": 298, "eval_duration": 4709213000},
        Usage(prompt_tokens=26, completion_tokens=298),
    ),
}

KEPT = {
    # Ollama's figures stand beside the answer's text, of which nothing may be kept.
    "ollama": {"prompt_eval_count": 26, "eval_count": 298, "eval_duration": 4709213000},
}

GOLDEN_EMBEDDINGS: dict[str, tuple[dict[str, Any], int]] = {
    # https://platform.openai.com/docs/api-reference/embeddings/create
    "openai": ({"prompt_tokens": 8, "total_tokens": 8}, 8),
    # https://docs.cohere.com/reference/embed#response.body.meta.billed_units
    "cohere-billed": ({"billed_units": {"input_tokens": 2}}, 2),
    # https://github.com/ollama/ollama/blob/main/docs/api.md#response-21
    "ollama": ({"model": "all-minilm", "prompt_eval_count": 7}, 7),
    # https://help.aliyun.com/zh/model-studio/text-embedding-synchronous-api
    "total-only": ({"total_tokens": 23}, 23),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_documented_payload_is_read_whole(name: str) -> None:
    """Each provider's documented usage gives its figures, with the payload kept verbatim."""
    payload, expected = GOLDEN[name]
    reading = read_usage(payload, Operation.CHAT)

    assert reading is not None
    assert expected == reading.usage
    assert KEPT.get(name, payload) == reading.payload


@pytest.mark.parametrize(("payload", "expected"), GOLDEN_EMBEDDINGS.values(), ids=GOLDEN_EMBEDDINGS)
def test_a_documented_embedding_payload_is_read(payload: dict[str, Any], expected: int) -> None:
    """What an embedding used is in its own figure, never in the prompt."""
    reading = read_usage(payload, Operation.EMBEDDING)

    assert reading is not None
    assert Usage(embedding_tokens=expected) == reading.usage


def test_every_dialect_has_a_golden_payload() -> None:
    """A new row of the table comes with a payload from its provider's documentation."""
    assert {dialect.name for dialect in DIALECTS} == set(GOLDEN) | set(GOLDEN_EMBEDDINGS)


@pytest.mark.parametrize(("payload", "expected"), GOLDEN.values(), ids=GOLDEN)
def test_objects_are_read_like_mappings(payload: dict[str, Any], expected: Usage) -> None:
    """SDKs hand out objects where the wire has mappings."""
    reading = read_usage(_as_object(payload), Operation.CHAT)

    assert reading is not None
    assert expected == reading.usage


@pytest.mark.parametrize(
    "payload",
    [None, "usage", 3, [3, 4], {}, [], {"prompt_tokens": None}, {"prompt_tokens": {}}, {"usage": {"prompt_tokens": 3}}],
    ids=repr,
)
def test_a_payload_without_figures_is_not_told(payload: object) -> None:
    """What cannot be read is as good as not told."""
    assert read_usage(payload, Operation.CHAT) is None


@pytest.mark.parametrize(
    "odd", [-3, 3.5, float("nan"), float("inf"), "3", True, 2**60, None, [3], {"tokens": 3}], ids=repr
)
def test_an_odd_figure_is_not_told_and_the_other_one_stays(odd: object) -> None:
    """One bad figure does not spoil its neighbour."""
    reading = read_usage({"prompt_tokens": odd, "completion_tokens": 4}, Operation.CHAT)

    assert reading is not None
    assert Usage(completion_tokens=4) == reading.usage


def test_a_whole_float_is_a_count() -> None:
    """Some gateways send 3.0."""
    assert 3 == token_count(3.0)


def test_a_cyclic_payload_is_read_and_cut_off() -> None:
    """A payload that contains itself is kept to a bounded depth."""
    payload: dict[str, Any] = {"prompt_tokens": 3, "completion_tokens": 4}
    payload["self"] = payload
    reading = read_usage(payload, Operation.CHAT)

    assert reading is not None
    assert Usage(prompt_tokens=3, completion_tokens=4) == reading.usage
    assert 3 == reading.payload["self"]["prompt_tokens"]


def test_text_does_not_reach_the_log_through_a_payload() -> None:
    """Of strings only the known words of usage objects are kept, however short another one is."""
    payload = {"service_tier": "default", "note": "secret", "nested": [{"modality": "TEXT", "text": "secret"}]}
    kept = {"service_tier": "default", "note": None, "nested": [{"modality": "TEXT", "text": None}]}

    assert kept == as_plain(payload)


@pytest.mark.parametrize("answer", [{"message": {"content": "secret"}}, {"response": "secret", "context": [3, 4]}])
def test_an_answer_with_open_figures_leaves_only_them(answer: dict[str, Any]) -> None:
    """Ollama's counts stand beside its text; nothing of the text, nor of its token ids, is kept."""
    reading = read_usage(answer | {"prompt_eval_count": 3, "eval_count": 4}, Operation.CHAT)

    assert reading is not None
    assert {"prompt_eval_count": 3, "eval_count": 4} == reading.payload


def test_repeated_usage_of_a_stream_is_cumulative() -> None:
    """The last figure told counts, and a later 0 or silence never erases an earlier one."""
    chunks = [
        {"input_tokens": 25, "output_tokens": 1, "cache_read_input_tokens": 7},
        {"output_tokens": 9},
        {"output_tokens": 15, "input_tokens": 0},
    ]
    reading = read_stream(chunks, Operation.CHAT)

    assert reading is not None
    assert Usage(prompt_tokens=32, completion_tokens=15, cache_read_tokens=7) == reading.usage


def test_the_first_place_with_figures_wins_over_zeros() -> None:
    """A synthetic 0/0 in one place does not hide the provider's figures in another."""
    reading = read_first(
        [{"prompt_tokens": 0, "completion_tokens": 0}, {"input_tokens": 3, "output_tokens": 4}], Operation.CHAT
    )

    assert reading is not None
    assert Usage(prompt_tokens=3, completion_tokens=4) == reading.usage


KEYS = st.sampled_from(
    sorted({path.split(".")[0] for dialect in DIALECTS for path in dialect.marks} | {"input_tokens", "tokens"})
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=10,
)


@given(JSON, st.sampled_from(Operation))
def test_no_payload_raises_and_no_figure_is_negative(payload: object, operation: Operation) -> None:
    """Whatever a provider sends, reading it gives figures of 0 or more, or none."""
    reading = read_usage(payload, operation)

    if reading is not None:
        assert [] == [tokens for tokens in _figures(reading.usage) if tokens is not None and tokens < 0]


def _figures(usage: Usage) -> list[int | None]:
    return [getattr(usage, name) for name in Usage.__struct_fields__]


def _as_object(value: Any) -> Any:
    if isinstance(value, dict):
        return SimpleNamespace(**{name: _as_object(inner) for name, inner in value.items()})
    return value
