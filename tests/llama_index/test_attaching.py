"""When and how the hooks get into LlamaIndex: in any order, once, beside others, and out again."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.span_handlers import NullSpanHandler

import token_callbacks
from loopback_server import LoopbackServer
from token_callbacks import TokenCounter, TokenCountingHandler
from token_callbacks.adapters import llama_index as adapter
from token_callbacks.ledger import process_ledger
from token_callbacks.sinks.memory import MemorySink
from token_callbacks.wire import WireEvidence

from .conftest import BUILDERS, Loopback
from .figures import llm_figures, llm_truth, what_is_left
from .methods import MESSAGES

INTEGRATIONS = pytest.mark.parametrize("integration", ["OpenAI", "LiteLLM"])


@pytest.fixture(autouse=True)
def only_our_own_handlers() -> Iterator[None]:
    """Put the root dispatcher's handlers back, and check that no call was left behind."""
    root = get_dispatcher()
    events, spans = list(root.event_handlers), list(root.span_handlers)
    yield
    token_callbacks.uninstall()
    adapter.uninstall()
    root.event_handlers = [handler for handler in events if not _is_ours(handler)]
    root.span_handlers = [handler for handler in spans if not _is_ours(handler)]
    assert [] == what_is_left()


@pytest.fixture
def server(loopback: Loopback) -> LoopbackServer:
    """Give a server that tells the usage of a stream where it is asked, as OpenAI does."""
    return loopback(stream_usage="asked")


IMPORT_ORDERS = {
    "counter first": """
        counter = TokenCounter(log_dir=None, sinks=[memory])
        from llama_index.llms.openai import OpenAI
        llm = OpenAI(model="gpt-4o-mini", api_base=url, api_key="sk-loopback")
    """,
    "counter between import and LLM": """
        from llama_index.llms.openai import OpenAI
        counter = TokenCounter(log_dir=None, sinks=[memory])
        llm = OpenAI(model="gpt-4o-mini", api_base=url, api_key="sk-loopback")
    """,
    "counter last": """
        from llama_index.llms.openai import OpenAI
        llm = OpenAI(model="gpt-4o-mini", api_base=url, api_key="sk-loopback")
        counter = TokenCounter(log_dir=None, sinks=[memory])
    """,
}
SCRIPT = """
import json, sys
from token_callbacks import TokenCounter
from token_callbacks.sinks.memory import MemorySink
url, memory = sys.argv[1], MemorySink()
assert "llama_index" not in sys.modules
{order}
llm.complete("When?")
list(llm.stream_complete("Where?"))
print(json.dumps([[record.usage.prompt_tokens, record.usage.completion_tokens] for record in memory.records]))
"""


@pytest.mark.parametrize("order", IMPORT_ORDERS.values(), ids=IMPORT_ORDERS)
def test_the_order_of_imports_does_not_matter(server: LoopbackServer, order: str) -> None:
    """A counter made before LlamaIndex is imported, between, or after everything counts each call once."""
    script = SCRIPT.format(order=textwrap.dedent(order))
    path = str(Path(token_callbacks.__file__).parent.parent)
    ended = subprocess.run(
        [sys.executable, "-c", script, server.base_url], capture_output=True, text=True, check=False, cwd=path
    )

    assert "" == ended.stderr
    assert [list(figures[:2]) for figures in llm_truth(server)] == json.loads(ended.stdout)


@INTEGRATIONS
def test_an_llm_made_before_the_counter_is_counted(
    server: LoopbackServer, memory: MemorySink, integration: str
) -> None:
    """An LLM object that was there before any counter is counted from the counter on."""
    llm = BUILDERS[integration](server)
    counter = TokenCounter(log_dir=None, sinks=[memory])
    llm.chat(MESSAGES)
    list(llm.stream_chat(MESSAGES))
    counter.close()

    assert llm_truth(server) == llm_figures(memory.records)


@INTEGRATIONS
def test_two_counters_each_have_every_call_once(server: LoopbackServer, integration: str) -> None:
    """Two counters side by side write a record of the same call each, in a run of their own."""
    memories = [MemorySink(), MemorySink()]
    first, second = (TokenCounter(log_dir=None, sinks=[memory]) for memory in memories)
    llm = BUILDERS[integration](server)
    with first.run("first") as run:
        llm.chat(MESSAGES)
        list(llm.stream_chat(MESSAGES))
    first.close()
    second.close()

    assert [llm_truth(server)] * 2 == [llm_figures(memory.records) for memory in memories]
    assert [{run.run_id}, {second.default_run.run_id}] == [
        {record.run_id for record in memory.records} for memory in memories
    ]


