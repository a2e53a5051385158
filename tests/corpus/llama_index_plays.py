"""Exchanges made again by LlamaIndex's integrations, called and awaited."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from tests.corpus.folder import CorpusModules, Exchange
from tests.corpus.plays import Play, Player, UrlOf

FRAMEWORK = "llama_index"
KEY = "sk-replay"
KEYS = ("aws_access_key_id", "aws_secret_access_key")
AWS = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
FORWARDED = ("api_version", "stream_options", "aws_bedrock_runtime_endpoint", "aws_region_name", *KEYS)
"""Arguments of a LiteLLM call that LlamaIndex's LiteLLM class hands on as they are."""

Asked = tuple[tuple[Any, ...], dict[str, Any]]
"""The positional and the named arguments of a call."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """An exchange with what the corpus knows of how it was asked for."""

    exchange: Exchange
    request: Any
    url_of: UrlOf
    litellm_map: Any
    litellm_plan: dict[str, Any]
    """Empty where the corpus has no LiteLLM call for it."""

    @property
    def shape(self) -> str:
        """The provider's dialect, such as ``openai.chat``."""
        return self.exchange["provider_shape"]

    @property
    def embeds(self) -> bool:
        """Tell whether texts were embedded."""
        return self.exchange["truth"]["embedding_tokens"] is not None or "embed" in self.shape

    def model(self, fallback: str) -> str:
        """Name the model as it was asked for."""
        return self.exchange["model"] or fallback

    def tail(self, table: str) -> str:
        """Give the path that the corpus's LiteLLM map knows for the shape."""
        return getattr(self.litellm_map, table)[self.shape][1]


Build = Callable[[Source], Any]
"""Makes an integration's object that asks the replay server for one exchange."""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """An integration and the exchanges that it can make again; ``builds`` are tried in turn."""

    name: str
    module: str
    takes: Callable[[Source], bool]
    builds: tuple[Build, ...]
    ask: str = "chat"

    def reason_left_out(self) -> str | None:
        """Tell why the integration cannot be played here; ``None`` where it can."""
        try:
            importlib.import_module(self.module)
        except ImportError as error:
            return f"{self.name}: {error}"
        return None


def llama_index_player(modules: CorpusModules, corpus: Any) -> Player:
    """Play over each integration that is installed; an ImportError tells that LlamaIndex is not there."""
    importlib.import_module("llama_index.core")
    reasons = {route.name: route.reason_left_out() for route in ROUTES}
    routes = [route for route in ROUTES if reasons[route.name] is None]

    def plays_of(exchange: Exchange, url_of: UrlOf) -> list[Play]:
        source = Source(
            exchange=exchange,
            request=corpus.request(exchange),
            url_of=url_of,
            litellm_map=modules.litellm_map,
            litellm_plan=modules.litellm_map.plan(exchange, corpus, url_of) or {},
        )
        taking = [route for route in routes if route.takes(source)]
        return [_play(route, source, is_async=is_async) for route in taking for is_async in (False, True)]

    left_out = tuple(reason for reason in reasons.values() if reason is not None)
    return Player(framework=FRAMEWORK, plays_of=plays_of, left_out=left_out)


def _play(route: Route, source: Source, *, is_async: bool) -> Play:
    make = _awaited if is_async else _called
    return Play(
        exchange=source.exchange,
        framework=FRAMEWORK,
        route=route.name,
        is_async=is_async,
        attempts=tuple(partial(make, route.ask, build, source) for build in route.builds),
    )


def _called(ask: str, build: Build, source: Source) -> None:
    positional, named = QUESTIONS[ask](source)
    answer = getattr(build(source), _method(ask, source))(*positional, **named)
    if source.exchange["stream"]:
        for _ in answer:
            pass


