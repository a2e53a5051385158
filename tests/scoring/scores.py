"""How far each figure of a case is from the provider's, ours and that of other counters."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from tests.scoring.cases import Case
from token_callbacks.counting import Count, count_completion, count_embedding, count_prompt
from token_callbacks.counting.models import family_of
from token_callbacks.counting.templates_claude import is_hosted

CALL_ITEMS = ("function_call", "function_call_output")
PLAIN_PARTS = ("text", "input_text", "output_text", None)
BEDROCK_PARTS = ("image", "document", "video", "audio")
"""Bedrock's parts have no type: they hold the one of these that they are."""
PLAIN_ITEMS = (None, "message", "reasoning", *CALL_ITEMS)
UNSEEN = ("with reasoning", "with citations")
Counter = Callable[[Case], int | None]
"""Another counter's figure, ``None`` where it has none."""


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of one case."""

    id: str
    family: str
    generation: str | None
    figure: str
    kind: str
    truth: int
    ours: int
    is_marked_exact: bool
    band: float | None
    is_lower_bound: bool
    banded_as: str
    others: dict[str, int | None]

    @property
    def is_exact(self) -> bool:
        """Whether our count is the provider's figure."""
        return self.ours == self.truth

    @property
    def is_seen_estimate(self) -> bool:
        """Whether this is an estimate, of no answer with reasoning or citations: those are counted and not seen."""
        return not self.is_marked_exact and not self.is_lower_bound and self.kind not in UNSEEN

    @property
    def is_in_band(self) -> bool:
        """Whether our count is as near to the provider's figure as its band says, relative to that figure."""
        return self.band is not None and abs(self.ours - self.truth) <= self.band * self.truth

    @property
    def band_group(self) -> tuple[str, str, str]:
        """The group whose band is measured: that of the table, but models of no family of its own by vocabulary."""
        return self.figure, self.family.replace("other", self.banded_as), self.kind


def scores(cases: Iterable[Case], others: dict[str, dict[str, Counter]]) -> Iterator[Score]:
    """Count every figure that a case has; `others` are other counters by figure and name."""
    for case in cases:
        if case.inputs is not None:
            count = count_embedding(model=case.model, inputs=case.inputs)
            yield _score(case, "embedding", "embeddings", case.truth["embedding_tokens"], count, {})
            continue
        if case.messages and case.truth["prompt_tokens"] and not case.is_continued:
            yield _score(
                case, "prompt", prompt_kind(case), case.truth["prompt_tokens"], _prompt(case), others.get("prompt", {})
            )
        if case.completion is not None and case.truth["completion_tokens"]:
            kind, truth = completion_kind(case), case.truth["completion_tokens"]
            yield _score(case, "completion", kind, truth, _completion(case), others.get("completion", {}))


def _prompt(case: Case) -> Count:
    return count_prompt(
        model=case.model,
        messages=case.messages or "",
        tools=case.tools,
        response_format=case.response_format,
        tool_choice=case.tool_choice,
        parallel_tool_calls=case.parallel_tool_calls,
        api=case.api,
        at=case.at,
    )


def _completion(case: Case) -> Count:
    assert case.completion is not None
    return count_completion(
        model=case.model,
        text=case.completion.texts or case.completion.text,
        tool_calls=case.completion.tool_calls,
        tools=case.tools,
        tool_choice=case.tool_choice,
        api=case.api,
        response_format=case.response_format,
        is_at_limit=case.is_at_limit,
        is_refused=case.completion.is_refused,
        at=case.at,
    )


def _score(  # noqa: PLR0917
    case: Case, figure: str, kind: str, truth: int | None, count: Count, others: dict[str, Counter]
) -> Score:
    return Score(
        id=case.id,
        family=case.family if case.api == "chat" else f"{case.family} (responses)",
        generation=case.generation,
        figure=figure,
        kind=kind,
        truth=truth or 0,
        ours=count.tokens,
        is_marked_exact=count.exact,
        band=count.error_band,
        is_lower_bound=count.is_lower_bound,
        banded_as=family_of(case.model).banded_as,
        others={name: _asked(counter, case) for name, counter in others.items()},
    )


def _asked(counter: Counter, case: Case) -> int | None:
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return counter(case)
    except Exception:  # noqa: BLE001 - what another counter cannot do, it cannot do
        return None


