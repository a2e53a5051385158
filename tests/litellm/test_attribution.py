"""What the caller tells LiteLLM of a call: whose it is, and how it is tagged."""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
from collections import Counter
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

import pytest

from tests.calls import OwnString
from token_callbacks import TokenCounter
from token_callbacks.adapters.litellm import RUN_KEY
from token_callbacks.sinks.memory import MemorySink

from .calls import CHAT, DETAILED, MESSAGES, STREAMS, Case, acompletion, completion, router


def test_session_and_tags_are_in_the_record(loopback: Any, counter: TokenCounter, memory: MemorySink) -> None:
    """As LiteLLM takes them."""
    with counter.run("tagged"):
        completion(loopback(), metadata={"session_id": "visit-3", "tags": ["search", "night"]})

    [record] = memory.records
    assert ("visit-3", ["search", "night"]) == (record.session_id, record.tags)


def test_session_and_tags_of_a_class_of_their_own_are_in_the_line(
    loopback: Any, counter: TokenCounter, log_dir: Path
) -> None:
    """As numpy and readers of TOML hand strings out: the line is written all the same."""
    with counter.run("tagged"):
        completion(loopback(), metadata={"session_id": OwnString("visit-3"), "tags": [OwnString("search")]})

    [path] = log_dir.glob("calls-*.jsonl")
    [line] = path.read_text().splitlines()
    assert ("visit-3", ["search"]) == itemgetter("session_id", "tags")(json.loads(line))


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


def test_tasks_of_a_group_are_where_they_were_started(loopback: Any, counter: TokenCounter, memory: MemorySink) -> None:
    """A task of a TaskGroup is in the run and step of its start; the run that one of them opens is that one's alone."""
    server = loopback(stream_usage="always_last")

    async def read() -> None:
        async for _ in await acompletion(server, stream=True):
            pass

    async def in_a_run() -> None:
        async with counter.run("inner"):
            await acompletion(server)

    async def grouped() -> None:
        async with counter.run("outer") as run, asyncio.TaskGroup() as group:
            for step in ("draft", "judge"):
                with run.step(step):
                    group.create_task(read())
                    group.create_task(in_a_run())
            group.create_task(read())

    asyncio.run(grouped())
    told = Counter((memory.summaries[record.run_id].name, record.step) for record in memory.records)

    assert Counter({("outer", "draft"): 1, ("outer", "judge"): 1, ("outer", None): 1, ("inner", None): 2}) == told


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


def test_a_response_of_a_router_lands_in_the_run_that_it_names(
    loopback: Any, counter: TokenCounter, memory: MemorySink
) -> None:
    """Its metadata are the provider's own, which LiteLLM keeps from those that it makes."""
    server = loopback()
    with counter.run("named") as run, counter.run("current"):
        asyncio.run(router(server).aresponses(model=CHAT, input="When?", metadata={RUN_KEY: run.run_id}))

    assert [run.run_id] == [record.run_id for record in memory.records]


@pytest.mark.parametrize("case", [case for case in STREAMS if "messages" not in case.name], ids=attrgetter("name"))
def test_a_stream_is_its_own_calls_though_another_one_was_opened_after_it(
    loopback: Any, counter: TokenCounter, memory: MemorySink, case: Case
) -> None:
    """Some are asked for when they are read: the call that was begun last is then another one."""
    server, streams = loopback(stream_usage="always_last", tokens=DETAILED), {}

    async def open_both_and_read() -> None:
        for name in ("first", "second"):
            with counter.run(name):
                opened = case.call(server, stream=True)
                streams[name] = await opened if inspect.isawaitable(opened) else opened
        for name in ("first", "second"):
            if hasattr(streams[name], "__aiter__") and inspect.iscoroutinefunction(case.call):
                async for _ in streams[name]:
                    pass
            else:
                list(streams[name])

    asyncio.run(open_both_and_read())
    counter.close()
    sent = zip(("first", "second"), server.ledger, strict=True)
    told = {name: (entry.prompt_tokens, entry.completion_tokens) for name, entry in sent}
    assert told == {
        memory.summaries[record.run_id].name: (record.usage.prompt_tokens, record.usage.completion_tokens)
        for record in memory.records
    }
    assert 2 == len(memory.records)


def test_a_run_that_is_not_there_changes_nothing(loopback: Any, counter: TokenCounter, memory: MemorySink) -> None:
    """A stale id leaves the call where it was made."""
    with counter.run("current") as run:
        completion(loopback(), metadata={RUN_KEY: "20260101T000000-000000000000"})

    assert [run.run_id] == [record.run_id for record in memory.records]
