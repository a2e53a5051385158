"""Every way to call LiteLLM, as a table: a name, and a call that reads its answer to the end."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import litellm
import msgspec

from loopback_server import InventedTokens, LoopbackServer
from token_callbacks.records import Operation

DETAILED = InventedTokens(details=True)
"""Figures with cache and reasoning; one object, so that ``loopback`` finds its server again."""

TEXT = "Name the opening hours of the library."
MESSAGES = [{"role": "user", "content": TEXT}]
CHAT = "openai/gpt-4o-mini"
INSTRUCT = "text-completion-openai/gpt-3.5-turbo-instruct"
VECTORS = "openai/text-embedding-3-small"
CLAUDE = "anthropic/claude-sonnet-4-5"


class Case(msgspec.Struct, frozen=True):
    """One way to call: ``call`` gets the server and the options of the test."""

    name: str
    call: Callable[..., Any]
    operation: Operation
    streamed: bool = False

    def run(self, server: LoopbackServer, **options: Any) -> None:
        """Call once and read the answer to its end."""
        if self.is_async:
            asyncio.run(self.read_async(server, **options))
            return
        answer = self.answer(server, **options)
        for _ in answer if self.streamed else ():
            pass

    async def read_async(self, server: LoopbackServer, **options: Any) -> None:
        """Call once, in the running loop, and read the answer to its end."""
        answer = await self.answer(server, **options)
        if self.streamed:
            async for _ in answer:
                pass

    def answer(self, server: LoopbackServer, **options: Any) -> Any:
        """Call once, and give the answer, or what is to be awaited for it."""
        return self.call(server, **options, **({"stream": True} if self.streamed else {}))

    @property
    def is_async(self) -> bool:
        """Tell whether the answer is to be awaited."""
        return inspect.iscoroutinefunction(self.call)


def openai(server: LoopbackServer) -> dict[str, Any]:
    """Point a call at the server's OpenAI wire."""
    return {"api_base": server.base_url, "api_key": "sk-loopback", "max_retries": 0}


def anthropic(server: LoopbackServer) -> dict[str, Any]:
    """Point a call at the server's Anthropic wire."""
    return {"api_base": server.url, "api_key": "sk-loopback", "max_retries": 0}


def router(server: LoopbackServer, **options: Any) -> litellm.Router:
    """Give a Router with a deployment each for chat, text completion and embedding."""
    # The sync Router.text_completion (1.106.2) sends the group's name as the model, so the two are the same here.
    models = [
        {"model_name": model, "litellm_params": {"model": model, **openai(server)}}
        for model in (CHAT, INSTRUCT, VECTORS)
    ]
    return litellm.Router(model_list=models, **{"num_retries": 0, **options})


def completion(server: LoopbackServer, **options: Any) -> Any:
    """Chat."""
    return litellm.completion(model=CHAT, messages=MESSAGES, **openai(server), **options)


async def acompletion(server: LoopbackServer, **options: Any) -> Any:
    """Chat."""
    return await litellm.acompletion(model=CHAT, messages=MESSAGES, **openai(server), **options)


def text_completion(server: LoopbackServer, **options: Any) -> Any:
    """Complete a text."""
    return litellm.text_completion(model=INSTRUCT, prompt=TEXT, **openai(server), **options)


async def atext_completion(server: LoopbackServer, **options: Any) -> Any:
    """Complete a text."""
    return await litellm.atext_completion(model=INSTRUCT, prompt=TEXT, **openai(server), **options)


def responses(server: LoopbackServer, **options: Any) -> Any:
    """Ask the Responses API."""
    return litellm.responses(model=CHAT, input=TEXT, **openai(server), **options)


async def aresponses(server: LoopbackServer, **options: Any) -> Any:
    """Ask the Responses API."""
    return await litellm.aresponses(model=CHAT, input=TEXT, **openai(server), **options)


def bridged_responses(server: LoopbackServer, **options: Any) -> Any:
    """Ask the Responses API of a provider that has none: LiteLLM turns it into a chat."""
    return litellm.responses(model=CLAUDE, input=TEXT, **anthropic(server), **options)


def claude_completion(server: LoopbackServer, **options: Any) -> Any:
    """Chat over Anthropic's wire."""
    return litellm.completion(model=CLAUDE, messages=MESSAGES, **anthropic(server), **options)


async def claude_acompletion(server: LoopbackServer, **options: Any) -> Any:
    """Chat over Anthropic's wire."""
    return await litellm.acompletion(model=CLAUDE, messages=MESSAGES, **anthropic(server), **options)


