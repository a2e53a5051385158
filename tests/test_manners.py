"""We run inside other people's programs: no exception into them, no changed answer, none of their text on the disk."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast
from wsgiref.simple_server import WSGIRequestHandler, make_server

import litellm
import pytest
from llama_index.core.llms import ChatMessage
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.openai import OpenAI

from token_callbacks import TokenCounter, uninstall
from token_callbacks.errors import TokenCallbacksError
from token_callbacks.ledger import process_ledger
from token_callbacks.records import CallRecord, Outcome, RunSummary
from token_callbacks.sinks.memory import MemorySink

from .calls import Told, make_call, open_call
from .conftest import Loopback

CANARY = "canary7f"  # short enough to be one piece of a stream
MESSAGES = [{"role": "user", "content": f"{CANARY} prompt"}]
_CHAT_MESSAGES = [ChatMessage(role="user", content=f"{CANARY} prompt")]


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        """Say nothing."""


Provider = Callable[..., str]
"""Give the address of a provider that tells this usage, in this place of its streams."""


@pytest.fixture(scope="module")
def odd_provider() -> Iterator[Provider]:
    """Give a provider that answers everything with the usage it is told to send, and the address of it."""
    told: list[Any] = [None, "plain"]

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        body = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        usage, place = told
        is_stream = bool(body.get("stream"))
        start_response("200 OK", [("Content-Type", "text/event-stream" if is_stream else "application/json")])
        if is_stream:
            return _streamed(body, usage, place)
        plain = _embedded(usage) if environ["PATH_INFO"].endswith("/embeddings") else _plain(usage)
        return [json.dumps(plain).encode()]

    with make_server("127.0.0.1", 0, answer, handler_class=_Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()

        def provider(usage: object, place: str = "plain") -> str:
            told[:] = usage, place
            return f"http://127.0.0.1:{server.server_port}/v1"

        yield provider
        server.shutdown()
        thread.join()


_TOLD = {"prompt_tokens": 3, "completion_tokens": 4}
_HEAD = {"id": "c-3", "created": 3, "model": "gpt-4o"}


def _plain(usage: object) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": "fine"}, "finish_reason": "stop"}
    return {**_HEAD, "object": "chat.completion", "choices": [choice], **_key(usage)}


def _embedded(usage: object) -> dict[str, Any]:
    row = {"object": "embedding", "index": 0, "embedding": [0.25, 0.5]}
    return {"object": "list", "model": "text-embedding-3-small", "data": [row], **_key(usage)}


def _streamed(body: dict[str, Any], usage: object, place: str) -> list[bytes]:
    deltas: list[tuple[dict[str, str], str | None]] = [
        ({"role": "assistant", "content": "fi"}, None),
        ({"content": "ne"}, None),
        ({}, "stop"),
    ]
    head = {**_HEAD, "object": "chat.completion.chunk"}
    chunks: list[dict[str, Any]] = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]} for delta, reason in deltas
    ]
    if place == "last chunk":
        chunks[-1] |= _key(usage)
    elif body.get("stream_options") is not None and usage is not None and usage is not MISSING:
        chunks.append({**head, "choices": [], **_key(usage)})
    return [*(f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks), b"data: [DONE]\n\n"]


def _key(usage: object) -> dict[str, object]:
    return {} if usage is MISSING else {"usage": usage}


MISSING: Any = ...
BROKEN_USAGE: list[tuple[Any, str]] = [
    (f"{CANARY} tokens", "usage (str)"),
    ([3, 4], "usage (list)"),
    ([], "usage (list)"),
    (True, "usage (bool)"),
    ({"prompt_tokens": -3, "completion_tokens": 4, "total_tokens": 1}, "prompt_tokens (negative)"),
    ({"prompt_tokens": 10**30, "completion_tokens": 4, "total_tokens": 4}, "prompt_tokens (too large)"),
    ({"prompt_tokens": 3.5, "completion_tokens": 4, "total_tokens": 7}, "prompt_tokens (a fraction)"),
    ({"prompt_tokens": f"{CANARY} tokens", "completion_tokens": 4, "total_tokens": 7}, "prompt_tokens (str)"),
    (
        {"prompt_tokens": [f"{CANARY} tokens"], "completion_tokens": True},
        "prompt_tokens (list), completion_tokens (bool)",
    ),
    ({"prompt_tokens": {"deep": [[[[[[[[3]]]]]]]]}}, "prompt_tokens (dict)"),
    ({**_TOLD, "prompt_tokens_details": f"{CANARY} tokens"}, "prompt_tokens_details (str)"),
    ({**_TOLD, "prompt_tokens_details": {"cached_tokens": "2"}}, "cached_tokens (str)"),
]
"""What is there and is broken, and how it is told."""

UNKNOWN_USAGE: Any = {f"{CANARY}_in": 3, f"{CANARY}_out": 4}
ODD_USAGE: list[tuple[Any, str | None]] = [
    *BROKEN_USAGE,
    (None, None),
    ({}, None),
    ({"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}, None),
    ({**_TOLD, "note": CANARY * 100}, None),
    ({"prompt_tokens": 3.0, "completion_tokens": 4.0, "total_tokens": 7.0}, None),
    (UNKNOWN_USAGE, None),
    (MISSING, None),
]


def _id(value: object) -> str:
    return repr(value)[:60]


class Log:
    """What we tell through ``logging``, as if nothing had been told before."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def lines(self, level: int) -> list[str]:
        return [line.getMessage() for line in self._caplog.records if line.levelno == level]

    @property
    def text(self) -> str:
        return self._caplog.text


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Log:
    """Give what is logged, down to the debug lines, where every kind of fault is the first one of its kind."""
    monkeypatch.setattr(process_ledger(), "_warned", set())
    caplog.set_level(logging.CRITICAL)
    caplog.set_level(logging.DEBUG, logger="token_callbacks")
    return Log(caplog)


