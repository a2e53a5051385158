"""``token-callbacks completion``: what a shell needs to complete the command."""

from __future__ import annotations

import os
from pathlib import PurePath

import click
from click.shell_completion import ShellComplete, get_completion_class

_SHELLS = ("bash", "zsh", "fish")
_VARIABLE = "_TOKEN_CALLBACKS_COMPLETE"


@click.command(short_help="Complete commands in bash, zsh or fish.")
@click.argument("shell", type=click.Choice(_SHELLS), required=False)
@click.pass_context
def completion(context: click.Context, shell: str | None) -> None:
    """Print the script that completes commands, options and runs in SHELL (the one you use).

    \b
    Examples:
      eval "$(token-callbacks completion bash)"          # in ~/.bashrc
      eval "$(token-callbacks completion zsh)"           # in ~/.zshrc
      token-callbacks completion fish > ~/.config/fish/completions/token-callbacks.fish
    """  # noqa: D301 - click reads the backspace: it leaves the lines after it as they are
    name = shell or PurePath(os.environ.get("SHELL", "")).name
    kind = get_completion_class(name) if name in _SHELLS else None
    if kind is None:
        raise click.UsageError(f"say which shell it is for: token-callbacks completion {'|'.join(_SHELLS)}")
    # Not the shell's own source(): that of bash starts a bash to ask for its version.
    click.echo(ShellComplete.source(kind(context.find_root().command, {}, "token-callbacks", _VARIABLE)))
