"""What an image, a file or a sound in a message is, as far as its first bytes tell; in whatever shape it is sent.

Rules count by pixels, pages and seconds (``images``). They are read from a bounded head, nothing is fetched, and the
data is never taken for text. Nothing in here raises on odd shapes.
"""

import base64
import codecs
import enum
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping

import msgspec

from token_callbacks.counting.texts import field, items_of, part_text

Size = tuple[int, int]
HEAD_CHARACTERS = 65_536
"""So much base64 is decoded at the beginning of the data: JPEG may put previews before the size."""

SHORT_CHARACTERS = 1_024
"""So much is enough for the images that begin with their size."""

TAIL_CHARACTERS = 16_384
"""So much is decoded at the end of a film, which is where many keep its length."""

LONGEST_SECONDS = 86_400
"""A sound or film that says it is longer than a day does not tell how long it is."""

_STREAM_BYTES, _MOST_STREAMS = 65_536, 64
"""So much of a compressed stream of a PDF is read, and of so many of them."""


class Kind(enum.Enum):
    """What a message may hold beside text."""

    IMAGE = "image"
    DOCUMENT = "document"
    AUDIO = "audio"
    VIDEO = "video"


class Medium(msgspec.Struct, frozen=True, kw_only=True):
    """An image, file, sound or film; ``None`` is not known: it is elsewhere, or of a format that is not read.

    `size` is in pixels, `seconds` the length of a sound or film. `pages` and `letters` are of a PDF, of all its pages.
    `text` is the beginning of a text file that is `text_factor` times as long. `is_cited`: the answer is to tell the
    places in it that it rests on. `is_stored`: it was sent before, and stands with the provider.
    """

    kind: Kind
    detail: str | None = None
    is_cited: bool = False
    is_stored: bool = False
    is_pdf: bool = False
    size: Size | None = None
    seconds: float | None = None
    has_sound: bool = False
    pages: int | None = None
    letters: int | None = None
    text: str | None = None
    text_factor: float = 1.0


_TYPES = {
    **dict.fromkeys(("image_url", "input_image", "image"), Kind.IMAGE),
    **dict.fromkeys(("input_audio", "audio", "audio_url"), Kind.AUDIO),
    **dict.fromkeys(("video_url", "input_video", "video"), Kind.VIDEO),
    **dict.fromkeys(("file", "input_file", "document", "document_url"), Kind.DOCUMENT),
}
_TEXTS = ("text", "input_text", "output_text")
_GEMINI = ("inlineData", "inline_data", "fileData", "file_data")
_BEDROCK = ("image", "document", "video", "audio")
_ENDS = ("data", "bytes", "url", "file_url", "fileUri", "file_uri", "uri", "s3Location")
# Of these a part, and what it holds, holds one or none: OpenAI, Anthropic, Gemini, Bedrock, LlamaIndex and LiteLLM.
_HOLDERS = (
    *("image_url", "input_audio", "audio_url", "video_url", "document_url", "file"),
    *(*_GEMINI, *_BEDROCK, "source", *_ENDS),
)
_MIMES = ("media_type", "mimeType", "mime_type", "format")
_DEPTH = 4
_TEXT_FORMATS = ("txt", "md", "csv", "html")


def medium_of(part: object) -> Medium | None:
    """Read a part of a message; ``None`` where it is no image, file, sound or film."""
    kind = kind_of(part)
    if kind is None:
        return None
    levels = list(_levels(part))
    return msgspec.structs.replace(
        _told(levels) or _unknown(levels, kind),
        detail=next((value for level in levels if isinstance(value := field(level, "detail"), str)), None),
        is_stored=any(field(level, "file_id") is not None for level in levels),
        is_cited=any(field(field(level, "citations"), "enabled") is True for level in levels),
    )


def _told(levels: list[object]) -> Medium | None:
    text, data = _told_text(levels), levels[-1]
    if text is not None:
        return Medium(kind=Kind.DOCUMENT, text=text)
    return _read(data, _mime_of(levels)) if isinstance(data, str | bytes | bytearray) else None


def _unknown(levels: list[object], kind: Kind) -> Medium:
    mime = _mime_of(levels)
    is_pdf = "pdf" in mime or (not mime and kind is Kind.DOCUMENT)
    return Medium(kind=_kind_of_mime(mime) or kind, is_pdf=is_pdf)


def kind_of(part: object) -> Kind | None:
    """Tell what a part says that it is; ``None`` where it is text, a call or anything else."""
    told = None if isinstance(part, str | bytes) else field(part, "type")
    if isinstance(part, str | bytes) or told in _TEXTS:
        return None
    if (
        isinstance(told, str)
        and told in _TYPES
        and any(field(part, name) is not None for name in (*_HOLDERS, "file_id"))
    ):
        return _TYPES[told]
    for name in _BEDROCK:
        if field(field(part, name), "source") is not None:
            return _TYPES[name]
    return Kind.DOCUMENT if any(field(part, name) is not None for name in _GEMINI) else None


