"""Put together what came back, from the events of a streamed answer or from a whole one, of whatever provider.

Each shape of event is a row of ``_BY_TYPE`` or ``_BY_KEY``. Nothing here raises for what a provider may send.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import msgspec

from token_callbacks.evidence import Completion, is_at_limit, is_limit
from token_callbacks.usage import part


class _Text:
    """A text that comes bit by bit, or all of it so far each time: which of the two, the pieces themselves tell."""

    __slots__ = ("_lengths", "_pieces", "_whole")

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._whole = ""
        self._lengths: list[int] = []

    def append(self, piece: str) -> None:
        """Take the next bit."""
        self._pieces.append(piece)

    def take(self, piece: str) -> None:
        """Take the next bit, or all so far.

        While each piece opens with the one before, it is all so far; the first that does not proves them bits. Two
        bits alike ("ha", "ha") and nothing after pass as one: the text then counts too little, never too much.
        """
        if self._pieces:
            self._pieces.append(piece)
        elif piece.startswith(self._whole):
            self._whole = piece
            self._lengths.append(len(piece))
        elif piece:
            self._pieces = [self._whole[:length] for length in self._lengths]
            self._pieces.append(piece)

    def __str__(self) -> str:
        return "".join(self._pieces) or self._whole


class _Call:
    """A call of a tool, as far as it has come."""

    __slots__ = ("arguments", "id", "name")

    def __init__(self, call_id: str | None) -> None:
        self.id = call_id
        self.name = ""
        self.arguments = _Text()

    def shaped(self) -> dict[str, Any]:
        """Shape it as OpenAI does."""
        return {"type": "function", "function": {"name": self.name, "arguments": str(self.arguments)}}


class Answer:
    """What came back, put together from the events."""

    def __init__(self) -> None:
        self.id: str | None = None
        self.model: str | None = None
        self.is_over = False
        """The last event has come."""
        self.is_cut = False
        """A message has begun that ends with an event of its own, which has not come."""
        self.has_failed = False
        """The stream told an error."""
        self.is_understood = False
        self.has_begun = False
        """Something was understood that is not itself an error."""
        self.is_at_limit = False
        """A choice was stopped at its limit."""
        self.is_refused = False
        """A choice is a refusal of the format that was asked for."""
        self.choices: dict[Hashable, bool] = {}
        """The choices seen, and whether each has its finish reason."""
        self._texts: dict[Hashable, _Text] = {}
        self._slots: dict[Hashable, _Call] = {}
        self._calls: list[_Call] = []

    @property
    def is_whole(self) -> bool:
        """Whether nothing but the usage can still come."""
        return self.is_over or (bool(self.choices) and all(self.choices.values()))

    def take(self, event: Any) -> None:
        """Take the next event."""
        choices = part(event, "choices")
        if isinstance(choices, list | tuple):
            _take_choices(self, choices)
        else:
            self._take_other(event)
        if self.id is None or self.model is None:
            self.name(event)
        if part(event, "error"):
            self.has_failed = True
        elif self.is_understood and part(event, "type") != "error":
            self.has_begun = True

    def _take_other(self, event: Any) -> None:
        kind = part(event, "type")
        reader = _BY_TYPE.get(kind) if isinstance(kind, str) else None
        if reader is not None:
            self.is_understood = True
            reader(self, event)
            return
        for name, read in _BY_KEY.items():
            value = part(event, name)
            if value is not None and read(self, event, value):
                self.is_understood = True
                return

    def name(self, event: Any) -> None:
        """Keep the response's id and model, if the event tells them."""
        for within in (event, part(event, "message"), part(event, "response")):
            if within is None or isinstance(within, str):
                continue
            self.id = self.id or _first_word(within, ("id", "responseId", "response_id", "request_id"))
            self.model = self.model or _first_word(within, ("model", "modelVersion", "model_version"))

    def add(self, key: Hashable, piece: object) -> None:
        """Take the next bit of a text."""
        if isinstance(piece, str) and piece:
            self._text(key).append(piece)

    def grow(self, key: Hashable, piece: object) -> None:
        """Take the next bit of a text, or all of it so far."""
        if isinstance(piece, str):
            self._text(key).take(piece)

    def _text(self, key: Hashable) -> _Text:
        text = self._texts.get(key)
        if text is None:
            text = self._texts[key] = _Text()
        return text

    def call(self, key: Hashable, call_id: object = None) -> _Call:
        """Find the call of a tool that is under way at a place, or make one: another id there is another call."""
        told = call_id if isinstance(call_id, str) and call_id else None
        call = self._slots.get(key)
        if call is None or (told is not None and call.id is not None and told != call.id):
            call = self._slots[key] = self.new_call(told)
        return call

    def new_call(self, call_id: str | None = None) -> _Call:
        """Make a call of a tool that no later event is going on with."""
        call = _Call(call_id)
        self._calls.append(call)
        return call

    def finish(self, choice: Hashable, reason: object) -> None:
        """Note a choice and, if it has one, its finish reason."""
        is_finished = isinstance(reason, str) and reason not in ("", "null")  # DashScope's own API says "null"
        self.choices[choice] = is_finished or self.choices.get(choice, False)
        self.is_at_limit = self.is_at_limit or is_limit(reason)

    def completion(self) -> Completion | None:
        """Gather the text and the calls; ``None`` where nothing was understood."""
        if not self.is_understood:
            return None
        text = "".join(map(str, self._texts.values()))
        calls = [call.shaped() for call in self._calls]
        return Completion(
            text=text,
            tool_calls=calls,
            is_at_limit=self.is_at_limit,
            texts=self._texts_of_choices(),
            is_refused=self.is_refused,
        )

    def _texts_of_choices(self) -> Sequence[str]:
        if len(self.choices) <= 1:
            return ()
        texts = dict.fromkeys(self.choices, "")
        for key, text in self._texts.items():
            choice = key[0] if isinstance(key, tuple) else key
            texts[choice] = texts.get(choice, "") + str(text)
        return list(texts.values())


