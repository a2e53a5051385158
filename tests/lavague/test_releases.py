"""The real agents of both generations, each in an environment of its own: in headless Chromium, and without it.

Environments are those of ``python -m tests.versions``, and kept. Needs uv, and for the browser Debian's ``chromium``
and ``chromium-driver``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loopback_server import LoopbackServer
from tests.versions import __main__ as versions

from .models import ANSWER, BilledTokens, script
from .program import CHROMEDRIVER, CHROMIUM

RELEASES = {row.requirement: row for row in versions.ROWS if row.package == "lavague-core"}
FUTILE_CLICKS = 2
BROWSER_SECONDS = 240

pytestmark = [
    pytest.mark.skipif(shutil.which("uv") is None, reason="needs uv, which makes the environments: pip install uv"),
    pytest.mark.skipif(find_spec("lavague") is not None, reason="runs beside the environments, not in one"),
]
needs_chromium = pytest.mark.skipif(
    not (Path(CHROMIUM).exists() and Path(CHROMEDRIVER).exists()),
    reason="needs a browser: apt-get install --no-install-recommends chromium chromium-driver",
)


class QuietSite(SimpleHTTPRequestHandler):
    """Serves the pages that the agent reads."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """Serve the site."""
    handler = partial(QuietSite, directory=str(Path(__file__).parent / "site"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module", params=RELEASES.values(), ids=RELEASES)
def release(request: pytest.FixtureRequest) -> versions.Row:
    """Give a release, installed."""
    versions.installed(request.param)
    return request.param


def _tokens(row: dict[str, Any]) -> int:
    """Add up what LaVague logged for a step."""
    names = ("total_step_tokens",) if "total_step_tokens" in row else ("total_llm_tokens", "embedding_tokens")
    return sum(row[name] for name in names)


def _environment(server: LoopbackServer, home: Path) -> dict[str, str]:
    """Keep LaVague, its driver and LiteLLM from going online, and their keys and addresses the server's."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": str(versions.ROOT),
        "LAVAGUE_TELEMETRY": "NONE",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "OPENAI_API_KEY": "sk-loopback",
        "OPENAI_API_BASE": server.base_url,
        "OPENAI_BASE_URL": server.base_url,
        "SE_AVOID_STATS": "true",
        "SE_OFFLINE": "true",
        "TIKTOKEN_CACHE_DIR": os.environ["TIKTOKEN_CACHE_DIR"],
    }


@needs_chromium
@pytest.mark.parametrize("built", ["first", "last"])
def test_the_real_agent_in_chromium_logs_what_the_server_billed(
    release: versions.Row, site: str, tmp_path: Path, built: str
) -> None:
    """Three steps, two clicks that fail first, images and embeddings; the counter made before or after the LLMs."""
    models = script(first_generation="0.2.23" in release.requirement, futile_clicks=FUTILE_CLICKS)
    asked = {"site": site, "counter": "ours", "built": built, "log_dir": str(tmp_path / "token_logs")}
    with LoopbackServer(tokens=BilledTokens(), replies=models) as server:
        done = subprocess.run(
            [release.folder / "bin" / "python", "-m", "tests.lavague.program", json.dumps(asked)],
            env=_environment(server, tmp_path),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=BROWSER_SECONDS,
            check=False,
        )
        truth, ledger = server.ledger_totals(), server.ledger
    assert 0 == done.returncode, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    [path] = (tmp_path / "token_logs" / "runs").glob("*.json")
    summary = json.loads(path.read_text(encoding="utf-8"))

    assert ANSWER == told["output"]
    assert {
        "embedding_tokens": truth.embedding_tokens,
        "llm_prompt_tokens": truth.prompt_tokens,
        "llm_completion_tokens": truth.completion_tokens,
        "total_llm_tokens": truth.prompt_tokens + truth.completion_tokens,
    } == dict(list(summary.items())[:4])
    assert truth.prompt_tokens + truth.completion_tokens + truth.embedding_tokens == sum(map(_tokens, told["rows"]))
    assert [_tokens(row) for row in told["rows"]] == [
        step["total_llm_tokens"] + step["embedding_tokens"] for step in summary["by_step"]
    ]
    assert {"world_model": 3, "action_engine": len(ledger) - 3} == {
        part["name"]: part["calls"] for part in summary["by_agent"]
    }
    assert {"reported": len(ledger)} == {
        source: share["calls"]
        for source, share in summary["provenance"].items()
        if source != "error_tokens" and share["calls"]
    }
    assert (FUTILE_CLICKS + 1, 0, "completed") == (_clicks(ledger), summary["internal_errors"], summary["outcome"])


def _clicks(ledger: list[Any]) -> int:
    """Count the largest group of requests that cost the same to ask: the tries to click."""
    prompts = [entry.prompt_tokens for entry in ledger if entry.endpoint == "chat"]
    return max(map(prompts.count, prompts))


def test_agents_without_a_browser_keep_every_promise(release: versions.Row) -> None:
    """Run tests/lavague/test_agents.py where LaVague is."""
    result = versions.tested(msgspec.structs.replace(release, suites=release.suites[:1]), release.requirement)

    assert () == result.failures
    assert 20 < result.passed
