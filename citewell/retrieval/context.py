"""The passage that a chunk stands in, whose words tell what it is about too: a table's later rows by the table's title."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import groupby
from typing import Final

from citewell.documents import Chunk

CONTEXT_CHARS: Final = 4000
"""Most characters of it, about a page. With 2,000 to 4,000, or all of a page, the same is found but for chance."""


def contexts(text: str, chunks: Sequence[Chunk], page_starts: Sequence[int]) -> list[str]:
    """What stands around each chunk, its own text in the midst: of its page, else of its section, up to `CONTEXT_CHARS`.

    Args:
        text: The source's.
        chunks: All of the source's, in order.
        page_starts: Where each page starts, ascending; empty where there are no pages.

    Returns:
        One for each chunk; for a chunk that is alone on its page or in its section, its own text.
    """
    around = _on_pages(chunks, [*page_starts, len(text)]) if page_starts else _in_sections(chunks)
    found = []
    for chunk, (start, end) in zip(chunks, around, strict=True):
        side = max(0, CONTEXT_CHARS - len(chunk.text)) // 2
        found.append(text[max(start, chunk.start - side) : min(end, chunk.end + side)])
    return found


def _on_pages(chunks: Sequence[Chunk], bounds: Sequence[int]) -> list[tuple[int, int]]:
    """From the start of the page on which a chunk begins to its end, or to the chunk's where that runs over."""
    pages = [bisect_right(bounds, chunk.start) for chunk in chunks]
    return [(bounds[page - 1], max(bounds[page], chunk.end)) for page, chunk in zip(pages, chunks, strict=True)]


def _in_sections(chunks: Sequence[Chunk]) -> list[tuple[int, int]]:
    """From the first to the last of the chunks that follow each other under the same headings."""
    found: list[tuple[int, int]] = []
    for _, section in groupby(chunks, key=lambda chunk: chunk.headings):
        together = list(section)
        found += [(together[0].start, together[-1].end)] * len(together)
    return found