def _first_word(event: Any, names: Sequence[str]) -> str | None:
    return next((word for name in names if isinstance(word := part(event, name), str) and word), None)


# --- the shapes of events: chat and text completions


def _take_choices(answer: Answer, choices: Sequence[Any]) -> None:
    """Take a chunk in OpenAI's manner, or a whole answer."""
    answer.is_understood = True
    for position, choice in enumerate(choices):
        number = _index(choice, position)
        answer.add((number, "text"), part(choice, "text"))
        delta = part(choice, "delta")
        if delta is not None:
            answer.add((number, "reasoning"), part(delta, "reasoning_content") or part(delta, "reasoning"))
            answer.add((number, "content"), part(delta, "content"))
            _refuse(answer, number, part(delta, "refusal"), answer.add)
            _take_calls(answer, number, delta, _append)
        else:
            _take_whole_message(answer, number, part(choice, "message"))
        answer.finish(number, part(choice, "finish_reason"))


def _take_whole_message(answer: Answer, number: Hashable, message: Any) -> None:
    """Take a message that may hold all of the text so far."""
    if message is not None:
        answer.grow((number, "reasoning"), part(message, "reasoning_content") or part(message, "reasoning"))
        answer.grow((number, "content"), _content_text(part(message, "content")))
        _refuse(answer, number, part(message, "refusal"), answer.grow)
        _take_calls(answer, number, message, _grow)


def _refuse(answer: Answer, number: Hashable, told: object, put: Callable[[Hashable, object], None]) -> None:
    put((number, "refusal"), told)
    answer.is_refused = answer.is_refused or (isinstance(told, str) and told != "")


def _take_calls(answer: Answer, number: Hashable, message: Any, put: Callable[[_Text, str], None]) -> None:
    calls = part(message, "tool_calls")
    for position, told in enumerate(calls if isinstance(calls, list | tuple) else ()):
        call = answer.call((number, _index(told, position)), part(told, "id"))
        _take_function(call, part(told, "function"), put)
    old = part(message, "function_call")
    if old is not None:
        _take_function(answer.call((number, "function_call")), old, put)


def _take_function(call: _Call, function: Any, put: Callable[[_Text, str], None]) -> None:
    name = part(function, "name")
    if isinstance(name, str) and name:
        call.name = name
    arguments = _as_json(part(function, "arguments"))
    if arguments is not None:
        put(call.arguments, arguments)


def _append(text: _Text, piece: str) -> None:
    text.append(piece)


