"""The quickstart runs as the README says, and tells the truth when it does not add up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent.parent / "examples" / "quickstart.py"


def _run(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    return subprocess.run(
        [sys.executable, SCRIPT, *options],
        check=False,
        capture_output=True,
        text=True,
        env=clean | environment,
    )


def test_the_figures_equal_the_servers_ledger(tmp_path: Path) -> None:
    """The whole script ends with 0, and the JSON it names holds what the server really gave out."""
    done = _run("--log-dir", str(tmp_path / "logs"))

    assert (0, "") == (done.returncode, done.stderr)
    [path] = (tmp_path / "logs" / "runs").glob("*.json")
    summary = json.loads(path.read_text())
    assert ["embedding_tokens", "llm_prompt_tokens", "llm_completion_tokens"] == list(summary)[:3]
    assert 0 < min(list(summary.values())[:4])
    assert path.name in done.stdout.replace("\n", "")


def test_unequal_figures_end_with_1(tmp_path: Path) -> None:
    """Where the server gave out one token more than the run counted, the script names the figure and fails."""
    program = (
        "import sys, msgspec, quickstart\n"
        "true_totals = quickstart.LoopbackServer.ledger_totals\n"
        "def one_more(server):\n"
        "    totals = true_totals(server)\n"
        "    return msgspec.structs.replace(totals, completion_tokens=totals.completion_tokens + 1)\n"
        "quickstart.LoopbackServer.ledger_totals = one_more\n"
        "quickstart.main(sys.argv[1:])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "--log-dir", str(tmp_path / "logs")],
        check=False,
        capture_output=True,
        text=True,
        cwd=SCRIPT.parent,
    )

    assert 1 == done.returncode
    assert "NOT EQUAL: llm_completion_tokens" in done.stdout


def test_live_without_a_key_says_what_is_missing() -> None:
    """The real thing needs a key; the message says so and nothing is tried."""
    done = _run("--live")

    assert 2 == done.returncode
    assert "OPENAI_API_KEY" in done.stderr
