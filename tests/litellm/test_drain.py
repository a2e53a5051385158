"""A run's end waits for what came back: nothing is lost where LiteLLM's own success events are."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import functools
import inspect
import json
import pickle
import threading
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from operator import attrgetter
from typing import Any

import litellm
import pytest
from litellm.caching.caching import Cache

from loopback_server import LoopbackServer
from token_callbacks import TokenCounter
from token_callbacks.adapters import httpx as httpx_taps
from token_callbacks.adapters.litellm import _Tries
from token_callbacks.ledger import process_ledger
from token_callbacks.records import Operation, Outcome, RunOutcome, RunSummary
from token_callbacks.sinks.memory import MemorySink

from .calls import (
    CHAT,
    CLAUDE,
    MESSAGES,
    PLAIN,
    STREAMS,
    Case,
    acompletion,
    aembedding_of_text,
    anthropic,
    claude_completion,
    completion,
    embedding_of_text,
    openai,
    router,
    router_acompletion,
    router_completion,
)
from .conftest import Heard, Script

REPETITIONS = {"always_last": 2, "never": 1}
"""How often each script runs, by where the server tells its usage."""

# --- scripts that end at once

_START = """
import litellm
from token_callbacks import TokenCounter
counter = TokenCounter()
"""

_STREAM = """
async def stream():
    async for _ in await litellm.acompletion(**CHAT, stream=True):
        pass
"""

SCRIPTS: dict[str, tuple[int, str]] = {
    "gather of completions": (
        100,
        """
async def main():
    await asyncio.gather(*(litellm.acompletion(**CHAT) for _ in range(100)))
with counter.run("script"):
    asyncio.run(main())
""",
    ),
    "gather of streams": (
        100,
        _STREAM
        + """
async def main():
    await asyncio.gather(*(stream() for _ in range(100)))
with counter.run("script"):
    asyncio.run(main())
""",
    ),
    "gather of embeddings": (
        20,
        """
async def main():
    await asyncio.gather(*(litellm.aembedding(**VECTORS) for _ in range(20)))
with counter.run("script"):
    asyncio.run(main())
""",
    ),
    "completions": (
        100,
        """
with counter.run("script"):
    for _ in range(100):
        litellm.completion(**CHAT)
""",
    ),
    "streams": (
        100,
        """
with counter.run("script"):
    for _ in range(100):
        for _ in litellm.completion(**CHAT, stream=True):
            pass
""",
    ),
    "async with, in the loop": (
        30,
        _STREAM
        + """
async def main():
    async with counter.run("script"):
        await asyncio.gather(*(litellm.acompletion(**CHAT) for _ in range(20)), *(stream() for _ in range(10)))
asyncio.run(main())
""",
    ),
    "sync with, in the loop": (
        30,
        _STREAM
        + """
async def main():
    with counter.run("script"):
        await asyncio.gather(*(litellm.acompletion(**CHAT) for _ in range(20)), *(stream() for _ in range(10)))
asyncio.run(main())
""",
    ),
    "no run": (
        41,
        _STREAM
        + """
async def main():
    await asyncio.gather(*(litellm.acompletion(**CHAT) for _ in range(20)), *(stream() for _ in range(10)))
asyncio.run(main())
litellm.embedding(**VECTORS)
for _ in range(10):
    litellm.completion(**CHAT)
""",
    ),
}


@pytest.mark.parametrize("usage", REPETITIONS)
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_that_ends_at_once_loses_nothing(script: Script, loopback: Any, name: str, usage: str) -> None:
    """Lines and summary of a process that ends right after its last answer equal the server's ledger, each time."""
    calls, text = SCRIPTS[name]
    server = loopback(stream_usage=usage)
    for _ in range(REPETITIONS[usage]):
        server.clear()
        log = script(_START + text, server)
        totals = server.ledger_totals()
        [summary] = log.summaries

        assert calls == totals.requests == len(log.lines)
        assert {"completed"} == {line["outcome"] for line in log.lines}
        assert 0 == summary["internal_errors"]
        assert calls == summary["calls"]["llm"] + summary["calls"]["embedding"]
        if usage == "always_last":
            assert (totals.prompt_tokens, totals.completion_tokens, totals.embedding_tokens) == (
                summary["llm_prompt_tokens"],
                summary["llm_completion_tokens"],
                summary["embedding_tokens"],
            )
        else:
            assert 0 == summary["provenance"]["missing"]["calls"]


