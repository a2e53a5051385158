"""Streams: the count is tiktoken's on the whole text, however the text was cut and whenever it is read.

``TOKEN_CALLBACKS_SPLITS=1000000 pytest tests/counting/test_count_streams.py`` tries a million random splits for each
vocabulary, which takes half a minute or so.
"""

import os
import random
import string
from collections.abc import Callable, Iterator

import pytest

from token_callbacks.counting.models import family_of
from token_callbacks.counting.pieces import LONGEST_PIECE_CHARACTERS
from token_callbacks.counting.registry import register_tokenizer
from token_callbacks.counting.streams import StreamCounter
from token_callbacks.counting.vocabularies import INSTALLED, Vocabularies

MODELS = {"o200k_base": "gpt-4o", "cl100k_base": "gpt-4"}
# Each is a text's alphabet: characters that the patterns of the vocabularies treat in ways of their own, crowded.
ALPHABETS = {
    "one of each kind": "aZsé中あ\u0301ʰ1½ \t\r\n\xa0\u3000.,'/-_!、。“…\u2028👩\u200d\udc00\ud83d\u017ftT  ''\n\n",
    "blanks": "  \t\n\n\r\xa0\u3000\u2028a/.",
    "contractions": "'’sStTdDmMrReEvVlL\u017f aI",
    "cjk": "中文字あアㄱ한、。「」（）！ \n1a",
    "emoji": "👩👨👧🏽\u200d\ufe0f❤🇩🇪\ud83d\ude00 a\n",
    "digits": "0123456789٣½²,._- \n'a",
    "code": "abcXYZ_01(){}[]<>:;=/\\\"'#\t  \n\n",
    "marks": "éàñe\u0301a\u0308ʰक्षि ก็ b'\n",
}
SPLITS = int(os.environ.get("TOKEN_CALLBACKS_SPLITS", "25000"))


def texts(seed: object) -> Iterator[tuple[random.Random, str]]:
    """Yield random texts without end, each of one alphabet, and the generator they come from."""
    generator = random.Random(f"{seed}")
    alphabets = list(ALPHABETS.values())
    while True:
        yield generator, "".join(generator.choices(generator.choice(alphabets), k=generator.randint(1, 60)))


def cut(text: str, generator: random.Random) -> list[str]:
    """Return the text in pieces of up to 7 characters, none of them empty."""
    found, start = [], 0
    while start < len(text):
        end = start + generator.randint(1, 7)
        found.append(text[start:end])
        start = end
    return found


def fed(model: str | None, pieces: list[str]) -> StreamCounter:
    """Return a counter that was given the pieces and not read in between."""
    counter = StreamCounter(model)
    for piece in pieces:
        counter.feed(piece)
    return counter


@pytest.mark.parametrize("name", MODELS)
def test_count_is_that_of_the_whole_text(name: str, true_count: Callable[[str, str], int]) -> None:
    """However a text is cut, at the end the count is tiktoken's, and so it is at each moment it is read."""
    wrong: list[str] = []
    splits = 0
    for generator, text in texts(name):
        counter, so_far = StreamCounter(MODELS[name]), ""
        for piece in cut(text, generator):
            splits += 1
            counter.feed(piece)
            so_far += piece
            if generator.random() < 0.25 and counter.count != true_count(name, so_far):
                wrong.append(so_far)
        if counter.count != true_count(name, text):
            wrong.append(text)
        if splits >= SPLITS:
            break

    assert [] == wrong


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_long_stream_counts_as_the_whole(name: str, alphabet: str, true_count: Callable[[str, str], int]) -> None:
    """A text that is drained many times on its way counts the same."""
    generator = random.Random(5)
    text = "".join(generator.choices(ALPHABETS[alphabet], k=20_000))

    counter = fed(MODELS[name], cut(text, generator))

    assert true_count(name, text) == counter.total()


@pytest.mark.parametrize(
    "text",
    ["I'll don't DON'T we'\u017f", "<|endoftext|> <|endofprompt|>", "a  \n\n  b\t\n /c\n/d", "👩‍👧 中文。1234567 12"],
)
def test_every_cut_in_two(text: str, true_count: Callable[[str, str], int]) -> None:
    """Wherever the one cut is, and whether or not the first half is read, the count is the same."""
    for at in range(len(text) + 1):
        counter = fed("gpt-4o", [text[:at]])

        assert true_count("o200k_base", text[:at]) == counter.count
        counter.feed(text[at:])
        assert true_count("o200k_base", text) == counter.count


def test_nothing_counts_nothing() -> None:
    """No piece, and empty ones, are no tokens."""
    assert (0, 0, 0) == (StreamCounter("gpt-4o").count, fed("gpt-4o", ["", ""]).count, StreamCounter().total())


