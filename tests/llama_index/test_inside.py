"""What an LLM or embedding class does inside its call, beside its own request or in vain: every answer counts once."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import anthropic
import httpx
import litellm
import openai
import pytest
from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, ChatResponseAsyncGen, ChatResponseGen
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.llms import LLM
from llama_index.core.llms.callbacks import llm_chat_callback
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.anthropic import Anthropic
from llama_index.llms.litellm import LiteLLM
from llama_index.llms.openai import OpenAI, OpenAIResponses

from tests.test_taps import BODY, MESSAGES, EagerLLM, SendingLLM
from token_callbacks import TokenCounter
from token_callbacks.errors import BudgetExceeded
from token_callbacks.records import Operation, Outcome
from token_callbacks.sinks.memory import MemorySink

from .figures import embedding_truth
from .methods import STRUCTURED


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


def test_an_answer_from_elsewhere_counts_beside_a_request_that_goes_on(
    loopback: Any, counter: TokenCounter, memory: MemorySink
) -> None:
    """A class that does not wait any longer for its provider: two answers, two records."""
    server = loopback()
    under_way: list[asyncio.Task[bytes]] = []

    async def ask() -> None:
        with server.hold() as hold:

            async def send() -> str:
                under_way.append(asyncio.create_task(_apost(f"{server.base_url}/chat/completions")))
                await asyncio.to_thread(hold.reached.wait)
                return "It opens at nine."

            await SendingLLM(send=send).achat(MESSAGES)
        await asyncio.gather(*under_way)

    asyncio.run(ask())
    counter.close()
    (entry,) = server.ledger

    assert [5, entry.completion_tokens] == [record.usage.completion_tokens for record in memory.records]
    assert [Outcome.COMPLETED] * 2 == [record.outcome for record in memory.records]


async def _apost(url: str) -> bytes:
    async with httpx.AsyncClient() as client:
        return (await client.post(url, json=BODY)).content


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


def _is_refused_by_a_budget(send: Callable[[], Any]) -> None:
    def refuse() -> None:
        send()
        raise BudgetExceeded("used up")

    with pytest.raises(BudgetExceeded):
        SendingLLM(send=refuse).chat(MESSAGES)


def _is_never_read(send: Callable[[], Any]) -> None:
    EagerLLM(send=send).stream_complete("When does the library open?")


@pytest.mark.parametrize("is_refused", [False, True], ids=["answered", "refused"])
@pytest.mark.parametrize("ask", [_is_refused_by_a_budget, _is_never_read])
def test_what_is_embedded_inside_an_llm_call_that_asks_nothing_has_started(
    loopback: Any, counter: TokenCounter, memory: MemorySink, ask: Callable[..., None], is_refused: bool
) -> None:
    """It ends as its own request does."""
    server = loopback()
    request = _request_for("When does the library open?", is_refused=is_refused)
    with counter.run("looked up"):
        ask(lambda: httpx.post(f"{server.base_url}/embeddings", **request))

    told = {record.operation is Operation.EMBEDDING: (record.outcome, record.error) for record in memory.records}
    assert ((Outcome.FAILED, "HTTP 400") if is_refused else (Outcome.COMPLETED, None)) == told[True]
    assert Outcome.NOT_STARTED is told[False][0]


def test_the_model_of_what_is_embedded_inside_an_llm_call_is_that_of_the_answer(
    loopback: Any, counter: TokenCounter, memory: MemorySink
) -> None:
    """The call around it asked another one, or none; and it has its price."""
    server = loopback()
    _ask(counter, lambda: EMBEDDERS["httpx"](server.base_url))

    told = {record.operation: record.model for record in memory.records}
    assert {Operation.EMBEDDING: "text-embedding-3-small", Operation.CHAT: "gpt-4o-mini"} == told


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


def _structured(name: str, server: Any) -> Any:
    if name == "Anthropic":
        return Anthropic(model="claude-sonnet-4-5", base_url=server.url, api_key="none", max_retries=0)
    classes = {"OpenAI": OpenAI, "OpenAIResponses": OpenAIResponses}
    return classes[name](model="gpt-4o-mini", api_base=server.base_url, api_key="none", max_retries=0)


@pytest.mark.parametrize("method", [name for name in STRUCTURED if name.endswith("structured_predict")])
@pytest.mark.parametrize("name", ["Anthropic", "OpenAI", "OpenAIResponses"])
def test_a_structured_prediction_is_one_record(
    loopback: Any, counter: TokenCounter, memory: MemorySink, name: str, method: str
) -> None:
    """Also where the class sends it by itself and LlamaIndex has no event of it."""
    hours = '{"opens": "nine", "closes": "five"}'
    server = loopback(replies=lambda body: None if body.get("tools") else hours, stream_usage="always_last")
    asyncio.run(STRUCTURED[method](_structured(name, server)))
    (entry,), (record,) = server.ledger, memory.records

    assert (entry.prompt_tokens, entry.completion_tokens) == (
        record.usage.prompt_tokens,
        record.usage.completion_tokens,
    )
    assert ("reported", Outcome.COMPLETED, entry.model) == (record.provenance.weakest, record.outcome, record.model)


def test_a_structured_prediction_that_is_refused_is_one_failed_record(
    loopback: Any, counter: TokenCounter, memory: MemorySink
) -> None:
    """The call around the request has no record beside it."""
    server = loopback()
    server.fail_next(status=400)
    with pytest.raises(anthropic.BadRequestError):
        asyncio.run(STRUCTURED["structured_predict"](_structured("Anthropic", server)))

    assert [Outcome.FAILED] == [record.outcome for record in memory.records]


def test_a_prediction_answered_from_elsewhere_shows_nothing_to_count(
    loopback: Any, counter: TokenCounter, memory: MemorySink
) -> None:
    """An LLM class that falls back on a default when its request fails is one failed record."""

    class Falling(OpenAI):
        @get_dispatcher().span
        def structured_predict(self, output_cls: Any, *args: Any, **kwargs: Any) -> Any:
            with contextlib.suppress(openai.APIError):
                return super().structured_predict(output_cls, *args, **kwargs)
            return output_cls(opens="nine", closes="five")

    server = loopback()
    server.fail_next(status=400)
    llm = Falling(model="gpt-4o-mini", api_base=server.base_url, api_key="none", max_retries=0)
    asyncio.run(STRUCTURED["structured_predict"](llm))

    assert [Outcome.FAILED] == [record.outcome for record in memory.records]


@pytest.mark.parametrize(("kind", "model"), [(OpenAI, "gpt-4o-mini"), (LiteLLM, "openai/gpt-4o-mini")])
def test_a_stream_that_is_read_inside_another_call_counts_once(
    loopback: Any, counter: TokenCounter, memory: MemorySink, kind: Any, model: str
) -> None:
    """Its request is its own, and not that of the call whose code reads it."""
    server = loopback(stream_usage="always_last")
    inner = kind(model=model, api_base=server.base_url, api_key="none", max_retries=0)
    _ask(counter, lambda: [piece.delta for piece in inner.stream_chat(MESSAGES)])
    (entry,), (record,) = server.ledger, memory.records

    assert (entry.prompt_tokens, entry.completion_tokens) == (
        record.usage.prompt_tokens,
        record.usage.completion_tokens,
    )
    assert ("reported", True) == (record.provenance.weakest, record.streamed)


class SendingEmbedding(BaseEmbedding):
    """An embedding class of somebody's own that sends a request for each text."""

    send: Callable[[str], Any]

    def _get_text_embedding(self, text: str) -> list[float]:
        self.send(text)
        return [0.0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        await self.send(text)
        return [0.0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return [0.0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return [0.0]


def _request_for(text: str, *, is_refused: bool = False) -> dict[str, Any]:
    headers = {"x-loopback-fault": "status=400"} if is_refused else {}
    return {"json": {"model": "text-embedding-3-small", "input": text}, "headers": headers}


def _embedded(memory: MemorySink) -> list[tuple[Outcome, int]]:
    return sorted((record.outcome, record.usage.embedding_tokens or 0) for record in memory.records)


def _answers(server: Any) -> list[tuple[Outcome, int]]:
    outcomes = {200: Outcome.COMPLETED, 400: Outcome.FAILED}
    return sorted((outcomes[entry.status], entry.embedding_tokens) for entry in server.ledger)


def test_what_was_answered_before_a_batch_failed_is_completed(
    loopback: Any, counter: TokenCounter, memory: MemorySink
) -> None:
    """Of several requests in one event each has the answer of its own."""
    server = loopback()

    def send(text: str) -> None:
        request = _request_for(text, is_refused=text == "two")
        httpx.post(f"{server.base_url}/embeddings", **request).raise_for_status()

    with pytest.raises(httpx.HTTPStatusError):
        SendingEmbedding(send=send).get_text_embedding_batch(["one", "two", "three"])

    assert [200, 400] == [entry.status for entry in server.ledger]
    assert _answers(server) == _embedded(memory)


@pytest.mark.parametrize("size", [1, 3], ids=["an event a request", "one event"])
def test_what_is_answered_after_a_batch_failed_is_completed(
    loopback: Any, counter: TokenCounter, memory: MemorySink, size: int
) -> None:
    """The requests beside the one that is refused go on, and asyncio.gather does not wait for them."""
    server = loopback()

    async def embed() -> None:
        is_over = asyncio.Event()

        async def wait(request: httpx.Request) -> None:
            if "x-loopback-fault" not in request.headers:
                await is_over.wait()

        async with httpx.AsyncClient(event_hooks={"request": [wait]}) as client:

            async def send(text: str) -> None:
                request = _request_for(text, is_refused=text == "two")
                (await client.post(f"{server.base_url}/embeddings", **request)).raise_for_status()

            embedder = SendingEmbedding(send=send, embed_batch_size=size)
            with pytest.raises(httpx.HTTPStatusError):
                await embedder.aget_text_embedding_batch(["one", "two", "three"])
            is_over.set()
            await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})

    asyncio.run(embed())

    assert 3 == len(server.ledger)
    assert _answers(server) == _embedded(memory)


class Falling(BaseEmbedding):
    """An embedding class that goes over to a local model for good when its server refuses."""

    url: str
    is_down: bool = False

    def _get_text_embedding(self, text: str) -> list[float]:
        self.is_down = self.is_down or not httpx.post(self.url, json={"model": "m", "input": text}).is_success
        return [0.0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


def test_what_a_batch_embeds_elsewhere_after_a_refusal_is_counted(
    loopback: Any, counter: TokenCounter, memory: MemorySink
) -> None:
    """A request in vain does not tell that the others of the batch are seen below."""
    server = loopback()
    server.fail_next(status=503)
    embedder = Falling(url=f"{server.base_url}/embeddings", embed_batch_size=1)
    embedder.get_text_embedding_batch(["one one one", "two two two", "three three three"])

    assert [3, 3, 3] == [record.usage.embedding_tokens for record in memory.records if record.usage.embedding_tokens]
    assert 1 == sum(record.outcome is Outcome.FAILED for record in memory.records)


@pytest.mark.parametrize("texts", [["one", "two two two"], ["two two two", "one"]])
def test_a_text_of_a_batch_that_is_embedded_elsewhere_is_the_one_that_is_counted(
    loopback: Any, counter: TokenCounter, memory: MemorySink, texts: list[str]
) -> None:
    """The next try for another one, which was refused as well, is no request for it."""
    server = loopback()
    url = f"{server.base_url}/embeddings"

    async def embed() -> None:
        refused: set[str] = set()
        both_are_refused = asyncio.Event()

        async with httpx.AsyncClient() as client:

            async def send(text: str) -> None:
                await client.post(url, **_request_for(text, is_refused=True))
                refused.add(text)
                if len(refused) == len(texts):
                    both_are_refused.set()
                await both_are_refused.wait()
                if text == "one":
                    await client.post(url, **_request_for(text))

            await SendingEmbedding(
                send=send, model_name="text-embedding-3-small", embed_batch_size=1
            ).aget_text_embedding_batch(texts)

    asyncio.run(embed())

    assert sorted([*_answers(server), (Outcome.COMPLETED, 3)]) == _embedded(memory)


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_call_whose_litellm_tells_late_is_one_record(
    counter: TokenCounter, memory: MemorySink, monkeypatch: pytest.MonkeyPatch, is_streamed: bool
) -> None:
    """Of a provider of one's own LiteLLM tells but the success, after the call around it has its record."""

    class Own(litellm.CustomLLM):
        async def acompletion(self, *args: Any, **kwargs: Any) -> Any:
            return litellm.mock_completion(model="m", messages=[], mock_response="At nine.")

        async def astreaming(self, *args: Any, **kwargs: Any) -> Any:
            end = {"is_finished": True, "finish_reason": "stop", "index": 0, "tool_use": None, "usage": None}
            yield {"text": "At nine.", **end}

    monkeypatch.setattr(litellm, "custom_provider_map", [{"provider": "own", "custom_handler": Own()}])
    llm = LiteLLM(model="own/m", max_retries=0)

    async def ask() -> None:
        if is_streamed:
            async for _ in await llm.astream_chat(MESSAGES):
                pass
        else:
            await llm.achat(MESSAGES)
        await GLOBAL_LOGGING_WORKER.flush()

    asyncio.run(ask())
    counter.close()

    assert ["m"] == [str(record.model).rpartition("/")[2] for record in memory.records]


def test_a_counter_that_closes_counts_the_prompt_of_a_stream_that_others_read_on(
    loopback: Any, counter: TokenCounter, memory: MemorySink, tmp_path: Path
) -> None:
    """What it records is what the only counter would."""
    other = TokenCounter(log_dir=tmp_path / "other", sinks=[])
    server = loopback(stream_usage="never")
    llm = OpenAI(model="gpt-4o-mini", api_base=server.base_url, api_key="none", max_retries=0)
    stream = llm.stream_chat(MESSAGES)
    for _ in range(3):
        next(stream)
    counter.close()
    list(stream)
    other.close()
    (record,) = memory.records

    assert Outcome.ABANDONED is record.outcome
    assert (record.usage.prompt_tokens or 0) > 0 < (record.usage.completion_tokens or 0)


async def _embed_with_litellm(server: Any) -> None:
    await litellm.aembedding(
        model="openai/text-embedding-3-small", input=["When?"], api_base=server.base_url, api_key="none"
    )


async def _embed_with_llama_index(server: Any) -> None:
    embedder = OpenAIEmbedding(api_base=server.base_url, api_key="none", reuse_client=False)
    await embedder.aget_text_embedding("When?")


async def _embed_with_httpx(server: Any) -> None:
    async with httpx.AsyncClient() as client:
        await client.post(f"{server.base_url}/embeddings", json=EMBEDDING_BODY)


@pytest.mark.parametrize("expected", [Outcome.FAILED, Outcome.COMPLETED])
@pytest.mark.parametrize("embed", [_embed_with_litellm, _embed_with_llama_index, _embed_with_httpx])
def test_an_embedding_beside_a_chat_that_ends_goes_on(
    loopback: Any, counter: TokenCounter, memory: MemorySink, embed: Callable[[Any], Any], expected: Outcome
) -> None:
    """It is no request of the chat, and ends when its own answer is there."""
    server = loopback()
    under_way: list[asyncio.Task[None]] = []

    async def ask_and_embed() -> None:
        with server.hold() as hold:

            async def send() -> None:
                under_way.append(asyncio.create_task(embed(server)))
                await asyncio.to_thread(hold.reached.wait)
                if expected is Outcome.FAILED:
                    raise LookupError

            with contextlib.suppress(LookupError):
                await SendingLLM(send=send).achat(MESSAGES)
        await asyncio.gather(*under_way)

    asyncio.run(ask_and_embed())
    counter.close()
    told = {record.operation: record for record in memory.records}

    assert {Operation.CHAT: expected, Operation.EMBEDDING: Outcome.COMPLETED} == {
        operation: record.outcome for operation, record in told.items()
    }
    assert embedding_truth(server) == [told[Operation.EMBEDDING].usage.embedding_tokens]


@pytest.mark.parametrize("options", [{}, {"stream": True}], ids=["whole", "streamed"])
def test_an_answer_from_elsewhere_is_counted_where_litellm_was_given_up(
    loopback: Any, counter: TokenCounter, memory: MemorySink, options: dict[str, Any]
) -> None:
    """LiteLLM tells of no cancellation, but its request has failed."""
    server = loopback()

    async def send() -> str:
        with server.hold() as hold:
            asking = litellm.acompletion(
                model="openai/gpt-4o-mini",
                messages=BODY["messages"],
                api_base=server.base_url,
                api_key="none",
                **options,
            )
            task = asyncio.create_task(asking)
            await asyncio.to_thread(hold.reached.wait)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return "It opens at nine."

    asyncio.run(SendingLLM(send=send).achat(MESSAGES))
    counter.close()
    tokens = {record.outcome: record.usage.completion_tokens for record in memory.records}

    assert {Outcome.CANCELLED: None, Outcome.COMPLETED: 5} == tokens


class PiecewiseLLM(SendingLLM):
    """A class of somebody's own whose streams are what ``send`` yields, one way or the other."""

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        def pieces() -> ChatResponseGen:
            for piece in self.send():
                yield _piece(piece)

        return pieces()

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        async def pieces() -> ChatResponseAsyncGen:
            async for piece in self.send():
                yield _piece(piece)

        return pieces()


def _piece(text: str) -> ChatResponse:
    return ChatResponse(message=ChatMessage(role="assistant", content=text), delta=text)


def _over(kind: type[LLM], server: Any) -> LLM:
    model = "openai/gpt-4o-mini" if kind is LiteLLM else "gpt-4o-mini"
    return kind(model=model, api_base=server.base_url, api_key="none", max_retries=0)


def _pieces_over(kind: type[LLM], server: Any) -> Iterator[str]:
    return (piece.delta or "" for piece in _over(kind, server).stream_chat(MESSAGES))


async def _apieces_over(kind: type[LLM], server: Any) -> AsyncIterator[str]:
    async for piece in await _over(kind, server).astream_chat(MESSAGES):
        yield piece.delta or ""


def _posted(server: Any) -> Iterator[str]:
    yield str(_post(f"{server.base_url}/chat/completions"))


async def _aposted(server: Any) -> AsyncIterator[str]:
    async with httpx.AsyncClient() as client:
        yield (await client.post(f"{server.base_url}/chat/completions", json=BODY)).text


def _own(server: Any) -> Iterator[str]:
    yield "Looking it up. "


async def _aown(server: Any) -> AsyncIterator[str]:
    yield "Looking it up. "


SOURCES: dict[str, tuple[Callable[[Any], Iterator[str]], Callable[[Any], AsyncIterator[str]]]] = {
    "OpenAI": (functools.partial(_pieces_over, OpenAI), functools.partial(_apieces_over, OpenAI)),
    "LiteLLM": (functools.partial(_pieces_over, LiteLLM), functools.partial(_apieces_over, LiteLLM)),
    "httpx": (_posted, _aposted),
    "its own": (_own, _aown),
}


def _read(sources: Sequence[str], server: Any) -> None:
    def send() -> Iterator[str]:
        for source in sources:
            yield from SOURCES[source][0](server)

    deque(PiecewiseLLM(send=send).stream_chat(MESSAGES), maxlen=0)


def _aread(sources: Sequence[str], server: Any) -> None:
    async def send() -> AsyncIterator[str]:
        for source in sources:
            async for piece in SOURCES[source][1](server):
                yield piece

    async def read() -> None:
        async for _ in await PiecewiseLLM(send=send).astream_chat(MESSAGES):
            pass

    asyncio.run(read())


@pytest.mark.parametrize("read", [_read, _aread], ids=["sync", "async"])
@pytest.mark.parametrize("second", ["OpenAI", "LiteLLM", "httpx"])
@pytest.mark.parametrize("first", SOURCES)
def test_what_a_stream_sends_after_its_first_piece_is_its_own(
    loopback: Any, counter: TokenCounter, memory: MemorySink, *, first: str, second: str, read: Callable[..., None]
) -> None:
    """A class that goes over to another source in the middle of a stream: a record a request, and no other."""
    server = loopback(stream_usage="always_last")
    read([first, second], server)
    counter.close()
    told = {(record.usage.prompt_tokens, record.usage.completion_tokens) for record in memory.records}

    assert {(entry.prompt_tokens, entry.completion_tokens) for entry in server.ledger} == told
    assert len(server.ledger) == len(memory.records)
    assert {"reported"} == {record.provenance.weakest for record in memory.records}


def test_what_a_stream_sends_belongs_to_the_run_that_it_was_asked_for_in(
    loopback: Any, counter: TokenCounter, memory: MemorySink
) -> None:
    """Also what it sends after its first piece, read elsewhere."""
    server = loopback(stream_usage="always_last")

    def send() -> Iterator[str]:
        yield "Looking it up. "
        yield from _pieces_over(OpenAI, server)

    with counter.run("asked") as asked:
        stream = PiecewiseLLM(send=send).stream_chat(MESSAGES)
        next(stream)
    with counter.run("read"):
        list(stream)

    assert [asked.run_id] == [record.run_id for record in memory.records]


@pytest.mark.usefixtures("nothing_left")
def test_what_is_asked_between_the_pieces_of_a_stream_is_not_its_own(
    loopback: Any, counter: TokenCounter, memory: MemorySink
) -> None:
    """Who reads a stream may ask for something else meanwhile."""
    server = loopback()
    stream = PiecewiseLLM(send=lambda: ["It opens", " at nine."]).stream_chat(MESSAGES)
    next(stream)
    _over(OpenAI, server).chat(MESSAGES)
    list(stream)
    [entry] = server.ledger

    assert [entry.completion_tokens, 5] == [record.usage.completion_tokens for record in memory.records]


class _Asking(BaseEventHandler):
    """Somebody's handler, which has an LLM look, once, at what another one says."""

    kind: str
    to_ask: list[Callable[[], Any]]

    def handle(self, event: Any, **kwargs: Any) -> None:
        if event.class_name() == self.kind and self.to_ask:
            self.to_ask.pop()()


@pytest.mark.parametrize("kind", ["LLMChatInProgressEvent", "LLMChatEndEvent"])
def test_what_a_handler_asks_for_at_a_piece_is_not_the_streams_own(
    loopback: Any, counter: TokenCounter, memory: MemorySink, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The stream's pieces count beside it."""
    server, root = loopback(), get_dispatcher()
    asking = _Asking(kind=kind, to_ask=[lambda: _over(OpenAI, server).chat(MESSAGES)])
    monkeypatch.setattr(root, "event_handlers", [asking, *root.event_handlers])
    list(PiecewiseLLM(send=lambda: ["It opens", " at nine."]).stream_chat(MESSAGES))
    [entry] = server.ledger

    assert [entry.completion_tokens, 5] == [record.usage.completion_tokens for record in memory.records]


@pytest.mark.parametrize("kind", [OpenAI, LiteLLM])
def test_an_answer_beside_a_stream_that_was_dropped_unread_is_counted(
    counter: TokenCounter, memory: MemorySink, kind: type[LLM]
) -> None:
    """A stream that nobody read sent nothing, and what the class says instead is none of its figures."""
    llm = kind(model="gpt-4o-mini", api_key="none")

    def send() -> str:
        llm.stream_chat(MESSAGES)
        return "It opens at nine."

    _ask(counter, send)

    told = [(record.outcome, record.usage.completion_tokens) for record in memory.records]
    assert [(Outcome.NOT_STARTED, None), (Outcome.COMPLETED, 5)] == told


def test_the_answer_beside_a_sent_stream_that_was_dropped_is_not_that_streams(
    loopback: Any, counter: TokenCounter, memory: MemorySink
) -> None:
    """Anthropic's class sends at once; what came of it nobody saw."""
    server = loopback()

    def send() -> str:
        _structured("Anthropic", server).stream_chat(MESSAGES)
        return "It opens at nine."

    _ask(counter, send)

    assert [(Outcome.ABANDONED, 0)] == [(record.outcome, record.usage.completion_tokens) for record in memory.records]


def test_what_a_class_said_before_its_stream_broke_is_not_that_streams(
    loopback: Any, counter: TokenCounter, memory: MemorySink
) -> None:
    """The stream had begun, and brought nothing but that its prompt was accepted."""
    server = loopback()
    server.fail_next(cut_after=0)

    def send() -> Iterator[str]:
        yield "It opens at nine."
        with httpx.stream("POST", f"{server.base_url}/chat/completions", json=BODY | {"stream": True}) as response:
            response.read()

    with pytest.raises(httpx.RemoteProtocolError):
        list(PiecewiseLLM(send=send).stream_chat(MESSAGES))

    request, said = memory.records
    assert [Outcome.FAILED] * 2 == [request.outcome, said.outcome]
    assert (True, 0, 5) == (
        bool(request.usage.prompt_tokens),
        request.usage.completion_tokens,
        said.usage.completion_tokens,
    )


def test_an_empty_piece_before_a_refusal_is_no_answer(loopback: Any, counter: TokenCounter, memory: MemorySink) -> None:
    """One request that was refused is one failed record, and nothing was used."""
    server = loopback()
    server.fail_next(status=503)

    def send() -> Iterator[str]:
        yield ""
        httpx.post(f"{server.base_url}/chat/completions", json=BODY).raise_for_status()

    with pytest.raises(httpx.HTTPStatusError):
        list(PiecewiseLLM(send=send).stream_chat(MESSAGES))

    assert [(Outcome.FAILED, None)] == [(record.outcome, record.usage.prompt_tokens) for record in memory.records]
