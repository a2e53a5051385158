"""The taps in the HTTP clients: what a framework's call sends is one record each, and nothing else is looked at."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import aiohttp
import httpx
import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, LLMMetadata
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback

from loopback_server import LoopbackServer
from token_callbacks import TokenCounter
from token_callbacks.errors import BudgetExceeded
from token_callbacks.exchanges import starter
from token_callbacks.ledger import Ledger
from token_callbacks.records import Operation, Outcome, Provenance, Usage
from token_callbacks.sinks.memory import MemorySink

MESSAGES = [ChatMessage(role="user", content="Name the opening hours.")]
BODY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Name the opening hours."}]}


class SendingLLM(CustomLLM):
    """An LLM class of somebody's own, which sends its requests with whatever it likes and tells nobody of usage."""

    send: Callable[[], Any]

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="gpt-4o-mini")

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return ChatResponse(message=ChatMessage(role="assistant", content=str(self.send())))

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return ChatResponse(message=ChatMessage(role="assistant", content=str(await self.send())))

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text="")

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Iterator[CompletionResponse]:
        yield CompletionResponse(text="")


class EagerLLM(SendingLLM):
    """One whose stream is asked for with the call itself, as many do that have the answer whole."""

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Iterator[CompletionResponse]:
        answer = str(self.send())
        return (CompletionResponse(text=answer, delta=answer) for _ in range(1))


def _with_httpx(url: str) -> Any:
    return httpx.post(url, json=BODY).content


def _with_httpx_streaming(url: str) -> Any:
    with httpx.stream("POST", url, json=BODY | {"stream": True}) as response:
        return b"".join(response.iter_raw())


async def _with_httpx_async(url: str) -> Any:
    async with httpx.AsyncClient() as client:
        return (await client.post(url, json=BODY)).content


async def _with_aiohttp(url: str) -> Any:
    async with aiohttp.ClientSession() as session, session.post(url, json=BODY) as response:
        return await response.read()


SYNC: dict[str, Callable[[str], Any]] = {"httpx": _with_httpx, "httpx, a stream": _with_httpx_streaming}
ASYNC: dict[str, Callable[[str], Awaitable[Any]]] = {"httpx": _with_httpx_async, "aiohttp": _with_aiohttp}


def _ask(counter: TokenCounter, send: Callable[[], Any]) -> str:
    with counter.run("tapped") as run:
        answer = str(SendingLLM(send=send).chat(MESSAGES).message.content)
    assert 0 == run.summary.internal_errors
    return answer


async def _aask(counter: TokenCounter, send: Callable[[], Any]) -> str:
    async with counter.run("tapped") as run:
        answer = str((await SendingLLM(send=send).achat(MESSAGES)).message.content)
    assert 0 == run.summary.internal_errors
    return answer


def _assert_reported(server: LoopbackServer, memory: MemorySink) -> None:
    [entry], [record] = server.ledger, memory.records
    assert (entry.prompt_tokens, entry.completion_tokens) == (
        record.usage.prompt_tokens,
        record.usage.completion_tokens,
    )
    assert Provenance.REPORTED is record.provenance.weakest


@pytest.mark.parametrize("send", SYNC.values(), ids=SYNC)
def test_what_a_call_sends_is_one_reported_record(
    loopback: Any, counter: TokenCounter, memory: MemorySink, send: Callable[[str], Any]
) -> None:
    """The framework tells nothing of usage, the HTTP answer does."""
    server = loopback(stream_usage="finish_chunk")
    _ask(counter, lambda: send(f"{server.base_url}/chat/completions"))

    _assert_reported(server, memory)


@pytest.mark.parametrize("send", ASYNC.values(), ids=ASYNC)
def test_what_an_async_call_sends_is_one_reported_record(
    loopback: Any, counter: TokenCounter, memory: MemorySink, send: Callable[[str], Awaitable[Any]]
) -> None:
    """It holds for the async clients."""
    server = loopback()
    asyncio.run(_aask(counter, lambda: send(f"{server.base_url}/chat/completions")))

    _assert_reported(server, memory)


@pytest.mark.parametrize("send", SYNC.values(), ids=SYNC)
def test_a_stream_that_was_sent_and_never_read_has_started(
    loopback: Any, counter: TokenCounter, memory: MemorySink, send: Callable[[str], Any]
) -> None:
    """What nobody read was used all the same, and has its figures."""
    server = loopback(stream_usage="finish_chunk")
    with counter.run("left"):
        EagerLLM(send=lambda: send(f"{server.base_url}/chat/completions")).stream_complete("Name the opening hours.")

    _assert_reported(server, memory)
    assert Outcome.ABANDONED is memory.records[0].outcome


