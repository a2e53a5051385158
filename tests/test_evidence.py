"""How figures are settled: the provider's word first, a count second, and each figure by itself."""

from __future__ import annotations

from token_callbacks.evidence import Figures, settle
from token_callbacks.records import Operation, Outcome, Provenance, Sources, Usage
from token_callbacks.usage import Reading, read_stream

from .calls import Told

MESSAGES = [{"role": "user", "content": "Hello, loopback."}]
TEXT = "A short answer."


def _settled(payload: object, outcome: Outcome = Outcome.COMPLETED, text: str | None = TEXT) -> Figures:
    return settle(Operation.CHAT, "gpt-4o", outcome, [Told(payload, text=text, messages=MESSAGES)])


def test_reported_figures_are_taken_as_they_are() -> None:
    """Nothing is counted where the provider told both."""
    figures = _settled({"prompt_tokens": 3, "completion_tokens": 4})

    assert (3, 4) == (figures.usage.prompt_tokens, figures.usage.completion_tokens)
    assert Sources(prompt=Provenance.REPORTED, completion=Provenance.REPORTED) == figures.sources
    assert figures.counting_method is None


def test_only_the_first_witness_names_the_response_with_its_usage() -> None:
    """Of several witnesses the first one names the response, whoever told the usage."""

    class Named(Told):
        def reading(self, operation: Operation) -> Reading | None:
            return Reading(usage=Usage(prompt_tokens=3, completion_tokens=4), names=("response-4", "gpt-4o"))

    alone, after = (
        settle(Operation.CHAT, "gpt-4o", Outcome.COMPLETED, told) for told in ([Named(None)], [Told(None), Named(None)])
    )

    assert isinstance(alone, Figures)
    assert isinstance(after, Figures)
    assert [("response-4", "gpt-4o"), None] == [alone.names, after.names]


def test_zero_beside_text_is_not_told() -> None:
    """A 0/0 that a gateway made up is counted instead, and the payload kept."""
    figures = _settled({"prompt_tokens": 0, "completion_tokens": 0})

    assert Sources(prompt=Provenance.COUNTED, completion=Provenance.COUNTED) == figures.sources
    assert figures.usage.prompt_tokens
    assert figures.usage.completion_tokens
    assert figures.reading is not None
    assert {"prompt_tokens": 0, "completion_tokens": 0} == figures.reading.payload


def test_each_figure_has_its_own_source() -> None:
    """A provider may tell the prompt and not the completion."""
    figures = _settled({"prompt_tokens": 3})

    assert 3 == figures.usage.prompt_tokens
    assert Sources(prompt=Provenance.REPORTED, completion=Provenance.COUNTED) == figures.sources


def test_what_a_cut_stream_delivered_is_a_lower_bound() -> None:
    """The prompt was sent whole and is counted; the completion is what arrived."""
    figures = _settled(None, Outcome.ABANDONED)

    assert Sources(prompt=Provenance.COUNTED, completion=Provenance.PARTIAL) == figures.sources


def test_a_placeholder_of_a_cut_stream_gives_way_to_what_arrived() -> None:
    """Anthropic's first event tells 1 output token; more text than that came."""
    figures = _settled({"input_tokens": 3, "output_tokens": 1}, Outcome.ABANDONED)

    assert Sources(prompt=Provenance.REPORTED, completion=Provenance.PARTIAL) == figures.sources
    assert (figures.usage.completion_tokens or 0) > 1


def test_a_running_count_of_a_cut_stream_is_not_outdone_by_ours() -> None:
    """A server that tells its count with every chunk knows better than our count of the text: it must stay a bound."""

    class Running(Told):
        def reading(self, operation: Operation) -> Reading | None:
            told = [{"usage": {"prompt_tokens": 3, "completion_tokens": tokens}} for tokens in (0, 1, 2)]
            return read_stream(told, operation)

    figures = settle(Operation.CHAT, "gpt-4o", Outcome.ABANDONED, [Running(None, text=TEXT, messages=MESSAGES)])

    assert Sources(prompt=Provenance.REPORTED, completion=Provenance.PARTIAL) == figures.sources
    assert 2 == figures.usage.completion_tokens


def test_a_failure_before_any_answer_counts_nothing() -> None:
    """A refused request was most likely not billed: no figure is made up for it."""
    figures = _settled(None, Outcome.FAILED, text=None)

    assert (None, None) == (figures.usage.prompt_tokens, figures.usage.completion_tokens)
    assert Sources(prompt=Provenance.MISSING, completion=Provenance.MISSING) == figures.sources


def test_an_answer_that_had_just_begun_has_its_prompt() -> None:
    """It was accepted, whatever became of it; of the rest, others may have seen more."""
    begun, seen = Told(None, text="", messages=MESSAGES), Told(None, text=TEXT, messages=MESSAGES)
    for outcome in (Outcome.ABANDONED, Outcome.CANCELLED, Outcome.FAILED):
        alone, beside = (settle(Operation.CHAT, "gpt-4o", outcome, told) for told in ([begun], [begun, seen]))

        assert isinstance(alone, Figures)
        assert isinstance(beside, Figures)
        assert Sources(prompt=Provenance.COUNTED, completion=Provenance.PARTIAL) == alone.sources == beside.sources
        assert alone.usage.prompt_tokens == beside.usage.prompt_tokens
        assert (0, True) == (alone.usage.completion_tokens, bool(beside.usage.completion_tokens))


def test_a_stream_that_was_never_started_has_no_figures() -> None:
    """Nothing was sent, so nothing is missing either."""
    assert Sources() == _settled(None, Outcome.NOT_STARTED, text=None).sources


def test_evidence_that_rules_usage_out_ends_the_search() -> None:
    """A stream whose chunks were seen and carried no usage is counted, whatever a framework claims further up."""

    class Probed(Told):
        def rules_out_usage(self) -> bool:
            return True

    claim = Told({"prompt_tokens": 9, "completion_tokens": 9})
    probed = Probed(None, text=TEXT, messages=MESSAGES)
    figures = settle(Operation.CHAT, "gpt-4o", Outcome.COMPLETED, [probed, claim])

    assert Sources(prompt=Provenance.COUNTED, completion=Provenance.COUNTED) == figures.sources
