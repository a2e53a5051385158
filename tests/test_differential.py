"""A program sees the same of the frameworks with us attached as without: scenario by scenario, field by field."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import re
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import is_dataclass
from functools import partial
from typing import Any

import httpx
import litellm
import openai
import pytest
from litellm.integrations.custom_logger import CustomLogger
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.callbacks import CallbackManager
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.chat_engine.types import ChatMode
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.span_handlers import BaseSpanHandler
from llama_index.core.llms import ChatMessage, ChatResponse, CompletionResponse
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.litellm import LiteLLM
from llama_index.llms.openai import OpenAI

from loopback_server import CANNED, Figures, LoopbackServer, pieces_of
from token_callbacks import TokenCounter, uninstall
from token_callbacks.records import Operation
from token_callbacks.sinks.memory import MemorySink

from .conftest import Loopback
from .litellm.calls import CHAT, EMBEDDINGS, PLAIN, Case
from .litellm.calls import STREAMS as LITELLM_STREAMS
from .litellm.calls import openai as openai_wire
from .litellm.conftest import registered
from .litellm.test_drain import SECOND_TRIES
from .llama_index.methods import STRUCTURED
from .llama_index.test_agents import AGENTS, QUESTION
from .llama_index.test_engines import CHATS, QUERIES
from .test_taps import SendingLLM


class Trace:
    """What a program saw, in the order of each thread and task: they go on side by side."""

    def __init__(self) -> None:
        self._lanes: dict[tuple[threading.Thread, asyncio.Task[Any] | None], list[Any]] = {}

    def append(self, entry: Any) -> None:
        """Note what the running code saw."""
        try:
            task = asyncio.current_task()
        except RuntimeError:
            task = None
        self._lanes.setdefault((threading.current_thread(), task), []).append(entry)

    @property
    def lanes(self) -> list[list[Any]]:
        """What each thread and task saw."""
        return sorted(self._lanes.values(), key=repr)


SHAPED = [{"role": "user", "content": "When?"}]
MESSAGES = [ChatMessage(role="user", content="When?")]


class _SameTokens:
    """Give every request the same figures."""

    def figures(self, exchange: object) -> Figures:
        return Figures(prompt_tokens=31, completion_tokens=41, embedding_tokens=5)


SAME = _SameTokens()


class Scene:
    """A server and a trace, for one run of a scenario."""

    def __init__(self, server: LoopbackServer) -> None:
        self.server = server
        self.trace = Trace()
        self.here = {"api_base": server.base_url, "api_key": "sk-x", "max_retries": 0}
        self.chat = {"model": "openai/gpt-4o", "messages": SHAPED, **self.here}
        self.handler = _Handler(self.trace)

    def llm(self, **options: Any) -> Any:
        """Give LlamaIndex's class for OpenAI, with a handler of the user's."""
        manager = CallbackManager([self.handler])
        return OpenAI(model="gpt-4o", callback_manager=manager, **{**self.here, **options})

    def over(self) -> Any:
        """Give LlamaIndex's class over LiteLLM."""
        return LiteLLM(model="openai/gpt-4o", callback_manager=CallbackManager([self.handler]), **self.here)

    def index(self) -> Any:
        """Give an index that was made with LlamaIndex's class for OpenAI."""
        embedding = OpenAIEmbedding(**self.here, embed_batch_size=2)
        pages = ["When does the library open? At nine.", "The library has three floors.", "Feed the cat."]
        return VectorStoreIndex.from_documents([Document(text=page) for page in pages], embed_model=embedding)

    def saw(self, what: Any) -> None:
        """Note an object that the program got, with all its fields."""
        self.trace.append(_plain(what))

    def failed(self, error: BaseException) -> None:
        """Note an exception: its class and bases, what is in it, and what it came from."""
        seen = []
        link: BaseException | None = error
        while link is not None:
            names = [name for name in vars(link) if not name.startswith("_")]
            values = {name: _plain(getattr(link, name)) for name in names if _is_simple(getattr(link, name))}
            seen.append((type(link).__mro__, _plain(str(link)), len(link.args), sorted(names), values))
            seen.append(link.__suppress_context__)
            link = link.__cause__ or link.__context__
        self.trace.append(("error", seen, _frames(error)))


