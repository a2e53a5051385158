"""Which vocabulary and which rules a model counts by: one table, so that a new family is a new row.

The vocabularies of OpenAI's models are those of https://github.com/openai/tiktoken/blob/0.14.0/tiktoken/model.py, the
constants of a chat those of https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken_for_chat_completions,
checked in November 2026 against 359 recorded plain chats: 348 of 348 with priming 3, 11 of 11 reasoning ones with 2.
"""

import enum
from fnmatch import fnmatchcase
from functools import lru_cache

import msgspec

from token_callbacks.counting.registry import REGISTRY, Registration


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
    has_roles: bool = True
    """Whether the roles and names of the messages are read, too."""


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """The models whose name matches one of the globs, and how they count.

    `registration`: the user's own tokenizer, which takes the place of the vocabulary. `bands`: whose error bands are
    theirs where they have others than the vocabulary's own models.
    """

    globs: tuple[str, ...]
    vocabulary: str
    is_vocabulary_known: bool = True
    exact: tuple[Figure, ...] = ()
    chat_rule: ChatRule = ChatRule(message_tokens=3, priming_tokens=3)
    registration: Registration | None = None
    bands: str | None = None

    @property
    def banded_as(self) -> str:
        """The name by which the table of bands knows these models."""
        return self.bands or self.vocabulary


OLDER_CALLS = (
    *("gpt-4", "gpt-4-0[36]1[34]", "gpt-4-32k*"),
    *("gpt-3.5-turbo-0613", "gpt-3.5-turbo-16k*", "gpt-35-turbo-0613", "gpt-35-turbo-16k*"),
)
"""The models of 2023, which write calls and read tools in a way of their own; the bare names stand for them, too."""

CLAUDE_2 = ("*claude-2*", "*claude-v2*", "*claude-instant*")
"""The last models of Anthropic whose tokenizer was published."""

NEWER_CLAUDE = ("*claude-opus-4[-.][789]*", "*claude-opus-[5-9]*", "*claude-sonnet-[5-9]*", "*claude-haiku-[5-9]*")
"""Those whose tokenizer came with Opus 4.7."""

COHERE, NOVA, GROK, UNKNOWN = "cohere", "nova", "grok", "unknown"
"""Stand for the vocabularies of models that are counted by one of OpenAI's and are further off than OpenAI's own; the
last is of those of no known family."""

REASONING_CHAT = ChatRule(message_tokens=3, priming_tokens=2)

