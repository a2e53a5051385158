"""What every suite shares: loopback servers, one a mode, and a counter that writes to a folder of the test's own."""

from __future__ import annotations

import contextvars
import logging
import os
import signal
import sys

# A shell that starts the tests in the background has them ignore Ctrl-C, and what they start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # before anything imports litellm: it would go online
os.environ.pop("COLUMNS", None)  # as wide as pytest-xdist says its workers' terminals are, which nobody looks at
os.environ.setdefault("OPENAI_API_KEY", "sk-loopback")
os.environ.setdefault("ANTHROPIC_API_KEY", "sk-loopback")

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import wrapt
from hypothesis import HealthCheck, settings

from loopback_server import LoopbackServer
from token_callbacks import TokenCounter
from token_callbacks.sinks.memory import MemorySink

# LlamaIndex's OpenAI class counts instruct prompts with tiktoken, which goes online unless it is told where to look.
if (_litellm := find_spec("litellm")) is not None and _litellm.origin is not None:
    os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(Path(_litellm.origin).parent / "litellm_core_utils" / "tokenizers"))

Loopback = Callable[..., LoopbackServer]

# How fast examples are made and tried says how busy the machine is.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


def _spare_contexts(streaming: Any) -> None:
    """Have LiteLLM's streams be finalized in a context of their own.

    LiteLLM 1.106.2 sets context variables in ``CustomStreamWrapper.__del__``. Before Python 3.12 the garbage collector
    may call that in the middle of any ``ContextVar.set``, which then goes on with freed memory
    (https://github.com/python/cpython/issues/148891): two of some 75 runs of the loaded suite ended in a crash.
    """
    finalize = getattr(streaming.CustomStreamWrapper, "__del__", None)
    if finalize is not None:
        streaming.CustomStreamWrapper.__del__ = lambda stream: contextvars.copy_context().run(finalize, stream)


if sys.version_info < (3, 12):
    wrapt.register_post_import_hook(_spare_contexts, "litellm.litellm_core_utils.streaming_handler")


def pytest_unconfigure() -> None:
    """Let pytest's verdict be the last that is read: the clients that frameworks leave open tell of it at the exit."""
    logging.getLogger("asyncio").disabled = True


@pytest.fixture(scope="session")
def servers() -> Iterator[Loopback]:
    """Start a server for each combination of options once a session."""
    started: dict[str, LoopbackServer] = {}
    with ExitStack() as stack:

        def server(**options: Any) -> LoopbackServer:
            key = repr(sorted(options.items()))
            if key not in started:
                started[key] = stack.enter_context(LoopbackServer(**options))
            return started[key]

        yield server


@pytest.fixture
def loopback(servers: Loopback) -> Loopback:
    """Give a server with these options and an empty ledger."""

    def server(**options: Any) -> LoopbackServer:
        found = servers(**options)
        found.clear()
        return found

    return server


@pytest.fixture
def memory() -> MemorySink:
    """Give the sink that keeps what ``counter`` made."""
    return MemorySink()


@pytest.fixture
def log_dir(tmp_path: Path) -> Path:
    """Give the folder that ``counter`` writes to."""
    return tmp_path / "token_logs"


@pytest.fixture
def counter(log_dir: Path, memory: MemorySink) -> Iterator[TokenCounter]:
    """Give an open counter."""
    counter = TokenCounter(log_dir=log_dir, sinks=[memory])
    yield counter
    counter.close()
