"""The object that LaVague is given, by itself: what it returns, starts anew, takes, and never raises."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from token_callbacks import TokenCallbacksError
from token_callbacks.adapters.lavague import TokenCounter, init_token_counter
from token_callbacks.errors import InvalidArgument, UnknownKey, UnknownOption
from token_callbacks.records import Outcome
from token_callbacks.sinks.memory import MemorySink

pytest.importorskip("llama_index.llms.openai")

COUNTS = (
    "world_model_input_tokens",
    "world_model_output_tokens",
    "action_engine_input_tokens",
    "action_engine_output_tokens",
    "total_world_model_tokens",
    "total_action_engine_tokens",
    "total_llm_tokens",
    "total_embedding_tokens",
    "total_step_tokens",
)
COSTS = tuple(name.replace("_tokens", "_cost") for name in COUNTS)
"""LaVague's columns in LaVague's order: lavague/core/token_counter.py, 0.2.35."""


class Unhashable:
    """Has neither a hash nor weak references."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]


class Raising:
    """Raises whatever is read from it."""

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":  # other tests walk over all there is in memory
            return Raising
        raise RuntimeError(f"half-initialised: {name}")


class Frozen:
    """Has the totals and takes no other."""

    total_estimated_tokens = 1
    total_estimated_cost = 0.5

    def __setattr__(self, name: str, value: object) -> None:
        raise TypeError("frozen")


@pytest.fixture
def taking(log_dir: Path, memory: MemorySink) -> Iterator[TokenCounter]:
    """Give an open counter."""
    counter = TokenCounter(log_dir=log_dir, sinks=[memory])
    yield counter
    counter.close()


def llm(server: Any, **options: Any) -> Any:
    from llama_index.llms.openai import OpenAI

    return OpenAI(model="gpt-4o", api_base=server.base_url, api_key="sk-loopback", **{"max_retries": 0} | options)


def embedder(server: Any) -> Any:
    from llama_index.embeddings.openai import OpenAIEmbedding

    return OpenAIEmbedding(api_base=server.base_url, api_key="sk-loopback", max_retries=0)


def test_nothing_used_is_nine_whole_and_nine_broken_zeros_in_lavagues_order(taking: TokenCounter) -> None:
    """LaVague's tools add the columns up as they come."""
    counts, costs = taking.process_token_usage()

    assert [(name, 0) for name in COUNTS] == list(counts.items())
    assert [(name, 0.0) for name in COSTS] == list(costs.items())
    assert {int} == set(map(type, counts.values()))
    assert {float} == set(map(type, costs.values()))


def test_what_was_used_since_the_last_time_is_told_once(taking: TokenCounter, loopback: Callable[..., Any]) -> None:
    """Outside of any agent it is the action engine's, and identical calls are two calls."""
    server = loopback()
    for _ in range(2):
        llm(server).complete("Click.")
    embedder(server).get_text_embedding("Click.")
    truth = server.ledger_totals()
    counts, _ = taking.process_token_usage()

    assert (truth.prompt_tokens, truth.completion_tokens, truth.embedding_tokens) == (
        counts["action_engine_input_tokens"],
        counts["action_engine_output_tokens"],
        counts["total_embedding_tokens"],
    )
    assert truth.prompt_tokens + truth.completion_tokens == counts["total_llm_tokens"]
    assert counts["total_llm_tokens"] + truth.embedding_tokens == counts["total_step_tokens"]
    assert 0 == taking.process_token_usage()[0]["total_step_tokens"]


BAD_OBJECTS: dict[str, Any] = {
    "nothing": None,
    "object": object(),
    "no model names": SimpleNamespace(),
    "unhashable": Unhashable(),
    "half-initialised": Raising(),
    "a class": object,
    "text": "WorldModel",
}


@pytest.mark.parametrize("other", BAD_OBJECTS)
@pytest.mark.parametrize("bad", BAD_OBJECTS)
def test_whatever_it_is_asked_about_the_figures_are_right(
    taking: TokenCounter, loopback: Callable[..., Any], bad: str, other: str
) -> None:
    """What the step used does not depend on what LaVague's objects have to say of themselves."""
    server = loopback()
    llm(server).complete("Click.")
    counts, _ = taking.process_token_usage(BAD_OBJECTS[bad], BAD_OBJECTS[other], result_to_update=BAD_OBJECTS[bad])

    assert server.ledger_totals().prompt_tokens == counts["action_engine_input_tokens"]


