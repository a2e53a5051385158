"""Usage as the providers document it, answer by answer and stream by stream, and as nobody should send it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from token_callbacks.dialects import DIALECTS, PLACES
from token_callbacks.records import LARGEST_CONTEXT, Doubt, Operation, Usage
from token_callbacks.usage import (
    UNKNOWN_SHAPE,
    Misfits,
    Reading,
    UsageReader,
    as_plain,
    is_broken,
    misfits_in_first,
    misfits_in_stream,
    part,
    read_answer,
    read_first,
    read_stream,
    read_usage,
    token_count,
)

Json = dict[str, Any]

# An answer, the usage object in it that is kept, and the figures; the key opens with the row of DIALECTS.
GOLDEN: dict[str, tuple[Json, Json, Usage]] = {}


def _golden(name: str, payload: Json, usage: Usage, answer: Json | None = None) -> None:
    """Add a case; an answer that is not given has the payload under ``usage``."""
    GOLDEN[name] = ({"id": "a-3", "usage": payload} if answer is None else answer, payload, usage)


# --- who speaks as OpenAI does

# https://platform.openai.com/docs/api-reference/chat/object
_golden(
    "openai",
    {
        "prompt_tokens": 1117,
        "completion_tokens": 46,
        "total_tokens": 1163,
        "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 2, "cache_write_tokens": 5},
        "completion_tokens_details": {
            "reasoning_tokens": 11,
            "audio_tokens": 1,
            "accepted_prediction_tokens": 7,
            "rejected_prediction_tokens": 0,
        },
        "service_tier": "default",
    },
    Usage(
        prompt_tokens=1117,
        completion_tokens=46,
        cache_read_tokens=1024,
        cache_write_tokens=5,
        reasoning_tokens=11,
        audio_prompt_tokens=2,
        audio_completion_tokens=1,
        accepted_prediction_tokens=7,
        rejected_prediction_tokens=0,
    ),
)
# https://learn.microsoft.com/en-us/azure/ai-services/openai/reference#chat-completions
_golden(
    "openai: Azure",
    {
        "completion_tokens": 33,
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        "prompt_tokens": 24,
        "prompt_tokens_details": {"audio_tokens": 0, "cached_tokens": 0},
        "total_tokens": 57,
    },
    Usage(
        prompt_tokens=24,
        completion_tokens=33,
        cache_read_tokens=0,
        reasoning_tokens=0,
        audio_prompt_tokens=0,
        audio_completion_tokens=0,
    ),
)
# https://docs.mistral.ai/api/#tag/chat
_golden(
    "openai: Mistral's num_cached_tokens",
    {"prompt_tokens": 273, "total_tokens": 377, "completion_tokens": 104, "num_cached_tokens": 32},
    Usage(prompt_tokens=273, completion_tokens=104, cache_read_tokens=32),
)
_golden(
    "openai: Mistral's prompt_tokens_details",
    {
        "prompt_tokens": 16,
        "prompt_audio_seconds": None,
        "completion_tokens": 34,
        "total_tokens": 50,
        "prompt_tokens_details": {"cached_tokens": 9},
        "prompt_token_details": {"cached_tokens": 9},
    },
    Usage(prompt_tokens=16, completion_tokens=34, cache_read_tokens=9),
)
# https://console.groq.com/docs/api-reference#chat-create: a stream has it in the last chunk's x_groq
_golden(
    "openai: Groq",
    {
        "queue_time": 0.037493756,
        "prompt_tokens": 18,
        "prompt_time": 0.000680594,
        "completion_tokens": 556,
        "completion_time": 0.463333333,
        "total_tokens": 574,
        "total_time": 0.464013927,
    },
    Usage(prompt_tokens=18, completion_tokens=556),
)
GOLDEN["openai: Groq's x_groq"] = (
    {"choices": [{"index": 0, "delta": {}}], "x_groq": {"id": "req_3", "usage": GOLDEN["openai: Groq"][1]}},
    *GOLDEN["openai: Groq"][1:],
)
# https://api-docs.deepseek.com/guides/kv_cache
_golden(
    "openai: DeepSeek",
    {
        "prompt_tokens": 187,
        "completion_tokens": 26,
        "total_tokens": 213,
        "prompt_cache_hit_tokens": 128,
        "prompt_cache_miss_tokens": 59,
        "completion_tokens_details": {"reasoning_tokens": 5},
    },
    Usage(prompt_tokens=187, completion_tokens=26, cache_read_tokens=128, reasoning_tokens=5),
)
# https://docs.x.ai/docs/guides/reasoning: total = prompt + completion + reasoning
_golden(
    "openai: xAI",
    {
        "prompt_tokens": 32,
        "completion_tokens": 9,
        "total_tokens": 135,
        "prompt_tokens_details": {"text_tokens": 32, "audio_tokens": 0, "image_tokens": 3, "cached_tokens": 6},
        "completion_tokens_details": {"reasoning_tokens": 94, "audio_tokens": 0},
        "num_sources_used": 0,
    },
    Usage(
        prompt_tokens=32,
        completion_tokens=103,
        cache_read_tokens=6,
        reasoning_tokens=94,
        audio_prompt_tokens=0,
        audio_completion_tokens=0,
        image_prompt_tokens=3,
    ),
)
_golden(  # fewer than the completion: the total alone tells that they stand beside it
    "openai: xAI with little reasoning",
    {
        "prompt_tokens": 32,
        "completion_tokens": 9,
        "total_tokens": 45,
        "completion_tokens_details": {"reasoning_tokens": 4},
    },
    Usage(prompt_tokens=32, completion_tokens=13, reasoning_tokens=4),
)
# https://openrouter.ai/docs/use-cases/usage-accounting: the cost stays in the payload
_golden(
    "openai: OpenRouter",
    {
        "completion_tokens": 2,
        "completion_tokens_details": {"reasoning_tokens": 0},
        "cost": 0.95,
        "cost_details": {"upstream_inference_cost": 19},
        "is_byok": False,
        "prompt_tokens": 194,
        "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 100, "audio_tokens": 0, "video_tokens": 4},
        "total_tokens": 196,
    },
    Usage(
        prompt_tokens=194,
        completion_tokens=2,
        cache_read_tokens=3,
        cache_write_tokens=100,
        reasoning_tokens=0,
        audio_prompt_tokens=0,
        video_prompt_tokens=4,
    ),
)
# https://docs.perplexity.ai/api-reference/chat-completions-post
_golden(
    "openai: Perplexity",
    {
        "prompt_tokens": 8,
        "completion_tokens": 439,
        "total_tokens": 447,
        "search_context_size": "low",
        "citation_tokens": 12,
        "num_search_queries": 2,
        "reasoning_tokens": 21,
        "cost": {"input_tokens_cost": 0.000008, "output_tokens_cost": 0.000439, "total_cost": 0.005447},
    },
    Usage(prompt_tokens=8, completion_tokens=439, reasoning_tokens=21),
)
# https://docs.together.ai/reference/chat-completions-1
_golden(
    "openai: Together",
    {"prompt_tokens": 45, "completion_tokens": 3, "total_tokens": 48, "cached_tokens": 13},
    Usage(prompt_tokens=45, completion_tokens=3, cache_read_tokens=13),
)
# https://docs.fireworks.ai/api-reference/post-chatcompletions
_golden(
    "openai: Fireworks",
    {
        "prompt_tokens": 21,
        "total_tokens": 38,
        "completion_tokens": 17,
        "prompt_tokens_details": {"cached_tokens": 4},
    },
    Usage(prompt_tokens=21, completion_tokens=17, cache_read_tokens=4),
)
# https://platform.moonshot.ai/docs/api/chat: beside the prompt, and in a stream under the choice
_golden(
    "openai: Moonshot",
    {"prompt_tokens": 19, "completion_tokens": 21, "total_tokens": 40, "cached_tokens": 10},
    Usage(prompt_tokens=19, completion_tokens=21, cache_read_tokens=10),
)
GOLDEN["openai: Moonshot's choices"] = (
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": GOLDEN["openai: Moonshot"][1]}]},
    *GOLDEN["openai: Moonshot"][1:],
)
# https://help.aliyun.com/zh/model-studio/context-cache
_golden(
    "openai: DashScope, compatible",
    {
        "prompt_tokens": 3019,
        "completion_tokens": 104,
        "total_tokens": 3123,
        "prompt_tokens_details": {
            "cached_tokens": 0,
            "cache_creation_input_tokens": 2048,
            "cache_creation": {"ephemeral_5m_input_tokens": 2048},
            "cache_type": "ephemeral",
        },
    },
    Usage(prompt_tokens=3019, completion_tokens=104, cache_read_tokens=0, cache_write_tokens=2048),
)
# https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
_golden(
    "openai: vLLM",
    {"prompt_tokens": 43, "total_tokens": 79, "completion_tokens": 36, "prompt_tokens_details": None},
    Usage(prompt_tokens=43, completion_tokens=36),
)
# https://huggingface.co/docs/transformers/main/en/serving
_golden(
    "openai: transformers serve",
    {"completion_tokens": 14, "prompt_tokens": 31, "total_tokens": 45},
    Usage(prompt_tokens=31, completion_tokens=14),
)
# https://docs.litellm.ai/docs/completion/prompt_caching: what LiteLLM makes of Anthropic's
_golden(
    "openai: LiteLLM",
    {
        "prompt_tokens": 216,
        "completion_tokens": 393,
        "total_tokens": 609,
        "prompt_tokens_details": {
            "cached_tokens": 7,
            "cache_creation_tokens": 188,
            "cache_creation_token_details": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 88},
        },
        "cache_creation_input_tokens": 188,
        "cache_read_input_tokens": 7,
    },
    Usage(
        prompt_tokens=216,
        completion_tokens=393,
        cache_read_tokens=7,
        cache_write_tokens=188,
        cache_write_1h_tokens=88,
    ),
)
# https://platform.openai.com/docs/api-reference/embeddings/create
_golden("openai: embeddings", {"prompt_tokens": 8, "total_tokens": 8}, Usage(embedding_tokens=8))
# https://docs.mistral.ai/api/#tag/embeddings
_golden(
    "openai: Mistral's embeddings",
    {"prompt_tokens": 15, "total_tokens": 15, "completion_tokens": 0},
    Usage(embedding_tokens=15),
)

# --- Anthropic

# https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching#1-hour-cache-duration
_golden(
    "anthropic",
    {
        "input_tokens": 2048,
        "cache_read_input_tokens": 1800,
        "cache_creation_input_tokens": 248,
        "cache_creation": {"ephemeral_5m_input_tokens": 148, "ephemeral_1h_input_tokens": 100},
        "output_tokens": 503,
        "output_tokens_details": {"thinking_tokens": 61},
        "service_tier": "standard",
    },
    Usage(
        prompt_tokens=4096,
        completion_tokens=503,
        cache_read_tokens=1800,
        cache_write_tokens=248,
        cache_write_1h_tokens=100,
        reasoning_tokens=61,
    ),
)
# https://docs.anthropic.com/en/api/messages
_golden(
    "openai-responses: Anthropic without a cache",
    {"input_tokens": 12, "output_tokens": 6},
    Usage(prompt_tokens=12, completion_tokens=6),
)

# --- the Responses API, and DashScope's own

# https://platform.openai.com/docs/api-reference/responses/object
_golden(
    "openai-responses",
    {
        "input_tokens": 36,
        "input_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 2},
        "output_tokens": 87,
        "output_tokens_details": {"reasoning_tokens": 6},
        "total_tokens": 123,
    },
    Usage(prompt_tokens=36, completion_tokens=87, cache_read_tokens=5, cache_write_tokens=2, reasoning_tokens=6),
)
# https://help.aliyun.com/zh/model-studio/dashscope-api-reference
_golden(
    "openai-responses: DashScope",
    {
        "input_tokens": 22,
        "output_tokens": 17,
        "total_tokens": 39,
        "output_tokens_details": {"reasoning_tokens": 4},
        "prompt_tokens_details": {"cached_tokens": 8},
    },
    Usage(prompt_tokens=22, completion_tokens=17, cache_read_tokens=8, reasoning_tokens=4),
)
# https://help.aliyun.com/zh/model-studio/vision
_golden(
    "openai-responses: DashScope with images",
    {"input_tokens": 1271, "output_tokens": 5, "image_tokens": 1247, "video_tokens": 3, "audio_tokens": 2},
    Usage(
        prompt_tokens=1271, completion_tokens=5, image_prompt_tokens=1247, video_prompt_tokens=3, audio_prompt_tokens=2
    ),
)
# https://help.aliyun.com/zh/model-studio/text-embedding-synchronous-api
_golden("total-only", {"total_tokens": 23}, Usage(embedding_tokens=23))
# https://docs.voyageai.com/reference/embeddings-api
_golden("total-only: Voyage", {"total_tokens": 10}, Usage(embedding_tokens=10))

# --- Bedrock

# https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html
_golden(
    "bedrock-converse",
    {
        "inputTokens": 30,
        "outputTokens": 628,
        "totalTokens": 678,
        "cacheReadInputTokens": 11,
        "cacheWriteInputTokens": 9,
        "cacheDetails": [{"inputTokens": 4, "ttl": "1h"}, {"inputTokens": 5, "ttl": "5m"}],
    },
    Usage(
        prompt_tokens=50,
        completion_tokens=628,
        cache_read_tokens=11,
        cache_write_tokens=9,
        cache_write_1h_tokens=4,
    ),
)
# https://docs.aws.amazon.com/nova/latest/userguide/using-invoke-api.html
_golden(
    "bedrock-converse: Nova, invoked",
    {
        "inputTokens": 13,
        "outputTokens": 5,
        "totalTokens": 18,
        "cacheReadInputTokenCount": 3,
        "cacheWriteInputTokenCount": 4,
    },
    Usage(prompt_tokens=20, completion_tokens=5, cache_read_tokens=3, cache_write_tokens=4),
)
# https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-meta.html
_golden(
    "bedrock-llama",
    {"prompt_token_count": 25, "generation_token_count": 51},
    Usage(prompt_tokens=25, completion_tokens=51),
    {"generation": "Hi", "prompt_token_count": 25, "generation_token_count": 51, "stop_reason": "stop"},
)
# https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-text.html
_golden(
    "bedrock-titan",
    {"inputTextTokenCount": 5},
    Usage(prompt_tokens=5, completion_tokens=57),
    {
        "inputTextTokenCount": 5,
        "results": [{"tokenCount": 57, "outputText": "Hi", "completionReason": "FINISH"}],
    },
)
_golden(
    "bedrock-titan: a stream",
    {"index": 0, "inputTextTokenCount": 6, "totalOutputTextTokenCount": 58},
    Usage(prompt_tokens=6, completion_tokens=58),
    {"index": 0, "inputTextTokenCount": 6, "totalOutputTextTokenCount": 58, "outputText": "Hi"},
)
# https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-embed-text.html
_golden(
    "bedrock-titan: embeddings",
    {"inputTextTokenCount": 7},
    Usage(embedding_tokens=7),
    {"embedding": [0.25, -0.5], "inputTextTokenCount": 7},
)
# https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModelWithResponseStream.html
_METRICS = {
    "inputTokenCount": 4,
    "outputTokenCount": 3,
    "invocationLatency": 340,
    "firstByteLatency": 120,
    "cacheReadInputTokenCount": 13,
    "cacheWriteInputTokenCount": 7,
}
_golden(
    "bedrock-metrics",
    _METRICS,
    Usage(prompt_tokens=24, completion_tokens=3, cache_read_tokens=13, cache_write_tokens=7),
    {"type": "message_stop", "amazon-bedrock-invocationMetrics": _METRICS},
)
# https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html
_HEADERS = {
    "x-amzn-bedrock-input-token-count": 4,
    "x-amzn-bedrock-output-token-count": 3,
    "x-amzn-bedrock-cache-read-input-token-count": 13,
    "x-amzn-bedrock-cache-write-input-token-count": 7,
}
_golden(
    "bedrock-headers",
    _HEADERS,
    Usage(prompt_tokens=24, completion_tokens=3, cache_read_tokens=13, cache_write_tokens=7),
    _HEADERS,
)

# --- Google

# https://ai.google.dev/api/generate-content#UsageMetadata
_GEMINI = {
    "promptTokenCount": 264,
    "candidatesTokenCount": 41,
    "thoughtsTokenCount": 100,
    "toolUsePromptTokenCount": 3,
    "cachedContentTokenCount": 2,
    "totalTokenCount": 408,
    "promptTokensDetails": [
        {"modality": "TEXT", "tokenCount": 1},
        {"modality": "IMAGE", "tokenCount": 258},
        {"modality": "AUDIO", "tokenCount": 4},
        {"modality": "VIDEO", "tokenCount": 6},
    ],
    "candidatesTokensDetails": [{"modality": "AUDIO", "tokenCount": 9}],
    "trafficType": "ON_DEMAND",
}
_GEMINI_USAGE = Usage(
    prompt_tokens=267,
    completion_tokens=141,
    cache_read_tokens=2,
    reasoning_tokens=100,
    audio_prompt_tokens=4,
    audio_completion_tokens=9,
    image_prompt_tokens=258,
    video_prompt_tokens=6,
)
_golden("gemini", _GEMINI, _GEMINI_USAGE, {"candidates": [], "usageMetadata": _GEMINI, "modelVersion": "gemini-3"})
_golden(
    "gemini: candidates untold",
    {"promptTokenCount": 9, "totalTokenCount": 13},
    Usage(prompt_tokens=9, completion_tokens=4),
    {"usageMetadata": {"promptTokenCount": 9, "totalTokenCount": 13}},
)
_golden(
    "gemini: nothing but thoughts",
    {"promptTokenCount": 9, "totalTokenCount": 14, "thoughtsTokenCount": 5},
    Usage(prompt_tokens=9, completion_tokens=5, reasoning_tokens=5),
    {"usageMetadata": {"promptTokenCount": 9, "totalTokenCount": 14, "thoughtsTokenCount": 5}},
)
# https://ai.google.dev/api/embeddings
_golden(
    "gemini: embeddings",
    {"promptTokenCount": 6, "promptTokenDetails": [{"modality": "TEXT", "tokenCount": 6}]},
    Usage(embedding_tokens=6),
    {
        "embedding": {"values": [0.25]},
        "usageMetadata": {"promptTokenCount": 6, "promptTokenDetails": [{"modality": "TEXT", "tokenCount": 6}]},
    },
)
# https://googleapis.github.io/python-genai/genai.html#genai.types.GenerateContentResponseUsageMetadata
_GEMINI_PYTHON = {
    "prompt_token_count": 264,
    "candidates_token_count": 41,
    "thoughts_token_count": 100,
    "tool_use_prompt_token_count": 3,
    "cached_content_token_count": 2,
    "total_token_count": 408,
    "prompt_tokens_details": [
        {"modality": "IMAGE", "token_count": 258},
        {"modality": "AUDIO", "token_count": 4},
        {"modality": "VIDEO", "token_count": 6},
    ],
    "candidates_tokens_details": [{"modality": "AUDIO", "token_count": 9}],
    "traffic_type": None,
}
_golden("gemini-python", _GEMINI_PYTHON, _GEMINI_USAGE, {"usage_metadata": _GEMINI_PYTHON})
# https://ai.google.dev/api/interactions-api
_golden(
    "gemini-interactions",
    {
        "total_tokens": 352,
        "total_input_tokens": 284,
        "input_tokens_by_modality": [
            {"modality": "text", "tokens": 9},
            {"modality": "image", "tokens": 258},
            {"modality": "audio", "tokens": 11},
            {"modality": "video", "tokens": 6},
        ],
        "total_cached_tokens": 2,
        "total_output_tokens": 3,
        "total_tool_use_tokens": 8,
        "total_thought_tokens": 57,
    },
    Usage(
        prompt_tokens=292,
        completion_tokens=60,
        cache_read_tokens=2,
        reasoning_tokens=57,
        audio_prompt_tokens=11,
        image_prompt_tokens=258,
        video_prompt_tokens=6,
    ),
)
# https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api
_golden(
    "vertex-embeddings",
    {},
    Usage(embedding_tokens=10),
    {
        "predictions": [
            {"embeddings": {"statistics": {"truncated": False, "token_count": 6}, "values": [0.25]}},
            {"embeddings": {"statistics": {"truncated": False, "token_count": 4}, "values": [0.5]}},
        ]
    },
)

# --- Cohere

# https://docs.cohere.com/reference/chat#response.body.usage
_golden(
    "cohere",
    {
        "billed_units": {"input_tokens": 5, "output_tokens": 418},
        "tokens": {"input_tokens": 71, "output_tokens": 419, "reasoning_tokens": 17, "image_tokens": 3},
        "cached_tokens": 16,
    },
    Usage(prompt_tokens=71, completion_tokens=419, cache_read_tokens=16, reasoning_tokens=17, image_prompt_tokens=3),
)
# https://docs.cohere.com/v1/reference/chat
_COHERE_1 = {
    "api_version": {"version": "1"},
    "billed_units": {"input_tokens": 10, "output_tokens": 6},
    "tokens": {"input_tokens": 76, "output_tokens": 7},
}
_golden(
    "cohere: v1",
    _COHERE_1,
    Usage(prompt_tokens=76, completion_tokens=7),
    {"text": "Hi", "meta": _COHERE_1},
)
# https://docs.cohere.com/v1/reference/generate
_COHERE_BILLED = {"api_version": {"version": "1"}, "billed_units": {"input_tokens": 5, "output_tokens": 418}}
_golden(
    "cohere-billed",
    _COHERE_BILLED,
    Usage(prompt_tokens=5, completion_tokens=418),
    {"generations": [{"text": "Hi"}], "meta": _COHERE_BILLED},
)
# https://docs.cohere.com/reference/embed#response.body.meta.billed_units
_COHERE_EMBED = {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 2, "image_tokens": 3}}
_golden(
    "cohere-billed: embeddings",
    _COHERE_EMBED,
    Usage(embedding_tokens=5),
    {"embeddings": {"float": [[0.25]]}, "meta": _COHERE_EMBED},
)

# --- servers of one's own

# https://github.com/ollama/ollama/blob/main/docs/api.md#response-1: open figures, of which only the numbers are kept
_golden(
    "ollama",
    {"total_duration": 5191566416, "prompt_eval_count": 26, "eval_count": 298, "eval_duration": 4799921000},
    Usage(prompt_tokens=26, completion_tokens=298),
    {
        "model": "llama3.2",
        "created_at": "2023-08-04T19:22:45.499127Z",
        "response": "secret",
        "done": True,
        "context": [1, 2, 3],
        "total_duration": 5191566416,
        "prompt_eval_count": 26,
        "eval_count": 298,
        "eval_duration": 4799921000,
    },
)
_golden(
    "ollama: embeddings",
    {"total_duration": 14143917, "load_duration": 1019500, "prompt_eval_count": 8},
    Usage(embedding_tokens=8),
    {
        "model": "all-minilm",
        "embeddings": [[0.25]],
        "total_duration": 14143917,
        "load_duration": 1019500,
        "prompt_eval_count": 8,
    },
)
# https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
_TIMINGS = {"cache_n": 236, "prompt_n": 1, "prompt_ms": 30.958, "predicted_n": 35, "predicted_ms": 661.064}
_golden(
    "llama.cpp-timings",
    _TIMINGS,
    Usage(prompt_tokens=237, completion_tokens=35, cache_read_tokens=236),
    {"choices": [], "timings": _TIMINGS},
)
_golden(
    "llama.cpp",
    {"tokens_predicted": 8, "tokens_evaluated": 13},
    Usage(prompt_tokens=13, completion_tokens=8),
    {"content": "secret", "stop": True, "tokens_predicted": 8, "tokens_evaluated": 13, "model": "secret"},
)
# https://huggingface.co/docs/text-generation-inference/reference/api_reference
_TGI = {"finish_reason": "length", "generated_tokens": 20, "input_length": 6, "seed": None}
_golden(
    "tgi",
    _TGI,
    Usage(prompt_tokens=6, completion_tokens=20),
    {"token": {"id": 3, "text": "secret"}, "generated_text": "secret", "details": _TGI},
)
# https://cloud.ibm.com/apidocs/watsonx-ai#text-generation
_golden(
    "watsonx",
    {},
    Usage(prompt_tokens=4, completion_tokens=76),
    {
        "model_id": "google/flan-ul2",
        "results": [{"generated_text": "secret", "generated_token_count": 76, "input_token_count": 4}],
    },
)


def _operation(usage: Usage) -> Operation:
    return Operation.CHAT if usage.embedding_tokens is None else Operation.EMBEDDING


def _read(answer: object, usage: Usage) -> Reading:
    reading = read_answer(answer, _operation(usage))

    assert reading is not None
    return reading


def test_every_dialect_has_a_golden_payload() -> None:
    """A new row of the table comes with a payload from its provider's documentation."""
    assert {dialect.name for dialect in DIALECTS} == {name.partition(":")[0] for name in GOLDEN}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_documented_answer_gives_its_figures(name: str) -> None:
    """Each provider's documented answer gives exactly the figures it tells, embeddings in a figure of their own."""
    answer, _, usage = GOLDEN[name]

    assert usage == _read(answer, usage).usage


