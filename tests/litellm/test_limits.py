"""What the counter is told beside texts: an answer came to its limit, or one tool is called at a time."""

from __future__ import annotations

import litellm
import pytest

from token_callbacks.adapters.litellm import LiteLLMEvidence
from token_callbacks.evidence import Completion
from token_callbacks.records import Operation

HELLO = [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize(("reason", "is_at_limit"), [("length", True), ("stop", False)])
def test_finish_reason_of_a_chat(reason: str, is_at_limit: bool) -> None:
    """LiteLLM calls every provider's limit ``length``."""
    choice = litellm.Choices(finish_reason=reason, message=litellm.Message(content="Hi"))

    assert is_at_limit is _at_limit(litellm.ModelResponse(choices=[choice]))


@pytest.mark.parametrize(("reason", "is_at_limit"), [("max_tokens", True), ("end_turn", False)])
def test_stop_reason_of_a_message(reason: str, is_at_limit: bool) -> None:
    """Anthropic's own answers come as they are."""
    assert is_at_limit is _at_limit({"content": [{"type": "text", "text": "Hi"}], "stop_reason": reason})


@pytest.mark.parametrize(
    ("details", "is_at_limit"),
    [({"reason": "max_output_tokens"}, True), ({"reason": "content_filter"}, False), (None, False)],
)
def test_details_of_a_response(details: dict[str, str] | None, is_at_limit: bool) -> None:
    """The Responses API tells why an answer is incomplete."""
    output = [{"type": "message", "content": [{"type": "output_text", "text": "Hi"}]}]

    assert is_at_limit is _at_limit({"output": output, "incomplete_details": details})


def test_choices_have_texts_of_their_own() -> None:
    """Several choices are counted one by one, one choice as it is."""
    choices = [litellm.Choices(index=index, message=litellm.Message(content=text)) for index, text in enumerate("ab")]
    told = [_completion(litellm.ModelResponse(choices=choices[:number])).texts for number in (2, 1)]

    assert [["a", "b"], ()] == told


@pytest.mark.parametrize("told", [False, True, None])
def test_parallel_calls_are_told(told: bool | None) -> None:
    """Whether several tools may be called at once is counted by."""
    options = {} if told is None else {"parallel_tool_calls": told}
    prompt = LiteLLMEvidence(Operation.CHAT, HELLO, options).prompt()

    assert prompt is not None
    assert told is prompt.parallel_tool_calls


def _at_limit(response: object) -> bool:
    return _completion(response).is_at_limit


def _completion(response: object) -> Completion:
    evidence = LiteLLMEvidence(Operation.CHAT, HELLO, {})
    evidence.response = response
    completion = evidence.completion()

    assert completion is not None
    return completion