def _grow(text: _Text, piece: str) -> None:
    text.take(piece)


def _as_json(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError, OverflowError):
        return None


def _index(item: Any, position: int) -> int:
    index = part(item, "index")
    return index if isinstance(index, int) else position


def _content_text(content: Any) -> str | None:
    """Read a content that is a text, or a list of parts, some of them texts."""
    if isinstance(content, list | tuple):
        return "".join(text for item in content if isinstance(text := part(item, "text"), str))
    return content if isinstance(content, str) else None


# --- Anthropic, https://docs.anthropic.com/en/docs/build-with-claude/streaming


def _take_message_start(answer: Answer, _event: Any) -> None:
    answer.is_cut = True


def _take_block_start(answer: Answer, event: Any) -> None:
    number, block = _index(event, 0), part(event, "content_block")
    if part(block, "type") in ("tool_use", "server_tool_use"):
        name = part(block, "name")
        answer.call(number).name = name if isinstance(name, str) else ""
    answer.add(number, part(block, "text"))


def _take_block_delta(answer: Answer, event: Any) -> None:
    number, delta = _index(event, 0), part(event, "delta")
    answer.add((number, "thinking"), part(delta, "thinking"))
    answer.add(number, part(delta, "text"))
    arguments = part(delta, "partial_json")
    if isinstance(arguments, str):
        answer.call(number).arguments.append(arguments)


def _take_message_delta(answer: Answer, event: Any) -> None:
    reason = part(part(event, "delta"), "stop_reason")
    if reason:
        answer.is_cut = False
        answer.finish(0, str(reason))


def _end(answer: Answer, _event: Any) -> None:
    answer.is_cut = False
    answer.is_over = True


def _take_error(answer: Answer, _event: Any) -> None:
    answer.has_failed = True


# --- the Responses API, https://platform.openai.com/docs/api-reference/responses-streaming


def _take_item(answer: Answer, event: Any) -> None:
    item = part(event, "item")
    name = part(item, "name")
    if part(item, "type") in ("function_call", "custom_tool_call", "mcp_call") and isinstance(name, str):
        answer.call(_place(event)).name = name


def _take_output_delta(answer: Answer, event: Any) -> None:
    answer.add((_place(event), part(event, "type")), part(event, "delta"))


def _take_arguments_delta(answer: Answer, event: Any) -> None:
    delta = part(event, "delta")
    if isinstance(delta, str):
        answer.call(_place(event)).arguments.append(delta)


def _take_incomplete_response(answer: Answer, event: Any) -> None:
    answer.is_at_limit = is_at_limit(event)
    _end(answer, event)


def _take_failed_response(answer: Answer, event: Any) -> None:
    answer.has_failed = True
    _end(answer, event)


def _place(event: Any) -> Hashable:
    place = part(event, "output_index")
    return place if isinstance(place, int) else None


# --- Cohere, https://docs.cohere.com/docs/streaming


def _take_cohere_delta(answer: Answer, event: Any) -> None:
    answer.add("content", part(part(part(part(event, "delta"), "message"), "content"), "text"))


_BY_TYPE: dict[str, Callable[[Answer, Any], None]] = {
    "message_start": _take_message_start,
    "content_block_start": _take_block_start,
    "content_block_delta": _take_block_delta,
    "message_delta": _take_message_delta,
    "message_stop": _end,
    "error": _take_error,
    "response.created": _take_message_start,
    "response.output_item.added": _take_item,
    "response.output_text.delta": _take_output_delta,
    "response.refusal.delta": _take_output_delta,
    "response.reasoning_text.delta": _take_output_delta,
    "response.function_call_arguments.delta": _take_arguments_delta,
    "response.custom_tool_call_input.delta": _take_arguments_delta,
    "response.mcp_call_arguments.delta": _take_arguments_delta,
    "response.completed": _end,
    "response.incomplete": _take_incomplete_response,
    "response.failed": _take_failed_response,
    "content-delta": _take_cohere_delta,
    "message-end": _end,
}


# --- events without a type, told apart by a key; each tells whether the event is one of its kind


