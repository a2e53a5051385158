"""The targets of counting, on the recorded exchanges of OpenAI and whatever vocabulary is here."""

from __future__ import annotations

from collections import defaultdict

import pytest

from tests.corpus.folder import load_modules, reason_without_corpus
from tests.scoring.cases import cases
from tests.scoring.scores import Score, mean_error, scores

Groups = dict[tuple[str, str, str], list[Score]]


@pytest.fixture(scope="module")
def groups() -> Groups:
    """Score every exchange, their usage hidden."""
    if (reason := reason_without_corpus()) is not None:
        pytest.skip(reason)
    found: Groups = defaultdict(list)
    for score in scores(cases(load_modules()), {}):
        found[score.figure, score.family, score.kind].append(score)
    return found


@pytest.mark.parametrize(
    ("group", "least"),
    [
        (("prompt", "openai", "plain"), 0.995),
        (("prompt", "openai", "first turn with tools"), 0.98),
        (("prompt", "openai", "tool round trip"), 1.0),
        (("prompt", "openai", "json_schema"), 1.0),
        (("prompt", "openai (responses)", "json_schema"), 1.0),
        (("prompt", "openai (responses)", "plain"), 1.0),
        (("prompt", "openai (responses)", "first turn with tools"), 0.95),
        (("prompt", "openai (responses)", "tool round trip"), 0.85),
        (("prompt", "openai reasoning", "first turn with tools"), 0.93),
        (("prompt", "openai reasoning", "tool round trip"), 0.87),
        (("prompt", "openai reasoning (responses)", "json_schema"), 1.0),
        (("prompt", "openai reasoning (responses)", "plain"), 0.95),
        (("prompt", "openai reasoning (responses)", "first turn with tools"), 0.98),
        (("prompt", "openai reasoning (responses)", "tool round trip"), 0.89),
        (("completion", "openai", "tool calls"), 0.9),
        (("prompt", "openai", "images, files"), 0.83),
        (("prompt", "openai (responses)", "images, files"), 0.76),
        (("prompt", "openai reasoning", "images, files"), 0.61),
        (("embedding", "openai", "embeddings"), 1.0),
        (("completion", "openai", "text"), 0.95),
        (("completion", "openai", "text, tools offered"), 1.0),
        (("completion", "openai (responses)", "text"), 0.98),
    ],
)
def test_share_of_exact_counts(groups: Groups, group: tuple[str, str, str], least: float) -> None:
    """So many of the recorded figures of a kind are counted to the token."""
    found = groups[group]

    assert least <= sum(score.is_exact for score in found) / len(found)


@pytest.mark.parametrize(
    ("group", "most"),
    [
        (("completion", "openai", "text"), 0.005),
        (("completion", "cohere", "text"), 0.005),
        (("prompt", "openai", "plain"), 0.003),
        (("prompt", "openai", "tool round trip"), 0.001),
    ],
)
def test_total_error(groups: Groups, group: tuple[str, str, str], most: float) -> None:
    """Over all recorded figures of a kind, the sum is this near."""
    found = groups[group]
    truth = sum(score.truth for score in found)

    assert abs(sum(score.ours for score in found) - truth) <= most * truth


@pytest.mark.parametrize(
    ("group", "most", "from_tokens"),
    [
        (("completion", "claude", "text"), 0.024, 0),
        (("completion", "claude", "text"), 0.03, 50),
        (("completion", "claude", "text, tools offered"), 0.024, 0),
        (("completion", "claude", "text, tools offered"), 0.018, 50),
        (("completion", "claude", "tool calls"), 0.042, 0),
        (("prompt", "claude", "first turn with tools"), 0.016, 0),
        (("prompt", "claude", "tool round trip"), 0.058, 0),
        (("prompt", "claude", "images, files"), 0.09, 0),
        (("prompt", "gemini", "images, files"), 0.222, 0),
        (("prompt", "mistral", "images, files"), 0.153, 0),
        (("prompt", "nova", "images, files"), 0.104, 0),
        (("prompt", "openai", "images, files"), 0.072, 0),
        (("prompt", "openai (responses)", "images, files"), 0.047, 0),
        (("prompt", "openai reasoning", "images, files"), 0.025, 0),
        (("prompt", "openai reasoning (responses)", "images, files"), 0.208, 0),
        (("prompt", "openai reasoning (responses)", "reasoning sent back"), 0.05, 0),
    ],
)
def test_mean_error(groups: Groups, group: tuple[str, str, str], most: float, from_tokens: int) -> None:
    """The mean of the relative errors of a kind is no more, over all lengths or over the longer figures."""
    found = [score for score in groups[group] if score.truth >= from_tokens]

    assert mean_error(found) <= most


@pytest.mark.parametrize(("figure", "least"), [("prompt", 0.99), ("completion", 0.995)])
def test_figures_marked_exact_are(groups: Groups, figure: str, least: float) -> None:
    """Of OpenAI's prompts that are marked exact, 99 of 100 are; of answers 995 of 1,000."""
    found = [s for (kind, family, _), group in groups.items() if kind == figure and "openai" in family for s in group]
    marked = [score for score in found if score.is_marked_exact]

    assert least <= sum(score.is_exact for score in marked) / len(marked)


ENOUGH = 5
"""So many cases of a kind have a band of their own."""


def test_nine_in_ten_estimates_keep_to_their_bands(groups: Groups) -> None:
    """Of every kind that was recorded often enough, nine in ten estimates are as near as their bands say."""
    found: Groups = defaultdict(list)
    for score in (score for group in groups.values() for score in group if score.is_seen_estimate):
        found[score.band_group].append(score)
    kept = {
        group: sum(score.is_in_band for score in banded) / len(banded)
        for group, banded in found.items()
        if len(banded) >= ENOUGH
    }

    assert kept
    assert {} == {group: share for group, share in kept.items() if share < 0.9}
