"""Fixtures of ingestion: settings in a fresh data directory, an index in memory, and the real one."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from citewell.documents import Source
from citewell.errors import IngestBusy
from citewell.models import Embedder
from citewell.retrieval import Index, NewSource, open_index
from citewell.settings import Settings


class MemoryIndex:
    """An index that embeds nothing and can be told to fail."""

    def __init__(self) -> None:
        self.held: dict[str, NewSource] = {}
        self.writes: list[list[str]] = []
        self.fail_at: str | None = None
        self.is_prepared = False
        self.worn = False
        self._busy = False
        self._fresh: MemoryIndex | None = None

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        if self._busy:
            raise IngestBusy
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    @contextlib.asynccontextmanager
    async def rebuilding(self) -> AsyncIterator[MemoryIndex]:
        async with self.writing():
            self._fresh = self._fresh or MemoryIndex()
            self._fresh.fail_at = self.fail_at
            yield self._fresh
            self.held, self._fresh = self._fresh.held, None

    async def sources(self) -> list[Source]:
        return [new.source for new in self.held.values()]

    async def prepare(self) -> None:
        self.is_prepared = True

    async def replace_sources(
        self, new: Sequence[NewSource], *, progress: Callable[[int, int], None] | None = None
    ) -> None:
        if any(each.source.uri == self.fail_at for each in new):
            raise RuntimeError("the store is gone")
        if progress is not None:
            progress(1, 1)
        self.writes.append([each.source.uri for each in new])
        self.held.update((each.source.uri, each) for each in new)

    async def judge(self, sources: Sequence[str] | None = None) -> None:
        """There is no guard."""

    async def remove_source(self, uri: str) -> None:
        self.held.pop(uri, None)

    async def is_worn(self) -> bool:
        return self.worn


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data")


@pytest.fixture
def index() -> MemoryIndex:
    return MemoryIndex()


@pytest.fixture
async def real_index(settings: Settings, embedder: Embedder) -> AsyncIterator[Index]:
    async with open_index(settings, embedder) as index:
        yield index


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A folder of documents."""
    folder = tmp_path / "library"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "a.txt").write_text("The ferry leaves at seven. It returns at nine.")
    (folder / "b.md").write_text("---\ntags: [sea]\ndate: 2026-03-31\n---\n# Tides\n\nHigh water comes twice a day.\n")
    (folder / "deep" / "er" / "c.html").write_text("<title>Knots</title><p>A bowline does not slip.</p>")
    return folder