# --- late calls


def test_a_late_call_issues_its_runs_summary_again(loopback: Any, counter: TokenCounter, memory: MemorySink) -> None:
    """A call that is answered after its run has ended still lands in it, in memory and in the file."""
    server = loopback()
    with server.hold() as hold:
        with counter.run("early") as run:
            thread = threading.Thread(target=contextvars.copy_context().run, args=(completion, server))
            thread.start()
            assert hold.reached.wait(timeout=120)
        before = memory.summaries[run.run_id]
    thread.join()
    counter.close()

    [entry] = server.ledger
    [record] = memory.records
    assert run.run_id == record.run_id
    assert 0 == before.total_llm_tokens
    assert RunOutcome.COMPLETED is run.summary.outcome
    assert entry.prompt_tokens + entry.completion_tokens == run.summary.total_llm_tokens
    assert run.summary == memory.summaries[run.run_id]
    assert run.summary_path is not None
    assert run.summary.total_llm_tokens == json.loads(run.summary_path.read_text())["total_llm_tokens"]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_two_runs_at_once_get_their_own_calls(loopback: Any, counter: TokenCounter, stream: bool) -> None:
    """Runs that go on side by side in one event loop end with their own calls, and all of them."""
    server = loopback(stream_usage="always_last")
    summaries = {}

    async def work(name: str, calls: int) -> None:
        async with counter.run(name) as run:
            for _ in range(calls):
                answer = await acompletion(server, stream=stream)
                if stream:
                    async for _ in answer:
                        pass
        summaries[name] = run.summary

    async def both() -> None:
        await asyncio.gather(work("three", 3), work("four", 4))

    asyncio.run(both())
    totals = server.ledger_totals()

    assert (3, 4) == (summaries["three"].calls.llm, summaries["four"].calls.llm)
    assert totals.prompt_tokens + totals.completion_tokens == sum(
        summary.total_llm_tokens for summary in summaries.values()
    )


def test_a_sync_router_call_inside_a_running_loop_lands_in_its_run(loopback: Any, counter: TokenCounter) -> None:
    """In a notebook, where a loop is always running, a sync Router call belongs to the run around it."""
    server = loopback()

    async def notebook_cell() -> None:
        with counter.run("cell"):
            router(server).completion(CHAT, MESSAGES)

    asyncio.run(notebook_cell())

    assert 0 == counter.default_run.summary.calls.llm


@pytest.mark.parametrize(
    ("call", "options"),
    [
        (litellm.batch_completion, {"model": CHAT, "messages": [MESSAGES, MESSAGES, MESSAGES]}),
        (litellm.batch_completion_models, {"models": [CHAT, CHAT, CHAT], "messages": MESSAGES}),
        (litellm.batch_completion_models_all_responses, {"models": [CHAT, CHAT, CHAT], "messages": MESSAGES}),
    ],
    ids=["batch_completion", "batch_completion_models", "batch_completion_models_all_responses"],
)
def test_a_batch_lands_in_its_run_and_step(
    loopback: Any, counter: TokenCounter, memory: MemorySink, call: Any, options: dict[str, Any]
) -> None:
    """LiteLLM calls from threads of its own, which know nothing of the caller's context."""
    server = loopback()
    with counter.run("batch") as run, run.step("asking"):
        call(**options, **openai(server))

    assert 3 == len(server.ledger) == len(memory.records)
    assert {(run.run_id, "asking")} == {(record.run_id, record.step) for record in memory.records}


def _deployments(server: LoopbackServer) -> list[dict[str, Any]]:
    asked = (CHAT, openai(server)), (CLAUDE, anthropic(server)), ("openai/gpt-4o", openai(server))
    return [{"model_name": "any", "litellm_params": {"model": model, **there}} for model, there in asked]


def test_all_that_a_model_list_asks_are_calls(loopback: Any, counter: TokenCounter, memory: MemorySink) -> None:
    """LiteLLM hands one logging object to all of them, and tells of the first end only."""
    server = loopback()
    with counter.run("fastest") as run, run.step("asking"):
        litellm.completion("any", MESSAGES, model_list=_deployments(server))

    assert Counter((entry.model, entry.prompt_tokens, entry.completion_tokens) for entry in server.ledger) == Counter(
        (record.model, record.usage.prompt_tokens, record.usage.completion_tokens) for record in memory.records
    )
    assert {(run.run_id, "asking", Outcome.COMPLETED)} == {
        (record.run_id, record.step, record.outcome) for record in memory.records
    }
    assert server.ledger_totals().completion_tokens == run.summary.llm_completion_tokens


