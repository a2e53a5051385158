"""A run a request in FastAPI: a stream belongs to the request it was opened in, whoever reads it, and when."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import httpx
import litellm
import pytest
from fastapi import Depends, FastAPI, Request
from fastapi.responses import StreamingResponse
from fastapi_stream import serving
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai import OpenAI

from loopback_server import CountedTokens, LoopbackServer
from tests.conftest import Loopback
from token_callbacks import TokenCounter
from token_callbacks.records import Outcome, Provenance
from token_callbacks.sinks.memory import MemorySink

COUNTED = CountedTokens()
REQUESTS = 20


def as_many_words(body: dict[str, Any]) -> str:
    """Answer with as many tokens as the question says."""
    return " word" * int(body["messages"][-1]["content"])


async def from_litellm(server: LoopbackServer, question: str) -> AsyncIterator[str]:
    """Stream from LiteLLM."""
    chunks: Any = await litellm.acompletion(
        model="openai/gpt-4o-mini",
        api_base=server.base_url,
        api_key="sk-loopback",
        messages=[{"role": "user", "content": question}],
        stream=True,
    )
    async with aclosing(chunks):
        async for chunk in chunks:
            yield chunk.choices[0].delta.content or ""


async def from_llama_index(server: LoopbackServer, question: str) -> AsyncIterator[str]:
    """Stream from LlamaIndex."""
    llm = OpenAI(model="gpt-4o-mini", api_base=server.base_url, api_key="sk-loopback")
    chunks: Any = await llm.astream_chat([ChatMessage(role="user", content=question)])
    async with aclosing(chunks):
        async for chunk in chunks:
            yield chunk.delta or ""


def _response(pieces: AsyncIterator[str]) -> StreamingResponse:
    async def events() -> AsyncIterator[str]:
        async for piece in pieces:
            yield f"data: {json.dumps(piece)}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


Ask = Callable[[str], AsyncIterator[str]]


def in_the_generator(app: FastAPI, counter: TokenCounter, ask: Ask) -> None:
    """Open the run where the answer is made."""

    @app.get("/")
    async def endpoint(question: str) -> StreamingResponse:
        async def pieces() -> AsyncIterator[str]:
            async with counter.run(question):
                async for piece in ask(question):
                    yield piece

        return _response(pieces())


def in_a_dependency(app: FastAPI, counter: TokenCounter, ask: Ask) -> None:
    """Open the run in a dependency, which FastAPI ends after the last byte."""

    async def request_run(question: str) -> AsyncIterator[Any]:
        async with counter.run(question) as run:
            yield run

    @app.get("/", dependencies=[Depends(request_run)])
    async def endpoint(question: str) -> StreamingResponse:
        return _response(ask(question))


def in_an_asgi_middleware(app: FastAPI, counter: TokenCounter, ask: Ask) -> None:
    """Open the run around the whole application."""

    @app.get("/")
    async def endpoint(question: str) -> StreamingResponse:
        return _response(ask(question))

    class Counted:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await self.app(scope, receive, send)
                return
            async with counter.run(Request(scope).query_params["question"]):
                await self.app(scope, receive, send)

    app.add_middleware(Counted)


def in_an_http_middleware(app: FastAPI, counter: TokenCounter, ask: Ask) -> None:
    """Open the run around ``call_next``, which returns before the body is read: the summary follows."""

    @app.get("/")
    async def endpoint(question: str) -> StreamingResponse:
        return _response(ask(question))

    @app.middleware("http")
    async def counted(request: Request, call_next: Callable[[Request], Awaitable[Any]]) -> Any:
        async with counter.run(request.query_params["question"]):
            return await call_next(request)


def in_the_endpoint(app: FastAPI, counter: TokenCounter, ask: Ask) -> None:
    """Open the run in the endpoint, which is left before the first byte: the stream is bound to it."""

    @app.get("/")
    async def endpoint(question: str) -> StreamingResponse:
        async with counter.run(question) as run:
            return _response(run.bind(ask(question)))


def in_a_sync_dependency(app: FastAPI, counter: TokenCounter, ask: Ask) -> None:
    """Open the run in a dependency that FastAPI runs in a thread, whose context is not the endpoint's."""

    def request_run(question: str) -> Any:
        with counter.run(question) as run:
            yield run

    @app.get("/")
    async def endpoint(question: str, run: Any = Depends(request_run)) -> StreamingResponse:  # noqa: B008
        return _response(run.bind(ask(question)))


each_place = pytest.mark.parametrize(
    "place",
    [
        in_the_generator,
        in_a_dependency,
        in_an_asgi_middleware,
        in_an_http_middleware,
        in_the_endpoint,
        in_a_sync_dependency,
    ],
    ids=lambda place: place.__name__,
)
each_framework = pytest.mark.parametrize("framework", [from_litellm, from_llama_index], ids=["LiteLLM", "LlamaIndex"])


def _app(place: Any, counter: TokenCounter, server: LoopbackServer, framework: Any) -> FastAPI:
    app = FastAPI()
    place(app, counter, lambda question: framework(server, question))
    return app


@each_place
@each_framework
def test_each_of_many_requests_at_once_is_its_own_run(
    loopback: Loopback, counter: TokenCounter, memory: MemorySink, place: Any, framework: Any
) -> None:
    """The run named by a question has the tokens of the answer to that question, and no others."""
    server = loopback(tokens=COUNTED, replies=as_many_words)

    async def ask_all() -> None:
        app = _app(place, counter, server, framework)
        async with serving(app) as url, httpx.AsyncClient(timeout=60) as client:
            params = [{"question": str(number)} for number in range(1, REQUESTS + 1)]
            for answer in await asyncio.gather(*(client.get(url, params=each) for each in params)):
                answer.raise_for_status()

    asyncio.run(ask_all())
    counter.close()

    assert [Provenance.REPORTED] * REQUESTS == [record.provenance.weakest for record in memory.records]
    assert {str(number): (1, number) for number in range(1, REQUESTS + 1)} == {
        summary.name: (summary.calls.llm, summary.llm_completion_tokens) for summary in memory.summaries.values()
    }


@each_place
@each_framework
def test_a_browser_that_leaves_ends_its_call(
    loopback: Loopback, counter: TokenCounter, memory: MemorySink, place: Any, framework: Any
) -> None:
    """The call ends then, in the run of its request, as a lower bound of what the provider made."""
    server = loopback(tokens=COUNTED, replies=as_many_words)

    async def leave() -> None:
        app = _app(place, counter, server, framework)
        async with (
            serving(app) as url,
            httpx.AsyncClient(timeout=60) as client,
            client.stream("GET", url, params={"question": "9"}) as answer,
        ):
            await anext(answer.aiter_lines())
            await asyncio.to_thread(hold.reached.wait, 120)

    with server.hold(after_chunks=5) as hold:
        asyncio.run(leave())  # which ends once the server has ended every request

    [record] = memory.records
    assert record.outcome in {Outcome.ABANDONED, Outcome.CANCELLED}
    assert Provenance.PARTIAL is record.provenance.completion
    summary = memory.summaries[record.run_id]
    assert ("9", 1, True) == (summary.name, summary.calls.abandoned, summary.lower_bound)
