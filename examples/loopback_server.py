"""Fake a model provider on 127.0.0.1, true to the wire, with a ledger of what every answer really cost.

The quickstart runs against it without network or key, and the tests take its ledger as the truth that the
package's figures must equal; so nothing here may import `token_callbacks`.

    with LoopbackServer(tokens=CountedTokens()) as server:
        openai.OpenAI(base_url=server.base_url, api_key="any").chat.completions.create(...)
    print(server.ledger_totals())
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import os
import re
import socket
import struct
import threading
import time
import zlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, Literal, Protocol, Self, get_args
from unittest.mock import patch

import msgspec
import tiktoken
import uvicorn
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from tiktoken_ext import openai_public

Json = dict[str, Any]
Endpoint = Literal["chat", "completions", "responses", "embeddings", "messages"]
PlainUsage = Literal["sent", "absent", "zero", "null"]
StreamUsage = Literal["asked", "never", "always_last", "finish_chunk", "every_chunk", "zero", "null", "refused"]

CANNED = "A loopback answer, streamed piece by piece: the library opens at nine, and closes at half past six."
DONE = "[DONE]"
EMBEDDING_DIMENSIONS = 1536


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call of one of the tools that the request offers; `None` as arguments fills the tool's schema."""

    name: str
    arguments: Json | None = None


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What the model says: a text, tool calls, or both."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()

    @property
    def written(self) -> str:
        """Everything the model wrote, as it would tokenize it."""
        return self.text + "".join(call.name + json.dumps(call.arguments) for call in self.calls)


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What one answer costs; prompt includes both cache buckets, completion includes reasoning."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    embedding_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0


class LedgerEntry(Figures, frozen=True, kw_only=True):
    """One request that reached the server; the figures are those of the whole answer, also when it was cut.

    `usage_asked` is true where the request asked for the usage of its stream, `usage_sent` once the true figures went
    over the wire, `completed` once the whole answer did; `chunks_sent` counts the events of a stream. A
    refused request (status other than 200) costs nothing.
    """

    endpoint: Endpoint
    model: str
    streamed: bool
    status: int = 200
    response_id: str | None = None
    usage_asked: bool = False
    usage_sent: bool = False
    completed: bool = False
    chunks_sent: int = 0


class LedgerTotals(Figures, frozen=True, kw_only=True):
    """The sums over a ledger."""

    requests: int = 0


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """One request with the reply it gets; `number` counts from 1 and is the request's own."""

    number: int
    endpoint: Endpoint
    body: Json
    reply: Reply
    response_id: str
    figures: Figures = Figures()

    @property
    def inputs(self) -> list[Any]:
        """The texts (or token lists) of an embedding or text completion request."""
        given = self.body.get("input" if self.endpoint == "embeddings" else "prompt", "")
        if isinstance(given, list) and not (given and isinstance(given[0], int)):
            return given
        return [given]

    @property
    def choices(self) -> int:
        """The number of answers that the request asks for."""
        return (self.body.get("n") or 1) * (len(self.inputs) if self.endpoint == "completions" else 1)


class Tokens(Protocol):
    """Where the figures of an answer come from."""

    def figures(self, exchange: Exchange) -> Figures:
        """Return what this exchange costs."""


class InventedTokens:
    """Give every request figures of its own, which no local count can hit by accident."""

    def __init__(self, *, details: bool = False) -> None:
        self._details = details

    def figures(self, exchange: Exchange) -> Figures:
        """Return figures that follow from the request's number."""
        number = exchange.number
        if exchange.endpoint == "embeddings":
            return Figures(embedding_tokens=5000 + 11 * number)
        invented = Figures(prompt_tokens=1000 + 7 * number, completion_tokens=100 + 3 * number)
        if not self._details:
            return invented
        cache_write = 13 + number if exchange.endpoint == "messages" else 0
        reasoning = 0 if exchange.endpoint == "messages" else 5 + number
        return msgspec.structs.replace(
            invented, cache_read_tokens=17 + number, cache_write_tokens=cache_write, reasoning_tokens=reasoning
        )


