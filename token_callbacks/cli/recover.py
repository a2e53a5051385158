"""``token-callbacks recover``: the summaries of runs whose process died."""

from __future__ import annotations

import click

from token_callbacks.cli.options import EXIT_CODES, no_calls


@click.command(short_help="Sum up runs whose process died.", epilog=EXIT_CODES)
@click.argument("folder", type=click.Path(exists=True, file_okay=False), default="token_logs")
def recover(folder: str) -> None:
    """Write the summaries of runs whose process died, from the lines in FOLDER (token_logs).

    Runs of processes that live are left alone, and doing it twice changes nothing.

    \b
    Examples:
      token-callbacks recover
      token-callbacks recover /var/log/tokens
    """  # noqa: D301 - click reads the backspace: it leaves the lines after it as they are
    from token_callbacks.cli.pricing import pricing
    from token_callbacks.cli.terminal import ReadingBar
    from token_callbacks.recovery import recover as recovered
    from token_callbacks.reports.texts import numbered

    try:
        with ReadingBar():
            done = recovered(folder, pricing=pricing())
    except OSError as error:
        raise click.ClickException(f"{folder} cannot be recovered: {error}") from error
    if done.is_busy:
        raise click.ClickException("another process is recovering this folder: try again when it is done")
    if not done.summaries and not done.alive:
        _require_logs(folder)
    for summary in done.summaries:
        calls = numbered(summary.calls.llm + summary.calls.embedding, "call", "calls")
        click.echo(
            f"{summary.run_id}  {summary.outcome}  {calls}  {summary.total_llm_tokens} LLM tokens"
            f"  {summary.embedding_tokens} embedding tokens  {summary.name[:60]!r}"
        )
    written = numbered(len(done.summaries), "summary", "summaries")
    click.echo(f"{written} written, {numbered(done.alive, 'run goes', 'runs go')} on")
    if done.unreadable_lines:
        click.echo(f"{numbered(done.unreadable_lines, 'line', 'lines')} could not be read", err=True)
    if done.in_the_way:
        names = ", ".join(f"runs/{run_id}.json" for run_id in done.in_the_way)
        raise click.ClickException(f"these are folders where a summary belongs; move them, and try again: {names}")


def _require_logs(folder: str) -> None:
    """End the command where the folder holds neither a call nor a run."""
    from token_callbacks.reports.logs import load

    logs = load(folder)
    if next(logs.records(), None) is None and next(logs.summaries(), None) is None:
        raise no_calls([folder], logs.skipped)
