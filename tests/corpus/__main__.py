"""Replay and print: ``python -m tests.corpus``, a sample of every shape, or ``--all`` of it."""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from importlib.util import find_spec
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # before anything imports litellm: it would go online
if (_litellm := find_spec("litellm")) is not None and _litellm.origin is not None:
    os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(Path(_litellm.origin).parent / "litellm_core_utils" / "tokenizers"))

from tests.corpus.folder import Exchange, reason_without_corpus
from tests.corpus.replaying import PLAYERS, Replay, replaying, sample
from tests.corpus.tables import COLUMNS, exact_rows, failure_lines, not_played
from tests.corpus.verdicts import Verdict

SAMPLE_SIZE = 8


@click.command()
@click.option("--framework", type=click.Choice(list(PLAYERS)), multiple=True, help="Only this one.")
@click.option("--shape", help="Only this shape of exchanges, such as openai.chat.")
@click.option("--all", "is_all", is_flag=True, help=f"Every exchange, not {SAMPLE_SIZE} of each shape.")
@click.option("--failures", default=2, show_default=True, help="How many plays to show of a failing group.")
def main(framework: tuple[str, ...], shape: str | None, is_all: bool, failures: int) -> None:
    """Replay recorded exchanges through the frameworks, and tell which figures came out exact."""
    if (reason := reason_without_corpus()) is not None:
        raise click.ClickException(reason)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    with replaying() as replay:
        exchanges = replay.exchanges(shape)
        chosen = exchanges if is_all else sample(exchanges, SAMPLE_SIZE)
        for name in framework or PLAYERS:
            _print(name, *_replayed(replay, name, chosen), failures)


def _replayed(replay: Replay, framework: str, exchanges: list[Exchange]) -> tuple[list[Verdict], float]:
    try:
        player = replay.player(framework)
    except ImportError as error:
        raise click.ClickException(f"{framework} cannot be replayed: {error}") from error
    for reason in player.left_out:
        click.echo(f"left out: {reason}", err=True)
    started = time.monotonic()
    return replay.verdicts(replay.plays(player, exchanges)), time.monotonic() - started


def _print(framework: str, verdicts: list[Verdict], seconds: float, failures: int) -> None:
    console = Console(width=None if sys.stdout.isatty() else 200)
    table = Table("framework", "shape", "route", "stream", "judged", *COLUMNS, title=f"{framework}: exact/all")
    for row in exact_rows(verdicts):
        table.add_row(*row)
    console.print(table)
    for shape, route, stream, reason, times in not_played(verdicts):
        click.echo(f"not played: {times} x {shape} {route} {stream}: {reason}")
    for line in failure_lines(verdicts, failures):
        click.echo(line)
    click.echo(f"{len(verdicts)} plays in {seconds:.0f} s")


if __name__ == "__main__":
    main()