@pytest.mark.parametrize("name", GOLDEN)
def test_the_usage_object_is_kept_verbatim(name: str) -> None:
    """What the provider said is kept word for word; of an answer with open figures, only the numbers."""
    answer, payload, usage = GOLDEN[name]

    assert payload == _read(answer, usage).payload


@pytest.mark.parametrize("name", GOLDEN)
def test_a_golden_payload_is_one_of_its_row(name: str) -> None:
    """Each example has a mark of the row it stands for, and no figure that the row cannot tell."""
    answer, _, usage = GOLDEN[name]
    row = next(dialect for dialect in DIALECTS if dialect.name == name.partition(":")[0])

    assert any(_told(answer, mark) for mark in row.marks)
    assert [] == [figure for figure in Usage.__struct_fields__ if getattr(usage, figure) and not getattr(row, figure)]


def _told(value: Any, path: str) -> bool:
    """Tell whether a path is told somewhere inside an answer."""
    first, _, rest = path.partition(".")
    if isinstance(value, list):
        return any(_told(item, path) for item in value)
    if not isinstance(value, dict):
        return False
    inner = value.get(first.removesuffix("[]"))
    here = inner is not None and (not rest or _told(inner, rest))
    return here or any(_told(item, path) for item in value.values())


@pytest.mark.parametrize("name", GOLDEN)
def test_a_stream_of_one_event_is_the_answer(name: str) -> None:
    """Read as a stream, an answer tells what it tells at once."""
    answer, _, usage = GOLDEN[name]
    streamed = read_stream([answer], _operation(usage))

    assert streamed is not None
    assert (usage, _read(answer, usage).payload) == (streamed.usage, streamed.payload)


