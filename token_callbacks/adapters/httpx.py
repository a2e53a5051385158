"""Tap httpx, the HTTP client underneath LiteLLM and nearly every provider's SDK: the wire has the provider's own word.

Facts about httpx 0.28, and about httpx2, its continuation, that shape this file:

- Everything goes through ``send`` of ``Client`` or ``AsyncClient``, once a try: retries of the SDKs are above it.
- An answer that is not streamed has been read when ``send`` returns; a streamed one has ``stream``, raw bytes.
- LiteLLM's async client sends through httpx and, beneath it, aiohttp, which has a tap of its own.
"""

# What is passed around here are objects of either module.
from __future__ import annotations

import functools
import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from types import ModuleType
from typing import Any

import msgspec

from token_callbacks.asking import ASKED, Unasked, asking, is_asked
from token_callbacks.exchanges import Exchange, starter
from token_callbacks.hooks import Patches, passing_through
from token_callbacks.ledger import Ledger, OpenCall

_log = logging.getLogger("token_callbacks")

MODULES = ("httpx", "httpx2")

_REFUSALS = (400, 422)


class Hosts:
    """What the hosts of this process made of being asked for the usage of a stream."""

    def __init__(self) -> None:
        self._answered: set[str] = set()
        self._refused: set[str] = set()

    def asked(self, request: Any) -> Any | None:
        """Make a request that asks; ``None`` where it must not, or need not."""
        try:
            body = asking(request.content)
        except RuntimeError:  # RequestNotRead: it is read while it is sent, and can be so only once
            return None
        if body is None:
            return None
        if not ASKED.search(request.url.path) or _host(request) in self._refused or not is_asked(request.url.host):
            return None
        if request.headers.get("authorization", "").startswith("AWS4-HMAC-SHA256"):  # signed with the body it has
            return None
        # What is added has to be found in the answer again, so that is not compressed.
        headers = request.headers.copy()
        headers["content-length"], headers["accept-encoding"] = str(len(body)), "identity"
        return type(request)(request.method, request.url, headers=headers, content=body, extensions=request.extensions)

    def may_have_refused(self, response: Any) -> bool:
        """Tell whether an answer may be due to the question: then the request is sent as it was."""
        if response.is_success:
            self._answered.add(_host(response.request))
        return response.status_code in _REFUSALS and _host(response.request) not in self._answered

    def note(self, response: Any) -> None:
        """Take the answer to the request as it was: if that one is well, the host refuses to be asked."""
        host = _host(response.request)
        if response.is_success and host not in self._refused:
            self._refused.add(host)
            _log.warning(
                "%s refuses stream_options: its streams are not asked for their usage again, and are counted here;"
                " TokenCounter(request_stream_usage=False) asks nobody",
                host,
            )


def _host(request: Any) -> str:
    return f"{request.url.host}:{request.url.port or request.url.scheme}"


def _wants_usage(call: OpenCall) -> bool:
    """Tell whether somebody who counts the call wants its stream asked; a mere listener does, as nobody says no."""
    if not call.seats:
        return bool(call.listeners)
    return any(seat.participant.request_stream_usage for seat in call.seats)


class _Sending(msgspec.Struct, eq=False):
    """One request on its way through ``send``."""

    exchange: Exchange
    request: Any
    """As the caller made it."""
    asked: Any
    """With the question for usage in it; ``None`` where it is not asked."""


