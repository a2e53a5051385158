"""What a call's texts count as, and when the count may call itself exact."""

from collections.abc import Callable, Sequence
from datetime import date
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from token_callbacks.counting import Count, count_completion, count_embedding, count_prompt

HELLO = {"role": "user", "content": "hello world"}
NOTES = {"type": "json_schema", "json_schema": {"name": "memory_notes", "schema": {"type": "object"}}}
TOOL = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}


NAMESPACE = "# Tools\n\n## functions\n\nnamespace functions {\n\ntype clock = () => any;\n\n} // namespace functions"


def graded(count: Count) -> tuple[int, bool, str]:
    """Return a count without its band."""
    return count.tokens, count.exact, count.method


COOKBOOK = [
    {
        "role": "system",
        "content": "You are a helpful, pattern-following assistant that translates corporate jargon "
        "into plain English.",
    },
    {"role": "system", "name": "example_user", "content": "New synergies will help drive top-line growth."},
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Things working well together will increase revenue.",
    },
    {
        "role": "system",
        "name": "example_user",
        "content": "Let's circle back when we have more bandwidth to touch base on opportunities "
        "for increased leverage.",
    },
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Let's talk later when we're less busy about how to do better.",
    },
    {
        "role": "user",
        "content": "This late pivot means we don't have time to boil the ocean for the client deliverable.",
    },
]


@pytest.mark.parametrize(("model", "tokens"), [("gpt-4-0613", 129), ("gpt-3.5-turbo", 129), ("gpt-4o", 124)])
def test_cookbook_example_counts_as_the_cookbook_says(model: str, tokens: int) -> None:
    """The example chat of OpenAI's cookbook counts what the API reported for it."""
    count = count_prompt(model=model, messages=COOKBOOK)

    assert (tokens, True) == (count.tokens, count.exact)


@pytest.mark.parametrize(
    ("model", "text", "tokens"),
    [
        ("gpt-4o", "hello world", 2),
        ("gpt-4o", "こんにちは、世界！", 4),
        ("gpt-4", "こんにちは、世界！", 6),
        ("gpt-4o", "antidisestablishmentarianism", 6),
        ("gpt-4o", "def f(x):\n    return x ** 2\n", 11),
        ("gpt-4", "<|endoftext|>", 7),
        ("gpt-4o", "👩‍👩‍👧 family", 9),
        ("gpt-4o", "", 0),
    ],
)
def test_known_completions(model: str, text: str, tokens: int, true_count: Callable[[str, str], int]) -> None:
    """A completion counts what tiktoken counts, and a special token in it is text."""
    count = count_completion(model=model, text=text)

    assert (tokens, True) == (count.tokens, count.exact)
    assert true_count(count.method, text) == count.tokens


def test_a_chat_adds_three_tokens_a_message_and_three_at_the_end() -> None:
    """A message counts its role, its text and three tokens, and the chat three more."""
    count = count_prompt(model="gpt-4o", messages=[HELLO, HELLO])

    assert Count(tokens=2 * (3 + 1 + 2) + 3, exact=True, method="o200k_base") == count


def test_a_reasoning_chat_adds_two_tokens_at_the_end() -> None:
    """The chats of reasoning models end with two tokens, not three."""
    count = count_prompt(model="o3-mini", messages=[HELLO])

    assert Count(tokens=3 + 1 + 2 + 2, exact=True, method="o200k_base") == count


def test_name_that_equals_the_role_counts_once_less() -> None:
    """A name is read together with its role, as gpt-4o-2024-08-06 reported 15 tokens for this message."""
    message = {"role": "user", "name": "user", "content": "What is the capital of France?"}

    count = count_prompt(model="gpt-4o-2024-08-06", messages=[message])

    assert Count(tokens=15, exact=True, method="o200k_base") == count


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "text", "text": "hello"}, {"type": "text", "text": "world"}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]},
        {"role": "tool", "content": "12:00", "tool_call_id": "call_1"},
        {"role": "assistant", "content": "hello", "tool_calls": [CALL]},
        {"role": "assistant", "content": "hello", "refusal": "no"},
        {"role": "user", "content": None},
        {"role": "wizard", "content": "hello"},
        {"content": "hello"},
    ],
)
def test_message_beyond_plain_text_is_not_exact(message: dict[str, Any]) -> None:
    """Images, tool calls, tool results and odd messages make a chat an estimate."""
    count = count_prompt(model="gpt-4o", messages=[HELLO, message])

    assert not count.exact
    assert count_prompt(model="gpt-4o", messages=[HELLO]).tokens < count.tokens