async def _awaited(ask: str, build: Build, source: Source) -> None:
    positional, named = QUESTIONS[ask](source)
    answer = await getattr(build(source), f"a{_method(ask, source)}")(*positional, **named)
    if source.exchange["stream"]:
        async for _ in answer:
            pass


def _method(ask: str, source: Source) -> str:
    if ask.startswith("embed"):
        return "get_text_embedding_batch"
    return f"stream_{ask}" if source.exchange["stream"] else ask


def _messages(source: Source) -> Asked:
    from llama_index.core.llms import ChatMessage

    simple = source.litellm_map.simple_messages(source.exchange, source.request)
    messages = [ChatMessage(role=each["role"], content=each["content"] or ".") for each in simple]
    return (messages,), {}


def _prompt(source: Source) -> Asked:
    prompt = source.request.get("prompt") if isinstance(source.request, dict) else None
    return (prompt if isinstance(prompt, str) and prompt else "hi",), {}


def _texts(source: Source) -> Asked:
    return (source.litellm_map.embed_inputs(source.request),), {}


def _one_text(source: Source) -> Asked:
    return (source.litellm_map.embed_inputs(source.request)[:1],), {}


QUESTIONS: dict[str, Callable[[Source], Asked]] = {
    "chat": _messages,
    "complete": _prompt,
    "embed": _texts,
    "embed one": _one_text,
}
"""What a route asks; an integration that makes a request of every text is asked for one text."""


def _class(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f"llama_index.{module}"), name)


def _openai(source: Source, model: str | None = None) -> Any:
    made = {"model": model or source.model("gpt-4o-mini"), "api_base": source.url_of("/v1"), "api_key": KEY}
    return _class("llms.openai", "OpenAI")(**made, max_retries=0, additional_kwargs=_stream_options(source))


def _openai_like(source: Source) -> Any:
    return _class("llms.openai_like", "OpenAILike")(
        model=source.model("local-model"),
        api_base=source.url_of(source.tail("OPENAI_LIKE")),
        api_key=KEY,
        is_chat_model=True,
        max_retries=0,
        additional_kwargs=_stream_options(source),
    )


def _openai_like_completion(source: Source) -> Any:
    return _class("llms.openai_like", "OpenAILike")(
        model=source.model("local-model"),
        api_base=source.url_of(source.tail("TEXT")),
        api_key=KEY,
        is_chat_model=False,
        max_retries=0,
        additional_kwargs=_stream_options(source),
    )


def _stream_options(source: Source) -> dict[str, Any]:
    options = source.request.get("stream_options") if isinstance(source.request, dict) else None
    return {"stream_options": options} if options and source.exchange["stream"] else {}


def _openai_responses(source: Source, model: str | None = None) -> Any:
    made = {"model": model or source.model("gpt-4o-mini"), "api_base": source.url_of(source.tail("RESPONSES"))}
    return _class("llms.openai", "OpenAIResponses")(**made, api_key=KEY, max_retries=0)


def _anthropic(source: Source) -> Any:
    model = "claude-sonnet-4-5"  # the class refuses models that it does not know
    return _class("llms.anthropic", "Anthropic")(model=model, base_url=source.url_of(""), api_key=KEY, max_retries=0)


def _litellm(source: Source) -> Any:
    planned = source.litellm_plan["kwargs"]
    return _class("llms.litellm", "LiteLLM")(
        model=planned["model"],
        api_base=planned.get("api_base"),
        api_key=planned.get("api_key"),
        additional_kwargs={name: planned[name] for name in FORWARDED if name in planned},
        max_retries=0,
    )


def _google_genai(source: Source) -> Any:
    return _class("llms.google_genai", "GoogleGenAI")(
        model=source.model("gemini-2.5-flash").removeprefix("models/"),
        api_key=KEY,
        http_options={"base_url": source.url_of("")},
        context_window=100_000,  # given, so that the class does not ask the provider for it
        max_tokens=1000,
        max_retries=0,
    )


