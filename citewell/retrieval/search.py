"""One search: dense and keyword, checked against the catalog, fused, duplicates folded.

All of it is one blocking call. Its steps are so short that handing each to a thread of its own, the two searches side by
side, took longer than it saved: six waits for the event loop, which a busy service makes long ones.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import ParamSpec, TypeVar

from citewell.documents import ScoredChunk
from citewell.models import Vectors
from citewell.retrieval import fusion
from citewell.retrieval.filters import Filter, Test, both, holds, labels_of
from citewell.retrieval.generation import Generation
from citewell.retrieval.snapshot import Entry, Snapshot
from citewell.retrieval.trace import Trace

P = ParamSpec("P")
T = TypeVar("T")

_ATTEMPTS = 8
"""A search starts over where a writer cleaned up while it ran, which a writer does as it begins and as it ends."""
_WIDEST = 16
"""At most this many times the candidates are fetched when hits turn out to be leftovers or duplicates."""


class Search:
    """Searches one generation in a state that is whole. Blocking; for one thread. No source is seen half old and half new, or not at all.

    The catalog is read in one snapshot from beginning to end. The stores hold all of that snapshot's keys until a writer
    cleans up what no newer reader can see; a search during which that began starts over.
    """

    def __init__(self, generation: Generation, trace: Trace) -> None:
        self._generation = generation
        self._trace = trace

    def __call__(
        self, question: str, vector: Vectors, *, candidates: int, where: Filter | None, access: frozenset[str] | None
    ) -> list[ScoredChunk]:
        width = candidates
        for attempt in itertools.count(1):
            snapshot, allowed = self._timed("catalog", self._begin, access)
            try:
                if allowed == ():
                    return []
                only = both(where, Test("access", "in", allowed) if allowed is not None else None)
                dense = self._timed("dense", self._generation.store.search, vector, width, only)
                keyword = self._timed("keyword", self._generation.keywords.search, question, width, only)
                keys = dict.fromkeys(key for key, _ in [*dense, *keyword])
                entries, cleaned = self._timed("catalog", self._look_up, snapshot, keys)
                if cleaned and attempt < _ATTEMPTS:
                    continue
                if not dense:
                    self._generation.expect_vectors()
                known = {
                    key: entry for key, entry in entries.items()
                    if (where is None or holds(where, entry.chunk))
                    and (access is None or not access.isdisjoint(entry.chunk.access))
                }  # fmt: skip
                unique = _representatives(known, dense, keyword)
                short = any(
                    len(hits) >= width and len({unique[key] for key, _ in hits if key in known}) < candidates
                    for hits in (dense, keyword)
                )
                if short and width < candidates * _WIDEST:
                    width *= 2
                    continue
                for key in keys:
                    if key not in known:
                        self._trace.drop("left over from a former state", key=key)
                return self._finish(snapshot, dense, keyword, known, unique, candidates, access)
            finally:
                self._generation.catalog.give_back(snapshot)
        raise AssertionError("unreachable: the loop counts for ever")

    def _begin(self, access: frozenset[str] | None) -> tuple[Snapshot, tuple[str, ...] | None]:
        """The state that is searched, and the label sets the caller may read; None where that is all of them."""
        snapshot = self._generation.take()
        if access is None:
            return snapshot, None
        sets = snapshot.access_sets()
        allowed = tuple(each for each in sets if not access.isdisjoint(labels_of(each)))
        return snapshot, None if sets and len(allowed) == len(sets) else allowed

    def _look_up(self, snapshot: Snapshot, keys: Iterable[int]) -> tuple[dict[int, Entry], bool]:
        """What the snapshot knows of the keys, and whether a clean-up has begun since it was taken."""
        with self._generation.catalog.glance() as now:
            cleaned = now.cleanings() != snapshot.cleanings()
        return snapshot.entries(keys), cleaned

    def _timed(self, stage: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        began = time.perf_counter()
        result = call(*args, **kwargs)
        spent = (time.perf_counter() - began) * 1000
        self._trace.stages[stage] = round(self._trace.stages.get(stage, 0.0) + spent, 3)
        return result

    def _finish(
        self,
        snapshot: Snapshot,
        dense: Sequence[tuple[int, float]],
        keyword: Sequence[tuple[int, float]],
        known: dict[int, Entry],
        unique: dict[int, int],
        candidates: int,
        access: frozenset[str] | None,
    ) -> list[ScoredChunk]:
        by_meaning = _folded(dense, known, unique)
        by_words = _folded(keyword, known, unique)
        fused = fusion.fuse(by_meaning.items(), by_words.items())
        dense_rank = {id_: rank for rank, id_ in enumerate(by_meaning, 1)}
        keyword_rank = {id_: rank for rank, id_ in enumerate(by_words, 1)}
        by_id = {known[key].chunk.id: known[key] for key in set(unique.values())}
        for key, first in unique.items():
            if key != first:
                self._trace.drop("the same text as another candidate", id=known[key].chunk.id, of=known[first].chunk.id)
        ranked = []
        for rank, one in enumerate(fused, 1):
            evidence = {"fused": one.score, "fused_rank": float(rank)}
            if one.dense is not None:
                evidence |= {"dense": one.dense, "dense_rank": float(dense_rank[one.id])}
            if one.keyword is not None:
                evidence |= {"keyword": one.keyword, "keyword_rank": float(keyword_rank[one.id])}
            ranked.append(ScoredChunk(chunk=by_id[one.id].chunk, score=one.score, evidence=evidence))
        kept, beyond = ranked[:candidates], ranked[candidates:]
        marks = {one.chunk.id: by_id[one.chunk.id].digest for one in kept}
        holders = self._timed("catalog", snapshot.holders, set(marks.values()))
        result = []
        for scored in kept:
            others = tuple(
                uri for uri, labels in holders.get(marks[scored.chunk.id], [])
                if uri != scored.chunk.source and (access is None or not access.isdisjoint(labels))
            )  # fmt: skip
            result.append(replace(scored, chunk=replace(scored.chunk, also_in=others)) if others else scored)
        self._trace.found(result, beyond)
        return result


def _representatives(
    known: dict[int, Entry], dense: Sequence[tuple[int, float]], keyword: Sequence[tuple[int, float]]
) -> dict[int, int]:
    """For every known hit, the key that stands for its text: of chunks that hold the same, the one first by source."""
    best: dict[bytes, int] = {}
    for key, _ in [*dense, *keyword]:
        if key in known:
            mark = known[key].digest
            held = best.get(mark)
            if held is None or _place(known[key]) < _place(known[held]):
                best[mark] = key
    return {key: best[entry.digest] for key, entry in known.items()}


def _folded(hits: Sequence[tuple[int, float]], known: dict[int, Entry], unique: dict[int, int]) -> dict[str, float]:
    """Chunk id to score, best first, each text once."""
    folded: dict[str, float] = {}
    for key, score in hits:
        if key in known:
            folded.setdefault(known[unique[key]].chunk.id, score)
    return folded


def _place(entry: Entry) -> tuple[str, int]:
    return entry.chunk.source, entry.chunk.index
