"""Hook LlamaIndex: one event handler and one span handler on its root dispatcher, and a drop-in TokenCountingHandler.

Facts about llama-index-core 0.14.25 that shape this file:

- An event tells its own span and nothing of the spans around it; only a span handler sees parents.
- A stream's span ends before its first chunk. What its generator then calls has no parent span, so a call that opens
  while the generator of an open stream is on the Python stack is taken as made by that stream.
- The dispatcher swallows whatever a handler raises, silently.
- A stream that is dropped half read is closed, and tells so, by whoever lets go of it: the garbage collector too, which
  may run in the middle of anything, under any lock.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import gc
import logging
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
from llama_index.core.callbacks.base import CallbackManager
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.callbacks.schema import CBEventType
from llama_index.core.callbacks.token_counting import TokenCountingEvent
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index.core.instrumentation.events.exception import ExceptionEvent
from llama_index.core.instrumentation.events.llm import (
    LLMChatEndEvent,
    LLMChatInProgressEvent,
    LLMChatStartEvent,
    LLMCompletionEndEvent,
    LLMCompletionInProgressEvent,
    LLMCompletionStartEvent,
)
from llama_index.core.instrumentation.span import active_span_id
from llama_index.core.instrumentation.span_handlers import BaseSpanHandler

from token_callbacks import hooks
from token_callbacks.errors import BudgetExceeded, InvalidArgument
from token_callbacks.evidence import NO_NAMES, Completion, Names, Prompt, is_at_limit
from token_callbacks.lanes import fields_of
from token_callbacks.ledger import (
    Draft,
    Ledger,
    OpenCall,
    is_around,
    is_inside,
    name_of,
    process_ledger,
    running_call,
    runs_for,
)
from token_callbacks.records import Operation, Outcome
from token_callbacks.runs import is_cancellation, is_closing_generator
from token_callbacks.usage import (
    Misfits,
    Reading,
    misfits_in_first,
    part,
    read_anew,
    read_first,
    read_like,
    token_count,
    view_of,
)

_log = logging.getLogger("token_callbacks")

FRAMEWORK = "llama_index"

PROVIDERS = {
    "openai_llm": "openai",
    "openai_responses_llm": "openai",
    "OpenAIEmbedding": "openai",
    "azure_openai_llm": "azure",
    "AzureOpenAIEmbedding": "azure",
    "Anthropic_LLM": "anthropic",
}
"""LlamaIndex names the class, not the provider; classes that reach many providers are not in here."""

SENT_OVER_HTTPX = frozenset({"OpenAIEmbedding", "AzureOpenAIEmbedding"})
"""Embedding classes whose requests are seen on the wire; others are learned. A cache hit of theirs is no request."""

_OPERATIONS: dict[type, Operation] = {
    LLMChatStartEvent: Operation.CHAT,
    LLMCompletionStartEvent: Operation.COMPLETION,
    EmbeddingStartEvent: Operation.EMBEDDING,
}

_NEVER_SENDING = frozenset({"structured_llm", "StructuredLLM"})
"""Classes that never send anything themselves, and the call they make may start in another context."""

_HOLDERS = (
    ("raw",),
    ("raw", "_hidden_params"),
    ("additional_kwargs",),
    ("message", "additional_kwargs"),
)
"""Where integrations leave the provider's answer, or figures from it, in a response, best first."""


