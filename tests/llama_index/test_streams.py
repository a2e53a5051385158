"""Streams that are left, cut, refused or never read: one record each, with what was sent and what arrived."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Any

import pytest
from llama_index.core.llms import CompletionResponse, CompletionResponseGen, MockLLM
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.llms.mock import MockLLMWithNonyieldingChatStream
from pydantic import ValidationError

from loopback_server import CountedTokens, LoopbackServer
from token_callbacks import TokenCounter, uninstall
from token_callbacks.ledger import process_ledger
from token_callbacks.records import CallRecord, Outcome, Provenance
from token_callbacks.sinks.memory import MemorySink

from .conftest import BUILDERS, Loopback
from .methods import MESSAGES, TEXT

pytestmark = pytest.mark.usefixtures("nothing_left")

Read = Callable[[Any, str], Awaitable[None]]
"""Opens a stream by this method of an LLM, and reads some, all or none of it."""

CHUNKS = 8
"""More than the opening events of any of the dialects, and fewer than a whole answer."""


BROKEN = r"401|loopback fault|peer closed connection|payload is not completed"
"""What the exceptions of all integrations say, one or the other, of a stream that was refused, broken or cut."""


class ReaderError(Exception):
    """What a reader of a stream raises on its own account."""


def _stream(llm: Any, method: str) -> Any:
    return getattr(llm, method)(MESSAGES if "chat" in method else TEXT)


async def _close(llm: Any, method: str) -> None:
    stream = _stream(llm, method)
    for _ in islice(stream, CHUNKS):
        pass
    stream.close()


async def _delete(llm: Any, method: str) -> None:
    stream = _stream(llm, method)
    for _ in islice(stream, CHUNKS):
        pass
    del stream


async def _raise(llm: Any, method: str) -> None:
    with pytest.raises(ReaderError):
        _read_and_raise(_stream(llm, method))


def _read_and_raise(stream: Any) -> None:
    for _ in islice(stream, CHUNKS):
        pass
    raise ReaderError


async def _never_read(llm: Any, method: str) -> None:
    _stream(llm, method)


async def _aclose(llm: Any, method: str) -> None:
    stream = await _stream(llm, f"a{method}")
    await _read_some(stream)
    await stream.aclose()


async def _adelete(llm: Any, method: str) -> None:
    stream = await _stream(llm, f"a{method}")
    await _read_some(stream)
    del stream
    await _finish_other_tasks()


async def _adelete_last(llm: Any, method: str) -> None:
    """Leave it as the last thing before the event loop ends, which cancels what it finds half closed."""
    await _read_some(await _stream(llm, f"a{method}"))


async def _anever_read(llm: Any, method: str) -> None:
    await _stream(llm, f"a{method}")


async def _read_some(stream: Any) -> None:
    for _ in range(CHUNKS):
        await anext(stream)


async def _finish_other_tasks() -> None:
    """Let the event loop close the async generators that were dropped."""
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)


async def _read_all(llm: Any, method: str) -> None:
    for _ in _stream(llm, method):
        pass


async def _aread_all(llm: Any, method: str) -> None:
    async for _ in await _stream(llm, f"a{method}"):
        pass


LEAVING: dict[str, Read] = {
    "close": _close,
    "del": _delete,
    "exception of the reader": _raise,
    "aclose": _aclose,
    "async del": _adelete,
    "async del last": _adelete_last,
}
NEVER_READ: dict[str, Read] = {"sync": _never_read, "async": _anever_read}
READING: dict[str, Read] = {"sync": _read_all, "async": _aread_all}

LAZY = ("OpenAI", "OpenAI-instruct", "OpenAIResponses", "OpenAILike(chat)", "OpenAILike(compl)", "LiteLLM")
STREAMING = (*LAZY, "Anthropic")
INTEGRATIONS = pytest.mark.parametrize("integration", STREAMING)
METHODS = pytest.mark.parametrize("method", ["stream_chat", "stream_complete"])
READS = pytest.mark.parametrize("read", READING.values(), ids=READING)


@pytest.fixture
def server(loopback: Loopback, counted_tokens: CountedTokens) -> LoopbackServer:
    """Give a server that reports no usage before a stream's end, and whose prompts our count can equal."""
    return loopback(tokens=counted_tokens, stream_usage="never")


