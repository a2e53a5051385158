"""Remember how many tokens a text has, so that an agent's loop costs as much as its messages and not their square.

Every request of a loop sends all messages of the one before (100 turns: 35 times the work). No text is kept: a count is
found again by the vocabulary, the text's length and its 64-bit hash, which Python salts anew in every process.
"""

import threading
from collections.abc import Callable
from itertools import islice
from typing import Protocol

Form = Callable[[str], str]
"""Brings a text into the form in which it is counted; a function of a module, for it is part of a key."""

Key = tuple[str, Form | None, int, int]

MOST_KEPT = 16_384
"""Counts, of some 150 bytes each."""

SHORTEST_KEPT = 16
"""Characters: a shorter text is counted as fast as it is looked up."""


class CountText(Protocol):
    """Counts a text, as it is or in another form."""

    def __call__(self, text: str, form: Form | None = None, /) -> int:
        """Return the number of tokens."""


class Counting(Protocol):
    """A vocabulary, or what a user registered in the place of one."""

    @property
    def name(self) -> str:
        """The vocabulary, for the record."""

    @property
    def is_guess(self) -> bool:
        """Whether it is no tokenizer of the model's."""

    @property
    def count(self) -> Callable[[str], int]:
        """A text to the number of its tokens."""

    @property
    def amount(self) -> Callable[[str], int] | None:
        """Of an arithmetic, what it is of."""


class CachedCounts:
    """The counts of texts, the oldest given up first. All methods are thread-safe."""

    def __init__(self, most: int = MOST_KEPT) -> None:
        self._most = most
        self._counts: dict[Key, int] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Tell how many counts are kept."""
        return len(self._counts)

    def count(self, vocabulary: Counting, text: str, form: Form | None = None) -> int:
        """Count a text by a vocabulary, in another form if one is told; by a user's own tokenizer, anew each time."""
        if len(text) < SHORTEST_KEPT or (vocabulary.is_guess and vocabulary.amount is None):
            return vocabulary.count(text if form is None else form(text))
        key = (vocabulary.name, form, len(text), hash(text))
        found = self._counts.get(key)
        if found is None:
            found = vocabulary.count(text if form is None else form(text))
            self._keep(key, found)
        return found

    def _keep(self, key: Key, tokens: int) -> None:
        with self._lock:
            if len(self._counts) >= self._most:
                for oldest in list(islice(self._counts, max(1, self._most // 4))):
                    del self._counts[oldest]
            self._counts[key] = tokens


COUNTS = CachedCounts()
