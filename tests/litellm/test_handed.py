"""What LiteLLM hands to a user's own handler is the same with us attached, and can be kept and sent as without."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
import pytest
import yaml
from litellm.integrations.custom_logger import CustomLogger
from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER
from litellm.litellm_core_utils.thread_pool_executor import executor

from loopback_server import LoopbackServer
from token_callbacks import TokenCounter, uninstall
from token_callbacks.adapters.litellm import _Tries
from token_callbacks.records import Operation
from token_callbacks.sinks.memory import MemorySink

from ..conftest import Loopback
from ..test_differential import SAME, Trace
from .calls import (
    Case,
    acompletion,
    aembedding_of_text,
    anthropic_messages,
    aresponses,
    atext_completion,
    completion,
    embedding_of_text,
    responses,
    router_acompletion,
    router_completion,
    text_completion,
)
from .conftest import registered
from .test_drain import afallback, fallback, num_aretries, num_retries, router_afallback, router_fallback

pytestmark = pytest.mark.usefixtures("clean_litellm")

OWN_KEY = "_token_callbacks"

WAYS: dict[str, Callable[[Any], Any]] = {
    "copied": copy.deepcopy,
    "pickled": pickle.dumps,
    "JSON": json.dumps,
    "JSON, by force": lambda value: json.dumps(value, default=str),
    "msgspec": msgspec.json.encode,
    "YAML": yaml.safe_dump,
}
"""What a handler may do with what it is handed."""


def _kept(value: Any) -> list[str]:
    """Name the ways that this can be kept in."""
    ways = []
    for name, way in WAYS.items():
        with suppress(Exception):
            way(value)
            ways.append(name)
    return ways


def _shape(value: Any, depth: int = 4) -> Any:
    if type(value) is dict and depth:
        return {key: _shape(item, depth - 1) for key, item in value.items()}
    return type(value).__qualname__


def _theirs(value: Any) -> Any:
    """Leave out what is ours, and ``hidden_params``, which LiteLLM fills in while other threads tell of the end."""
    if type(value) is dict:
        return {key: _theirs(item) for key, item in value.items() if key not in (OWN_KEY, "hidden_params")}
    # Some hooks of a Router's get its trace id with what we know of the tries: a text, though not a plain one.
    return str(value) if isinstance(value, _Tries) else value


class Handler(CustomLogger):
    """A user's handler, which has every hook that LiteLLM calls with its dict of a call."""

    def __init__(self, metadata: dict[str, Any]) -> None:
        super().__init__()
        self.metadata = metadata
        self.under_way = Trace()
        self.ends: list[Any] = []
        self.pieces: set[tuple[str, str]] = set()
        self.ours: list[list[str]] = []
        """How what is kept of ours in LiteLLM's dict can be kept."""

    def _noted(self, event: str, handed: Any, response: Any = None, error: Any = None) -> Any:
        theirs = _theirs(dict(handed))
        self.ours += [_kept(value) for key, value in handed.items() if key == OWN_KEY]
        told = {key: (_shape(value), _kept(value)) for key, value in theirs.items()}
        usage = repr(getattr(response, "usage", None))
        is_callers = (handed.get("litellm_params", handed) or {}).get("metadata") is self.metadata
        return event, told, _kept(theirs), type(response).__qualname__, usage, type(error).__qualname__, is_callers

    def _under_way(self, *what: Any) -> None:
        self.under_way.append(self._noted(*what))

    def _end(self, event: str, kwargs: Any, response: Any) -> None:
        noted = self._noted(event, kwargs, response, kwargs.get("exception"))
        # Of a sync failure LiteLLM tells on a thread, while the caller's goes on with the dict.
        self.ends.append(noted if "_handler" not in threading.current_thread().name else (event, *noted[3:]))

    def _piece(self, event: str, response: Any) -> None:
        # LiteLLM tells of a sync stream's pieces on many threads, while it goes on with the dict, and loses some.
        self.pieces.add((event, type(response).__qualname__))

    def log_pre_api_call(self, model: Any, messages: Any, kwargs: Any) -> None:
        self._under_way("pre", kwargs)

    def log_post_api_call(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self._under_way("post", kwargs, response_obj)

    async def async_pre_call_deployment_hook(self, kwargs: Any, call_type: Any) -> None:
        self._under_way("pre, deployment", kwargs)

    async def async_post_call_success_deployment_hook(self, request_data: Any, response: Any, call_type: Any) -> None:
        self._under_way("success, deployment", request_data, response)

    async def async_post_call_failure_deployment_hook(
        self, request_data: Any, exception: Any, call_type: Any, fallback_depth: Any = None
    ) -> None:
        self._under_way("failure, deployment", request_data, None, exception)

    async def async_filter_deployments(
        self,
        model: Any,
        healthy_deployments: Any,
        messages: Any,
        request_kwargs: Any = None,
        parent_otel_span: Any = None,
    ) -> Any:
        self._under_way("deployments", request_kwargs)
        return healthy_deployments

    async def log_success_fallback_event(self, original_model_group: Any, kwargs: Any, original_exception: Any) -> None:
        self._under_way("fallback", kwargs, None, original_exception)

    async def log_failure_fallback_event(self, original_model_group: Any, kwargs: Any, original_exception: Any) -> None:
        self._under_way("fallback failed", kwargs, None, original_exception)

    def log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self._end("success", kwargs, response_obj)

    async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self._end("async success", kwargs, response_obj)

    def log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self._end("failure", kwargs, response_obj)

    async def async_log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self._end("async failure", kwargs, response_obj)

    def log_stream_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self._piece("stream", response_obj)

    async def async_log_stream_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self._piece("async stream", response_obj)


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], Any]]:
    """Keep back what LiteLLM leaves to threads of its own, which would tell of a dict that others still change."""
    jobs: list[Callable[[], Any]] = []
    monkeypatch.setattr(executor, "submit", lambda *job, **options: jobs.append(partial(*job, **options)))
    return jobs