def test_one_of_a_model_list_that_is_refused_is_a_failed_call(
    loopback: Any, counter: TokenCounter, memory: MemorySink
) -> None:
    """The others answer, and LiteLLM passes over it."""
    server = loopback()
    server.fail_next(status=500)
    with counter.run("fastest") as run:
        litellm.completion("any", MESSAGES, model_list=_deployments(server))

    assert Counter({Outcome.COMPLETED: 2, Outcome.FAILED: 1}) == Counter(record.outcome for record in memory.records)
    assert server.ledger_totals().completion_tokens == run.summary.llm_completion_tokens


def test_the_streams_of_a_model_list_that_nobody_reads_are_abandoned(
    loopback: Any, counter: TokenCounter, memory: MemorySink
) -> None:
    """The caller gets the one that began first."""
    server = loopback(stream_usage="always_last")
    with counter.run("fastest") as run:
        [*_, last] = litellm.completion("any", MESSAGES, model_list=_deployments(server), stream=True)

    assert Counter({Outcome.ABANDONED: 2, Outcome.COMPLETED: 1}) == Counter(record.outcome for record in memory.records)
    assert {run.run_id} == {record.run_id for record in memory.records}
    [read] = [record for record in memory.records if record.outcome is Outcome.COMPLETED]
    [entry] = [entry for entry in server.ledger if entry.model == read.model]
    assert last.model == read.model
    assert (entry.prompt_tokens, entry.completion_tokens) == (read.usage.prompt_tokens, read.usage.completion_tokens)


@pytest.mark.skipif(
    not hasattr(litellm.Router, "_silent_experiment_completion"), reason="LiteLLM 1.80.17 has no silent_model"
)
@pytest.mark.usefixtures("clean_litellm")
def test_what_a_router_mirrors_lands_in_the_run_and_step_of_the_call(
    loopback: Any, counter: TokenCounter, memory: MemorySink
) -> None:
    """A sync Router asks its ``silent_model`` from a thread of its own."""
    server, heard = loopback(), Heard()
    litellm.callbacks.append(heard)  # behind ours: once it has heard of a call, we have
    deployments = [
        {"model_name": "loud", "litellm_params": {"model": CHAT, "silent_model": "silent", **openai(server)}},
        {"model_name": "silent", "litellm_params": {"model": "openai/gpt-4o", **openai(server)}},
    ]
    with counter.run("mirrored") as run, run.step("asking"):
        litellm.Router(deployments, num_retries=0).completion("loud", MESSAGES)
        for _ in deployments:
            heard.wait()

    assert {"gpt-4o", "gpt-4o-mini"} == {record.model for record in memory.records}
    assert {(run.run_id, "asking")} == {(record.run_id, record.step) for record in memory.records}


def test_a_retry_of_a_sync_call_inside_a_running_loop_lands_in_its_run(loopback: Any, counter: TokenCounter) -> None:
    """So do the attempt that failed and the one that the Router made then."""
    server = loopback()
    server.fail_next(status=500)

    async def notebook_cell() -> RunSummary:
        with counter.run("cell") as run:
            router(server, num_retries=1).completion(CHAT, MESSAGES)
        return run.summary

    summary = asyncio.run(notebook_cell())

    assert (2, 1, 0) == (summary.calls.llm, summary.calls.failed, counter.default_run.summary.calls.llm)


# --- failures, retries, fallbacks


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name)
        for case in PLAIN + STREAMS
        if case.name.split()[0] in ("completion", "acompletion")
    ],
)
def test_a_refused_call_is_a_failed_record_and_litellms_own_exception(
    loopback: Any, new_counter: Callable[..., TokenCounter], memory: MemorySink, case: Case
) -> None:
    """HTTP 500 raises for the caller what LiteLLM raises without us, and leaves one record that says so."""
    server = loopback()
    raised = []
    for is_counted in (False, True):
        counter = new_counter(sinks=[memory]) if is_counted else None
        server.fail_next(status=500)
        with pytest.raises(litellm.InternalServerError) as caught:
            case.run(server)
        raised.append((type(caught.value), str(caught.value), caught.value.status_code, caught.value.llm_provider))
        if counter is not None:
            counter.close()

    [record] = memory.records
    assert raised[0] == raised[1]
    assert (Outcome.FAILED, "InternalServerError") == (record.outcome, record.error)
    assert (None, None) == (record.usage.prompt_tokens, record.usage.completion_tokens)


