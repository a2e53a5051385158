"""Chats and answers of other models."""

from datetime import date
from typing import Any

import pytest

from token_callbacks.counting import count_completion, count_prompt
from token_callbacks.counting.templates import ANSWERS, TEMPLATES, answer_rule_of, template_of

HELLO = {"role": "user", "content": "hello world"}
TOOL = {"type": "function", "function": {"name": "bake", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    ("model", "message", "once"),
    [("groq/llama3-8b-8192", 5, 5), ("qwen3-32b", 5, 3), ("mistral-large-latest", 2, 1), ("gemini-2.0-flash", 0, 0)],
)
def test_template_adds_to_messages(model: str, message: int, once: int) -> None:
    """A template adds so much to a message, and so much once."""
    one = count_prompt(model=model, messages=[HELLO]).tokens
    two = count_prompt(model=model, messages=[HELLO, HELLO]).tokens

    assert (message, once) == ((two - one) - (one - message - once), one - (two - one))


def test_llama_with_a_date_has_a_system_text_of_its_own() -> None:
    """Llama 3.1 and later tell the model the date, which costs as much with a system text as without."""
    system = {"role": "system", "content": ""}

    alone = count_prompt(model="llama-3.3-70b", messages=[HELLO])

    assert count_prompt(model="llama-3.3-70b", messages=[system, HELLO]).tokens == alone.tokens


@pytest.mark.parametrize(("model", "more"), [("groq/meta-llama/llama-4-scout", 653), ("us.meta.llama4-scout", 0)])
def test_llama_4_reads_how_to_call_tools(model: str, more: int) -> None:
    """With the JSON of the tools comes a text of its own, as Groq counts it."""
    plain, schema, tools = (
        count_prompt(model=model, messages=[HELLO], **extras).tokens
        for extras in ({}, {"response_format": {"type": "json_schema", "json_schema": TOOL}}, {"tools": [TOOL]})
    )

    assert more == tools - schema
    assert plain < schema


def test_reasoning_command_has_a_longer_system_text() -> None:
    """Command A Reasoning reads 891 tokens more than Command A."""
    prompts = [count_prompt(model=f"command-a-{name}", messages=[HELLO]).tokens for name in ("03-2025", "reasoning")]

    assert 891 == prompts[1] - prompts[0]


def test_call_with_next_to_nothing_in_it_is_no_less_than_none() -> None:
    """Gemini's frame of a call takes tokens off, but none that are not there."""
    call = {"function": {"name": "f", "arguments": ""}}

    assert 0 == count_completion(model="gemini-2.0-flash", text="", tool_calls=[call]).tokens


def test_end_of_an_answer_counts() -> None:
    """Mistral counts the token that ends an answer, and Gemma's hosts do; other vendors do not."""
    models = ("mistral-large", "ollama/gemma3:1b", "gemini-2.0-flash")

    assert [1, 1, 0] == [answer_rule_of(model, "chat").end for model in models]


def test_empty_answer_has_no_end() -> None:
    """Where nothing came back, nothing is counted."""
    assert 0 == count_completion(model="mistral-large", text="").tokens


@pytest.mark.parametrize(("model", "end"), [("claude-sonnet-4-5", 3), ("claude-sonnet-5", 2), ("mistral-large", 1)])
def test_answer_at_its_limit_has_no_end(model: str, end: int) -> None:
    """What was stopped before it could end has not written the tokens of an end."""
    ended, stopped = (
        count_completion(model=model, text="hello world", is_at_limit=is_at_limit).tokens
        for is_at_limit in (False, True)
    )

    assert end == ended - stopped


def test_claude_2_reads_turns() -> None:
    """Claude 2 reads a text with turns, of four tokens each, and writes four tokens at the end."""
    chats = [[HELLO], [HELLO, {"role": "assistant", "content": "hello world"}, HELLO]]
    prompts = [count_prompt(model="claude-2.1", messages=chat).tokens for chat in chats]

    assert [2 + 4 + 5, 3 * (2 + 4) + 5] == prompts
    assert 2 + 4 == count_completion(model="claude-2.1", text="hello world").tokens


def test_azure_counts_a_token_more() -> None:
    """Azure's answers count a token more than OpenAI's since 2025-10."""
    counts = [count_completion(model=model, text="hello world").tokens for model in ("gpt-4o", "azure/gpt-4o")]

    assert [2, 3] == counts


def test_azure_once_counted_as_openai() -> None:
    """What Azure answered before 2025-10 was recorded once, without the token."""
    count = count_completion(model="azure/gpt-4o", text="hello world", at=date(2024, 4, 25))

    assert (2, False) == (count.tokens, count.exact)


def test_choices_are_counted_one_by_one() -> None:
    """Two texts are not one: "test.This" would be two tokens, the point and the word one of them."""
    counts = [count_completion(model="gpt-4o", text=text) for text in (["test.", "This"], "test.This")]

    assert [(3, True), (2, True)] == [(count.tokens, count.exact) for count in counts]


@pytest.mark.parametrize(
    ("model", "told", "tokens"),
    [
        ("azure/gpt-4o", {}, 6),
        ("azure/gpt-4o", {"is_at_limit": True}, 5),
        ("gpt-4o", {"tools": [TOOL]}, 6),
        ("gpt-4o", {"is_refused": True}, 6),
    ],
)
def test_choices_end_one_by_one(model: str, told: dict[str, Any], tokens: int) -> None:
    """Each choice that was written has an end, but the one that was stopped; no recording says that it is exact."""
    count = count_completion(model=model, text=["hello world", "", "hello world"], **told)

    assert (tokens, False) == (count.tokens, count.exact)


def test_answer_beside_a_tool_of_the_servers_is_not_exact() -> None:
    """What the model writes to a tool that the server runs is counted, and does not come back."""
    counts = [count_completion(model="gpt-4o", text="hello", tools=[tool]) for tool in (TOOL, {"type": "web_search"})]

    assert [True, False] == [count.exact for count in counts]


def test_refusal_counts_a_token_more() -> None:
    """A refusal to answer in an output schema ends with a token of its own."""
    counts = [count_completion(model="gpt-4o", text="hello world", is_refused=told).tokens for told in (False, True)]

    assert [2, 3] == counts


@pytest.mark.parametrize(("tools", "tokens"), [([TOOL], 2 + 1 + 2 + 2), ([], 2)])
def test_name_of_the_schema_is_written_where_tools_are(tools: list[dict[str, Any]], tokens: int) -> None:
    """A model that could have called a tool writes the name of the output schema; else it stands in the prompt."""
    schema = {"type": "json_schema", "json_schema": {"name": "CalculationResult", "schema": {"type": "object"}}}
    count = count_completion(model="gpt-4o", text="hello world", tools=tools, response_format=schema)

    assert (tokens, True) == (count.tokens, count.exact)


@pytest.mark.parametrize(
    ("day", "tokens", "is_exact"),
    [(date(2025, 1, 9), 2, True), (date(2025, 2, 3), 2, False), (date(2025, 5, 15), 2, True), (None, 2, True)],
)
def test_answers_of_spring_2025_are_not_sure(day: date | None, tokens: int, is_exact: bool) -> None:
    """OpenAI counted the end of some answers then; which ones, only the request's stop sequences would tell."""
    count = count_completion(model="gpt-4o", text="hello world", at=day)

    assert (tokens, is_exact) == (count.tokens, count.exact)


def test_calls_of_spring_2025_count_a_token_more() -> None:
    """The end of calls was counted in all of them."""
    call = {"function": {"name": "clock", "arguments": '{"a":3}'}}
    then, now = (
        count_completion(model="gpt-4o", text="", tool_calls=[call], at=day).tokens for day in (date(2025, 2, 3), None)
    )

    assert 1 == then - now


def test_forced_call_counts_its_arguments_alone() -> None:
    """A tool that had to be called costs no name and no frame."""
    call = {"function": {"name": "clock", "arguments": '{"a": 3}'}}
    choice = {"type": "function", "function": {"name": "clock"}}

    forced = count_completion(model="gpt-4o", text="", tool_calls=[call], tool_choice=choice)

    assert count_completion(model="gpt-4o", text='{"a": 3}').tokens == forced.tokens


def test_openai_has_no_template_here() -> None:
    """OpenAI's chats have rules of their own."""
    assert template_of("gpt-4o") is None


def test_every_row_has_a_date() -> None:
    """Rules are dated: what a vendor counts changes."""
    assert all(len(row.as_of) >= len("2024-01") for row in (*TEMPLATES, *ANSWERS))
