"""Tokens of images and files."""

import base64
import struct
from typing import Any

import pytest

from token_callbacks.counting import count_prompt
from token_callbacks.counting.images import MediaTokens, media_tokens
from token_callbacks.counting.vocabularies import INSTALLED


def _png(width: int, height: int) -> str:
    head = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", width, height)
    return "data:image/png;base64," + base64.b64encode(head).decode()


def _part(url: str, **image: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **image}}


def _counted(part: object, *, name: str, api: str = "chat") -> MediaTokens | None:
    return media_tokens(part, name=name, api=api, count=lambda text: len(text.split()))


def _tokens(part: object, *, name: str, api: str = "chat") -> int | None:
    counted = _counted(part, name=name, api=api)
    return None if counted is None else counted.tokens


def _file(mime: str, data: bytes, **more: Any) -> dict[str, Any]:
    url = f"data:{mime};base64,{base64.b64encode(data).decode()}"
    return {"type": "file", "file": {"file_data": url}, **more}


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
    """OpenAI's older models count tiles of 512 pixels, newer ones patches of 32."""
    expected = MediaTokens(kind="images", tokens=tokens, is_sure=True)

    assert expected == _counted(_part(_png(*size)), name=model)


@pytest.mark.parametrize(
    ("model", "size", "tokens"),
    [
        # Recorded, but for the last of Claude's.
        ("claude-3-opus-20240229", (1001, 1001), 36 * 36 + 3),
        ("us.anthropic.claude-sonnet-4-6", (640, 480), 23 * 18 + 3),
        ("claude-3-5-haiku-20241022", (640, 480), 435),
        ("claude-haiku-4-5-20251001", (128, 128), 28),
        ("claude-sonnet-4-5-20250929", (3136, 1568), 56 * 28 + 3),
    ],
)
def test_claude_counts_patches_of_28_pixels(model: str, size: tuple[int, int], tokens: int) -> None:
    """Claude counts a token for every 28 pixels down and across, of an image that it shrinks first if it is large."""
    assert tokens == _tokens(_part(_png(*size)), name=model)


def test_newer_claude_sees_more_of_a_large_image() -> None:
    """The models since Opus 4.7 shrink an image to 2576 pixels and 4784 tokens; those before to 1568 of both."""
    part = _part(_png(2576, 1400))

    assert (92 * 50 + 3, True) == (
        _tokens(part, name="claude-opus-4-8"),
        (_tokens(part, name="claude-opus-4-5") or 0) <= 1571,
    )


@pytest.mark.parametrize(
    ("model", "size", "tokens"),
    [
        ("gemini-2.0-flash", (384, 384), 258),
        ("gemini-2.0-flash", (640, 480), 5 * 258),
        ("gemini-2.0-flash", (960, 540), 7 * 258),
        ("gemini-2.5-flash", (640, 480), 258),
        ("gemini-1.5-pro", (640, 480), 258),
        ("gemini-3-flash-preview", (400, 301), 1102),
        ("gemini-3-flash-preview", (597, 566), 1088),
        ("gemini-3.5-flash", (300, 346), 1085),
        ("gemini/gemini-3-flash-preview", (128, 128), 33 * 33),
    ],
)
def test_gemini_counts_by_generation(model: str, size: tuple[int, int], tokens: int) -> None:
    """Gemini 2.0 counts tiles and the whole, 2.5 the whole, 3 the grid of up to 1120 patches that has the shape."""
    assert tokens == _tokens(_part(_png(*size)), name=model)


def test_low_detail_is_a_smaller_grid_to_gemini_3() -> None:
    """LiteLLM asks Gemini 3 for a low resolution, of 280 patches, where the detail is low."""
    assert 16 * 16 == _tokens(_part(_png(128, 128), detail="low"), name="gemini-3-pro")


@pytest.mark.parametrize(
    ("model", "size", "tokens"),
    [
        ("mistral-medium-latest", (597, 566), 23 * 21),
        ("ministral-14b-latest", (128, 128), 30),
        ("pixtral-12b-latest", (597, 566), 39 * 36),
        ("us.amazon.nova-2-lite-v1:0", (400, 301), 15 * 11),
        ("amazon.nova-pro-v1:0", (900, 450), 36 * 18 + 100),
        ("qwen/qwen2.5-vl-72b-instruct", (597, 566), 21 * 20 + 2),
        ("qwen/qwen3-vl-8b", (640, 480), 20 * 15 + 2),
        ("qwen/qwen3-vl-8b", (6400, 4800), 58 * 43 + 2),
        ("zai/glm-4.6v", (597, 566), 21 * 20 + 3),
        ("meta-llama/llama-4-maverick", (400, 301), 3 * 145),
        ("meta-llama/llama-4-maverick", (597, 566), 5 * 145),
        ("xai/grok-4", (448, 448), 256),
        ("xai/grok-4", (4480, 4480), 7 * 256),
        ("command-a-vision-07-2025", (32, 32), 0),
    ],
)
def test_other_vendors_have_rules_of_their_own(model: str, size: tuple[int, int], tokens: int) -> None:
    """Each vendor cuts images in its own way."""
    assert tokens == _tokens(_part(_png(*size)), name=model)


