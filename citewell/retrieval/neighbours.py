"""Chunks joined with the ones before and after them, where they fit."""

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
    """Let chunks grow by those that overlap or touch them, as long as there is room. Pure.

    Args:
        kept: What is to be shown, best first; the best grow first, each by what follows it before what goes before.
        neighbours: What `Index.neighbours` found around them, and whoever asks has let through.
        max_chars: Most characters all of it may have together. What `kept` has already stays, even if it is more.
        apart: Whether a passage (its text) may be joined at a place (in it), which ends what its guard reads as one.

    Returns:
        The same, in the same order, with `text`, `start`, `end` and `page` of the wider passage: still exactly the source's
        `text[start:end]`. `id`, `index` and the rest stay those of the kept chunk.
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
    """Both as one passage; None where they must not be, or something stands between them, which neither knows."""
    first, last = sorted((chunk, piece), key=lambda one: one.start)
    if last.start > first.end:
        return None
    text = first.text + last.text[first.end - last.start :]
    if not apart(text, len(first.text)):
        return None
    return replace(chunk, text=text, start=first.start, end=first.start + len(text), page=first.page)
