"""The places in which integrations leave a provider's usage, and what is in them when something is odd."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from anthropic.types import Message
from litellm import ModelResponseStream
from litellm.types.utils import Usage as LiteLLMUsage
from llama_index.core.llms import AudioBlock, ChatMessage, ChatResponse, DocumentBlock, ImageBlock, TextBlock
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import ResponseCompletedEvent
from pydantic import BaseModel

from loopback_server import InventedTokens
from token_callbacks import TokenCounter
from token_callbacks.adapters.llama_index import _HOLDERS, LlmEvidence
from token_callbacks.evidence import Figures, settle
from token_callbacks.ledger import OpenCall, utc_now
from token_callbacks.records import CallRecord, Operation, Outcome, Provenance, Sources, Usage
from token_callbacks.sinks.memory import MemorySink

from .conftest import BUILDERS, Loopback
from .methods import MESSAGES, TEXT
from .shaped import ANSWER, ShapedLLM

pytestmark = pytest.mark.usefixtures("nothing_left")

Place = tuple[str, ...]
Shape = dict[str, Any]

OPENAI = {"prompt_tokens": 31, "completion_tokens": 7, "total_tokens": 38}
PLAIN = Usage(prompt_tokens=31, completion_tokens=7)
REPORTED = Sources(prompt=Provenance.REPORTED, completion=Provenance.REPORTED)
OURS = (Provenance.COUNTED, Provenance.ESTIMATED)


def _chat_completion() -> Any:
    return ChatCompletion.model_validate(
        {"id": "chatcmpl-3", "object": "chat.completion", "created": 3, "model": "m", "choices": [], "usage": OPENAI}
    )


def _chat_chunk() -> Any:
    head = {"id": "chatcmpl-3", "object": "chat.completion.chunk", "created": 3, "model": "m", "choices": []}
    return ChatCompletionChunk.model_validate(head | {"usage": OPENAI})


def _anthropic_message() -> Any:
    usage = {"input_tokens": 19, "cache_read_input_tokens": 8, "cache_creation_input_tokens": 4, "output_tokens": 7}
    head = {"id": "msg_3", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}
    return dict(Message.model_validate(head | {"stop_reason": "end_turn", "stop_sequence": None}))


def _responses_event() -> Any:
    usage = {
        "input_tokens": 31,
        "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 0},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 38,
    }
    response = {"id": "resp_3", "object": "response", "created_at": 3, "model": "m", "output": [], "usage": usage}
    fixed = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
    return ResponseCompletedEvent.model_validate(
        {"type": "response.completed", "sequence_number": 3, "response": response | fixed}
    )


def _litellm_chunk() -> Any:
    chunk = ModelResponseStream(id="chatcmpl-3", model="m", choices=[])
    chunk._hidden_params = {"usage": LiteLLMUsage(**OPENAI)}
    return chunk


def _openai_chunk_with_hidden_params() -> Any:
    chunk = ChatCompletionChunk.model_construct(id="chatcmpl-3", model="m", choices=[])
    chunk._hidden_params = {"usage": OPENAI}
    return chunk


class _Computing(BaseModel):
    """Has its parts from a method of its own, as wrappers do."""

    def __getattr__(self, name: str) -> Any:
        if name == "_hidden_params":
            return {"usage": OPENAI}
        raise AttributeError(name)


GEMINI = {
    "finish_reason": "STOP",
    "usage_metadata": {"prompt_token_count": 31, "candidates_token_count": 4, "thoughts_token_count": 3},
}
GEMINI_ONLY_THOUGHT = {
    "finish_reason": "MAX_TOKENS",
    "usage_metadata": {"prompt_token_count": 31, "candidates_token_count": None, "thoughts_token_count": 7},
}
BEDROCK_USAGE = {"inputTokens": 19, "outputTokens": 7, "cacheReadInputTokens": 8, "cacheWriteInputTokens": 4}
COHERE_META = {"tokens": {"input_tokens": 31, "output_tokens": 7}, "billed_units": {"input_tokens": 5}}
OLLAMA = {"model": "llama3.2", "done": True, "prompt_eval_count": 31, "eval_count": 7}

REASONED = Usage(prompt_tokens=31, completion_tokens=7, reasoning_tokens=3)
CACHED = Usage(prompt_tokens=31, completion_tokens=7, cache_read_tokens=8, cache_write_tokens=4)

SHAPES: dict[str, tuple[Place, Shape, Usage]] = {
    "OpenAI": (("raw", "usage"), {"raw": _chat_completion}, PLAIN),
    "OpenAI, last chunk": (("raw", "usage"), {"raw": _chat_chunk}, PLAIN),
    "Anthropic": (("raw", "usage"), {"raw": _anthropic_message}, CACHED),
    "Bedrock Converse": (("raw", "usage"), {"raw": {"usage": BEDROCK_USAGE, "stopReason": "end_turn"}}, CACHED),
    "Cohere v2": (("raw", "usage"), {"raw": {"usage": COHERE_META}}, PLAIN),
    "Ollama": (("raw", "usage"), {"raw": OLLAMA | {"usage": OPENAI}}, PLAIN),
    "OpenAIResponses, stream": (
        ("raw", "response", "usage"),
        {"raw": _responses_event},
        Usage(prompt_tokens=31, completion_tokens=7, cache_read_tokens=8, cache_write_tokens=0, reasoning_tokens=3),
    ),
    "Bedrock Converse, stream": (
        ("raw", "metadata", "usage"),
        {
            "raw": {"metadata": {"usage": BEDROCK_USAGE, "metrics": {"latencyMs": 3}}},
            "additional_kwargs": {"prompt_tokens": 19, "completion_tokens": 7, "total_tokens": 26},
        },
        CACHED,
    ),
    "GoogleGenAI": (
        ("raw", "usage_metadata"),
        {"raw": GEMINI, "additional_kwargs": {"prompt_tokens": 31, "completion_tokens": 4, "total_tokens": 38}},
        REASONED,
    ),
    "GoogleGenAI, only thought": (
        ("raw", "usage_metadata"),
        {"raw": GEMINI_ONLY_THOUGHT, "additional_kwargs": {"prompt_tokens": 31, "completion_tokens": None}},
        Usage(prompt_tokens=31, completion_tokens=7, reasoning_tokens=7),
    ),
    "LiteLLM, last chunk": (("raw", "_hidden_params", "usage"), {"raw": _litellm_chunk}, PLAIN),
    "LiteLLM, on an object of another class": (
        ("raw", "_hidden_params", "usage"),
        {"raw": _openai_chunk_with_hidden_params},
        PLAIN,
    ),
    "LiteLLM, in a wrapper": (("raw", "_hidden_params", "usage"), {"raw": _Computing}, PLAIN),
    "usage beside the response": (("additional_kwargs", "usage"), {"additional_kwargs": {"usage": OPENAI}}, PLAIN),
    "usage beside the message": (
        ("message", "additional_kwargs", "usage"),
        {"message_kwargs": {"usage": {"input_tokens": 31, "output_tokens": 7}}},
        PLAIN,
    ),
    "Cohere v1": (("raw", "meta"), {"raw": {"text": ANSWER, "meta": SimpleNamespace(**COHERE_META)}}, PLAIN),
    "Cohere v1, stream": (
        ("raw", "response", "meta"),
        {"raw": {"event_type": "stream-end", "response": SimpleNamespace(meta=SimpleNamespace(**COHERE_META))}},
        PLAIN,
    ),
    "bare Ollama": (("raw",), {"raw": OLLAMA}, PLAIN),
    "figures beside the response": (("additional_kwargs",), {"additional_kwargs": OPENAI}, PLAIN),
}


def _chat(llm: Any) -> str:
    return str(llm.chat(MESSAGES).message.content)


def _stream_chat(llm: Any) -> str:
    return "".join(response.delta for response in llm.stream_chat(MESSAGES))


def _achat(llm: Any) -> str:
    return str(asyncio.run(llm.achat(MESSAGES)).message.content)


def _astream_chat(llm: Any) -> str:
    async def read() -> str:
        return "".join([response.delta async for response in await llm.astream_chat(MESSAGES)])

    return asyncio.run(read())


def _complete(llm: Any) -> str:
    return str(llm.complete(TEXT).text)


def _stream_complete(llm: Any) -> str:
    return "".join(response.delta for response in llm.stream_complete(TEXT))


CHATS: dict[str, Callable[[Any], str]] = {
    "chat": _chat,
    "stream_chat": _stream_chat,
    "achat": _achat,
    "astream_chat": _astream_chat,
}
COMPLETIONS: dict[str, Callable[[Any], str]] = {"complete": _complete, "stream_complete": _stream_complete}
SYNC = {"chat": _chat, "stream_chat": _stream_chat} | COMPLETIONS
"""CustomLLM's async methods call these."""


