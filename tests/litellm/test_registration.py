"""However our handler gets into LiteLLM, and whatever else is in there, each call is counted once."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import litellm
import litellm.utils
import pytest
from litellm.integrations.custom_logger import CustomLogger
from litellm.responses.streaming_iterator import BaseResponsesAPIStreamingIterator

import token_callbacks.adapters.litellm as adapter
from loopback_server import LoopbackServer
from token_callbacks import LiteLLMTokenCallback, TokenCounter, uninstall
from token_callbacks.errors import CounterClosed, InvalidArgument
from token_callbacks.sinks.memory import MemorySink

from .calls import acompletion, completion
from .conftest import LISTS, Heard, Script, read_log

NewCounter = Callable[..., TokenCounter]


def _call_both_ways(server: LoopbackServer) -> None:
    completion(server)
    asyncio.run(acompletion(server))


def _total(server: LoopbackServer) -> int:
    totals = server.ledger_totals()
    return totals.prompt_tokens + totals.completion_tokens


# --- the callback, registered the plain way


def test_the_plain_callback_alone_makes_the_default_log(
    clean_litellm: None, loopback: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``litellm.callbacks = [LiteLLMTokenCallback()]`` is all that is needed: the log is in ./token_logs."""
    monkeypatch.chdir(tmp_path)
    server = loopback()
    litellm.callbacks = [LiteLLMTokenCallback()]
    _call_both_ways(server)
    uninstall()

    log = read_log(tmp_path / "token_logs")
    assert 2 == len(log.lines)
    assert [_total(server)] == [summary["total_llm_tokens"] for summary in log.summaries]


