"""Hook LiteLLM: one callback handler, and small wrappers around functions that a callback cannot replace.

Facts about litellm (1.106.2 unless said otherwise) that shape this file:

- ``kwargs`` is one mutable dict a call, the same object in every hook: what is put in at the start is there at the end,
  on whatever thread and without any context.
- Hooks are called by keyword and a TypeError is swallowed: the parameter names here are part of LiteLLM's contract.
- Success events come late, and of ``asyncio.run(gather(...))`` most never come; ``log_post_api_call`` and
  ``async_post_call_success_deployment_hook`` run before the caller gets its answer.
- Usage of a stream may be LiteLLM's own guess, or a zero, with nothing that says so. ``stream_chunk_builder`` gets the
  chunks as they came, at the end of every stream, and is looked up in the module each time; a stream of the Responses
  API hands every event to ``_process_chunk`` as text, before LiteLLM puts its guess into the last one.
- ``update_response_metadata``, looked up in its module each time, is given what the caller gets next, on the caller's
  stack. Of some mocks, and of a class in ``custom_provider_map``, that is the first word, and a success event the last.
- Such a class is asked by the method that ``custom_chat_llm_router`` returns, looked up in its module each time, and
  for embeddings by one that is taken from it with nothing in between; it may ask a model itself, also through LiteLLM.
- ``function_setup`` runs first in every call, in the caller's context and on its stack.
- A sync call of a ``Router`` inside a running loop goes to a thread without the caller's context, by way of
  ``run_async_function``, which its users have imported by name.
- ``batch_completion`` and its like call from threads without the caller's context. They look up ``litellm.completion``
  where they are called, as does a ``Router`` its ``_silent_experiment_completion``.
- All that ``completion(model_list=...)`` asks share one logging object, and it tells of the first end only.
- A text completion's stream over OpenAI's SDK is asked for when it is read, wherever that may be; by then the call that
  was begun last may be another one.
- A ``Router`` has ``_update_kwargs_before_fallbacks`` put ``litellm_trace_id`` into what all its tries are made with.
  Those of ``completion_with_retries`` and its like have nothing in common, unless ``completion`` asked for them.
- A stream that breaks is told to hooks on a thread or task of its own, while its reader gets the exception, which
  ``_handle_stream_fallback_error`` raises.
- A stream that is left half-read is told to nobody. Closing it, which ``CustomStreamWrapper.aclose`` does, is its end;
  one that is merely dropped goes with the garbage, and not at once: it is part of a cycle.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import inspect
import sys
import traceback
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager
from types import MethodType
from typing import Any, TypeGuard

import litellm
import litellm.utils
import msgspec
from litellm.integrations.custom_logger import CustomLogger

from token_callbacks.adapters.litellm_evidence import LiteLLMEvidence, from_json, is_answer, request_of, text_of
from token_callbacks.binding import BoundAsyncIterator, BoundIterator
from token_callbacks.counter import TokenCounter, shared_counter
from token_callbacks.errors import InvalidArgument
from token_callbacks.hooks import Once, Patches
from token_callbacks.imports import importing, is_of_class
from token_callbacks.ledger import Ledger, OpenCall, Origin, process_ledger, running_for
from token_callbacks.records import Operation, Outcome
from token_callbacks.runs import carried, carried_call, is_cancellation
from token_callbacks.usage import (
    part,
    tells,
)

FRAMEWORK = "litellm"

_GENERATE_CONTENT = ("generate_content", "agenerate_content", "generate_content_stream", "agenerate_content_stream")
"""Google's own API: of what another provider is asked for there, LiteLLM makes a completion, which is another call."""

OPERATIONS = {
    "completion": Operation.CHAT,
    "acompletion": Operation.CHAT,
    "anthropic_messages": Operation.CHAT,
    **dict.fromkeys(_GENERATE_CONTENT, Operation.CHAT),
    "text_completion": Operation.COMPLETION,
    "atext_completion": Operation.COMPLETION,
    "responses": Operation.RESPONSES,
    "aresponses": Operation.RESPONSES,
    "embedding": Operation.EMBEDDING,
    "aembedding": Operation.EMBEDDING,
}
"""LiteLLM's call types that use tokens; others (images, speech, rerank, files) are none of this package's business."""

_KEY = "_token_callbacks"

RUN_KEY = "token_callbacks_run"
"""In the ``metadata`` of a call, the id of the open run that it belongs to, where the context does not tell."""

_MOST_TAGS = 20
_LONGEST_WORD = 200
"""Characters of a session id or a tag; what is longer is something else."""

_latest: contextvars.ContextVar[weakref.ref[CallState] | None] = globals().get("_latest") or contextvars.ContextVar(
    "litellm_call", default=None
)
"""The call that was begun last in this context: LiteLLM sends a call's request in the context that began it."""


class CallState(msgspec.Struct, eq=False, weakref=True):
    """What this package keeps in LiteLLM's dict of one call."""

    origin: Origin
    is_mocked: bool = False
    """Nobody is asked: the answer is the caller's own, and its usage is made up by LiteLLM."""
    logging_obj: weakref.ref[Any] | None = None
    """LiteLLM's object of this call, where its beginning was seen."""
    call: OpenCall | None = None
    """The latest attempt."""
    error_id: int | None = None
    """Of the exception that was being handled where the latest attempt began."""
    tries: _Tries | None = None
    """What the attempts are of, and those of other states of a Router's call; ``None`` for one attempt so far."""
    asked: tuple[Any, Any] | None = None
    """The model and its provider, where LiteLLM's dict may tell another one's."""
    batch: _Batch | None = None
    """Those that LiteLLM's dict is shared by, of this state too, unless it is what was there before them."""
    is_handed_over: bool = False
    """The caller has its stream: whatever it still sends, it sends in a place of its own, which says so."""

    def __repr__(self) -> str:  # LiteLLM prints its dict where it is verbose: nothing of the call is to be in there
        return f"<{type(self).__name__}>"

    def __deepcopy__(self, memo: object) -> CallState:
        """Stay one: other callbacks copy LiteLLM's dict, and must not copy runs and locks with it."""
        return self

    def __reduce__(self) -> tuple[type[str], tuple[()]]:
        """Be pickled as nothing: other callbacks send LiteLLM's dict to other processes."""
        return str, ()


