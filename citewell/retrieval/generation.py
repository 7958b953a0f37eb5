"""An open generation: its catalog, vector store, keyword index and token file, kept consistent."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from citewell.documents import Chunk, ScoredChunk, Source
from citewell.errors import StoreError
from citewell.models import Vectors
from citewell.retrieval.catalog import Catalog, Replacement
from citewell.retrieval.context import contexts
from citewell.retrieval.keywords import KeywordIndex
from citewell.retrieval.neighbours import REACH
from citewell.retrieval.snapshot import Entry, Snapshot, digest
from citewell.retrieval.stores import VectorStore, open_store
from citewell.retrieval.stores.faults import LOST
from citewell.retrieval.tokens import Room, TokenFile
from citewell.settings import Settings

if TYPE_CHECKING:
    from citewell.retrieval.maxsim import Packed

REFRESH_SHARE = 0.1
"""Largest share of the time that may go into reopening a store to which another process keeps writing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSource:
    """What ingestion hands over for one source."""

    source: Source
    text: str
    chunks: Sequence[Chunk]
    page_starts: Sequence[int] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """What is kept of the embedding of some chunks."""

    vectors: Vectors
    """[chunks, dimension]"""
    tokens: Sequence[bytes]
    """Each chunk's packed token vectors; empty where the model gives none."""
    guard: str | None
    """Fingerprint of the guard that skimmed them."""
    suspicions: Sequence[float | None]
    """Its scores, 0..1; None where it has to scan the chunk."""


