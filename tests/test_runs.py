"""Runs and steps as the user meets them, without any framework: a stand-in opens and closes calls on the ledger."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import subprocess
import sys
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import msgspec
import pytest

from token_callbacks import Run, RunSummary, TokenCounter
from token_callbacks.errors import CounterClosed, InvalidArgument, RunOrderError, UnknownOption
from token_callbacks.ledger import process_ledger
from token_callbacks.sinks.memory import MemorySink

from .calls import make_call, open_call


def test_a_call_lands_in_the_run_it_was_made_in(counter: TokenCounter) -> None:
    """A run counts its own calls, those of its steps included, and nothing else."""
    make_call(prompt=100, completion=100)
    with counter.run("nightly", tags={"team": "search"}) as run:
        make_call(prompt=3, completion=4)
        with run.step("judge"):
            make_call(prompt=5, completion=6)
        make_call(embedding=7)

    summary = run.summary
    assert (7, 8, 10, 18) == _four(summary)
    assert ("nightly", {"team": "search"}, "completed") == (summary.name, summary.tags, summary.outcome)
    assert [("judge", 1, 11)] == [(row.name, row.calls, row.total_llm_tokens) for row in summary.by_step]
    assert (2, 1) == (summary.calls.llm, summary.calls.embedding)


def test_the_summary_is_the_file(counter: TokenCounter) -> None:
    """What ``run.summary`` gives after the run is what lies on the disk."""
    with counter.run("nightly") as run:
        make_call(prompt=3, completion=4)

    assert run.summary_path is not None
    assert run.summary == msgspec.json.decode(run.summary_path.read_bytes(), type=RunSummary)


def test_a_summary_can_be_read_while_the_run_goes_on(counter: TokenCounter) -> None:
    """It says so, and what was used up to now."""
    with counter.run("nightly") as run:
        make_call(prompt=3, completion=4)
        summary = run.summary

        assert ("running", None, 7) == (summary.outcome, summary.ended_at, summary.total_llm_tokens)


def test_a_nested_run_is_a_run_of_its_own(counter: TokenCounter) -> None:
    """Each call is in exactly one run; the outer one tells the sum with its inner ones apart."""
    with counter.run("outer") as outer:
        make_call(prompt=3, completion=4)
        with counter.run("inner") as inner:
            make_call(prompt=30, completion=40)

    assert (None, outer.run_id) == (outer.summary.parent_run_id, inner.summary.parent_run_id)
    assert (7, 70) == (outer.summary.total_llm_tokens, inner.summary.total_llm_tokens)
    assert 77 == outer.summary.including_nested.total_llm_tokens


def test_a_run_that_ends_after_the_one_around_it_is_in_that_ones_file(counter: TokenCounter) -> None:
    """As a task in the background does."""
    with contextlib.ExitStack() as inside, counter.run("outer") as outer:
        context = contextvars.copy_context()
        inner = counter.run("inner")
        context.run(inner.__enter__)
        inside.callback(context.run, inner.__exit__, None, None, None)
        inside.callback(context.run, make_call, prompt=3, completion=4)
    assert outer.summary_path is not None
    written = msgspec.json.decode(outer.summary_path.read_bytes(), type=RunSummary)

    assert (0, 7) == (written.total_llm_tokens, written.including_nested.total_llm_tokens)
    assert outer.summary == written


def test_runs_that_end_after_many_around_them_do_not_write_all_of_them_again(
    counter: TokenCounter, memory: MemorySink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where each of many generators is dropped while the run of the next one is opened already."""
    written: list[str] = []
    write = memory.write_summary
    monkeypatch.setattr(counter, "_summary_writers", [lambda summary: (written.append(summary.run_id), write(summary))])
    runs, scopes = [], [counter.run(f"run {number}") for number in range(100)]
    for scope in scopes:
        runs.append(scope.__enter__())
        make_call(prompt=3, completion=4)
    for scope in scopes:
        contextvars.Context().run(scope.__exit__, None, None, None)

    assert len(written) < 100 * 20  # each of those around each would be 5,050
    counter.close()
    nested = [memory.summaries[run.run_id].including_nested.total_llm_tokens for run in runs]
    assert [7 * number for number in range(100, 0, -1)] == nested


