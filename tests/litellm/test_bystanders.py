"""What is sent, kept and read beside a call of LiteLLM's is left alone."""

from __future__ import annotations

import asyncio
import gc
import pickle
import queue
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import litellm
import pytest
from litellm.integrations.custom_logger import CustomLogger
from llama_index.core.llms import ChatMessage
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.openai import OpenAI

from loopback_server import LoopbackServer
from token_callbacks import TokenCounter
from token_callbacks.records import Outcome
from token_callbacks.sinks.memory import MemorySink

from .calls import openai

MODEL, INSTRUCT = "openai/gpt-4o-mini", "text-completion-openai/gpt-3.5-turbo-instruct"
MESSAGES = [{"role": "user", "content": "When does it open?"}]


def _chat_of_llama_index(server: LoopbackServer) -> Any:
    """Give a stream of LlamaIndex's, which sends its request when it is read."""
    llm = OpenAI(model="gpt-4o", api_base=server.base_url, api_key="none", max_retries=0)
    return llm.stream_chat([ChatMessage(role="user", content="When does it open?")])


def _told(memory: MemorySink) -> dict[str | None, tuple[int | None, int | None]]:
    return {it.model: (it.usage.prompt_tokens, it.usage.completion_tokens) for it in memory.records}


def _router(server: LoopbackServer, **options: Any) -> litellm.Router:
    deployments = [{"model_name": name, "litellm_params": {"model": MODEL, **openai(server)}} for name in ("a", "b")]
    return litellm.Router(model_list=deployments, num_retries=0, **options)


def test_a_stream_that_is_not_read_yet_takes_in_nothing(
    loopback: Any, counter: TokenCounter, memory: MemorySink
) -> None:
    """LiteLLM sends the request of a text completion when it is read: what is sent until then is another one's."""
    server = loopback()
    with counter.run("two"):
        chat = _chat_of_llama_index(server)
        text = litellm.text_completion(model=INSTRUCT, prompt="When?", stream=True, **openai(server))
        list(chat)
        list(text)

    assert {it.model: (it.prompt_tokens, it.completion_tokens) for it in server.ledger} == _told(memory)


def test_a_call_that_was_cancelled_takes_in_nothing(loopback: Any, counter: TokenCounter, memory: MemorySink) -> None:
    """LiteLLM tells nobody of it, so it is open for as long as LiteLLM's object of it lives."""
    server = loopback()
    held: list[BaseException] = []

    async def cancel(task: asyncio.Task[Any]) -> None:
        while not server.ledger:
            await asyncio.sleep(0)
        task.cancel()

    async def give_up() -> None:
        chat, itself = _chat_of_llama_index(server), asyncio.current_task()
        assert itself is not None
        try:
            with server.hold():
                cancelling = asyncio.create_task(cancel(itself))
                await litellm.acompletion(model=MODEL, messages=MESSAGES, **openai(server))
        except asyncio.CancelledError as error:
            held.append(error)
        await cancelling
        list(chat)

    with counter.run("cancelled"):
        asyncio.run(give_up())

    cancelled, entry = server.ledger
    assert [Outcome.CANCELLED, Outcome.COMPLETED] == [record.outcome for record in memory.records]
    assert (entry.prompt_tokens, entry.completion_tokens) == _told(memory)["gpt-4o"]
    assert cancelled.model == "gpt-4o-mini"


def test_an_embedding_that_is_refused_unsent_takes_in_nothing(
    loopback: Any, counter: TokenCounter, memory: MemorySink
) -> None:
    """LiteLLM refuses what a model does not know, and its caller may ask somebody else instead."""
    server = loopback()
    refused = {"model": "openai/text-embedding-ada-002", "input": ["x"], "dimensions": 3, **openai(server)}
    with counter.run("instead"):
        try:
            litellm.embedding(**refused)
        except litellm.UnsupportedParamsError:
            OpenAIEmbedding(api_base=server.base_url, api_key="none").get_text_embedding("x")

    [entry] = server.ledger
    assert [entry.embedding_tokens] == [record.usage.embedding_tokens for record in memory.records]


