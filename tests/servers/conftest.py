"""Start the servers of the environments that are installed, each once, each with a tiny model made on the spot."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from token_callbacks import TokenCounter, servers
from token_callbacks.sinks.memory import MemorySink

from .recipes import ENVIRONMENTS_VARIABLE, GGUF, QUIET, TINY, python_of, tiny_gguf, tiny_model

START_SECONDS = 300.0
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this folder, and skip it unless it was asked for."""
    is_asked = bool(os.environ.get(ENVIRONMENTS_VARIABLE))
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.servers)
            if not is_asked:
                item.add_marker(pytest.mark.skip(reason="real servers are run by `python -m tests.servers`"))


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """A server that is up: its address, its model, and what LiteLLM is called with."""

    url: str
    model: str

    @property
    def options(self) -> dict[str, Any]:
        """Point LiteLLM's calls here."""
        return {"model": f"openai/{self.model}", "api_base": f"{self.url}/v1", "api_key": "sk-loopback"}


def _python(name: str) -> Path:
    python = python_of(name)
    if not python.exists():
        pytest.skip(f"{name} is not installed: python -m tests.servers {name}")
    return python


@contextmanager
def _serving(command: list[str], *, port: int, ready: str, folder: Path, **environment: str) -> Iterator[str]:
    url = f"http://127.0.0.1:{port}"
    log = folder / f"{port}.log"
    with log.open("w") as said:
        process = subprocess.Popen(
            command, env=os.environ | QUIET | environment, stdout=said, stderr=subprocess.STDOUT, cwd=folder
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _is_up(f"{url}{ready}"):
            assert process.poll() is None, log.read_text()[-4000:]
            assert time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(0.5)  # a process of others has no other way to say that it is up
        yield url
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_up(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code < 500
    except httpx.HTTPError:
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """Start a server with a command that gets its port; it stops with the session."""
    with ExitStack() as stack:

        def start(command: Callable[[int], list[str]], *, ready: str, **environment: str) -> str:
            port = _free_port()
            folder = tmp_path_factory.mktemp("server")
            return stack.enter_context(_serving(command(port), port=port, ready=ready, folder=folder, **environment))

        yield start


@pytest.fixture(scope="session")
def vllm(started: Callable[..., str]) -> Served:
    """Serve the tiny model with vLLM, on the CPU."""
    python = _python("vllm")
    model = tiny_model(python)

    def command(port: int) -> list[str]:
        where = ["--host", "127.0.0.1", "--port", str(port), "--model", str(model), "--served-model-name", TINY]
        how = ["--dtype", "float32", "--enforce-eager", "--max-model-len", "2048", "--enable-prompt-tokens-details"]
        return [str(python), "-m", "vllm.entrypoints.openai.api_server", *where, *how]

    return Served(url=started(command, ready="/health"), model=TINY)


@pytest.fixture(scope="session")
def transformers_serve(started: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Served:
    """Serve the tiny model with ``transformers serve``."""
    python = _python("transformers")
    model = tiny_model(python)
    program = str(python.with_name("transformers"))

    def command(port: int) -> list[str]:
        return [program, "serve", str(model), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]

    home = tmp_path_factory.mktemp("hf")
    (home / "hub").mkdir()
    return Served(url=started(command, ready="/health", HF_HOME=str(home)), model=str(model))


@pytest.fixture(scope="session")
def llama_cpp(started: Callable[..., str]) -> Served:
    """Serve the tiny GGUF with llama-cpp-python."""
    python = _python("llama-cpp")
    model = tiny_gguf(python)

    def command(port: int) -> list[str]:
        where = ["--host", "127.0.0.1", "--port", str(port), "--model", str(model), "--model_alias", GGUF]
        return [str(python), "-m", "llama_cpp.server", *where, "--n_ctx", "2048", "--chat_format", "chatml"]

    return Served(url=started(command, ready="/v1/models"), model=GGUF)


@pytest.fixture
def counter(memory: MemorySink) -> Iterator[TokenCounter]:
    """Give a counter that waits for what is counted, while servers keep the machine busy."""
    counter = TokenCounter(log_dir=None, sinks=[memory], drain_seconds=60)
    yield counter
    counter.close()


@pytest.fixture(autouse=True)
def _no_tokenizers() -> Iterator[None]:
    yield
    servers.forget()
