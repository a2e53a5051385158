"""What the first bytes of images, files and sounds tell."""

import base64
import struct
import zlib
from typing import Any

import pytest

from token_callbacks.counting.media import Kind, Medium, medium_of, size_of


def _part(data: bytes, mime: str = "application/octet-stream", **more: Any) -> dict[str, Any]:
    return {"inlineData": {"mimeType": mime, "data": base64.b64encode(data).decode()}, **more}


@pytest.mark.parametrize(
    ("head", "size"),
    [
        (b"GIF89a" + struct.pack("<HH", 3, 4), (3, 4)),
        (b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc0\x00\x11\x08" + struct.pack(">HH", 4, 3) + b"\x00" * 8, (3, 4)),
        (b"RIFF\x00\x00\x00\x00WEBPVP8X" + b"\x00" * 8 + b"\x02\x00\x00\x03\x00\x00", (3, 4)),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 " + b"\x00" * 10 + struct.pack("<HH", 3, 4), (3, 4)),
        (b"RIFF\x00\x00\x00\x00WEBPVP8L" + b"\x00" * 5 + struct.pack("<I", 2 | 3 << 14), (3, 4)),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", 3, 4), (3, 4)),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", 0, 4), None),
        (b"\x89PNG\r\n", None),
        (b"nothing known", None),
    ],
)
def test_size_of_a_data_url(head: bytes, size: tuple[int, int] | None) -> None:
    """The size is read from the first bytes, if their format is known; from bytes as from base64."""
    encoded = base64.b64encode(head + b"\x00" * (-len(head) % 3))
    of_urls = encoded.translate(bytes.maketrans(b"+/", b"-_"))
    shapes = ["data:image/x;base64," + encoded.decode(), encoded.decode(), encoded, of_urls, head]

    assert [size] * 5 == [size_of(shape) for shape in shapes]


@pytest.mark.parametrize(
    "url", ["", "https://example.com/a.png", "data:image/png;base64,%%%", "data:,x", "data:image/png;base64,é"]
)
def test_no_size(url: str) -> None:
    """What is no image has no size, and raises nothing."""
    assert size_of(url) is None


@pytest.mark.parametrize(
    "part",
    [
        "text",
        b"text",
        None,
        3,
        {},
        {"type": "text", "text": "a"},
        {"type": "image"},
        {"type": "image", "function_call": {"name": "f"}},
        {"type": "thinking", "thinking": "a"},
        {"type": "tool_use", "input": {"image": "a"}},
        {"image": "a"},
    ],
)
def test_no_medium(part: object) -> None:
    """What holds no image or file is none."""
    assert medium_of(part) is None


@pytest.mark.parametrize("value", [None, 3, [], {}, "", "é", {"url": {"url": {"url": {"url": {"url": "x"}}}}}, b"\xff"])
@pytest.mark.parametrize("kind", ["image_url", "input_image", "image", "file", "document", "input_audio", "video_url"])
def test_odd_shapes_raise_nothing(kind: str, value: object) -> None:
    """A part whose data is of an odd type is of an unknown size."""
    found = [medium_of({"type": kind, name: value}) for name in (kind, "source", "image_url", "data", "file_data")]

    assert all(medium is None or medium.size is None for medium in found)


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ({"type": "input_image", "file_id": "file-1"}, Kind.IMAGE),
        ({"type": "image", "source": {"type": "file", "file_id": "file-1"}}, Kind.IMAGE),
        ({"type": "file", "file": {"file_id": "gs://a/b.mp4", "format": "video/mp4"}}, Kind.VIDEO),
        ({"type": "file", "file": {"file_id": "gs://a/b.png", "format": "image/png"}}, Kind.IMAGE),
        ({"type": "document_url", "document_url": "https://example.com/a.pdf"}, Kind.DOCUMENT),
        ({"image": {"format": "jpeg", "source": {"s3Location": {"uri": "s3://a/b.jpg"}}}}, Kind.IMAGE),
        ({"video": {"format": "mp4", "source": {"s3Location": {"uri": "s3://a/b.mp4"}}}}, Kind.VIDEO),
        ({"file_data": {"mime_type": "application/pdf", "file_uri": "gs://a/b.pdf"}}, Kind.DOCUMENT),
        ({"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}}, Kind.VIDEO),
    ],
)
def test_what_is_elsewhere_has_a_kind(part: dict[str, Any], kind: Kind) -> None:
    """The kind is what the part says; nothing is looked up."""
    found = medium_of(part)

    assert found is not None
    assert (kind, None, None, None) == (found.kind, found.size, found.seconds, found.letters)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "three words long"}},
        {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "three words long"}]}},
        {"document": {"name": "a", "format": "txt", "source": {"text": "three words long"}}},
        {"document": {"name": "a", "format": "txt", "source": {"content": [{"text": "three words long"}]}}},
        {"document": {"name": "a", "format": "txt", "source": {"bytes": base64.b64encode(b"three words long")}}},
        {"document": {"name": "a", "format": "txt", "source": {"bytes": b"three words long"}}},
        {"type": "input_file", "file_data": "data:text/csv;base64," + base64.b64encode(b"three words long").decode()},
    ],
)
def test_text_of_a_document(part: dict[str, Any]) -> None:
    """A text file is read, whether it is sent as text or as data."""
    assert Medium(kind=Kind.DOCUMENT, text="three words long") == medium_of(part)


