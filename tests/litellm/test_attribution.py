"""What the caller tells LiteLLM of a call: whose it is, and how it is tagged."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from token_callbacks import TokenCounter
from token_callbacks.adapters.litellm import RUN_KEY
from token_callbacks.sinks.memory import MemorySink

from .calls import CHAT, MESSAGES, completion, router


def test_session_and_tags_are_in_the_record(loopback: Any, counter: TokenCounter, memory: MemorySink) -> None:
    """As LiteLLM takes them."""
    with counter.run("tagged"):
        completion(loopback(), metadata={"session_id": "visit-3", "tags": ["search", "night"]})

    [record] = memory.records
    assert ("visit-3", ["search", "night"]) == (record.session_id, record.tags)


def test_what_is_no_tag_is_left_out(loopback: Any, counter: TokenCounter, memory: MemorySink) -> None:
    """A text of the caller's must not reach the log as a tag, nor something that is no text."""
    with counter.run("odd"):
        completion(loopback(), metadata={"session_id": "x" * 999, "tags": ["fine", "y" * 999, ""]})

    [record] = memory.records
    assert (None, ["fine"]) == (record.session_id, record.tags)


def test_a_call_from_a_bare_thread_lands_in_the_run_that_it_names(
    loopback: Any, counter: TokenCounter, memory: MemorySink
) -> None:
    """Where the context does not tell, the metadata does."""
    server = loopback()
    with counter.run("named") as run:
        thread = threading.Thread(target=lambda: completion(server, metadata={RUN_KEY: run.run_id}))
        thread.start()
        thread.join()

    assert [run.run_id] == [record.run_id for record in memory.records]


def test_a_sync_router_call_inside_a_running_loop_lands_in_the_run_that_it_names(
    loopback: Any, counter: TokenCounter, memory: MemorySink
) -> None:
    """LiteLLM makes it in a thread without the caller's context."""
    server = loopback()

    async def notebook_cell() -> None:
        with counter.run("cell") as run:
            router(server).completion(CHAT, MESSAGES, metadata={RUN_KEY: run.run_id})

    asyncio.run(notebook_cell())
    assert ["cell"] == [summary.name for summary in memory.summaries.values() if summary.calls.llm]


def test_a_run_that_is_not_there_changes_nothing(loopback: Any, counter: TokenCounter, memory: MemorySink) -> None:
    """A stale id leaves the call where it was made."""
    with counter.run("current") as run:
        completion(loopback(), metadata={RUN_KEY: "20260101T000000-000000000000"})

    assert [run.run_id] == [record.run_id for record in memory.records]
