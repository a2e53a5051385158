"""What the server's ledger says and what our records say, in the same shape, so that one assertion compares them."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator

import pytest

from loopback_server import LoopbackServer
from token_callbacks.adapters import llama_index as adapter
from token_callbacks.ledger import process_ledger
from token_callbacks.records import CallRecord, Operation

Figures = tuple[int | None, int | None, int | None, int | None]
"""Prompt, completion, cache-read and reasoning tokens."""


def llm_truth(server: LoopbackServer) -> list[Figures]:
    """List what the server's LLM answers cost, in order of arrival."""
    return [
        (entry.prompt_tokens, entry.completion_tokens, entry.cache_read_tokens, entry.reasoning_tokens)
        for entry in server.ledger
        if entry.endpoint != "embeddings"
    ]


def llm_figures(records: Iterable[CallRecord]) -> list[Figures]:
    """List what our records of LLM calls say, in the order they were made."""
    return [
        (
            record.usage.prompt_tokens,
            record.usage.completion_tokens,
            record.usage.cache_read_tokens or 0,
            record.usage.reasoning_tokens or 0,
        )
        for record in records
        if record.operation is not Operation.EMBEDDING
    ]


def embedding_truth(server: LoopbackServer) -> list[int]:
    """List what the server's embedding answers cost, smallest first: they may arrive together."""
    return sorted(entry.embedding_tokens for entry in server.ledger if entry.endpoint == "embeddings")


def embedding_figures(records: Iterable[CallRecord]) -> list[int | None]:
    """List what our records of embedding requests say, smallest first."""
    return sorted(
        (record.usage.embedding_tokens for record in records if record.operation is Operation.EMBEDDING),
        key=lambda tokens: -1 if tokens is None else tokens,
    )


_of_others: list[object] = []


@pytest.fixture(autouse=True)
def calls_of_others() -> Iterator[None]:
    """Note what tests of other suites left open: LiteLLM holds on to some of their streams."""
    _of_others[:] = _held()
    yield
    _of_others.clear()


def what_is_left() -> list[object]:
    """List what the ledger and the tracker still hold of a test's calls; empty between tests."""
    left = _left()
    if left:  # a generator in a cycle is dropped when the collector comes
        gc.collect()
        left = _left()
    return left


def _left() -> list[object]:
    return [thing for thing in _held() if all(thing is not other for other in _of_others)]


def _held() -> list[object]:
    ledger = process_ledger()
    ledger.drain(lambda call: False, seconds=0.0)
    left: list[object] = [*ledger._under_way]
    if adapter._once.current is not None:
        tracker = adapter._once.current.tracker
        left += [*tracker._spans, *tracker._agents, *tracker.calls, *tracker.embeddings, *tracker._streams]
    return left
