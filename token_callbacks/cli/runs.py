"""``token-callbacks runs``: the runs of a log, newest first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import click
import msgspec

from token_callbacks.cli.options import (
    EXIT_CODES,
    folders,
    paths_argument,
    span_of,
    span_options,
    tag_option,
    zone_option,
)
from token_callbacks.records import RunSummary

_USUAL_LIMIT = 30


@click.command(short_help="The runs, newest first.", epilog=EXIT_CODES)
@paths_argument
@span_options
@tag_option
@zone_option
@click.option("-n", "--limit", type=click.IntRange(min=1), help="How many at most.  [default: 30; all with --json]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: token-callbacks schema runs.")
def runs(
    *,
    paths: tuple[str, ...],
    since: str | None,
    until: str | None,
    tag: tuple[str, str | None] | None,
    zone: ZoneInfo,
    limit: int | None,
    as_json: bool,
) -> None:
    """List the runs in PATHS (token_logs), newest first, those that go on included.

    \b
    Examples:
      token-callbacks runs
      token-callbacks runs --since yesterday --tag team=search
      token-callbacks runs --json | jq '.runs[0].run_id'
    """  # noqa: D301 - click reads the backspace: it leaves the lines after it as they are
    from token_callbacks.reports.runs import begun_within, tagged
    from token_callbacks.reports.shapes import RunList

    found = tagged(begun_within(all_runs(paths), *span_of(since, until, zone)), tag)
    kept = found[: limit or (None if as_json else _USUAL_LIMIT)]
    if as_json:
        click.echo(msgspec.json.encode(RunList(runs=kept, left_out=len(found) - len(kept))))
        return
    _print_table(kept, zone)
    if len(found) > len(kept):
        click.echo(f"{len(found) - len(kept)} older ones are left out: --limit {len(found)} shows them", err=True)


def all_runs(paths: Sequence[str]) -> list[RunSummary]:
    """Read the runs of folders and files, newest first; says so and ends the command where there is nothing."""
    from token_callbacks.cli.pricing import pricing
    from token_callbacks.cli.terminal import ReadingBar
    from token_callbacks.recovery import unfinished
    from token_callbacks.reports.logs import load
    from token_callbacks.reports.runs import newest_first

    now = datetime.now(UTC)
    try:
        with ReadingBar():
            found = list(load(*paths).summaries())
            for folder in folders(paths):
                found += unfinished(folder, now=now, pricing=pricing())
    except OSError as error:
        raise click.ClickException(f"{', '.join(paths)} cannot be read: {error}") from error
    if not found:
        raise click.ClickException(
            f"there are no runs in {', '.join(paths)}. A TokenCounter() writes them there; token-callbacks recover sums"
            " up those of which only lines are left"
        )
    return newest_first(found)


def _print_table(kept: Sequence[RunSummary], zone: ZoneInfo) -> None:
    from token_callbacks.cli.terminal import console, signs, width_of
    from token_callbacks.reports.listing import fitted_runs, price_note

    screen = console()
    listed = fitted_runs(kept, zone=zone, width=width_of(screen), signs=signs())
    screen.print(listed.table)
    if listed.left_out:
        screen.print(f"no room for: {', '.join(listed.left_out)}", style="dim")
    if note := price_note(kept):
        screen.print(note, style="dim")
