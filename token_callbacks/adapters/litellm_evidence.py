"""What LiteLLM shows of one call: the usage, and, where that has to be counted, what was sent and what came back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from token_callbacks.answers import Answer
from token_callbacks.evidence import Completion, Names, Prompt, is_at_limit
from token_callbacks.records import Operation
from token_callbacks.usage import (
    Misfits,
    Reading,
    misfits_in_first,
    misfits_in_stream,
    part,
    read_first,
    read_stream,
)


class LiteLLMEvidence:
    """What LiteLLM shows of one call; filled bit by bit, by whichever hook comes first."""

    __slots__ = ("_options", "chunks", "is_probed", "operation", "raw", "request", "response")

    def __init__(self, operation: Operation, request: Any, options: Any) -> None:
        self.operation = operation
        self.request = request
        """Messages, prompt or input, as the caller passed them."""
        self._options = dict(options) if isinstance(options, dict) else options  # LiteLLM takes out what it has sent
        self.response: Any = None
        self.raw: Any = None
        """The provider's answer, of a call that is not streamed: JSON text, or the object of the provider's SDK."""
        self.is_probed = False
        """Whether all that may have carried usage was seen."""
        self.chunks: list[Any] = []
        """Those of a stream's chunks that carried usage, once it has been probed."""

    def reading(self, operation: Operation) -> Reading | None:
        """Read what the wire carried; a stream that was not probed is read as LiteLLM tells it."""
        if self.is_probed:
            return read_stream(self.chunks, operation)
        return read_first(self._answers(), operation)

    def misfits(self, operation: Operation) -> Misfits:
        """Name what is no count in the usage that was read."""
        if self.is_probed:
            return misfits_in_stream(self.chunks, operation)
        return misfits_in_first(self._answers(), operation)

    def _answers(self) -> Iterator[Any]:
        """Go through what may tell it: LiteLLM's response, which may leave out what the provider's answer tells."""
        yield self.response
        yield from_json(self.raw)

    def rules_out_usage(self) -> bool:
        """Tell whether the stream's chunks were seen and carried none: what others show is then LiteLLM's guess."""
        return self.is_probed

    def has_last_word(self) -> bool:
        """Leave it open."""
        return False

    def prompt(self) -> Prompt | None:
        """Gather the messages or the prompt text, and the tools that were offered."""
        request = self.request
        if isinstance(request, str):
            messages = request if self.operation is Operation.COMPLETION else [{"role": "user", "content": request}]
            return Prompt(messages=messages, **self._offered())
        if self.operation is Operation.COMPLETION and _is_texts(request):
            return Prompt(messages="".join(request))
        sent = [_message(it) for it in _dicts(request)]  # nothing of a prompt that was sent as the ids of its tokens
        return Prompt(messages=sent, **self._offered()) if sent else None

    def _offered(self) -> dict[str, Any]:
        """Gather what a prompt has beside the messages."""
        options = self._options
        return {
            "tools": _dicts(part(options, "tools")),
            "tool_choice": part(options, "tool_choice"),
            "parallel_tool_calls": part(options, "parallel_tool_calls"),
            "response_format": part(options, "response_format"),
            "is_continued": bool(part(options, "previous_response_id") or part(options, "conversation")),
        }

    def completion(self) -> Completion | None:
        """Gather the text and tool calls of all choices, or of the output items of the Responses API."""
        response = self.response
        if response is None:
            response = from_json(self.raw)
        if response is None:
            return None
        choices = part(response, "choices")
        if choices is None:
            return _responses_completion(response) or _messages_completion(response) or _google_completion(response)
        texts: list[str] = []
        tool_calls: list[Any] = []
        for choice in choices:
            message = part(choice, "message")
            told = [part(message, "reasoning_content"), part(message, "content"), part(choice, "text")]
            texts.append("".join(filter(_is_text, told)))
            tool_calls += part(message, "tool_calls") or ()
        return Completion(
            text="".join(texts),
            tool_calls=[_tool_call(call) for call in tool_calls],
            is_at_limit=is_at_limit(response),
            texts=texts if len(texts) > 1 else (),
        )

    def inputs(self) -> Sequence[str | Sequence[int]] | None:
        """Gather what was embedded."""
        request = self.request
        if isinstance(request, str):
            return [request]
        if isinstance(request, list) and request:
            return [request] if isinstance(request[0], int) else request
        return None

    def names(self) -> Names:
        """Tell the response's id and its model, as the provider named them."""
        response = self.response
        response_id = text_of(part(response, "id")) or text_of(part(response, "responseId"))
        return response_id, text_of(part(response, "model")) or text_of(part(response, "modelVersion"))