def _levels(part: object) -> Iterator[object]:
    """Yield the part, what it holds, what that holds, and so on: the last is the data, or where it is."""
    yield part
    for _ in range(_DEPTH):
        values = (field(part, name) for name in _HOLDERS)
        part = next((value for value in values if isinstance(value, Mapping | str | bytes | bytearray)), None)
        if part is None:
            return
        yield part
        if not isinstance(part, Mapping):
            return


def _told_text(levels: list[object]) -> str | None:
    """Return the text of a document that is sent as such, Anthropic's or Bedrock's."""
    for level in levels:
        source = field(level, "source")
        if field(source, "type") == "text":
            return part_text(field(source, "data"))
        if isinstance(text := field(source, "text"), str):
            return text
        if isinstance(content := field(source, "content"), str | list):
            return "".join(part_text(each) for each in items_of(content))
    return None


def _mime_of(levels: list[object]) -> str:
    told = levels[-1]
    if isinstance(told, str) and told.startswith("data:"):
        return told[5 : told.find(";", 0, 256)].lower()
    return next((value for level in levels for name in _MIMES if isinstance(value := field(level, name), str)), "")


def _kind_of_mime(mime: str) -> Kind | None:
    if mime.startswith(("application/", "text/")):
        return Kind.DOCUMENT
    return next((kind for kind in Kind if mime.startswith(kind.value)), None)


# --- the data


def size_of(data: str | bytes | bytearray) -> Size | None:
    """Read width and height of an image in base64, a data URL or bytes; ``None`` where they are not told in there."""
    found = _read(data, "")
    return None if found is None else found.size


class _Data(msgspec.Struct, frozen=True):
    """The beginning of some data, how long all of it is in bytes, and how to come by its end."""

    head: bytes
    length: int
    tail: Callable[[], bytes]


def _read(told: str | bytes | bytearray, mime: str) -> Medium | None:
    data = _data_of(told)
    if data is None:
        return None
    for is_it, read in _READERS:
        if is_it(data.head):
            try:
                return _plausible(read(data))
            except (ValueError, struct.error, LookupError, ZeroDivisionError):
                return None
    is_text = mime.startswith("text/") or mime in _TEXT_FORMATS
    return _text(data) if is_text else None


def _plausible(medium: Medium) -> Medium:
    is_too_long = medium.seconds is not None and medium.seconds > LONGEST_SECONDS
    return msgspec.structs.replace(medium, seconds=None) if is_too_long else medium


def _data_of(told: str | bytes | bytearray) -> _Data | None:
    if not isinstance(told, str) and _is_raw(bytes(told[:256])):
        return _Data(bytes(told[:HEAD_CHARACTERS]), len(told), lambda: bytes(told[-TAIL_CHARACTERS:]))
    start = _start_of(told)
    if start is None:
        return None
    length = (len(told) - start) // 4 * 4
    head = _decoded(told[start : start + min(SHORT_CHARACTERS, length)])
    if head is not None and not head.startswith(_TOLD_SOON):
        head = _decoded(told[start : start + min(HEAD_CHARACTERS, length)])
    first = start + max(0, length - TAIL_CHARACTERS)
    size = length * 3 // 4 - sum(last in ("=", 61) for last in told[-2:])  # 61 is "=" among bytes
    return None if head is None else _Data(head, size, lambda: _decoded(told[first : start + length]) or b"")


_TOLD_SOON = (b"\x89PNG\r\n", b"GIF8")


def _is_raw(head: bytes) -> bool:
    """Tell bytes from base64 in bytes: LlamaIndex has the latter, Amazon's client the former."""
    return b" " in head or any(is_it(head) for is_it, _ in _READERS)


def _start_of(told: str | bytes | bytearray) -> int | None:
    """Tell where base64 begins; ``None`` for an address."""
    head = bytes(told[:256]) if not isinstance(told, str) else told[:256].encode("ascii", "replace")
    if head.startswith(b"data:"):
        start = head.find(b";base64,")
        return None if start < 0 else start + 8
    return None if b":" in head else 0


def _decoded(encoded: str | bytes | bytearray) -> bytes | None:
    try:
        told = encoded.encode("ascii") if isinstance(encoded, str) else bytes(encoded)
        return base64.b64decode(told.translate(_OF_URLS))
    except ValueError:
        return None


_OF_URLS = bytes.maketrans(b"-_", b"+/")
"""Gemini's clients write base64 for URLs."""


# --- images


def _png(data: _Data) -> Medium:
    width, height = struct.unpack(">II", data.head[16:24])
    return _image((width, height))


def _gif(data: _Data) -> Medium:
    width, height = struct.unpack("<HH", data.head[6:10])
    return _image((width, height))


def _jpeg(data: _Data) -> Medium:
    head, position = data.head, 2
    while head[position] == 0xFF:  # noqa: PLR2004 - the byte that begins a segment
        marker, length = head[position + 1], int.from_bytes(head[position + 2 : position + 4], "big")
        if marker in range(0xC0, 0xD0) and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", head[position + 5 : position + 9])
            return _image((width, height))
        position += 2 + length
    return _image(None)