def test_a_request_before_one_that_a_budget_refused_has_started(
    loopback: Any, counter: TokenCounter, memory: MemorySink
) -> None:
    """The call failed in the middle, and what it had sent by then was paid for."""
    server = loopback()

    def send() -> None:
        _with_httpx(f"{server.base_url}/chat/completions")
        raise BudgetExceeded("used up")

    with pytest.raises(BudgetExceeded):
        _ask(counter, send)

    _assert_reported(server, memory)
    assert Outcome.FAILED is memory.records[0].outcome


@pytest.mark.parametrize("send", SYNC.values(), ids=SYNC)
def test_the_bytes_are_the_same_with_and_without_us(
    loopback: Any, counter: TokenCounter, send: Callable[[str], Any]
) -> None:
    """The tap looks on."""
    url = f"{loopback(stream_usage='finish_chunk', constant_id=True).base_url}/chat/completions"
    before, after = str(send(url)), _ask(counter, lambda: send(url))

    assert _shape(before) == _shape(after)


def test_a_request_of_nobodys_call_is_not_looked_at(loopback: Any, counter: TokenCounter, memory: MemorySink) -> None:
    """What a program sends by itself is its own business."""
    with counter.run("own"):
        _with_httpx(f"{loopback().base_url}/chat/completions")

    assert [] == memory.records


def test_a_request_to_something_else_inside_a_call_is_no_record_of_its_own(
    loopback: Any, counter: TokenCounter, memory: MemorySink
) -> None:
    """An LLM class may fetch a document first; the call is then one record, counted here."""
    server = loopback()
    _ask(counter, lambda: httpx.get(f"{server.url}/documents").status_code)

    [record] = memory.records
    assert (Provenance.COUNTED, None) == (record.provenance.prompt, record.provider_usage)


def test_an_unknown_path_is_a_request_to_a_model_if_its_answer_tells_usage(
    counter: TokenCounter, memory: MemorySink
) -> None:
    """Gateways put models where they like."""
    usage = {"prompt_tokens": 31, "completion_tokens": 7, "total_tokens": 38}
    gateway = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, json={"usage": usage})))
    _ask(counter, lambda: gateway.post("http://gateway.test/my/model").content)

    [record] = memory.records
    assert (31, 7, usage) == (record.usage.prompt_tokens, record.usage.completion_tokens, record.provider_usage)


def _with_httpx_in_pieces(url: str) -> Any:
    with httpx.stream("POST", url, json=BODY) as response:
        return b"".join(response.iter_raw())


@pytest.mark.parametrize("send", [_with_httpx_in_pieces, *ASYNC.values()], ids=["httpx, in pieces", *ASYNC])
def test_a_try_whose_body_broke_brought_nothing(
    loopback: Any, counter: TokenCounter, memory: MemorySink, send: Callable[[str], Any]
) -> None:
    """The answer to the next one is not counted for both.

    That a prompt was accepted is known once the head came; who reads the body before he gives the answer shows none.
    """
    server = loopback(stream_usage="finish_chunk")
    server.fail_next(cut_after=0)
    url = f"{server.base_url}/chat/completions"

    async def send_twice() -> Any:
        for _ in range(2):
            with contextlib.suppress(httpx.TransportError, aiohttp.ClientError):
                return await answer if inspect.isawaitable(answer := send(url)) else answer
        return None

    asyncio.run(_aask(counter, send_twice))
    _, entry = server.ledger

    assert [Outcome.FAILED, Outcome.COMPLETED] == [record.outcome for record in memory.records]
    first, second = (record.usage for record in memory.records)
    assert (first.prompt_tokens is None) is (send is _with_httpx_async)
    assert not first.completion_tokens
    assert entry.prompt_tokens == second.prompt_tokens != first.prompt_tokens


