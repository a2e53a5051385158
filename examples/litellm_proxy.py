"""Start LiteLLM's proxy with our callback in its yaml, send it a plain and a streamed request, and read its logs.

    python examples/litellm_proxy.py          # needs: pip install 'litellm[proxy]'; no key, no network

The proxy asks an embedded loopback server; when its logs differ from that server's ledger, the script ends with exit
code 1. To copy: `examples/proxy/config.yaml`.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import click
import httpx

from checking import end_with_verdict
from loopback_server import CountedTokens, LoopbackServer

CONFIG = Path(__file__).parent / "proxy" / "config.yaml"
START_SECONDS = 180.0


@contextmanager
def proxy(folder: Path, *, api_base: str) -> Iterator[httpx.Client]:
    """Run the proxy in a folder; gives a client of it.

    Ctrl-C stops it: with SIGTERM uvicorn leaves no time for summaries.
    """
    program = shutil.which("litellm", path=str(Path(sys.executable).parent))
    if program is None or find_spec("litellm_proxy_extras") is None:
        raise click.ClickException("the proxy is a part of its own: pip install 'litellm[proxy]'")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    key = f"sk-{secrets.token_hex(32)}"
    local = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": key}
    local |= {"UPSTREAM_API_BASE": api_base, "OPENAI_API_KEY": "loopback"}
    process = subprocess.Popen(
        [program, "--config", str(CONFIG), "--host", "127.0.0.1", "--port", str(port)],
        cwd=folder,
        env=os.environ | local,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said: list[str] = []
    is_up = threading.Event()

    def read() -> None:
        for line in process.stdout or ():
            said.append(line)
            if "Uvicorn running" in line:
                is_up.set()
        is_up.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        if not is_up.wait(START_SECONDS) or process.poll() is not None:
            raise click.ClickException(f"the proxy does not start: {''.join(said)}")
        headers = {"authorization": f"Bearer {key}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as client:
            yield client
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
        reader.join()


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), default=".", help="Where the proxy runs.")
def main(folder: Path) -> None:
    """Run the example."""
    with LoopbackServer(tokens=CountedTokens()) as server:
        with proxy(folder, api_base=server.base_url) as client:
            for stream in (False, True):
                body = {"model": "chat", "messages": [{"role": "user", "content": "When?"}], "stream": stream}
                client.post("/v1/chat/completions", json=body).raise_for_status()
        entries = server.ledger
    logs = folder / "token_logs"
    lines = [json.loads(line) for file in logs.glob("calls-*.jsonl") for line in file.read_text().splitlines()]
    for line in lines:
        click.echo(f"streamed {line['streamed']}: {line['usage']}, {line['provenance']}")
    end_with_verdict(
        {
            "calls": [
                (line["streamed"], line["usage"]["prompt_tokens"], line["usage"]["completion_tokens"]) for line in lines
            ]
        },
        {"calls": [(entry.streamed, entry.prompt_tokens, entry.completion_tokens) for entry in entries]},
    )


if __name__ == "__main__":
    main()
