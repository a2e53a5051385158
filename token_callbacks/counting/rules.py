"""The rules that turn a call's texts into a count.

A count is exact where the rule is known to give the provider's own figure. Elsewhere it is an estimate with the band
that recordings gave it (``bands``), or a lower bound where some of what the provider counted is not to be seen.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import msgspec

from token_callbacks.counting.bands import band_of, nearest_factor
from token_callbacks.counting.models import (
    OPENAI_PREFIXES,
    REASONING_CHAT,
    Family,
    Figure,
    bare_name,
    family_of,
)
from token_callbacks.counting.pieces import has_forced_cut
from token_callbacks.counting.prompts import Extras, chat_tokens, parallel_calls_text, schema_of
from token_callbacks.counting.prompts_cache import COUNTS, Counting
from token_callbacks.counting.templates import HOSTED, AnswerRule, answer_rule_of, template_of
from token_callbacks.counting.templates_claude import Choice, choice_of
from token_callbacks.counting.texts import field, is_told, items_of, part_text, text_of, texts_of, tool_call_texts
from token_callbacks.counting.vocabularies import INSTALLED, Vocabularies


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """A number of tokens, how it was found, and how good it is.

    `exact` means that the rule and the vocabulary of this model are known. `method` names the vocabulary, with
    "(nearest)" where it is not the model's own. `error_band` is relative, 0.04 is 4 % to either side, which nine in ten
    recorded cases of this kind kept to; ``None`` where the count is exact or where nothing like it was recorded.
    `is_lower_bound`: some of what the provider counts is not to be seen, such as hidden reasoning.
    """

    tokens: int
    exact: bool
    method: str
    error_band: float | None = None
    is_lower_bound: bool = False


def count_prompt(
    *,
    model: str | None,
    messages: Sequence[Mapping[str, Any]] | str,
    tools: Sequence[Mapping[str, Any]] = (),
    response_format: Mapping[str, Any] | None = None,
    tool_choice: object = None,
    parallel_tool_calls: object = None,
    api: str = "chat",
    at: date | None = None,
    vocabularies: Vocabularies = INSTALLED,
) -> Count:
    """Count what was sent: a chat with the tokens that it adds, or the prompt of a text completion if it is a string.

    `api` is "chat" or "responses": the two add different tokens to the same messages, and items of the latter may be
    among `messages`. `parallel_tool_calls` is OpenAI's, ``None`` where it was not sent. `at` is the day of the call in
    UTC, for servers once counted otherwise; ``None`` is now. A string sent to a chat model, and whatever no rule is
    known for, is not exact.
    """
    family = family_of(model)
    vocabulary = vocabularies.of(family)
    schema = schema_of(response_format)
    if isinstance(messages, str):
        tokens = COUNTS.count(vocabulary, messages)
        tokens += sum(vocabulary.count(text_of(addition)) for addition in (*items_of(tools), schema) if addition)
        is_plain = not is_told(tools) and schema is None and not has_forced_cut(messages)
        return _counted(tokens, Figure.TEXT_PROMPT, family, vocabulary, is_plain=is_plain, kinds=_NO_KINDS)
    chat = items_of(messages)
    name = bare_name(model) if isinstance(model, str) else ""
    template, is_lower_bound = template_of(name), False
    calls_one = parallel_tool_calls is False
    extras = Extras(tools=tools, schema=schema, tool_choice=tool_choice, calls_one=calls_one, day=_iso(at))
    if template is not None:
        tokens, kinds = template.tokens(chat, extras, lambda text: COUNTS.count(vocabulary, text), name=name, api=api)
        kinds |= {"responses"} if api == "responses" else set()
        is_sure, is_lower_bound = False, HOSTED in kinds
    else:
        found = chat_tokens(
            chat,
            extras,
            name=name,
            api=_asked_by(model, family, api),
            chat_rule=family.chat_rule,
            count=functools.partial(COUNTS.count, vocabulary),
        )
        tokens, kinds = found.tokens, found.kinds
        if api == "responses" and (kinds or not found.is_sure):
            kinds |= {"responses"}
        is_sure, is_lower_bound = found.is_sure and (not kinds or _is_direct(model)), found.is_lower_bound
    is_lower_bound = is_lower_bound or _has_run_elsewhere(tools)
    is_plain = len(chat) > 0 and is_sure and not any(map(has_forced_cut, _all_texts(chat)))
    counted = _counted(tokens, Figure.CHAT_PROMPT, family, vocabulary, is_plain=is_plain, kinds=kinds)
    return msgspec.structs.replace(counted, is_lower_bound=is_lower_bound) if is_lower_bound else counted


def count_completion(
    *,
    model: str | None,
    text: str | Sequence[str],
    tool_calls: Sequence[Mapping[str, Any]] = (),
    tools: Sequence[Mapping[str, Any]] = (),
    response_format: Mapping[str, Any] | None = None,
    tool_choice: object = None,
    api: str = "chat",
    is_at_limit: bool = False,
    is_refused: bool = False,
    at: date | None = None,
    vocabularies: Vocabularies = INSTALLED,
) -> Count:
    """Count what a model has written, without any role before it: its text, reasoning and refusals in it, its calls.

    `text` is a text, or that of each choice. `is_at_limit`: it was stopped before it could write the token that ends an
    answer. `is_refused`: the text is a refusal to answer in the output schema of `response_format`. `at` is that of
    `count_prompt`. Of a model that reasons out of sight, the count is a lower bound.
    """
    family = family_of(model)
    vocabulary = vocabularies.of(family)
    calls, rule = items_of(tool_calls), answer_rule_of(_answering(model), api, _iso(at))
    kinds = _NO_KINDS
    if calls or is_told(tools):
        kinds = frozenset(name for name, told in (("tools", is_told(tools)), ("calls", calls)) if told)
    tokens = round(sum(map(vocabulary.count, texts_of(text))) * rule.factor)
    texts = [text] if isinstance(text, str) else items_of(text) or [None]
    written = sum(map(bool, texts))
    is_plain = all(map(_is_whole_text, texts))
    if calls:
        tokens += _calls_tokens(calls, rule, vocabulary, tool_choice)
    else:
        end = rule.end + (rule.with_tools if "tools" in kinds else 0) + (rule.refused if is_refused else 0)
        end += _named_tokens(response_format, rule, vocabulary) if "tools" in kinds else 0
        tokens += end * max(0, written - is_at_limit)
        is_plain = is_plain and (written <= 1 or not end)  # nothing like it is among the recordings
    is_plain = is_plain and kinds <= rule.sure_of and not (calls and text) and not rule.hides_reasoning
    is_plain = is_plain and rule.days is None and not _has_run_elsewhere(tools)
    tokens = max(0, tokens)  # Gemini's frame of a call is less than none
    counted = _counted(tokens, Figure.COMPLETION, family, vocabulary, is_plain=is_plain, kinds=kinds)
    return msgspec.structs.replace(counted, is_lower_bound=True) if rule.hides_reasoning else counted


_NO_KINDS = frozenset[str]()


def _has_run_elsewhere(tools: object) -> bool:
    """Tell whether a tool is the server's own: what it is told, reads and finds is counted, and not to be seen."""
    offered = items_of(tools)
    return len(offered) > 0 and any(field(tool, "type") not in _RUN_HERE for tool in offered)


