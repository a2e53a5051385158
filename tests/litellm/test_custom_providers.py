"""Classes that answer for a provider of the user's own (``custom_provider_map``): LiteLLM tells nobody of a request."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import itertools
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, ClassVar

import httpx
import litellm
import pytest
from litellm import main
from litellm.types.llms.openai import ChatCompletionUsageBlock
from litellm.types.utils import GenericStreamingChunk
from llama_index.llms.litellm import LiteLLM
from llama_index.llms.openai import OpenAI

from loopback_server import LoopbackServer
from token_callbacks import TokenCounter
from token_callbacks.records import Outcome
from token_callbacks.sinks.memory import MemorySink

from .calls import CHAT, VECTORS, openai

MESSAGES = [{"role": "user", "content": "When does it open?"}]
USAGE = ChatCompletionUsageBlock(prompt_tokens=3, completion_tokens=4, total_tokens=7)


def _chunk(text: str) -> GenericStreamingChunk:
    return {
        "text": text,
        "tool_use": None,
        "is_finished": not text,
        "finish_reason": "" if text else "stop",
        "usage": None if text else USAGE,
        "index": 0,
    }


class Librarian(litellm.CustomLLM):
    """Answers by itself."""

    def completion(self, *args: Any, **kwargs: Any) -> litellm.ModelResponse:
        return litellm.ModelResponse(choices=[{"message": {"content": "At nine."}}], usage=litellm.Usage(**USAGE))

    async def acompletion(self, *args: Any, **kwargs: Any) -> litellm.ModelResponse:
        return self.completion()

    def streaming(self, *args: Any, **kwargs: Any) -> Iterator[GenericStreamingChunk]:
        yield from map(_chunk, ("At", " nine.", ""))

    async def astreaming(self, *args: Any, **kwargs: Any) -> AsyncIterator[GenericStreamingChunk]:
        for chunk in self.streaming():
            yield chunk


@pytest.fixture(autouse=True)
def librarian(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let LiteLLM know the class."""
    monkeypatch.setattr(litellm, "custom_provider_map", [{"provider": "library", "custom_handler": Librarian()}])


def _ask(**options: Any) -> Any:
    return litellm.completion(model="library/desk", messages=MESSAGES, **options)


async def _aask(**options: Any) -> Any:
    return await litellm.acompletion(model="library/desk", messages=MESSAGES, **options)


async def _aread() -> None:
    async for _ in await _aask(stream=True):
        pass


async def _ahalf_read() -> None:
    await anext(await _aask(stream=True))


def _drop() -> None:
    _ask(stream=True)


def _half_read() -> None:
    next(_ask(stream=True))


ANSWERED: dict[str, Callable[[], Any]] = {
    "completion": _ask,
    "acompletion": lambda: asyncio.run(_aask()),
    "completion streamed": lambda: list(_ask(stream=True)),
    "acompletion streamed": lambda: asyncio.run(_aread()),
}
LEFT: dict[str, Callable[[], Any]] = {
    "unread": _drop,
    "async unread": lambda: asyncio.run(_aask(stream=True)) and None,
    "half read": _half_read,
    "async half read": lambda: asyncio.run(_ahalf_read()),
}


@pytest.mark.parametrize("name", ANSWERED)
def test_an_answer_is_in_the_summary_of_a_run_that_ends_at_once(
    counter: TokenCounter, memory: MemorySink, name: str
) -> None:
    """Nobody waits for LiteLLM's success event, which may come late, or never."""
    with counter.run("asking") as run:
        ANSWERED[name]()
    summary = run.summary

    [record] = memory.records
    assert (Outcome.COMPLETED, 3, 4) == (record.outcome, record.usage.prompt_tokens, record.usage.completion_tokens)
    assert (1, 7) == (summary.calls.llm, summary.total_llm_tokens)


@pytest.mark.parametrize("name", LEFT)
def test_a_stream_that_is_left_is_abandoned(counter: TokenCounter, memory: MemorySink, name: str) -> None:
    """Whether the class has done anything for it, nobody can tell."""
    with counter.run("asking") as run:
        LEFT[name]()
    counter.close()

    [record] = memory.records
    assert (Outcome.ABANDONED, run.run_id) == (record.outcome, record.run_id)
    assert 1 == run.summary.calls.abandoned


# --- classes that ask a model themselves


