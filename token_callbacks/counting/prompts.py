"""What OpenAI's APIs add to the texts of a chat: tools, calls, results, output schema and images, as dated data.

Each row of ``RULES`` holds the constants of one generation of models behind one API, as counted from recordings, most
of them of 2024-10 to 2026-07 (docs/counting.md tells how well each does). The messages' own are ``ChatRule``'s.
"""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import msgspec

from token_callbacks.counting.images import media_tokens
from token_callbacks.counting.media import kind_of
from token_callbacks.counting.models import OLDER_CALLS, ChatRule
from token_callbacks.counting.prompts_cache import CountText
from token_callbacks.counting.templates_schemas import is_seen, rendered_schema
from token_callbacks.counting.templates_tools import rendered_tools
from token_callbacks.counting.texts import (
    compact_json,
    field,
    is_told,
    items_of,
    part_text,
    text_of,
    tool_call_texts,
)

_PLAIN_FIELDS = 2
"""Of a message that is a role and a content, and nothing else."""

HEADING = "# Tools\n\n## functions\n\n"
PLAIN_ROLES = ("system", "developer", "user", "assistant")
SYSTEM_ROLES = ("system", "developer")
CALL_ITEMS = ("function_call", "custom_tool_call")
RESULT_ITEMS = ("function_call_output", "custom_tool_call_output")

REASONING_CHARACTERS, REASONING_ENVELOPE = 6.6, 134
"""Characters of ``encrypted_content`` for each token, and what its envelope looks like in tokens.

Base64 of ciphertext grows with what is in it. Fitted to 16 recorded round trips: left out one by one, the prompts are
7 % off in the mean.
"""


class Days(NamedTuple):
    """The days, both included, on which a server counted in some way; in ISO 8601, which sorts."""

    first: str
    last: str


def is_in_force(days: Days | None, day: str | None) -> bool:
    """Tell whether a rule is that of a day; ``None`` are the days of one that still holds, and is now."""
    return days is None or (day is not None and days.first <= day <= days.last)


class PromptRule(msgspec.Struct, frozen=True, kw_only=True):
    """What is added to a chat of the models whose name matches one of the globs, in tokens.

    ``joins_system``: tools and output schema stand behind the first system text, not in a message of their own.
    ``tools`` and ``schema`` are added to their text in a message of their own, ``joined_tools`` behind a system text.
    ``forced`` comes with a tool that must be called, ``calls_one`` where several must not be called at once,
    ``answered`` with the name of the output schema wherever the model answers in it; ``None``: nothing, no name
    either. ``escapes``: what is not ASCII is escaped in JSON that the server writes. ``is_older``: tools are rendered
    without titles. ``author`` stands before the tool that a result is of, ``results_gap`` behind the commas in a list
    of results. ``answer`` is added to an answer that is sent back, ``stored_call`` to a call with the server's id of
    it, ``added`` to every chat. ``sure_of`` names what recordings bear out beside plain chats. ``days``: when the
    server counted so, if it no longer does: then nothing is sure, since the days are known from few recordings.
    """

    name: str
    as_of: str
    globs: tuple[str, ...]
    apis: tuple[str, ...]
    heading: str = HEADING
    joins_system: bool = False
    breaks_unions: bool = True
    tools: int
    joined_tools: int = -1
    undescribed_tools: int = 0
    schema: int = 4
    answered: int | None = None
    escapes: bool = False
    is_older: bool = False
    forced: int | None = None
    calls_one: int = 0
    call: int = 7
    stored_call: int = 0
    author: str = ""
    result: int = 5
    answer: int = 0
    parallel_calls: int = 9
    parallel_results: int = 11
    results_gap: str = " "
    added: int = 0
    sure_of: tuple[str, ...] = ()
    days: Days | None = None


CLASSIC = ("gpt-4*", "gpt-3.5*", "gpt-35*", "chatgpt-4o*")

