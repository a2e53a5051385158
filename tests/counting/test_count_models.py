"""Which row of the table a model's name falls into."""

import pytest

from token_callbacks.counting.models import FAMILIES, UNKNOWN_FAMILY, Figure, bare_name, family_of

CHAT = (Figure.CHAT_PROMPT, Figure.COMPLETION)


@pytest.mark.parametrize(
    ("model", "vocabulary", "exact"),
    [
        ("gpt-4o", "o200k_base", CHAT),
        ("gpt-4o-mini-2024-07-18", "o200k_base", CHAT),
        ("GPT-4o", "o200k_base", CHAT),
        ("chatgpt-4o-latest", "o200k_base", CHAT),
        ("gpt-4.1-nano", "o200k_base", CHAT),
        ("gpt-4o-search-preview", "o200k_base", ()),
        ("gpt-4o-mini-audio-preview", "o200k_base", ()),
        ("gpt-5-mini", "o200k_base", (Figure.CHAT_PROMPT,)),
        ("gpt-5.2", "o200k_base", (Figure.CHAT_PROMPT,)),
        ("gpt-5-chat-latest", "o200k_base", ()),
        ("o1", "o200k_base", (Figure.CHAT_PROMPT,)),
        ("o3-mini-2025-01-31", "o200k_base", (Figure.CHAT_PROMPT,)),
        ("o4-mini-deep-research", "o200k_base", ()),
        ("o1-mini", "o200k_base", ()),
        ("gpt-4", "cl100k_base", CHAT),
        ("gpt-4-turbo-2024-04-09", "cl100k_base", CHAT),
        ("gpt-3.5-turbo-0125", "cl100k_base", CHAT),
        ("gpt-35-turbo", "cl100k_base", CHAT),
        ("gpt-3.5-turbo-0301", "cl100k_base", (Figure.COMPLETION,)),
        ("gpt-3.5-turbo-instruct", "cl100k_base", (Figure.TEXT_PROMPT, Figure.COMPLETION)),
        ("davinci-002", "cl100k_base", (Figure.TEXT_PROMPT, Figure.COMPLETION)),
        ("text-embedding-ada-002-v2", "cl100k_base", (Figure.EMBEDDING,)),
        ("text-embedding-3-large", "cl100k_base", (Figure.EMBEDDING,)),
        ("openai/gpt-4o", "o200k_base", CHAT),
        ("azure/gpt-4o", "o200k_base", CHAT),
        ("azure/eu/gpt-4o-2024-08-06", "o200k_base", CHAT),
        ("openrouter/openai/gpt-4o", "o200k_base", CHAT),
        ("openrouter/openai/gpt-4o:online", "o200k_base", ()),
        ("openai/text-embedding-3-small", "cl100k_base", (Figure.EMBEDDING,)),
        ("ft:gpt-4o-mini:org::id", "o200k_base", CHAT),
        ("ft:gpt-3.5-turbo-0125:org:suffix:id", "cl100k_base", CHAT),
        ("openai/ft:gpt-4o-mini-2024-07-18:org::id", "o200k_base", CHAT),
    ],
)
def test_models_of_openai(model: str, vocabulary: str, exact: tuple[Figure, ...]) -> None:
    """A model of OpenAI has a known vocabulary, and its rules are exact for some figures."""
    family = family_of(model)

    assert (vocabulary, True, exact) == (family.vocabulary, family.is_vocabulary_known, family.exact)


