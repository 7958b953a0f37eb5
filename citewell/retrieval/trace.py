"""A trace of retrieval: what every stage said about every candidate, and how long it took."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Final

from citewell.documents import ScoredChunk


@dataclass(slots=True, kw_only=True)
class Trace:
    """Hand one to `Index.search` and `Index.rerank`; they fill it. `as_dict` is ready for JSON."""

    stages: dict[str, float] = field(default_factory=dict)
    """Milliseconds by stage: `embed`, `dense`, `keyword`, `catalog`, `rerank`."""
    candidates: list[dict[str, object]] = field(default_factory=list)
    """Per candidate, in the final order: `id`, `source`, `score`, the figures of `ScoredChunk.evidence`, and `dropped` (why it was not
    kept; None if it was)."""
    dropped: list[dict[str, object]] = field(default_factory=list)
    """Hits that never became candidates: `key` or `id`, and `why`."""

    def stage(self, name: str) -> AbstractContextManager[None]:
        return self._timed(name)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.stages[name] = round(self.stages.get(name, 0.0) + (time.perf_counter() - began) * 1000, 3)

    def drop(self, why: str, **named: object) -> None:
        self.dropped.append({**named, "why": why})

    def found(self, kept: Sequence[ScoredChunk], beyond: Sequence[ScoredChunk]) -> None:
        self.candidates = [_row(one, None) for one in kept]
        self.candidates += [_row(one, "below the candidates asked for") for one in beyond]

    def reranked(self, ranked: Sequence[ScoredChunk], given: Sequence[ScoredChunk], top_k: int) -> None:
        still = {one.chunk.id for one in ranked}
        asked = {one.chunk.id for one in given}
        rest = [row for row in self.candidates if row["id"] not in asked]
        gone = [_row(one, "replaced meanwhile") for one in given if one.chunk.id not in still]
        self.candidates = (
            [_row(one, None if n < top_k else "below top_k") for n, one in enumerate(ranked)] + gone + rest
        )

    def as_dict(self) -> dict[str, object]:
        return {"stages_ms": self.stages, "candidates": self.candidates, "dropped": self.dropped}


class _Untraced(Trace):
    """Keeps nothing."""

    __slots__ = ()

    def stage(self, name: str) -> AbstractContextManager[None]:
        return nullcontext()

    def drop(self, why: str, **named: object) -> None:
        pass

    def found(self, kept: Sequence[ScoredChunk], beyond: Sequence[ScoredChunk]) -> None:
        pass

    def reranked(self, ranked: Sequence[ScoredChunk], given: Sequence[ScoredChunk], top_k: int) -> None:
        pass


UNTRACED: Final = _Untraced()
"""For searches that nobody asks about: to note what became of all their candidates takes a quarter of a millisecond."""


def joined(traces: Sequence[Trace], kept: Sequence[str]) -> Trace:
    """Join the traces of the searches for the several things that a question asks: their times added up, each chunk once.

    Args:
        traces: One for each thing asked; a single one is returned unchanged.
        kept: Ids of the chunks that were kept in the end, best first.
    """
    if len(traces) == 1:
        return traces[0]
    whole = Trace(dropped=[row for trace in traces for row in trace.dropped])
    rows: dict[object, dict[str, object]] = {}
    for trace in traces:
        for name, spent in trace.stages.items():
            whole.stages[name] = round(whole.stages.get(name, 0.0) + spent, 3)
        for row in trace.candidates:
            if row["id"] not in rows or row["dropped"] is None:
                rows[row["id"]] = row
    whole.candidates = [rows.pop(id_) for id_ in kept]
    whole.candidates += [row | {"dropped": row["dropped"] or "below top_k"} for row in rows.values()]
    return whole


def _row(one: ScoredChunk, dropped: str | None) -> dict[str, object]:
    evidence: Mapping[str, float] = one.evidence
    return {
        "id": one.chunk.id, "source": one.chunk.source, "score": one.score, **evidence, "dropped": dropped,
    }  # fmt: skip
