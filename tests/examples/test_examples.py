"""The examples run as processes and account for every token of the server that they ask."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from checking import end_with_verdict

EXAMPLES = Path(__file__).parents[2] / "examples"


def _run(script: str, *options: str, folder: Path) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "TOKEN_CALLBACKS_"))}
    done = subprocess.run(
        [sys.executable, EXAMPLES / script, *options],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        env=clean,
        timeout=300,
    )

    assert 0 == done.returncode, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("Equal: the run accounts for every token.")
    return done.stdout


def _summaries(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((folder / "token_logs" / "runs").glob("*.json"))]


def test_llama_index_agents(tmp_path: Path) -> None:
    """Each agent is told apart, and each step; an agent that hands over has the one turn in which it does."""
    said = _run("llama_index_agents.py", folder=tmp_path)

    [summary] = _summaries(tmp_path)
    assert [("clerk", 2), ("thinker", 2), ("porter", 1), ("librarian", 2)] == [
        (group["name"], group["calls"]) for group in summary["by_agent"]
    ]
    assert [("function agent", 2), ("ReAct agent", 2), ("workflow", 3)] == [
        (group["name"], group["calls"]) for group in summary["by_step"]
    ]
    assert all(name in said for name in ("librarian", "ReAct agent"))


def test_litellm_tool_loop(tmp_path: Path) -> None:
    """Each turn is a step of one call."""
    _run("litellm_tool_loop.py", folder=tmp_path)

    [summary] = _summaries(tmp_path)
    # LiteLLM tells of the end of a stream on a thread of its own: the next one's may come first.
    assert {"turn 1": 1, "turn 2": 1, "turn 3": 1} == {group["name"]: group["calls"] for group in summary["by_step"]}


def test_fastapi_stream(tmp_path: Path) -> None:
    """Each request is a run of one call; the one that was left is marked as a lower bound."""
    _run("fastapi_stream.py", folder=tmp_path)

    told = sorted(
        (summary["tags"]["path"], summary["calls"]["llm"], summary["calls"]["abandoned"], summary["lower_bound"])
        for summary in _summaries(tmp_path)
    )
    whole = [("/litellm", 1, 0, False)] * 5 + [("/llama-index", 1, 0, False)] * 5
    assert sorted([*whole, ("/litellm", 1, 1, True)]) == told


@pytest.mark.skipif(find_spec("litellm_proxy_extras") is None, reason="the proxy needs litellm[proxy]")
def test_litellm_proxy(tmp_path: Path) -> None:
    """The proxy's log has the plain and the streamed request, as reported, and its one summary their sum."""
    said = _run("litellm_proxy.py", folder=tmp_path)

    [summary] = _summaries(tmp_path)
    assert (2, 2) == (summary["calls"]["llm"], summary["provenance"]["reported"]["calls"])
    assert ["streamed False", "streamed True"] == [line.partition(":")[0] for line in said.splitlines()[:2]]


def test_a_difference_ends_an_example_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    """What differs is named."""
    with pytest.raises(SystemExit) as ended:
        end_with_verdict({"turn 1": (3, 4), "total": (3, 4)}, {"turn 1": (3, 4), "total": (3, 5)})

    assert 1 == ended.value.code
    assert "NOT EQUAL: total is (3, 4) in the run, (3, 5) in the ledger" in capsys.readouterr().out
