"""How a tokenizer's encoder becomes a count that no text can break.

tiktoken 0.14.0 panics on some long texts, with a BaseException that `except Exception` does not catch; most other
encoders refuse lone halves of surrogate pairs, of which streams that are cut anywhere are full.
"""

import logging
import re
import unicodedata
from collections.abc import Callable, Sized
from importlib.util import find_spec
from typing import Literal

from token_callbacks.counting.pieces import PIECE_CHARACTERS, pieces
from token_callbacks.imports import importing

logger = logging.getLogger(__name__)

Form = Literal["NFC", "NFKC"]
Encode = Callable[[str], Sized]
Tally = Callable[[str], int]

FAST_AFTER_CHARACTERS = 4_194_304
"""Loading toktok's tables takes as long as tiktoken takes for about so much text."""

_UNLIKE_IN_TOKTOK = re.compile(
    "'\u017f|[\u088f\u0c5c\u0cdc\u1acf-\u1aeb\ua7ce-\ua7d4\ua7f1\U00010940-\U00010959\U00010ec5-\U00010efb"
    "\U00011b60-\U00011b67\U00011db0-\U00011de9\U00016ea0-\U00016ed3\U00016ff2-\U00016ff6\U000187f8-\U000187ff"
    "\U00018d09-\U00018df2\U0001e6c0-\U0001e6ff\U0002b73a-\U0002b73f\U0002cea2-\U0002cead\U000323b0-\U00033479]"
)
"""toktok 0.3.0 does not take the long s for the s of a contraction, and knows the letters of Unicode 17, which tiktoken
0.14.0 does not: found with each code point in seven places. What has any of these is counted by the other."""


def tally_by(encode: Encode, *, form: Form | None = None) -> Tally:
    """Return a count by tiktoken's ``encode_ordinary``, which is given pieces of bounded length.

    `form`: the Unicode form that the text is put into first.
    """

    def tally(text: str) -> int:
        if len(text) > PIECE_CHARACTERS:
            return sum(_unbroken(encode, piece) for piece in pieces(text))
        try:
            return len(encode(text))
        except BaseException as error:
            if not is_panic(error):
                raise
        return _unbroken(encode, text)

    return tally if form is None else _normalizing(tally, form)


def whole_tally(encode: Encode, *, form: Form | None = None) -> Tally:
    """Return a count by an encoder that takes texts of any length, but whole characters only.

    `form`: the Unicode form that the text is put into first.
    """

    def tally(text: str) -> int:
        try:
            return len(encode(text))
        except UnicodeEncodeError:
            return len(encode(in_whole_characters(text)))

    return tally if form is None else _normalizing(tally, form)


def by_pieces(tally: Tally) -> Tally:
    """Return the same count, made piece by piece: splintr-rs 0.22.0 lets no other thread run while it counts one."""
    return lambda text: tally(text) if len(text) <= PIECE_CHARACTERS else sum(map(tally, pieces(text)))


def fast_tally(name: str, tally: Tally, *, after_characters: int = FAST_AFTER_CHARACTERS) -> Tally:
    """Return the same count, by toktok-rs once much text was counted and if that package is here."""
    if not _is_installed("toktok"):
        return tally
    fast: Callable[[str], int] | None = None
    left = after_characters

    def faster(text: str) -> int:
        nonlocal fast, left
        if fast is None:
            if left > 0:
                left -= len(text)
                return tally(text)
            fast = _toktok_count(name) or tally
        if not text.isascii() and _UNLIKE_IN_TOKTOK.search(text):
            return tally(text)
        try:
            return fast(text)
        except UnicodeEncodeError:
            return tally(text)

    return faster


def in_whole_characters(text: str) -> str:
    """Return the text with split surrogate pairs joined and lone halves replaced, as tiktoken reads it."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def is_panic(error: BaseException) -> bool:
    """Tell a panic of a Rust library, which is a BaseException, from what ends a program: it must not end one."""
    return type(error).__name__ == "PanicException"


def _unbroken(encode: Encode, text: str) -> int:
    try:
        return len(encode(text))
    except BaseException as error:
        if not is_panic(error) or len(text) == 1:
            raise
    # Two halves may count a token more than the whole; a count is better than none.
    middle = len(text) // 2
    return _unbroken(encode, text[:middle]) + _unbroken(encode, text[middle:])


def _normalizing(tally: Tally, form: Form) -> Tally:
    return lambda text: tally(text if text.isascii() else unicodedata.normalize(form, text))


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):  # a stub of it, or None, in sys.modules
        return False


def _toktok_count(name: str) -> Callable[[str], int] | None:
    # Not batch_count, which is public, makes a list of the texts and looks after threads: 2 us a text.
    try:
        with importing:
            from toktok import _encoding

        count: Callable[[str], int] = _encoding(name).count
    except (ImportError, KeyError, AttributeError) as error:
        logger.debug("counting %s with tiktoken, toktok-rs cannot be used: %s", name, error)
        return None
    return count