def test_async_with_and_gather_keep_runs_apart(counter: TokenCounter) -> None:
    """Concurrent tasks each have their own current run."""

    async def one(size: int) -> int:
        async with counter.run(f"run {size}") as run:
            await asyncio.sleep(0)
            make_call(prompt=size, completion=0)
            async with run.step("late"):
                await asyncio.sleep(0)
                make_call(prompt=size, completion=0)
        return run.summary.llm_prompt_tokens

    async def many() -> list[int]:
        return await asyncio.gather(*[one(size) for size in range(1, 20)])

    assert [2 * size for size in range(1, 20)] == asyncio.run(many())


def test_a_decorated_function_is_a_run_a_call(counter: TokenCounter, memory: MemorySink) -> None:
    """Functions and coroutine functions keep their results; recursion nests."""

    @counter.run("countdown")
    def countdown(size: int) -> int:
        make_call(prompt=size, completion=0)
        return 0 if size == 1 else 1 + countdown(size - 1)

    @counter.run("greet")
    async def greet() -> str:
        make_call(prompt=9, completion=0)
        return "hello"

    assert 2 == countdown(3)
    assert "hello" == asyncio.run(greet())
    summaries = list(memory.summaries.values())
    assert [("countdown", 1), ("countdown", 2), ("countdown", 3), ("greet", 9)] == [
        (summary.name, summary.llm_prompt_tokens) for summary in summaries
    ]
    assert [1, 3, 6] == [summary.including_nested.llm_prompt_tokens for summary in summaries[:3]]


def test_a_generator_function_cannot_be_a_run(counter: TokenCounter) -> None:
    """Its body runs in pieces inside somebody else's run, so the error says where to open one instead."""

    def pieces() -> Iterator[int]:
        yield 3

    with pytest.raises(InvalidArgument, match="open the run in the code that consumes it"):
        counter.run("pieces")(pieces)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ValueError("boom"), "failed"),
        (KeyboardInterrupt(), "cancelled"),
        (asyncio.CancelledError(), "cancelled"),
        (SystemExit(0), "completed"),
        (SystemExit(3), "failed"),
    ],
    ids=repr,
)
def test_the_outcome_follows_the_exception(counter: TokenCounter, error: BaseException, outcome: str) -> None:
    """The exception goes on to the host as it is."""
    scope = counter.run("doomed")
    with pytest.raises(type(error)) as caught, scope as run:
        raise error

    assert error is caught.value
    assert outcome == run.summary.outcome


def test_runs_closed_in_the_wrong_order_are_an_error_that_can_be_mended(counter: TokenCounter) -> None:
    """The error names both runs and what to do; doing that ends both as if nothing had happened."""
    outer, inner = counter.run("outer"), counter.run("inner")
    run = outer.__enter__()
    inner.__enter__()
    with pytest.raises(RunOrderError, match=r"run 'outer' is left while run 'inner', .* leave that one first"):
        outer.__exit__(None, None, None)
    inner.__exit__(None, None, None)
    outer.__exit__(None, None, None)

    assert "completed" == run.summary.outcome


def test_a_run_left_with_a_step_open_is_an_error(counter: TokenCounter) -> None:
    """A step is held to the same order."""
    scope = counter.run("outer")
    run = scope.__enter__()
    step = run.step("plan")
    step.__enter__()
    with pytest.raises(RunOrderError, match="step 'plan'"):
        scope.__exit__(None, None, None)
    step.__exit__(None, None, None)
    scope.__exit__(None, None, None)


def test_a_run_may_be_left_in_another_context(counter: TokenCounter) -> None:
    """Async fixtures and web frameworks enter and leave in different contexts; that is no error."""
    scope = counter.run("split")
    run = contextvars.copy_context().run(scope.__enter__)
    contextvars.copy_context().run(scope.__exit__, None, None, None)

    assert "completed" == run.summary.outcome