def test_empty_fields_leave_a_message_plain() -> None:
    """Frameworks send the fields they do not use as None or empty."""
    message: dict[str, Any] = {**HELLO, "name": None, "tool_calls": [], "refusal": None, "audio": None}

    assert count_prompt(model="gpt-4o", messages=[HELLO]) == count_prompt(model="gpt-4o", messages=[message])


def test_one_text_part_is_plain_text() -> None:
    """A message whose list holds one text part counts as the text does."""
    message = {"role": "user", "content": [{"type": "text", "text": "hello world"}]}

    assert count_prompt(model="gpt-4o", messages=[HELLO]) == count_prompt(model="gpt-4o", messages=[message])


_MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool", "odd"]), "content": st.text()}
    ),
    max_size=6,
)
_SCHEMA = {"type": "json_schema", "json_schema": {"name": "hours", "schema": {"type": "object", "properties": {}}}}


@settings(deadline=None)
@given(_MESSAGES, st.sampled_from(["gpt-4o", "gpt-5", "gpt-4", "o3-mini"]), st.sampled_from([None, _SCHEMA]))
def test_a_role_and_a_text_count_the_same_in_any_shape(
    messages: list[dict[str, str]], model: str, schema: dict[str, Any] | None
) -> None:
    """The short way for plain dicts says what the long way says of the same message with an empty field more."""
    options: dict[str, Any] = {"model": model, "response_format": schema}
    longer: list[Any] = [message | {"name": None} for message in messages]

    assert count_prompt(messages=longer, **options) == count_prompt(messages=messages, **options)


def test_a_model_that_searches_reads_the_texts_alone(true_count: Callable[[str, str], int]) -> None:
    """Without roles, names and frames, as gpt-4o-search-preview was recorded to count."""
    texts = ["You are a helpful assistant.", "What day is today?"]
    messages = [{"role": role, "content": text} for role, text in zip(("system", "user"), texts, strict=True)]
    counted = count_prompt(model="gpt-4o-search-preview", messages=messages)

    assert (sum(true_count("o200k_base", text) for text in texts), False) == (counted.tokens, counted.exact)


def test_text_parts_side_by_side_are_one_text() -> None:
    """What ends one and begins the next may be one token."""
    parts = [{"type": "text", "text": text} for text in ("What's in this file?", "<file name='ruby.txt'>")]
    apart, joined = (
        count_prompt(model="gpt-5-nano", messages=[{"role": "user", "content": content}])
        for content in (parts, "What's in this file?<file name='ruby.txt'>")
    )

    assert joined.tokens == apart.tokens


def test_message_object_counts_as_its_dict() -> None:
    """The answer's message object, appended to the next request as it came, counts like a dict."""
    message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    function = SimpleNamespace(**CALL["function"])  # type: ignore[arg-type]
    as_object = SimpleNamespace(role="assistant", content=None, tool_calls=[SimpleNamespace(function=function)])

    expected = count_prompt(model="gpt-4o", messages=[message])

    assert expected == count_prompt(model="gpt-4o", messages=[as_object])  # type: ignore[list-item]


def test_tools_add_their_namespace(true_count: Callable[[str, str], int]) -> None:
    """Tools count as the TypeScript that OpenAI's models read, in a message of three tokens."""
    plain = count_prompt(model="gpt-4o", messages=[HELLO])

    count = count_prompt(model="gpt-4o", messages=[HELLO], tools=[TOOL])

    assert (plain.tokens + true_count("o200k_base", NAMESPACE) + 3, True, "o200k_base") == graded(count)


def test_tools_stand_behind_the_system_text(true_count: Callable[[str, str], int]) -> None:
    """Where there is a system text, the tools are joined to it, and cost a token less than that makes."""
    system = {"role": "system", "content": "Be brief."}
    joined = true_count("o200k_base", f"Be brief.\n\n{NAMESPACE}")

    count = count_prompt(model="gpt-4o", messages=[system, HELLO], tools=[TOOL])

    assert (3 + 1 + joined - 1) + (3 + 1 + 2) + 3 == count.tokens


