"""TokenCountingHandler in the place of LlamaIndex's class of that name, with the server's ledger as the truth."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event
from typing import Any

import pytest
from llama_index.core import Document, Settings, VectorStoreIndex
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.callbacks import CallbackManager, CBEventType
from llama_index.core.callbacks import TokenCountingHandler as LlamaIndexHandler
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.callbacks.token_counting import TokenCountingEvent

from loopback_server import LoopbackServer
from token_callbacks import TokenCounter, TokenCountingHandler, uninstall
from token_callbacks.errors import InvalidArgument, TokenCallbacksError
from token_callbacks.sinks.memory import MemorySink

from .conftest import BUILDERS, EMBEDDERS, Loopback
from .figures import embedding_truth, llm_truth, what_is_left
from .methods import MESSAGES, PLAIN, STRUCTURED, TEXT, TOOL

QUESTION = "When does the library open?"
INTEGRATIONS = pytest.mark.parametrize("integration", ["OpenAI", "LiteLLM"])
EVERY_INTEGRATION = pytest.mark.parametrize(
    "integration", ["OpenAI", "OpenAI-instruct", "OpenAIResponses", "OpenAILike(chat)", "LiteLLM", "Anthropic"]
)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Check that a test left no call behind in the ledger or the tracker."""
    yield
    assert [] == what_is_left()


@pytest.fixture
def server(loopback: Loopback) -> LoopbackServer:
    """Give a server that tells the usage of every stream."""
    return loopback(stream_usage="always_last")


@pytest.fixture
def handler() -> TokenCountingHandler:
    """Give a handler that Settings passes to every object that is made or asked for from now on."""
    handler = TokenCountingHandler()
    Settings.callback_manager = CallbackManager([handler])
    return handler


def _counts(handler: Any) -> tuple[int, int, int, int]:
    return (
        handler.prompt_llm_token_count,
        handler.completion_llm_token_count,
        handler.total_llm_token_count,
        handler.total_embedding_token_count,
    )


def _truth(*servers: LoopbackServer) -> tuple[int, int, int, int]:
    totals = [server.ledger_totals() for server in servers]
    prompt = sum(total.prompt_tokens for total in totals)
    completion = sum(total.completion_tokens for total in totals)
    return prompt, completion, prompt + completion, sum(total.embedding_tokens for total in totals)


@EVERY_INTEGRATION
@pytest.mark.parametrize("method", PLAIN)
def test_each_method_counts_what_the_provider_reported(
    handler: TokenCountingHandler, server: LoopbackServer, integration: str, method: str
) -> None:
    """Plain or streamed, sync or async, a request is one event with the provider's figures."""
    asyncio.run(PLAIN[method](BUILDERS[integration](server)))

    assert _truth(server) == _counts(handler)
    assert [figures[:2] for figures in llm_truth(server)] == _event_figures(handler.llm_token_counts)


@INTEGRATIONS
@pytest.mark.parametrize("method", STRUCTURED)
def test_structured_methods_count_once(
    handler: TokenCountingHandler, server: LoopbackServer, integration: str, method: str
) -> None:
    """A structured method, whose wrappers LlamaIndex's own class counts too, is one event a request."""
    asyncio.run(STRUCTURED[method](BUILDERS[integration](server)))

    assert _truth(server) == _counts(handler)
    assert len(server.ledger) == len(handler.llm_token_counts)


@INTEGRATIONS
def test_a_stream_without_usage_is_counted_here(
    loopback: Loopback, handler: TokenCountingHandler, counted_tokens: Any, integration: str
) -> None:
    """Where a stream brings no usage, the properties have our count of the messages and of the text."""
    server = loopback(tokens=counted_tokens, stream_usage="never")
    list(BUILDERS[integration](server).stream_chat(MESSAGES))

    assert _truth(server) == _counts(handler)


@INTEGRATIONS
def test_an_index_and_its_query_count_both_kinds(
    counting: LoopbackServer, handler: TokenCountingHandler, integration: str
) -> None:
    """Indexing and a query count their embeddings apart from their LLM calls, an event a request."""
    documents = [Document(text=f"Floor {number} opens at {number + 6}.") for number in (1, 2, 3)]
    embedder = EMBEDDERS[f"{integration}Embedding"](counting, embed_batch_size=2)
    index = VectorStoreIndex.from_documents(documents, embed_model=embedder)
    index.as_query_engine(llm=BUILDERS[integration](counting)).query(QUESTION)

    assert _truth(counting) == _counts(handler)
    assert embedding_truth(counting) == sorted(event.prompt_token_count for event in handler.embedding_token_counts)


