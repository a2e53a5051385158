"""How the providers word their usage, and where they put it: data, read by ``usage.py``.

A new dialect is one row of ``DIALECTS``; a new place for a usage object is one row of ``PLACES``.
"""

from __future__ import annotations

import re

import msgspec


def _any(*paths: str) -> str:
    """Make a term of paths that tell the same."""
    return "|".join(paths)


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """How one provider words its usage.

    A figure is the sum of its terms. A term is a path, or several with ``|`` between them that tell the same: one that
    tells something other than 0 counts. A path is dotted; ``[]`` goes through a list, and ``[key=value]`` through
    those of its items that have this value.
    """

    name: str
    marks: tuple[str, ...]
    """Paths, any one of which, present and not null, says that a payload is of this dialect."""
    prompt_tokens: tuple[str, ...] = ()
    completion_tokens: tuple[str, ...] = ()
    embedding_tokens: tuple[str, ...] = ()
    cache_read_tokens: tuple[str, ...] = ()
    cache_write_tokens: tuple[str, ...] = ()
    cache_write_1h_tokens: tuple[str, ...] = ()
    reasoning_tokens: tuple[str, ...] = ()
    audio_prompt_tokens: tuple[str, ...] = ()
    audio_completion_tokens: tuple[str, ...] = ()
    image_prompt_tokens: tuple[str, ...] = ()
    video_prompt_tokens: tuple[str, ...] = ()
    accepted_prediction_tokens: tuple[str, ...] = ()
    rejected_prediction_tokens: tuple[str, ...] = ()
    total_tokens: tuple[str, ...] = ()
    """Tells a figure that was left out: of the prompt and the completion, either one follows from the other."""
    reasoning_may_stand_beside: bool = False
    """Some who speak this dialect leave the reasoning out of the completion: seen by the total, or by the sizes."""
    fills_in: bool = False
    """Its figures count only where no other payload of the answer tells them."""
    source: str
    """Where the provider documents it."""