def test_a_run_in_a_generator_that_is_dropped_is_not_current_for_its_reader(
    counter: TokenCounter, memory: MemorySink
) -> None:
    """A ``break`` leaves an async generator to the event loop, which closes it in a task of its own."""

    async def pieces() -> AsyncIterator[str]:
        async with counter.run("answer") as run:
            with run.step("write"):
                yield "piece"

    async def answer() -> Run:
        async with counter.run("outer") as run:
            for _ in range(3):
                async for _ in pieces():
                    break
                await asyncio.sleep(0)  # the loop closes it in its next round
                await asyncio.sleep(0)
                make_call(prompt=3, completion=4)
        make_call(prompt=5, completion=6)
        return run

    run = asyncio.run(answer())

    assert (3, 21) == (run.summary.calls.llm, run.summary.total_llm_tokens)
    assert 11 == counter.default_run.summary.total_llm_tokens
    assert {run.run_id} == {it.parent_run_id for it in memory.summaries.values() if it.name == "answer"}


def _opened(counter: TokenCounter) -> Iterator[str]:
    with counter.run("answer"):
        yield "piece"


def _left_inside_a_later_run(counter: TokenCounter) -> None:
    pieces = _opened(counter)
    next(pieces)
    with counter.run("later"):
        pieces.close()  # type: ignore[attr-defined]


def _left_by_another_thread(counter: TokenCounter) -> None:
    pieces = _opened(counter)
    next(pieces)
    with ThreadPoolExecutor(1) as thread:
        thread.submit(pieces.close).result()  # type: ignore[attr-defined]


def _left_without_its_context(counter: TokenCounter) -> None:
    scope = counter.run("answer")
    scope.__enter__()
    contextvars.Context().run(scope.__exit__, None, None, None)


def _left_with_an_error_while_one_inside_is_open(counter: TokenCounter) -> None:
    outer, inner = counter.run("outer"), counter.run("inner")
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(ValueError, ValueError(), None)
    inner.__exit__(None, None, None)


@pytest.mark.parametrize(
    "leave",
    [
        _left_inside_a_later_run,
        _left_by_another_thread,
        _left_without_its_context,
        _left_with_an_error_while_one_inside_is_open,
    ],
)
def test_a_run_that_was_left_is_nobodys_current_one(
    counter: TokenCounter, memory: MemorySink, leave: Callable[[TokenCounter], None]
) -> None:
    """However it was left: the next call here is none of its."""
    leave(counter)
    make_call(prompt=3, completion=4)

    assert [counter.default_run.run_id] == [record.run_id for record in memory.records]


async def _close(answering: AsyncGenerator[str, None]) -> None:
    async for _ in answering:
        break
    await answering.aclose()


async def _drop(answering: AsyncGenerator[str, None]) -> None:
    async for _ in answering:
        break
    del answering
    await _round_of_the_loop()


async def _drop_last(answering: AsyncGenerator[str, None]) -> None:
    await asyncio.create_task(_drop(answering))  # which goes on as long as a web server's task for a request


async def _round_of_the_loop() -> None:
    """Have the event loop close what was dropped."""
    for _ in range(3):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    "read",
    [
        _close,
        _drop_last,
        pytest.param(
            _drop, marks=pytest.mark.xfail(strict=True, reason="a copy of the context does not tell who made it")
        ),
    ],
)
def test_what_a_generator_began_in_its_run_stays_in_it(
    counter: TokenCounter, memory: MemorySink, read: Callable[[AsyncGenerator[str, None]], Awaitable[None]]
) -> None:
    """An agent goes on when the browser has left, its reader closed the generator or dropped it."""
    started: list[asyncio.Task[None]] = []
    go_on = asyncio.Event()

    async def call_later() -> None:
        await go_on.wait()
        make_call(prompt=3, completion=4)

    async def pieces() -> AsyncGenerator[str, None]:
        async with counter.run("answer"):
            started.append(asyncio.create_task(call_later()))
            yield "piece"

    async def answer() -> None:
        await read(pieces())
        await _round_of_the_loop()
        go_on.set()
        await started[0]

    asyncio.run(answer())
    [record] = memory.records

    assert ["answer"] == [it.name for it in memory.summaries.values() if it.run_id == record.run_id]