def test_a_tool_that_must_be_called_costs_more(true_count: Callable[[str, str], int]) -> None:
    """A forced tool adds its name and seven tokens to the prompt."""
    choice = {"type": "function", "function": {"name": "clock"}}
    free = count_prompt(model="gpt-4o", messages=[HELLO], tools=[TOOL])

    count = count_prompt(model="gpt-4o", messages=[HELLO], tools=[TOOL], tool_choice=choice)

    assert free.tokens + true_count("o200k_base", "clock") + 7 == count.tokens


def test_a_call_and_its_result_are_counted(true_count: Callable[[str, str], int]) -> None:
    """A round trip counts name and arguments with 7 tokens, and name and result with 5."""
    plain = count_prompt(model="gpt-4o", messages=[HELLO])
    call = {"role": "assistant", "content": None, "tool_calls": [{**CALL, "id": "c1"}]}
    result = {"role": "tool", "tool_call_id": "c1", "content": "12:00"}
    of_call = true_count("o200k_base", "functions.clock") + true_count("o200k_base", "{}") + 7
    of_result = true_count("o200k_base", "clock") + true_count("o200k_base", "12:00") + 5

    count = count_prompt(model="gpt-4o", messages=[HELLO, call, result])

    assert (plain.tokens + of_call + of_result, True, "o200k_base") == graded(count)


def test_results_for_gpt_5_stand_without_blanks(true_count: Callable[[str, str], int]) -> None:
    """The list of parallel results is compact JSON for gpt-5, as its calls are."""
    calls = {"role": "assistant", "tool_calls": [{**CALL, "id": "c1"}, {**CALL, "id": "c2"}]}
    results = [{"role": "tool", "tool_call_id": name, "content": text} for name, text in (("c1", "7"), ("c2", "5"))]
    called = count_prompt(model="gpt-5", messages=[HELLO, calls])

    count = count_prompt(model="gpt-5", messages=[HELLO, calls, *results])

    assert called.tokens + true_count("o200k_base", "[7,5]") + 12 == count.tokens


def test_a_call_may_tell_who_calls(true_count: Callable[[str, str], int]) -> None:
    """The name of a message that holds calls alone is read with its role, as that of any other."""
    call = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    unnamed = count_prompt(model="gpt-4o", messages=[HELLO, call])

    count = count_prompt(model="gpt-4o", messages=[HELLO, {**call, "name": "time_keeper"}])

    assert unnamed.tokens + true_count("o200k_base", "assistant:time_keeper") - 1 == count.tokens


def test_parallel_calls_are_one_message(true_count: Callable[[str, str], int]) -> None:
    """Several calls of one message are one call of a list, and their results one list too."""
    plain = count_prompt(model="gpt-4o", messages=[HELLO])
    calls = {"role": "assistant", "tool_calls": [{**CALL, "id": "c1"}, {**CALL, "id": "c2"}]}
    results = [{"role": "tool", "tool_call_id": name, "content": text} for name, text in (("c1", "noon"), ("c2", "5"))]
    use = '{"recipient_name":"functions.clock","parameters":{}}'
    of_calls = true_count("o200k_base", f'{{"tool_uses":[{use},{use}]}}') + 9
    of_results = true_count("o200k_base", '["noon", 5]') + 11

    count = count_prompt(model="gpt-4o", messages=[HELLO, calls, *results])

    assert (plain.tokens + of_calls + of_results, True, "o200k_base") == graded(count)


def test_output_schema_is_counted_without_what_is_taken_out(true_count: Callable[[str, str], int]) -> None:
    """An output schema counts its compact JSON without "required" and "additionalProperties"."""
    inner = {"type": "object", "properties": {"required": {"type": "string"}}}
    schema = {**inner, "required": ["required"], "additionalProperties": False}
    text = '# Response Formats\n\n## time\n\n{"type":"object","properties":{"required":{"type":"string"}}}'
    response_format = {"type": "json_schema", "json_schema": {"name": "time", "strict": True, "schema": schema}}
    plain = count_prompt(model="gpt-4o", messages=[HELLO])

    count = count_prompt(model="gpt-4o", messages=[HELLO], response_format=response_format)

    of_answer = true_count("o200k_base", "time") + 2
    assert (plain.tokens + true_count("o200k_base", text) + 4 + of_answer, True, "o200k_base") == graded(count)


