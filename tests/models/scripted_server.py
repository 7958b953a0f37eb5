"""An OpenAI-compatible server that follows a script for each model: it answers, refuses, falls silent or breaks off; and it
moderates."""

from __future__ import annotations

import asyncio
import json
import math
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

Deed = int | str
"""A status to refuse with; `silent`: accepts the request and sends nothing; `cut`: breaks off after the first word;
`hollow`: ends without a word; `page`: sends an HTML page; `null`: sends an answer without choices; `answer`."""
ANSWER = "The tower is 42 metres high [1]."
USED = (100, 10)
"""Input and output tokens that it reports with each answer."""


@dataclass
class ScriptedServer:
    """Its script, and a record of the requests."""

    base_url: str = ""
    answer: str = ANSWER
    pause_s: float = 0.0
    """Wait before an answer."""
    most_words: float = math.inf
    """How many words of an answer are said; those beyond wait until it is more, or the client leaves."""
    deeds: dict[str, list[Deed]] = field(default_factory=lambda: defaultdict(list))
    """By model, what to do next, each once; then `always` applies."""
    always: dict[str, Deed] = field(default_factory=dict)
    """By model, what to do otherwise; `answer` without an entry."""
    headers: dict[str, str] = field(default_factory=lambda: {"retry-after-ms": "1"})
    """The headers of a refusal."""
    calls: list[str] = field(default_factory=list)
    """The models that were asked, in order."""
    prompts: list[str] = field(default_factory=list)
    """The messages of each request for an answer, as JSON."""
    finish_reason: str = "stop"
    used: tuple[int, int] = USED
    """Input and output tokens that it reports."""
    harmful: dict[str, str] = field(default_factory=dict)
    """Word to the category that moderation reports for a text that contains it."""
    moderated: list[str] = field(default_factory=list)
    """The texts that were given to moderation, in order."""
    verdict: Any = None
    """The answer of moderation, whatever the text; None: by `harmful`."""
    is_silent: bool = False
    """Whether a client waits for it in vain."""
    left: int = 0
    """How often a client hung up while it was silent."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            body = json.loads(await reader.readexactly(int(length.split(b":")[1])))
            model = body["model"]
            self.calls.append(model)
            is_moderation = head.startswith(b"POST /v1/moderations ")
            if is_moderation:
                self.moderated.append(body["input"])
            else:
                self.prompts.append(json.dumps(body["messages"]))
            waiting = self.deeds[model]
            deed = waiting.pop(0) if waiting else self.always.get(model, "answer")
            if isinstance(deed, int):
                self._refuse(writer, deed)
            elif deed == "silent":
                self.is_silent = True
                await reader.read()
                self.is_silent = False
                self.left += 1
            elif deed == "page":
                _whole(writer, "<html>Sign in</html>")
            elif deed == "null":
                self._null(writer, is_streamed=bool(body.get("stream")))
            elif is_moderation:
                self._judge(writer, body)
            else:
                await asyncio.sleep(self.pause_s)
                await self._say(reader, writer, body, "" if deed == "hollow" else self.answer, is_cut=deed == "cut")
                if deed == "cut":  # a word that is overtaken by the end of its connection was never said
                    await writer.drain()
                    await asyncio.sleep(0.1)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client left
        finally:
            writer.close()

    def _refuse(self, writer: asyncio.StreamWriter, status: int) -> None:
        body = b'{"error": {"message": "as told"}}'
        lines = [f"HTTP/1.1 {status} Told", "content-type: application/json", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        writer.write("\r\n".join([*lines, "connection: close", "", ""]).encode() + body)

    def _null(self, writer: asyncio.StreamWriter, *, is_streamed: bool) -> None:
        if not is_streamed:
            _whole(writer, {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": None})
            return
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        writer.write(b'data: {"choices": [null]}\n\ndata: [DONE]\n\n')

    def _judge(self, writer: asyncio.StreamWriter, body: dict[str, Any]) -> None:
        names = {category for word, category in self.harmful.items() if word in body["input"]}
        every = sorted({"harassment", "self-harm/intent", "violence", *self.harmful.values()})
        result = {
            "flagged": bool(names), "categories": {name: name in names for name in every},
            "category_scores": {name: 0.9 if name in names else 0.01 for name in every},
            "category_applied_input_types": {name: ["text"] for name in every},
        }  # fmt: skip
        whole = {"id": "modr-1", "model": body["model"], "results": [result]}
        _whole(writer, whole if self.verdict is None else self.verdict)

    async def _say(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        body: dict[str, Any],
        answer: str,
        *,
        is_cut: bool,
    ) -> None:
        usage = dict(zip(("prompt_tokens", "completion_tokens"), self.used, strict=True)) | {
            "total_tokens": sum(self.used)
        }
        if not body.get("stream"):
            message = {"role": "assistant", "content": answer}
            choice = {"index": 0, "message": message, "finish_reason": self.finish_reason}
            whole = {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"], "usage": usage}
            _whole(writer, whole | {"choices": [choice]})
            return
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n")
        writer.write(b"connection: close\r\n\r\n")
        chunk = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": body["model"]}
        words = [f"{word} " for word in answer.split()]
        said = words[:1] if is_cut else [*words[:-1], *(word.strip() for word in words[-1:])]
        for number, word in enumerate(said):
            while number >= self.most_words and not reader.at_eof():
                await asyncio.sleep(0.01)
            delta = {"role": "assistant", "content": word}
            _event(writer, chunk | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        if not is_cut:  # else the last chunk never comes
            _event(writer, chunk | {"choices": [{"index": 0, "delta": {}, "finish_reason": self.finish_reason}]})
            _event(writer, chunk | {"choices": [], "usage": usage})
            writer.write(b"0\r\n\r\n")


def _whole(writer: asyncio.StreamWriter, answer: Any) -> None:
    text = json.dumps(answer).encode()
    writer.write(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n"
        + f"content-length: {len(text)}\r\n\r\n".encode() + text
    )  # fmt: skip


def _event(writer: asyncio.StreamWriter, event: dict[str, Any]) -> None:
    line = f"data: {json.dumps(event)}\n\n".encode()
    writer.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")


@asynccontextmanager
async def scripted_server() -> AsyncIterator[ScriptedServer]:
    told = ScriptedServer()
    server = await asyncio.start_server(told.serve, "127.0.0.1", 0)
    told.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield told
    finally:
        server.close()


@pytest.fixture
async def told() -> AsyncIterator[ScriptedServer]:
    """A server to be told what to do."""
    async with scripted_server() as server:
        yield server
