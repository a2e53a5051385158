"""What chats and answers add to their texts where the vendor's template is known, or was counted: dated data.

The templates of open models are published with them; what a hosted API adds besides was counted from the few recordings
there are (docs/counting.md), so that nothing of this is exact but OpenAI's answers.
"""

import functools
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

import msgspec
from msgspec.structs import replace

from token_callbacks.counting.images import media_tokens
from token_callbacks.counting.media import kind_of
from token_callbacks.counting.models import CLAUDE_2, NEWER_CLAUDE, OLDER_CALLS
from token_callbacks.counting.prompts import CLASSIC, SYSTEM_ROLES, Days, Extras, is_in_force
from token_callbacks.counting.templates_claude import ClaudeCalls, ClaudeTools, choice_of, is_hosted
from token_callbacks.counting.texts import field, is_told, items_of, part_text, text_of, texts_of, tool_call_texts

HOSTED = "hosted"
"""The kind of a prompt with tools that the vendor runs."""

RESULT_ROLES = ("tool", "function")


class ChatTemplate(msgspec.Struct, frozen=True, kw_only=True):
    """What a chat adds: for every message, once, and once where no system text is sent.

    ``system`` is for a message of that role. Tools come with ``tools`` tokens and ``tools_factor`` for each of their
    compact JSON, calls in the chat with ``call``; ``claude`` takes the place of these three.
    """

    globs: tuple[str, ...]
    as_of: str
    source: str
    message: int
    once: int
    system: int | None = None
    without_system: int = 0
    tools: int = 0
    tools_factor: float = 1.0
    call: int = 0
    claude: ClaudeTools | None = None

    def tokens(
        self, messages: Sequence[object], extras: Extras, count: Callable[[str], int], *, name: str, api: str
    ) -> tuple[int, frozenset[str]]:
        """Count a chat of the model with that (bare) name; tools and an output schema count as their JSON."""
        tokens, kinds, has_system = self.once if messages else 0, set[str](), False
        for message in messages:
            role = text_of(field(message, "role"))
            has_system = has_system or role in SYSTEM_ROLES
            tokens += self._message_tokens(message, role, count)
            kinds |= _kinds_of(message, role)
            for part in _parts_beyond_text(message):
                media = media_tokens(part, name=name, api=api, count=count)
                tokens += 0 if media is None else media.tokens
                kinds.add("odd" if media is None else media.kind)
        tokens += self.without_system if messages and not has_system else 0
        if is_told(extras.tools):
            kinds.add("tools")
            tokens += self._tools_tokens(items_of(extras.tools), extras.tool_choice, count)
            if self.claude is not None and any(map(is_hosted, items_of(extras.tools))):
                kinds.add(HOSTED)
        if is_told(extras.schema):
            kinds.add("schema")
            tokens += self._schema_tokens(extras.schema, count)
        return tokens, frozenset(kinds)

    def _message_tokens(self, message: object, role: str, count: Callable[[str], int]) -> int:
        content = message if isinstance(message, str) else field(message, "content")
        tokens = sum(count(text) for text in texts_of(content) if text)
        calls = _calls_of(message)
        if self.claude is not None:
            # Results come in the message of the user's that follows the calls, which has these tokens in it.
            tokens += 0 if role in RESULT_ROLES else self.message if role not in SYSTEM_ROLES else 0
            return tokens + (self.claude.round_tokens(calls, count) if calls else 0)
        tokens += self.message if self.system is None or role not in SYSTEM_ROLES else self.system
        return tokens + sum(self.call + sum(count(text) for text in tool_call_texts(call)) for call in calls)

    def _tools_tokens(self, tools: Sequence[object], tool_choice: object, count: Callable[[str], int]) -> int:
        if self.claude is not None:
            return self.claude.tools_tokens(tools, choice_of(tool_choice), count)
        return self.tools + round(self.tools_factor * sum(count(text_of(tool)) for tool in tools))

    def _schema_tokens(self, schema: object, count: Callable[[str], int]) -> int:
        return count(text_of(schema)) if self.claude is None else self.claude.schema_tokens(schema, count)