def test_every_answer_names_its_output_schema(true_count: Callable[[str, str], int]) -> None:
    """The schema's name stands with two tokens at every answer that is sent back, as at the one to come."""
    answer = {"role": "assistant", "content": "hello"}
    named = true_count("o200k_base", "memory_notes") + 2
    first = count_prompt(model="gpt-4o", messages=[HELLO], response_format=NOTES)

    second = count_prompt(model="gpt-4o", messages=[HELLO, answer], response_format=NOTES)

    assert first.tokens + (3 + 1 + 1) + named == second.tokens


def test_output_schema_with_a_keyword_that_was_not_recorded_is_not_exact() -> None:
    """Whether a pattern is read by the model is not known."""
    schema = {"type": "json_schema", "json_schema": {"name": "time", "schema": {"type": "string", "pattern": "^1"}}}

    assert not count_prompt(model="gpt-4o", messages=[HELLO], response_format=schema).exact


def test_output_schema_beside_tools_is_not_named(true_count: Callable[[str, str], int]) -> None:
    """With tools the next answer may be a call, so that the schema costs its text alone."""
    text = '\n\n# Response Formats\n\n## memory_notes\n\n{"type":"object"}'
    free = count_prompt(model="gpt-4o", messages=[HELLO], tools=[TOOL])

    count = count_prompt(model="gpt-4o", messages=[HELLO], tools=[TOOL], response_format=NOTES)

    assert free.tokens + true_count("o200k_base", text) == count.tokens


@pytest.mark.parametrize(("model", "dash"), [("gpt-4o-mini", "\\u2014"), ("gpt-4o", "—")])
def test_json_for_a_mini_is_escaped(model: str, dash: str, true_count: Callable[[str, str], int]) -> None:
    """Output schemas and results of parallel calls have what is not ASCII escaped for gpt-4o-mini, not for gpt-4o."""
    schema = {"type": "json_schema", "json_schema": {"name": "time", "schema": {"description": "noon —"}}}
    calls = {"role": "assistant", "tool_calls": [{**CALL, "id": "c1"}, {**CALL, "id": "c2"}]}
    results = [{"role": "tool", "tool_call_id": name, "content": text} for name, text in (("c1", "—"), ("c2", "5"))]
    plain = count_prompt(model=model, messages=[HELLO]).tokens
    called = count_prompt(model=model, messages=[HELLO, calls]).tokens
    of_schema = true_count("o200k_base", f'# Response Formats\n\n## time\n\n{{"description":"noon {dash}"}}')
    of_name = true_count("o200k_base", "time") + 2

    with_schema = count_prompt(model=model, messages=[HELLO], response_format=schema)
    with_results = count_prompt(model=model, messages=[HELLO, calls, *results])

    assert plain + of_schema + 4 + of_name == with_schema.tokens
    assert called + true_count("o200k_base", f'["{dash}", 5]') + 11 == with_results.tokens
    assert (model == "gpt-4o-mini", False) == (with_schema.exact, with_results.exact)


@pytest.mark.parametrize(("model", "frame"), [("gpt-4.1", 5), ("gpt-5", 11), ("o4-mini", 11), ("gpt-5.6", 14)])
def test_responses_count_their_items(model: str, frame: int, true_count: Callable[[str, str], int]) -> None:
    """A call of the Responses API counts its arguments as they came, with a frame of its own."""
    item = {"type": "function_call", "call_id": "c1", "name": "clock", "arguments": '{"a": "noon or so"}'}
    plain = count_prompt(model=model, messages=[HELLO], api="responses")
    added = true_count("o200k_base", "functions.clock") + true_count("o200k_base", item["arguments"]) + frame

    count = count_prompt(model=model, messages=[HELLO, item], api="responses")

    assert (plain.tokens + added, model == "gpt-4.1") == (count.tokens, count.exact)


def test_call_with_the_id_of_the_server_costs_more() -> None:
    """A call that is sent back with the id of its item costs three tokens more behind the Responses API."""
    item = {"type": "function_call", "call_id": "c1", "name": "clock", "arguments": "{}"}
    without = count_prompt(model="gpt-4.1", messages=[HELLO, item], api="responses")

    count = count_prompt(model="gpt-4.1", messages=[HELLO, {**item, "id": "fc_1"}], api="responses")

    assert without.tokens + 3 == count.tokens