def test_every_holder_has_a_shape() -> None:
    """A new place in the adapter's table comes with the shape of the integration that leaves an answer there."""
    places = {place for place, _, _ in SHAPES.values()}
    assert [] == [holder for holder in _HOLDERS if not any(place[: len(holder)] == holder for place in places)]


@pytest.mark.parametrize("ask", CHATS.values(), ids=CHATS)
@pytest.mark.parametrize(("place", "shape", "usage"), SHAPES.values(), ids=SHAPES)
def test_usage_is_found_where_the_integration_leaves_it(
    counter: TokenCounter,
    memory: MemorySink,
    *,
    ask: Callable[[Any], str],
    place: Place,
    shape: Shape,
    usage: Usage,
) -> None:
    """A figure that a response carries in any of the known places is the record's, streamed and not."""
    answer, record = _ask(counter, memory, ask, shape)

    assert ANSWER == answer
    assert (usage, REPORTED) == (record.usage, record.provenance)


@pytest.mark.parametrize("ask", COMPLETIONS.values(), ids=COMPLETIONS)
@pytest.mark.parametrize(
    ("place", "shape", "usage"),
    [(place, shape, usage) for place, shape, usage in SHAPES.values() if place[0] != "message"],
    ids=[name for name, (place, _, _) in SHAPES.items() if place[0] != "message"],
)
def test_usage_of_a_completion_is_found_in_the_same_places(
    counter: TokenCounter,
    memory: MemorySink,
    *,
    ask: Callable[[Any], str],
    place: Place,
    shape: Shape,
    usage: Usage,
) -> None:
    """A completion, which has no message, is read like a chat."""
    _, record = _ask(counter, memory, ask, shape)

    assert (usage, REPORTED) == (record.usage, record.provenance)


