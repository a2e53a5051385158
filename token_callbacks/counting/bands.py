"""How far off an estimate may be, and by how much another vocabulary is, as measured on recorded answers.

A band is the error, relative to the provider's figure, that nine in ten recorded cases of the kind kept to, rounded up,
where five or more were recorded; docs/counting.md tells what that leaves out, ``python -m tests.scoring --bands``
measures it anew.
"""

import functools

import msgspec

from token_callbacks.counting.models import COHERE, GROK, NOVA, UNKNOWN, Figure

AS_OF = "2026-11-22"
"""The day on which all of them were last held to the recordings."""


class Band(msgspec.Struct, frozen=True, kw_only=True):
    """The band of the estimates of one kind; the vocabulary ``*`` is any, `kind` is "" for plain text."""

    vocabulary: str
    figure: Figure
    kind: str = ""
    relative: float


PROMPT, TEXT_PROMPT, COMPLETION, EMBEDDING = (
    Figure.CHAT_PROMPT,
    Figure.TEXT_PROMPT,
    Figure.COMPLETION,
    Figure.EMBEDDING,
)

# By the vocabulary that is the model's own, or the nearest to it: OpenAI's are o200k_base and cl100k_base.
_ROWS = (
    (
        "o200k_base",
        PROMPT,
        {
            "": 0.24,
            "tools": 0.07,
            "calls": 0.04,
            "results": 0.04,
            "parallel": 0.04,
            "schema": 0.01,
            "reasoning": 0.15,
            "responses": 0.96,
            "images": 0.7,
            "files": 0.23,
        },
    ),
    (
        "cl100k_base",
        PROMPT,
        {
            "": 0.24,
            "tools": 0.12,
            "calls": 0.14,
            "results": 0.14,
            "parallel": 0.14,
            "schema": 0.09,
            "responses": 0.75,
            "images": 0.64,
        },
    ),
    ("llama3", TEXT_PROMPT, {"": 0.79}),
    (COHERE, TEXT_PROMPT, {"": 0.55}),
    (UNKNOWN, TEXT_PROMPT, {"": 0.48}),
    ("*", TEXT_PROMPT, {"": 0.13}),
    ("tekken", EMBEDDING, {"": 0.56}),
    ("o200k_base", COMPLETION, {"": 0.07, "tools": 0.57, "calls": 0.05}),
    ("cl100k_base", COMPLETION, {"": 0.18, "tools": 0.18, "calls": 0.03}),
    ("claude_2", PROMPT, {"": 0.01}),
    ("claude_2", COMPLETION, {"": 0.01}),
    (
        "claude",
        PROMPT,
        {
            "": 0.44,
            "tools": 0.04,
            "calls": 0.23,
            "results": 0.23,
            "schema": 0.74,
            "images": 0.2,
            "files": 0.13,
            "odd": 0.96,
        },
    ),
    ("claude", COMPLETION, {"": 0.07, "tools": 0.05, "calls": 0.07}),
    (
        "claude_opus_4_7",
        PROMPT,
        {"": 0.34, "tools": 0.07, "calls": 0.23, "results": 0.23, "images": 0.18, "files": 0.08},
    ),
    ("claude_opus_4_7", COMPLETION, {"": 0.09, "tools": 0.09, "calls": 0.06}),
    ("gemma3", PROMPT, {"": 0.23, "tools": 1.05, "calls": 0.9, "results": 0.9, "images": 0.11, "files": 0.8}),
    ("gemma4", PROMPT, {"": 0.23, "tools": 1.05, "calls": 0.9, "results": 0.9, "images": 0.11, "files": 0.8}),
    ("gemma3", COMPLETION, {"": 0.01, "tools": 0.05, "calls": 1.0}),
    ("gemma4", COMPLETION, {"": 0.01, "tools": 0.05}),
    ("tekken", PROMPT, {"": 0.43, "tools": 0.13, "calls": 0.42, "results": 0.42, "images": 0.42}),
    ("tekken", COMPLETION, {"": 0.25, "tools": 0.01, "calls": 0.44}),
    ("mistral_v2", PROMPT, {"": 0.43, "images": 0.42}),
    ("mistral_v2", COMPLETION, {"": 0.01, "calls": 0.44}),
    ("llama3", PROMPT, {"": 0.33, "tools": 0.51}),
    ("llama3", COMPLETION, {"": 0.01, "tools": 0.01, "calls": 0.9}),
    ("qwen3", PROMPT, {"": 0.16, "tools": 0.38, "calls": 0.42, "results": 0.42}),
    ("qwen3", COMPLETION, {"": 0.12, "calls": 0.12}),
    ("deepseek_v3", PROMPT, {"": 0.19, "calls": 0.05, "results": 0.05, "responses": 0.91}),
    ("deepseek_v3", COMPLETION, {"": 0.25, "tools": 0.53, "calls": 0.37}),
    ("kimi_k2", PROMPT, {"tools": 0.51, "calls": 0.52, "results": 0.52}),
    ("o200k_harmony", PROMPT, {"": 0.05, "tools": 0.58, "calls": 0.63, "results": 0.63}),
    (
        COHERE,
        PROMPT,
        {"": 0.77, "tools": 0.12, "calls": 0.14, "results": 0.14, "images": 0.01, "files": 0.89},
    ),
    (COHERE, COMPLETION, {"": 0.18, "tools": 0.18, "calls": 0.03}),
    (NOVA, PROMPT, {"": 0.24, "tools": 0.34, "calls": 0.36, "results": 0.36, "images": 0.39, "files": 0.39}),
    (NOVA, COMPLETION, {"": 0.2, "tools": 0.2, "calls": 0.25}),
    (
        GROK,
        PROMPT,
        {"": 0.73, "tools": 0.73, "calls": 0.38, "results": 0.38, "responses": 0.58, "images": 2.81},
    ),
    (UNKNOWN, PROMPT, {"": 1.0, "tools": 0.69, "calls": 0.62, "results": 0.62, "images": 2.81, "odd": 0.75}),
    (UNKNOWN, COMPLETION, {"": 0.3, "tools": 0.31, "calls": 0.55}),
)
BANDS = tuple(
    Band(vocabulary=vocabulary, figure=figure, kind=kind, relative=relative)
    for vocabulary, figure, kinds in _ROWS
    for kind, relative in kinds.items()
)

