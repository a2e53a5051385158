"""A LiteLLM call that is still open in a context does not take in what another framework sends there after it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import litellm
import pytest
from litellm.integrations.custom_logger import CustomLogger
from llama_index.core.llms import ChatMessage, CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.openai import OpenAI

from loopback_server import LoopbackServer
from token_callbacks import TokenCounter
from token_callbacks.sinks.memory import MemorySink

from .calls import CHAT, MESSAGES, VECTORS, openai

pytestmark = pytest.mark.usefixtures("clean_litellm")


class _Slow(CustomLogger):
    """A user's handler that keeps LiteLLM from telling of an end."""

    def __init__(self) -> None:
        super().__init__()
        self.may_go_on = threading.Event()

    def log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self.may_go_on.wait(120)


@pytest.fixture
def slow() -> Iterator[_Slow]:
    """Register the handler before ours."""
    handler = _Slow()
    litellm.callbacks = [handler]
    yield handler
    handler.may_go_on.set()


@pytest.fixture
def server(loopback: Any) -> LoopbackServer:
    """Give a server that tells the usage of a stream when it is asked."""
    found: LoopbackServer = loopback(stream_usage="asked")
    return found


def _embed(server: LoopbackServer) -> None:
    litellm.embedding(model=VECTORS, input=["the library"], **openai(server))


def _chat(server: LoopbackServer) -> None:
    litellm.completion(model=CHAT, messages=MESSAGES, **openai(server))


def _stream(server: LoopbackServer) -> None:
    list(litellm.completion(model=CHAT, messages=MESSAGES, stream=True, **openai(server)))


@pytest.mark.parametrize("before", [_embed, _chat, _stream])
def test_what_llama_index_sends_after_a_call_is_its_own(
    server: LoopbackServer, slow: _Slow, counter: TokenCounter, memory: MemorySink, before: Any
) -> None:
    """Where LiteLLM tells late that a call has ended, what LlamaIndex asks meanwhile is read off the wire."""
    here = {"api_base": server.base_url, "api_key": "sk-loopback", "max_retries": 0}
    with counter.run("neighbours"):
        before(server)
        list(OpenAI(model="gpt-4o-mini", **here).stream_chat([ChatMessage(role="user", content="When?")]))
        OpenAIEmbedding(**here).get_text_embedding("the library")
        slow.may_go_on.set()

    assert _truth(server) == sorted(map(_figures, memory.records))
    assert ["litellm", "llama_index", "llama_index"] == sorted(record.framework for record in memory.records)


def test_a_stream_that_is_read_beside_another_call_takes_nothing_in(
    server: LoopbackServer, counter: TokenCounter, memory: MemorySink
) -> None:
    """While a LiteLLM stream is half read, LlamaIndex's stream is read off the wire as its own."""
    here = {"api_base": server.base_url, "api_key": "sk-loopback", "max_retries": 0}
    with counter.run("neighbours"):
        stream = litellm.completion(model=CHAT, messages=MESSAGES, stream=True, **openai(server))
        next(stream)
        list(OpenAI(model="gpt-4o-mini", **here).stream_chat([ChatMessage(role="user", content="When?")]))
        list(stream)

    assert _truth(server) == sorted(map(_figures, memory.records))


class _Impatient(CustomLLM):
    """Leaves a LiteLLM stream half read, and asks once more with a client of its own."""

    server: Any

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="gpt-4o-mini")

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        stream = litellm.completion(model=CHAT, messages=MESSAGES, stream=True, **openai(self.server))
        next(stream)
        body = {"model": "gpt-4o-mini", "messages": MESSAGES}
        answer = httpx.post(f"{self.server.base_url}/chat/completions", json=body).json()
        list(stream)
        return CompletionResponse(text=answer["choices"][0]["message"]["content"])

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Iterator[CompletionResponse]:
        yield self.complete(prompt)


def test_what_a_class_sends_while_its_litellm_stream_is_half_read_is_its_own(
    server: LoopbackServer, counter: TokenCounter, memory: MemorySink
) -> None:
    """The stream has its request; the next one is of the LlamaIndex call around both."""
    with counter.run("neighbours"):
        _Impatient(server=server).complete("When?")

    assert _truth(server) == sorted(map(_figures, memory.records))
    assert {"litellm", "llama_index"} == {record.framework for record in memory.records}


def test_a_request_of_nobodys_after_a_call_is_not_looked_at(
    server: LoopbackServer, slow: _Slow, counter: TokenCounter, memory: MemorySink
) -> None:
    """A user's own request is none of an embedding's that LiteLLM has not yet told the end of."""
    with counter.run("neighbours"):
        _embed(server)
        body = {"model": "gpt-4o-mini", "messages": MESSAGES}
        httpx.post(f"{server.base_url}/chat/completions", json=body).raise_for_status()
        slow.may_go_on.set()

    assert 1 == len(memory.records)
    assert _truth(server)[:1] == list(map(_figures, memory.records))


def _truth(server: LoopbackServer) -> list[tuple[int, ...]]:
    return sorted(map(_entry_figures, server.ledger))


def _entry_figures(entry: Any) -> tuple[int, ...]:
    return entry.prompt_tokens, entry.completion_tokens, entry.embedding_tokens


def _figures(record: Any) -> tuple[int, ...]:
    usage = record.usage
    return usage.prompt_tokens or 0, usage.completion_tokens or 0, usage.embedding_tokens or 0