@pytest.mark.parametrize("name", GOLDEN)
def test_nothing_speaks_against_a_documented_payload(name: str) -> None:
    """No golden payload raises a doubt."""
    answer, _, usage = GOLDEN[name]

    assert [] == _read(answer, usage).doubts


# --- places

IN_PLACE = {"prompt_tokens": 3, "completion_tokens": 4}


def _at(place: str, payload: Json) -> Json:
    answer: Any = payload
    for name in reversed(place.split(".")):
        answer = {name.removesuffix("[]"): [answer] if name.endswith("[]") else answer}
    return answer


@pytest.mark.parametrize("place", PLACES)
def test_usage_is_found_in_its_place(place: str) -> None:
    """Each row of the table is a place where an answer is looked into."""
    reading = _read(_at(place, IN_PLACE), Usage())

    assert (Usage(prompt_tokens=3, completion_tokens=4), IN_PLACE) == (reading.usage, reading.payload)


@pytest.mark.parametrize("place", PLACES)
def test_an_earlier_place_goes_before_a_later_one(place: str) -> None:
    """The table is in order: the best place first."""
    answer: Json = {}
    for later in PLACES[PLACES.index(place) + 1 :]:
        answer |= _at(later, {"prompt_tokens": 7, "completion_tokens": 8})
    reading = _read(answer | _at(place, IN_PLACE), Usage())

    assert Usage(prompt_tokens=3, completion_tokens=4) == reading.usage


