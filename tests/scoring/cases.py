"""Recorded exchanges as what a counter is given: OpenAI-shaped messages, texts that were embedded, an answer.

Only requests and answers are read here; the provider's figures are kept apart, for the comparison.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import msgspec

from tests.corpus.folder import CorpusModules, Exchange
from token_callbacks.counting.models import bare_name
from token_callbacks.evidence import Completion
from token_callbacks.records import Operation
from token_callbacks.wire import WireEvidence

DIRECT = (
    "openai.chat",
    "azure.chat",
    "mistral.chat",
    "cohere.v2_chat",
    "groq.chat",
    "deepseek.chat",
    "openrouter.chat",
)
UNREAD = "not read: "

MEDIA = {
    "sse": "text/event-stream",
    "ndjson": "application/x-ndjson",
    "aws": "application/vnd.amazon.eventstream",
}


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One exchange: what was sent and what came back, and apart from it the figures that the provider told."""

    id: str
    shape: str
    family: str
    generation: str | None
    """Of Claude's: each has a tokenizer, or a way to write, of its own."""
    model: str
    api: str
    messages: list[dict[str, Any]] | str | None
    tools: list[Any]
    response_format: Any
    tool_choice: Any
    parallel_tool_calls: Any
    inputs: list[Any] | None
    completion: Completion | None
    is_at_limit: bool
    at: date | None
    """The day that the answer tells, of OpenAI's and Azure's."""
    is_cited: bool
    """What came back has citations, which are counted and not to be seen."""
    is_continued: bool
    """Some of the prompt stands with the provider, or what was told is not this request's alone."""
    truth: dict[str, int | None]


FAMILIES = (
    ("openai", ("gpt-4", "gpt-3.5", "gpt-35", "chatgpt-4o")),
    ("openai reasoning", ("gpt-5", "o1", "o3", "o4")),
    ("openai", ("text-embedding-ada", "text-embedding-3", "davinci", "babbage")),
    ("claude", ("claude",)),
    ("gemini", ("gemini",)),
    ("mistral", ("mistral", "ministral", "magistral", "codestral", "devstral", "pixtral")),
    ("cohere", ("command", "embed-english", "embed-v4", "embed-multilingual", "cohere")),
    ("llama", ("llama",)),
    ("qwen", ("qwen", "qwq")),
    ("deepseek", ("deepseek",)),
    ("gpt-oss", ("gpt-oss",)),
    ("grok", ("grok",)),
    ("nova", ("nova",)),
)

GENERATIONS = (
    ("2", ("claude-2", "claude-v2", "claude-instant")),
    ("3 to 3.7", ("claude-3",)),
    ("4.7 and later", ("opus-4-7", "opus-4-8", "opus-5", "sonnet-5", "haiku-5")),
    ("4 to 4.6", ("claude",)),
)


def cases(modules: CorpusModules) -> Iterator[Case]:
    """Yield what can be scored: answered requests whose figures are the provider's own and certain."""
    corpus = modules.corpus.Corpus()
    for exchange in corpus.records():
        if exchange["provider_shape"].endswith(("_compact", "count_tokens")):
            continue
        told = exchange["truth_confidence"] in ("exact", "derived")
        if (
            told
            and exchange["request_complete"]
            and isinstance(exchange["request"], dict)
            and exchange["status"] == 200
            and not is_made_up(corpus.body_bytes(exchange))
        ):
            yield case_of(exchange, corpus)


def case_of(exchange: Exchange, corpus: Any) -> Case:
    """Shape one exchange as a case."""
    request = corpus.request(exchange)
    shape, model = exchange["provider_shape"], exchange["response_model"] or exchange["model"] or ""
    api = "responses" if "responses" in shape else "chat"
    embeds = exchange["truth"]["embedding_tokens"] is not None
    reasons = bool(exchange["truth"]["reasoning_tokens"]) or exchange["flags"].get("reasoning", False)
    reasons = reasons or any(name in corpus.body_bytes(exchange) for name in _REASONS)
    completion = None if embeds else _completion(exchange, corpus)
    return Case(
        id=exchange["id"],
        shape=shape,
        family=_family(model, shape),
        generation=next((name for name, starts in GENERATIONS if any(start in model for start in starts)), None),
        model=_named(model, shape),
        api=api,
        messages=None if embeds else _messages(request, api),
        tools=_tools(request),
        response_format=_format(request),
        tool_choice=_tool_choice(request),
        parallel_tool_calls=request.get("parallel_tool_calls"),
        inputs=_inputs(request) if embeds else None,
        completion=completion,
        at=_day(corpus.body_bytes(exchange)),
        is_at_limit=_AT_LIMIT.search(corpus.body_bytes(exchange)) is not None
        or (completion is not None and completion.is_at_limit),
        is_cited=_is_cited(exchange, request, corpus.body_bytes(exchange)),
        is_continued=any(request.get(name) for name in ("previous_response_id", "conversation", "context_management")),
        truth={**exchange["truth"], "reasons": int(reasons)},
    )