def _warnings(*broken: str | None) -> list[str]:
    return [
        f"a provider's usage is broken: {told}; the host goes on, see internal_errors in the summary"
        for told in broken
        if told is not None
    ]


def _assert_noted(broken: str | None, summary: RunSummary, memory: MemorySink, log: Log) -> None:
    """What is broken is one warning and one fault of the run of the one call, and never told in its own words."""
    assert _warnings(broken) == log.lines(logging.WARNING)
    assert (broken is not None) == summary.internal_errors
    assert 1 == len(memory.records)
    assert CANARY not in repr(memory.records) + log.text


@pytest.mark.parametrize(("usage", "broken"), ODD_USAGE, ids=_id)
@pytest.mark.parametrize("framework", ["litellm", "llama_index"])
def test_an_odd_payload_changes_nothing_for_the_caller(
    odd_provider: Provider, memory: MemorySink, log: Log, *, usage: object, broken: str | None, framework: str
) -> None:
    """With us attached, the caller gets exactly the answer, or the framework's own error, that it gets without.

    What is broken is one warning and one fault of the run, though the wire and the framework both show it.
    """
    base_url = odd_provider(usage)
    uninstall()
    without = _asked(framework, base_url)
    counter = TokenCounter(log_dir=None, sinks=[memory])
    with counter.run("odd") as run:
        attached = _asked(framework, base_url)
    counter.close()

    assert without == attached
    _assert_noted(broken, run.summary, memory, log)