LINE = b'{"model":"m","message":{"role":"assistant","content":"It opens at nine. "},"done":false}\n'
EVENT = b'data: {"choices":[{"delta":{"content":"It opens at nine. "}}]}\n\n'
KINDS = {"lines": ("application/x-ndjson", LINE), "events": ("text/event-stream", EVENT)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pieces", [0, 2])
def test_a_stream_that_broke_and_was_asked_for_again_is_a_try_of_its_own(
    counter: TokenCounter, memory: MemorySink, kind: str, pieces: int
) -> None:
    """What had come of it is a part, be it nothing: its prompt was accepted. The next answer is not its, too."""
    media_type, piece = KINDS[kind]
    usage = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}

    def broken() -> Iterator[bytes]:
        yield from [piece] * pieces
        raise httpx.ReadError("cut")

    streams = iter([broken()])

    def answer(_: httpx.Request) -> httpx.Response:
        if (content := next(streams, None)) is not None:
            return httpx.Response(200, content=content, headers={"content-type": media_type})
        return httpx.Response(200, json={"usage": usage})

    client = httpx.Client(transport=httpx.MockTransport(answer))

    def send() -> str:
        with (
            contextlib.suppress(httpx.ReadError),
            client.stream("POST", "http://provider.test/v1/chat/completions", json=BODY) as response,
        ):
            response.read()
        return str(client.post("http://provider.test/v1/chat/completions", json=BODY).json())

    _ask(counter, send)

    figures = [(record.outcome, record.attempt, record.provenance.completion) for record in memory.records]
    assert [(Outcome.FAILED, 1, Provenance.PARTIAL), (Outcome.COMPLETED, 2, Provenance.REPORTED)] == figures
    assert bool(pieces) is bool(memory.records[0].usage.completion_tokens)
    assert [True, 12] == [bool(memory.records[0].usage.prompt_tokens), memory.records[1].usage.prompt_tokens]


def test_a_body_that_nobody_waits_for_any_more_is_cancelled(
    loopback: Any, counter: TokenCounter, memory: MemorySink
) -> None:
    """A class gives up its stream after a time limit of its own, and asks again."""
    server = loopback(stream_usage="finish_chunk")
    url = f"{server.base_url}/chat/completions"

    async def read(client: httpx.AsyncClient, has_begun: asyncio.Event) -> None:
        async with client.stream("POST", url, json=BODY | {"stream": True}) as response:
            async for _ in response.aiter_raw():
                has_begun.set()

    async def send() -> Any:
        has_begun = asyncio.Event()
        async with httpx.AsyncClient() as client:
            with server.hold(after_chunks=2):
                reading = asyncio.create_task(read(client, has_begun))
                await has_begun.wait()
                reading.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await reading
            return (await client.post(url, json=BODY)).content

    asyncio.run(_aask(counter, send))

    assert [Outcome.CANCELLED, Outcome.COMPLETED] == [record.outcome for record in memory.records]


def test_a_try_that_was_answered_with_an_error_and_200_brought_nothing(
    counter: TokenCounter, memory: MemorySink
) -> None:
    """OpenRouter and others answer so where their own provider fails; the answer to the next try is not theirs, too."""
    usage = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
    answers = iter([{"error": {"code": 502, "message": "Provider is down"}}, {"error": None, "usage": usage}])
    client = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, json=next(answers))))
    _ask(counter, lambda: [client.post("http://provider.test/v1/chat/completions", json=BODY) for _ in range(2)])

    assert [Outcome.FAILED, Outcome.COMPLETED] == [record.outcome for record in memory.records]
    assert [None, 12] == [record.usage.prompt_tokens for record in memory.records]
    assert [1, 2] == [record.attempt for record in memory.records]


def test_a_class_that_makes_an_empty_answer_of_an_error_has_one_record(
    counter: TokenCounter, memory: MemorySink
) -> None:
    """One request, one record: nothing came from elsewhere. LiteLLM (1.106.2) streams nothing where that is told."""
    error = {"error": {"code": 502, "message": "Provider is down"}}
    client = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, json=error)))

    def send() -> str:
        client.post("http://provider.test/v1/chat/completions", json=BODY)
        return ""

    _ask(counter, send)

    [record] = memory.records
    assert (Outcome.FAILED, "error in the answer") == (record.outcome, record.error)