_RUN_HERE = (None, "function", "custom")


def _is_whole_text(text: object) -> bool:
    return isinstance(text, str) and not has_forced_cut(text)


def _named_tokens(response_format: object, rule: AnswerRule, vocabulary: Counting) -> int:
    """Count the name of the output schema: a model that could have called a tool writes whom it answers instead."""
    name = text_of(field(schema_of(response_format), "name"))
    return 0 if rule.named is None or not name else vocabulary.count(name) + rule.named


def _iso(day: date | None) -> str | None:
    return None if day is None else day.isoformat()


def _is_direct(model: str | None) -> bool:
    """Tell whether OpenAI or Azure is asked themselves."""
    prefixes = model.strip().lower().rpartition("/")[0] if isinstance(model, str) else ""
    return all(prefix in OPENAI_PREFIXES for prefix in prefixes.split("/") if prefix)


def _asked_by(model: str | None, family: Family, api: str) -> str:
    """Name the API that the model itself is asked by.

    OpenRouter and Vercel turn a chat of a reasoning model into a request of the Responses API: tools cost 82 tokens
    less, and eight of eight recorded prompts with tools, but without reasoning or parallel calls, are counted so.
    """
    return "responses" if family.chat_rule is REASONING_CHAT and not _is_direct(model) else api