CHAT_2024 = PromptRule(
    name="openai-chat-2024",
    as_of="2026-07",
    globs=CLASSIC,
    apis=("chat",),
    joins_system=True,
    tools=3,
    answered=2,
    forced=7,
    sure_of=("tools", "calls", "results", "parallel", "schema"),
)
# Recorded with gpt-4o-mini from 2025-10 to 2026-02; gpt-4o did not escape from 2026-03 on, so it may be the day.
CHAT_MINI = msgspec.structs.replace(CHAT_2024, name="openai-chat-mini", globs=("gpt-4o-mini*",), escapes=True)
# Thirteen of 14 answers with calls, one of one prompt with a call, and two of two with titles were counted so.
CHAT_2023 = msgspec.structs.replace(
    CHAT_2024, name="openai-chat-2023", globs=OLDER_CALLS, is_older=True, call=4, sure_of=("tools",)
)
RESPONSES_2024 = PromptRule(
    name="openai-responses-2024",
    as_of="2026-07",
    globs=CLASSIC,
    apis=("responses",),
    heading="",
    breaks_unions=False,
    tools=3,
    schema=1,
    forced=7,
    call=5,
    stored_call=3,
    sure_of=("tools", "schema", "calls", "results"),
)
# To 16 of 16 recorded chats of 2025-03 the server added 12 to 636 tokens, to none of the later ones: mostly 18, and
# with tools 198 more; 3 of these where `parallel_tool_calls` was false, in two of two.
RESPONSES_2025_03 = msgspec.structs.replace(
    RESPONSES_2024,
    name="openai-responses-2025-03",
    as_of="2025-03",
    globs=("gpt-4o", "gpt-4o-20*"),
    added=18,
    tools=201,
    calls_one=-195,
    days=Days("2025-03-01", "2025-03-31"),
)
RESPONSES_GPT_5 = PromptRule(
    name="openai-responses-gpt-5",
    as_of="2026-07",
    globs=("gpt-5*",),
    apis=("responses",),
    heading="",
    breaks_unions=False,
    tools=9,
    undescribed_tools=-1,
    schema=0,
    calls_one=78,
    call=11,
    author="functions.",
    result=4,
    answer=2,
    sure_of=("tools", "schema"),
)
RESPONSES_NEWER = msgspec.structs.replace(
    RESPONSES_GPT_5, name="openai-responses-gpt-5.4", globs=("gpt-5.[4-9]*",), calls_one=0, call=14
)

RULES = (
    # 131 of 133 recorded first turns with tools, 98 of 98 round trips, 92 of 92 output schemas.
    CHAT_MINI,
    CHAT_2023,
    CHAT_2024,
    # What the 81 tokens are that come with tools is not known: 40 of 46 recordings.
    PromptRule(
        name="openai-chat-gpt-5",
        as_of="2026-07",
        globs=("gpt-5*",),
        apis=("chat",),
        tools=85,
        undescribed_tools=-1,
        call=13,
        parallel_calls=14,
        parallel_results=12,
        results_gap="",
        sure_of=("tools", "calls", "results", "parallel"),
    ),
    PromptRule(
        name="openai-chat-o",
        as_of="2026-07",
        globs=("o[134]*",),
        apis=("chat",),
        tools=4,
        call=13,
        sure_of=("tools",),
    ),
    RESPONSES_2025_03,
    RESPONSES_2024,
    RESPONSES_NEWER,
    RESPONSES_GPT_5,
    PromptRule(
        name="openai-responses-o",
        as_of="2026-07",
        globs=("o[134]*",),
        apis=("responses",),
        heading="",
        breaks_unions=False,
        tools=6,
        schema=0,
        call=11,
        author="functions.",
        result=4,
        answer=2,
        sure_of=("tools",),
    ),
)
"""The first row that matches counts; a model that none matches counts as gpt-4o, and is never sure."""


class Extras(msgspec.Struct, frozen=True, kw_only=True):
    """What a request says beside its messages, and the day of it in ISO 8601; ``None``: any since the newest rules.

    `calls_one`: no more than one tool may be called at once.
    """

    tools: object = ()
    schema: object = None
    tool_choice: object = None
    calls_one: bool = False
    day: str | None = None


class ChatTokens(msgspec.Struct, frozen=True, kw_only=True):
    """The tokens of a chat; `kinds` are what it holds beside plain text, `is_sure` whether all of it is known.

    `is_lower_bound`: it holds reasoning that stands with the provider.
    """

    tokens: int
    is_sure: bool
    is_lower_bound: bool
    kinds: frozenset[str]


