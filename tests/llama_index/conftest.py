"""The integrations under test, each against a loopback server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import pytest
from llama_index.core import Settings

from loopback_server import CountedTokens, LoopbackServer
from token_callbacks import TokenCounter

from .figures import calls_of_others, what_is_left

__all__ = ["calls_of_others"]

Loopback = Callable[..., LoopbackServer]
BUILDERS: dict[str, Callable[[LoopbackServer], Any]] = {}


def _builds(name: str) -> Callable[[Callable[[LoopbackServer], Any]], Callable[[LoopbackServer], Any]]:
    def register(builder: Callable[[LoopbackServer], Any]) -> Callable[[LoopbackServer], Any]:
        BUILDERS[name] = builder
        return builder

    return register


@_builds("OpenAI")
def _openai(server: LoopbackServer) -> Any:
    from llama_index.llms.openai import OpenAI

    return OpenAI(model="gpt-4o-mini", api_base=server.base_url, api_key="sk-loopback", max_retries=0)


@_builds("OpenAI-instruct")
def _openai_instruct(server: LoopbackServer) -> Any:
    from llama_index.llms.openai import OpenAI

    return OpenAI(model="gpt-3.5-turbo-instruct", api_base=server.base_url, api_key="sk-loopback", max_retries=0)


@_builds("OpenAIResponses")
def _openai_responses(server: LoopbackServer) -> Any:
    from llama_index.llms.openai import OpenAIResponses

    return OpenAIResponses(model="gpt-4o-mini", api_base=server.base_url, api_key="sk-loopback", max_retries=0)


@_builds("OpenAILike(chat)")
def _openai_like_chat(server: LoopbackServer) -> Any:
    from llama_index.llms.openai_like import OpenAILike

    return OpenAILike(
        model="local-model",
        api_base=server.base_url,
        api_key="sk-loopback",
        max_retries=0,
        is_chat_model=True,
        is_function_calling_model=True,
    )


@_builds("OpenAILike(compl)")
def _openai_like_completion(server: LoopbackServer) -> Any:
    from llama_index.llms.openai_like import OpenAILike

    return OpenAILike(
        model="local-model", api_base=server.base_url, api_key="sk-loopback", max_retries=0, is_chat_model=False
    )


@_builds("LiteLLM")
def _litellm(server: LoopbackServer) -> Any:
    from llama_index.llms.litellm import LiteLLM

    return LiteLLM(model="openai/gpt-4o-mini", api_base=server.base_url, api_key="sk-loopback", max_retries=0)


@_builds("Anthropic")
def _anthropic(server: LoopbackServer) -> Any:
    from llama_index.llms.anthropic import Anthropic

    return Anthropic(model="claude-sonnet-4-5", base_url=server.url, api_key="sk-loopback", max_retries=0)


@_builds("MockLLM")
def _mock(server: LoopbackServer) -> Any:
    from llama_index.core.llms import MockLLM

    return MockLLM()


EMBEDDERS: dict[str, Callable[..., Any]] = {}


def _embeds(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(builder: Callable[..., Any]) -> Callable[..., Any]:
        EMBEDDERS[name] = builder
        return builder

    return register


@_embeds("OpenAIEmbedding")
def _openai_embedding(server: LoopbackServer, **options: Any) -> Any:
    from llama_index.embeddings.openai import OpenAIEmbedding

    return OpenAIEmbedding(api_base=server.base_url, api_key="sk-loopback", max_retries=0, **options)


@_embeds("LiteLLMEmbedding")
def _litellm_embedding(server: LoopbackServer, **options: Any) -> Any:
    from llama_index.embeddings.litellm import LiteLLMEmbedding

    name = "openai/text-embedding-3-small"
    return LiteLLMEmbedding(model_name=name, api_base=server.base_url, api_key="sk-loopback", **options)


@pytest.fixture(autouse=True)
def fresh_settings() -> Iterator[None]:
    """Put LlamaIndex's global settings back as a fresh import leaves them."""
    yield
    for field in fields(Settings):
        setattr(Settings, field.name, field.default)


@pytest.fixture(scope="session")
def counted_tokens() -> CountedTokens:
    """Give the figures that a provider reports who counts as OpenAI does."""
    return CountedTokens()


@pytest.fixture
def counting(loopback: Loopback, counted_tokens: CountedTokens) -> LoopbackServer:
    """Give a server whose figures a correct local count equals."""
    return loopback(tokens=counted_tokens)


@pytest.fixture
def nothing_left(counter: TokenCounter) -> Iterator[None]:
    """Check, before the counter is closed, that a test left no call behind in the ledger or the tracker."""
    yield
    assert [] == what_is_left()
