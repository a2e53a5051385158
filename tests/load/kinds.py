"""Every kind of call that a loaded run mixes: what it is, and how many records of which outcome it leaves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import httpx
import litellm
import msgspec
import openai
import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.litellm import LiteLLM
from llama_index.llms.openai import OpenAI

from loopback_server import LoopbackServer
from token_callbacks.records import Outcome

MESSAGES = [ChatMessage(role="user", content="When does the library open?")]
SHAPED = [{"role": "user", "content": "When does the library open?"}]


def look_up(place: str) -> str:
    """Look up the opening hours of a place."""
    return f"{place}: nine to five"


TOOL = FunctionTool.from_defaults(look_up)
FAULT = {"x-loopback-fault": "status=400"}


class Clients:
    """The HTTP clients that all runs of a server share.

    They keep every connection that they open, for good. Of those that are too many to be kept, or were idle too long,
    httpcore 1.0.9 may close one that a request was just given (https://github.com/encode/httpcore/issues/1110), which
    then waits until its time is over: LiteLLM's own client opens 100, keeps 20 for 5 s, and waits 6,000 s.
    """

    def __init__(self, server: LoopbackServer) -> None:
        self.server = server
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=64, keepalive_expiry=None)
        self.turns = asyncio.Semaphore(256)
        """The gathered calls that are sent at once: of more, the system resets connections."""
        self.shared = {
            "http_client": httpx.Client(limits=limits, timeout=120),
            "async_http_client": httpx.AsyncClient(limits=limits, timeout=120),
        }

    def lend(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have LiteLLM, too, send by the client that is shared; asynchronously it sends by aiohttp."""
        monkeypatch.setattr(litellm, "client_session", self.shared["http_client"])


def _own_clients() -> dict[str, Any]:
    """Give a stream that will be left clients of its own.

    Neither framework closes the answer of a stream that is left: the garbage collector does, with us or without, and
    where it comes while the same thread holds the lock of the same pool of httpcore's, that thread waits for itself.
    """
    return {"http_client": httpx.Client(verify=False), "async_http_client": httpx.AsyncClient(verify=False)}


class Caller:
    """One run's objects; the name of its model tells the server's ledger whose call it is, and what becomes of it."""

    def __init__(self, clients: Clients, name: str) -> None:
        self.name = name
        self._clients = clients
        self._here = {"api_base": clients.server.base_url, "api_key": "sk-loopback", "max_retries": 0, "timeout": 120}

    def model(self, fate: str = "well") -> str:
        """Name a model that LlamaIndex takes for one of OpenAI's."""
        return f"ft:gpt-4o-mini:load:{self.name}:{fate}"

    def chat(self, fate: str = "well", *, is_async: bool = False) -> dict[str, Any]:
        """Give the arguments of a chat through LiteLLM."""
        options: dict[str, Any] = {"extra_headers": FAULT} if fate == "fails" else {}
        if fate == "left":
            kind = openai.AsyncOpenAI if is_async else openai.OpenAI
            clients = _own_clients()
            own = clients["async_http_client" if is_async else "http_client"]
            options["client"] = kind(
                base_url=self._clients.server.base_url, api_key="sk-loopback", max_retries=0, http_client=own
            )
        return {"model": f"openai/{self.model(fate)}", "messages": SHAPED, **self._here, **options}

    def vectors(self) -> dict[str, Any]:
        """Give the arguments of an embedding through LiteLLM."""
        return {"model": f"openai/{self.model()}", "input": ["the library"], **self._here}

    def llm(self, fate: str = "well") -> Any:
        """Give LlamaIndex's class for OpenAI."""
        clients = _own_clients() if fate == "left" else self._clients.shared
        headers = {"default_headers": FAULT} if fate == "fails" else {}
        return OpenAI(model=self.model(fate), **self._here, **clients, **headers)

    def over(self) -> Any:
        """Give LlamaIndex's class over LiteLLM."""
        return LiteLLM(model=f"openai/{self.model()}", **self._here)

    def embedder(self) -> Any:
        """Give LlamaIndex's class for OpenAI's embeddings."""
        clients = self._clients.shared
        return OpenAIEmbedding(model_name=self.model(), **self._here, **clients)


class Kind(msgspec.Struct, frozen=True):
    """A kind of call: its sync or async function, and what it leaves."""

    call: Callable[[Caller], Any]
    outcome: Outcome = Outcome.COMPLETED
    records: int = 1


def _read(stream: Any) -> None:
    for _ in stream:
        pass


def _leave(stream: Any) -> None:
    next(iter(stream))
    close = getattr(stream, "close", None)
    if close is not None:
        close()


def _failing(call: Callable[[], Any]) -> None:
    with contextlib.suppress(Exception):  # the framework's own, each its kind
        call()
        raise SystemExit("the server did not refuse")


SYNC = (
    Kind(lambda it: litellm.completion(**it.chat())),
    Kind(lambda it: it.llm().chat(MESSAGES)),
    Kind(lambda it: _read(litellm.completion(**it.chat(), stream=True))),
    Kind(lambda it: _read(it.llm().stream_chat(MESSAGES))),
    Kind(lambda it: litellm.embedding(**it.vectors())),
    Kind(lambda it: it.embedder().get_text_embedding("the library")),
    Kind(lambda it: _failing(lambda: litellm.completion(**it.chat("fails"))), Outcome.FAILED),
    Kind(lambda it: _failing(lambda: it.llm("fails").chat(MESSAGES)), Outcome.FAILED),
    Kind(lambda it: _leave(litellm.completion(**it.chat("left"), stream=True)), Outcome.ABANDONED),
    Kind(lambda it: _leave(it.llm("left").stream_chat(MESSAGES)), Outcome.ABANDONED),
    Kind(lambda it: it.over().complete("When?")),
    Kind(lambda it: _read(it.over().stream_chat(MESSAGES))),
)


async def _aread(coming: Any) -> None:
    async for _ in await coming:
        pass


async def _aleave(coming: Any) -> None:
    stream = await coming
    await anext(aiter(stream))
    close = getattr(stream, "aclose", None)
    if close is not None:
        await close()


async def _afailing(coming: Any) -> None:
    with contextlib.suppress(Exception):  # the framework's own, each its kind
        await coming
        raise SystemExit("the server did not refuse")


async def _agent(it: Caller) -> None:
    await FunctionAgent(tools=[TOOL], llm=it.llm()).run("When does the library open?")


ASYNC = (
    Kind(lambda it: litellm.acompletion(**it.chat())),
    Kind(lambda it: it.llm().achat(MESSAGES)),
    Kind(lambda it: _aread(litellm.acompletion(**it.chat(), stream=True))),
    Kind(lambda it: _aread(it.llm().astream_chat(MESSAGES))),
    Kind(_agent, records=2),
    Kind(lambda it: litellm.aembedding(**it.vectors())),
    Kind(lambda it: it.embedder().aget_text_embedding("the library")),
    Kind(lambda it: _afailing(litellm.acompletion(**it.chat("fails"))), Outcome.FAILED),
    Kind(lambda it: _afailing(it.llm("fails").achat(MESSAGES)), Outcome.FAILED),
    Kind(lambda it: _aleave(litellm.acompletion(**it.chat("left", is_async=True), stream=True)), Outcome.ABANDONED),
    Kind(lambda it: _aleave(it.llm("left").astream_chat(MESSAGES)), Outcome.ABANDONED),
    Kind(lambda it: it.over().acomplete("When?")),
    Kind(lambda it: _aread(it.over().astream_chat(MESSAGES))),
)