def test_the_plain_callback_opens_no_log_before_the_first_call(
    clean_litellm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Making and registering the callback writes nothing."""
    monkeypatch.chdir(tmp_path)
    litellm.callbacks = [LiteLLMTokenCallback()]

    assert [] == list(tmp_path.iterdir())


def test_a_stream_through_the_plain_callback_alone(
    clean_litellm: None, loopback: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The very first call of a process may be a stream that tells no usage: it is counted, not taken for zero."""
    monkeypatch.chdir(tmp_path)
    litellm.callbacks = [LiteLLMTokenCallback()]
    for _ in completion(loopback(stream_usage="never"), stream=True):
        pass
    uninstall()

    [line] = read_log(tmp_path / "token_logs").lines
    assert {"prompt": "counted", "completion": "counted"} == line["provenance"]


@pytest.mark.parametrize("number", [1, 2], ids=["once", "twice"])
def test_the_plain_callback_with_a_counter(
    new_counter: NewCounter, loopback: Any, memory: MemorySink, number: int
) -> None:
    """A counter given to the callback gets each call once, however often the callback is registered."""
    server = loopback()
    counter = new_counter(sinks=[memory])
    litellm.callbacks = [LiteLLMTokenCallback(counter)] * number
    _call_both_ways(server)
    counter.close()

    assert 2 == len(memory.records)


def test_two_callbacks_are_one_record(new_counter: NewCounter, loopback: Any, memory: MemorySink) -> None:
    """Two instances of the callback, and a TokenCounter's own handler, still make one record a call."""
    counter = new_counter(sinks=[memory])
    litellm.callbacks = [LiteLLMTokenCallback(), LiteLLMTokenCallback(counter)]
    _call_both_ways(loopback())
    counter.close()

    assert 2 == len(memory.records)


@pytest.mark.parametrize("counter", [3, "counter", TokenCounter])
def test_the_callback_refuses_what_is_no_counter(counter: Any) -> None:
    """A wrong argument raises our own error, and says what is wanted."""
    with pytest.raises(InvalidArgument, match="counter is a TokenCounter or None"):
        LiteLLMTokenCallback(counter)


def test_the_callback_refuses_a_closed_counter(new_counter: NewCounter) -> None:
    """A closed counter would count nothing: saying so early is better."""
    counter = new_counter()
    counter.close()

    with pytest.raises(CounterClosed):
        LiteLLMTokenCallback(counter)


# --- a TokenCounter beside what the user has in LiteLLM's lists


def test_the_counter_may_be_made_before_litellm_is_imported(fresh_script: Script, loopback: Any) -> None:
    """A counter waits for the import of LiteLLM, and hooks it then."""
    server = loopback()
    log = fresh_script(
        """
from token_callbacks import TokenCounter
counter = TokenCounter()
import litellm
litellm.completion(**CHAT)
""",
        server,
    )

    assert [_total(server)] == [summary["total_llm_tokens"] for summary in log.summaries]


def test_the_counter_may_be_made_after_litellm_is_imported(script: Script, loopback: Any) -> None:
    """A counter hooks a LiteLLM that is there already."""
    server = loopback()
    log = script(
        """
import litellm
from token_callbacks import TokenCounter
counter = TokenCounter()
litellm.completion(**CHAT)
""",
        server,
    )

    assert [_total(server)] == [summary["total_llm_tokens"] for summary in log.summaries]


def test_a_user_may_assign_new_callbacks_after_the_counter(
    new_counter: NewCounter, loopback: Any, memory: MemorySink
) -> None:
    """``litellm.callbacks = [own]`` drops our handler from the list; calls are counted all the same, and own fires."""
    counter, own = new_counter(sinks=[memory]), Heard()
    litellm.callbacks = [own]
    server = loopback()
    completion(server)
    heard = own.wait()
    counter.close()

    assert "sync" == heard
    assert own.events.empty()
    assert 1 == len(memory.records)


@pytest.mark.parametrize("with_counter", [False, True], ids=["alone", "beside ours"])
def test_a_users_handler_fires_as_often_as_without_us(
    new_counter: NewCounter, loopback: Any, with_counter: bool
) -> None:
    """One event a call for the user's handler, sync, async and streamed, with a counter or without one."""
    if with_counter:
        new_counter()
    own, server = Heard(), loopback(stream_usage="always_last")
    litellm.callbacks = [own]
    heard = []
    completion(server)
    heard.append(own.wait())
    for _ in completion(server, stream=True):
        pass
    heard.append(own.wait())

    async def call() -> str:
        await acompletion(server)
        return await asyncio.to_thread(own.wait)

    heard.append(asyncio.run(call()))

    assert ["sync", "sync", "async"] == heard
    assert own.events.empty()


@pytest.mark.parametrize("name", ["success_callback", "failure_callback", "input_callback"])
def test_a_users_lists_keep_what_the_user_put_in(new_counter: NewCounter, loopback: Any, name: str) -> None:
    """The user's own entries of LiteLLM's lists stay, in their order."""
    own: list[Any] = [lambda *args: None, lambda *args, **kwargs: None]
    setattr(litellm, name, list(own))
    new_counter()
    _call_both_ways(loopback())

    assert own == [entry for entry in getattr(litellm, name) if not isinstance(entry, CustomLogger)]


def test_two_counters_get_each_call_once(new_counter: NewCounter, loopback: Any) -> None:
    """Two counters write two logs, with every call in each of them once."""
    sinks = [MemorySink(), MemorySink()]
    counters = [new_counter(sinks=[sink]) for sink in sinks]
    _call_both_ways(loopback())
    for counter in counters:
        counter.close()

    assert [2, 2] == [len(sink.records) for sink in sinks]


def test_a_counter_for_another_framework_takes_no_litellm_calls(new_counter: NewCounter, loopback: Any) -> None:
    """``frameworks=("llama_index",)`` is kept, also while another counter hooks LiteLLM."""
    sinks = [MemorySink(), MemorySink()]
    counters = [new_counter(sinks=[sinks[0]], frameworks=("llama_index",)), new_counter(sinks=[sinks[1]])]
    _call_both_ways(loopback())
    for counter in counters:
        counter.close()

    assert [0, 2] == [len(sink.records) for sink in sinks]


# --- the end


def test_a_closed_counter_records_nothing(new_counter: NewCounter, loopback: Any, memory: MemorySink) -> None:
    """After ``close()`` the hooks stay in and idle."""
    server = loopback()
    counter = new_counter(sinks=[memory])
    completion(server)
    counter.close()
    _call_both_ways(server)

    assert 3 == len(server.ledger)
    assert 1 == len(memory.records)


def test_uninstall_leaves_litellm_as_it_was(clean_litellm: None, loopback: Any, memory: MemorySink) -> None:
    """LiteLLM's functions are its own again and none of its lists has anything of ours."""
    before = [getattr(home, name) for home, name in _wrapped()]
    counter = TokenCounter(log_dir=None, sinks=[memory])
    during = [getattr(home, name) for home, name in _wrapped()]
    _call_both_ways(loopback())
    counter.uninstall()

    assert [True] * len(before) == [mine is not theirs for mine, theirs in zip(during, before, strict=True)]
    assert before == [getattr(home, name) for home, name in _wrapped()]
    assert [] == [entry for name in LISTS for entry in getattr(litellm, name) if isinstance(entry, adapter._Hooks)]


def test_a_new_counter_after_uninstall_counts_again(new_counter: NewCounter, loopback: Any, memory: MemorySink) -> None:
    """Uninstalling is no farewell for ever."""
    new_counter().uninstall()
    counter = new_counter(sinks=[memory])
    _call_both_ways(loopback())
    counter.close()

    assert 2 == len(memory.records)


def _wrapped() -> list[tuple[Any, str]]:
    return [
        (litellm.utils, "function_setup"),
        (litellm, "stream_chunk_builder"),
        (litellm.CustomStreamWrapper, "aclose"),
        (BaseResponsesAPIStreamingIterator, "_process_chunk"),
    ]


# --- the proxy


def test_the_proxys_way_to_find_the_callback(
    clean_litellm: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """``callbacks: token_callbacks.adapters.litellm.proxy_callback`` gives one handler, always the same."""
    monkeypatch.chdir(tmp_path)
    module_name, _, name = "token_callbacks.adapters.litellm.proxy_callback".rpartition(".")
    found = getattr(importlib.import_module(module_name), name)

    assert isinstance(found, LiteLLMTokenCallback)
    assert found is adapter.proxy_callback


def test_the_adapter_has_no_other_late_attributes() -> None:
    """A misspelt yaml line fails as any missing attribute does."""
    with pytest.raises(AttributeError, match="proxy_calback"):
        _ = adapter.proxy_calback