def request_of(operation: Operation, details: Mapping[str, Any], messages: Any, *, is_mocked: bool) -> Any:
    """Find what is sent for a call in LiteLLM's dict of it and in what it told as the messages."""
    if operation is Operation.EMBEDDING:
        return details.get("input")
    if operation is not Operation.COMPLETION:
        return messages
    # LiteLLM (1.106.2) tells a prompt as messages, also where it is sent as a prompt and not as a chat, or not at all.
    if is_mocked:
        return [part(message, "content") for message in _dicts(messages)] or messages
    prompt = part(part(details.get("additional_args"), "complete_input_dict"), "prompt")
    return messages if prompt is None else prompt


def is_answer(raw: Any) -> bool:
    """Tell whether what LiteLLM passes on as the provider's response is an answer."""
    if isinstance(raw, str):  # an error's text is passed on by the same hook
        return raw.startswith("{") and not raw.startswith('{"error"')
    return any(part(raw, name) is not None for name in ("usage", "choices", "data", "output"))


def from_json(raw: Any) -> Any:
    """Read a text as JSON, ``None`` where it is none; what is no text is returned as it is."""
    if not isinstance(raw, str):
        return raw
    try:
        return json.loads(raw)
    except ValueError:
        return None


def _responses_completion(response: Any) -> Completion | None:
    output = part(response, "output")
    if not isinstance(output, list):
        return None
    texts = [part(content, "text") for item in output for content in part(item, "content") or ()]
    calls = [item for item in output if part(item, "type") == "function_call"]
    return Completion(
        text="".join(filter(_is_text, texts)),
        tool_calls=[_shaped_call(part(call, "name"), part(call, "arguments")) for call in calls],
        is_at_limit=is_at_limit(response),
    )


def _messages_completion(response: Any) -> Completion | None:
    blocks = part(response, "content")
    if not isinstance(blocks, list):
        return None
    texts = [part(block, name) for block in blocks for name in ("thinking", "text")]
    calls = [block for block in blocks if part(block, "type") == "tool_use"]
    return Completion(
        text="".join(filter(_is_text, texts)),
        tool_calls=[_shaped_call(part(call, "name"), part(call, "input")) for call in calls],
        is_at_limit=is_at_limit(response),
    )


def _message(sent: Mapping[str, Any]) -> Mapping[str, Any]:
    """Shape what is sent through Google's own API as OpenAI's is; anything else is that already."""
    parts = sent.get("parts")
    if not isinstance(parts, list):
        return sent
    return {"role": sent.get("role"), "content": "".join(filter(_is_text, (part(it, "text") for it in parts)))}


def _google_completion(response: Any) -> Completion | None:
    answer = Answer()
    answer.take(response)
    completion = answer.completion()
    return None if completion is None or completion.is_empty else completion


def _tool_call(call: Any) -> dict[str, Any]:
    function = part(call, "function")
    return _shaped_call(part(function, "name"), part(function, "arguments"))


def _shaped_call(name: Any, arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def _dicts(values: Any) -> list[Mapping[str, Any]]:
    return [value for value in values if isinstance(value, Mapping)] if isinstance(values, list | tuple) else []


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def text_of(value: object) -> str | None:
    """Return a text that is not empty; ``None`` for anything else."""
    return value if isinstance(value, str) and value else None
