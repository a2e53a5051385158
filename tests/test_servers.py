"""Servers that count for their own models: asked only where one is registered, and never while a caller waits."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from token_callbacks import TokenCounter, servers
from token_callbacks.errors import InvalidArgument
from token_callbacks.ledger import process_ledger
from token_callbacks.records import Outcome, Provenance
from token_callbacks.servers import TokenizeServer
from token_callbacks.sinks.memory import MemorySink

from .calls import Told

MESSAGES = [{"role": "user", "content": "Hi"}]


def _vllm(path: str, body: dict[str, Any]) -> Any:
    if path != "/tokenize" or not ("prompt" in body or "messages" in body):
        return None
    return {"count": 11 if "messages" in body else len(body["prompt"].split()), "max_model_len": 4096, "tokens": []}


def _llama_server(path: str, body: dict[str, Any]) -> Any:
    if path == "/apply-template":
        return {"prompt": "<start> Hi <end> <assistant>"}
    return {"tokens": list(range(len(body.get("content", "").split())))} if path == "/tokenize" else None


def _llama_cpp_python(path: str, body: dict[str, Any]) -> Any:
    # It puts the beginning of a text before it, and counts that (0.3.36 with a vocabulary of Llama's).
    return {"count": 1 + len(body["input"].split())} if path == "/extras/tokenize/count" else None


def _anthropic(path: str, body: dict[str, Any]) -> Any:
    return {"input_tokens": 13} if path == "/v1/messages/count_tokens" else None


def _broken(path: str, body: dict[str, Any]) -> Any:
    return {"count": -3, "tokens": "many"}


class Fake:
    """A server that answers with a function, and keeps what it was asked."""

    def __init__(self, answer: Any) -> None:
        self.asked: list[str] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                fake.asked.append(self.path)
                told = answer(self.path, body)
                payload = json.dumps(told).encode()
                self.send_response(404 if told is None else 200)
                self.send_header("content-length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def fake(request: pytest.FixtureRequest) -> Iterator[Fake]:
    """Start the server that the test names."""
    server = Fake(request.param)
    yield server
    server.close()
    servers.forget()


def _serves(*answers: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "fake", answers, indirect=True, ids=[answer.__name__.strip("_") for answer in answers]
    )


def _end(model: str = "my-local-7b", text: str = "nine in the morning") -> None:
    ledger = process_ledger()
    origin = ledger.origin("litellm")
    call = ledger.open_call(origin, framework="litellm", operation="chat", provider=None, model=model)  # type: ignore[arg-type]
    ledger.close_call(call, outcome=Outcome.COMPLETED, evidence=[Told(None, text=text, messages=MESSAGES)])


@_serves(_vllm, _llama_server, _llama_cpp_python)
def test_a_text_is_counted_by_whichever_server_it_is(fake: Fake) -> None:
    """The ways to ask are tried one after the other."""
    counted = TokenizeServer(fake.url).count_text("m", "nine in the morning")

    assert counted is not None
    assert 4 == counted[0]


@pytest.mark.parametrize(
    ("fake", "expected"),
    [
        (_vllm, (11, "vllm /tokenize")),
        (_llama_server, (4, "llama-server /apply-template")),
        (_anthropic, (13, "/v1/messages/count_tokens")),
        (_llama_cpp_python, None),
        (_broken, None),
    ],
    indirect=["fake"],
    ids=["vllm", "llama-server", "anthropic", "llama-cpp-python", "broken"],
)
def test_messages_are_counted_with_their_template(fake: Fake, expected: Any) -> None:
    """Where a server knows its template; where it does not, it is not asked to guess."""
    assert expected == TokenizeServer(fake.url).count_prompt("m", MESSAGES, ())


@_serves(_vllm)
def test_a_call_of_a_registered_model_is_counted_by_its_server(
    fake: Fake, counter: TokenCounter, memory: MemorySink
) -> None:
    """The record says which server counted."""
    servers.register("my-local-*", fake.url)
    with counter.run("served"):
        _end()

    [record] = memory.records
    assert (11, 4) == (record.usage.prompt_tokens, record.usage.completion_tokens)
    assert ("vllm /tokenize", Provenance.COUNTED) == (record.counting_method, record.provenance.weakest)


@_serves(_llama_cpp_python)
def test_a_server_that_knows_no_templates_counts_texts_all_the_same(
    fake: Fake, counter: TokenCounter, memory: MemorySink
) -> None:
    """The prompt is estimated here, the answer is counted there, also of the next call."""
    servers.register("my-local-*", fake.url)
    with counter.run("served"):
        _end()
        _end()

    assert [(4, Provenance.COUNTED, Provenance.ESTIMATED)] * 2 == [
        (record.usage.completion_tokens, record.provenance.completion, record.provenance.prompt)
        for record in memory.records
    ]


@_serves(_vllm)
def test_a_counter_registers_an_endpoint(fake: Fake, counter: TokenCounter, memory: MemorySink) -> None:
    """It is the public way in."""
    counter.register_tokenizer("my-local-*", endpoint=fake.url)
    with counter.run("served"):
        _end()

    assert "vllm /tokenize" == memory.records[0].counting_method


@pytest.mark.parametrize("options", [{}, {"tokenizer": len, "endpoint": "http://127.0.0.1:8000"}], ids=["none", "both"])
def test_a_tokenizer_or_an_endpoint_is_registered(counter: TokenCounter, options: dict[str, Any]) -> None:
    """Not both, and not neither."""
    with pytest.raises(InvalidArgument, match="or an endpoint"):
        counter.register_tokenizer("my-local-*", **options)


@_serves(_vllm)
def test_a_call_of_another_model_asks_nobody(fake: Fake, counter: TokenCounter, memory: MemorySink) -> None:
    """The glob decides."""
    servers.register("my-local-*", fake.url)
    with counter.run("other"):
        _end(model="gpt-4o")

    assert [] == fake.asked
    assert "o200k_base" == memory.records[0].counting_method


@_serves(_vllm)
def test_the_caller_does_not_wait_for_a_server(
    fake: Fake, counter: TokenCounter, memory: MemorySink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of a call leaves it to the worker."""
    kept: list[Any] = []
    monkeypatch.setattr(process_ledger()._worker, "submit", lambda key, job: kept.append(job))
    servers.register("my-local-*", fake.url)
    _end()

    assert ([], []) == (fake.asked, memory.records)
    kept[0]()
    assert 1 == len(memory.records)