@pytest.mark.parametrize(("api", "model", "more"), [("responses", "gpt-5", 2), ("responses", "gpt-4.1", 0)])
def test_answers_of_reasoning_models_name_their_channel(api: str, model: str, more: int) -> None:
    """An answer that is sent back counts two tokens more, of the channel that harmony writes it to."""
    answer = {"role": "assistant", "content": "hello world"}
    plain = count_prompt(model=model, messages=[HELLO, HELLO], api=api)

    count = count_prompt(model=model, messages=[HELLO, answer], api=api)

    assert plain.tokens + more == count.tokens


@pytest.mark.parametrize(
    ("model", "day", "exact"),
    [
        ("gpt-4o", date(2025, 3, 3), False),
        ("gpt-4o", date(2025, 4, 1), True),
        ("gpt-4o", None, True),
        ("gpt-4.1", date(2025, 3, 3), True),
        ("gpt-4o-mini", date(2025, 3, 3), True),
    ],
)
def test_servers_that_counted_otherwise_are_not_exact(model: str, day: date | None, exact: bool) -> None:
    """The Responses API added tokens to gpt-4o's chats in 2025-03; the other models' were right from the first day."""
    counts = [
        count_prompt(model=model, messages=[HELLO], tools=tools, api="responses", at=day) for tools in ((), [TOOL])
    ]

    assert [exact, exact] == [count.exact for count in counts]


@pytest.mark.parametrize(("tools", "added"), [((), 18), ([TOOL], 18 + 198)])
def test_what_the_server_added_in_march_2025(tools: Sequence[dict[str, Any]], added: int) -> None:
    """To every chat with gpt-4o as much, and more where tools might be called in parallel."""
    then, now = (
        count_prompt(model="gpt-4o", messages=[HELLO], tools=tools, api="responses", at=day).tokens
        for day in (date(2025, 3, 31), None)
    )

    assert added == then - now


def test_one_call_at_a_time_in_march_2025() -> None:
    """The server added as good as nothing to tools that might not be called at once."""
    several, one = (
        count_prompt(
            model="gpt-4o",
            messages=[HELLO],
            tools=[TOOL],
            parallel_tool_calls=told,
            api="responses",
            at=date(2025, 3, 28),
        ).tokens
        for told in (None, False)
    )

    assert 195 == several - one


@pytest.mark.parametrize(("told", "more", "exact"), [(None, 0, True), (True, 0, True), (False, 78, False)])
def test_one_call_at_a_time_of_gpt_5(told: bool | None, more: int, exact: bool) -> None:
    """gpt-5 is told not to call several tools at once, which was recorded twice and is an estimate."""
    plain, count = (
        count_prompt(model="gpt-5-nano", messages=[HELLO], tools=[TOOL], parallel_tool_calls=parallel, api="responses")
        for parallel in (None, told)
    )

    assert (plain.tokens + more, exact) == (count.tokens, count.exact)


@pytest.mark.parametrize(("api", "more"), [("responses", 1), ("chat", 0)])
def test_result_is_of_a_function_behind_the_responses_api(api: str, more: int) -> None:
    """Who wrote a result is named in full to gpt-5 there: after a point "dice" is two tokens, "roll" is one."""
    roll, dice = (
        count_prompt(model="gpt-5-nano", messages=[HELLO, *rounds(name)[api]], api=api).tokens
        for name in ("roll", "dice")
    )

    assert more + 1 == dice - roll


def rounds(name: str) -> dict[str, list[dict[str, Any]]]:
    """Shape a call without arguments and its result for each API."""
    function = {"name": name, "arguments": "{}"}
    return {
        "responses": [
            {"type": "function_call", "call_id": "c3", **function},
            {"type": "function_call_output", "call_id": "c3", "output": "3"},
        ],
        "chat": [
            {"role": "assistant", "content": None, "tool_calls": [{"id": "c3", "function": function}]},
            {"role": "tool", "tool_call_id": "c3", "content": "3"},
        ],
    }


REASONING = {"type": "reasoning", "encrypted_content": "A" * 2640}


