"""The vocabularies of others than OpenAI: their vendors' own, and replaced by the nearest where not installed."""

import importlib.util
import logging
import random
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from token_callbacks.counting import vocabularies as vocabularies_module
from token_callbacks.counting.models import FAMILIES, family_of
from token_callbacks.counting.pieces import _WORD_END
from token_callbacks.counting.streams import StreamCounter
from token_callbacks.counting.vocabularies import BUNDLED, FITS, INSTALLED, SAME_FOR_TEXT, SOURCES, Vocabularies

# One of each kind of character that the patterns tell apart, and some that are two characters in another Unicode form.
KINDS = "aZsé中あ한\u0301ʰ1½ \t\r\n\xa0\u3000.,'/-_!、。“…👩\u200d\u017ftT  ''\n\nÅ\u212bﬁ"
CLAUDES = ("claude_2_cut", "claude_2_short")
TEXTS = tuple("".join(random.Random(seed).choices(KINDS, k=1 + seed % 80)) for seed in range(800))


def loaded(name: str) -> vocabularies_module.Vocabulary:
    """Return a vocabulary of the extra open-models, or skip the test."""
    vocabulary = INSTALLED.vocabulary(name)
    if vocabulary is None:
        pytest.skip("needs the extra open-models")
    return vocabulary


def mistral_counts(file_name: str) -> Callable[[str], int]:
    """Return the count of Mistral's own package, by a file that it carries."""
    spec = importlib.util.find_spec("mistral_common")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("mistral-common, whose word is the truth here, is not installed")
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    tokenizer = Tekkenizer.from_file(str(Path(next(iter(spec.submodule_search_locations)), "data", file_name)))
    return lambda text: len(tokenizer.encode(text, bos=False, eos=False))


@pytest.fixture(scope="module")
def tekken_count() -> Callable[[str], int]:
    """Return the count of Mistral's own package."""
    return mistral_counts("tekken_240911.json")


def test_tekken_is_mistrals_own(tekken_count: Callable[[str], int]) -> None:
    """The file that we read from mistral-common counts as mistral-common does."""
    vocabulary = Vocabularies(folders=vocabularies_module.installed_folders).vocabulary("tekken")
    assert vocabulary is not None

    assert [tekken_count(text) for text in TEXTS] == [vocabulary.count(text) for text in TEXTS]


def test_bundled_tekken_is_mistrals_own(tekken_count: Callable[[str], int]) -> None:
    """Without mistral-common, splintr's copy of its vocabulary counts the same."""
    pytest.importorskip("splintr")
    vocabulary = Vocabularies(folders=tuple).vocabulary("tekken")
    assert vocabulary is not None

    assert [tekken_count(text) for text in TEXTS] == [vocabulary.count(text) for text in TEXTS]


@pytest.mark.parametrize("name", BUNDLED)
def test_text_is_text(name: str) -> None:
    """What is spelled like a special token is text, and lone halves of characters are counted."""
    vocabulary = loaded(name)

    assert vocabulary.count("<s></s><bos><eos><|endoftext|><|im_start|><|eot_id|>") > 10
    assert vocabulary.count("\ud83d") == vocabulary.count("\ufffd")
    assert vocabulary.count("\ud83d\ude00") == vocabulary.count("😀")
    assert 0 == vocabulary.count("")


@pytest.mark.parametrize("name", [*(name for name in BUNDLED if BUNDLED[name].is_cuttable), "qwen3.5", *CLAUDES])
def test_cut_at_a_words_end_changes_no_count(name: str) -> None:
    """What is called cuttable counts as much as its parts, at every end of a word."""
    vocabulary = loaded(name)
    count = vocabulary.amount or vocabulary.count
    wrong = [
        (text, end)
        for text in TEXTS
        for end in (found.start() for found in _WORD_END.finditer(text))
        if count(text) != count(text[:end]) + count(text[end:])
    ]

    assert [] == wrong


@pytest.mark.parametrize(
    "model",
    [
        *("llama-3.3-70b", "gemini-2.5-flash", "qwen3-32b", "qwen3.5-9b", "mistral-large-2512"),
        *("claude-2.1", "claude-sonnet-4-5", "claude-opus-4-8"),
    ],
)
def test_streams_of_open_models(model: str) -> None:
    """A stream counts what the whole text counts, whichever vocabulary it is by."""
    text = "".join(TEXTS[:60])
    counter = StreamCounter(model)
    for start in range(0, len(text), 5):
        counter.feed(text[start : start + 5])

    assert INSTALLED.of(family_of(model)).count(text) == counter.total()


@pytest.mark.parametrize("text", ["e\u0301", "Å\u212b", "각"])
def test_qwen_counts_the_composed_form(text: str) -> None:
    """Qwen's own tokenizer composes characters first, so both spellings of one count the same."""
    for name in ("qwen3", "qwen3.5"):
        vocabulary = loaded(name)

        assert vocabulary.count(unicodedata.normalize("NFC", text)) == vocabulary.count(
            unicodedata.normalize("NFD", text)
        )


