"""Many runs at once, of every kind of call: each record is in the run that made it, and the sums are the server's.

20 runs of 10 calls; with ``TOKEN_CALLBACKS_FULL=1`` in the environment, 200 of 50, ten times over.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import threading
from collections import Counter
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loopback_server import LoopbackServer
from tests.llama_index.figures import what_is_left
from tests.open_files import open_files
from token_callbacks import TokenCounter
from token_callbacks.records import CallRecord, Outcome, RunSummary
from token_callbacks.runs import Run
from token_callbacks.sinks.memory import MemorySink

from .kinds import ASYNC, SYNC, Caller, Clients, Kind

IS_FULL = os.environ.get("TOKEN_CALLBACKS_FULL") == "1"
RUNS, CALLS, REPETITIONS = (
    (200, 50, int(os.environ.get("TOKEN_CALLBACKS_REPETITIONS", "10"))) if IS_FULL else (20, 10, 1)
)

Expected = Counter[Outcome]


class _Ended(msgspec.Struct, frozen=True):
    run: Run
    expected: Expected


def _chosen(kinds: tuple[Kind, ...], number: int) -> list[Kind]:
    """Choose a run's calls: each kind in turn, in an order of its own."""
    chosen = [kinds[(number + position) % len(kinds)] for position in range(CALLS)]
    random.Random(number).shuffle(chosen)
    return chosen


def _expected(kinds: list[Kind]) -> Expected:
    return Counter(kind.outcome for kind in kinds for _ in range(kind.records))


def _sync_run(counter: TokenCounter, clients: Clients, number: int) -> _Ended:
    """Call half of them here and half in a pool of the run's own."""
    kinds, caller = _chosen(SYNC, number), Caller(clients, f"run-{number}")
    with counter.run(caller.name) as run:
        for kind in kinds[::2]:
            kind.call(caller)
        with ThreadPoolExecutor(max_workers=2) as pool, run.step("pool"):
            list(run.bind(pool).map(lambda kind: kind.call(caller), kinds[1::2]))
    return _Ended(run, _expected(kinds))


async def _async_run(counter: TokenCounter, clients: Clients, number: int) -> _Ended:
    """Call half of them one by one and half at once."""
    kinds, caller = _chosen(ASYNC, number), Caller(clients, f"run-{number}")
    async with counter.run(caller.name) as run:
        for kind in kinds[::2]:
            await kind.call(caller)
        with run.step("gather"):
            await asyncio.gather(*(_in_turn(kind.call(caller), clients) for kind in kinds[1::2]))
    return _Ended(run, _expected(kinds))


async def _in_turn(coming: Awaitable[Any], clients: Clients) -> None:
    async with clients.turns:
        await coming


async def _async_runs(counter: TokenCounter, clients: Clients, numbers: range) -> list[_Ended]:
    return await asyncio.gather(*(_async_run(counter, clients, number) for number in numbers))


def _all_runs(counter: TokenCounter, clients: Clients) -> list[_Ended]:
    half = RUNS // 2
    with ThreadPoolExecutor(max_workers=half + 1) as threads:
        in_loop = threads.submit(asyncio.run, _async_runs(counter, clients, range(half, RUNS)))
        in_threads = threads.map(lambda number: _sync_run(counter, clients, number), range(half))
        return [*in_threads, *in_loop.result()]


@pytest.mark.parametrize("repetition", range(REPETITIONS))
def test_every_record_is_in_its_run_and_the_sums_are_the_servers(
    tmp_path: Path, repetition: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs at once in threads and in one event loop do not mix, lose or double a call of any kind."""
    memory = MemorySink()
    others = len(workers())
    with LoopbackServer(stream_usage="asked") as server:
        counter = TokenCounter(log_dir=tmp_path / "logs", sinks=[memory], drain_seconds=20)
        clients = Clients(server)
        clients.lend(monkeypatch)
        ended = _all_runs(counter, clients)
        gc.collect()
        left = what_is_left()
        opened = open_files(tmp_path)
        counter.close()
        entries = server.ledger

    assert [] == left
    assert 1 >= len(opened)
    assert 1 >= len(workers()) - others
    made = Counter((record.run_id, record.outcome) for record in memory.records)
    wanted = Counter({(each.run.run_id, outcome): n for each in ended for outcome, n in each.expected.items()})
    asked = Counter(entry.model.rpartition(":")[0].rpartition(":")[2] for entry in entries)
    assert ({}, {}) == (dict(wanted - made), dict(made - wanted)), asked - Counter(
        {each.run.name: sum(each.expected.values()) for each in ended}
    )
    assert sum(sum(each.expected.values()) for each in ended) == len(memory.records) == len(entries)
    assert 0 == sum(summary.internal_errors for summary in memory.summaries.values())
    for each in ended:
        records = [record for record in memory.records if record.run_id == each.run.run_id]

        assert (each.run.name, each.expected) == (each.run.name, Counter(record.outcome for record in records))
        assert {True} == {f":{each.run.name}:" in str(record.model) for record in records}
        truth = [entry for entry in entries if entry.model.endswith(f":{each.run.name}:well")]
        assert _figures(truth) == _figures(record.usage for record in records if record.outcome is Outcome.COMPLETED)
        assert {"reported"} == {record.provenance.weakest for record in records if record.outcome is Outcome.COMPLETED}
        summary = memory.summaries[each.run.run_id]
        assert _sums(records) == (summary.embedding_tokens, summary.llm_prompt_tokens, summary.llm_completion_tokens)
        assert summary == _file_of(each.run)


def _figures(usages: Any) -> list[tuple[int, int, int]]:
    """List what each cost; the server gives every request figures of its own."""
    return sorted(
        (usage.prompt_tokens or 0, usage.completion_tokens or 0, usage.embedding_tokens or 0) for usage in usages
    )


def _sums(records: list[CallRecord]) -> tuple[int, ...]:
    names = ("embedding_tokens", "prompt_tokens", "completion_tokens")
    return tuple(sum(getattr(record.usage, name) or 0 for record in records) for name in names)


def _file_of(run: Run) -> RunSummary:
    assert run.summary_path is not None
    return msgspec.json.decode(run.summary_path.read_bytes(), type=RunSummary)


def workers() -> list[threading.Thread]:
    """List our own threads."""
    return [thread for thread in threading.enumerate() if thread.name == "token_callbacks"]