@INTEGRATIONS
@pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "plain"])
def test_an_agent_counts_each_turn(
    server: LoopbackServer, handler: TokenCountingHandler, integration: str, streaming: bool
) -> None:
    """A FunctionAgent's turns, of which LlamaIndex's own class counts a part, are counted whole."""
    agent = FunctionAgent(tools=[TOOL], llm=BUILDERS[integration](server), streaming=streaming)
    asyncio.run(_ask(agent))

    assert 2 == len(server.ledger)
    assert _truth(server) == _counts(handler)


@INTEGRATIONS
def test_a_handler_of_one_object_counts_that_object_alone(server: LoopbackServer, integration: str) -> None:
    """Of two LLMs with a handler each, each handler has its own LLM's calls, and a third LLM's nobody has."""
    llms = [BUILDERS[integration](server) for _ in range(3)]
    handlers = [TokenCountingHandler(), TokenCountingHandler()]
    for llm, handler in zip(llms, handlers, strict=False):
        llm.callback_manager = CallbackManager([handler])
    for calls, llm in enumerate(llms, start=1):
        for _ in range(calls):
            llm.chat(MESSAGES)

    prompts = [entry.prompt_tokens for entry in server.ledger]
    assert [prompts[:1], prompts[1:3]] == [
        [event.prompt_token_count for event in handler.llm_token_counts] for handler in handlers
    ]


@INTEGRATIONS
def test_two_handlers_of_one_object_count_the_same(server: LoopbackServer, integration: str) -> None:
    """Two handlers in one manager each have every call once."""
    llm = BUILDERS[integration](server)
    handlers = [TokenCountingHandler(), TokenCountingHandler()]
    llm.callback_manager = CallbackManager(list(handlers))
    llm.chat(MESSAGES)
    list(llm.stream_chat(MESSAGES))

    assert [_truth(server)] * 2 == [_counts(handler) for handler in handlers]


@INTEGRATIONS
def test_a_counter_beside_the_handler_records_each_call_once(
    server: LoopbackServer, counter: TokenCounter, memory: MemorySink, handler: TokenCountingHandler, integration: str
) -> None:
    """A handler and a TokenCounter in one process each have every call once."""
    llm = BUILDERS[integration](server)
    llm.chat(MESSAGES)
    list(llm.stream_complete(TEXT))
    counter.close()

    assert 2 == len(memory.records) == len(handler.llm_token_counts)
    assert _truth(server) == _counts(handler)


@INTEGRATIONS
def test_llamaindexs_own_handler_counts_what_it_counted_before(counting: LoopbackServer, integration: str) -> None:
    """LlamaIndex's own handler beside ours has the same figures and texts as on its own."""
    alone, beside = LlamaIndexHandler(), LlamaIndexHandler()
    for manager in (CallbackManager([alone]), CallbackManager([TokenCountingHandler(), beside])):
        llm = BUILDERS[integration](counting)
        llm.callback_manager = manager
        list(llm.stream_chat(MESSAGES))
        llm.complete(TEXT)

    expected, actual = ([replace(event, event_id="") for event in own.llm_token_counts] for own in (alone, beside))
    assert 2 == len(expected)
    assert expected == actual


class Diary(BaseCallbackHandler):
    """A handler of somebody else's that writes down which events it gets."""

    def __init__(self) -> None:
        super().__init__([], [])
        self.events: list[str] = []

    def on_event_start(self, event_type: CBEventType, *args: Any, event_id: str = "", **kwargs: Any) -> str:
        """Write it down."""
        self.events.append(f"{event_type.value} starts")
        return event_id

    def on_event_end(self, event_type: CBEventType, *args: Any, **kwargs: Any) -> None:
        """Write it down."""
        self.events.append(f"{event_type.value} ends")

    def start_trace(self, trace_id: str | None = None) -> None:
        """Write it down."""
        self.events.append(f"trace {trace_id} starts")

    def end_trace(self, trace_id: str | None = None, trace_map: Any = None) -> None:
        """Write it down."""
        self.events.append(f"trace {trace_id} ends")


@INTEGRATIONS
def test_another_handler_gets_the_same_events_as_without_ours(server: LoopbackServer, integration: str) -> None:
    """A handler of somebody else's beside ours gets each event that it gets on its own, in the same order."""
    alone, beside = Diary(), Diary()
    for manager in (CallbackManager([alone]), CallbackManager([TokenCountingHandler(), beside])):
        llm = BUILDERS[integration](server)
        llm.callback_manager = manager
        asyncio.run(STRUCTURED["as_structured_llm.complete"](llm))
        list(llm.stream_chat(MESSAGES))

    assert alone.events
    assert alone.events == beside.events


