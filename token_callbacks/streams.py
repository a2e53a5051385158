"""Count a stream that the program reads by hand, as people do with vLLM, llama.cpp, Ollama and DashScope.

No framework tells of such a stream, so the items themselves are looked at on their way to the caller: Server-Sent
Events as bytes or text, JSON lines, parsed events, and the objects of a provider's SDK. Each goes on as the very object
it is; the stream becomes one record, in the run that was current when ``counter.stream(...)`` was called.

How text is cut into items need not be said. A line break ends a line, wherever the items are cut. Items without any, as
``iter_lines()`` of httpx and requests gives them, are lines of their own: a line whose JSON object is complete is over,
since nothing but a line break can follow it, and while no item of the stream has held a line break, an item that opens
with the name of an SSE field opens a line, and an empty one is an empty line.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from types import AsyncGeneratorType, GeneratorType, TracebackType
from typing import Any, Generic, Self, TypedDict, TypeVar, cast

import msgspec

from token_callbacks.answers import Answer
from token_callbacks.errors import InvalidArgument
from token_callbacks.evidence import Completion, Names, Prompt
from token_callbacks.framing import DONE, TextReader, events_in
from token_callbacks.ledger import Ledger, OpenCall
from token_callbacks.records import Operation, Outcome
from token_callbacks.runs import Scope, is_cancellation
from token_callbacks.usage import Misfits, Reading, UsageReader, part

FRAMEWORK = "stream"

_Item = TypeVar("_Item", covariant=True)  # noqa: PLC0105 - not public


class Request(TypedDict, total=False):
    """What ``counter.stream`` may be told of the request behind the stream."""

    model: str | None
    messages: Sequence[Any] | str | None
    operation: str
    provider: str | None
    tools: Sequence[Mapping[str, Any]]


# --- what the caller gets


class CountedStream(Iterator[_Item], Generic[_Item]):
    """A stream on its way to its reader: the same items, the same exceptions, and one record at its end.

    The record is ``completed`` once the stream is read to its end or to its last event (``[DONE]``, ``message_stop``,
    ``response.completed``, ``"done": true``), and where it is left after every choice has its finish reason. It is
    ``failed`` where the stream raises, tells an error, or stops in the middle of a message of Anthropic or the
    Responses API; ``cancelled`` on cancellation; else ``abandoned`` when it is closed or dropped. A stream of which
    nothing was read is ``abandoned`` too, since its request is sent; only an untouched generator that was given no HTTP
    response counts as ``not_started``.
    """

    def __init__(self, chunks: Iterable[_Item], tap: _Tap) -> None:
        self._chunks = chunks
        self._tap = tap
        self._items: Iterator[_Item] | None = None
        tap.watch(self)

    def __iter__(self) -> Self:
        """Return itself."""
        return self

    def __next__(self) -> _Item:
        """Hand on the next item; raises what the stream raises."""
        try:
            if self._items is None:
                self._tap.start()
                self._items = iter(self._chunks)
            item = next(self._items)
        except StopIteration:
            self._tap.end(Outcome.COMPLETED)
            raise
        except BaseException as error:
            self._tap.fail(error)
            raise
        self._tap.take(item)
        return item

    def close(self) -> None:
        """Leave the stream and close what is underneath, if it can be; raises what that raises."""
        self._tap.end(Outcome.ABANDONED)
        for stream in (self._items, self._chunks):
            close = getattr(stream, "close", None)
            if callable(close):
                close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the stream and close what is underneath."""
        self._tap.leave(error)
        self.close()


