"""The ``token-callbacks`` command: a file a subcommand, each of which imports what it needs when it runs."""

from __future__ import annotations

import errno
import io
import sys
from pathlib import Path
from typing import Any

import click

from token_callbacks.cli.completion import completion
from token_callbacks.cli.count import count
from token_callbacks.cli.export import export
from token_callbacks.cli.recover import recover
from token_callbacks.cli.report import report
from token_callbacks.cli.runs import runs
from token_callbacks.cli.schema import schema
from token_callbacks.cli.show import show
from token_callbacks.cli.watch import watch
from token_callbacks.errors import TokenCallbacksError

_EXIT_CODES = """Exit codes: 0 done, 1 could not be done, 2 wrong use; report has more.

\b
Where to begin:
  token-callbacks report            what was used, by day
  token-callbacks report --by model
  token-callbacks show              the newest run"""


class _Commands(click.Group):
    """Subcommands whose errors are told, not traced: wrong use ends with 2, what cannot be read with 1."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Take a path in the place of a subcommand for what it is."""
        if args and self.get_command(ctx, args[0]) is None and Path(args[0]).exists():
            ctx.fail(f"{args[0]!r} is a path and no command; to read it: token-callbacks report {args[0]}")
        return super().resolve_command(ctx, args)

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


for command in (completion, count, export, recover, report, runs, schema, show, watch):
    main.add_command(command)
