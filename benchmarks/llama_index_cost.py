"""What our hooks add to a LlamaIndex call and to each chunk of a stream, beside LlamaIndex's own handlers.

A real LLM class under the real dispatcher, which answers at once with what LlamaIndex's OpenAI class would have made of
a response of openai's client. "No handler" is LlamaIndex as it is imported.
"""

# ruff: noqa: ARG002 - the signatures are LlamaIndex's

from __future__ import annotations

import json
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import httpx
import msgspec
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, LLMMetadata
from llama_index.core.callbacks import CallbackManager
from llama_index.core.callbacks import TokenCountingHandler as LlamaIndexTokenCountingHandler
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.llms import LLM, CustomLLM
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.llms.openai import OpenAI
from llama_index_instrumentation import get_dispatcher
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion

from benchmarks.side_by_side import Variant, clock, repeated, side_by_side
from benchmarks.tables import LINE_LIMIT_MICROSECONDS, Row, limited
from token_callbacks import TokenCounter, TokenCountingHandler
from token_callbacks.ledger import process_ledger

_TEXT = "The library opens at nine in the morning, and it closes at half past six. "
_USAGE = CompletionUsage.model_validate(
    {
        "prompt_tokens": 1729,
        "completion_tokens": 512,
        "total_tokens": 2241,
        "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 128, "audio_tokens": 0},
    }
)
_CHUNKS = 500
_CHUNK_TURNS = 60
_CALLS = 50
_CALL_TURNS = 60
_HISTORIES = (1, 10, 50)


def rows() -> Iterator[Row]:
    """Measure the chunk, then the call with and without usage in the response."""
    with attached() as hooks:
        for messages in _HISTORIES:
            yield from _chunk_rows(hooks, history_of(messages))
        yield _wire_row(hooks)
        for messages in _HISTORIES:
            yield from _call_rows(hooks, history_of(messages), "usage in raw", usage=_USAGE)
        for messages in _HISTORIES:
            yield from _call_rows(hooks, history_of(messages), "no usage, both count", usage=None)


class ReplayLLM(CustomLLM):
    """Answers at once: a chat with ``answer``, a stream with chunks made one by one, as an integration makes them."""

    answer: ChatResponse

    @property
    def metadata(self) -> LLMMetadata:
        """Name a model whose vocabulary is known."""
        return LLMMetadata(model_name="gpt-4o-mini")

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer."""
        return self.answer

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Iterator[ChatResponse]:
        """Answer in pieces."""
        return self._chunks()

    def _chunks(self) -> Iterator[ChatResponse]:
        for _ in range(_CHUNKS + 2):
            yield ChatResponse(message=ChatMessage(role="assistant", content="word "), delta="word ", raw={})

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer nothing: nobody asks."""
        return CompletionResponse(text="")

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Iterator[CompletionResponse]:
        """Answer nothing: nobody asks."""
        yield CompletionResponse(text="")


class NoopHandler(BaseEventHandler):
    """The least that a handler can do: what LlamaIndex's dispatcher takes for having one more."""

    @classmethod
    def class_name(cls) -> str:
        """Name it."""
        return "NoopHandler"

    def handle(self, event: Any, **kwargs: Any) -> None:
        """Do nothing."""


class Hooks(msgspec.Struct, frozen=True, kw_only=True):
    """The root dispatcher's handlers, event and span, in each of the states that are compared."""

    none: tuple[list[Any], list[Any]]
    noop: tuple[list[Any], list[Any]]
    ours: tuple[list[Any], list[Any]]
    in_memory: TokenCounter
    in_files: TokenCounter

    def seat(self, *counters: TokenCounter) -> None:
        """Let these counters alone take part."""
        for counter in (self.in_memory, self.in_files):
            process_ledger().part_with(counter)
        for counter in counters:
            process_ledger().join(counter)


@contextmanager
def attached() -> Iterator[Hooks]:
    """Hook LlamaIndex, and give the handlers of each state."""
    none = handlers_now()
    with tempfile.TemporaryDirectory() as folder:
        in_memory = TokenCounter(log_dir=None, frameworks=("llama_index",))
        in_files = TokenCounter(log_dir=folder, frameworks=("llama_index",))
        ours = handlers_now()
        yield Hooks(
            none=none, noop=([*none[0], NoopHandler()], none[1]), ours=ours, in_memory=in_memory, in_files=in_files
        )
        set_handlers(ours)
        in_memory.close()
        in_files.uninstall()