def _calls_of(message: object) -> list[object]:
    return [*items_of(field(message, "tool_calls")), *items_of(field(message, "function_call"))]


def _kinds_of(message: object, role: str) -> set[str]:
    kinds = {"calls": bool(_calls_of(message)), "results": role in RESULT_ROLES}
    return {kind for kind, is_held in kinds.items() if is_held}


def _parts_beyond_text(message: object) -> list[object]:
    content = message if isinstance(message, str) else field(message, "content")
    return [part for part in items_of(content) if _is_beyond_text(part)]


RECORDED = "recorded chats, see docs/counting.md"
META = "https://www.llama.com/docs/model-cards-and-prompt-formats/"
# Before 4.5.
OLDER_4 = ("*claude*sonnet-4", "*claude*opus-4", "*claude*-4-20*", "*claude*-4@*", "*claude*-4-0", "*claude-opus-4-1*")


def _claude(*globs: str, tools: ClaudeTools, once: int = 4) -> ChatTemplate:
    return ChatTemplate(globs=globs, as_of="2026-07", source=RECORDED, message=3, once=once, claude=tools)


TEMPLATES = (
    # A turn is "\n\nHuman: " or "\n\nAssistant: ", which is four tokens: eight of eight recorded chats of one to three.
    ChatTemplate(globs=CLAUDE_2, as_of="2024-03", source=RECORDED, message=4, once=5, system=0),
    _claude(*NEWER_CLAUDE, once=6, tools=ClaudeTools(system=357, forced=150, together=12)),
    _claude("*claude-3-sonnet*", tools=ClaudeTools(system=159, forced=76)),
    _claude("*claude-3-opus*", tools=ClaudeTools(system=528, forced=-249)),
    _claude("*claude-3-[5.]*sonnet*", tools=ClaudeTools(system=288, forced=-33)),
    _claude("*claude-3*haiku*", tools=ClaudeTools(system=260, forced=98)),
    _claude("*claude-3-7*", *OLDER_4, tools=ClaudeTools(system=309, forced=8)),
    _claude("*claude*", "*anthropic*", tools=ClaudeTools(system=493, forced=91)),
    ChatTemplate(
        globs=("*vertex*gemini*", "*gemini-1*", "*gemini-2.0*"), as_of="2026-07", source=RECORDED, message=0, once=0
    ),
    ChatTemplate(globs=("*gemini*",), as_of="2026-07", source=RECORDED, message=1, once=0, tools_factor=0.82, call=40),
    ChatTemplate(
        globs=("*gemma*",),
        as_of="2026-11",
        source="https://ai.google.dev/gemma/docs/core/prompt-structure",
        message=5,
        once=4,
    ),
    ChatTemplate(
        globs=("*mistral*", "*ministral*", "*magistral*", "*codestral*", "*devstral*", "*pixtral*", "*mixtral*"),
        as_of="2026-11",
        source="https://github.com/mistralai/mistral-common",
        message=2,
        once=1,
        tools=10,
        tools_factor=1.32,
        call=6,
    ),
    # Their own system text tells the date, whether another one is sent or not.
    ChatTemplate(
        globs=("*llama-3[.-][123]*", "*llama3[.-][123]*"),
        as_of="2024-12",
        source=META,
        message=5,
        once=25,
        without_system=5,
    ),
    # With tools comes a text of how to call them; behind Bedrock, which names the model llama4, a shorter one.
    ChatTemplate(globs=("*llama-4*",), as_of="2026-07", source=RECORDED, message=5, once=5, tools=653, call=31),
    ChatTemplate(globs=("*llama-3*", "*llama3*", "*llama4*"), as_of="2024-04", source=META, message=5, once=5),
    ChatTemplate(
        globs=("*qwen*", "*qwq*"), as_of="2026-11", source="https://qwen.readthedocs.io", message=5, once=3, tools=112
    ),
    ChatTemplate(
        globs=("*deepseek*",),
        as_of="2026-07",
        source=RECORDED,
        message=2,
        once=2,
        tools=214,
        tools_factor=1.25,
        call=40,
    ),
    ChatTemplate(
        globs=("*gpt-oss*",),
        as_of="2026-07",
        source="https://github.com/openai/harmony",
        message=5,
        once=62,
        tools=84,
        tools_factor=0.77,
        call=37,
    ),
    # 891 tokens more than Command A, twice.
    ChatTemplate(globs=("*command-a-reasoning*",), as_of="2026-07", source=RECORDED, message=0, once=1386, tools=880),
    ChatTemplate(
        globs=("*command-a*", "*command-r7b*"), as_of="2026-07", source=RECORDED, message=0, once=495, tools=880
    ),
    ChatTemplate(globs=("*command-r*08*",), as_of="2026-07", source=RECORDED, message=3, once=196, tools=880),
    ChatTemplate(globs=("*command*",), as_of="2024-06", source=RECORDED, message=13, once=52, tools=880),
    ChatTemplate(
        globs=("*glm-5*",), as_of="2026-07", source=RECORDED, message=2, once=10, tools=98, tools_factor=1.27, call=26
    ),
    ChatTemplate(
        globs=("*glm*",), as_of="2026-07", source=RECORDED, message=2, once=3, tools=98, tools_factor=1.27, call=26
    ),
    ChatTemplate(
        globs=("*kimi*", "*moonshot*"),
        as_of="2026-07",
        source=RECORDED,
        message=4,
        once=3,
        tools=13,
        tools_factor=1.36,
        call=28,
    ),
    ChatTemplate(globs=("*nova-2*",), as_of="2026-07", source=RECORDED, message=3, once=43, tools=980, call=56),
    ChatTemplate(globs=("*nova-*",), as_of="2026-07", source=RECORDED, message=0, once=0, tools=500, call=56),
    ChatTemplate(
        globs=("*grok*",), as_of="2026-07", source=RECORDED, message=4, once=180, tools=100, tools_factor=1.28, call=71
    ),
)


