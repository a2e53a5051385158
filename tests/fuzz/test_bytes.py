"""Any bytes, and true bodies that were spoiled, in any pieces: nothing raises, and no figure is nonsense."""

from __future__ import annotations

import json
import random
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from token_callbacks import wire
from token_callbacks.records import Operation
from token_callbacks.usage import Reading
from token_callbacks.wire import WireEvidence

from ..test_usage import JSON as ANSWERS
from .bodies import BODIES, COUNTS, FRAMES, JSON, LINES, SSE, Head, check, framed

HEADS = st.sampled_from([head for head, _ in BODIES] + [{}, {"content-type": "text/plain"}])
OPERATIONS = st.sampled_from(Operation)
TOKENS = [
    b"data: ",
    b"\n\n",
    b"\r\n",
    b"[DONE]",
    b'"usage": ',
    b'{"prompt_tokens": 3}',
    b"null",
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b":",
    b'"',
    b"NaN",
    b"-1",
    b"1e999",
    b"9" * 30,
    b"\\ud800",
    b"\xff",
    b"\x00",
    b"\xef\xbb\xbf",
]


@st.composite
def _spoiled(draw: st.DrawFn) -> tuple[Head, bytes]:
    """Flip, cut, double, splice and stuff a true body, some of this, in some order."""
    head, body = draw(st.sampled_from(BODIES))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(body)))
        end = draw(st.integers(start, min(len(body), start + 80)))
        how = draw(st.sampled_from(["flip", "cut", "double", "splice", "stuff", "end"]))
        if how == "flip" and start < len(body):
            body = body[:start] + bytes([body[start] ^ draw(st.integers(1, 255))]) + body[start + 1 :]
        elif how == "cut":
            body = body[:start] + body[end:]
        elif how == "double":
            body = body[:end] + body[start:]
        elif how == "splice":
            other = draw(st.sampled_from(BODIES))[1]
            place = draw(st.integers(0, len(other)))
            body = body[:start] + other[place : place + 80] + body[end:]
        elif how == "stuff":
            body = body[:start] + draw(st.sampled_from(TOKENS)) + body[start:]
        else:
            body = body[:start]
    return head, body


def _cut(body: bytes, seed: int) -> list[bytes]:
    """Cut at some places, which a number stands for."""
    places = sorted(random.Random(seed).choices(range(len(body) + 1), k=seed % 9))
    return [body[start:end] for start, end in zip([0, *places], [*places, len(body)], strict=True)]


@given(HEADS, st.lists(st.binary(max_size=60) | st.sampled_from(TOKENS), max_size=12), OPERATIONS, st.booleans())
@settings(deadline=None)
def test_any_bytes(head: Head, pieces: list[bytes], operation: Operation, is_whole: bool) -> None:
    """Bytes that mean nothing raise nothing."""
    check(head, pieces, operation, is_whole=is_whole)


@given(_spoiled(), st.integers(0, 2**16), OPERATIONS, st.booleans())
@settings(max_examples=400, deadline=None)
def test_spoiled_bodies(spoiled: tuple[Head, bytes], seed: int, operation: Operation, is_whole: bool) -> None:
    """Neither do bodies that nearly mean something."""
    head, body = spoiled
    check(head, _cut(body, seed), operation, is_whole=is_whole)


@given(_spoiled(), st.integers(0, 2**16), OPERATIONS, st.sampled_from([1, 40, 300]))
@settings(deadline=None)
def test_spoiled_bodies_longer_than_what_is_held(
    spoiled: tuple[Head, bytes], seed: int, operation: Operation, most: int
) -> None:
    """Nor where they are read on the way."""
    head, body = spoiled
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "_MOST_HELD", most)
        check(head, _cut(body, seed), operation)


@given(st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=40)), max_size=4), OPERATIONS)
@settings(deadline=None)
def test_frames_with_right_checksums_and_anything_in_them(
    frames: list[tuple[bytes, bytes]], operation: Operation
) -> None:
    """A frame may be whole and its headers and payload nonsense."""
    check(FRAMES, [framed(payload, headers) for payload, headers in frames], operation)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.binary(max_size=40))
@settings(deadline=None)
def test_preludes_with_right_checksums_and_any_lengths(total: int, headers: int, rest: bytes) -> None:
    """A frame may say it is shorter than itself."""
    for lengths in ((total, headers), (total % 64, headers % 64)):
        prelude = struct.pack("!II", *lengths)
        check(FRAMES, [prelude + struct.pack("!I", zlib.crc32(prelude)) + rest], Operation.CHAT)


@given(st.sampled_from(BODIES), st.integers(0, 2**16), OPERATIONS)
@settings(deadline=None)
def test_any_cut_gives_the_same(body: tuple[Head, bytes], seed: int, operation: Operation) -> None:
    """A true body tells the same in whatever pieces it comes."""
    head, whole = body

    assert _told(head, [whole], operation) == _told(head, _cut(whole, seed), operation)


@given(
    st.sampled_from([JSON, JSON | COUNTS]),
    _spoiled().map(lambda spoiled: spoiled[1]) | ANSWERS.map(lambda answer: json.dumps(answer).encode()),
    OPERATIONS,
)
@settings(max_examples=400, deadline=None)
def test_a_whole_answer_tells_what_it_tells_in_pieces(head: Head, body: bytes, operation: Operation) -> None:
    """The short way for a whole object of JSON, and the long one for whatever may come, read the same."""
    whole = WireEvidence(operation)
    whole.begin(head)
    whole.take_whole(body)

    assert _plainly(_told(head, [body], operation)) == _plainly(whole.reading(operation))


@pytest.mark.parametrize("head", [SSE, LINES])
@given(st.integers(0, 2**16), st.integers(1, 400))
@settings(deadline=None)
def test_what_is_held_does_not_change_what_is_told(head: Head, seed: int, most: int) -> None:
    """Read on the way or at the end, a long stream tells the same usage."""
    body = next(body for other, body in BODIES if other == head)
    expected = _told(head, [body], Operation.CHAT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "_MOST_HELD", most)

        assert expected == _told(head, _cut(body, seed), Operation.CHAT)


@pytest.mark.parametrize("body", [body for head, body in BODIES if head == JSON and body.startswith(b"[")])
def test_every_end_of_an_array(body: bytes) -> None:
    """An array that breaks off anywhere is read as far as it came."""
    for end in range(len(body)):
        check(JSON, [body[:end]], Operation.CHAT)


def _plainly(reading: Reading | None) -> object:
    return None if reading is None else (reading.usage, reading.payload, reading.doubts)


def _told(head: Head, pieces: list[bytes], operation: Operation) -> Reading | None:
    evidence = WireEvidence(operation)
    evidence.begin(head)
    for piece in pieces:
        evidence.take(piece)
    return evidence.reading(operation)