@functools.lru_cache(maxsize=512)
def prompt_rule_of(name: str, api: str, day: str | None = None) -> PromptRule | None:
    """Return the rule of the model with that (bare) name behind an API on a day, by default the newest, if one is."""
    for rule in RULES:
        if is_in_force(rule.days, day) and api in rule.apis and any(fnmatchcase(name, glob) for glob in rule.globs):
            return rule
    return None


def chat_tokens(
    messages: Sequence[object], extras: Extras, *, name: str, api: str, chat_rule: ChatRule, count: CountText
) -> ChatTokens:
    """Count a chat of OpenAI-shaped messages, or of the Responses API's items, with what is sent beside it."""
    rule = prompt_rule_of(name, api, extras.day)
    chat = _Chat(rule or CHAT_2024, chat_rule, count, name=name, api=api)
    for message in messages:
        chat.take(message)
    if messages:
        chat.tokens += chat_rule.priming_tokens + (0 if rule is None else rule.added)
    chat.settle()
    if extras.tools or extras.schema:
        chat.take_extras(extras)
    return ChatTokens(
        tokens=chat.tokens,
        # Images that follow a call were recorded twice, a token off.
        is_sure=chat.is_sure and rule is not None and not chat.kinds >= {"images", "calls"},
        is_lower_bound=chat.is_lower_bound,
        kinds=frozenset(chat.kinds),
    )