def test_a_better_place_goes_before_a_worse_one(counter: TokenCounter, memory: MemorySink) -> None:
    """Where usage stands in two places, the provider's own object counts, unless it says nothing but zero."""
    _, record = _ask(
        counter, memory, _chat, {"raw": {"usage": OPENAI}, "additional_kwargs": {"prompt_tokens": 1, "total_tokens": 1}}
    )

    assert PLAIN == record.usage


def test_zeros_in_a_better_place_give_way_to_figures_in_a_worse_one(counter: TokenCounter, memory: MemorySink) -> None:
    """A 0/0 that an integration made up does not hide what stands further down."""
    zeros = dict.fromkeys(OPENAI, 0)
    _, record = _ask(counter, memory, _chat, {"raw": {"usage": zeros}, "additional_kwargs": OPENAI})

    assert (PLAIN, REPORTED) == (record.usage, record.provenance)


class Prickly:
    """An object whose every attribute raises something else than AttributeError."""

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__"):
            return super().__getattribute__(name)
        raise RuntimeError(f"do not touch {name}")


class PricklyMapping(dict[str, Any]):
    """A mapping that does not let itself be read."""

    def get(self, key: str, default: Any = None) -> Any:
        raise RuntimeError(f"do not look up {key}")


def _cyclic() -> dict[str, Any]:
    payload: dict[str, Any] = {"prompt_tokens": -1}
    payload["usage"] = payload["prompt_tokens_details"] = payload
    return payload


