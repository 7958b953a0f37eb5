"""Chat models through a real OpenAI-compatible server, and what becomes of an upstream's faults."""

import asyncio
import contextlib
import inspect
from contextlib import aclosing
from pathlib import Path

import aiohttp
import anthropic
import httpx
import ollama
import openai
import orjson
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, HumanMessage
from starlette.requests import Request

from citewell.api import problems
from citewell.errors import (
    CitewellError,
    ConfigurationError,
    ContextOverflow,
    InvalidRequest,
    ModelError,
    ModelRefused,
    ModelTimeout,
    ModelUnavailable,
    RateLimited,
    UnknownModel,
)
from citewell.models.chat import open_chat_models
from citewell.models.faults import ANTHROPIC, OPENAI, asked_pause_s, map_model_errors, translate
from citewell.settings import Settings
from tests.models.faulty_server import faulty_server
from tests.models.openai_server import OpenAIServer

QUESTION = [HumanMessage("Count from one to ten.")]


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE", "ANTHROPIC_API_KEY", "OLLAMA_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)  # where no .env lies


def settings_for(base_url: str, model: str = "openai:m", **more: object) -> Settings:
    return Settings(chat_model=model, openai_base_url=base_url, model_retries=0, **more)  # type: ignore[arg-type]


async def test_a_real_server_streams_tokens_usage_and_the_reason_it_stopped(openai_server: OpenAIServer) -> None:
    async with open_chat_models(settings_for(openai_server.base_url, openai_server.chat_model)) as models:
        model = models.get(temperature=0, max_tokens=40)
        pieces = [piece async for piece in model.astream(QUESTION)]
    whole = sum(pieces[1:], pieces[0])
    assert isinstance(whole, AIMessageChunk)
    assert sum(bool(piece.text) for piece in pieces) > 1  # how many is up to how late the event loop is
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["output_tokens"] == 40
    assert whole.usage_metadata["input_tokens"] > 5
    assert whole.response_metadata["finish_reason"] == "length"


async def test_the_same_answer_comes_whole_as_streamed(openai_server: OpenAIServer) -> None:
    async with open_chat_models(settings_for(openai_server.base_url, openai_server.chat_model)) as models:
        model = models.get(temperature=0, max_tokens=12)
        whole = (await model.ainvoke(QUESTION)).text  # first: llama.cpp's server closes a connection after a stream
        assert "".join([piece.text async for piece in model.astream(QUESTION)]) == whole != ""


async def test_a_prompt_that_does_not_fit_is_a_context_overflow(openai_server: OpenAIServer) -> None:
    async with open_chat_models(settings_for(openai_server.base_url, openai_server.chat_model)) as models:
        with pytest.raises(ContextOverflow) as caught, map_model_errors():
            await models.get().ainvoke([HumanMessage("word " * (openai_server.context_tokens + 500))])
    assert "word" not in caught.value.detail
    assert isinstance(caught.value.__cause__, openai.BadRequestError)


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (400, {"message": "secret-text bad field"}, ModelRefused),
        (400, {"message": "This model's maximum context length is 4096 tokens. secret-text"}, ContextOverflow),
        (401, {"message": "bad key secret-text"}, ModelRefused),
        (403, {"message": "secret-text"}, ModelRefused),
        (404, {"message": "no such model secret-text"}, ModelRefused),
        (408, {"message": "secret-text"}, ModelTimeout),
        (409, {"message": "secret-text"}, ModelUnavailable),
        (429, {"message": "slow down secret-text"}, RateLimited),
        (429, {"message": "secret-text", "code": "insufficient_quota"}, ModelRefused),
        (500, {"message": "secret-text"}, ModelUnavailable),
        (503, {"message": "secret-text"}, ModelUnavailable),
        (504, {"message": "secret-text"}, ModelTimeout),
    ],
)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_an_upstreams_status_becomes_our_error_without_its_text(
    status: int, error: dict[str, str], expected: type[CitewellError], streamed: bool
) -> None:
    async with (
        faulty_server(status=status, error=error, headers={"retry-after": "7"}) as server,
        open_chat_models(settings_for(server.base_url)) as models,
    ):
        with pytest.raises(expected) as caught, map_model_errors():
            await (_drain(models.get()) if streamed else models.get().ainvoke(QUESTION))
    assert type(caught.value) is expected
    assert "secret-text" not in caught.value.detail
    assert caught.value.__cause__ is not None
    if isinstance(caught.value, RateLimited):
        assert caught.value.retry_after_s == 7