@INTEGRATIONS
@METHODS
@pytest.mark.parametrize("read", LEAVING.values(), ids=LEAVING)
def test_a_stream_that_is_left_is_one_record_of_what_arrived(
    server: LoopbackServer, counter: TokenCounter, memory: MemorySink, *, integration: str, method: str, read: Read
) -> None:
    """Whoever leaves a stream half read has sent its prompt, and got at least the text that arrived."""
    _run(counter, read, BUILDERS[integration](server), method)

    record = _only(memory)
    assert Outcome.ABANDONED is record.outcome
    _check_partial(record, server)


@INTEGRATIONS
@METHODS
@READS
@pytest.mark.parametrize("fault", ["cut_after", "error_after"])
def test_a_stream_that_breaks_is_one_failed_record_of_what_arrived(
    server: LoopbackServer,
    counter: TokenCounter,
    memory: MemorySink,
    *,
    integration: str,
    method: str,
    read: Read,
    fault: str,
) -> None:
    """A stream that is cut off, or ends in an error event, is a failed call with the prompt and the text so far."""
    server.fail_next(**{fault: CHUNKS})
    with pytest.raises(Exception, match=BROKEN) as caught:
        _run(counter, read, BUILDERS[integration](server), method)

    record = _only(memory)
    assert Outcome.FAILED is record.outcome
    if integration != "LiteLLM":  # which wraps the client's exception; LlamaIndex and LiteLLM may each be first to tell
        assert type(caught.value).__name__ == record.error
    _check_partial(record, server)


@INTEGRATIONS
@METHODS
@READS
def test_a_refused_stream_is_one_failed_record_without_figures(
    server: LoopbackServer, counter: TokenCounter, memory: MemorySink, *, integration: str, method: str, read: Read
) -> None:
    """A stream that the provider refuses is a failed call, and no figure is made up for it."""
    server.fail_next(status=401)
    with pytest.raises(Exception, match=BROKEN):
        _run(counter, read, BUILDERS[integration](server), method)

    record = _only(memory)
    assert (Outcome.FAILED, "AuthenticationError") == (record.outcome, record.error)
    assert (None, None) == (record.usage.prompt_tokens, record.usage.completion_tokens)


@INTEGRATIONS
@READS
@pytest.mark.parametrize(
    "fault", [{"status": 401}, {"cut_after": CHUNKS}, {"error_after": CHUNKS}], ids=["refused", "cut", "error event"]
)
def test_the_reader_sees_the_same_exception_as_without_us(
    server: LoopbackServer, integration: str, read: Read, fault: dict[str, int]
) -> None:
    """The exception of a stream that fails reaches its reader as if nobody counted."""
    uninstall()
    expected = _error(server, fault, read, integration)
    counter = TokenCounter(log_dir=None)
    actual = _error(server, fault, read, integration)
    counter.close()

    assert (type(expected), str(expected)) == (type(actual), str(actual))


@pytest.mark.parametrize("integration", LAZY)
@METHODS
@pytest.mark.parametrize("read", NEVER_READ.values(), ids=NEVER_READ)
def test_a_stream_that_is_never_read_was_not_started(
    server: LoopbackServer, counter: TokenCounter, memory: MemorySink, *, integration: str, method: str, read: Read
) -> None:
    """Where LlamaIndex sends the request with the first chunk, a stream that nobody reads costs nothing."""
    summary = _run(counter, read, BUILDERS[integration](server), method)

    record = _only(memory)
    assert [] == server.ledger
    assert Outcome.NOT_STARTED is record.outcome
    assert (False, 0) == (summary.lower_bound, summary.total_llm_tokens)


@METHODS
@pytest.mark.parametrize("read", NEVER_READ.values(), ids=NEVER_READ)
def test_an_anthropic_stream_that_is_never_read_is_abandoned(
    server: LoopbackServer, counter: TokenCounter, memory: MemorySink, method: str, read: Read
) -> None:
    """Anthropic's class sends the request with the call itself, so what nobody read was used: the prompt, at least."""
    summary = _run(counter, read, BUILDERS["Anthropic"](server), method)

    record = _only(memory)
    assert 1 == len(server.ledger)
    assert (Outcome.ABANDONED, 0) == (record.outcome, record.usage.completion_tokens)
    assert (Provenance.ESTIMATED, Provenance.PARTIAL) == (record.provenance.prompt, record.provenance.completion)
    assert record.usage.prompt_tokens
    assert summary.lower_bound


