"""How users of LiteLLM and LlamaIndex, and providers, call a model, its seller and its service tier."""

from __future__ import annotations

import re
from collections.abc import Iterator

from token_callbacks.charges import Charge

LOCAL = frozenset({
    "custom", "custom_openai", "docker_model_runner", "hosted_vllm", "lemonade", "llama.cpp", "llama_cpp",
    "llamacpp", "llamafile", "lm_studio", "localai", "ollama", "ollama_chat", "oobabooga", "openai_like",
    "openailike", "petals", "sglang", "tgi", "triton", "vllm", "xinference",
})  # fmt: skip
"""Who runs models on the user's own machines: what these cost, only the user knows."""

STANDARD_TIERS = frozenset({None, "auto", "default", "on_demand", "standard", "standard_only"})
"""What providers call the service tier that the plain prices are for."""

_SOLD = frozenset({
    "anthropic", "azure", "azure_ai", "bedrock", "bedrock_converse", "cerebras", "cohere", "cohere_chat",
    "databricks", "deepinfra", "deepseek", "dashscope", "fireworks_ai", "gemini", "groq", "mistral", "moonshot",
    "nebius", "novita", "openai", "openrouter", "ovhcloud", "perplexity", "sambanova", "text-completion-openai",
    "together_ai", "vertex_ai", "vertex_ai_beta", "voyage", "watsonx", "xai", "zai",
})  # fmt: skip

_RELAYS = frozenset({"litellm_proxy", "litellm"})
"""Who passes calls on to whoever the model's name says."""

_BEDROCK_ROUTE = re.compile(r"^(?:(?:converse|converse_like|invoke|[a-z]{2}(?:-[a-z]+)+-\d)/)+")


def asked_names(charge: Charge) -> Iterator[str]:
    """Yield the names to look a call's model up by: the one that was asked for, then the provider's."""
    for name in dict.fromkeys((charge.model, charge.response_model)):
        if name:
            yield name


def sold_as(charge: Charge, model: str) -> tuple[str | None, str]:
    """Tell the provider, as LiteLLM calls it, and the model's name there.

    ``openai/gpt-4o`` is OpenAI's ``gpt-4o``, unless somebody else is told to sell it under that very name.
    """
    provider = None if charge.provider is None or charge.provider in _RELAYS else charge.provider.lower()
    head, slash, rest = model.partition("/")
    if slash and (head.lower() == provider or (provider is None and head.lower() in _SOLD | LOCAL)):
        provider, model = head.lower(), rest
    elif slash and head.lower() in _RELAYS:
        return sold_as(Charge(provider=None, model=rest, day=charge.day), rest)
    model = model.removeprefix("models/")
    return provider, _BEDROCK_ROUTE.sub("", model) if provider in {"bedrock", "bedrock_converse"} else model
