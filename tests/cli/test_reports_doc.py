"""Every command in docs/reports.md does what it says, on a log that the package wrote."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.screens import ROOT, environment
from token_callbacks.reports.tables import LEFT_OUT_FIRST

PAGE = (ROOT / "docs" / "reports.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```console\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]
FAILING = {
    "token-callbacks report --since today --fail-over 5 --fail-over-tokens 2000000": 4,  # a call failed, unpriced
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_works(real_log: Path, tmp_path: Path, command: str) -> None:
    """As it is written there, in a shell, beside a ``token_logs``."""
    if "jq" in command and shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    (tmp_path / "token-callbacks").write_text(
        f"#!{sys.executable}\nfrom token_callbacks.cli import main\nmain(prog_name='token-callbacks')\n"
    )
    (tmp_path / "token-callbacks").chmod(0o700)
    shutil.copytree(real_log, tmp_path / "token_logs")
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        env=environment(PATH=path),
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )

    assert FAILING.get(command, 0) == done.returncode, done.stderr
    assert b"Traceback" not in done.stderr


def test_the_page_tells_the_order_in_which_columns_give_way() -> None:
    """Of the code."""
    assert ", ".join(LEFT_OUT_FIRST) in " ".join(PAGE.split())