@INTEGRATIONS
def test_a_closed_counter_gets_no_more_calls(server: LoopbackServer, memory: MemorySink, integration: str) -> None:
    """After close(), calls go on as before and are no longer counted."""
    counter = TokenCounter(log_dir=None, sinks=[memory])
    llm = BUILDERS[integration](server)
    llm.chat(MESSAGES)
    counter.close()
    llm.chat(MESSAGES)
    list(llm.stream_chat(MESSAGES))

    assert llm_truth(server)[:1] == llm_figures(memory.records)


@INTEGRATIONS
def test_closing_one_counter_leaves_the_other_alone(
    server: LoopbackServer, memory: MemorySink, integration: str
) -> None:
    """Closing, and even uninstalling, one of two counters does not touch what the other one counts."""
    other = TokenCounter(log_dir=None, sinks=[memory])
    TokenCounter(log_dir=None).uninstall()
    BUILDERS[integration](server).chat(MESSAGES)
    other.close()

    assert llm_truth(server) == llm_figures(memory.records)


def test_a_counter_for_litellm_alone_leaves_llamaindex_alone(server: LoopbackServer, memory: MemorySink) -> None:
    """A counter that is asked for one framework has no calls of the other."""
    counter = TokenCounter(log_dir=None, sinks=[memory], frameworks=["litellm"])
    BUILDERS["OpenAI"](server).chat(MESSAGES)
    BUILDERS["LiteLLM"](server).chat(MESSAGES)
    counter.close()

    assert llm_truth(server)[1:] == llm_figures(memory.records)


def test_a_counter_for_llamaindex_alone_counts_the_litellm_class(server: LoopbackServer, memory: MemorySink) -> None:
    """A counter for LlamaIndex has the calls of LlamaIndex's LiteLLM class, though LiteLLM is not hooked."""
    counter = TokenCounter(log_dir=None, sinks=[memory], frameworks=["llama_index"])
    BUILDERS["LiteLLM"](server).chat(MESSAGES)
    counter.close()

    assert llm_truth(server) == llm_figures(memory.records)
    assert ["llama_index"] == [record.framework for record in memory.records]


def test_there_is_one_pair_of_handlers_however_many_counters() -> None:
    """Several counters and handlers share one event handler and one span handler on the root dispatcher."""
    counters = [TokenCounter(log_dir=None) for _ in range(3)]
    TokenCountingHandler()
    root = get_dispatcher()

    assert (1, 1) == (sum(map(_is_ours, root.event_handlers)), sum(map(_is_ours, root.span_handlers)))
    for counter in counters:
        counter.close()


def test_uninstall_takes_our_own_handlers_out_and_no_other() -> None:
    """Uninstall removes by identity: a handler that compares equal to ours, as LlamaIndex compares them, stays."""
    TokenCounter(log_dir=None)
    root = get_dispatcher()
    [ours] = [handler for handler in root.event_handlers if _is_ours(handler)]
    twin, stranger = type(ours)(), NullSpanHandler()
    root.event_handlers.insert(0, twin)
    root.add_span_handler(stranger)
    token_callbacks.uninstall()

    assert twin == ours
    assert any(handler is twin for handler in root.event_handlers)
    assert not any(handler is ours for handler in root.event_handlers)
    assert any(handler is stranger for handler in root.span_handlers)
    assert not any(_is_ours(handler) for handler in root.span_handlers)


@INTEGRATIONS
def test_a_counter_made_after_an_uninstall_counts(server: LoopbackServer, memory: MemorySink, integration: str) -> None:
    """Hooks that were taken out come back with the next counter, and count once."""
    TokenCounter(log_dir=None).uninstall()
    token_callbacks.uninstall()
    counter = TokenCounter(log_dir=None, sinks=[memory])
    list(BUILDERS[integration](server).stream_chat(MESSAGES))
    counter.close()

    assert llm_truth(server) == llm_figures(memory.records)


@INTEGRATIONS
def test_a_stream_that_outlives_the_hooks_is_abandoned_and_read_on(
    server: LoopbackServer, memory: MemorySink, integration: str
) -> None:
    """A stream under way when the hooks are taken out yields all its chunks, and has been recorded once by then."""
    TokenCounter(log_dir=None, sinks=[memory])
    expected = [response.delta for response in BUILDERS[integration](server).stream_chat(MESSAGES)]
    stream = BUILDERS[integration](server).stream_chat(MESSAGES)
    actual = [next(stream).delta]
    token_callbacks.uninstall()
    actual += [response.delta for response in stream]

    assert expected == actual
    assert ["completed", "abandoned"] == [record.outcome.value for record in memory.records]


