"""The vocabularies that lie on this machine already.

tiktoken fetches its files with no time limit and deletes a corrupt one; LiteLLM and LlamaIndex carry the same files but
change an environment variable to use them. Here a file is found, checked and read, and nothing else happens.
"""

import logging
import os
import threading
from binascii import a2b_base64
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import msgspec

from token_callbacks.counting.pieces import PIECE_CHARACTERS, pieces

logger = logging.getLogger(__name__)


class Vocabulary(msgspec.Struct, frozen=True, kw_only=True):
    """A name and a way to count the tokens of a text of any length, in which nothing is a special token."""

    name: str
    count: Callable[[str], int]
    is_guess: bool = False


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where the ranks of an encoding are found and how it splits a text into words.

    `file_name` is tiktoken's: the SHA-1 of the address the file comes from. `nearest` are the encodings to use instead.
    """

    file_name: str
    sha256: str
    pattern: str
    special_tokens: dict[str, int]
    nearest: tuple[str, ...]


# https://github.com/openai/tiktoken/blob/0.14.0/tiktoken_ext/openai_public.py
SOURCES = {
    "o200k_base": Source(
        file_name="fb374d419588a4632f3f557e76b4b70aebbca790",
        sha256="446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        pattern=(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
            r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ),
        special_tokens={"<|endoftext|>": 199999, "<|endofprompt|>": 200018},
        nearest=("cl100k_base",),
    ),
    "cl100k_base": Source(
        file_name="9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
        sha256="223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        pattern=(
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
            r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
        ),
        special_tokens={
            "<|endoftext|>": 100257,
            "<|fim_prefix|>": 100258,
            "<|fim_middle|>": 100259,
            "<|fim_suffix|>": 100260,
            "<|endofprompt|>": 100276,
        },
        nearest=("o200k_base",),
    ),
}

# Where LiteLLM 1.106.2 and llama-index-core 0.14.25 keep their copies, below the package's folder.
FOLDERS_IN_PACKAGES = (
    ("litellm", "litellm_core_utils/tokenizers"),
    ("llama_index", "core/_static/tiktoken_cache"),
)

CHARACTERS = Vocabulary(name="characters/4", count=lambda text: -(-len(text) // 4), is_guess=True)


class Vocabularies:
    """The vocabularies of some folders, each loaded at most once, by the first thread that needs it."""

    def __init__(self, *, folders: Callable[[], Iterable[Path]]) -> None:
        self._folders = folders
        self._loaded: dict[str, Vocabulary | None] = {}
        self._lock = threading.Lock()

    def nearest(self, name: str) -> Vocabulary:
        """Return the vocabulary, the nearest one whose file is here, or a quarter of the characters."""
        for candidate in (name, *SOURCES[name].nearest):
            vocabulary = self.vocabulary(candidate)
            if vocabulary is not None:
                return vocabulary
        return CHARACTERS

    def vocabulary(self, name: str) -> Vocabulary | None:
        """Return the vocabulary, None where its file is not here or is not what it should be."""
        if name not in self._loaded:
            with self._lock:
                if name not in self._loaded:
                    self._loaded[name] = self._vocabulary_read(name)
        return self._loaded[name]

    def _vocabulary_read(self, name: str) -> Vocabulary | None:
        source = SOURCES[name]
        for folder in self._folders():
            content = _checked_content(folder / source.file_name, sha256=source.sha256)
            if content is not None:
                return _vocabulary_of(content, name=name)
        logger.warning(
            "no file of the vocabulary %s on this machine, its counts are estimates:"
            " install litellm or llama-index-core, or put %s into TIKTOKEN_CACHE_DIR",
            name,
            source.file_name,
        )
        return None


def installed_folders(environ: Mapping[str, str] = os.environ) -> Iterator[Path]:
    """Yield the folders that may hold vocabularies: the user's, those of installed packages, tiktoken's default."""
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if environ.get(variable):
            yield Path(environ[variable])
    for package, folder in FOLDERS_IN_PACKAGES:
        yield from (Path(location, folder) for location in _package_locations(package))
    yield from _default_folders()


INSTALLED = Vocabularies(folders=installed_folders)


def _package_locations(package: str) -> list[str]:
    # A dotted name would import the parent: LiteLLM alone takes seconds.
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return []
    return [] if spec is None else list(spec.submodule_search_locations or ())


def _default_folders() -> Iterator[Path]:
    import tempfile

    try:
        yield Path(tempfile.gettempdir(), "data-gym-cache")
    except OSError:
        return


def _checked_content(path: Path, *, sha256: str) -> bytes | None:
    import hashlib

    try:
        content = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(content).hexdigest() == sha256:
        return content
    logger.warning("skipping the vocabulary file %s: it is corrupt, its SHA-256 should be %s", path, sha256)
    return None


def _vocabulary_of(content: bytes, *, name: str) -> Vocabulary | None:
    try:
        import tiktoken
    except ImportError as error:
        logger.warning("counting by characters, tiktoken cannot be imported: %s", error)
        return None
    source = SOURCES[name]
    encoding = tiktoken.Encoding(
        name, pat_str=source.pattern, mergeable_ranks=_ranks(content), special_tokens=source.special_tokens
    )
    return Vocabulary(name=name, count=_count_by(encoding.encode_ordinary))


def _count_by(encode: Callable[[str], list[int]]) -> Callable[[str], int]:
    def count(text: str) -> int:
        if len(text) <= PIECE_CHARACTERS:
            return len(encode(text))
        return sum(len(encode(piece)) for piece in pieces(text))

    return count


def _ranks(content: bytes) -> dict[bytes, int]:
    # One line a token: its bytes in base64, a blank, its rank.
    fields = content.split()
    tokens, numbers = fields[::2], fields[1::2]
    # Ranks rise, so the last one tells whether there are gaps; not to parse the others saves a quarter of the time.
    ranks = range(len(numbers)) if int(numbers[-1]) == len(numbers) - 1 else map(int, numbers)
    return dict(zip(map(a2b_base64, tokens), ranks, strict=True))