def test_usage_in_no_known_place_is_not_told() -> None:
    """An answer is not searched through: a text may quote somebody else's usage."""
    assert read_answer({"content": {"inner": IN_PLACE}}, Operation.CHAT) is None


def test_a_place_with_another_thing_in_it_is_passed_over() -> None:
    """A word where an object should be does not hide the object in the next place."""
    reading = _read({"usage": "many", "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 4}}, Usage())

    assert Usage(prompt_tokens=3, completion_tokens=4) == reading.usage


def test_what_fills_in_does_not_overrule() -> None:
    """llama.cpp's timings give the cache, which its usage does not tell, and change nothing else."""
    answer = {"usage": {"prompt_tokens": 5, "completion_tokens": 6}, "timings": {"cache_n": 3, "prompt_n": 1}}

    assert Usage(prompt_tokens=5, completion_tokens=6) == _read(answer, Usage()).usage
    assert (
        3
        == _read(
            {"usage": {"completion_tokens": 6}, "timings": {"cache_n": 3, "prompt_n": 1}}, Usage()
        ).usage.cache_read_tokens
    )


def test_what_fills_in_does_not_stand_for_a_word_half_told() -> None:
    """Timings that tell all leave the prompt as the usage has it."""
    answer = {"usage": {"prompt_tokens": 5}, "timings": {"cache_n": 3, "prompt_n": 1, "predicted_n": 9}}

    assert Usage(prompt_tokens=5, completion_tokens=9, cache_read_tokens=3) == _read(answer, Usage()).usage


def test_both_objects_of_one_answer_are_kept_and_the_better_one_wins() -> None:
    """Where two objects tell the same name, the word goes before what fills in."""
    answer = {"usage": {"completion_tokens": 6, "n": 1}, "timings": {"cache_n": 3, "prompt_n": 1, "n": 2}}

    assert {"completion_tokens": 6, "n": 1, "cache_n": 3, "prompt_n": 1} == _read(answer, Usage()).payload


def test_the_first_answer_with_figures_wins_over_zeros() -> None:
    """A synthetic 0/0 in one answer does not hide the provider's figures in another."""
    zeros = {"usage": {"prompt_tokens": 0, "completion_tokens": 0}}
    reading = read_first([zeros, {}, {"usage": {"input_tokens": 3, "output_tokens": 4}}], Operation.CHAT)

    assert reading is not None
    assert Usage(prompt_tokens=3, completion_tokens=4) == reading.usage


def test_zeros_are_better_than_nothing() -> None:
    """Where all that was told is 0/0, that is what was told."""
    reading = read_first([{"usage": {"prompt_tokens": 0, "completion_tokens": 0}}], Operation.CHAT)

    assert reading is not None
    assert Usage(prompt_tokens=0, completion_tokens=0) == reading.usage


# --- derived


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"prompt_tokens": 3, "total_tokens": 7}, Usage(prompt_tokens=3, completion_tokens=4)),
        ({"completion_tokens": 3, "total_tokens": 7}, Usage(prompt_tokens=4, completion_tokens=3)),
        ({"prompt_tokens": 3, "total_tokens": 3}, Usage(prompt_tokens=3, completion_tokens=0)),
        ({"prompt_tokens": 3, "total_tokens": 2}, Usage(prompt_tokens=3)),
        ({"completion_tokens": 3, "total_tokens": 2}, Usage(completion_tokens=3)),
        ({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 99}, Usage(prompt_tokens=3, completion_tokens=4)),
        ({"input_tokens": 3, "total_tokens": 7}, Usage(prompt_tokens=3, completion_tokens=4)),
    ],
    ids=lambda value: "" if isinstance(value, Usage) else str(value),
)
def test_the_total_tells_what_was_left_out(payload: Json, expected: Usage) -> None:
    """Of prompt and completion either follows from the other and the total, and never becomes negative."""
    reading = read_usage(payload, Operation.CHAT)

    assert reading is not None
    assert expected == reading.usage


