"""How many tokens an image or a file is, by the model's family, and what of it can be seen (``media``), as dated data.

Each row of ``IMAGE_RULES`` and ``FILE_RULES`` names the page that tells the rule, or says that it was found in
recordings (docs/counting.md tells how well each does). OpenAI's images: https://platform.openai.com/docs/guides/images-vision
(read 2026-11): older models cut an image into tiles of 512 pixels, newer ones into patches of 32.
"""

import math
from collections.abc import Callable
from fnmatch import fnmatchcase

import msgspec

from token_callbacks.counting.media import Kind, Medium, Size, medium_of
from token_callbacks.counting.models import NEWER_CLAUDE

UNKNOWN_SIZE = (540, 360)
"""Of an image that is elsewhere: the median of 21 recorded ones, from a fifth of it to four times as large."""

UNKNOWN_SECONDS = 4.0
"""Of a sound or film that is elsewhere: the median of ten recorded ones, of which nine had 1 to 6 seconds."""

UNKNOWN_LETTERS = 2800
"""Of a PDF that is elsewhere: a page of text, as in all five recorded prompts with the address of one."""

STORED_LETTERS = 60
"""Of a file that stands with the provider: of five recorded ones, four had hardly any text."""


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
    """A token for every patch of `side` pixels, times a factor, and a few more.

    A larger image is shrunk until its longer side has no more than `longest` pixels and `most` patches cover it.
    """

    side: int = 32
    factor: float = 1.0
    base: int = 1
    most: int = 1536
    longest: int | None = None

    def tokens(self, size: Size, *, is_low: bool) -> int:  # noqa: ARG002 - these models do not look at the detail
        """Count an image."""
        side = self.side
        width, height = size if self.longest is None else _fitted(size, longest=self.longest)
        patches = math.ceil(width / side) * math.ceil(height / side)
        if patches > self.most:
            shrink = math.sqrt(side * side * self.most / (width * height))
            across, down = width * shrink / side, height * shrink / side
            shrink *= min(max(1, math.floor(across)) / across, max(1, math.floor(down)) / down)
            patches = min(self.most, math.ceil(width * shrink / side) * math.ceil(height * shrink / side))
        return math.ceil(round(patches * self.factor, 6)) + self.base


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """A token for every patch of `side` pixels, and one for the end of every row of them."""

    side: int
    longest: int

    def tokens(self, size: Size, *, is_low: bool) -> int:  # noqa: ARG002 - as above
        """Count an image, fitted into `longest` pixels."""
        width, height = (max(1, round(length)) for length in _fitted(size, longest=self.longest))
        return (math.ceil(width / self.side) + 1) * math.ceil(height / self.side)


class Grid(msgspec.Struct, frozen=True, kw_only=True):
    """As many patches as the model gives an image, whatever its size: the grid of its shape that holds `most`."""

    most: int
    low: int

    def tokens(self, size: Size, *, is_low: bool) -> int:
        """Count an image: 1 and more down and across."""
        scale = math.sqrt((self.low if is_low else self.most) / (size[0] * size[1]))
        return max(1, math.floor(size[0] * scale)) * max(1, math.floor(size[1] * scale))


class Rounded(msgspec.Struct, frozen=True, kw_only=True):
    """A token for every patch of `side` pixels, sides rounded to whole patches, and a beginning and end."""

    side: int
    most: int
    base: int = 2

    def tokens(self, size: Size, *, is_low: bool) -> int:  # noqa: ARG002 - as above
        """Count an image; one of more than `most` patches is shrunk to them."""
        across, down = (max(1, round(length / self.side)) for length in size)
        if across * down > self.most:
            return Grid(most=self.most, low=self.most).tokens(size, is_low=False) + self.base
        return across * down + self.base