@INTEGRATIONS
def test_reset_counts_starts_from_zero(server: LoopbackServer, handler: TokenCountingHandler, integration: str) -> None:
    """After reset_counts, only what comes later is counted."""
    llm = BUILDERS[integration](server)
    llm.chat(MESSAGES)
    handler.reset_counts()
    before = _counts(handler)
    server.clear()
    llm.chat(MESSAGES)

    assert (0, 0, 0, 0) == before
    assert _truth(server) == _counts(handler)


def test_take_counts_reads_and_resets_at_once(server: LoopbackServer, handler: TokenCountingHandler) -> None:
    """What take_counts returns has every property of the handler, which is at zero afterwards."""
    BUILDERS["OpenAI"](server).chat(MESSAGES)
    counts = handler.take_counts()

    assert _truth(server) == _counts(counts)
    assert (1, 0) == (len(counts.llm_token_counts), len(counts.embedding_token_counts))
    assert (0, 0, 0, 0) == _counts(handler)


@pytest.mark.parametrize(("integration", "calls"), [("OpenAI", 50), ("LiteLLM", 10)])
def test_take_counts_loses_nothing_while_threads_call(
    server: LoopbackServer, handler: TokenCountingHandler, integration: str, calls: int
) -> None:
    """Readings taken again and again while eight threads call add up to exactly what the server answered."""
    llm = BUILDERS[integration](server)
    is_done = Event()
    taken = []

    def take() -> None:
        while not is_done.is_set():
            taken.append(handler.take_counts())
        taken.append(handler.take_counts())

    def call(_: int) -> None:
        for _ in range(calls):
            llm.chat(MESSAGES)

    with ThreadPoolExecutor(max_workers=9) as executor:
        taking = executor.submit(take)
        list(executor.map(call, range(8)))
        is_done.set()
        taking.result()

    assert _truth(server) == tuple(map(sum, zip(*map(_counts, taken), strict=True)))
    assert 8 * calls == sum(len(counts.llm_token_counts) for counts in taken)


@INTEGRATIONS
@pytest.mark.parametrize(
    "method", ["chat", "stream_chat", "achat", "astream_chat", "complete", "acomplete", "predict", "apredict"]
)
def test_a_used_up_budget_raises_before_the_call(server: LoopbackServer, integration: str, method: str) -> None:
    """Once the budget is passed, the next call raises a ValueError and sends nothing."""
    handler = TokenCountingHandler(token_budget=3)
    llm = BUILDERS[integration](server)
    llm.callback_manager = CallbackManager([handler])
    llm.chat(MESSAGES)
    with pytest.raises(ValueError, match="token_budget is 3") as caught:
        asyncio.run(PLAIN[method](llm))

    assert isinstance(caught.value, TokenCallbacksError)
    assert 1 == len(server.ledger)
    assert _truth(server) == _counts(handler)


def test_a_call_refused_by_the_budget_was_not_started(
    server: LoopbackServer, counter: TokenCounter, memory: MemorySink
) -> None:
    """A counter beside the handler sees that nothing was sent, and takes nothing for missing."""
    llm = BUILDERS["OpenAI"](server)
    llm.callback_manager = CallbackManager([TokenCountingHandler(token_budget=3)])
    with counter.run("refused") as run:
        llm.chat(MESSAGES)
        with pytest.raises(ValueError, match="token_budget is 3"):
            llm.chat(MESSAGES)

    assert ["completed", "not_started"] == [record.outcome for record in memory.records]
    assert not run.summary.lower_bound


def test_the_call_that_passes_the_budget_gets_its_answer(server: LoopbackServer) -> None:
    """The call that uses the budget up is paid for, so its answer is not lost."""
    llm = BUILDERS["OpenAI"](server)
    llm.callback_manager = CallbackManager([TokenCountingHandler(token_budget=0)])
    answer = "".join(response.delta or "" for response in llm.stream_chat(MESSAGES))

    assert answer
    assert 1 == len(server.ledger)


def test_embeddings_go_on_when_the_budget_is_used_up(counting: LoopbackServer) -> None:
    """The budget is one of LLM tokens: an embedding is neither counted against it nor refused by it."""
    manager = CallbackManager([handler := TokenCountingHandler(token_budget=0)])
    llm = BUILDERS["OpenAI"](counting)
    llm.callback_manager = manager
    llm.chat(MESSAGES)
    EMBEDDERS["OpenAIEmbedding"](counting, callback_manager=manager).get_text_embedding(TEXT)

    assert _truth(counting) == _counts(handler)


def test_a_new_budget_begins_with_reset_counts(server: LoopbackServer) -> None:
    """After reset_counts, as the error advises, calls go out again."""
    handler = TokenCountingHandler(token_budget=3)
    llm = BUILDERS["OpenAI"](server)
    llm.callback_manager = CallbackManager([handler])
    llm.chat(MESSAGES)
    handler.reset_counts()
    llm.chat(MESSAGES)

    assert 2 == len(server.ledger)