class AsyncCountedStream(AsyncIterator[_Item], Generic[_Item]):
    """The same for ``async for``: the items, the exceptions and the record of a ``CountedStream``."""

    def __init__(self, chunks: AsyncIterable[_Item], tap: _Tap) -> None:
        self._async_chunks = chunks
        self._tap = tap
        self._async_items: AsyncIterator[_Item] | None = None
        tap.watch(self)

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> _Item:
        """Hand on the next item; raises what the stream raises."""
        try:
            if self._async_items is None:
                self._tap.start()
                self._async_items = aiter(self._async_chunks)
            item = await anext(self._async_items)
        except StopAsyncIteration:
            self._tap.end(Outcome.COMPLETED)
            raise
        except BaseException as error:
            self._tap.fail(error)
            raise
        self._tap.take(item)
        return item

    async def aclose(self) -> None:
        """Leave the stream and close what is underneath, if it can be; raises what that raises."""
        self._tap.end(Outcome.ABANDONED)
        for stream in (self._async_items, self._async_chunks):
            close = getattr(stream, "aclose", None) or getattr(stream, "close", None)
            closing = close() if callable(close) else None
            if inspect.isawaitable(closing):
                await closing

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the stream and close what is underneath."""
        self._tap.leave(error)
        await self.aclose()


class _EitherStream(CountedStream[_Item], AsyncCountedStream[_Item]):
    """For what can be read both ways."""

    def __init__(self, chunks: Any, tap: _Tap) -> None:
        CountedStream.__init__(self, chunks, tap)
        self._async_chunks = chunks
        self._async_items = None


def open_stream(
    ledger: Ledger,
    scope: Scope,
    frameworks: Sequence[str],
    chunks: Any,
    *,
    model: str | None,
    messages: Sequence[Any] | str | None,
    operation: str,
    provider: str | None,
    tools: Sequence[Mapping[str, Any]],
) -> CountedStream[Any] | AsyncCountedStream[Any]:
    """Open the call and wrap the stream; raises ``InvalidArgument`` for what cannot be used.

    ``scope``: where the calls of the counter that was asked belong now. ``frameworks``: those that it counts by itself.
    """
    kind = _kind_of(chunks)
    asked = _checked_operation(operation)
    request = _Request(
        operation=asked,
        provider=_checked_name(provider, "provider"),
        model=_checked_name(model, "model"),
        prompt=_checked_prompt(messages, tools, asked),
    )
    call = ledger.shielded(_open_call)(ledger, scope, request)
    tap = _Tap(ledger, call, request, is_sent=_is_sent(chunks), frameworks=frameworks)
    if call is not None:
        call.evidence = tap.evidence
    return kind(chunks, tap)


class _Request(msgspec.Struct, frozen=True, kw_only=True):
    operation: Operation
    provider: str | None
    model: str | None
    prompt: Prompt | None


def _open_call(ledger: Ledger, scope: Scope, request: _Request) -> OpenCall:
    # Read inside a call of a framework (a LlamaIndex LLM of the user's own, say), the stream is that call's request.
    seats, outer = ledger.origin(FRAMEWORK, ledger.enclosing_call())
    if all(seat.participant is not scope.participant for seat in seats):
        seats = [*seats, scope]
    call = ledger.open_call(
        (seats, outer),
        framework=FRAMEWORK,
        operation=request.operation,
        provider=request.provider,
        model=request.model,
    )
    call.streamed = True
    return call


class _Tap:
    """The bookkeeping of one stream; never raises. It must not hold on to the stream, whose end it waits for."""

    def __init__(
        self, ledger: Ledger, call: OpenCall | None, request: _Request, *, is_sent: bool, frameworks: Sequence[str]
    ) -> None:
        self.evidence = StreamEvidence(request.operation, request.prompt)
        self._ledger = ledger
        self._call = call
        self._is_sent = is_sent
        self._frameworks = frameworks
        self._readers: dict[type, Callable[[Any], bool]] = {}
        self._look: Callable[[Any], bool | None] = ledger.shielded(self._look_at)
        self._close = ledger.shielded(self._close_call)
        self._finalizer: weakref.finalize[Any, Any] | None = None

    def watch(self, stream: object) -> None:
        """Notice when the stream is dropped."""
        if self._call is not None:
            self._finalizer = weakref.finalize(stream, self._drop)
            self._finalizer.atexit = False  # the counter closes what is open then

    def start(self) -> None:
        """Take that the stream is asked for its first item: whatever it is, it is sent now."""
        self._is_sent = True

    def take(self, item: object) -> None:
        """Look at an item that goes to the caller."""
        if self._call is not None and self._look(item) is None:
            self._look = _ignore  # a fault of ours, noted once; the figures stay those of what was understood

    def end(self, outcome: Outcome, error: BaseException | None = None) -> None:
        """Close the call, unless it is closed."""
        if self._call is not None:
            self._close(outcome, error)
            self._call = None

    def fail(self, error: BaseException) -> None:
        """Close the call with what the stream raised."""
        self.end(Outcome.CANCELLED if is_cancellation(error) else Outcome.FAILED, error)

    def leave(self, error: BaseException | None) -> None:
        """Close the call because its reader leaves, with an exception of its own or without."""
        if error is not None and is_cancellation(error):
            self.fail(error)
        self.end(Outcome.ABANDONED)

    def _look_at(self, item: object) -> bool:
        call = cast("OpenCall", self._call)
        reader = self._readers.get(type(item))
        if reader is None:
            if call.first_token_at is None and _root_of(item) in self._frameworks:
                call.seats = ()  # that framework's hooks have the call already
            reader = self._readers[type(item)] = self.evidence.reader_for(item)
        if call.first_token_at is None:
            call.first_token_at = self._ledger.clock()
        reader(item)
        if call.model is None:
            call.model = self.evidence.answer.model
        if self.evidence.answer.is_over:
            self.end(Outcome.COMPLETED)
        return True

    def _close_call(self, outcome: Outcome, error: BaseException | None) -> None:
        if self._finalizer is not None:
            self._finalizer.detach()
        call = cast("OpenCall", self._call)
        _leave_to_wire(call)
        try:
            outcome = self._outcome(outcome)
        finally:
            self._ledger.close_call(call, outcome=outcome, error=error)

    def _drop(self) -> None:
        # Runs inside the garbage collector: takes no lock.
        call = self._call
        if call is not None and call.is_open:
            outcome = Outcome.ABANDONED
            _leave_to_wire(call)
            try:
                outcome = self._outcome(outcome)
            finally:
                self._ledger.call_gone(call, outcome)

    def _outcome(self, outcome: Outcome) -> Outcome:
        """Correct how the stream was left by what it has told."""
        if outcome not in (Outcome.COMPLETED, Outcome.ABANDONED):
            return outcome
        if not self._is_sent:
            return Outcome.NOT_STARTED
        self.evidence.finish()
        answer = self.evidence.answer
        if answer.has_failed or (outcome is Outcome.COMPLETED and answer.is_cut):
            return Outcome.FAILED
        return Outcome.COMPLETED if answer.is_whole else outcome


def _leave_to_wire(call: OpenCall) -> None:
    """Make no record where the request was seen on the wire, inside the framework's call that this one is made in."""
    outer = call.outer
    if outer is not None and any(inner.ends_with_outer and inner.streamed for inner in outer.inner):
        call.seats = ()
        call.outer = None