DIALECTS: tuple[Dialect, ...] = (
    Dialect(
        # OpenAI, and whoever speaks like it. Who tells the cached tokens where: Moonshot and Together beside the
        # prompt, Mistral too as num_cached_tokens, DeepSeek as hits, LiteLLM as Anthropic does; and who the written
        # ones: OpenAI and OpenRouter as cache_write_tokens, DashScope and LiteLLM as cache_creation_*.
        name="openai",
        marks=("prompt_tokens", "completion_tokens"),
        prompt_tokens=("prompt_tokens",),
        completion_tokens=("completion_tokens",),
        embedding_tokens=("prompt_tokens|total_tokens",),
        cache_read_tokens=(
            _any(
                "prompt_tokens_details.cached_tokens",
                "prompt_cache_hit_tokens",
                "num_cached_tokens",
                "cached_tokens",
                "prompt_token_details.cached_tokens",
                "cache_read_input_tokens",
            ),
        ),
        cache_write_tokens=(
            _any(
                "prompt_tokens_details.cache_write_tokens",
                "prompt_tokens_details.cache_creation_input_tokens",
                "prompt_tokens_details.cache_creation_tokens",
                "cache_creation_input_tokens",
            ),
        ),
        cache_write_1h_tokens=(
            _any(
                "prompt_tokens_details.cache_creation_token_details.ephemeral_1h_input_tokens",
                "prompt_tokens_details.cache_creation.ephemeral_1h_input_tokens",
            ),
        ),
        reasoning_tokens=("completion_tokens_details.reasoning_tokens|reasoning_tokens",),
        audio_prompt_tokens=("prompt_tokens_details.audio_tokens",),
        audio_completion_tokens=("completion_tokens_details.audio_tokens",),
        image_prompt_tokens=("prompt_tokens_details.image_tokens",),
        video_prompt_tokens=("prompt_tokens_details.video_tokens",),
        accepted_prediction_tokens=("completion_tokens_details.accepted_prediction_tokens",),
        rejected_prediction_tokens=("completion_tokens_details.rejected_prediction_tokens",),
        total_tokens=("total_tokens",),
        reasoning_may_stand_beside=True,  # xAI: https://docs.x.ai/docs/guides/reasoning
        source="https://platform.openai.com/docs/api-reference/chat/object",
    ),
    Dialect(  # input_tokens leaves out what was read from and written to the cache
        name="anthropic",
        marks=("cache_read_input_tokens", "cache_creation_input_tokens"),
        prompt_tokens=("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"),
        completion_tokens=("output_tokens",),
        cache_read_tokens=("cache_read_input_tokens",),
        cache_write_tokens=("cache_creation_input_tokens",),
        cache_write_1h_tokens=("cache_creation.ephemeral_1h_input_tokens",),
        reasoning_tokens=("output_tokens_details.thinking_tokens",),
        source="https://docs.anthropic.com/en/docs/build-with-claude/prompt-caching#tracking-cache-performance",
    ),
    Dialect(
        # The Responses API; also DashScope's own API, which has the parts of the prompt beside it, and Anthropic
        # without a cache.
        name="openai-responses",
        marks=("input_tokens", "output_tokens"),
        prompt_tokens=("input_tokens",),
        completion_tokens=("output_tokens",),
        embedding_tokens=("input_tokens|total_tokens",),
        cache_read_tokens=("input_tokens_details.cached_tokens|prompt_tokens_details.cached_tokens|cached_tokens",),
        cache_write_tokens=(
            "input_tokens_details.cache_write_tokens|prompt_tokens_details.cache_creation_input_tokens",
        ),
        reasoning_tokens=("output_tokens_details.reasoning_tokens|output_tokens_details.thinking_tokens",),
        audio_prompt_tokens=("input_tokens_details.audio_tokens|audio_tokens",),
        audio_completion_tokens=("output_tokens_details.audio_tokens",),
        image_prompt_tokens=("input_tokens_details.image_tokens|image_tokens",),
        video_prompt_tokens=("input_tokens_details.video_tokens|video_tokens",),
        total_tokens=("total_tokens",),
        source="https://platform.openai.com/docs/api-reference/responses/object",
    ),
    Dialect(  # inputTokens leaves out what was read from and written to the cache
        name="bedrock-converse",
        marks=("inputTokens", "outputTokens"),
        prompt_tokens=(
            "inputTokens",
            "cacheReadInputTokens|cacheReadInputTokenCount",
            "cacheWriteInputTokens|cacheWriteInputTokenCount",
        ),
        completion_tokens=("outputTokens",),
        cache_read_tokens=("cacheReadInputTokens|cacheReadInputTokenCount",),
        cache_write_tokens=("cacheWriteInputTokens|cacheWriteInputTokenCount",),
        cache_write_1h_tokens=("cacheDetails[ttl=1h].inputTokens",),
        source="https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html",
    ),
    Dialect(
        name="bedrock-llama",
        marks=("generation_token_count",),
        prompt_tokens=("prompt_token_count",),
        completion_tokens=("generation_token_count",),
        source="https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-meta.html",
    ),
    Dialect(
        name="bedrock-titan",
        marks=("inputTextTokenCount",),
        prompt_tokens=("inputTextTokenCount",),
        completion_tokens=("results[].tokenCount|totalOutputTextTokenCount",),
        embedding_tokens=("inputTextTokenCount",),
        source="https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-text.html",
    ),
    Dialect(  # thoughts stand beside the candidates, tool-use prompts beside the prompt
        name="gemini",
        marks=("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount"),
        prompt_tokens=("promptTokenCount", "toolUsePromptTokenCount"),
        completion_tokens=("candidatesTokenCount", "thoughtsTokenCount"),
        embedding_tokens=("promptTokenCount",),
        cache_read_tokens=("cachedContentTokenCount",),
        reasoning_tokens=("thoughtsTokenCount",),
        audio_prompt_tokens=("promptTokensDetails[modality=AUDIO].tokenCount",),
        audio_completion_tokens=("candidatesTokensDetails[modality=AUDIO].tokenCount",),
        image_prompt_tokens=("promptTokensDetails[modality=IMAGE].tokenCount",),
        video_prompt_tokens=("promptTokensDetails[modality=VIDEO].tokenCount",),
        total_tokens=("totalTokenCount",),
        source="https://ai.google.dev/api/generate-content#UsageMetadata",
    ),
    Dialect(  # the same, as Google's Python SDK spells it
        name="gemini-python",
        marks=("prompt_token_count", "candidates_token_count", "thoughts_token_count"),
        prompt_tokens=("prompt_token_count", "tool_use_prompt_token_count"),
        completion_tokens=("candidates_token_count", "thoughts_token_count"),
        embedding_tokens=("prompt_token_count",),
        cache_read_tokens=("cached_content_token_count",),
        reasoning_tokens=("thoughts_token_count",),
        audio_prompt_tokens=("prompt_tokens_details[modality=AUDIO].token_count",),
        audio_completion_tokens=("candidates_tokens_details[modality=AUDIO].token_count",),
        image_prompt_tokens=("prompt_tokens_details[modality=IMAGE].token_count",),
        video_prompt_tokens=("prompt_tokens_details[modality=VIDEO].token_count",),
        total_tokens=("total_token_count",),
        source="https://ai.google.dev/api/generate-content#UsageMetadata",
    ),
    Dialect(
        name="gemini-interactions",
        marks=("total_input_tokens", "total_output_tokens"),
        prompt_tokens=("total_input_tokens", "total_tool_use_tokens"),
        completion_tokens=("total_output_tokens", "total_thought_tokens"),
        cache_read_tokens=("total_cached_tokens",),
        reasoning_tokens=("total_thought_tokens",),
        audio_prompt_tokens=("input_tokens_by_modality[modality=audio].tokens",),
        image_prompt_tokens=("input_tokens_by_modality[modality=image].tokens",),
        video_prompt_tokens=("input_tokens_by_modality[modality=video].tokens",),
        source="https://ai.google.dev/api/interactions-api",
    ),
    Dialect(
        name="vertex-embeddings",
        marks=("predictions",),
        embedding_tokens=("predictions[].embeddings.statistics.token_count",),
        source="https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api",
    ),
    Dialect(
        name="cohere",
        marks=("tokens.input_tokens", "tokens.output_tokens"),
        prompt_tokens=("tokens.input_tokens",),
        completion_tokens=("tokens.output_tokens",),
        embedding_tokens=("tokens.input_tokens",),
        cache_read_tokens=("cached_tokens",),
        reasoning_tokens=("tokens.reasoning_tokens",),
        image_prompt_tokens=("tokens.image_tokens",),
        source="https://docs.cohere.com/reference/chat#response.body.usage",
    ),
    Dialect(
        name="cohere-billed",
        marks=("billed_units.input_tokens", "billed_units.output_tokens"),
        prompt_tokens=("billed_units.input_tokens",),
        completion_tokens=("billed_units.output_tokens",),
        embedding_tokens=("billed_units.input_tokens", "billed_units.image_tokens"),
        source="https://docs.cohere.com/reference/embed#response.body.meta.billed_units",
    ),
    Dialect(
        name="ollama",
        marks=("prompt_eval_count", "eval_count"),
        prompt_tokens=("prompt_eval_count",),
        completion_tokens=("eval_count",),
        embedding_tokens=("prompt_eval_count",),
        source="https://github.com/ollama/ollama/blob/main/docs/api.md#response-1",
    ),
    Dialect(
        name="watsonx",
        marks=("results[].generated_token_count", "results[].input_token_count"),
        prompt_tokens=("results[].input_token_count",),
        completion_tokens=("results[].generated_token_count",),
        source="https://cloud.ibm.com/apidocs/watsonx-ai#text-generation",
    ),
    Dialect(
        name="tgi",
        marks=("generated_tokens",),
        prompt_tokens=("input_length",),
        completion_tokens=("generated_tokens",),
        source="https://huggingface.co/docs/text-generation-inference/reference/api_reference",
    ),
    Dialect(  # cache_n are prompt tokens too, which were not computed again
        name="llama.cpp-timings",
        marks=("predicted_n", "prompt_n"),
        prompt_tokens=("prompt_n", "cache_n"),
        completion_tokens=("predicted_n",),
        cache_read_tokens=("cache_n",),
        fills_in=True,
        source="https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
    ),
    Dialect(
        name="llama.cpp",
        marks=("tokens_predicted", "tokens_evaluated"),
        prompt_tokens=("tokens_evaluated",),
        completion_tokens=("tokens_predicted",),
        source="https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
    ),
    Dialect(  # leaves the cache out of the input, as the headers do
        name="bedrock-metrics",
        marks=("inputTokenCount", "outputTokenCount"),
        prompt_tokens=("inputTokenCount", "cacheReadInputTokenCount", "cacheWriteInputTokenCount"),
        completion_tokens=("outputTokenCount",),
        embedding_tokens=("inputTokenCount",),
        cache_read_tokens=("cacheReadInputTokenCount",),
        cache_write_tokens=("cacheWriteInputTokenCount",),
        fills_in=True,
        source="https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModelWithResponseStream.html",
    ),
    Dialect(
        name="bedrock-headers",
        marks=("x-amzn-bedrock-input-token-count", "x-amzn-bedrock-output-token-count"),
        prompt_tokens=(
            "x-amzn-bedrock-input-token-count",
            "x-amzn-bedrock-cache-read-input-token-count",
            "x-amzn-bedrock-cache-write-input-token-count",
        ),
        completion_tokens=("x-amzn-bedrock-output-token-count",),
        embedding_tokens=("x-amzn-bedrock-input-token-count",),
        cache_read_tokens=("x-amzn-bedrock-cache-read-input-token-count",),
        cache_write_tokens=("x-amzn-bedrock-cache-write-input-token-count",),
        fills_in=True,
        source="https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html",
    ),
    Dialect(
        name="total-only",
        marks=("total_tokens",),
        embedding_tokens=("total_tokens",),
        source="https://help.aliyun.com/zh/model-studio/text-embedding-synchronous-api",
    ),
)