@pytest.mark.parametrize(("usage", "broken"), ODD_USAGE, ids=_id)
@pytest.mark.filterwarnings("ignore:Accessing the 'model_:DeprecationWarning")  # litellm 1.106.2, of its own chunks
@pytest.mark.parametrize("place", ["last chunk", "where we ask", "where the caller asks"])
@pytest.mark.parametrize("framework", ["litellm", "llama_index"])
def test_an_odd_payload_of_a_stream_changes_nothing_for_the_caller(
    odd_provider: Provider,
    memory: MemorySink,
    log: Log,
    *,
    usage: object,
    broken: str | None,
    place: str,
    framework: str,
) -> None:
    """With us attached, the caller gets exactly the chunks, and the framework's own error, that it gets without."""
    base_url = odd_provider(usage, place)
    options = {"stream_options": {"include_usage": True}} if place == "where the caller asks" else {}
    uninstall()
    without = _streamed_to_the_end(framework, base_url, **options)
    counter = TokenCounter(log_dir=None, sinks=[memory])
    with counter.run("odd") as run:
        attached = _streamed_to_the_end(framework, base_url, **options)
    counter.close()

    assert without == attached
    assert 2 < len(without)
    _assert_noted(broken, run.summary, memory, log)
    assert memory.records[0].streamed


@pytest.mark.parametrize(
    ("usage", "broken"),
    [
        (f"{CANARY} tokens", "usage (str)"),
        ({"prompt_tokens": -3, "total_tokens": f"{CANARY} tokens"}, "prompt_tokens (negative), total_tokens (str)"),
        ({"prompt_tokens": 3, "total_tokens": 3}, None),
    ],
    ids=_id,
)
@pytest.mark.parametrize("framework", ["litellm", "litellm, async", "llama_index", "llama_index, async"])
def test_an_odd_payload_of_an_embedding_changes_nothing_for_the_caller(
    odd_provider: Provider, memory: MemorySink, log: Log, *, usage: object, broken: str | None, framework: str
) -> None:
    """Embeddings are treated like chats, over httpx and over aiohttp."""
    base_url = odd_provider(usage)
    uninstall()
    without = asyncio.run(_embedding(framework, base_url))
    counter = TokenCounter(log_dir=None, sinks=[memory])
    with counter.run("odd") as run:
        attached = asyncio.run(_embedding(framework, base_url))
    counter.close()

    assert without == attached
    _assert_noted(broken, run.summary, memory, log)


async def _embedding(framework: str, base_url: str) -> Any:
    here: dict[str, Any] = {"api_base": base_url, "api_key": "sk-x", "max_retries": 0}
    model = "text-embedding-3-small"
    try:
        if framework == "litellm":
            return litellm.embedding(f"openai/{model}", input=["hi"], **here).data[0]["embedding"]
        if framework == "litellm, async":
            return (await litellm.aembedding(f"openai/{model}", input=["hi"], **here)).data[0]["embedding"]
        embedder = OpenAIEmbedding(model_name=model, **here)
        if framework == "llama_index":
            return embedder.get_text_embedding("hi")
        return await embedder.aget_text_embedding("hi")
    except Exception as error:  # noqa: BLE001 - whatever the framework itself makes of such a payload
        return type(error)


_BROKEN = {"prompt_tokens": f"{CANARY} tokens", "completion_tokens": 4}
_AS_TOLD = "prompt_tokens (str)"


def test_a_broken_payload_is_a_fault_of_the_run_that_the_call_was_made_in(log: Log) -> None:
    """Not of the one that is current where the call ends, nor of one that only another counter has."""
    first, second = TokenCounter(log_dir=None), TokenCounter(log_dir=None)
    with second.run("around") as around, first.run("outer") as outer:
        with first.run("inner") as inner:
            call = open_call()
        process_ledger().close_call(call, outcome=Outcome.COMPLETED, evidence=[Told(_BROKEN)])
    first.close()
    second.close()

    assert [1, 0, 1] == [run.summary.internal_errors for run in (inner, outer, around)]
    assert _warnings(_AS_TOLD) == log.lines(logging.WARNING)


def test_the_summary_that_is_written_again_for_a_late_call_has_its_fault(memory: MemorySink) -> None:
    """A call that ends after its run has it in the summary that is written again, with its figures."""
    counter = TokenCounter(log_dir=None, sinks=[memory])
    with counter.run("late") as run:
        call = open_call()
    process_ledger().close_call(call, outcome=Outcome.COMPLETED, evidence=[Told(_BROKEN)])
    counter.close()

    assert (1, 4) == (run.summary.internal_errors, run.summary.llm_completion_tokens)
    assert 1 == memory.summaries[run.run_id].internal_errors