def test_reasoning_inside_the_completion_is_not_added() -> None:
    """OpenAI's completion has its reasoning in it, as the total shows."""
    payload = {
        "prompt_tokens": 3,
        "completion_tokens": 9,
        "total_tokens": 12,
        "completion_tokens_details": {"reasoning_tokens": 4},
    }
    reading = read_usage(payload, Operation.CHAT)

    assert reading is not None
    assert 9 == reading.usage.completion_tokens


def test_more_reasoning_than_completion_stands_beside_it() -> None:
    """A gateway in front of xAI may add up a total of its own: the sizes tell."""
    payload = {
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "total_tokens": 7,
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    reading = read_usage(payload, Operation.CHAT)

    assert reading is not None
    assert (9, 5, []) == (reading.usage.completion_tokens, reading.usage.reasoning_tokens, reading.doubts)


def test_of_terms_that_tell_the_same_a_zero_gives_way() -> None:
    """A gateway that fills in 0 for details it does not know does not hide the figure beside it."""
    payload = IN_PLACE | {"prompt_tokens_details": {"cached_tokens": 0}, "cached_tokens": 2}
    reading = read_usage(payload, Operation.CHAT)

    assert reading is not None
    assert 2 == reading.usage.cache_read_tokens


def test_a_told_zero_is_kept_where_the_other_term_is_untold() -> None:
    """0 is "none", which is not "not told"."""
    reading = _read({"inputTextTokenCount": 3, "totalOutputTextTokenCount": 0, "results": [{}]}, Usage())

    assert Usage(prompt_tokens=3, completion_tokens=0) == reading.usage


# --- streams


def _chunk(index: int | None, prompt: int, completion: int, **more: int) -> Json:
    choices = [] if index is None else [{"index": index, "delta": {"content": "Hi"}}]
    return {"choices": choices, "usage": {"prompt_tokens": prompt, "completion_tokens": completion, **more}}


def _start(**usage: int) -> Json:
    return {"type": "message_start", "message": {"usage": usage}}


def _delta(**usage: int) -> Json:
    return {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}


# https://docs.anthropic.com/en/docs/build-with-claude/streaming
_STARTED = _start(input_tokens=25, cache_read_input_tokens=7, cache_creation_input_tokens=2, output_tokens=1)

STREAMS: dict[str, tuple[list[Json], Usage]] = {
    "cumulative: the last counts": (
        [_chunk(0, 3, 1), _chunk(0, 3, 2), _chunk(0, 3, 4)],
        Usage(prompt_tokens=3, completion_tokens=4),
    ),
    "once, at the end": (
        [{"choices": [{"index": 0, "delta": {}}], "usage": None}, _chunk(None, 3, 4)],
        Usage(prompt_tokens=3, completion_tokens=4),
    ),
    "Anthropic: the delta tells the output": (
        [_STARTED, _delta(output_tokens=15)],
        Usage(prompt_tokens=34, completion_tokens=15, cache_read_tokens=7, cache_write_tokens=2),
    ),
    "Anthropic: the delta repeats the input": (
        [
            _STARTED,
            _delta(input_tokens=25, cache_read_input_tokens=7, cache_creation_input_tokens=2, output_tokens=15),
        ],
        Usage(prompt_tokens=34, completion_tokens=15, cache_read_tokens=7, cache_write_tokens=2),
    ),
    "Anthropic: the delta has zeros": (
        [_STARTED, _delta(input_tokens=0, cache_read_input_tokens=0, cache_creation_input_tokens=0, output_tokens=15)],
        Usage(prompt_tokens=34, completion_tokens=15, cache_read_tokens=7, cache_write_tokens=2),
    ),
    # https://platform.claude.com/docs/en/build-with-claude/compaction: what is told last was read anew
    "Anthropic: compaction takes the place of the cache": (
        [_STARTED, _delta(input_tokens=90, cache_read_input_tokens=0, cache_creation_input_tokens=0, output_tokens=15)],
        Usage(prompt_tokens=90, completion_tokens=15, cache_read_tokens=0, cache_write_tokens=0),
    ),
    "Anthropic without a cache": (
        [_start(input_tokens=25, output_tokens=1), _delta(output_tokens=15)],
        Usage(prompt_tokens=25, completion_tokens=15),
    ),
    "Anthropic: an output of nothing at last": (
        [_STARTED, _delta(output_tokens=0)],
        Usage(prompt_tokens=34, completion_tokens=1, cache_read_tokens=7, cache_write_tokens=2),
    ),
    "one usage a choice: added, the prompt once": (
        [_chunk(0, 3, 4, cached_tokens=2), _chunk(1, 3, 5, cached_tokens=2)],
        Usage(prompt_tokens=3, completion_tokens=9, cache_read_tokens=2),
    ),
    "one usage a choice: what is none stays none": (
        [_chunk(0, 3, 4, cached_tokens=0), _chunk(1, 3, 5, cached_tokens=0)],
        Usage(prompt_tokens=3, completion_tokens=9, cache_read_tokens=0),
    ),
    "one usage a choice: who was first did not find the cache": (
        [_chunk(0, 3, 4, cached_tokens=0), _chunk(1, 3, 5, cached_tokens=2)],
        Usage(prompt_tokens=3, completion_tokens=9, cache_read_tokens=2),
    ),
    "Moonshot: under each choice": (
        [{"choices": [{"index": index, "usage": _chunk(None, 3, 4 + index)["usage"]}]} for index in (0, 1)],
        Usage(prompt_tokens=3, completion_tokens=9),
    ),
    "DashScope: choices in the output": (
        [
            {"output": {"choices": [{"index": index}]}, "usage": {"input_tokens": 3, "output_tokens": 4 + index}}
            for index in (0, 1)
        ],
        Usage(prompt_tokens=3, completion_tokens=9),
    ),
    # https://docs.vllm.ai/en/latest/api/vllm/entrypoints/openai/protocol.html: continuous_usage_stats
    "vLLM: each choice as it goes, then the whole": (
        [_chunk(0, 3, 1), _chunk(1, 3, 1), _chunk(0, 3, 2), _chunk(1, 3, 5), _chunk(None, 3, 7)],
        Usage(prompt_tokens=3, completion_tokens=7),
    ),
    "vLLM: each choice as it goes, and left": (
        [_chunk(0, 3, 1), _chunk(1, 3, 1), _chunk(0, 3, 2), _chunk(1, 3, 5)],
        Usage(prompt_tokens=3, completion_tokens=7),
    ),
    "zeros for the whole do not hide the choices": (
        [_chunk(0, 3, 4), _chunk(None, 0, 0)],
        Usage(prompt_tokens=3, completion_tokens=4),
    ),
    "twice, with different figures": (
        [_chunk(None, 3, 6), _chunk(None, 3, 4)],
        Usage(prompt_tokens=3, completion_tokens=4),
    ),
    "twice, with different figures, and again": (
        [_chunk(None, 3, 6), _chunk(None, 3, 4), _chunk(None, 3, 5)],
        Usage(prompt_tokens=3, completion_tokens=5),
    ),
    "Gemini: the last object takes the place of the others": (
        [
            {"usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 6, "totalTokenCount": 15}},
            {"usageMetadata": {"promptTokenCount": 9, "thoughtsTokenCount": 8, "totalTokenCount": 17}},
        ],
        Usage(prompt_tokens=9, completion_tokens=8, reasoning_tokens=8),
    ),
    "Gemini: bit by bit, without a total": (
        [
            {"usageMetadata": {"promptTokenCount": 9, "thoughtsTokenCount": 8}},
            {"usageMetadata": {"candidatesTokenCount": 6, "promptTokenCount": 9}},
        ],
        Usage(prompt_tokens=9, completion_tokens=14, reasoning_tokens=8),
    ),
    "Bedrock Invoke: the metrics say the same": (
        [
            _start(input_tokens=4, cache_read_input_tokens=13, cache_creation_input_tokens=7, output_tokens=1),
            _delta(output_tokens=3),
            {"type": "message_stop", "amazon-bedrock-invocationMetrics": _METRICS},
        ],
        Usage(prompt_tokens=24, completion_tokens=3, cache_read_tokens=13, cache_write_tokens=7),
    ),
    "Bedrock Invoke: the metrics fill in": (
        [{"outputs": [{"text": "Hi"}]}, {"amazon-bedrock-invocationMetrics": {"inputTokenCount": 4}}],
        Usage(prompt_tokens=4),
    ),
    "Bedrock Invoke: the metrics do not overrule": (
        [
            {"usage": {"input_tokens": 5, "output_tokens": 6}},
            {"amazon-bedrock-invocationMetrics": {"inputTokenCount": 4, "outputTokenCount": 3}},
        ],
        Usage(prompt_tokens=5, completion_tokens=6),
    ),
    "llama.cpp: usage and timings": (
        [{"choices": [], "usage": {"prompt_tokens": 237, "completion_tokens": 35}, "timings": _TIMINGS}],
        Usage(prompt_tokens=237, completion_tokens=35),
    ),
    "0/0, then the real ones": (
        [_chunk(None, 0, 0), _chunk(None, 3, 4)],
        Usage(prompt_tokens=3, completion_tokens=4),
    ),
    "the real ones, then 0/0": (
        [_chunk(None, 3, 4), _chunk(None, 0, 0)],
        Usage(prompt_tokens=3, completion_tokens=4),
    ),
    "the Responses API: null until the end": (
        [
            {"type": "response.created", "response": {"usage": None}},
            {"type": "response.completed", "response": {"usage": {"input_tokens": 3, "output_tokens": 4}}},
        ],
        Usage(prompt_tokens=3, completion_tokens=4),
    ),
}


def _read_stream(events: list[Json]) -> Reading:
    reading = read_stream(events, Operation.CHAT)

    assert reading is not None
    return reading


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_gives_its_figures(name: str) -> None:
    """However often and in whatever parts a stream tells its usage, the figures are those of the whole request."""
    events, usage = STREAMS[name]

    assert usage == _read_stream(events).usage


@pytest.mark.parametrize("name", STREAMS)
def test_only_a_smaller_completion_is_a_doubt(name: str) -> None:
    """Of these streams two tell fewer completion tokens than before."""
    shrank = [Doubt.SHRANK] if name.startswith("twice, with different figures") else []

    assert shrank == _read_stream(STREAMS[name][0]).doubts


@pytest.mark.parametrize("events", [[], [{}], [{"choices": []}], ["Hi"], [None], [{"usage": None}], [{"usage": {}}]])
def test_a_stream_that_never_tells(events: list[Any]) -> None:
    """Nothing told is ``None``, not zero."""
    assert read_stream(events, Operation.CHAT) is None


def test_the_payload_of_a_stream_is_the_last_word_on_everything() -> None:
    """What was told bit by bit is kept as one object."""
    expected = {
        "input_tokens": 25,
        "cache_read_input_tokens": 7,
        "cache_creation_input_tokens": 2,
        "output_tokens": 15,
    }

    assert expected == _read_stream([_STARTED, _delta(output_tokens=15)]).payload


def test_reading_before_the_end_does_not_spoil_the_end() -> None:
    """A stream can be asked for what it told so far."""
    reader = UsageReader(Operation.CHAT)
    figures = []
    for event in (_STARTED, _delta(output_tokens=15)):
        reader.take(event)
        figures.append(reader.reading())

    assert [1, 15] == [reading and reading.usage.completion_tokens for reading in figures]


def test_taking_a_stream_changes_no_event() -> None:
    """The events belong to the caller."""
    events = [_STARTED, _delta(output_tokens=15), _chunk(0, 3, 4)]
    before = json.dumps(events)
    read_stream(events, Operation.CHAT)

    assert before == json.dumps(events)


# --- doubts


@pytest.mark.parametrize(
    ("payload", "doubts"),
    [
        ({"prompt_tokens": LARGEST_CONTEXT + 1, "completion_tokens": 4}, [Doubt.LARGER_THAN_ANY_CONTEXT]),
        ({"prompt_tokens": 3, "completion_tokens": LARGEST_CONTEXT + 1}, [Doubt.LARGER_THAN_ANY_CONTEXT]),
        ({"prompt_tokens": LARGEST_CONTEXT, "completion_tokens": LARGEST_CONTEXT}, []),
        ({"prompt_tokens": 3, "completion_tokens": 4, "cached_tokens": 5}, [Doubt.PART_EXCEEDS_WHOLE]),
        ({"prompt_tokens": 3, "completion_tokens": 4, "cached_tokens": 3}, []),
        (
            {"input_tokens": 3, "output_tokens": 4, "output_tokens_details": {"reasoning_tokens": 5}},
            [Doubt.PART_EXCEEDS_WHOLE],
        ),
        ({"input_tokens": 3, "output_tokens": 4, "output_tokens_details": {"reasoning_tokens": 4}}, []),
        ({"completion_tokens": 4, "cached_tokens": 5}, []),
    ],
)
def test_figures_that_cannot_be_are_doubted(payload: Json, doubts: list[Doubt]) -> None:
    """They are kept as told, and it is said what speaks against them."""
    reading = read_usage(payload, Operation.CHAT)

    assert reading is not None
    assert doubts == reading.doubts


def test_an_unreadable_part_is_a_doubt() -> None:
    """Who could not read all of an answer says so."""
    reading = Reading(usage=Usage(), found=(), unreadable=True)

    assert [Doubt.UNREADABLE_PART] == reading.doubts


def test_every_doubt_is_tested_here() -> None:
    """A new doubt comes with a test."""
    tested = {Doubt.SHRANK, Doubt.LARGER_THAN_ANY_CONTEXT, Doubt.PART_EXCEEDS_WHOLE, Doubt.UNREADABLE_PART}

    assert set(Doubt) == tested


# --- objects


def _as_namespace(value: Any) -> Any:
    if isinstance(value, dict):
        return SimpleNamespace(**{name: _as_namespace(inner) for name, inner in value.items()})
    return [_as_namespace(item) for item in value] if isinstance(value, list) else value


def _as_pydantic(value: Any) -> Any:
    pydantic = pytest.importorskip("pydantic", reason="pydantic is not installed")
    if isinstance(value, dict):
        fields = {name: _as_pydantic(inner) for name, inner in value.items()}
        return pydantic.create_model("Answer", __config__={"extra": "allow"})(**fields)
    return [_as_pydantic(item) for item in value] if isinstance(value, list) else value


def _as_unfinished_pydantic(value: Any) -> Any:
    """Make objects as ``copy`` and ``pickle`` begin them: they have their values, and none of pydantic's own."""
    pydantic = pytest.importorskip("pydantic", reason="pydantic is not installed")
    if isinstance(value, dict):
        answer = object.__new__(type("Answer", (pydantic.BaseModel,), {}))
        vars(answer).update({name: _as_unfinished_pydantic(inner) for name, inner in value.items()})
        return answer
    return [_as_unfinished_pydantic(item) for item in value] if isinstance(value, list) else value


def _as_struct(value: Any) -> Any:
    if isinstance(value, dict):
        fields = {name: _as_struct(inner) for name, inner in value.items()}
        return msgspec.defstruct("Answer", [(name, Any) for name in fields])(**fields)
    return [_as_struct(item) for item in value] if isinstance(value, list) else value


def _as_slotted(value: Any) -> Any:
    if isinstance(value, dict):
        slotted = type("Answer", (), {"__slots__": tuple(value)})()
        for name, inner in value.items():
            setattr(slotted, name, _as_slotted(inner))
        return slotted
    return [_as_slotted(item) for item in value] if isinstance(value, list) else value


KINDS: list[Callable[[Any], Any]] = [_as_namespace, _as_pydantic, _as_unfinished_pydantic, _as_struct, _as_slotted]
NAMES = [name for name, (answer, _, _) in GOLDEN.items() if "-bedrock-" not in json.dumps(answer)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_objects_are_read_like_mappings(kind: Callable[[Any], Any], name: str) -> None:
    """SDKs hand out objects where the wire has mappings."""
    answer, _, usage = GOLDEN[name]

    assert usage == _read(kind(answer), usage).usage


@pytest.mark.parametrize("kind", KINDS)
def test_the_payload_of_an_object_is_plain(kind: Callable[[Any], Any]) -> None:
    """What is kept of an object is what the provider sent, as far as the object shows it."""
    payload = {"prompt_tokens": 3, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 2}}

    assert payload == _read(kind({"usage": payload}), Usage()).payload


def test_a_part_of_nothing_is_nothing() -> None:
    """A path may be walked to its end wherever it leads."""
    assert [None, None, None] == [part(None, "usage"), part({}, "usage"), part(3, "usage")]


# --- what nobody should send


@pytest.mark.parametrize(
    "payload",
    [None, "usage", 3, [3, 4], {}, [], {"prompt_tokens": None}, {"prompt_tokens": {}}, {"usage": {"prompt_tokens": 3}}],
    ids=repr,
)
def test_a_payload_without_figures_is_not_told(payload: object) -> None:
    """What cannot be read is as good as not told."""
    assert read_usage(payload, Operation.CHAT) is None


ODD = [-3, 3.5, math.nan, math.inf, "3", True, 2**60, -(2**60), None, [3], {"tokens": 3}, b"3"]


@pytest.mark.parametrize("odd", ODD, ids=repr)
@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("prompt_tokens", "completion_tokens"), Usage(completion_tokens=4)),
        (("outputTokens", "inputTokens"), Usage(prompt_tokens=4)),
        (("prompt_n", "predicted_n"), Usage(completion_tokens=4)),
    ],
)
def test_an_odd_figure_is_not_told_and_the_other_one_stays(
    names: tuple[str, str], expected: Usage, odd: object
) -> None:
    """One bad figure does not spoil its neighbour."""
    reading = read_usage({names[0]: odd, names[1]: 4}, Operation.CHAT)

    assert reading is not None
    assert expected == reading.usage


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_an_odd_part_is_not_told_and_the_whole_stays(odd: object) -> None:
    """Neither do details that are not what they should be."""
    for details in (odd, {"cached_tokens": odd}):
        reading = read_usage(IN_PLACE | {"prompt_tokens_details": details}, Operation.CHAT)

        assert reading is not None
        assert Usage(prompt_tokens=3, completion_tokens=4) == reading.usage


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_an_odd_figure_is_kept_out_of_the_file(odd: object) -> None:
    """Whatever stands in a usage object, what is kept of it is JSON that every reader reads."""
    kept = as_plain(IN_PLACE | {"odd": odd, "nested": {"odd": odd}, "listed": [odd]})

    assert kept == json.loads(msgspec.json.encode(kept))


