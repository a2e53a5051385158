"""LaVague's own agents with our counter, without a browser: runs, steps, parts and rows, in each release's environment.

``python -m tests.versions`` and tests/lavague/test_releases.py run this file where LaVague is installed.
"""

from __future__ import annotations

import builtins
import json
import logging
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lavague.core.agents")

from lavague.core.agents import WebAgent
from lavague.core.logger import LocalLogger
from lavague.core.world_model import WorldModel

import token_callbacks
from loopback_server import Json, LedgerEntry, Reply
from token_callbacks.adapters.lavague import TokenCounter
from token_callbacks.records import RunOutcome, RunSummary
from token_callbacks.sinks.memory import MemorySink

from .models import ANSWER, WORLD_MODEL_OPENING, script, text_of
from .paper import ask_once, paper_agent

IS_FIRST_GENERATION = find_spec("lavague.core.token_counter") is None
FIRST_ONLY = pytest.mark.skipif(not IS_FIRST_GENERATION, reason="LaVague 0.2.23 and before")
SECOND_ONLY = pytest.mark.skipif(IS_FIRST_GENERATION, reason="LaVague 0.2.24 and after")

FIRST_COLUMNS = [
    "embedding_tokens",
    "llm_prompt_tokens",
    "llm_completion_tokens",
    "total_llm_tokens",
    "embedding_tokens_cost",
    "llm_prompt_tokens_cost",
    "llm_completion_tokens_cost",
    "total_cost_per_step",
]
OBJECTIVE = "Tell when the library closes"


class Talk:
    """What the models say, and the truth of what it cost, step by step: each opens with a request of a world model."""

    def __init__(self) -> None:
        self._answer = script(first_generation=IS_FIRST_GENERATION)
        self._are_world_model: list[bool] = []

    def __call__(self, body: Json) -> Reply:
        """Answer, and note who asked."""
        self._are_world_model.append(text_of(body).lstrip().startswith(WORLD_MODEL_OPENING))
        return self._answer(body)

    def steps(self, ledger: list[LedgerEntry]) -> list[dict[str, list[int]]]:
        """Sum the ledger up: prompt, completion and embedding tokens of both parts in each step."""
        kinds = iter(self._are_world_model)
        steps: list[dict[str, list[int]]] = []
        for entry in ledger:
            is_world_model = entry.endpoint == "chat" and next(kinds)
            if is_world_model:
                steps.append({"world_model": [0, 0, 0], "action_engine": [0, 0, 0]})
            sums = steps[-1]["world_model" if is_world_model else "action_engine"]
            for place, tokens in enumerate((entry.prompt_tokens, entry.completion_tokens, entry.embedding_tokens)):
                sums[place] += tokens
        return steps


def row_of(step: dict[str, list[int]]) -> dict[str, int]:
    """Lay the truth of a step out as LaVague's row of it."""
    world, action = step["world_model"], step["action_engine"]
    if IS_FIRST_GENERATION:
        prompt, completion = world[0] + action[0], world[1] + action[1]
        return {
            "embedding_tokens": action[2],
            "llm_prompt_tokens": prompt,
            "llm_completion_tokens": completion,
            "total_llm_tokens": prompt + completion,
        }
    return {
        "world_model_input_tokens": world[0],
        "world_model_output_tokens": world[1],
        "action_engine_input_tokens": action[0],
        "action_engine_output_tokens": action[1],
        "total_world_model_tokens": world[0] + world[1],
        "total_action_engine_tokens": action[0] + action[1],
        "total_llm_tokens": sum(world[:2]) + sum(action[:2]),
        "total_embedding_tokens": action[2],
        "total_step_tokens": sum(world) + sum(action),
    }


def rows_of(agent: Any) -> list[dict[str, int]]:
    """Read the counts that the agent logged."""
    return [{name: value for name, value in row.items() if name.endswith("_tokens")} for row in agent.logger.logs]