BROKEN: dict[str, Any] = {
    "text": "31 tokens",
    "list": [31, 7],
    "number": 38,
    "negative": {"prompt_tokens": -31, "completion_tokens": -7},
    "huge": {"prompt_tokens": 10**30, "completion_tokens": 2**63},
    "fraction": {"prompt_tokens": 31.5, "completion_tokens": 7.5},
    "not a number": {"prompt_tokens": math.nan, "completion_tokens": math.inf},
    "figures as text": {"prompt_tokens": "31", "completion_tokens": "7"},
    "booleans": {"prompt_tokens": True, "completion_tokens": True},
    "nested": {"prompt_tokens": {"text": 31}, "completion_tokens": [7]},
    "cyclic": _cyclic(),
}
UNTOLD: dict[str, Any] = {
    "none": None,
    "unknown keys": {"tokens_in": 31, "tokens_out": 7},
    "empty": {},
    "class": SimpleNamespace,
}
ODD = BROKEN | UNTOLD
HOSTILE: dict[str, Any] = {"prickly object": Prickly(), "prickly mapping": PricklyMapping()}
ODD_PLACES: dict[str, Callable[[Any], Shape]] = {
    "raw": lambda odd: {"raw": lambda: odd},
    "raw.usage": lambda odd: {"raw": lambda: {"usage": odd}},
    "raw.response": lambda odd: {"raw": lambda: SimpleNamespace(response=odd, id=odd, model=odd)},
    "additional_kwargs.usage": lambda odd: {"additional_kwargs": lambda: {"usage": odd}},
    "message.additional_kwargs.usage": lambda odd: {"message_kwargs": lambda: {"usage": odd}},
    "message.additional_kwargs.tool_calls": lambda odd: {"message_kwargs": lambda: {"tool_calls": odd}},
}


@pytest.mark.parametrize("ask", SYNC.values(), ids=SYNC)
@pytest.mark.parametrize("place", ODD_PLACES.values(), ids=ODD_PLACES)
@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_an_odd_payload_never_hurts_and_is_counted_here(
    counter: TokenCounter,
    memory: MemorySink,
    ask: Callable[[Any], str],
    place: Callable[[Any], Shape],
    odd: Any,
) -> None:
    """Whatever stands where usage should stand, the caller gets the answer, and the record our count, marked so."""
    answer, record = _ask(counter, memory, ask, place(odd))

    assert ANSWER == answer
    assert record.provenance.prompt in OURS
    assert record.provenance.completion in OURS
    faults = [summary.internal_errors for summary in memory.summaries.values()]
    assert faults in ([0], [1])
    if odd in UNTOLD.values():
        assert [0] == faults


@pytest.mark.parametrize("ask", [_chat, _stream_chat])
@pytest.mark.parametrize("place", [place for place in ODD_PLACES if place.endswith(".usage")])
@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_broken_usage_is_one_fault_of_its_run(
    counter: TokenCounter, memory: MemorySink, ask: Callable[[Any], str], place: str, broken: Any
) -> None:
    """Where no wire was seen, what LlamaIndex shows is noted, in whichever place."""
    _ask(counter, memory, ask, ODD_PLACES[place](broken))

    assert [1] == [summary.internal_errors for summary in memory.summaries.values()]


@pytest.mark.parametrize("ask", SYNC.values(), ids=SYNC)
@pytest.mark.parametrize("place", ["raw", "raw.usage", "additional_kwargs.usage"])
@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_a_payload_that_raises_is_a_record_of_our_count_or_a_noted_fault(
    counter: TokenCounter, memory: MemorySink, ask: Callable[[Any], str], place: str, hostile: Any
) -> None:
    """A response that raises when it is looked at is counted here, or costs the call its figures, and that is noted."""
    answer, record = _ask(counter, memory, ask, ODD_PLACES[place](hostile))

    assert ANSWER == answer
    is_missing = Provenance.MISSING is record.provenance.weakest
    assert is_missing or record.provenance.weakest in OURS
    assert [is_missing] == [summary.internal_errors > 0 for summary in memory.summaries.values()]