def test_what_a_reader_starts_once_it_dropped_a_generator_is_not_in_its_run(
    counter: TokenCounter, memory: MemorySink
) -> None:
    """Tasks have copies of its context, which never got to know that the run is over."""

    async def pieces() -> AsyncIterator[str]:
        async with counter.run("answer"):
            yield "piece"

    async def ask() -> None:
        make_call(prompt=3, completion=4)

    async def answer() -> None:
        async for _ in pieces():
            break
        await asyncio.sleep(0)  # the loop closes it in its next round
        await asyncio.sleep(0)
        await asyncio.gather(ask(), asyncio.to_thread(make_call, prompt=3, completion=4))

    asyncio.run(answer())

    assert [counter.default_run.run_id] * 2 == [record.run_id for record in memory.records]


def test_a_dropped_generator_leaves_nothing_in_the_context_of_a_reader_that_has_ended(
    counter: TokenCounter, memory: MemorySink
) -> None:
    """A test's is that of its fixtures, and a notebook's of its next cell."""
    outer = counter.run("outer")

    async def pieces() -> AsyncGenerator[str, None]:
        async with counter.run("answer"):
            yield "piece"

    async def ask() -> None:
        make_call(prompt=3, completion=4)

    context = contextvars.copy_context()
    with asyncio.Runner() as runner:
        run = runner.run(outer.__aenter__(), context=context)  # type: ignore[arg-type]  # it is a coroutine
        runner.run(_drop(pieces()), context=context)
        runner.run(ask(), context=context)
        runner.run(outer.__aexit__(None, None, None), context=context)  # type: ignore[arg-type]

    assert [run.run_id] == [record.run_id for record in memory.records]
    assert not run.is_open


def test_a_dropped_generator_keeps_no_run_around_it_from_being_left(counter: TokenCounter) -> None:
    """In a copy of its reader's context, neither, though the reader has ended."""
    outer = counter.run("outer")

    async def pieces() -> AsyncGenerator[str, None]:
        async with counter.run("answer"):
            yield "piece"

    async def answer() -> tuple[Run, contextvars.Context]:
        run = outer.__enter__()
        await _drop(pieces())
        return run, contextvars.copy_context()

    run, copied = asyncio.run(answer())
    copied.run(outer.__exit__, None, None, None)

    assert not run.is_open


def test_a_run_that_was_left_elsewhere_keeps_no_other_one_from_being_left(counter: TokenCounter) -> None:
    """Neither in the context that still has it nor in a copy of that."""
    outer, inner = counter.run("outer"), counter.run("inner")
    run = outer.__enter__()
    inner.__enter__()
    contextvars.Context().run(inner.__exit__, None, None, None)
    contextvars.copy_context().run(outer.__exit__, None, None, None)

    assert not run.is_open


def test_a_run_that_ends_before_a_call_that_was_sent_tells_the_least_that_it_used(counter: TokenCounter) -> None:
    """Of what is open nobody knows what it uses; once it has ended, it is in."""
    with counter.run("ends first") as run:
        call = open_call()
    assert run.summary_path is not None
    written = [msgspec.json.decode(run.summary_path.read_bytes(), type=RunSummary)]
    make_call(prompt=3, completion=4, call=call)
    written.append(msgspec.json.decode(run.summary_path.read_bytes(), type=RunSummary))

    assert [(0, True), (7, False)] == [(it.total_llm_tokens, it.lower_bound) for it in written]


def test_a_late_call_is_in_the_files_of_all_runs_around_it(counter: TokenCounter) -> None:
    """They ended before it, as its own did."""
    with counter.run("outer") as outer, counter.run("inner"):
        call = open_call()
    make_call(prompt=3, completion=4, call=call)
    assert outer.summary_path is not None
    written = msgspec.json.decode(outer.summary_path.read_bytes(), type=RunSummary)

    assert 7 == written.including_nested.total_llm_tokens


def test_tasks_that_use_one_object_leave_each_its_own_run(counter: TokenCounter, memory: MemorySink) -> None:
    """The first one that entered is the first one that leaves."""
    scope, has_entered, has_left = counter.run("shared"), asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with scope:
            await has_entered.wait()
            make_call(prompt=3, completion=4)
            raise ValueError
        raise AssertionError

    async def second() -> None:
        async with scope:
            has_entered.set()
            await has_left.wait()
            make_call(prompt=5, completion=6)

    async def both() -> None:
        one, other = asyncio.create_task(first()), asyncio.create_task(second())
        with contextlib.suppress(ValueError):
            await one
        has_left.set()
        await other

    asyncio.run(both())

    told = {(it.outcome, it.llm_prompt_tokens, it.calls.llm) for it in memory.summaries.values()}
    assert {("failed", 3, 1), ("completed", 5, 1)} == told


