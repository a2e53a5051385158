"""Many processes write into one folder, and a run that spans them has one summary."""

from __future__ import annotations

import contextlib
import contextvars
import errno
import functools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.calls import make_call, open_call
from tests.conftest import Loopback
from token_callbacks import CallRecord, TokenCounter, recovery
from token_callbacks import counter as counters
from token_callbacks.errors import InvalidArgument
from token_callbacks.recovery import recover
from token_callbacks.sinks.log_folder import LogFolder
from token_callbacks.sinks.memory import MemorySink

from .conftest import Start, disk_full_at, ended, go_on, line_from, markers, records, summaries


def test_forked_workers_lose_no_line_and_their_run_has_one_summary(
    start: Start, loopback: Loopback, log_dir: Path
) -> None:
    """Each child writes a file of its own; the parent's run sums up all, also what the killed one had closed."""
    server = loopback()
    run_id, told = ended(start("fork_workers", server.base_url, log_dir, 5))
    ledger = {entry.response_id: entry for entry in server.ledger}
    made = [record for record in records(log_dir) if record.outcome == "completed"]
    found = summaries(log_dir)

    assert set(ledger) == {record.response_id for record in made}
    assert len(ledger) == len(made)
    assert 5 == len(list(log_dir.glob("calls-*.jsonl")))
    assert found[run_id].total_llm_tokens == int(told)
    own = sum(record.usage.total_llm_tokens for record in made if record.run_id == run_id)
    nested = sum(it.total_llm_tokens for it in found.values() if it.name == "worker")
    assert (own, own + nested) == (found[run_id].total_llm_tokens, found[run_id].including_nested.total_llm_tokens)
    total = server.ledger_totals()
    assert total.prompt_tokens + total.completion_tokens == sum(it.total_llm_tokens for it in found.values())


def test_a_call_open_at_a_fork_is_the_parents_alone(start: Start, loopback: Loopback, log_dir: Path) -> None:
    """The children that inherit it record nothing of it."""
    ended(start("fork_workers", loopback().base_url, log_dir, 1))

    assert 1 == sum(record.outcome == "abandoned" for record in records(log_dir))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_process_pool_is_part_of_the_run_whose_token_it_gets(
    start: Start, loopback: Loopback, log_dir: Path, method: str
) -> None:
    """Tasks of both kinds of pools take part; the summary is the server's sum."""
    server = loopback()
    run_id, told = ended(start("pool", server.base_url, log_dir, method, 6))
    total = server.ledger_totals()

    assert 7 == total.requests
    assert total.prompt_tokens + total.completion_tokens == int(told)
    assert [run_id] == list(summaries(log_dir))
    assert int(told) == summaries(log_dir)[run_id].total_llm_tokens


def test_the_environment_makes_a_process_part_of_a_run(
    start: Start, loopback: Loopback, counter: TokenCounter, log_dir: Path
) -> None:
    """Its calls outside any other run are the run's, its runs are inside it, and the end of the parent sums up."""
    server = loopback()
    with counter.run("parent") as run:
        process = start("part", server.base_url, log_dir, TOKEN_CALLBACKS_RUN=run.token)
        line_from(process)
        go_on(process)
        line_from(process)
        go_on(process)
        ended(process)
    total = server.ledger_totals()

    assert (3, 2) == (total.requests, run.summary.calls.llm)
    tokens = total.prompt_tokens + total.completion_tokens
    assert tokens == run.summary.including_nested.total_llm_tokens
    assert run.summary == summaries(log_dir)[run.run_id]
    assert [] == markers(log_dir)


def test_a_part_that_ends_after_the_run_adds_to_its_summary(
    start: Start, loopback: Loopback, counter: TokenCounter, log_dir: Path
) -> None:
    """The last process to leave writes the summary anew, with what the parent had."""
    server = loopback()
    with counter.run("parent", tags={"team": "search"}) as run:
        make_call(prompt=3, completion=4)
        process = start("part", server.base_url, log_dir, TOKEN_CALLBACKS_RUN=run.token)
        line_from(process)
    between = summaries(log_dir)[run.run_id]
    go_on(process)
    line_from(process)
    go_on(process)
    ended(process)
    after = summaries(log_dir)[run.run_id]
    total = server.ledger_totals()

    assert (2, 3) == (between.calls.llm, after.calls.llm)
    tokens = total.prompt_tokens + total.completion_tokens + 7
    assert tokens == after.including_nested.total_llm_tokens
    assert ("parent", {"team": "search"}, "completed") == (after.name, after.tags, after.outcome)
    assert [] == markers(log_dir)


