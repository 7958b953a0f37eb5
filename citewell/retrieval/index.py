"""The index: what the rest of Citewell calls to find, read and change indexed documents."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import IO, ParamSpec, TypeVar

from citewell.documents import Chunk, ScoredChunk, Source
from citewell.errors import IndexMismatch, IngestBusy, StoreTimeout
from citewell.models import Embedder, Encoded
from citewell.retrieval import maxsim
from citewell.retrieval.catalog import SCHEMA_VERSION
from citewell.retrieval.filters import parse
from citewell.retrieval.generation import Generation, NewSource
from citewell.retrieval.generations import Generations
from citewell.retrieval.neighbours import join
from citewell.retrieval.search import Search
from citewell.retrieval.snapshot import Snapshot
from citewell.retrieval.trace import Trace
from citewell.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")

_THREADS = 8
"""Searches in flight at once are bounded by this; each uses two."""
_REMEMBERED_QUESTIONS = 256
"""`search` and `rerank` of one turn share the question's vectors."""


class Index:
    """Sources, their chunks, and the ways to find them. Made by `citewell.retrieval.open_index`.

    Nothing here blocks the event loop, and every read ends within `settings.retrieval_timeout_s`. Reads raise
    `IndexMismatch` when the index was built with other settings, and `StoreError` and its kind when the vector store
    fails.
    """

    def __init__(self, settings: Settings, embedder: Embedder, *, pinned: Generation | None = None) -> None:
        """Args:
        settings: Where the index lies, which store, how chunks are cut.
        embedder: Not closed by the index.
        pinned: A generation to stay with, whatever is current; for the index that a rebuild fills.
        """
        self._settings = settings
        self._embedder = embedder
        self._generations = Generations(settings.data_dir / "index" / settings.namespace)
        self._pinned = pinned is not None
        self._open: _Open | None = _Open(pinned, None) if pinned else None
        self._opening = asyncio.Lock()
        self._writing = 0
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="index")
        self._questions: OrderedDict[str, asyncio.Task[Encoded]] = OrderedDict()

    @property
    def generation(self) -> str:
        """Name and revision of what this process last saw: changes whenever an answer could."""
        return f"{self._open.generation.name}.{self._open.generation.revision}" if self._open else ""

    @property
    def fingerprint(self) -> dict[str, object]:
        """What an index must have been built with for these settings to use it."""
        return {
            "schema": SCHEMA_VERSION, "embedding": self._embedder.fingerprint, "dimension": self._embedder.dimension,
            "chunk_size": self._settings.chunk_size, "chunk_overlap": self._settings.chunk_overlap,
            "tokens": maxsim.DIMENSIONS if self._embedder.gives_tokens else 0, "store": self._settings.vector_store,
        }  # fmt: skip

    # --- finding --------------------------------------------------------------------------------

    async def search(
        self, question: str, *, candidates: int = 50, where: dict[str, object] | None = None,
        access: frozenset[str] | None = None, trace: Trace | None = None,
    ) -> list[ScoredChunk]:  # fmt: skip
        """Find chunks by meaning and by words, side by side, and put both together.

        Args:
            question: Standalone question.
            candidates: Most chunks to return, 1..500.
            where: Metadata filter in the syntax of `filters`, applied before anything is ranked.
            access: The caller's labels: only chunks that share one are ever ranked. None: no restriction.
            trace: Filled with how it came about.

        Returns:
            By descending fused score, 0..1. A text that several sources hold stands there once, `also_in` naming the
            others that the caller may read.

        Raises:
            InvalidFilter: `where` cannot be understood.
            StoreTimeout: The deadline passed.
        """
        tree = parse(where)
        trace = Trace() if trace is None else trace
        async with self._deadline(), self._reading() as generation:
            with trace.stage("embed"):
                encoded = await self._encode(question)
            search = Search(generation, self._run, trace)
            return await search(question, encoded.vectors[0], candidates=candidates, where=tree, access=access)

    async def rerank(
        self, question: str, candidates: Sequence[ScoredChunk], *, top_k: int, trace: Trace | None = None
    ) -> list[ScoredChunk]:
        """Order what `search` found by late interaction with the question, and keep the best.

        With `CITEWELL_RERANKER=none`, or an embedding model without token vectors, the order stays.

        Args:
            question: The one that `search` was asked.
            candidates: What it returned.
            top_k: How many to keep.
            trace: Filled with how it came about.

        Returns:
            By descending score, 0..1, comparable within one question. Chunks that were replaced meanwhile are gone.
        """
        trace = Trace() if trace is None else trace
        if not candidates:
            return []
        if self._settings.reranker == "none" or not self._embedder.gives_tokens:
            return list(candidates[:top_k])
        async with self._deadline(), self._reading() as generation:
            with trace.stage("rerank"):
                encoded = await self._encode(question)
                ranked = await self._run(_rerank, generation, encoded, candidates)
        trace.reranked(ranked, candidates, top_k)
        return ranked[:top_k]

    async def with_neighbours(self, kept: Sequence[ScoredChunk], *, max_chars: int) -> list[ScoredChunk]:
        """Let kept chunks grow by the chunks before and after them, so that an answer is not cut off at a chunk's edge.

        Args:
            kept: What is to be shown, best first; the best grow first.
            max_chars: Most characters all of it may have together. What `kept` has already stays, even if it is more.

        Returns:
            The same, in the same order, with `text`, `start` and `end` widened where there was room: still exactly the
            source's `text[start:end]`. `id`, `page` and the rest stay those of the kept chunk.
        """
        return await self._read(lambda snapshot: join(snapshot, kept, max_chars=max_chars))

    # --- reading --------------------------------------------------------------------------------

    async def text(self, source_uri: str) -> str:
        """A source's extracted text. Raises SourceNotFound."""
        return (await self._read(lambda snapshot: snapshot.text(source_uri)))[0]

    async def page_at(self, source_uri: str, offset: int) -> int | None:
        """The page (from 1) on which a character of a source's text stands; None where it has no pages.

        Raises:
            SourceNotFound: There is no such source.
        """
        starts = (await self._read(lambda snapshot: snapshot.text(source_uri)))[1]
        return max(1, bisect_right(starts, offset)) if starts else None

    async def source(self, uri: str) -> Source:
        """Raises SourceNotFound."""
        return await self._read(lambda snapshot: snapshot.source(uri))

    async def sources(self) -> list[Source]:
        """All sources, by uri."""
        return await self._read(lambda snapshot: snapshot.sources())

    async def chunks(self, ids: Sequence[str]) -> list[Chunk]:
        """The chunks with these ids, in the order given; ids that do not exist are left out."""
        found = await self._read(lambda snapshot: snapshot.entries_by_id(ids))
        return [found[id_].chunk for id_ in ids if id_ in found]

    async def stats(self) -> dict[str, object]:
        """`sources`, `chunks`, `bytes` on disk, `generation`, `fingerprint`."""
        sources, chunks = await self._read(lambda snapshot: snapshot.counts())
        name = self.generation.partition(".")[0]
        size = await self._run(self._generations.size_bytes, name)
        return {
            "sources": sources, "chunks": chunks, "bytes": size, "generation": self.generation,
            "fingerprint": self.fingerprint,
        }  # fmt: skip

    # --- writing --------------------------------------------------------------------------------

    @asynccontextmanager
    async def writing(self, *, wait_s: float = 0) -> AsyncIterator[None]:
        """Hold the index for changes: one ingestion at a time, over all processes.

        Raises:
            IngestBusy: Another one still holds it after `wait_s` seconds.
            IndexMismatch: It was built with other settings.
        """
        if self._pinned:  # whoever rebuilds holds the lock already
            yield
            return
        async with self._lock(wait_s), self._reading() as generation:
            await self._run(generation.catch_up)
            await self._run(generation.clean)
            await self._run(self._sweep)
            self._writing += 1
            try:
                yield
            finally:
                self._writing -= 1
                await asyncio.shield(self._run(_end_writing, generation))

    async def replace_source(
        self, source: Source, text: str, chunks: Sequence[Chunk], *, page_starts: Sequence[int] = ()
    ) -> None:
        """Embed a source's chunks and make its new state visible, whole, in place of what was there."""
        await self.replace_sources([NewSource(source=source, text=text, chunks=chunks, page_starts=page_starts)])

    async def replace_sources(self, new: Sequence[NewSource], *, progress: Callable[[int, int], None] | None = None) -> None:
        """The same for several sources at once: one embedding pass and one commit, so much faster for small ones.

        A few hundred chunks a call is a good size. `progress` is told (chunks embedded, chunks in all).
        """  # fmt: skip
        self._must_be_writing()
        texts = [passage(chunk) for each in new for chunk in each.chunks]
        encoded = await self._embedder.aencode(texts, tokens=self._embedder.gives_tokens, progress=progress)
        async with self._reading() as generation:
            await asyncio.shield(self._run(generation.replace, new, encoded))

    async def remove_source(self, uri: str) -> None:
        """Make a source disappear; one that is not there is no error."""
        self._must_be_writing()
        async with self._reading() as generation:
            await asyncio.shield(self._run(generation.remove, [uri]))

    @asynccontextmanager
    async def rebuilding(self, *, wait_s: float = 0) -> AsyncIterator[Index]:
        """Fill a new generation beside the live one; it becomes current when the block ends without an error.

        Yields the new index, to be filled like any other. One that an earlier rebuild with the same settings left
        unfinished is taken up again, so that its `sources()` need not be done twice. Readers, in this process and
        others, go on with the old one until the change and notice it by themselves.

        Raises:
            IngestBusy: Another ingestion still holds the index after `wait_s` seconds.
        """
        async with self._lock(wait_s):
            name = await self._run(self._unfinished)
            used, generation = await self._run(self._open_generation, name)
            fresh = Index(self._settings, self._embedder, pinned=generation)
            try:
                await self._run(generation.clean)
                yield fresh
                await self._run(_end_writing, generation)
                await self._run(self._generations.make_current, name)
            finally:
                await fresh.close()
                used.close()
        async with self._lock(wait_s):
            await self._run(self._sweep)

    async def close(self) -> None:
        for task in self._questions.values():
            task.cancel()
        if self._open is not None:
            await self._run(self._open.close)
            self._open = None
        self._threads.shutdown(wait=False)

    # --- inside ---------------------------------------------------------------------------------

    async def _run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: call(*args, **kwargs))

    async def _read(self, call: Callable[[Snapshot], T]) -> T:
        def read(generation: Generation) -> T:
            with generation.catalog.reading() as snapshot:
                return call(snapshot)

        async with self._deadline(), self._reading() as generation:
            return await self._run(read, generation)

    @asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        seconds = self._settings.retrieval_timeout_s
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            raise StoreTimeout(f"Retrieval did not end within {seconds:g} seconds.") from None

    async def _encode(self, question: str) -> Encoded:
        task = self._questions.get(question)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = asyncio.create_task(self._embedder.aencode([question], tokens=self._embedder.gives_tokens))
            self._questions[question] = task
            if len(self._questions) > _REMEMBERED_QUESTIONS:
                self._questions.popitem(last=False)
        return await asyncio.shield(task)

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[Generation]:
        opened = await self._current()
        opened.users += 1
        try:
            yield opened.generation
        finally:
            opened.users -= 1
            if opened.retired and not opened.users:
                await asyncio.shield(self._run(opened.close))

    async def _current(self) -> _Open:
        """The current generation, opened anew where another process has put one in place."""
        if self._pinned and self._open is not None:
            return self._open
        name = await self._run(lambda: self._generations.current())
        if self._open is not None and (self._open.generation.name == name or self._writing):
            return self._open
        async with self._opening:
            before = self._open
            if before is None or before.generation.name != name:
                self._open = await self._run(self._open_current)
                if before is not None:
                    before.retired = True
                    if not before.users:
                        await self._run(before.close)
            assert self._open is not None
            return self._open

    def _open_current(self) -> _Open:
        while True:
            name = self._generations.current() or self._first()
            try:
                used, generation = self._open_generation(name)
            except FileNotFoundError:
                if self._generations.current() == name:
                    raise
                continue  # replaced and removed between two lines of ours
            with generation.catalog.reading() as snapshot:
                built, wanted = snapshot.fingerprint(), self.fingerprint
            if built == wanted:
                return _Open(generation, used)
            generation.close()
            used.close()
            differing = ", ".join(sorted(key for key in built | wanted if built.get(key) != wanted.get(key)))
            raise IndexMismatch(
                f"The index in {self._generations.folder} was built with other settings ({differing}). Build it anew with "
                "`python ingest.py --rebuild PATH...`, or go back to the settings it was built with."
            )

    def _open_generation(self, name: str) -> tuple[IO[str], Generation]:
        used = self._generations.use(name)
        try:
            return used, Generation(
                self._generations.folder / name, self._settings, dimension=self._embedder.dimension
            )
        except BaseException:
            used.close()
            raise

    def _first(self) -> str:
        """An empty generation, for an index that has none yet."""
        name = self._generations.begin()
        Generation.create(self._generations.folder / name, self.fingerprint)
        return self._generations.make_first(name)

    def _unfinished(self) -> str:
        """The generation that a rebuild fills: one that was left unfinished if it fits, otherwise a new one."""
        name = self._generations.building()
        if name is not None and Generation.fingerprint_of(self._generations.folder / name) == self.fingerprint:
            return name
        name = self._generations.begin()
        Generation.create(self._generations.folder / name, self.fingerprint)
        self._generations.set_building(name)
        return name

    def _sweep(self) -> None:
        """Remove generations that nobody uses any more."""
        for folder in self._generations.others():
            built = Generation.fingerprint_of(folder)
            if built is not None and built["store"] == self._settings.vector_store != "chroma":
                generation = Generation(folder, self._settings, dimension=self._embedder.dimension)
                generation.drop()
                generation.close()
            self._generations.remove(folder)

    @asynccontextmanager
    async def _lock(self, wait_s: float) -> AsyncIterator[None]:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                lock = await self._run(self._generations.lock)
                break
            except IngestBusy:
                if time.monotonic() >= deadline:
                    raise
                await asyncio.sleep(0.05)
        with lock:
            yield

    def _must_be_writing(self) -> None:
        if not (self._writing or self._pinned):
            raise RuntimeError("changes to the index go inside `async with index.writing():`")


