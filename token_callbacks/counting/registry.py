"""Tokenizers that users register for their own models: ``counter.register_tokenizer("my-model*", tokenize)``."""

import logging
import operator
import threading
from collections.abc import Callable, Mapping, Sized
from collections.abc import Set as AbstractSet
from fnmatch import fnmatchcase
from typing import SupportsIndex

from token_callbacks.counting.tallies import in_whole_characters, is_panic
from token_callbacks.errors import InvalidArgument
from token_callbacks.records import LARGEST

logger = logging.getLogger(__name__)

Tokenizer = Callable[[str], SupportsIndex | Sized]
"""A text to the number of its tokens, or to a list of them."""


class Registration:
    """A user's tokenizer and the models that it is for: a glob in lower case."""

    def __init__(self, glob: str, tokenizer: Tokenizer) -> None:
        self.glob = glob
        self.tokenizer = tokenizer
        self._is_noted = False

    def tokens(self, text: str) -> int | None:
        """Return the tokens of a text, None where the tokenizer raises or returns no number of them."""
        try:
            return _tokens_in(self.tokenizer(in_whole_characters(text)))
        except BaseException as error:  # the function is the user's, and a panic in it is no Exception
            if not isinstance(error, Exception) and not is_panic(error):
                raise
            # Not the error's message, which may hold the text.
            self._note(str(error) if isinstance(error, _Nonsense) else f"raised {type(error).__name__}")
            return None

    def _note(self, fault: str) -> None:
        # The first fault only: the others are the same story.
        if self._is_noted:
            return
        self._is_noted = True
        logger.warning(
            "the tokenizer registered for %r %s: such texts are counted as if it were not registered."
            " It is given a text and returns the number of its tokens, or a list of them",
            self.glob,
            fault,
        )


class Registry:
    """The registrations of this process, the latest first. All methods are thread-safe."""

    def __init__(self) -> None:
        self._registrations: list[Registration] = []
        self._adding = threading.Lock()

    def add(self, pattern: object, tokenizer: object) -> None:
        """Register a tokenizer for the models whose name matches the glob; what was there for the same glob, ends.

        Raises ``InvalidArgument`` for what is no glob or cannot be called.
        """
        if not isinstance(pattern, str) or not pattern.strip():
            raise InvalidArgument(f'a tokenizer is for the models of a name or glob, "my-model*", not {pattern!r}')
        if not callable(tokenizer):
            raise InvalidArgument(
                f"a tokenizer is a function of a text that returns the number of its tokens, not {tokenizer!r}:"
                " give its encode method, register_tokenizer(pattern, tokenizer.encode)"
            )
        glob = pattern.strip().lower()
        with self._adding:  # a new list in the place of the old one, which others may be reading
            others = [kept for kept in self._registrations if kept.glob != glob]
            self._registrations = [Registration(glob, tokenizer), *others]

    def clear(self) -> None:
        """Forget every registration."""
        with self._adding:
            self._registrations = []

    def match(self, model: str) -> Registration | None:
        """Return the latest registration whose glob matches the model's name, with or without its provider."""
        if not self._registrations:
            return None
        whole = model.strip().lower()
        names = (whole, whole.rpartition("/")[2])
        found = (entry for entry in self._registrations if any(fnmatchcase(name, entry.glob) for name in names))
        return next(found, None)


REGISTRY = Registry()
"""Of the process, as the hooks are: two counters that record one call must count it alike."""


def register_tokenizer(pattern: str, tokenizer: Tokenizer) -> None:
    """Count the models whose name matches a glob by a tokenizer of the user's, in every counter of this process.

    The latest registration that matches wins. ``pattern`` is held against the model's name, without regard to case,
    against the same without its provider (``my-model`` of ``openai/my-model``). ``tokenizer`` takes a text and returns
    the number of its tokens or a list of them; it is called on whichever thread a call ends. Where it raises or returns
    something else, the text is counted as if it were not registered, which is logged once.

    Raises ``InvalidArgument`` for what is no glob or cannot be called.
    """
    REGISTRY.add(pattern, tokenizer)


class _Nonsense(Exception):
    """What a tokenizer returned stands for no number of tokens."""


def _tokens_in(answer: object) -> int:
    # A text has a length, and so have the named parts of Hugging Face's BatchEncoding: not in tokens.
    if isinstance(answer, bool | str | bytes | bytearray | Mapping | AbstractSet):
        raise _Nonsense(f"returned a {type(answer).__name__}")
    if isinstance(answer, SupportsIndex):
        tokens = operator.index(answer)
    elif isinstance(answer, Sized):
        tokens = len(answer)
    else:
        raise _Nonsense(f"returned a {type(answer).__name__}")
    if not 0 <= tokens <= LARGEST:
        raise _Nonsense(f"returned {tokens}")
    return tokens
