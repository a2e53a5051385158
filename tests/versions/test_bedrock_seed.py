"""The case this package began with: Claude on Bedrock, through LiteLLM, tells the same whether streamed or not.

LiteLLM 1.63.14 reports 1799 and 392 tokens for every Converse stream, whatever it used
(https://github.com/BerriAI/litellm/issues/9577). `python -m tests.versions` runs this file there too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextvars import copy_context
from typing import Any

import litellm
import msgspec
import pytest

from loopback_server import Figures
from token_callbacks import TokenCounter
from token_callbacks.records import CallRecord, Outcome, Provenance, Usage
from token_callbacks.sinks.memory import MemorySink

from .bedrock_server import WRITE_HI, BedrockEntry, BedrockServer

pytest.importorskip("boto3", reason="LiteLLM signs its requests to Bedrock with boto3")

CLAUDE = "anthropic.claude-3-5-sonnet-20240620-v1:0"
PROMPT = [{"role": "user", "content": "Write Hi"}]
CHATS = {
    "write hi": WRITE_HI,
    "cached": Figures(prompt_tokens=24, completion_tokens=3, cache_read_tokens=13, cache_write_tokens=7),
}

each_route = pytest.mark.parametrize("route", ["converse", "invoke"])
plain_and_streamed = pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])


@pytest.fixture(scope="module", params=CHATS)
def serving(request: pytest.FixtureRequest) -> Iterator[BedrockServer]:
    """Serve, with chats that use what ``CHATS`` says."""
    with BedrockServer(chat=CHATS[request.param]) as server:
        yield server


@pytest.fixture
def bedrock(serving: BedrockServer) -> BedrockServer:
    """Give the server, with an empty ledger."""
    serving.clear()
    return serving


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """Give one event loop to all: LiteLLM 1.63.14 keeps async clients, which fail in the next loop."""
    with asyncio.Runner() as runner:
        yield runner


def _here(server: BedrockServer) -> dict[str, str]:
    return {
        "aws_bedrock_runtime_endpoint": server.url,
        "aws_region_name": "us-east-1",
        "aws_access_key_id": "loopback",
        "aws_secret_access_key": "loopback",
    }


def _router(server: BedrockServer, route: str) -> litellm.Router:
    parameters = {"model": f"bedrock/{route}/{CLAUDE}", **_here(server)}
    return litellm.Router(model_list=[{"model_name": "claude", "litellm_params": parameters}], num_retries=0)


async def _ask(router: litellm.Router, *, stream: bool) -> None:
    answer = await router.acompletion("claude", PROMPT, stream=stream)
    if stream:
        async for _ in answer:
            pass


def _ask_sync(router: litellm.Router, *, stream: bool) -> None:
    for _ in router.completion("claude", PROMPT, stream=stream):
        pass


@plain_and_streamed
@each_route
def test_acompletion_is_one_record_with_the_wires_figures(
    *,
    bedrock: BedrockServer,
    runner: asyncio.Runner,
    counter: TokenCounter,
    memory: MemorySink,
    route: str,
    stream: bool,
) -> None:
    """``router.acompletion`` over Bedrock is recorded once, with what Bedrock told, streamed or not."""
    with counter.run("write hi"):
        runner.run(_ask(_router(bedrock, route), stream=stream), context=copy_context())

    _assert_equals_ledger(bedrock, memory, stream=stream)


@plain_and_streamed
@each_route
def test_completion_is_one_record_with_the_wires_figures(
    bedrock: BedrockServer, counter: TokenCounter, memory: MemorySink, route: str, stream: bool
) -> None:
    """``router.completion`` over Bedrock is recorded once, with what Bedrock told, streamed or not."""
    with counter.run("write hi"):
        _ask_sync(_router(bedrock, route), stream=stream)

    _assert_equals_ledger(bedrock, memory, stream=stream)


@each_route
def test_streamed_equals_not_streamed(
    bedrock: BedrockServer, runner: asyncio.Runner, counter: TokenCounter, memory: MemorySink, route: str
) -> None:
    """The same question asked twice, once as a stream, leaves two records with the same usage."""
    router = _router(bedrock, route)

    async def ask_both_ways() -> None:
        await _ask(router, stream=False)
        await _ask(router, stream=True)

    with counter.run("write hi"):
        runner.run(ask_both_ways(), context=copy_context())
    plain, streamed = memory.records

    assert (False, True) == (plain.streamed, streamed.streamed)
    assert plain.usage == streamed.usage
    assert plain.provenance == streamed.provenance


@pytest.mark.parametrize("model", ["amazon.titan-embed-text-v2:0", "cohere.embed-english-v3"])
@pytest.mark.parametrize("texts", [1, 2])
def test_embeddings_add_up_to_the_wires_figures(
    counter: TokenCounter, memory: MemorySink, model: str, texts: int
) -> None:
    """Titan tells its tokens in the answer, one request a text; Cohere in a header alone, one for all texts."""
    with BedrockServer() as server, counter.run("embed") as run:
        litellm.embedding(model=f"bedrock/{model}", input=["Write Hi"] * texts, **_here(server))

    assert sum(entry.embedding_tokens for entry in server.ledger) == run.summary.embedding_tokens
    assert {Provenance.REPORTED} == {record.provenance.weakest for record in memory.records}


def _assert_equals_ledger(server: BedrockServer, memory: MemorySink, *, stream: bool) -> None:
    [entry] = server.ledger
    [record] = memory.records
    assert _truth(entry) == _figures(record)
    assert (stream, stream) == (entry.streamed, record.streamed)
    assert (Outcome.COMPLETED, Provenance.REPORTED) == (record.outcome, record.provenance.weakest)


def _truth(entry: BedrockEntry) -> dict[str, int]:
    return {name: figure for name in Usage.__struct_fields__ if (figure := getattr(entry, name, 0))}


def _figures(record: CallRecord) -> dict[str, Any]:
    return {name: figure for name, figure in msgspec.structs.asdict(record.usage).items() if figure}