@pytest.mark.parametrize(
    ("said", "after_s"), [("nan", 1.0), ("inf", 3600.0), ("-5", 0.0), ("Wed, 21 Oct 2026 07:28:00 GMT", 1.0), ("", 1.0)]
)
async def test_how_long_to_wait_is_always_a_time(said: str, after_s: float) -> None:
    async with (
        faulty_server(status=429, error={"message": "slow down"}, headers={"retry-after": said}) as server,
        open_chat_models(settings_for(server.base_url)) as models,
    ):
        with pytest.raises(RateLimited) as caught, map_model_errors():
            await models.get().ainvoke(QUESTION)
    assert caught.value.retry_after_s == after_s
    reply = problems.response(caught.value, Request({"type": "http", "path": "/chat", "headers": []}))
    assert orjson.loads(reply.body)["retry_after_s"] == after_s
    pause_s = asked_pause_s(caught.value)
    assert pause_s is None or pause_s >= 0


async def test_a_connection_that_a_server_may_be_about_to_close_is_not_used_again() -> None:
    """uvicorn closes idle connections after five seconds, and a request that meets that is lost."""
    body = b'{"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes"}}]}'
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.partition(b"content-length:")[2].partition(b"\r\n")[0]))
                length = f"content-length: {len(body)}".encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n" + length + b"\r\n\r\n" + body)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with open_chat_models(settings_for(f"http://127.0.0.1:{port}/v1")) as models:
            for pause_s in (0, 0, 3):
                await asyncio.sleep(pause_s)
                assert (await models.get().ainvoke(QUESTION)).text == "yes"
    assert connections == 2


@pytest.mark.parametrize("url", ["http://no-such-host.invalid/v1", "http://127.0.0.1:1/v1"])
async def test_a_host_that_is_not_there_is_unavailable(url: str) -> None:
    async with open_chat_models(settings_for(url)) as models:
        with pytest.raises(ModelUnavailable), map_model_errors():
            await models.get().ainvoke(QUESTION)


async def test_an_upstream_that_falls_silent_in_mid_stream_is_a_timeout() -> None:
    async with (
        faulty_server(pause_s=30) as server,
        open_chat_models(settings_for(server.base_url, model_timeout_s=0.3)) as models,
    ):
        with pytest.raises(ModelTimeout), map_model_errors():
            await _drain(models.get())
        assert server.requests == 1


async def test_leaving_a_stream_closes_the_connection_upstream() -> None:
    async with faulty_server() as server, open_chat_models(settings_for(server.base_url)) as models:
        async with aclosing(models.get().astream(QUESTION)) as stream:  # type: ignore[type-var]
            assert (await anext(stream)).text == "word "
        await asyncio.wait_for(server.left.wait(), 60)