class Asking(litellm.CustomLLM):
    """Asks with a client of its own, and passes no usage on."""

    server: LoopbackServer

    def _request(self, *, stream: bool = False) -> dict[str, Any]:
        asked = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        body = {"model": "gpt-4o-mini", "messages": MESSAGES, **asked}
        return {"method": "POST", "url": f"{self.server.base_url}/chat/completions", "json": body}

    def completion(self, *args: Any, **kwargs: Any) -> litellm.ModelResponse:
        with httpx.Client() as client:
            return _answer(client.request(**self._request()).raise_for_status())

    async def acompletion(self, *args: Any, **kwargs: Any) -> litellm.ModelResponse:
        async with httpx.AsyncClient() as client:
            return _answer((await client.request(**self._request())).raise_for_status())

    def embedding(self, *args: Any, **kwargs: Any) -> litellm.EmbeddingResponse:
        body = {"model": "text-embedding-3-small", "input": kwargs["input"]}
        with httpx.Client() as client:
            answer = client.post(f"{self.server.base_url}/embeddings", json=body).raise_for_status().json()
        return litellm.EmbeddingResponse(data=answer["data"])

    async def aembedding(self, *args: Any, **kwargs: Any) -> litellm.EmbeddingResponse:
        return await asyncio.to_thread(self.embedding, *args, **kwargs)

    def streaming(self, *args: Any, **kwargs: Any) -> Iterator[GenericStreamingChunk]:
        with httpx.Client() as client, client.stream(**self._request(stream=True)) as response:
            yield from map(_passed_on, response.raise_for_status().iter_lines())

    async def astreaming(self, *args: Any, **kwargs: Any) -> AsyncIterator[GenericStreamingChunk]:
        async with httpx.AsyncClient() as client, client.stream(**self._request(stream=True)) as response:
            async for line in response.raise_for_status().aiter_lines():
                yield _passed_on(line)


class Eager(Asking):
    """Asks before its stream is read."""

    def streaming(self, *args: Any, **kwargs: Any) -> Iterator[GenericStreamingChunk]:
        client = httpx.Client()
        response = client.send(client.build_request(**self._request(stream=True)), stream=True)
        return map(_passed_on, response.iter_lines())


class Thorough(Asking):
    """Asks twice."""

    def completion(self, *args: Any, **kwargs: Any) -> litellm.ModelResponse:
        super().completion()
        return super().completion()


class Delegating(Asking):
    """Has LiteLLM ask."""

    def completion(self, *args: Any, **kwargs: Any) -> litellm.ModelResponse:
        return litellm.completion(model=CHAT, messages=MESSAGES, **openai(self.server))

    async def acompletion(self, *args: Any, **kwargs: Any) -> litellm.ModelResponse:
        return await litellm.acompletion(model=CHAT, messages=MESSAGES, **openai(self.server))

    def embedding(self, *args: Any, **kwargs: Any) -> litellm.EmbeddingResponse:
        return litellm.embedding(model=VECTORS, input=kwargs["input"], **openai(self.server))

    async def aembedding(self, *args: Any, **kwargs: Any) -> litellm.EmbeddingResponse:
        ask = functools.partial(litellm.aembedding, model=VECTORS, **openai(self.server))
        answers = await asyncio.gather(*(ask(input=[text]) for text in kwargs["input"]))
        return litellm.EmbeddingResponse(data=[answer.data[0] for answer in answers])

    def streaming(self, *args: Any, **kwargs: Any) -> Iterator[GenericStreamingChunk]:
        for chunk in litellm.completion(model=CHAT, messages=MESSAGES, stream=True, **openai(self.server)):
            yield _told_again(chunk)

    async def astreaming(self, *args: Any, **kwargs: Any) -> AsyncIterator[GenericStreamingChunk]:
        stream = await litellm.acompletion(model=CHAT, messages=MESSAGES, stream=True, **openai(self.server))
        async for chunk in stream:
            yield _told_again(chunk)


class LazilyDelegating(Delegating):
    """Has LiteLLM ask when its stream is read, which another method makes."""

    def streaming(self, *args: Any, **kwargs: Any) -> Iterator[GenericStreamingChunk]:
        return super().streaming()

    def astreaming(self, *args: Any, **kwargs: Any) -> AsyncIterator[GenericStreamingChunk]:
        return super().astreaming()