class _Open:
    """A generation in use."""

    def __init__(self, generation: Generation, used: IO[str] | None) -> None:
        self.generation = generation
        self.users = 0
        self.retired = False
        self._used = used

    def close(self) -> None:
        self.generation.close()
        if self._used is not None:
            self._used.close()


def passage(chunk: Chunk) -> str:
    """What is embedded for a chunk: its title and headings give the text its context."""
    above = " / ".join(dict.fromkeys([chunk.title, *chunk.headings]))
    return f"{above}\n{chunk.text}" if above else chunk.text


def _end_writing(generation: Generation) -> None:
    generation.clean()
    generation.keywords.close()


def _rerank(generation: Generation, encoded: Encoded, candidates: Sequence[ScoredChunk]) -> list[ScoredChunk]:
    if encoded.tokens is None or encoded.token_ids is None:
        return list(candidates)
    stored = generation.token_vectors([candidate.chunk.id for candidate in candidates])
    kept = [candidate for candidate in candidates if candidate.chunk.id in stored]
    judged = maxsim.rerank(
        maxsim.query(encoded.tokens[0], encoded.token_ids[0]),
        [stored[candidate.chunk.id] for candidate in kept],
        dense=[candidate.evidence.get("dense") for candidate in kept],
        keyword=[candidate.evidence.get("keyword") for candidate in kept],
    )
    order = sorted(range(len(kept)), key=lambda n: -float(judged.score[n]))
    return [
        replace(
            kept[n], score=float(min(1.0, max(0.0, judged.score[n]))),
            evidence={**kept[n].evidence, "maxsim": float(judged.maxsim[n]), "rerank_rank": float(rank)},
        )
        for rank, n in enumerate(order, 1)
    ]  # fmt: skip