def _take_candidates(answer: Answer, _event: Any, candidates: Any) -> bool:
    """Gemini, https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse."""
    if not isinstance(candidates, list | tuple):
        return False
    for position, candidate in enumerate(candidates):
        number = _index(candidate, position)
        parts = part(part(candidate, "content"), "parts")
        for piece in parts if isinstance(parts, list | tuple) else ():
            answer.add((number, bool(part(piece, "thought"))), part(piece, "text"))
            function = part(piece, "functionCall") or part(piece, "function_call")
            if function is not None:  # whole each time, and one after the other
                whole = {"name": part(function, "name"), "arguments": part(function, "args")}
                _take_function(answer.new_call(), whole, _append)
        reason = part(candidate, "finishReason") or part(candidate, "finish_reason")
        answer.finish(number, str(reason) if reason else None)
    return True


def _take_output(answer: Answer, _event: Any, output: Any) -> bool:
    """DashScope, all of the text so far or what is new, https://help.aliyun.com/zh/model-studio/dashscope-api-reference."""
    choices = part(output, "choices")
    if isinstance(choices, list | tuple):
        for position, choice in enumerate(choices):
            number = _index(choice, position)
            _take_whole_message(answer, number, part(choice, "message"))
            answer.finish(number, part(choice, "finish_reason"))
        return True
    text = part(output, "text")
    answer.grow("text", text)
    answer.finish(0, part(output, "finish_reason"))
    return isinstance(text, str)


def _take_message(answer: Answer, event: Any, message: Any) -> bool:
    """Ollama's chat, https://github.com/ollama/ollama/blob/main/docs/api.md; each line brings what is new."""
    content = part(message, "content")
    if not isinstance(content, str):
        return False
    answer.add("thinking", part(message, "thinking"))
    answer.add("content", content)
    calls = part(message, "tool_calls")
    for told in calls if isinstance(calls, list | tuple) else ():
        _take_function(answer.new_call(), part(told, "function"), _append)
    answer.is_over = part(event, "done") is True
    answer.is_at_limit = is_at_limit(event)
    return True


def _take_response(answer: Answer, event: Any, response: Any) -> bool:
    """Ollama's generate."""
    answer.add("thinking", part(event, "thinking"))
    answer.add("content", response)
    answer.is_over = part(event, "done") is True
    answer.is_at_limit = is_at_limit(event)
    return isinstance(response, str)


def _take_content(answer: Answer, event: Any, content: Any) -> bool:
    """llama.cpp's /completion, https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md."""
    answer.add(_index(event, 0), content)
    answer.is_over = isinstance(content, str) and part(event, "stop") is True
    return isinstance(content, str)


def _take_bedrock_delta(answer: Answer, _event: Any, block: Any) -> bool:
    """Bedrock, https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html."""
    number, delta = _block_number(block), part(block, "delta")
    answer.add((number, "reasoning"), part(part(delta, "reasoningContent"), "text"))
    answer.add(number, part(delta, "text"))
    arguments = part(part(delta, "toolUse"), "input")
    if isinstance(arguments, str):
        answer.call(number).arguments.append(arguments)
    return True


def _take_bedrock_start(answer: Answer, _event: Any, block: Any) -> bool:
    """The start of a block, which names the tool that is called."""
    name = part(part(part(block, "start"), "toolUse"), "name")
    if isinstance(name, str):
        answer.call(_block_number(block)).name = name
    return True


def _take_bedrock_stop(answer: Answer, _event: Any, stop: Any) -> bool:
    """The end of the message; only its usage comes after."""
    answer.finish(0, part(stop, "stopReason"))
    return True


def _block_number(block: Any) -> int:
    number = part(block, "contentBlockIndex")
    return number if isinstance(number, int) else 0


def _take_refusal(answer: Answer, event: Any, code: Any) -> bool:
    """DashScope's errors: a code and a message in place of an output."""
    answer.has_failed = isinstance(code, str) and bool(code) and part(event, "output") is None
    return False


_BY_KEY: dict[str, Callable[[Answer, Any, Any], bool]] = {
    "candidates": _take_candidates,
    "output": _take_output,
    "message": _take_message,
    "response": _take_response,
    "content": _take_content,
    "contentBlockStart": _take_bedrock_start,
    "contentBlockDelta": _take_bedrock_delta,
    "messageStop": _take_bedrock_stop,
    "code": _take_refusal,
}
