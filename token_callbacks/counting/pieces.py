"""Cut a long text into pieces that count as much as the whole.

tiktoken 0.14.0 panics, with a BaseException and a message on stderr, on about a million blanks in a row
(test_a_million_blanks_are_counted), and its token list of a long text is many times the text.
"""

import re
from collections.abc import Iterator

PIECE_CHARACTERS = 65_536
# Half of the 700,000 blanks that tiktoken 0.14.0 was seen to survive.
LONGEST_PIECE_CHARACTERS = 350_000

_PUNCTUATION = re.escape('!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~')
_CJK_PUNCTUATION = (
    "\u3001\u3002\u3008-\u3011\u3014-\u301b\uff01\uff08\uff09\uff0c\uff1a\uff1b\uff1f\u2014\u2026\u201c\u201d"
)
# Where these two characters meet, the patterns of cl100k_base, o200k_base and their kin end a word whatever stands
# around them, and tokens never cross the end of a word (test_pieces_count_as_much_as_the_whole).
_WORD_END = re.compile(
    rf"(?<=[^\W_])(?=[ \t\r\n{_PUNCTUATION}{_CJK_PUNCTUATION}])|(?<=\S)(?=[ \t])|(?<=[\r\n])(?=[^\s/])"
)
LAST_WORD_END = re.compile(rf"(?s:.*)(?:{_WORD_END.pattern})")
"""Matches up to where the last word ends that is over whatever text may follow, if one ends from where it starts on.

Greedy: it goes back from the end of the text, so it takes as long as that place is far from there.
"""


def pieces(text: str) -> Iterator[str]:
    """Yield the text in order, in pieces of bounded length that are cut at the end of a word.

    A run of LONGEST_PIECE_CHARACTERS without such an end is cut where it stands, which may cost a token or two.
    """
    start = 0
    while len(text) - start > PIECE_CHARACTERS:
        cut = _cut(text, start=start)
        yield text[start:cut]
        start = cut
    yield text[start:]


def has_forced_cut(text: str) -> bool:
    """Tell whether some piece had to be cut inside a word."""
    if len(text) <= LONGEST_PIECE_CHARACTERS:
        return False
    return any(len(piece) >= LONGEST_PIECE_CHARACTERS for piece in pieces(text))


def _cut(text: str, *, start: int) -> int:
    limit = min(start + LONGEST_PIECE_CHARACTERS, len(text))
    found = _WORD_END.search(text, start + PIECE_CHARACTERS, limit)
    return limit if found is None else found.start()
