"""An exchange and one way to have a framework make it again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from tests.corpus.folder import Exchange

UrlOf = Callable[[str], str]
"""From the provider's own path to the replay server's address of one exchange."""


class Play(msgspec.Struct, frozen=True, kw_only=True):
    """One exchange, over one route of a framework.

    ``attempts`` are tried in turn until one does not raise: first the call as it was recorded, then a plainer one.
    Each makes the call and reads its answer to the end; where ``is_async``, it returns what is to be awaited.
    """

    exchange: Exchange
    framework: str
    route: str
    is_async: bool
    attempts: tuple[Callable[[], Any], ...]


class Player(msgspec.Struct, frozen=True, kw_only=True):
    """A framework under test: the plays that it has for an exchange, none where it has no route."""

    framework: str
    plays_of: Callable[[Exchange, UrlOf], list[Play]]
    left_out: tuple[str, ...] = ()
    """Which routes cannot be played here, with the reason."""