class _Chat:
    """Adds up a chat, and remembers what it holds."""

    __slots__ = (
        "_answers",
        "_api",
        "_awaited",
        "_called",
        "_chat_rule",
        "_count",
        "_head",
        "_model",
        "_reasoning",
        "_results",
        "_rule",
        "_system",
        "is_lower_bound",
        "is_sure",
        "kinds",
        "tokens",
    )

    def __init__(self, rule: PromptRule, chat_rule: ChatRule, count: CountText, *, name: str, api: str) -> None:
        self.tokens = 0
        self.is_sure = rule.days is None
        self.is_lower_bound = False
        self.kinds: set[str] = set()
        self._rule = rule
        self._chat_rule = chat_rule
        self._count = count
        self._head: Callable[[str], int] = count if chat_rule.has_roles else _nothing
        self._model, self._api = name, api
        self._system: str | None = None
        self._answers = 0
        self._called: dict[str, str] = {}
        self._awaited: dict[str, list[str]] = {}
        self._results: list[list[str]] = []
        self._reasoning: list[object] = []

    def take(self, message: object) -> None:
        """Add a message, or an item of the Responses API."""
        if type(message) is dict and len(message) == _PLAIN_FIELDS:
            role, content = message.get("role"), message.get("content")
            if role in PLAIN_ROLES and type(content) is str and content:
                self._take_plain(role, content)
                return
        kind, role = field(message, "type"), field(message, "role")
        if kind in CALL_ITEMS:
            self._take_calls([message])
        elif kind in RESULT_ITEMS or role in ("tool", "function"):
            self._take_result(message)
        elif kind == "reasoning":
            self._reasoning.append(message)
        else:
            if role == "user":  # what was thought before it is not read again
                self._reasoning.clear()
            self._reasoning += _encrypted_details(message)
            self._take_message(message)

    def _note(self, kind: str, *, is_sure: bool | None = None) -> None:
        self.kinds.add(kind)
        self.is_sure = self.is_sure and (kind in self._rule.sure_of if is_sure is None else is_sure)

    # --- messages

    def _take_plain(self, role: str, text: str) -> None:
        """Add a message that is a role and a text: what ``_take_message`` says of one, sooner."""
        self.tokens += self._chat_rule.message_tokens + self._head(role) + self._count(text)
        if role == "assistant":
            self._answers += 1
            self.tokens += self._rule.answer
        elif role == "user":
            self._reasoning.clear()
        elif self._system is None:
            self._system = text

    def _take_message(self, message: object) -> None:
        calls = [*items_of(field(message, "tool_calls")), *items_of(field(message, "function_call"))]
        content = message if isinstance(message, str | bytes | int | float) else field(message, "content")
        if is_told(content) or not calls:
            self.tokens += self._chat_rule.message_tokens + self._head(_header(message))
            self._take_content(content)
            self._check(message, content)
            is_answer = field(message, "role") == "assistant"
            self._answers += is_answer
            self.tokens += self._rule.answer if is_answer and is_told(content) else 0
            if calls:
                self._note("text beside calls", is_sure=False)
        elif is_told(field(message, "name")):
            self.tokens += self._count(_header(message)) - self._count(text_of(field(message, "role")))
        if calls:
            self._take_calls(calls)

    def _take_content(self, content: object) -> None:
        texts: list[str] = []
        for part in [content] if isinstance(content, str) else items_of(content):
            if not self._take_media(part):
                texts.append(part_text(part))
                continue
            self.tokens += self._count_joined(texts)
            texts.clear()
        self.tokens += self._count_joined(texts)

    def _take_media(self, part: object) -> bool:
        """Add an image or a file; tells whether the part is one."""
        media = media_tokens(part, name=self._model, api=self._api, count=self._count)
        if media is not None:
            self.tokens += media.tokens
            self._note(media.kind, is_sure=media.is_sure)
        return media is not None

    def _count_joined(self, texts: Sequence[str]) -> int:
        """Count text parts that stand side by side: they are one text (three recordings of gpt-5 differ otherwise)."""
        text = "".join(texts)
        return self._count(text) if text else 0

    def _check(self, message: object, content: object) -> None:
        role = field(message, "role")
        if self._system is None and role in SYSTEM_ROLES:
            self._system = "".join(part_text(part) for part in items_of(content))
        parts = items_of(content)
        is_known = isinstance(role, str) and role in PLAIN_ROLES
        is_known = is_known and not any(is_told(field(message, name)) for name in ("audio", "refusal", "tool_call_id"))
        # Several text parts are an estimate all the same: few were recorded where it makes a difference.
        texts = [part for part in parts if _is_text(part)]
        is_known = is_known and len(parts) > 0 and len(texts) <= 1
        if not (is_known and all(_is_text(part) or kind_of(part) is not None for part in parts)):
            self._note("odd", is_sure=False)

    # --- calls of tools, and their results

    def _take_calls(self, calls: Sequence[object]) -> None:
        named = [_name_and_arguments(call) for call in calls]
        for call, (name, _) in zip(calls, named, strict=True):
            self._called[_id_of(call)] = name
        if len(named) == 1:
            name, arguments = named[0]
            form = None if field(calls[0], "type") in CALL_ITEMS else _compact
            self.tokens += self._count(f"functions.{name}") + self._count(arguments, form) + self._rule.call
            self.tokens += self._rule.stored_call if is_told(field(calls[0], "id")) else 0
            self._note("calls")
            return
        self.tokens += self._count(parallel_calls_text(named)) + self._rule.parallel_calls
        together: list[str] = []
        self._results.append(together)
        self._awaited.update((_id_of(call), together) for call in calls)
        self._note("parallel")

    def _take_result(self, message: object) -> None:
        output = field(message, "output")
        content = field(message, "content") if output is None else output
        parts = [part for part in items_of(content) if not self._take_media(part)]
        text = content if isinstance(content, str) else "".join(map(part_text, parts))
        called_id = text_of(field(message, "tool_call_id") or field(message, "call_id"))
        if called_id in self._awaited:
            self._awaited[called_id].append(text)
            self._note("parallel")
            return
        name = self._called.get(called_id) or text_of(field(message, "name"))
        self.tokens += self._count(self._rule.author + name) + self._count(text) + self._rule.result
        self._note("results")
        if not name or not isinstance(content, str):
            self._note("odd", is_sure=False)

    def settle(self) -> None:
        """Add what can be told only when all messages are known."""
        if self._results:
            self._settle_results()
        if self._reasoning:
            self._settle_reasoning()

    def _settle_results(self) -> None:
        """Add the results of parallel calls: those of one message stand in one list, JSON where they are JSON."""
        for together in self._results:
            if together:
                values = [_value_of(text) for text in together]
                self.is_sure = self.is_sure and _json(values, CHAT_2024).isascii()
                self.tokens += self._count(_json(values, self._rule)) + self._rule.parallel_results

    def _settle_reasoning(self) -> None:
        """Add the reasoning that is read again: by the length of what is encrypted, or not, as a lower bound."""
        for item in self._reasoning:
            length = len(text_of(field(item, "encrypted_content")))
            self.tokens += max(0, round(length / REASONING_CHARACTERS) - REASONING_ENVELOPE)
            self.is_lower_bound = self.is_lower_bound or length == 0
            self._note("reasoning", is_sure=False)

    # --- what stands beside the messages

    def take_extras(self, extras: Extras) -> None:
        """Add the tools, the output schema and a tool that must be called."""
        tools = items_of(extras.tools)
        added: list[str] = []
        rule, joins = self._rule, self._rule.joins_system and self._system is not None
        if tools:
            rendered = rendered_tools(tools, breaks_unions=rule.breaks_unions, is_older=rule.is_older)
            added.append(rule.heading + rendered.text)
            self.tokens += rule.joined_tools if joins else rule.tools
            self.tokens += 0 if rendered.is_described else rule.undescribed_tools
            self._note("tools")
            self.is_sure = self.is_sure and rendered.is_sure
            self._take_choice(extras.tool_choice, tools)
            if extras.calls_one:
                self.tokens += rule.calls_one
                self.is_sure = False
        if is_told(extras.schema):
            added.append(rendered_schema(extras.schema, escapes=rule.escapes))
            self.tokens += 0 if joins or tools else rule.schema
            self._take_answers(text_of(field(extras.schema, "name")), is_next=not tools)
            self._note("schema")
            self.is_sure = self.is_sure and is_seen(added[-1]) and (rule.escapes or added[-1].isascii())
        text = "\n\n".join(added)
        if text and joins:
            system = self._system or ""
            self.tokens += self._count(f"{system}\n\n{text}") - self._count(system)
        elif text:
            self.tokens += self._count(text)

    def _take_answers(self, name: str, *, is_next: bool) -> None:
        if self._rule.answered is not None:
            self.tokens += (self._answers + is_next) * (self._count(name) + self._rule.answered)

    def _take_choice(self, choice: object, tools: Sequence[object]) -> None:
        forced = field(choice, "function")
        name = text_of(field(choice if forced is None else forced, "name"))
        if choice == "required" and "responses" in self._rule.apis and len(tools) == 1:
            name = _name_of(tools[0])
        if name and self._rule.forced is not None:
            self.tokens += self._count(name) + self._rule.forced


