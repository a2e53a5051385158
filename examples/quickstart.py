"""Count the tokens of a RAG question, an agent's turn and a LiteLLM stream in one run, and check the figures.

    python examples/quickstart.py            # against an embedded loopback server: no key, no network
    python examples/quickstart.py --live     # against the real thing; needs OPENAI_API_KEY

The loopback server keeps its own ledger; when the run's figures differ from it, the script ends with exit code 1.
"""

from __future__ import annotations

import asyncio
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import click
import msgspec
from openai import OpenAIError
from rich.console import Console
from rich.table import Table

from loopback_server import CountedTokens, LoopbackServer, Reply, ToolCall
from token_callbacks import TokenCounter

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else `import litellm` fetches its prices from the web
warnings.simplefilter("ignore")

ROOT = Path(__file__).resolve().parent.parent


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """Who answers, and by which models."""

    api_base: str | None
    api_key: str
    model: str
    embedding_model: str


def documents() -> dict[str, str]:
    """Return the texts that the run is about, this repository's README and docs, by file name."""
    paths = [path for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))) if path.is_file()]
    if not paths:
        raise click.ClickException(f"found no README.md in {ROOT}: run the script from a checkout of the repository")
    return {path.name: path.read_text(encoding="utf-8") for path in paths}


def language_model(provider: Provider) -> Any:
    """Return LlamaIndex's OpenAI model, which asks for the usage of its streams."""
    from llama_index.llms.openai import OpenAI

    return OpenAI(
        model=provider.model,
        api_base=provider.api_base,
        api_key=provider.api_key,
        additional_kwargs={"stream_options": {"include_usage": True}},
    )


def ask_documents(provider: Provider, *, question: str) -> None:
    """Embed the documents, and stream the answer to a question about them."""
    from llama_index.core import Document, VectorStoreIndex
    from llama_index.core.node_parser import MarkdownNodeParser
    from llama_index.embeddings.openai import OpenAIEmbedding  # type: ignore[import-untyped]

    embedding = OpenAIEmbedding(
        model_name=provider.embedding_model, api_base=provider.api_base, api_key=provider.api_key
    )
    read = [Document(text=text, metadata={"file": name}) for name, text in documents().items()]
    index = VectorStoreIndex.from_documents(read, embed_model=embedding, transformations=[MarkdownNodeParser()])
    answer = index.as_query_engine(llm=language_model(provider), streaming=True).query(question)
    for token in answer.response_gen:  # type: ignore[union-attr]
        click.echo(token, nl=False)


async def ask_agent(provider: Provider, *, question: str) -> None:
    """Let an agent use a tool, and stream its turn."""
    from llama_index.core.agent.workflow import AgentStream, FunctionAgent, ToolCallResult

    def count_words(document: str) -> int:
        """Return the number of words in one of the documents, given by its file name."""
        return len(documents().get(document, "").split())

    agent = FunctionAgent(
        tools=[count_words],
        llm=language_model(provider),
        system_prompt=f"Answer in one sentence. The documents are: {', '.join(documents())}.",
    )
    turn = agent.run(question)
    async for event in turn.stream_events():
        if isinstance(event, ToolCallResult):
            click.secho(f"{event.tool_name}({event.tool_kwargs}) -> {event.tool_output.content}", dim=True)
        elif isinstance(event, AgentStream):
            click.echo(event.delta, nl=False)
    await turn


def ask_litellm(provider: Provider, *, question: str) -> None:
    """Stream a completion without asking for its usage: the counter does, and the stream looks as if nobody had."""
    import litellm

    chunks = litellm.completion(
        model=f"openai/{provider.model}",
        api_base=provider.api_base,
        api_key=provider.api_key,
        messages=[{"role": "user", "content": question}],
        stream=True,
    )
    for chunk in chunks:
        click.echo(chunk.choices[0].delta.content or "", nl=False)


