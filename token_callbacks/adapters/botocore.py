"""Tap botocore, which LlamaIndex's Bedrock classes send with: the answers of InvokeModel, whose headers have the count.

Facts about botocore 1.42 that shape this file: everything goes through ``URLLib3Session.send``; the body of InvokeModel
counts as a stream there, which is read by ``read`` of ``raw``. Converse and the event streams leave their usage in
LlamaIndex's own response and are not looked at.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from botocore.httpsession import URLLib3Session  # type: ignore[import-untyped]

from token_callbacks.exchanges import Exchange, starter
from token_callbacks.hooks import Once, Patches
from token_callbacks.ledger import Ledger

_INVOKE = re.compile(r"/model/[^/]+/invoke$")


class _Read:
    """The raw body of an answer, which is put aside on its way."""

    def __init__(self, raw: Any, exchange: Exchange) -> None:
        self._raw = raw
        self._exchange = exchange
        self._pieces: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def read(self, *args: Any, **kwargs: Any) -> Any:
        piece = self._raw.read(*args, **kwargs)
        self._pieces.append(piece)
        self._exchange.evidence.take_whole(b"".join(self._pieces))
        return piece


class _Installed:
    """The wrapper, while it is in."""

    def __init__(self, ledger: Ledger) -> None:
        self._start = ledger.shielded(starter(ledger))
        self._take = ledger.shielded(_answered)
        self._fail = ledger.shielded(Exchange.fail)
        self._patches = Patches()
        self._patches.wrap(URLLib3Session, "send", self._around_send)

    def _around_send(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def send(session: Any, request: Any) -> Any:
            path = urlsplit(request.url).path
            exchange = self._start(request.method, path) if _INVOKE.search(path) else None
            if exchange is None:
                return original(session, request)
            try:
                response = original(session, request)
            except BaseException as error:
                self._fail(exchange, error)
                raise
            self._take(exchange, response)
            return response

        return send

    def remove(self) -> None:
        self._start = _nothing
        self._patches.remove()


def _answered(exchange: Exchange, response: Any) -> None:
    if exchange.begin(response.status_code, response.headers):
        response.raw = _Read(response.raw, exchange)
        exchange.end()


def _nothing(method: str, path: str) -> None:
    """Stand in for the tap that was taken out."""


_once: Once[_Installed] = globals().get("_once") or Once(_Installed)
install, uninstall = _once.install, _once.uninstall
