"""The ``token-callbacks`` command."""

from __future__ import annotations

import click

from token_callbacks.schemas import SHAPES, shipped


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="token-callbacks")
def main() -> None:
    """Read what LLM runs used, from the logs that token_callbacks writes."""


@main.command()
@click.argument("shape", type=click.Choice(sorted(SHAPES)))
def schema(shape: str) -> None:
    """Print a JSON Schema: of a line in calls-*.jsonl ("call"), or of a file in runs/ ("run").

    Example: token-callbacks schema run > run.schema.json
    """
    from rich.console import Console

    text = shipped(shape)
    console = Console()
    if console.is_terminal:
        console.print_json(text)
    else:
        click.echo(text, nl=False)
