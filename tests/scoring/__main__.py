"""Score and print: ``python -m tests.scoring``; ``--bands`` prints the bands of what is no exact count."""

from __future__ import annotations

import logging
import os
import warnings
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import click

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # before anything imports litellm: it would go online
if (_litellm := find_spec("litellm")) is not None and _litellm.origin is not None:
    os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(Path(_litellm.origin).parent / "litellm_core_utils" / "tokenizers"))

from tests.corpus.folder import load_modules, reason_without_corpus
from tests.scoring.cases import cases
from tests.scoring.scores import Score, band, mean_error, other_counters, scores

HEAD = "| figure | family | kind | n | exact | mean error | from 50 | total error | right of those marked exact |"
LONG = 50
"""Tokens from which on a figure has a mean error of its own: a token off is 50 % of an answer of one word."""

NAMES = ("litellm", "llama_index", "tokencost")


@click.command()
@click.option("--bands", "with_bands", is_flag=True, help="Print the bands of the estimates, and who kept to theirs.")
@click.option("--alone", is_flag=True, help="Leave the other counters out.")
@click.option("--least", default=3, show_default=True, help="Leave out groups of fewer cases.")
@click.option("--misses", help="Print the misses of one group: FIGURE/FAMILY/KIND.")
def main(with_bands: bool, alone: bool, least: int, misses: str | None) -> None:
    """Count recorded exchanges, their usage hidden, and compare with it."""
    if (reason := reason_without_corpus()) is not None:
        raise click.ClickException(reason)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    groups: dict[tuple[str, str, str], list[Score]] = defaultdict(list)
    found = list(scores(cases(load_modules()), {} if alone or with_bands else other_counters()))
    for score in found:
        groups[score.figure, score.family, score.kind].append(score)
        if score.generation is not None and score.figure == "completion" and score.kind.startswith("text"):
            groups[score.figure, f"{score.family} {score.generation}", score.kind].append(score)
    if misses is not None:
        _print_misses(groups[tuple(misses.split("/", 2))])  # type: ignore[index]
    elif with_bands:
        _print_bands(found, least)
    else:
        click.echo(HEAD + _heads())
        click.echo("|---|---|---|---|---|---|---|---|---|" + "---|" * len(NAMES))
        for (figure, family, kind), group in sorted(groups.items()):
            if len(group) >= least:
                click.echo(_row(figure, family, kind, group))


def _print_misses(group: list[Score]) -> None:
    for score in group:
        if not score.is_exact:
            click.echo(f"{score.id} {score.ours} {score.truth} {'marked exact' if score.is_marked_exact else ''}")


def _print_bands(found: list[Score], least: int) -> None:
    groups: dict[tuple[str, str, str], list[Score]] = defaultdict(list)
    for score in found:
        if not score.is_marked_exact and not score.is_lower_bound:
            groups[score.band_group].append(score)
    for (figure, family, kind), group in sorted(groups.items()):
        if len(group) >= least:
            click.echo(f"{figure} | {family} | {kind} | {len(group)} | {band(group)} | {_kept(group)}")
    estimates = [score for group in groups.values() for score in group]
    seen = [score for score in estimates if score.is_seen_estimate]
    click.echo(f"all estimates | {len(estimates)} | {_kept(estimates)}")
    click.echo(f"without reasoning and citations that are not seen | {len(seen)} | {_kept(seen)}")


def _kept(group: list[Score]) -> str:
    return f"{sum(score.is_in_band for score in group) / len(group):.1%} kept to their bands"


def _heads() -> str:
    return "".join(f" {name} |" for name in NAMES)


def _row(figure: str, family: str, kind: str, group: list[Score]) -> str:
    marked = [score for score in group if score.is_marked_exact]
    right = sum(score.is_exact for score in marked)
    cells = [
        *(figure, family, kind, str(len(group))),
        f"{sum(score.is_exact for score in group) / len(group):.1%}",
        _mean_error(group),
        _mean_error([score for score in group if score.truth >= LONG], with_number=True),
        f"{sum(score.ours - score.truth for score in group) / sum(score.truth for score in group):+.2%}",
        f"{right} of {len(marked)}" if marked else "–",
        *(_other(group, name) for name in NAMES),
    ]
    return f"| {' | '.join(cells)} |"


def _mean_error(group: list[Score], *, with_number: bool = False) -> str:
    if not group:
        return "–"
    mean = f"{mean_error(group):.1%}"
    return f"{mean} ({len(group)})" if with_number else mean


def _other(group: list[Score], name: str) -> str:
    told = [(figure, score.truth) for score in group if (figure := score.others.get(name)) is not None]
    if not told:
        return "–"
    exact = sum(figure == truth for figure, truth in told) / len(group)
    mean = sum(abs(figure - truth) / truth for figure, truth in told) / len(told)
    return f"{exact:.1%}, {mean:.1%}"


if __name__ == "__main__":
    main()