_GEMINI: Json = {"promptTokenCount": 3, "candidatesTokenCount": 4}
_VERTEX = [{"embeddings": {"statistics": {"token_count": told}}} for told in (3, "4", None)]
MISFITS: list[tuple[Any, Misfits]] = [
    ({"usage": {"prompt_tokens": math.nan, "completion_tokens": 3.5}}, {"prompt_tokens": "not finite"}),
    ({"usage": {"prompt_tokens": -(2**60), "completion_tokens": 1e300}}, {"prompt_tokens": "negative"}),
    ({"usage": IN_PLACE | {"prompt_tokens_details": "3"}}, {"prompt_tokens_details": "str"}),
    ({"usage": IN_PLACE | {"prompt_tokens_details": {}}}, {}),
    ({"usage": IN_PLACE | {"prompt_tokens_details": {"cached_tokens": None}}}, {}),
    ({"usage": IN_PLACE | {"own_tokens": "3"}}, {}),
    ({"usage": {"prompt_tokens": None, "own_tokens": "3"}}, {}),
    ({"usage": {"own_tokens": 3}}, {"usage": UNKNOWN_SHAPE}),
    ({"usage": {"own_tokens": None}}, {}),
    ({"usage": {}}, {}),
    ({"usage": None}, {}),
    ({"usage": "3 tokens"}, {"usage": "str"}),
    ({"usage": [3, 4]}, {"usage": "list"}),
    ({"usage": [IN_PLACE]}, {}),
    (
        {"usageMetadata": _GEMINI | {"promptTokensDetails": [{"modality": "AUDIO", "tokenCount": "3"}]}},
        {"tokenCount": "str"},
    ),
    ({"usageMetadata": _GEMINI | {"thoughtsTokenCount": True}}, {"thoughtsTokenCount": "bool"}),
    ({"prompt_eval_count": "3", "eval_count": 4}, {"prompt_eval_count": "str"}),
    ({"meta": "of the answer", "details": "none", "timings": 3}, {}),
    ({"meta": {"api_version": {"version": "1"}}, "details": {"reason": "none"}}, {}),
]


