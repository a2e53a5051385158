"""A sample of real exchanges, each through every framework that can make it: what was reported is what is recorded."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.corpus.folder import Exchange, reason_without_corpus
from tests.corpus.llama_index_plays import ROUTES, Route
from tests.corpus.replaying import PLAYERS, Replay, in_turns, replaying, sample
from tests.corpus.tables import failure_lines
from tests.corpus.verdicts import Verdict

REASON = reason_without_corpus()
pytestmark = [
    pytest.mark.skipif(REASON is not None, reason=str(REASON)),
    pytest.mark.filterwarnings("ignore"),  # the frameworks', of what providers send
]

SAMPLE_SIZE = 6

Verdicts = dict[str, list[Verdict]]


@pytest.fixture(scope="module")
def verdicts() -> Iterator[Verdicts]:
    """Replay the sample once, through each framework that is installed."""
    with replaying() as replay:
        chosen = sample(replay.exchanges(), SAMPLE_SIZE)
        yield {framework: _replayed(replay, framework, chosen) for framework in PLAYERS}


def _replayed(replay: Replay, framework: str, exchanges: list[Exchange]) -> list[Verdict]:
    try:
        player = replay.player(framework)
    except ImportError:
        return []
    return replay.verdicts(in_turns(replay.plays(player, exchanges)))


def test_litellm_calls_are_recorded_as_reported(verdicts: Verdicts) -> None:
    """Through LiteLLM's own functions, one record an exchange says what the provider said."""
    judged = [each for each in verdicts["litellm"] if each.is_answered]
    lines = list(failure_lines(judged, examples=1))

    assert [] == lines, "\n".join(lines)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_llama_index_calls_are_recorded_as_reported(verdicts: Verdicts, route: Route) -> None:
    """Through each of LlamaIndex's integrations, one record an exchange says what the provider said."""
    if (reason := route.reason_left_out()) is not None:
        pytest.skip(reason)
    judged = [each for each in verdicts["llama_index"] if each.is_answered and each.played.play.route == route.name]
    lines = list(failure_lines(judged, examples=1))

    assert [] == lines, "\n".join(lines)


def test_whole_answers_that_a_framework_refuses_are_recorded_as_reported(verdicts: Verdicts) -> None:
    """What a provider billed is recorded also where the framework raised over its answer, if all of it had come."""
    refused = [each for judged in verdicts.values() for each in judged if not each.is_answered]
    whole = [each for each in refused if not each.played.play.exchange["stream"] and each.provider_usage is not None]
    lines = list(failure_lines(whole, examples=1))

    assert [] == lines, "\n".join(lines)