@functools.lru_cache(maxsize=512)
def template_of(name: str) -> ChatTemplate | None:
    """Return the template of the model with that (bare) name; ``None``: it counts as OpenAI's do."""
    return next((row for row in TEMPLATES if any(fnmatchcase(name, glob) for glob in row.globs)), None)


class AnswerRule(msgspec.Struct, frozen=True, kw_only=True):
    """What is counted of an answer beside its text: an end, more where tools were offered, the frame of calls.

    ``factor`` is of the text's tokens. ``parallel`` is what the list of several calls adds to its JSON; ``claude``
    takes the place of these where calls are XML. ``hides_reasoning``: the model reasons out of sight. ``sure_of``:
    what recordings bear out, beside plain text. ``refused`` is for a refusal of an output schema; ``named`` comes with
    its name, which a model writes where it could have called a tool. ``days``: when the server counted so, if it no
    longer does: then nothing is sure.
    """

    globs: tuple[str, ...]
    as_of: str
    apis: tuple[str, ...] = ("chat", "responses")
    factor: float = 1.0
    end: int = 0
    with_tools: int = 0
    call: int = 0
    parallel: int = 0
    refused: int = 0
    named: int | None = None
    hides_reasoning: bool = False
    sure_of: frozenset[str] = frozenset()
    claude: ClaudeCalls | None = None
    days: Days | None = None


SEEN = frozenset({"tools"})
"""Of calls, 139 of 153 recorded answers are counted to the token, which is not sure."""


AZURE_CLASSIC = tuple(f"azure/{glob}" for glob in CLASSIC)
OLDER = ("gpt-3.5-turbo-instruct*", "gpt-35-turbo-instruct*", "gpt-3.5-turbo-0301", "gpt-35-turbo-0301")
REASONING = ("gpt-5*", "o[134]*", "azure/gpt-5*", "azure/o[134]*")

