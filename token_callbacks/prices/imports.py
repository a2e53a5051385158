"""Import a library in the middle of a program without anybody seeing it half made."""

from __future__ import annotations

import importlib.util
import sys
import threading
from typing import Any

_PATIENCE_SECONDS = 10.0


def import_whole(name: str) -> None:
    """Import a module; who looks it up in ``sys.modules`` meanwhile, instead of importing it, waits for what it lacks.

    openai 2.54 looks for ``httpx2`` there in every request, and would fail on one that another thread is importing
    (``partially initialized module 'httpx2' has no attribute 'Timeout'``). Raises ``ImportError`` where it is missing.
    """
    with _lock:
        spec = None if name in sys.modules else importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            importlib.import_module(name)
            return
        module = importlib.util.module_from_spec(spec)
        importing, is_whole = threading.get_ident(), threading.Event()

        def awaited(attribute: str) -> Any:
            if threading.get_ident() != importing and is_whole.wait(_PATIENCE_SECONDS):
                return getattr(module, attribute)
            raise AttributeError(f"module {name!r} has no attribute {attribute!r}")

        module.__getattr__ = awaited  # type: ignore[method-assign] # PEP 562: asked for what is not there yet
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        finally:
            if module.__dict__.get("__getattr__") is awaited:  # the module may have one of its own by now
                del module.__getattr__
            is_whole.set()


_lock = threading.RLock()
