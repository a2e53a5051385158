"""The laws of the values: adding usage, weighing sources, folding records."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from token_callbacks.records import (
    CallRecord,
    Operation,
    Outcome,
    Provenance,
    Sources,
    Usage,
)
from token_callbacks.totals import Totals

TOKENS = st.none() | st.integers(min_value=0, max_value=10**9)
USAGES = st.builds(Usage, **dict.fromkeys(Usage.__struct_fields__, TOKENS))
SOURCES = st.none() | st.sampled_from(Provenance)
START = datetime(2026, 11, 21, 5, tzinfo=UTC)


@st.composite
def records(draw: st.DrawFn) -> CallRecord:
    """Draw any record."""
    operation = draw(st.sampled_from(Operation))
    usage = draw(USAGES)
    if operation is Operation.EMBEDDING:
        usage = Usage(embedding_tokens=usage.embedding_tokens)
        sources = Sources(embedding=draw(SOURCES))
    else:
        usage = msgspec.structs.replace(usage, embedding_tokens=None)
        sources = Sources(prompt=draw(SOURCES), completion=draw(SOURCES))
    return CallRecord(
        call_id="c-1",
        run_id="r-1",
        step=draw(st.none() | st.sampled_from(["judge", "plan"])),
        framework="litellm",
        operation=operation,
        provider=None,
        model=draw(st.none() | st.sampled_from(["gpt-4o", "other"])),
        response_model=None,
        response_id=None,
        streamed=draw(st.booleans()),
        attempt=draw(st.integers(1, 3)),
        outcome=draw(st.sampled_from(Outcome)),
        cached=draw(st.booleans()),
        error=None,
        started_at=START,
        ended_at=START + timedelta(seconds=draw(st.integers(0, 9))),
        time_to_first_token_seconds=None,
        usage=usage,
        provenance=sources,
        counting_method=None,
        provider_usage=None,
    )


@given(USAGES, USAGES, USAGES)
def test_adding_usage_is_associative_and_commutative(a: Usage, b: Usage, c: Usage) -> None:
    """Calls may be added up in any order and any grouping."""
    assert (a + b) + c == a + (b + c)
    assert a + b == b + a


@given(USAGES)
def test_empty_usage_is_neutral(usage: Usage) -> None:
    """Adding nothing changes nothing, and "not told" stays "not told"."""
    assert usage == usage + Usage()
    assert usage == Usage() + usage


def test_not_told_is_not_zero() -> None:
    """A sum is told as soon as one part is."""
    assert Usage(prompt_tokens=3, completion_tokens=0) == Usage(prompt_tokens=3) + Usage(completion_tokens=0)


@given(USAGES, USAGES)
def test_an_update_never_loses_a_figure(earlier: Usage, later: Usage) -> None:
    """A later part of a stream replaces a figure only by another one."""
    updated = earlier.updated(later)

    for name in Usage.__struct_fields__:
        assert (getattr(later, name) or getattr(earlier, name)) == getattr(updated, name)


def test_total_leaves_embedding_tokens_out() -> None:
    """Embedding tokens are no LLM tokens."""
    assert 7 == Usage(embedding_tokens=100, prompt_tokens=3, completion_tokens=4).total_llm_tokens


def test_a_call_is_worth_its_weakest_figure() -> None:
    """A reported prompt beside an estimated completion makes an estimated call."""
    sources = Sources(prompt=Provenance.REPORTED, completion=Provenance.ESTIMATED)

    assert Provenance.ESTIMATED is sources.weakest
    assert Provenance.MISSING is Sources().weakest


@given(st.lists(records(), max_size=12))
def test_the_fold_counts_every_call_and_token_once(drawn: list[CallRecord]) -> None:
    """Groups, shares and the four figures are sums over the same records, however they are cut."""
    totals = Totals(drawn)
    billed = [record.usage for record in drawn if not record.cached]
    four = totals.four

    assert len(drawn) == totals.calls.llm + totals.calls.embedding
    assert sum(usage.prompt_tokens or 0 for usage in billed) == four.llm_prompt_tokens
    assert sum(usage.completion_tokens or 0 for usage in billed) == four.llm_completion_tokens
    assert sum(usage.embedding_tokens or 0 for usage in billed) == four.embedding_tokens
    assert sum(usage.cache_read_tokens or 0 for usage in billed) == totals.token_details.cache_read
    assert sum(usage.rejected_prediction_tokens or 0 for usage in billed) == totals.token_details.rejected_prediction
    assert four.llm_prompt_tokens + four.llm_completion_tokens == four.total_llm_tokens
    assert four.total_llm_tokens == sum(group.total_llm_tokens for group in totals.by_model)
    assert len(drawn) == sum(group.calls for group in totals.by_model)
    shares = totals.provenance
    told = (shares.reported, shares.counted, shares.estimated, shares.partial)
    assert len(drawn) == sum(share.calls for share in told) + shares.missing.calls


@given(st.lists(records(), max_size=12))
def test_the_lines_of_the_log_give_the_same_totals(drawn: list[CallRecord]) -> None:
    """A summary can be rebuilt from the lines."""
    lines = [msgspec.json.encode(record) for record in drawn]
    read_back = [msgspec.json.decode(line, type=CallRecord) for line in lines]

    assert drawn == read_back
    assert _shown(Totals(drawn)) == _shown(Totals(read_back))


@given(records())
def test_totals_of_two_processes_keep_the_error_of_both(drawn: CallRecord) -> None:
    """By how much estimates may be off is added up like the tokens are."""
    usage, sources = Usage(prompt_tokens=100), Sources(prompt=Provenance.ESTIMATED, prompt_error_band=0.03)
    record = msgspec.structs.replace(drawn, cached=False, usage=usage, provenance=sources)

    assert 6 == Totals([record]).merged(Totals([record])).provenance.error_tokens


@given(st.lists(records(), max_size=80), st.sets(st.integers(0, 80)))
def test_totals_may_be_read_at_any_moment(drawn: list[CallRecord], moments: set[int]) -> None:
    """Calls that wait to be added are in whatever is told, and in what is told next, once."""
    read, unread = Totals(), Totals()
    for number, record in enumerate(drawn, 1):
        read.add(record)
        unread.add(record)
        if number in moments:
            assert _shown(Totals(drawn[:number])) == _shown(read)
            assert not read.is_empty

    assert _shown(read) == _shown(unread) == _shown(Totals(drawn).merged(Totals()))
    assert bool(drawn) is not unread.is_empty


def _shown(totals: Totals) -> list[object]:
    return [totals.four, totals.calls, totals.token_details, totals.provenance, totals.by_model, totals.by_step]