ERROR_EVENTS = {
    "OpenRouter": {"id": "1", "error": {"code": "server_error", "message": "gone"}, "choices": []},
    "Anthropic": {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
    "Responses": {"type": "error", "code": "server_error", "message": "gone", "param": None},
}


@pytest.mark.parametrize("told", ERROR_EVENTS.values(), ids=ERROR_EVENTS)
def test_a_stream_that_ends_in_an_error_event_has_failed_though_nobody_raises(
    counter: TokenCounter, memory: MemorySink, told: dict[str, Any]
) -> None:
    """Also where what reads the stream takes what came before for an answer: that is part of one."""
    first = {"id": "1", "choices": [{"delta": {"content": 'At "error": nine.'}}], "error": None}
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in (first, told)).encode()
    head = {"content-type": "text/event-stream"}
    client = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, content=[body], headers=head)))

    def send() -> bytes:
        with client.stream("POST", "http://provider.test/v1/chat/completions", json=BODY) as response:
            return response.read()

    _ask(counter, send)

    [record] = memory.records
    assert (Outcome.FAILED, Provenance.PARTIAL) == (record.outcome, record.provenance.completion)
    assert record.error == "error in the answer"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/messages/count_tokens",
        "/api/show",
        "/v1beta/models/gemini-2:countTokens",
        "/v1/rerank",
        "/v1/audio/transcriptions",
        "/v1/images/generations",
    ],
)
def test_a_request_of_another_kind_is_no_record(counter: TokenCounter, memory: MemorySink, path: str) -> None:
    """Its answer may well have a number of tokens in it, which no LLM used."""
    told = {"input_tokens": 51, "usage": {"prompt_tokens": 51, "completion_tokens": 1}}
    server = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, json=told)))
    _ask(counter, lambda: server.post(f"http://provider.test{path}").content)

    [record] = memory.records
    assert record.provider_usage is None


def test_two_requests_of_one_call_are_two_records(loopback: Any, counter: TokenCounter, memory: MemorySink) -> None:
    """One HTTP request, one record."""
    server = loopback()
    url = f"{server.base_url}/chat/completions"
    _ask(counter, lambda: (_with_httpx(url), _with_httpx(url)))

    expected = [(entry.prompt_tokens, entry.completion_tokens) for entry in server.ledger]
    assert expected == [(record.usage.prompt_tokens, record.usage.completion_tokens) for record in memory.records]


@pytest.mark.parametrize("status", [302, 429, 503])
def test_a_try_that_failed_is_an_attempt_of_its_own(
    loopback: Any, counter: TokenCounter, memory: MemorySink, status: int
) -> None:
    """What an SDK tries again without a word is seen."""
    server = loopback()
    server.fail_next(status=status)
    url = f"{server.base_url}/chat/completions"
    _ask(counter, lambda: (_with_httpx(url), _with_httpx(url)))

    seen = [(record.outcome, record.error, record.attempt) for record in memory.records]
    assert [(Outcome.FAILED, f"HTTP {status}", 1), (Outcome.COMPLETED, None, 2)] == seen


def test_an_answer_from_elsewhere_is_not_that_of_the_request_that_failed(
    loopback: Any, counter: TokenCounter, memory: MemorySink
) -> None:
    """A class that answers by other means, once its provider has refused: the answer is counted once."""
    server = loopback()
    server.fail_next(status=503)
    url = f"{server.base_url}/chat/completions"
    _ask(counter, lambda: (_with_httpx(url), "It opens at nine.")[1])

    failed, answered = memory.records
    assert (Outcome.FAILED, Usage(), None) == (failed.outcome, failed.usage, failed.provider_usage)
    assert (Outcome.COMPLETED, Provenance.COUNTED) == (answered.outcome, answered.provenance.completion)


class FallingBackLLM(SendingLLM):
    """One that streams pieces of its own once its provider has refused."""

    fails_with: Exception | None = None

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Iterator[CompletionResponse]:
        self.send()
        text = ""
        for number in range(9):
            text += "word "
            yield CompletionResponse(text=text, delta="word ")
            if self.fails_with is not None and number == 4:
                raise self.fails_with


@pytest.mark.parametrize(
    ("ends", "expected"),
    [("left", Outcome.ABANDONED), ("broken", Outcome.FAILED), ("closed", Outcome.ABANDONED)],
    ids=["left", "broken", "the counter is closed"],
)
def test_a_broken_answer_from_elsewhere_is_what_was_delivered_of_it(
    loopback: Any, counter: TokenCounter, memory: MemorySink, ends: str, expected: Outcome
) -> None:
    """What came of it is counted, once, and not under the request that failed."""
    server = loopback()
    server.fail_next(status=503)
    url = f"{server.base_url}/chat/completions"
    llm = FallingBackLLM(send=lambda: _with_httpx(url), fails_with=KeyError("cut") if ends == "broken" else None)
    stream = llm.stream_complete("When does the library open?")
    for _ in range(5):
        next(stream)
    if ends == "broken":
        with pytest.raises(KeyError):
            next(stream)
    elif ends == "closed":
        counter.close()
    else:
        stream.close()
    counter.close()
    stream.close()

    failed, answered = memory.records
    assert (Outcome.FAILED, Usage()) == (failed.outcome, failed.usage)
    assert (expected, Provenance.PARTIAL) == (answered.outcome, answered.provenance.completion)
    assert 4 <= (answered.usage.completion_tokens or 0) <= 6


