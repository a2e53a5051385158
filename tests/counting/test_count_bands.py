"""How good a count says it is, and what is remembered of texts."""

import threading
from collections.abc import Callable
from datetime import date

import msgspec
import pytest

from token_callbacks.counting import count_completion, count_prompt
from token_callbacks.counting.bands import LOOSEST, NEAREST, band_of
from token_callbacks.counting.models import Figure
from token_callbacks.counting.prompts_cache import CachedCounts

HELLO = {"role": "user", "content": "hello world"}
TOOL = {"type": "function", "function": {"name": "bake", "parameters": {"type": "object"}}}


class Counting(msgspec.Struct):
    """A vocabulary that counts how often it is asked."""

    name: str = "v"
    is_guess: bool = False
    amount: Callable[[str], int] | None = None
    asked: int = 0

    def count(self, text: str) -> int:
        """Count the characters."""
        self.asked += 1
        return len(text)


def test_exact_count_has_no_band() -> None:
    """An exact count is not off."""
    assert count_prompt(model="gpt-4o", messages=[HELLO]).error_band is None


def test_estimate_has_a_band() -> None:
    """An estimate says how far off nine in ten of its kind are."""
    assert count_completion(model="claude-sonnet-4-5", text="hello world").error_band == 0.07


def test_a_model_of_nobody_known_has_not_the_band_of_openais() -> None:
    """Its text is counted by OpenAI's vocabulary, and is further off than OpenAI's."""
    assert 0.3 == count_completion(model="my-model", text="hello world").error_band
    assert 1.0 == count_prompt(model="my-model", messages=[HELLO]).error_band


@pytest.mark.parametrize(
    ("model", "plain", "with_tools"),
    [
        ("amazon.nova-pro-v1:0", 0.24, 0.34),
        ("grok-4", 0.73, 0.73),
        ("command-r-plus", 0.77, 0.15),
        ("gemini-2.5-flash", 0.23, 1.05),
        ("groq/meta-llama/llama-4-scout", 0.33, 0.51),
        ("groq/openai/gpt-oss-120b", 0.05, 0.58),
        ("kimi-k2-0905", 0.5, 0.51),
    ],
)
def test_band_of_tools_is_that_of_prompts_with_tools(model: str, plain: float, with_tools: float) -> None:
    """What was recorded five times or more has the band that nine in ten of it kept to, of whatever size."""
    counts = [count_prompt(model=model, messages=[HELLO], tools=tools) for tools in ((), [TOOL])]

    assert [plain, with_tools] == [count.error_band for count in counts]


def test_cohere_has_not_the_band_of_openais_older_models() -> None:
    """Both are counted by one vocabulary; documents, which no message shows, are read by Cohere's alone."""
    bands = [band_of(name, "cl100k_base", Figure.CHAT_PROMPT, frozenset()) for name in ("cohere", "cl100k_base")]

    assert [0.77, 0.24] == bands


def test_other_vendors_responses_have_a_band_of_their_own() -> None:
    """What they add to the Responses API's prompts is not what they add to chats."""
    counts = [count_prompt(model="deepseek-v3", messages=[HELLO], api=api) for api in ("chat", "responses")]

    assert counts[0].error_band != counts[1].error_band == 0.91


def test_kind_recorded_too_seldom_has_the_loosest_band() -> None:
    """Fewer than five output schemas of Grok's were recorded."""
    schema = {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}

    assert LOOSEST == count_prompt(model="grok-4", messages=[HELLO], response_format=schema).error_band


def test_responses_have_a_band_of_their_own() -> None:
    """What the Responses API's server added to gpt-4o's chats once is wider than what a chat is off."""
    count = count_prompt(model="gpt-4o", messages=[HELLO], api="responses", at=date(2025, 3, 3))

    assert 0.96 == count.error_band


def test_widest_band_counts() -> None:
    """Of all that a prompt holds, the least certain decides."""
    assert band_of("tekken", "tekken", Figure.CHAT_PROMPT, frozenset({"tools", "odd"})) == LOOSEST


def test_other_vocabulary_widens_the_band() -> None:
    """A count by another vocabulary than the model's own is no better than that."""
    assert band_of("llama3", "cl100k_base", Figure.COMPLETION, frozenset()) == NEAREST


def test_text_is_counted_once() -> None:
    """A text that was counted is not counted again."""
    counts, vocabulary = CachedCounts(), Counting()

    assert [20, 20] == [counts.count(vocabulary, "x" * 20) for _ in range(2)]
    assert 1 == vocabulary.asked


def test_a_text_in_another_form_is_another_text() -> None:
    """Counted once in each form, and not taken for the text as it is."""
    counts, vocabulary = CachedCounts(), Counting()

    assert [20, 17, 20, 17] == [counts.count(vocabulary, f"{'x' * 17}   ", form) for form in (None, str.strip) * 2]
    assert 2 == vocabulary.asked


def test_few_counts_are_kept() -> None:
    """The oldest counts make place for new ones, and no text is kept."""
    counts, vocabulary = CachedCounts(most=8), Counting()
    for number in range(100):
        counts.count(vocabulary, f"{number:020}")

    assert len(counts) <= 8
    assert not any(isinstance(part, str) and part != "v" for key in counts._counts for part in key)


def test_users_tokenizer_is_asked_each_time() -> None:
    """A user's own function may change its mind."""
    counts, vocabulary = CachedCounts(), Counting(is_guess=True)
    for _ in range(3):
        counts.count(vocabulary, "x" * 20)

    assert 3 == vocabulary.asked


def test_fit_is_asked_once() -> None:
    """An arithmetic over another vocabulary is no function of a user's: its counts are remembered."""
    counts, vocabulary = CachedCounts(), Counting(is_guess=True, amount=len)
    for _ in range(3):
        counts.count(vocabulary, "x" * 20)

    assert 1 == vocabulary.asked


def test_threads_share_the_counts() -> None:
    """Many threads that count many texts at once get the right numbers."""
    counts, wrong = CachedCounts(most=16), []

    def work() -> None:
        vocabulary = Counting()
        wrong.extend(n for n in range(16, 400) if counts.count(vocabulary, "y" * n) != n)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [] == wrong


def test_agent_loop_counts_each_message_once() -> None:
    """Request after request with one message more, every text is tokenized once."""
    counts, vocabulary = CachedCounts(), Counting()
    texts = [f"message {number} of the loop" for number in range(50)]
    for turn in range(1, 51):
        for text in texts[:turn]:
            counts.count(vocabulary, text)

    assert 50 == vocabulary.asked