def test_a_run_whose_task_is_cancelled_again_while_it_ends_has_its_summary(
    counter: TokenCounter, memory: MemorySink
) -> None:
    """A cancel scope, as web servers stop requests with, cancels every await: also the one for an end event to come."""

    async def stopped() -> Run:
        with anyio.CancelScope() as scope:
            async with counter.run("request") as run:
                call = open_call()
                call.is_answered = call.reports_late = True
                scope.cancel()
                await anyio.sleep_forever()
        return run

    run = asyncio.run(stopped())

    assert [(run.run_id, "completed")] == [(record.run_id, record.outcome) for record in memory.records]
    assert ("cancelled", 1) == (memory.summaries[run.run_id].outcome, memory.summaries[run.run_id].calls.llm)


def test_jobs_that_start_one_another_from_inside_their_run_are_let_go_of(counter: TokenCounter) -> None:
    """As a timer set in a run does: it fires in a copy of the run's context, when that run has ended."""
    begun: list[weakref.ref[Run]] = []
    held: list[int] = []

    async def jobs() -> None:
        is_done = asyncio.Event()

        def job() -> None:
            with counter.run("job") as run:
                make_call(prompt=3, completion=4)
                begun.append(weakref.ref(run))
                if len(begun) < 20:
                    asyncio.get_running_loop().call_soon(job)
                    return
                gc.collect()
                held.append(sum(each() is not None for each in begun))
                is_done.set()

        job()
        await is_done.wait()

    asyncio.run(jobs())

    assert 3 >= held[0]


def test_a_closed_counter_says_what_to_do(counter: TokenCounter) -> None:
    """Neither the counter nor its runs can be used to open anything any more; what was counted stays readable."""
    with counter.run("over") as run:
        make_call(prompt=3, completion=4)
    counter.close()
    counter.close()

    with pytest.raises(CounterClosed, match=r"make a new TokenCounter\(\)"):
        counter.run("late")
    with pytest.raises(CounterClosed):
        run.step("late")
    assert 7 == run.summary.total_llm_tokens


def test_closing_ends_open_runs_and_abandons_open_calls(counter: TokenCounter, memory: MemorySink) -> None:
    """Nothing vanishes with the counter."""
    scope = counter.run("open")
    run = scope.__enter__()
    open_call()
    counter.close()
    scope.__exit__(None, None, None)

    assert ("cancelled", 1) == (run.summary.outcome, run.summary.calls.abandoned)
    assert ["abandoned"] == [record.outcome for record in memory.records]


def test_closing_one_counter_leaves_the_others_their_calls(counter: TokenCounter, memory: MemorySink) -> None:
    """A call under way is abandoned for the counter that closes, and goes on for the one that stays."""
    other_sink = MemorySink()
    other = TokenCounter(log_dir=None, sinks=[other_sink])
    call = open_call()
    other.close()
    make_call(prompt=3, completion=4, call=call)

    assert ["abandoned"] == [record.outcome for record in other_sink.records]
    assert [("completed", 3)] == [(record.outcome, record.usage.prompt_tokens) for record in memory.records]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"logdir": "x"}, UnknownOption, "no option 'logdir'; it has log_dir"),
        ({"log_dir": 3}, InvalidArgument, "path of a folder"),
        ({"log_dir": ""}, InvalidArgument, "path of a folder"),
        ({"log_dir": "a\0b"}, InvalidArgument, "path of a folder"),
        ({"frameworks": ("langchain",)}, InvalidArgument, "'llama_index', 'litellm'"),
        ({"frameworks": "litellm"}, InvalidArgument, "'llama_index', 'litellm'"),
        ({"sinks": ["stdout"]}, InvalidArgument, "write_record, write_summary"),
        ({"drain_seconds": -1}, InvalidArgument, "0 or more"),
        ({"drain_seconds": float("nan")}, InvalidArgument, "0 or more"),
        ({"drain_seconds": "2"}, InvalidArgument, "0 or more"),
    ],
    ids=repr,
)
def test_wrong_options_are_our_own_error(options: dict[str, object], error: type[Exception], message: str) -> None:
    """The text gives the value and what would be right; no half-made counter takes part afterwards."""
    before = process_ledger().participants
    with pytest.raises(error, match=message):
        TokenCounter(**options)  # type: ignore[arg-type]

    assert before == process_ledger().participants


