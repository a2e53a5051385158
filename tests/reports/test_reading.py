"""docs/reading.md: every command and program on the page runs on logs that the package wrote."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from token_callbacks import TokenCounter
from token_callbacks.records import Outcome

from ..calls import make_call

PAGE = (Path(__file__).parents[2] / "docs" / "reading.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^jq .*$", PAGE, flags=re.MULTILINE)

pytestmark = pytest.mark.usefixtures("logs")


@pytest.fixture
def log_dir(tmp_path: Path) -> Path:
    """Give the folder that the page reads."""
    return tmp_path / "token_logs"


@pytest.fixture
def logs(counter: TokenCounter) -> None:
    """Write some calls of a run."""
    with counter.run("nightly", tags={"team": "search"}):
        make_call(prompt=3, completion=4)
        make_call(prompt=5, completion=6)
        make_call(embedding=7)
        make_call(outcome=Outcome.FAILED)
    counter.close()


def _shown(program: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=folder)
    return done.stdout


def test_the_page_has_what_is_run_here() -> None:
    """A page whose examples are not found would pass every test below."""
    assert (7, 3) == (len(PROGRAMS), len(COMMANDS))


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (0, "nightly 18"),
        (1, "nightly  gpt-4o              8"),
        (2, "gpt-4o    8"),
        (3, "gpt-4o"),
        (4, "8"),
        (5, "4 calls in 1 files"),
        (6, "8"),
    ],
)
def test_the_programs_print_the_figures(tmp_path: Path, number: int, told: str) -> None:
    """Each program runs as it stands and prints what the calls used."""
    if number == len(PROGRAMS) - 1:
        _shown(PROGRAMS[5], tmp_path)

    assert told in _shown(PROGRAMS[number], tmp_path)


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
@pytest.mark.parametrize(("number", "told"), [(0, "gpt-4o\t5\t6"), (1, '"tokens": 8'), (2, '"total_llm_tokens": 18')])
def test_the_commands_print_the_figures(tmp_path: Path, number: int, told: str) -> None:
    """Each jq command runs as it stands."""
    done = subprocess.run(COMMANDS[number], shell=True, check=True, capture_output=True, text=True, cwd=tmp_path)

    assert told in done.stdout