async def _to_the_end(case: Case, server: LoopbackServer, **options: Any) -> None:
    """Call, and wait for what LiteLLM tells after it: a loop that ends loses that."""
    with suppress(Exception):
        await case.read_async(server, **options)
    left = asyncio.all_tasks() - {asyncio.current_task(), GLOBAL_LOGGING_WORKER._worker_task}
    if left:
        await asyncio.wait(left, timeout=30)
    await GLOBAL_LOGGING_WORKER.flush()


def _played(
    case: Case, server: LoopbackServer, submitted: list[Callable[[], Any]], *, refused: int
) -> tuple[Handler, Any]:
    """Call with a handler of the user's, and give it, and what it and the caller saw."""
    metadata = {"team": "search", "nested": {"floors": [3, 4]}}
    handler = Handler(metadata)
    server.fail_next(status=500, times=refused)
    with registered(handler):
        _call(case, server, submitted, metadata=metadata)
    server._faults.clear()
    ends = sorted(handler.ends, key=repr)
    return handler, (handler.under_way.lanes, ends, handler.pieces, _shape(_theirs(metadata)), _kept(metadata))


def _call(case: Case, server: LoopbackServer, submitted: list[Callable[[], Any]], **options: Any) -> None:
    threads = set(threading.enumerate())
    if case.is_async:
        asyncio.run(_to_the_end(case, server, **options))
    else:
        with suppress(Exception):
            case.run(server, **options)
    for thread in set(threading.enumerate()) - threads:
        if "_handler" in thread.name:
            thread.join(30)
    while submitted:
        submitted.pop(0)()
    asyncio.run(GLOBAL_LOGGING_WORKER.flush())


CALLS = (
    *(completion, acompletion, text_completion, atext_completion, responses, aresponses),
    *(router_completion, router_acompletion, anthropic_messages),
)
CASES = [
    *((Case(call.__name__, call, Operation.CHAT), 0) for call in (*CALLS, embedding_of_text, aembedding_of_text)),
    *((Case(f"{call.__name__} streamed", call, Operation.CHAT, streamed=True), 0) for call in CALLS[:-1]),
    *((Case(f"{call.__name__} refused", call, Operation.CHAT), 1) for call in CALLS),
    *(
        (Case(f"{call.__name__} after a refusal", call, Operation.CHAT), 1)
        for call in (fallback, afallback, num_retries, num_aretries, router_fallback, router_afallback)
    ),
    *(
        (Case(f"{call.__name__} refused", call, Operation.CHAT), 2)
        for call in (fallback, afallback, router_fallback, router_afallback)
    ),
]


@pytest.mark.parametrize(("case", "refused"), [pytest.param(*each, id=each[0].name) for each in CASES])
def test_a_handler_is_handed_the_same_with_us_as_without(
    loopback: Loopback, memory: MemorySink, submitted: list[Callable[[], Any]], case: Case, refused: int
) -> None:
    """Keys, types, usage and order are equal, and so is what can be done with them; ours can be kept and sent, too."""
    server = loopback(stream_usage="asked", tokens=SAME)
    uninstall()
    _played(case, server, submitted, refused=refused)  # what a framework does the first time only
    handler, without = _played(case, server, submitted, refused=refused)
    counter = TokenCounter(log_dir=None, sinks=[memory])
    with counter.run("handed") as run:
        handler_beside_us, attached = _played(case, server, submitted, refused=refused)
    counter.close()

    assert without == attached
    assert handler.ends
    assert [] == handler.ours
    assert handler_beside_us.ours
    assert all({"copied", "pickled", "JSON, by force"} <= set(ways) for ways in handler_beside_us.ours)
    assert 0 == run.summary.internal_errors
