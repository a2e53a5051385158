"""Stream answers to browsers from FastAPI (Server-Sent Events), with one run for each request.

    python examples/fastapi_stream.py         # against an embedded loopback server: no key, no network

Asks its own endpoints, several at once, and leaves one in the middle; when the runs of those that were read to their
end differ from the server's ledger, the script ends with exit code 1. To copy: `create_app`.
"""

import asyncio
import json
import os
import warnings
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import click
import httpx
import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.responses import StreamingResponse

from checking import end_with_verdict
from loopback_server import InventedTokens, LoopbackServer
from token_callbacks import Run, TokenCounter

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else `import litellm` fetches its prices from the web
warnings.simplefilter("ignore")

ENDPOINTS = ("/litellm", "/llama-index")


def create_app(
    counter: TokenCounter, *, api_base: str, api_key: str = "loopback", model: str = "gpt-4o-mini"
) -> FastAPI:
    """Make an application with an endpoint for each framework."""
    import litellm
    from llama_index.core.llms import ChatMessage
    from llama_index.llms.openai import OpenAI

    app = FastAPI()
    llm = OpenAI(model=model, api_base=api_base, api_key=api_key)

    async def request_run(request: Request) -> AsyncIterator[Run]:
        """Open a run, which goes on until the last byte of the answer is sent, or the browser is gone."""
        async with counter.run("request", tags={"path": request.url.path}) as run:
            yield run

    RequestRun = Annotated[Run, Depends(request_run)]  # noqa: N806 - FastAPI's way

    @app.get("/litellm")
    async def ask_litellm(question: str, run: RequestRun) -> StreamingResponse:
        messages = [{"role": "user", "content": question}]
        chunks: Any = await litellm.acompletion(
            model=f"openai/{model}", api_base=api_base, api_key=api_key, messages=messages, stream=True
        )

        async def pieces() -> AsyncIterator[str]:
            async with aclosing(chunks):  # a browser that leaves ends the provider's work, and the record
                async for chunk in chunks:
                    yield chunk.choices[0].delta.content or ""

        return streamed(pieces(), run)

    @app.get("/llama-index")
    async def ask_llama_index(question: str, run: RequestRun) -> StreamingResponse:
        chunks: Any = await llm.astream_chat([ChatMessage(role="user", content=question)])

        async def pieces() -> AsyncIterator[str]:
            async with aclosing(chunks):
                async for chunk in chunks:
                    yield chunk.delta or ""

        return streamed(pieces(), run)

    return app


def streamed(pieces: AsyncIterator[str], run: Run) -> StreamingResponse:
    """Send pieces of text as Server-Sent Events."""

    async def events() -> AsyncIterator[str]:
        async with aclosing(pieces):  # type: ignore[type-var]
            async for piece in pieces:
                yield f"data: {json.dumps(piece)}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream", headers={"x-run-id": run.run_id})


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    """Serve the application on a free port; gives its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


async def ask(client: httpx.AsyncClient, endpoint: str, *, question: str, most_events: int | None = None) -> str:
    """Ask an endpoint, leave after so many events, and return the id of the request's run."""
    async with client.stream("GET", endpoint, params={"question": question}) as response:
        response.raise_for_status()
        events = 0
        async for line in response.aiter_lines():
            events += line.startswith("data:")
            if events == most_events:
                break
        return response.headers["x-run-id"]


async def ask_all(counter: TokenCounter, *, api_base: str) -> tuple[list[str], str]:
    """Ask each endpoint five times at once, then leave one half-way; gives the runs of those, and of that one."""
    async with (
        serving(create_app(counter, api_base=api_base)) as url,
        httpx.AsyncClient(base_url=url, timeout=60) as client,
    ):
        questions = [(endpoint, f"question {number}") for number in range(5) for endpoint in ENDPOINTS]
        whole = await asyncio.gather(*(ask(client, endpoint, question=question) for endpoint, question in questions))
        return list(whole), await ask(client, "/litellm", question="left", most_events=3)


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.option("--log-dir", type=click.Path(path_type=Path, file_okay=False), default="token_logs", show_default=True)
def main(log_dir: Path) -> None:
    """Run the example."""
    counter = TokenCounter(log_dir=log_dir)
    with LoopbackServer(tokens=InventedTokens(), chunk_seconds=0.02) as server:
        whole, left = asyncio.run(ask_all(counter, api_base=server.base_url))
        *entries, _ = server.ledger
    counter.close()
    runs = {path.stem: json.loads(path.read_text()) for path in (log_dir / "runs").glob("*.json")}
    for run_id in (*whole, left):
        run = runs[run_id]
        click.echo(f"{run['tags']['path']}: {run['total_llm_tokens']} tokens, abandoned: {run['calls']['abandoned']}")
    figures = sorted((runs[run_id]["llm_prompt_tokens"], runs[run_id]["llm_completion_tokens"]) for run_id in whole)
    end_with_verdict(
        {"the requests": figures, "the one that was left": runs[left]["calls"]["abandoned"]},
        {"the requests": sorted((e.prompt_tokens, e.completion_tokens) for e in entries), "the one that was left": 1},
    )


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
