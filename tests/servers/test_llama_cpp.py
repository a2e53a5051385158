"""llama-cpp-python's server (0.3.36) tells the usage of a plain answer, and never that of a stream, even when asked."""

from __future__ import annotations

from typing import Any

import httpx

from token_callbacks import TokenCounter
from token_callbacks.records import CallRecord, Provenance
from token_callbacks.sinks.memory import MemorySink

from .calls import MESSAGES, TOKENS, Ask, each_plain, each_streamed, truth_of
from .conftest import Served


def _figures(record: CallRecord) -> tuple[Any, ...]:
    return record.usage.prompt_tokens, record.usage.completion_tokens, record.provenance.weakest


@each_plain
def test_a_plain_answer_is_reported(llama_cpp: Served, counter: TokenCounter, memory: MemorySink, ask: Ask) -> None:
    """As the server says to one who asks it directly."""
    truth = truth_of(llama_cpp)
    with counter.run("plain"):
        ask(llama_cpp)

    assert [(*truth, Provenance.REPORTED)] == [_figures(record) for record in memory.records]


@each_streamed
def test_a_stream_is_never_reported(llama_cpp: Served, counter: TokenCounter, memory: MemorySink, ask: Ask) -> None:
    """It is one marked estimate, though LiteLLM has figures of its own for it."""
    with counter.run("streamed"):
        ask(llama_cpp)

    [record] = memory.records
    assert Provenance.ESTIMATED is record.provenance.weakest
    assert None not in (record.usage.prompt_tokens, record.usage.completion_tokens)


@each_streamed
def test_the_servers_tokenizer_counts_the_text_of_a_stream(
    llama_cpp: Served, counter: TokenCounter, memory: MemorySink, ask: Ask
) -> None:
    """``/extras/tokenize/count`` counts the text of the answer; it knows no templates, so the prompt is estimated."""
    counter.register_tokenizer(f"*{llama_cpp.model}", endpoint=llama_cpp.url)
    with counter.run("streamed"):
        ask(llama_cpp)

    [record] = memory.records
    assert "llama-cpp-python /extras/tokenize/count" in (record.counting_method or "")
    assert Provenance.COUNTED is record.provenance.completion
    said = _counted_by(llama_cpp, _said(llama_cpp)) - _counted_by(llama_cpp, "")
    assert said == record.usage.completion_tokens


def _said(server: Served) -> str:
    body = {"model": server.model, "messages": MESSAGES, "max_tokens": TOKENS, "temperature": 0.0}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).raise_for_status().json()
    return str(answer["choices"][0]["message"]["content"])


def _counted_by(server: Served, text: str) -> int:
    body = {"model": server.model, "input": text}
    return int(httpx.post(f"{server.url}/extras/tokenize/count", json=body).raise_for_status().json()["count"])