class Casual(LazilyDelegating):
    """Says so of none of its methods, but some of them are async."""

    def acompletion(self, *args: Any, **kwargs: Any) -> Any:
        return Asking.acompletion(self)

    def streaming(self, *args: Any, **kwargs: Any) -> Iterator[GenericStreamingChunk]:
        return map(dict, super().streaming())  # type: ignore[arg-type]  # LiteLLM takes any mapping


class EagerlyDelegating(Delegating):
    """Has LiteLLM ask before its stream is read."""

    def streaming(self, *args: Any, **kwargs: Any) -> Iterator[GenericStreamingChunk]:
        return map(_told_again, litellm.completion(model=CHAT, messages=MESSAGES, stream=True, **openai(self.server)))


class Guided(Asking):
    """Has LlamaIndex ask, once over LiteLLM and once without."""

    def _ask(self) -> Iterator[str]:
        for llm in (LiteLLM(model=CHAT, **openai(self.server)), OpenAI(model="gpt-4o-mini", **openai(self.server))):
            yield llm.complete("When does it open?").text

    def completion(self, *args: Any, **kwargs: Any) -> litellm.ModelResponse:
        return litellm.ModelResponse(choices=[{"message": {"content": "".join(self._ask())}}])

    async def acompletion(self, *args: Any, **kwargs: Any) -> litellm.ModelResponse:
        return await asyncio.to_thread(self.completion)

    def streaming(self, *args: Any, **kwargs: Any) -> Iterator[GenericStreamingChunk]:
        yield from map(_chunk, (*self._ask(), ""))

    async def astreaming(self, *args: Any, **kwargs: Any) -> AsyncIterator[GenericStreamingChunk]:
        for text in self._ask():
            yield _chunk(text)


class Roundabout(Delegating):
    """Asks LiteLLM, LlamaIndex and with a client of its own, in this order."""

    def completion(self, *args: Any, **kwargs: Any) -> litellm.ModelResponse:
        super().completion()
        LiteLLM(model=CHAT, **openai(self.server)).complete("When does it open?")
        return Asking.completion(self)

    def streaming(self, *args: Any, **kwargs: Any) -> Iterator[GenericStreamingChunk]:
        yield from map(_chunk, map(str, Asking.streaming(self)))
        yield from map(_chunk, map(str, super().streaming()))
        yield _chunk(LiteLLM(model=CHAT, **openai(self.server)).complete("When does it open?").text)
        yield from Asking.streaming(self)


class Spawning(Asking):
    """Has LiteLLM ask on a thread that outlives it, and answers by itself."""

    is_answered = threading.Event()
    threads: ClassVar[list[threading.Thread]] = []

    def completion(self, *args: Any, **kwargs: Any) -> litellm.ModelResponse:
        begun = threading.Event()

        def ask() -> None:
            stream = litellm.completion(model=CHAT, messages=MESSAGES, stream=True, **openai(self.server))
            next(stream)
            begun.set()
            self.is_answered.wait()
            list(stream)

        self.threads.append(threading.Thread(target=contextvars.copy_context().run, args=(ask,)))
        self.threads[-1].start()
        begun.wait()
        return Librarian().completion()


def _answer(response: httpx.Response) -> litellm.ModelResponse:
    content = response.json()["choices"][0]["message"]["content"]
    return litellm.ModelResponse(choices=[{"message": {"content": content}}])


def _told_again(chunk: Any) -> GenericStreamingChunk:
    [choice] = chunk.choices
    return {**_chunk(choice.delta.content or ""), "is_finished": bool(choice.finish_reason), "usage": None}


def _passed_on(line: str) -> GenericStreamingChunk:
    choices = json.loads(line.removeprefix("data: "))["choices"] if line.startswith("data: {") else []
    text = choices[0]["delta"].get("content") or "" if choices else ""
    return {**_chunk(text), "is_finished": line.endswith("[DONE]"), "usage": None}


def _two_in_turn() -> None:
    streams = [_ask(stream=True), _ask(stream=True)]
    for stream in streams:
        list(stream)


def _read_on_a_thread() -> None:
    thread = threading.Thread(target=list, args=(_ask(stream=True),))
    thread.start()
    thread.join()


def _between() -> None:
    """Ask something else while a stream is half read."""
    stream = _ask(stream=True)
    next(stream)
    _ask()
    list(stream)


def _over_llama_index() -> None:
    llm = LiteLLM(model="library/desk")
    llm.complete("When does it open?")
    list(llm.stream_complete("And when does it close?"))