@pytest.mark.parametrize(
    ("items", "more", "is_lower_bound"),
    [
        ([HELLO, REASONING], 400 - 134, False),
        ([HELLO, {"type": "reasoning", "encrypted_content": "AAAA"}], 0, False),
        ([HELLO, {"type": "reasoning", "summary": []}], 0, True),
        ([REASONING, HELLO], 0, False),
    ],
)
def test_reasoning_since_the_last_question_is_read_again(items: Any, more: int, is_lower_bound: bool) -> None:
    """Encrypted reasoning is estimated by its length, reasoning that the provider keeps makes a lower bound."""
    plain = count_prompt(model="gpt-5", messages=[HELLO], api="responses")

    count = count_prompt(model="gpt-5", messages=items, api="responses")

    assert (plain.tokens + more, is_lower_bound) == (count.tokens, count.is_lower_bound)
    assert count.exact == (items[0] is REASONING)


def test_tools_behind_a_gateway_are_not_exact() -> None:
    """A gateway may send tools otherwise than OpenAI's own API does."""
    assert not count_prompt(model="openrouter/openai/gpt-4o", messages=[HELLO], tools=[TOOL]).exact


@pytest.mark.parametrize(
    ("model", "api", "kind"),
    [
        ("gpt-5", "responses", "web_search"),
        ("gpt-4o", "responses", "mcp"),
        ("openrouter/openai/gpt-4o-mini", "chat", "openrouter:web_search"),
        ("grok-4", "responses", "web_search"),
    ],
)
def test_prompt_with_a_tool_of_the_servers_is_a_lower_bound(model: str, api: str, kind: str) -> None:
    """What such a tool reads, and finds, is in the prompt that is billed and not in the one that was sent."""
    own, offered = (
        count_prompt(model=model, messages=[HELLO], tools=tools, api=api) for tools in ([TOOL], [TOOL, {"type": kind}])
    )

    assert (False, True) == (own.is_lower_bound, offered.is_lower_bound)
    assert not offered.exact


@pytest.mark.parametrize("gateway", ["openrouter", "vercel_ai_gateway"])
def test_gateway_asks_reasoning_models_by_the_responses_api(gateway: str) -> None:
    """Behind a gateway a chat of a reasoning model is read as the Responses API reads it."""
    chat = [
        HELLO,
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": CALL["id"], "content": "nine"},
    ]
    asked = count_prompt(model="gpt-5", messages=chat, tools=[TOOL], api="responses")

    count = count_prompt(model=f"{gateway}/openai/gpt-5", messages=chat, tools=[TOOL])

    assert (asked.tokens, False) == (count.tokens, count.exact)
    assert count.tokens < count_prompt(model="gpt-5", messages=chat, tools=[TOOL]).tokens


@pytest.mark.parametrize(("asked_again", "more"), [([], 400 - 134), ([HELLO], 0)])
def test_reasoning_that_a_gateway_has_sent_back_is_read_again(asked_again: Any, more: int) -> None:
    """Encrypted reasoning beside an answer counts by its length until the next question, its summary does not."""
    answer = {"role": "assistant", "content": "hello"}
    details = [
        {"type": "reasoning.summary", "summary": "I greet."},
        {"type": "reasoning.encrypted", "data": REASONING["encrypted_content"]},
    ]
    plain = count_prompt(model="openrouter/openai/gpt-5", messages=[HELLO, answer, *asked_again])

    chat = [HELLO, {**answer, "reasoning_details": details}, *asked_again]
    count = count_prompt(model="openrouter/openai/gpt-5", messages=chat)

    assert plain.tokens + more == count.tokens


def test_text_as_output_format_changes_nothing() -> None:
    """The response format "text" is the default of the API."""
    count = count_prompt(model="gpt-4o", messages=[HELLO], response_format={"type": "text"})

    assert count_prompt(model="gpt-4o", messages=[HELLO]) == count


def test_no_messages_are_no_tokens() -> None:
    """A chat without messages is a chat that nobody told us about."""
    assert (0, False, "o200k_base") == graded(count_prompt(model="gpt-4o", messages=[]))


@pytest.mark.parametrize(("model", "exact"), [("gpt-3.5-turbo-instruct", True), ("gpt-4", False)])
def test_text_prompt_counts_its_text(model: str, exact: bool) -> None:
    """A string is the prompt of a text completion, exact for a model that completes text."""
    assert (2, exact, "cl100k_base") == graded(count_prompt(model=model, messages="hello world"))


def test_tool_calls_in_a_completion_are_not_exact() -> None:
    """A tool call beside text counts its name, its arguments and a frame."""
    count = count_completion(model="gpt-4o", text="hello world", tool_calls=[CALL])

    assert (2 + 1 + 1 + 7, False, "o200k_base") == graded(count)


