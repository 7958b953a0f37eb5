"""One question through each door, timed as its client sees it: first piece of text, and end."""

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import websockets

OPEN_WITHIN_S = 60


class Failed(Exception):
    """The answer was an error, or broke off."""


@dataclass(frozen=True)
class Timing:
    """Seconds from sending the question."""

    first: float | None
    """To the first piece of text; None where the answer comes whole."""
    whole: float


Ask = Callable[[str, str], Awaitable[Timing]]
"""Asks a question in a thread. Raises Failed, or what the connection raises."""


@asynccontextmanager
async def websocket(url: str) -> AsyncIterator[Ask]:
    async with websockets.connect(url.replace("http", "ws", 1) + "/ws/chat", open_timeout=OPEN_WITHIN_S) as socket:

        async def ask(question: str, thread: str) -> Timing:
            begun = time.perf_counter()
            first = None
            await socket.send(json.dumps({"message": question, "conversation_id": thread}))
            while True:
                frame = json.loads(await socket.recv())
                if "error" in frame:
                    raise Failed(str(frame["error"]))
                if first is None:
                    first = time.perf_counter() - begun
                if frame["done"]:
                    return Timing(first, time.perf_counter() - begun)

        yield ask


@dataclass(frozen=True)
class Stream:
    """A door that answers in server-sent events."""

    path: str
    body: Callable[[str, str], dict[str, Any]]
    text: Callable[[Any], object]
    """The piece of text in an event's data, if it has one."""

    @asynccontextmanager
    async def __call__(self, url: str) -> AsyncIterator[Ask]:
        # One connection a client, as a socket is; lines as long as an answer with all its citations.
        async with aiohttp.ClientSession(url, read_bufsize=2**20) as session:

            async def ask(question: str, thread: str) -> Timing:
                begun = time.perf_counter()
                first = None
                accept = {"accept": "text/event-stream"}
                async with session.post(self.path, json=self.body(question, thread), headers=accept) as response:
                    if response.status != 200:
                        raise Failed(await response.text())
                    async for name, data in _events(response):
                        if name in ("done", "end") or data == "[DONE]":
                            return Timing(first, time.perf_counter() - begun)
                        if name == "error":
                            raise Failed(data)
                        if self.text(json.loads(data)) and first is None:
                            first = time.perf_counter() - begun
                raise Failed("the stream broke off")

            yield ask


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, str]]:
    """The name and the data of each server-sent event."""
    name = data = ""
    async for raw in response.content:
        line = raw.decode().rstrip("\r\n")
        if line.startswith("event:"):
            name = line[6:].strip()
        elif line.startswith("data:"):
            data = line[5:].strip()
        elif not line and (name or data):
            yield name, data
            name = data = ""


@asynccontextmanager
async def invoke(url: str) -> AsyncIterator[Ask]:
    async with aiohttp.ClientSession(url) as session:

        async def ask(question: str, thread: str) -> Timing:
            begun = time.perf_counter()
            async with session.post("/rag/invoke", json=_langserve(question, thread)) as response:
                if response.status != 200:
                    raise Failed(await response.text())
                await response.json()
            return Timing(None, time.perf_counter() - begun)

        yield ask


def _langserve(question: str, thread: str) -> dict[str, Any]:
    return {"input": {"question": question}, "config": {"configurable": {"thread_id": thread}}}


def _openai(question: str, thread: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}]
    return {"model": "citewell", "messages": messages, "stream": True, "thread_id": thread}


def _delta(chunk: Any) -> object:
    return chunk["choices"] and chunk["choices"][0]["delta"].get("content")


DOORS = {
    "websocket": websocket,
    "rest": Stream("/chat", lambda q, t: {"message": q, "conversation_id": t}, lambda data: data.get("token")),
    "langserve": Stream("/rag/stream", _langserve, lambda data: data.get("answer")),
    "invoke": invoke,
    "openai": Stream("/v1/chat/completions", _openai, _delta),
}
"""`rest`, `langserve` and `openai` are streams of events, `invoke` is LangServe's whole answer."""
