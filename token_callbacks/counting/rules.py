"""The rules that turn a call's texts into a count.

A count is exact where the rule is known to give the provider's own figure; elsewhere the same rule gives a floor, and
the count says so.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from token_callbacks.counting.models import ChatRule, Family, Figure, family_of
from token_callbacks.counting.pieces import has_forced_cut
from token_callbacks.counting.texts import (
    field,
    is_text_part,
    is_told,
    items_of,
    part_text,
    text_of,
    texts_of,
    tool_call_texts,
)
from token_callbacks.counting.vocabularies import INSTALLED, Vocabularies, Vocabulary

PLAIN_ROLES = ("system", "developer", "user", "assistant")
FIELDS_BEYOND_TEXT = ("tool_calls", "function_call", "tool_call_id", "audio", "refusal")


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """A number of tokens, and how it was found.

    `exact` means that the rule and the vocabulary of this model are known. `method` names the vocabulary, with
    "(nearest)" where it is not the model's own.
    """

    tokens: int
    exact: bool
    method: str


def count_prompt(
    *,
    model: str | None,
    messages: Sequence[Mapping[str, Any]] | str,
    tools: Sequence[Mapping[str, Any]] = (),
    response_format: Mapping[str, Any] | None = None,
    vocabularies: Vocabularies = INSTALLED,
) -> Count:
    """Count a chat's messages with the tokens that the chat adds, or the prompt of a text completion if it is a string.

    Tools, output schemas, images and tool results are not exact: the first two count as their compact JSON, images as
    nothing. Nor is a string sent to a chat model.
    """
    family = family_of(model)
    vocabulary = vocabularies.nearest(family.vocabulary)
    additions = [*items_of(tools), *_output_schemas(response_format)]
    added_tokens = sum(vocabulary.count(text_of(addition)) for addition in additions)
    if isinstance(messages, str):
        tokens = vocabulary.count(messages) + added_tokens
        is_plain = not additions and not has_forced_cut(messages)
        return _counted(tokens, Figure.TEXT_PROMPT, family=family, vocabulary=vocabulary, is_plain=is_plain)
    chat = items_of(messages)
    tokens = _chat_tokens(chat, family.chat_rule, vocabulary) + added_tokens
    is_plain = len(chat) > 0 and not additions and all(map(_is_plain, chat))
    return _counted(tokens, Figure.CHAT_PROMPT, family=family, vocabulary=vocabulary, is_plain=is_plain)


def count_completion(
    *,
    model: str | None,
    text: str,
    tool_calls: Sequence[Mapping[str, Any]] = (),
    tools: Sequence[Mapping[str, Any]] = (),
    vocabularies: Vocabularies = INSTALLED,
) -> Count:
    """Count what a model has written, without any role before it.

    Tool calls count as name and arguments and are not exact, nor is any answer to a request that offered `tools`:
    OpenAI has counted about one token more there since 2025. Reasoning that no text shows is not in the count.
    """
    family = family_of(model)
    vocabulary = vocabularies.nearest(family.vocabulary)
    calls = items_of(tool_calls)
    is_plain = isinstance(text, str) and not (calls or items_of(tools) or has_forced_cut(text))
    tokens = sum(map(vocabulary.count, texts_of(text)))
    tokens += sum(_tool_call_tokens(call, vocabulary) for call in calls)
    return _counted(tokens, Figure.COMPLETION, family=family, vocabulary=vocabulary, is_plain=is_plain)


def count_embedding(
    *, model: str | None, inputs: Sequence[str | Sequence[int]], vocabularies: Vocabularies = INSTALLED
) -> Count:
    """Count the texts that were embedded; an input of token numbers counts as many tokens as it has numbers."""
    family = family_of(model)
    vocabulary = vocabularies.nearest(family.vocabulary)
    texts = items_of(inputs)
    is_plain = len(texts) > 0 and all(map(_is_plain_input, texts))
    tokens = sum(_input_tokens(text, vocabulary) for text in texts)
    return _counted(tokens, Figure.EMBEDDING, family=family, vocabulary=vocabulary, is_plain=is_plain)


def _counted(tokens: int, figure: Figure, *, family: Family, vocabulary: Vocabulary, is_plain: bool) -> Count:
    is_own = family.is_vocabulary_known and vocabulary.name == family.vocabulary
    method = vocabulary.name if is_own or vocabulary.is_guess else f"{vocabulary.name} (nearest)"
    return Count(tokens=tokens, exact=is_own and is_plain and figure in family.exact, method=method)


def _chat_tokens(messages: Sequence[object], rule: ChatRule, vocabulary: Vocabulary) -> int:
    if len(messages) == 0:
        return 0
    return sum(_message_tokens(message, rule, vocabulary) for message in messages) + rule.priming_tokens


def _message_tokens(message: object, rule: ChatRule, vocabulary: Vocabulary) -> int:
    tokens = rule.message_tokens + vocabulary.count(_header(message))
    tokens += sum(map(vocabulary.count, texts_of(_content(message))))
    calls = (*items_of(field(message, "tool_calls")), *items_of(field(message, "function_call")))
    return tokens + sum(_tool_call_tokens(call, vocabulary) for call in calls)


def _header(message: object) -> str:
    # The cookbook's "role, name and one token" is this one string in disguise: the same figures for its example, and
    # right where "user:user" is two tokens (recorded with gpt-4o-2024-08-06).
    role, name = text_of(field(message, "role")), text_of(field(message, "name"))
    return f"{role}:{name}" if name else role


def _content(message: object) -> object:
    return message if isinstance(message, str | bytes | int | float) else field(message, "content")


def _is_plain(message: object) -> bool:
    role = field(message, "role")
    if not isinstance(role, str) or role not in PLAIN_ROLES:
        return False
    if any(is_told(field(message, name)) for name in FIELDS_BEYOND_TEXT):
        return False
    content = field(message, "content")
    # Several text parts may or may not be joined before they are tokenized: the recordings fit both.
    if isinstance(content, list) and len(content) == 1 and is_text_part(content[0]):
        content = field(content[0], "text")
    return isinstance(content, str) and not has_forced_cut(content)


def _output_schemas(response_format: object) -> tuple[object, ...]:
    if response_format is None or field(response_format, "type") == "text":
        return ()
    return (field(response_format, "json_schema"),)


def _tool_call_tokens(call: object, vocabulary: Vocabulary) -> int:
    return sum(map(vocabulary.count, tool_call_texts(call)))


def _input_tokens(value: object, vocabulary: Vocabulary) -> int:
    return sum(1 if isinstance(item, int) else vocabulary.count(part_text(item)) for item in items_of(value))


def _is_plain_input(value: object) -> bool:
    if isinstance(value, str):
        # The API reports one token for the empty text (recorded with text-embedding-ada-002).
        return value != "" and not has_forced_cut(value)
    return value is not None and all(isinstance(item, int) for item in items_of(value))
