"""The quickstart runs as the README says, and tells the truth when it does not add up."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

from loopback_server import CANNED, LoopbackServer, pieces_of

from .conftest import Loopback

SCRIPT = Path(__file__).parent.parent / "examples" / "quickstart.py"


FIGURES = ["embedding_tokens", "llm_prompt_tokens", "llm_completion_tokens"]


def _clean(**environment: str) -> dict[str, str]:
    """Give the environment of these tests without what it says of OpenAI."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")} | environment


def _run(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *options],
        check=False,
        capture_output=True,
        text=True,
        env=_clean(**environment),
    )


def _live(server: LoopbackServer, log_dir: Path) -> list[str]:
    return ["--live", "--api-base", server.base_url, "--model", "gpt-4.1-mini", "--log-dir", str(log_dir)]


def _summary(log_dir: Path) -> tuple[Path, dict[str, Any]]:
    [path] = (log_dir / "runs").glob("*.json")
    return path, json.loads(path.read_text())


def _tables(printed: str) -> list[tuple[str, int]]:
    """Read the rows of the printed tables."""
    return [(name, int(count.replace(",", ""))) for name, count in re.findall(r"(\w+_tokens)\W+([\d,]+)", printed)]


def test_the_figures_equal_the_servers_ledger(tmp_path: Path) -> None:
    """Its two tables, the run's and the ledger's, show what the JSON that it names has, and it ends with 0."""
    done = _run("--log-dir", str(tmp_path / "logs"))
    path, summary = _summary(tmp_path / "logs")
    rows = [(name, summary[name]) for name in FIGURES]
    requests = summary["calls"]["llm"] + summary["calls"]["embedding"]

    assert (0, "") == (done.returncode, done.stderr)
    assert FIGURES == list(summary)[:3]
    assert 0 < min(list(summary.values())[:4])
    assert rows + rows == _tables(done.stdout)
    assert f"The server's own ledger: {requests} requests" in done.stdout
    assert f"The whole story: {path}" in done.stdout


def test_live_counts_what_the_provider_gave_out(loopback: Loopback, tmp_path: Path) -> None:
    """With a key, the same script asks the provider and the model that it is told of, and its figures are theirs."""
    server = loopback()
    done = _run(*_live(server, tmp_path / "logs"), OPENAI_API_KEY="sk-live")
    path, summary = _summary(tmp_path / "logs")
    totals = server.ledger_totals()
    theirs = (totals.embedding_tokens, totals.prompt_tokens, totals.completion_tokens)

    assert (0, "") == (done.returncode, done.stderr)
    assert theirs == tuple(summary[name] for name in FIGURES)
    assert list(zip(FIGURES, theirs, strict=True)) == _tables(done.stdout)
    assert {"gpt-4.1-mini"} == {entry.model for entry in server.ledger if entry.endpoint == "chat"}
    assert f"The whole story: {path}" in done.stdout


def test_the_stream_is_printed_as_it_arrives(loopback: Loopback, tmp_path: Path) -> None:
    """While the server holds the rest of the first answer back, what it has sent of it stands in the terminal."""
    server = loopback()
    sent = "".join(pieces_of(CANNED)[:3])
    command = [sys.executable, SCRIPT, *_live(server, tmp_path / "logs")]
    with server.hold(after_chunks=4) as hold:  # the first one names the role only
        child = subprocess.Popen(command, stdout=subprocess.PIPE, env=_clean(OPENAI_API_KEY="sk-live"))
        assert hold.reached.wait(120)
        while_held = _read_until(child, sent)
    rest, _ = child.communicate(timeout=120)

    assert while_held.endswith(f"\n{sent}")
    assert rest.decode().startswith(CANNED.removeprefix(sent))
    assert 3 == (while_held + rest.decode()).count(CANNED)
    assert 0 == child.returncode


def _read_until(child: subprocess.Popen[bytes], end: str) -> str:
    """Read what a process prints till it ends so, or till nothing comes any more."""
    assert child.stdout is not None
    read = b""
    while not read.endswith(end.encode()) and select.select([child.stdout], [], [], 60)[0]:
        if not (piece := os.read(child.stdout.fileno(), 1)):
            break
        read += piece
    return read.decode()


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