class _Tries(str):  # noqa: SLOT000 - its attributes have defaults
    """The trace id of one call of a Router's, which it hands to every try, with what we know of the tries.

    Empty where LiteLLM makes them without a Router and is told no trace id: it makes one for each try.
    """

    latest: OpenCall | None = None
    logical_call_id: str | None = None
    origin: Origin | None = None
    """Of the first of them."""

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        """Be pickled as the id that it is."""
        return str, (str(self),)

    def __deepcopy__(self, memo: object) -> _Tries:
        """Stay one: the Router copies what it was told for each fallback."""
        return self


class _Batch:
    """Calls that LiteLLM makes from threads of its own, with one object and so one dict for all of them."""

    __slots__ = ("answered", "chosen")

    def __init__(self) -> None:
        self.answered: dict[int, CallState] = {}
        """Those that were answered, by the id of what LiteLLM is given."""
        self.chosen: CallState | None = None
        """The one whose answer the caller is given."""


class _Watch(weakref.ref[Any]):
    """Looks after LiteLLM's object of a call; ``weakref.finalize`` does the same, in more than twice the time."""

    __slots__ = ("state",)

    state: CallState


class Listener:
    """Turns LiteLLM's hooks into openings and closings of calls. Called from any thread."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def set_up(self, logging_obj: Any, options: Mapping[str, Any], tries: _Tries | None) -> None:
        """Note who is calling: in the caller's context and on its stack, before LiteLLM does anything else."""
        details = _details_of(logging_obj)
        if details is not None and _KEY not in details:
            state = details[_KEY] = self._new_state()
            state.tries = self._tries_around() if tries is None else tries
            if state.tries is not None:  # where a stream breaks half-way, it is its reader who makes the next one
                state.tries.origin = state.tries.origin or state.origin
                state.origin = state.tries.origin[0], state.origin[1]
            self._begin(state, logging_obj, options)

    def _tries_around(self) -> _Tries | None:
        """Find what a completion is an attempt of, if LiteLLM makes it of a call of Google's API."""
        latest = _latest_state()
        if latest is None or latest.call is not None or latest.tries is None or latest.logging_obj is None:
            return None
        details = _details_of(latest.logging_obj())
        return latest.tries if details is not None and details.get("call_type") in _GENERATE_CONTENT else None

    def set_up_one(self, logging_obj: Any, options: Mapping[str, Any]) -> CallState | None:
        """Note that one call of a batch begins, on a thread of its own; ``None`` where LiteLLM's object is its own."""
        details = _details_of(logging_obj)
        whole = None if details is None else details.get(_KEY)
        if not _is_state(whole):
            return None
        with self._ledger.lock:
            whole.batch = whole.batch or _Batch()
        whole.logging_obj = None  # it is theirs, and nothing more comes of this one
        state = CallState(whole.origin)
        state.batch = whole.batch
        state.asked = _asked(options)
        self._begin(state, logging_obj, options)
        return state

    def end_one(self, state: CallState, response: Any, error: BaseException | None) -> None:
        """Close a call of a batch: LiteLLM tells of the first end only. A stream is open until its reader is known."""
        if state.batch is not None and error is None:
            state.batch.answered[id(response)] = state
        if state.call is not None and error is not None:
            outcome = Outcome.CANCELLED if is_cancellation(error) else Outcome.FAILED
            self._ledger.close_call(state.call, outcome=outcome, error=error)
        elif state.call is not None and not state.call.streamed:
            self._ledger.close_call(state.call, outcome=Outcome.COMPLETED)

    def _begin(self, state: CallState, logging_obj: Any, options: Mapping[str, Any]) -> None:
        state.is_mocked = _is_mocked(options)
        # LiteLLM reports no end of a stream that is dropped or a call that is cancelled; its logging object then
        # goes with it. The state must not hold on to that object.
        state.logging_obj = weakref.ref(logging_obj)
        watch = _Watch(logging_obj, self._forget)
        watch.state = state
        _watches[id(watch)] = watch
        _latest.set(weakref.ref(state))

    def send(self, details: MutableMapping[str, Any], messages: Any) -> None:
        """Open the call: the request goes out now. Two handlers, or LiteLLM itself, may say so twice."""
        operation = OPERATIONS.get(details.get("call_type") or "")
        if operation is None:
            return
        state, error = self._state(details), sys.exc_info()[1]
        call = state.call
        if call is not None and not call.is_wrapper and error is not None and id(error) != state.error_id:
            # It is tried again while its own error is handled, of which LiteLLM tells later, or never (num_retries=1).
            self._ledger.close_call(call, outcome=Outcome.FAILED, error=error)
        if call is None or not call.is_open:  # if it is not, this is a fallback or retry in the same dict
            call = state.call = self._open(state, operation, details, messages)
            state.error_id = None if error is None else id(error)
        # Not yet, though a request may have been, of several: Bedrock's Titan embeds text by text. A mock is at once.
        call.is_answered = state.is_mocked and not call.streamed

    def ask_class(self, logging_obj: Any, messages: Any) -> None:
        """Open the call that a class of the user's is asked for: LiteLLM tells of no sending then."""
        details = _details_of(logging_obj)
        if details is None:
            return
        self.send(details, messages)
        call = self._call(details)
        if call is not None:  # it may ask as often as it likes, and has the last word
            call.reports_late = False
            call.is_asked_once = call.streamed  # between two pieces of a stream, its reader may ask somebody, too

    def call_of(self, logging_obj: Any) -> OpenCall | None:
        """Find the open call that LiteLLM has this object for."""
        details = _details_of(logging_obj)
        return None if details is None else self._call(details)

    def take_class_answer(self, logging_obj: Any, response: Any) -> None:
        """Take what such a class has answered: of a second try of its, LiteLLM tells no more."""
        details = _details_of(logging_obj)
        call = None if details is None else self._call(details)
        if call is not None and not call.streamed and call.is_open:
            evidence = _evidence(call)
            evidence.response = response if evidence.response is None else evidence.response
            call.is_answered = True
        elif details is not None:
            self.hand_over(details, response)

    def answer(self, details: MutableMapping[str, Any]) -> None:
        """Keep the provider's raw answer: LiteLLM's own report of it may come late or never."""
        call = self._call(details)
        raw = details.get("original_response")
        if call is not None and not call.streamed and is_answer(raw):
            _evidence(call).raw = raw
            call.is_answered = True

    def end_stream(self, details: MutableMapping[str, Any], chunks: Sequence[Any], response: Any) -> None:
        """Keep what the chunks of a stream carried; whether the stream is whole, the error under way tells."""
        call = self._call(details)
        if call is None:
            return
        evidence = _evidence(call)
        evidence.chunks = [chunk for chunk in chunks if tells(chunk, "usage")]
        evidence.is_probed = True
        evidence.response = response
        error = sys.exc_info()[1]
        if isinstance(error, StopIteration | StopAsyncIteration):
            self.succeed(details, None)
        else:
            call.is_answered = error is None

    def request(self, logging_obj: Any) -> None:
        """Take that the code running right now is about to send this call's request, in whatever context."""
        details = _details_of(logging_obj)
        state = None if details is None else _state_in(details)
        if state is not None:
            state.is_handed_over = False
            _latest.set(weakref.ref(state))

    def pass_event(self, details: MutableMapping[str, Any], text: str) -> None:
        """Keep what the last event of a Responses API stream carries."""
        call = self._call(details)
        event = from_json(text) if any(kind in text for kind in _LAST_EVENTS) else None
        if call is None or part(event, "type") not in _LAST_EVENTS:
            return
        evidence = _evidence(call)
        evidence.response = part(event, "response")
        evidence.chunks = [evidence.response]
        evidence.is_probed = True
        call.is_answered = part(event, "type") != "response.failed"

    def close_stream(self, stream: Any) -> None:
        """Close the call of a stream that is closed by its reader; what came to its end has its own end event."""
        # Not by part(), which keeps the classes it has seen: a Router makes one a stream, and that keeps the stream.
        details = _details_of(getattr(stream, "logging_obj", None))
        call = None if details is None else self._call(details)
        if call is not None and not call.is_answered:
            error = sys.exc_info()[1]
            outcome = Outcome.ABANDONED
            if error is not None and not isinstance(error, GeneratorExit):
                if is_cancellation(error):
                    outcome = Outcome.CANCELLED
                elif _was_raised_by(stream, error):  # LiteLLM's Router closes a stream that broke
                    outcome = Outcome.FAILED
            self._ledger.close_call(call, outcome=outcome, error=error if outcome is Outcome.FAILED else None)

    def finish_stream(self, logging_obj: Any) -> None:
        """Close the call of an async stream before its reader is told of its end: LiteLLM's own event comes later."""
        details = _details_of(logging_obj)
        if details is not None and (call := self._call(details)) is not None and call.is_answered:
            self.succeed(details, None)

    def break_stream(self, logging_obj: Any, error: BaseException) -> None:
        """Close the call of a stream that broke, before its reader is told: LiteLLM's own event comes later."""
        details = _details_of(logging_obj)
        if details is not None and (call := self._call(details)) is not None:
            self._ledger.close_call(call, outcome=Outcome.FAILED, error=error)

    def take_answer(self, details: MutableMapping[str, Any], response: Any) -> None:
        """Close an async call with its answer, before the caller has it: the success event may never come."""
        call = self._call(details)
        if call is not None and not call.streamed and response is not None:
            self.succeed(details, response)

    def hand_over(self, details: MutableMapping[str, Any], response: Any) -> None:
        """Take what a call is about to give its caller; of one that was not announced, this is the first word."""
        state = _state_in(details)
        if state is None or response is None:
            return
        if state.batch is not None:
            state = self._choose(state, state.batch, response)
        call, is_stream = state.call, details.get("stream") is True
        state.is_handed_over = is_stream and not inspect.iscoroutine(response)  # LiteLLM 1.80.17: it has yet to send
        if call is None and is_stream:
            self._open_unannounced(state, details)
        elif call is None:
            self.succeed(details, response)
        elif not is_stream and not call.streamed and call.is_open:
            # Here and not at LiteLLM's own event, which another thread tells of: that may never run in a forked child,
            # and a process may die first.
            self.succeed(details, response)

    def _choose(self, state: CallState, batch: _Batch, response: Any) -> CallState:
        """Find the call of a batch whose answer the caller is given, once all are over; nobody reads the others."""
        chosen = batch.answered.get(id(response))
        if chosen is None:  # it is the answer of one of them, on its own thread
            return state
        batch.chosen = chosen
        for other in batch.answered.values():
            if other is not chosen and other.call is not None:
                self._ledger.close_call(other.call, outcome=other.call.outcome_if_left)
        batch.answered.clear()
        return chosen

    def succeed(self, details: MutableMapping[str, Any], response: Any) -> None:
        """Close the call with LiteLLM's response."""
        state = self._state(details)
        call = state.call or self._open_unannounced(state, details)
        if call is None:
            return
        evidence = _evidence(call)
        if evidence.response is None:
            evidence.response = response
        self._ledger.close_call(call, outcome=Outcome.COMPLETED, cached=details.get("cache_hit") is True)

    def fail(self, details: MutableMapping[str, Any]) -> None:
        """Close the call as failed; a failure before anything was sent is no call."""
        call = self._call(details)
        error = details.get("exception")
        if isinstance(error, StopIteration | StopAsyncIteration):  # LiteLLM 1.80 calls the end of a stream a failure
            self.succeed(details, None)
        elif call is not None:
            is_cancelled = isinstance(error, BaseException) and is_cancellation(error)
            outcome = Outcome.CANCELLED if is_cancelled else Outcome.FAILED
            self._ledger.close_call(call, outcome=outcome, error=error if isinstance(error, BaseException) else None)

    def enclosing(self) -> OpenCall | None:
        """Find the open call, if any, whose request the code running right now is about to send."""
        state = _latest_state()
        if state is None or state.is_handed_over:
            return None
        call = state.call or self._unannounced(state)
        if call is None or not _is_sending(call):
            return None
        # LiteLLM tells nobody of a cancelled call; while its code runs on, only one request of it was cancelled.
        return None if call.was_cancelled and not _runs_for(state.logging_obj and state.logging_obj()) else call

    def _unannounced(self, state: CallState) -> OpenCall | None:
        """Open an embedding that sends its request without a word before: ``ollama``'s (LiteLLM 1.106.2)."""
        logging_obj = None if state.logging_obj is None else state.logging_obj()
        details = _details_of(logging_obj)
        is_embedding = details is not None and OPERATIONS.get(details.get("call_type") or "") is Operation.EMBEDDING
        # Not after it, where it was refused before anything was sent.
        if details is not None and is_embedding and _runs_for(logging_obj):
            self.send(details, None)
        return state.call

    def _open_unannounced(self, state: CallState, details: MutableMapping[str, Any]) -> OpenCall | None:
        """Open a call of which LiteLLM told no sending: a mock, a class of the user's, what came from its cache."""
        call_type = details.get("call_type") or ""
        operation = None if call_type in _GENERATE_CONTENT else OPERATIONS.get(call_type)
        # A cache hit sends nothing; of another call without a sending we must have seen the beginning.
        if operation is None or not (details.get("cache_hit") is True or state.logging_obj is not None):
            return None
        _, outer = state.origin
        if outer is not None and not outer.is_open:  # it has its record, and no request of this one was seen
            return None
        with self._ledger.lock:  # LiteLLM 1.80.17 tells of the end on another thread, while the caller is handed it
            if state.call is None:
                state.call = self._open(state, operation, details, details.get("messages"))
        return state.call

    def _new_state(self) -> CallState:
        # A call that LiteLLM has half done is not around this one, unless a class runs for it right now.
        call = self._ledger.enclosing_call(besides=self.enclosing)
        return CallState(self._ledger.origin(FRAMEWORK, call))

    def _state(self, details: MutableMapping[str, Any]) -> CallState:
        state = _state_in(details)
        if state is None:
            state = details[_KEY] = self._new_state()
        return state

    def _call(self, details: MutableMapping[str, Any]) -> OpenCall | None:
        state = _state_in(details)
        return None if state is None else state.call

    def _open(self, state: CallState, operation: Operation, details: Mapping[str, Any], messages: Any) -> OpenCall:
        origin = state.origin
        options = details.get("optional_params") or {}
        params = details.get("litellm_params")
        metadata = part(params, "metadata")
        has_metadata = metadata is not None and metadata != {}
        if has_metadata:  # the caller's own are with the options where a Router is asked for a response
            run_id = text_of(part(metadata, RUN_KEY)) or text_of(part(part(options, "metadata"), RUN_KEY))
            origin = origin if run_id is None else self._ledger.origin_in(run_id, origin)
        model, provider = state.asked or (details.get("model"), details.get("custom_llm_provider"))
        call = self._ledger.open_call(
            origin, framework=FRAMEWORK, operation=operation, provider=text_of(provider), model=text_of(model)
        )
        if state.call is not None and state.tries is None:
            state.tries = _Tries()
            state.tries.latest, state.tries.logical_call_id = state.call, state.call.logical_call_id
            state.call.group = state.tries
        if (tries := state.tries) is not None:
            if tries.latest is not None:
                call.attempt = call.last_attempt = max(tries.latest.attempt, tries.latest.last_attempt) + 1
            call.group, tries.latest = tries, call
        call.streamed = details.get("stream") is True or part(options, "stream") is True
        request = request_of(operation, details, messages, is_mocked=state.is_mocked)
        evidence = call.evidence = LiteLLMEvidence(operation, request, options)
        evidence.is_probed = state.is_mocked  # and carried none
        # Those of the call around it, if there is one, are not about this one.
        call.session_id, call.tags = _word(part(params, "litellm_session_id")), []
        if has_metadata:
            call.session_id = call.session_id or _word(part(metadata, "session_id"))
            tags = part(metadata, "tags")
            call.tags = [tag for tag in tags[:_MOST_TAGS] if _word(tag)] if isinstance(tags, list) else []
        call.reports_late = True
        # LiteLLM announces a text completion's stream when it is made, and sends its request when it is read.
        call.shows_requests = not state.is_mocked and _is_tapped(call.provider)
        call.is_asked_once = operation is not Operation.EMBEDDING  # Bedrock's Titan is sent text by text
        return call

    def _forget(self, watch: _Watch) -> None:
        # Runs inside the garbage collector: takes no lock.
        _watches.pop(id(watch), None)
        call = watch.state.call
        if call is not None and call.is_open:
            # What came whole is completed, as a drain would have it: of some streams LiteLLM tells no end.
            self._ledger.call_gone(call, Outcome.COMPLETED if call.is_answered else call.outcome_if_left)