@pytest.mark.parametrize(
    ("model", "side", "merged", "longest"), [("pixtral-12b", 16, 1, 1024), ("mistral-small", 14, 2, 1540)]
)
@pytest.mark.parametrize("size", [(1, 1), (16, 17), (597, 566), (1024, 300), (3000, 1999), (901, 4001)])
def test_mistral_agrees_with_mistral_common(
    model: str, side: int, merged: int, longest: int, size: tuple[int, int]
) -> None:
    """Mistral's own package cuts the same number of patches, and ends as many rows."""
    image = pytest.importorskip("mistral_common.tokens.tokenizers.image", reason="needs mistral-common and Pillow")
    pillow = pytest.importorskip("PIL.Image", reason="needs Pillow")
    config = image.ImageConfig(image_patch_size=side, max_image_size=longest, spatial_merge_size=merged)
    encoder = image.ImageEncoder(config, image.SpecialImageIDs(img=1, img_break=2, img_end=3))

    across, down = encoder._image_to_num_tokens(pillow.new("RGB", size))

    assert (across + 1) * down == _tokens(_part(_png(*size)), name=model)


def test_low_detail_needs_no_size() -> None:
    """An image at low detail costs the base, wherever it is."""
    part = _part("https://example.com/a.png", detail="low")

    assert MediaTokens(kind="images", tokens=85, is_sure=True) == _counted(part, name="gpt-4o")


def test_image_elsewhere_is_not_sure() -> None:
    """Nothing is fetched to find out how large an image is: it counts as the median of those that were recorded."""
    part = _part("https://example.com/a.png")

    assert MediaTokens(kind="images", tokens=425, is_sure=False) == _counted(part, name="gpt-4o")


def test_image_of_a_rule_that_is_seldom_borne_out_is_not_sure() -> None:
    """What the documentation says of gpt-5.6 did not come true in the few recordings there are."""
    expected = MediaTokens(kind="images", tokens=4, is_sure=False)

    assert expected == _counted(_part(_png(32, 64)), name="gpt-5.6")


def test_text_is_no_image() -> None:
    """A text part has no tokens of an image or file."""
    assert _counted({"type": "text", "text": "hello"}, name="gpt-4o") is None


# --- files

PAGE = b"%PDF-1.4\n1 0 obj <</Type /Page>> endobj\n2 0 obj <<>> stream\nBT (" + b"a" * 265 + b") Tj ET\nendstream\n"


@pytest.mark.parametrize(
    ("model", "api", "tokens"),
    [
        ("claude-sonnet-4-5", "chat", 12 + 1584 + 100),
        ("us.anthropic.claude-3-7-sonnet-20250219-v1:0", "chat", 45 + 100),
        ("gemini-2.5-flash", "chat", 258),
        ("gemini-3-flash-preview", "chat", 526),
        ("us.amazon.nova-2-lite-v1:0", "chat", 2550),
        ("gpt-5-mini", "chat", 200 + 70),
        ("gpt-5-mini", "responses", 4 + 70),
        ("command-a-03-2025", "chat", 0),
    ],
)
def test_a_page_is_an_image_a_text_or_both(model: str, api: str, tokens: int) -> None:
    """Vendors count the pages of a PDF, its text, or both."""
    counted = _counted(_file("application/pdf", PAGE), name=model, api=api)

    assert MediaTokens(kind="files", tokens=tokens, is_sure=False) == counted


def test_text_that_is_cited_comes_twice() -> None:
    """Claude is given the text in numbered pieces where it is to tell what it rests on, and told how."""
    part = _file("application/pdf", PAGE, citations={"enabled": True})

    assert 12 + 570 + 1584 + 2 * 100 == _tokens(part, name="claude-sonnet-4-5")


def test_a_text_file_counts_as_its_text() -> None:
    """What is in a text file is counted, not its base64."""
    assert 3 == _tokens(_file("text/plain", b"one two three"), name="gemini-2.5-flash")


@pytest.mark.parametrize(
    ("part", "model", "tokens"),
    [
        ({"type": "input_file", "file_id": "file-1"}, "gpt-5-mini", 4 + round(60 / 3.8)),
        ({"type": "input_file", "file_url": "https://example.com/a.pdf"}, "gpt-5-mini", 4 + round(2800 / 3.8)),
        ({"type": "document", "source": {"type": "url", "url": "https://x.com/a.pdf"}}, "claude-x", 12 + 1584 + 1057),
        ({"fileData": {"fileUri": "https://x.com/a.mp3", "mimeType": "audio/mpeg"}}, "gemini-2.5-pro", 4 * 32),
        ({"fileData": {"fileUri": "https://x.com/a.mp4", "mimeType": "video/mp4"}}, "gemini-2.5-pro", 4 * 263),
    ],
)
def test_a_file_elsewhere_counts_as_the_median(part: dict[str, Any], model: str, tokens: int) -> None:
    """Nothing is fetched to find out how long a file is."""
    assert tokens == _tokens(part, name=model, api="responses")


