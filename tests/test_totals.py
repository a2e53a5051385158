"""Totals: what is told of calls like one another is what is told of each by itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from token_callbacks import usage as room
from token_callbacks.charges import BAND_STARTS, PERIOD_STARTS, Basis, half_hour_of, period_of
from token_callbacks.ledger import Draft, Ending, OpenCall
from token_callbacks.records import Operation, Outcome, Provenance, Sources, Usage
from token_callbacks.totals import COUNTS, Entry, Totals
from token_callbacks.usage import read_usage

MIDNIGHT = datetime(2026, 11, 21, tzinfo=UTC)
REPORTED = Sources(prompt=Provenance.REPORTED, completion=Provenance.REPORTED)
BOUNDARY = MIDNIGHT + timedelta(minutes=PERIOD_STARTS[0])
MOMENTS = st.sampled_from([aside + timedelta(microseconds=n) for aside in (BOUNDARY, MIDNIGHT) for n in (-1, 0)])
PROMPTS = st.sampled_from([5, BAND_STARTS[0] - 1, BAND_STARTS[0]])
USAGES = st.builds(
    Usage,
    prompt_tokens=PROMPTS,
    completion_tokens=st.integers(0, 9),
    cache_read_tokens=st.none() | st.just(0),
)


@st.composite
def entries(draw: st.DrawFn) -> tuple[Entry, str | None]:
    """Make a call that was told by counts alone, with its step."""
    whose = (Operation.CHAT, "openai", draw(st.sampled_from(["a", "b"])), None)
    kind = (None, REPORTED, Outcome.COMPLETED, False, False, draw(st.booleans()))
    step = draw(st.sampled_from([None, "judge"]))
    return ((*whose, *kind), draw(MOMENTS), draw(USAGES), COUNTS), step


def _told(totals: Totals) -> list[Any]:
    names = ("four", "calls", "token_details", "provenance", "lower_bound", "by_model", "by_step", "by_agent")
    return [totals.charges, *(getattr(totals, name) for name in names)]


@given(st.lists(entries(), max_size=4))
def test_what_is_found_by_likeness_is_what_is_found_by_its_key(calls: list[tuple[Entry, str | None]]) -> None:
    """Whatever came before: another half hour, another band of the prompt, another step."""
    by_likeness, by_key = Totals(), Totals()
    for entry, step in calls:
        by_likeness.fold(entry, step)
        by_key.fold((*entry[:3], {"prompt_tokens": entry[2].prompt_tokens}), step)

    assert _told(by_key) == _told(by_likeness)


FIGURES = st.sampled_from([None, 0, 5, BAND_STARTS[0]])


@st.composite
def untold(draw: st.DrawFn) -> Draft:
    """Make a call that no provider told the usage of: what of it could be counted was."""
    operation = draw(st.sampled_from([Operation.CHAT, Operation.EMBEDDING]))
    names = ["embedding_tokens"] if operation is Operation.EMBEDDING else ["prompt_tokens", "completion_tokens"]
    usage = Usage(**{name: draw(FIGURES) for name in names})
    call = OpenCall(
        framework="llama_index",
        operation=operation,
        provider=None,
        model="a",
        seats=(),
        outer=None,
        started_at=MIDNIGHT,
    )
    ending = Ending(draw(st.sampled_from([Outcome.COMPLETED, Outcome.NOT_STARTED])))
    return Draft(
        call=call, call_id="1", ending=ending, ended_at=MIDNIGHT, usage=usage, sources=Sources(), names=(None, None)
    )


@given(st.lists(untold(), max_size=4))
def test_a_call_that_was_counted_adds_what_its_record_adds(drafts: list[Draft]) -> None:
    """Whichever of its figures could be counted, and whatever came before it."""
    running = Totals()
    for draft in drafts:
        running.fold(draft.entry, None)

    assert _told(Totals(draft.record("run", None) for draft in drafts)) == _told(running)


@given(st.timedeltas(timedelta(-40_000), timedelta(40_000)))
def test_a_half_hour_is_of_one_day_and_one_period(aside: timedelta) -> None:
    """Its end is the first moment that is not in it."""
    moment = MIDNIGHT + aside
    since, until = half_hour_of(moment)
    last = until - timedelta(microseconds=1)

    assert since <= moment <= last
    assert [(moment.date(), period_of(moment))] * 2 == [(end.date(), period_of(end)) for end in (since, last)]


COUNT = st.none() | st.integers(0, 12)


@given(
    st.fixed_dictionaries(
        {
            "prompt_tokens": st.integers(1, 20),
            "completion_tokens": st.integers(1, 20),
            "prompt_tokens_details": st.fixed_dictionaries(
                {}, optional=dict.fromkeys(["cached_tokens", "audio_tokens", "image_tokens"], COUNT)
            ),
            "completion_tokens_details": st.fixed_dictionaries(
                {}, optional=dict.fromkeys(["reasoning_tokens", "audio_tokens"], COUNT)
            ),
        }
    )
)
def test_counts_alone_are_of_parts_that_lie_beside_one_another(payload: dict[str, Any]) -> None:
    """So that nobody has to look what their price rests on."""
    for lanes in room._lanes:  # what was read before may have used up those of its kind
        lanes.clear()
    for _ in range(2):
        reading = read_usage(payload, Operation.CHAT)
    assert reading is not None
    totals = Totals()
    kind = (None, REPORTED, Outcome.COMPLETED, False, False, False)
    totals.fold(((Operation.CHAT, "openai", "a", None, *kind), MIDNIGHT, reading.usage, reading.payload), None)

    assert not reading.is_counts or [Basis.TOKENS] == [charged.charge.basis for charged in totals.charges]
