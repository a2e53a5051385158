"""Agents and workflows: every turn of every agent is a record, in the run that the agent was started in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent, ReActAgent
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel
from workflows.errors import WorkflowCancelledByUser

from loopback_server import LoopbackServer, Reply, ToolCall
from token_callbacks import Run, TokenCounter
from token_callbacks.records import Outcome
from token_callbacks.runs import acting
from token_callbacks.sinks.memory import MemorySink

from .conftest import BUILDERS, Loopback
from .figures import llm_figures, llm_truth
from .methods import MESSAGES, TOOL

pytestmark = pytest.mark.usefixtures("nothing_left")

QUESTION = "When does the library open?"
INTEGRATIONS = pytest.mark.parametrize("integration", ["OpenAI", "LiteLLM"])
STREAMING = pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "plain"])


def think_aloud(body: dict[str, Any]) -> str:
    """Play a ReAct model: one look into the tool, then the answer."""
    if "Observation:" in str(body["messages"][-1]):
        return "Thought: I can answer without using any more tools.\nAnswer: at nine"
    return 'Thought: I need a tool.\nAction: look_up\nAction Input: {"place": "library"}'


def hand_over(body: dict[str, Any]) -> Reply | None:
    """Play two agents: the first hands over, the second looks into its tool and answers."""
    answered = sum(message["role"] == "tool" for message in body["messages"])
    if answered == 0:
        return Reply(calls=(ToolCall(name="handoff", arguments={"to_agent": "librarian", "reason": "books"}),))
    if answered == 1:
        return Reply(calls=(ToolCall(name="look_up", arguments={"place": "library"}),))
    return Reply(text="It opens at nine.")


def east(body: dict[str, Any]) -> None:
    """Leave everything to one server."""


def west(body: dict[str, Any]) -> None:
    """Leave everything to another server."""


def function_agent(llm: Any, *, streaming: bool) -> Any:
    """Make a FunctionAgent with one tool."""
    return FunctionAgent(tools=[TOOL], llm=llm, streaming=streaming)


def react_agent(llm: Any, *, streaming: bool) -> Any:
    """Make a ReActAgent with one tool."""
    return ReActAgent(tools=[TOOL], llm=llm, streaming=streaming)


def two_agents(llm: Any, *, streaming: bool) -> Any:
    """Make a workflow of two agents, of which the first may hand over to the second."""
    porter = FunctionAgent(
        name="porter", description="Opens doors.", llm=llm, streaming=streaming, can_handoff_to=["librarian"]
    )
    librarian = FunctionAgent(name="librarian", description="Knows books.", tools=[TOOL], llm=llm, streaming=streaming)
    return AgentWorkflow(agents=[porter, librarian], root_agent="porter")


AGENTS: dict[str, tuple[Callable[..., Any], Any, int]] = {
    "FunctionAgent": (function_agent, None, 2),
    "ReActAgent": (react_agent, think_aloud, 2),
    "AgentWorkflow": (two_agents, hand_over, 3),
}
"""How to make each, the script of the model, and the number of turns."""


@INTEGRATIONS
@STREAMING
@pytest.mark.parametrize(("build", "script", "turns"), AGENTS.values(), ids=AGENTS)
def test_each_turn_of_an_agent_is_a_record(
    loopback: Loopback,
    counter: TokenCounter,
    memory: MemorySink,
    *,
    integration: str,
    streaming: bool,
    build: Callable[..., Any],
    script: Any,
    turns: int,
) -> None:
    """An agent's turns, with the tools that they call in between, are a record each, with the reported figures."""
    server = _server(loopback, script)
    with counter.run("agent") as run:
        asyncio.run(_ask(build(BUILDERS[integration](server), streaming=streaming)))

    assert turns == len(server.ledger)
    assert llm_truth(server) == llm_figures(memory.records)
    assert [(run.run_id, streaming, Outcome.COMPLETED)] * turns == [
        (record.run_id, record.streamed, record.outcome) for record in memory.records
    ]
    assert server.ledger_totals().completion_tokens == run.summary.llm_completion_tokens


@INTEGRATIONS
@pytest.mark.parametrize("is_async", [False, True], ids=["sync tool", "async tool"])
def test_a_call_inside_a_tool_is_a_record_of_the_same_run(
    loopback: Loopback, counter: TokenCounter, memory: MemorySink, integration: str, is_async: bool
) -> None:
    """A tool that asks a model itself adds a record, though LlamaIndex runs the tool in a thread of its own."""
    server = _server(loopback, None)
    llm = BUILDERS[integration](server)

    def ask_model(place: str) -> str:
        """Ask another model about a place."""
        return str(BUILDERS[integration](server).chat(MESSAGES))

    async def ask_model_async(place: str) -> str:
        """Ask another model about a place."""
        return str(await llm.achat(MESSAGES))

    tool = FunctionTool.from_defaults(async_fn=ask_model_async) if is_async else FunctionTool.from_defaults(ask_model)
    with counter.run("agent") as run:
        asyncio.run(_ask(FunctionAgent(tools=[tool], llm=llm)))

    assert 3 == len(server.ledger)
    assert sorted(llm_truth(server)) == sorted(llm_figures(memory.records))
    assert {run.run_id} == {record.run_id for record in memory.records}
    assert ["Agent", None, "Agent"] == [record.agent for record in memory.records]


@INTEGRATIONS
def test_agents_side_by_side_keep_to_their_own_runs(
    loopback: Loopback, counter: TokenCounter, memory: MemorySink, integration: str
) -> None:
    """Of two agents at once in one event loop, each turn lands in the run that its agent was started in."""
    servers = [_server(loopback, script) for script in (east, west)]

    async def side_by_side() -> list[str]:
        return await asyncio.gather(*map(one, servers))

    async def one(server: LoopbackServer) -> str:
        async with counter.run("side by side") as run:
            for _ in range(2):
                await _ask(function_agent(BUILDERS[integration](server), streaming=True))
        return run.run_id

    run_ids = asyncio.run(side_by_side())

    assert 8 == len(memory.records)
    assert [llm_truth(server) for server in servers] == [
        llm_figures(record for record in memory.records if record.run_id == run_id) for run_id in run_ids
    ]