def test_a_part_that_is_killed_after_the_run_is_recovered(
    start: Start, loopback: Loopback, counter: TokenCounter, log_dir: Path
) -> None:
    """What it had closed is in the summary after a recovery; how the run ended stays as it was."""
    server = loopback()
    with counter.run("parent") as run:
        process = start("part", server.base_url, log_dir, TOKEN_CALLBACKS_RUN=run.token)
        line_from(process)
    go_on(process)
    line_from(process)
    process.kill()
    process.communicate()
    recover(log_dir)
    after = summaries(log_dir)[run.run_id]
    total = server.ledger_totals()

    assert total.prompt_tokens + total.completion_tokens == after.including_nested.total_llm_tokens
    assert "completed" == after.outcome
    assert [] == markers(log_dir)


def test_joining_again_and_again_counts_once(counter: TokenCounter, log_dir: Path) -> None:
    """A second counter that leaves and joins a run as its tasks come adds each call once, before and after the end."""
    other = TokenCounter(log_dir=log_dir, frameworks=("llama_index",))
    with counter.run("parent") as run:
        for _ in range(3):
            with other.join_run(run.token):
                pass
        make_call(prompt=3, completion=4)
    with other.join_run(run.token), other.join_run(run.token):
        pass
    other.close()

    assert (1, 7) == (summaries(log_dir)[run.run_id].calls.llm, summaries(log_dir)[run.run_id].total_llm_tokens)
    assert [] == markers(log_dir)


def test_joining_in_the_process_that_opened_the_run_leaves_it_open(counter: TokenCounter) -> None:
    """A thread of one's own may join by the token as well; the run ends where it was opened."""
    with counter.run("parent") as run:
        with counter.join_run(run.token) as same:
            make_call(prompt=3, completion=4)
        assert same is run
        assert run.is_open
        make_call(prompt=5, completion=6)

    assert 18 == run.summary.total_llm_tokens


class _Refusing(MemorySink):
    is_refusing = False

    def write_record(self, record: CallRecord) -> None:
        if self.is_refusing:
            raise OSError("no")
        super().write_record(record)


def test_a_late_call_of_a_run_that_spans_processes_is_added(counter: TokenCounter, log_dir: Path) -> None:
    """It ends after the run and after its summary, which is made anew from the lines."""
    with counter.run("parent") as run:
        call = open_call()
        assert run.token == run.run_id
    make_call(prompt=3, completion=4, call=call)

    assert 7 == summaries(log_dir)[run.run_id].total_llm_tokens
    assert [] == markers(log_dir)


