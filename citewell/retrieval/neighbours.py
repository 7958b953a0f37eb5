"""Chunks joined with the ones before and after them, where they fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from citewell.documents import ScoredChunk
from citewell.retrieval.snapshot import Entry, Snapshot

REACH = 2
"""Most chunks joined on each side."""


def join(snapshot: Snapshot, kept: Sequence[ScoredChunk], *, max_chars: int) -> list[ScoredChunk]:
    """See `Index.with_neighbours`. Blocking."""
    around = [_around(snapshot, one) for one in kept]
    taken = {(one.chunk.source, one.chunk.index) for one in kept}
    spans = [(one.chunk.start, one.chunk.end) for one in kept]
    left = max_chars - sum(end - start for start, end in spans)
    for distance in range(1, REACH + 1):
        for side in (1, -1):  # what follows explains more often than what went before
            for number, one in enumerate(kept):
                place = (one.chunk.source, one.chunk.index + side * distance)
                entry = around[number].get(place[1])
                if entry is None or place in taken or not _touches(spans[number], entry):
                    continue
                wider = (min(spans[number][0], entry.chunk.start), max(spans[number][1], entry.chunk.end))
                cost = (wider[1] - wider[0]) - (spans[number][1] - spans[number][0])
                if cost <= left:
                    left -= cost
                    spans[number] = wider
                    taken.add(place)
    texts = {
        one.chunk.source: snapshot.text(one.chunk.source)[0]
        for one, span in zip(kept, spans, strict=True) if span != (one.chunk.start, one.chunk.end)
    }  # fmt: skip
    return [
        replace(one, chunk=replace(one.chunk, text=texts[one.chunk.source][start:end], start=start, end=end))
        if (start, end) != (one.chunk.start, one.chunk.end) else one
        for one, (start, end) in zip(kept, spans, strict=True)
    ]  # fmt: skip


def _around(snapshot: Snapshot, one: ScoredChunk) -> dict[int, Entry]:
    """Neighbours by position; none where the source has been replaced since."""
    position = one.chunk.index
    found = {e.chunk.index: e for e in snapshot.neighbours(one.chunk.source, position - REACH, position + REACH)}
    return found if position in found and found[position].chunk.id == one.chunk.id else {}


def _touches(span: tuple[int, int], entry: Entry) -> bool:
    """Whether nothing but a small gap (the white space a splitter drops) would lie between."""
    return entry.chunk.start <= span[1] + 8 and entry.chunk.end >= span[0] - 8