class _Handler(BaseCallbackHandler):
    """A user's own handler of LlamaIndex's older kind."""

    def __init__(self, trace: Trace) -> None:
        super().__init__([], [])
        self._trace = trace

    def on_event_start(self, event_type: Any, payload: Any = None, *args: Any, **kwargs: Any) -> str:
        self._trace.append(("start", event_type, sorted(map(str, payload or ()))))
        return str(kwargs.get("event_id", ""))

    def on_event_end(self, event_type: Any, payload: Any = None, *args: Any, **kwargs: Any) -> None:
        self._trace.append(("end", event_type, sorted(map(str, payload or ()))))

    def start_trace(self, trace_id: Any = None) -> None:
        self._trace.append(("trace", trace_id))

    def end_trace(self, trace_id: Any = None, trace_map: Any = None) -> None:
        self._trace.append(("trace ends", trace_id))


class _Logger(CustomLogger):
    """A user's own handler of LiteLLM's."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Any] = []

    def _note(self, event: str, kwargs: Any, response: Any) -> None:
        usage = getattr(response, "usage", None)
        self.events.append((event, type(response), repr(_plain(usage)), type(kwargs.get("exception"))))

    def log_pre_api_call(self, model: Any, messages: Any, kwargs: Any) -> None:
        self.events.append(("pre", *sorted(name for name in kwargs if name != "_token_callbacks")))

    def log_post_api_call(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self._note("post", kwargs, response_obj)

    def log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self._note("failure", kwargs, response_obj)


_ID = re.compile(
    r"0x[0-9a-f]+|[0-9a-f]{8}-[0-9a-f-]{27}|127\.0\.0\.1:\d+|(?<=chatcmpl-)[0-9a-f-]{20,}"
    r"|\b(?:msg|fc|call|toolu)_[0-9a-f_-]+|(?<=resp_)[\w=-]{20,}"
)
_VARYING = frozenset({"created", "created_at", "_hidden_params", "_response_ms", "date", "headers", "id_", "logprobs"})


def _plain(value: Any) -> Any:
    """Take an object apart into its class and its fields; what differs from call to call is left out."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, str):
        return _ID.sub("…", value)
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items() if key not in _VARYING}
    if isinstance(value, list | tuple):
        return [type(value), *map(_plain, value)]
    fields = getattr(value, "model_dump", None)
    if callable(fields):
        own = {name: _plain(item) for name, item in vars(value).items() if name not in _VARYING}
        extra = getattr(value, "__pydantic_extra__", None)
        return _kind(value), own, _plain(extra)
    if is_dataclass(value):
        return _kind(value), _plain(vars(value))
    return value if _is_simple(value) else _kind(value)