RESULTS: dict[str, tuple[Any, Any]] = {
    "numbers": (SimpleNamespace(total_estimated_tokens=3, total_estimated_cost=0.5), 3),
    "nothing yet": (SimpleNamespace(total_estimated_tokens=None, total_estimated_cost=None), 0),
    "words": (SimpleNamespace(total_estimated_tokens="3", total_estimated_cost="0"), None),
}


@pytest.mark.parametrize(("result", "before"), RESULTS.values(), ids=RESULTS)
def test_the_totals_of_the_result_are_added_to(
    taking: TokenCounter, loopback: Callable[..., Any], result: Any, before: int | None
) -> None:
    """As LaVague's agent leaves to its counter; what is no number is left alone."""
    server = loopback()
    llm(server).complete("Click.")
    truth = server.ledger_totals()
    taking.process_token_usage(None, None, result_to_update=result)

    if before is None:
        assert ("3", "0") == (result.total_estimated_tokens, result.total_estimated_cost)
    else:
        assert before + truth.prompt_tokens + truth.completion_tokens == result.total_estimated_tokens
        assert float is type(result.total_estimated_cost)


def test_a_result_without_totals_gets_none(taking: TokenCounter) -> None:
    """LaVague 0.2.23's has no tokens."""
    result = SimpleNamespace(total_estimated_cost=0.5)
    taking.process_token_usage(None, None, result_to_update=result)

    assert {"total_estimated_cost": 0.5} == vars(result)