def _ignore(_item: object) -> bool:
    return True


def _root_of(item: object) -> str:
    return type(item).__module__.partition(".")[0]


# --- what the stream says


class StreamEvidence:
    """What the items of one stream have told; of them it keeps usage, names and the text that came back."""

    def __init__(self, operation: Operation, prompt: Prompt | None) -> None:
        self.answer = Answer()
        self._prompt = prompt
        self._usage = UsageReader(operation)
        self._text: TextReader | None = None

    def reader_for(self, item: object) -> Callable[[Any], Any]:
        """Tell what reads items of this one's type."""
        if isinstance(item, str):
            return self._take_text
        if isinstance(item, bytes | bytearray | memoryview):
            return self._take_bytes
        if item is None or isinstance(item, int | float | list | tuple):
            return _ignore
        if not isinstance(item, Mapping) and isinstance(part(item, "data"), str) and part(item, "event") is not None:
            return self._take_server_sent  # httpx_sse.ServerSentEvent, sseclient.Event
        return self._take_event

    def finish(self) -> None:
        """Read what is left of a last line without a line break."""
        if self._text is not None:
            for event in self._text.finish():
                self._take_event(event)

    def _take_text(self, text: str) -> None:
        if self._text is None:
            self._text = TextReader()
        for event in self._text.take(text):
            self._take_event(event)

    def _take_bytes(self, piece: bytes) -> None:
        if self._text is None:
            self._text = TextReader()
        text = self._text.decoded(piece)
        if text or not piece:  # else it is a part of one character
            self._take_text(text)

    def _take_server_sent(self, item: Any) -> None:
        for event in events_in(item.data):
            self._take_event(event)

    def _take_event(self, event: Any) -> None:
        if event is DONE:
            self.answer.is_over = True
            return
        self._usage.take(event)
        self.answer.take(event)

    # What the ledger asks (evidence.Evidence).

    def reading(self, operation: Operation) -> Reading | None:  # noqa: ARG002 - told at the start
        """Read what the stream told of its usage."""
        return self._usage.reading()

    def misfits(self, operation: Operation) -> Misfits:  # noqa: ARG002 - told at the start
        """Name what is no count in the usage that the stream told."""
        return self._usage.misfits()

    def rules_out_usage(self) -> bool:
        """Say no: what the stream did not tell, nobody else denies."""
        return False

    def has_last_word(self) -> bool:
        """Tell whether every choice had its finish reason: what was told by then is not taken back."""
        return self.answer.is_whole

    def prompt(self) -> Prompt | None:
        """Give what the caller said was sent."""
        return self._prompt

    def completion(self) -> Completion | None:
        """Gather the text and tool calls of all choices; ``None`` where no item was understood as an answer."""
        return self.answer.completion()

    def inputs(self) -> None:
        """Give none: embeddings are not streamed."""

    def names(self) -> Names:
        """Tell the response's id and its model, as the provider named them."""
        return self.answer.id, self.answer.model