def _kind(value: Any) -> str:
    """Name a class: a Router makes one of its own for each stream."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _is_simple(value: Any) -> bool:
    return value is None or isinstance(value, str | bytes | int | float)


def _frames(error: BaseException) -> list[str]:
    """Name the functions that an exception came through, without ours."""
    names, trace = [], error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if "token_callbacks" not in code.co_filename and "/tests/" not in code.co_filename:
            names.append(code.co_name)
        trace = trace.tb_next
    return names


# --- scenarios


def _read(scene: Scene, stream: Any) -> None:
    scene.trace.append((_kind(stream), inspect.isgenerator(stream), iter(stream) is stream))
    for chunk in stream:
        scene.saw(chunk)


async def _aread(scene: Scene, coming: Any) -> None:
    stream = await coming
    scene.trace.append((_kind(stream), inspect.isasyncgen(stream)))
    async for chunk in stream:
        scene.saw(chunk)


def _tried(scene: Scene, call: Callable[[], Any]) -> None:
    try:
        scene.saw(call())
    except BaseException as error:  # noqa: BLE001 - whatever it is, it has to be the same
        scene.failed(error)


async def _atried(scene: Scene, coming: Awaitable[Any]) -> None:
    try:
        scene.saw(await coming)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it has to be the same
        scene.failed(error)


def _break(scene: Scene, stream: Any) -> None:
    for chunk in stream:
        scene.saw(chunk)
        break


def _protocol(scene: Scene, stream: Any) -> None:
    """Do with a generator what one can do."""
    scene.saw(next(stream))
    scene.saw(stream.send(None))
    _tried(scene, lambda: stream.throw(KeyError("thrown in")))
    _tried(scene, lambda: next(stream))
    _tried(scene, lambda: stream.send(None))
    _tried(scene, stream.close)


def _closed(scene: Scene, stream: Any) -> None:
    scene.saw(next(stream))
    _tried(scene, stream.close)
    _tried(scene, lambda: next(stream))


async def _aprotocol(scene: Scene, coming: Any) -> None:
    stream = await coming
    scene.saw(await anext(stream))
    scene.saw(await stream.asend(None))
    await _atried(scene, stream.athrow(KeyError("thrown in")))
    await _atried(scene, anext(stream))
    await _atried(scene, stream.aclose())


async def _aclosed(scene: Scene, coming: Any) -> None:
    stream = await coming
    scene.saw(await anext(stream))
    await _atried(scene, stream.aclose())
    await _atried(scene, anext(stream))


async def _cancelled(scene: Scene, read: Any) -> None:
    with scene.server.hold(after_chunks=2) as hold:
        task = asyncio.ensure_future(_aread(scene, read))
        await asyncio.to_thread(hold.reached.wait, 120)
        await asyncio.sleep(0.05)  # till what was sent has been read
        task.cancel("no longer wanted")
        await _atried(scene, task)


def _late(scene: Scene, call: Callable[[], Any]) -> None:
    with scene.server.hold():
        _tried(scene, call)


def _faulty(scene: Scene, call: Callable[[], Any], **fault: int) -> None:
    scene.server.fail_next(**fault, times=2)  # a stream that asked for its usage is sent again as it was
    _tried(scene, call)
    scene.server._faults.clear()


WAYS: dict[str, Callable[[Scene], Callable[..., Any]]] = {
    "litellm": lambda scene: lambda: litellm.completion(**scene.chat, stream=True),
    "llama_index": lambda scene: lambda: scene.llm().stream_chat(MESSAGES),
    "both": lambda scene: lambda: scene.over().stream_chat(MESSAGES),
}
"""The ways to stream."""

ASYNC_WAYS: dict[str, Callable[[Scene], Callable[..., Any]]] = {
    "litellm": lambda scene: lambda: litellm.acompletion(**scene.chat, stream=True),
    "llama_index": lambda scene: lambda: scene.llm().astream_chat(MESSAGES),
    "both": lambda scene: lambda: scene.over().astream_chat(MESSAGES),
}
"""The ways to stream in an event loop."""


def _of_both(name: str, scenario: Callable[[Scene, Callable[..., Any]], Any]) -> dict[str, Callable[[Scene], Any]]:
    """Make a scenario for each way to stream."""
    return {f"{way} {name}": _scenario(make, scenario) for way, make in WAYS.items()}


def _of_both_async(
    name: str, scenario: Callable[[Scene, Callable[..., Any]], Any]
) -> dict[str, Callable[[Scene], Any]]:
    """Make a scenario for each way to stream in an event loop."""
    return {f"{way} {name}": _scenario(make, scenario) for way, make in ASYNC_WAYS.items()}


def _scenario(make: Callable[[Scene], Callable[..., Any]], scenario: Callable[..., Any]) -> Callable[[Scene], Any]:
    return lambda scene: scenario(scene, make(scene))


SCENARIOS: dict[str, Callable[[Scene], Any]] = {
    "litellm plain": lambda it: it.saw(litellm.completion(**it.chat)),
    "litellm async": lambda it: _atried(it, litellm.acompletion(**it.chat)),
    "litellm embedding": lambda it: it.saw(
        litellm.embedding(model="openai/text-embedding-3-small", input=["a"], **it.here)
    ),
    "llama_index plain": lambda it: it.saw(it.llm().chat(MESSAGES)),
    "llama_index complete": lambda it: it.saw(it.llm().complete("When?")),
    "llama_index async": lambda it: _atried(it, it.llm().achat(MESSAGES)),
    "llama_index embedding": lambda it: it.saw(OpenAIEmbedding(**it.here).get_text_embedding("a")),
    "both plain": lambda it: it.saw(it.over().chat(MESSAGES)),
    "litellm timeout": lambda it: _late(it, lambda: litellm.completion(**it.chat, timeout=0.2)),
    "llama_index timeout": lambda it: _late(it, lambda: it.llm(timeout=0.2).chat(MESSAGES)),
    "litellm no server": lambda it: _tried(
        it, lambda: litellm.completion(**{**it.chat, "api_base": "http://127.0.0.1:9/v1"})
    ),
    "llama_index protocol": lambda it: _protocol(it, it.llm().stream_chat(MESSAGES)),
    "both protocol": lambda it: _protocol(it, it.over().stream_chat(MESSAGES)),
    "llama_index close": lambda it: _closed(it, it.llm().stream_chat(MESSAGES)),
    "both close": lambda it: _closed(it, it.over().stream_chat(MESSAGES)),
    "llama_index async protocol": lambda it: _aprotocol(it, it.llm().astream_chat(MESSAGES)),
    "llama_index aclose": lambda it: _aclosed(it, it.llm().astream_chat(MESSAGES)),
    "both aclose": lambda it: _aclosed(it, it.over().astream_chat(MESSAGES)),
    **_of_both("stream", lambda it, make: _read(it, make())),
    **_of_both("break", lambda it, make: _break(it, make())),
    **_of_both("never read", lambda it, make: it.trace.append(_kind(make()))),
    **_of_both("cut", lambda it, make: _faulty(it, lambda: _read(it, make()), cut_after=3)),
    **_of_both("error event", lambda it, make: _faulty(it, lambda: _read(it, make()), error_after=3)),
    **_of_both("refused stream", lambda it, make: _faulty(it, lambda: _read(it, make()), status=400)),
    **_of_both_async("async stream", lambda it, make: _aread(it, make())),
    **_of_both_async("cancel", lambda it, make: _cancelled(it, make())),
}
for _status in (400, 401, 404, 422, 429, 500, 503):
    SCENARIOS |= {
        f"litellm status {_status}": lambda it, status=_status: _faulty(
            it, lambda: litellm.completion(**it.chat), status=status
        ),
        f"llama_index status {_status}": lambda it, status=_status: _faulty(
            it, lambda: it.llm().chat(MESSAGES), status=status
        ),
    }


def _of_litellm(case: Case, scene: Scene) -> Any:
    """Play a way to call LiteLLM."""
    if not case.is_async:
        return _tried(scene, lambda: (_read if case.streamed else Scene.saw)(scene, case.answer(scene.server)))
    answer = case.answer(scene.server)
    return _atried(scene, _aread(scene, answer) if case.streamed else answer)


def _after_a_refusal(case: Case, scene: Scene) -> Any:
    scene.server.fail_next(status=500)
    return _of_litellm(case, scene)


def completion_with_retries(server: LoopbackServer, **options: Any) -> Any:
    """Chat, and have LiteLLM try again by tenacity."""
    return litellm.completion_with_retries(model=CHAT, messages=SHAPED, **openai_wire(server), **options)


async def acompletion_with_retries(server: LoopbackServer, **options: Any) -> Any:
    """Chat, and have LiteLLM try again by tenacity."""
    return await litellm.acompletion_with_retries(model=CHAT, messages=SHAPED, **openai_wire(server), **options)


async def _got(scene: Scene, coming: Awaitable[Any]) -> None:
    scene.saw(await coming)


async def _turns(scene: Scene, agent: Any) -> None:
    handler = agent.run(QUESTION)
    scene.saw([event async for event in handler.stream_events()])
    scene.saw(await handler)


for _case in (
    *PLAIN,
    *LITELLM_STREAMS,
    *(each for each in EMBEDDINGS if each.name.partition(" ")[2] in ("", "string")),
):
    SCENARIOS[f"litellm {_case.name}"] = partial(_of_litellm, _case)
for _call in (*SECOND_TRIES, completion_with_retries, acompletion_with_retries):
    for _streamed in (False, True):
        _case = Case(f"{_call.__name__}{' streamed' * _streamed}", _call, Operation.CHAT, streamed=_streamed)
        if _case.name not in ("router_retry streamed", "router_aretry"):  # the Router waits for a second each time
            SCENARIOS[f"litellm {_case.name} after a refusal"] = partial(_after_a_refusal, _case)
for _name, _method in STRUCTURED.items():
    SCENARIOS |= {
        f"llama_index {_name}": lambda it, call=_method: _got(it, call(it.llm())),
        f"both {_name}": lambda it, call=_method: _got(it, call(it.over())),
    }
for _name, (_ask, _options) in QUERIES.items():
    SCENARIOS[f"llama_index {_name}"] = lambda it, ask=_ask, options=_options: _got(
        it, ask(it.index().as_query_engine(llm=it.llm(), **options))
    )
for _name, _ask in CHATS.items():
    SCENARIOS[f"llama_index chat engine {_name}"] = lambda it, ask=_ask: _got(
        it, ask(it.index().as_chat_engine(ChatMode.CONDENSE_PLUS_CONTEXT, llm=it.llm()))
    )
for _name, (_build, _, _) in AGENTS.items():
    SCENARIOS |= {
        f"llama_index {_name}": lambda it, build=_build: _turns(it, build(it.llm(), streaming=False)),
        f"llama_index {_name}, in pieces": lambda it, build=_build: _turns(it, build(it.llm(), streaming=True)),
        f"both {_name}, in pieces": lambda it, build=_build: _turns(it, build(it.over(), streaming=True)),
    }

MODES = ("asked", "never", "refused")


@pytest.fixture(scope="module", autouse=True)
def frozen_heap() -> Iterator[None]:
    """Keep what was there before out of the collections, which take long otherwise."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def _instrumented(trace: Trace) -> tuple[BaseEventHandler, BaseSpanHandler[Any]]:
    """Give a user's own handlers of LlamaIndex's newer kind."""

    class Events(BaseEventHandler):
        def handle(self, event: Any, **kwargs: Any) -> None:
            trace.append(("event", type(event), sorted(vars(event))))

    class Spans(BaseSpanHandler[Any]):
        def new_span(self, id_: str, *args: Any, **kwargs: Any) -> None:
            trace.append(("span", id_.partition("-")[0]))

        def prepare_to_exit_span(self, id_: str, *args: Any, result: Any = None, **kwargs: Any) -> None:
            trace.append(("span ends", id_.partition("-")[0], type(result)))

        def prepare_to_drop_span(self, id_: str, *args: Any, err: Any = None, **kwargs: Any) -> None:
            trace.append(("span drops", id_.partition("-")[0], type(err)))

    return Events(), Spans()