def test_a_result_that_cannot_be_updated_costs_no_figures(
    taking: TokenCounter, loopback: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """It is told in the log, once."""
    server = loopback()
    for _ in range(2):
        llm(server).complete("Click.")
        counts, _ = taking.process_token_usage(None, None, result_to_update=Frozen())

        assert 0 < counts["total_step_tokens"]
    assert 1 == sum("TypeError" in record.getMessage() for record in caplog.records)


def test_it_is_a_mapping_of_two_counters_to_lavagues_first_generation(taking: TokenCounter) -> None:
    """And true, even while it has counted nothing."""
    assert bool(taking)
    assert ["llm_token_counter", "embedding_token_counter"] == list(taking) == list(dict(taking))
    assert taking["llm_token_counter"] is taking.get("llm_token_counter")
    assert "embedding_token_counter" in taking
    assert (None, 3) == (taking.get("other"), taking.get("other", 3))


def test_a_key_that_it_does_not_have_is_told_with_those_it_has(taking: TokenCounter) -> None:
    """The error is ours, and a KeyError."""
    with pytest.raises(UnknownKey, match=r"^this counter has 'llm_token_counter' and .*, not 'cost'$") as caught:
        taking["cost"]

    assert isinstance(caught.value, TokenCallbacksError)
    assert isinstance(caught.value, KeyError)


def test_the_two_counters_read_and_start_anew_each_for_itself(
    taking: TokenCounter, loopback: Callable[..., Any]
) -> None:
    """Each tells 0 of what is the other one's."""
    server = loopback()
    llm(server).complete("Click.")
    embedder(server).get_text_embedding("Click.")
    truth, by_llm, by_embedding = server.ledger_totals(), taking["llm_token_counter"], taking["embedding_token_counter"]

    def figures() -> tuple[int, ...]:
        return (
            by_llm.prompt_llm_token_count,
            by_llm.completion_llm_token_count,
            by_llm.total_llm_token_count,
            by_embedding.total_embedding_token_count,
        )

    llm_truth = (truth.prompt_tokens, truth.completion_tokens, truth.prompt_tokens + truth.completion_tokens)
    assert (*llm_truth, truth.embedding_tokens) == figures() == figures()
    assert (0, 0) == (by_llm.total_embedding_token_count, by_embedding.total_llm_token_count)
    by_llm.reset_counts()
    assert (0, 0, 0, truth.embedding_tokens) == figures()
    by_embedding.reset_counts()
    assert (0, 0, 0, 0) == figures()


def test_both_generations_may_read_the_same_step(taking: TokenCounter, loopback: Callable[..., Any]) -> None:
    """A reset of one is the reset of both: there is one count."""
    server = loopback()
    llm(server).complete("Click.")

    assert 0 < taking["llm_token_counter"].total_llm_token_count
    assert 0 < taking.process_token_usage()[0]["total_llm_tokens"]
    assert 0 == taking["llm_token_counter"].total_llm_token_count


def test_each_retry_inside_the_client_is_counted_and_a_refusal_costs_nothing(
    taking: TokenCounter, memory: MemorySink, loopback: Callable[..., Any]
) -> None:
    """Two attempts, of which one was billed."""
    server = loopback()
    server.fail_next(status=500)
    llm(server, max_retries=1).complete("Click.")
    counts, _ = taking.process_token_usage()

    assert [Outcome.FAILED, Outcome.COMPLETED] == [record.outcome for record in memory.records]
    assert server.ledger_totals().prompt_tokens == counts["total_llm_tokens"] - counts["action_engine_output_tokens"]


def test_an_error_of_the_provider_reaches_the_caller_as_it_was(
    taking: TokenCounter, loopback: Callable[..., Any]
) -> None:
    """LaVague's counter made a ValueError of it; and the step after it starts from zero."""
    server = loopback()
    server.fail_next(status=500)
    with pytest.raises(Exception, match="500") as caught:
        llm(server).complete("Click.")
    failed, _ = taking.process_token_usage()
    llm(server).complete("Click.")
    done, _ = taking.process_token_usage()

    assert "InternalServerError" == type(caught.value).__name__
    assert 0 == failed["total_step_tokens"]
    assert server.ledger_totals().prompt_tokens == done["action_engine_input_tokens"]


def test_a_stream_that_is_closed_early_raises_nothing_and_belongs_to_the_step_it_ends_in(
    taking: TokenCounter, loopback: Callable[..., Any]
) -> None:
    """LaVague's counter raised a ValueError into the agent."""
    server = loopback()
    with server.hold(after_chunks=3):
        stream = llm(server).stream_complete("Click.")
        next(stream)
        under_way, _ = taking.process_token_usage()
        stream.close()
    left, _ = taking.process_token_usage()

    assert 0 == under_way["total_step_tokens"]
    assert 0 < left["action_engine_input_tokens"]
    assert 0 == taking.process_token_usage()[0]["total_step_tokens"]


def test_a_special_token_in_a_text_is_text(taking: TokenCounter, loopback: Callable[..., Any]) -> None:
    """LaVague's counter raised a ValueError and the run was over; here even without usage from the provider."""
    server = loopback(usage="absent")
    llm(server).complete("Click on <|endoftext|>, please.")
    counts, _ = taking.process_token_usage()

    assert 7 < counts["action_engine_input_tokens"]
    assert 0 == taking.default_run.summary.internal_errors


def test_each_of_two_runs_at_once_reads_its_own(taking: TokenCounter, loopback: Callable[..., Any]) -> None:
    """The figures are those of the run that is current where they are read."""
    server = loopback()
    meeting = threading.Barrier(2)
    read: dict[int, int] = {}

    def work(calls: int) -> None:
        with taking.run("agent") as run:
            for _ in range(calls):
                llm(server).complete("Click.")
            meeting.wait(120)
            read[calls] = taking.process_token_usage()[0]["total_llm_tokens"]
            assert read[calls] == run.summary.total_llm_tokens

    threads = [threading.Thread(target=work, args=(calls,)) for calls in (1, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    truth = server.ledger_totals()
    assert truth.prompt_tokens + truth.completion_tokens == sum(read.values())
    assert 0 < read[1] < read[3]


def test_what_nobody_reads_out_does_not_grow(taking: TokenCounter, loopback: Callable[..., Any]) -> None:
    """A counter without an agent may live long: calls alike are one sum."""
    server = loopback()
    model = llm(server)
    for _ in range(9):
        model.complete("Click.")
    [tally] = taking._tallies[taking.default_run].values()

    assert len(tally.charges) < 9  # one, or two about midnight
    assert server.ledger_totals().prompt_tokens == taking.process_token_usage()[0]["action_engine_input_tokens"]


def test_after_it_is_closed_it_still_answers(taking: TokenCounter, loopback: Callable[..., Any]) -> None:
    """An agent may outlive it."""
    llm(loopback()).complete("Click.")
    taking.close()

    assert 0 < taking.process_token_usage()[0]["total_step_tokens"]
    assert 0 == taking["llm_token_counter"].total_llm_token_count


PRICES = {"price": [{"model": "*", "prompt": "20000", "completion": "70000", "embedding": "30000"}]}
"""2 cents a token that goes in, 7 one that comes out, 3 one that is embedded."""


def test_costs_are_split_as_lavagues_columns_are(loopback: Callable[..., Any]) -> None:
    """What the prompt costs, what the answer does, and embeddings; floats, added up exactly before."""
    server = loopback()
    counter = TokenCounter(log_dir=None, prices=PRICES)
    llm(server).complete("Click.")
    embedder(server).get_text_embedding("Click.")
    result = SimpleNamespace(total_estimated_tokens=0, total_estimated_cost=0.0)
    _, costs = counter.process_token_usage(None, None, result_to_update=result)
    counter.close()
    truth = server.ledger_totals()
    asked, answered, embedded = 2 * truth.prompt_tokens, 7 * truth.completion_tokens, 3 * truth.embedding_tokens

    assert (asked / 100, answered / 100) == (costs["action_engine_input_cost"], costs["action_engine_output_cost"])
    assert embedded / 100 == costs["total_embedding_cost"]
    assert (asked + answered + embedded) / 100 == costs["total_step_cost"] == result.total_estimated_cost


def told_of_prices(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Read what was logged of prices."""
    return [record.getMessage() for record in caplog.records if "price" in record.getMessage()]


def test_without_a_price_in_dollars_the_cost_is_0_and_that_is_told_once(
    loopback: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """LaVague's tools add floats up, which cannot say that they do not know."""
    counter = TokenCounter(log_dir=None, prices={"currency": "EUR", **PRICES})
    model = llm(loopback())
    for _ in range(2):
        model.complete("Click.")
        counts, costs = counter.process_token_usage()

        assert 0 < counts["total_step_tokens"]
        assert {0.0} == set(costs.values())
    counter.close()

    assert ["no price in US dollars is known for gpt-4o: LaVague's columns have 0.0 for its cost"] == told_of_prices(
        caplog
    )


def test_who_wants_no_prices_is_told_of_none(loopback: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    """All costs are 0.0, and that is no news."""
    counter = TokenCounter(log_dir=None, prices=False)
    llm(loopback()).complete("Click.")
    counts, costs = counter.process_token_usage()
    counter.close()

    assert 0 < counts["total_step_tokens"]
    assert ({0.0}, []) == (set(costs.values()), told_of_prices(caplog))


MADE: dict[str, Callable[[], TokenCounter]] = {
    "0.2.23": lambda: init_token_counter(mm_llm_name="gpt-4o", embedding_model_name="text-embedding-3-large"),
    "0.2.24": lambda: TokenCounter("gpt-4o", "text-embedding-3-small", False),
    "0.2.27": lambda: TokenCounter(False),
    "0.2.35": lambda: TokenCounter(log=False),
    "ours": lambda: TokenCounter(log_dir="elsewhere", request_stream_usage=False),
}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_it_is_made_as_every_release_of_lavague_makes_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[], TokenCounter]
) -> None:
    """So that migrating is one changed line, the import."""
    monkeypatch.chdir(tmp_path)
    counter = make()
    counter.close()

    assert (TokenCounter, False) == (type(counter), counter._is_logging)


def test_wrong_use_is_an_error_of_ours() -> None:
    """With the next step."""
    with pytest.raises(UnknownOption, match=r"no option 'logs'; it has log_dir"):
        TokenCounter(logs=True)
    with pytest.raises(InvalidArgument, match=r"LaVague's log=True, or keyword arguments, not 3\.5"):
        TokenCounter(3.5)  # type: ignore[arg-type]


def test_with_log_each_step_is_told_once_on_stderr(
    loopback: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """However many counters were made; a step without calls is not told."""
    monkeypatch.setattr(logging.getLogger("token_callbacks.lavague"), "handlers", [])
    counters = [TokenCounter(log=True, log_dir=None) for _ in range(2)]
    server = loopback()
    llm(server).complete("Click.")
    for _ in range(2):
        counters[1].process_token_usage()
    for counter in counters:
        counter.close()
    told = capsys.readouterr().err

    assert 1 == told.count("Token consumption:\n")
    assert f"\naction_engine_input_tokens: {server.ledger_totals().prompt_tokens}\n" in told
    assert ": 0" not in told.partition("Token consumption:")[2]
