"""How encoders become counts: panics, halves of characters, and the fast counter that must equal tiktoken."""

import os
import random
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

from token_callbacks.counting.pieces import PIECE_CHARACTERS
from token_callbacks.counting.tallies import by_pieces, fast_tally, in_whole_characters, tally_by
from token_callbacks.counting.vocabularies import Vocabularies, installed_folders

# Long s after an apostrophe and letters of Unicode 17 are where toktok 0.3.0 differs.
KINDS = "aZsé中あ\u0301ʰ1½ \t\r\n\xa0\u3000.,'/-_!、。“…\u2028👩\u200d\udc00\ud83d\u017f'\u017ftT<|endoftext|>"
KINDS += "\u0c5c\U000323b0"
TEXTS = int(os.environ.get("TOKEN_CALLBACKS_SPLITS", "20000"))


@pytest.fixture(scope="module", params=["from files", "as installed"])
def vocabularies(request: pytest.FixtureRequest) -> Iterator[Vocabularies]:
    """Give what is counted by without splintr-rs, and with it if it is here."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "from files":
            patch.setitem(sys.modules, "splintr", None)
        yield Vocabularies(folders=installed_folders)


class PanicException(BaseException):
    """Like pyo3's: `except Exception` does not catch it."""


def panicking_above(characters: int) -> Callable[[str], str]:
    """Return an encoder of a token a character that panics on long texts."""

    def encode(text: str) -> str:
        if len(text) > characters:
            raise PanicException
        return text

    return encode


@pytest.mark.parametrize("characters", [0, 1, 7, 8, 100])
def test_panic_is_survived(characters: int) -> None:
    """A text that makes the encoder panic is counted in halves."""
    assert characters == tally_by(panicking_above(7))("x" * characters)


def test_panic_on_every_text_is_raised_at_last() -> None:
    """Where even one character panics there is no count to give; who counts a call is shielded against it."""
    with pytest.raises(PanicException):
        tally_by(panicking_above(0))("xx")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_other_errors_pass(error: type[BaseException]) -> None:
    """Only a panic is taken for one."""

    def encode(text: str) -> str:
        raise error

    with pytest.raises(error):
        tally_by(encode)("xx")


@pytest.mark.parametrize(
    "run", ["A", "a", "中", "\u0301", "ʰ", " ", "\n", "1", "!", "\ud83d", "👩", "\t", "'s", "aA", " \n", "\u2028"]
)
def test_longest_piece_does_not_panic(run: str, vocabularies: Vocabularies, capfd: pytest.CaptureFixture[str]) -> None:
    """An encoder survives the longest piece we give it, of whatever kind, and writes no panic on stderr."""
    text = run * (350_000 // len(run))

    for model in ("o200k_base", "cl100k_base"):
        assert vocabularies.nearest(model).count(text + "x") > 0
    assert "" == capfd.readouterr().err


@pytest.mark.parametrize(
    ("text", "whole"), [("a", "a"), ("\ud83d\ude00", "😀"), ("\ud83d!", "\ufffd!"), ("\ude00\ud83d", "\ufffd\ufffd")]
)
def test_whole_characters(text: str, whole: str) -> None:
    """Pairs are joined, halves replaced."""
    assert whole == in_whole_characters(text)


@pytest.mark.parametrize("name", ["o200k_base", "cl100k_base"])
def test_fast_counter_equals_tiktoken(name: str, true_count: Callable[[str, str], int]) -> None:
    """Toktok behind its guards counts every text as tiktoken does; TOKEN_CALLBACKS_SPLITS says how many."""
    pytest.importorskip("toktok")
    fast = fast_tally(name, lambda text: true_count(name, text), after_characters=0)
    generator = random.Random(name)
    texts = ("".join(generator.choices(KINDS, k=generator.randint(0, 60))) for _ in range(TEXTS))

    assert [] == [text for text in texts if true_count(name, text) != fast(text)]


@pytest.mark.usefixtures("proved_splintr")
@pytest.mark.parametrize("name", ["o200k_base", "cl100k_base"])
def test_bundled_vocabularies_count_as_tiktoken(name: str, true_count: Callable[[str, str], int]) -> None:
    """OpenAI's vocabularies inside splintr-rs are tiktoken's; TOKEN_CALLBACKS_SPLITS says on how many texts."""
    bundled = Vocabularies(folders=tuple).vocabulary(name)
    assert bundled is not None
    generator = random.Random(name)
    texts = ("".join(generator.choices(KINDS, k=generator.randint(0, 60))) for _ in range(TEXTS))

    assert [] == [text for text in texts if true_count(name, text) != bundled.count(text)]


def test_another_release_is_not_taken_for_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody has held to tiktoken does not count for OpenAI, even if there is nothing else."""
    monkeypatch.setattr("token_callbacks.counting.vocabularies.version_of", lambda package: "0.23.0")

    assert Vocabularies(folders=tuple).vocabulary("o200k_base") is None


def test_pieces_are_counted_one_by_one() -> None:
    """A long text is counted in pieces that make it up."""
    counted: list[str] = []
    text = "hello world " * (PIECE_CHARACTERS // 4)

    tokens = by_pieces(lambda piece: counted.append(piece) or len(piece))(text)

    assert (len(text), text) == (tokens, "".join(counted))
    assert 3 == len(counted)


def test_fast_counter_comes_after_much_text() -> None:
    """The first texts, and those that toktok reads otherwise, are tiktoken's; the tables are loaded when it pays."""
    pytest.importorskip("toktok")
    slow: list[str] = []
    count = fast_tally("o200k_base", lambda text: slow.append(text) or 1, after_characters=8)

    numbers = [count(text) for text in ("hello", "hello", "hello", "we'\u017f", "\ud83d")]

    assert [1, 1, 1, 1, 1] == numbers
    assert ["hello", "hello", "we'\u017f", "\ud83d"] == slow


@pytest.mark.parametrize("module", [None, ModuleType("toktok")])
def test_without_toktok_tiktoken_counts_on(module: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the package is not here, or is another one, nothing changes."""
    monkeypatch.setitem(sys.modules, "toktok", module)
    count = fast_tally("o200k_base", len, after_characters=3)

    assert [5, 5, 5] == [count("hello") for _ in range(3)]