def _bedrock_converse(source: Source) -> Any:
    model = "anthropic.claude-3-5-sonnet-20241022-v2:0"  # the class refuses models that it does not know
    return _class("llms.bedrock_converse", "BedrockConverse")(
        model=model, endpoint_url=source.url_of(""), max_retries=1, **AWS
    )


def _mistralai(source: Source) -> Any:
    model = "mistral-small-latest"  # the class refuses models that it does not know
    return _class("llms.mistralai", "MistralAI")(model=model, endpoint=source.url_of(""), api_key=KEY, max_retries=0)


def _cohere(source: Source) -> Any:
    model = "command-r"  # the class refuses models that it does not know
    return _class("llms.cohere", "Cohere")(model=model, base_url=source.url_of(""), api_key=KEY, max_retries=1)


def _ollama(source: Source) -> Any:
    model = source.model("local-model")
    return _class("llms.ollama", "Ollama")(
        model=model, base_url=source.url_of(""), context_window=8000, request_timeout=20
    )


def _dashscope(source: Source) -> Any:
    importlib.import_module("dashscope").base_http_api_url = source.url_of("/api/v1")
    return _class("llms.dashscope", "DashScope")(model_name=source.model("qwen-max"), api_key=KEY)


def _openai_embedding(source: Source) -> Any:
    return _class("embeddings.openai", "OpenAIEmbedding")(
        model=source.model("text-embedding-3-small"),
        api_base=source.url_of("/v1"),
        api_key=KEY,
        max_retries=0,
        embed_batch_size=2048,
    )


def _openai_like_embedding(source: Source) -> Any:
    return _class("embeddings.openai_like", "OpenAILikeEmbedding")(
        model_name=source.model("local-model"),
        api_base=source.url_of(source.tail("EMBED")),
        api_key=KEY,
        max_retries=0,
        embed_batch_size=2048,
    )


def _litellm_embedding(source: Source) -> Any:
    planned = source.litellm_plan["kwargs"]
    return _class("embeddings.litellm", "LiteLLMEmbedding")(
        model_name=planned["model"], api_base=planned["api_base"], api_key=KEY, embed_batch_size=2048
    )


def _cohere_embedding(source: Source) -> Any:
    return _class("embeddings.cohere", "CohereEmbedding")(
        model_name=source.model("embed-english-v3.0"),
        input_type="search_document",
        base_url=source.url_of(""),
        api_key=KEY,
    )


def _google_genai_embedding(source: Source) -> Any:
    return _class("embeddings.google_genai", "GoogleGenAIEmbedding")(
        model_name=source.model("gemini-embedding-001"),
        api_key=KEY,
        http_options={"base_url": source.url_of("")},
        retries=1,
    )


def _ollama_embedding(source: Source) -> Any:
    return _class("embeddings.ollama", "OllamaEmbedding")(
        model_name=source.model("local-model"), base_url=source.url_of("")
    )


def _bedrock_embedding(source: Source) -> Any:
    client = importlib.import_module("boto3").client("bedrock-runtime", endpoint_url=source.url_of(""), **AWS)
    return _class("embeddings.bedrock", "BedrockEmbedding")(
        model_name=source.model("amazon.titan-embed-text-v2:0"), client=client
    )


def _in(*shapes: str) -> Callable[[Source], bool]:
    return lambda source: source.shape in shapes


def _mapped(table: str) -> Callable[[Source], bool]:
    return lambda source: source.shape in getattr(source.litellm_map, table)


def _planned(function: str) -> Callable[[Source], bool]:
    return lambda source: source.litellm_plan.get("fn") == function


def _is_gemini(source: Source) -> bool:
    stored_as_list = source.exchange["response"]["kind"] == "gemini-array"  # the client always asks for events
    shapes = ("gemini.generate", "gemini.stream", "vertex.generate", "vertex.stream", "pydantic_gateway.generate")
    return source.shape in shapes and not stored_as_list