@contextlib.contextmanager
def _listening(scene: Scene) -> Iterator[_Logger]:
    """Register all handlers that a user may have of his own."""
    root, logger = get_dispatcher(), _Logger()
    events, spans = _instrumented(scene.trace)
    before = root.event_handlers, root.span_handlers
    root.event_handlers, root.span_handlers = [*before[0], events], [*before[1], spans]
    try:
        with registered(logger):
            yield logger
    finally:
        root.event_handlers, root.span_handlers = before[0], before[1]


def _played(scenario: Callable[[Scene], Any], server: LoopbackServer) -> tuple[list[Any], list[Any], list[Any]]:
    scene = Scene(server)
    server.clear()
    server._faults.clear()
    threads = set(threading.enumerate())
    with _listening(scene) as logger:
        outcome = scenario(scene)
        if inspect.isawaitable(outcome):
            asyncio.run(_awaited(outcome))
        for thread in set(threading.enumerate()) - threads:  # LiteLLM tells of some failures on a thread of their own
            if "failure" in thread.name or ("Thread-" in thread.name and "_connection_worker" not in thread.name):
                thread.join(10)  # those of a chat engine's SQLite go on as long as it is there
    gc.collect()  # what was left is closed now, and not while a later request holds the lock of its pool
    sent = [(entry.endpoint, entry.model, entry.streamed, entry.status) for entry in server.ledger]
    return scene.trace.lanes, sorted(logger.events, key=repr), sent