def test_a_server_that_does_not_answer_is_left_alone_and_counted_here(
    counter: TokenCounter, memory: MemorySink, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning, and the figures are ours, marked so."""
    with socket.socket() as closed:  # bound, and nobody listens
        closed.bind(("127.0.0.1", 0))
        servers.register("my-local-*", f"http://user:pass-3@127.0.0.1:{closed.getsockname()[1]}/?key=pass-4")
        with counter.run("dead"):
            _end()
            _end()
    servers.forget()

    assert [Provenance.ESTIMATED] * 2 == [record.provenance.weakest for record in memory.records]
    [warning] = [entry.message for entry in caplog.records if "does not count" in entry.message]
    assert "127.0.0.1" in warning
    assert "pass" not in warning


@_serves(_broken)
def test_a_server_that_rests_is_asked_again_later(fake: Fake) -> None:
    """A rest is thirty seconds on the clock that is given."""
    now = [0.0]
    server = TokenizeServer(fake.url, clock=lambda: now[0])
    for now[0] in (0.0, 29.0, 31.0):
        assert server.count_text("m", "text") is None

    assert 8 == len(fake.asked)  # by each of the ways, one of which takes two requests


@pytest.mark.parametrize("endpoint", [None, "", "127.0.0.1:8000", "ftp://127.0.0.1", 8000, "http://"])
def test_an_endpoint_that_is_no_address_is_refused(endpoint: Any) -> None:
    """The error tells what one looks like."""
    with pytest.raises(InvalidArgument, match=r"http://127\.0\.0\.1:8000"):
        servers.register("my-local-*", endpoint)


def test_without_a_registration_no_connection_is_opened(
    counter: TokenCounter, memory: MemorySink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counting stays on this machine."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    with counter.run("offline") as run:
        for model in ("gpt-4o", "meta-llama/Llama-3.3-70B", "claude-sonnet-4-5", "my-local-7b"):
            _end(model=model, text="nine " * 9000)

    assert (4, 0) == (len(memory.records), run.summary.internal_errors)