class Diary(BaseEventHandler):
    """A handler of somebody else's that writes down which events it gets."""

    events: list[str]

    @classmethod
    def class_name(cls) -> str:
        """Name it."""
        return "Diary"

    def handle(self, event: Any, **kwargs: Any) -> None:
        """Write it down."""
        self.events.append(type(event).__name__)


@INTEGRATIONS
@pytest.mark.parametrize("is_first", [True, False], ids=["before ours", "after ours"])
def test_a_foreign_handler_gets_the_same_events_as_without_us(
    server: LoopbackServer, integration: str, is_first: bool
) -> None:
    """A handler of somebody else's on the root dispatcher gets each event that it gets on its own."""
    root = get_dispatcher()
    alone, beside = Diary(events=[]), Diary(events=[])
    root.event_handlers = [alone]
    _call(server, integration)
    root.event_handlers = [beside] if is_first else []
    counter = TokenCounter(log_dir=None)
    if not is_first:
        root.add_event_handler(beside)
    _call(server, integration)
    counter.close()

    assert alone.events
    assert alone.events == beside.events


class Broken(BaseEventHandler):
    """A handler of somebody else's that fails at every event."""

    @classmethod
    def class_name(cls) -> str:
        """Name it."""
        return "Broken"

    def handle(self, event: Any, **kwargs: Any) -> None:
        """Fail."""
        raise RuntimeError("broken")


def test_a_broken_foreign_handler_costs_us_nothing(server: LoopbackServer, memory: MemorySink) -> None:
    """A handler of somebody else's that raises does not keep us from counting."""
    get_dispatcher().event_handlers.insert(0, Broken())
    counter = TokenCounter(log_dir=None, sinks=[memory])
    _call(server, "OpenAI")
    counter.close()

    assert llm_truth(server) == llm_figures(memory.records)


def test_a_fault_of_ours_is_counted_and_does_not_reach_the_caller(
    server: LoopbackServer, memory: MemorySink, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug in reading the figures gives the caller the answer, the summary a count, and the log one warning."""
    counter = TokenCounter(log_dir=None, sinks=[memory])
    monkeypatch.setattr(process_ledger(), "_warned", set())
    monkeypatch.setattr(WireEvidence, "reading", lambda self, operation: 1 / 0)
    with counter.run("faulty") as run:
        answers = [str(BUILDERS["OpenAI"](server).chat(MESSAGES)) for _ in range(2)]
    counter.close()

    assert all(answers)
    assert (2, 2) == (run.summary.internal_errors, run.summary.calls.llm)
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert ["token_callbacks"] == [record.name for record in warnings]


class Odd:
    """An event of a workflow whose attribute is a bug."""

    @property
    def current_agent_name(self) -> str:
        """Fail."""
        raise RuntimeError("broken")


@get_dispatcher().span
def _step(ev: object) -> str:
    return "done"


def test_a_fault_in_a_span_is_counted_and_does_not_reach_the_caller(
    counter: TokenCounter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody's event that raises when it is asked for its agent costs a count and a warning."""
    monkeypatch.setattr(process_ledger(), "_warned", set())
    with counter.run("faulty") as run:
        answer = _step(ev=Odd())

    assert ("done", 1) == (answer, run.summary.internal_errors)
    assert "RuntimeError in Tracker._take_agent" in caplog.text


def test_a_fault_at_the_start_of_a_call_is_counted_and_does_not_reach_the_caller(
    server: LoopbackServer, counter: TokenCounter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """LlamaIndex's dispatcher would swallow it, and nobody would know."""
    monkeypatch.setattr(process_ledger(), "_warned", set())
    monkeypatch.setattr(process_ledger(), "open_call", lambda *args, **options: 1 / 0)
    with counter.run("faulty") as run:
        _call(server, "OpenAI")

    assert "ZeroDivisionError in Tracker.start;" in caplog.text
    assert 2 == run.summary.internal_errors, "one a call"


def _call(server: LoopbackServer, integration: str) -> None:
    llm = BUILDERS[integration](server)
    llm.complete("When?")
    list(llm.stream_chat(MESSAGES))


def _is_ours(handler: Any) -> bool:
    return str(handler.class_name()).startswith("TokenCallbacks")