async def _awaited(coming: Awaitable[Any]) -> Any:
    return await coming


@pytest.mark.parametrize(
    ("name", "mode"),
    [(name, mode) for name in SCENARIOS for mode in MODES if mode == "asked" or name.endswith(" stream")]
    + [(name, "refused") for name in SCENARIOS if name.endswith("completion streamed")],
)
def test_a_program_sees_the_same_with_us_as_without(
    loopback: Loopback, memory: MemorySink, name: str, mode: str
) -> None:
    """Answers, chunks, exceptions and other handlers' events are equal; so are the requests, but for a refused one."""
    server = loopback(stream_usage=mode, tokens=SAME, constant_id=True)
    uninstall()
    litellm.suppress_debug_info = True
    _played(SCENARIOS[name], server)  # what a framework does the first time only
    without = _played(SCENARIOS[name], server)
    counter = TokenCounter(log_dir=None, sinks=[memory])
    with counter.run("differential") as run:
        attached = _played(SCENARIOS[name], server)
    counter.close()

    assert without[0] == attached[0]
    assert without[1] == attached[1]
    if "refused" not in (mode, *name.split()):  # then the request was sent again as it was
        assert without[2] == attached[2]
    assert without[0]
    assert 0 == run.summary.internal_errors


def _in_loop(way: Callable[[Scene], Callable[..., Any]]) -> Callable[[Scene], Iterator[Any]]:
    """Read an async stream chunk by chunk from outside its loop."""

    def chunks(scene: Scene) -> Iterator[Any]:
        with asyncio.Runner() as runner:
            stream = runner.run(_awaited(way(scene)()))
            yield stream
            with contextlib.suppress(StopAsyncIteration):
                while True:
                    yield runner.run(_awaited(anext(stream)))

    return chunks