class Generation:
    """Blocking; call it from threads. Any number of searches may run at the same time, and beside them one writer."""

    def __init__(self, folder: Path, settings: Settings, *, dimension: int) -> None:
        """Open what `Generation.create` made."""
        self.name = folder.name
        self.catalog = Catalog(folder / "catalog.sqlite")
        self.tokens = TokenFile(folder / "tokens.bin")
        self._room: Room | None = None
        self._open = partial(_open_store, folder, settings, dimension)
        self._store: VectorStore | None = None
        self._dimension = dimension
        self._opening = threading.Lock()
        with self.catalog.reading() as snapshot:
            self._seen = snapshot.revision()
        self.keywords = KeywordIndex(folder / "keywords", settings.language)
        self._store_seen = self._seen
        self._next_refresh = 0.0
        self._refreshing = threading.Lock()

    @classmethod
    def create(cls, folder: Path, fingerprint: Mapping[str, object]) -> None:
        Catalog.create(folder / "catalog.sqlite", fingerprint).close()

    @staticmethod
    def drop(folder: Path, settings: Settings, *, dimension: int) -> None:
        """Remove a generation's vectors from the store. Nothing in its folder is opened: an older version may have made it."""
        store = _open_store(folder, settings, dimension)
        store.drop()
        store.close()

    @staticmethod
    def fingerprint_of(folder: Path) -> dict[str, object] | None:
        """What a generation was built with; None where its catalog is missing or unfinished."""
        if not (folder / "catalog.sqlite").exists():
            return None
        catalog = Catalog(folder / "catalog.sqlite")
        try:
            with catalog.reading() as snapshot:
                return snapshot.fingerprint()
        except (sqlite3.DatabaseError, KeyError):  # no tables, or none but empty ones, as older versions could leave
            return None
        finally:
            catalog.close()

    @property
    def store(self) -> VectorStore:
        """The vector store, opened at first use: an ingestion that finds nothing changed does without it."""
        with self._opening:
            if self._store is None:
                self._store = self._open()
            return self._store

    @property
    def revision(self) -> int:
        """The last revision that a read saw."""
        return self._seen

    @property
    def store_revision(self) -> int:
        """The last revision whose vectors are all found; behind `revision` while another process writes."""
        return self._store_seen

    def close(self) -> None:
        self.keywords.close()
        if self._store is not None:
            self._store.close()
        self.tokens.close()
        self.catalog.close()

    # --- reading --------------------------------------------------------------------------------

    def take(self) -> Snapshot:
        """The catalog as it is now, with the stores brought up to date: they hold all its keys, and perhaps others, until a writer
        begins to clean up (`Snapshot.cleanings`). Give it back with `catalog.give_back`.
        """
        snapshot = self.catalog.take()
        try:
            self._see(snapshot.revision())
        except BaseException:
            self.catalog.give_back(snapshot)
            raise
        return snapshot

    def _see(self, revision: int) -> None:
        """Bring the stores up to a revision that this process or another has committed."""
        if revision == self._seen and (revision == self._store_seen or time.monotonic() < self._next_refresh):
            return
        with self._refreshing:
            if revision > self._seen:
                self.keywords.reload()
                self._seen = revision
            if revision > self._store_seen and time.monotonic() >= self._next_refresh:
                began = time.monotonic()
                self.store.refresh()
                ended = time.monotonic()
                self._next_refresh = ended + (ended - began) / REFRESH_SHARE
                self._store_seen = revision

    def check_store(self) -> None:
        """Check that the vector store can be reached and holds what it was given. Raises what a search would."""
        self.store.ping()
        self.expect_vectors()

    def expect_vectors(self) -> None:
        """Check that the vector store is not empty while the catalog is not. One that lost its files, or is another one, finds nothing,
        which would look like documents that hold no answer.

        Raises:
            StoreError: The store is empty.
        """
        import numpy as np  # late, as in `citewell.models.embedder`

        if not self.store.is_prompt or self.store.search(np.eye(1, self._dimension, dtype=np.float32)[0], 1):
            return
        with self.catalog.glance() as now:
            if now.counts()[1] and self._store_seen == now.revision():
                raise StoreError(LOST)

    def token_vectors(self, ids: Sequence[str]) -> dict[str, Packed]:
        """Packed token vectors by chunk id; chunks that are gone or have none are left out.

        Raises:
            StoreError: The token file is shorter than the catalog says, or damaged.
        """
        from citewell.retrieval import maxsim  # late: NumPy comes with it

        while True:
            with self.catalog.glance() as snapshot:
                revision, spans = snapshot.revision(), snapshot.token_spans(ids)
            read = self.tokens.read(list(spans.values()))
            with self.catalog.glance() as now:
                if now.revision() == revision:  # no chunk went meanwhile, whose bytes another may have got
                    break
        try:
            return {id_: maxsim.unpack(data) for id_, data in zip(spans, read, strict=True)}
        except ValueError as exc:
            raise StoreError("The index is damaged: token vectors are missing. Ingest with --rebuild.") from exc

    def judged(self, chunks: Sequence[ScoredChunk], guard: str) -> list[ScoredChunk]:
        """The chunks, each with the score that this guard gave it when it was ingested."""
        with self.catalog.glance() as snapshot:
            found = snapshot.verdicts([one.chunk.id for one in chunks], guard)
        return [replace(one, suspicion=found.get(one.chunk.id)) for one in chunks]

    def neighbours(self, chunks: Sequence[Chunk], guard: str | None) -> list[ScoredChunk]:
        """See `Index.neighbours`."""
        with self.catalog.glance() as snapshot:
            found = snapshot.around([chunk.id for chunk in chunks], REACH)
        now = {entry.chunk.id: entry.chunk for entry, _, _ in found}
        if any(chunk.id not in now or now[chunk.id].access != chunk.access for chunk in chunks):
            return []
        own = {chunk.id for chunk in chunks}
        judged = {
            entry.chunk.id: ScoredChunk(chunk=entry.chunk, score=0.0, suspicion=score if guard else None)
            for entry, by, score in found if guard in (None, by) and entry.chunk.id not in own
        }  # fmt: skip
        return list(judged.values())

    # --- writing --------------------------------------------------------------------------------

    def replace(self, new: Sequence[NewSource], embedded: Embedded) -> None:
        """Make sources visible in their new state, all at once. `embedded` is the embedding of their chunks, in order."""
        chunks = [chunk for each in new for chunk in each.chunks]
        first = self.catalog.reserve(len(chunks)) if chunks else None
        is_first = self._room is None
        if self._room is None:
            self._room = self.catalog.room()
        places = [self._room.take(len(packed)) for packed in embedded.tokens]
        entries = [
            Entry((first or 0) + number, chunk, digest(chunk.text), place, len(packed))
            for number, (chunk, place, packed) in enumerate(zip(chunks, places, embedded.tokens, strict=True))
        ]
        keys = [entry.key for entry in entries]
        if chunks:
            self.tokens.write(places, embedded.tokens)
            around = [text for each in new for text in contexts(each.text, each.chunks, each.page_starts)]
            self.keywords.add(entries, around)
            self.keywords.commit()
            if is_first:  # what is added would hide that the rest is lost
                self.expect_vectors()
            self.store.add(keys, embedded.vectors, chunks)  # last, as the store may still be opening
        by_source: list[Replacement] = []
        for each in new:
            own, entries = entries[: len(each.chunks)], entries[len(each.chunks) :]
            by_source.append(Replacement(source=each.source, text=each.text, page_starts=each.page_starts, entries=own))
        self.catalog.replace(by_source, token_end=self._room.end, first_key=first)
        self._wrote()
        if embedded.guard is not None:
            found = zip(keys, embedded.suspicions, strict=True)
            self.catalog.judge(embedded.guard, {key: score for key, score in found if score is not None})

    def remove(self, uris: Sequence[str]) -> None:
        """Make sources disappear, all at once."""
        self.catalog.remove(uris)
        self._wrote()

    def clean(self) -> None:
        """Remove from the stores what no reader can see: old states, and what a killed writer left."""
        if keys := self.catalog.begin_cleaning():
            self.store.delete(keys)
            self.keywords.delete(keys)
            self.keywords.commit()
            self.keywords.reload()
            self.catalog.forget(keys)

    def catch_up(self) -> None:
        """See everything that others wrote, however long it takes; to be called before writing."""
        self._next_refresh = 0.0
        self._room = None
        self.catalog.give_back(self.take())

    def _wrote(self) -> None:
        """Note a change of our own, for which the store needs no refresh."""
        with self._refreshing:
            self.keywords.reload()
            with self.catalog.reading() as snapshot:
                self._seen = self._store_seen = snapshot.revision()


def _open_store(folder: Path, settings: Settings, dimension: int) -> VectorStore:
    namespace = f"{settings.namespace}-{folder.name}"
    return open_store(settings, namespace=namespace, folder=folder / "vectors", dimension=dimension)