@pytest.mark.parametrize(
    ("model", "vocabulary"),
    [
        ("mistral-large-latest", "tekken"),
        ("open-mistral-nemo", "tekken"),
        ("mistralai/Mistral-Small-3.2-24B-Instruct-2506", "tekken"),
        ("ministral-8b-latest", "tekken"),
        ("codestral-latest", "tekken"),
        ("pixtral-12b-2409", "tekken"),
        ("mistral-tiny", "mistral_v2"),
        ("bedrock/mistral.mistral-large-2402-v1:0", "mistral_v2"),
        ("mistralai/Mixtral-8x22B-Instruct-v0.1", "mistral_v2"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "mistral_v2"),
        ("mistralai/Mistral-7B-Instruct-v0.2", "mistral_v1"),
        ("mixtral-8x7b-32768", "mistral_v1"),
        ("together_ai/meta-llama/Llama-3.3-70B-Instruct-Turbo", "llama3"),
        ("hosted_vllm/meta-llama/Llama-3.1-8B-Instruct", "llama3"),
        ("bedrock/meta.llama3-70b-instruct-v1:0", "llama3"),
        ("groq/llama3-8b-8192", "llama3"),
        ("ollama/llama3", "llama3"),
        ("nvidia/llama-3.1-nemotron-70b-instruct", "llama3"),
        ("deepseek-r1-distill-llama-70b", "llama3"),
        ("meta-llama/Llama-2-7b-chat-hf", "llama2"),
        ("ollama/codellama:13b", "codellama"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-32B", "qwen3"),
        ("qwen3-32b", "qwen3"),
        ("openai/Qwen/Qwen2.5-7B-Instruct", "qwen3"),
        ("dashscope/qwen-max", "qwen3"),
        ("qwen/qwq-32b", "qwen3"),
        ("Qwen/Qwen3.5-397B-A17B", "qwen3.5"),
        ("vertex_ai/gemini-2.5-pro", "gemma3"),
        ("models/gemini-2.5-flash", "gemma3"),
        ("gemini/gemini-3-pro-preview", "gemma3"),
        ("gemini-3.1-pro-preview", "gemma4"),
        ("google/gemma-3-27b-it", "gemma3"),
        ("google/gemma-4-31b-it", "gemma4"),
        ("ollama/gemma2:9b", "gemma2"),
        ("deepseek/deepseek-chat", "deepseek_v3"),
        ("deepseek-reasoner", "deepseek_v3"),
        ("openrouter/deepseek/deepseek-v3.2-exp", "deepseek_v3"),
        ("zai/glm-4.6", "glm4"),
        ("THUDM/GLM-4-9B-0414", "glm4"),
        ("moonshotai/Kimi-K2-Instruct", "kimi_k2"),
        ("microsoft/phi-4", "phi4"),
        ("gpt-oss-120b", "o200k_harmony"),
        ("groq/openai/gpt-oss-20b", "o200k_harmony"),
        ("bedrock/openai.gpt-oss-120b-1:0", "o200k_harmony"),
        ("ollama/gpt-oss:20b", "o200k_harmony"),
    ],
)
def test_models_with_a_vocabulary_that_is_open(model: str, vocabulary: str) -> None:
    """A family that anybody may run has its own vocabulary, whoever serves it; its rules are another matter."""
    family = family_of(model)

    assert (vocabulary, True, ()) == (family.vocabulary, family.is_vocabulary_known, family.exact)


@pytest.mark.parametrize(
    ("model", "vocabulary"),
    [
        ("claude-sonnet-4-5", "claude"),
        ("claude-3-5-sonnet-20241022", "claude"),
        ("bedrock/us.anthropic.claude-3-5-sonnet-20241022-v2:0", "claude"),
        ("claude-opus-4-6", "claude"),
        ("anthropic/claude-opus-4-7", "claude_opus_4_7"),
        ("openrouter/anthropic/claude-opus-4.8", "claude_opus_4_7"),
        ("groq/meta-llama/llama-4-scout-17b-16e-instruct", "llama3"),
        ("qwen3.7-max", "qwen3.5"),
        ("zai/glm-5.1", "glm4"),
        ("gemini-1.5-pro", "gemma3"),
        ("deepseek-ai/DeepSeek-V2.5", "deepseek_v3"),
        ("moonshot/moonshot-v1-8k", "kimi_k2"),
        ("cohere/command-r-plus", "cl100k_base"),
    ],
)
def test_models_of_others_have_the_nearest_vocabulary(model: str, vocabulary: str) -> None:
    """A family whose vocabulary nobody has counts by the one that is nearest, or by a fit."""
    family = family_of(model)

    assert (vocabulary, False, ()) == (family.vocabulary, family.is_vocabulary_known, family.exact)


@pytest.mark.parametrize(
    "model",
    [
        *("azure/my-deployment", "ollama/gpt-4o", "my-gpt-4o", "ollama/mine", "gpt-6", "gpt-4.7"),
        *("vertex_ai/text-embedding-004", "text-embedding-v3", "", " ", "/", "ft:", None, 3, ["gpt-4o"]),
    ],
)
def test_unknown_names_fall_into_the_last_row(model: object) -> None:
    """A name that proves nothing gets an estimate."""
    assert UNKNOWN_FAMILY is family_of(model)


def test_last_row_matches_every_name() -> None:
    """The table ends with a row for all the rest, and nothing before it is so."""
    assert [("*",)] == [family.globs for family in FAMILIES if "*" in family.globs]
    assert FAMILIES[-1] is UNKNOWN_FAMILY


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (" OpenAI/GPT-4o ", "gpt-4o"),
        ("openai/responses/gpt-4o", "gpt-4o"),
        ("ft:gpt-4o:org::id", "gpt-4o"),
        ("groq/llama3", "groq/llama3"),
    ],
)
def test_bare_name(model: str, name: str) -> None:
    """OpenAI's prefixes and the marks of a fine-tune fall away, other providers stay."""
    assert name == bare_name(model)


@pytest.mark.parametrize("model", ["anthropic.claude-v2:1", "claude-2.1", "bedrock/anthropic.claude-instant-v1"])
def test_claude_2_has_its_own_vocabulary(model: str) -> None:
    """The tokenizer of Claude 2 was published, that of no later one."""
    family = family_of(model)

    assert ("claude_2", True, ()) == (family.vocabulary, family.is_vocabulary_known, family.exact)
