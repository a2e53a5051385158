"""What our hooks lean on in LiteLLM, assumption by assumption: an upgrade that moves one is named by its test."""

from __future__ import annotations

import contextvars
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import litellm
import litellm.utils
import pytest
from litellm.integrations.custom_logger import CustomLogger
from litellm.responses.streaming_iterator import BaseResponsesAPIStreamingIterator
from openai import APIError

from token_callbacks import TokenCounter
from token_callbacks.adapters.litellm import CALLBACK_LISTS, _Hooks

from .calls import EMBEDDINGS, PLAIN, STREAMS, Case
from .conftest import LISTS

WHO: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")

ALL = {case.name: case for case in PLAIN + EMBEDDINGS + STREAMS}
PLAIN_CHATS = [ALL[name] for name in ("completion", "acompletion", "text_completion", "atext_completion")]
CHAT_STREAMS = [ALL[f"{case.name} streamed"] for case in PLAIN_CHATS]
RESPONSES = [ALL[name] for name in ("responses", "aresponses")]
RESPONSES_STREAMS = [ALL[f"{case.name} streamed"] for case in RESPONSES]
VECTORS = [ALL[name] for name in ("embedding string", "aembedding string")]


def _each(*cases: Case) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in cases])


class Seen(CustomLogger):
    """Notes what LiteLLM calls it with; by keyword, or these very names would not fit."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[str, int]] = []
        self.answers: list[Any] = []
        self.returned: list[tuple[Any, Any, bool]] = []

    def log_pre_api_call(self, model: Any, messages: Any, kwargs: Any) -> None:
        self.sent.append((WHO.get(), id(kwargs)))

    def log_post_api_call(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self.answers.append(kwargs["original_response"])

    async def async_post_call_success_deployment_hook(self, request_data: Any, response: Any, call_type: Any) -> None:
        details = request_data["litellm_logging_obj"].model_call_details
        self.returned.append((response, id(details), WHO.get() == "caller"))


@pytest.fixture
def seen(clean_litellm: None) -> Iterator[Seen]:
    """Give a handler that is registered, in a context that a callee can know again."""
    seen = Seen()
    litellm.callbacks.append(seen)
    token = WHO.set("caller")
    yield seen
    WHO.reset(token)


@_each(*PLAIN_CHATS, *CHAT_STREAMS, *RESPONSES, *RESPONSES_STREAMS, *VECTORS)
def test_function_setup_is_called_first_in_the_callers_context(
    seen: Seen, loopback: Any, monkeypatch: pytest.MonkeyPatch, case: Case
) -> None:
    """``litellm.utils.function_setup`` is looked up at each call, and returns the logging object first."""
    set_up: list[tuple[str, int, bool]] = []
    original = litellm.utils.function_setup

    def function_setup(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        set_up.append((WHO.get(), id(result[0].model_call_details), not seen.sent))
        return result

    monkeypatch.setattr(litellm.utils, "function_setup", function_setup)
    case.run(loopback())

    assert set_up
    assert {"caller"} == {who for who, _, _ in set_up}
    assert all(is_first for _, _, is_first in set_up)
    assert seen.sent[0][1] in [details for _, details, _ in set_up]


@_each(*PLAIN_CHATS, *CHAT_STREAMS, *RESPONSES, *RESPONSES_STREAMS, *VECTORS)
def test_log_pre_api_call_comes_once_before_the_request(seen: Seen, loopback: Any, case: Case) -> None:
    """``log_pre_api_call`` is called by keyword, once a request, where the caller's context is visible."""
    case.run(loopback())

    assert ["caller"] == [who for who, _ in seen.sent]


@_each(*PLAIN_CHATS, *RESPONSES, *VECTORS)
def test_log_post_api_call_has_the_answer_before_the_caller(seen: Seen, loopback: Any, case: Case) -> None:
    """``log_post_api_call`` is called by keyword, and ``original_response`` is JSON or the client library's object."""
    case.run(loopback())
    answer = seen.answers[-1]

    assert answer.startswith("{") if isinstance(answer, str) else answer.usage is not None


@_each(*CHAT_STREAMS)
def test_stream_chunk_builder_gets_the_chunks_by_keyword(
    seen: Seen, loopback: Any, monkeypatch: pytest.MonkeyPatch, case: Case
) -> None:
    """``litellm.stream_chunk_builder`` is looked up in the module at a stream's end: the chunks, and whose they are."""
    built: list[tuple[int, list[Any]]] = []
    original = litellm.stream_chunk_builder

    def stream_chunk_builder(*args: Any, **kwargs: Any) -> Any:
        built.append((id(kwargs["logging_obj"].model_call_details), kwargs["chunks"]))
        return original(*args, **kwargs)

    monkeypatch.setattr(litellm, "stream_chunk_builder", stream_chunk_builder)
    case.run(loopback(stream_usage="always_last"))
    details, chunks = built[0]

    assert seen.sent[0][1] == details
    assert [1] == [1 for chunk in chunks if getattr(chunk, "usage", None) is not None]