def test_without_the_extra_the_nearest_counts(
    vocabulary_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A family whose package is not here counts by cl100k_base, and what to install is told once."""
    monkeypatch.setitem(sys.modules, "splintr", None)
    caplog.set_level(logging.INFO, logger="token_callbacks")
    vocabularies = Vocabularies(folders=lambda: [vocabulary_folder])

    names = [vocabularies.nearest(name).name for name in ("llama3", "llama3", "tekken", "gemma3")]

    assert ["cl100k_base"] * 4 == names
    assert 3 == len(caplog.records)
    assert "token-callbacks[open-models]" in caplog.text


def test_harmony_is_o200k_for_text() -> None:
    """gpt-oss has its own name for a vocabulary that differs in special tokens only; the tables are loaded once."""
    harmony, o200k = INSTALLED.vocabulary("o200k_harmony"), INSTALLED.vocabulary("o200k_base")
    assert harmony is not None
    assert o200k is not None

    assert ("o200k_harmony", o200k.count) == (harmony.name, harmony.count)


def test_harmony_is_tiktokens(vocabulary_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiktoken's own o200k_harmony counts every text as we do."""
    import tiktoken

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(vocabulary_folder))
    public = tiktoken.get_encoding("o200k_harmony")
    harmony = INSTALLED.vocabulary("o200k_harmony")
    assert harmony is not None

    assert [len(public.encode_ordinary(text)) for text in TEXTS] == [harmony.count(text) for text in TEXTS]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("The bread is warm.", 5),
        ("3", 2),  # a blank and a digit: what begins stands after a blank
        ("1234567", 4),
        ("3 + 4 = 7", 10),
        ("'warm'", 4),
        ("One\n\ntwo\n\n\nthree", 5),
        ("", 0),
    ],
)
def test_claude_counts_as_claude_2_and_otherwise(text: str, tokens: int) -> None:
    """Words are those of Claude 2's tokenizer; digits, newlines and operators stand apart."""
    claude = INSTALLED.vocabulary("claude")
    assert claude is not None

    assert (tokens, "claude_2_cut") == (claude.count(text), claude.name)


@pytest.mark.parametrize(
    ("text", "tokens"), [("The bread is warm.", 5), ("3", 1), ("1234567", 2), ("3 + 4 = 7", 5), (" loaf", 1), ("①②", 1)]
)
def test_claude_2_counts_by_its_own(text: str, tokens: int) -> None:
    """The tokenizer of Claude 2 is public: digits stand together, and what is compatible is composed first."""
    vocabulary = INSTALLED.of(family_of("anthropic.claude-v2:1"))

    assert (tokens, "claude_2") == (vocabulary.count(text), vocabulary.name)


def test_claude_splits_what_is_rare() -> None:
    """Merges of Claude 2's that come late are not those of its successors."""
    claude = INSTALLED.vocabulary("claude")
    assert claude is not None

    assert (1, 2) == (claude.count("cinnamon"), claude.count("loaf"))


def test_claude_splits_rare_signs_sooner() -> None:
    """Of what has no letter and no digit, the 40,000 commonest are left: the next ones are two tokens."""
    claude_2, claude = loaded("claude_2"), loaded("claude_2_cut")
    found = {signs: (claude_2.count(signs), claude.amount and claude.amount(signs)) for signs in ('"}}', '"}};', '"};')}

    assert {'"}}': (1, 1), '"}};': (2, 2), '"};': (1, 2)} == found


def test_newer_claude_breaks_words_further() -> None:
    """Of Opus 4.7 and its like, 100 tokens of the 2,000 commonest are 91."""
    short, newer = loaded("claude_2_short"), loaded("claude_opus_4_7")

    assert (8, round(8 * 0.91)) == (short.count("The bread is warm."), newer.count("The bread is warm."))
    assert ("claude_2_short x 0.91", True) == (newer.name, newer.is_guess)


@pytest.mark.parametrize("number", ["7", "07", "007", "43", "434", "994"])
def test_claude_has_every_number_of_up_to_three_digits(number: str) -> None:
    """Claude 2 breaks some of them, such as 434 and 994, its successors none."""
    for name in CLAUDES:
        amount = loaded(name).amount
        assert amount is not None

        assert 1 == amount(number), name


@pytest.mark.parametrize(("text", "tokens"), [("(approximately", 2), ("**when", 2), ("**Spain", 3)])
def test_common_word_is_one_token_without_a_blank_too(text: str, tokens: int) -> None:
    """Of those that follow a blank, the commonest are one token behind a bracket, too, where Claude 2 breaks them."""
    amount = loaded("claude_2_cut").amount
    assert amount is not None

    assert tokens == amount(text)


@pytest.fixture
def cl100k_folder(tmp_path: Path, vocabulary_folder: Path) -> Path:
    """Return a folder that holds cl100k_base and nothing else."""
    file_name = SOURCES["cl100k_base"].file_name
    (tmp_path / file_name).write_bytes((vocabulary_folder / file_name).read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    ("vocabulary", "tokens", "name"),
    [("claude", 109, "cl100k_base x 1.09"), ("claude_opus_4_7", 147, "cl100k_base x 1.474")],
)
def test_claude_is_a_fit_over_another(
    vocabulary: str, tokens: int, name: str, cl100k_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without Claude 2's tokenizer, 100 tokens of cl100k_base are so many, and the name says that it is a fit."""
    monkeypatch.setitem(sys.modules, "splintr", None)
    fitted = Vocabularies(folders=lambda: [cl100k_folder]).vocabulary(vocabulary)
    assert fitted is not None

    assert (tokens, name, True) == (fitted.count(" word" * 100), fitted.name, fitted.is_guess)


@pytest.mark.usefixtures("without_splintr")
def test_fit_over_nothing_is_characters() -> None:
    """Without any vocabulary there is nothing to fit to."""
    assert "characters/4" == Vocabularies(folders=tuple).nearest("claude").name


def test_every_vocabulary_of_the_table_is_known() -> None:
    """No row of the models' table names a vocabulary that nothing could load."""
    assert {family.vocabulary for family in FAMILIES} <= {*SOURCES, *BUNDLED, *FITS, *SAME_FOR_TEXT}
