"""The ``token-callbacks`` command: a file a subcommand, each of which imports what it needs when it runs."""

from __future__ import annotations

import errno
import io
import sys
from typing import Any

import click

from token_callbacks.cli.completion import completion
from token_callbacks.cli.count import count
from token_callbacks.cli.recover import recover
from token_callbacks.cli.schema import schema
from token_callbacks.cli.watch import watch
from token_callbacks.errors import TokenCallbacksError

_EXIT_CODES = "Exit codes: 0 done, 1 could not be done, 2 wrong use."


class _Commands(click.Group):
    """Subcommands whose errors are told, not traced: wrong use ends with 2, what cannot be read with 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand."""
        try:
            return super().invoke(ctx)
        except TokenCallbacksError as error:
            raise click.UsageError(str(error)) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # click ends it without a word
                raise
            raise click.ClickException(str(error)) from error


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_EXIT_CODES,
    invoke_without_command=True,
)
@click.version_option(package_name="token-callbacks")
@click.pass_context
def main(context: click.Context) -> None:
    """Read what LLM runs used, from the logs that token_callbacks writes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name in the log may be what the terminal cannot say
            stream.reconfigure(errors="backslashreplace")
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for command in (completion, count, recover, schema, watch):
    main.add_command(command)
