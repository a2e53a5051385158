"""Import a library in the middle of a program without anybody seeing it half made."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from token_callbacks.imports import importing

_PATIENCE_SECONDS = 10.0


def import_whole(name: str) -> None:
    """Import a module; who looks it up in ``sys.modules`` meanwhile, instead of importing it, waits for what it lacks.

    openai 2.54 looks for ``httpx2`` there in every request, and would fail on one that another thread is importing
    (``partially initialized module 'httpx2' has no attribute 'Timeout'``). Who imports it meanwhile waits for Python's
    own lock of that module. Raises ``ImportError`` where it is missing.
    """
    if name not in sys.modules:
        _finder.watched.add(name)
        if _finder not in sys.meta_path:
            sys.meta_path.insert(0, _finder)  # for good: who walks the list just now would miss a finder if it went
    try:
        with importing:
            importlib.import_module(name)
    finally:
        _finder.watched.discard(name)


class _Finder(MetaPathFinder):
    """Finds the modules that are to be watched, for Python's own import, which holds its lock of them."""

    def __init__(self) -> None:
        self.watched: set[str] = set()

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        """Find what the others find, with a loader that watches over the module."""
        if fullname not in self.watched:
            return None
        self.watched.discard(fullname)  # the others are asked below, and so is this one
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Watching(spec.loader)
        return spec


class _Watching(Loader):
    """Loads a module by its own loader."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Make it as its own loader does."""
        made: ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        """Fill it, and leave no trace of this loader."""
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        with _awaited(module):
            self._loader.exec_module(module)


@contextmanager
def _awaited(module: ModuleType) -> Iterator[None]:
    """Let other threads that ask a module for what is not there yet wait until it is whole."""
    importing, is_whole = threading.get_ident(), threading.Event()

    def awaited(attribute: str) -> Any:
        if threading.get_ident() != importing and is_whole.wait(_PATIENCE_SECONDS):
            return getattr(module, attribute)
        raise AttributeError(f"module {module.__name__!r} has no attribute {attribute!r}")

    module.__getattr__ = awaited  # type: ignore[method-assign] # PEP 562: asked for what is not there yet
    try:
        yield
    finally:
        if module.__dict__.get("__getattr__") is awaited:  # the module may have one of its own by now
            del module.__getattr__
        is_whole.set()


_finder = _Finder()