def test_halves_of_a_character_in_two_pieces(true_count: Callable[[str, str], int]) -> None:
    """A surrogate pair that the transport cut is its character again; a half alone is a replacement character."""
    counter = fed("gpt-4o", ["so \ud83d"])

    assert true_count("o200k_base", "so \ufffd") == counter.count
    counter.feed("\ude00 it is")
    assert true_count("o200k_base", "so 😀 it is") == counter.count


def test_little_is_held_of_ordinary_text() -> None:
    """A stream that is read holds a few words, one that is not some 2,000 characters, however long it gets."""
    generator = random.Random(6)
    read, unread = StreamCounter("gpt-4o"), StreamCounter("gpt-4o")
    held_read = held_unread = 0
    for _ in range(20_000):
        word = "".join(generator.choices(string.ascii_letters, k=generator.randint(1, 12)))
        for counter in (read, unread):
            counter.feed(generator.choice((" ", ", ", "\n", "", "'s ")) + word)
        read.count  # noqa: B018 - reading is what lets go of the text
        held_read = max(held_read, read.held_characters)
        held_unread = max(held_unread, unread.held_characters)

    assert held_read < 1024
    assert held_unread < 2048 + 1024


def counting_how_much(monkeypatch: pytest.MonkeyPatch, counter: StreamCounter) -> list[int]:
    """Return a list that the lengths of the texts are put into which the counter would have had to tokenize."""
    lengths: list[int] = []
    counter._tally()

    def noting(text: str) -> int:
        lengths.append(len(text))
        return len(text)

    monkeypatch.setattr(counter, "_count", noting)
    return lengths


def test_word_that_grows_is_not_counted_at_each_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read at each piece, a word of 100,000 characters is counted a few times over, not thousands of times."""
    counter = StreamCounter("gpt-4o")
    lengths = counting_how_much(monkeypatch, counter)

    for _ in range(25_000):
        counter.feed("abcd")
        counter.count  # noqa: B018

    assert sum(lengths) < 6 * 100_000


def test_count_inside_a_long_word_lags_by_little_and_the_total_does_not(true_count: Callable[[str, str], int]) -> None:
    """Until a long word has grown by a quarter its count is extrapolated; the total is exact at once."""
    text = "".join(random.Random(7).choices(string.ascii_letters, k=3_000))
    counter = fed("gpt-4o", [text[:2_500]])

    assert true_count("o200k_base", text[:2_500]) == counter.count
    counter.feed(text[2_500:])
    assert true_count("o200k_base", text) == pytest.approx(counter.count, rel=0.05)
    assert true_count("o200k_base", text) == counter.total() == counter.count


@pytest.mark.parametrize("character", ["a", " ", "中", "\n"])
def test_ten_megabytes_without_an_end_stay_linear(character: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that never ends is cut after all: what is counted and what is held stays bounded, and it says so."""
    counter = StreamCounter("gpt-4o")
    piece = character * 4_000
    characters = 10_000_000 // len(character.encode())
    lengths = counting_how_much(monkeypatch, counter)
    held = 0

    for _ in range(characters // len(piece)):
        counter.feed(piece)
        counter.count  # noqa: B018
        held = max(held, counter.held_characters)

    assert sum(lengths) < 6 * characters
    assert held <= LONGEST_PIECE_CHARACTERS
    assert not counter.is_exact


@pytest.mark.usefixtures("without_splintr")
def test_exact_only_by_the_models_own_vocabulary(tmp_path: object) -> None:
    """A count by the nearest vocabulary, or by characters, says that it is not exact."""
    nothing_here = Vocabularies(folders=tuple)

    assert StreamCounter("gpt-4o").is_exact
    assert not StreamCounter("my-model").is_exact
    assert not StreamCounter("gpt-4o", vocabularies=nothing_here).is_exact


def test_registered_tokenizer_counts_the_whole_text() -> None:
    """Nothing is known about where the words of a user's tokenizer end, so it is given all of the text."""
    given: list[str] = []

    def letters(text: str) -> int:
        given.append(text)
        return len(text)

    register_tokenizer("my-model*", letters)
    counter = fed("my-model-7b", ["one ", "two ", "three"])

    assert 13 == counter.count
    assert ["one two three"] == given


@pytest.mark.parametrize("model", ["gpt-4o", "claude-sonnet-4-5"])
@pytest.mark.parametrize("is_here", [True, False])
def test_guess_is_that_of_the_whole(model: str, is_here: bool) -> None:
    """Quarters of words, or tokens and a fraction of a fit, are not rounded up one by one."""
    vocabularies = INSTALLED if is_here else Vocabularies(folders=tuple)
    words = [f" wörd{number}," for number in range(500)]
    counter = StreamCounter(model, vocabularies=vocabularies)
    for word in words:
        counter.feed(word)
        counter.count  # noqa: B018

    assert vocabularies.of(family_of(model)).count("".join(words)) == counter.count
    assert counter.held_characters < 20
