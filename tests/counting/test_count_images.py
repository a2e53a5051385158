"""Tokens of images."""

import base64
import struct
from typing import Any

import pytest

from token_callbacks.counting.images import ImageTokens, image_tokens, size_of


def _png(width: int, height: int) -> str:
    head = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", width, height)
    return "data:image/png;base64," + base64.b64encode(head).decode()


def _part(url: str, **image: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **image}}


@pytest.mark.parametrize(
    ("model", "size", "tokens"),
    [
        ("gpt-4o", (512, 512), 85 + 170),
        ("gpt-4o", (1024, 1024), 85 + 4 * 170),
        ("gpt-4o", (2048, 4096), 85 + 6 * 170),
        ("gpt-4o-mini", (1, 1), 2833 + 5667),
        ("gpt-4.1-nano", (540, 360), 503),
        ("gpt-4.1-mini", (640, 480), 488),
        ("gpt-5-mini", (640, 480), 361),
        ("o4-mini", (640, 480), 517),
        ("o4-mini", (4096, 4096), 2618),
    ],
)
def test_tokens_of_an_image(model: str, size: tuple[int, int], tokens: int) -> None:
    """Older models count tiles of 512 pixels, newer ones patches of 32."""
    assert ImageTokens(tokens=tokens, is_sure=True) == image_tokens(_part(_png(*size)), name=model)


def test_low_detail_needs_no_size() -> None:
    """An image at low detail costs the base, wherever it is."""
    part = _part("https://example.com/a.png", detail="low")

    assert ImageTokens(tokens=85, is_sure=True) == image_tokens(part, name="gpt-4o")


def test_image_elsewhere_is_not_sure() -> None:
    """Nothing is fetched to find out how large an image is."""
    counted = image_tokens(_part("https://example.com/a.png"), name="gpt-4o")

    assert counted is not None
    assert not counted.is_sure


def test_image_of_a_rule_without_a_recording_is_not_sure() -> None:
    """What the documentation says of gpt-5.6 did not come true in the one recording there is."""
    counted = image_tokens(_part(_png(32, 64)), name="gpt-5.6")

    assert ImageTokens(tokens=3, is_sure=False) == counted


def test_text_is_no_image() -> None:
    """A text part has no image tokens."""
    assert image_tokens({"type": "text", "text": "hello"}, name="gpt-4o") is None


@pytest.mark.parametrize(
    ("head", "size"),
    [
        (b"GIF89a" + struct.pack("<HH", 3, 4), (3, 4)),
        (b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc0\x00\x11\x08" + struct.pack(">HH", 4, 3) + b"\x00" * 8, (3, 4)),
        (b"RIFF\x00\x00\x00\x00WEBPVP8X" + b"\x00" * 8 + b"\x02\x00\x00\x03\x00\x00", (3, 4)),
        (b"\x89PNG\r\n", None),
        (b"nothing known", None),
    ],
)
def test_size_of_a_data_url(head: bytes, size: tuple[int, int] | None) -> None:
    """The size is read from the first bytes, if their format is known."""
    assert size == size_of("data:image/x;base64," + base64.b64encode(head + b"\x00" * (-len(head) % 3)).decode())


@pytest.mark.parametrize("url", ["", "https://example.com/a.png", "data:image/png;base64,%%%", "data:,x"])
def test_no_size(url: str) -> None:
    """What is no image has no size, and raises nothing."""
    assert size_of(url) is None