def groups(summary: RunSummary, by: str) -> dict[str | None, tuple[int, int, int]]:
    """Read one of the tables of a summary."""
    return {
        group.name: (group.llm_prompt_tokens, group.llm_completion_tokens, group.embedding_tokens)
        for group in getattr(summary, by)
    }


def own_runs(memory: MemorySink) -> list[RunSummary]:
    """List the agents' runs, in order of their end."""
    return [summary for summary in memory.summaries.values() if summary.name != "default"]


def counting_summary(counter: TokenCounter) -> RunSummary:
    """Read the summary of the counter's last agent."""
    [memory] = [sink for sink in counter._sinks if isinstance(sink, MemorySink)]
    return own_runs(memory)[-1]


def counting_summary_named(memory: MemorySink, name: str) -> RunSummary:
    """Find a summary by the run's name."""
    return next(summary for summary in memory.summaries.values() if summary.name == name)


@pytest.fixture
def counting(
    log_dir: Path, memory: MemorySink, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[TokenCounter]:
    """Give an open counter, in a folder where an agent may leave things."""
    monkeypatch.chdir(tmp_path)
    counter = TokenCounter(log_dir=log_dir, sinks=[memory])
    yield counter
    counter.close()


@pytest.fixture
def talk() -> Talk:
    """Give what the models say."""
    return Talk()


Server = Callable[..., Any]
"""Starts a loopback server."""


@pytest.fixture
def server(loopback: Server, talk: Talk) -> Any:
    """Give a server that plays the models."""
    started = loopback()
    started._replies = talk
    yield started
    started._replies = None


def test_a_run_of_an_agent_is_a_run_whose_rows_and_summary_are_the_ledgers(
    server: Any, talk: Talk, counting: TokenCounter, log_dir: Path, tmp_path: Path
) -> None:
    """Three steps, both parts, images and embeddings."""
    agent = paper_agent(server, tmp_path, counting)
    result = agent.run(OBJECTIVE)
    truth = talk.steps(server.ledger)
    summary = counting_summary(counting)

    assert (ANSWER, True) == (result.output, result.success)
    assert [row_of(step) for step in truth] == rows_of(agent)
    assert ("WebAgent", RunOutcome.COMPLETED, 0) == (summary.name, summary.outcome, summary.internal_errors)
    assert {"lavague": version("lavague-core")} == summary.tags
    assert {
        f"step {number}": tuple(map(sum, zip(*step.values(), strict=True))) for number, step in enumerate(truth)
    } == groups(summary, "by_step")
    assert {
        part: tuple(map(sum, zip(*(step[part] for step in truth), strict=True)))
        for part in ("world_model", "action_engine")
    } == groups(summary, "by_agent")
    written = json.loads((log_dir / "runs" / f"{summary.run_id}.json").read_text(encoding="utf-8"))
    totals = server.ledger_totals()
    assert {
        "embedding_tokens": totals.embedding_tokens,
        "llm_prompt_tokens": totals.prompt_tokens,
        "llm_completion_tokens": totals.completion_tokens,
        "total_llm_tokens": totals.prompt_tokens + totals.completion_tokens,
    } == dict(list(written.items())[:4])


def test_no_text_of_the_objective_is_in_any_file(
    server: Any, counting: TokenCounter, log_dir: Path, tmp_path: Path
) -> None:
    """Not in a name, a tag or a step."""
    paper_agent(server, tmp_path, counting).run(OBJECTIVE)
    counting.close()
    written = [path.read_text(encoding="utf-8") for path in log_dir.rglob("*") if path.is_file()]

    assert any("world_model" in text for text in written)
    assert not any(OBJECTIVE in text or ANSWER in text for text in written)


def test_each_of_five_equal_tries_in_a_step_counts(
    server: Any, talk: Talk, counting: TokenCounter, tmp_path: Path
) -> None:
    """LaVague's counter took them for one."""

    def insist(llm: Any, instruction: str) -> None:
        for _ in range(5):
            llm.complete(instruction)

    agent = paper_agent(server, tmp_path, counting, act=insist)
    agent.run(OBJECTIVE)

    assert [2 + 4, 4, 1] == [step.calls for step in counting_summary(counting).by_step]
    assert [row_of(step) for step in talk.steps(server.ledger)] == rows_of(agent)


def test_two_runs_of_an_agent_are_two_runs(
    server: Any, talk: Talk, counting: TokenCounter, memory: MemorySink, tmp_path: Path
) -> None:
    """Steps begin at 0 again, as LaVague's do."""
    agent = paper_agent(server, tmp_path, counting)
    agent.run(OBJECTIVE)
    agent.run(OBJECTIVE)

    assert [["step 0", "step 1", "step 2"], ["step 0"]] == [
        [group.name for group in summary.by_step] for summary in own_runs(memory)
    ]
    assert [row_of(step) for step in talk.steps(server.ledger)] == rows_of(agent)


class OwnWorldModel(WorldModel):
    """A world model that does it its own way."""

    def get_instruction(self, objective: str, current_state: Any, past: Any, observations: Any) -> str:
        """Ask twice, without LaVague's method."""
        prompt = f"{WORLD_MODEL_OPENING}\nLast engine: {past['last_engine']}"
        self.mm_llm.complete(f"Look: {prompt}", image_documents=[])
        return self.mm_llm.complete(prompt, image_documents=[]).text


def test_a_world_model_of_ones_own_is_told_apart_by_where_it_is_and_not_by_its_prompt(
    server: Any, counting: TokenCounter, memory: MemorySink, tmp_path: Path
) -> None:
    """LaVague's counter knew it by the first line of LaVague's prompt."""
    agent = paper_agent(server, tmp_path, counting, world_model_class=OwnWorldModel)
    agent.run(OBJECTIVE)
    [summary] = own_runs(memory)

    assert {"world_model": 6, "action_engine": 4} == {group.name: group.calls for group in summary.by_agent}
    if not IS_FIRST_GENERATION:
        assert groups(summary, "by_agent")["world_model"][0] == sum(
            row["world_model_input_tokens"] for row in rows_of(agent)
        )


class ThinkingAgent(WebAgent):
    """An agent that asks a model itself, and has a ``run`` of its own."""

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Run as LaVague's."""
        return super().run(*args, **kwargs)

    def run_step(self, objective: str) -> Any:
        """Think first."""
        ask_once(self.action_engine.navigation_engine.llm, "Think.")
        return super().run_step(objective)


def test_what_an_agent_asks_outside_its_engines_is_the_action_engines(
    server: Any, counting: TokenCounter, memory: MemorySink, tmp_path: Path
) -> None:
    """As with LaVague, where everything else is; and a subclass that calls its base has one run."""
    agent = paper_agent(server, tmp_path, counting, agent_class=ThinkingAgent)
    agent.run(OBJECTIVE)
    [summary] = own_runs(memory)
    totals = server.ledger_totals()

    assert ("ThinkingAgent", 4 + 3) == (summary.name, summary.by_agent[0].calls)
    assert totals.prompt_tokens + totals.completion_tokens == sum(row["total_llm_tokens"] for row in rows_of(agent))


def test_two_agents_at_once_with_one_counter_each_have_their_own_run_and_rows(
    server: Any, counting: TokenCounter, memory: MemorySink, tmp_path: Path
) -> None:
    """Whose calls are interleaved; their models tell the ledger's entries apart."""
    agents = _two_agents(server, counting, tmp_path)
    _at_once(lambda agent: agent.run(OBJECTIVE), agents)

    truth = _by_model(server)
    assert 2 == len(own_runs(memory))
    assert truth == {summary.by_model[0].name: summary.total_llm_tokens for summary in own_runs(memory)}
    assert truth == {name: sum(row["total_llm_tokens"] for row in rows_of(agent)) for name, agent in agents.items()}


def test_two_agents_that_step_at_once_outside_any_run_have_their_own_rows(
    server: Any, counting: TokenCounter, memory: MemorySink, tmp_path: Path
) -> None:
    """The calls are all in the default run, and each row has those of its agent."""
    agents = _two_agents(server, counting, tmp_path)

    def step(agent: Any) -> None:
        agent.logger.new_run()
        for _ in range(3):
            agent.run_step(OBJECTIVE)

    _at_once(step, agents)

    assert [] == own_runs(memory)
    assert _by_model(server) == {
        name: sum(row["total_llm_tokens"] for row in rows_of(agent)) for name, agent in agents.items()
    }
    assert ["step 0", "step 1", "step 2"] == sorted(group.name or "" for group in counting.default_run.summary.by_step)


def _two_agents(server: Any, counter: TokenCounter, folder: Path) -> dict[str, Any]:
    meeting = threading.Barrier(2)

    def meet(llm: Any, instruction: str) -> None:
        ask_once(llm, instruction)
        meeting.wait(120)  # both have asked, and neither has read its step out
        ask_once(llm, instruction)
        meeting.wait(120)

    agents = {}
    for model in ("gpt-4o", "gpt-4o-mini"):
        agent = agents[model] = paper_agent(server, folder / model, counter, act=meet)
        for holder in (agent.world_model.mm_llm, agent.action_engine.python_engine.llm):
            holder.model = model
    return agents


def _at_once(work: Callable[[Any], None], agents: dict[str, Any]) -> None:
    threads = [threading.Thread(target=work, args=(agent,)) for agent in agents.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _by_model(server: Any) -> dict[str, int]:
    sums: dict[str, int] = {}
    for entry in server.ledger:
        if entry.endpoint == "chat":
            sums[entry.model] = sums.get(entry.model, 0) + entry.prompt_tokens + entry.completion_tokens
    return sums


def _interrupt(llm: Any, instruction: str) -> None:
    ask_once(llm, instruction)
    signal.raise_signal(signal.SIGINT)


def test_ctrl_c_cancels_the_run_and_its_summary_is_written(
    server: Any, counting: TokenCounter, memory: MemorySink, log_dir: Path, tmp_path: Path
) -> None:
    """The agent returns as if nothing had been; what was used until then is there."""
    paper_agent(server, tmp_path, counting, act=_interrupt).run(OBJECTIVE)
    [summary] = own_runs(memory)
    totals = server.ledger_totals()

    assert (RunOutcome.CANCELLED, 2) == (summary.outcome, summary.calls.llm)
    assert totals.prompt_tokens == summary.llm_prompt_tokens
    assert (log_dir / "runs" / f"{summary.run_id}.json").exists()


def test_ctrl_c_between_two_steps_cancels_the_run(
    server: Any, counting: TokenCounter, memory: MemorySink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an agent that goes step by step waits for a key."""
    monkeypatch.setattr(builtins, "input", lambda _prompt: signal.raise_signal(signal.SIGINT))
    paper_agent(server, tmp_path, counting).run(OBJECTIVE, step_by_step=True)

    assert [(RunOutcome.CANCELLED, 1)] == [(summary.outcome, len(summary.by_step)) for summary in own_runs(memory)]


def test_an_agent_that_runs_out_of_steps_is_through(
    server: Any, counting: TokenCounter, memory: MemorySink, tmp_path: Path
) -> None:
    """That is no interruption."""
    agent = paper_agent(server, tmp_path, counting)
    agent.n_steps = 2
    agent.run(OBJECTIVE)

    assert [RunOutcome.COMPLETED] == [summary.outcome for summary in own_runs(memory)]


def test_an_error_of_the_provider_reaches_the_agents_caller_as_it_was(
    server: Any, counting: TokenCounter, memory: MemorySink, tmp_path: Path
) -> None:
    """LaVague's counter made a ValueError of it; the next run starts from zero."""
    agent = paper_agent(server, tmp_path, counting)
    server.fail_next(status=500)
    with pytest.raises(Exception, match="500") as caught:
        agent.run(OBJECTIVE)
    agent.run(OBJECTIVE)
    totals = server.ledger_totals()

    assert "InternalServerError" == type(caught.value).__name__
    assert [RunOutcome.FAILED, RunOutcome.COMPLETED] == [summary.outcome for summary in own_runs(memory)]
    assert totals.prompt_tokens + totals.completion_tokens == sum(row["total_llm_tokens"] for row in rows_of(agent))


def test_a_stream_that_an_engine_leaves_raises_nothing_into_the_agent(
    server: Any, counting: TokenCounter, memory: MemorySink, tmp_path: Path
) -> None:
    """LaVague's counter raised a ValueError."""

    def leave(llm: Any, instruction: str) -> None:
        stream = llm.stream_complete(instruction)
        next(stream)
        stream.close()

    agent = paper_agent(server, tmp_path, counting, act=leave)
    agent.run(OBJECTIVE)
    [summary] = own_runs(memory)

    assert (RunOutcome.COMPLETED, 1, 0) == (summary.outcome, summary.calls.abandoned, summary.internal_errors)
    assert summary.total_llm_tokens == sum(row["total_llm_tokens"] for row in rows_of(agent))


def test_an_agents_run_inside_a_run_is_a_child_of_it(
    server: Any, counting: TokenCounter, memory: MemorySink, tmp_path: Path
) -> None:
    """And a step that the user names inside keeps its name."""

    def judge(llm: Any, instruction: str) -> None:
        run = next(run for run in counting._open_runs if run.name == "WebAgent")
        with run.step("judge"):
            ask_once(llm, instruction)

    with counting.run("digest") as digest:
        paper_agent(server, tmp_path, counting, act=judge).run(OBJECTIVE)
    summary = counting_summary_named(memory, "WebAgent")

    assert digest.run_id == summary.parent_run_id
    assert summary.total_llm_tokens == digest.summary.including_nested.total_llm_tokens
    assert ["step 0", "judge", "step 1", "step 2"] == [group.name for group in summary.by_step]


def test_steps_in_a_run_of_ones_own_are_told_apart_in_it(
    server: Any, talk: Talk, counting: TokenCounter, tmp_path: Path
) -> None:
    """Where a program calls ``run_step`` itself."""
    agent = paper_agent(server, tmp_path, counting)
    agent.logger.new_run()
    with counting.run("by hand") as run:
        while agent.run_step(OBJECTIVE) is None:
            pass

    assert ["step 0", "step 1", "step 2"] == [group.name for group in run.summary.by_step]
    assert {"world_model": 3, "action_engine": 4} == {group.name: group.calls for group in run.summary.by_agent}
    assert [row_of(step) for step in talk.steps(server.ledger)] == rows_of(agent)


def test_engines_that_are_called_by_hand_are_the_action_engines(
    server: Any, counting: TokenCounter, tmp_path: Path
) -> None:
    """Without any agent around them."""
    agent = paper_agent(server, tmp_path, counting)
    agent.logger.new_run()
    agent.action_engine.python_engine.execute_instruction("Tell when the library closes")
    agent.action_engine.dispatch_instruction("Navigation Engine", "Click.")
    summary = counting.default_run.summary
    counts, _ = counting.process_token_usage(agent.world_model, agent.action_engine)

    assert {"action_engine": 4} == {group.name: group.calls for group in summary.by_agent}
    assert summary.total_llm_tokens == counts["total_action_engine_tokens"]
    assert summary.embedding_tokens == counts["total_embedding_tokens"]


def test_another_counter_beside_it_tells_the_parts_apart_too(
    server: Any, counting: TokenCounter, tmp_path: Path
) -> None:
    """They are told where the call is made, for whoever counts; the runs are those of the agent's counter."""
    other = token_callbacks.TokenCounter(log_dir=None)
    paper_agent(server, tmp_path, counting).run(OBJECTIVE)
    summary = other.default_run.summary
    other.close()

    assert {"world_model": 3, "action_engine": 4} == {group.name: group.calls for group in summary.by_agent}
    assert [] == summary.by_step


def test_the_columns_add_up_as_lavagues_tools_do(server: Any, counting: TokenCounter, tmp_path: Path) -> None:
    """In pandas, in the lines of its local logger, and in its local database."""
    logger = LocalLogger(str(tmp_path / "agent.jsonl"))
    agent = paper_agent(server, tmp_path, counting, logger=logger)
    agent.run(OBJECTIVE, log_to_db=True)
    totals = server.ledger_totals()
    used = totals.prompt_tokens + totals.completion_tokens + totals.embedding_tokens
    frame = agent.logger.return_pandas()
    cost = "total_cost_per_step" if IS_FIRST_GENERATION else "total_step_cost"
    lines = [json.loads(line) for line in (tmp_path / "agent.jsonl").read_text(encoding="utf-8").splitlines()]
    names = ["embedding_tokens", "total_llm_tokens"] if IS_FIRST_GENERATION else ["total_step_tokens"]

    assert "int64" == str(frame[names[0]].dtype)
    assert "float64" == str(frame[cost].dtype)
    assert used == sum(frame[name].sum() for name in names)
    assert used == sum(line[name] for line in lines for name in names if name in line)
    with sqlite3.connect("lavague_logs.db") as database:
        rows = database.execute(f"SELECT {', '.join(names)} FROM Logs").fetchall()
    assert used == sum(int(value) for row in rows for value in row)


@FIRST_ONLY
def test_the_first_generation_logs_its_eight_columns(server: Any, counting: TokenCounter, tmp_path: Path) -> None:
    """In its order."""
    agent = paper_agent(server, tmp_path, counting)
    agent.run(OBJECTIVE)

    assert FIRST_COLUMNS == [name for name in agent.logger.logs[0] if "token" in name or "cost" in name]


@SECOND_ONLY
def test_lavagues_table_of_a_run_is_ours(server: Any, counting: TokenCounter, tmp_path: Path) -> None:
    """``build_summary_table`` reads the keys one by one, and the result has the total."""
    from lavague.core.utilities.pricing_util import build_summary_table

    agent = paper_agent(server, tmp_path, counting)
    result = agent.run(OBJECTIVE)
    totals = server.ledger_totals()
    used = totals.prompt_tokens + totals.completion_tokens + totals.embedding_tokens
    rows = agent.logger.logs
    names = [name for name in rows[0] if name.endswith(("_tokens", "_cost"))]
    table = build_summary_table({name: sum(row[name] for row in rows) for name in names})

    assert used == result.total_estimated_tokens
    assert f"| {used} " in table.splitlines()[-1]


class PageAgent(WebAgent):
    """The agent of LaVague's page, without gradio's messages."""

    def _add_step(self, instruction: str, name: str, history: Any, *args: Any) -> Any:
        return history

    def _finish_step(self, name: str, history: Any, *args: Any) -> Any:
        return history

    def _check_result(self, history: Any, *args: Any) -> Any:
        return history

    def _get_screenshot(self, ratio: float) -> None:
        return None


@SECOND_ONLY
def test_the_agent_of_a_page_has_its_run_and_steps_too(
    server: Any, talk: Talk, counting: TokenCounter, memory: MemorySink, tmp_path: Path
) -> None:
    """It is a generator, and each of its pieces is read by another thread."""
    agent = paper_agent(server, tmp_path, counting, agent_class=PageAgent)
    pieces = agent._run_demo(OBJECTIVE)
    done: list[bool] = []

    def read_one() -> None:
        done.append(next(pieces, None) is None)

    while not any(done):
        thread = threading.Thread(target=read_one)
        thread.start()
        thread.join()
    [summary] = own_runs(memory)

    assert (RunOutcome.COMPLETED, 0) == (summary.outcome, summary.internal_errors)
    assert {
        f"step {number}": tuple(map(sum, zip(*step.values(), strict=True)))
        for number, step in enumerate(talk.steps(server.ledger))
    } == groups(summary, "by_step")
    assert {"world_model": 3, "action_engine": 4} == {group.name: group.calls for group in summary.by_agent}


@SECOND_ONLY
def test_a_page_that_is_left_cancels_the_run(
    server: Any, counting: TokenCounter, memory: MemorySink, tmp_path: Path
) -> None:
    """When its generator is closed."""
    pieces = paper_agent(server, tmp_path, counting, agent_class=PageAgent)._run_demo(OBJECTIVE)
    next(pieces)
    pieces.close()

    assert [(RunOutcome.CANCELLED, 1)] == [(summary.outcome, summary.calls.llm) for summary in own_runs(memory)]


@SECOND_ONLY
def test_a_step_of_a_page_logs_its_row(server: Any, talk: Talk, counting: TokenCounter, tmp_path: Path) -> None:
    """LaVague's server calls ``_run_step_gradio`` step by step."""
    agent = paper_agent(server, tmp_path, counting, agent_class=PageAgent)
    agent.prepare_run()
    for number in range(3):
        for _ in agent._run_step_gradio(OBJECTIVE, number):
            pass

    assert [row_of(step) for step in talk.steps(server.ledger)] == rows_of(agent)


@pytest.mark.parametrize("gone", ["run", "run_step"])
def test_a_lavague_that_has_changed_is_left_as_it_is_with_one_warning(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, gone: str
) -> None:
    """What it calls is counted all the same."""
    monkeypatch.chdir(tmp_path)
    token_callbacks.uninstall()
    original = getattr(WebAgent, gone)
    monkeypatch.delattr(WebAgent, gone)
    counters = [TokenCounter(log_dir=None) for _ in range(2)]
    monkeypatch.setattr(WebAgent, gone, original, raising=False)
    agent = paper_agent(server, tmp_path, counters[0])
    agent.run(OBJECTIVE)
    token_callbacks.uninstall()
    totals = server.ledger_totals()

    assert [f"has no {gone} where it was known"] == [
        record.getMessage().partition(": ")[0].split(" ", 2)[2]
        for record in caplog.records
        if record.levelno >= logging.WARNING and record.getMessage().startswith("LaVague ")
    ]
    assert totals.prompt_tokens + totals.completion_tokens == sum(row["total_llm_tokens"] for row in rows_of(agent))


def test_a_fault_of_ours_leaves_the_agent_as_it_is(server: Any, counting: TokenCounter, tmp_path: Path) -> None:
    """Here a counter that is closed: the run goes on, and LaVague's row has what there is."""
    agent = paper_agent(server, tmp_path, counting)
    counting.close()
    result = agent.run(OBJECTIVE)

    assert (ANSWER, 3) == (result.output, len(agent.logger.logs))


def test_uninstalling_puts_lavagues_methods_back(counting: TokenCounter) -> None:
    """And with them whatever the class was."""
    assert hasattr(WebAgent.run, "__wrapped__")
    token_callbacks.uninstall()

    assert not any(hasattr(vars(WebAgent)[name], "__wrapped__") for name in ("run", "run_step"))
    assert not hasattr(WorldModel.get_instruction, "__wrapped__")


def test_a_plain_counter_is_taken_as_it_is(  # noqa: PLR0917 - fixtures
    server: Any, talk: Talk, log_dir: Path, memory: MemorySink, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Who imports ``TokenCounter`` from the package itself, and hands it to an agent, has all the same."""
    monkeypatch.chdir(tmp_path)
    counter = token_callbacks.TokenCounter(log_dir=log_dir, sinks=[memory])
    agent = paper_agent(server, tmp_path, counter)
    agent.run(OBJECTIVE)
    counter.close()
    [summary] = own_runs(memory)

    assert [row_of(step) for step in talk.steps(server.ledger)] == rows_of(agent)
    assert {"world_model", "action_engine"} == set(groups(summary, "by_agent"))
    assert summary.total_llm_tokens == sum(entry.prompt_tokens + entry.completion_tokens for entry in server.ledger)
