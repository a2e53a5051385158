"""Which vocabulary and which rules a model counts by: one table, so that a new family is a new row.

The vocabularies of OpenAI's models are those of https://github.com/openai/tiktoken/blob/0.14.0/tiktoken/model.py, the
constants of a chat those of https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken_for_chat_completions,
checked in November 2026 against 359 recorded plain chats: 348 of 348 with priming 3, 11 of 11 reasoning ones with 2.
"""

import enum
from fnmatch import fnmatchcase
from functools import lru_cache

import msgspec


class Figure(enum.Enum):
    """The kind of number that is asked for; each has a rule of its own."""

    CHAT_PROMPT = "chat_prompt"
    TEXT_PROMPT = "text_prompt"
    COMPLETION = "completion"
    EMBEDDING = "embedding"


class ChatRule(msgspec.Struct, frozen=True, kw_only=True):
    """The tokens that a chat adds to the text of its messages."""

    message_tokens: int
    priming_tokens: int


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """The models whose name matches one of the globs, and how they count."""

    globs: tuple[str, ...]
    vocabulary: str
    is_vocabulary_known: bool = True
    exact: tuple[Figure, ...] = ()
    chat_rule: ChatRule = ChatRule(message_tokens=3, priming_tokens=3)


REASONING_CHAT = ChatRule(message_tokens=3, priming_tokens=2)

FAMILIES = (
    # Search and o1-mini prompts were recorded 8 tokens under and 10 over the rule; the others are unmeasured.
    Family(
        globs=(
            *("gpt-*-search*", "gpt-*audio*", "gpt-*realtime*", "gpt-*-transcribe*", "gpt-*-tts*", "gpt-*image*"),
            *("o[134]-*deep-research*", "o1-mini*", "o1-preview*", "gpt-5*-chat*", "codex-mini*", "computer-use*"),
            "gpt-*:online",
        ),
        vocabulary="o200k_base",
    ),
    # Harmony differs from o200k_base in special tokens only, and text is never a special token here.
    Family(globs=("*gpt-oss*",), vocabulary="o200k_base"),
    Family(
        globs=("gpt-4o*", "chatgpt-4o*", "gpt-4.1*", "gpt-4.5*"),
        vocabulary="o200k_base",
        exact=(Figure.CHAT_PROMPT, Figure.COMPLETION),
    ),
    # Their completions include reasoning that no text shows.
    Family(
        globs=("gpt-5*", "o[134]", "o[134][-:]*"),
        vocabulary="o200k_base",
        exact=(Figure.CHAT_PROMPT,),
        chat_rule=REASONING_CHAT,
    ),
    Family(
        globs=("gpt-3.5-turbo-instruct*", "gpt-35-turbo-instruct*", "davinci-002", "babbage-002"),
        vocabulary="cl100k_base",
        exact=(Figure.TEXT_PROMPT, Figure.COMPLETION),
    ),
    Family(
        globs=("gpt-3.5-turbo-0301", "gpt-35-turbo-0301"),
        vocabulary="cl100k_base",
        exact=(Figure.COMPLETION,),
        chat_rule=ChatRule(message_tokens=4, priming_tokens=3),
    ),
    Family(
        globs=("gpt-4", "gpt-4[-:]*", "gpt-3.5", "gpt-3.5-turbo*", "gpt-35-turbo*"),
        vocabulary="cl100k_base",
        exact=(Figure.CHAT_PROMPT, Figure.COMPLETION),
    ),
    # Not text-embedding-*: Google and Alibaba sell models of that name (text-embedding-004, text-embedding-v3).
    Family(
        globs=("text-embedding-ada-002*", "text-embedding-3-*"),
        vocabulary="cl100k_base",
        exact=(Figure.EMBEDDING,),
    ),
    # Nearest of the two, by recorded completions (cl100k against o200k, summed error): Claude -13 % / -14 %, Gemini
    # -5 % / -6 %, Mistral -5 % / -7 %, Llama -2 % / -5 %, DeepSeek -10 % / -12 %; Qwen's was grown from cl100k.
    Family(globs=("*claude*", "*anthropic*"), vocabulary="cl100k_base", is_vocabulary_known=False),
    Family(globs=("*gemini*", "*gemma*"), vocabulary="cl100k_base", is_vocabulary_known=False),
    Family(globs=("*stral*", "*mixtral*"), vocabulary="cl100k_base", is_vocabulary_known=False),
    Family(globs=("*qwen*", "*qwq*"), vocabulary="cl100k_base", is_vocabulary_known=False),
    Family(globs=("*deepseek*",), vocabulary="cl100k_base", is_vocabulary_known=False),
    # Not *llama*: that would match every model behind ollama/.
    Family(globs=("llama*", "*[-/._]llama*", "*codellama*"), vocabulary="cl100k_base", is_vocabulary_known=False),
    Family(globs=("*",), vocabulary="o200k_base", is_vocabulary_known=False),
)
UNKNOWN_FAMILY = FAMILIES[-1]

# What may stand right before an OpenAI model's name (https://docs.litellm.ai/docs/providers/azure and .../openai): the
# provider, its regions and its API. Behind any other word a name such as gpt-4o proves nothing.
OPENAI_PREFIXES = (
    *("openai", "azure", "azure_ai", "azure_text", "text-completion-openai", "litellm_proxy", "responses"),
    *("eu", "us", "global", "global-standard"),
)


def family_of(model: object) -> Family:
    """Return the first family whose globs match the model's name, the last row for no name or an unknown one."""
    if not isinstance(model, str):
        return UNKNOWN_FAMILY
    return _family_named(str(model))


@lru_cache(maxsize=1024)
def _family_named(model: str) -> Family:
    name = bare_name(model)
    return next(family for family in FAMILIES if any(fnmatchcase(name, glob) for glob in family.globs))


def bare_name(model: str) -> str:
    """Return the name in lower case, without OpenAI's prefixes and without the marks of a fine-tune.

    The prefix of another provider stays: it decides how its models count.
    """
    prefix, _, name = model.strip().lower().rpartition("/")
    if prefix and prefix.rpartition("/")[2] not in OPENAI_PREFIXES:
        return f"{prefix}/{name}"
    if name.startswith("ft:"):
        return name.split(":")[1]
    return name
