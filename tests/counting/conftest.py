"""tiktoken itself, on the vocabulary files that LiteLLM carries, as the truth to count against."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import tiktoken
import tiktoken.registry

from token_callbacks.counting.registry import REGISTRY
from token_callbacks.counting.vocabularies import SPLINTR

OPENAI = ("o200k_base", "cl100k_base")


@pytest.fixture(scope="session")
def vocabulary_folder() -> Path:
    """Return LiteLLM's folder of vocabularies."""
    spec = importlib.util.find_spec("litellm")
    if spec is None or spec.origin is None:
        pytest.skip("litellm, whose vocabulary files are the truth here, is not installed")
    return Path(spec.origin).parent / "litellm_core_utils" / "tokenizers"


@pytest.fixture(scope="session")
def public_encodings(vocabulary_folder: Path) -> Iterator[dict[str, tiktoken.Encoding]]:
    """Yield tiktoken's own encodings by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(vocabulary_folder))
        yield {name: tiktoken.get_encoding(name) for name in OPENAI}


@pytest.fixture(scope="session")
def true_count(public_encodings: dict[str, tiktoken.Encoding]) -> Callable[[str, str], int]:
    """Return a function of a vocabulary's name and a text: tiktoken's own count."""
    return lambda name, text: len(public_encodings[name].encode(text, disallowed_special=()))


@pytest.fixture(autouse=True)
def no_registered_tokenizers() -> Iterator[None]:
    """Let no tokenizer that one test registers count in the next one."""
    yield
    REGISTRY.clear()


@pytest.fixture
def proved_splintr() -> None:
    """Skip where the release of splintr-rs that was held to tiktoken is not installed."""
    if importlib.util.find_spec("splintr") is None or version("splintr-rs") != SPLINTR:
        pytest.skip(f"needs splintr-rs {SPLINTR}; hold another release to tiktoken first, then name it")


@pytest.fixture
def without_splintr(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let splintr-rs not be installed: the vocabularies that it has inside it are read from files, or not there."""
    monkeypatch.setitem(sys.modules, "splintr", None)