class CountedTokens:
    """Count as OpenAI does, with the vocabulary that tiktoken has for the model, o200k_base where it has none.

    The overhead of chat messages is the cookbook's; what tools cost is not published, so theirs is a figure of our own.
    https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken
    """

    def __init__(self) -> None:
        with patch.dict(os.environ, TIKTOKEN_CACHE_DIR=str(_vocabulary_folder())):
            known = (openai_public.o200k_base(), openai_public.cl100k_base(), openai_public.p50k_base())
        # Not tiktoken.get_encoding: its registry would lend our vocabularies to the code under test.
        self._encodings = {parts["name"]: tiktoken.Encoding(**parts) for parts in known}

    def figures(self, exchange: Exchange) -> Figures:
        """Return the count of the request and of what the model writes."""
        length = partial(_length, self._encoding(str(exchange.body.get("model"))))
        if exchange.endpoint == "embeddings":
            return Figures(embedding_tokens=sum(map(length, exchange.inputs)))
        if exchange.endpoint == "completions":
            prompt = sum(map(length, exchange.inputs))
        else:
            messages = _messages(exchange.body)
            prompt = 3 + sum(_message_length(message, length=length) for message in messages)
            prompt += length(exchange.body.get("tools"))
        return Figures(prompt_tokens=prompt, completion_tokens=length(exchange.reply.written) * exchange.choices)

    def _encoding(self, model: str) -> tiktoken.Encoding:
        with suppress(KeyError):
            return self._encodings[tiktoken.encoding_name_for_model(model)]
        return self._encodings["o200k_base"]


def _message_length(message: Json, *, length: Callable[[Any], int]) -> int:
    name, content = message.get("name"), message.get("content", message.get("output"))
    texts = [part.get("text") or part for part in content] if isinstance(content, list) else [content]
    return 3 + (1 if name else 0) + sum(map(length, (message.get("role"), *texts, name, message.get("tool_calls"))))


def _length(encoding: tiktoken.Encoding, written: Any) -> int:
    """Return the tokens of a text, of a list that holds tokens already, or of anything else as JSON."""
    if isinstance(written, list) and all(isinstance(token, int) for token in written):
        return len(written)
    text = written if isinstance(written, str) else json.dumps(written)
    return len(encoding.encode_ordinary(text)) if written else 0


def _vocabulary_folder() -> Path:
    """Return the folder inside LiteLLM, not imported for it, where tiktoken finds its files without network."""
    spec = find_spec("litellm")
    if spec is None or spec.origin is None:
        raise ImportError("CountedTokens reads the vocabularies inside litellm: pip install 'token-callbacks[litellm]'")
    folder = Path(spec.origin).parent / "litellm_core_utils" / "tokenizers"
    if not folder.is_dir():  # tiktoken would turn to the network without a word
        raise ImportError(
            f"found no vocabularies in {folder}: does another package named litellm come first on sys.path?"
        )
    return folder


Replies = Callable[[Json], str | Reply | None]


def reply_to(body: Json, *, replies: Replies | None = None) -> Reply:
    """Decide what the model says to a request of any endpoint that has a language model behind it.

    A `Reply` of the script is taken as it stands; a string is said when neither a tool call nor JSON is due.
    """
    scripted = replies(body) if replies else None
    tools = {tool["name"]: tool for tool in map(_bare, body.get("tools") or []) if tool.get("name")}
    if isinstance(scripted, Reply):
        return Reply(text=scripted.text, calls=tuple(_filled(call, tools=tools) for call in scripted.calls))
    if tools and (name := _due_tool(body, tools=tools)):
        return Reply(calls=(_filled(ToolCall(name=name), tools=tools),))
    if (schema := _answer_schema(body)) is not None:
        return Reply(text=json.dumps(example_of(schema)))
    return Reply(text=CANNED if scripted is None else scripted)


def example_of(schema: Json, *, root: Json | None = None) -> Any:
    """Return the smallest value that conforms to a JSON schema of the kinds that tools use."""
    root = schema if root is None else root
    follow = partial(example_of, root=root)
    if reference := schema.get("$ref"):
        target: Any = root
        for step in reference.removeprefix("#").strip("/").split("/"):
            target = target[step] if step else target
        return follow(target)
    for fixed in ("const", "default"):
        if fixed in schema:
            return schema[fixed]
    for several in ("enum", "anyOf", "oneOf", "allOf"):
        if several in schema:
            return schema["enum"][0] if several == "enum" else follow(schema[several][0])
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {name: follow(schema["properties"][name]) for name in schema.get("required", ())}
    if kind == "array":
        return [follow(schema.get("items", {})) for _ in range(schema.get("minItems", 1))]
    lowest = schema.get("minimum", 7)
    return {"string": "loopback", "integer": lowest, "number": lowest + 0.5, "boolean": True, "null": None}[kind]


def _due_tool(body: Json, *, tools: Json) -> str | None:
    """Return the tool that the request forces, or the first one as long as none has been answered."""
    choice = body.get("tool_choice") or "auto"
    forced = _bare(choice) if isinstance(choice, dict) else {"type": choice}
    if name := forced.get("name"):
        return str(name)
    if forced["type"] == "none" or (forced["type"] == "auto" and _has_tool_result(_messages(body))):
        return None
    return next(iter(tools))