def _at_once(way: Callable[[Scene], Callable[..., Any]]) -> Callable[[Scene], Iterator[Any]]:
    def chunks(scene: Scene) -> Iterator[Any]:
        stream = way(scene)()
        yield stream
        yield from stream

    return chunks


STREAMS = {name: _at_once(way) for name, way in WAYS.items()}
STREAMS |= {f"{name} async": _in_loop(way) for name, way in ASYNC_WAYS.items()}
"""Each yields the stream itself, and then its chunks as they come."""


@pytest.fixture
def attached(loopback: Loopback, memory: MemorySink) -> Iterator[Scene]:
    """Give a scene with us attached."""
    counter = TokenCounter(log_dir=None, sinks=[memory])
    yield Scene(loopback(stream_usage="asked", tokens=SAME, constant_id=True))
    counter.close()


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_a_chunk_arrives_before_the_next_one_is_sent(attached: Scene, stream: Callable[[Scene], Iterator[Any]]) -> None:
    """A program has the first words of an answer while the server holds the others back."""

    def first_words() -> str:
        chunks = stream(attached)
        next(chunks)
        return next(words for chunk in chunks if (words := _words(chunk)))

    server = attached.server
    with ThreadPoolExecutor(1) as executor, server.hold(after_chunks=2):
        words = executor.submit(first_words).result(60)
        sent = [(entry.chunks_sent, entry.completed) for entry in server.ledger]

    assert pieces_of(CANNED)[0] == words
    assert [(2, False)] == sent


