"""What an LLM or embedding class does inside its call, beside its own request or in vain: every answer counts once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import httpx
import litellm
import pytest
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.embeddings.openai import OpenAIEmbedding

from tests.test_taps import BODY, MESSAGES, SendingLLM
from token_callbacks import TokenCounter
from token_callbacks.records import Operation, Outcome
from token_callbacks.sinks.memory import MemorySink

from .figures import embedding_truth


def _ask(counter: TokenCounter, send: Callable[[], Any]) -> None:
    with counter.run("inside") as run:
        SendingLLM(send=send).chat(MESSAGES)
    assert 0 == run.summary.internal_errors


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_an_answer_from_elsewhere_counts_where_litellm_failed_too(
    loopback: Any, counter: TokenCounter, memory: MemorySink, stream: bool
) -> None:
    """However the class had tried to get an answer, what it answers with is counted, once."""
    server = loopback()

    def send() -> str:
        server.fail_next(status=503)
        with pytest.raises(litellm.ServiceUnavailableError):
            deque(_with_litellm(server.base_url, stream=stream), maxlen=0)
        return "It opens at nine."

    _ask(counter, send)

    told = [(record.framework, record.outcome, record.usage.completion_tokens) for record in memory.records]
    assert [("litellm", Outcome.FAILED, None), ("llama_index", Outcome.COMPLETED, 5)] == told


def _post(url: str) -> bytes:
    return httpx.post(url, json=BODY).content


def _with_litellm(base_url: str, **options: Any) -> Any:
    return litellm.completion(
        model="openai/gpt-4o-mini",
        messages=BODY["messages"],
        api_base=base_url,
        api_key="none",
        max_retries=0,
        num_retries=0,
        **options,
    )


EMBEDDING_BODY = {"model": "text-embedding-3-small", "input": "When does the library open?"}
EMBEDDERS: dict[str, Callable[[str], Any]] = {
    "httpx": lambda base_url: httpx.post(f"{base_url}/embeddings", json=EMBEDDING_BODY),
    "LiteLLM": lambda base_url: litellm.embedding(
        model="openai/text-embedding-3-small", input=EMBEDDING_BODY["input"], api_base=base_url, api_key="none"
    ),
    "LlamaIndex": lambda base_url: OpenAIEmbedding(api_base=base_url, api_key="none").get_text_embedding("When?"),
}


@pytest.mark.parametrize("is_asked", [False, True], ids=["answers itself", "asks a server"])
@pytest.mark.parametrize("embed", EMBEDDERS.values(), ids=EMBEDDERS)
def test_what_is_embedded_inside_an_llm_call_is_beside_it(
    loopback: Any, counter: TokenCounter, memory: MemorySink, embed: Callable[[str], Any], is_asked: bool
) -> None:
    """An LLM class that looks something up first: the embedding is no request for its answer, which counts too."""
    server = loopback()

    def send() -> object:
        embed(server.base_url)
        return _post(f"{server.base_url}/chat/completions") if is_asked else "It opens at nine."

    _ask(counter, send)

    embedded, answered = memory.records
    assert embedding_truth(server) == [embedded.usage.embedding_tokens]
    assert (Operation.EMBEDDING, None) == (embedded.operation, embedded.usage.completion_tokens)
    assert (Operation.CHAT, Outcome.COMPLETED) == (answered.operation, answered.outcome)
    expected = server.ledger[-1].completion_tokens if is_asked else 5
    assert expected == answered.usage.completion_tokens


class SummarisingEmbedding(BaseEmbedding):
    """An embedding class of somebody's own, which has a text summed up by an LLM, and embeds with code of its own."""

    send: Callable[[], Any]

    def _get_text_embedding(self, text: str) -> list[float]:
        self.send()
        return [0.0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return [0.0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return [0.0]


def test_a_chat_inside_an_embedding_is_beside_it(loopback: Any, counter: TokenCounter, memory: MemorySink) -> None:
    """The chat is a chat, and the embedding is counted by its text."""
    server = loopback()
    url = f"{server.base_url}/chat/completions"
    with counter.run("summed up"):
        SummarisingEmbedding(send=lambda: _post(url), model_name="text-embedding-3-small").get_text_embedding(
            "When does the library open?"
        )

    told = {record.operation: record.usage for record in memory.records}
    [entry] = server.ledger
    assert {Operation.CHAT, Operation.EMBEDDING} == set(told)
    assert entry.prompt_tokens == told[Operation.CHAT].prompt_tokens
    assert 6 == told[Operation.EMBEDDING].embedding_tokens


@pytest.mark.parametrize("failing", ["one", "two", "three"])
def test_requests_of_a_batch_that_are_tried_again_are_recorded_once(
    loopback: Any, counter: TokenCounter, memory: MemorySink, failing: str
) -> None:
    """Whichever text's request failed, its next try is no other text's, and no text counts beside its requests."""
    server, failed = loopback(), []

    async def fail_once(request: httpx.Request) -> None:
        if failing in request.content.decode() and not failed:
            request.headers["x-loopback-fault"] = "status=503"
            failed.append(request)

    client = httpx.AsyncClient(event_hooks={"request": [fail_once]})
    embedder = OpenAIEmbedding(api_base=server.base_url, api_key="none", embed_batch_size=1, async_http_client=client)
    with counter.run("a batch"):
        asyncio.run(embedder.aget_text_embedding_batch(["one", "two", "three"]))

    told = sorted(record.usage.embedding_tokens for record in memory.records if record.usage.embedding_tokens)
    assert [tokens for tokens in embedding_truth(server) if tokens] == told
    assert 1 == len(failed) == sum(record.outcome is Outcome.FAILED for record in memory.records)