def test_a_long_text_is_read_in_part() -> None:
    """Of a long text the beginning is read, and how many times as long the whole is."""
    found = medium_of(_part(b"a" * 196_608, "text/plain"))

    assert found is not None
    assert ("a" * 49_152, 4.0) == (found.text, found.text_factor)


def test_binary_data_is_no_text() -> None:
    """An office file is neither read nor counted as text."""
    found = medium_of(_part(b"PK\x03\x04 some words", "application/vnd.openxmlformats"))

    assert Medium(kind=Kind.DOCUMENT) == found


def _pdf(stream: bytes, *, pages: int = 1, fonts: bytes = b"") -> bytes:
    page = b"<</Type /Pages /Count 3>> " + b"<</Type/Page /Parent 1 0 R>> " * pages
    return b"%PDF-1.4\n" + page + fonts + b"<<>>\nstream\r\n" + stream + b"\nendstream\n%%EOF"


@pytest.mark.parametrize(
    ("stream", "fonts", "letters"),
    [
        (b"BT (ab\\)c) Tj ET", b"", 5),
        (b"BT [(ab) -3 (cd)] TJ ET", b"", 4),
        (b"BT <01020303> Tj ET", b"", 4),
        (b"BT <0001000200030004> Tj ET", b"/Encoding /Identity-H", 4),
        (b"q (not shown) ET", b"", 0),
        (b"", b"", 0),
    ],
)
@pytest.mark.parametrize("is_compressed", [False, True])
def test_letters_of_a_pdf(stream: bytes, fonts: bytes, letters: int, is_compressed: bool) -> None:
    """What a page shows is counted in its stream, compressed or not."""
    found = medium_of(_part(_pdf(zlib.compress(stream) if is_compressed else stream, fonts=fonts)))

    assert Medium(kind=Kind.DOCUMENT, is_pdf=True, pages=1, letters=letters) == found


def test_pages_of_a_pdf() -> None:
    """Pages are counted where they can be seen."""
    found = medium_of(_part(_pdf(b"", pages=3)))

    assert found is not None
    assert found.pages == 3


def test_a_stream_that_inflates_without_end_is_bounded() -> None:
    """Of a stream that grows a thousandfold no more than a bounded piece is read."""
    found = medium_of(_part(_pdf(zlib.compress(b"BT (" + b"a" * 10_000_000 + b") Tj"))))

    assert found is not None
    assert found.letters is not None
    assert found.letters <= 65_536


def _mp3(*, tag: int = 0, frames: int | None = None) -> bytes:
    head = b"ID3\x04\x00\x00\x00\x00\x00" + bytes([tag]) + bytes(tag) if tag else b""
    info = bytes(32) + b"Info\x00\x00\x00\x0f" + struct.pack(">I", frames) if frames is not None else b""
    return head + (b"\xff\xfb\x90\x00" + info).ljust(32_000, b"\x00")  # MPEG 1, layer III, 128 kbit/s, 44.1 kHz


@pytest.mark.parametrize(
    ("data", "seconds"),
    [
        (_mp3(), 2.0),
        (_mp3(tag=100), 2.0),
        (_mp3(frames=1225), 32.0),
        (b"\xff\xf3\xc4\xc4".ljust(48_000, b"\x00"), 3.0),
        (b"\xff\xfb\xf0\x00", None),
        (b"\xff\xea\x90\x00", None),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", None),
        (b"ID3", None),
        (_mp3(frames=2**32 - 1), None),
    ],
)
def test_seconds_of_a_sound(data: bytes, seconds: float | None) -> None:
    """MP3 tells its frames, or its bits a second; what is broken, or of ages, tells nothing."""
    found = medium_of(_part(data, "audio/mpeg"))

    assert found is not None
    assert (Kind.AUDIO, seconds) == (found.kind, found.seconds)


FTYP = b"\x00\x00\x00 ftypisom"
MVHD = b"mvhd" + struct.pack(">IIIII", 0, 0, 0, 1000, 2500)
MVHD_LONG = b"mvhd" + struct.pack(">BxxxQQIQ", 1, 0, 0, 1000, 2500)


@pytest.mark.parametrize(
    ("data", "seconds", "has_sound"),
    [
        (FTYP + MVHD, 2.5, False),
        (FTYP + MVHD_LONG, 2.5, False),
        (FTYP + b"\x01" * 100_000 + MVHD + b"soun", 2.5, True),
        (FTYP, 0.0, False),
        (FTYP + b"\x01" * 100_000, None, False),
        (FTYP + b"mvhd" + struct.pack(">BxxxQQIQ", 1, 0, 0, 1, 2**64 - 1), None, False),
    ],
)
def test_seconds_of_a_film(data: bytes, seconds: float | None, has_sound: bool) -> None:
    """A film keeps its length at the beginning or at the end; one without is none, or not known; nor is one of ages."""
    found = medium_of(_part(data, "video/mp4"))

    assert Medium(kind=Kind.VIDEO, seconds=seconds, has_sound=has_sound) == found


def test_what_stands_beside_the_data() -> None:
    """The detail that is asked for, and whether places are to be told, stand at any level."""
    part = {
        "document": {"format": "pdf", "source": {"bytes": b"%PDF"}, "citations": {"enabled": True}},
        "detail": "low",
    }
    found = medium_of(part)

    assert found is not None
    assert ("low", True) == (found.detail, found.is_cited)