async def test_cancelling_a_task_closes_the_connection_upstream() -> None:
    async with faulty_server() as server, open_chat_models(settings_for(server.base_url)) as models:
        first = asyncio.Event()

        async def consume() -> None:
            with map_model_errors():
                async for _ in models.get().astream(QUESTION):
                    first.set()

        task = asyncio.create_task(consume())
        await asyncio.wait_for(first.wait(), 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(server.left.wait(), 60)


async def test_only_allowed_models_are_given_and_equal_ones_are_shared() -> None:
    settings = settings_for("http://127.0.0.1:1/v1", chat_models=("openai:other",))
    async with open_chat_models(settings) as models:
        assert models.default == "openai:m"
        assert models.get() is models.get("openai:m", temperature=settings.temperature)
        assert models.get() is not models.get(temperature=0.1)
        assert models.get("openai:other").model_dump()["model_name"] == "other"
        with pytest.raises(UnknownModel, match=r"openai:other.*CITEWELL_CHAT_MODELS"):
            models.get("openai:gpt-9")
        with pytest.raises(ValueError, match="extractive"):
            models.get("extractive")


@pytest.mark.parametrize(
    ("model", "says"),
    [("openai:m", "OPENAI_API_KEY"), ("anthropic:m", "ANTHROPIC_API_KEY"), ("gpt-5-mini", "provider:model"),
     ("mistralai:m", "mistralai"), ("nobody:m", "nobody")],
)  # fmt: skip
async def test_a_model_that_cannot_be_set_up_stops_the_start_with_the_reason(model: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        async with open_chat_models(Settings(chat_model=model)):
            pass


async def test_anthropic_and_ollama_are_set_up_from_their_own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test")
    monkeypatch.setenv("OLLAMA_HOST", "http://127.0.0.1:1")
    settings = Settings(chat_model="anthropic:claude-sonnet-5", chat_models=("ollama:llama3.2",), model_retries=0)
    async with open_chat_models(settings) as models:
        assert type(models.get(temperature=0.5)).__name__ == "ChatAnthropic"
        with pytest.raises(InvalidRequest, match="at most 1"):
            models.get(temperature=1.5)
        with pytest.raises(ModelUnavailable), map_model_errors():
            await models.get("ollama:llama3.2").ainvoke(QUESTION)


async def test_an_absent_provider_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"citewell\[anthropic\]"):
        async with open_chat_models(Settings(chat_model="anthropic:m", anthropic_api_key="k")):  # type: ignore[arg-type]
            pass


async def _drain(model: BaseChatModel) -> None:
    async for _ in model.astream(QUESTION):
        pass


def _exceptions(module: object) -> dict[str, type[Exception]]:
    found = inspect.getmembers(module, lambda item: inspect.isclass(item) and issubclass(item, Exception))
    return {f"{cls.__module__.partition('.')[0]}.{name}": cls for name, cls in found if not name.startswith("_")}


def test_the_table_names_every_public_exception_of_the_openai_sdk() -> None:
    public = {name for name in _exceptions(openai) if name.startswith("openai.")}
    assert len(public) > 15
    assert public - OPENAI.keys() == set()


def test_every_public_exception_of_the_anthropic_sdk_is_decided_by_the_table() -> None:
    public = _exceptions(anthropic)
    assert len(public) > 15
    undecided = {
        name
        for name, cls in public.items()
        if not any(f"anthropic.{base.__name__}" in ANTHROPIC for base in cls.__mro__)
    }
    assert undecided == set()


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ollama.ResponseError("model 'x' not found", 404), ModelRefused),
        (ollama.ResponseError("overloaded", 503), ModelUnavailable),
        (ollama.ResponseError("bad"), ModelError),
        (httpx.ReadTimeout("slow"), ModelTimeout),
        (httpx.ConnectError("refused"), ModelUnavailable),
        (TimeoutError(), ModelTimeout),
        (aiohttp.ServerDisconnectedError(), ModelUnavailable),
        (ConnectionResetError(), ModelUnavailable),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_other_clients_faults_are_known_too(raised: Exception, expected: type[CitewellError]) -> None:
    assert type(translate(raised)) is expected


def test_our_own_errors_and_bugs_pass_unchanged() -> None:
    for mine in (UnknownModel("x"), KeyError("bug"), ZeroDivisionError()):
        with pytest.raises(type(mine)) as caught, map_model_errors():
            raise mine
        assert caught.value is mine
