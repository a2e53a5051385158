"""``token-callbacks watch``: the runs that go on, live."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn
from zoneinfo import ZoneInfo

import click

from token_callbacks.cli.options import DEFAULT_FOLDER, zone_option
from token_callbacks.records import RunSummary

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from token_callbacks.reports.following import Following

_MOST_ENDED = 10
_TERMINATED = 143


@click.command(
    short_help="The runs that go on, live.",
    epilog="\b\nExit codes:\n  0  ended by Ctrl-C, or by --once\n  1  the folder cannot be read\n  2  wrong use",
)
@click.argument("folder", type=click.Path(file_okay=False), default=DEFAULT_FOLDER)
@zone_option
@click.option("--interval", type=click.FloatRange(min=0.05), default=1.0, show_default=True,
              help="Seconds from one look to the next.")  # fmt: skip
@click.option("--once", is_flag=True, help="Look once and end.")
def watch(*, folder: str, zone: ZoneInfo, interval: float, once: bool) -> None:
    """Watch the runs in FOLDER (token_logs) while they go on, until Ctrl-C.

    Shows the runs that are open and what they used by now, and those that ended since it began. What is no terminal
    gets a line whenever a run changed. A folder that is not there yet is waited for.

    \b
    Examples:
      token-callbacks watch
      token-callbacks watch /var/log/tokens --interval 5
      token-callbacks watch --once
    """  # noqa: D301 - click reads the backspace: it leaves the lines after it as they are
    from token_callbacks.cli.terminal import console
    from token_callbacks.reports.following import Following

    signal.signal(signal.SIGTERM, _terminated)  # a terminal is left as it was then as well
    following, screen = Following(folder), console()
    try:
        if once or not screen.is_terminal or screen.is_dumb_terminal:
            _print_lines(following, screen, zone, None if once else interval)
        else:
            _refresh(following, screen, zone, interval, folder)
    except KeyboardInterrupt:
        return
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise click.ClickException(f"{folder} cannot be read: {error}") from error


def _refresh(following: Following, screen: Console, zone: ZoneInfo, interval: float, folder: str) -> None:
    from rich.live import Live

    with Live(console=screen, auto_refresh=False, transient=False) as live:
        while True:
            running = following.look(datetime.now(UTC))
            live.update(_picture(running, following, screen, zone, folder), refresh=True)
            time.sleep(interval)


def _picture(
    running: Sequence[RunSummary], following: Following, screen: Console, zone: ZoneInfo, folder: str
) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from token_callbacks.cli.terminal import signs, width_of
    from token_callbacks.reports.listing import fitted_runs, price_note
    from token_callbacks.reports.texts import readable

    ended = list(following.ended.values())
    room = max(1, screen.height - 7)
    kept = [*running[-room:], *reversed(ended[-min(_MOST_ENDED, max(0, room - len(running))) :])][:room]
    told = f"{len(running)} running, {len(ended)} ended since the start; Ctrl-C ends watching"
    notes = [note for note in (price_note(kept), told) if note is not None]
    hint = Text("\n".join(notes), style="dim")
    if not kept:
        where = "is not there yet" if not Path(folder).exists() else "has no open run"
        return Group(Text(f"{readable(folder, 60)} {where}: waiting"), hint)
    return Group(fitted_runs(kept, zone=zone, width=width_of(screen), signs=signs(), with_total=True).table, hint)


def _print_lines(following: Following, screen: Console, zone: ZoneInfo, interval: float | None) -> None:
    """Print a line for each run that changed; ``None``: once."""
    said: dict[str, str] = {}
    line_of = _line_in(zone)
    while True:
        for run in [*following.look(datetime.now(UTC)), *following.ended.values()]:
            line = line_of(run)
            if said.get(run.run_id) != line:
                said[run.run_id] = line
                screen.print(line, soft_wrap=True)
        sys.stdout.flush()
        if interval is None:
            if not said:
                click.echo("no run is open", err=True)
            return
        time.sleep(interval)


def _line_in(zone: ZoneInfo) -> Callable[[RunSummary], str]:
    from token_callbacks.cli.terminal import signs
    from token_callbacks.reports.listing import run_cells
    from token_callbacks.reports.texts import readable

    told = signs()

    def line(run: RunSummary) -> str:
        shown = run_cells(run, zone, told)
        figures = "  ".join(f"{name} {shown[name]}" for name in ("embedding", "prompt", "completion", "total"))
        return (
            f"{shown['run']}  {readable(run.name, 60, told.cut)}  {shown['outcome']}  calls {shown['calls']}  {figures}"
        )

    return line


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    del number, frame  # Python's signature
    sys.exit(_TERMINATED)
