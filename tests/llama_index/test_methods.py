"""One HTTP request, one record: every LLM method of every integration, with the server's ledger as the truth."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from loopback_server import LoopbackServer
from token_callbacks import TokenCounter
from token_callbacks.records import Provenance
from token_callbacks.sinks.memory import MemorySink

from .conftest import BUILDERS
from .figures import llm_figures, llm_truth
from .methods import CASES, Call

# OpenAIResponses 0.8.3 itself raises AttributeError on an answer without usage (llms/openai/responses.py, _chat).
CRASHING_WITHOUT_USAGE = {("OpenAIResponses", method) for method in ("complete", "chat", "predict")}
CASES_WITHOUT_USAGE = [case for case in CASES if case[:2] not in CRASHING_WITHOUT_USAGE]


def _ids(cases: list[tuple[str, str, Call]]) -> list[str]:
    return [f"{integration}.{method}" for integration, method, _ in cases]


def test_the_table_has_the_researched_cases() -> None:
    """The table is the 135 cases that the research measured."""
    assert 135 == len(CASES)


@pytest.mark.parametrize(("integration", "method", "call"), CASES, ids=_ids(CASES))
def test_one_request_is_one_record_with_the_reported_figures(
    loopback: Any, counter: TokenCounter, memory: MemorySink, *, integration: str, method: str, call: Call
) -> None:
    """Whatever a method calls inside, the request behind it is recorded once, with what the provider reported."""
    server = loopback(stream_usage="always_last")
    _run_once(counter, integration, call, server)

    if integration == "MockLLM":
        assert 1 == len(memory.records)
    else:
        assert llm_truth(server) == llm_figures(memory.records)
        assert [Provenance.REPORTED] == [record.provenance.weakest for record in memory.records]


@pytest.mark.parametrize(("integration", "method", "call"), CASES_WITHOUT_USAGE, ids=_ids(CASES_WITHOUT_USAGE))
def test_one_request_without_usage_is_one_counted_record(
    loopback: Any, counter: TokenCounter, memory: MemorySink, *, integration: str, method: str, call: Call
) -> None:
    """Where the provider tells nothing, the figures are ours, marked so, and never 0."""
    server = loopback(stream_usage="never", usage="absent")
    _run_once(counter, integration, call, server)

    [record] = memory.records
    assert record.provenance.weakest in (Provenance.COUNTED, Provenance.ESTIMATED)
    assert record.usage.prompt_tokens
    assert record.usage.completion_tokens


def _run_once(counter: TokenCounter, integration: str, call: Call, server: LoopbackServer) -> None:
    llm = BUILDERS[integration](server)
    with counter.run("one call") as run:
        asyncio.run(call(llm))
    assert [] == [entry for entry in server.ledger if not entry.completed]
    assert 0 == run.summary.internal_errors