FAMILIES = (
    # Recorded of three chats, of 2025-05 and 2026-08: what is searched for is the texts and nothing else.
    Family(
        globs=("gpt-*-search*",),
        vocabulary="o200k_base",
        chat_rule=ChatRule(message_tokens=0, priming_tokens=0, has_roles=False),
    ),
    # Chats of o1-mini were recorded 10 tokens over the rule; the others are unmeasured.
    Family(
        globs=(
            *("gpt-*audio*", "gpt-*realtime*", "gpt-*-transcribe*", "gpt-*-tts*", "gpt-*image*"),
            *("o[134]-*deep-research*", "o1-mini*", "o1-preview*", "gpt-5*-chat*", "codex-mini*", "computer-use*"),
            "gpt-*:online",
        ),
        vocabulary="o200k_base",
    ),
    Family(globs=("*gpt-oss*",), vocabulary="o200k_harmony"),
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
    # The vocabularies below are there with the extra open-models. A distilled model has that of the one it was made of.
    Family(globs=("*deepseek*distill*llama*",), vocabulary="llama3"),
    Family(globs=("*deepseek*distill*qwen*",), vocabulary="qwen3"),
    # Those before V3 have others: DeepSeek-V3's was 14 % under V2.5's on 531 texts.
    Family(
        globs=("*deepseek-llm*", "*deepseek-coder-[0-9]*", "*deepseek-v2*"),
        vocabulary="deepseek_v3",
        is_vocabulary_known=False,
    ),
    Family(globs=("*deepseek*",), vocabulary="deepseek_v3"),
    Family(globs=("*codellama*", "*code-llama*"), vocabulary="codellama"),
    Family(globs=("*llama-2*", "*llama2*", "*vicuna*", "*tinyllama*"), vocabulary="llama2"),
    # Llama 4 has 200,000 tokens that nobody may pass on; Llama 3's were one off on 11 of 14 of its recorded answers.
    Family(globs=("*llama-4*", "*llama4*"), vocabulary="llama3", is_vocabulary_known=False),
    Family(globs=("*llama-3*", "*llama3*"), vocabulary="llama3"),
    # Not *llama*: that would match every model behind ollama/.
    Family(globs=("llama*", "*[-/._]llama*"), vocabulary="llama3", is_vocabulary_known=False),
    # Qwen 3.5 went from 151,000 tokens to 248,000.
    Family(globs=("*qwen3.[56]*", "*qwen-3.[56]*"), vocabulary="qwen3.5"),
    Family(globs=("*qwen3.[7-9]*", "*qwen-3.[7-9]*", "*qwen[4-9]*"), vocabulary="qwen3.5", is_vocabulary_known=False),
    Family(globs=("*qwen*", "*qwq*", "*qvq*"), vocabulary="qwen3"),
    # https://github.com/googleapis/python-genai/blob/v3.4.0/google/genai/_local_tokenizer_loader.py: Gemini 2 to 3 have
    # Gemma 3's vocabulary, later ones Gemma 4's.
    Family(globs=("*gemma-4*", "*gemma4*", "*gemini-3.[1-9]*"), vocabulary="gemma4"),
    Family(globs=("*gemma-3*", "*gemma3*", "*gemini-2*", "*gemini-3*"), vocabulary="gemma3"),
    Family(globs=("*gemma-2*", "*gemma2*"), vocabulary="gemma2"),
    Family(globs=("*gemini*", "*gemma*"), vocabulary="gemma3", is_vocabulary_known=False),
    # https://docs.mistral.ai/guides/tokenization/: the older ones have SentencePiece, since Nemo it is Tekken.
    Family(globs=("*mistral-7b-*v0.[12]*", "*mixtral-8x7b*"), vocabulary="mistral_v1"),
    Family(
        globs=(
            *("*mistral-tiny*", "*mistral-7b*", "*mixtral*", "*codestral-22b*", "*codestral-2405*", "*mathstral*"),
            *("*mistral-large-24*", "*mistral-small-24*", "*pixtral-large*", "mistral", "*/mistral", "*[/]mistral:7b*"),
        ),
        vocabulary="mistral_v2",
    ),
    Family(
        globs=("*mistral*", "*ministral*", "*magistral*", "*codestral*", "*devstral*", "*pixtral*", "*voxtral*"),
        vocabulary="tekken",
    ),
    Family(globs=("*glm-4*", "*glm4*", "*glm-z1*"), vocabulary="glm4"),
    Family(globs=("*[-/._]glm-*", "glm-*"), vocabulary="glm4", is_vocabulary_known=False),
    Family(globs=("*kimi-k2*", "*kimi-linear*"), vocabulary="kimi_k2"),
    Family(globs=("*kimi*", "*moonshot*"), vocabulary="kimi_k2", is_vocabulary_known=False),
    Family(globs=("phi-4*", "phi4*", "*[-/._]phi-4*", "*[-/._]phi4*"), vocabulary="phi4"),
    Family(globs=CLAUDE_2, vocabulary="claude_2"),
    # Nobody but Anthropic has what followed: a fit over another one, see vocabularies.FITS.
    Family(globs=NEWER_CLAUDE, vocabulary="claude_opus_4_7", is_vocabulary_known=False),
    Family(globs=("*claude*", "*anthropic*"), vocabulary="claude", is_vocabulary_known=False),
    # Nearer than o200k_base, by recorded completions.
    Family(globs=("*command-[ra]*", "*cohere*"), vocabulary="cl100k_base", is_vocabulary_known=False, bands=COHERE),
    Family(globs=("*nova-*",), vocabulary="o200k_base", is_vocabulary_known=False, bands=NOVA),
    Family(globs=("*grok*",), vocabulary="o200k_base", is_vocabulary_known=False, bands=GROK),
    Family(globs=("*",), vocabulary="o200k_base", is_vocabulary_known=False, bands=UNKNOWN),
)
UNKNOWN_FAMILY = FAMILIES[-1]

# What may stand right before an OpenAI model's name (https://docs.litellm.ai/docs/providers/azure and .../openai): the
# provider, its regions and its API. Behind any other word a name such as gpt-4o proves nothing.
OPENAI_PREFIXES = (
    *("openai", "azure", "azure_ai", "azure_text", "text-completion-openai", "litellm_proxy", "responses"),
    *("eu", "us", "global", "global-standard"),
)


def family_of(model: object) -> Family:
    """Return the first family whose globs match the model's name, the last row for no name or an unknown one.

    A tokenizer that the user registered for the name comes with it.
    """
    if not isinstance(model, str):
        return UNKNOWN_FAMILY
    family = _family_named(str(model))
    registration = REGISTRY.match(model)
    return family if registration is None else msgspec.structs.replace(family, registration=registration)


@lru_cache(maxsize=1024)
def _family_named(model: str) -> Family:
    name = bare_name(model)
    return next(family for family in FAMILIES if any(fnmatchcase(name, glob) for glob in family.globs))


@lru_cache(maxsize=1024)
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