def _encrypted_details(message: object) -> list[object]:
    """Return the reasoning that a gateway has sent back beside an answer, in the shape of OpenAI's items."""
    datas = (text_of(field(detail, "data")) for detail in items_of(field(message, "reasoning_details")))
    return [{"encrypted_content": data} for data in datas if data]


def parallel_calls_text(calls: Sequence[tuple[str, str]]) -> str:
    """Render several calls, each a name and arguments, as the one call that OpenAI's models write for them."""
    uses = [{"recipient_name": f"functions.{name}", "parameters": _value_of(text)} for name, text in calls]
    return compact_json({"tool_uses": uses})


def _nothing(text: str) -> int:
    del text
    return 0


def _header(message: object) -> str:
    # The cookbook's "role, name and one token" is this one string in disguise: the same figures for its example, and
    # right where "user:user" is two tokens (recorded with gpt-4o-2024-08-06).
    role, name = text_of(field(message, "role")), text_of(field(message, "name"))
    return f"{role}:{name}" if name else role


def _is_text(part: object) -> bool:
    if isinstance(part, str):
        return True
    return field(part, "type") in ("text", "input_text", "output_text") and isinstance(field(part, "text"), str)


def _name_of(tool: object) -> str:
    return tool_call_texts(tool)[0]


def _name_and_arguments(call: object) -> tuple[str, str]:
    name, *texts = tool_call_texts(call)
    return name, next((text for text in texts if text), "")


def _id_of(call: object) -> str:
    return text_of(field(call, "call_id") or field(call, "id"))


def _compact(text: str) -> str:
    value = _value_of(text)
    return text if isinstance(value, str) else compact_json(value)


def _value_of(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _json(values: Sequence[object], rule: PromptRule) -> str:
    gap = rule.results_gap
    try:
        return json.dumps(values, ensure_ascii=rule.escapes, separators=(f",{gap}", f":{gap}"))
    except (TypeError, ValueError, RecursionError):
        return ""


def schema_of(response_format: object) -> object:
    """Return what names and holds the output schema, in the format of a chat or of the Responses API."""
    if response_format is None or not isinstance(response_format, Mapping):
        return None
    if response_format.get("type") == "json_schema":
        inner = response_format.get("json_schema")
        return response_format if inner is None else inner
    return response_format.get("json_schema")