@pytest.mark.parametrize("integration", ["OpenAI", "LiteLLM"])
def test_the_garbage_collector_waits_for_no_lock_to_close_a_stream(
    server: LoopbackServer, counter: TokenCounter, memory: MemorySink, integration: str
) -> None:
    """It may run on a thread that holds a lock of the host's, for which whoever holds ours may be waiting."""

    def leave() -> None:
        stream = _stream(BUILDERS[integration](server), "stream_chat")
        for _ in islice(stream, CHUNKS):
            pass
        cycle: list[Any] = [stream]
        cycle.append(cycle)

    def collect() -> None:
        gc.collect()
        is_done.set()

    is_done = threading.Event()
    gc.disable()
    try:
        with counter.run("left") as run:
            leave()
            with process_ledger().lock:
                collector = threading.Thread(target=collect)
                collector.start()
                is_free = is_done.wait(60)
            collector.join()
    finally:
        gc.enable()

    assert is_free
    record = _only(memory)
    assert (Outcome.ABANDONED, run.run_id) == (record.outcome, record.run_id)
    _check_partial(record, server)


@INTEGRATIONS
@METHODS
def test_a_cancelled_reader_leaves_one_cancelled_record(
    server: LoopbackServer, counter: TokenCounter, memory: MemorySink, integration: str, method: str
) -> None:
    """A task that is cancelled while it waits for the next chunk leaves a record of the chunks it got."""
    llm = BUILDERS[integration](server)

    async def cancel_once_text_has_come() -> None:
        has_text = asyncio.Event()
        reading = asyncio.create_task(_aread_and_tell(llm, method, has_text))
        await has_text.wait()
        await _cancel(reading)

    with counter.run("cancelled"), server.hold(after_chunks=CHUNKS):
        asyncio.run(cancel_once_text_has_come())

    record = _only(memory)
    assert Outcome.CANCELLED is record.outcome
    _check_partial(record, server)


@INTEGRATIONS
@pytest.mark.parametrize("method", ["achat", "acomplete"])
def test_a_cancelled_plain_call_leaves_one_cancelled_record(
    server: LoopbackServer, counter: TokenCounter, memory: MemorySink, integration: str, method: str
) -> None:
    """A task that is cancelled while it waits for a plain answer leaves a record whose figures nobody knows."""
    llm = BUILDERS[integration](server)

    async def cancel_once_sent() -> None:
        answering = asyncio.ensure_future(_stream(llm, method))
        await asyncio.to_thread(hold.reached.wait, 120)
        await _cancel(answering)

    with counter.run("cancelled") as run, server.hold() as hold:
        asyncio.run(cancel_once_sent())

    record = _only(memory)
    assert Outcome.CANCELLED is record.outcome
    assert (None, None) == (record.usage.prompt_tokens, record.usage.completion_tokens)
    assert run.summary.lower_bound


@INTEGRATIONS
def test_a_stream_left_open_when_the_counter_closes_is_abandoned(
    server: LoopbackServer, counter: TokenCounter, memory: MemorySink, integration: str
) -> None:
    """A stream that is still open when the counter closes gets its record then, and reading on adds none."""
    stream = BUILDERS[integration](server).stream_chat(MESSAGES)
    for _ in islice(stream, CHUNKS):
        pass
    counter.close()
    for _ in stream:
        pass

    record = _only(memory)
    assert Outcome.ABANDONED is record.outcome
    _check_partial(record, server)


@pytest.mark.parametrize("integration", ["OpenAI", "LiteLLM"])
@READS
def test_a_whole_stream_tells_when_its_first_chunk_came(
    server: LoopbackServer, counter: TokenCounter, memory: MemorySink, integration: str, read: Read
) -> None:
    """A stream's record has the time to its first chunk, whichever framework closes it."""
    _run(counter, read, BUILDERS[integration](server), "stream_chat")

    seconds = _only(memory).time_to_first_token_seconds
    assert seconds is not None
    assert 0 <= seconds


