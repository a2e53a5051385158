"""Servers that can count for their own models: asked only where a user registered one, never while a caller waits.

``counter.register_tokenizer("my-local-*", endpoint="http://127.0.0.1:8000")`` is the only way in, and without it this
package opens no connection. A server that does not answer in time is left alone for a while; the count is made here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

from token_callbacks.errors import InvalidArgument
from token_callbacks.imports import importing
from token_callbacks.usage import part, token_count

_log = logging.getLogger("token_callbacks")

SECONDS = 2.0
"""How long a server may take for one answer."""

REST_SECONDS = 30.0
"""How long a server that did not answer is left alone."""

Ask = Callable[[str, Mapping[str, Any]], Any]
"""Posts a body to a path of the server and returns what it answered."""


class TokenizeServer:
    """One server, and the way to ask it, once that is known. Thread-safe; every method may take ``SECONDS``."""

    def __init__(self, endpoint: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._endpoint = endpoint.rstrip("/")
        parts = urlsplit(endpoint)
        self._shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"  # without password and query
        self._clock = clock
        self._resting_until = dict.fromkeys(_WAYS, float("-inf"))
        """When texts, and when prompts, may be asked for again: some servers know nothing of templates."""
        self._is_told = False

    def count_text(self, model: str, text: str) -> tuple[int, str] | None:
        """Count a text: its tokens, and which way of asking it was; ``None`` where the server cannot tell."""
        return self._first("text", model, text)

    def count_prompt(
        self, model: str, messages: Sequence[Mapping[str, Any]] | str, tools: Sequence[Mapping[str, Any]]
    ) -> tuple[int, str] | None:
        """Count what a prompt is to the model, its template applied; ``None`` where the server cannot tell."""
        if isinstance(messages, str):
            return self._first("text", model, messages)
        return self._first("prompt", model, {"messages": list(messages), **({"tools": list(tools)} if tools else {})})

    def _first(self, kind: str, model: str, what: Any) -> tuple[int, str] | None:
        if self._clock() < self._resting_until[kind]:
            return None
        with importing:  # not before a server is asked
            import httpx

        try:
            with httpx.Client(timeout=SECONDS, trust_env=False) as client:
                for name, way in _WAYS[kind].items():
                    tokens = token_count(way(_asking(client, self._endpoint), model, what))
                    if tokens is not None:
                        return tokens, name
        except httpx.HTTPError as error:
            self._rest(_WAYS, type(error).__name__)
            return None
        self._rest((kind,), f"knows none of the ways to be asked for a {kind}")
        return None

    def _rest(self, kinds: Iterable[str], why: str) -> None:
        for kind in kinds:
            self._resting_until[kind] = self._clock() + REST_SECONDS
        level = logging.DEBUG if self._is_told else logging.WARNING
        self._is_told = True
        _log.log(level, "%s does not count (%s): its models are counted here for a while", self._shown, why)


def _asking(client: Any, endpoint: str) -> Ask:
    def ask(path: str, body: Mapping[str, Any]) -> Any:
        response = client.post(f"{endpoint}{path}", json=dict(body))
        if not response.is_success:
            return None
        try:
            return response.json()
        except ValueError:
            return None

    return ask


def _vllm_text(ask: Ask, model: str, text: str) -> Any:
    body = {"model": model, "prompt": text, "add_special_tokens": False}
    return part(ask("/tokenize", body), "count")


def _vllm_prompt(ask: Ask, model: str, prompt: Mapping[str, Any]) -> Any:
    return part(ask("/tokenize", {"model": model, "add_generation_prompt": True, **prompt}), "count")


def _llama_text(ask: Ask, _model: str, text: str) -> Any:
    tokens = part(ask("/tokenize", {"content": text}), "tokens")
    return len(tokens) if isinstance(tokens, list) else None


def _llama_prompt(ask: Ask, _model: str, prompt: Mapping[str, Any]) -> Any:
    text = part(ask("/apply-template", prompt), "prompt")
    if not isinstance(text, str):
        return None
    answer = ask("/tokenize", {"content": text, "add_special": True, "parse_special": True})
    tokens = part(answer, "tokens")
    return len(tokens) if isinstance(tokens, list) else None


def _llama_cpp_python_text(ask: Ask, model: str, text: str) -> Any:
    counts = [
        token_count(part(ask("/extras/tokenize/count", {"model": model, "input": each}), "count"))
        for each in (text, "")
    ]
    whole, nothing = counts  # it puts the token before which begins a text, where the model has one
    return None if whole is None or nothing is None else whole - nothing


def _anthropic_prompt(ask: Ask, model: str, prompt: Mapping[str, Any]) -> Any:
    return part(ask("/v1/messages/count_tokens", {"model": model, **prompt}), "input_tokens")


_Way = Callable[[Ask, str, Any], Any]

_TEXT: dict[str, _Way] = {
    "vllm /tokenize": _vllm_text,  # https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html#tokenizer-api
    "llama-server /tokenize": _llama_text,  # https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
    "llama-cpp-python /extras/tokenize/count": _llama_cpp_python_text,
    # https://llama-cpp-python.readthedocs.io/en/latest/server/
}
_PROMPT: dict[str, _Way] = {
    "vllm /tokenize": _vllm_prompt,
    "llama-server /apply-template": _llama_prompt,
    "/v1/messages/count_tokens": _anthropic_prompt,  # https://docs.anthropic.com/en/api/messages-count-tokens
}

_WAYS = {"text": _TEXT, "prompt": _PROMPT}

_registered: list[tuple[str, TokenizeServer]] = []


def register(pattern: object, endpoint: object) -> None:
    """Have the models whose name matches a glob counted by a server, in every counter of this process.

    Raises ``InvalidArgument`` for what is no glob or no address.
    """
    if not isinstance(pattern, str) or not pattern.strip():
        raise InvalidArgument(f'a server is registered for a model\'s name or glob, "my-local-*", not {pattern!r}')
    parts = urlsplit(endpoint) if isinstance(endpoint, str) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidArgument(f'endpoint is the address of a server, "http://127.0.0.1:8000", not {endpoint!r}')
    glob = pattern.strip().lower()
    _registered[:] = [(glob, TokenizeServer(str(endpoint))), *(entry for entry in _registered if entry[0] != glob)]


def server_for(model: str | None) -> TokenizeServer | None:
    """Find the server that was registered last for a model; ``None`` where there is none, as nearly always."""
    if not _registered or model is None:
        return None
    names = (model.lower(), model.lower().rpartition("/")[2])
    return next((server for glob, server in _registered if any(fnmatchcase(name, glob) for name in names)), None)


def forget() -> None:
    """Forget every server."""
    _registered.clear()