class _Hooks(CustomLogger):
    """LiteLLM's hooks, passed on. Several handlers may stand in its lists at once: a call is still counted once."""

    def __init__(self) -> None:
        super().__init__()
        # LiteLLM ignores a second handler of one class whose public attributes are equal.
        self.token_callbacks_id = f"{type(self).__name__}-{id(self)}"
        listener, shielded = _listener, process_ledger().shielded
        self._send = shielded(listener.send)
        self._answer = shielded(listener.answer)
        self._take_answer = shielded(listener.take_answer)
        self._succeed = shielded(listener.succeed)
        self._fail = shielded(listener.fail)

    def log_pre_api_call(self, model: Any, messages: Any, kwargs: Any) -> None:
        """Take that a request goes out."""
        self._send(kwargs, messages)

    def log_post_api_call(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Take that an answer has come."""
        self._answer(kwargs)

    def log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Take that a call has ended well."""
        self._succeed(kwargs, response_obj)

    def log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Take that a call has failed."""
        self._fail(kwargs)

    async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Take that a call has ended well."""
        self._succeed(kwargs, response_obj)

    async def async_log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Take that a call has failed."""
        self._fail(kwargs)

    async def async_post_call_success_deployment_hook(self, request_data: Any, response: Any, call_type: Any) -> None:
        """Take an async answer before its caller does: the success event of it may never come."""
        details = _details_of(part(request_data, "litellm_logging_obj"))
        if details is not None:
            self._take_answer(details, response)


class LiteLLMTokenCallback(_Hooks):
    """Count LiteLLM's calls, registered the plain way: ``litellm.callbacks = [LiteLLMTokenCallback()]``.

    ``counter``: where the calls go; ``None`` takes the newest open ``TokenCounter``, or makes one for LiteLLM, with
    the default log folder, at the first call. Beside a ``TokenCounter``, or registered twice, a call is still one
    record. Raises ``InvalidArgument`` for what is not an open ``TokenCounter``.
    """

    def __init__(self, counter: TokenCounter | None = None) -> None:
        if counter is not None:
            if not is_of_class(counter, TokenCounter):
                raise InvalidArgument(f"counter is a TokenCounter or None, not {counter!r}: TokenCounter(log_dir=...)")
            counter.require_open()
        super().__init__()
        self._counter = counter
        self._find_counter = process_ledger().shielded(shared_counter)

    def log_pre_api_call(self, model: Any, messages: Any, kwargs: Any) -> None:
        """Take that a request goes out, and see to it that somebody counts it."""
        if self._counter is None:
            self._find_counter(FRAMEWORK)
        super().log_pre_api_call(model, messages, kwargs)


class _ProcessHandler(_Hooks):
    """The one handler that a ``TokenCounter`` puts into LiteLLM's list."""


class _Installed:
    """The hooks, while they are in."""

    def __init__(self, ledger: Ledger) -> None:
        self.handler = _ProcessHandler()
        self._see_to_registration: Callable[..., None] = ledger.shielded(self._register)
        self._set_up: Callable[..., None] = ledger.shielded(_listener.set_up)
        self._end_stream: Callable[..., None] = ledger.shielded(_listener.end_stream)
        self._pass_event: Callable[..., None] = ledger.shielded(_listener.pass_event)
        self._ask_class: Callable[..., None] = ledger.shielded(_listener.ask_class)
        self._take_class_answer: Callable[..., None] = ledger.shielded(_listener.take_class_answer)
        self._find_call: Callable[..., OpenCall | None] = ledger.shielded(_listener.call_of)
        self._request: Callable[..., None] = ledger.shielded(_listener.request)
        self._hand_over: Callable[..., None] = ledger.shielded(_listener.hand_over)
        self._set_up_one: Callable[..., CallState | None] = ledger.shielded(_listener.set_up_one)
        self._end_one: Callable[..., None] = ledger.shielded(_listener.end_one)
        self._close_stream: Callable[..., None] = ledger.shielded(_listener.close_stream)
        self._finish_stream: Callable[..., None] = ledger.shielded(_listener.finish_stream)
        self._break_stream: Callable[..., None] = ledger.shielded(_listener.break_stream)
        self._patches = Patches()
        self._patches.wrap(litellm.utils, "function_setup", self._around_function_setup)
        self._patches.wrap(litellm.utils, "update_response_metadata", self._around_update_response_metadata)
        self._patches.wrap(litellm, "stream_chunk_builder", self._around_stream_chunk_builder)
        self._patches.wrap(_responses_stream(), "_process_chunk", self._around_process_chunk)
        self._patches.wrap(litellm.CustomStreamWrapper, "aclose", self._around_aclose)
        for name in ("fetch_stream", "fetch_sync_stream"):
            self._patches.wrap(litellm.CustomStreamWrapper, name, self._around_fetch)
        self._patches.wrap(getattr(litellm, "Router", None), "_update_kwargs_before_fallbacks", _around_update_kwargs)
        for name in ("completion", "acompletion", "responses", "aresponses"):
            self._patches.wrap(litellm, f"{name}_with_retries", _around_retries)
        # It calls stream_chunk_builder on a thread, where no error is under way (1.106.2); older versions have none.
        self._patches.wrap(litellm.CustomStreamWrapper, "_finalize_completed_stream", self._around_finalize)
        # LiteLLM 1.80.17 has no such function: a summary that is read at once may lack a stream that broke.
        self._patches.wrap(litellm.CustomStreamWrapper, "_handle_stream_fallback_error", self._around_stream_error)
        for client in _http_clients():
            self._patches.wrap(client, "post", self._around_post)
        text = getattr(sys.modules.get("litellm.llms.openai.completion.handler"), "OpenAITextCompletion", None)
        self._patches.wrap(text, "streaming", self._around_lazy_stream)
        self._patches.wrap(text, "async_streaming", self._around_async_lazy_stream)
        self._patches.wrap(sys.modules.get("litellm.main"), "custom_chat_llm_router", self._around_custom_router)
        self._patches.wrap(getattr(litellm, "CustomLLM", None), "__getattribute__", self._around_look_up)
        for module in map(sys.modules.get, _RUN_ASYNC_IN_A_THREAD):
            self._patches.wrap(module, "run_async_function", _around_run_async_function)
        self._patches.wrap(sys.modules.get("litellm.batch_completion.main"), "litellm", self._around_batches)
        self._patches.wrap(getattr(litellm, "Router", None), "_silent_experiment_completion", _carrying_method)
        ledger.add_locator(_listener.enclosing, is_innermost=True)
        self._ledger = ledger
        self._register()

    def _register(self) -> None:
        if self.handler not in litellm.callbacks:
            litellm.callbacks.append(self.handler)

    def _around_function_setup(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def function_setup(*args: Any, **kwargs: Any) -> Any:
            try:  # again at every call: a user may well assign a new list to litellm.callbacks after us
                is_registered = self.handler in litellm.callbacks
            except Exception:  # noqa: BLE001 - it is tried again, and that is noted
                is_registered = False
            if not is_registered:
                self._see_to_registration()
            trace_id = kwargs.get("litellm_trace_id")
            tries = trace_id if is_of_class(trace_id, _Tries) else None
            if tries is not None:  # from here on other callbacks are told of it
                del kwargs["litellm_trace_id"]
                kwargs |= {"litellm_trace_id": str(tries)} if tries else {}
            result = original(*args, **kwargs)
            if isinstance(result, tuple) and result:
                self._set_up(result[0], kwargs, tries)
            return result

        return function_setup

    def _around_batches(self, module: Any) -> Any:
        return _Carrying(module, self._around_one)

    def _around_one(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def completion(*args: Any, **kwargs: Any) -> Any:
            # Where a model_list= is given, all of a batch are made with one object.
            logging_obj = kwargs.get("litellm_logging_obj")
            state = None if logging_obj is None else self._set_up_one(logging_obj, kwargs)
            if state is None:
                return original(*args, **kwargs)
            try:
                response = original(*args, **kwargs)
            except BaseException as error:
                self._end_one(state, None, error)
                raise
            self._end_one(state, response, None)
            return response

        return completion

    def _around_update_response_metadata(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def update_response_metadata(*args: Any, **kwargs: Any) -> Any:
            details = _details_of(kwargs.get("logging_obj"))
            if details is not None:
                self._hand_over(details, kwargs.get("result"))
            return original(*args, **kwargs)

        return update_response_metadata

    def _around_stream_chunk_builder(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def stream_chunk_builder(*args: Any, **kwargs: Any) -> Any:
            response = original(*args, **kwargs)
            details = _details_of(kwargs.get("logging_obj"))
            chunks = kwargs.get("chunks", args[0] if args else None)
            if details is not None and isinstance(chunks, list):
                self._end_stream(details, chunks, response)
            return response

        return stream_chunk_builder

    def _around_process_chunk(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def _process_chunk(iterator: Any, chunk: Any, *args: Any, **kwargs: Any) -> Any:
            details = _details_of(part(iterator, "logging_obj"))
            if details is not None and isinstance(chunk, str):
                self._pass_event(details, chunk)
            return original(iterator, chunk, *args, **kwargs)

        return _process_chunk

    def _around_aclose(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        async def aclose(stream: Any) -> Any:
            # First, since the reader may be cancelled while he waits.
            self._close_stream(stream)
            return await original(stream)

        return aclose

    def _around_fetch(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def fetch(stream: Any) -> Any:
            if getattr(stream, "completion_stream", None) is None:  # Gemini and Bedrock are asked when it is read
                self._request(getattr(stream, "logging_obj", None))
            return original(stream)

        return fetch

    def _around_finalize(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        async def _finalize_completed_stream(stream: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return await original(stream, *args, **kwargs)
            except StopAsyncIteration:
                self._finish_stream(getattr(stream, "logging_obj", None))
                raise

        return _finalize_completed_stream

    def _around_stream_error(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def _handle_stream_fallback_error(stream: Any, e: Any) -> Any:  # by LiteLLM's names
            self._break_stream(getattr(stream, "logging_obj", None), e)
            return original(stream, e)

        return _handle_stream_fallback_error

    def _around_post(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def post(*args: Any, **kwargs: Any) -> Any:
            logging_obj = kwargs.get("logging_obj")
            if logging_obj is not None:
                self._request(logging_obj)
            return original(*args, **kwargs)

        return post

    def _around_custom_router(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def custom_chat_llm_router(*args: Any, **kwargs: Any) -> Any:
            return self._around_method(original(*args, **kwargs))

        return custom_chat_llm_router

    def _around_look_up(self, original: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
        home: Any = getattr(litellm, "CustomLLM", None)

        def __getattribute__(handler: Any, name: str) -> Any:  # noqa: N807 - it is put in place of the language's own
            found = super(home, handler).__getattribute__(name)
            # LiteLLM takes these from the class itself, and no function of its own is in between.
            if name in _EMBEDDING_METHODS and inspect.ismethod(found):
                return MethodType(self._around_method(found.__func__), handler)
            return found

        return __getattribute__

    def _around_method(self, method: Callable[..., Any]) -> Callable[..., Any]:
        return (self._around_async_class if inspect.iscoroutinefunction(method) else self._around_class)(method)

    def _around_class(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def ask(*args: Any, **kwargs: Any) -> Any:
            logging_obj = kwargs.get("logging_obj")
            self._ask_class(logging_obj, kwargs.get("messages"))
            with self._sending_now(logging_obj), self._running_now(logging_obj):
                response = original(*args, **kwargs)
            if inspect.iscoroutine(response):
                return self._awaited_for_class(response, logging_obj)
            self._take_class_answer(logging_obj, response)
            is_stream, is_async_stream = isinstance(response, Iterator), isinstance(response, AsyncIterator)
            if is_stream and not is_async_stream:
                return self._read_for_class(response, logging_obj)
            if is_async_stream and not is_stream:
                return self._aread_for_class(response, logging_obj)
            return response  # LiteLLM's own streams are both

        return ask

    def _around_async_class(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        async def ask(*args: Any, **kwargs: Any) -> Any:
            logging_obj = kwargs.get("logging_obj")
            self._ask_class(logging_obj, kwargs.get("messages"))
            return await self._awaited_for_class(original(*args, **kwargs), logging_obj)

        return ask

    async def _awaited_for_class(self, asking: Coroutine[Any, Any, Any], logging_obj: Any) -> Any:
        with self._sending_now(logging_obj), self._running_now(logging_obj):
            response = await asking
        self._take_class_answer(logging_obj, response)
        return response

    def _read_for_class(self, stream: Iterator[Any], logging_obj: Any) -> Iterator[Any]:
        with self._sending_now(logging_obj):
            yield from _Piecewise(functools.partial(self._running_now, logging_obj), stream)

    async def _aread_for_class(self, stream: AsyncIterator[Any], logging_obj: Any) -> AsyncIterator[Any]:
        running = BoundAsyncIterator(functools.partial(self._running_now, logging_obj), stream)
        with self._sending_now(logging_obj):
            async with contextlib.aclosing(running):
                async for chunk in running:
                    yield chunk

    def _running_now(self, logging_obj: Any) -> AbstractContextManager[None]:
        """Tell of a class that runs for a call, in the code inside."""
        return running_for(self._find_call(logging_obj))

    def _around_lazy_stream(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def streaming(*args: Any, **kwargs: Any) -> Iterator[Any]:
            with self._sending_now(kwargs.get("logging_obj")):
                yield from original(*args, **kwargs)

        return streaming

    def _around_async_lazy_stream(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        async def async_streaming(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            with self._sending_now(kwargs.get("logging_obj")):
                async with contextlib.aclosing(original(*args, **kwargs)) as stream:
                    async for chunk in stream:
                        yield chunk

        return async_streaming

    @contextlib.contextmanager
    def _sending_now(self, logging_obj: Any) -> Iterator[None]:
        """Tell of a request that is sent by the code inside: LiteLLM tells late, or nobody, that it was refused."""
        self._request(logging_obj)
        try:
            yield
        except Exception as error:
            # The client's, which LiteLLM wraps when it is not async; what the client was told itself, it suppresses.
            told = None if error.__suppress_context__ else error.__context__
            self._break_stream(logging_obj, told or error)
            raise

    def remove(self) -> None:
        self._patches.remove()
        self._ledger.remove_locator(_listener.enclosing)
        self._see_to_registration = self._set_up = self._end_stream = _do_nothing
        self._pass_event = self._request = self._hand_over = _do_nothing
        self._set_up_one = self._end_one = self._ask_class = self._take_class_answer = _do_nothing
        self._find_call = _do_nothing
        self._close_stream = self._finish_stream = self._break_stream = _do_nothing
        for name in CALLBACK_LISTS:
            registered = getattr(litellm, name, None)
            if isinstance(registered, list) and self.handler in registered:
                registered.remove(self.handler)


class _Piecewise(BoundIterator):
    """A stream of a class, each piece of which is asked for in a context."""

    def close(self) -> None:
        """Close it as it is: the garbage collector may do so, where no context variable is to be set."""
        close = getattr(self._iterator, "close", None)
        if close is not None:
            close()


def _around_run_async_function(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def run_async_function(async_function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return original(carried(async_function), *args, **kwargs)

    return run_async_function


def _around_update_kwargs(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def _update_kwargs_before_fallbacks(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        told: Any = kwargs.get("kwargs")
        trace_id = told.get("litellm_trace_id") if isinstance(told, dict) else None
        if type(trace_id) is str or (is_of_class(trace_id, _Tries) and _is_made_by_litellm(told)):
            told["litellm_trace_id"] = _Tries(trace_id)
        return result

    return _update_kwargs_before_fallbacks


def _around_retries(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def with_retries(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **_with_tries(kwargs))

    @functools.wraps(original)
    async def with_aretries(*args: Any, **kwargs: Any) -> Any:
        return await original(*args, **_with_tries(kwargs))

    return with_aretries if inspect.iscoroutinefunction(original) else with_retries


def _with_tries(options: dict[str, Any]) -> dict[str, Any]:
    # Where LiteLLM asks for it, all share an object; and a function of the caller's need not take what is added.
    tried = options.get("original_function", litellm.completion)
    is_litellms = str(getattr(tried, "__module__", None)).startswith("litellm.")
    # What makes one call is decorated, by LiteLLM's client; a Router and batch_completion make as many as they like.
    if is_litellms and hasattr(tried, "__wrapped__") and options.get("litellm_logging_obj") is None:
        options["litellm_trace_id"] = _Tries(options.get("litellm_trace_id") or "")
    return options


def _is_made_by_litellm(options: Mapping[str, Any]) -> bool:
    """Tell whether a Router makes a call because of another one, whose trace id it hands on: a silent or a judge's."""
    metadata = part(options, "metadata")
    return any(part(metadata, mark) for mark in ("is_silent_experiment", "internal_call_origin"))


class _Carrying:
    """Stands for LiteLLM in a module that calls it from threads of its own, where they are given their work."""

    def __init__(self, module: Any, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        self._module = module
        self._around = around

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        return carried_call(self._around(found)) if name == "completion" else found


def _carrying_method(function: Callable[..., Any]) -> property:
    """Make the method that runs where it is looked up."""
    return property(lambda router: carried_call(functools.partial(function, router)))


def _responses_stream() -> Any:
    try:
        with importing:
            from litellm.responses.streaming_iterator import BaseResponsesAPIStreamingIterator
    except ImportError:  # a LiteLLM, or an installation of it, without this part
        return None
    return BaseResponsesAPIStreamingIterator


def _http_clients() -> tuple[Any, ...]:
    """Find LiteLLM's own clients, which are told whose request they post: a stream may go out when it is read."""
    try:
        with importing:
            from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler, HTTPHandler
    except ImportError:  # a LiteLLM that has them elsewhere
        return ()
    return HTTPHandler, AsyncHTTPHandler


_RUN_ASYNC_IN_A_THREAD = (
    "litellm.litellm_core_utils.asyncify",
    "litellm.litellm_core_utils.fallback_utils",
    "litellm.router",
)

_EMBEDDING_METHODS = ("embedding", "aembedding")
"""Of a class in ``custom_provider_map``."""

_TAPPED = ("openai", "text-completion-openai", "azure", "azure_text", "anthropic", "gemini")
"""Providers that LiteLLM asks with httpx alone, beside its own list of those that speak as OpenAI does; of others
(Vertex's SDK, a model in this process, a class of the user's) a request may go out unseen."""

_LAST_EVENTS = ("response.completed", "response.incomplete", "response.failed")

CALLBACK_LISTS = (
    "callbacks",
    "input_callback",
    "success_callback",
    "failure_callback",
    "_async_success_callback",
    "_async_failure_callback",
)

_watches: dict[int, _Watch] = globals().get("_watches") or {}
"""Those of the calls under way, by their id: each has to outlive what it looks after, and nobody else holds it."""

_listener: Listener = globals().get("_listener") or Listener(process_ledger())
_once: Once[_Installed] = globals().get("_once") or Once(_Installed)
_proxy_callback: LiteLLMTokenCallback | None = None


install, uninstall = _once.install, _once.uninstall


def __getattr__(name: str) -> object:
    """Make ``proxy_callback`` when it is asked for: ``callbacks: token_callbacks.adapters.litellm.proxy_callback``."""
    global _proxy_callback
    if name != "proxy_callback":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if _proxy_callback is None:
        _proxy_callback = LiteLLMTokenCallback()
    return _proxy_callback


def _details_of(logging_obj: Any) -> MutableMapping[str, Any] | None:
    """Find LiteLLM's dict of a call in its logging object."""
    details = getattr(logging_obj, "model_call_details", None)
    return details if type(details) is dict or isinstance(details, MutableMapping) else None


def _is_mocked(options: Mapping[str, Any]) -> bool:
    # A whole answer of the caller's own may have a usage that is meant; to a text or a vector, LiteLLM makes one up.
    mock = options.get("mock_response")
    is_error = isinstance(mock, str) and mock.startswith(("litellm.", "Exception: "))
    return (isinstance(mock, str | list) and not is_error) or bool(options.get("mock_tool_calls"))


def _asked(options: Mapping[str, Any]) -> tuple[Any, Any] | None:
    """Name the model and its provider; ``None`` where LiteLLM does not know one."""
    names = ("model", "custom_llm_provider", "api_base", "api_key")
    try:
        model, provider, _, _ = litellm.get_llm_provider(*map(options.get, names))
    except litellm.exceptions.BadRequestError:
        return None
    return model, provider


def _runs_for(logging_obj: object) -> bool:
    """Tell whether LiteLLM's code runs right now for a call of its."""
    frame = inspect.currentframe()
    while frame is not None:
        is_litellms = str(frame.f_globals.get("__name__")).startswith("litellm.")
        if is_litellms and frame.f_locals.get("logging_obj") is logging_obj:
            return True
        frame = frame.f_back
    return False


def _was_raised_by(stream: object, error: BaseException) -> bool:
    """Tell whether an exception came out of a stream, and not from its reader."""
    return any(frame.f_locals.get("self") is stream for frame, _ in traceback.walk_tb(error.__traceback__))


def _is_tapped(provider: str | None) -> bool:
    return provider in _TAPPED or provider in getattr(litellm, "openai_compatible_providers", ())


def _state_in(details: Mapping[str, Any]) -> CallState | None:
    """Find what is kept in LiteLLM's dict: of a batch, for the call of the running code, or for the chosen one."""
    state: CallState | None = details.get(_KEY)
    if type(state) is not CallState and not _is_state(state):
        return None
    if state.batch is None:
        return state
    own = _latest_state()
    is_one = own is not None and own is not state and own.batch is state.batch
    return own if is_one else state.batch.chosen or state


def _latest_state() -> CallState | None:
    latest = _latest.get()
    return None if latest is None else latest()


def _is_sending(call: OpenCall) -> bool:
    # An answered one sends nothing any more, though LiteLLM tells of its end later; nor does one that is read.
    return call.is_open and not call.is_answered and not call.is_asked


def _is_state(value: object) -> TypeGuard[CallState]:
    return is_of_class(value, CallState)


def _do_nothing(*args: Any) -> None:
    """Stand in for a hook that was taken out."""


def _evidence(call: OpenCall) -> LiteLLMEvidence:
    return call.evidence  # type: ignore[return-value]  # the one that _open gave it


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= _LONGEST_WORD else None
