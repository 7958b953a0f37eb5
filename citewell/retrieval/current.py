"""The generation in use: opened, replaced by a newer one, closed when its last reader is done, removed when unused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import IO, TypeVar

from citewell.errors import IndexMismatch, IngestBusy, StoreError
from citewell.retrieval.blocking import BlockingCalls
from citewell.retrieval.generation import Generation
from citewell.retrieval.generations import Generations
from citewell.settings import Settings

T = TypeVar("T")


class Current:
    """Hands out the current generation. For one event loop.

    Args:
        settings: Where the index is, and in which store.
        fingerprint: What a generation must have been built with.
        dimension: Length of a vector.
        blocking: Runs what blocks.
        pinned: A generation to stay with, whichever is current.
    """

    def __init__(
        self,
        settings: Settings,
        fingerprint: Mapping[str, object],
        *,
        dimension: int,
        blocking: BlockingCalls,
        pinned: str | None,
    ) -> None:
        self.generations = Generations(settings.data_dir / "index" / settings.namespace)
        self.pinned = pinned
        self.writing = 0
        self._settings = settings
        self._fingerprint = dict(fingerprint)
        self._dimension = dimension
        self._blocking = blocking
        self._opened: _Opened | None = None
        self._opening: asyncio.Task[_Opened] | None = None

    @property
    def seen(self) -> Generation | None:
        """The generation that was handed out last."""
        return self._opened.generation if self._opened else None

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Generation]:
        """The current generation, which stays open until the end of the block.

        Raises:
            IndexMismatch: It was built with other settings.
        """
        opened = await self._current()
        async with self._using(opened):
            yield opened.generation

    @asynccontextmanager
    async def _using(self, opened: _Opened) -> AsyncIterator[None]:
        opened.users += 1
        try:
            yield
        finally:
            opened.users -= 1
            if opened.retired and not opened.users:
                await asyncio.shield(self._blocking.run(opened.close))

    async def read(self, call: Callable[[Generation], T]) -> T:
        """The result of `call` on the current generation, in a thread. The same thread finds out which generation is current, since
        going to a thread and back is a good part of the time of a short call.

        Raises:
            IndexMismatch: It was built with other settings.
        """

        def look(opened: _Opened) -> list[T]:
            is_current = self.writing or opened.generation.name == (self.pinned or self.generations.current())
            return [call(opened.generation)] if is_current else []

        while True:
            opened = self._opened or await self._current()
            async with self._using(opened):
                if found := await self._blocking.run(look, opened):
                    return found[0]
            await self._current()

    @asynccontextmanager
    async def lock(self, wait_s: float) -> AsyncIterator[None]:
        """Hold the writer's lock, which all processes share. Raises IngestBusy after `wait_s` seconds."""
        deadline = time.monotonic() + wait_s
        while True:
            try:
                taking = asyncio.ensure_future(self._blocking.run(self.generations.lock))
                held = await asyncio.shield(taking)
                break
            except asyncio.CancelledError:
                await asyncio.wait([taking])
                _let_go(taking)
                raise
            except IngestBusy:
                if time.monotonic() >= deadline:
                    raise
                await asyncio.sleep(0.05)
        with held:
            yield

    async def close(self) -> None:
        if self._opening is not None:
            await asyncio.wait([self._opening])
        if self._opened is not None:
            await self._blocking.run(self._opened.close)
            self._opened = None

    async def _current(self) -> _Opened:
        name = self.pinned or await self._blocking.run(self.generations.current)
        if self._opened is not None and (self._opened.generation.name == name or self.writing):
            return self._opened
        if self._opened is not None and name is None:  # a new index would look like documents that hold no answer
            raise StoreError(
                f"The index in {self.generations.folder} is gone. Put the data directory back, or ingest the documents anew."
            )
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._change(name))
        # Shielded: a caller whose deadline passes must not cancel what the next one needs.
        return await asyncio.shield(self._opening)

    async def _change(self, name: str | None) -> _Opened:
        """Open the current generation and retire the one before."""
        before = self._opened
        if before is not None and before.generation.name == name:
            return before
        self._opened = await self._blocking.run(self._open)
        if before is not None:
            before.retired = True
            if not before.users:
                await self._blocking.run(before.close)
        return self._opened

    # --- blocking -------------------------------------------------------------------------------

    def unfinished(self) -> str:
        """The generation that a rebuild is to fill: an unfinished one that was built with the same settings, otherwise a new one."""
        name = self.generations.building()
        if name is not None and Generation.fingerprint_of(self.generations.folder / name) == self._fingerprint:
            return name
        name = self._create()
        self.generations.set_building(name)
        return name

    def sweep(self) -> None:
        """Remove generations that nobody uses any more."""
        for folder in self.generations.others():
            built = Generation.fingerprint_of(folder)
            if built is not None and built["store"] == self._settings.vector_store != "chroma":
                Generation.drop(folder, self._settings, dimension=self._dimension)
            self.generations.remove(folder)

    def _open(self) -> _Opened:
        while True:
            name = self.pinned or self.generations.current() or self.generations.make_first(self._create())
            folder = self.generations.folder / name
            try:
                used = self.generations.use(name)
            except FileNotFoundError:
                if self.generations.current() == name:
                    raise
                continue  # replaced and removed in between
            try:
                self._check(Generation.fingerprint_of(folder) or {})
                return _Opened(Generation(folder, self._settings, dimension=self._dimension), used)
            except BaseException:
                used.close()
                raise

    def _check(self, built: Mapping[str, object]) -> None:
        keys = sorted(built.keys() | self._fingerprint.keys())
        if differing := [key for key in keys if built.get(key) != self._fingerprint.get(key)]:
            raise IndexMismatch(
                f"The index in {self.generations.folder} was built with other settings ({', '.join(differing)}). Build it "
                "anew with `python ingest.py --rebuild PATH...`, or go back to the settings it was built with."
            )

    def _create(self) -> str:
        name = self.generations.begin()
        Generation.create(self.generations.folder / name, self._fingerprint)
        return name


def _let_go(taken: asyncio.Future[IO[str]]) -> None:
    """Close a lock that was taken for a caller who has left."""
    if not taken.cancelled() and taken.exception() is None:
        taken.result().close()


class _Opened:
    """A generation in use."""

    def __init__(self, generation: Generation, used: IO[str]) -> None:
        self.generation = generation
        self.users = 0
        self.retired = False
        self._used = used

    def close(self) -> None:
        self.generation.close()
        self._used.close()
