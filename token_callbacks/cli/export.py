"""``token-callbacks export``: the lines as Parquet."""

from __future__ import annotations

import click

from token_callbacks.cli.options import EXIT_CODES, no_calls, paths_argument


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
    from token_callbacks.reports.texts import numbered

    logs = load(*paths)
    with ReadingBar() as bar:
        done = exported(logs, target, progress=bar)
    if done.calls == 0:
        raise no_calls(paths, done.skipped)
    calls, files = numbered(done.calls, "call", "calls"), numbered(done.files, "file", "files")
    click.echo(f"{calls} in {files}")
    for note in done.skipped.told():
        click.echo(f"not in it: {note}", err=True)