def is_made_up(body: bytes) -> bool:
    """Tell whether an answer was written by hand, so that its figures are nobody's count.

    Anthropic's ids are ``msg_01`` and 22 letters and digits; nobody measures a latency of whole tenths of a second and
    figures of whole tens, all three at once, in more than one of 10,000 calls.
    """
    told = _ANTHROPIC_ID.search(body)
    latency, figures = re.search(rb'"latencyMs": ?(\d+)', body), _FIGURES.findall(body)
    is_round = latency is not None and int(latency[1]) % 100 == 0 and len(figures) >= len(("input", "output"))
    return (told is not None and _REAL_ID.fullmatch(told[1]) is None) or (
        is_round and all(int(figure) % 10 == 0 for figure in figures)
    )


def _day(body: bytes) -> date | None:
    told = re.search(rb'"created(?:_at)?": ?(\d{10})\b', body)
    return None if told is None else datetime.fromtimestamp(int(told[1]), UTC).date()


def _is_cited(exchange: Exchange, request: dict[str, Any], body: bytes) -> bool:
    if "cohere" in exchange["provider_shape"]:
        return b"citation" in body or bool(request.get("documents"))
    return _CITED.search(body) is not None


_AT_LIMIT = re.compile(
    rb'"(?:finish_?reason|stop_?reason)": ?"(?:length|max_tokens|max_output_tokens|model_length)"', re.IGNORECASE
)
_REASONS = (b'"redacted_thinking"', b'"reasoning.text"')
_ANTHROPIC_ID = re.compile(rb'"id": ?"(msg_[^"]*)", ?"type": ?"message", ?"role": ?"assistant", ?"(?:model|content)"')
_REAL_ID = re.compile(rb"msg_(?:bdrk_|vrtx_)?01[A-Za-z0-9]{22}")
_FIGURES = re.compile(rb'"(?:inputTokens|outputTokens)": ?(\d+)')
# Anthropic's, in streams and whole answers, and Bedrock's.
_CITED = re.compile(rb'"citations_delta"|"citations": ?\[ ?\{|"citationsContent"|"citation":')


def _named(model: str, shape: str) -> str:
    # As LiteLLM's users write it: behind Azure the same model counts its answers otherwise.
    provider = shape.partition(".")[0]
    return f"{provider}/{model}" if provider in ("azure", "openrouter", "vercel_gateway", "braintrust_proxy") else model


def _family(model: str, shape: str) -> str:
    name = bare_name(model).rpartition("/")[2]
    for family, starts in FAMILIES:
        if any(start in name if not family.startswith("openai") else name.startswith(start) for start in starts):
            if family.startswith("openai") and shape.split(".", maxsplit=1)[0] not in ("openai", "azure"):
                return f"{family} (elsewhere)"
            return family
    return "other"


# --- requests


def _messages(request: dict[str, Any], api: str) -> list[dict[str, Any]] | str | None:
    if "contents" in request:
        return _gemini_messages(request)
    if "messages" in request:
        return [*_system(request.get("system")), *(part for each in request["messages"] for part in _message(each))]
    if api == "responses" and "input" in request:
        items = request["input"]
        head = [{"role": "system", "content": request["instructions"]}] if request.get("instructions") else []
        return [*head, *([{"role": "user", "content": items}] if isinstance(items, str) else items)]
    if isinstance(request.get("message"), str):  # Cohere v1
        history = [
            {"role": _COHERE.get(str(each.get("role")), "user"), "content": each.get("message")}
            for each in request.get("chat_history") or ()
        ]
        head = [{"role": "system", "content": request["preamble"]}] if request.get("preamble") else []
        return [*head, *history, {"role": "user", "content": request["message"]}]
    prompt = request.get("prompt")
    return prompt if isinstance(prompt, str) else None


_COHERE = {"CHATBOT": "assistant", "SYSTEM": "system"}


def _system(told: Any) -> list[dict[str, Any]]:
    if not told:
        return []
    texts = [told] if isinstance(told, str) else [each.get("text", "") for each in told if isinstance(each, dict)]
    return [{"role": "system", "content": "".join(texts)}]


def _message(message: Any) -> list[dict[str, Any]]:
    """Shape a message as OpenAI does; Anthropic's and Bedrock's blocks become calls and results."""
    if not isinstance(message, dict) or not isinstance(message.get("content"), list):
        return [message]
    blocks = [block for block in message["content"] if isinstance(block, dict)]
    texts: list[Any] = []
    calls: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for block in blocks:
        use, result = block.get("toolUse"), block.get("toolResult")
        if block.get("type") == "tool_use" or use is not None:
            call = use or block
            calls.append({"id": call.get("id"), "function": {"name": call.get("name"), "arguments": call.get("input")}})
        elif block.get("type") == "tool_result" or result is not None:
            content = (result or block).get("content")
            inner = content if isinstance(content, list) else [{"text": content}]
            text = "".join(str(each.get("text") or each.get("json") or "") for each in inner if isinstance(each, dict))
            results.append({"role": "tool", "content": text})
        elif block.get("type") == "thinking":
            texts.append({"type": "text", "text": ""})
        else:
            texts.append(block)
    if not calls and not results:
        return [message]
    told = [{**message, "content": texts or None, **({"tool_calls": calls} if calls else {})}] if texts or calls else []
    return [*results, *told]