class Squares(msgspec.Struct, frozen=True, kw_only=True):
    """As much for every square of `side` pixels, up to `most`, and once more for the whole; no side: see ``_crop``."""

    tile: int
    side: int | None = None
    most: int = 16

    def tokens(self, size: Size, *, is_low: bool) -> int:  # noqa: ARG002 - as above
        """Count an image: a small one is one square."""
        side = self.side or _crop(size)
        squares = min(self.most, math.ceil(size[0] / side) * math.ceil(size[1] / side))
        return self.tile * (squares + 1 if squares > 1 else 1)


class Flat(msgspec.Struct, frozen=True):
    """As much for any image."""

    each: int

    def tokens(self, size: Size, *, is_low: bool) -> int:  # noqa: ARG002 - as above
        """Count an image."""
        return self.each


_SMALL, _CROP = 384, (256, 768)


def _crop(size: Size) -> int:
    """Return the side of Gemini 2.0's squares: two thirds of the shorter side; a small image is one."""
    if max(size) <= _SMALL:
        return _SMALL
    return max(_CROP[0], min(_CROP[1], int(min(size) / 1.5)))


class ImageRule(msgspec.Struct, frozen=True, kw_only=True):
    """The models whose name matches one of the globs, how they count an image, and since when that is known."""

    globs: tuple[str, ...]
    rule: Tiles | Patches | Rows | Grid | Rounded | Squares | Flat
    is_sure: bool = True
    as_of: str = "2026-11"


_MISTRAL = ("*mistral*", "*ministral*", "*magistral*", "*devstral*")

IMAGE_RULES = (
    ImageRule(globs=("gpt-4o-mini*",), rule=Tiles(base=2833, tile=5667)),
    ImageRule(globs=("gpt-4.1-mini*",), rule=Patches(factor=1.62, base=2)),
    ImageRule(globs=("gpt-4.1-nano*",), rule=Patches(factor=2.46)),
    # The documentation says 1.62 and 2.46; recorded with 640 x 480 pixels in 2025-12 and 2026-01 were 1.2 and 1.5.
    ImageRule(globs=("gpt-5-mini*",), rule=Patches(factor=1.2)),
    ImageRule(globs=("gpt-5-nano*",), rule=Patches(factor=1.5)),
    ImageRule(globs=("o4-mini*",), rule=Patches(factor=1.72)),
    # Recorded with gpt-5.6 (98 tokens, 97 here) and gpt-5.4-nano (312 in a chat with tools, 309 here).
    ImageRule(globs=("gpt-5.[2-9]*",), rule=Patches(factor=1.2), is_sure=False),
    ImageRule(globs=("gpt-5*",), rule=Tiles(base=70, tile=140)),
    ImageRule(globs=("o1*", "o3*"), rule=Tiles(base=75, tile=150)),
    ImageRule(globs=("computer-use*",), rule=Tiles(base=65, tile=129)),
    ImageRule(globs=("gpt-4*", "chatgpt-4o*"), rule=Tiles(base=85, tile=170)),
    # https://docs.anthropic.com/en/docs/build-with-claude/vision says width x height / 750, and which are shrunk.
    # Recorded, of ten sizes: patches of 28 pixels, and 3 tokens; 21 with Claude 3.5 Haiku.
    ImageRule(globs=("*claude-3-5-haiku*",), rule=Patches(side=28, base=21, most=1568, longest=1568), is_sure=False),
    ImageRule(globs=NEWER_CLAUDE, rule=Patches(side=28, base=3, most=4784, longest=2576), is_sure=False),
    ImageRule(globs=("*claude*", "*anthropic*"), rule=Patches(side=28, base=3, most=1568, longest=1568), is_sure=False),
    # https://ai.google.dev/gemini-api/docs/tokens says 258, and as much for each tile of a larger image. Recorded:
    # 2.0 counts the whole beside the tiles (640 x 480 pixels are 1290), 1 and 2.5 no tiles.
    ImageRule(globs=("*gemini-2.0*",), rule=Squares(tile=258), is_sure=False),
    ImageRule(globs=("*gemini-1*", "*gemini-2*"), rule=Flat(258), is_sure=False),
    # https://ai.google.dev/gemini-api/docs/media-resolution: up to 1120, low 280. Recorded of three sizes to the token.
    ImageRule(globs=("*gemini*",), rule=Grid(most=1120, low=280), is_sure=False),
    # https://github.com/mistralai/mistral-common; recorded of four sizes.
    ImageRule(globs=("*pixtral*",), rule=Rows(side=16, longest=1024), is_sure=False),
    ImageRule(globs=_MISTRAL, rule=Rows(side=28, longest=1540), is_sure=False),
    # https://docs.aws.amazon.com/nova/latest/userguide/modalities-image.html has six sizes of the first models, 800
    # tokens for 900 x 450 pixels; Nova 2 was recorded with two, 275 tokens and 217,502 pixels apart.
    ImageRule(globs=("*nova-2*",), rule=Patches(side=28, base=0, most=8192), is_sure=False),
    ImageRule(globs=("*nova-*",), rule=Patches(side=25, base=100, most=8192), is_sure=False),
    # https://github.com/QwenLM/Qwen3-VL; recorded once, with Qwen 2.5.
    ImageRule(globs=("*qwen3*", "*qwen[4-9]*"), rule=Rounded(side=32, most=2560), is_sure=False),
    ImageRule(globs=("*qwen*", "*qvq*"), rule=Rounded(side=28, most=1280), is_sure=False),
    # Recorded once, with 597 x 566 pixels.
    ImageRule(globs=("*glm*",), rule=Rounded(side=28, most=4800, base=3), is_sure=False),
    # https://www.llama.com/docs/model-cards-and-prompt-formats/llama4/; recorded of two sizes, 290 tokens apart.
    ImageRule(globs=("*llama-4*", "*llama4*"), rule=Squares(tile=145, side=336, most=16), is_sure=False),
    # https://docs.x.ai/docs/guides/image-understanding; recorded once, of one square.
    ImageRule(globs=("*grok*",), rule=Squares(tile=256, side=448, most=6), is_sure=False),
    # Recorded five times, with icons: none.
    ImageRule(globs=("*command*",), rule=Flat(0), is_sure=False),
)
UNKNOWN = ImageRule(globs=("*",), rule=Tiles(base=85, tile=170), is_sure=False)


