"""What the language models of a LaVague agent say to it, and what OpenAI would bill for it, images included."""

from __future__ import annotations

import base64
import itertools
import json
import math
import re
import struct
from collections.abc import Callable

import msgspec

from loopback_server import CountedTokens, Exchange, Figures, Json, Reply

WORLD_MODEL_OPENING = "You are an AI system specialized in high level reasoning."
REPHRASING_OPENING = "You are an AI system designed to convert text-based instructions"

LAST_ENGINE = re.compile(r"Last engine: ([\w \[\]]+)")
LINK = re.compile(r'id="hours" xpath="([^"]+)"')
NOWHERE = "/html/body/b[9]"

CLICK = "Click on the link 'Opening hours'"
ANSWER = "The library closes at half past six."
NEXT = {
    "[NONE]": ("Navigation Engine", CLICK),
    "Navigation Engine": ("Python Engine", "Tell when the library closes"),
    "Python Engine": ("COMPLETE", ANSWER),
}
"""What the world model wants next, by the engine that was at work last: three steps."""


def text_of(body: Json) -> str:
    """Join the texts of a request."""
    contents = [message["content"] for message in body.get("messages", ())]
    parts = [content if isinstance(content, list) else [{"text": content}] for content in contents]
    return "\n".join(part.get("text") or "" for part in itertools.chain.from_iterable(parts))


def script(*, first_generation: bool = False, futile_clicks: int = 0) -> Callable[[Json], Reply]:
    """Answer as the models of an agent that clicks, reads the page, and is through; the first clicks lead nowhere."""
    click = _click_json if first_generation else _click_yaml
    clicks = itertools.count()

    def reply(body: Json) -> Reply:
        text = text_of(body)
        if text.lstrip().startswith(WORLD_MODEL_OPENING):
            engine, instruction = NEXT[LAST_ENGINE.findall(text)[-1].strip()]
            return Reply(text=f"Thoughts:\n- On we go.\nNext engine: {engine}\nInstruction: {instruction}")
        if text.lstrip().startswith(REPHRASING_OPENING):
            return Reply(text=str([{"query": "a'Opening hours'", "action": CLICK}]))
        if text.rstrip().endswith("Completion:"):
            link = LINK.search(text)
            return Reply(text=click(NOWHERE if link is None or next(clicks) < futile_clicks else link[1]))
        return Reply(text=json.dumps({"ret": "At half past six.", "score": 0.95}))

    return reply


def _click_yaml(xpath: str) -> str:
    return f'```yaml\n- actions:\n    - action:\n        name: "click"\n        args:\n          xpath: "{xpath}"\n```'


def _click_json(xpath: str) -> str:
    return f"```json\n{json.dumps([{'action': {'name': 'click', 'args': {'xpath': xpath}}}])}\n```"


class BilledTokens(CountedTokens):
    """Count texts with tiktoken and images as OpenAI bills them to gpt-4o.

    85 tokens an image, and with detail "high" 170 for each tile of 512 pixels, once it is scaled into 2048 by 2048 and
    then down to 768 on its shorter side. https://platform.openai.com/docs/guides/images-vision
    """

    def figures(self, exchange: Exchange) -> Figures:
        """Return the count of the texts, with the images as they are billed."""
        images: list[Json] = []
        messages = [_without_images(message, images) for message in exchange.body.get("messages", ())]
        counted = super().figures(msgspec.structs.replace(exchange, body={**exchange.body, "messages": messages}))
        billed = counted.prompt_tokens + sum(map(image_tokens, images))
        return msgspec.structs.replace(counted, prompt_tokens=billed)


def _without_images(message: Json, images: list[Json]) -> Json:
    content = message.get("content")
    if not isinstance(content, list):
        return message
    images += [part["image_url"] for part in content if part["type"] == "image_url"]
    return {**message, "content": [part for part in content if part["type"] != "image_url"]}


def image_tokens(image: Json) -> int:
    """Tell what an image costs, from the size in the PNG's header."""
    if image.get("detail") == "low":
        return 85
    width, height = struct.unpack(">II", base64.b64decode(image["url"].partition("base64,")[2])[16:24])
    scale = min(1.0, 2048 / max(width, height))
    scale *= min(1.0, 768 / (min(width, height) * scale))
    return 85 + 170 * math.ceil(width * scale / 512) * math.ceil(height * scale / 512)