async def anthropic_messages(server: LoopbackServer, **options: Any) -> Any:
    """Ask Anthropic in its own words."""
    return await litellm.anthropic_messages(
        model=CLAUDE, messages=MESSAGES, max_tokens=99, api_base=server.url, api_key="sk-loopback", **options
    )


async def bridged_messages(server: LoopbackServer, **options: Any) -> Any:
    """Ask OpenAI in Anthropic's words: LiteLLM turns it into a request of the Responses API."""
    return await litellm.anthropic_messages(
        model=CHAT, messages=MESSAGES, max_tokens=99, api_base=server.base_url, api_key="sk-loopback", **options
    )


def router_completion(server: LoopbackServer, **options: Any) -> Any:
    """Chat through a Router."""
    return router(server).completion(CHAT, MESSAGES, **options)


async def router_acompletion(server: LoopbackServer, **options: Any) -> Any:
    """Chat through a Router."""
    return await router(server).acompletion(CHAT, MESSAGES, **options)


def router_text_completion(server: LoopbackServer, **options: Any) -> Any:
    """Complete a text through a Router."""
    return router(server).text_completion(INSTRUCT, TEXT, **options)


async def router_atext_completion(server: LoopbackServer, **options: Any) -> Any:
    """Complete a text through a Router."""
    return await router(server).atext_completion(INSTRUCT, TEXT, **options)


def router_responses(server: LoopbackServer, **options: Any) -> Any:
    """Ask the Responses API through a Router."""
    return router(server).responses(model=CHAT, input=TEXT, **options)


async def router_aresponses(server: LoopbackServer, **options: Any) -> Any:
    """Ask the Responses API through a Router."""
    return await router(server).aresponses(model=CHAT, input=TEXT, **options)


def _embedding(given: Any) -> Callable[..., Any]:
    def embedding(server: LoopbackServer, **options: Any) -> Any:
        return litellm.embedding(model=VECTORS, input=given, **openai(server), **options)

    return embedding


def _aembedding(given: Any) -> Callable[..., Any]:
    async def aembedding(server: LoopbackServer, **options: Any) -> Any:
        return await litellm.aembedding(model=VECTORS, input=given, **openai(server), **options)

    return aembedding


embedding_of_text = _embedding(TEXT)
aembedding_of_text = _aembedding(TEXT)


def router_embedding(server: LoopbackServer, **options: Any) -> Any:
    """Embed through a Router."""
    return router(server).embedding(VECTORS, [TEXT], **options)


async def router_aembedding(server: LoopbackServer, **options: Any) -> Any:
    """Embed through a Router."""
    return await router(server).aembedding(VECTORS, [TEXT], **options)


_LLM_CALLS: tuple[tuple[Callable[..., Any], Operation], ...] = (
    (completion, Operation.CHAT),
    (acompletion, Operation.CHAT),
    (claude_completion, Operation.CHAT),
    (claude_acompletion, Operation.CHAT),
    (anthropic_messages, Operation.CHAT),
    (bridged_messages, Operation.CHAT),
    (router_completion, Operation.CHAT),
    (router_acompletion, Operation.CHAT),
    (text_completion, Operation.COMPLETION),
    (atext_completion, Operation.COMPLETION),
    (router_text_completion, Operation.COMPLETION),
    (router_atext_completion, Operation.COMPLETION),
    (responses, Operation.RESPONSES),
    (aresponses, Operation.RESPONSES),
    (bridged_responses, Operation.RESPONSES),
    (router_responses, Operation.RESPONSES),
    (router_aresponses, Operation.RESPONSES),
)
_INPUTS = {
    "string": TEXT,
    "batch": [TEXT, "And of the baths?"],
    "tokens": [3, 4, 5],
    "token batch": [[3, 4, 5], [6, 7]],
}

PLAIN = [Case(call.__name__, call, operation) for call, operation in _LLM_CALLS]
EMBEDDINGS = [
    *(Case(f"embedding {name}", _embedding(given), Operation.EMBEDDING) for name, given in _INPUTS.items()),
    *(Case(f"aembedding {name}", _aembedding(given), Operation.EMBEDDING) for name, given in _INPUTS.items()),
    Case("router_embedding", router_embedding, Operation.EMBEDDING),
    Case("router_aembedding", router_aembedding, Operation.EMBEDDING),
]
STREAMS = [Case(f"{call.__name__} streamed", call, operation, streamed=True) for call, operation in _LLM_CALLS]
