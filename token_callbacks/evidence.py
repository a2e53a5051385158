"""What is known about a call when it ends, and how its figures are settled from that.

Provider's word first, exact count second, marked estimate third. Each figure is settled by itself: a provider may tell
the prompt and not the completion.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from token_callbacks.imports import importing
from token_callbacks.records import Operation, Outcome, Provenance, Sources, Usage
from token_callbacks.servers import server_for
from token_callbacks.usage import Misfits, Reading, part, view_of

if TYPE_CHECKING:
    from token_callbacks.counting import Count


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """What was sent: OpenAI-shaped messages or one text, with the tools offered and the format asked for."""

    messages: Sequence[Mapping[str, Any]] | str
    tools: Sequence[Mapping[str, Any]] = ()
    response_format: Mapping[str, Any] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    is_continued: bool = False
    """Earlier turns stand with the provider and are not among the messages."""


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """What came back: the text, and the tool calls as OpenAI shapes them."""

    text: str
    tool_calls: Sequence[Mapping[str, Any]] = ()
    is_at_limit: bool = False
    """The model was stopped at the most tokens that it might write, before it came to an end."""
    texts: Sequence[str] = ()
    """Of several choices the text of each, one after the other in `text`; none where there is one."""
    is_refused: bool = False
    """The model refused to answer in the format that was asked for: `text` is the refusal."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing came back."""
        return not self.text and not self.tool_calls


_LIMITS = frozenset({"length", "max_tokens", "max_output_tokens", "model_length"})
"""What OpenAI, Anthropic and Amazon, the Responses API and Mistral call a limit, and others in capitals."""

_STOP_REASONS = frozenset({"stop_reason", "stopReason", "done_reason"})
"""Where an answer without choices tells why it ended."""


def is_limit(reason: object) -> bool:
    """Tell whether a finish reason says that the answer came to its limit, and not to its end."""
    return isinstance(reason, str) and reason.lower() in _LIMITS


def is_at_limit(answer: object) -> bool:
    """Tell whether a whole answer came to its limit, by whatever its provider calls the reason why it stopped."""
    view = view_of(answer) or {}
    choices = view.get("choices")
    if isinstance(choices, list | tuple):
        for choice in choices:
            if is_limit(part(choice, "finish_reason")):
                return True
    if not _STOP_REASONS.isdisjoint(view) and any(is_limit(view.get(name)) for name in _STOP_REASONS):
        return True
    details, response = view.get("incomplete_details"), view.get("response")  # the Responses API, and its last event
    if details is not None and is_limit(part(details, "reason")):
        return True
    told = None if response is None else view_of(response)
    return told is not None and is_limit(part(told.get("incomplete_details"), "reason"))


Names = tuple[str | None, str | None]
"""The provider's id of a response, and the model as the provider named it; ``None`` where it is not known."""

NO_NAMES: Names = (None, None)


class Evidence(Protocol):
    """What one framework can say about a call. It is asked when the call ends, and says the same if asked again."""

    def reading(self, operation: Operation) -> Reading | None:
        """Read the provider's usage; ``None`` where it told none."""

    def misfits(self, operation: Operation) -> Misfits:
        """Name what stands in the provider's usage and is no count; asked only where the reading is not a good one."""

    def rules_out_usage(self) -> bool:
        """Whether it is certain that the provider told no usage, whatever other evidence shows."""

    def has_last_word(self) -> bool:
        """Whether the usage it read is the provider's last word, though the stream was left: all of it had come."""

    def prompt(self) -> Prompt | None:
        """Gather what was sent; ``None`` where it is not known."""

    def completion(self) -> Completion | None:
        """Gather what came back: an empty one where an answer had just begun, ``None`` where none had."""

    def inputs(self) -> Sequence[str | Sequence[int]] | None:
        """Gather what was embedded; ``None`` where it is not known."""

    def names(self) -> Names:
        """Tell the response's id and its model, as the provider named them."""