def test_the_first_broken_payload_of_a_kind_is_a_warning_and_the_others_are_debug_lines(log: Log) -> None:
    """A provider that is always wrong does not fill the host's log, and each of its calls is counted."""
    counter = TokenCounter(log_dir=None)
    with counter.run("odd") as run:
        for _ in range(3):
            process_ledger().close_call(open_call(), outcome=Outcome.COMPLETED, evidence=[Told(_BROKEN)])
    counter.close()

    assert 3 == run.summary.internal_errors
    assert (_warnings(_AS_TOLD), 2) == (
        log.lines(logging.WARNING),
        log.lines(logging.DEBUG).count(*_warnings(_AS_TOLD)),
    )


@pytest.mark.parametrize("framework", ["litellm", "llama_index"])
def test_a_usage_of_an_unknown_shape_is_a_debug_line(odd_provider: Provider, log: Log, framework: str) -> None:
    """Nothing in it is broken, so it is no fault; and the names in it are the provider's, which are not told."""
    base_url = odd_provider(UNKNOWN_USAGE)
    counter = TokenCounter(log_dir=None)
    with counter.run("unknown") as run:
        _asked(framework, base_url)
    counter.close()

    assert 0 == run.summary.internal_errors
    assert ["no known name in what a provider told as its usage"] == log.lines(logging.DEBUG)
    assert CANARY not in log.text


def _streamed_to_the_end(framework: str, base_url: str, **options: Any) -> list[Any]:
    seen: list[Any] = []
    here: dict[str, Any] = {"api_base": base_url, "api_key": "sk-x", "max_retries": 0}
    try:
        if framework == "litellm":
            chunks = litellm.completion("openai/gpt-4o", MESSAGES, stream=True, **here, **options)
            seen.extend(chunk.model_dump(exclude={"id", "created"}) for chunk in chunks)
        else:
            llm = OpenAI(model="gpt-4o", additional_kwargs=options, **here)
            seen.extend(chunk.model_dump() for chunk in llm.stream_chat(_CHAT_MESSAGES))
    except Exception as error:  # noqa: BLE001 - whatever the framework itself makes of such a payload
        seen.append((type(error), len(seen)))
    return seen


def _asked(framework: str, base_url: str) -> str:
    try:
        if framework == "litellm":
            answer = litellm.completion("openai/gpt-4o", MESSAGES, api_base=base_url, api_key="sk-x", max_retries=0)
            return str(answer.choices[0].message.content)
        llm = OpenAI(model="gpt-4o", api_base=base_url, api_key="sk-x", max_retries=0)
        return str(llm.chat([ChatMessage(role="user", content="hi")]).message.content)
    except Exception as error:  # noqa: BLE001 - whatever the framework itself makes of such a payload
        return type(error).__name__


class _BrokenSink(MemorySink):
    def write_record(self, record: CallRecord) -> None:
        raise RuntimeError(f"{CANARY} broken")

    def write_summary(self, summary: RunSummary) -> None:
        raise RuntimeError(f"{CANARY} broken")


def test_a_broken_sink_costs_the_caller_nothing(loopback: Loopback, caplog: pytest.LogCaptureFixture) -> None:
    """Answers and totals are unaffected; one warning for each kind of fault, each fault counted, no message quoted."""
    server = loopback()
    counter = TokenCounter(log_dir=None, sinks=[_BrokenSink()])
    with caplog.at_level(logging.DEBUG, logger="token_callbacks"), counter.run("broken sink") as run:
        answers = [_asked("litellm", server.base_url) for _ in range(3)]
    counter.close()

    assert 3 == sum("loopback answer" in answer for answer in answers)
    assert sum(entry.prompt_tokens for entry in server.ledger) == run.summary.llm_prompt_tokens
    assert 4 == run.summary.internal_errors
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert 2 == len(warnings)
    assert CANARY not in caplog.text


