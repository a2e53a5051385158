"""Count a text that comes in pieces, exactly and at any moment, without counting it anew each time.

Tokens never cross the end of a word, and where certain characters meet, a word has ended whatever may follow
(`pieces.LAST_WORD_END`). So what stands before the last such place is counted once and forgotten.
"""

from collections.abc import Callable

from token_callbacks.counting.models import family_of
from token_callbacks.counting.pieces import LAST_WORD_END, LONGEST_PIECE_CHARACTERS
from token_callbacks.counting.vocabularies import INSTALLED, Vocabularies

_DRAIN_CHARACTERS = 2048
"""So many characters wait at most before they are counted: the text of a stream that nobody reads must not pile up."""

_GROWTH = 1.25
"""How far a long unfinished word grows before it is counted anew: counting it at each piece would be quadratic."""

_SHORT_TAIL_CHARACTERS = 512
"""An unfinished word up to here is counted at every reading: that costs less than the bookkeeping is worth."""

_match_to_last_word_end = LAST_WORD_END.match


class StreamCounter:
    """Counts the tokens of a stream's text: ``feed`` it piece by piece and read ``count`` whenever you like.

    The count is that of the whole text so far, however it was cut, with two exceptions. Inside one word of more than
    512 characters (base64, a run of blanks), ``count`` may lag: it is the last exact figure and an extrapolation until
    the word has grown by a quarter; ``total()`` is exact there too. And a word of more than 350,000 characters is cut,
    which may cost a token at each cut: then ``is_exact`` is False, as it is without the model's own vocabulary.

    For one thread at a time. Halves of a surrogate pair may come in two pieces. On ordinary text less than 1 kB of it
    is held at a reading, and 2 kB between readings.

    ``model`` chooses the vocabulary, which is loaded when something is first counted; nothing in here raises on text.
    """

    __slots__ = (
        "_count",
        "_counted_characters",
        "_done_tokens",
        "_is_cuttable",
        "_is_exact",
        "_last_character",
        "_model",
        "_pending",
        "_pending_characters",
        "_tail",
        "_tail_characters",
        "_tail_tokens",
        "_tokens_of",
        "_vocabularies",
    )

    def __init__(self, model: str | None = None, *, vocabularies: Vocabularies = INSTALLED) -> None:
        self._model = model
        self._vocabularies = vocabularies
        self._count: Callable[[str], int] | None = None
        self._tokens_of: Callable[[int], int] = int
        self._is_exact = True
        self._is_cuttable = True
        self._pending: list[str] = []
        self._pending_characters = 0
        self._done_tokens = 0
        self._tail: list[str] = []  # the word that may go on, in parts
        self._tail_characters = 0
        self._last_character = ""
        self._tail_tokens = 0  # of the first so many characters of the tail:
        self._counted_characters = 0

    def feed(self, text: str) -> None:
        """Take the next piece."""
        self._pending.append(text)
        self._pending_characters += len(text)
        if self._pending_characters >= _DRAIN_CHARACTERS:
            self._drain()

    @property
    def count(self) -> int:
        """The tokens of the text so far."""
        if self._pending_characters:
            self._drain()
        characters, counted = self._tail_characters, self._counted_characters
        if characters != counted:
            if _SHORT_TAIL_CHARACTERS < characters < counted * _GROWTH:
                return self._tokens_of(self._done_tokens + self._tail_tokens * characters // counted)
            self._count_tail()
        tokens = self._done_tokens + self._tail_tokens
        return tokens if self._tokens_of is int else self._tokens_of(tokens)

    def total(self) -> int:
        """Return the tokens of the text so far, exact even inside a long word; for the end of a stream."""
        if self._pending_characters:
            self._drain()
        if self._tail_characters != self._counted_characters:
            self._count_tail()
        return self._tokens_of(self._done_tokens + self._tail_tokens)

    @property
    def is_exact(self) -> bool:
        """Whether the count so far is by the model's own vocabulary, and no word had to be cut."""
        self._tally()
        return self._is_exact

    @property
    def held_characters(self) -> int:
        """The characters of the text that are held at this moment."""
        return self._tail_characters + self._pending_characters

    def _drain(self) -> None:
        if self._count is None:
            self._tally()
        new = "".join(self._pending)
        self._pending.clear()
        self._pending_characters = 0
        if self._is_cuttable:
            # What stood before was searched when it came; of it, only its end decides.
            known = len(self._last_character)
            found = _match_to_last_word_end(self._last_character + new, known)
            if found is not None and found.end():
                end = found.end() - known
                self._finish(new[:end])
                new = new[end:]
            elif self._tail_characters + len(new) >= LONGEST_PIECE_CHARACTERS:
                self._is_exact = False
                cut = _whole_characters(new)
                self._finish(new[:cut])
                new = new[cut:]
        if new:
            self._tail.append(new)
            self._tail_characters += len(new)
            self._last_character = new[-1]

    def _finish(self, rest: str) -> None:
        """Count the tail, with the rest of its word and what follows up to the last end, for good."""
        if rest or self._counted_characters != self._tail_characters:
            self._tail.append(rest)
            self._count_tail()
        self._done_tokens += self._tail_tokens
        self._tail.clear()
        self._tail_characters = self._counted_characters = self._tail_tokens = 0
        self._last_character = ""

    def _count_tail(self) -> None:
        text = "".join(self._tail)
        self._tail = [text]
        self._tail_tokens = self._tally()(text)
        self._counted_characters = self._tail_characters

    def _tally(self) -> Callable[[str], int]:
        if self._count is None:
            family = family_of(self._model)
            vocabulary = self._vocabularies.of(family)
            self._is_exact = family.is_vocabulary_known and vocabulary.name == family.vocabulary
            self._is_cuttable = vocabulary.is_cuttable
            self._count = vocabulary.amount or vocabulary.count
            self._tokens_of = vocabulary.tokens_of or int
            if vocabulary.prefix:
                self._pending.insert(0, vocabulary.prefix)
        return self._count


def _whole_characters(text: str) -> int:
    # Not between the halves of a character.
    return len(text) - 1 if "\ud800" <= text[-1] <= "\udbff" else len(text)