class Asked:
    """What another one knows of what a request asked for."""

    __slots__ = ("prompt",)

    def __init__(self, witness: Evidence) -> None:
        self.prompt = witness.prompt

    def reading(self, operation: Operation) -> None:
        """Tell nothing."""

    def misfits(self, operation: Operation) -> Misfits:  # noqa: ARG002 - as the others
        """Tell nothing."""
        return {}

    def rules_out_usage(self) -> bool:
        """Tell nothing."""
        return False

    has_last_word = rules_out_usage

    def completion(self) -> None:
        """Tell nothing: what it saw come back is another request's."""

    def inputs(self) -> None:
        """Tell nothing: an embedding that did not come is not counted."""

    def names(self) -> Names:
        """Tell nothing."""
        return NO_NAMES


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a call, settled."""

    usage: Usage
    sources: Sources
    counting_method: str | None = None
    reading: Reading | None = None
    names: Names | None = None
    """The response's id and model, where they were read together with the usage; else the evidence tells."""


def unsettled(operation: Operation) -> Figures:
    """Return the figures of a call whose evidence could not be read: all missing."""
    if operation is Operation.EMBEDDING:
        return Figures(usage=Usage(), sources=Sources(embedding=Provenance.MISSING))
    return Figures(usage=Usage(), sources=Sources(prompt=Provenance.MISSING, completion=Provenance.MISSING))


Told = tuple[Reading | None, Evidence | None]
"""What the provider's usage is, and who of a call's evidence told it; both ``None`` where nobody did."""

Later = Callable[[], Figures]
"""Settles figures for which a long text has to be counted first. It holds the text, and nothing that others change."""


def settle(  # noqa: PLR0917 - the last two are for the ledger
    operation: Operation,
    model: str | None,
    outcome: Outcome,
    evidence: Sequence[Evidence],
    at_most: Callable[[], float] = lambda: math.inf,
    told: Told | None = None,
) -> Figures | Later:
    """Settle the figures of a call that has ended; earlier evidence goes before later.

    ``at_most``: tells how many characters may be counted here and now, and is asked if there are any. Where more would
    have to be counted, what does so is returned, to be called elsewhere. ``told``: what the evidence tells of usage, if
    it was asked already.
    """
    reading, teller = told or told_by(evidence, operation)
    if operation is _EMBEDDING:
        return _settle_embedding(model, outcome, evidence, reading, at_most)
    is_cut = outcome is not _COMPLETED and not (teller is not None and teller.has_last_word())
    if reading is not None and not is_cut:
        usage = reading.usage
        if usage.prompt_tokens and usage.completion_tokens:
            names = reading.names if teller is evidence[0] else None
            return Figures(usage=usage, sources=BOTH_REPORTED, reading=reading, names=names)
    return _settle_llm(operation, model, outcome, evidence, reading, teller, is_cut, at_most)


def told_by(evidence: Sequence[Evidence], operation: Operation) -> Told:
    """Find who tells the provider's usage; where one is sure that there is none, those after it are not asked."""
    for witness in evidence:
        reading = witness.reading(operation)
        if reading is not None:
            return reading, witness
        if witness.rules_out_usage():
            break
    return None, None


def misfits_in(evidence: Sequence[Evidence], operation: Operation, teller: Evidence | None) -> Misfits:
    """Name what stands in the provider's usage and is no count, asking no further than ``told_by`` did."""
    for witness in evidence:
        if misfits := witness.misfits(operation):
            return misfits
        if witness is teller or witness.rules_out_usage():
            break
    return {}


def has_answer(operation: Operation, evidence: Sequence[Evidence]) -> bool:
    """Tell whether anything of an answer came: a text, a tool call, or its usage."""
    for witness in evidence:
        back = witness.completion()
        if (back is not None and not back.is_empty) or witness.reading(operation) is not None:
            return True
    return False


