"""Calls made straight on the ledger, for tests of the rooms behind it."""

from __future__ import annotations

from typing import Any

from token_callbacks.evidence import Completion, Prompt
from token_callbacks.ledger import OpenCall, process_ledger
from token_callbacks.records import Operation, Outcome
from token_callbacks.usage import Misfits, Reading, misfits_in_first, read_usage


class OwnString(str):
    """A string of a class of its own, as numpy and readers of TOML hand out."""

    __slots__ = ()


class Told:
    """Evidence that holds a provider's usage payload, or none."""

    def __init__(self, payload: Any, *, text: str | None = None, messages: Any = None) -> None:
        self._payload = payload
        self._text = text
        self._messages = messages

    def reading(self, operation: Operation) -> Reading | None:
        return read_usage(self._payload, operation)

    def misfits(self, operation: Operation) -> Misfits:
        return misfits_in_first((self._payload,), operation)

    def rules_out_usage(self) -> bool:
        return False

    def has_last_word(self) -> bool:
        return False

    def prompt(self) -> Prompt | None:
        return None if self._messages is None else Prompt(messages=self._messages)

    def completion(self) -> Completion | None:
        return None if self._text is None else Completion(text=self._text)

    def inputs(self) -> None:
        return None

    def names(self) -> tuple[str, str]:
        return "response-3", "gpt-4o-2024-08-06"


def open_call(operation: Operation = Operation.CHAT) -> OpenCall:
    """Open a call of LiteLLM's, as it were."""
    ledger = process_ledger()
    origin = ledger.origin("litellm")
    return ledger.open_call(origin, framework="litellm", operation=operation, provider="openai", model="gpt-4o")


def make_call(
    *,
    prompt: int | None = None,
    completion: int | None = None,
    embedding: int | None = None,
    call: OpenCall | None = None,
    outcome: Outcome = Outcome.COMPLETED,
) -> None:
    """Open a call, unless one is given, and close it with reported figures."""
    if embedding is not None:
        call, payload = open_call(Operation.EMBEDDING), {"prompt_tokens": embedding, "total_tokens": embedding}
    else:
        payload = {"prompt_tokens": prompt, "completion_tokens": completion}
    process_ledger().close_call(call or open_call(), outcome=outcome, evidence=[Told(payload)])
