"""Joins chunks with the ones before and after them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from citewell.documents import Chunk, ScoredChunk

REACH: Final = 2
"""Most chunks joined on each side."""


def join(
    kept: Sequence[ScoredChunk], neighbours: Sequence[ScoredChunk], *, max_chars: int,
    apart: Callable[[str, int], bool],
) -> list[ScoredChunk]:  # fmt: skip
    """Extend chunks by neighbours that overlap or touch them, as long as there is room. Pure.

    Args:
        kept: The chunks, best first. The best are extended first, each by what follows it before what precedes it.
        neighbours: The chunks around them, as `Index.neighbours` found and the guards passed them.
        max_chars: Most characters of the result altogether. The given chunks stay, even if they have more.
        apart: Given a text and a place in it, whether two chunks may be joined there: where the guard, which judged each chunk by
            itself, does not read across.

    Returns:
        The same chunks in the same order, with `text`, `start`, `end` and `page` of the wider passage, which is still exactly the
        source's `text[start:end]`. `id`, `index` and all else remain those of the kept chunk.
    """
    around = {(one.chunk.source, one.chunk.index): one.chunk for one in neighbours}
    wide = [one.chunk for one in kept]
    room = max_chars - sum(len(chunk.text) for chunk in wide)
    for distance in range(1, REACH + 1):
        for step in (distance, -distance):
            for number, chunk in enumerate(wide):
                place = (chunk.source, chunk.index + step)
                wider = _joined(chunk, around[place], apart) if place in around else None
                if wider is not None and (more := len(wider.text) - len(chunk.text)) <= room:
                    room -= more
                    wide[number] = wider
                    del around[place]  # no text is shown twice
    return [replace(one, chunk=chunk) for one, chunk in zip(kept, wide, strict=True)]


def _joined(chunk: Chunk, piece: Chunk, apart: Callable[[str, int], bool]) -> Chunk | None:
    """Both as one passage; None where they must not be joined, or where there is text between them that neither holds."""
    first, last = sorted((chunk, piece), key=lambda one: one.start)
    if last.start > first.end:
        return None
    text = first.text + last.text[first.end - last.start :]
    if not apart(text, len(first.text)):
        return None
    return replace(chunk, text=text, start=first.start, end=first.start + len(text), page=first.page)