@pytest.mark.parametrize(("answer", "named"), MISFITS, ids=repr)
def test_what_is_no_count_is_named_without_its_value(answer: Json, named: Misfits) -> None:
    """The field is one that we know; names and values of the provider's own are not told."""
    misfits = misfits_in_first(({}, answer), Operation.CHAT)
    reading = read_answer(answer, Operation.CHAT)

    assert named.items() <= misfits.items()
    assert (named == {}) == (misfits == {})
    assert reading is None or reading.unreadable == is_broken(misfits)


def test_what_is_no_count_among_several_is_named() -> None:
    """A sum that leaves one of them out is not the whole truth."""
    reading = read_answer({"predictions": _VERTEX}, Operation.EMBEDDING)

    assert reading is not None
    assert (3, True) == (reading.usage.embedding_tokens, reading.unreadable)
    assert {"token_count": "str"} == misfits_in_first(({"predictions": _VERTEX},), Operation.EMBEDDING)


@pytest.mark.parametrize(
    ("events", "named"),
    [
        ([{"usage": {"prompt_tokens": 3, "completion_tokens": -1}}, {"usage": IN_PLACE}], {}),
        ([{"usage": "later"}, {"usage": IN_PLACE}], {}),
        ([{"usage": IN_PLACE}, {"usage": "gone"}], {}),
        ([{"usage": {"prompt_tokens": 3}}, {"usage": "gone"}], {"usage": "str"}),
        ([{"usage": {"prompt_tokens": 3, "completion_tokens": -1}}] * 2, {"completion_tokens": "negative"}),
    ],
    ids=repr,
)
def test_what_a_later_word_of_a_stream_made_up_for_is_no_misfit(events: list[Json], named: Misfits) -> None:
    """Some servers tell -1 until they know, and all of it at the end."""
    reading = read_stream(events, Operation.CHAT)

    assert named == misfits_in_stream(events, Operation.CHAT)
    assert reading is not None
    assert (named != {}) == reading.unreadable


@pytest.mark.parametrize("told", [3, 3.0, 0, 2**53])
def test_a_whole_number_is_a_count(told: float) -> None:
    """Some gateways send 3.0."""
    assert told == token_count(told)


def test_a_cyclic_payload_is_read_and_cut_off() -> None:
    """A payload that contains itself is kept to a bounded depth."""
    payload: Json = {"prompt_tokens": 3, "completion_tokens": 4}
    payload["self"] = payload
    reading = read_usage(payload, Operation.CHAT)

    assert reading is not None
    assert Usage(prompt_tokens=3, completion_tokens=4) == reading.usage
    assert 3 == reading.payload["self"]["prompt_tokens"]
    assert str(reading.payload).count("self") < 10


