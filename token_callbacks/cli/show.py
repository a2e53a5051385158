"""``token-callbacks show``: one run as a tree."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from zoneinfo import ZoneInfo

import click
import msgspec

from token_callbacks.cli.options import DEFAULT_FOLDER, EXIT_CODES, paths_argument, zone_option
from token_callbacks.cli.runs import all_runs
from token_callbacks.reports.shapes import RunTree, ShownRun

_USUAL_CALLS = 20


def _run_ids(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    del parameter  # click's signature
    paths: Sequence[str] = context.params.get("paths") or (DEFAULT_FOLDER,)
    names: list[str] = ["last"]
    for path in paths:
        folder = Path(path) / "runs"
        names += [name.removesuffix(".json") for name in os.listdir(folder)] if folder.is_dir() else []  # noqa: PTH208
    return sorted((name for name in names if name.startswith(incomplete)), reverse=True)


def _no_path(context: click.Context, parameter: click.Parameter, text: str) -> str:
    del context, parameter  # click's signature
    if (Path(text) / "runs").is_dir():
        raise click.UsageError(
            f"{text!r} is a folder of logs and no run; for its newest: token-callbacks show last {text}"
        )
    return text


@click.command(short_help="One run as a tree, call by call.", epilog=EXIT_CODES)
@click.argument("run", default="last", callback=_no_path, shell_complete=_run_ids)
@paths_argument
@zone_option
@click.option("--calls", type=click.IntRange(min=0), default=_USUAL_CALLS, show_default=True,
              help="How many calls of each step and agent to show; the first ones.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: token-callbacks schema show.")
def show(*, run: str, paths: tuple[str, ...], zone: ZoneInfo, calls: int, as_json: bool) -> None:
    """Show one RUN from PATHS (token_logs) as a tree: steps, agents, calls, and the runs opened in it.

    RUN is an id, the beginning of one, a name (the newest run of that name is meant), or "last", as where none is told.

    \b
    Examples:
      token-callbacks show
      token-callbacks show nightly-digest --calls 5
      token-callbacks show 20261121T0500 /var/log/tokens --json
    """  # noqa: D301 - click reads the backspace: it leaves the lines after it as they are
    tree = _tree(run, paths, most_calls=calls)
    if as_json:
        click.echo(msgspec.json.encode(ShownRun(tree=tree)))
        return
    from token_callbacks.cli.terminal import console, signs, width_of
    from token_callbacks.reports.branches import TreePrinter
    from token_callbacks.reports.listing import price_note
    from token_callbacks.reports.trees import runs_in

    screen = console()
    screen.print(TreePrinter(zone=zone, signs=signs(), width=width_of(screen)).drawn(tree))
    if note := price_note(runs_in(tree)):
        screen.print(note, style="dim")


def _tree(wanted: str, paths: Sequence[str], *, most_calls: int) -> RunTree:
    from token_callbacks.cli.terminal import ReadingBar
    from token_callbacks.reports.logs import load
    from token_callbacks.reports.runs import NoSuchRun, named_run
    from token_callbacks.reports.trees import tree

    runs = all_runs(paths)
    try:
        run = named_run(wanted, runs)
    except NoSuchRun as error:
        raise click.UsageError(str(error)) from error
    with ReadingBar():
        return tree(run, runs=runs, records=load(*paths).records(), most_calls=most_calls)
