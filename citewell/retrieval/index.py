"""The index: what the rest of Citewell calls to find, read and change indexed documents."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import sqlite3
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import ParamSpec, TypeVar

from citewell.documents import Chunk, ScoredChunk, Source, may_read
from citewell.errors import StoreError, StoreTimeout
from citewell.models import Embedder, Encoded, Vectors
from citewell.models.payer import payer
from citewell.retrieval.catalog import SCHEMA_VERSION
from citewell.retrieval.current import Current
from citewell.retrieval.filters import labels_of, parse
from citewell.retrieval.generation import Embedded, Generation, NewSource
from citewell.retrieval.packing import has_tokens, packing
from citewell.retrieval.reranking import CrossEncoder, by_late_interaction, in_order
from citewell.retrieval.search import Search
from citewell.retrieval.snapshot import Snapshot
from citewell.retrieval.trace import Trace
from citewell.retrieval.verdicts import ChunkGuard, judge_some
from citewell.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")

_THREADS = 8
"""Searches in flight at once are bounded by this."""
_EMBEDDED_AT_ONCE = 256
"""Chunks: about 90 MB of token vectors and states."""
_REMEMBERED_QUESTIONS = 256
"""`search` and `rerank` of one turn share the question's vectors."""


class Index:
    """Sources, their chunks, and the ways to find them. Made by `citewell.retrieval.open_index`.

    Nothing here blocks the event loop, and every read ends within `settings.retrieval_timeout_s`. Reads raise
    `IndexMismatch` when the index was built with other settings, and `StoreError` and its kind when the vector store
    fails.
    """

    def __init__(
        self, settings: Settings, embedder: Embedder, *, cross_encoder: CrossEncoder | None = None,
        guard: ChunkGuard | None = None, pinned: str | None = None,
    ) -> None:  # fmt: skip
        """Args:
        settings: Where the index lies, which store, how chunks are cut.
        embedder: Not closed by the index.
        cross_encoder: Reranks in place of late interaction. Not closed by the index.
        guard: Judges chunks when `judge` is called; what it found comes with what `rerank` keeps.
        pinned: A generation to stay with, whatever is current; for the index that a rebuild fills.
        """
        self._settings = settings
        self._embedder = embedder
        self._cross_encoder = cross_encoder
        self._guard = guard
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="index")
        self._current = Current(settings, self.fingerprint, dimension=embedder.dimension, run=self._run, pinned=pinned)
        self._storing = asyncio.Lock()
        self._questions: OrderedDict[tuple[str, str], asyncio.Task[Encoded]] = OrderedDict()

    @property
    def generation(self) -> str:
        """Name and revision of what this process last saw: changes whenever an answer could."""
        seen = self._current.seen
        return f"{seen.name}.{seen.revision}" if seen else ""

    @property
    def fingerprint(self) -> dict[str, object]:
        """What an index must have been built with for these settings to use it."""
        # English is not named, so that indexes stay valid that were built before there was a choice.
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
        """Find chunks by meaning and by words, and put both together.

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
        """Order what `search` found as `CITEWELL_RERANKER` says, and keep the best. With `none` the order stays.

        Args:
            question: The one that `search` was asked.
            candidates: What it returned.
            top_k: How many to keep.
            trace: Filled with how it came about.

        Returns:
            By descending score, 0..1, comparable within one question, each with what the guard found when it was ingested
            (`suspicion`). Chunks that were replaced meanwhile are gone.
        """
        trace = Trace() if trace is None else trace
        if not candidates:
            return []
        with trace.stage("rerank"):
            if self._cross_encoder is not None:
                async with self._deadline():
                    scores = await self._cross_encoder.rerank(question, [one.chunk.text for one in candidates])
                given = in_order(candidates, scores, cross_encoder=scores)
            else:
                given = list(candidates)
            late = self._cross_encoder is None and self._settings.reranker == "maxsim"

            def order(generation: Generation) -> tuple[list[ScoredChunk], list[ScoredChunk]]:
                ranked = by_late_interaction(generation, encoded, given) if encoded else given
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
            kept: What `rerank` returned, or some of it.

        Returns:
            Each once, without the given ones, with what the guard found (`suspicion`); where the index has a guard, only
            what that has judged. None at all where one of the given chunks has been replaced meanwhile, or its labels have:
            with what `kept` holds, they would not be one document.
        """
        chunks = [one.chunk for one in kept]
        guard = self._guard.fingerprint if self._guard else None
        async with self._deadline():
            return await self._current.read(lambda generation: generation.neighbours(chunks, guard))

    # --- reading --------------------------------------------------------------------------------

    async def text(self, source_uri: str) -> str:
        """A source's extracted text. Raises SourceNotFound."""
        return (await self._read(lambda snapshot: snapshot.text(source_uri)))[0]

    async def page_at(self, source_uri: str, offset: int) -> int | None:
        """The page (from 1) on which a character of a source's text stands; None where it has no pages.

        Raises:
            SourceNotFound: There is no such source.
        """
        starts = await self._read(lambda snapshot: snapshot.page_starts(source_uri))
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

    async def view(self, access: frozenset[str] | None) -> str:
        """What can be found now by a caller with these labels: equal for two callers, or at two moments, only if every
        document is.

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
        """Raise what a search would, where the vector store cannot be opened or reached, or has lost what it held."""
        async with self._deadline():
            await self._current.read(lambda generation: generation.check_store())

    async def stats(self) -> dict[str, object]:
        """`sources`, `chunks`, `bytes` on disk, `generation`, `fingerprint`. Everything that a search needs is open then."""
        async with self._deadline():
            await self._current.read(lambda generation: generation.store)
        sources, chunks = await self._read(lambda snapshot: snapshot.counts())
        name = self.generation.partition(".")[0]
        size = await self._run(self._current.generations.size_bytes, name)
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
        if self._current.pinned:  # whoever rebuilds holds the lock already
            yield
            return
        async with self._current.lock(wait_s), self._current.reading() as generation:
            await self._complete(_begin_writing, generation, self._current)
            self._current.writing += 1
            try:
                yield
            finally:
                self._current.writing -= 1
                await self._complete(_end_writing, generation)

    async def prepare(self) -> None:
        """Load what writing needs, the embedding model, the guard and the store, while the caller does something else.

        Raises:
            ConfigurationError: The embedding model or the guard cannot be loaded.
            StoreError: The store cannot be opened.
        """
        async with self._current.reading() as generation:
            loads = [self._embedder.load] if self._guard is None else [self._embedder.load, self._guard.load]
            await asyncio.gather(*(self._run(load) for load in loads), self._complete(lambda: generation.store))

    async def replace_sources(
        self, new: Sequence[NewSource], *, progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Embed sources' chunks and make their new states visible, all at once, in place of what was there.

        Several small ones together are much faster: one embedding pass, one commit. A few hundred chunks a call is a good
        size. Call it again before it has ended, and one embeds while the other stores. `progress` is told (chunks embedded,
        chunks in all).
        """  # fmt: skip
        self._must_be_writing()
        embedded = await self._embed([chunk for each in new for chunk in each.chunks], progress)
        async with self._storing, self._current.reading() as generation:
            await self._complete(generation.replace, new, embedded)

    async def _embed(self, chunks: Sequence[Chunk], progress: Callable[[int, int], None] | None) -> Embedded:
        """Some at a time: token vectors take twenty times the memory of what is kept of them."""
        parts: list[Embedded] = []
        for start in range(0, len(chunks), _EMBEDDED_AT_ONCE):
            some = chunks[start : start + _EMBEDDED_AT_ONCE]
            told = (
                (lambda done, _, before=start: progress(before + done, len(chunks))) if progress is not None else None
            )
            passages = [passage(chunk) for chunk in some]
            encoded = await self._embedder.aencode(passages, tokens=has_tokens(self._embedder), progress=told)
            parts.append(await self._run(_kept, encoded, [chunk.text for chunk in some], self._guard))
        return Embedded(
            vectors=await self._run(_stacked, [part.vectors for part in parts], self._embedder.dimension),
            tokens=[packed for part in parts for packed in part.tokens],
            guard=self._guard.fingerprint if self._guard is not None else None,
            suspicions=[score for part in parts for score in part.suspicions],
        )  # fmt: skip

    async def judge(self, sources: Sequence[str] | None = None) -> None:
        """Let the guard judge every chunk that it has not judged, in the state it is in now, and keep what it found.

        Args:
            sources: Only chunks of these uris; None: of all sources.
        """
        self._must_be_writing()
        if self._guard is None:
            return
        last: int | None = 0
        async with self._current.reading() as generation:
            while last is not None:
                last = await self._complete(judge_some, generation.catalog, self._guard, sources=sources, after=last)

    async def remove_source(self, uri: str) -> None:
        """Make a source disappear; one that is not there is no error."""
        self._must_be_writing()
        async with self._current.reading() as generation:
            await self._complete(generation.remove, [uri])

    @asynccontextmanager
    async def rebuilding(self) -> AsyncIterator[Index]:
        """Fill a new generation beside the live one; it becomes current when the block ends without an error.

        Yields the new index, to be filled like any other. One that an earlier rebuild with the same settings left
        unfinished is taken up again, so that its `sources()` need not be done twice. Readers, in this process and
        others, go on with the old one until the change and notice it by themselves.

        Raises:
            IngestBusy: Another ingestion holds the index.
        """
        async with self._current.lock(wait_s=0):
            name = await self._run(self._current.unfinished)
            fresh = Index(
                self._settings, self._embedder, cross_encoder=self._cross_encoder, guard=self._guard, pinned=name
            )
            try:
                async with fresh._current.reading() as generation:
                    await self._complete(generation.clean)
                    yield fresh
                    await self._complete(_end_writing, generation)
                await self._run(self._current.generations.make_current, name)
            finally:
                await fresh.close()
            async with self._current.reading():  # go over to it, so that the old one may be removed
                await self._complete(self._current.sweep)

    async def close(self) -> None:
        for task in self._questions.values():
            task.cancel()
        await self._current.close()
        self._threads.shutdown(wait=False)

    # --- inside ---------------------------------------------------------------------------------

    async def _run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: call(*args, **kwargs))
        except (OSError, sqlite3.OperationalError) as exc:
            what = os.strerror(exc.errno) if isinstance(exc, OSError) and exc.errno else _sqlite_fault(exc)
            raise StoreError(f"The index cannot be read or written: {what}.") from exc

    async def _complete(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what must not be left half-way: a caller that is cancelled waits until it has ended."""
        task = asyncio.ensure_future(self._run(call, *args, **kwargs))
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError as exc:
                cancelled = exc
        result = task.result()
        if cancelled is not None:
            raise cancelled
        return result

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
        # one caller's refusal is not another's, nor may one caller ask at the expense of another
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


def passage(chunk: Chunk) -> str:
    """What is embedded for a chunk: its title and headings give the text its context."""
    above = " / ".join(dict.fromkeys([chunk.title, *chunk.headings]))
    return f"{above}\n{chunk.text}" if above else chunk.text


def _kept(encoded: Encoded, texts: Sequence[str], guard: ChunkGuard | None) -> Embedded:
    """What is kept of some chunks' embedding."""
    import numpy as np  # late, as in `reranking`

    from citewell.retrieval import maxsim

    tokens = [b""] * len(texts)
    if encoded.tokens is not None and encoded.token_ids is not None:
        both = zip(encoded.tokens, encoded.token_ids, strict=True)
        tokens = [maxsim.pack(vectors, ids).tobytes() for vectors, ids in both]
    return Embedded(
        vectors=np.asarray(encoded.vectors, np.float32), tokens=tokens,
        guard=guard.fingerprint if guard is not None else None,
        suspicions=guard.skim(texts, encoded) if guard is not None else [None] * len(texts),
    )  # fmt: skip


def _stacked(parts: Sequence[Vectors], dimension: int) -> Vectors:
    """[rows of all parts, dimension]; there may be no part."""
    import numpy as np

    return np.concatenate([np.zeros((0, dimension), np.float32), *parts])


def _begin_writing(generation: Generation, current: Current) -> None:
    generation.catch_up()
    generation.clean()
    current.sweep()


def _end_writing(generation: Generation) -> None:
    try:
        generation.clean()
    finally:
        generation.keywords.close()


def _sqlite_fault(exc: Exception) -> str:
    """A name such as SQLITE_BUSY: the sentence that goes with it may hold what is nobody's business."""
    name = str(getattr(exc, "sqlite_errorname", None) or type(exc).__name__)
    return os.strerror(errno.ENOSPC) if name == "SQLITE_FULL" else name