def _webp(data: _Data) -> Medium:
    head = data.head
    if head[12:16] == b"VP8 ":
        width, height = struct.unpack("<HH", head[26:30])
        return _image((width & 0x3FFF, height & 0x3FFF))
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return _image(((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1))
    if head[12:16] == b"VP8X":
        return _image((int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1))
    return _image(None)


def _image(size: Size | None) -> Medium:
    return Medium(kind=Kind.IMAGE, size=size if size is not None and min(size) > 0 else None)


# --- sounds and films


def _wav(data: _Data) -> Medium:
    form, begin = data.head.index(b"fmt "), data.head.index(b"data") + 8
    (bytes_a_second,) = struct.unpack("<I", data.head[form + 16 : form + 20])
    # Not the length that stands there: of a recording that was streamed it is none.
    return Medium(kind=Kind.AUDIO, seconds=(data.length - begin) / bytes_a_second)


_KILOBITS = {
    3: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_HERTZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


def _mp3(data: _Data) -> Medium:
    """Read the first frame: how many follow, where it tells, or else how many bytes go for a second."""
    head, begin = data.head, 0
    if head.startswith(b"ID3"):
        begin = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    version = head[begin + 1] >> 3 & 3
    hertz = _HERTZ[version][head[begin + 2] >> 2 & 3]
    frames = re.search(rb"(?:Xing|Info)\x00\x00\x00[\x01\x03\x05\x07-\x0f](.{4})", head[begin : begin + 64], re.DOTALL)
    if frames is not None:
        samples = 1152 if version == 3 else 576  # noqa: PLR2004 - the number that MPEG 1 has in there
        return Medium(kind=Kind.AUDIO, seconds=int.from_bytes(frames[1], "big") * samples / hertz)
    kilobits = _KILOBITS[3 if version == 3 else 2][(head[begin + 2] >> 4) - 1]  # noqa: PLR2004 - as above
    return Medium(kind=Kind.AUDIO, seconds=(data.length - begin) / (kilobits * 125))


def _mp4(data: _Data) -> Medium:
    for part in (data.head, data.tail()):
        begin = part.find(b"mvhd")
        if begin >= 0:
            form = ">16xIQ" if part[begin + 4] else ">8xII"
            scale, units = struct.unpack_from(form, part, begin + 8)
            return Medium(kind=Kind.VIDEO, seconds=units / scale, has_sound=b"soun" in part)
    return Medium(kind=Kind.VIDEO, seconds=0.0 if data.length <= len(data.head) else None)


# --- documents

_PAGE = re.compile(rb"/Type\s*/Page(?![A-Za-z])")
_STREAM = re.compile(rb"stream\r?\n")
_SHOWN = re.compile(rb"\((?:\\.|[^\\)])*\)|(?<!<)<[0-9A-Fa-f\s]+>", re.DOTALL)


def _pdf(data: _Data) -> Medium:
    head, factor = data.head, max(1.0, data.length / max(1, len(data.head)))
    digits = 4 if b"/Identity-H" in head else 2  # of a letter that is written as a number
    letters = sum(_letters(stream, digits) for stream in _pdf_streams(head))
    pages = max(1, round(len(_PAGE.findall(head)) * factor))
    return Medium(kind=Kind.DOCUMENT, is_pdf=True, pages=pages, letters=round(letters * factor))


def _pdf_streams(head: bytes) -> Iterator[bytes]:
    for found, _ in zip(_STREAM.finditer(head), range(_MOST_STREAMS), strict=False):
        inner = head[found.end() : found.end() + _STREAM_BYTES]
        try:
            yield zlib.decompressobj().decompress(inner, _STREAM_BYTES)
        except zlib.error:  # not compressed, or in a way that texts are not
            yield inner[: max(0, inner.find(b"endstream"))]


def _letters(stream: bytes, digits: int) -> int:
    """Count the letters that a page of a PDF shows."""
    if b"BT" not in stream or (b"Tj" not in stream and b"TJ" not in stream):
        return 0
    return sum(len(each) - 2 if each[:1] == b"(" else (len(each) - 2) // digits for each in _SHOWN.findall(stream))


def _text(data: _Data) -> Medium:
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(data.head)
    return Medium(kind=Kind.DOCUMENT, text=text, text_factor=max(1.0, data.length / max(1, len(data.head))))


def _is_mp3(head: bytes) -> bool:
    return head.startswith(b"ID3") or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2)  # noqa: PLR2004


_READERS: tuple[tuple[Callable[[bytes], bool], Callable[[_Data], Medium]], ...] = (
    (lambda head: head.startswith(b"\x89PNG\r\n"), _png),
    (lambda head: head.startswith(b"GIF8"), _gif),
    (lambda head: head.startswith(b"\xff\xd8"), _jpeg),
    (lambda head: head.startswith(b"RIFF") and head[8:12] == b"WEBP", _webp),
    (lambda head: head.startswith(b"RIFF") and head[8:12] == b"WAVE", _wav),
    (lambda head: head.startswith(b"%PDF"), _pdf),
    (lambda head: head[4:8] == b"ftyp", _mp4),
    (_is_mp3, _mp3),
)
