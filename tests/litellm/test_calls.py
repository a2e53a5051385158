"""One HTTP request, one record: every way to call LiteLLM, with the server's ledger as the truth."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from typing import Any

import litellm
import pytest

from loopback_server import LedgerEntry, LoopbackServer
from token_callbacks import TokenCounter
from token_callbacks.records import CallRecord, Outcome, Provenance, RunSummary
from token_callbacks.sinks.memory import MemorySink

from .calls import DETAILED, EMBEDDINGS, INSTRUCT, PLAIN, STREAMS, Case, claude_acompletion, claude_completion, openai

LATE = "LiteLLM 1.106.2 tells of an anthropic_messages stream only in a task of its own, after the last chunk"


def _marked(cases: list[Case], *marks: pytest.MarkDecorator, without: tuple[str, ...] = ()) -> list[Any]:
    return [pytest.param(case, id=case.name, marks=_marks(case, *marks)) for case in cases if case.name not in without]


def _marks(case: Case, *marks: pytest.MarkDecorator) -> tuple[pytest.MarkDecorator, ...]:
    if case.name != "anthropic_messages streamed":
        return ()
    if find_spec("litellm_proxy_extras") is None:
        return (pytest.mark.skip(reason="LiteLLM 1.106.2 streams anthropic_messages only with litellm[proxy]"),)
    return marks


UNREADABLE = ("claude_completion", "claude_acompletion", "bridged_responses")
"""Plain answers of Anthropic's wire, which LiteLLM 1.106.2 itself cannot read without usage."""


@pytest.mark.parametrize("case", _marked(PLAIN + EMBEDDINGS))
def test_a_plain_call_is_one_record_with_the_reported_figures(
    loopback: Any, counter: TokenCounter, memory: MemorySink, case: Case
) -> None:
    """An answer that is not streamed is recorded once, with the provider's figures, by the time its run ends."""
    server = loopback(tokens=DETAILED)
    summary = _run_once(counter, server, case)

    _assert_equals_ledger(server, memory, case, summary)


@pytest.mark.parametrize("place", ["always_last", "finish_chunk", "every_chunk"])
@pytest.mark.parametrize("case", _marked(STREAMS))
def test_a_stream_is_one_record_with_the_reported_figures(
    loopback: Any, counter: TokenCounter, memory: MemorySink, case: Case, place: str
) -> None:
    """A stream is recorded once, with the provider's figures, wherever in the stream they stand."""
    server = loopback(stream_usage=place, tokens=DETAILED)
    summary = _run_once(counter, server, case)

    _assert_equals_ledger(server, memory, case, summary)


@pytest.mark.parametrize("case", _marked(PLAIN + EMBEDDINGS + STREAMS, pytest.mark.xfail(strict=True, reason=LATE)))
def test_a_call_is_recorded_before_its_caller_goes_on(
    loopback: Any, counter: TokenCounter, memory: MemorySink, case: Case
) -> None:
    """The process may die in the next moment, long before LiteLLM tells of the end by its own events."""
    server = loopback(stream_usage="always_last")

    async def read() -> list[CallRecord]:
        await case.read_async(server)
        return list(memory.records)

    if case.is_async:
        [record] = asyncio.run(read())
    else:
        case.run(server)
        [record] = memory.records
    assert Outcome.COMPLETED is record.outcome


@pytest.mark.parametrize("usage", ["absent", "zero"])
@pytest.mark.parametrize("case", _marked(PLAIN + EMBEDDINGS))
def test_a_plain_call_without_usage_is_one_counted_record(
    loopback: Any, counter: TokenCounter, memory: MemorySink, case: Case, usage: str
) -> None:
    """Where a plain answer tells nothing, or zero beside text, the figures are ours, marked so, and never 0."""
    if usage == "absent" and case.name in UNREADABLE:
        pytest.skip("LiteLLM raises: test_an_answer_that_litellm_cannot_read_was_paid_all_the_same")
    server = loopback(usage=usage)
    summary = _run_once(counter, server, case)

    _assert_counted(memory, case, summary)