@pytest.mark.parametrize("ask", SYNC.values(), ids=SYNC)
def test_a_usable_figure_beside_an_odd_one_is_kept(
    counter: TokenCounter, memory: MemorySink, ask: Callable[[Any], str]
) -> None:
    """Each figure is judged by itself: a prompt that was told stays told where the completion is nonsense."""
    _, record = _ask(counter, memory, ask, {"raw": {"usage": {"prompt_tokens": 31, "completion_tokens": -7}}})

    assert (31, Provenance.REPORTED) == (record.usage.prompt_tokens, record.provenance.prompt)
    assert record.provenance.completion in OURS


@pytest.mark.parametrize("method", ["chat", "stream_chat", "achat", "astream_chat"])
@pytest.mark.parametrize("integration", ["OpenAI", "OpenAILike(chat)", "OpenAIResponses", "LiteLLM"])
def test_details_are_the_same_streamed_and_not(
    loopback: Loopback,
    details: InventedTokens,
    counter: TokenCounter,
    memory: MemorySink,
    *,
    integration: str,
    method: str,
) -> None:
    """Cached and reasoning tokens are in the record of a stream as in that of a plain answer."""
    server = loopback(tokens=details, stream_usage="always_last")
    with counter.run("details"):
        CHATS[method](BUILDERS[integration](server))

    [entry], [record] = server.ledger, memory.records
    assert (entry.prompt_tokens, entry.completion_tokens, entry.cache_read_tokens, entry.reasoning_tokens) == (
        record.usage.prompt_tokens,
        record.usage.completion_tokens,
        record.usage.cache_read_tokens,
        record.usage.reasoning_tokens,
    )


@pytest.mark.parametrize("method", ["chat", "achat"])
def test_what_anthropic_cached_is_in_the_prompt(
    loopback: Loopback, details: InventedTokens, counter: TokenCounter, memory: MemorySink, method: str
) -> None:
    """Anthropic's input_tokens leave out what was read from and written to the cache; the record's prompt has it."""
    server = loopback(tokens=details)
    with counter.run("cached"):
        CHATS[method](BUILDERS["Anthropic"](server))

    [entry], [record] = server.ledger, memory.records
    assert (entry.prompt_tokens, entry.cache_read_tokens, entry.cache_write_tokens) == (
        record.usage.prompt_tokens,
        record.usage.cache_read_tokens,
        record.usage.cache_write_tokens,
    )


@pytest.mark.parametrize("method", ["stream_chat", "astream_chat"])
def test_what_anthropic_cached_is_in_the_prompt_of_a_stream(
    loopback: Loopback, details: InventedTokens, counter: TokenCounter, memory: MemorySink, method: str
) -> None:
    """A stream's prompt has what was cached, as a plain answer's has."""
    server = loopback(tokens=details)
    with counter.run("cached"):
        CHATS[method](BUILDERS["Anthropic"](server))

    [entry], [record] = server.ledger, memory.records
    assert entry.prompt_tokens == record.usage.prompt_tokens


@pytest.fixture(scope="session")
def details() -> InventedTokens:
    """Give figures with cached and reasoning tokens among them."""
    return InventedTokens(details=True)


def _ask(counter: TokenCounter, memory: MemorySink, ask: Callable[[Any], str], shape: Shape) -> tuple[str, CallRecord]:
    with counter.run("shaped"):
        answer = ask(ShapedLLM(**shape))
    [record] = memory.records
    return answer, record


_CALL = OpenCall(
    framework="llama_index",
    operation=Operation.CHAT,
    provider=None,
    model=None,
    seats=(),
    outer=None,
    started_at=utc_now(),
)


def _evidence_of(raw: Any) -> LlmEvidence:
    response = ChatResponse(message=ChatMessage(role="assistant", content="Hi"), raw=raw)
    return LlmEvidence(start=None, call=_CALL, last=response)


class _Slotted:
    __slots__ = ("id", "model", "usage")

    def __init__(self, **values: Any) -> None:
        for name, value in values.items():
            setattr(self, name, value)


