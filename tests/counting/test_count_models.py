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
        ("gpt-oss-120b", "o200k_base", ()),
        ("groq/openai/gpt-oss-20b", "o200k_base", ()),
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
    "model",
    [
        "claude-sonnet-4-5",
        "bedrock/us.anthropic.claude-3-5-sonnet-20241022-v2:0",
        "models/gemini-2.5-flash",
        "vertex_ai/gemini-2.5-pro",
        "mistral-large-latest",
        "together_ai/meta-llama/Llama-3.3-70B-Instruct-Turbo",
        "bedrock/meta.llama3-70b-instruct-v1:0",
        "qwen3-32b",
        "deepseek/deepseek-chat",
    ],
)
def test_models_of_others_have_the_nearest_vocabulary(model: str) -> None:
    """A family whose vocabulary is not here counts by the one that was measured to be nearest."""
    family = family_of(model)

    assert ("cl100k_base", False, ()) == (family.vocabulary, family.is_vocabulary_known, family.exact)
    assert UNKNOWN_FAMILY != family


@pytest.mark.parametrize(
    "model",
    [
        *("azure/my-deployment", "ollama/gpt-4o", "my-gpt-4o", "ollama/phi4", "gpt-6", "gpt-4.7"),
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