def _with_fallback(server: LoopbackServer, **options: Any) -> dict[str, Any]:
    return {
        "model": CHAT,
        "messages": MESSAGES,
        "fallbacks": [{"model": "openai/gpt-4o", **openai(server)}],
        **openai(server),
        **options,
    }


def fallback(server: LoopbackServer, **options: Any) -> Any:
    """Chat, with another model to turn to."""
    return litellm.completion(**_with_fallback(server, **options))


async def afallback(server: LoopbackServer, **options: Any) -> Any:
    """Chat, with another model to turn to."""
    return await litellm.acompletion(**_with_fallback(server, **options))


def router_retry(server: LoopbackServer, **options: Any) -> Any:
    """Chat through a Router that tries again."""
    return router(server, num_retries=1, retry_after=0).completion(CHAT, MESSAGES, **options)


async def router_aretry(server: LoopbackServer, **options: Any) -> Any:
    """Chat through a Router that tries again."""
    return await router(server, num_retries=1, retry_after=0).acompletion(CHAT, MESSAGES, **options)


def retry(server: LoopbackServer, **options: Any) -> Any:
    """Chat, and let the provider's client library try again."""
    return completion_with(server, max_retries=1, **options)


async def aretry(server: LoopbackServer, **options: Any) -> Any:
    """Chat, and let the provider's client library try again."""
    return await litellm.acompletion(model=CHAT, messages=MESSAGES, **{**openai(server), "max_retries": 1}, **options)


def completion_with(server: LoopbackServer, **options: Any) -> Any:
    """Chat, with options that replace our own."""
    return litellm.completion(model=CHAT, messages=MESSAGES, **{**openai(server), **options})


def num_retries(server: LoopbackServer, **options: Any) -> Any:
    """Chat; LiteLLM makes the call again."""
    return litellm.completion(model=CHAT, messages=MESSAGES, num_retries=1, **openai(server), **options)


def claude_num_retries(server: LoopbackServer) -> Any:
    """Chat; LiteLLM makes the call again, of whose client there is nothing that would try again by itself."""
    return claude_completion(server, num_retries=1)


async def num_aretries(server: LoopbackServer, **options: Any) -> Any:
    """Chat; LiteLLM makes the call again."""
    return await litellm.acompletion(model=CHAT, messages=MESSAGES, num_retries=1, **openai(server), **options)


def with_retries(server: LoopbackServer, **options: Any) -> Any:
    """Chat, by LiteLLM's own function for it."""
    return litellm.completion_with_retries(model=CHAT, messages=MESSAGES, num_retries=2, **openai(server), **options)


def with_retries_traced(server: LoopbackServer, **options: Any) -> Any:
    """Chat, by LiteLLM's own function for it, in a trace of the caller's."""
    return with_retries(server, litellm_trace_id="visit-3", **options)


async def with_aretries(server: LoopbackServer, **options: Any) -> Any:
    """Chat, by LiteLLM's own function for it, which has to be told what to try again."""
    answer = litellm.acompletion_with_retries(
        model=CHAT, messages=MESSAGES, num_retries=2, original_function=litellm.acompletion, **openai(server), **options
    )
    return await answer


def _falling_back(server: LoopbackServer) -> litellm.Router:
    deployments = [
        {"model_name": name, "litellm_params": {"model": f"openai/{name}", **openai(server)}}
        for name in ("gpt-4o-mini", "gpt-4o")
    ]
    return litellm.Router(deployments, num_retries=0, fallbacks=[{"gpt-4o-mini": ["gpt-4o"]}])


def router_fallback(server: LoopbackServer, **options: Any) -> Any:
    """Chat through a Router that falls back on another model."""
    return _falling_back(server).completion("gpt-4o-mini", MESSAGES, **options)


async def router_afallback(server: LoopbackServer, **options: Any) -> Any:
    """Chat through a Router that falls back on another model."""
    return await _falling_back(server).acompletion("gpt-4o-mini", MESSAGES, **options)


SECOND_TRIES = (
    *(fallback, afallback, router_retry, router_aretry, retry, aretry),
    *(num_retries, num_aretries, router_fallback, router_afallback),
    *(with_retries, with_retries_traced, with_aretries),
)


