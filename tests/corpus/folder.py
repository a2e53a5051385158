"""Where the recorded exchanges are, and the modules that come with them.

The exchanges are no part of this project: neither a file nor a text of them is in it. The folder is looked for beside
the repository, or where ``TOKEN_CALLBACKS_CORPUS`` says.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

VARIABLE = "TOKEN_CALLBACKS_CORPUS"
DEFAULT_FOLDER = Path(__file__).parents[2].parent / "shared" / "corpus"

Exchange = dict[str, Any]
"""One recorded exchange, as the folder's own README describes it."""


class CorpusModules(msgspec.Struct, frozen=True, kw_only=True):
    """The folder's own code: its loader, its replay server, and its map of exchanges to LiteLLM calls."""

    corpus: Any
    replay: Any
    litellm_map: Any


def corpus_folder() -> Path:
    """Tell where the exchanges are looked for."""
    return Path(os.environ.get(VARIABLE) or DEFAULT_FOLDER)


def reason_without_corpus() -> str | None:
    """Tell why nothing can be replayed; ``None`` where it can."""
    folder = corpus_folder()
    if (folder / "corpus.py").is_file():
        return None
    return f"no recorded exchanges in {folder}: {VARIABLE} may name their folder"


def load_modules() -> CorpusModules:
    """Import the folder's code from where it is, and leave no bytecode there."""
    with _importing_from(corpus_folder()):
        names = CorpusModules.__struct_fields__
        return CorpusModules(**{name: importlib.import_module(name) for name in names})


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    path, wrote_no_bytecode = list(sys.path), sys.dont_write_bytecode
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.path[:] = path
        sys.dont_write_bytecode = wrote_no_bytecode
