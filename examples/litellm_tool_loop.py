"""Tell what each turn of a LiteLLM tool loop used: streamed turns, a step each, until no tool is called any more.

    python examples/litellm_tool_loop.py      # against an embedded loopback server: no key, no network

When the figures of a turn differ from the server's ledger, the script ends with exit code 1.
"""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import click

from checking import end_with_verdict, figures_by_name, print_groups, total_of, total_of_run
from loopback_server import CountedTokens, LoopbackServer, Reply, ToolCall
from token_callbacks import Run, TokenCounter

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else `import litellm` fetches its prices from the web
warnings.simplefilter("ignore")

MOST_TURNS = 9
QUESTION = "When do the library, the museum and the archive open?"

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "opening_hours",
            "description": "Tell when a place is open.",
            "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
        },
    }
]


def opening_hours(place: str) -> str:
    """Return when a place is open."""
    return f"The {place} is open from nine to half past six."


def loop(run: Run, *, question: str, api_base: str) -> str:
    """Ask, call the tools that the model wants, and ask again; return the answer."""
    import litellm

    messages: list[Any] = [{"role": "user", "content": question}]
    for turn in range(1, MOST_TURNS + 1):
        with run.step(f"turn {turn}"):
            chunks = litellm.completion(
                model="openai/gpt-4o-mini",
                api_base=api_base,
                api_key="loopback",
                messages=messages,
                tools=TOOLS,
                stream=True,
            )
            answer: Any = litellm.stream_chunk_builder(list(chunks), messages=messages)
        message = answer.choices[0].message
        messages.append(message.model_dump())
        if not message.tool_calls:
            return str(message.content)
        for call in message.tool_calls:
            told = opening_hours(**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": told})
    raise click.ClickException(f"the model still calls tools after {MOST_TURNS} turns")


def scripted(body: dict[str, Any]) -> Reply | str:
    """Answer for the loopback server, which has no model to ask: look into two places at once, then into a third."""
    answered = sum(message["role"] == "tool" for message in body["messages"])
    places = {0: ("library", "museum"), 2: ("archive",)}.get(answered, ())
    calls = tuple(ToolCall(name="opening_hours", arguments={"place": place}) for place in places)
    return Reply(calls=calls) if calls else "All three open at nine."


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.option("--log-dir", type=click.Path(path_type=Path, file_okay=False), default="token_logs", show_default=True)
def main(log_dir: Path) -> None:
    """Run the example."""
    counter = TokenCounter(log_dir=log_dir)
    with LoopbackServer(tokens=CountedTokens(), replies=scripted) as server:
        with counter.run("tool loop") as run:
            click.echo(
                loop(run, question="When do the library, the museum and the archive open?", api_base=server.base_url)
            )
        turns = {
            f"turn {number}": (entry.prompt_tokens, entry.completion_tokens)
            for number, entry in enumerate(server.ledger, start=1)
        }
        total = total_of(server)
    summary = run.summary
    print_groups("step", summary.by_step)
    click.echo(f"The whole story: {run.summary_path}")
    ours = {str(name): figures for name, figures in figures_by_name(summary.by_step).items()}
    end_with_verdict(ours | {"total": total_of_run(summary)}, turns | {"total": total})


if __name__ == "__main__":
    main()
