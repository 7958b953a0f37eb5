"""One search: dense and keyword, checked against the catalog, fused, duplicates folded.

All of it is one blocking call. Its steps are so short that running each in a thread of its own, the two searches in parallel, took
longer than it saved: six waits for the event loop, each of them long in a busy service.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from citewell.documents import ScoredChunk, may_read
from citewell.models import Vectors
from citewell.retrieval import fusion
from citewell.retrieval.filters import Filter, Test, both, holds, labels_of
from citewell.retrieval.generation import Generation
from citewell.retrieval.snapshot import Entry, Snapshot
from citewell.retrieval.trace import Trace

_ATTEMPTS = 8
"""How often a search starts over because a writer cleaned up while it ran, which a writer does when it begins and when it ends."""
_WIDEST = 16
"""At most this many times the candidates are fetched where hits turn out to be leftovers or duplicates."""

_Ranking: TypeAlias = Sequence[tuple[int, float]]
"""(key, score), best first."""


@dataclass(frozen=True, slots=True)
class _Hits:
    """What the two searches found."""

    dense: _Ranking
    keyword: _Ranking
    known: dict[int, Entry]
    """Those hits that the snapshot holds and the caller may be shown."""
    unique: dict[int, int]
    """For each of them, the key of the hit that stands for all with the same text."""

    def are_short(self, width: int, candidates: int) -> bool:
        """Whether a search may have found too few texts only because it was asked for no more than `width` hits."""
        return any(
            len(ranking) >= width and len({self.unique[key] for key, _ in ranking if key in self.known}) < candidates
            for ranking in (self.dense, self.keyword)
        )

    def scores(self, ranking: _Ranking) -> dict[str, float]:
        """Score by chunk id, best first, each text once."""
        folded: dict[str, float] = {}
        for key, score in ranking:
            if key in self.known:
                folded.setdefault(self.known[self.unique[key]].chunk.id, score)
        return folded


class Search:
    """Searches one generation. Blocking; for one thread.

    Every source is seen either in its old state or in its new one. The catalog is read in one snapshot from beginning to end; the
    stores hold all of that snapshot's keys until a writer cleans up what no newer reader can see, and a search during which that
    has begun starts over.
    """

    def __init__(self, generation: Generation, trace: Trace) -> None:
        self._generation = generation
        self._trace = trace

    def run(
        self, question: str, vector: Vectors, *, candidates: int, where: Filter | None, access: frozenset[str] | None
    ) -> list[ScoredChunk]:
        """See `Index.search`."""
        width, attempts = candidates, 0
        while True:
            attempts += 1
            with self._trace.stage("catalog"):
                snapshot, allowed = self._begin(access)
            try:
                if allowed == ():
                    return []
                only = both(where, Test("access", "in", allowed) if allowed is not None else None)
                with self._trace.stage("dense"):
                    dense = self._generation.store.search(vector, width, only)
                with self._trace.stage("keyword"):
                    keyword = self._generation.keywords.search(question, width, only)
                keys = dict.fromkeys(key for key, _ in [*dense, *keyword])
                with self._trace.stage("catalog"):
                    entries, cleaned = self._look_up(snapshot, keys)
                if cleaned and attempts < _ATTEMPTS:
                    continue
                if not dense:
                    self._generation.expect_vectors()
                known = {
                    key: entry
                    for key, entry in entries.items()
                    if (where is None or holds(where, entry.chunk)) and may_read(access, entry.chunk.access)
                }
                hits = _Hits(dense, keyword, known, _representatives(known, keys))
                if width < candidates * _WIDEST and hits.are_short(width, candidates):
                    width *= 2
                    continue
                for key in keys:
                    if key not in known:
                        self._trace.drop("left over from a former state", key=key)
                return self._fused(snapshot, hits, candidates, access)
            finally:
                self._generation.catalog.give_back(snapshot)

    def _begin(self, access: frozenset[str] | None) -> tuple[Snapshot, tuple[str, ...] | None]:
        """The state that is searched, and the label sets that the caller may read; None where that is all of them."""
        snapshot = self._generation.take()
        if access is None:
            return snapshot, None
        sets = snapshot.access_sets()
        allowed = tuple(each for each in sets if may_read(access, labels_of(each)))
        return snapshot, None if sets and len(allowed) == len(sets) else allowed

    def _look_up(self, snapshot: Snapshot, keys: Iterable[int]) -> tuple[dict[int, Entry], bool]:
        """The snapshot's entries for the keys, and whether a clean-up has begun since it was taken."""
        with self._generation.catalog.glance() as now:
            cleaned = now.cleanings() != snapshot.cleanings()
        return snapshot.entries(keys), cleaned

    def _fused(
        self, snapshot: Snapshot, hits: _Hits, candidates: int, access: frozenset[str] | None
    ) -> list[ScoredChunk]:
        known, unique = hits.known, hits.unique
        by_meaning, by_words = hits.scores(hits.dense), hits.scores(hits.keyword)
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
        with self._trace.stage("catalog"):
            holders = snapshot.holders(set(marks.values()))
        result = []
        for scored in kept:
            others = tuple(
                uri
                for uri, labels in holders.get(marks[scored.chunk.id], [])
                if uri != scored.chunk.source and may_read(access, labels)
            )
            result.append(replace(scored, chunk=replace(scored.chunk, also_in=others)) if others else scored)
        self._trace.found(result, beyond)
        return result


def _representatives(known: dict[int, Entry], keys: Iterable[int]) -> dict[int, int]:
    """For every known key, the one that stands for its text: of chunks that hold the same, the first by source and place."""
    best: dict[bytes, int] = {}
    for key in keys:
        if key in known:
            mark = known[key].digest
            held = best.get(mark)
            if held is None or _place(known[key]) < _place(known[held]):
                best[mark] = key
    return {key: best[entry.digest] for key, entry in known.items()}


def _place(entry: Entry) -> tuple[str, int]:
    return entry.chunk.source, entry.chunk.index