class LlmEvidence:
    """What LlamaIndex shows of one LLM call: the start event, the pieces of the stream, the last response.

    It is written to at each piece, which in an object of msgspec's takes longer.
    """

    __slots__ = ("call", "deltas", "frame", "last", "odd", "previous", "start")

    def __init__(self, start: Any, call: OpenCall, last: Any = None) -> None:
        self.start = start
        self.call = call
        self.last = last
        self.previous: Any = None
        self.deltas: list[str] = []
        self.frame: tuple[types.FrameType, int] | None = None
        """That of an open stream, and where in its code it was when it was made."""
        self.odd: Sequence[Any] = ()
        """What was read last, as far as something stands where a usage may be and not all of that was read."""

    def reading(self, operation: Operation) -> Reading | None:
        """Read the usage that the last response, or the one before it, carries in any of the known places."""
        raw = getattr(self.last, "raw", None)  # where it nearly always is, and all of it
        reading = read_like(raw, operation)
        if reading is not None:
            return reading
        odd: list[Any] = []
        self.odd = odd
        reading = read_anew(raw, operation, odd)
        if reading is not None and reading.is_counts:
            return reading
        return read_first(self._elsewhere(), operation, reading, odd)

    def misfits(self, operation: Operation) -> Misfits:
        """Name what is no count in the usage that was read."""
        return misfits_in_first(self.odd, operation) if self.odd else {}

    def _elsewhere(self) -> Iterator[Any]:
        """Go through where else the usage may be: what is there."""
        for holders, response in ((_HOLDERS[1:], self.last), (_HOLDERS, self.previous)):
            if response is not None:
                for holder in holders:
                    held = getattr(response, holder[0], None)
                    if held is not None and len(holder) > 1:
                        held = _at(held, holder[1:])
                    if held is not None and (type(held) is not dict or held):
                        yield held

    def rules_out_usage(self) -> bool:
        """Leave it open."""
        return False

    def has_last_word(self) -> bool:
        """Leave it open."""
        return False

    def prompt(self) -> Prompt | None:
        """Gather the messages or the prompt text, and the tools that were offered."""
        start = self.start
        sent = start.additional_kwargs
        offered: dict[str, Any] = {}
        if sent:
            offered = {name: part(sent, name) for name in ("tool_choice", "parallel_tool_calls", "response_format")}
            offered["tools"] = part(sent, "tools") or ()
            offered["is_continued"] = bool(part(sent, "previous_response_id"))
        if part(start.model_dict, "track_previous_responses"):
            offered["is_continued"] = True
        if isinstance(start, LLMChatStartEvent):
            return Prompt(messages=[_message(message) for message in start.messages], **offered)
        if part(start.model_dict, "is_chat_model"):
            return Prompt(messages=[{"role": "user", "content": start.prompt}], **offered)
        return Prompt(messages=start.prompt, **offered)

    def completion(self) -> Completion | None:
        """Join the deltas of a stream, or take the text of the response, with its tool calls."""
        if self.last is None:
            return None
        last = self.last
        raw, message = getattr(last, "raw", None), getattr(last, "message", None)
        text = "".join(filter(None, self.deltas)) or (part(last, "text") if message is None else message.content) or ""
        calls = () if message is None else _tool_calls(message)
        return Completion(text=text, tool_calls=calls, is_at_limit=is_at_limit(raw))

    def inputs(self) -> None:
        """Tell nothing: nothing was embedded."""

    def names(self) -> Names:
        """Tell the response's id and its model, as the provider named them."""
        raw = getattr(self.last, "raw", None)
        told = view_of(raw) or {}
        response_id, model = told.get("id"), told.get("model")
        if response_id is None or model is None:  # in slots, of properties, or in an event's answer
            inner = part(raw, "response")
            response_id = response_id or part(raw, "id") or part(inner, "id")
            model = model or part(raw, "model") or part(inner, "model")
        return (
            response_id if response_id and isinstance(response_id, str) else None,
            model if model and isinstance(model, str) else None,
        )


class EmbeddingEvidence:
    """What LlamaIndex shows of one embedding request: the texts. Its integrations drop the provider's usage."""

    __slots__ = ("chunks", "sends_newlines")

    def __init__(self, chunks: Sequence[str], class_name: str | None) -> None:
        self.chunks = chunks
        # OpenAIEmbedding 0.7.0 sends a blank for every newline (embeddings/openai/base.py, get_embedding).
        self.sends_newlines = class_name != "OpenAIEmbedding"

    def reading(self, operation: Operation) -> None:
        """Tell nothing."""

    def misfits(self, operation: Operation) -> Misfits:
        """Name none."""
        return {}

    def rules_out_usage(self) -> bool:
        """Leave it open: LiteLLM, called inside, may know."""
        return False

    def has_last_word(self) -> bool:
        """Leave it open."""
        return False

    def prompt(self) -> None:
        """Tell nothing."""

    def completion(self) -> None:
        """Tell nothing."""

    def inputs(self) -> Sequence[str]:
        """Gather the texts as they were sent."""
        if self.sends_newlines:
            return self.chunks
        return [chunk.replace("\n", " ") for chunk in self.chunks]

    def names(self) -> Names:
        """Tell nothing."""
        return NO_NAMES


_sent_for: contextvars.ContextVar[OpenCall | None] = contextvars.ContextVar("token_callbacks_sent_for", default=None)
"""The request that a task has sent something for, where a span has several: its next try is for that one, too."""


class _EmbeddingSpan:
    """One embedding method's call: a batch opens several requests in one span, an async batch several at once."""

    __slots__ = ("begets", "class_name", "requests")

    def __init__(self, class_name: str | None, is_seen_below: bool) -> None:
        self.class_name = class_name
        self.requests: list[OpenCall] = []
        self.begets = is_seen_below
        """Whether the requests of this span are seen below, by LiteLLM or on the wire: all are, but for cache hits."""

    def take(self) -> OpenCall:
        """Take the oldest open request out; which one does not matter, they are alike."""
        self.begets = self.begets or any(_unfailed_calls(request) for request in self.requests)
        request = self.requests.pop(0)
        request.is_wrapper = request.is_wrapper or self.begets
        return request

    def current(self) -> OpenCall:
        """Find the open request that this code is sent for: of an async batch, each task sends for one."""
        if len(self.requests) == 1:
            return self.requests[0]
        request = _sent_for.get()
        if request is None or request not in self.requests:
            request = min(self.requests, key=lambda request: (_unfailed_calls(request), len(request.inner)))
            _sent_for.set(request)
        return request