@_each(ALL["acompletion"], ALL["atext_completion"], ALL["aembedding string"], ALL["aresponses"])
def test_the_deployment_hook_has_an_async_answer_before_the_caller(seen: Seen, loopback: Any, case: Case) -> None:
    """``async_post_call_success_deployment_hook`` is awaited by the caller's task, with answer and dict."""
    case.run(loopback())
    [(response, details, is_callers)] = seen.returned

    assert response.usage is not None
    assert seen.sent[0][1] == details
    assert is_callers


@_each(*RESPONSES_STREAMS)
def test_process_chunk_gets_every_event_as_text(
    seen: Seen, loopback: Any, monkeypatch: pytest.MonkeyPatch, case: Case
) -> None:
    """A Responses API stream passes each event's text through ``_process_chunk``, with whose it is on the iterator."""
    events: list[tuple[str, int]] = []
    original = BaseResponsesAPIStreamingIterator._process_chunk

    def _process_chunk(self: Any, chunk: Any) -> Any:
        events.append((chunk, id(self.logging_obj.model_call_details)))
        return original(self, chunk)

    monkeypatch.setattr(BaseResponsesAPIStreamingIterator, "_process_chunk", _process_chunk)
    case.run(loopback())

    assert 1 == len([text for text, _ in events if '"response.completed"' in text])
    assert {seen.sent[0][1]} == {details for _, details in events}


@pytest.mark.parametrize("cut_after", [None, 3], ids=["whole", "cut"])
@_each(ALL["completion streamed"], ALL["acompletion streamed"])
def test_an_error_under_way_tells_a_broken_stream_from_a_whole_one(
    clean_litellm: None, loopback: Any, monkeypatch: pytest.MonkeyPatch, case: Case, cut_after: int | None
) -> None:
    """Where ``stream_chunk_builder`` is called for a stream that broke, the exception is being handled meanwhile."""
    is_whole = cut_after is None
    under_way: list[BaseException | None] = []
    original = litellm.stream_chunk_builder

    def stream_chunk_builder(*args: Any, **kwargs: Any) -> Any:
        under_way.append(sys.exc_info()[1])
        return original(*args, **kwargs)

    monkeypatch.setattr(litellm, "stream_chunk_builder", stream_chunk_builder)
    server = loopback()
    server.fail_next(cut_after=cut_after)
    with nullcontext() if is_whole else pytest.raises(APIError):
        case.run(server)

    assert under_way or not is_whole
    assert {is_whole} >= {error is None or isinstance(error, StopIteration | StopAsyncIteration) for error in under_way}


def test_our_handler_is_in_no_list_that_uninstall_forgets(
    new_counter: Callable[..., TokenCounter], loopback: Any
) -> None:
    """LiteLLM copies a handler from list to list, sync, async and streamed: into those that ``uninstall`` empties."""
    new_counter()
    for case in (*PLAIN_CHATS, *CHAT_STREAMS, *VECTORS):
        case.run(loopback())
    found = {
        name
        for name, value in vars(litellm).items()
        if isinstance(value, list) and any(isinstance(entry, _Hooks) for entry in value)
    }

    assert "callbacks" in found
    assert set(LISTS) >= found
    assert LISTS == CALLBACK_LISTS


def test_the_hooks_have_the_names_that_litellm_calls_by() -> None:
    """LiteLLM calls hooks by keyword and swallows a TypeError: our parameters are named as in its base class."""
    ours = {name: hook for name, hook in vars(_Hooks).items() if "log_" in name or "post_call" in name}
    for name, hook in ours.items():
        assert list(inspect.signature(getattr(CustomLogger, name)).parameters) == list(
            inspect.signature(hook).parameters
        )


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="no garbage is collected there while a variable is being set")
def test_a_stream_that_is_finalized_leaves_the_context_alone(loopback: Any) -> None:
    """What may crash Python before 3.12 is kept from these tests, as `tests/conftest.py` tells."""
    stream = ALL["completion streamed"].call(loopback(), stream=True)
    context = contextvars.Context()
    context.run(getattr(stream, "__del__", list))
    assert [] == list(context)
