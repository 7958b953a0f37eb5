"""The index, through which the rest of Citewell finds, reads and changes documents."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from citewell.documents import Chunk, ScoredChunk, Source, may_read
from citewell.errors import StoreTimeout
from citewell.models import Embedder, Encoded
from citewell.models.payer import payer
from citewell.retrieval.blocking import BlockingCalls
from citewell.retrieval.catalog import SCHEMA_VERSION
from citewell.retrieval.current import Current
from citewell.retrieval.embedding import embed
from citewell.retrieval.filters import labels_of, parse
from citewell.retrieval.generation import Generation, NewSource
from citewell.retrieval.packing import has_tokens, packing
from citewell.retrieval.reranking import CrossEncoder, by_late_interaction, in_order
from citewell.retrieval.search import Search
from citewell.retrieval.snapshot import Snapshot
from citewell.retrieval.trace import UNTRACED, Trace
from citewell.retrieval.verdicts import ChunkGuard, judge_some
from citewell.settings import Settings

T = TypeVar("T")

_REMEMBERED_QUESTIONS = 256
"""Questions whose vectors are remembered, as `search` and `rerank` of one turn share them."""

_WORN_TIMES = 5
"""Times the chunks of an index that Chroma may have been given before a rebuild is advised. At 8 times, to open it, to add to it and to
search it took 2 to 5 times the processor time of a new one, at 80 times 20; it still found the same."""
_WORN_FROM = 5_000
"""Chunks besides, which take no time worth a rebuild."""


class Index:
    """Sources, their chunks, and the ways to find them. Made by `citewell.retrieval.open_index`.

    Nothing here blocks the event loop, and every read ends within `settings.retrieval_timeout_s`. Reads raise `IndexMismatch` where
    the index was built with other settings, and `StoreError` or one of its kinds where the vector store fails.

    Args:
        settings: Where the index is, in which store, and how chunks are cut.
        embedder: Not closed by the index.
        cross_encoder: Reranks in place of late interaction. Not closed by the index.
        guard: Judges chunks when `judge` is called; its scores come with what `rerank` keeps.
        pinned: A generation to stay with, whichever is current; for the index that a rebuild fills.
    """

    def __init__(
        self, settings: Settings, embedder: Embedder, *, cross_encoder: CrossEncoder | None = None,
        guard: ChunkGuard | None = None, pinned: str | None = None,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._embedder = embedder
        self._cross_encoder = cross_encoder
        self._guard = guard
        self._blocking = BlockingCalls()
        self._current = Current(
            settings, self.fingerprint, dimension=embedder.dimension, blocking=self._blocking, pinned=pinned
        )
        self._storing = asyncio.Lock()
        self._questions: OrderedDict[tuple[str, str], asyncio.Task[Encoded]] = OrderedDict()

    @property
    def generation(self) -> str:
        """Name and revision of what this process last read; changes whenever an answer could."""
        seen = self._current.seen
        return f"{seen.name}.{seen.revision}" if seen else ""

    @property
    def fingerprint(self) -> dict[str, object]:
        """What an index must have been built with for these settings to use it."""
        # English is left out, so that indexes stay valid that were built before there was a choice.
        language = {} if self._settings.language == "english" else {"language": self._settings.language}
        return {
            "schema": SCHEMA_VERSION, "embedding": self._embedder.fingerprint, "dimension": self._embedder.dimension,
            "chunk_size": self._settings.chunk_size, "chunk_overlap": self._settings.chunk_overlap,
            "tokens": packing(self._embedder), "store": self._settings.vector_store, **language,
        }  # fmt: skip

    # --- finding --------------------------------------------------------------------------------

    async def search(
        self, question: str, *, candidates: int = 50, where: dict[str, object] | None = None,
        access: frozenset[str] | None = None, trace: Trace | None = None,
    ) -> list[ScoredChunk]:  # fmt: skip
        """Find chunks by meaning and by words, and fuse both rankings.

        Args:
            question: Standalone question.
            candidates: Most chunks to return, 1..500.
            where: Metadata filter in the syntax of `filters`, applied before anything is ranked.
            access: The caller's labels: only chunks that share one are ever ranked. None: no restriction.
            trace: Filled with how the result came about.

        Returns:
            By descending fused score, 0..1. A text that several sources hold occurs once; `also_in` names the others that the caller
            may read.

        Raises:
            InvalidFilter: `where` cannot be understood.
            StoreTimeout: The deadline passed.
        """
        tree = parse(where)
        trace = UNTRACED if trace is None else trace
        async with self._deadline():
            with trace.stage("embed"):
                encoded = await self._encode(question)
            return await self._current.read(
                lambda generation: Search(generation, trace).run(
                    question, encoded.vectors[0], candidates=candidates, where=tree, access=access
                )
            )

    async def rerank(
        self, question: str, candidates: Sequence[ScoredChunk], *, top_k: int, trace: Trace | None = None
    ) -> list[ScoredChunk]:
        """Reorder what `search` found, as `CITEWELL_RERANKER` says, and keep the best. With `none` the order stays.

        Args:
            question: The question that `search` was given.
            candidates: What it returned.
            top_k: How many to keep.
            trace: Filled with how the result came about.

        Returns:
            By descending score, 0..1, comparable within one question; each chunk with the guard's score (`suspicion`). Chunks that
            were replaced meanwhile are left out.
        """
        most = top_k if trace is None else len(candidates)  # a trace tells of all
        trace = UNTRACED if trace is None else trace
        if not candidates:
            return []
        with trace.stage("rerank"):
            if self._cross_encoder is not None:
                async with self._deadline():
                    scores = await self._cross_encoder.rerank(question, [one.chunk.text for one in candidates])
                given = in_order(candidates, scores, most, cross_encoder=scores)
            else:
                given = list(candidates)
            late = self._cross_encoder is None and self._settings.reranker == "maxsim"

            def order(generation: Generation) -> tuple[list[ScoredChunk], list[ScoredChunk]]:
                ranked = by_late_interaction(generation, encoded, given, most) if encoded else given
                kept = ranked[:top_k]
                return ranked, generation.judged(kept, self._guard.fingerprint) if self._guard else kept

            async with self._deadline():
                encoded = await self._encode(question) if late else None
                ranked, kept = await self._current.read(order)
        trace.reranked(ranked, candidates, top_k)
        return kept

    async def neighbours(self, kept: Sequence[ScoredChunk]) -> list[ScoredChunk]:
        """The chunks next to these in their sources, up to `neighbours.REACH` before and after each, in no order.

        Args:
            kept: Chunks that `rerank` returned.

        Returns:
            Each neighbour once, without the given chunks, with the guard's score (`suspicion`); where the index has a guard, only
            those that it has judged. Empty where one of the given chunks, or its labels, was replaced meanwhile: old and new chunks
            would not make one document.
        """
        chunks = [one.chunk for one in kept]
        guard = self._guard.fingerprint if self._guard else None
        async with self._deadline():
            return await self._current.read(lambda generation: generation.neighbours(chunks, guard))

    # --- reading --------------------------------------------------------------------------------

    async def text(self, source_uri: str, start: int = 0, end: int = sys.maxsize) -> str:
        """A source's extracted text from one offset to another, as far as there is any; else all of it. Raises SourceNotFound."""
        return await self._read(lambda snapshot: snapshot.text(source_uri, start, end))

    async def page_at(self, source_uri: str, offset: int) -> int | None:
        """The page (from 1) on which a character of a source's text stands; None where it has no pages.

        Raises:
            SourceNotFound: There is no such source.
        """
        starts = await self._read(lambda snapshot: snapshot.page_starts(source_uri))
        return max(1, bisect_right(starts, offset)) if starts else None

    async def source(self, uri: str) -> Source:
        """A source. Raises SourceNotFound."""
        return await self._read(lambda snapshot: snapshot.source(uri))

    async def sources(self) -> list[Source]:
        """All sources, by uri."""
        return await self._read(lambda snapshot: snapshot.sources())

    async def chunks(self, ids: Sequence[str]) -> list[Chunk]:
        """The chunks with these ids, in the same order; ids that do not exist are left out."""
        found = await self._read(lambda snapshot: snapshot.entries_by_id(ids))
        return [found[id_].chunk for id_ in ids if id_ in found]

    async def view(self, access: frozenset[str] | None) -> str:
        """A digest of all that a caller with these labels can find now: equal for two callers, or at two moments, only if every
        document is the same.

        Args:
            access: The caller's labels; None: no restriction.
        """

        def read(generation: Generation) -> str:
            snapshot = generation.take()
            try:
                sets = snapshot.access_sets()
                revision = snapshot.revision()
            finally:
                generation.catalog.give_back(snapshot)
            seen = [each for each in sets if may_read(access, labels_of(each))]
            whole = json.dumps([generation.name, revision, generation.store_revision, seen])
            return hashlib.sha256(whole.encode()).hexdigest()

        async with self._deadline():
            return await self._current.read(read)

    async def ping(self) -> None:
        """Raise what a search would where the vector store cannot be opened or reached, or has lost what it held."""
        async with self._deadline():
            await self._current.read(lambda generation: generation.check_store())

    async def stats(self) -> dict[str, object]:
        """`sources`, `chunks`, `bytes` on disk, `generation` and `fingerprint`. Opens everything that a search needs."""
        async with self._deadline():
            await self._current.read(lambda generation: generation.store)
        sources, chunks = await self._read(lambda snapshot: snapshot.counts())
        name = self.generation.partition(".")[0]
        size = await self._blocking.run(self._current.generations.size_bytes, name)
        return {
            "sources": sources, "chunks": chunks, "bytes": size, "generation": self.generation,
            "fingerprint": self.fingerprint,
        }  # fmt: skip

    async def is_worn(self) -> bool:
        """Whether a rebuild would make the index much smaller, and faster to open, change and search: Chroma's graph keeps a place
        for every chunk that it was ever given."""

        def read(snapshot: Snapshot) -> bool:
            return snapshot.next_key() > _WORN_FROM + _WORN_TIMES * snapshot.counts()[1]

        return self._settings.vector_store.startswith("chroma") and await self._read(read)

    # --- writing --------------------------------------------------------------------------------

    @asynccontextmanager
    async def writing(self, *, wait_s: float = 0) -> AsyncIterator[None]:
        """Hold the index for changes. Only one ingestion can, over all processes.

        Raises:
            IngestBusy: Another one still holds it after `wait_s` seconds.
            IndexMismatch: It was built with other settings.
        """
        if self._current.pinned:  # the rebuild that made this index holds the lock
            yield
            return
        async with self._current.lock(wait_s), self._current.reading() as generation:
            await self._blocking.complete(_begin_writing, generation, self._current)
            self._current.writing += 1
            try:
                yield
            finally:
                self._current.writing -= 1
                await self._blocking.complete(_end_writing, generation)

    async def prepare(self) -> None:
        """Load what writing needs (the embedding model, the guard, the store) while the caller does something else.

        Raises:
            ConfigurationError: The embedding model or the guard cannot be loaded.
            StoreError: The store cannot be opened.
        """
        async with self._current.reading() as generation:
            loads = [self._embedder.load] if self._guard is None else [self._embedder.load, self._guard.load]
            await asyncio.gather(
                *(self._blocking.run(load) for load in loads), self._blocking.complete(lambda: generation.store)
            )

    async def replace_sources(
        self, new: Sequence[NewSource], *, progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Embed the chunks of sources and make the new states of these visible, all at once.

        Several small sources in one call are much faster: one embedding pass, one commit. A few hundred chunks per call is a good
        size. Two calls may overlap: then one embeds while the other stores.

        Args:
            new: Each replaces whatever is there under its source's uri.
            progress: Called with (chunks embedded, chunks in all).
        """
        self._must_be_writing()
        chunks = [chunk for each in new for chunk in each.chunks]
        embedded = await embed(chunks, self._embedder, self._guard, blocking=self._blocking, progress=progress)
        async with self._storing, self._current.reading() as generation:
            await self._blocking.complete(generation.replace, new, embedded)

    async def judge(self, sources: Sequence[str] | None = None) -> None:
        """Let the guard judge every chunk that it has not judged in its present version, and keep its scores.

        Args:
            sources: Only chunks of these uris; None: of all sources.
        """
        self._must_be_writing()
        if self._guard is None:
            return
        last: int | None = 0
        async with self._current.reading() as generation:
            while last is not None:
                last = await self._blocking.complete(
                    judge_some, generation.catalog, self._guard, sources=sources, after=last
                )

    async def remove_source(self, uri: str) -> None:
        """Make a source disappear. It need not exist."""
        self._must_be_writing()
        async with self._current.reading() as generation:
            await self._blocking.complete(generation.remove, [uri])

    @asynccontextmanager
    async def rebuilding(self) -> AsyncIterator[Index]:
        """Fill a new generation beside the current one, and make it current if the block ends without an error.

        Yields the new index, to be filled like any other. One that an earlier rebuild with the same settings left unfinished is
        continued, so that its `sources()` need not be ingested again. Readers, in this process and in others, use the old one until
        then and notice the change by themselves.

        Raises:
            IngestBusy: Another ingestion holds the index.
        """
        async with self._current.lock(wait_s=0):
            name = await self._blocking.run(self._current.unfinished)
            fresh = Index(
                self._settings, self._embedder, cross_encoder=self._cross_encoder, guard=self._guard, pinned=name
            )
            try:
                async with fresh._current.reading() as generation:
                    await self._blocking.complete(generation.clean)
                    yield fresh
                    await self._blocking.complete(_end_writing, generation)
                await self._blocking.run(self._current.generations.make_current, name)
            finally:
                await fresh.close()
            async with self._current.reading():  # open the new one, so that the old one can be removed
                await self._blocking.complete(self._current.sweep)

    async def close(self) -> None:
        for task in self._questions.values():
            task.cancel()
        await self._current.close()
        self._blocking.close()

    # --- inside ---------------------------------------------------------------------------------

    async def _read(self, call: Callable[[Snapshot], T]) -> T:
        def read(generation: Generation) -> T:
            with generation.catalog.reading() as snapshot:
                return call(snapshot)

        async with self._deadline():
            return await self._current.read(read)

    @asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        seconds = self._settings.retrieval_timeout_s
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            raise StoreTimeout(f"Retrieval did not end within {seconds:g} seconds.") from None

    async def _encode(self, question: str) -> Encoded:
        # per caller where embedding costs money: one must neither ask at another's expense nor share another's refusal
        pays = payer.get() if self._embedder.costs_money else None
        known = (question, pays.caller if pays else "")
        task = self._questions.get(known)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = asyncio.create_task(self._embedder.aencode([question], tokens=has_tokens(self._embedder)))
            self._questions[known] = task
            if len(self._questions) > _REMEMBERED_QUESTIONS:
                self._questions.popitem(last=False)
        return await asyncio.shield(task)

    def _must_be_writing(self) -> None:
        if not (self._current.writing or self._current.pinned):
            raise RuntimeError("changes to the index go inside `async with index.writing():`")


def _begin_writing(generation: Generation, current: Current) -> None:
    generation.catch_up()
    generation.clean()
    current.sweep()


def _end_writing(generation: Generation) -> None:
    try:
        generation.clean()
    finally:
        generation.keywords.close()
