"""Calls through LiteLLM and LlamaIndex, and the programs that make them in processes of their own.

To import both takes seconds, so ``python -m tests.faults.frameworks DESCRIPTOR`` does it once and forks a process for
each program that is asked for; it ends as any Python program does.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import itertools
import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import litellm
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai import OpenAI

from tests.faults.programs import MESSAGES, MODEL, tell, wait
from token_callbacks import TokenCounter

WAYS = [
    f"{framework} {how}" for framework in ("litellm", "llama_index") for how in ("call", "stream", "acall", "astream")
]
WORKERS = 2
IMPORTED_BY_CALLS = ("httpcore", "litellm.proxy._types", "openai.resources")
WAITING = {"sync.py": "read", "selectors.py": "select"}
"""Where the main thread is while it waits for a server: in httpcore's, or in asyncio's."""


def answer(way: str, base_url: str) -> Any:
    """Begin a call: gives its answer, the stream of it, or what is to be awaited for them."""
    framework, how = way.split()
    if framework == "litellm":
        complete = litellm.acompletion if is_async(way) else litellm.completion
        options = {"api_base": base_url, "api_key": "sk-loopback", "stream": how.endswith("stream")}
        return complete(model=f"openai/{MODEL}", messages=MESSAGES, **options)
    llm = OpenAI(model=MODEL, api_base=base_url, api_key="sk-loopback")
    chat = {"call": llm.chat, "stream": llm.stream_chat, "acall": llm.achat, "astream": llm.astream_chat}[how]
    return chat([ChatMessage(**message) for message in MESSAGES])


def ask(way: str, base_url: str, hear: Callable[[], None] = lambda: None) -> str:
    """Call, hear each part of the answer, and return the id that the server gave it."""
    if is_async(way):
        return asyncio.run(aask(way, base_url, hear))
    given = answer(way, base_url)
    for part in given if way.endswith("stream") else [given]:
        response_id = _id_of(part)
        hear()
    return response_id


async def aask(way: str, base_url: str, hear: Callable[[], None] = lambda: None) -> str:
    """Do as ``ask`` does, in the running loop."""
    given = await answer(way, base_url)
    if not way.endswith("stream"):
        return _id_of(given)
    async for part in given:
        response_id = _id_of(part)
        hear()
    return response_id


def is_async(way: str) -> bool:
    """Tell whether a way to call is a coroutine's."""
    return " a" in way


def _id_of(part: Any) -> str:
    return str(getattr(part, "raw", part).id)


def load(base_url: str, log_dir: str, way: str, exits_after: str) -> None:
    """Call without end, twice at once, telling each call that has returned; leave by ``os._exit`` after so many."""
    numbers = itertools.count(1)

    def told(response_id: str) -> None:
        tell(response_id)
        if next(numbers) == int(exits_after):
            os._exit(3)

    def forever() -> None:
        while True:
            told(ask(way, base_url))

    async def aforever() -> None:
        while True:
            told(await aask(way, base_url))

    async def twice() -> None:
        await asyncio.gather(aforever(), aforever())

    with TokenCounter(log_dir=log_dir).run("load") as run:
        if is_async(way):
            asyncio.run(twice())
        threading.Thread(target=run.bind(forever), daemon=True).start()
        forever()


def wait_for_answer(base_url: str, log_dir: str, way: str) -> None:
    """Call, with a counter if there is a folder for it; tell what is heard and, when asked to, that it waits."""
    threading.Thread(target=_tell_of_waiting, daemon=True).start()
    with TokenCounter(log_dir=log_dir).run("held") if log_dir else contextlib.nullcontext():
        ask(way, base_url, hear=lambda: tell("heard"))


def _tell_of_waiting() -> None:
    wait()
    main = threading.main_thread().ident or 0
    while True:
        code = sys._current_frames()[main].f_code
        if WAITING.get(Path(code.co_filename).name) == code.co_name:
            return tell("waits")


def prefork(base_url: str, log_dir: str, is_in_run: str, is_warm: str) -> None:
    """Fork workers that call in every way, as gunicorn does: in a run or not, after calls of the parent's or before."""
    counter = TokenCounter(log_dir=log_dir)
    with counter.run("served") if is_in_run == "True" else contextlib.nullcontext():
        if is_warm == "True":
            _ask_in_every_way(base_url)
        children = []
        for _ in range(WORKERS):
            child = os.fork()
            if child == 0:
                _ask_in_every_way(base_url)
                sys.exit()
            children.append(child)
        for child in children:
            tell(str(os.waitpid(child, 0)[1]))


def _ask_in_every_way(base_url: str) -> None:
    for way in WAYS:
        ask(way, base_url)


def forkserver(base_url: str, log_dir: str) -> None:
    """Have a pool of workers that are forked from a server of their own take part in a run, and tell its sum."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.frameworks", *IMPORTED_BY_CALLS])
    counter = TokenCounter(log_dir=log_dir)
    with counter.run("pool") as run:
        _ask_in_every_way(base_url)
        os.environ["TOKEN_CALLBACKS_RUN"] = run.token
        with ProcessPoolExecutor(2, context, partial(TokenCounter, log_dir=log_dir)) as workers:
            list(workers.map(ask, WAYS, [base_url] * len(WAYS)))
    tell(run.run_id, str(run.summary.total_llm_tokens))


def fork_on_request() -> tuple[str, list[str]]:
    """Fork a process for each request, tell its id, and at its end its status; return in those processes."""
    for module in IMPORTED_BY_CALLS:
        importlib.import_module(module)

    channel = socket.socket(fileno=int(sys.argv[1]))
    gc.freeze()
    while True:
        request, descriptors, _, _ = socket.recv_fds(channel, 2**16, 3)
        if not request:
            os._exit(0)
        child = os.fork()
        if child == 0:
            channel.close()
            for number, descriptor in enumerate(descriptors):
                os.dup2(descriptor, number)
                os.close(descriptor)
            name, *arguments = json.loads(request)
            return name, arguments
        for descriptor in descriptors:
            os.close(descriptor)
        channel.send(str(child).encode())
        channel.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())


if __name__ == "__main__":
    _name, _arguments = fork_on_request()
    globals()[_name](*_arguments)