def handlers_now() -> tuple[list[Any], list[Any]]:
    """Tell the root dispatcher's handlers, event and span."""
    root = get_dispatcher()
    return list(root.event_handlers), list(root.span_handlers)


def set_handlers(handlers: tuple[list[Any], list[Any]]) -> None:
    """Put others in their place."""
    root = get_dispatcher()
    root.event_handlers, root.span_handlers = handlers


def history_of(messages: int) -> list[ChatMessage]:
    """Make a history of so many messages."""
    return [ChatMessage(role="user", content=_TEXT * 3) for _ in range(messages)]


def replaying(*handlers: Any, usage: CompletionUsage | None = _USAGE) -> ReplayLLM:
    """Make a model with these handlers in its callback manager."""
    return ReplayLLM(answer=_answer(usage), callback_manager=CallbackManager(list(handlers)))


def _answer(usage: CompletionUsage | None) -> ChatResponse:
    raw = ChatCompletion.model_validate(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "gpt-4o-mini-2024-07-18",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": _TEXT}}],
            "usage": usage,
        }
    )
    message = ChatMessage(role="assistant", content=_TEXT)
    if usage is None:
        return ChatResponse(message=message, raw=raw)
    named = ("prompt_tokens", "completion_tokens", "total_tokens")
    return ChatResponse(message=message, raw=raw, additional_kwargs={name: getattr(usage, name) for name in named})


def _chunk_rows(hooks: Hooks, messages: list[ChatMessage]) -> Iterator[Row]:
    hooks.seat(hooks.in_memory)
    plain, theirs = replaying(), replaying(LlamaIndexTokenCountingHandler())
    timings = side_by_side(
        {
            "none": per_chunk(plain, messages, hooks.none),
            "a no-op handler": per_chunk(plain, messages, hooks.noop),
            "LlamaIndex's TokenCountingHandler": per_chunk(theirs, messages, hooks.none),
            "ours": per_chunk(plain, messages, hooks.ours),
        },
        turns=_CHUNK_TURNS,
    )
    others = ("a no-op handler", "LlamaIndex's TokenCountingHandler")
    added = {name: timings.added(name, over="none") * 1e6 for name in (*others, "ours")}
    yield limited(
        f"LlamaIndex, a streamed chunk, history of {len(messages)}",
        added["ours"],
        limit=0.5,
        unit="us",
        ours=f"+{added['ours']:.2f} us",
        baseline=f"no handler: {timings.seconds('none') * 1e6:.1f} us",
        compared=", ".join(f"{name} {added[name]:+.2f} us" for name in others),
    )


def _wire_row(hooks: Hooks) -> Row:
    """Stream through LlamaIndex's class for OpenAI, so that the tap in httpx sees every event."""
    transport = httpx.MockTransport(_streamed)
    llm = OpenAI(model="gpt-4o-mini", api_key="sk-x", http_client=httpx.Client(transport=transport))
    unasking = TokenCounter(log_dir=None, frameworks=("llama_index",), request_stream_usage=False)
    process_ledger().part_with(unasking)
    asked, plainly = "ours", "with request_stream_usage=False"

    def counted_by(counters: Sequence[TokenCounter], handlers: tuple[list[Any], list[Any]]) -> Variant:
        measure = per_chunk(llm, history_of(1), handlers)

        def seconds() -> float:
            hooks.seat()
            for counter in counters:
                process_ledger().join(counter)
            taken = measure()
            for counter in counters:
                process_ledger().part_with(counter)
            return taken

        return seconds

    timings = side_by_side(
        {
            "none": counted_by((), hooks.none),
            asked: counted_by((hooks.in_memory,), hooks.ours),
            plainly: counted_by((unasking,), hooks.ours),
        },
        turns=_CHUNK_TURNS,
    )
    unasking.close()
    none = timings.seconds("none")
    added = {name: timings.added(name, over="none") for name in (asked, plainly)}
    told = {name: f"+{seconds * 1e6:.1f} us" for name, seconds in added.items()}
    ratios = {name: f"{1 + seconds / none:.2f} x" for name, seconds in added.items()}
    return Row(
        what="LlamaIndex, an event of OpenAI's through httpx, the usage asked for",
        ours=told[asked],
        baseline=f"no handler: {none * 1e6:.1f} us",
        compared=f"{ratios[asked]}; {plainly} {told[plainly]} ({ratios[plainly]})",
    )


