"""``token-callbacks recover``: the summaries of runs whose process died."""

from __future__ import annotations

import click


@click.command(short_help="Sum up runs whose process died.")
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

    try:
        with ReadingBar():
            done = recovered(folder, pricing=pricing())
    except OSError as error:
        raise click.ClickException(f"{folder} cannot be recovered: {error}") from error
    if done.is_busy:
        raise click.ClickException("another process is recovering this folder: try again when it is done")
    for summary in done.summaries:
        calls = summary.calls.llm + summary.calls.embedding
        click.echo(
            f"{summary.run_id}  {summary.outcome}  {calls} calls  {summary.total_llm_tokens} LLM tokens"
            f"  {summary.embedding_tokens} embedding tokens  {summary.name[:60]!r}"
        )
    click.echo(f"{len(done.summaries)} summaries written, {done.alive} runs go on")
    if done.unreadable_lines:
        click.echo(f"{done.unreadable_lines} lines could not be read", err=True)