@pytest.mark.parametrize(
    "case",
    [
        *(pytest.param(Case(call.__name__, call, Operation.CHAT), id=call.__name__) for call in SECOND_TRIES),
        *(
            pytest.param(Case(call.__name__, call, Operation.CHAT, streamed=True), id=f"{call.__name__} streamed")
            for call in SECOND_TRIES
            if call is not fallback  # LiteLLM 1.106.2 streams it from an event loop that has ended, and raises
        ),
    ],
)
def test_each_try_is_a_record(loopback: Any, counter: TokenCounter, memory: MemorySink, case: Case) -> None:
    """A refused request and the one that took its place are two records of one call, in the run, when it ends."""
    server = loopback(stream_usage="always_last")
    server.fail_next(status=500)
    with counter.run("two tries") as run:
        case.run(server)

    assert [1, 2] == [record.attempt for record in memory.records]
    assert [memory.records[0].call_id] * 2 == [record.logical_call_id for record in memory.records]
    assert 1 == run.summary.calls.retried
    refused, answered = server.ledger
    assert (500, 200) == (refused.status, answered.status)
    by_start = sorted(memory.records, key=attrgetter("started_at"))
    assert [Outcome.FAILED, Outcome.COMPLETED] == [record.outcome for record in by_start]
    assert answered.prompt_tokens + answered.completion_tokens == run.summary.total_llm_tokens
    assert (2, 1) == (run.summary.calls.llm, run.summary.calls.failed)


def test_calls_that_are_tried_again_together_are_calls_of_their_own(
    loopback: Any, counter: TokenCounter, memory: MemorySink
) -> None:
    """What LiteLLM is told to try again may make several calls: none is an attempt at another one."""
    server = loopback()
    here = {"api_base": server.base_url, "api_key": "sk-loopback"}
    with counter.run("batch"):
        litellm.completion_with_retries(
            model=CHAT, messages=[MESSAGES, MESSAGES], original_function=litellm.batch_completion, **here
        )

    assert [1, 1] == [record.attempt for record in memory.records]
    assert 2 == len({record.logical_call_id for record in memory.records})


def test_what_tries_again_is_awaited_as_before(counter: TokenCounter) -> None:
    """A program may look whether a function is to be awaited, before it calls it."""
    names = ("completion", "acompletion", "responses", "aresponses")

    assert [False, True, False, True] == [
        inspect.iscoroutinefunction(getattr(litellm, f"{name}_with_retries")) for name in names
    ]


@pytest.mark.parametrize("call", [fallback, afallback], ids=lambda call: call.__name__)
def test_a_fallback_is_the_second_attempt(loopback: Any, counter: TokenCounter, memory: MemorySink, call: Any) -> None:
    """Fallbacks share LiteLLM's dict of one call: the records tell which attempt each was, and which model."""
    server = loopback()
    server.fail_next(status=500)
    with counter.run("two tries") as run:
        Case(call.__name__, call, Operation.CHAT).run(server)

    assert [(1, "gpt-4o-mini"), (2, "gpt-4o")] == [(record.attempt, record.model) for record in memory.records]
    assert 1 == run.summary.calls.retried


@pytest.mark.parametrize("call", [router_completion, router_acompletion, completion], ids=attrgetter("__name__"))
def test_calls_that_share_the_callers_trace_id_are_calls_of_their_own(
    loopback: Any, counter: TokenCounter, memory: MemorySink, call: Any
) -> None:
    """The Router keeps the id that its caller gave, who may give it to a whole session."""
    case = Case("traced", functools.partial(call, litellm_trace_id="visit-3"), Operation.CHAT)
    server = loopback()
    for _ in range(2):
        case.run(server)
    counter.close()

    assert [1, 1] == [record.attempt for record in memory.records]
    assert [record.call_id for record in memory.records] == [record.logical_call_id for record in memory.records]


@pytest.mark.parametrize(
    "call", [fallback, afallback, claude_num_retries, num_aretries, router_retry], ids=lambda call: call.__name__
)
def test_tries_whose_requests_nobody_sees_are_told_together(
    loopback: Any, counter: TokenCounter, memory: MemorySink, call: Callable[..., Any]
) -> None:
    """As of a provider whose client is not one of those that are tapped."""
    server = loopback()
    server.fail_next(status=500)
    httpx_taps.uninstall()
    try:
        Case(call.__name__, call, Operation.CHAT).run(server)
        counter.close()
    finally:
        httpx_taps.install(process_ledger())

    assert [(1, Outcome.FAILED), (2, Outcome.COMPLETED)] == [
        (record.attempt, record.outcome) for record in memory.records
    ]
    assert [memory.records[0].call_id] * 2 == [record.logical_call_id for record in memory.records]