def test_a_fallback_half_way_is_in_the_run_of_its_call(
    loopback: Any, counter: TokenCounter, memory: MemorySink
) -> None:
    """Whoever reads the stream, and so makes LiteLLM's Router ask again."""
    server = loopback()
    server.fail_next(cut_after=1)
    router = _router(server, fallbacks=[{"a": ["b"]}])

    async def ask() -> str:
        with counter.run("asks") as run:
            stream: Any = await router.acompletion("a", MESSAGES, stream=True)
        with counter.run("reads"):
            async for _ in stream:
                pass
        return run.run_id

    run_id = asyncio.run(ask())
    counter.close()  # a busy machine may have the end of the first one told late

    assert [(1, run_id), (2, run_id)] == sorted((record.attempt, record.run_id) for record in memory.records)


@pytest.mark.usefixtures("counter")
@pytest.mark.parametrize("is_kept", [True, False])
def test_a_run_whose_stream_was_left_tells_the_least_that_it_used(
    loopback: Any, counter: TokenCounter, *, is_kept: bool
) -> None:
    """LiteLLM's objects of it are there until the garbage collector comes: its record is written later."""
    kept: list[Any] = []

    def leave() -> None:
        stream: Any = litellm.completion(model=MODEL, messages=MESSAGES, stream=True, **openai(loopback()))
        next(stream)
        if is_kept:
            kept.append(stream)

    with counter.run("left") as run:
        leave()
    assert run.summary.lower_bound

    counter.close()
    assert (1, 1, True) == (run.summary.calls.llm, run.summary.calls.abandoned, run.summary.lower_bound)


def test_a_stream_of_a_router_that_is_closed_goes(loopback: Any) -> None:
    """A Router makes a class of its own for each stream, which keeps the stream: whoever keeps that keeps all of it."""
    router = _router(loopback())
    left: list[weakref.ref[Any]] = []

    async def leave() -> None:
        stream: Any = await router.acompletion("a", MESSAGES, stream=True)
        left.append(weakref.ref(stream.logging_obj))
        await anext(stream)
        await stream.aclose()

    async def leave_some() -> None:
        for _ in range(5):
            await leave()
        for _ in range(20):  # LiteLLM's tasks end, and let go of the last of them
            gc.collect()
            await asyncio.sleep(0)

    asyncio.run(leave_some())
    gc.collect()

    assert [None] * 5 == [each() for each in left]


class _Taker(CustomLogger):
    """Somebody else's callback, which does something with LiteLLM's dict."""

    def __init__(self, name: str, take: Callable[[Any], None]) -> None:
        super().__init__()
        self.name = name  # LiteLLM takes those of one class for one, unless a word of theirs differs
        self._take = take

    def log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self._take(kwargs)


def test_litellms_dict_can_be_sent_to_another_process(
    loopback: Any, counter: TokenCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept in it of ours goes nowhere."""
    sent: queue.Queue[bytes] = queue.Queue()
    sender = _Taker("sender", lambda told: sent.put(pickle.dumps(told)))  # as a queue of multiprocessing does
    monkeypatch.setattr(litellm, "callbacks", [*litellm.callbacks, sender])
    with counter.run("sent"):
        litellm.completion(model=MODEL, messages=MESSAGES, **openai(loopback()))

    taken = pickle.loads(sent.get(timeout=30))
    assert MESSAGES == taken["messages"]
    assert "" == taken["_token_callbacks"]


def _texts_in(told: Any, depth: int = 5) -> Iterator[Any]:
    """Give the texts in dicts that LiteLLM tells of a call with, at most so deep."""
    if isinstance(told, str):
        yield told
    elif isinstance(told, dict) and depth:
        for value in told.values():
            yield from _texts_in(value, depth - 1)


def test_a_routers_trace_id_is_told_as_a_plain_text(
    loopback: Any, counter: TokenCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A callback may hand it to what takes nothing else: YAML's safe dump, msgspec."""
    told: queue.Queue[list[Any]] = queue.Queue()

    def take(kwargs: Any) -> None:
        ids = [text for text in _texts_in(kwargs) if text == "visit-3"]
        if ids:  # the event of a call before this one may come late
            told.put(ids)

    taker = _Taker("traced", take)
    monkeypatch.setattr(litellm, "callbacks", [*litellm.callbacks, taker])
    server = loopback()
    with counter.run("traced"):
        _router(server).completion("a", MESSAGES, litellm_trace_id="visit-3")

    ids = told.get(timeout=30)
    assert 2 <= len(ids)
    assert {str} == set(map(type, ids))
