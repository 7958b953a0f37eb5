"""Chat models by `provider:model`, as LangChain's `init_chat_model` has it."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel

from citewell.errors import ConfigurationError, InvalidRequest, MissingExtra, UnknownModel
from citewell.models.circuit import Circuits
from citewell.settings import EXTRACTIVE, Settings
from citewell.telemetry import tracing

if TYPE_CHECKING:
    import openai

    from citewell.models.deltas import Pace

_EXTRAS = ("anthropic", "ollama")
"""Providers whose package is an extra of the same name."""
_CONNECTIONS = 1000
"""Most calls under way at once to all `openai:` models; the SDK's default."""
_IDLE_S = 2.0
"""How long an idle connection is kept for reuse, in seconds. Many servers (uvicorn, and so vLLM) close theirs after five, and a request
sent at that moment is lost: with five seconds here as well, those of 16 among 256 clients were."""
_CACHED = 64
"""Most models kept, one per (name, temperature, max_tokens); bounded because callers choose temperatures."""


class ChatModels:
    """The chat models a caller may choose from. Made by `open_chat_models`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.default: str = settings.chat_model
        self.circuits = Circuits(settings, settings.called_models)
        self._made: dict[tuple[str, float, int], BaseChatModel] = {}
        self._openai_http: openai.DefaultAsyncHttpxClient | None = None
        self._streams: set[Pace] = set()

    def get(
        self, name: str | None = None, *, temperature: float | None = None, max_tokens: int | None = None
    ) -> BaseChatModel:
        """A ready model; the same arguments give the same object. No I/O.

        Args:
            name: `provider:model`; None: the default model.
            temperature: 0..2; None: as the settings say.
            max_tokens: Longest answer, in tokens; None: as the settings say.

        Raises:
            UnknownModel: No setting names it.
            ConfigurationError: A key or package is missing; the message says which.
        """
        name = name or self.default
        if name == EXTRACTIVE:
            raise ValueError("the extractive answerer is no chat model: chains.extract makes it")
        if name not in self._settings.called_models:
            raise not_offered(self._settings.offered_models)
        key = (
            name,
            self._settings.temperature if temperature is None else temperature,
            self._settings.max_tokens if max_tokens is None else max_tokens,
        )
        if key not in self._made:
            if len(self._made) >= _CACHED:
                del self._made[next(iter(self._made))]
            self._made[key] = self._make(*key)
        return self._made[key]

    def openai_client(self, needed_for: str, *, retries: int) -> openai.AsyncOpenAI:
        """OpenAI's client, for models that are not chat models; it shares the chat models' connections. No I/O.

        Args:
            needed_for: What needs it, as the subject of a sentence.
            retries: Further attempts after a transient failure.

        Raises:
            ConfigurationError: Neither a key nor a base URL is set.
        """
        import openai

        self._check_openai(needed_for)
        return openai.AsyncOpenAI(
            api_key=self._settings.openai_api_key.get_secret_value() if self._settings.openai_api_key else "none",
            base_url=self._settings.openai_base_url,
            timeout=self._settings.model_timeout_s,
            max_retries=retries,
            http_client=self._connections(),
        )

    async def close(self) -> None:
        if self._openai_http is not None:
            await self._openai_http.aclose()
        self._made.clear()

    def _make(self, name: str, temperature: float, max_tokens: int) -> BaseChatModel:
        from langchain.chat_models import init_chat_model  # pulls much in; services without a model do not need it

        provider, _, model = name.partition(":")
        if not model:
            raise ConfigurationError(
                f"CITEWELL_CHAT_MODEL is {name!r}, which is not of the form provider:model, as openai:gpt-5-mini"
            )
        special: dict[str, Callable[[str, float, int], dict[str, Any]]] = {
            "openai": self._openai, "anthropic": self._anthropic, "ollama": self._ollama,
        }  # fmt: skip
        if provider in _EXTRAS and importlib.util.find_spec(f"langchain_{provider}") is None:
            raise MissingExtra(provider, f"The chat model {name}")
        options = special.get(provider, self._plain)(name, temperature, max_tokens)
        try:
            made: BaseChatModel = init_chat_model(model, model_provider=provider, **options)
        except ImportError as exc:
            raise ConfigurationError(f"The chat model {name} needs LangChain's package for {provider}") from exc
        except ValueError as exc:  # also pydantic's ValidationError: most often a key that is not set
            raise ConfigurationError(
                f"The chat model {name} cannot be set up: {provider} is no provider LangChain knows, or its key is missing"
            ) from exc
        if provider == "openai":
            from langchain_openai import ChatOpenAI

            from citewell.models.deltas import Completions

            assert isinstance(made, ChatOpenAI)
            made.async_client = Completions(made.root_async_client, self._streams)
        return made

    def _plain(self, name: str, temperature: float, max_tokens: int) -> dict[str, Any]:
        """Options for any other provider, whose package reads its key from the environment."""
        return {"temperature": temperature, "max_tokens": max_tokens}

    def _openai(self, name: str, temperature: float, max_tokens: int) -> dict[str, Any]:
        settings = self._settings
        self._check_openai(f"The chat model {name}")
        return {
            "temperature": temperature,
            "max_tokens": max_tokens,
            "base_url": settings.openai_base_url,
            "api_key": settings.openai_api_key or "none",
            "timeout": settings.model_timeout_s,
            "stream_chunk_timeout": settings.model_timeout_s,
            "max_retries": 0,  # retries are graph.calls': paid for, counted and within reach of a fallback
            "stream_usage": True,
            "http_async_client": self._connections(),
        }

    def _check_openai(self, needed_for: str) -> None:
        if self._settings.openai_api_key is None and self._settings.openai_base_url is None:
            raise ConfigurationError(
                f"{needed_for} needs a key: set OPENAI_API_KEY, or OPENAI_BASE_URL for a server that takes none"
            )

    def _connections(self) -> openai.DefaultAsyncHttpxClient:
        """The HTTP client that all `openai:` models share, as each makes a TLS context, which takes 20 ms."""
        import httpx2
        import openai

        from citewell.models.deltas import bound

        if self._openai_http is None:
            # On aiohttp, whose parser is in C and returns all that has arrived at once: 60 tokens cost half as much.
            told = [tracing.pass_on] if self._settings.otlp_endpoint else []
            self._openai_http = openai.DefaultAioHttpClient(
                timeout=self._settings.model_timeout_s, event_hooks={"request": told, "response": [bound]},
                limits=httpx2.Limits(max_connections=_CONNECTIONS, keepalive_expiry=_IDLE_S),
            )  # fmt: skip
        return self._openai_http

    def _anthropic(self, name: str, temperature: float, max_tokens: int) -> dict[str, Any]:
        settings = self._settings
        if settings.anthropic_api_key is None:
            raise ConfigurationError(f"The chat model {name} needs a key: set ANTHROPIC_API_KEY")
        if temperature > 1:
            raise InvalidRequest(f"The temperature of {name} is at most 1.")
        return {
            "temperature": temperature,
            "max_tokens": max_tokens,
            "api_key": settings.anthropic_api_key,
            "timeout": settings.model_timeout_s,  # its package shares clients of equal address and timeout
            "max_retries": 0,  # retries are graph.calls': paid for, counted and within reach of a fallback
            "stream_usage": True,
        }

    def _ollama(self, name: str, temperature: float, max_tokens: int) -> dict[str, Any]:
        settings = self._settings
        return {
            "temperature": temperature,
            "num_predict": max_tokens,
            "base_url": settings.ollama_base_url,
            "client_kwargs": {"timeout": settings.model_timeout_s},
        }


def not_offered(offered: Iterable[str]) -> UnknownModel:
    """The error for a model that a caller may not choose."""
    return UnknownModel(
        f"The model is not offered here. Offered are: {', '.join(offered)}. CITEWELL_CHAT_MODELS offers more."
    )


@asynccontextmanager
async def open_chat_models(settings: Settings) -> AsyncIterator[ChatModels]:
    """The chat models that the settings name, each set up once, so that a missing key stops the start and not a turn.

    Raises:
        MissingExtra: A provider's package is not installed.
        ConfigurationError: A key is missing, or a name is not `provider:model`.
    """
    models = ChatModels(settings)
    try:
        for name in sorted(settings.called_models):
            models.get(name)
        yield models
    finally:
        await models.close()
