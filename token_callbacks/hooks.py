"""Install a framework's hooks as soon as that framework is there: now, or when somebody imports it.

The frameworks are never imported from here: a program that uses only one of them must not pay for the other.
"""

from __future__ import annotations

import contextvars
import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar, cast

import msgspec
import wrapt

from token_callbacks.imports import importing
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


_is_passing_through: contextvars.ContextVar[bool] = contextvars.ContextVar("token_callbacks_passing", default=False)

is_passing_through = _is_passing_through.get
"""Tell whether the code runs inside a request that another tap, further up, looks at already."""


@contextmanager
def passing_through() -> Iterator[None]:
    """Mark a request as looked at, for the HTTP client that this one sends it with."""
    token = _is_passing_through.set(True)
    try:
        yield
    finally:
        _is_passing_through.reset(token)


class Patches:
    """Functions of a framework that were replaced, so that they can be put back."""

    def __init__(self) -> None:
        self._originals: list[tuple[Any, str, Any, Any, bool]] = []

    def wrap(self, home: Any, name: str, around: Callable[[Any], Any]) -> None:
        """Put a wrapper in a function's place; a version of the framework that has none there is left as it is."""
        original = getattr(home, name, None)
        if original is not None:
            wrapper = around(original)
            self._originals.append((home, name, original, wrapper, name in vars(home)))
            setattr(home, name, wrapper)

    def remove(self) -> None:
        """Put everything back; what somebody else has wrapped again stays, and must by now do nothing."""
        for home, name, original, wrapper, is_its_own in self._originals:
            if getattr(home, name, None) is not wrapper:
                continue
            if is_its_own:
                setattr(home, name, original)
            else:  # a class has it from another one
                delattr(home, name)
        self._originals.clear()


class Removable(Protocol):
    """What an adapter has put into its framework."""

    def remove(self) -> None:
        """Take it out again."""


_R = TypeVar("_R", bound=Removable)


class Once(Generic[_R]):
    """What an adapter puts into its framework, once however often it is asked to.

    The adapter keeps it over a reload of its module, so that what is in stays in, once.
    """

    def __init__(self, make: Callable[[Ledger], _R]) -> None:
        self._make = make
        self.current: _R | None = None

    def install(self, ledger: Ledger) -> None:
        """Put it in, unless it is in."""
        if self.current is None:
            self.current = self._make(ledger)

    def uninstall(self) -> None:
        """Take it out, if it is in."""
        current, self.current = self.current, None
        if current is not None:
            current.remove()


FRAMEWORKS = {
    "llama_index": Framework("llama_index.core", "token_callbacks.adapters.llama_index"),
    "litellm": Framework("litellm", "token_callbacks.adapters.litellm"),
}
"""What a counter can be asked to count."""

UNDERNEATH = {
    "httpx": Framework("httpx", "token_callbacks.adapters.httpx"),
    "httpx2": Framework("httpx2", "token_callbacks.adapters.httpx"),
    "aiohttp": Framework("aiohttp", "token_callbacks.adapters.aiohttp"),
    "botocore": Framework("botocore.httpsession", "token_callbacks.adapters.botocore"),
}
"""What the frameworks send their requests with: hooked with any of them."""

ABOVE = {
    "lavague": Framework("lavague.core.agents", "token_callbacks.adapters.lavague"),
}
"""Programs that call the frameworks, and have runs and parts of their own."""

_ALL = FRAMEWORKS | UNDERNEATH | ABOVE

_lock = threading.Lock()
_awaited: set[str] = set()
_wanted: set[str] = set()
_beside: dict[str, set[Callable[[], None]]] = {}


def attach(name: str, *, beside: Callable[[], None] | None = None) -> None:
    """Hook a framework and what is underneath, now if it is imported, else right after its import.

    ``beside`` is done then, too, until ``detach_all``, and must be nothing when it is done again.
    """
    if beside is not None:
        with _lock:
            _beside.setdefault(name, set()).add(beside)
    for part in (name, *UNDERNEATH):
        _attach(part)


def _attach(name: str) -> None:
    framework = _ALL[name]
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
        ledger.shielded(_install)(_ALL[name].adapter, ledger)
        for action in tuple(_beside.get(name, ())):
            ledger.shielded(action)()


def _install(adapter: str, ledger: Ledger) -> None:
    with importing:
        module = importlib.import_module(adapter)
    cast("Adapter", module).install(ledger)


def detach_all() -> None:
    """Unhook every framework."""
    with _lock:
        _wanted.clear()
        _beside.clear()
    for framework in _ALL.values():
        adapter = sys.modules.get(framework.adapter)
        if adapter is not None:
            cast("Adapter", adapter).uninstall()
