"""Every way to call a LlamaIndex LLM, as a table: a name and a coroutine that calls it once and reads it to the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

MESSAGES = [ChatMessage(role="user", content="Name the opening hours of the library.")]
PROMPT = PromptTemplate("Name the opening hours of the {place}.")
TEXT = "Name the opening hours of the library."


class Hours(BaseModel):
    """Opening hours."""

    opens: str
    closes: str


def look_up(place: str) -> str:
    """Look up the opening hours of a place."""
    return f"{place}: nine to five"


TOOL = FunctionTool.from_defaults(look_up)

Call = Callable[[Any], Awaitable[Any]]
"""Gives what it got: of a stream, a list of all."""


def _sync(call: Callable[[Any], Any], *, streams: bool = False) -> Call:
    async def run(llm: Any) -> Any:
        result = call(llm)
        return list(result) if streams else result

    return run


def _async(call: Callable[[Any], Awaitable[Any]], *, streams: bool = False) -> Call:
    async def run(llm: Any) -> Any:
        result = await call(llm)
        return [it async for it in result] if streams else result

    return run


PLAIN: dict[str, Call] = {
    "complete": _sync(lambda llm: llm.complete(TEXT)),
    "chat": _sync(lambda llm: llm.chat(MESSAGES)),
    "stream_complete": _sync(lambda llm: llm.stream_complete(TEXT), streams=True),
    "stream_chat": _sync(lambda llm: llm.stream_chat(MESSAGES), streams=True),
    "acomplete": _async(lambda llm: llm.acomplete(TEXT)),
    "achat": _async(lambda llm: llm.achat(MESSAGES)),
    "astream_complete": _async(lambda llm: llm.astream_complete(TEXT), streams=True),
    "astream_chat": _async(lambda llm: llm.astream_chat(MESSAGES), streams=True),
    "predict": _sync(lambda llm: llm.predict(PROMPT, place="library")),
    "stream": _sync(lambda llm: llm.stream(PROMPT, place="library"), streams=True),
    "apredict": _async(lambda llm: llm.apredict(PROMPT, place="library")),
    "astream": _async(lambda llm: llm.astream(PROMPT, place="library"), streams=True),
}

STRUCTURED: dict[str, Call] = {
    "structured_predict": _sync(lambda llm: llm.structured_predict(Hours, PROMPT, place="library")),
    "stream_structured_predict": _sync(
        lambda llm: llm.stream_structured_predict(Hours, PROMPT, place="library"), streams=True
    ),
    "astructured_predict": _async(lambda llm: llm.astructured_predict(Hours, PROMPT, place="library")),
    "astream_structured_predict": _async(
        lambda llm: llm.astream_structured_predict(Hours, PROMPT, place="library"), streams=True
    ),
    "chat_with_tools": _sync(lambda llm: llm.chat_with_tools([TOOL], TEXT)),
    "stream_chat_with_tools": _sync(lambda llm: llm.stream_chat_with_tools([TOOL], TEXT), streams=True),
    "achat_with_tools": _async(lambda llm: llm.achat_with_tools([TOOL], TEXT)),
    "astream_chat_with_tools": _async(lambda llm: llm.astream_chat_with_tools([TOOL], TEXT), streams=True),
    "predict_and_call": _sync(lambda llm: llm.predict_and_call([TOOL], TEXT)),
    "apredict_and_call": _async(lambda llm: llm.apredict_and_call([TOOL], TEXT)),
    "as_structured_llm.chat": _sync(lambda llm: llm.as_structured_llm(Hours).chat(MESSAGES)),
    "as_structured_llm.complete": _sync(lambda llm: llm.as_structured_llm(Hours).complete(TEXT)),
    "as_structured_llm.achat": _async(lambda llm: llm.as_structured_llm(Hours).achat(MESSAGES)),
    "as_structured_llm.acomplete": _async(lambda llm: llm.as_structured_llm(Hours).acomplete(TEXT)),
    "as_structured_llm.stream_chat": _sync(
        lambda llm: llm.as_structured_llm(Hours).stream_chat(MESSAGES), streams=True
    ),
    "as_structured_llm.astream_chat": _async(
        lambda llm: llm.as_structured_llm(Hours).astream_chat(MESSAGES), streams=True
    ),
}

PLAIN_INTEGRATIONS = (
    "OpenAI",
    "OpenAI-instruct",
    "OpenAIResponses",
    "OpenAILike(chat)",
    "OpenAILike(compl)",
    "LiteLLM",
    "MockLLM",
    "Anthropic",
)
STRUCTURED_INTEGRATIONS = ("OpenAI", "OpenAILike(chat)", "LiteLLM", "Anthropic")

CASES = [(integration, method, PLAIN[method]) for integration in PLAIN_INTEGRATIONS for method in PLAIN] + [
    (integration, method, STRUCTURED[method]) for integration in STRUCTURED_INTEGRATIONS for method in STRUCTURED
]

SYNC_CASES = [case for case in CASES if not case[1].rpartition(".")[2].startswith("a")]
"""Those that a program without an event loop can make, and their coroutines wait for nothing."""
