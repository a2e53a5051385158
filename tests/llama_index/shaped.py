"""An LLM that answers with a response of any shape, as one integration or another would leave it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback

PIECES = ("It opens", " at nine.")
ANSWER = "".join(PIECES)


class ShapedLLM(CustomLLM):
    """Answers the same each time; a stream carries the shape in its last chunk only."""

    raw: Any = None
    additional_kwargs: Any = None
    message_kwargs: Any = None

    @property
    def metadata(self) -> LLMMetadata:
        """Name the model."""
        return LLMMetadata(model_name="gpt-4o-mini")

    def to_payload(self) -> dict[str, Any]:
        """Keep the shape out of the description: an odd one could not be copied."""
        return {"class_name": "ShapedLLM", "model_name": "gpt-4o-mini", "is_chat_model": True}

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer with the shape."""
        return self._chat_response(ANSWER, delta=None)

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answer in two pieces, the second with the shape."""
        first, second = PIECES

        def gen() -> ChatResponseGen:
            yield ChatResponse(message=ChatMessage(role=MessageRole.ASSISTANT, content=first), delta=first)
            yield self._chat_response(ANSWER, delta=second)

        return gen()

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer with the shape."""
        return self._completion_response(ANSWER, delta=None)

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Answer in two pieces, the second with the shape."""
        first, second = PIECES

        def gen() -> CompletionResponseGen:
            yield CompletionResponse(text=first, delta=first)
            yield self._completion_response(ANSWER, delta=second)

        return gen()

    def _chat_response(self, text: str, *, delta: str | None) -> ChatResponse:
        message = ChatMessage(
            role=MessageRole.ASSISTANT, content=text, additional_kwargs=_fresh(self.message_kwargs) or {}
        )
        return ChatResponse(
            message=message, delta=delta, raw=_fresh(self.raw), additional_kwargs=_fresh(self.additional_kwargs) or {}
        )

    def _completion_response(self, text: str, *, delta: str | None) -> CompletionResponse:
        return CompletionResponse(
            text=text, delta=delta, raw=_fresh(self.raw), additional_kwargs=_fresh(self.additional_kwargs) or {}
        )


def _fresh(shape: Any) -> Any:
    """Make the shape anew where it was given as a function: pydantic looks into values that are fields."""
    return shape() if isinstance(shape, Callable) else shape  # type: ignore[arg-type]