def _answering(model: str | None) -> str:
    """Name the model as the table of answers does: Azure counts them otherwise than OpenAI."""
    if not isinstance(model, str):
        return ""
    name = bare_name(model)
    return f"azure/{name}" if model.strip().lower().startswith("azure") else name


def _calls_tokens(calls: Sequence[object], rule: AnswerRule, vocabulary: Counting, tool_choice: object) -> int:
    if rule.claude is not None:
        return rule.claude.tokens(calls, choice_of(tool_choice), vocabulary.count)
    is_forced = rule.parallel > 0 and choice_of(tool_choice) is Choice.NAMED
    named = [(texts[0], "".join(texts[1:])) for texts in map(tool_call_texts, calls)]
    if rule.parallel and not is_forced and (len(named) > 1 or _is_rewritten(named[0][1])):
        return vocabulary.count(parallel_calls_text(named)) + rule.parallel
    if is_forced and rule.call:
        return sum(vocabulary.count(arguments) for _, arguments in named)
    return sum(vocabulary.count(name) + vocabulary.count(arguments) + rule.call for name, arguments in named)


def _is_rewritten(arguments: str) -> bool:
    """Tell whether one call came as a list of one: models write ``{"a":1}``, OpenAI's server ``{"a": 1}``."""
    if ": " not in arguments:
        return False
    try:
        return arguments == json.dumps(json.loads(arguments), ensure_ascii=False)
    except (ValueError, RecursionError):
        return False


def count_embedding(
    *, model: str | None, inputs: Sequence[str | Sequence[int]], vocabularies: Vocabularies = INSTALLED
) -> Count:
    """Count the texts that were embedded; an input of token numbers counts as many tokens as it has numbers."""
    family = family_of(model)
    vocabulary = vocabularies.of(family)
    texts = items_of(inputs)
    is_plain = len(texts) > 0 and all(map(_is_plain_input, texts))
    tokens = sum(_input_tokens(text, vocabulary) for text in texts)
    if Figure.EMBEDDING in family.exact:  # the API reports a token for the empty text
        tokens += sum(1 for text in texts if isinstance(text, str) and not text)
    return _counted(tokens, Figure.EMBEDDING, family, vocabulary, is_plain=is_plain, kinds=_NO_KINDS)


def _counted(
    tokens: int, figure: Figure, family: Family, vocabulary: Counting, *, is_plain: bool, kinds: frozenset[str]
) -> Count:
    is_own = family.is_vocabulary_known and vocabulary.name == family.vocabulary
    is_registered = family.registration is not None
    method = vocabulary.name if is_own or vocabulary.is_guess else f"{vocabulary.name} (nearest)"
    exact = is_own and is_plain and not is_registered and figure in family.exact
    if exact:
        return Count(tokens=tokens, exact=True, method=method)
    if not is_registered:
        tokens = round(tokens * nearest_factor(family.vocabulary, vocabulary.name, figure))
    band = None if is_registered else band_of(family.banded_as, vocabulary.name, figure, kinds)
    return Count(tokens=tokens, exact=False, method=method, error_band=band)


def _all_texts(chat: Sequence[object]) -> list[str]:
    texts: list[str] = []
    for message in chat:
        content = message if isinstance(message, str) else field(message, "content")
        texts += (content,) if type(content) is str else texts_of(content)
    return texts


def _input_tokens(value: object, vocabulary: Counting) -> int:
    return sum(1 if isinstance(item, int) else vocabulary.count(part_text(item)) for item in items_of(value))


def _is_plain_input(value: object) -> bool:
    if isinstance(value, str):
        # Recorded once, with text-embedding-ada-002: one token.
        return value != "" and not has_forced_cut(value)
    return value is not None and all(isinstance(item, int) for item in items_of(value))