class _Computed:
    """Has its names from properties, as wrappers of other clients' answers do."""

    def __init__(self, **values: Any) -> None:
        self._values = values

    id = property(lambda self: self._values["id"])
    model = property(lambda self: self._values["model"])
    usage = property(lambda self: self._values["usage"])


@pytest.mark.parametrize("kind", [dict, SimpleNamespace, _Slotted, _Computed])
def test_response_is_named_by_an_answer_of_any_class(kind: Callable[..., Any]) -> None:
    """Its id and its model are read from a mapping, an instance, slots and properties."""
    raw = kind(id="chatcmpl-3", model="gpt-4o-2024-08-06", usage=None)

    assert ("chatcmpl-3", "gpt-4o-2024-08-06") == _evidence_of(raw).names()


def test_response_is_named_by_the_last_answer_whoever_told_the_usage() -> None:
    """Also once answers like these were read before, and their names with them: another model has another price."""
    told, last = (
        ChatCompletion.model_construct(id=f"chatcmpl-{model}", model=model, usage=usage)
        for model, usage in (
            ("gpt-4o", CompletionUsage(prompt_tokens=3, completion_tokens=4, total_tokens=7)),
            ("o3", None),
        )
    )
    named = []
    for _ in range(4):
        evidence = _evidence_of(last)
        evidence.previous = ChatResponse(message=ChatMessage(role="assistant", content="Hi"), raw=told)
        figures = settle(Operation.CHAT, None, Outcome.COMPLETED, [evidence])
        assert isinstance(figures, Figures)
        assert 3 == figures.usage.prompt_tokens
        named.append(figures.names or evidence.names())
        settle(Operation.CHAT, None, Outcome.COMPLETED, [_evidence_of(told)])

    assert [("chatcmpl-o3", "o3")] * 4 == named


@pytest.mark.parametrize(
    ("raw", "is_at_limit"),
    [
        ({"choices": [{"finish_reason": "length"}]}, True),
        ({"choices": [{"finish_reason": "stop"}]}, False),
        ({"stop_reason": "max_tokens"}, True),
        ({"stopReason": "end_turn"}, False),
        ({"incomplete_details": {"reason": "max_output_tokens"}}, True),
        ({"response": {"incomplete_details": {"reason": "max_output_tokens"}}}, True),
        ({"response": "Hi", "done_reason": "length"}, True),
        (None, False),
    ],
)
def test_limit_is_read_from_the_raw_response(raw: Any, is_at_limit: bool) -> None:
    """An answer that was stopped at its limit lacks the tokens that end one; the raw response tells."""
    completion = _evidence_of(raw).completion()

    assert completion is not None
    assert is_at_limit is completion.is_at_limit


_PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (28).to_bytes(4, "big") + (56).to_bytes(4, "big")
BLOCKS = {
    "an image": (ImageBlock(image=_PNG), 2833 + 5667),
    "an image of low detail": (ImageBlock(image=_PNG, detail="low"), 2833),
    "an image elsewhere": (ImageBlock(url="https://example.com/a.png"), 2833 + 2 * 5667),
    "a text file": (DocumentBlock(data=b"It opens at nine.", document_mimetype="text/plain"), 5),
    "a page elsewhere": (DocumentBlock(url="https://example.com/a.pdf"), 200 + 737),
    "a sound": (AudioBlock(audio=b"\xff\xfb\x90\x00".ljust(32_000, b"\x00"), format="mp3"), 24),
}


@pytest.mark.parametrize(("block", "tokens"), BLOCKS.values(), ids=BLOCKS)
def test_a_block_beside_text_is_counted_by_what_it_is(
    counter: TokenCounter, memory: MemorySink, block: Any, tokens: int
) -> None:
    """Where nobody tells the usage, an image counts by its size, a file by its pages, a sound by its seconds."""
    with counter.run("shaped"):
        for blocks in ([TextBlock(text="Look!")], [TextBlock(text="Look!"), block]):
            ShapedLLM().chat([ChatMessage(role="user", blocks=blocks)])
    without, with_block = (record.usage.prompt_tokens or 0 for record in memory.records)

    assert tokens == with_block - without
