"""Tell what each LlamaIndex agent used, and each step: a FunctionAgent, a ReActAgent and a workflow with a hand-off.

    python examples/llama_index_agents.py     # against an embedded loopback server: no key, no network

Each agent has a model of its own here, so that the server's ledger can tell them apart as the run does; when the two
differ, the script ends with exit code 1.
"""

from __future__ import annotations

import asyncio
import os
import warnings
from pathlib import Path
from typing import Any

import click

from checking import end_with_verdict, figures_by_name, ledger_by_model, print_groups, total_of, total_of_run
from loopback_server import CountedTokens, LoopbackServer, Reply, ToolCall
from token_callbacks import Run, TokenCounter

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else `import litellm` fetches its prices from the web
warnings.simplefilter("ignore")

MODELS = {"clerk": "gpt-4o-mini", "thinker": "gpt-4o", "porter": "gpt-4.1-mini", "librarian": "gpt-4.1"}
"""The agents, and what each of them asks."""


def opening_hours(place: str) -> str:
    """Return when a place is open."""
    return f"The {place} is open from nine to half past six."


async def ask_agents(counter: TokenCounter, *, api_base: str) -> Run:
    """Ask three agents in one run, a step each."""
    from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent, ReActAgent
    from llama_index.llms.openai import OpenAI

    def named(agent: str) -> dict[str, Any]:
        llm = OpenAI(model=MODELS[agent], api_base=api_base, api_key="loopback")
        return {"name": agent, "description": f"The {agent} of the library.", "llm": llm}

    porter = FunctionAgent(**named("porter"), can_handoff_to=["librarian"])
    librarian = FunctionAgent(**named("librarian"), tools=[opening_hours])
    async with counter.run("agents") as run:
        with run.step("function agent"):
            await FunctionAgent(**named("clerk"), tools=[opening_hours]).run("When does the library open?")
        with run.step("ReAct agent"):
            await ReActAgent(**named("thinker"), tools=[opening_hours]).run("When does the library open?")
        with run.step("workflow"):
            await AgentWorkflow(agents=[porter, librarian], root_agent="porter").run("When does the library open?")
    return run


def scripted(body: dict[str, Any]) -> Reply | str | None:
    """Answer for the loopback server, which has no model to ask: tools as offered, by itself."""
    if body["model"] == MODELS["porter"]:
        return Reply(calls=(ToolCall(name="handoff", arguments={"to_agent": "librarian", "reason": "books"}),))
    if body["model"] == MODELS["librarian"]:
        has_looked = any("half past six" in str(message.get("content")) for message in body["messages"])
        look_up = ToolCall(name="opening_hours", arguments={"place": "library"})
        return Reply(text="At nine.") if has_looked else Reply(calls=(look_up,))
    if body["model"] == MODELS["thinker"]:
        if "Observation:" in str(body["messages"][-1]):
            return "Thought: I can answer without using any more tools.\nAnswer: at nine"
        return 'Thought: I need a tool.\nAction: opening_hours\nAction Input: {"place": "library"}'
    return None


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.option("--log-dir", type=click.Path(path_type=Path, file_okay=False), default="token_logs", show_default=True)
def main(log_dir: Path) -> None:
    """Run the example."""
    counter = TokenCounter(log_dir=log_dir)
    with LoopbackServer(tokens=CountedTokens(), replies=scripted) as server:
        run = asyncio.run(ask_agents(counter, api_base=server.base_url))
        by_model, total = ledger_by_model(server), total_of(server)
    summary = run.summary
    print_groups("agent", summary.by_agent)
    print_groups("step", summary.by_step)
    click.echo(f"The whole story: {run.summary_path}")
    agents, steps = figures_by_name(summary.by_agent), figures_by_name(summary.by_step)
    used = {name: by_model.get(model) for name, model in MODELS.items()}
    handed_over = [by_model.get(MODELS[name], (0, 0)) for name in ("porter", "librarian")]
    end_with_verdict(
        {**{f"agent {name}": agents.get(name) for name in MODELS}, **{str(k): v for k, v in steps.items()}}
        | {"total": total_of_run(summary)},
        {**{f"agent {name}": figures for name, figures in used.items()}}
        | {"function agent": used["clerk"], "ReAct agent": used["thinker"]}
        | {"workflow": tuple(map(sum, zip(*handed_over, strict=True))), "total": total},
    )


if __name__ == "__main__":
    main()