def _is_bedrock_embedding(source: Source) -> bool:
    return source.shape == "bedrock.invoke" and source.embeds


def _is_litellm_embedding(source: Source) -> bool:
    return _planned("embedding")(source) and "api_base" in source.litellm_plan["kwargs"]


ANTHROPIC = ("anthropic.messages", "vertex.anthropic", "pydantic_gateway.messages", "azure.messages")

ROUTES = (
    Route(
        name="OpenAI",
        module="llama_index.llms.openai",
        takes=_in("openai.chat"),
        builds=(_openai, partial(_openai, model="gpt-4o-mini")),
    ),
    Route(
        name="OpenAILike", module="llama_index.llms.openai_like", takes=_mapped("OPENAI_LIKE"), builds=(_openai_like,)
    ),
    Route(
        name="OpenAILike(compl)",
        module="llama_index.llms.openai_like",
        takes=_mapped("TEXT"),
        builds=(_openai_like_completion,),
        ask="complete",
    ),
    Route(
        name="OpenAIResponses",
        module="llama_index.llms.openai",
        takes=_mapped("RESPONSES"),
        builds=(_openai_responses, partial(_openai_responses, model="gpt-4o-mini")),
    ),
    Route(name="Anthropic", module="llama_index.llms.anthropic", takes=_in(*ANTHROPIC), builds=(_anthropic,)),
    Route(name="LiteLLM", module="llama_index.llms.litellm", takes=_planned("completion"), builds=(_litellm,)),
    Route(name="GoogleGenAI", module="llama_index.llms.google_genai", takes=_is_gemini, builds=(_google_genai,)),
    Route(
        name="BedrockConverse",
        module="llama_index.llms.bedrock_converse",
        takes=_in("bedrock.converse", "bedrock.converse-stream"),
        builds=(_bedrock_converse,),
    ),
    Route(name="MistralAI", module="llama_index.llms.mistralai", takes=_in("mistral.chat"), builds=(_mistralai,)),
    Route(name="Cohere", module="llama_index.llms.cohere", takes=_in("cohere.v1_chat"), builds=(_cohere,)),
    Route(name="Ollama", module="llama_index.llms.ollama", takes=_in("ollama.chat"), builds=(_ollama,)),
    Route(
        name="DashScope",
        module="llama_index.llms.dashscope",
        takes=_in("dashscope.generation"),
        builds=(_dashscope,),
    ),
    Route(
        name="OpenAIEmbedding",
        module="llama_index.embeddings.openai",
        takes=_in("openai.embeddings"),
        builds=(_openai_embedding,),
        ask="embed",
    ),
    Route(
        name="OpenAILikeEmbedding",
        module="llama_index.embeddings.openai_like",
        takes=_mapped("EMBED"),
        builds=(_openai_like_embedding,),
        ask="embed",
    ),
    Route(
        name="LiteLLMEmbedding",
        module="llama_index.embeddings.litellm",
        takes=_is_litellm_embedding,
        builds=(_litellm_embedding,),
        ask="embed one",
    ),
    Route(
        name="CohereEmbedding",
        module="llama_index.embeddings.cohere",
        takes=_in("cohere.v1_embed"),
        builds=(_cohere_embedding,),
        ask="embed",
    ),
    Route(
        name="GoogleGenAIEmbedding",
        module="llama_index.embeddings.google_genai",
        takes=_in("gemini.embed"),
        builds=(_google_genai_embedding,),
        ask="embed one",
    ),
    Route(
        name="OllamaEmbedding",
        module="llama_index.embeddings.ollama",
        takes=_in("ollama.embed"),
        builds=(_ollama_embedding,),
        ask="embed one",
    ),
    Route(
        name="BedrockEmbedding",
        module="llama_index.embeddings.bedrock",
        takes=_is_bedrock_embedding,
        builds=(_bedrock_embedding,),
        ask="embed one",
    ),
)