def counted_run(provider: Provider, *, log_dir: Path) -> dict[str, int]:
    """Make the three calls inside one run, print what it used, and return its figures."""
    counter = TokenCounter(log_dir=log_dir)
    with counter.run("quickstart", tags={"example": "quickstart"}) as run:
        click.secho("1. LlamaIndex: a question about the documents", bold=True)
        ask_documents(provider, question="What does this package promise?")
        click.secho("\n\n2. LlamaIndex: an agent with a tool", bold=True)
        asyncio.run(ask_agent(provider, question="How many words does README.md have?"))
        click.secho("\n\n3. LiteLLM: a stream that tells its usage only when asked", bold=True)
        ask_litellm(provider, question="Say in one sentence what a token is.")
    counter.close()
    summary = run.summary
    figures = {
        "embedding_tokens": summary.embedding_tokens,
        "llm_prompt_tokens": summary.llm_prompt_tokens,
        "llm_completion_tokens": summary.llm_completion_tokens,
    }
    click.echo("\n")
    print_table(f"The run: {summary.calls.llm} LLM and {summary.calls.embedding} embedding calls", figures=figures)
    click.echo(f"The whole story: {run.summary_path}")
    return figures


def print_table(title: str, *, figures: dict[str, int]) -> None:
    """Print figures as a small table."""
    table = Table("tokens", title=title, title_justify="left", title_style="bold", min_width=len(title))
    table.add_column("count", justify="right")
    for name, count in figures.items():
        table.add_row(name, f"{count:,}")
    Console().print(table)


def reading(command: str, log_dir: Path) -> str:
    """Return how to call the command of this environment on the logs."""
    program = os.path.relpath(Path(sys.executable).parent / "token-callbacks")
    folder = "" if str(log_dir) == "token_logs" else f" {'last ' * (command == 'show')}{log_dir}"
    return f"{program} {command}{folder}"


def scripted(body: dict[str, Any]) -> Reply | str:
    """Answer for the loopback server, which has no model to ask."""
    if body.get("tools") and body["messages"][-1]["role"] == "user":
        return Reply(calls=(ToolCall(name="count_words", arguments={"document": "README.md"}),))
    return f"The loopback model has read {len(body['messages'])} message(s), and streams this sentence as its answer."


def is_equal_on_loopback(*, model: str, embedding_model: str, log_dir: Path) -> bool:
    """Run against the loopback server, print its ledger, and tell if it has the run's figures."""
    with LoopbackServer(tokens=CountedTokens(), replies=scripted, chunk_seconds=0.01) as server:
        provider = Provider(api_base=server.base_url, api_key="loopback", model=model, embedding_model=embedding_model)
        ours = counted_run(provider, log_dir=log_dir)
        totals = server.ledger_totals()
    theirs = dict(zip(ours, (totals.embedding_tokens, totals.prompt_tokens, totals.completion_tokens), strict=True))
    click.echo()
    print_table(f"The server's own ledger: {totals.requests} requests", figures=theirs)
    for name in ours:
        if ours[name] != theirs[name]:
            click.secho(f"NOT EQUAL: {name} is {ours[name]} in the run, {theirs[name]} in the ledger", fg="red")
    return ours == theirs


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.option("--live", is_flag=True, help="Ask the real provider; costs some thousand tokens.")
@click.option("--api-base", help="Address of the provider; only with --live.  [default: OpenAI's]")
@click.option("--model", default="gpt-4o-mini", show_default=True)
@click.option("--embedding-model", default="text-embedding-3-small", show_default=True)
@click.option("--log-dir", type=click.Path(path_type=Path, file_okay=False), default="token_logs", show_default=True)
def main(*, live: bool, api_base: str | None, model: str, embedding_model: str, log_dir: Path) -> None:
    """Run the example."""
    if not live:
        if api_base:
            raise click.UsageError("--api-base goes with --live: without it the embedded server answers")
        equal = is_equal_on_loopback(model=model, embedding_model=embedding_model, log_dir=log_dir)
        if equal:
            click.secho("Equal: the run accounts for every token.", fg="green")
            click.echo(f"To look at it: {reading('report', log_dir)} --by model, and {reading('show', log_dir)}")
        sys.exit(0 if equal else 1)
    key = os.environ.get("OPENAI_API_KEY")
    if not key:
        raise click.UsageError("--live needs a key in the environment: export OPENAI_API_KEY=...")
    provider = Provider(api_base=api_base, api_key=key, model=model, embedding_model=embedding_model)
    try:
        counted_run(provider, log_dir=log_dir)
    except (OpenAIError, ValueError) as error:
        raise click.ClickException(f"the provider did not answer as hoped: {error}") from error


if __name__ == "__main__":
    main()
