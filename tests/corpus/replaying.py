"""Plays exchanges one after the other against the replay server, with one counter attached."""

from __future__ import annotations

import asyncio
import gc
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count, islice, zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import certifi

from tests.corpus.folder import CorpusModules, Exchange, load_modules
from tests.corpus.litellm_plays import closed_litellm_clients, litellm_player, quiet_litellm
from tests.corpus.llama_index_plays import llama_index_player
from tests.corpus.plays import Play, Player
from tests.corpus.verdicts import FIGURES, Played, Verdict, verdict
from token_callbacks import TokenCounter
from token_callbacks.records import CallRecord
from token_callbacks.runs import Run
from token_callbacks.sinks.memory import MemorySink

PLAYERS: dict[str, Callable[[CorpusModules, Any], Player]] = {
    "litellm": litellm_player,
    "llama_index": llama_index_player,
}
PLAYS_BETWEEN_COLLECTIONS = 100
ASIDES = ("api/show", "api/tags")
"""What LiteLLM asks Ollama about a model, beside the call itself."""


class Replay:
    """A replay server with the corpus behind it: what can be played, and how it went."""

    def __init__(self, modules: CorpusModules, server: Any) -> None:
        self._modules = modules
        self._server = server
        self._sink = MemorySink()
        self._counter = TokenCounter(log_dir=None, sinks=[self._sink])
        self._runner = asyncio.Runner()

    def player(self, framework: str) -> Player:
        """Give a framework's plays; an ImportError tells that it is not installed."""
        return PLAYERS[framework](self._modules, self._server.corpus)

    def exchanges(self, shape: str | None = None) -> list[Exchange]:
        """List what can be judged, of one shape or of all: answers to calls that use tokens, in the order of ids."""
        found = self._server.corpus.records(shape=shape)
        return sorted((each for each in found if _is_call(each)), key=lambda exchange: exchange["id"])

    def plays(self, player: Player, exchanges: Iterable[Exchange]) -> Iterator[Play]:
        """Give the plays of a framework for each exchange, called and awaited."""
        for exchange in exchanges:
            yield from player.plays_of(exchange, partial(self._server.url, exchange["id"]))

    def verdicts(self, plays: Iterable[Play]) -> list[Verdict]:
        """Play, and judge at the end, when what was recorded late or twice has come too."""
        with ExitStack() as stack:
            stack.enter_context(quiet_litellm())
            stack.enter_context(_trusting_one_authority())
            stack.enter_context(_collecting_only_between_plays())
            outcomes = list(map(self._played, count(1), plays))
        records: defaultdict[str, list[CallRecord]] = defaultdict(list)
        for record in self._sink.records:
            records[record.run_id].append(record)
        return [verdict(outcome, records[outcome.run.run_id]) for outcome in outcomes]

    def close(self) -> None:
        """Close the counter, the event loop and what LiteLLM keeps open in it."""
        self._runner.run(closed_litellm_clients())
        self._counter.close()
        self._runner.close()

    def _played(self, number: int, play: Play) -> Played:
        if not number % PLAYS_BETWEEN_COLLECTIONS:
            gc.collect()
        outcomes = []
        for attempt in play.attempts:
            outcomes.append(self._attempted(play, attempt))
            if outcomes[-1].error is None:
                return outcomes[-1]
        return next((outcome for outcome in outcomes if outcome.requests), outcomes[-1])

    def _attempted(self, play: Play, attempt: Callable[[], Any]) -> Played:
        self._server.log.clear()
        run, error = self._runner.run(self._awaited(play, attempt)) if play.is_async else self._called(play, attempt)
        requests = sum(not each["tail"].endswith(ASIDES) for each in self._server.log)
        return Played(play=play, run=run, error=error, requests=requests)

    def _called(self, play: Play, attempt: Callable[[], Any]) -> tuple[Run, str | None]:
        with self._counter.run(play.exchange["id"]) as run:
            try:
                attempt()
            except Exception as error:  # noqa: BLE001 - whatever the framework makes of the answer
                return run, type(error).__name__
        return run, None

    async def _awaited(self, play: Play, attempt: Callable[[], Any]) -> tuple[Run, str | None]:
        async with self._counter.run(play.exchange["id"]) as run:
            try:
                await attempt()
            except Exception as error:  # noqa: BLE001 - whatever the framework makes of the answer
                return run, type(error).__name__
        return run, None


@contextmanager
def replaying() -> Iterator[Replay]:
    """Start the replay server on the loopback interface, and give what plays against it."""
    modules = load_modules()
    with modules.replay.ReplayServer() as server:
        replay = Replay(modules, server)
        try:
            yield replay
        finally:
            replay.close()


@contextmanager
def _collecting_only_between_plays() -> Iterator[None]:
    # LiteLLM 1.106.2 drops half-read Cohere streams; where the collector finds one while this thread holds httpcore's
    # pool lock (ConnectionPool.handle_request, then PoolByteStream.close), the thread waits for itself.
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
        gc.collect()


@contextmanager
def _trusting_one_authority() -> Iterator[None]:
    # Nothing here is encrypted, but each client made reads certifi's 150 certificates: a third of a replay's time.
    first, end, _ = Path(certifi.where()).read_text(encoding="utf-8").partition("-----END CERTIFICATE-----\n")
    before = os.environ.get("SSL_CERT_FILE")
    with TemporaryDirectory() as folder:
        one = Path(folder) / "one.pem"
        one.write_text(first + end, encoding="utf-8")
        os.environ["SSL_CERT_FILE"] = str(one)
        try:
            yield
        finally:
            os.environ.pop("SSL_CERT_FILE")
            if before is not None:
                os.environ["SSL_CERT_FILE"] = before


def sample(exchanges: Iterable[Exchange], size: int) -> list[Exchange]:
    """Choose up to ``size`` exchanges of each shape, streamed and not: of each kind one, then of each another."""
    chosen: list[Exchange] = []
    groups: defaultdict[tuple[str, bool], defaultdict[tuple[bool, ...], list[Exchange]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for exchange in exchanges:
        groups[exchange["provider_shape"], exchange["stream"]][_kind(exchange)].append(exchange)
    for kinds in groups.values():
        rounds = zip_longest(*kinds.values())
        in_turn = (exchange for each in rounds for exchange in each if exchange is not None)
        chosen.extend(islice(in_turn, size))
    return chosen


def in_turns(plays: Iterable[Play]) -> list[Play]:
    """Leave each exchange one play a route: of a shape, called and awaited in turns."""
    turns: Counter[tuple[str, str, bool, bool]] = Counter()
    chosen = []
    for play in plays:
        group = (play.exchange["provider_shape"], play.route, play.exchange["stream"])
        turns[*group, play.is_async] += 1
        if bool(turns[*group, play.is_async] % 2) is not play.is_async:
            chosen.append(play)
    return chosen


def _kind(exchange: Exchange) -> tuple[bool, ...]:
    told = (bool(exchange["truth"][name]) for _, name in FIGURES.values())
    return (*told, exchange["reported_usage"] is not None)


def _is_call(exchange: Exchange) -> bool:
    return not exchange["flags"]["error"] and exchange["api"] != "count_tokens"
