"""Loads and splits files in worker processes, each file under a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

import citewell
from citewell.documents import PUBLIC, Chunk, Source
from citewell.errors import SourceUnreadable, SourceUnsupported
from citewell.ingestion.worker import FRAME, memory_bytes
from citewell.retrieval import NewSource
from citewell.settings import Settings

# -P keeps the current directory off the path, since a folder of documents may contain a json.py.
_COMMAND = (
    sys.executable, "-P", "-c",
    "import sys; sys.path.append(sys.argv[1]); from citewell.ingestion.worker import main; main(int(sys.argv[2]))",
    str(Path(citewell.__file__).parent.parent),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """A file, ready for the index."""

    source: Source
    text: str
    page_starts: tuple[int, ...]
    chunks: tuple[Chunk, ...]
    mtime_ns: int
    """Modification time of the file when it was read."""
    inherited: tuple[str, ...] | None = None
    """Access labels from beside or above the file, whether or not the document named its own."""
    notes: tuple[str, ...]

    def for_index(self) -> NewSource:
        return NewSource(source=self.source, text=self.text, chunks=self.chunks, page_starts=self.page_starts)


class Parser:
    """A few worker processes, started when first needed. Use `open_parser`."""

    def __init__(self, settings: Settings, processes: int) -> None:
        self._options = {
            "chunk_size": settings.chunk_size, "chunk_overlap": settings.chunk_overlap, "max_bytes": settings.max_source_bytes,
        }  # fmt: skip
        self._memory_bytes = memory_bytes(settings.max_source_bytes)
        self._timeout_s = settings.parse_timeout_s
        self._idle: asyncio.Queue[asyncio.subprocess.Process | None] = asyncio.Queue()
        self._running: set[asyncio.subprocess.Process] = set()
        for _ in range(processes):
            self._idle.put_nowait(None)

    async def parse(self, path: Path, uri: str, access: tuple[str, ...] | None = None) -> Parsed:
        """Read, load and split one file; waits for a free process.

        Args:
            access: Labels for a document that names none itself; None: everyone may read it.

        Raises:
            SourceUnsupported: These bytes can never be ingested.
            SourceUnreadable: The file is damaged, gone or not permitted, crashed its reader, or took longer than the deadline.
                `same_for` of either is set if the same bytes would fail again.
        """
        process = await self._idle.get()
        healthy = False
        try:
            if process is None or process.returncode is not None:
                process = await self._start()
            request = orjson.dumps({"path": str(path), "uri": uri, "timeout_s": self._timeout_s, **self._options})
            try:
                async with asyncio.timeout(self._timeout_s):
                    answer = await _ask(process, request)
            except TimeoutError:
                raise SourceUnreadable(f"reading took longer than {self._timeout_s:g} s") from None
            except (asyncio.IncompleteReadError, ConnectionError):
                raise SourceUnreadable("the file crashed its reader; it is probably damaged") from None
            healthy = True
        finally:
            # A cancelled or late answer would be taken for that of the next file, so such a process is not used again.
            if process is not None and not healthy:
                await self._stop(process)
            self._idle.put_nowait(process if healthy else None)
        return await asyncio.to_thread(_parsed, answer, uri, access)  # a million passages take seconds

    async def close(self) -> None:
        for process in list(self._running):
            await self._stop(process)

    async def _start(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *_COMMAND,
            str(self._memory_bytes),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        self._running.add(process)
        return process

    async def _stop(self, process: asyncio.subprocess.Process) -> None:
        self._running.discard(process)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def open_parser(settings: Settings, processes: int = 2) -> AsyncIterator[Parser]:
    """Open a parser with the limits and the chunking of the settings. Its processes end with the block."""
    parser = Parser(settings, processes)
    try:
        yield parser
    finally:
        await asyncio.shield(parser.close())


async def _ask(process: asyncio.subprocess.Process, request: bytes) -> bytes:
    if process.stdin is None or process.stdout is None:
        raise ConnectionError
    process.stdin.write(FRAME.pack(len(request)) + request)
    await process.stdin.drain()
    (length,) = FRAME.unpack(await process.stdout.readexactly(FRAME.size))
    return await process.stdout.readexactly(length)


def _parsed(body: bytes, uri: str, inherited: tuple[str, ...] | None) -> Parsed:
    answer: dict[str, Any] = orjson.loads(body)
    if "code" in answer:
        kind = SourceUnreadable if answer["code"] == SourceUnreadable.code else SourceUnsupported
        error = kind(answer["detail"])
        if "mtime_ns" in answer:
            error.same_for = (answer["size"], answer["mtime_ns"])
        raise error
    text, tags = answer["text"], tuple(answer["tags"])
    access = tuple(answer["access"]) or inherited or (PUBLIC,)
    page_starts = tuple(answer["page_starts"])
    source = Source(
        uri=uri, title=answer["title"], type=answer["type"], sha256=answer["sha256"], size_bytes=answer["size"],
        date=answer["date"], tags=tags, access=access, pages=len(page_starts) or None,
    )  # fmt: skip
    chunks = tuple(
        Chunk(
            id=identity, source=uri, title=source.title, text=text[start:end], start=start, end=end, index=index,
            page=page, headings=tuple(headings), type=source.type, date=source.date, tags=tags, access=access,
        )
        for index, (identity, start, end, page, headings) in enumerate(answer["chunks"])
    )  # fmt: skip
    return Parsed(source=source, text=text, page_starts=page_starts, chunks=chunks, mtime_ns=answer["mtime_ns"], inherited=inherited,
                  notes=tuple(answer["notes"]))  # fmt: skip
