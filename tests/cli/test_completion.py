"""Shell completion, as the shells themselves ask for it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cli.screens import COMMAND, environment, piped


def _completed(words: str, index: int, folder: Path) -> list[str]:
    asked = environment(_TOKEN_CALLBACKS_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(index))
    done = subprocess.run(COMMAND, env=asked, cwd=folder, capture_output=True, text=True, check=False)
    assert "" == done.stderr
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_commands_are_completed(tmp_path: Path) -> None:
    """By how they begin."""
    assert ["watch"] == _completed("token-callbacks wa", 1, tmp_path)


@pytest.mark.parametrize(("begun", "whole"), [("mo", ["month", "model"]), ("tag", ["tag:"])])
def test_groupings_are_completed(tmp_path: Path, begun: str, whole: list[str]) -> None:
    """What ``--by`` takes."""
    assert whole == _completed(f"token-callbacks report --by {begun}", 3, tmp_path)


def test_the_ids_of_runs_are_completed(real_log: Path) -> None:
    """Newest first, of the folder that is named or of the usual one."""
    ids = sorted((path.stem for path in (real_log / "runs").glob("*.json")), reverse=True)

    assert 3 <= len(ids)
    assert ids[:1] == _completed(f"token-callbacks show {ids[0][:-2]}", 2, real_log.parent)
    assert [run for run in ids if run.startswith("20")] == _completed("token-callbacks show 20", 2, real_log.parent)
    assert ["last"] == _completed("token-callbacks show la", 2, real_log.parent)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_is_printed(shell: str) -> None:
    """It asks the command itself for what there is."""
    done = piped("completion", shell)

    assert (0, b"") == (done.returncode, done.stderr)
    assert f"_TOKEN_CALLBACKS_COMPLETE={shell}_complete".encode() in done.stdout


def test_the_shell_in_use_is_the_one_meant() -> None:
    """``SHELL`` says which."""
    assert piped("completion", "zsh").stdout == piped("completion", SHELL="/usr/bin/zsh").stdout


def test_an_unknown_shell_is_wrong_use() -> None:
    """With those that are known."""
    done = piped("completion", SHELL="/bin/tcsh")

    assert 2 == done.returncode
    assert b"token-callbacks completion bash|zsh|fish" in done.stderr


def test_bash_completes_with_the_script(tmp_path: Path) -> None:
    """The real shell, with the real script."""
    done = subprocess.run(
        ["bash", "-c", 'source <(cat) && complete -p token-callbacks'],
        input=piped("completion", "bash").stdout, capture_output=True, check=False, cwd=tmp_path,
    )  # fmt: skip

    assert b"_token_callbacks_completion" in done.stdout
