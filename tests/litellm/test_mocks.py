"""What LiteLLM answers by itself, for tests of a program: nobody was asked, and nobody's word is taken for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import litellm
import pytest

from token_callbacks import TokenCounter
from token_callbacks.records import Provenance
from token_callbacks.sinks.memory import MemorySink

MESSAGES = [{"role": "user", "content": "When does it open?"}]
ANSWER = "At nine."
TOOL_CALL = {"id": "a", "type": "function", "function": {"name": "hours", "arguments": "{}"}}
MOCKED: dict[str, Callable[[], Any]] = {
    "completion": lambda: litellm.completion(model="gpt-4o-mini", messages=MESSAGES, mock_response=ANSWER),
    "acompletion": lambda: asyncio.run(
        litellm.acompletion(model="gpt-4o-mini", messages=MESSAGES, mock_response=ANSWER)
    ),
    "streamed": lambda: list(
        litellm.completion(model="gpt-4o-mini", messages=MESSAGES, mock_response=ANSWER, stream=True)
    ),
    "tool call": lambda: litellm.completion(model="gpt-4o-mini", messages=MESSAGES, mock_tool_calls=[TOOL_CALL]),
    "text_completion": lambda: litellm.text_completion(model="gpt-4o-mini", prompt="When?", mock_response=ANSWER),
    "responses": lambda: litellm.responses(model="gpt-4o-mini", input="When?", mock_response=ANSWER),
    "aresponses": lambda: asyncio.run(litellm.aresponses(model="gpt-4o-mini", input="When?", mock_response=ANSWER)),
    "embedding": lambda: litellm.embedding(model="text-embedding-3-small", input=["When?"], mock_response=[0.5]),
    "aembedding": lambda: asyncio.run(
        litellm.aembedding(model="text-embedding-3-small", input=["When?"], mock_response=[0.5])
    ),
    "router": lambda: litellm.Router(
        [{"model_name": "any", "litellm_params": {"model": "gpt-4o-mini", "mock_response": ANSWER}}]
    ).completion(model="any", messages=MESSAGES),
}


@pytest.mark.usefixtures("clean_litellm")
@pytest.mark.parametrize("name", MOCKED)
def test_the_usage_that_litellm_makes_up_for_a_mock_is_nobodys_word(
    counter: TokenCounter, memory: MemorySink, name: str
) -> None:
    """Nothing was sent, and LiteLLM says 10/20, or 36/87: what is recorded was counted, and is in its run's summary."""
    with counter.run("mocked") as run:
        MOCKED[name]()
    calls = run.summary.calls

    [record] = memory.records
    assert 1 == calls.llm + calls.embedding
    told = {record.provenance.prompt, record.provenance.completion, record.provenance.embedding} - {None}
    assert told <= {Provenance.COUNTED, Provenance.ESTIMATED}
    assert record.provider_usage is None
    assert (record.usage.total_llm_tokens, record.usage.embedding_tokens or 0) == (
        run.summary.total_llm_tokens,
        run.summary.embedding_tokens,
    )


@pytest.mark.usefixtures("clean_litellm")
@pytest.mark.parametrize("is_object", [True, False], ids=["object", "dict"])
def test_the_usage_of_a_whole_answer_of_the_callers_own_is_kept(
    counter: TokenCounter, memory: MemorySink, is_object: bool
) -> None:
    """Who mocks with an answer that has a usage means it; it is in the summary of a run that ends at once."""
    usage = litellm.Usage(prompt_tokens=3, completion_tokens=4, total_tokens=7)
    answer = litellm.ModelResponse(choices=[{"message": {"content": ANSWER}}], usage=usage)
    with counter.run("mocked") as run:
        litellm.completion(
            model="gpt-4o-mini", messages=MESSAGES, mock_response=answer if is_object else answer.model_dump()
        )
    total = run.summary.total_llm_tokens

    [record] = memory.records
    assert (3, 4) == (record.usage.prompt_tokens, record.usage.completion_tokens)
    assert 7 == total


PROMPTED: dict[str, Callable[[Any], Any]] = {
    "sync": lambda prompt: litellm.text_completion(model="gpt-4", prompt=prompt, mock_response=ANSWER),
    "async": lambda prompt: asyncio.run(litellm.atext_completion(model="gpt-4", prompt=prompt, mock_response=ANSWER)),
    "streamed": lambda prompt: list(
        litellm.text_completion(model="gpt-4", prompt=prompt, mock_response=ANSWER, stream=True)
    ),
}


@pytest.mark.usefixtures("clean_litellm")
@pytest.mark.parametrize(("prompt", "tokens"), [("When?", 2), (["When?", "Where?"], 4), ([3, 4, 5], None)])
@pytest.mark.parametrize("name", PROMPTED)
def test_the_prompt_of_a_mocked_text_completion_is_no_chat(
    counter: TokenCounter, memory: MemorySink, name: str, prompt: Any, tokens: int | None
) -> None:
    """LiteLLM tells it as messages; what those would cost more was not asked for. Of ids there is nothing to count."""
    with counter.run("mocked"):
        PROMPTED[name](prompt)

    [record] = memory.records
    assert (tokens, 3) == (record.usage.prompt_tokens, record.usage.completion_tokens)
