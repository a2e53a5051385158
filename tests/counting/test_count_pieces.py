"""Long texts: the pieces count as much as the whole, and nothing panics."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from token_callbacks.counting import Count, count_completion
from token_callbacks.counting import pieces as pieces_module
from token_callbacks.counting.pieces import LONGEST_PIECE_CHARACTERS, has_forced_cut, pieces

MODELS = {"o200k_base": "gpt-4o", "cl100k_base": "gpt-4"}
# One of each kind of character that the patterns of the vocabularies tell apart.
KINDS = "aZsé中あ\u0301ʰ1½ \t\r\n\xa0\u3000.,'/-_!、。“…\u2028👩\u200d\udc00\ud83d"


def test_pieces_join_to_the_text() -> None:
    """Nothing is lost and nothing is said twice."""
    text = "".join(random.Random(3).choices(KINDS, k=300_000))

    assert text == "".join(pieces(text))


@pytest.mark.parametrize("name", MODELS)
@given(text=st.text(KINDS, min_size=2, max_size=60))
@settings(max_examples=2_000, deadline=None)
def test_pieces_count_as_much_as_the_whole(name: str, text: str, true_count: Callable[[str, str], int]) -> None:
    """A cut at the end of a word changes no count."""
    text = text.encode("utf-8", "replace").decode()
    ends = [found.start() for found in pieces_module._WORD_END.finditer(text)]

    for end in ends:
        assert true_count(name, text) == true_count(name, text[:end]) + true_count(name, text[end:])


@pytest.mark.parametrize("name", MODELS)
def test_long_prose_counts_as_in_tiktoken(name: str, true_count: Callable[[str, str], int]) -> None:
    """A text of many pieces counts what tiktoken counts on the whole."""
    words = [
        "It's",
        " naïve,",
        " 12345",
        "\n\n",
        "  ",
        "中文。",
        "don't",
        " HTTPServer",
        "/path",
        "\t",
        "👩‍👧",
        "x" * 40,
    ]
    text = "".join(random.Random(4).choices(words, k=90_000))

    count = count_completion(model=MODELS[name], text=text)

    assert Count(tokens=true_count(name, text), exact=True, method=name) == count


@pytest.mark.parametrize(("text", "tokens"), [(" " * 10**6, 7_813), ("a" * 10**6, 125_000), ("\n" * 10**6, 62_500)])
def test_a_million_blanks_are_counted(text: str, tokens: int) -> None:
    """A run that makes tiktoken panic is counted, to a token for each forced cut, and says that it is not exact."""
    count = count_completion(model="gpt-4o", text=text)

    assert not count.exact
    assert tokens == pytest.approx(count.tokens, abs=len(text) // LONGEST_PIECE_CHARACTERS)


def test_a_million_blanks_before_a_word_are_counted() -> None:
    """The panic needs a word after the blanks: this is the text that killed the caller."""
    count = count_completion(model="gpt-4o", text=" " * 10**6 + "x")

    assert 7_814 == pytest.approx(count.tokens, abs=3)


@pytest.mark.parametrize(
    ("text", "is_cut"),
    [
        ("x" * LONGEST_PIECE_CHARACTERS, False),
        ("x" * (LONGEST_PIECE_CHARACTERS + 1), True),
        ("x " * LONGEST_PIECE_CHARACTERS, False),
        ("x" * 300_000 + " " + "y" * 300_000, False),
    ],
)
def test_only_a_run_without_an_end_is_cut(text: str, is_cut: bool) -> None:
    """A text is cut inside a word where a word is too long, and only there."""
    assert is_cut == has_forced_cut(text)


@pytest.mark.parametrize("text", ["\ud83d", "\udc00 x", "a\ud83d\ude00b", "\ud800" * 100_000])
def test_surrogates_are_counted(text: str) -> None:
    """Half a character is counted as a replacement character, and a split pair as its character."""
    repaired = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    count = count_completion(model="gpt-4o", text=text)

    assert count_completion(model="gpt-4o", text=repaired).tokens == count.tokens
