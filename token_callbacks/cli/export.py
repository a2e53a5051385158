"""``token-callbacks export``: the lines as Parquet."""

from __future__ import annotations

import click

from token_callbacks.cli.options import EXIT_CODES, paths_argument


@click.command(short_help="The calls as Parquet.", epilog=EXIT_CODES)
@paths_argument
@click.option("--parquet", "target", metavar="DIR", required=True, help="Where to: a folder, or an address.")
def export(*, paths: tuple[str, ...], target: str) -> None:
    """Write the calls in PATHS (token_logs) as Parquet, a folder a day; again, and nothing is doubled.

    \b
    Examples:
      token-callbacks export --parquet calls_parquet
      token-callbacks export /var/log/tokens --parquet s3://bucket/calls
    """  # noqa: D301 - click reads the backspace: it leaves the lines after it as they are
    from token_callbacks.cli.terminal import ReadingBar
    from token_callbacks.reports.export import exported
    from token_callbacks.reports.logs import load

    logs = load(*paths)
    with ReadingBar() as bar:
        done = exported(logs, target, progress=bar)
    click.echo(f"{done.calls:,} calls in {done.files:,} files")
    for note in done.skipped.told():
        click.echo(f"not in it: {note}", err=True)