FACTORS = {
    ("gemma3", "cl100k_base"): 1.044,
    ("gemma4", "cl100k_base"): 1.044,
    ("tekken", "cl100k_base"): 1.024,
    ("mistral_v2", "cl100k_base"): 1.156,
    ("deepseek_v3", "cl100k_base"): 1.101,
}
"""The tokens of the first vocabulary for each of the second's, over recorded answers, where the second stands in."""

NEAREST = 0.15
"""The least band of a count by another vocabulary than the model's own."""

LOOSEST = 0.5
"""The band of what was recorded fewer than five times."""


def band_of(vocabulary: str, used: str, figure: Figure, kinds: frozenset[str]) -> float:
    """Return the band of an estimate: the widest of what it holds."""
    widest = max((_band(vocabulary, figure, kind) for kind in (kinds or ("",))), default=LOOSEST)
    return widest if used.startswith(vocabulary) or " x " in used else max(widest, NEAREST)


@functools.lru_cache(maxsize=512)
def _band(vocabulary: str, figure: Figure, kind: str) -> float:
    for band in BANDS:
        if band.vocabulary in (vocabulary, "*") and band.figure is figure and band.kind == kind:
            return band.relative
    return LOOSEST


def nearest_factor(vocabulary: str, used: str, figure: Figure) -> float:
    """Return what a count by another vocabulary is to be multiplied with; 1 where the vocabulary is the model's own."""
    return 1.0 if figure is Figure.EMBEDDING else FACTORS.get((vocabulary, used), 1.0)