def _streamed(request: httpx.Request) -> httpx.Response:
    is_asked = b"include_usage" in request.content
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini-2024-07-18"}
    choice = {"index": 0, "delta": {"content": "word "}, "logprobs": None, "finish_reason": None}
    events: list[dict[str, Any]] = [head | {"choices": [choice]} | ({"usage": None} if is_asked else {})] * (
        _CHUNKS + 2
    )
    if is_asked:
        events.append(head | {"choices": [], "usage": _USAGE.model_dump()})
    pieces = [f"data: {json.dumps(event)}\n\n".encode() for event in events]
    return httpx.Response(
        200, headers={"content-type": "text/event-stream"}, content=iter([*pieces, b"data: [DONE]\n\n"])
    )


def per_chunk(llm: LLM, messages: list[ChatMessage], handlers: tuple[list[Any], list[Any]]) -> Variant:
    """Measure a chunk in the middle of a stream."""

    def seconds() -> float:
        set_handlers(handlers)
        stream = llm.stream_chat(messages)
        next(stream)  # opening the call and closing it are no part of a chunk
        start = clock()
        deque(islice(stream, _CHUNKS), maxlen=0)
        end = clock()
        deque(stream, maxlen=0)
        return (end - start) / _CHUNKS

    return seconds


def _call_rows(hooks: Hooks, messages: list[ChatMessage], case: str, *, usage: CompletionUsage | None) -> Iterator[Row]:
    theirs, handler = LlamaIndexTokenCountingHandler(), TokenCountingHandler()
    plain, with_theirs, with_handler = (replaying(*extra, usage=usage) for extra in ((), (theirs,), (handler,)))
    nobody, memory, files = (), (hooks.in_memory,), (hooks.in_files,)
    timings = side_by_side(
        {
            "none": per_chat(plain, messages, lambda: make_ready(hooks, hooks.none, nobody)),
            "theirs": per_chat(with_theirs, messages, lambda: make_ready(hooks, hooks.none, nobody, theirs)),
            "TokenCounter(log_dir=None)": per_chat(plain, messages, lambda: make_ready(hooks, hooks.ours, memory)),
            "TokenCounter, JSONL written": per_chat(plain, messages, lambda: make_ready(hooks, hooks.ours, files)),
            "our TokenCountingHandler": per_chat(
                with_handler, messages, lambda: make_ready(hooks, hooks.ours, nobody, handler)
            ),
        },
        turns=_CALL_TURNS,
    )
    baseline = timings.added("theirs", over="none")
    told = f"LlamaIndex's TokenCountingHandler: +{baseline * 1e6:.1f} us"
    what = f"LlamaIndex, chat(), history of {len(messages)}, {case}"
    for name in ("TokenCounter(log_dir=None)", "our TokenCountingHandler"):
        added = timings.added(name, over="none")
        yield limited(
            f"{what}: {name}",
            added / baseline,
            limit=1.0,
            unit="x",
            ours=f"+{added * 1e6:.1f} us",
            baseline=told,
            compared=f"{added / baseline:.2f} x (no handler: {timings.seconds('none') * 1e6:.0f} us)",
        )
    # Theirs writes nothing: what the line takes has a limit of its own.
    added = timings.added("TokenCounter, JSONL written", over="none")
    line = timings.added("TokenCounter, JSONL written", over="TokenCounter(log_dir=None)") * 1e6
    yield limited(
        f"{what}: TokenCounter, JSONL written",
        line,
        limit=LINE_LIMIT_MICROSECONDS,
        unit="us for the line",
        ours=f"+{added * 1e6:.1f} us, {line:.1f} of it for the line",
        baseline=told,
        compared=f"{added / baseline:.2f} x",
    )


def make_ready(
    hooks: Hooks, handlers: tuple[list[Any], list[Any]], counters: Sequence[TokenCounter], handler: Any = None
) -> None:
    """Let these handlers and counters, and no others, take part; ``handler`` starts from zero."""
    set_handlers(handlers)
    hooks.seat(*counters)
    if handler is not None:
        handler.reset_counts()


def per_chat(llm: ReplayLLM, messages: list[ChatMessage], prepare: Callable[[], None]) -> Variant:
    """Measure a chat, once what it needs is made ready."""
    chats = repeated(lambda: llm.chat(messages), number=_CALLS)

    def seconds() -> float:
        prepare()
        return chats()

    return seconds