PLACES: tuple[str, ...] = (
    "usage",
    "usageMetadata",
    "usage_metadata",
    "x_groq.usage",  # https://console.groq.com/docs/api-reference#chat-create
    "message.usage",  # Anthropic's message_start
    "response.usage",  # the Responses API's last event
    "interaction.usage",  # Gemini's Interactions
    "delta.usage",  # Cohere v2's message-end
    "metadata.usage",  # Bedrock's ConverseStream, as botocore hands it on
    "meta",  # Cohere v1
    "response.meta",  # Cohere v1's stream-end
    "choices[].usage",  # Moonshot
    "details",  # Hugging Face TGI
    "timings",  # llama.cpp
    "amazon-bedrock-invocationMetrics",
)
"""Where an answer, or one event of a streamed answer, has its usage object, best first. Paths as in a dialect."""

USAGE_NAMES = frozenset({"usage", "usageMetadata", "usage_metadata"})
"""The ends of places where nothing else can be meant; under the other names other things may stand."""

REQUESTS = re.compile(
    r"/(?:chat/completions|completions|responses|embeddings|messages|converse|converse-stream|invoke"
    r"|invoke-with-response-stream|chat|generate|generate_stream|embed|embeddings|completion|infill|interactions"
    r"|generation|text-embedding|multimodal-embedding)/?$"
    r"|:(?:generateContent|streamGenerateContent|predict|rawPredict|streamRawPredict|embedContent|batchEmbedContents)$"
)
"""What the path of a request to a model ends in. Others are taken for one if the answer tells usage or is a stream."""

EMBEDDINGS = re.compile(
    r"/(?:[a-z-]+-)?embed(?:dings?(?:/batch)?|_all)?/?$|:(?:batchE|e)mbedContents?$|/model/[^/]*embed[^/]*/invoke/?$"
)
"""What the path of a request for embeddings ends in, on Bedrock with the model's name before it."""

CHATS = re.compile(
    r"/(?:chat/completions|responses|messages|converse|converse-stream)/?$|:(?:g|streamG)enerateContent$"
)
"""What the path of a request ends in that is certainly none for embeddings."""

OTHERS = re.compile(
    r"/(?:count_tokens|count-tokens|input_tokens|tokenize|detokenize|apply-template|extras/tokenize/count|api/show|api/tags"
    r"|models|files|moderations|token|rerank|reranking|audio/[a-z]+|images/[a-z]+)/?$|:countTokens$"
)
"""What the path of a request ends in that uses no tokens of an LLM or embedding model, whatever its answer looks like:
counting, looking up, reranking, sound and pictures."""