# OpenAI counted the end of answers from 2025-01-10 to 2025-05-14, one for each choice, but of none that a stop sequence
# might have ended; Azure has counted it since 2025-10. A tool that had to be called costs its arguments alone.
SPRING_2025 = Days("2025-01-10", "2025-05-14")
_PLAIN_END = AnswerRule(globs=CLASSIC, as_of="2026-07", apis=("chat",), with_tools=1, call=7, parallel=10, named=2)
_COUNTED_END = replace(_PLAIN_END, end=1, call=8, parallel=11)
ANSWERS = (
    AnswerRule(globs=OLDER, as_of="2024-01", apis=("chat",)),
    AnswerRule(globs=OLDER_CALLS, as_of="2026-07", apis=("chat",), with_tools=1, call=4, parallel=10, sure_of=SEEN),
    replace(_PLAIN_END, as_of="2025-05", with_tools=2, call=8, parallel=11, days=SPRING_2025),
    # Six of six refusals; four of four texts in a schema where tools were offered, with those of spring and below.
    replace(_PLAIN_END, refused=1, sure_of=SEEN),
    replace(_PLAIN_END, globs=AZURE_CLASSIC, as_of="2026-03", days=Days("2023-01-01", "2025-09-30")),
    replace(_COUNTED_END, globs=AZURE_CLASSIC, as_of="2026-03", refused=1, sure_of=SEEN),
    replace(_COUNTED_END, globs=(*CLASSIC, *AZURE_CLASSIC), apis=("responses",)),
    AnswerRule(globs=REASONING, as_of="2026-07", apis=("chat",), end=3, call=16, parallel=19, hides_reasoning=True),
    AnswerRule(
        globs=REASONING, as_of="2026-07", apis=("responses",), end=4, call=11, parallel=14, hides_reasoning=True
    ),
    # Tools and frames of calls from recordings; an end where the vendor counts the token that ends an answer.
    AnswerRule(globs=CLAUDE_2, as_of="2024-03", end=4),
    AnswerRule(globs=NEWER_CLAUDE, as_of="2026-07", end=2, claude=ClaudeCalls(frame=10)),
    AnswerRule(globs=("*claude*", "*anthropic*"), as_of="2026-07", end=3, claude=ClaudeCalls()),
    AnswerRule(globs=("*gpt-oss*",), as_of="2026-07", end=4, call=12, hides_reasoning=True),
    AnswerRule(
        globs=("*mistral*", "*ministral*", "*magistral*", "*codestral*", "*devstral*", "*pixtral*"),
        as_of="2026-07",
        end=1,
        call=3,
    ),
    AnswerRule(globs=("*llama*",), as_of="2026-07", end=1, call=16),
    AnswerRule(globs=("*qwen*", "*qwq*"), as_of="2026-07", end=1, call=20),
    AnswerRule(globs=("*kimi*", "*moonshot*", "*glm*"), as_of="2026-07", end=1, call=11),
    AnswerRule(globs=("*deepseek*",), as_of="2026-07", call=24),
    # These reasoned in 336 of 389 recorded answers; what they think is counted and not to be seen.
    AnswerRule(
        globs=("*gemini-2.5-pro*", "*gemini-2.5-flash", "*gemini-2.5-flash-[!il]*", "*gemini-3*"),
        as_of="2026-07",
        call=-3,
        hides_reasoning=True,
    ),
    AnswerRule(globs=("*gemini*",), as_of="2026-07", call=-3),
    AnswerRule(globs=("*gemma*",), as_of="2026-07", end=1),  # nine of nine
    AnswerRule(globs=("*nova-*",), as_of="2026-07", end=2, call=11),
    # Nobody has their vocabulary in a small package; citations are counted and not to be seen.
    # The factor makes the sum of 29 recorded texts right, also of each that was left out of the fit.
    AnswerRule(globs=("*command*",), as_of="2026-07", factor=1.044, end=2),
    AnswerRule(globs=("*grok*",), as_of="2026-07", call=12, hides_reasoning=True),
    AnswerRule(globs=("*",), as_of="2026-11"),
)


@functools.lru_cache(maxsize=512)
def answer_rule_of(name: str, api: str, day: str | None = None) -> AnswerRule:
    """Return the rule for answers of the model with that (bare) name over an API, of a day; ``None``: the newest."""
    for rule in ANSWERS:
        if is_in_force(rule.days, day) and api in rule.apis and any(fnmatchcase(name, glob) for glob in rule.globs):
            return rule
    return ANSWERS[-1]


def _is_beyond_text(part: object) -> bool:
    if isinstance(part, str) or part_text(part):
        return False
    return kind_of(part) is not None or field(part, "type") not in (None, "text")
