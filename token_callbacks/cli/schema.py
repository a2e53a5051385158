"""``token-callbacks schema``: the JSON Schemas of what is written and printed."""

from __future__ import annotations

import click

from token_callbacks.schemas import SHAPES, shipped


@click.command(short_help="The JSON Schemas of files and JSON output.")
@click.argument("shape", type=click.Choice(sorted(SHAPES)))
def schema(shape: str) -> None:
    """Print a JSON Schema: of a line in calls-*.jsonl ("call"), of a file in runs/ ("run"), or of a command's JSON.

    \b
    Examples:
      token-callbacks schema run > run.schema.json
      token-callbacks schema report
    """  # noqa: D301 - click reads the backspace: it leaves the lines after it as they are
    from rich.console import Console

    text = shipped(shape)
    console = Console()
    if console.is_terminal:
        console.print_json(text)
    else:
        click.echo(text, nl=False)