def test_what_a_part_lost_is_told_once(log_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the part was entered again before its late calls ended."""
    monkeypatch.setattr(counters, "_LATE_SHARE", 0)
    sink = _Refusing()
    owner, part = TokenCounter(log_dir=log_dir), TokenCounter(log_dir=log_dir, sinks=[sink])
    try:
        with owner.run("owned") as run:
            with part.join_run(run.token):
                late = [open_call() for _ in range(4)]
            with part.join_run(run.token):
                for call in late:
                    sink.is_refusing = call is late[0]
                    make_call(prompt=3, completion=4, call=call)
    finally:
        part.close()
        owner.close()

    assert 1 == summaries(log_dir)[run.run_id].lost_records


def test_late_calls_of_a_run_that_spans_processes_are_added_together(
    counter: TokenCounter, log_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All its lines are read for a summary, so that each call would wait longer than the one before."""
    settled: list[str] = []
    settle = recovery.settle
    monkeypatch.setattr(recovery, "settle", lambda *args: (settled.append(args[1]), settle(*args)))
    with counter.run("parent") as run:
        late = [open_call() for _ in range(200)]
        assert run.token == run.run_id
    for call in late:
        make_call(prompt=3, completion=4, call=call)

    assert 1 <= len(settled) < 100
    with counter.run("next"):
        pass
    assert 200 * 7 == summaries(log_dir)[run.run_id].total_llm_tokens
    assert [] == markers(log_dir)


def test_runs_that_span_processes_and_end_before_those_inside_them_are_added_together(
    counter: TokenCounter, log_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each end tells all those around it something, and reads all lines once for each of them."""
    monkeypatch.setattr(counters, "_LATE_SHARE", 10**6)
    settled: list[str] = []
    settle = recovery.settle
    monkeypatch.setattr(recovery, "settle", lambda *args: (settled.append(args[1]), settle(*args)))
    leaving: list[Callable[[], object]] = []
    context = contextvars.copy_context()
    for number in range(20):
        context, scope = context.copy(), counter.run(f"run {number}")
        assert context.run(scope.__enter__).token
        context.run(make_call, prompt=3, completion=4)
        leaving.append(functools.partial(context.run, scope.__exit__, None, None, None))
    for leave in leaving:
        leave()
    during = len(settled)
    counter.close()

    assert 20 > during
    assert [7 * number for number in range(1, 21)] == sorted(
        it.including_nested.total_llm_tokens for it in summaries(log_dir).values()
    )
    assert [] == markers(log_dir)


@pytest.mark.parametrize("token", ["", "../../etc", "20261121T050000-0123456789ab/..", None, 3, "x" * 10_000], ids=repr)
def test_what_is_no_token_is_our_own_error(counter: TokenCounter, token: object) -> None:
    """A token is made part of a path, so nothing else is taken for one; the error says where to get it."""
    with pytest.raises(InvalidArgument, match=r"run\.token of the process that opened the run") as caught:
        counter.join_run(token)  # type: ignore[arg-type]

    assert 300 > len(str(caught.value))


def test_an_environment_that_names_no_run_hurts_nobody(
    log_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Who set it is not who makes the counter: it is told in the log and left alone."""
    monkeypatch.setenv("TOKEN_CALLBACKS_RUN", "../../etc/passwd")
    counter = TokenCounter(log_dir=log_dir)
    make_call(prompt=3, completion=4)
    counter.close()

    assert ["default"] == [it.name for it in summaries(log_dir).values()]
    assert "is not the token of a run" in caplog.text


def test_without_a_folder_a_run_cannot_span_processes() -> None:
    """The error says why, on both sides."""
    counter = TokenCounter(log_dir=None)
    with counter.run("light") as run, pytest.raises(InvalidArgument, match="without log_dir"):
        run.token  # noqa: B018
    with pytest.raises(InvalidArgument, match="without log_dir"):
        counter.join_run("20261121T050000-0123456789ab")
    counter.close()


def test_a_forked_child_that_ends_normally_leaves_the_parents_run_open(counter: TokenCounter, log_dir: Path) -> None:
    """Neither its way out of the block nor its exit writes the parent's summary."""
    with counter.run("parent") as run:
        make_call(prompt=3, completion=4)
        child = os.fork()
        if child == 0:
            make_call(prompt=5, completion=6)
            counter.close()
            os._exit(0)
        os.waitpid(child, 0)
        assert {} == summaries(log_dir)

    assert (18, 2) == (run.summary.total_llm_tokens, run.summary.calls.llm)
    assert [18] == [it.total_llm_tokens for it in summaries(log_dir).values()]


@pytest.mark.parametrize("module", ["genai_prices.data_snapshot", "token_callbacks.counting"])
def test_a_child_that_is_forked_during_an_import_of_ours_counts(start: Start, log_dir: Path, module: str) -> None:
    """Python's lock of what another thread was importing stays locked in the child: the fork waits for its end."""
    told = ended(start("fork_in_import", log_dir, module))

    assert ["0"] == told
    assert 2 == len(summaries(log_dir))
    assert 1 == len({(it.total_llm_tokens, it.internal_errors) for it in summaries(log_dir).values()})


def test_an_import_of_ours_under_somebody_elses_lock_stops_no_fork(start: Start, log_dir: Path) -> None:
    """A fork takes locks that others take at forks, logging's for one: no lock of ours may be held meanwhile."""
    assert ["0"] == ended(start("fork_beside_a_lock", log_dir))


def test_an_interrupt_during_a_forks_wait_is_raised_after_it(start: Start, log_dir: Path) -> None:
    """Python drops what is raised in a hook of a fork."""
    assert ["interrupted"] == ended(start("interrupt_a_waiting_fork", log_dir))


def test_a_child_that_is_forked_while_runs_are_added_up_keeps_no_lock(counter: TokenCounter, log_dir: Path) -> None:
    """Else nobody could add up for as long as it lives."""
    with counter.run("forks"):
        make_call(prompt=3, completion=4)
    folder = LogFolder(log_dir)
    goes_on, ends = os.pipe()
    with folder.locked(0.0) as is_ours:
        child = os.fork()
        if child == 0:  # pragma: no cover - it holds what it has, and ends with the pipe
            os.close(ends)
            os.read(goes_on, 1)
            os._exit(0)
    with folder.locked(0.0) as is_ours_again:
        pass
    os.close(ends)
    os.close(goes_on)
    os.waitpid(child, 0)

    assert is_ours
    assert is_ours_again


def test_a_part_that_finds_another_one_adding_up_is_added_later(
    counter: TokenCounter, log_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the latest when its counter closes; its own loss of time is nobody else's."""
    monkeypatch.setattr("token_callbacks.counter._LOCK_SECONDS", 0.01)
    with counter.run("parent") as run:
        token = run.token
    other = TokenCounter(log_dir=log_dir)
    with LogFolder(log_dir).locked(0.0), other.join_run(token):
        make_call(prompt=3, completion=4)
    before = summaries(log_dir)[token].total_llm_tokens
    other.close()

    assert (0, 7) == (before, summaries(log_dir)[token].total_llm_tokens)
    assert [] == [name for name in markers(log_dir) if token in name]


def test_what_a_part_lost_is_told(counter: TokenCounter, log_dir: Path) -> None:
    """Its figures have no line, so that the sum over all processes is a lower bound."""
    with counter.run("parent") as run:
        make_call(prompt=3, completion=4)
        child = os.fork()
        if child == 0:  # pragma: no cover - what it lost, the parent tells
            make_call(prompt=3, completion=4)
            with disk_full_at(1):
                for _ in range(5):
                    make_call(prompt=5, completion=6)
            counter.close()
            os._exit(0)
        os.waitpid(child, 0)

    summary = summaries(log_dir)[run.run_id]
    assert (14, 5, 5, True) == (
        summary.total_llm_tokens, summary.lost_records, summary.internal_errors, summary.lower_bound,
    )  # fmt: skip


def test_what_a_part_lost_is_told_though_it_came_again(counter: TokenCounter, log_dir: Path) -> None:
    """A pool's worker joins for each of its tasks; the last one that leaves tells of all."""
    with counter.run("parent") as run:
        child = os.fork()
        if child == 0:  # pragma: no cover - what it lost, the parent tells
            other = TokenCounter(log_dir=log_dir)
            for room in (1, 10**9):
                with other.join_run(run.token), disk_full_at(room):
                    make_call(prompt=3, completion=4)
            other.close()
            os._exit(0)
        os.waitpid(child, 0)

    summary = summaries(log_dir)[run.run_id]
    assert (1, True) == (summary.lost_records, summary.lower_bound)


def test_a_run_inside_that_a_child_makes_is_in_the_sum(counter: TokenCounter, log_dir: Path) -> None:
    """Also where the child uses nothing outside of it."""
    with counter.run("outermost") as outermost, counter.run("parent") as run:
        make_call(prompt=3, completion=4)
        child = os.fork()
        if child == 0:  # pragma: no cover - the parent tells of it
            with counter.run("inner"):
                make_call(prompt=5, completion=6)
            counter.close()
            os._exit(0)
        os.waitpid(child, 0)

    found = summaries(log_dir)
    assert [0, 7] == [found[it.run_id].total_llm_tokens for it in (outermost, run)]
    assert [18, 18] == [found[it.run_id].including_nested.total_llm_tokens for it in (outermost, run)]
    assert [] == markers(log_dir)


def test_a_run_inside_without_a_call_leaves_the_sum_around_it(counter: TokenCounter, log_dir: Path) -> None:
    """Though it ends later: the one around it has in its figures what it lost, and its lines have not."""
    with contextlib.ExitStack() as inside, counter.run("parent") as run:
        context = contextvars.copy_context()
        inner = counter.run("inner")
        context.run(inner.__enter__)
        inside.callback(context.run, inner.__exit__, None, None, None)
        with disk_full_at(1):
            make_call(prompt=3, completion=4)
        assert run.token

    summary = summaries(log_dir)[run.run_id]
    assert (7, 1, False) == (summary.total_llm_tokens, summary.lost_records, summary.lower_bound)


def test_a_sum_that_is_made_anew_without_the_lost_is_a_lower_bound(counter: TokenCounter, log_dir: Path) -> None:
    """The process that lost them had them in its figures; the lines do not."""
    with counter.run("parent") as run:
        make_call(prompt=3, completion=4)
        with disk_full_at(1):
            make_call(prompt=5, completion=6)
        token = run.token
    before = summaries(log_dir)[token]
    other = TokenCounter(log_dir=log_dir)
    with other.join_run(token):
        make_call(prompt=7, completion=8)
    other.close()
    after = summaries(log_dir)[token]

    assert (18, 1, False) == (before.total_llm_tokens, before.lost_records, before.lower_bound)
    assert (22, 1, True) == (after.total_llm_tokens, after.lost_records, after.lower_bound)


def test_where_no_file_can_be_locked_a_part_is_added_all_the_same(
    counter: TokenCounter, log_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network file systems lock nothing."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr("token_callbacks.sinks.log_folder.fcntl.flock", refuse)
    with counter.run("parent") as run:
        token = run.token
    other = TokenCounter(log_dir=log_dir)
    with other.join_run(token):
        make_call(prompt=3, completion=4)
    other.close()

    assert 7 == summaries(log_dir)[token].total_llm_tokens
    assert not recover(log_dir).is_busy
