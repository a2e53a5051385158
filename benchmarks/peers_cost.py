"""What we add to a call and to a chunk, beside the tracing products that people attach, in one run.

Of OpenInference's instrumentors the spans go to a batch processor whose exporter drops them; Langfuse's callback for
LiteLLM is told a port where nobody listens, so that neither waits for a network. Langfuse's own way into LlamaIndex is
OpenInference's instrumentor.
"""

from __future__ import annotations

import functools
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import litellm
from litellm.integrations.custom_logger import CustomLogger
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.llms import ChatMessage
from llama_index.llms.litellm import LiteLLM
from openinference.instrumentation.litellm import LiteLLMInstrumentor
from openinference.instrumentation.llama_index import LlamaIndexInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from benchmarks import litellm_cost, llama_index_cost
from benchmarks.side_by_side import Timings, side_by_side
from benchmarks.tables import Row
from loopback_server import LoopbackServer, Reply
from token_callbacks import TokenCounter

_HISTORY = 10
_TURNS = 30
_NOBODY = "http://127.0.0.1:9"


class _Dropping(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002
        return SpanExportResult.SUCCESS


def rows() -> Iterator[Row]:
    """Measure LlamaIndex's ``chat()`` and chunk, the one over LiteLLM, and LiteLLM's completion and stream."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(_Dropping()))
    yield from _llama_index(provider)
    with _langfuse_at_nobody():  # last, as its threads go on for a while
        yield from _both(provider)
        yield from _litellm(provider)
    provider.shutdown()


@contextmanager
def _langfuse_at_nobody() -> Iterator[None]:
    for name in ("LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY"):
        os.environ.setdefault(name, "none")
    os.environ["LANGFUSE_HOST"] = os.environ["LANGFUSE_BASE_URL"] = _NOBODY
    logging.disable(logging.CRITICAL)  # of nobody listening
    yield
    logging.disable(logging.NOTSET)


def _spans(hooks: llama_index_cost.Hooks, provider: TracerProvider) -> tuple[list[Any], list[Any]]:
    """Give the handlers that OpenInference's instrumentor puts into LlamaIndex."""
    instrumentor = LlamaIndexInstrumentor()
    llama_index_cost.set_handlers(hooks.none)
    instrumentor.instrument(tracer_provider=provider)
    spans = llama_index_cost.handlers_now()
    instrumentor.uninstrument()
    return spans


def _llama_index(provider: TracerProvider) -> Iterator[Row]:
    with llama_index_cost.attached() as hooks:
        spans = _spans(hooks, provider)
        theirs = TokenCountingHandler()
        messages = llama_index_cost.history_of(_HISTORY)
        plain, counted = llama_index_cost.replaying(), llama_index_cost.replaying(theirs)
        states = {
            "none": (plain, hooks.none, ()),
            "LlamaIndex's TokenCountingHandler": (counted, hooks.none, ()),
            "OpenInference": (plain, spans, ()),
            "ours": (plain, hooks.ours, (hooks.in_files,)),
        }

        def preparing(handlers: Any, counters: Any) -> Callable[[], None]:
            return lambda: llama_index_cost.make_ready(hooks, handlers, counters, theirs)

        calls = {
            name: llama_index_cost.per_chat(llm, messages, preparing(handlers, counters))
            for name, (llm, handlers, counters) in states.items()
        }
        yield _row(f"LlamaIndex, chat(), history of {_HISTORY}", side_by_side(calls, turns=_TURNS), 1e6, "us")
        hooks.seat(hooks.in_files)
        chunks = {
            name: llama_index_cost.per_chunk(llm, messages, handlers) for name, (llm, handlers, _) in states.items()
        }
        yield _row("LlamaIndex, a streamed chunk", side_by_side(chunks, turns=_TURNS), 1e6, "us")


def _litellm(provider: TracerProvider) -> Iterator[Row]:
    instrumentor = LiteLLMInstrumentor()
    counter = TokenCounter(log_dir=None, frameworks=("litellm",))
    with LoopbackServer(
        replies=lambda _: Reply(text="word " * litellm_cost.WORDS), stream_usage="always_last"
    ) as server:
        for what, is_streamed in (("completion", False), (f"{litellm_cost.WORDS}-chunk stream", True)):
            call = functools.partial(litellm_cost.call, server, is_streamed=is_streamed)
            variants = {
                name: litellm_cost.variant(call, prepare, instrumentor.uninstrument)
                for name, prepare in {
                    "none": lambda: None,
                    "an empty CustomLogger": lambda: litellm.callbacks.append(CustomLogger()),
                    "OpenInference": lambda: instrumentor.instrument(tracer_provider=provider),
                    "Langfuse": lambda: litellm.callbacks.append("langfuse"),
                    "ours": litellm_cost.attach,
                }.items()
            }
            yield _row(f"LiteLLM over loopback, {what}", side_by_side(variants, turns=_TURNS), 1e3, "ms")
    counter.uninstall()


def _both(provider: TracerProvider) -> Iterator[Row]:
    """Measure LlamaIndex's class over LiteLLM, with our hooks in both, and OpenInference's."""
    instrumentor = LiteLLMInstrumentor()
    with (
        llama_index_cost.attached() as hooks,
        LoopbackServer(
            replies=lambda _: Reply(text="word " * litellm_cost.WORDS), stream_usage="always_last"
        ) as server,
    ):
        hooks.seat(hooks.in_memory)
        spans = _spans(hooks, provider)

        def llm(*handlers: Any) -> LiteLLM:
            manager = CallbackManager(list(handlers))
            here = {"api_base": server.base_url, "api_key": "sk-loopback"}
            return LiteLLM(model="openai/gpt-4o-mini", callback_manager=manager, **here)

        def attach_ours() -> None:
            llama_index_cost.set_handlers(hooks.ours)
            litellm_cost.attach()

        def attach_openinference() -> None:
            llama_index_cost.set_handlers(spans)
            instrumentor.instrument(tracer_provider=provider)

        def take_out() -> None:
            llama_index_cost.set_handlers(hooks.none)
            instrumentor.uninstrument()

        plain, messages = llm(), llama_index_cost.history_of(1)
        states = {
            "none": (plain, lambda: None),
            "LlamaIndex's TokenCountingHandler": (llm(TokenCountingHandler()), lambda: None),
            "an empty CustomLogger": (plain, lambda: litellm.callbacks.append(CustomLogger())),
            "OpenInference": (plain, attach_openinference),
            "Langfuse": (plain, lambda: litellm.callbacks.append("langfuse")),
            "ours": (plain, attach_ours),
        }
        for what, is_streamed in (("chat()", False), (f"{litellm_cost.WORDS}-chunk stream", True)):
            variants = {
                name: litellm_cost.variant(
                    functools.partial(_ask, llm, messages, is_streamed=is_streamed), prepare, take_out
                )
                for name, (llm, prepare) in states.items()
            }
            yield _row(f"LlamaIndex, LiteLLM, both: {what}", side_by_side(variants, turns=_TURNS), 1e3, "ms")


def _ask(llm: LiteLLM, messages: Sequence[ChatMessage], *, is_streamed: bool) -> None:
    if is_streamed:
        deque(llm.stream_chat(messages), maxlen=0)
    else:
        llm.chat(messages)


def _row(what: str, timings: Timings, per_second: float, unit: str) -> Row:
    none = timings.seconds("none")
    added = {name: timings.added(name, over="none") for name in timings.turns if name != "none"}
    others = (
        f"{name} {seconds * per_second:+.2f} {unit} ({1 + seconds / none:.2f} x)"
        for name, seconds in added.items()
        if name != "ours"
    )
    return Row(
        what=what,
        ours=f"{added['ours'] * per_second:+.2f} {unit} ({1 + added['ours'] / none:.2f} x)",
        baseline=f"nobody: {none * per_second:.2f} {unit}",
        compared="; ".join(others),
    )
