"""Arguments and options that more than one subcommand has, and what can be asked of a folder before it is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import click

from token_callbacks.cli.moments import since_of, until_of, zone_of

if TYPE_CHECKING:
    from token_callbacks.reports.skipped import Skipped

DEFAULT_FOLDER = "token_logs"

EXIT_CODES = """\b
Exit codes:
  0  done
  1  could not be done, or nothing is logged
  2  wrong use, such as a folder that is not there"""

Command = TypeVar("Command", bound=Callable[..., Any])


class Span(NamedTuple):
    """From when, and to when (no more in it); ``None`` is no bound."""

    since: datetime | None
    until: datetime | None


class LogPath(click.Path):
    """A folder or file that exists, or an address such as ``s3://bucket/logs``."""

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        """Take what is there, and say of what is not what to do."""
        path = os.fspath(value)
        if not is_address(path) and not Path(path).exists():
            self.fail(missing(path), param, ctx)
        return path


def is_address(path: str) -> bool:
    """Tell an address, which fsspec reads, from a path."""
    return "://" in path


def missing(path: str) -> str:
    """Say what to do about a folder that is not there."""
    if path == DEFAULT_FOLDER:
        return (
            f"there is no folder {DEFAULT_FOLDER} here. Programs with a TokenCounter() write it where they are started:"
            " name it (token-callbacks report PATH), or run one first"
        )
    return f"{path!r} does not exist: name a folder that a TokenCounter() writes to, or its calls-*.jsonl files"


def paths_argument(command: Command) -> Command:
    """Take folders and files to read; token_logs where none is named."""
    return click.argument("paths", nargs=-1, type=LogPath(), callback=_or_default)(command)


def zone_option(command: Command) -> Command:
    """Take a time zone."""
    help_text = "Whose days and times, such as Europe/Berlin.  [default: this machine's]"
    return click.option("--tz", "zone", callback=zone_of, metavar="ZONE", help=help_text)(command)


def span_options(command: Command) -> Command:
    """Take a span of time; ``span_of`` reads it."""
    until = click.option("--until", metavar="WHEN", help="Up to then; a day is meant as a whole.")
    since = click.option("--since", metavar="WHEN", help="From then on: 2026-11-01, 2026-11-01T09:30, 7d, 24h, today.")
    return since(until(command))


def span_of(since: str | None, until: str | None, zone: ZoneInfo) -> Span:
    """Read a span of time; a wrong one is a usage error."""
    now = datetime.now(UTC)
    begins = _read(since_of, since, zone, now, option="--since")
    ends = _read(until_of, until, zone, now, option="--until")
    if begins is not None and ends is not None and begins >= ends:
        raise click.UsageError(f"--since {since} is not before --until {until}: nothing can lie between them")
    return Span(begins, ends)


def tag_of(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[str, str | None] | None:
    """Read KEY or KEY=VALUE."""
    if text is None:
        return None
    key, sign, value = text.partition("=")
    if not key:
        raise click.BadParameter(f"{text!r} has no key: write KEY or KEY=VALUE", context, parameter)
    return key, value if sign else None


def tag_option(command: Command) -> Command:
    """Take a tag of runs."""
    help_text = "Only runs that have this tag, or this value of it."
    return click.option("--tag", callback=tag_of, metavar="KEY[=VALUE]", help=help_text)(command)


def folders(paths: Sequence[str]) -> list[str]:
    """Keep the folders of this machine: only there can somebody be seen to live."""
    return [path for path in paths if not is_address(path) and Path(path).is_dir()]


def no_calls(paths: Sequence[str], skipped: Skipped) -> click.ClickException:
    """Say that nothing is logged there, what lies there instead, and what would log something."""
    told = "; ".join(skipped.told())
    found = f" It holds: {told}." if told else ""
    return click.ClickException(
        f"there are no calls in {', '.join(paths)}.{found} A TokenCounter() writes them, to token_logs where the"
        " program runs"
    )


def _or_default(context: click.Context, parameter: click.Parameter, paths: tuple[str, ...]) -> tuple[str, ...]:
    return paths or (str(LogPath().convert(DEFAULT_FOLDER, parameter, context)),)


def _read(
    reading: Callable[[str, ZoneInfo, datetime], datetime],
    text: str | None,
    zone: ZoneInfo,
    now: datetime,
    *,
    option: str,
) -> datetime | None:
    if text is None:
        return None
    try:
        return reading(text, zone, now)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(str(error), param_hint=option) from error
