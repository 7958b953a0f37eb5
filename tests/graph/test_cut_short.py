"""Streams of Anthropic's and Ollama's APIs that end in good order, but too early."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from citewell.errors import ModelUnavailable
from citewell.settings import Settings
from citewell.wiring import open_service

QUESTION = "How high is the tower of the lighthouse?"
WORDS = ("The tower is 42", " metres high [1].")


def ollama(*, is_whole: bool) -> tuple[str, str]:
    lines = [{"model": "m", "message": {"role": "assistant", "content": word}, "done": False} for word in WORDS]
    end = {"model": "m", "message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"}
    counts = {"prompt_eval_count": 9, "eval_count": 5}
    said = [*lines, end | counts] if is_whole else lines[:1]
    return "application/x-ndjson", "".join(json.dumps(line) + "\n" for line in said)


def anthropic(*, is_whole: bool) -> tuple[str, str]:
    message = {"id": "m", "type": "message", "role": "assistant", "content": [], "model": "m", "stop_reason": None,
               "stop_sequence": None, "usage": {"input_tokens": 9, "output_tokens": 1}}  # fmt: skip
    words = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}} for word in WORDS
    ]
    begin = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    ]
    end = [
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ]  # fmt: skip
    said = [*begin, *words, *end] if is_whole else [*begin, *words[:1]]
    return "text/event-stream", "".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in said)


@asynccontextmanager
async def saying(kind: str, body: str) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.partition(b"content-length:")[2].partition(b"\r\n")[0]))
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\n".encode())
        writer.write(f"content-length: {len(body.encode())}\r\n\r\n{body}".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("provider", [ollama, anthropic])
@pytest.mark.parametrize("is_whole", [True, False], ids=["whole", "cut"])
async def test_only_a_whole_answer_is_an_answer(
    provider: object, is_whole: bool, indexed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(provider)
    async with saying(*provider(is_whole=is_whole)) as url:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
        settings = Settings(
            _env_file=None, data_dir=indexed, model_retries=0, anthropic_api_key="none", ollama_base_url=url,
            chat_model={ollama: "ollama:m", anthropic: "anthropic:m"}[provider],
        )  # type: ignore[call-arg, arg-type]  # fmt: skip
        async with open_service(settings) as service:
            if is_whole:
                result = await service.ask(service.prepare(QUESTION))
                assert (result.answer, result.metadata["finish_reason"]) == (
                    "".join(WORDS), "stop" if provider is ollama else "end_turn",
                )  # fmt: skip
            else:
                with pytest.raises(ModelUnavailable, match="before it was whole"):
                    await service.ask(service.prepare(QUESTION))