@pytest.mark.parametrize("framework", ["litellm", "llama_index"])
def test_a_fault_of_ours_is_counted_and_goes_no_further(
    loopback: Loopback, counter: TokenCounter, memory: MemorySink, monkeypatch: pytest.MonkeyPatch, framework: str
) -> None:
    """Where settling itself fails, the caller has its answer and the call its record, with the figures missing."""

    def broken(*args: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("token_callbacks.wire.WireEvidence.reading", broken)
    with counter.run("broken") as run:
        answer = _asked(framework, loopback().base_url)

    assert "loopback answer" in answer
    assert 1 == run.summary.internal_errors
    assert ["missing"] == [record.provenance.weakest for record in memory.records]
    assert run.summary.lower_bound


def test_a_fault_in_one_counter_keeps_no_other_from_its_record(
    counter: TokenCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who takes a call is shielded from whoever took it before."""

    def broken(*args: object) -> None:
        raise ZeroDivisionError

    before, after = TokenCounter(log_dir=None), TokenCounter(log_dir=None)
    monkeypatch.setattr(counter, "take", broken)
    with before.run("before") as first, counter.run("broken") as run, after.run("after") as last:
        make_call(prompt=3, completion=4)
    before.close()
    after.close()

    assert [7, 0, 7] == [each.summary.total_llm_tokens for each in (first, run, last)]
    assert 1 == run.summary.internal_errors


def test_what_a_sink_does_to_its_record_reaches_nobody_else(memory: MemorySink) -> None:
    """It may take out what it must not keep: others get the provider's usage as it came, and so does the price."""

    class Redacting(MemorySink):
        def write_record(self, record: CallRecord) -> None:
            cast("dict[str, Any]", record.provider_usage).clear()

    first, second = TokenCounter(log_dir=None, sinks=[Redacting()]), TokenCounter(log_dir=None, sinks=[memory])
    payload = {"prompt_tokens": 3, "completion_tokens": 4, "service_tier": "priority"}
    with first.run("redacted") as run:
        process_ledger().close_call(open_call(), outcome=Outcome.COMPLETED, evidence=[Told(payload)])
    tiers = [charged.charge.service_tier for charged in run.totals.charges]
    first.close()
    second.close()

    assert [payload] == [record.provider_usage for record in memory.records]
    assert ["priority"] == tiers


def test_a_record_that_is_lost_while_its_counter_closes_is_told() -> None:
    """Whatever a sink makes of the streams that are open then."""
    counter = TokenCounter(log_dir=None, sinks=[_BrokenSink()])
    with counter.run("late") as run:
        open_call()
        counter.close()

    assert 1 == run.summary.lost_records


def test_a_sink_may_be_any_callable_object(counter: TokenCounter) -> None:
    """What a sink's methods are made of does not matter: a fault in them is shielded all the same."""

    class Odd:
        write_record = partial(int, "not a number")
        write_summary = partial(int, "not a number")
        summary_path = staticmethod(lambda run_id: None)
        close = partial(int, "not a number")

    odd = TokenCounter(log_dir=None, sinks=[Odd()])  # type: ignore[list-item]
    with odd.run("odd") as run:
        make_call(prompt=3, completion=4)
    odd.close()

    assert 7 == run.summary.total_llm_tokens
    assert 2 <= run.summary.internal_errors


_LLAMA_INDEX: dict[str, Any] = {"api_key": f"sk-{CANARY}", "max_retries": 0, "timeout": 30}
_LITELLM: dict[str, Any] = {
    "api_key": f"sk-{CANARY}",
    "max_retries": 0,
    "user": CANARY,
    "metadata": {"note": CANARY},
}
_TEXTS = [f"{CANARY} first", f"{CANARY} second"]


def _llm(base_url: str, headers: dict[str, str]) -> Any:
    return OpenAI(model="gpt-4o", api_base=base_url, default_headers=headers, **_LLAMA_INDEX)


def _embedder(base_url: str, headers: dict[str, str]) -> Any:
    return OpenAIEmbedding(api_base=base_url, default_headers=headers, **_LLAMA_INDEX)


def _chat(base_url: str, headers: dict[str, str]) -> dict[str, Any]:
    here = {"api_base": base_url, "extra_headers": headers}
    return {"model": "openai/gpt-4o", "messages": MESSAGES, **here, **_LITELLM}


def _vectors(base_url: str, headers: dict[str, str]) -> dict[str, Any]:
    here = {"api_base": base_url, "extra_headers": headers}
    return {"model": "openai/text-embedding-3-small", "input": _TEXTS, **here, **_LITELLM}


async def _read(coming: Awaitable[Any]) -> list[Any]:
    return [chunk async for chunk in await coming]


CANARY_CALLS: dict[str, Callable[..., Any]] = {
    "llama_index chat": lambda *to: _llm(*to).chat(_CHAT_MESSAGES),
    "llama_index stream": lambda *to: list(_llm(*to).stream_chat(_CHAT_MESSAGES)),
    "llama_index async chat": lambda *to: asyncio.run(_llm(*to).achat(_CHAT_MESSAGES)),
    "llama_index async stream": lambda *to: asyncio.run(_read(_llm(*to).astream_chat(_CHAT_MESSAGES))),
    "llama_index embedding": lambda *to: _embedder(*to).get_text_embedding_batch(_TEXTS),
    "llama_index async embedding": lambda *to: asyncio.run(_embedder(*to).aget_text_embedding_batch(_TEXTS)),
    "litellm chat": lambda *to: litellm.completion(**_chat(*to)),
    "litellm stream": lambda *to: list(litellm.completion(**_chat(*to), stream=True)),
    "litellm async chat": lambda *to: asyncio.run(litellm.acompletion(**_chat(*to))),
    "litellm async stream": lambda *to: asyncio.run(_read(litellm.acompletion(**_chat(*to), stream=True))),
    "litellm embedding": lambda *to: litellm.embedding(**_vectors(*to)),
    "litellm async embedding": lambda *to: asyncio.run(litellm.aembedding(**_vectors(*to))),
}
"""Calls of both frameworks whose texts, keys and headers are canaries, each read to its end."""


@pytest.mark.parametrize("call", CANARY_CALLS.values(), ids=CANARY_CALLS)
def test_no_text_and_no_key_reaches_a_file(
    loopback: Loopback, counter: TokenCounter, log_dir: Path, call: Callable[..., Any]
) -> None:
    """Prompts, answers, inputs, keys, headers and error texts leave no trace, neither in an open run's files."""
    base_url = loopback(replies=_canary_reply).base_url
    with counter.run("canaries") as run:
        answer = call(base_url, {"x-secret": CANARY})
        with pytest.raises(Exception, match=CANARY) as caught:
            call(base_url, {"x-loopback-fault": CANARY})  # which the server quotes in its refusal
        while_open = _files(log_dir)
    counter.close()
    afterwards = _files(log_dir)

    assert CANARY in str(answer) or len(_TEXTS) == len(getattr(answer, "data", answer))
    assert not isinstance(caught.value, TokenCallbacksError)
    assert any(name.startswith(run.run_id) for name in while_open)
    assert f"{run.run_id}.json" in afterwards
    for files in (while_open, afterwards):
        assert {"completed", "failed"} == set(re.findall(r'"outcome":"(\w+)"', _lines(files)))
        assert [] == [name for name, text in files.items() if CANARY in name + text]


def _files(log_dir: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in log_dir.rglob("*") if path.is_file()}


def _lines(files: dict[str, str]) -> str:
    return "".join(text for name, text in files.items() if name.startswith("calls-"))


def _canary_reply(body: object) -> str:
    return f"{CANARY} answer"