@pytest.mark.parametrize("name", ["", None, 3], ids=repr)
def test_a_run_and_a_step_need_a_name(counter: TokenCounter, name: object) -> None:
    """An empty name is caught where it is given."""
    with pytest.raises(InvalidArgument, match="non-empty string"):
        counter.run(name)  # type: ignore[arg-type]
    with counter.run("named") as run, pytest.raises(InvalidArgument, match="non-empty string"):
        run.step(name)  # type: ignore[arg-type]


@pytest.mark.parametrize("tags", ["team", {"team": 3}, {3: "team"}, [("team", "search")]], ids=repr)
def test_tags_are_strings(counter: TokenCounter, tags: object) -> None:
    """Tags of another shape are caught where they are given."""
    with pytest.raises(InvalidArgument, match="strings to strings"):
        counter.run("tagged", tags=tags)  # type: ignore[arg-type]


def test_two_counters_write_two_logs(counter: TokenCounter, memory: MemorySink) -> None:
    """Each has every call once; a run belongs to the counter that opened it."""
    other_sink = MemorySink()
    other = TokenCounter(log_dir=None, sinks=[other_sink])
    with counter.run("mine") as run:
        make_call(prompt=3, completion=4)
    other.close()

    assert (1, 1) == (len(memory.records), len(other_sink.records))
    assert run.run_id == memory.records[0].run_id
    assert ["default"] == [summary.name for summary in other_sink.summaries.values()]


def test_a_late_call_reissues_the_summary(counter: TokenCounter) -> None:
    """A call that ends after its run is still that run's, on the disk too."""
    with counter.run("early") as run:
        call = open_call()
    assert run.summary_path is not None
    before = run.summary_path.read_bytes()
    make_call(prompt=3, completion=4, call=call)

    assert 7 == run.summary.total_llm_tokens
    assert before != run.summary_path.read_bytes()
    assert 7 == msgspec.json.decode(run.summary_path.read_bytes(), type=RunSummary).total_llm_tokens


def test_threads_count_exactly(counter: TokenCounter) -> None:
    """Many threads in one run, with the context handed on: no call is lost and none doubled."""
    with counter.run("threads") as run, ThreadPoolExecutor(8) as pool:
        contexts = [contextvars.copy_context() for _ in range(400)]
        list(pool.map(lambda context: context.run(make_call, prompt=3, completion=4), contexts))

    assert (400, 1200, 1600) == (
        run.summary.calls.llm,
        run.summary.llm_prompt_tokens,
        run.summary.llm_completion_tokens,
    )


def test_calls_outside_any_run_are_summed_up_at_exit(tmp_path: Path) -> None:
    """A script that knows no runs finds one summary when it has ended, without closing anything."""
    script = tmp_path / "script.py"
    script.write_text(
        "from token_callbacks import TokenCounter\n"
        "from tests.calls import make_call\n"
        "counter = TokenCounter(log_dir='logs')\n"
        "make_call(prompt=3, completion=4)\n"
        "make_call(prompt=5, completion=6)\n"
    )
    root = Path(__file__).parent.parent
    subprocess.run([sys.executable, script], check=True, cwd=tmp_path, env={"PYTHONPATH": str(root)})

    [path] = (tmp_path / "logs" / "runs").iterdir()
    summary = msgspec.json.decode(path.read_bytes(), type=RunSummary)
    assert ("default", "completed", 18) == (summary.name, summary.outcome, summary.total_llm_tokens)
    [lines] = (tmp_path / "logs").glob("calls-*.jsonl")
    assert 2 == len(lines.read_text().splitlines())


def _four(summary: RunSummary) -> tuple[int, int, int, int]:
    return (
        summary.embedding_tokens,
        summary.llm_prompt_tokens,
        summary.llm_completion_tokens,
        summary.total_llm_tokens,
    )