def prompt_kind(case: Case) -> str:
    """Tell what a prompt holds: tools, calls and results, an output schema, images; plain without them."""
    if isinstance(case.messages, str):
        return "text"
    messages = [message for message in case.messages or () if isinstance(message, dict)]
    tools = [tool for tool in case.tools if isinstance(tool, dict)]
    hosted = any(message.get("type") not in PLAIN_ITEMS for message in messages)
    if hosted or any(
        is_hosted(tool) or (tool.get("type", "function") not in ("function", "custom") and "name" not in tool)
        for tool in tools
    ):
        return "hosted tools"
    if any(_is_beyond_text(part) for message in messages for part in _parts(message)):
        return "images, files"
    if any(message.get("type") == "reasoning" for message in messages):
        return "reasoning sent back"
    has_schema = isinstance(case.response_format, dict) and case.response_format.get("type") == "json_schema"
    if any(_is_of_a_call(message) for message in messages):
        return "round trip, json_schema" if has_schema else "tool round trip"
    if case.tools:
        return "tools, json_schema" if has_schema else "first turn with tools"
    return "json_schema" if has_schema else "plain"


def completion_kind(case: Case) -> str:
    """Tell what an answer holds: text, calls, or what is counted and not to be seen."""
    assert case.completion is not None
    if case.truth["reasons"]:
        return "with reasoning"
    if case.is_cited:
        return "with citations"
    if case.completion.tool_calls:
        return "tool calls"
    return "text, tools offered" if case.tools else "text"


def _parts(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _is_beyond_text(part: dict[str, Any]) -> bool:
    return part.get("type") not in PLAIN_PARTS or any(name in part for name in BEDROCK_PARTS)


def _is_of_a_call(message: dict[str, Any]) -> bool:
    return (
        bool(message.get("tool_calls"))
        or message.get("role") in ("tool", "function")
        or message.get("type") in CALL_ITEMS
    )


def mean_error(values: Sequence[Score]) -> float:
    """Return the mean of the relative errors."""
    return sum(abs(score.ours - score.truth) / score.truth for score in values) / len(values)


def band(values: Iterable[Score]) -> float:
    """Return the relative error that nine in ten keep to, rounded up to a percent."""
    errors = sorted(abs(score.ours - score.truth) / score.truth for score in values)
    return math.ceil(errors[min(len(errors) - 1, math.ceil(0.9 * len(errors)) - 1)] * 100) / 100 if errors else 0.0


# --- other counters


def other_counters() -> dict[str, dict[str, Counter]]:
    """Return those that are installed, by figure and name."""
    found: dict[str, dict[str, Counter]] = {"prompt": {}, "completion": {}}
    for add in (_add_litellm, _add_llama_index, _add_tokencost):
        with contextlib.suppress(ImportError), contextlib.redirect_stderr(io.StringIO()):
            add(found)
    return found


def _add_litellm(found: dict[str, dict[str, Counter]]) -> None:
    import litellm

    litellm.disable_hf_tokenizer_download = True
    found["prompt"]["litellm"] = lambda case: (
        litellm.token_counter(model=case.model, text=case.messages)
        if isinstance(case.messages, str)
        else litellm.token_counter(model=case.model, messages=case.messages, tools=case.tools or None)
    )
    found["completion"]["litellm"] = lambda case: litellm.token_counter(model=case.model, text=_text(case))


def _add_llama_index(found: dict[str, dict[str, Counter]]) -> None:
    from llama_index.core.llms import ChatMessage
    from llama_index.core.utilities.token_counting import TokenCounter

    counter = TokenCounter()

    def prompt(case: Case) -> int:
        if isinstance(case.messages, str):
            return counter.get_string_tokens(case.messages)
        shaped = [_chat_message(ChatMessage, message) for message in case.messages or () if "role" in message]
        return counter.estimate_tokens_in_messages(shaped)

    found["prompt"]["llama_index"] = prompt
    found["completion"]["llama_index"] = lambda case: counter.get_string_tokens(_text(case))


def _chat_message(chat_message: Any, message: dict[str, Any]) -> Any:
    text = (
        message.get("content")
        if isinstance(message.get("content"), str)
        else "".join(str(part.get("text") or "") for part in _parts(message))
    )
    kwargs = {"tool_calls": message["tool_calls"]} if message.get("tool_calls") else {}
    return chat_message(role=message["role"], content=text, additional_kwargs=kwargs)


def _add_tokencost(found: dict[str, dict[str, Counter]]) -> None:
    from tokencost import count_message_tokens, count_string_tokens

    found["prompt"]["tokencost"] = lambda case: (
        count_string_tokens(case.messages, case.model)
        if isinstance(case.messages, str)
        else count_message_tokens(case.messages, case.model)
    )
    found["completion"]["tokencost"] = lambda case: count_string_tokens(_text(case), case.model)


def _text(case: Case) -> str:
    assert case.completion is not None
    return case.completion.text