class FileRule(msgspec.Struct, frozen=True, kw_only=True):
    """What models whose name matches count of a file, behind some APIs, and since when that is known.

    Of a PDF `page` tokens a page, and one for so many of its `letters`, ``None``: they are not read. Of a sound `audio`
    a second, and `audio_base`; it is `padded` to so many seconds. Of a film `video` a second, and `heard` of its sound.
    `frame` is for the file, `cited` for one in which places are to be told, `other` for one that cannot be read here.
    """

    globs: tuple[str, ...]
    apis: tuple[str, ...] = ("chat", "responses")
    as_of: str = "2026-11"
    frame: int = 0
    page: int = 0
    letters: float | None = None
    cited: int = 0
    audio: float = 0
    audio_base: int = 0
    padded: int = 0
    video: int = 0
    heard: int = 0
    other: int = 0


_OPENAI = ("gpt-*", "o[134]*", "chatgpt-*")
FILE_RULES = (
    # https://docs.mistral.ai/capabilities/audio/: 12.5 tokens a second, of half minutes. Recorded once, 376.
    FileRule(globs=("*voxtral*",), audio=12.5, audio_base=1, padded=30),
    # https://docs.anthropic.com/en/docs/build-with-claude/pdf-support says 1,500 to 3,000 tokens of text a page, beside
    # an image of it. Recorded of four PDFs of one page: 1,587 to 1,633 where there was hardly text, 2,666 of 2,842
    # letters.
    # Behind Bedrock the older ones are given the text alone, says the same page; recorded once, of two PDFs.
    FileRule(globs=("*anthropic.claude-3*",), frame=45, letters=2.65, cited=570, other=50),
    FileRule(globs=NEWER_CLAUDE, frame=12, page=1584, letters=2.65, cited=800, other=50),
    FileRule(globs=("*claude*", "*anthropic*"), frame=12, page=1584, letters=2.65, cited=570, other=50),
    # https://ai.google.dev/gemini-api/docs/tokens says 263 and 32 tokens a second. Recorded: with 2.0 258 and 25, with
    # 3 64 and 25; a page is an image, of Gemini 3 one of 560 patches.
    FileRule(globs=("*gemini-2.0*",), page=258, audio=25, video=258),
    FileRule(globs=("*gemini-1*", "*gemini-2*"), page=258, audio=32, video=263, heard=32),
    FileRule(globs=("*gemini*",), page=526, audio=25, video=64),
    # Recorded of two PDFs.
    FileRule(globs=("*nova-*",), page=2550),
    # https://platform.openai.com/docs/guides/pdf-files: the text of each page, and an image of it. Recorded of four
    # PDFs: 4 to 51 tokens of short ones, 740 to 754 of 2,842 letters, 200 more in chats. Sound: 10 tokens a second.
    FileRule(globs=_OPENAI, apis=("chat",), page=200, letters=3.8, audio=10, audio_base=4, other=50),
    FileRule(globs=_OPENAI, apis=("responses",), page=4, letters=3.8, audio=10, audio_base=4, other=50),
)