ASKED: dict[str, tuple[type[Asking], Callable[[], Any]]] = {
    **{name: (Asking, ask) for name, ask in ANSWERED.items()},
    "streams read in turn": (Asking, _two_in_turn),
    "read on a thread": (Asking, _read_on_a_thread),
    "under LlamaIndex": (Asking, _over_llama_index),
    "asking before it is read": (Eager, ANSWERED["completion streamed"]),
    "asking twice": (Thorough, _ask),
    "asking LiteLLM": (Delegating, _ask),
    "asking LiteLLM, async": (Delegating, ANSWERED["acompletion"]),
    "streaming LiteLLM's stream": (Delegating, ANSWERED["completion streamed"]),
    "streaming LiteLLM's stream, async": (Delegating, ANSWERED["acompletion streamed"]),
    "streaming LiteLLM's stream, asked before it is read": (EagerlyDelegating, ANSWERED["completion streamed"]),
    "streaming LiteLLM's stream, made by another method": (LazilyDelegating, ANSWERED["completion streamed"]),
    "streaming LiteLLM's stream, made by another, async": (LazilyDelegating, ANSWERED["acompletion streamed"]),
    "streaming LiteLLM's streams in turn": (Delegating, _two_in_turn),
    "asking while a stream is half read": (Delegating, _between),
    "streaming LiteLLM's stream on a thread": (Delegating, _read_on_a_thread),
    "streaming LiteLLM's stream under LlamaIndex": (Delegating, _over_llama_index),
    **{f"{name}, asking LlamaIndex": (Guided, ask) for name, ask in ANSWERED.items()},
    "not saying that it is async": (Casual, ANSWERED["acompletion"]),
    "reading LiteLLM's stream by no generator": (Casual, ANSWERED["completion streamed"]),
    "asking everybody": (Roundabout, _ask),
    "asking everybody, streamed": (Roundabout, ANSWERED["completion streamed"]),
}


Staff = Callable[[type[Asking], LoopbackServer], None]


@pytest.fixture
def staff(monkeypatch: pytest.MonkeyPatch) -> Staff:
    """Let a class answer, which asks a server."""

    def put(kind: type[Asking], server: LoopbackServer) -> None:
        handler = kind()
        handler.server = server
        monkeypatch.setattr(litellm, "custom_provider_map", [{"provider": "library", "custom_handler": handler}])

    return put


@pytest.mark.parametrize("name", ASKED)
def test_what_a_class_asks_is_told_by_who_answers(
    staff: Staff, loopback: Any, counter: TokenCounter, memory: MemorySink, name: str
) -> None:
    """One request, one record, with the figures of the server."""
    server = loopback(stream_usage="always_last")
    kind, ask = ASKED[name]
    staff(kind, server)
    with counter.run("asking") as run:
        ask()

    assert [(entry.prompt_tokens, entry.completion_tokens) for entry in server.ledger] == sorted(
        (record.usage.prompt_tokens, record.usage.completion_tokens) for record in memory.records
    )
    assert {(Outcome.COMPLETED, run.run_id)} == {(record.outcome, record.run_id) for record in memory.records}


def test_what_outlives_a_class_has_its_own_end(
    staff: Staff, loopback: Any, counter: TokenCounter, memory: MemorySink
) -> None:
    """And not the class's answer for its own."""
    server = loopback(stream_usage="always_last")
    staff(Spawning, server)
    with counter.run("asking"):
        _ask()
        Spawning.is_answered.set()
        Spawning.threads.pop().join()
    counter.close()

    [entry], [record] = server.ledger, memory.records
    assert (entry.prompt_tokens, entry.completion_tokens) == (
        record.usage.prompt_tokens,
        record.usage.completion_tokens,
    )


def test_a_stream_of_a_class_takes_what_is_sent_and_thrown_into_it(counter: TokenCounter) -> None:
    """As any generator: LiteLLM only iterates, but what looks after it is not seen."""

    class Listening(litellm.CustomLLM):
        def streaming(self, *args: Any, **kwargs: Any) -> Any:
            heard = yield "asked"
            try:
                yield heard
            except ValueError:
                yield "caught"

    stream = main.custom_chat_llm_router(async_fn=False, stream=True, custom_llm=Listening())(logging_obj=None)

    assert "asked" == next(stream)
    assert "a word" == stream.send("a word")
    assert "caught" == stream.throw(ValueError)


def _embed(**options: Any) -> Any:
    return litellm.embedding(model="library/index", input=["When does it open?", "And close?"], **options)


