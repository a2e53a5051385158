"""Tokenizers that users register: which models they count, and what happens when they fail."""

import logging
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from token_callbacks import TokenCounter
from token_callbacks.counting import Count, count_completion, count_embedding, count_prompt
from token_callbacks.counting.models import family_of
from token_callbacks.counting.registry import REGISTRY, register_tokenizer
from token_callbacks.counting.vocabularies import INSTALLED
from token_callbacks.errors import InvalidArgument


def words(text: str) -> list[str]:
    """Tokenize at blanks."""
    return text.split()


def tokens(model: str, text: str) -> tuple[int, str]:
    """Return the count of a text and the name of what counted it."""
    vocabulary = INSTALLED.of(family_of(model))
    return vocabulary.count(text), vocabulary.name


@pytest.fixture
def counter() -> Iterator[TokenCounter]:
    """Yield a counter that writes no files."""
    made = TokenCounter(log_dir=None, frameworks=("litellm",))
    yield made
    made.uninstall()


def test_counter_registers_a_tokenizer(counter: TokenCounter) -> None:
    """What is registered at a counter counts the models that its glob matches, and no others."""
    counter.register_tokenizer("my-model*", words)

    assert (3, "registered my-model*") == tokens("my-model-7b", "uncharacteristically long words")
    assert (5, "o200k_base") == tokens("gpt-4o", "uncharacteristically long words")


@pytest.mark.parametrize(
    ("pattern", "model"),
    [
        ("my-model*", "my-model"),
        ("My-Model*", " my-MODEL-7b "),
        ("my-model*", "openai/my-model-7b"),
        ("my-model*", "hosted_vllm/me/my-model-7b"),
        ("openai/my-*", "openai/my-model"),
        ("*", "gpt-4o"),
        ("my-model-[78]b", "my-model-8b"),
    ],
)
def test_glob_matches(pattern: str, model: str) -> None:
    """A glob is held against the whole name and against that without its provider, whatever their case."""
    register_tokenizer(pattern, words)

    assert 2 == tokens(model, "uncharacteristically long")[0]


@pytest.mark.parametrize("model", ["not-my-model", "my-mode", "", None])
def test_glob_does_not_match(model: str | None) -> None:
    """A name that the glob does not cover is the table's."""
    register_tokenizer("my-model*", words)

    assert family_of(model).registration is None


def test_latest_registration_wins() -> None:
    """Of two globs that match, the one that came last counts; the same glob again takes the place of the first."""
    register_tokenizer("my-model*", lambda text: 3)
    register_tokenizer("my-*", lambda text: 4)

    assert 4 == tokens("my-model", "one")[0]
    register_tokenizer("my-model*", lambda text: 5)
    assert 5 == tokens("my-model", "one")[0]
    assert 4 == tokens("my-other", "one")[0]


class Encoding:
    """As Hugging Face's tokenizers return it: it has a length and is no list."""

    def __len__(self) -> int:
        return 7


@pytest.mark.parametrize(
    ("answer", "number"), [(7, 7), (0, 0), ([1, 2], 2), ((1, 2, 3), 3), (Encoding(), 7), (range(4), 4)]
)
def test_tokenizer_returns_a_number_or_tokens(answer: int | list[int], number: int) -> None:
    """A number is taken as it is, of anything that holds tokens its length."""
    register_tokenizer("my-model", lambda text: answer)

    assert (number, "registered my-model") == tokens("my-model", "text")


def raising(error: BaseException) -> Callable[[str], int]:
    """Return a tokenizer that raises."""

    def tokenizer(text: str) -> int:
        raise error

    return tokenizer


class PanicException(BaseException):
    """Like pyo3's: `except Exception` does not catch it."""


@pytest.mark.parametrize(
    "tokenizer",
    [
        *(
            lambda text, answer=answer: answer
            for answer in (None, True, -1, 2**53 + 1, 1.5, "tokens", b"t", {"input_ids": [1]})
        ),
        *map(raising, (ValueError("a secret"), RuntimeError(), RecursionError(), PanicException("a secret"))),
        lambda: 3,
        iter,
    ],
)
def test_tokenizer_that_fails(tokenizer: Callable[[str], int], caplog: pytest.LogCaptureFixture) -> None:
    """What raises or returns no number is noted once, without the text, and the table counts in its place."""
    register_tokenizer("gpt-4o-mine", tokenizer)

    counts = [tokens("gpt-4o-mine", "hello world") for _ in range(3)]

    assert [(2, "o200k_base")] * 3 == counts
    assert 1 == len(caplog.records)
    assert logging.WARNING == caplog.records[0].levelno
    assert "gpt-4o-mine" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), GeneratorExit()])
def test_what_ends_a_program_ends_it(error: BaseException) -> None:
    """Ctrl-C inside a user's tokenizer is not swallowed."""
    register_tokenizer("my-model", raising(error))

    with pytest.raises(type(error)):
        tokens("my-model", "text")


def test_tokenizer_is_given_whole_characters() -> None:
    """Halves of surrogate pairs, at which most tokenizers raise, are joined or replaced before."""
    given: list[str] = []
    register_tokenizer("my-model", lambda text: given.append(text) or len(text))

    assert 4 == tokens("my-model", "\ud83d\ude00 \ud83d!")[0]
    assert ["😀 \ufffd!"] == given


@pytest.mark.parametrize("pattern", [None, "", " ", 3, b"my-model", ["my-model"]])
def test_bad_patterns(pattern: object, counter: TokenCounter) -> None:
    """What is no glob is refused with an example of one."""
    with pytest.raises(InvalidArgument, match=r'"my-model\*", not'):
        counter.register_tokenizer(pattern, words)  # type: ignore[arg-type]


@pytest.mark.parametrize("tokenizer", [None, 3, "cl100k_base", ["a"]])
def test_bad_tokenizers(tokenizer: object) -> None:
    """What cannot be called is refused with what to give instead."""
    with pytest.raises(InvalidArgument, match=r"tokenizer\.encode"):
        register_tokenizer("my-model*", tokenizer)  # type: ignore[arg-type]


def test_threads_register_at_once() -> None:
    """No registration is lost and none is doubled, however many threads register and look up."""
    start = threading.Barrier(8)

    def register(number: int) -> None:
        start.wait()
        for step in range(50):
            register_tokenizer(f"model-{number}-{step}", words)
            register_tokenizer("shared", words)
            assert family_of(f"model-{number}-{step}").registration is not None

    threads = [threading.Thread(target=register, args=(number,)) for number in range(8)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(interval)

    assert 8 * 50 + 1 == len({entry.glob for entry in REGISTRY._registrations})


def test_counts_are_estimates_by_the_registered_tokenizer() -> None:
    """Prompts, completions and embeddings go by it, and as nobody knows the vendor's rules they are not exact."""
    register_tokenizer("my-model*", lambda text: 10)

    completion = count_completion(model="my-model", text="hello")
    prompt = count_prompt(model="my-model", messages=[{"role": "user", "content": "hello"}])
    embedding = count_embedding(model="my-model", inputs=["a", "b"])

    assert Count(tokens=10, exact=False, method="registered my-model*") == completion
    assert ("registered my-model*", False) == (prompt.method, prompt.exact)
    assert (20, False) == (embedding.tokens, embedding.exact)
