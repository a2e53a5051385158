"""However our handler gets into LiteLLM, and whatever else is in there, each call is counted once."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
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
from .conftest import LISTS, ROOT, Heard, Script, read_log

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


@pytest.mark.skipif(find_spec("fastapi") is None, reason="the proxy needs litellm[proxy]")
def test_the_proxy_writes_the_log(loopback: Any, tmp_path: Path) -> None:
    """A proxy with our callback in its yaml counts a plain and a streamed request, with the provider's figures."""
    server = loopback()
    with _proxy(tmp_path, server) as url:
        for stream in (False, True):
            body = {"model": "chat", "messages": [{"role": "user", "content": "When?"}], "stream": stream}
            headers = {"authorization": "Bearer sk-loopback-3b9f1c27d5"}
            httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=60).raise_for_status()

    log = read_log(tmp_path / "token_logs")
    assert sorted((entry.prompt_tokens, entry.completion_tokens) for entry in server.ledger) == sorted(
        (line["usage"]["prompt_tokens"], line["usage"]["completion_tokens"]) for line in log.lines
    )
    assert [{"prompt": "reported", "completion": "reported"}] * 2 == [line["provenance"] for line in log.lines]
    assert [_total(server)] == [summary["total_llm_tokens"] for summary in log.summaries]


@contextmanager
def _proxy(folder: Path, server: LoopbackServer) -> Iterator[str]:
    """Start LiteLLM's proxy in a process of its own, and stop it by Ctrl-C: uvicorn's way with SIGTERM skips atexit."""
    (folder / "config.yaml").write_text(_PROXY_YAML.format(base_url=server.base_url))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = str(Path(sys.executable).with_name("litellm"))
    process = subprocess.Popen(
        [program, "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said: list[str] = []
    is_up = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if "Uvicorn running" in line:
                is_up.set()
        is_up.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        assert is_up.wait(timeout=120)
        assert process.poll() is None, "".join(said)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
        reader.join(timeout=30)


_PROXY_YAML = """\
model_list:
  - model_name: chat
    litellm_params: {{model: openai/gpt-4o-mini, api_base: "{base_url}", api_key: sk-loopback}}
litellm_settings:
  callbacks: token_callbacks.adapters.litellm.proxy_callback
general_settings:
  master_key: sk-loopback-3b9f1c27d5
"""
