"""What ``--help`` tells somebody who has never used the command."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from tests.cli.screens import shown, typed
from token_callbacks.cli import main


@pytest.mark.parametrize("name", sorted(main.commands))
def test_every_command_shows_how_it_is_used(name: str) -> None:
    """With examples that begin with its name."""
    told = CliRunner().invoke(main, [name, "--help"]).stdout

    assert f"token-callbacks {name}" in told.partition("Example")[2]


@pytest.mark.parametrize("columns", [60, 100, 160])
def test_the_list_of_commands_is_not_cut_off(columns: int) -> None:
    """Each command has a line that says all, in a terminal of any usual width."""
    sent, code = typed("--help", columns=columns)
    told = shown(sent, columns=columns)

    assert 0 == code
    assert told == shown(sent, columns=400)
    assert [] == [line for line in told if line.endswith("...") and not line.startswith("Usage:")]
