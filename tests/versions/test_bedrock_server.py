"""The fake Bedrock speaks Bedrock: Amazon's own client reads from it what its ledger says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from loopback_server import CANNED, Figures

from .bedrock_server import BedrockServer, frame

boto3 = pytest.importorskip("boto3", reason="the fake is checked with Amazon's own client")

CLAUDE = "anthropic.claude-3-5-sonnet-20240620-v1:0"
CACHED = Figures(prompt_tokens=24, completion_tokens=3, cache_read_tokens=13, cache_write_tokens=7)
CONVERSE_USAGE = {
    "inputTokens": 4,
    "outputTokens": 3,
    "totalTokens": 27,
    "cacheReadInputTokens": 13,
    "cacheWriteInputTokens": 7,
}
ASKED = {"modelId": CLAUDE, "messages": [{"role": "user", "content": [{"text": "Write Hi"}]}]}


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Give Amazon's client of a server whose chats read from and write to the cache."""
    with BedrockServer(chat=CACHED) as server:
        yield boto3.client(
            "bedrock-runtime",
            endpoint_url=server.url,
            region_name="us-east-1",
            aws_access_key_id="loopback",
            aws_secret_access_key="loopback",
        )


def _invoked(client: Any, model: str, **body: Any) -> tuple[dict[str, Any], dict[str, str]]:
    answer = client.invoke_model(modelId=model, body=json.dumps(body))
    return json.loads(answer["body"].read()), answer["ResponseMetadata"]["HTTPHeaders"]


def test_a_frame_is_what_botocore_parses() -> None:
    """Lengths, checksums and headers of a frame pass botocore's own parser, which checks each."""
    from botocore.eventstream import EventStreamBuffer

    buffer = EventStreamBuffer()
    buffer.add_data(frame({"role": "assistant"}, event="messageStart"))
    [event] = list(buffer)

    assert b'{"role": "assistant"}' == event.payload
    assert {":event-type": "messageStart", ":content-type": "application/json", ":message-type": "event"} == (
        event.headers
    )


def test_converse_tells_its_usage_in_the_answer(client: Any) -> None:
    """A Converse answer has text and usage, with the cache told apart from the input."""
    answer = client.converse(**ASKED)

    assert [{"text": CANNED}] == answer["output"]["message"]["content"]
    assert CONVERSE_USAGE == answer["usage"]


def test_a_converse_stream_tells_its_usage_in_the_metadata(client: Any) -> None:
    """The last event of a Converse stream is ``metadata``, with the usage that a plain answer has."""
    *events, last = client.converse_stream(**ASKED)["stream"]
    texts = [event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event]

    assert CANNED == "".join(texts)
    assert CONVERSE_USAGE == last["metadata"]["usage"]


def test_invoke_tells_its_usage_in_the_answer_and_in_headers(client: Any) -> None:
    """A Claude answer has Anthropic's usage in its body, and the same figures in Bedrock's headers."""
    answer, headers = _invoked(client, CLAUDE, anthropic_version="bedrock-2023-05-31")
    told = {name: headers[f"x-amzn-bedrock-{name}-token-count"] for name in ("input", "output", "cache-read-input")}

    assert {
        "input_tokens": 4,
        "output_tokens": 3,
        "cache_read_input_tokens": 13,
        "cache_creation_input_tokens": 7,
    } == answer["usage"]
    assert {"input": "4", "output": "3", "cache-read-input": "13"} == told


def test_an_invoke_stream_tells_its_usage_at_both_ends(client: Any) -> None:
    """Chunks hold Anthropic's events; the last one adds Bedrock's own metrics."""
    body = client.invoke_model_with_response_stream(modelId=CLAUDE, body="{}")["body"]
    first, *_, delta, last = [json.loads(event["chunk"]["bytes"]) for event in body]
    metrics = last["amazon-bedrock-invocationMetrics"]

    assert (4, 13, 3) == (
        first["message"]["usage"]["input_tokens"],
        first["message"]["usage"]["cache_read_input_tokens"],
        delta["usage"]["output_tokens"],
    )
    assert (4, 3, 13, 7) == tuple(
        metrics[name]
        for name in ("inputTokenCount", "outputTokenCount", "cacheReadInputTokenCount", "cacheWriteInputTokenCount")
    )


def test_a_titan_embedding_tells_its_tokens_in_the_answer(client: Any) -> None:
    """Titan's answer has ``inputTextTokenCount``, and the header says the same."""
    answer, headers = _invoked(client, "amazon.titan-embed-text-v2:0", inputText="Write Hi")

    assert (5, "5") == (answer["inputTextTokenCount"], headers["x-amzn-bedrock-input-token-count"])


def test_a_cohere_embedding_tells_its_tokens_in_a_header_alone(client: Any) -> None:
    """Cohere's answer has no figure at all."""
    answer, headers = _invoked(client, "cohere.embed-english-v3", texts=["Write Hi"], input_type="search_query")

    assert {"id", "texts", "embeddings", "response_type"} == set(answer)
    assert "5" == headers["x-amzn-bedrock-input-token-count"]
