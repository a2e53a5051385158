"""Install a framework's hooks as soon as that framework is there: now, or when somebody imports it.

The frameworks are never imported from here: a program that uses only one of them must not pay for the other.
"""

from __future__ import annotations

import importlib
import sys
import threading
from typing import Protocol, cast

import msgspec
import wrapt

from token_callbacks.ledger import Ledger, process_ledger


class Adapter(Protocol):
    """What every module in ``adapters/`` that hooks a framework offers."""

    def install(self, ledger: Ledger) -> None:
        """Hook the framework, once however often it is called."""

    def uninstall(self) -> None:
        """Take the hooks out again, as far as the framework lets go of them."""


class Framework(msgspec.Struct, frozen=True):
    """A framework that can be hooked."""

    module: str
    """Importing this one, wholly, is the moment to hook."""
    adapter: str


FRAMEWORKS = {
    "llama_index": Framework("llama_index.core", "token_callbacks.adapters.llama_index"),
    "litellm": Framework("litellm", "token_callbacks.adapters.litellm"),
}

_lock = threading.Lock()
_awaited: set[str] = set()
_wanted: set[str] = set()


def attach(name: str) -> None:
    """Hook a framework, now if it is imported, else right after its import."""
    framework = FRAMEWORKS[name]
    with _lock:
        _wanted.add(name)
        is_new = name not in _awaited
        _awaited.add(name)
    if is_new:  # a post-import hook cannot be taken back, so there is one and it asks what is wanted
        wrapt.register_post_import_hook(lambda _module: _install_if_wanted(name), framework.module)
    elif framework.module in sys.modules:
        _install_if_wanted(name)


def is_attached(name: str) -> bool:
    """Tell whether a framework is hooked, or will be right after its import."""
    return name in _wanted


def _install_if_wanted(name: str) -> None:
    if name in _wanted:
        ledger = process_ledger()
        ledger.shielded(_install)(FRAMEWORKS[name].adapter, ledger)


def _install(adapter: str, ledger: Ledger) -> None:
    cast("Adapter", importlib.import_module(adapter)).install(ledger)


def detach_all() -> None:
    """Unhook every framework."""
    with _lock:
        _wanted.clear()
    for framework in FRAMEWORKS.values():
        adapter = sys.modules.get(framework.adapter)
        if adapter is not None:
            cast("Adapter", adapter).uninstall()
