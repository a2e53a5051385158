"""Know what every LLM run used: embedding, prompt and completion tokens of LlamaIndex and LiteLLM, streamed or not.

Attach once; every run ends with a JSON file, and every number in it says where it came from. Names are loaded when
they are first used: importing this package imports no framework, and of its dependencies none that is not needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from token_callbacks.adapters.litellm import LiteLLMTokenCallback as LiteLLMTokenCallback
    from token_callbacks.adapters.llama_index import TokenCountingHandler as TokenCountingHandler
    from token_callbacks.counter import TokenCounter as TokenCounter
    from token_callbacks.counter import uninstall as uninstall
    from token_callbacks.counting.streams import StreamCounter as StreamCounter
    from token_callbacks.errors import TokenCallbacksError as TokenCallbacksError
    from token_callbacks.records import CallRecord as CallRecord
    from token_callbacks.records import Provenance as Provenance
    from token_callbacks.records import RunSummary as RunSummary
    from token_callbacks.records import Usage as Usage
    from token_callbacks.reports.logs import load as load
    from token_callbacks.runs import Run as Run

_HOMES = {
    "CallRecord": "token_callbacks.records",
    "LiteLLMTokenCallback": "token_callbacks.adapters.litellm",
    "Provenance": "token_callbacks.records",
    "Run": "token_callbacks.runs",
    "RunSummary": "token_callbacks.records",
    "StreamCounter": "token_callbacks.counting.streams",
    "TokenCallbacksError": "token_callbacks.errors",
    "TokenCounter": "token_callbacks.counter",
    "TokenCountingHandler": "token_callbacks.adapters.llama_index",
    "Usage": "token_callbacks.records",
    "load": "token_callbacks.reports.logs",
    "uninstall": "token_callbacks.counter",
}

_EXTRAS = {"llama_index": "llama-index", "litellm": "litellm"}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - a test pins it


def __getattr__(name: str) -> object:
    """Load a public name from its home on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    try:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        from token_callbacks.errors import MissingExtra

        raise MissingExtra(f"{name} needs {error.name}: pip install 'token-callbacks[{extra}]'") from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return list(__all__)
