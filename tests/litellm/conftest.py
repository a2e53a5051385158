"""What the LiteLLM suites share: LiteLLM's own lists as they were, and scripts that run in a process of their own."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import litellm
import msgspec
import pytest
from litellm.integrations.custom_logger import CustomLogger
from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER

from loopback_server import LoopbackServer
from token_callbacks import TokenCounter, uninstall

ROOT = Path(__file__).parents[2]

LISTS = (
    "callbacks",
    "input_callback",
    "success_callback",
    "failure_callback",
    "_async_success_callback",
    "_async_failure_callback",
)
"""Where LiteLLM 1.106.2 keeps its handlers."""

Script = Callable[..., "Log"]


class Log(msgspec.Struct, frozen=True):
    """What a counter left in its folder."""

    lines: list[dict[str, Any]]
    summaries: list[dict[str, Any]]


def read_log(log_dir: Path) -> Log:
    """Read a log folder, runs in the order they started."""
    return Log(
        lines=[json.loads(line) for file in log_dir.glob("calls-*.jsonl") for line in file.read_text().splitlines()],
        summaries=[json.loads(file.read_text()) for file in sorted(log_dir.glob("runs/*.json"))],
    )


class Heard(CustomLogger):
    """A user's own handler: notes which events it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.events: queue.SimpleQueue[str] = queue.SimpleQueue()

    def log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self.events.put("sync")

    async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self.events.put("async")

    def wait(self) -> str:
        """Wait for the next event."""
        return self.events.get(timeout=120)


@contextmanager
def registered(handler: CustomLogger) -> Iterator[None]:
    """Have LiteLLM tell a handler, which it copies from list to list, and leave its lists as they were."""
    lists = {name: list(getattr(litellm, name)) for name in LISTS}
    litellm.callbacks.append(handler)
    try:
        yield
    finally:
        for name, handlers in lists.items():
            getattr(litellm, name)[:] = handlers


@pytest.fixture
def clean_litellm() -> Iterator[None]:
    """Start with nothing in LiteLLM's lists and none of our hooks in, and leave it so."""
    _clear()
    yield
    _clear()


def _clear() -> None:
    # LiteLLM keeps async success events of a loop that has ended for the next one, and for whoever is registered then.
    asyncio.run(GLOBAL_LOGGING_WORKER.flush())
    uninstall()
    for name in LISTS:
        getattr(litellm, name).clear()
    litellm.cache = None


@pytest.fixture(scope="session")
def zygote() -> Iterator[subprocess.Popen[str]]:
    """Start the process that the scripts are forked from."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("zygote.py"))],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        yield process


@pytest.fixture
def script(tmp_path: Path, zygote: subprocess.Popen[str]) -> Script:
    """Run a script in a process of its own, in an empty folder, and read the log that it leaves there."""

    def run(text: str, server: LoopbackServer) -> Log:
        folder = _script_folder(tmp_path, text, server)
        assert zygote.stdin is not None
        assert zygote.stdout is not None
        print(folder, file=zygote.stdin, flush=True)
        assert "0" == zygote.stdout.readline().strip(), (folder / "stderr").read_text()
        return read_log(folder / "token_logs")

    return run


@pytest.fixture
def fresh_script(tmp_path: Path) -> Script:
    """Run a script as ``script`` does, in a process that has imported nothing before."""

    def run(text: str, server: LoopbackServer) -> Log:
        folder = _script_folder(tmp_path, text, server)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        ended = subprocess.run(
            [sys.executable, "script.py"],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert 0 == ended.returncode, ended.stderr
        return read_log(folder / "token_logs")

    return run


def _script_folder(tmp_path: Path, text: str, server: LoopbackServer) -> Path:
    folder = tmp_path / f"process-{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    (folder / "script.py").write_text(_PREAMBLE.format(base_url=server.base_url) + text)
    return folder


_PREAMBLE = """\
import asyncio

HERE = {{"api_base": "{base_url}", "api_key": "sk-loopback", "max_retries": 0}}
MESSAGES = [{{"role": "user", "content": "Name the opening hours of the library."}}]
CHAT = {{"model": "openai/gpt-4o-mini", "messages": MESSAGES, **HERE}}
VECTORS = {{"model": "openai/text-embedding-3-small", "input": ["the library"], **HERE}}
"""


@pytest.fixture
def new_counter(clean_litellm: None, tmp_path: Path) -> Iterator[Callable[..., TokenCounter]]:
    """Make counters, each with a log folder of its own, in a LiteLLM that nobody has touched."""
    made: list[TokenCounter] = []

    def make(**options: Any) -> TokenCounter:
        made.append(TokenCounter(**{"log_dir": tmp_path / f"log-{len(made)}", **options}))
        return made[-1]

    yield make
    for counter in made:
        counter.close()