async def _aembed(**options: Any) -> Any:
    return await litellm.aembedding(model="library/index", input=["When does it open?", "And close?"], **options)


EMBEDDED: dict[str, Callable[..., Any]] = {
    "embedding": _embed,
    "aembedding": lambda **options: asyncio.run(_aembed(**options)),
}


@pytest.mark.parametrize(("kind", "name"), [*itertools.product([Asking, Delegating], EMBEDDED)])
def test_what_a_class_embeds_is_told_by_who_answers(  # noqa: PLR0917 - fixtures
    staff: Staff, loopback: Any, counter: TokenCounter, memory: MemorySink, kind: type[Asking], name: str
) -> None:
    """One request, one record, also of several that a class sends at once."""
    server = loopback()
    staff(kind, server)
    with counter.run("embedding") as run:
        EMBEDDED[name]()

    told = [entry.embedding_tokens for entry in server.ledger]
    assert (2 if (kind, name) == (Delegating, "aembedding") else 1) == len(told)
    assert sorted(told) == sorted(record.usage.embedding_tokens or 0 for record in memory.records)
    assert {(Outcome.COMPLETED, run.run_id)} == {(record.outcome, record.run_id) for record in memory.records}


def test_a_class_that_fails_to_embed_leaves_a_failed_call(counter: TokenCounter, memory: MemorySink) -> None:
    """As one that fails to answer does; the next one is none of its tries."""
    with counter.run("embedding"):
        with pytest.raises(litellm.InternalServerError):
            _embed()
        litellm.embedding(model="openai/index", input=["x"], mock_response=[0.5])

    assert [(1, Outcome.FAILED), (1, Outcome.COMPLETED)] == [
        (record.attempt, record.outcome) for record in memory.records
    ]


def test_a_class_keeps_what_it_calls_an_embedding(counter: TokenCounter) -> None:
    """Only the methods that LiteLLM asks are looked after, and only while somebody counts."""

    class Mixin:
        def __getattribute__(self, name: str) -> Any:
            return "mixed in" if name == "seen" else super().__getattribute__(name)

    class Odd(Asking, Mixin):
        embedding = "a model of its own"

    asked = Odd()
    assert "mixed in" == asked.seen
    assert asked is asked.aembedding.__self__
    assert "a model of its own" == asked.embedding
    assert hasattr(asked.aembedding, "__wrapped__")
    counter.uninstall()
    assert not hasattr(asked.aembedding, "__wrapped__")
    assert "__getattribute__" not in vars(litellm.CustomLLM)
    assert "mixed in" == asked.seen


@pytest.mark.parametrize("name", ["half read", "async half read"])
def test_a_stream_of_a_class_that_asks_and_is_left_is_abandoned(
    staff: Staff, loopback: Any, counter: TokenCounter, memory: MemorySink, name: str
) -> None:
    """However much of the answer had come."""
    staff(Asking, loopback(stream_usage="always_last"))
    with counter.run("asking"):
        LEFT[name]()
    counter.close()

    assert [Outcome.ABANDONED] == [record.outcome for record in memory.records]


RETRIED: dict[str, Callable[..., Any]] = {
    "completion": _ask,
    "acompletion": lambda **options: asyncio.run(_aask(**options)),
}


@pytest.mark.parametrize("name", RETRIED)
def test_a_class_that_is_refused_leaves_a_failed_call(
    staff: Staff, loopback: Any, counter: TokenCounter, memory: MemorySink, name: str
) -> None:
    """LiteLLM tells of no sending."""
    server = loopback()
    staff(Asking, server)
    server.fail_next(status=500)
    with counter.run("asking"), pytest.raises(litellm.APIConnectionError):
        RETRIED[name]()

    assert [Outcome.FAILED] == [record.outcome for record in memory.records]


@pytest.mark.parametrize("name", RETRIED)
def test_each_try_of_a_class_is_a_call(
    staff: Staff, loopback: Any, counter: TokenCounter, memory: MemorySink, name: str
) -> None:
    """LiteLLM has one dict for both."""
    server = loopback()
    staff(Asking, server)
    server.fail_next(status=500)
    with counter.run("asking"):
        RETRIED[name](num_retries=1)

    assert 2 == len(server.ledger)
    assert [(1, Outcome.FAILED), (2, Outcome.COMPLETED)] == [
        (record.attempt, record.outcome) for record in memory.records
    ]