def _length(value: object) -> int:
    """Tell about how many characters there are to count."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list | tuple):
        if not value or isinstance(value[0], int):
            return 0
        values: Iterable[object] = value
    elif type(value) is dict or isinstance(value, Mapping):  # an abstract class takes long to say yes
        values = value.values()
    else:
        return 0
    length = 0
    for each in values:
        length += len(each) if type(each) is str else _length(each)
    return length


def first(evidence: Sequence[Evidence], question: str) -> Any:
    """Ask each in turn; the first answer that is not ``None`` counts."""
    for witness in evidence:
        answer = getattr(witness, question)()
        if answer is not None:
            return answer
    return None


def _settle_embedding(
    model: str | None,
    outcome: Outcome,
    evidence: Sequence[Evidence],
    reading: Reading | None,
    at_most: Callable[[], float],
) -> Figures | Later:
    if reading is not None and reading.usage.embedding_tokens:
        return Figures(usage=reading.usage, sources=Sources(embedding=Provenance.REPORTED), reading=reading)
    inputs = first(evidence, "inputs") if outcome is Outcome.COMPLETED else None
    if inputs is None:
        sources = Sources() if outcome is Outcome.NOT_STARTED else Sources(embedding=Provenance.MISSING)
        return Figures(usage=Usage(), sources=sources, reading=reading)
    later = functools.partial(_counted_embedding, model, inputs, reading)
    return later if _length(inputs) > at_most() else later()


def _counted_embedding(model: str | None, inputs: Sequence[str | Sequence[int]], reading: Reading | None) -> Figures:
    count: Count = _counting().count_embedding(model=model, inputs=inputs)
    return Figures(
        usage=Usage(embedding_tokens=count.tokens),
        sources=Sources(embedding=_grade(count.exact), embedding_error_band=count.error_band),
        counting_method=count.method,
        reading=reading,
    )


@functools.cache
def _counting() -> ModuleType:
    with importing:  # not before something has to be counted
        from token_callbacks import counting

    return counting


def _settle_llm(  # noqa: PLR0917 - told to nobody but settle
    operation: Operation,
    model: str | None,
    outcome: Outcome,
    evidence: Sequence[Evidence],
    reading: Reading | None,
    teller: Evidence | None,
    is_cut: bool,
    at_most: Callable[[], float],
) -> Figures | Later:
    usage = Usage() if reading is None else reading.usage
    back = _what_came(evidence)
    # A call that failed before an answer began was most likely not billed: its prompt is not counted as if it were.
    sent: Prompt | None = None if is_cut and back is None else first(evidence, "prompt")
    has_no_prompt = usage.prompt_tokens == 0 and _is_word(usage, back, teller)

    def later() -> Figures:
        told, api = usage.prompt_tokens, _api(operation)
        prompt = _Figure(0, Provenance.REPORTED) if has_no_prompt else _prompt_figure(told, model, sent, api)
        if is_cut and reading is not None and reading.grew:  # a count of the server's, up to where it was left
            completion = _Figure(usage.completion_tokens, Provenance.PARTIAL)
        else:
            completion = _completion_figure(usage.completion_tokens, model, back, sent, is_cut, api)
        return Figures(
            usage=msgspec.structs.replace(usage, prompt_tokens=prompt.tokens, completion_tokens=completion.tokens),
            sources=Sources()
            if outcome is Outcome.NOT_STARTED
            else Sources(
                prompt=prompt.source,
                completion=completion.source,
                prompt_error_band=prompt.error_band,
                completion_error_band=completion.error_band,
            ),
            counting_method=completion.method or prompt.method,
            reading=reading,
        )

    length = 0
    if sent is not None and not usage.prompt_tokens:
        length = _length(sent.messages) + (_length(sent.tools) if sent.tools else 0)
    if back is not None and (is_cut or not usage.completion_tokens):
        length += len(back.text) + (_length(back.tool_calls) if back.tool_calls else 0)
    most = at_most()
    is_long = length > (most if server_for(model) is None else -1)  # a server is not waited for here
    return later if is_long and most < math.inf else later()


def _what_came(evidence: Sequence[Evidence]) -> Completion | None:
    """Gather what came back, from the first who saw anything of it, or else saw an answer begin."""
    begun = None
    for witness in evidence:
        back = witness.completion()
        if back is not None and not back.is_empty:
            return back
        begun = begun or back
    return begun


def _is_word(usage: Usage, back: Completion | None, teller: Evidence | None) -> bool:
    """Tell whether a prompt of 0 is what the provider said: beside the rest, or where nothing came back; not 0/0."""
    told_rest = bool(usage.completion_tokens) or back is None or back.is_empty
    return told_rest and teller is not None and teller.rules_out_usage()


class _Figure(msgspec.Struct, frozen=True):
    tokens: int | None
    source: Provenance
    method: str | None = None
    error_band: float | None = None


def _prompt_figure(told: int | None, model: str | None, sent: Prompt | None, api: str) -> _Figure:
    if told:
        return _Figure(told, Provenance.REPORTED)
    if sent is None:
        return _Figure(None, Provenance.MISSING)
    server = server_for(model)
    if server is not None and (told_by := server.count_prompt(str(model), sent.messages, sent.tools)) is not None:
        return _Figure(told_by[0], Provenance.COUNTED, told_by[1])
    count: Count = _counting().count_prompt(
        model=model,
        messages=sent.messages,
        tools=sent.tools,
        response_format=sent.response_format,
        tool_choice=sent.tool_choice,
        parallel_tool_calls=sent.parallel_tool_calls,
        api=api,
    )
    return _graded(count, is_part=sent.is_continued)


def _completion_figure(  # noqa: PLR0917 - told to nobody but the above
    told: int | None, model: str | None, back: Completion | None, sent: Prompt | None, is_cut: bool, api: str
) -> _Figure:
    # 0 beside text is as good as not told.
    if not is_cut and told is not None and (told or back is None or back.is_empty):
        return _Figure(told, Provenance.REPORTED)
    if back is None:
        return _Figure(told, Provenance.MISSING if told is None else Provenance.PARTIAL)
    counted = _counted_completion(model, back, sent, is_cut, api)
    if is_cut:  # what a cut stream told may be a placeholder from its first event
        return _Figure(max(told or 0, counted.tokens or 0), Provenance.PARTIAL, counted.method)
    return counted


def _counted_completion(model: str | None, back: Completion, sent: Prompt | None, is_cut: bool, api: str) -> _Figure:
    server = server_for(model)
    if server is not None and not back.tool_calls:
        told_by = server.count_text(str(model), back.text)
        if told_by is not None:
            return _Figure(told_by[0], Provenance.COUNTED, told_by[1])
    asked = Prompt(messages=()) if sent is None else sent
    count: Count = _counting().count_completion(
        model=model,
        text=back.texts or back.text,
        tool_calls=back.tool_calls,
        tools=asked.tools,
        response_format=asked.response_format,
        tool_choice=asked.tool_choice,
        api=api,
        is_at_limit=back.is_at_limit or is_cut,
        is_refused=back.is_refused,
    )
    return _graded(count)


_EMBEDDING, _COMPLETED = Operation.EMBEDDING, Outcome.COMPLETED  # reached sooner than members of their enumerations
BOTH_REPORTED = Sources(prompt=Provenance.REPORTED, completion=Provenance.REPORTED)


def _api(operation: Operation) -> str:
    """Name the API by whose rules is counted."""
    return "responses" if operation is Operation.RESPONSES else "chat"


def _graded(count: Count, *, is_part: bool = False) -> _Figure:
    if count.is_lower_bound or is_part:
        return _Figure(count.tokens, Provenance.PARTIAL, count.method)
    return _Figure(count.tokens, _grade(count.exact), count.method, count.error_band)


def _grade(is_exact: bool) -> Provenance:
    return Provenance.COUNTED if is_exact else Provenance.ESTIMATED