@pytest.mark.parametrize(
    "call",
    [
        {"type": "function_call", "name": "clock", "arguments": "{}"},
        {"type": "function", "function": {"name": "clock", "arguments": {}}},
        {"type": "custom", "custom": {"name": "clock", "input": "{}"}},
    ],
)
def test_tool_call_shapes_count_the_same(call: dict[str, Any]) -> None:
    """A tool call counts the same in each of OpenAI's shapes."""
    expected = count_completion(model="gpt-4o", text="", tool_calls=[CALL])

    assert expected == count_completion(model="gpt-4o", text="", tool_calls=[call])


def test_models_of_2023_frame_their_calls_with_four_tokens() -> None:
    """A call of gpt-4-0613 costs three tokens less, in the answer and when it is sent back."""
    message = {"role": "assistant", "tool_calls": [CALL]}
    answers = [count_completion(model=model, text="", tool_calls=[CALL]) for model in ("gpt-4-turbo", "gpt-4-0613")]
    prompts = [count_prompt(model=model, messages=[HELLO, message]) for model in ("gpt-4-turbo", "gpt-4-0613")]

    assert [3, 3] == [newer.tokens - older.tokens for newer, older in (answers, prompts)]


def test_one_call_that_the_server_wrote_anew_is_a_list_of_one(true_count: Callable[[str, str], int]) -> None:
    """Arguments with blanks come out of a list of calls: models write none in a call alone."""
    call = {"function": {"name": "clock", "arguments": '{"a": 1, "b": 2}'}}
    text = '{"tool_uses":[{"recipient_name":"functions.clock","parameters":{"a":1,"b":2}}]}'

    assert true_count("o200k_base", text) + 10 == count_completion(model="gpt-4o", text="", tool_calls=[call]).tokens


def test_answer_to_a_request_with_tools_counts_one_more() -> None:
    """OpenAI counts a token more in an answer where tools were offered."""
    count = count_completion(model="gpt-4o", text="hello world", tools=[TOOL])

    assert (2 + 1, True, "o200k_base") == graded(count)


@pytest.mark.parametrize("model", ["gpt-5", "gpt-5-mini", "o1", "o3-mini", "o4-mini"])
def test_completion_of_a_reasoning_model_is_a_lower_bound(model: str) -> None:
    """Reasoning is billed and not shown, so the visible text is only a part."""
    count = count_completion(model=model, text="hello world")

    assert (2 + 3, False, True) == (count.tokens, count.exact, count.is_lower_bound)


@pytest.mark.parametrize(
    ("model", "is_lower_bound"),
    [
        ("gemini-2.5-flash", True),
        ("vertex_ai/gemini-2.5-flash-preview-05-20", True),
        ("gemini/gemini-2.5-pro", True),
        ("gemini-3-flash-preview", True),
        ("gemini-2.5-flash-lite", False),
        ("gemini-2.5-flash-image", False),
        ("gemini-2.0-flash", False),
    ],
)
def test_what_gemini_thinks_is_not_in_the_count_of_its_answer(model: str, is_lower_bound: bool) -> None:
    """It is counted with the answer and not shown, by those of its models that think unasked."""
    assert is_lower_bound == count_completion(model=model, text="hello world").is_lower_bound


@pytest.mark.parametrize("model", ["claude-opus-4-5", "gemini-2.5-pro", "ollama/llama3.2", "my-model", "", None])
def test_other_models_count_by_the_nearest_vocabulary(model: str | None) -> None:
    """A model without a known vocabulary gets an estimate that says so."""
    counts = [
        count_prompt(model=model, messages=[HELLO]),
        count_completion(model=model, text="hello world"),
        count_embedding(model=model, inputs=["hello world"]),
    ]

    assert all(2 <= count.tokens < 50 for count in counts)
    assert not any(count.exact for count in counts)
    assert all(count.error_band is not None for count in counts)


def test_embedding_counts_the_sum_of_its_inputs() -> None:
    """A batch counts its texts, and a list of token numbers its length."""
    count = count_embedding(model="text-embedding-3-small", inputs=["hello world", [3, 4, 5], "tokens"])

    assert Count(tokens=2 + 3 + 1, exact=True, method="cl100k_base") == count