def test_turns_after_the_end_of_the_agents_run_are_still_that_runs(
    loopback: Loopback, counter: TokenCounter, memory: MemorySink
) -> None:
    """An agent that is started in a run and awaited after it makes its calls in that run, whose summary follows."""
    server = _server(loopback, None)

    async def start_and_leave() -> Run:
        with counter.run("around"):
            with counter.run("started") as started:
                handler = function_agent(BUILDERS["OpenAI"](server), streaming=True).run(QUESTION)
            await handler
        return started

    started = asyncio.run(start_and_leave())

    assert [started.run_id] * 2 == [record.run_id for record in memory.records]
    assert 2 == memory.summaries[started.run_id].calls.llm


def test_a_cancelled_agent_leaves_one_cancelled_record(
    loopback: Loopback, counter: TokenCounter, memory: MemorySink
) -> None:
    """An agent that is cancelled in the middle of a turn leaves a record of that turn."""
    server = _server(loopback, None)

    async def cancel() -> None:
        handler = function_agent(BUILDERS["OpenAI"](server), streaming=True).run(QUESTION)
        await asyncio.to_thread(hold.reached.wait, 120)
        await handler.cancel_run()
        with pytest.raises(WorkflowCancelledByUser):
            await handler

    with counter.run("agent") as run, server.hold(after_chunks=2) as hold:
        asyncio.run(cancel())

    assert [(run.run_id, Outcome.CANCELLED)] == [(record.run_id, record.outcome) for record in memory.records]


def _server(loopback: Loopback, script: Any) -> LoopbackServer:
    return loopback(stream_usage="always_last", replies=script)


async def _ask(agent: Any) -> None:
    await agent.run(QUESTION)


@INTEGRATIONS
@STREAMING
def test_each_agents_calls_are_summed_by_its_name(
    loopback: Loopback, counter: TokenCounter, memory: MemorySink, integration: str, *, streaming: bool
) -> None:
    """The porter asked once, the librarian twice, and the summary tells their tokens apart."""
    server = loopback(replies=hand_over, stream_usage="always_last")

    async def ask() -> Run:
        async with counter.run("library") as run:
            await two_agents(BUILDERS[integration](server), streaming=streaming).run(QUESTION)
        return run

    summary = asyncio.run(ask()).summary

    assert ["porter", "librarian", "librarian"] == [record.agent for record in memory.records]
    assert [("porter", 1), ("librarian", 2)] == [(group.name, group.calls) for group in summary.by_agent]
    assert summary.total_llm_tokens == sum(group.total_llm_tokens for group in summary.by_agent)


class Hours(BaseModel):
    """When a place is open."""

    opens: str


@INTEGRATIONS
def test_the_structured_answer_of_an_agent_is_a_call_of_its_own(
    loopback: Loopback, counter: TokenCounter, memory: MemorySink, integration: str
) -> None:
    """It is asked for after the last turn, of the model of the agent that has the last word."""
    server = loopback(replies=hand_over_then_shape, stream_usage="always_last")

    async def ask() -> None:
        agents = two_agents(BUILDERS[integration](server), streaming=True)
        agents.output_cls = Hours
        async with counter.run("library") as run:
            with run.step("ask"):
                await agents.run(QUESTION)

    asyncio.run(ask())

    assert sorted(llm_truth(server)) == sorted(llm_figures(memory.records))
    assert [("porter", "ask"), *[("librarian", "ask")] * 3] == [
        (record.agent, record.step) for record in memory.records
    ]


def hand_over_then_shape(body: dict[str, Any]) -> Reply | None:
    """Play two agents, and leave the structured answer, which a tool of its own asks for, to the server."""
    offered = {tool["function"]["name"] for tool in body.get("tools") or ()}
    return None if "Hours" in offered or body.get("response_format") else hand_over(body)


def test_a_call_that_no_agent_makes_has_none(loopback: Loopback, counter: TokenCounter, memory: MemorySink) -> None:
    """A plain chat is nobody's turn."""
    with counter.run("plain") as run:
        BUILDERS["OpenAI"](loopback()).chat(MESSAGES)

    assert [None] == [record.agent for record in memory.records]
    assert [] == run.summary.by_agent


@INTEGRATIONS
def test_a_call_is_that_of_who_is_named_to_be_at_work(
    loopback: Loopback, counter: TokenCounter, memory: MemorySink, integration: str
) -> None:
    """An adapter of a program around LlamaIndex names the part that calls, for the block that it runs in."""
    llm = BUILDERS[integration](loopback())
    with acting("porter"), acting("librarian"):
        llm.chat(MESSAGES)
    llm.chat(MESSAGES)

    assert ["librarian", None] == [record.agent for record in memory.records]


def test_an_agent_of_llama_indexs_goes_before_who_is_at_work_around_it(
    loopback: Loopback, counter: TokenCounter, memory: MemorySink
) -> None:
    """The inner one made the call; while it is at work, others go on being themselves."""
    server = loopback(replies=hand_over, stream_usage="always_last")

    async def ask() -> None:
        with acting("house"):
            await two_agents(BUILDERS["OpenAI"](server), streaming=True).run(QUESTION)
            await BUILDERS["OpenAI"](server).achat(MESSAGES)

    asyncio.run(ask())

    assert ["porter", "librarian", "librarian", "house"] == [record.agent for record in memory.records]
