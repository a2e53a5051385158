"""A program with a real LaVague agent in headless Chromium, run in the environment of a LaVague release.

    python -m tests.lavague.program '{"site": "http://…", "counter": "ours", "built": "last", "log_dir": "…"}'

Its last line is JSON with what the agent logged. ``counter`` may be ``lavague``, which is LaVague's own, to compare.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from typing import Any

CHROMIUM, CHROMEDRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"


def chromium() -> Any:
    """Start the browser; LaVague reads the source of this function, so it has to be in a file."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})  # 0.2.35 waits for the network by this log
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    return webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))


def made_counter(kind: str, log_dir: str) -> Any:
    """Make a counter: ours, or LaVague's of either generation."""
    if kind == "ours":
        from token_callbacks.adapters.lavague import TokenCounter

        return TokenCounter(log_dir=log_dir)
    try:
        return importlib.import_module("lavague.core.token_counter").TokenCounter()
    except ImportError:
        return importlib.import_module("lavague.core.token_counter_init").init_token_counter()


def made_agent(site: str, make_counter: Callable[[], Any], *, is_last: bool) -> Any:
    """Make an agent as LaVague's documentation does, its counter before or after everything else."""
    counter = None if is_last else make_counter()
    from lavague.core import ActionEngine, WorldModel
    from lavague.core.agents import WebAgent
    from lavague.drivers.selenium import SeleniumDriver
    from llama_index.embeddings.openai import OpenAIEmbedding
    from llama_index.llms.openai import OpenAI
    from llama_index.multi_modal_llms.openai import OpenAIMultiModal

    llm, embedding = OpenAI("gpt-4o"), OpenAIEmbedding(model="text-embedding-3-small")
    world_model = WorldModel(mm_llm=OpenAIMultiModal("gpt-4o", image_detail="high", max_new_tokens=300))
    driver = SeleniumDriver(url=f"{site}/index.html", get_selenium_driver=chromium)
    action_engine = ActionEngine(driver, llm=llm, embedding=embedding, time_between_actions=0.1)
    return WebAgent(world_model, action_engine, token_counter=make_counter() if is_last else counter, n_steps=5)


def main(asked: dict[str, str]) -> dict[str, Any]:
    """Run the agent and tell what came of it."""
    agent = made_agent(
        asked["site"],
        lambda: made_counter(asked["counter"], asked["log_dir"]),
        is_last=asked["built"] == "last",
    )
    try:
        result = agent.run("Tell when the library closes")
    finally:
        agent.driver.destroy()
    return {
        "output": result.output,
        "tokens": getattr(result, "total_estimated_tokens", None),
        "cost": result.total_estimated_cost,
        "rows": [
            {name: value for name, value in row.items() if name.endswith(("_tokens", "_cost", "_per_step"))}
            for row in agent.logger.logs
        ],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(json.loads(sys.argv[1]))) + "\n")
