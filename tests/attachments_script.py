"""Calls with everything attached twice, in a process of their own: the package is loaded again while calls go on.

Prints a JSON object: by case, the number of requests that the server saw, and the records of each of two counters.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import litellm
from llama_index.core.llms import ChatMessage, MockLLM
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.litellm import LiteLLM
from llama_index.llms.openai import OpenAI

from loopback_server import LoopbackServer
from token_callbacks import LiteLLMTokenCallback, TokenCounter
from token_callbacks.ledger import process_ledger
from token_callbacks.sinks.memory import MemorySink

MESSAGES = [ChatMessage(role="user", content="When?")]


def _calls(server: LoopbackServer) -> dict[str, Callable[[], Any]]:
    here = {"api_base": server.base_url, "api_key": "sk-x", "max_retries": 0}
    chat = {"model": "openai/gpt-4o", "messages": [{"role": "user", "content": "When?"}], **here}
    llm: Any = OpenAI(model="gpt-4o", **here)
    over: Any = LiteLLM(model="openai/gpt-4o", **here)
    embedder = OpenAIEmbedding(**here)

    async def read() -> None:
        async for _ in await litellm.acompletion(**chat, stream=True):
            pass

    return {
        "litellm": lambda: litellm.completion(**chat),
        "litellm async": lambda: asyncio.run(_awaited(litellm.acompletion(**chat))),
        "litellm stream": lambda: litellm.completion(**chat, stream=True),
        "litellm async stream": lambda: asyncio.run(read()),
        "litellm embedding": lambda: litellm.embedding(model="openai/text-embedding-3-small", input=["a"], **here),
        "llama_index": lambda: llm.chat(MESSAGES),
        "llama_index stream": lambda: llm.stream_chat(MESSAGES),
        "llama_index embedding": lambda: embedder.get_text_embedding("a"),
        "llama_index over litellm": lambda: over.chat(MESSAGES),
        "llama_index over litellm stream": lambda: over.stream_chat(MESSAGES),
        "mock": lambda: MockLLM().complete("When?"),
    }


async def _awaited(coroutine: Any) -> None:
    await coroutine


def _reload() -> None:
    """Load it again, but the prices, and first what others are made of last: what is in use is then of all ages."""
    names = [name for name in sys.modules if name.partition(".")[0] == "token_callbacks" and ".prices" not in name]
    for name in reversed(names):
        importlib.reload(sys.modules[name])


def _read(answer: Any) -> None:
    if isinstance(answer, Iterator):
        for _ in answer:
            pass


def main() -> None:
    """Make every call once after a reload, and every stream once around one."""
    sinks = MemorySink(), MemorySink()
    counters = [TokenCounter(log_dir=None, sinks=[sinks[0]])]
    _reload()
    counters.append(TokenCounter(log_dir=None, sinks=[sinks[1]]))
    _reload()
    litellm.callbacks.append(LiteLLMTokenCallback())
    litellm.callbacks.append(LiteLLMTokenCallback(counters[0]))
    told: dict[str, Any] = {}
    with LoopbackServer(stream_usage="always_last") as server:

        def note(case: str) -> None:
            process_ledger().drain(lambda call: True, 5.0)
            told[case] = len(server.ledger), *([_row(record) for record in sink.records] for sink in sinks)
            server.clear()
            for sink in sinks:
                sink.records.clear()

        for case, call in _calls(server).items():
            _read(call())
            note(case)
            answer = call()
            if isinstance(answer, Iterator):
                next(answer)
                _reload()
                _read(answer)
                note(f"{case} around a reload")
            else:
                note(f"{case} again")
    for counter in counters:
        counter.close()
    told["late"] = 0, *([_row(record) for record in sink.records] for sink in sinks)
    sys.stdout.write(json.dumps(told))


def _row(record: Any) -> tuple[Any, ...]:
    return record.outcome.value, record.provenance.weakest, record.streamed


if __name__ == "__main__":
    main()
