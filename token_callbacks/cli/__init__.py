"""The ``token-callbacks`` command: a file a subcommand, each of which imports what it needs when it runs."""

from __future__ import annotations

import click

from token_callbacks.cli.count import count
from token_callbacks.cli.recover import recover
from token_callbacks.cli.schema import schema


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="token-callbacks")
def main() -> None:
    """Read what LLM runs used, from the logs that token_callbacks writes."""


for command in (count, recover, schema):
    main.add_command(command)