def _words(chunk: Any) -> str:
    said = chunk.delta if hasattr(chunk, "delta") else chunk.choices[0].delta.content
    return said or ""


def _caught(scene: Scene, call: Callable[[], Any]) -> BaseException:
    scene.server.fail_next(status=400, times=2)  # a stream that asked for its usage is sent again as it was
    with pytest.raises(Exception, match="loopback fault") as caught:
        call()
    scene.server._faults.clear()
    return caught.value


def _sent_by_hand(scene: Scene, **options: bool) -> list[Any]:
    """Send what an LLM class of a user's own sends, and give the response."""
    got = []
    body = {"model": "gpt-4o", "messages": SHAPED, **options}

    def send() -> str:
        with httpx.Client() as client:
            request = client.build_request("POST", f"{scene.server.base_url}/chat/completions", json=body)
            response = client.send(request, **options)
            response.read()
        assert response.request is request
        got.append(response)
        return "At nine."

    SendingLLM(send=send).chat(MESSAGES)
    return got


ANSWERS: dict[str, Callable[[Scene], Iterable[Any]]] = {
    **STREAMS,
    "litellm plain": lambda it: [litellm.completion(**it.chat)],
    "litellm plain async": lambda it: [asyncio.run(_awaited(litellm.acompletion(**it.chat)))],
    "litellm embedding": lambda it: [litellm.embedding(model="openai/text-embedding-3-small", input=["a"], **it.here)],
    "llama_index plain": lambda it: [it.llm().chat(MESSAGES)],
    "llama_index plain async": lambda it: [asyncio.run(_awaited(it.llm().achat(MESSAGES)))],
    "llama_index complete": lambda it: [it.llm().complete("When?")],
    "both plain": lambda it: [it.over().chat(MESSAGES)],
    "httpx in a call": _sent_by_hand,
    "httpx in a call, streamed": lambda it: _sent_by_hand(it, stream=True),
    "litellm error": lambda it: [_caught(it, lambda: litellm.completion(**it.chat))],
    "litellm stream error": lambda it: [_caught(it, lambda: litellm.completion(**it.chat, stream=True))],
    "llama_index error": lambda it: [_caught(it, lambda: it.llm().chat(MESSAGES))],
    "llama_index stream error": lambda it: [_caught(it, lambda: list(it.llm().stream_chat(MESSAGES)))],
}
"""Each gives all the objects that a program gets."""

MADE = (
    litellm.CustomStreamWrapper,
    litellm.EmbeddingResponse,
    litellm.ModelResponse,
    litellm.ModelResponseStream,
    litellm.BadRequestError,
    openai.BadRequestError,
    ChatResponse,
    CompletionResponse,
    httpx.Response,
)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect what the frameworks make, where they make it, and what LlamaIndex's own spans end with."""
    seen: list[Any] = []

    def noting(original: Callable[..., None]) -> Callable[..., None]:
        def note(self: Any, *args: Any, **kwargs: Any) -> None:
            seen.append(self)
            original(self, *args, **kwargs)

        return note

    class Results(BaseSpanHandler[Any]):
        def new_span(self, *args: Any, **kwargs: Any) -> None: ...

        def prepare_to_exit_span(self, *args: Any, result: Any = None, **kwargs: Any) -> None:
            seen.append(result)

        def prepare_to_drop_span(self, *args: Any, **kwargs: Any) -> None: ...

    for kind in MADE:
        monkeypatch.setattr(kind, "__init__", noting(kind.__init__))
    root = get_dispatcher()
    monkeypatch.setattr(root, "span_handlers", [Results(), *root.span_handlers])
    return seen


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_what_a_program_gets_is_what_the_framework_made(
    made: list[Any], attached: Scene, answer: Callable[[Scene], Iterable[Any]]
) -> None:
    """Answers, streams, chunks and exceptions are the very objects, and no copies or wrappers of ours."""
    got = list(answer(attached))

    assert got
    assert [] == [it for it in got if not any(it is each for each in made)]