def _wav(seconds: int) -> bytes:
    form = struct.pack("<HHIIHH", 1, 1, 8000, 16_000, 2, 16)
    return b"RIFF\x00\x00\x00\x00WAVEfmt \x10\x00\x00\x00" + form + b"data\xff\xff\xff\xff" + bytes(16_000 * seconds)


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        ("gemini-2.0-flash", 3 * 25),
        ("gemini-2.5-flash", 3 * 32),
        ("gemini-3-flash-preview", 3 * 25),
        ("gpt-audio-mini", 3 * 10 + 4),
        ("mistral.voxtral-mini-3b-2507", 376),
        ("claude-sonnet-4-5", 0),
    ],
)
def test_sound_counts_by_the_second(model: str, tokens: int) -> None:
    """Each vendor counts so many tokens a second, Voxtral half minutes."""
    part = {"type": "input_audio", "input_audio": {"data": base64.b64encode(_wav(3)).decode(), "format": "wav"}}

    assert tokens == _tokens(part, name=model)


@pytest.mark.parametrize(("has_sound", "tokens"), [(False, 5 * 263), (True, 5 * 295)])
def test_a_film_counts_by_the_second_and_its_sound_too(has_sound: bool, tokens: int) -> None:
    """Gemini 2.5 counts 263 tokens a second, and 32 of the sound."""
    head = b"\x00\x00\x00 ftypisom" + b"....mvhd" + struct.pack(">IIIII", 0, 0, 0, 1000, 5000)

    assert tokens == _tokens(_file("video/mp4", head + (b"hdlr soun" if has_sound else b"")), name="gemini-2.5-flash")


# --- in a prompt

LONG = "data:image/png;base64," + base64.b64encode(
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", 28, 56) + bytes(999_999)
).decode(encoding="ascii")
SHAPES = [
    {"type": "image_url", "image_url": {"url": LONG, "format": "image/png"}},
    {"type": "image_url", "image_url": LONG},
    {"type": "input_image", "image_url": LONG},
    {"type": "file", "file": {"file_data": LONG, "format": "image/png"}},
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": LONG.partition(",")[2]}},
    {"inlineData": {"mimeType": "image/png", "data": LONG.partition(",")[2]}},
    {"inline_data": {"mime_type": "image/png", "data": LONG.partition(",")[2].replace("+", "-").replace("/", "_")}},
    {"image": {"format": "png", "source": {"bytes": base64.b64decode(LONG.partition(",")[2])}}},
    {"image": {"format": "png", "source": {"bytes": LONG.partition(",")[2]}}},
    {"type": "image", "image": {"data": LONG.partition(",")[2].encode(), "mime_type": "image/png"}},
]


@pytest.mark.parametrize("part", SHAPES)
@pytest.mark.parametrize(("model", "tokens"), [("claude-3-opus", 5), ("gpt-4o", 255), ("gemini-2.5-pro", 258)])
@pytest.mark.parametrize("role", ["user", "tool"])
def test_data_is_never_counted_as_text(part: dict[str, Any], model: str, tokens: int, role: str) -> None:
    """An image of a megabyte adds what its size in pixels costs, in every shape."""
    text = {"type": "text", "text": "Look!"}
    with_image = count_prompt(model=model, messages=[{"role": role, "content": [text, part]}])
    without = count_prompt(model=model, messages=[{"role": role, "content": [text]}])

    assert tokens == with_image.tokens - without.tokens


@pytest.mark.parametrize("part", SHAPES)
def test_of_a_png_only_the_head_is_decoded(part: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the data is, no more than where its size stands is decoded."""
    decoded: list[int] = []
    decode = base64.b64decode
    monkeypatch.setattr(base64, "b64decode", lambda text: decoded.append(len(text)) or decode(text))
    _counted(part, name="gpt-4o")

    assert sum(decoded) <= 1_024


@pytest.mark.parametrize(
    "head", [b"\xff\xd8\xff\xe0", b"%PDF-1.4", b"ID3", b"    ftypisom", b"nothing known", b"RIFF....WAVE"]
)
def test_only_a_head_and_a_tail_are_decoded(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of data that keeps what is counted further on, no more than bounded pieces are decoded."""
    decoded: list[int] = []
    decode = base64.b64decode
    monkeypatch.setattr(base64, "b64decode", lambda text: decoded.append(len(text)) or decode(text))
    _counted(_file("text/plain", head + bytes(999_999)), name="gpt-4o")

    assert 0 < sum(decoded) <= 65_536 + 16_384 + 1_024


def test_images_and_files_are_kinds_with_bands() -> None:
    """Each has the band that recordings gave it, the wider one counts."""
    image = _part(_png(28, 28))
    bands = [
        count_prompt(
            model="claude-sonnet-4-5", messages=[{"role": "user", "content": content}], vocabularies=INSTALLED
        ).error_band
        for content in ([image], [_file("application/pdf", PAGE)], [image, _file("application/pdf", PAGE)])
    ]

    assert bands[0] == bands[2]
    assert bands[0] != bands[1]