class _Installed:
    """The wrappers in one of the modules, while they are in."""

    def __init__(self, ledger: Ledger, module: ModuleType) -> None:
        self._start_exchange = starter(ledger)
        self._hosts = Hosts()
        self._tap, self._async_tap = _taps(module, ledger)
        self._start: Callable[[Any], _Sending | None] = ledger.shielded(self._started)
        self._take_answer = ledger.shielded(self._answered)
        self._fail = ledger.shielded(Exchange.fail)
        self._patches = Patches()
        self._patches.wrap(module.Client, "send", self._around_send)
        self._patches.wrap(module.AsyncClient, "send", self._around_async_send)

    def _started(self, request: Any) -> _Sending | None:
        exchange = self._start_exchange(request.method, request.url.path)
        if exchange is None:
            return None
        asked = None if exchange.call is None else self._hosts.asked(request)
        return _Sending(exchange, request, asked if asked is not None and _wants_usage(exchange.outer) else None)

    def _answered(self, sending: _Sending, response: Any, is_second: bool) -> None:
        if is_second:
            self._hosts.note(response)
            sending.asked = None
        if sending.asked is not None:
            response.request = sending.request
        exchange = sending.exchange
        if not exchange.begin(response.status_code, response.headers):
            return
        if response.is_closed or response.is_stream_consumed:
            exchange.take_whole(response.content)
        elif exchange.begin_stream():
            is_filtered = sending.asked is not None and exchange.evidence.kind == "text/event-stream"
            tap = self._async_tap if hasattr(response.stream, "__aiter__") else self._tap
            response.stream = tap(response.stream, exchange, Unasked() if is_filtered else None)

    def _around_send(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def send(client: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
            sending = self._start(request)
            if sending is None:
                return original(client, request, *args, **kwargs)
            try:
                response = original(client, sending.asked or request, *args, **kwargs)
                is_refused = sending.asked is not None and self._hosts.may_have_refused(response)
                if is_refused:
                    response.close()
                    response = original(client, request, *args, **kwargs)
            except BaseException as error:
                self._fail(sending.exchange, error)
                raise
            self._take_answer(sending, response, is_refused)
            return response

        return send

    def _around_async_send(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        async def send(client: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
            sending = self._start(request)
            if sending is None:
                return await original(client, request, *args, **kwargs)
            try:
                with passing_through():
                    response = await original(client, sending.asked or request, *args, **kwargs)
                    is_refused = sending.asked is not None and self._hosts.may_have_refused(response)
                    if is_refused:
                        await response.aclose()
                        response = await original(client, request, *args, **kwargs)
            except BaseException as error:
                self._fail(sending.exchange, error)
                raise
            self._take_answer(sending, response, is_refused)
            return response

        return send

    def remove(self) -> None:
        self._start = _nothing
        self._patches.remove()


def _taps(module: Any, ledger: Ledger) -> tuple[type[Any], type[Any]]:
    """Make the classes of the streams whose raw bytes are put aside on their way; httpx looks for its own bases."""
    common = {
        "__init__": _keep,
        "end": staticmethod(ledger.shielded(Exchange.end)),
        "break_off": staticmethod(ledger.shielded(Exchange.break_off)),
    }
    return (
        type("Tap", (module.SyncByteStream,), common | {"__iter__": _pass_on, "close": _close}),
        type("AsyncTap", (module.AsyncByteStream,), common | {"__aiter__": _async_pass_on, "aclose": _aclose}),
    )


def _keep(tap: Any, stream: Any, exchange: Exchange, unasked: Unasked | None) -> None:
    tap.stream, tap.exchange, tap.unasked = stream, exchange, unasked


def _pass_on(tap: Any) -> Iterator[bytes]:
    take, unasked = tap.exchange.take, tap.unasked
    try:
        for piece in tap.stream:
            take(piece)
            if unasked is None:
                yield piece
            elif passed := unasked.passed(piece):
                yield passed
    except GeneratorExit:
        raise
    except BaseException as error:
        tap.break_off(tap.exchange, error)
        raise
    tap.end(tap.exchange)
    if unasked is not None and (rest := unasked.rest()):
        yield rest


async def _async_pass_on(tap: Any) -> AsyncIterator[bytes]:
    take, unasked = tap.exchange.take, tap.unasked
    try:
        async for piece in tap.stream:
            take(piece)
            if unasked is None:
                yield piece
            elif passed := unasked.passed(piece):
                yield passed
    except GeneratorExit:
        raise
    except BaseException as error:
        tap.break_off(tap.exchange, error)
        raise
    tap.end(tap.exchange)
    if unasked is not None and (rest := unasked.rest()):
        yield rest


def _close(tap: Any) -> None:
    tap.stream.close()


async def _aclose(tap: Any) -> None:
    await tap.stream.aclose()


def _nothing(request: Any) -> None:
    """Stand in for the tap that was taken out."""


_installed: dict[str, _Installed] = globals().get(
    "_installed", {}
)  # a reload of this module keeps the taps that are in


def install(ledger: Ledger) -> None:
    """Tap those of the modules that are imported, once however often it is called."""
    for name in MODULES:
        module = sys.modules.get(name)
        if module is not None and name not in _installed:
            _installed[name] = _Installed(ledger, module)


def uninstall() -> None:
    """Take the taps out."""
    while _installed:
        _installed.popitem()[1].remove()
