"""What counting costs: texts of three sizes, streams read live and at the end, and the first count of a process.

Beside it, the same by tiktoken alone, by ``litellm.token_counter`` and by ``tokencost``: whole texts for the sizes, and
for the streams what there is without a stream counter, which is to count all of the text again at each chunk.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from benchmarks.side_by_side import Timings, Variant, clock, repeated, side_by_side
from benchmarks.tables import Row, limited
from token_callbacks.counting.streams import StreamCounter
from token_callbacks.counting.tallies import fast_tally, tally_by
from token_callbacks.counting.vocabularies import SOURCES, installed_folders

_MODEL = "gpt-4o"
_VOCABULARY = "o200k_base"
_SIZES = {"1 kB": (1_000, 200, 15), "100 kB": (100_000, 3, 9), "1 MB": (1_000_000, 1, 5)}
"""Characters, repetitions, turns."""

_CHUNKS = 4_000
_CHUNKS_COUNTED_ANEW = 1_000
"""Counting anew is quadratic: at four times the chunks each costs four times as much."""

_OURS = "ours"
_FAST = "ours with the extra fast"
_BUNDLED = "ours with the extra open-models"
_LIMIT_FIRST_MILLISECONDS = 250
_LIMIT_LIVE_MICROSECONDS = 3.0
_LIMIT_END_MICROSECONDS = 0.5
_LIMIT_HELD_CHARACTERS = 1_024
_FIRST_TURNS = 9

Count = Callable[[str], int]


def rows() -> Iterator[Row]:
    """Measure the first count in fresh processes, then texts and streams in this one."""
    folder = next(path for path in installed_folders() if (path / SOURCES[_VOCABULARY].file_name).exists())
    yield from _first_count(folder)
    os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)  # for tokencost, which would go online without
    others, reasons = _other_counts()
    yield from (Row(what=f"{name}: skipped", ours="", baseline=reason, compared="") for name, reason in reasons.items())
    yield from _streams(others)
    ours = _our_counts()
    for size, (characters, number, turns) in _SIZES.items():
        timings = _texts(_prose(characters), {**ours, **others}, number=number, turns=turns)
        for name in ours:
            yield from (_against(timings, f"{size} of text, {name}", name, other) for other in others)


def _our_counts() -> dict[str, Count]:
    import tiktoken

    plain = tally_by(tiktoken.get_encoding(_VOCABULARY).encode_ordinary)
    if importlib.util.find_spec("toktok") is None:
        return {_OURS: plain}
    return {_OURS: plain, _FAST: fast_tally(_VOCABULARY, plain, after_characters=0)}


def _other_counts() -> tuple[dict[str, Count], dict[str, str]]:
    """Return the other counters, and for each that is not here the reason."""
    import tiktoken

    encoding = tiktoken.get_encoding(_VOCABULARY)
    counts: dict[str, Count] = {"tiktoken": lambda text: len(encoding.encode_ordinary(text))}
    reasons: dict[str, str] = {}
    for name, made in {"litellm.token_counter": _litellm_count, "tokencost": _tokencost_count}.items():
        try:
            counts[name] = made()
        except ImportError as error:
            reasons[name] = str(error)
    return counts, reasons


def _litellm_count() -> Count:
    from litellm import token_counter

    return lambda text: int(token_counter(model=_MODEL, text=text))


def _tokencost_count() -> Count:
    from tokencost import count_string_tokens

    return lambda text: int(count_string_tokens(text, _MODEL))


def _texts(text: str, counts: Mapping[str, Count], *, number: int, turns: int) -> Timings:
    variants = {name: repeated(partial(count, text), number=number) for name, count in counts.items()}
    return side_by_side(variants, turns=turns)


def _against(timings: Timings, what: str, ours: str, other: str) -> Row:
    return Row(
        what=what,
        ours=_duration(timings.seconds(ours)),
        baseline=f"{other} {_duration(timings.seconds(other))}",
        compared=f"{timings.seconds(ours) / timings.seconds(other):.2f} x",
    )


def _streams(others: Mapping[str, Count]) -> Iterator[Row]:
    import tiktoken

    encoding = tiktoken.get_encoding(_VOCABULARY)
    chunks = [encoding.decode([token]) for token in encoding.encode_ordinary(_prose(30_000))][:_CHUNKS]
    timings = side_by_side(
        {
            "live": _per_chunk(lambda: _read_live(chunks), len(chunks)),
            "end": _per_chunk(lambda: _read_at_the_end(chunks), len(chunks)),
            "buffer": _per_chunk(lambda: len(encoding.encode_ordinary("".join(list(chunks)))), len(chunks)),
        },
        turns=15,
    )
    yield limited(
        f"a chunk of a stream, count read at each of {len(chunks):,}",
        timings.seconds("live") * 1e6,
        limit=_LIMIT_LIVE_MICROSECONDS,
        unit="us",
        baseline=f"joined and counted once by tiktoken {_duration(timings.seconds('buffer'))}",
        compared=f"{timings.seconds('live') / timings.seconds('buffer'):.2f} x",
    )
    yield limited(
        f"a chunk of a stream, count read after {len(chunks):,}",
        timings.seconds("end") * 1e6,
        limit=_LIMIT_END_MICROSECONDS,
        unit="us",
        baseline=f"joined and counted once by tiktoken {_duration(timings.seconds('buffer'))}",
        compared=f"{timings.seconds('end') / timings.seconds('buffer'):.2f} x",
    )
    few = chunks[:_CHUNKS_COUNTED_ANEW]
    anew = {name: _per_chunk(partial(_counted_anew, few, count), len(few)) for name, count in others.items()}
    timings = side_by_side({_OURS: _per_chunk(lambda: _read_live(few), len(few)), **anew}, turns=3)
    yield from (_against(timings, f"a chunk, count read at each of {len(few):,}", _OURS, name) for name in others)
    held = _most_held(chunks)
    yield limited(
        "characters held of a stream that is read",
        held,
        limit=_LIMIT_HELD_CHARACTERS,
        unit="characters",
        ours=f"{held} characters",
        baseline=f"the whole text {len(''.join(chunks)):,}",
    )


def _per_chunk(action: Callable[[], object], chunks: int) -> Variant:
    def seconds() -> float:
        start = clock()
        action()
        return (clock() - start) / chunks

    return seconds


def _read_live(chunks: list[str]) -> int:
    counter, tokens = StreamCounter(_MODEL), 0
    for chunk in chunks:
        counter.feed(chunk)
        tokens = counter.count
    return tokens


def _read_at_the_end(chunks: list[str]) -> int:
    counter = StreamCounter(_MODEL)
    for chunk in chunks:
        counter.feed(chunk)
    return counter.total()


def _counted_anew(chunks: list[str], count: Count) -> int:
    text, tokens = "", 0
    for chunk in chunks:
        text += chunk
        tokens = count(text)
    return tokens


def _most_held(chunks: list[str]) -> int:
    counter, held = StreamCounter(_MODEL), 0
    for chunk in chunks:
        counter.feed(chunk)
        counter.count  # noqa: B018 - reading is what lets go of the text
        held = max(held, counter.held_characters)
    return held


def _first_count(folder: Path) -> Iterator[Row]:
    counted = f'count_completion(model="{_MODEL}", text="hello")'
    ours = "import token_callbacks.records\nfrom token_callbacks.counting import count_completion"
    variants = {
        _OURS: _fresh(counted, f"import sys; sys.modules['splintr'] = None\n{ours}"),
        "tiktoken": _fresh(
            f'import tiktoken; tiktoken.get_encoding("{_VOCABULARY}").encode("hello")',
            f'import os; os.environ["TIKTOKEN_CACHE_DIR"] = {str(folder)!r}',
        ),
    }
    if importlib.util.find_spec("splintr") is not None:
        variants[_BUNDLED] = _fresh(counted, ours)
    timings = side_by_side(variants, turns=_FIRST_TURNS)
    for name in variants:
        if name != "tiktoken":
            yield limited(
                f"fresh process: the first count by o200k_base, {name}",
                timings.seconds(name) * 1e3,
                limit=_LIMIT_FIRST_MILLISECONDS,
                unit="ms",
                baseline=f"tiktoken, from the same file {timings.seconds('tiktoken') * 1e3:.0f} ms",
                compared=f"{timings.seconds(name) / timings.seconds('tiktoken'):.2f} x",
            )


def _fresh(statement: str, before: str) -> Variant:
    program = f"{before}\nimport time\nstart = time.perf_counter()\n{statement}\nprint(time.perf_counter() - start)"

    def seconds() -> float:
        return float(subprocess.check_output([sys.executable, "-c", program], cwd=_SOURCE))

    return seconds


def _prose(characters: int) -> str:
    """Return text of this repository: prose, code, and the tests' other scripts."""
    files = (*sorted(_SOURCE.glob("docs/*.md")), _SOURCE / "README.md", *sorted(_SOURCE.glob("t*/**/*.py")))
    text = ""
    for file in files:
        text += file.read_text(encoding="utf-8")
        if len(text) >= characters:
            break
    text = text.replace("<|", "<")  # tokencost raises on a text that spells a special token
    return (text * (characters // len(text) + 1))[:characters]


def _duration(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.2f} us"


_SOURCE = Path(__file__).parents[1]