def _has_tool_result(messages: list[Json]) -> bool:
    """Tell if a tool has answered since the user last spoke."""
    for message in reversed(messages):
        content = message.get("content")
        parts = [part.get("type") for part in content if isinstance(part, dict)] if isinstance(content, list) else []
        if message.get("role") == "tool" or message.get("type") == "function_call_output" or "tool_result" in parts:
            return True
        if message.get("role") == "user":
            return False
    return False


def _messages(body: Json) -> list[Json]:
    given = body.get("messages", body.get("input")) or []
    system = [{"role": "system", "content": text} for key in ("system", "instructions") if (text := body.get(key))]
    return system + ([{"role": "user", "content": given}] if isinstance(given, str) else given)


def _bare(tool: Json) -> Json:
    """Return a tool, or a choice of one, without the wrapping that the chat endpoint puts around it."""
    bare: Json = tool.get("function", tool)
    return bare


def _filled(call: ToolCall, *, tools: Json) -> ToolCall:
    tool = tools.get(call.name, {})
    schema = tool.get("parameters") or tool.get("input_schema") or {"type": "object"}
    return call if call.arguments is not None else ToolCall(name=call.name, arguments=example_of(schema))


def _answer_schema(body: Json) -> Json | None:
    settings: Json = body.get("text") or body.get("output_config") or {}  # of Responses, of Messages
    wanted: Json = body.get("response_format") or settings.get("format") or {}
    if wanted.get("type") == "json_object":
        return {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
    schema: Json | None = wanted.get("json_schema", wanted).get("schema")
    return schema


def pieces_of(text: str) -> list[str]:
    """Cut a text as models stream it: words with the space before them, long ones in two or more."""
    return re.findall(r"\s*\S{1,8}|\s+", text)


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One server-sent event; `tells_usage` marks the one after which the client knows the true figures."""

    data: Json | str
    name: str | None = None
    tells_usage: bool = False

    @property
    def wire(self) -> ServerSentEvent:
        """The event as sse-starlette sends it."""
        data = self.data if isinstance(self.data, str) else json.dumps(self.data)
        return ServerSentEvent(data, event=self.name)


def told(usage: Json, *, mode: PlainUsage) -> Json:
    """Return the `usage` key of a payload as the mode wants it, or no key at all."""
    written: dict[PlainUsage, Json] = {"sent": {"usage": usage}, "zero": {"usage": _zeroed(usage)}}
    written |= {"null": {"usage": None}, "absent": {}}
    return written[mode]


def _zeroed(usage: Json) -> Json:
    return {key: _zeroed(value) if isinstance(value, dict) else 0 for key, value in usage.items()}


def _named(data: Json, *, tells_usage: bool = False) -> Event:
    return Event(name=data["type"], data=data, tells_usage=tells_usage)


class Dialect:
    """An endpoint's wire format: the payload of a plain answer, and the events of a streamed one."""

    endpoint: Endpoint
    id_prefix: str

    def payload(self, exchange: Exchange, *, usage: PlainUsage) -> Json:
        """Return the body of the plain answer."""
        raise NotImplementedError

    def events(self, exchange: Exchange, *, usage: StreamUsage) -> Iterator[Event]:
        """Yield what the stream consists of."""
        raise NotImplementedError

    def error(self, status: int) -> Json:
        """Return the body of a refusal."""
        kind = {401: "invalid_api_key", 429: "rate_limit_exceeded"}.get(status, "server_error")
        return {"error": {"message": f"loopback fault {status}", "type": kind, "param": None, "code": kind}}


class OpenAIDialect(Dialect):
    """What chat and text completions share: the usage object, and where a stream puts it."""

    kind: str

    def usage(self, figures: Figures, *, written: float = 1.0) -> Json:
        """Return the usage object once this part (0 to 1) of the completion is written."""
        completion = math.floor(figures.completion_tokens * written)
        usage: Json = {"prompt_tokens": figures.prompt_tokens, "completion_tokens": completion}
        usage["total_tokens"] = figures.prompt_tokens + completion
        if figures.cache_read_tokens or figures.reasoning_tokens:
            usage["prompt_tokens_details"] = {"cached_tokens": figures.cache_read_tokens}
            reasoning = math.floor(figures.reasoning_tokens * written)
            usage["completion_tokens_details"] = {"reasoning_tokens": reasoning}
        return usage

    def head(self, exchange: Exchange, *, kind: str) -> Json:
        """Return the keys with which each payload and each chunk opens."""
        return {
            "id": exchange.response_id,
            "object": kind,
            "created": int(time.time()),
            "model": exchange.body.get("model"),
        }

    def chunked(self, exchange: Exchange, *, usage: StreamUsage, kind: str, chunks: list[Json]) -> Iterator[Event]:
        """Yield one event for each choice fragment, with the usage where the mode puts it, and the end mark."""
        head = self.head(exchange, kind=kind)
        full = self.usage(exchange.figures)
        asked = usage == "asked" and bool((exchange.body.get("stream_options") or {}).get("include_usage"))
        for position, choice in enumerate(chunks):
            finishes = position == len(chunks) - 1
            key: Json = {"usage": None} if asked or usage == "null" else {}
            if usage == "every_chunk" or (usage == "finish_chunk" and finishes):
                key = {"usage": self.usage(exchange.figures, written=position / (len(chunks) - 1))}
            yield Event(data=head | {"choices": [choice]} | key, tells_usage=finishes and bool(key.get("usage")))
        if asked or usage == "always_last":
            yield Event(data=head | {"choices": [], "usage": full}, tells_usage=True)
        if usage == "zero":
            yield Event(data=head | {"choices": [], "usage": _zeroed(full)})
        yield Event(data=DONE)


class Chat(OpenAIDialect):
    """POST /v1/chat/completions, https://platform.openai.com/docs/api-reference/chat."""

    endpoint: Endpoint = "chat"
    id_prefix = "chatcmpl-"

    def payload(self, exchange: Exchange, *, usage: PlainUsage) -> Json:
        """Return a chat completion."""
        message: Json = {"role": "assistant", "content": exchange.reply.text or None, "refusal": None}
        if calls := self._calls(exchange):
            message["tool_calls"] = calls
        finish = "tool_calls" if calls else "stop"
        choices = [_choice(index, finish=finish, message=message) for index in range(exchange.choices)]
        figures = self.usage(exchange.figures)
        return self.head(exchange, kind="chat.completion") | {"choices": choices} | told(figures, mode=usage)

    def events(self, exchange: Exchange, *, usage: StreamUsage) -> Iterator[Event]:
        """Yield chunks: the role, the fragments of text and calls, and the finish, for each choice."""
        opening = {"role": "assistant", "content": None if exchange.reply.calls else ""}
        deltas = [opening, *({"content": piece} for piece in pieces_of(exchange.reply.text))]
        for index, call in enumerate(self._calls(exchange)):
            arguments = call["function"].pop("arguments")
            deltas.append({"tool_calls": [{"index": index, **call, "function": call["function"] | {"arguments": ""}}]})
            cut = [{"index": index, "function": {"arguments": piece}} for piece in _fragments(arguments)]
            deltas += [{"tool_calls": [fragment]} for fragment in cut]
        finish = "tool_calls" if exchange.reply.calls else "stop"
        numbers = range(exchange.choices)
        chunks = [_choice(number, delta=delta) for delta in deltas for number in numbers]
        chunks += [_choice(number, finish=finish, delta={}) for number in numbers]
        return self.chunked(exchange, usage=usage, kind="chat.completion.chunk", chunks=chunks)

    def _calls(self, exchange: Exchange) -> list[Json]:
        return [
            {
                "id": f"call_{exchange.number}_{index}",
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
            }
            for index, call in enumerate(exchange.reply.calls)
        ]


class Completions(OpenAIDialect):
    """POST /v1/completions, https://platform.openai.com/docs/api-reference/completions."""

    endpoint: Endpoint = "completions"
    id_prefix = "cmpl-"

    def payload(self, exchange: Exchange, *, usage: PlainUsage) -> Json:
        """Return a text completion."""
        text = exchange.reply.text
        choices = [_choice(index, finish="stop", text=text) for index in range(exchange.choices)]
        figures = self.usage(exchange.figures)
        return self.head(exchange, kind="text_completion") | {"choices": choices} | told(figures, mode=usage)

    def events(self, exchange: Exchange, *, usage: StreamUsage) -> Iterator[Event]:
        """Yield the fragments of text and the finish, for each choice."""
        numbers = range(exchange.choices)
        chunks = [_choice(number, text=piece) for piece in pieces_of(exchange.reply.text) for number in numbers]
        chunks += [_choice(number, finish="stop", text="") for number in numbers]
        return self.chunked(exchange, usage=usage, kind="text_completion", chunks=chunks)


def _choice(index: int, *, finish: str | None = None, **said: Any) -> Json:
    return {"index": index, **said, "logprobs": None, "finish_reason": finish}


def _fragments(arguments: str) -> list[str]:
    return [arguments[start : start + 9] for start in range(0, len(arguments), 9)]


class Responses(Dialect):
    """POST /v1/responses, https://platform.openai.com/docs/api-reference/responses."""

    endpoint: Endpoint = "responses"
    id_prefix = "resp_"

    def payload(self, exchange: Exchange, *, usage: PlainUsage) -> Json:
        """Return a completed response."""
        figures = exchange.figures
        full = {
            "input_tokens": figures.prompt_tokens,
            "input_tokens_details": {"cached_tokens": figures.cache_read_tokens},
            "output_tokens": figures.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": figures.reasoning_tokens},
            "total_tokens": figures.prompt_tokens + figures.completion_tokens,
        }
        done = {"status": "completed", "output": self._items(exchange)}
        return self._head(exchange) | done | told(full, mode=usage)

    def events(self, exchange: Exchange, *, usage: StreamUsage) -> Iterator[Event]:
        """Yield the response's events, numbered; the usage stands in the last one."""
        final = self.payload(exchange, usage=_always_told(usage))
        opened = self._head(exchange) | {"status": "in_progress", "output": [], "usage": None}
        bare: list[Json] = [{"type": f"response.{step}", "response": opened} for step in ("created", "in_progress")]
        for index, item in enumerate(final["output"]):
            bare += self._item_events(item, index=index)
        bare.append({"type": "response.completed", "response": final})
        for number, data in enumerate(bare):
            tells = usage not in ("never", "zero", "null") and number == len(bare) - 1
            yield _named(data | {"sequence_number": number}, tells_usage=tells)

    def _head(self, exchange: Exchange) -> Json:
        asked = {key: exchange.body.get(key) for key in ("model", "instructions", "temperature", "top_p")}
        fixed: Json = {"error": None, "incomplete_details": None, "metadata": {}, "parallel_tool_calls": True}
        tools = {"tool_choice": "auto", "tools": exchange.body.get("tools") or []}
        return (
            {"id": exchange.response_id, "object": "response", "created_at": int(time.time())} | asked | fixed | tools
        )

    def _items(self, exchange: Exchange) -> list[Json]:
        number, reply = exchange.number, exchange.reply
        items: list[Json] = []
        if reply.text:
            part = {"type": "output_text", "text": reply.text, "annotations": [], "logprobs": []}
            items.append({"type": "message", "id": f"msg_{number}", "role": "assistant", "content": [part]})
        for index, call in enumerate(reply.calls):
            ids = {"id": f"fc_{number}_{index}", "call_id": f"call_{number}_{index}"}
            arguments = json.dumps(call.arguments)
            items.append({"type": "function_call", **ids, "name": call.name, "arguments": arguments})
        return [item | {"status": "completed"} for item in items]

    def _item_events(self, item: Json, *, index: int) -> Iterator[Json]:
        is_call = item["type"] == "function_call"
        empty: Json = {"arguments": ""} if is_call else {"content": []}
        begun = item | {"status": "in_progress"} | empty
        place = {"item_id": item["id"], "output_index": index}
        yield {"type": "response.output_item.added", "output_index": index, "item": begun}
        if is_call:
            kind, whole = "response.function_call_arguments", {"arguments": item["arguments"], "name": item["name"]}
            yield from ({"type": f"{kind}.delta", **place, "delta": cut} for cut in _fragments(item["arguments"]))
            yield {"type": f"{kind}.done", **place, **whole}
        else:
            [part] = item["content"]
            place["content_index"] = 0
            yield {"type": "response.content_part.added", **place, "part": part | {"text": ""}}
            yield from (
                {"type": "response.output_text.delta", **place, "delta": cut, "logprobs": []}
                for cut in pieces_of(part["text"])
            )
            yield {"type": "response.output_text.done", **place, "text": part["text"], "logprobs": []}
            yield {"type": "response.content_part.done", **place, "part": part}
        yield {"type": "response.output_item.done", "output_index": index, "item": item}


class Embeddings(Dialect):
    """POST /v1/embeddings, https://platform.openai.com/docs/api-reference/embeddings."""

    endpoint: Endpoint = "embeddings"
    id_prefix = ""

    def payload(self, exchange: Exchange, *, usage: PlainUsage) -> Json:
        """Return a vector for each input, as floats or as base64 of little-endian float32."""
        size = exchange.body.get("dimensions") or EMBEDDING_DIMENSIONS
        vectors: list[Any] = [embedding_of(str(text), dimensions=size) for text in exchange.inputs]
        if exchange.body.get("encoding_format") == "base64":
            vectors = [base64.b64encode(struct.pack(f"<{size}f", *vector)).decode() for vector in vectors]
        rows = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
        figures = dict.fromkeys(("prompt_tokens", "total_tokens"), exchange.figures.embedding_tokens)
        return {"object": "list", "data": rows, "model": exchange.body.get("model")} | told(figures, mode=usage)


def embedding_of(text: str, *, dimensions: int) -> list[float]:
    """Return a unit vector in which texts with the same words are near, so that retrieval means something."""
    vector = [0.0] * dimensions
    for word in re.findall(r"\w+", text.lower()) or [""]:
        vector[zlib.crc32(word.encode()) % dimensions] += 1.0
    norm = math.hypot(*vector)
    return [value / norm for value in vector]


class Messages(Dialect):
    """POST /v1/messages, https://docs.anthropic.com/en/api/messages-streaming."""

    endpoint: Endpoint = "messages"
    id_prefix = "msg_"

    def payload(self, exchange: Exchange, *, usage: PlainUsage) -> Json:
        """Return a message."""
        full = self._input_usage(exchange) | {"output_tokens": exchange.figures.completion_tokens}
        done = {"content": self._blocks(exchange), "stop_reason": self._stop_reason(exchange)}
        return self._head(exchange) | done | told(full, mode=usage)

    def events(self, exchange: Exchange, *, usage: StreamUsage) -> Iterator[Event]:
        """Yield the message's events: input usage in the first, output tokens in the last but one."""
        mode = _always_told(usage)
        first = told(self._input_usage(exchange) | {"output_tokens": 1}, mode=mode)
        yield _named({"type": "message_start", "message": self._head(exchange) | {"content": []} | first})
        for index, block in enumerate(self._blocks(exchange)):
            yield from map(_named, self._block_events(block, index=index))
        delta = {"type": "message_delta", "delta": {"stop_reason": self._stop_reason(exchange), "stop_sequence": None}}
        last = told({"output_tokens": exchange.figures.completion_tokens}, mode=mode)
        yield _named(delta | last, tells_usage=mode == "sent")
        yield _named({"type": "message_stop"})

    def error(self, status: int) -> Json:
        """Return Anthropic's form of a refusal."""
        kind = {401: "authentication_error", 429: "rate_limit_error", 529: "overloaded_error"}.get(status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": f"loopback fault {status}"}}

    def _head(self, exchange: Exchange) -> Json:
        fixed = {"type": "message", "role": "assistant", "stop_reason": None, "stop_sequence": None}
        return {"id": exchange.response_id, "model": exchange.body.get("model")} | fixed

    def _stop_reason(self, exchange: Exchange) -> str:
        return "tool_use" if exchange.reply.calls else "end_turn"

    def _input_usage(self, exchange: Exchange) -> Json:
        figures = exchange.figures
        return {
            "input_tokens": figures.prompt_tokens - figures.cache_read_tokens - figures.cache_write_tokens,
            "cache_creation_input_tokens": figures.cache_write_tokens,
            "cache_read_input_tokens": figures.cache_read_tokens,
        }

    def _blocks(self, exchange: Exchange) -> list[Json]:
        said = [{"type": "text", "text": exchange.reply.text}] if exchange.reply.text else []
        return said + [
            {"type": "tool_use", "id": f"toolu_{exchange.number}_{index}", "name": call.name, "input": call.arguments}
            for index, call in enumerate(exchange.reply.calls)
        ]

    def _block_events(self, block: Json, *, index: int) -> Iterator[Json]:
        empty: Json = {"text": ""} if block["type"] == "text" else {"input": {}}
        yield {"type": "content_block_start", "index": index, "content_block": block | empty}
        yield {"type": "ping"}
        if block["type"] == "text":
            deltas = [{"type": "text_delta", "text": cut} for cut in pieces_of(block["text"])]
        else:
            fragments = ["", *_fragments(json.dumps(block["input"]))]
            deltas = [{"type": "input_json_delta", "partial_json": cut} for cut in fragments]
        yield from ({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas)
        yield {"type": "content_block_stop", "index": index}


def _always_told(usage: StreamUsage) -> PlainUsage:
    """Translate a stream mode for the endpoints that send usage in every stream, unasked."""
    plain: dict[StreamUsage, PlainUsage] = {"never": "absent", "zero": "zero", "null": "null"}
    return plain.get(usage, "sent")


DIALECTS: dict[str, Dialect] = {
    "/v1/chat/completions": Chat(),
    "/v1/completions": Completions(),
    "/v1/responses": Responses(),
    "/v1/embeddings": Embeddings(),
    "/v1/messages": Messages(),
}


class Ledger:
    """Keep one entry a request, from its arrival on; safe to read from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[int, LedgerEntry] = {}

    def open(self, number: int, *, entry: LedgerEntry) -> None:
        """Enter a request."""
        with self._lock:
            self._entries[number] = entry

    def amend(self, number: int, **changes: Any) -> None:
        """Change an entry, unless the ledger was cleared since it was opened."""
        with self._lock:
            if entry := self._entries.get(number):
                self._entries[number] = msgspec.structs.replace(entry, **changes)

    def entries(self) -> list[LedgerEntry]:
        """Return the entries in order of arrival."""
        with self._lock:
            return list(self._entries.values())

    def clear(self) -> None:
        """Forget every entry."""
        with self._lock:
            self._entries.clear()


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """What goes wrong with one request; counts are of events already sent."""

    status: int | None = None
    cut_after: int | None = None
    error_after: int | None = None

    @classmethod
    def from_header(cls, text: str) -> Fault:
        """Read `status=503`, `cut_after=2` or `error_after=2`; ValueError for anything else."""
        kind, _, value = text.partition("=")
        if kind not in cls.__struct_fields__:
            raise ValueError(f"x-loopback-fault is {text!r}, expected one of {cls.__struct_fields__} and =<integer>")
        return cls(**{kind: int(value)})


class StreamCutError(Exception):
    """Makes uvicorn drop the connection in the middle of an answer."""


class Hold:
    """Answers wait here until released.

    `reached` is set once the first one waits, `abandoned` once the server has seen a client of one go away.
    """

    def __init__(self, *, after_chunks: int) -> None:
        self.after_chunks = after_chunks
        self.reached = threading.Event()
        self.abandoned = threading.Event()
        self._released = asyncio.Event()

    async def wait(self) -> None:
        """Wait, on the server's loop, until released."""
        self.reached.set()
        try:
            await self._released.wait()
        except asyncio.CancelledError:
            self.abandoned.set()
            raise

    def release(self, *, loop: asyncio.AbstractEventLoop) -> None:
        """Let every waiting answer go on."""
        loop.call_soon_threadsafe(self._released.set)


class LoopbackServer:
    """A model provider on a free port of 127.0.0.1, served by uvicorn in a thread, for use in a `with`.

    `stream_usage` and `usage` choose where streams and plain answers carry the usage (Responses and Messages have one
    place for it); the request header `x-loopback-usage` overrides both, `x-loopback-fault` asks for a fault.
    """

    def __init__(
        self,
        *,
        tokens: Tokens | None = None,
        replies: Replies | None = None,
        stream_usage: StreamUsage = "asked",
        usage: PlainUsage = "sent",
        constant_id: bool = False,
        chunk_seconds: float = 0.0,
    ) -> None:
        self._tokens = tokens or InventedTokens()
        self._replies = replies
        self._usage: tuple[PlainUsage, StreamUsage] = (usage, stream_usage)
        self._constant_id = constant_id
        self._chunk_seconds = chunk_seconds
        self._ledger = Ledger()
        self._numbers = count(1)
        self._faults: deque[Fault] = deque()
        self._hold: Hold | None = None
        self._started = threading.Event()

    def __enter__(self) -> Self:
        """Listen, and serve from a daemon thread."""
        # asyncio sends small answers at once (TCP_NODELAY) only on sockets that name their protocol: 40 ms an answer.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        routes = [Route(path, partial(self._answer, it), methods=["POST"]) for path, it in DIALECTS.items()]
        app = Starlette(routes=routes, lifespan=self._lifespan)
        config = uvicorn.Config(
            app,
            lifespan="on",
            log_config=None,
            log_level="critical",
            access_log=False,
            timeout_keep_alive=120,  # longer than any client does: who closes first resets the other's next request
            timeout_graceful_shutdown=1,
        )
        self._uvicorn = uvicorn.Server(config)
        serve = partial(self._uvicorn.run, sockets=[listener])
        self._thread = threading.Thread(target=serve, name="loopback-server", daemon=True)
        self._thread.start()
        if not self._started.wait(timeout=30):
            raise RuntimeError("the loopback server did not start within 30 s: see the traceback of its thread above")
        return self

    def __exit__(self, *_: object) -> None:
        """Release what is held, and stop."""
        self._release()
        self._uvicorn.should_exit = True
        self._thread.join()

    @property
    def base_url(self) -> str:
        """The address for OpenAI clients; Anthropic's take `url`, without the /v1."""
        return f"{self.url}/v1"

    @property
    def ledger(self) -> list[LedgerEntry]:
        """The requests so far, in order of arrival; complete as soon as the client has seen its answer's end."""
        return self._ledger.entries()

    def ledger_totals(self) -> LedgerTotals:
        """Return the sums over the ledger, cut and abandoned answers included."""
        entries = self.ledger
        sums = {name: sum(getattr(entry, name) for entry in entries) for name in Figures.__struct_fields__}
        return LedgerTotals(requests=len(entries), **sums)

    def clear(self) -> None:
        """Forget the ledger; the requests' numbers go on."""
        self._ledger.clear()

    def fail_next(
        self,
        *,
        status: int | None = None,
        cut_after: int | None = None,
        error_after: int | None = None,
        times: int = 1,
    ) -> None:
        """Refuse the next requests with a status, or cut or break their streams after so many events."""
        self._faults.extend([Fault(status=status, cut_after=cut_after, error_after=error_after)] * times)

    @contextmanager
    def hold(self, *, after_chunks: int = 0) -> Iterator[Hold]:
        """Hold every answer back while the block runs: before it starts, or streams after so many events."""
        self._hold = Hold(after_chunks=after_chunks)
        try:
            yield self._hold
        finally:
            self._release()

    def _release(self) -> None:
        if hold := self._hold:
            self._hold = None
            hold.release(loop=self._loop)

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self._loop = asyncio.get_running_loop()
        self._started.set()
        yield

    async def _answer(self, dialect: Dialect, request: Request) -> Response:
        try:
            body = await request.json()
            plain_usage, stream_usage = self._modes(request, streamed=bool(body.get("stream")))
            fault = self._fault(request)
            if stream_usage == "refused" and "stream_options" in body:
                fault = Fault(status=400)
        except (ValueError, AttributeError) as error:
            return JSONResponse({"error": {"message": str(error), "type": "invalid_request_error"}}, status_code=400)
        exchange = self._exchange(dialect, body)
        self._open(exchange, status=fault.status or 200)
        if (hold := self._hold) and not hold.after_chunks and await _left_during(hold, request):
            return Response(status_code=499)
        if fault.status:
            # The official clients obey: without it each retry would wait half a second and more.
            return JSONResponse(dialect.error(fault.status), fault.status, {"retry-after-ms": "1", "retry-after": "0"})
        if body.get("stream"):
            events = list(dialect.events(exchange, usage=stream_usage))
            if fault.error_after is not None:
                broken = dialect.error(500)
                events[fault.error_after :] = [Event(name="error", data=broken)]
            return EventSourceResponse(self._stream(exchange.number, events=events, fault=fault), sep="\n")
        payload = json.dumps(dialect.payload(exchange, usage=plain_usage))
        if fault.cut_after is not None:
            return StreamingResponse(_half(payload), media_type="application/json")
        self._ledger.amend(exchange.number, completed=True, usage_sent=plain_usage == "sent")
        return Response(payload, media_type="application/json")

    def _modes(self, request: Request, *, streamed: bool) -> tuple[PlainUsage, StreamUsage]:
        plain, stream = self._usage
        asked: Any = request.headers.get("x-loopback-usage")
        if asked is None:
            return plain, stream
        known = get_args(StreamUsage if streamed else PlainUsage)
        if asked not in known:
            raise ValueError(f"x-loopback-usage is {asked!r}, expected one of {known}")
        return (plain, asked) if streamed else (asked, stream)

    def _fault(self, request: Request) -> Fault:
        if asked := request.headers.get("x-loopback-fault"):
            return Fault.from_header(asked)
        with suppress(IndexError):
            return self._faults.popleft()
        return Fault()

    def _exchange(self, dialect: Dialect, body: Json) -> Exchange:
        number = next(self._numbers)
        bare = Exchange(
            number=number,
            endpoint=dialect.endpoint,
            body=body,
            reply=Reply() if dialect.endpoint == "embeddings" else reply_to(body, replies=self._replies),
            response_id=f"{dialect.id_prefix}{0 if self._constant_id else number}",
        )
        return msgspec.structs.replace(bare, figures=self._tokens.figures(bare))

    def _open(self, exchange: Exchange, *, status: int) -> None:
        figures = exchange.figures if status == 200 else Figures()
        has_id = status == 200 and exchange.endpoint != "embeddings"
        entry = LedgerEntry(
            endpoint=exchange.endpoint,
            model=str(exchange.body.get("model")),
            streamed=bool(exchange.body.get("stream")),
            usage_asked=bool((exchange.body.get("stream_options") or {}).get("include_usage")),
            status=status,
            response_id=exchange.response_id if has_id else None,
            **msgspec.structs.asdict(figures),
        )
        self._ledger.open(exchange.number, entry=entry)

    async def _stream(self, number: int, *, events: list[Event], fault: Fault) -> AsyncIterator[ServerSentEvent]:
        """Send events; the ledger knows of each before its client can."""
        usage_sent = False
        last = max(index for index, event in enumerate(events) if event.data != DONE)
        for index, event in enumerate(events):
            if index == fault.cut_after:
                raise StreamCutError
            if (hold := self._hold) and 0 < hold.after_chunks <= index:
                await hold.wait()
            usage_sent = usage_sent or event.tells_usage
            completed = index >= last and event.name != "error"
            self._ledger.amend(number, chunks_sent=index + 1, usage_sent=usage_sent, completed=completed)
            yield event.wire
            await asyncio.sleep(self._chunk_seconds)


async def _left_during(hold: Hold, request: Request) -> bool:
    """Wait for the release, and tell if the client went away before it."""
    released = asyncio.ensure_future(hold.wait())
    left = asyncio.ensure_future(request.receive())
    await asyncio.wait((released, left), return_when=asyncio.FIRST_COMPLETED)
    for task in (released, left):
        task.cancel()
    return left.done() and not left.cancelled()


def _half(payload: str) -> Iterable[str]:
    yield payload[: len(payload) // 2]
    raise StreamCutError
