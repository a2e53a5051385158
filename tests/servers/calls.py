"""One question asked in four ways, of any of the servers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import litellm
import pytest
from llama_index.core.llms import ChatMessage
from llama_index.llms.litellm import LiteLLM
from llama_index.llms.openai_like import OpenAILike

from .conftest import Served

TEXT = "Hello world"
MESSAGES = [{"role": "user", "content": TEXT}]
TOKENS = 6
"""That are asked for."""

Ask = Callable[[Served], Any]


def _openai_like(server: Served) -> OpenAILike:
    options = {"api_base": f"{server.url}/v1", "api_key": "sk-loopback"}
    return OpenAILike(model=server.model, is_chat_model=True, max_tokens=TOKENS, temperature=0.0, **options)


def _llama_litellm(server: Served) -> LiteLLM:
    return LiteLLM(max_tokens=TOKENS, temperature=0.0, **server.options)


def _litellm(server: Served, **options: Any) -> Any:
    return litellm.completion(messages=MESSAGES, max_tokens=TOKENS, temperature=0.0, **server.options, **options)


PLAIN: dict[str, Ask] = {
    "litellm": _litellm,
    "OpenAILike": lambda server: _openai_like(server).chat([ChatMessage(content=TEXT)]),
    "LiteLLM": lambda server: _llama_litellm(server).chat([ChatMessage(content=TEXT)]),
}
STREAMED: dict[str, Ask] = {
    "litellm": lambda server: list(_litellm(server, stream=True)),
    "OpenAILike": lambda server: list(_openai_like(server).stream_chat([ChatMessage(content=TEXT)])),
    "LiteLLM": lambda server: list(_llama_litellm(server).stream_chat([ChatMessage(content=TEXT)])),
}

each_plain = pytest.mark.parametrize("ask", PLAIN.values(), ids=PLAIN)
each_streamed = pytest.mark.parametrize("ask", STREAMED.values(), ids=STREAMED)


def truth_of(server: Served) -> tuple[int, int]:
    """Ask without us and without a framework: what the server says that the question costs."""
    body = {"model": server.model, "messages": MESSAGES, "max_tokens": TOKENS, "temperature": 0.0}
    usage = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).raise_for_status().json()["usage"]
    return usage["prompt_tokens"], usage["completion_tokens"]