# --- what the caller passed


def _kind_of(chunks: object) -> Callable[[Any, _Tap], CountedStream[Any] | AsyncCountedStream[Any]]:
    if not isinstance(chunks, str | bytes | bytearray | memoryview | Mapping):
        if isinstance(chunks, Iterable):
            return _EitherStream if isinstance(chunks, AsyncIterable) else CountedStream
        if isinstance(chunks, AsyncIterable):
            return AsyncCountedStream
    if inspect.iscoroutine(chunks):
        chunks.close()  # or Python would say on its own, and less clearly, that it was not awaited
        raise InvalidArgument(
            "stream() got a coroutine: await it, `counter.stream(await client...create(stream=True))`"
        )
    if callable(getattr(chunks, "iter_lines", None)):
        raise InvalidArgument(
            f"stream() takes what a response yields, not {type(chunks).__name__}: .iter_lines() of it"
        )
    raise InvalidArgument(
        f"stream() takes an iterable or async iterable of lines, pieces or events, not {type(chunks).__name__}:"
        " response.iter_lines(), or [body] for a body at hand"
    )


def _checked_operation(operation: object) -> Operation:
    streamed = [Operation.CHAT, Operation.COMPLETION, Operation.RESPONSES]
    if operation not in streamed:
        raise InvalidArgument(f"operation is one of {', '.join(repr(it.value) for it in streamed)}, not {operation!r}")
    return Operation(str(operation))


def _checked_name(name: object, what: str) -> str | None:
    if name is not None and (not isinstance(name, str) or not name):
        raise InvalidArgument(f"{what} is a non-empty string, or None where it is not known, not {name!r}")
    return name


def _checked_prompt(messages: object, tools: object, operation: Operation) -> Prompt | None:
    offered = _checked_tools(tools)
    if messages is None:
        return None
    if isinstance(messages, str):
        is_bare = operation is Operation.COMPLETION
        return Prompt(messages=messages if is_bare else [{"role": "user", "content": messages}], tools=offered)
    if not isinstance(messages, list | tuple) or not all(
        isinstance(message, Mapping) or hasattr(message, "role") for message in messages
    ):
        raise InvalidArgument(
            "messages are a list of messages as OpenAI shapes them, [{'role': 'user', 'content': ...}], a prompt as one"
            f" string, or None where they are not known, not {_kind_named(messages)}"
        )
    return Prompt(messages=tuple(messages), tools=offered)  # a copy: the caller may append the answer


def _checked_tools(tools: object) -> tuple[Mapping[str, Any], ...]:
    if tools is None:
        return ()
    if not isinstance(tools, list | tuple) or not all(isinstance(tool, Mapping) for tool in tools):
        raise InvalidArgument(f"tools are a list of tools as OpenAI shapes them, not {_kind_named(tools)}")
    return tuple(tools)


def _kind_named(value: object) -> str:
    # Never the value: an error's text ends up in logs, and this may be a prompt.
    if isinstance(value, list | tuple) and value:
        return f"a {type(value).__name__} with {', '.join(sorted({type(item).__name__ for item in value}))}"
    return type(value).__name__


def _is_sent(chunks: object) -> bool:
    """Tell whether the request behind a stream is sent: not that of a generator nobody touched, given no response."""
    if isinstance(chunks, GeneratorType):
        frame, is_untouched = chunks.gi_frame, inspect.getgeneratorstate(chunks) == inspect.GEN_CREATED
    elif isinstance(chunks, AsyncGeneratorType):
        # inspect.getasyncgenstate came with Python 3.12.
        frame, is_untouched = chunks.ag_frame, chunks.ag_frame is not None and chunks.ag_frame.f_lasti <= 0
    else:
        return True
    if not is_untouched or frame is None:
        return True
    # ".0" is what a generator expression goes through; "self" of iter_lines() is a response.
    return any(
        _is_sent(value) if name == ".0" else _is_response(value) for name, value in tuple(frame.f_locals.items())
    )


def _is_response(value: object) -> bool:
    missing = object()
    return any(inspect.getattr_static(value, name, missing) is not missing for name in ("status_code", "status"))
