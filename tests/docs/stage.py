"""A process in which the Python blocks of one page run, one after the other: ``python -m tests.docs.stage README.md``.

It runs in an empty folder, beside logs that the package wrote and the page's own table of prices. The names that a page
takes for its reader's own (``index``, ``messages``, ``response``) are real ones, against a loopback server. Prints one
JSON list: what each block printed, and how many LLM tokens the server had given out by then.
"""

from __future__ import annotations

import asyncio
import inspect
import io
import json
import os
import re
import sys
from ast import PyCF_ALLOW_TOP_LEVEL_AWAIT
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from loopback_server import CountedTokens, LoopbackServer
from tests.calls import make_call
from tests.docs.pages import Block, blocks
from token_callbacks import TokenCounter
from token_callbacks.records import Outcome


def write_logs() -> None:
    """Write four calls of a run to ``token_logs``."""
    counter = TokenCounter()
    with counter.run("nightly", tags={"team": "search"}):
        make_call(prompt=3, completion=4)
        make_call(prompt=5, completion=6)
        make_call(embedding=7)
        make_call(outcome=Outcome.FAILED)
    counter.close()


def readers_own(server: LoopbackServer, page: str) -> dict[str, Any]:
    """Return what the programs of a page take for granted, and import no framework for those that take nothing."""
    words = set(re.findall(r"\w+", " ".join(block.text for block in blocks("python", page=page) if block.is_run)))
    messages = [{"role": "user", "content": "When does it open?"}]
    made: dict[str, Callable[[], Any]] = {
        "index": lambda: _index(server),
        "messages": lambda: messages,
        "questions": lambda: ["When does it open?", "When does it close?"],
        "ask": lambda: (
            lambda question: _litellm().completion(model="gpt-4o", messages=[{"role": "user", "content": question}])
        ),
        "litellm": _litellm,
        "response": lambda: _response(server, messages),
        "tokenizer": _tokenizer,
    }
    return {name: make() for name, make in made.items() if name in words}


def _litellm() -> Any:
    import litellm

    return litellm


def _tokenizer() -> Any:
    import tiktoken

    return tiktoken.get_encoding("cl100k_base")


def _response(server: LoopbackServer, messages: list[dict[str, str]]) -> Any:
    import httpx

    client = httpx.Client()
    asked = {"model": "gpt-4o", "messages": messages, "stream": True}
    return client.send(client.build_request("POST", f"{server.base_url}/chat/completions", json=asked), stream=True)


def _index(server: LoopbackServer) -> Any:
    from llama_index.core import Document, Settings, VectorStoreIndex
    from llama_index.embeddings.openai import OpenAIEmbedding
    from llama_index.llms.openai import OpenAI

    Settings.llm = OpenAI(model="gpt-4o", api_base=server.base_url)
    embedding = OpenAIEmbedding(api_base=server.base_url)
    return VectorStoreIndex.from_documents([Document(text="It opens at nine.")], embed_model=embedding)


def output_of(block: Block, names: dict[str, Any]) -> str:
    """Run a block, which may await, and return what it printed."""
    with redirect_stdout(io.StringIO()) as printed:
        code = compile(block.text, block.place, "exec", flags=PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, names)
        if inspect.isawaitable(result):
            asyncio.run(result)  # type: ignore[arg-type]
    return printed.getvalue()


def main(page: str) -> None:
    """Run the page."""
    write_logs()
    for table in blocks("toml", page=page):
        Path("prices.toml").write_text(table.text, encoding="utf-8")
    with LoopbackServer(tokens=CountedTokens()) as server:
        os.environ |= {"OPENAI_API_BASE": server.base_url, "OPENAI_API_KEY": "sk-loopback"}
        names = readers_own(server, page)
        server.clear()
        told = []
        for block in blocks("python", page=page):
            if block.is_run:
                output = output_of(block, names)
                totals = server.ledger_totals()
                llm = totals.prompt_tokens + totals.completion_tokens
                told.append({"place": block.place, "output": output, "billed": llm})
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