def test_one_token_array_counts_its_length() -> None:
    """A bare list of token numbers is one input."""
    count = count_embedding(model="text-embedding-3-small", inputs=[3, 4, 5])  # type: ignore[list-item]

    assert Count(tokens=3, exact=True, method="cl100k_base") == count


def test_one_bare_text_is_one_input() -> None:
    """A string instead of a list is one input, not one a character."""
    count = count_embedding(model="text-embedding-3-small", inputs="hello world")

    assert Count(tokens=2, exact=True, method="cl100k_base") == count


@pytest.mark.parametrize("inputs", [[], [""], [None], [{"image": "AAAA"}], None])
def test_embedding_without_text_is_not_exact(inputs: Any) -> None:
    """Nothing, an empty text and an image count nothing that we are sure of."""
    count = count_embedding(model="text-embedding-3-small", inputs=inputs)

    assert (int(inputs == [""]), False, "cl100k_base") == graded(count)


@pytest.mark.parametrize(
    ("text", "tokens"), [(None, 0), (b"hello world", 2), (7, 1), ([b"hello world"], 2), (object(), 0), (b"\xff", 1)]
)
def test_text_of_another_type_counts_as_its_text(text: Any, tokens: int) -> None:
    """None, bytes, numbers and parts count as the text they stand for, and are not exact."""
    assert (tokens, False, "o200k_base") == graded(count_completion(model="gpt-4o", text=text))


def test_cyclic_values_count_without_an_error() -> None:
    """A message, a tool and an input that hold themselves count what can be read of them."""
    message: dict[str, Any] = {"role": "user"}
    message["content"] = message
    parts: list[Any] = ["hello world"]
    parts.append(parts)
    tool: dict[str, Any] = {"function": {"name": "clock"}}
    tool["self"] = tool

    assert 0 < count_prompt(model="gpt-4o", messages=[message], tools=[tool]).tokens
    assert 2 == count_embedding(model="gpt-4o", inputs=[parts]).tokens


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FIELDS = ["role", "content", "name", "tool_calls", "function_call", "tool_call_id", "type", "text", "function"]
MESSAGES = st.lists(st.dictionaries(st.sampled_from(FIELDS), JSON_LIKE, max_size=5) | JSON_LIKE, max_size=4)


@settings(deadline=None)
@given(model=JSON_LIKE, messages=MESSAGES | JSON_LIKE, tools=JSON_LIKE, response_format=JSON_LIKE)
def test_no_prompt_raises(model: Any, messages: Any, tools: Any, response_format: Any) -> None:
    """Whatever JSON can hold is counted without an error."""
    count = count_prompt(model=model, messages=messages, tools=tools, response_format=response_format)

    assert 0 <= count.tokens


@settings(deadline=None)
@given(model=JSON_LIKE, text=JSON_LIKE, tool_calls=JSON_LIKE | MESSAGES)
def test_no_completion_or_embedding_raises(model: Any, text: Any, tool_calls: Any) -> None:
    """Whatever JSON can hold is counted without an error, as an answer and as an input."""
    assert 0 <= count_completion(model=model, text=text, tool_calls=tool_calls).tokens
    assert 0 <= count_embedding(model=model, inputs=text).tokens


@settings(deadline=None)
@given(text=st.text(st.characters(codec="utf-8")), model=st.sampled_from(["gpt-4o", "gpt-4"]))
def test_any_text_counts_as_in_tiktoken(text: str, model: str, true_count: Callable[[str, str], int]) -> None:
    """Every text counts what tiktoken counts."""
    count = count_completion(model=model, text=text)

    assert true_count(count.method, text) == count.tokens


@settings(deadline=None)
@given(texts=st.lists(st.text(), min_size=1, max_size=4))
def test_a_batch_counts_the_sum_of_its_texts(texts: list[str]) -> None:
    """Inputs of a batch do not touch each other."""
    alone = [count_embedding(model="gpt-4o", inputs=[text]).tokens for text in texts]

    assert sum(alone) == count_embedding(model="gpt-4o", inputs=texts).tokens


@settings(deadline=None)
@given(text=st.text())
def test_a_text_has_at_most_a_token_a_byte(text: str) -> None:
    """A token covers at least one byte, and a text that is not empty has at least one token."""
    count = count_completion(model="gpt-4o", text=text)

    assert (
        (len(text) > 0)
        <= count.tokens
        <= len(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode())
    )
