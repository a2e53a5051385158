"""Exchanges made again by LiteLLM's own functions, called and awaited."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any

from tests.corpus.folder import CorpusModules, Exchange
from tests.corpus.plays import Play, Player, UrlOf

FRAMEWORK = "litellm"
ABOUT_TOOLS = ("tools", "tool_choice", "functions", "n", "max_completion_tokens", "temperature")
SWITCHES = {
    "drop_params": True,
    "suppress_debug_info": True,
    "disable_hf_tokenizer_download": True,
}


def litellm_player(modules: CorpusModules, corpus: Any) -> Player:
    """Play what the corpus has a LiteLLM call for; an ImportError tells that LiteLLM is not there."""
    import litellm  # noqa: F401

    def plays_of(exchange: Exchange, url_of: UrlOf) -> list[Play]:
        plan = modules.litellm_map.plan(exchange, corpus, url_of)
        return [] if plan is None else [_play(exchange, plan, is_async=is_async) for is_async in (False, True)]

    return Player(framework=FRAMEWORK, plays_of=plays_of)


@contextmanager
def quiet_litellm() -> Iterator[None]:
    """Have LiteLLM, if it is there, drop what a provider cannot take and fetch nothing; then put it back as it was."""
    if find_spec("litellm") is None:
        yield
        return
    import litellm

    before = {name: getattr(litellm, name) for name in SWITCHES}
    for name, value in SWITCHES.items():
        setattr(litellm, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(litellm, name, value)


async def closed_litellm_clients() -> None:
    """Close the clients that LiteLLM, if it was used, keeps for the running loop: it does so itself, but too late."""
    if "litellm" in sys.modules:
        from litellm.llms.custom_httpx.async_client_cleanup import close_litellm_async_clients

        await close_litellm_async_clients()


def _play(exchange: Exchange, plan: dict[str, Any], *, is_async: bool) -> Play:
    make = _awaited if is_async else _called
    return Play(
        exchange=exchange,
        framework=FRAMEWORK,
        route=plan["fn"],
        is_async=is_async,
        attempts=(make(plan["fn"], _as_recorded(plan)), make(plan["fn"], _plainer(plan))),
    )


def _as_recorded(plan: dict[str, Any]) -> dict[str, Any]:
    once = {"max_retries": 0} if plan["fn"] == "embedding" else {"max_retries": 0, "num_retries": 0}
    return {**plan["kwargs"], "timeout": 30, **once}


def _plainer(plan: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in _as_recorded(plan).items() if name not in ABOUT_TOOLS}
    return {**kept, **plan["simple"]}


def _called(function: str, options: dict[str, Any]) -> Callable[[], None]:
    import litellm

    def call() -> None:
        answer = getattr(litellm, function)(**options)
        if options.get("stream"):
            for _ in answer:
                pass

    return call


def _awaited(function: str, options: dict[str, Any]) -> Callable[[], Awaitable[None]]:
    import litellm

    async def call(ask: Callable[..., Awaitable[Any]]) -> None:
        answer = await ask(**options)
        if options.get("stream"):
            async for _ in answer:
                pass

    return partial(call, getattr(litellm, f"a{function}"))
