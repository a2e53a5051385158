"""How many tokens an image is, by the model's family, the detail asked for and the size in pixels.

The rules of https://platform.openai.com/docs/guides/images-vision (read 2026-11): older models cut an image into tiles
of 512 pixels, newer ones into patches of 32. The size is read from the first bytes of a data
URL; of an image that is elsewhere it is not known, and nothing is fetched.
"""

import base64
import math
import struct
from collections.abc import Callable
from fnmatch import fnmatchcase

import msgspec

from token_callbacks.counting.texts import field

Size = tuple[int, int]
HEAD_CHARACTERS = 65_536
"""So much of a data URL is decoded to find the size: JPEG may put previews before it."""

UNKNOWN_SIZE = (1024, 1024)


class Tiles(msgspec.Struct, frozen=True, kw_only=True):
    """A base, and as much again for every tile of 512 pixels; ``low`` detail is the base alone."""

    base: int
    tile: int

    def tokens(self, size: Size, *, is_low: bool) -> int:
        """Count an image: fitted into 2048 pixels, then its shorter side brought down to 768."""
        if is_low:
            return self.base
        width, height = _fitted(size, longest=2048)
        shrink = min(1.0, 768 / max(1, min(width, height)))
        return self.base + self.tile * math.ceil(width * shrink / 512) * math.ceil(height * shrink / 512)


class Patches(msgspec.Struct, frozen=True, kw_only=True):
    """A token for every patch of 32 pixels, times a factor, and a few more.

    A larger image is shrunk until `most` patches cover it.
    """

    factor: float
    base: int = 1
    most: int = 1536

    def tokens(self, size: Size, *, is_low: bool) -> int:  # noqa: ARG002 - these models do not look at the detail
        """Count an image."""
        width, height = size
        patches = math.ceil(width / 32) * math.ceil(height / 32)
        if patches > self.most:
            shrink = math.sqrt(32 * 32 * self.most / (width * height))
            across, down = width * shrink / 32, height * shrink / 32
            shrink *= min(max(1, math.floor(across)) / across, max(1, math.floor(down)) / down)
            patches = min(self.most, math.ceil(width * shrink / 32) * math.ceil(height * shrink / 32))
        return math.ceil(round(patches * self.factor, 6)) + self.base


class ImageRule(msgspec.Struct, frozen=True, kw_only=True):
    """The models whose name matches one of the globs, how they count an image, and since when that is known."""

    globs: tuple[str, ...]
    rule: Tiles | Patches
    is_sure: bool = True
    as_of: str = "2026-11"


IMAGE_RULES = (
    ImageRule(globs=("gpt-4o-mini*",), rule=Tiles(base=2833, tile=5667)),
    ImageRule(globs=("gpt-4.1-mini*",), rule=Patches(factor=1.62, base=2)),
    ImageRule(globs=("gpt-4.1-nano*",), rule=Patches(factor=2.46)),
    # The documentation says 1.62 and 2.46; recorded with 640 x 480 pixels in 2025-12 and 2026-01 were 1.2 and 1.5.
    ImageRule(globs=("gpt-5-mini*",), rule=Patches(factor=1.2)),
    ImageRule(globs=("gpt-5-nano*",), rule=Patches(factor=1.5)),
    ImageRule(globs=("o4-mini*",), rule=Patches(factor=1.72)),
    # 17 tokens under for the one image that was recorded alone, with gpt-5.6.
    ImageRule(globs=("gpt-5.[2-9]*",), rule=Patches(factor=1.0), is_sure=False),
    ImageRule(globs=("gpt-5*",), rule=Tiles(base=70, tile=140)),
    ImageRule(globs=("o1*", "o3*"), rule=Tiles(base=75, tile=150)),
    ImageRule(globs=("computer-use*",), rule=Tiles(base=65, tile=129)),
    ImageRule(globs=("gpt-4*", "chatgpt-4o*"), rule=Tiles(base=85, tile=170)),
)
UNKNOWN = ImageRule(globs=("*",), rule=Tiles(base=85, tile=170), is_sure=False)


class ImageTokens(msgspec.Struct, frozen=True, kw_only=True):
    """The tokens of an image; not sure where its size, or the model's rule, is not known."""

    tokens: int
    is_sure: bool


def image_tokens(part: object, *, name: str) -> ImageTokens | None:
    """Count an image part of a message for the model of that (bare) name; ``None`` where it is no image."""
    if field(part, "type") not in ("image_url", "input_image", "image"):
        return None
    image = field(part, "image_url")
    url = image if isinstance(image, str) else field(image, "url")
    detail = field(part, "detail") if isinstance(image, str) else field(image, "detail")
    size = size_of(url) if isinstance(url, str) else None
    row = next((row for row in IMAGE_RULES if any(fnmatchcase(name, glob) for glob in row.globs)), UNKNOWN)
    counted = row.rule.tokens(size or UNKNOWN_SIZE, is_low=detail == "low")
    needs_size = not (detail == "low" and isinstance(row.rule, Tiles))
    return ImageTokens(tokens=counted, is_sure=row.is_sure and (size is not None or not needs_size))


def size_of(url: str) -> Size | None:
    """Read width and height of an image in a data URL; ``None`` where it is elsewhere, or of a format not known."""
    if not url.startswith("data:") or ";base64," not in url[:256]:
        return None
    encoded = url[url.index(";base64,") + 8 :][:HEAD_CHARACTERS]
    try:
        head = base64.b64decode(encoded[: len(encoded) // 4 * 4])
        sizes = (read(head) for start, read in _READERS if head.startswith(start))
        size = next(sizes, None)
    except (ValueError, struct.error, IndexError):
        return None
    return size if size is not None and min(size) > 0 else None


def _fitted(size: Size, *, longest: int) -> tuple[float, float]:
    shrink = min(1.0, longest / max(size))
    return size[0] * shrink, size[1] * shrink


def _png(head: bytes) -> Size | None:
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def _gif(head: bytes) -> Size | None:
    width, height = struct.unpack("<HH", head[6:10])
    return width, height


def _jpeg(head: bytes) -> Size | None:
    position = 2
    while head[position] == 0xFF:  # noqa: PLR2004 - the byte that begins a segment
        marker, length = head[position + 1], int.from_bytes(head[position + 2 : position + 4], "big")
        if marker in range(0xC0, 0xD0) and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", head[position + 5 : position + 9])
            return width, height
        position += 2 + length
    return None


def _webp(head: bytes) -> Size | None:
    if head[12:16] == b"VP8 ":
        width, height = struct.unpack("<HH", head[26:30])
        return width & 0x3FFF, height & 0x3FFF
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if head[12:16] == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    return None


_READERS: tuple[tuple[bytes, Callable[[bytes], Size | None]], ...] = (
    (b"\x89PNG\r\n", _png),
    (b"GIF8", _gif),
    (b"\xff\xd8", _jpeg),
    (b"RIFF", _webp),
)