@pytest.mark.parametrize("mark", ["is_silent_experiment", "internal_call_origin"])
def test_what_a_router_sends_beside_a_call_is_no_attempt_at_it(
    loopback: Any, counter: TokenCounter, memory: MemorySink, mark: str
) -> None:
    """Traffic mirrored to a ``silent_model``, and judges (LiteLLM 1.106.2), get the trace id of the call they serve."""
    server = loopback()
    trace_id = _Tries("visit-3")
    for _ in range(2):
        router(server).completion(CHAT, MESSAGES, litellm_trace_id=trace_id, metadata={mark: "yes"})
    counter.close()

    assert [1, 1] == [record.attempt for record in memory.records]
    assert [record.call_id for record in memory.records] == [record.logical_call_id for record in memory.records]


def test_a_fallback_in_the_middle_of_a_routers_stream_is_the_second_attempt(
    loopback: Any, counter: TokenCounter, memory: MemorySink
) -> None:
    """The Router asks for it when the stream is read, long after it has handed it out."""
    server = loopback(stream_usage="always_last")
    server.fail_next(cut_after=1)  # before there is any text, else LiteLLM 1.106.2 raises
    with counter.run("two tries"):
        Case("mid-stream", router_afallback, Operation.CHAT, streamed=True).run(server)

    first, second = sorted(memory.records, key=attrgetter("started_at"))  # its prompt is counted meanwhile
    assert [(1, Outcome.FAILED), (2, Outcome.COMPLETED)] == [
        (record.attempt, record.outcome) for record in (first, second)
    ]
    assert first.call_id == first.logical_call_id == second.logical_call_id


def test_what_a_router_hands_on_is_still_text() -> None:
    """Also where somebody keeps it, or sends it somewhere."""
    tries = _Tries("3f")
    assert ("3f", str) == (pickle.loads(pickle.dumps(tries)), type(pickle.loads(pickle.dumps(tries))))
    assert copy.deepcopy({"id": tries})["id"] is tries
    assert '"3f"' == json.dumps(tries)


# --- LiteLLM's cache


NEEDS_PROXY = pytest.mark.skipif(
    find_spec("litellm_proxy_extras") is None,
    reason="LiteLLM 1.106.2 reads its cache, save for aembedding, only with litellm[proxy]",
)


@pytest.mark.parametrize(
    ("call", "stream"),
    [
        pytest.param(acompletion, False, marks=NEEDS_PROXY, id="acompletion"),
        pytest.param(acompletion, True, marks=NEEDS_PROXY, id="acompletion streamed"),
        pytest.param(aembedding_of_text, False, id="aembedding"),
        pytest.param(completion, False, marks=NEEDS_PROXY, id="completion"),
        pytest.param(completion, True, marks=NEEDS_PROXY, id="completion streamed"),
        pytest.param(embedding_of_text, False, marks=NEEDS_PROXY, id="embedding"),
    ],
)
def test_a_cache_hit_adds_no_tokens(
    new_counter: Callable[..., TokenCounter], loopback: Any, call: Any, stream: bool
) -> None:
    """What LiteLLM answers from its cache is a call, counted as cached, and nobody's tokens."""
    counter, server = new_counter(), loopback(stream_usage="always_last")
    litellm.cache = Cache(type="local")
    case = Case("twice", call, Operation.CHAT, streamed=stream)

    heard = Heard()
    litellm.callbacks.append(heard)  # behind ours: once it has heard of a call, we have

    async def twice() -> None:
        for _ in range(2):
            await case.read_async(server)
            await asyncio.to_thread(heard.wait)

    with counter.run("cached") as run:
        if inspect.iscoroutinefunction(call):
            asyncio.run(twice())
        else:
            for _ in range(2):
                case.run(server)
                heard.wait()
    [entry] = server.ledger
    summary = run.summary

    assert (2, 1) == (summary.calls.llm + summary.calls.embedding, summary.calls.cached)
    assert (entry.prompt_tokens, entry.completion_tokens, entry.embedding_tokens) == (
        summary.llm_prompt_tokens,
        summary.llm_completion_tokens,
        summary.embedding_tokens,
    )
