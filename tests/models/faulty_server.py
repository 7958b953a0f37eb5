"""A small upstream that misbehaves on purpose: a status, silence, or a stream that never ends."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class FaultyServer:
    """Answers every request with `status` and `error`; with 200, streams tokens until the client leaves."""

    base_url: str = ""
    status: int = 200
    error: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    pause_s: float = 0.02
    requests: int = 0
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a client closed the connection in mid-stream."""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
            self.requests += 1
            if self.status == 200:
                await self._stream(reader, writer)
            else:
                body = json.dumps({"error": self.error}).encode()
                lines = [
                    f"HTTP/1.1 {self.status} Fault",
                    "content-type: application/json",
                    f"content-length: {len(body)}",
                ]
                lines += [f"{name}: {value}" for name, value in self.headers.items()]
                writer.write("\r\n".join([*lines, "connection: close", "", ""]).encode() + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left.set()
        finally:
            writer.close()

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        chunk = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "m"}
        chunk["choices"] = [{"index": 0, "delta": {"role": "assistant", "content": "word "}, "finish_reason": None}]
        while not reader.at_eof():
            writer.write(f"data: {json.dumps(chunk)}\n\n".encode())
            await writer.drain()
            await asyncio.sleep(self.pause_s)
        self.left.set()


@asynccontextmanager
async def faulty_server(**behaviour: object) -> AsyncIterator[FaultyServer]:
    faulty = FaultyServer(**behaviour)  # type: ignore[arg-type]
    server = await asyncio.start_server(faulty.answer, "127.0.0.1", 0)
    faulty.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield faulty
    finally:
        server.close()