@pytest.mark.parametrize("usage", ["never", "zero"])
@pytest.mark.parametrize("case", _marked(STREAMS))
def test_a_stream_without_usage_is_one_counted_record(
    loopback: Any, counter: TokenCounter, memory: MemorySink, case: Case, usage: str
) -> None:
    """Where a stream tells nothing, or zero beside text, LiteLLM's guess or zero is not the provider's word."""
    server = loopback(stream_usage=usage)
    summary = _run_once(counter, server, case)

    _assert_counted(memory, case, summary)


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.name) for case in STREAMS if case.name.endswith("completion streamed")]
)
def test_asked_for_usage_that_never_came_is_not_reported(
    loopback: Any, counter: TokenCounter, memory: MemorySink, case: Case
) -> None:
    """LiteLLM answers ``include_usage`` with a guess of its own where the provider sends none: it stays a guess."""
    server = loopback(stream_usage="never")
    summary = _run_once(counter, server, case, stream_options={"include_usage": True})

    _assert_counted(memory, case, summary)


@pytest.mark.parametrize("prompt", [[3, 4, 5], [[3, 4], [5]]], ids=["one", "several"])
def test_a_prompt_of_token_ids_is_not_counted_as_none(
    loopback: Any, counter: TokenCounter, memory: MemorySink, prompt: list[Any]
) -> None:
    """No text is no prompt of 0 tokens: where the provider tells nothing, nobody knows."""
    with counter.run("token ids"):
        litellm.text_completion(model=INSTRUCT, prompt=prompt, **openai(loopback(usage="absent")))

    [record] = memory.records
    assert (None, Provenance.MISSING) == (record.usage.prompt_tokens, record.provenance.prompt)


@pytest.mark.parametrize("call", [claude_completion, claude_acompletion], ids=lambda call: call.__name__)
def test_an_answer_that_litellm_cannot_read_was_paid_all_the_same(
    loopback: Any, counter: TokenCounter, memory: MemorySink, call: Any
) -> None:
    """LiteLLM raises for an Anthropic answer without usage; the call failed, and what came back is a lower bound."""
    server = loopback(usage="absent")
    case = Case(call.__name__, call, PLAIN[0].operation)
    with counter.run("one call") as run, pytest.raises(litellm.APIConnectionError):
        case.run(server)

    [record] = memory.records
    assert Outcome.FAILED is record.outcome
    assert "APIConnectionError" == record.error
    assert Provenance.PARTIAL is record.provenance.completion
    assert run.summary.lower_bound


def _run_once(counter: TokenCounter, server: LoopbackServer, case: Case, **options: Any) -> RunSummary:
    with counter.run("one call") as run:
        case.run(server, **options)
    return run.summary


def _assert_equals_ledger(server: LoopbackServer, memory: MemorySink, case: Case, summary: RunSummary) -> None:
    [entry] = server.ledger
    [record] = memory.records
    assert _truth(entry) == _figures(record)
    assert (case.operation, case.streamed, Outcome.COMPLETED) == (record.operation, record.streamed, record.outcome)
    assert Provenance.REPORTED is record.provenance.weakest
    assert (entry.prompt_tokens, entry.completion_tokens, entry.embedding_tokens, 0) == _totals(summary)


def _assert_counted(memory: MemorySink, case: Case, summary: RunSummary) -> None:
    [record] = memory.records
    usage = record.usage
    figures = (usage.prompt_tokens or 0, usage.completion_tokens or 0, usage.embedding_tokens or 0)
    assert record.provenance.weakest in (Provenance.COUNTED, Provenance.ESTIMATED)
    assert (0 if case in EMBEDDINGS else 2, 1 if case in EMBEDDINGS else 0) == (
        sum(figure > 0 for figure in figures[:2]),
        sum(figure > 0 for figure in figures[2:]),
    )
    assert (*figures, 0) == _totals(summary)


def _totals(summary: RunSummary) -> tuple[int, int, int, int]:
    return (
        summary.llm_prompt_tokens,
        summary.llm_completion_tokens,
        summary.embedding_tokens,
        summary.internal_errors,
    )


def _truth(entry: LedgerEntry) -> tuple[int, ...]:
    return (
        entry.prompt_tokens,
        entry.completion_tokens,
        entry.embedding_tokens,
        entry.cache_read_tokens,
        entry.cache_write_tokens,
        entry.reasoning_tokens,
    )


def _figures(record: CallRecord) -> tuple[int, ...]:
    usage = record.usage
    told = (
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.embedding_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.reasoning_tokens,
    )
    return tuple(figure or 0 for figure in told)