def _gemini_messages(request: dict[str, Any]) -> list[dict[str, Any]]:
    told = request["contents"] if isinstance(request["contents"], list) else [request["contents"]]
    system = request.get("systemInstruction") or request.get("system_instruction") or {}
    messages = _system(system.get("parts") if isinstance(system, dict) else None)
    for content in told:
        role = "assistant" if content.get("role") == "model" else "user"
        for part in content.get("parts") or ():
            call = part.get("functionCall") or part.get("function_call")
            result = part.get("functionResponse") or part.get("function_response")
            if call is not None:
                function = {"name": call.get("name"), "arguments": call.get("args")}
                messages.append({"role": "assistant", "content": None, "tool_calls": [{"function": function}]})
            elif result is not None:
                text = str(result.get("response"))
                told = [{"type": "text", "text": text}, *result["parts"]] if result.get("parts") else text
                messages.append({"role": "tool", "name": result.get("name"), "content": told})
            elif "text" in part:
                messages.append({"role": role, "content": part["text"]})
            else:
                messages.append({"role": role, "content": [{"type": "image", **part}]})
    return messages


def _tools(request: dict[str, Any]) -> list[Any]:
    config = request.get("toolConfig")
    if isinstance(config, dict) and "tools" in config:
        return list(config["tools"] or ())
    return list(request.get("tools") or request.get("functions") or ())


def _tool_choice(request: dict[str, Any]) -> Any:
    config = request.get("toolConfig")
    if isinstance(config, dict) and "toolChoice" in config:
        return config["toolChoice"]
    return request.get("tool_choice") or request.get("function_call")


def _format(request: dict[str, Any]) -> Any:
    text = request.get("text")
    if isinstance(text, dict) and isinstance(text.get("format"), dict):
        return text["format"]
    generation = request.get("generationConfig")
    if isinstance(generation, dict) and generation.get("responseSchema"):
        return {"type": "json_schema", "json_schema": generation["responseSchema"]}
    told = request.get("output_format") or request.get("output_config") or request.get("outputConfig")
    if isinstance(told, dict) and told.keys() - {"effort"}:  # Anthropic's and Bedrock's
        return {"type": "json_schema", "json_schema": _schema(told)}
    return request.get("response_format")


def _schema(told: dict[str, Any]) -> Any:
    for name in ("format", "textFormat", "structure", "jsonSchema"):
        told = told.get(name, told)
    return told


def _inputs(request: dict[str, Any]) -> list[Any] | None:
    for name in ("input", "texts", "inputText", "inputs"):
        told = request.get(name)
        if isinstance(told, str):
            return [told]
        if isinstance(told, list) and told:
            return [told] if isinstance(told[0], int) else told
    if isinstance(request.get("content"), dict):
        return ["".join(part.get("text", "") for part in request["content"].get("parts") or ())]
    if isinstance(request.get("requests"), list):
        return [text for each in request["requests"] for text in _inputs(each) or ()]
    return None


# --- answers


def _completion(exchange: Exchange, corpus: Any) -> Completion | None:
    evidence = WireEvidence(Operation.CHAT)
    evidence.begin({"content-type": MEDIA.get(exchange["response"]["kind"], "application/json")})
    evidence.take(corpus.body_bytes(exchange))
    evidence.end()
    try:
        told = evidence.completion()
    except ImportError:  # botocore, for Amazon's streams
        return None
    return _whole(corpus.body(exchange)) if told is None else told


def _whole(body: Any) -> Completion | None:
    """Read a whole answer in one of the shapes that streams do not have."""
    if not isinstance(body, dict):
        return None
    blocks = body.get("output") or body.get("content") or body.get("message") or ()
    if isinstance(blocks, dict):
        blocks = blocks.get("message", blocks).get("content") or ()
    if isinstance(body.get("text"), str):
        return Completion(text=body["text"])
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    for block in blocks if isinstance(blocks, list) else ():
        if not isinstance(block, dict):
            continue
        use = block.get("toolUse") or block
        if "toolUse" in block or block.get("type") in ("tool_use", "function_call", "server_tool_use"):
            arguments = use.get("input", use.get("arguments"))
            calls.append({"function": {"name": use.get("name"), "arguments": arguments}})
        inner = block.get("content") if isinstance(block.get("content"), list) else [block]
        texts += [each.get(name) or "" for each in inner or () for name in ("thinking", "text", "refusal")]
    told = Completion(text="".join(text for text in texts if isinstance(text, str)), tool_calls=calls)
    return None if told.is_empty else told
