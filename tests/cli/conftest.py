"""Logs to read: one that the package really wrote, and one that was generated."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from loopback_server import InventedTokens, LoopbackServer
from tests.cli.rows import NOON, record
from token_callbacks import TokenCounter
from token_callbacks.records import CallRecord, Operation, Outcome, Provenance, Sources, Usage
from token_callbacks.sinks.json_files import JsonFiles


@pytest.fixture(scope="session")
def real_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the package against a loopback server: two runs with steps, a nested one, a stream, a failure."""
    import litellm

    folder = tmp_path_factory.mktemp("real") / "token_logs"
    counter = TokenCounter(log_dir=folder)
    with LoopbackServer(tokens=InventedTokens(details=True)) as server:
        options: dict[str, Any] = {"api_base": server.base_url, "api_key": "sk-loopback", "max_retries": 0}
        ask = {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": "When does it open?"}]}
        with counter.run("nightly-digest", tags={"team": "search"}) as run:
            litellm.embedding(model="openai/text-embedding-3-small", input=["opening hours"], **options)
            with run.step("judge"):
                list(litellm.completion(**ask, stream=True, **options))
            with counter.run("inner"):
                litellm.completion(**ask, **options)
        with counter.run("weekly-digest", tags={"team": "\x1b[31mred\x1b[0m\n"}):
            litellm.completion(**ask, **options)
            with pytest.raises(litellm.InternalServerError):
                litellm.completion(**ask, api_base="http://127.0.0.1:9/v1", api_key="sk-loopback", max_retries=0)
    counter.close()
    return folder


@pytest.fixture(scope="session")
def wide_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generate a log of many runs, models, days and kinds of figures."""
    folder = tmp_path_factory.mktemp("wide") / "token_logs"
    chosen = random.Random(3)
    files = JsonFiles(folder)
    for number in range(700):
        files.write_record(_any_record(chosen, number))
    files.close()
    return folder


def _any_record(chosen: random.Random, number: int) -> CallRecord:
    begins = NOON + timedelta(minutes=chosen.randrange(60 * 24 * 40))
    source = chosen.choice(list(Provenance))
    figures: dict[str, Any] = {
        "run_id": f"20261103T12000{chosen.randrange(9)}-0123456789ab",
        "model": chosen.choice(["gpt-4o", "claude-sonnet-4-5", "nobodys-model\x1b[2J🎉", None]),
        "provider": chosen.choice(["openai", "anthropic", None]),
        "step": chosen.choice(["judge", "\nstep", None]),
        "agent": chosen.choice(["Agent", None]),
        "cached": chosen.random() < 0.1,
        "outcome": chosen.choice(list(Outcome)),
        "usage": Usage(
            prompt_tokens=chosen.randrange(9_000_000),
            completion_tokens=None if source is Provenance.MISSING else chosen.randrange(900_000),
            cache_read_tokens=chosen.choice([None, 0, 1234]),
        ),
        "provenance": Sources(prompt=Provenance.REPORTED, completion=source),
    }
    if chosen.random() < 0.2:
        figures |= {
            "operation": Operation.EMBEDDING,
            "usage": Usage(embedding_tokens=chosen.randrange(90_000)),
            "provenance": Sources(embedding=source),
        }
    return record(number, started_at=begins, **figures)
