"""Chats of the Responses API whose earlier turns stand with the provider."""

import pytest

from token_callbacks.adapters.litellm import LiteLLMEvidence
from token_callbacks.evidence import settle
from token_callbacks.records import Operation, Outcome, Provenance

HELLO = [{"role": "user", "content": "Hello, loopback."}]
ANSWER = {"output": [{"type": "message", "content": [{"type": "output_text", "text": "A short answer."}]}]}


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("previous_response_id", Provenance.PARTIAL),
        ("conversation", Provenance.PARTIAL),
        ("user", Provenance.COUNTED),
    ],
)
def test_a_chat_that_the_provider_continues_is_a_lower_bound(name: str, source: Provenance) -> None:
    """Earlier turns are billed and not seen."""
    evidence = LiteLLMEvidence(Operation.RESPONSES, HELLO, {name: "resp_1"})
    evidence.response = ANSWER

    figures = settle(Operation.RESPONSES, "gpt-4.1", Outcome.COMPLETED, [evidence])

    assert source is figures.sources.prompt