class MediaTokens(msgspec.Struct, frozen=True, kw_only=True):
    """The tokens of an image or a file, `kind` tells which; not sure where its size or the model's rule is not."""

    kind: str
    tokens: int
    is_sure: bool


def media_tokens(part: object, *, name: str, api: str, count: Callable[[str], int]) -> MediaTokens | None:
    """Count an image or file in a message for the model of that (bare) name; ``None`` where the part is neither."""
    medium = medium_of(part)
    if medium is None:
        return None
    if medium.kind is Kind.IMAGE:
        return _image_tokens(medium, name)
    rule = next((row for row in FILE_RULES if api in row.apis and _matches(row.globs, name)), FileRule(globs=("*",)))
    return MediaTokens(kind="files", tokens=round(_file_tokens(medium, rule, count)), is_sure=False)


def _image_tokens(image: Medium, name: str) -> MediaTokens:
    row = next((row for row in IMAGE_RULES if _matches(row.globs, name)), UNKNOWN)
    is_low = image.detail == "low"
    needs_size = not (is_low and isinstance(row.rule, Tiles))
    is_sure = row.is_sure and (image.size is not None or not needs_size)
    return MediaTokens(
        kind="images", tokens=row.rule.tokens(image.size or UNKNOWN_SIZE, is_low=is_low), is_sure=is_sure
    )


def _file_tokens(file: Medium, rule: FileRule, count: Callable[[str], int]) -> float:
    seconds = UNKNOWN_SECONDS if file.seconds is None else file.seconds
    if file.kind is Kind.AUDIO:
        padded = math.ceil(seconds / rule.padded) * rule.padded if rule.padded else seconds
        return rule.audio * padded + rule.audio_base
    if file.kind is Kind.VIDEO:
        return (rule.video + (rule.heard if file.has_sound else 0)) * seconds
    cited = rule.frame + (rule.cited if file.is_cited else 0)
    if file.text is not None:
        return cited + count(file.text) * file.text_factor
    if not file.is_pdf:
        return cited + rule.other
    unknown = STORED_LETTERS if file.is_stored else UNKNOWN_LETTERS
    letters = unknown if file.letters is None else file.letters
    read = 0.0 if rule.letters is None else letters / rule.letters
    # Places that are told stand in the text, which comes once more.
    return cited + rule.page * (file.pages or 1) + read * (2 if file.is_cited else 1)


def _matches(globs: tuple[str, ...], name: str) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def _fitted(size: Size, *, longest: int) -> tuple[float, float]:
    shrink = min(1.0, longest / max(size))
    return size[0] * shrink, size[1] * shrink