def test_a_host_that_does_not_answer_raises_as_ever_and_is_a_failed_record(
    counter: TokenCounter, memory: MemorySink
) -> None:
    """The exception is httpx's own, and the record names its class."""
    with pytest.raises(httpx.ConnectError):
        _ask(counter, lambda: _with_httpx("http://127.0.0.1:9/v1/chat/completions"))

    [record] = memory.records
    assert (Outcome.FAILED, "ConnectError") == (record.outcome, record.error)


def test_without_the_taps_a_call_is_counted_here(loopback: Any, memory: MemorySink) -> None:
    """Uninstalling takes the taps out."""
    from token_callbacks import uninstall

    TokenCounter(log_dir=None)
    uninstall()
    sends = [httpx.Client.send, httpx.AsyncClient.send, aiohttp.ClientSession._request, aiohttp.ClientResponse.read]

    assert [] == [send for send in sends if hasattr(send, "__wrapped__")]


@pytest.mark.parametrize("around", [Operation.CHAT, Operation.RESPONSES, Operation.EMBEDDING])
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/embeddings", Operation.EMBEDDING),
        ("/openai/deployments/embed-3/embeddings/", Operation.EMBEDDING),
        ("/api/embed", Operation.EMBEDDING),
        ("/api/v1/services/embeddings/text-embedding/text-embedding", Operation.EMBEDDING),
        ("/v1beta/models/gemini-embedding-001:batchEmbedContents", Operation.EMBEDDING),
        ("/model/amazon.titan-embed-text-v2%3A0/invoke", Operation.EMBEDDING),
        ("/openai/deployments/embed-and-chat/chat/completions", Operation.CHAT),
        ("/v1/messages", Operation.CHAT),
        ("/v1beta/models/gemini-2.5-flash:streamGenerateContent", Operation.CHAT),
        ("/model/anthropic.claude-3-haiku-20240307-v1%3A0/invoke", None),
        ("/v1/projects/p/locations/l/publishers/google/models/text-embedding-005:predict", None),
    ],
)
def test_a_path_tells_what_is_asked_for_where_it_can(path: str, expected: Operation | None, around: Operation) -> None:
    """Where it tells nothing, or the same, what is asked for is what the call around it is."""
    ledger = Ledger()
    outer = ledger.open_call(
        ledger.origin("llama_index"), framework="llama_index", operation=around, provider=None, model=None
    )
    ledger.add_locator(lambda: outer)
    exchange = starter(ledger)("POST", path)
    assert exchange is not None
    exchange.open()

    is_like = expected is None or (expected is Operation.EMBEDDING) == (around is Operation.EMBEDDING)
    [call, *_] = outer.inner
    assert (around if is_like else expected) == call.operation
    assert is_like == call.is_request == outer.is_wrapper


@pytest.mark.parametrize("model", ["amazon.titan-embed-text-v1", "cohere.embed-english-v3"])
def test_botocores_answers_are_read(counter: TokenCounter, memory: MemorySink, model: str) -> None:
    """Bedrock's InvokeModel tells the count in its body or its headers, and boto3's caller gets the body whole."""
    boto3 = pytest.importorskip("boto3")
    from tests.versions.bedrock_server import BedrockServer

    with BedrockServer(embedding=5) as server:
        client = boto3.client(
            "bedrock-runtime",
            region_name="us-east-1",
            endpoint_url=server.url,
            aws_access_key_id="x",
            aws_secret_access_key="x",
        )
        body = json.dumps({"inputText": "Hi", "texts": ["Hi"], "input_type": "search_query"})

        def invoke() -> Any:
            return client.invoke_model(modelId=model, body=body)["body"].read()

        answer = _ask(counter, invoke)

    embedded, _ = memory.records  # and what the class around it answers
    assert "embedding" in answer
    assert (Operation.EMBEDDING, 5) == (embedded.operation, embedded.usage.embedding_tokens)


def _shape(answer: str) -> list[str]:
    return [part for part in answer.split('"') if not any(character.isdigit() for character in part)]
