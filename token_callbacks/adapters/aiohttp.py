"""Tap aiohttp, which Google's SDK sends its async requests with: the answers that are not streamed.

Facts about aiohttp 3.13 that shape this file: everything goes through ``ClientSession._request``, and whoever wants an
answer whole calls its ``read``. Streams are not tapped: who streams over aiohttp leaves the usage in the framework's
own response.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import aiohttp
from yarl import URL

from token_callbacks.exchanges import Exchange, starter
from token_callbacks.hooks import Once, Patches, is_passing_through
from token_callbacks.ledger import Ledger


class _Installed:
    """The wrappers, while they are in."""

    def __init__(self, ledger: Ledger) -> None:
        self._start = ledger.shielded(starter(ledger))
        self._begin = ledger.shielded(_begun)
        self._take = ledger.shielded(Exchange.take_whole)
        self._fail = ledger.shielded(Exchange.fail)
        self._break_off = ledger.shielded(Exchange.break_off)
        self._waiting: weakref.WeakKeyDictionary[Any, Exchange] = weakref.WeakKeyDictionary()
        """The exchanges whose answers have begun and were not read yet."""
        self._patches = Patches()
        self._patches.wrap(aiohttp.ClientSession, "_request", self._around_request)
        self._patches.wrap(aiohttp.ClientResponse, "read", self._around_read)

    def _around_request(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        async def _request(session: Any, method: str, url: Any, **kwargs: Any) -> Any:
            exchange = None if is_passing_through() else self._start(method.upper(), URL(url).path)
            if exchange is None:
                return await original(session, method, url, **kwargs)
            try:
                response = await original(session, method, url, **kwargs)
            except BaseException as error:
                self._fail(exchange, error)
                raise
            if self._begin(exchange, response):
                self._waiting[response] = exchange
            return response

        return _request

    def _around_read(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        async def read(response: Any) -> Any:
            try:
                body = await original(response)
            except BaseException as error:
                if (exchange := self._waiting.pop(response, None)) is not None:
                    self._break_off(exchange, error)
                raise
            if (exchange := self._waiting.pop(response, None)) is not None:
                self._take(exchange, body)
            return body

        return read

    def remove(self) -> None:
        self._start = _nothing
        self._patches.remove()


def _begun(exchange: Exchange, response: Any) -> bool:
    return exchange.begin(response.status, response.headers)


def _nothing(method: str, path: str) -> None:
    """Stand in for the tap that was taken out."""


_once: Once[_Installed] = globals().get("_once") or Once(_Installed)
install, uninstall = _once.install, _once.uninstall