@READS
def test_usage_in_the_stream_of_a_reader_who_leaves_is_a_lower_bound(
    loopback: Loopback, counter: TokenCounter, memory: MemorySink, read: Read
) -> None:
    """Usage that grows with every chunk is taken as far as it came, and marked as no more than that."""
    server = loopback(stream_usage="every_chunk")
    server.fail_next(cut_after=CHUNKS)
    with pytest.raises(Exception, match="peer closed connection"):
        _run(counter, read, BUILDERS["OpenAI"](server), "stream_chat")

    record = _only(memory)
    [entry] = server.ledger
    assert (entry.prompt_tokens, Provenance.REPORTED) == (record.usage.prompt_tokens, record.provenance.prompt)
    assert Provenance.PARTIAL is record.provenance.completion
    assert 0 < (record.usage.completion_tokens or 0) < entry.completion_tokens


@READS
def test_a_cut_within_the_first_words_does_not_take_a_placeholder_for_the_truth(
    server: LoopbackServer, counter: TokenCounter, memory: MemorySink, read: Read
) -> None:
    """Anthropic's first event tells one output token, as a placeholder, also where one token is all that came."""
    server.fail_next(cut_after=4)
    with pytest.raises(Exception, match="peer closed connection"):
        _run(counter, read, BUILDERS["Anthropic"](server), "stream_chat")

    assert Provenance.PARTIAL is _only(memory).provenance.completion


class EmptyCompletions(MockLLM):
    """A model whose completion stream ends before it yields anything."""

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Yield nothing."""
        return (response for response in list[CompletionResponse]())


def test_a_chat_stream_without_a_chunk_is_one_record(counter: TokenCounter, memory: MemorySink) -> None:
    """An answer that is empty down to the wire has a prompt, and nothing of which it could be told what it cost."""
    _run(counter, _read_all, MockLLMWithNonyieldingChatStream(), "stream_chat")

    record = _only(memory)
    assert Outcome.COMPLETED is record.outcome
    assert record.usage.prompt_tokens
    assert (None, Provenance.MISSING) == (record.usage.completion_tokens, record.provenance.completion)


def test_a_completion_stream_without_a_chunk_is_one_record(counter: TokenCounter, memory: MemorySink) -> None:
    """LlamaIndex 0.14.25 raises an error of its own at the end of an empty completion stream: still one record."""
    with pytest.raises(ValidationError):
        _run(counter, _read_all, EmptyCompletions(), "stream_complete")

    assert 1 == len(memory.records)


@pytest.mark.parametrize("read", [_read_all, _aread_all], ids=["sync", "async"])
def test_a_completion_stream_without_a_chunk_has_failed(counter: TokenCounter, memory: MemorySink, read: Read) -> None:
    """A completion stream that ends in LlamaIndex's own error is a failed call, though nothing is told of it."""
    with pytest.raises(ValidationError):
        _run(counter, read, EmptyCompletions(), "stream_complete")

    assert Outcome.FAILED is _only(memory).outcome


def _run(counter: TokenCounter, read: Read, llm: Any, method: str) -> Any:
    with counter.run("stream") as run:
        asyncio.run(read(llm, method))
    assert 0 == run.summary.internal_errors
    return run.summary


async def _aread_and_tell(llm: Any, method: str, has_text: asyncio.Event) -> None:
    async for response in await _stream(llm, f"a{method}"):
        if response.delta:
            has_text.set()


async def _cancel(task: asyncio.Future[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def _error(server: LoopbackServer, fault: dict[str, int], read: Read, integration: str) -> BaseException:
    server.fail_next(**fault)
    with pytest.raises(Exception, match=BROKEN) as caught:
        asyncio.run(read(BUILDERS[integration](server), "stream_chat"))
    return caught.value


def _only(memory: MemorySink) -> CallRecord:
    [record] = memory.records
    assert record.streamed or record.outcome in (Outcome.FAILED, Outcome.CANCELLED)
    return record


def _check_partial(record: CallRecord, server: LoopbackServer) -> None:
    """Check a record of a broken stream: the whole prompt, and a part of the completion."""
    [entry] = server.ledger
    if record.provenance.prompt in (Provenance.REPORTED, Provenance.COUNTED):
        assert entry.prompt_tokens == record.usage.prompt_tokens
    else:
        assert Provenance.ESTIMATED is record.provenance.prompt
        assert record.usage.prompt_tokens
    assert Provenance.PARTIAL is record.provenance.completion
    assert 0 < (record.usage.completion_tokens or 0) <= entry.completion_tokens
