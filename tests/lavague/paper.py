"""A LaVague agent without a browser: LaVague's own agent, world model and Python engine, before a page on paper."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lavague.core.action_engine import ActionEngine
from lavague.core.agents import WebAgent
from lavague.core.base_engine import ActionResult, BaseEngine
from lavague.core.world_model import WorldModel
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.openai import OpenAI
from llama_index.multi_modal_llms.openai import OpenAIMultiModal
from PIL import Image

SITE = Path(__file__).parent / "site"


class PaperDriver:
    """Shows one page of the site, always."""

    previously_scanned = False

    def __init__(self, folder: Path, page: str = "hours.html") -> None:
        self._html = (SITE / page).read_text(encoding="utf-8")
        self._screenshots = folder / "page"  # LaVague empties ./screenshots
        self._screenshots.mkdir(parents=True)
        Image.new("RGB", (600, 400)).save(self._screenshots / "page.png")

    def get_obs(self) -> dict[str, Any]:
        """Look at the page."""
        return {"html": self._html, "screenshots_path": str(self._screenshots), "tab_info": "", "url": "paper"}

    def get_html(self, clean: bool = True) -> str:
        """Return the page."""
        return self._html

    def get_url(self) -> str:
        """Tell where the page is."""
        return "paper"

    def get_screenshot_as_png(self) -> bytes:
        """Return the page as a picture."""
        return (self._screenshots / "page.png").read_bytes()

    def get_capability(self) -> str:
        """Tell what may be done to the page."""
        return "nothing"

    def code_for_init(self) -> str:
        """Return no code."""
        return ""


class Clicker(BaseEngine):
    """A navigation engine of one's own: it asks its model as often, and in the way, that a test wants."""

    def __init__(self, llm: Any, act: Callable[[Any, str], None]) -> None:
        self.llm = llm
        self._act = act

    def execute_instruction(self, instruction: str) -> ActionResult:
        """Act, and succeed."""
        self._act(self.llm, instruction)
        return ActionResult(instruction=instruction, code="", success=True, output=None)

    def execute_instruction_gradio(self, instruction: str, action_engine: Any) -> Any:
        """Act, and show what came of it."""
        action_engine.ret = self.execute_instruction(instruction)
        yield (None, None, None, None, None)


def ask_once(llm: Any, instruction: str) -> None:
    """Ask the model."""
    llm.complete(instruction)


def paper_agent(
    server: Any,
    folder: Path,
    counter: Any,
    *,
    act: Callable[[Any, str], None] = ask_once,
    world_model_class: type = WorldModel,
    agent_class: type = WebAgent,
    **options: Any,
) -> Any:
    """Make an agent whose models are on the server."""
    keys = {"api_base": server.base_url, "api_key": "sk-loopback", "max_retries": 0}
    llm, embedding = OpenAI("gpt-4o", **keys), OpenAIEmbedding(**keys)
    seer = OpenAIMultiModal("gpt-4o", image_detail="high", max_new_tokens=300, **keys)
    driver = PaperDriver(folder)
    engine = ActionEngine(driver, navigation_engine=Clicker(llm, act), llm=llm, embedding=embedding)
    return agent_class(world_model_class(mm_llm=seer), engine, token_counter=counter, n_steps=4, **options)