class _Garbage:
    """Knows whether it is the garbage collector that runs this code: then nothing may wait for a lock."""

    __slots__ = ("_thread",)

    def __init__(self) -> None:
        self._thread: int | None = None
        gc.callbacks.append(self._note)

    def _note(self, phase: str, _info: object) -> None:
        self._thread = threading.get_ident() if phase == "start" else None

    def is_being_collected_here(self) -> bool:
        return self._thread == threading.get_ident()

    def forget(self) -> None:
        with contextlib.suppress(ValueError):  # somebody has emptied the list
            gc.callbacks.remove(self._note)


class Tracker:
    """Follows LlamaIndex's spans and events and tells the ledger. Used by whatever thread or task runs the call."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.garbage = _Garbage()
        self._spans: dict[str, tuple[str | None, Any]] = {}
        """The open spans: the span around each, and the object whose method it is."""
        self._agents: dict[str, str] = {}
        """The agents at work, by the span of their step."""
        self._seen_below = set(SENT_OVER_HTTPX)
        self.calls: dict[str, LlmEvidence] = {}
        """The open LLM calls, by span."""
        self.embeddings: dict[str, _EmbeddingSpan] = {}
        """The embedding methods under way, by span."""
        self._streams: dict[types.FrameType, LlmEvidence] = {}
        """The streams that were handed out and are not over, by the frames of their generators."""
        self._predictions: dict[str, OpenCall] = {}
        """The structured predictions under way, by span: some send by themselves, and no event tells of it."""
        self._note_agent = ledger.shielded(self._take_agent)
        self._note_prediction = ledger.shielded(self._open_prediction)
        self._watch = ledger.shielded(self._take_stream)
        self._end_embeddings = ledger.shielded(self._close_embeddings)

    # --- spans, with the dispatcher's names for what it hands over. There are many spans to a call: what is done for
    # all of them cannot raise and is not shielded, which would be one more function to call.

    def enter_span(
        self,
        id_: str,
        bound_args: Any = None,
        instance: object = None,
        parent_id: str | None = None,
        tags: object = None,
        **kwargs: Any,
    ) -> None:
        """Remember a span, and the agent whose step it is."""
        self._spans[id_] = parent_id, instance
        if "ev" in getattr(bound_args, "arguments", ()):  # a step of a workflow; those of agents name the agent
            self._note_agent(id_, bound_args.arguments["ev"])
        if "structured_predict-" in id_:  # the method's name, and LlamaIndex's random end
            self._note_prediction(id_, parent_id, instance)

    def exit_span(self, id_: str, *args: Any, result: object = None, **kwargs: Any) -> None:
        """Forget a span; if it was a call that returned a stream, watch the stream."""
        self._spans.pop(id_, None)
        if self._agents:
            self._agents.pop(id_, None)
        if id_ in self.calls and isinstance(result, types.GeneratorType | types.AsyncGeneratorType):
            self._watch(id_, result)
        if id_ in self.embeddings:
            self._end_embeddings(id_, Outcome.COMPLETED, None)
        if id_ in self._predictions:
            self._ledger.close_call(self._predictions.pop(id_), outcome=Outcome.COMPLETED)

    def _open_prediction(self, span_id: str, around: str | None, llm: Any) -> None:
        """Open what stands around the requests of a structured prediction, and has no record itself.

        Those of Anthropic's class (0.12.3) and OpenAI's Responses class are sent without an event.
        """
        call = self._predictions[span_id] = self._ledger.open_call(
            self._ledger.origin(FRAMEWORK, _innermost(self._enclosing(around))),
            framework=FRAMEWORK,
            operation=Operation.CHAT,
            provider=PROVIDERS.get(llm.class_name()),
            model=_text(part(part(llm, "metadata"), "model_name")),
        )
        call.agent = self._agent_of(span_id) or call.agent
        call.is_wrapper = True

    def _take_agent(self, span_id: str, event: object) -> None:
        agent = _text(part(event, "current_agent_name"))
        if agent is not None:
            self._agents[span_id] = agent

    def _take_stream(self, span_id: str, stream: Any) -> None:
        evidence = self.calls[span_id]
        evidence.call.streamed = True
        frame: types.FrameType | None = part(stream, "gi_frame") or part(stream, "ag_frame")
        if frame is not None:
            evidence.frame = frame, frame.f_lasti
            self._streams[frame] = evidence
        # A stream that is dropped half-read says so with an event; one that nobody ever started says nothing, nor does
        # a completion stream that ends without a chunk, in an error of LlamaIndex's own (0.14.25).
        weakref.finalize(stream, self._forget_stream, span_id).atexit = False

    def drop_span(self, id_: str, *args: Any, err: BaseException | None = None, **kwargs: Any) -> None:
        """Forget a span that raised; if it was a call, the call failed."""
        self._spans.pop(id_, None)
        if self._agents:
            self._agents.pop(id_, None)
        outcome = Outcome.CANCELLED if err is not None and is_cancellation(err) else Outcome.FAILED
        evidence = self.calls.get(id_)
        if evidence is not None and isinstance(err, BudgetExceeded) and not _was_sent(evidence.call):  # our own refusal
            outcome = Outcome.NOT_STARTED
        self._close(id_, outcome, err)
        if id_ in self.embeddings:
            self._close_embeddings(id_, outcome, err)
        if id_ in self._predictions:
            self._ledger.close_call(self._predictions.pop(id_), outcome=outcome, error=err)

    def _forget_stream(self, span_id: str) -> None:
        # Runs inside the garbage collector: takes no lock.
        evidence = self.calls.get(span_id)
        if evidence is None:
            return
        if evidence.last is None and self.calls.pop(span_id, None) is not None:
            outcome = Outcome.NOT_STARTED
            if _has_begun(evidence):
                outcome = Outcome.FAILED
            elif _was_sent(evidence.call):  # with the call itself, as Anthropic's class does, and not when it is read
                outcome = Outcome.ABANDONED
            self._ledger.call_gone(evidence.call, outcome)
        self._leave_stream(evidence)

    # --- events

    def start(self, event: Any) -> None:
        """Open an LLM call, or an embedding request of a span.

        A second start of an LLM call on an open span (0.10's multi-modal classes) is the same call.
        """
        operation = _OPERATIONS[type(event)]
        span_id, description = event.span_id, event.model_dict
        if span_id in self.calls and operation is not _EMBEDDING:
            return
        around = self._spans.get(span_id, _NO_SPAN)[0]
        outer = None if around is None and not self._streams else self._enclosing(around)
        if runs_for() is not None:
            outer = _innermost(outer)
        class_name, model = description.get("class_name"), description.get("model_name") or description.get("model")
        call = self._ledger.open_call(
            self._ledger.origin(FRAMEWORK, outer),
            framework=FRAMEWORK,
            operation=operation,
            provider=PROVIDERS.get(class_name),
            model=model if isinstance(model, str) and model else None,
        )
        if self._agents:
            call.agent = self._agent_of(span_id) or call.agent
        if operation is _EMBEDDING:
            self._add_request(span_id, call, class_name)
            return
        self.calls[span_id] = call.evidence = LlmEvidence(event, call)
        if class_name in _NEVER_SENDING:
            call.is_wrapper = True

    def begin_stream(self, evidence: LlmEvidence) -> None:
        """Note that the first piece of a stream has arrived."""
        evidence.call.streamed = True
        now = self._ledger.clock()
        for call in (evidence.call, *evidence.call.inner):  # LiteLLM, called inside, does not tell
            if call.is_request or call is evidence.call:
                call.first_token_at = call.first_token_at or now

    def end_llm(self, event: Any) -> None:
        """Close an LLM call."""
        evidence = self.calls.pop(event.span_id, None)
        if evidence is not None:
            if evidence.frame is not None:
                self._leave_stream(evidence)
            response = event.response
            if response is not None and response is not evidence.last:
                evidence.previous, evidence.last = evidence.last, response
            call = evidence.call
            self._ledger.close_llm(call)
            call.evidence = None  # it knows its call: without the cycle events and responses go at once

    def break_llm(self, event: Any) -> None:
        """Close an LLM call whose stream was left or broke."""
        error = event.exception
        outcome = _outcome_of_broken_stream(error)
        if self.garbage.is_being_collected_here():
            evidence = self.calls.pop(event.span_id, None)
            if evidence is not None:
                self._leave_stream(evidence)
                self._ledger.call_gone(evidence.call, outcome)
        else:
            self._close(event.span_id, outcome, error)

    def _add_request(self, span_id: str, call: OpenCall, class_name: str | None) -> None:
        span = self.embeddings.get(span_id)
        if span is None:
            span = self.embeddings[span_id] = _EmbeddingSpan(
                class_name, self._is_seen_below(class_name, self._spans.get(span_id, _NO_SPAN)[1])
            )
        span.requests.append(call)

    def _is_seen_below(self, class_name: str | None, embedder: object) -> bool:
        if class_name == "lite-llm" and hooks.is_attached("litellm"):
            return True
        # Without a cache, a request that was not seen must have gone some other way: it is counted here.
        return class_name in self._seen_below and part(embedder, "embeddings_cache") is not None

    def end_embedding(self, event: Any) -> None:
        """Close an embedding request of the span."""
        span = self.embeddings.get(event.span_id)
        if span is not None and span.requests:
            evidence = EmbeddingEvidence(event.chunks, span.class_name)
            request = span.take()
            if span.class_name is not None and _unfailed_calls(request):
                self._seen_below.add(span.class_name)
            self._ledger.close_call(request, outcome=Outcome.COMPLETED, evidence=(evidence,))

    def _agent_of(self, span_id: str | None) -> str | None:
        while span_id is not None:
            if span_id in self._agents:
                return self._agents[span_id]
            span_id = self._spans.get(span_id, _NO_SPAN)[0]
        return None

    def _leave_stream(self, evidence: LlmEvidence) -> None:
        """Take a call out of the open streams, if it is one."""
        begun, evidence.frame = evidence.frame, None
        if begun is not None:
            self._streams.pop(begun[0], None)

    def _close(self, span_id: str, outcome: Outcome, error: BaseException | None) -> None:
        """Close the LLM call of a span that did not come to its end, if one is open there."""
        evidence = self.calls.pop(span_id, None)
        if evidence is not None:
            self._leave_stream(evidence)
            self._ledger.close_call(evidence.call, outcome=outcome, error=error)
            evidence.call.evidence = None

    def _close_embeddings(self, span_id: str, outcome: Outcome, error: BaseException | None) -> None:
        span = self.embeddings.pop(span_id)
        while span.requests:
            self._ledger.close_call(span.take(), outcome=outcome, error=error)

    # --- what encloses what

    def embedding_of(self, span_id: str) -> OpenCall | None:
        """Find the embedding request that opened last in this very span."""
        span = self.embeddings.get(span_id)
        return span.requests[-1] if span is not None and span.requests else None

    def enclosing(self) -> OpenCall | None:
        """Find the open call, if any, that the code running right now was called by."""
        return self._enclosing(active_span_id.get())

    def _enclosing(self, span_id: str | None) -> OpenCall | None:
        found = self._around_span(span_id)
        stream = self._running_stream() if self._streams else None
        # A stream's span is over before its code runs: the span is that of whoever reads it, unless it was begun there.
        return found if stream is None or (found is not None and is_around(stream, found)) else stream

    def _around_span(self, span_id: str | None) -> OpenCall | None:
        while span_id is not None:
            span = self.embeddings.get(span_id)
            if span is not None and span.requests:
                return span.current()
            if span_id in self.calls:
                return self.calls[span_id].call
            if span_id in self._predictions:
                return self._predictions[span_id]
            span_id = self._spans.get(span_id, _NO_SPAN)[0]
        return None

    def _running_stream(self) -> OpenCall | None:
        called: types.FrameType | None = None
        frame: types.FrameType | None = sys._getframe(2)  # noqa: SLF001 - inspect.currentframe() is the same
        while frame is not None:
            evidence = self._streams.get(frame)
            if evidence is not None and (called is None or called.f_code not in _TELLERS):
                return evidence.call
            called, frame = frame, frame.f_back
        return None


_EMBEDDING = Operation.EMBEDDING  # reached sooner than a member of its enumeration
_NO_SPAN = (None, None)

_TELLERS = frozenset({type(get_dispatcher()).event.__code__, CallbackManager.on_event_end.__code__})
"""By these a stream tells others of a piece, or of its end; what those do then is none of its requests."""


def _innermost(found: OpenCall | None) -> OpenCall | None:
    """Choose between the call of another framework for which code of the user's runs, and the one found around it."""
    running = running_call()
    return running if running is not None and (found is None or is_inside(running, found)) else found


def _unfailed_calls(request: OpenCall) -> int:
    """Tell how many requests of one have not failed: of an async batch, one without any is about to send its own."""
    return sum(inner.is_request and inner.failure is None for inner in request.inner)


def _has_begun(evidence: LlmEvidence) -> bool:
    """Tell whether a stream that has yielded nothing was asked for something."""
    return evidence.frame is not None and evidence.frame[0].f_lasti != evidence.frame[1]


def _was_sent(call: OpenCall) -> bool:
    """Tell whether a request of this call, or of one inside it, was seen in an HTTP client."""
    return any(inner.is_request and (inner.ends_with_outer or _was_sent(inner)) for inner in call.inner)


def _outcome_of_broken_stream(error: BaseException) -> Outcome:
    if isinstance(error, GeneratorExit):
        return Outcome.ABANDONED
    if not is_cancellation(error):
        return Outcome.FAILED
    return Outcome.ABANDONED if is_closing_generator() else Outcome.CANCELLED


def _event_handler(tracker: Tracker, ledger: Ledger) -> BaseEventHandler:
    # A closure, because attributes of a handler, a pydantic model, cost more to reach than a whole chunk may. For the
    # same reason a chunk is kept here and now, and not shielded: nothing in there raises, and LlamaIndex's dispatcher
    # swallows what does.
    calls = tracker.calls
    others: dict[type, Callable[[Any], None]] = {
        LLMChatStartEvent: tracker.start,
        LLMCompletionStartEvent: tracker.start,
        EmbeddingStartEvent: tracker.start,
        LLMChatEndEvent: tracker.end_llm,
        LLMCompletionEndEvent: tracker.end_llm,
        ExceptionEvent: tracker.break_llm,
        EmbeddingEndEvent: tracker.end_embedding,
    }

    def handle_event(self: BaseEventHandler, event: Any, **kwargs: Any) -> None:
        kind = type(event)
        if kind is LLMChatInProgressEvent or kind is LLMCompletionInProgressEvent:
            evidence = calls.get(event.span_id)
            if evidence is not None:  # else the stream was there before the hooks
                if evidence.last is None:
                    tracker.begin_stream(evidence)
                evidence.previous = evidence.last
                evidence.last = response = event.response
                evidence.deltas.append(response.delta)
        elif (act := others.get(kind)) is not None:
            try:  # what shielded() does, without the call of one more function
                act(event)
            except Exception as error:  # noqa: BLE001
                ledger.note_internal_error(error, act.__qualname__)

    class TokenCallbacksEventHandler(BaseEventHandler):
        handle = handle_event

        @classmethod
        def class_name(cls) -> str:
            return "TokenCallbacksEventHandler"

    return TokenCallbacksEventHandler()


def _span_handler(tracker: Tracker, ledger: Ledger) -> BaseSpanHandler[Any]:
    class TokenCallbacksSpanHandler(BaseSpanHandler[Any]):
        # The base class would keep every span that was ever open; these take its place.
        span_enter = staticmethod(tracker.enter_span)
        span_exit = staticmethod(tracker.exit_span)
        span_drop = staticmethod(ledger.shielded(tracker.drop_span))

        @classmethod
        def class_name(cls) -> str:
            return "TokenCallbacksSpanHandler"

        def new_span(self, *args: Any, **kwargs: Any) -> None:
            """Make none."""

        def prepare_to_exit_span(self, *args: Any, **kwargs: Any) -> None:
            """Keep none."""

        def prepare_to_drop_span(self, *args: Any, **kwargs: Any) -> None:
            """Keep none."""

    return TokenCallbacksSpanHandler(open_spans={}, completed_spans=[], dropped_spans=[], current_span_ids={})


class _Installed:
    """The hooks, while they are in."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.tracker = Tracker(ledger)
        self.event_handler = _event_handler(self.tracker, ledger)
        self.span_handler = _span_handler(self.tracker, ledger)
        root = get_dispatcher()
        root.add_event_handler(self.event_handler)
        root.add_span_handler(self.span_handler)
        ledger.add_locator(self.tracker.enclosing)

    def remove(self) -> None:
        # By identity: LlamaIndex's handlers compare by field values, and list.remove() could take another one's.
        root = get_dispatcher()
        root.event_handlers = [handler for handler in root.event_handlers if handler is not self.event_handler]
        root.span_handlers = [handler for handler in root.span_handlers if handler is not self.span_handler]
        self._ledger.remove_locator(self.tracker.enclosing)
        self.tracker.garbage.forget()


_once: hooks.Once[_Installed] = globals().get("_once") or hooks.Once(_Installed)
install, uninstall = _once.install, _once.uninstall


class TokenCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What a ``TokenCountingHandler`` has counted, taken at one moment."""

    prompt_llm_token_count: int
    completion_llm_token_count: int
    total_llm_token_count: int
    total_embedding_token_count: int
    llm_token_counts: list[TokenCountingEvent]
    embedding_token_counts: list[TokenCountingEvent]


class TokenCountingHandler(BaseCallbackHandler):
    """LlamaIndex's class of this name, with the provider's figures where that one guesses, drops or doubles them.

    It counts the calls of the objects whose ``CallbackManager`` it is in, as LlamaIndex's does, in memory only; a
    ``TokenCounter`` counts all calls, whatever was made first, and writes them down. Safe to read and reset while
    threads call. Differences on purpose: one event an LLM or embedding request; ``prompt`` and ``completion`` of an
    event are empty, no text is kept; ``tokenizer`` is accepted and not used, since counting follows the model; and
    ``token_budget`` raises ``BudgetExceeded``, a ``ValueError``, before the next call and never after a paid one.

    ``token_budget``: the most LLM tokens; ``None`` is no limit. ``verbose`` logs each request's tokens to ``logger``.
    """

    def __init__(  # noqa: PLR0917 - the positions are those of LlamaIndex's class
        self,
        tokenizer: Callable[[str], Any] | None = None,
        event_starts_to_ignore: list[CBEventType] | None = None,
        event_ends_to_ignore: list[CBEventType] | None = None,
        verbose: bool = False,
        logger: logging.Logger | None = None,
        token_budget: int | None = None,
    ) -> None:
        super().__init__(event_starts_to_ignore or [], event_ends_to_ignore or [])
        if tokenizer is not None:
            _log.info("TokenCountingHandler counts with the tokenizer of each call's model, not with tokenizer=")
        if token_budget is not None and token_count(token_budget) is None:
            raise InvalidArgument(f"token_budget is a number of tokens, 0 or more, or None, not {token_budget!r}")
        self.token_budget = token_budget
        self._verbose = verbose
        self._logger = logger or _log
        self._ledger = process_ledger()
        self.reset_counts()
        self._attach()

    def reset_counts(self) -> None:
        """Set everything to zero. To read and reset without losing a call in between, use ``take_counts``."""
        with self._ledger.lock:
            self._prompt = self._completion = self._embedding = 0
            self._llm_events: list[TokenCountingEvent] = []
            self._embedding_events: list[TokenCountingEvent] = []

    def take_counts(self) -> TokenCounts:
        """Read everything and set it to zero in one go: every call is in exactly one reading."""
        self._drain()
        with self._ledger.lock:
            counts = TokenCounts(
                prompt_llm_token_count=self._prompt,
                completion_llm_token_count=self._completion,
                total_llm_token_count=self._prompt + self._completion,
                total_embedding_token_count=self._embedding,
                llm_token_counts=self._llm_events,
                embedding_token_counts=self._embedding_events,
            )
            self.reset_counts()
        return counts

    @property
    def prompt_llm_token_count(self) -> int:
        """The prompt tokens of all LLM calls."""
        self._drain()
        return self._prompt

    @property
    def completion_llm_token_count(self) -> int:
        """The completion tokens of all LLM calls."""
        self._drain()
        return self._completion

    @property
    def total_llm_token_count(self) -> int:
        """Prompt plus completion tokens."""
        self._drain()
        with self._ledger.lock:
            return self._prompt + self._completion

    @property
    def total_embedding_token_count(self) -> int:
        """The tokens of all embedding requests."""
        self._drain()
        return self._embedding

    @property
    def llm_token_counts(self) -> list[TokenCountingEvent]:
        """An event an LLM request, oldest first; grows until ``reset_counts``."""
        self._drain()
        return self._llm_events

    @property
    def embedding_token_counts(self) -> list[TokenCountingEvent]:
        """An event an embedding request, oldest first; grows until ``reset_counts``."""
        self._drain()
        return self._embedding_events

    def receive(self, draft: Draft) -> None:
        """Take a call that has ended; called by the ledger, under its lock."""
        usage, operation = draft.usage, draft.call.operation
        if operation is _EMBEDDING:
            prompt, completion, events = usage.embedding_tokens or 0, 0, self._embedding_events
            self._embedding += prompt
        else:
            prompt, completion, events = usage.prompt_tokens or 0, usage.completion_tokens or 0, self._llm_events
            self._prompt += prompt
            self._completion += completion
        events.append(TokenCountingEvent("", "", completion, prompt, prompt + completion, draft.call_id))
        if self._verbose:
            self._logger.info("%s: %d tokens", operation.value, prompt + completion)

    # LlamaIndex's side.

    def on_event_start(
        self,
        event_type: CBEventType,
        payload: dict[str, Any] | None = None,
        event_id: str = "",
        parent_id: str = "",
        **kwargs: Any,
    ) -> str:
        """Ask for the record of the call that starts now; raises ``BudgetExceeded`` if a budget is used up."""
        if event_type is _LLM_TYPE or event_type is _EMBEDDING_TYPE:
            if event_type not in self.event_ends_to_ignore:
                try:  # what shielded() does, without the call of one more function
                    installed, span_id = _once.current, active_span_id.get()
                    if installed is None:  # uninstalled since
                        self._attach()
                    elif span_id is not None:
                        # LlamaIndex's instrumentation event of the same start comes first, in the same span (0.14.25).
                        evidence = installed.tracker.calls.get(span_id)
                        call = installed.tracker.embedding_of(span_id) if evidence is None else evidence.call
                        if call is not None and self not in call.listeners:
                            call.listeners.append(self)
                except Exception as error:  # noqa: BLE001
                    self._ledger.note_internal_error(error, name_of(self.on_event_start))
            if self.token_budget is not None and event_type is _LLM_TYPE:
                self._keep_budget(self.token_budget)
        return event_id

    def on_event_end(
        self, event_type: CBEventType, payload: dict[str, Any] | None = None, event_id: str = "", **kwargs: Any
    ) -> None:
        """Do nothing: the record comes from the ledger, once a request."""

    def start_trace(self, trace_id: str | None = None) -> None:
        """Do nothing."""

    def end_trace(self, trace_id: str | None = None, trace_map: dict[str, list[str]] | None = None) -> None:
        """Do nothing."""

    def _attach(self) -> None:
        for framework in hooks.FRAMEWORKS:  # LiteLLM too, which knows what LlamaIndex's embedding classes over it drop
            hooks.attach(framework)

    def _keep_budget(self, budget: int) -> None:
        used = self._prompt + self._completion
        if used > budget:
            raise BudgetExceeded(
                f"{used} LLM tokens are used and token_budget is {budget}: raise the budget, or call"
                " reset_counts() to start a new one"
            )

    def _drain(self) -> None:
        # LiteLLM, called inside, may tell of an embedding a moment after its answer.
        self._ledger.drain(self._is_listening, _DRAIN_SECONDS)

    def _is_listening(self, call: OpenCall) -> bool:
        link: OpenCall | None = call
        while link is not None:
            if self in link.listeners:
                return True
            link = link.outer
        return False


_DRAIN_SECONDS = 2.0
_LLM_TYPE, _EMBEDDING_TYPE = CBEventType.LLM, CBEventType.EMBEDDING


def _message(message: Any) -> dict[str, Any]:
    """Shape a ChatMessage as OpenAI does."""
    role = message.role  # mostly an enumeration of strings, whose own way to a value takes longer
    role = str.__str__(role) if isinstance(role, str) else getattr(role, "value", str(role))
    shaped: dict[str, Any] = {"role": role, "content": _content(message)}
    if tool_calls := _tool_calls(message):
        shaped["tool_calls"] = tool_calls
    extra = message.additional_kwargs
    if extra:
        for key in ("name", "tool_call_id"):
            if extra.get(key) is not None:
                shaped[key] = extra[key]
    return shaped


def _content(message: Any) -> str | list[dict[str, Any]]:
    text = message.content or ""
    others = [block for block in _blocks(message) if getattr(block, "block_type", "text") not in _TOLD_AS_TEXT]
    return [{"type": "text", "text": text}, *map(_block, others)] if others else text


_TOLD_AS_TEXT = frozenset({"text", "tool_call", "thinking"})


def _blocks(message: Any) -> Sequence[Any]:
    return getattr(message, "blocks", None) or ()  # 0.10 and 0.11 have none


def _block(block: Any) -> dict[str, Any]:
    """Shape an image, file, sound or film: its data, as base64 in bytes, or where it is, which is not looked up."""
    kind = str(block.block_type)
    data = getattr(block, "data" if kind == "document" else kind, None)
    shaped: dict[str, Any] = {"type": kind, kind: {"data": data} if isinstance(data, bytes) else {}}
    kept = {"url": "url", "detail": "detail", "format": "format", f"{kind}_mimetype": "mime_type"}
    told = {name: getattr(block, attribute, None) for attribute, name in kept.items()}
    shaped[kind] |= {name: str(value) for name, value in told.items() if value is not None}
    return shaped


def _tool_calls(message: Any) -> list[dict[str, Any]]:
    """Gather a message's tool calls from its blocks, or from where older integrations leave them."""
    from_blocks = [
        {"type": "function", "function": {"name": block.tool_name, "arguments": block.tool_kwargs}}
        for block in _blocks(message)
        if getattr(block, "block_type", None) == "tool_call"
    ]
    calls = message.additional_kwargs.get("tool_calls")
    return from_blocks or ([_tool_call(call) for call in calls] if isinstance(calls, list | tuple) else [])


def _tool_call(call: Any) -> dict[str, Any]:
    function = part(call, "function")
    return {
        "type": "function",
        "function": {"name": part(function, "name"), "arguments": part(function, "arguments")},
    }


_TELLS_NONE = getattr(BaseEventHandler, "__getattr__", None)
"""What a pydantic object is asked by for a part that it has not; ``None`` of LlamaIndex 0.10's classes."""


def _at(whole: Any, place: Sequence[str]) -> Any:
    for name in place:
        kind: Any = type(whole)  # mypy: are classes hashable?
        whole = part(whole, name) if _may_have(kind, name) else (view_of(whole) or {}).get(name)
    return whole


@functools.lru_cache(maxsize=512)
def _may_have(kind: type[Any], name: str) -> bool:
    """Tell whether a class may give its objects such a part: one of pydantic's takes long to say that it has none."""
    has_own_way = _TELLS_NONE is None or getattr(kind, "__getattr__", None) is not _TELLS_NONE
    return has_own_way or name in (fields_of(kind) or ()) or hasattr(kind, name)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