@pytest.mark.parametrize("budget", [-3, 3.5, "3"])
def test_a_budget_that_is_no_number_of_tokens_is_refused(budget: Any) -> None:
    """A budget that could never mean anything is refused when the handler is made."""
    with pytest.raises(InvalidArgument, match="token_budget is a number of tokens"):
        TokenCountingHandler(token_budget=budget)


def test_it_is_made_with_the_arguments_of_the_original(server: LoopbackServer) -> None:
    """Every argument of LlamaIndex's class is accepted in its place, a tokenizer too."""
    handler = TokenCountingHandler(str.split, [], [], False, logging.getLogger("host"), None)
    llm = BUILDERS["OpenAI"](server)
    llm.callback_manager = CallbackManager([handler])
    llm.chat(MESSAGES)

    assert isinstance(handler, BaseCallbackHandler)
    assert _truth(server) == _counts(handler)


def test_verbose_logs_the_tokens_of_each_request(server: LoopbackServer, caplog: pytest.LogCaptureFixture) -> None:
    """A verbose handler says a line a request, to the logger it was given, with the tokens and no text."""
    llm = BUILDERS["OpenAI"](server)
    logger = logging.getLogger("host")
    llm.callback_manager = CallbackManager([TokenCountingHandler(verbose=True, logger=logger)])
    with caplog.at_level(logging.INFO, logger="host"):
        llm.chat(MESSAGES)

    total = _truth(server)[2]
    assert [f"chat: {total} tokens"] == [record.getMessage() for record in caplog.records if record.name == "host"]


def test_ignored_events_are_not_counted(counting: LoopbackServer) -> None:
    """What LlamaIndex is told to ignore at the end is not counted, as with LlamaIndex's class."""
    manager = CallbackManager([handler := TokenCountingHandler(event_ends_to_ignore=[CBEventType.EMBEDDING])])
    llm = BUILDERS["OpenAI"](counting)
    llm.callback_manager = manager
    llm.chat(MESSAGES)
    EMBEDDERS["OpenAIEmbedding"](counting, callback_manager=manager).get_text_embedding(TEXT)

    assert (*_truth(counting)[:3], 0) == _counts(handler)


def test_events_hold_no_text(server: LoopbackServer, handler: TokenCountingHandler) -> None:
    """An event has an id of its own and figures; the prompt and the completion are not kept."""
    llm = BUILDERS["OpenAI"](server)
    llm.chat(MESSAGES)
    llm.chat(MESSAGES)

    assert all(isinstance(event, TokenCountingEvent) for event in handler.llm_token_counts)
    assert ["", "", "", ""] == [text for event in handler.llm_token_counts for text in (event.prompt, event.completion)]
    assert 2 == len({event.event_id for event in handler.llm_token_counts})


@INTEGRATIONS
def test_it_needs_no_counter(server: LoopbackServer, integration: str) -> None:
    """A handler hooks what it needs by itself, where no TokenCounter ever was or all are gone."""
    uninstall()
    llm = BUILDERS[integration](server)
    llm.callback_manager = CallbackManager([handler := TokenCountingHandler()])
    llm.chat(MESSAGES)
    list(llm.stream_chat(MESSAGES))

    assert _truth(server) == _counts(handler)


@INTEGRATIONS
def test_it_comes_back_to_life_after_an_uninstall(server: LoopbackServer, integration: str) -> None:
    """The first call after somebody's uninstall hooks LlamaIndex again, too late for itself; later ones are counted."""
    llm = BUILDERS[integration](server)
    llm.callback_manager = CallbackManager([handler := TokenCountingHandler()])
    uninstall()
    llm.chat(MESSAGES)
    server.clear()
    llm.chat(MESSAGES)

    assert _truth(server) == _counts(handler)


@INTEGRATIONS
def test_a_call_that_fails_is_an_event_of_nothing(
    server: LoopbackServer, handler: TokenCountingHandler, integration: str
) -> None:
    """A refused request used nothing, and leaves one event that says so."""
    server.fail_next(status=401)
    with pytest.raises(Exception, match=r"401|loopback fault"):
        BUILDERS[integration](server).chat(MESSAGES)

    assert (0, 0, 0, 0) == _counts(handler)
    assert [(0, 0)] == _event_figures(handler.llm_token_counts)


async def _ask(agent: Any) -> None:
    await agent.run(QUESTION)


def _event_figures(events: list[TokenCountingEvent]) -> list[tuple[int, int]]:
    return [(event.prompt_token_count, event.completion_token_count) for event in events]