def test_a_wide_payload_is_read_and_cut_off() -> None:
    """Of a thousand keys the known ones are read, and a bounded number is kept."""
    reading = read_usage({f"key_{number}": 7 for number in range(1000)} | IN_PLACE, Operation.CHAT)

    assert reading is not None
    assert Usage(prompt_tokens=3, completion_tokens=4) == reading.usage
    assert len(reading.payload) <= 100


def test_half_a_surrogate_pair_does_not_reach_the_file() -> None:
    """A key that UTF-8 has no bytes for would cost the whole line."""
    assert {"?": 3, "n": 4} == as_plain({"\ud800": 3, "n": 4})


class _Tokens(int):
    """A number of a class of its own, as those of an enumeration are."""


class _Dollars(float):
    """A number of a class of its own, as numpy's are."""


class _Tier(str):
    """A word of a class of its own."""

    __slots__ = ()


@pytest.mark.parametrize(
    "answer",
    [
        {"usage": {"prompt_tokens": _Tokens(3), "completion_tokens": _Tokens(4), "n": _Tokens(5)}},
        {"usage": IN_PLACE | {"cost": _Dollars(0.5)}},
        {"usage": IN_PLACE | {"service_tier": _Tier("flex"), "list": [_Tier("flex"), _Tokens(3)]}},
        {"prompt_eval_count": _Tokens(3), "eval_count": _Tokens(4)},
        {"prompt_eval_count": _Dollars(3), "eval_count": 4},
    ],
    ids=repr,
)
def test_values_of_classes_of_their_own_are_kept_as_plain_ones(answer: Json) -> None:
    """An object that no file can hold would cost the whole line, or what was told beside it."""
    payload = _read(answer, Usage()).payload

    assert answer.get("usage", answer) == payload
    assert payload == msgspec.json.decode(msgspec.json.encode(payload))


# --- text does not reach the log

TEXTS = ["the secret", "secret\n", "a" * 65, "", "\tsecret", "geheim!", "sécret ’", "{secret}"]


@pytest.mark.parametrize("text", TEXTS, ids=repr)
def test_text_does_not_reach_the_log_through_a_payload(text: str) -> None:
    """A string that is not one short word is left out, wherever in a usage object it stands."""
    payload = IN_PLACE | {"note": text, "part": {"note": text}, "list": [text, {"note": text}]}
    kept = IN_PLACE | {"note": None, "part": {"note": None}, "list": [None, {"note": None}]}

    assert kept == as_plain(payload)
    assert IN_PLACE | {"note": None} == as_plain(IN_PLACE | {"note": text})


@pytest.mark.parametrize("word", ["default", "ON_DEMAND", "1h", "0.95", "2024-10-21", "google/flan-ul2", "a" * 64])
def test_one_word_is_kept(word: str) -> None:
    """A service tier, a modality or an amount is part of the provider's word."""
    assert {"note": word, "list": [word]} == as_plain({"note": word, "list": [word]})


@pytest.mark.parametrize("answer", [{"message": {"content": "secret"}}, {"response": "secret", "context": [3, 4]}])
def test_an_answer_with_open_figures_leaves_only_them(answer: Json) -> None:
    """Ollama's counts stand beside its text; nothing of the text, nor of its token ids, is kept."""
    reading = _read(answer | {"prompt_eval_count": 3, "eval_count": 4}, Usage())

    assert {"prompt_eval_count": 3, "eval_count": 4} == reading.payload


# --- laws

KEYS = st.sampled_from(
    sorted(
        {step for place in PLACES for step in place.replace("[]", "").split(".")}
        | {step for dialect in DIALECTS for mark in dialect.marks for step in mark.replace("[]", "").split(".")}
        | {"total_tokens", "totalTokenCount", "prompt_tokens_details", "cached_tokens", "choices", "index", "output"}
    )
)
FIGURES = st.integers(0, 99) | st.integers() | st.floats() | st.none() | st.booleans() | st.text(max_size=3)
JSON = st.recursive(
    FIGURES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=20
)


def _figures(usage: Usage) -> list[int]:
    return [tokens for name in Usage.__struct_fields__ if (tokens := getattr(usage, name)) is not None]


@given(JSON, st.sampled_from(Operation))
@settings(deadline=None)
def test_no_answer_raises_and_no_figure_is_negative(answer: object, operation: Operation) -> None:
    """Whatever a provider sends, reading it gives figures of 0 or more, or none, and a payload that can be written."""
    for reading in (read_usage(answer, operation), read_answer(answer, operation)):
        if reading is not None:
            assert [] == [tokens for tokens in _figures(reading.usage) if type(tokens) is not int or tokens < 0]
            assert reading.payload == json.loads(msgspec.json.encode(reading.payload))
            assert isinstance(reading.doubts, list)


@given(st.lists(JSON, max_size=5), st.sampled_from(Operation))
@settings(deadline=None)
def test_no_stream_raises(events: list[object], operation: Operation) -> None:
    """The same, event by event."""
    reading = read_stream(events, operation)

    assert reading is None or all(tokens >= 0 for tokens in _figures(reading.usage))


@given(st.lists(JSON, max_size=4), st.sampled_from(Operation))
@settings(deadline=None)
def test_reading_twice_gives_the_same(events: list[object], operation: Operation) -> None:
    """Reading is pure."""
    reader = UsageReader(operation)
    for event in events:
        reader.take(event)

    assert reader.reading() == reader.reading() == read_stream(events, operation)


@given(JSON, st.sampled_from(Operation))
@settings(deadline=None)
def test_an_answer_is_a_stream_of_one(answer: object, operation: Operation) -> None:
    """What an answer tells is what a stream of it alone tells."""
    at_once, streamed = read_answer(answer, operation), read_stream([answer], operation)

    assert (at_once and at_once.usage) == (streamed and streamed.usage)


@given(st.sampled_from(sorted(NAMES)), st.sampled_from(KINDS))
@settings(deadline=None)
def test_told_again_is_told_once(name: str, kind: Callable[[Any], Any]) -> None:
    """A stream that repeats one object adds nothing."""
    answer, _, usage = GOLDEN[name]
    reading = read_stream([answer, answer, kind(answer)], _operation(usage))

    assert reading is not None
    assert usage == reading.usage


def _finish(index: int) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": {}, "finish_reason": "stop"}]}


def _only_usage(prompt: int, completion: int) -> dict[str, Any]:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return {"choices": [], "usage": usage}


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        pytest.param(
            [_finish(0), _only_usage(9, 5), _finish(1), _only_usage(9, 7)],
            Usage(prompt_tokens=9, completion_tokens=12),
            id="one after each choice, as llama-server",
        ),
        pytest.param(
            [_finish(0), _finish(1), _only_usage(9, 12)],
            Usage(prompt_tokens=9, completion_tokens=12),
            id="one for all, as vLLM",
        ),
        pytest.param(
            [_finish(0), _finish(1), _only_usage(9, 12), _only_usage(9, 12)],
            Usage(prompt_tokens=9, completion_tokens=12),
            id="sent twice",
        ),
        pytest.param(
            [_only_usage(9, 3), _finish(0), _only_usage(9, 5)],
            Usage(prompt_tokens=9, completion_tokens=5),
            id="cumulative",
        ),
    ],
)
def test_usage_without_choices_is_about_those_that_have_finished(events: list[dict[str, Any]], expected: Usage) -> None:
    """A usage object of its own may be the request's, or that of the choice that has just ended."""
    reading = read_stream(events, Operation.CHAT)

    assert reading is not None
    assert expected == reading.usage


def test_one_usage_told_in_two_dialects_counts_once() -> None:
    """A gateway may tell the same in its own words and in OpenAI's."""
    told = {"prompt_tokens": 9, "completion_tokens": 5}
    google = {"promptTokenCount": 9, "candidatesTokenCount": 5}
    reading = read_stream([{"usage": told}, {"usageMetadata": google}], Operation.CHAT)

    assert reading is not None
    assert Usage(prompt_tokens=9, completion_tokens=5) == reading.usage
