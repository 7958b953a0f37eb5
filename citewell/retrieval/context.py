"""The passage around a chunk, whose words also tell what the chunk is about: the table's title for the later rows of a table."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import groupby
from typing import Final

from citewell.documents import Chunk

CONTEXT_CHARS: Final = 4000
"""Longest passage, in characters: about a page. 2,000 to 4,000, or whole pages, find the same but for chance."""


def contexts(text: str, chunks: Sequence[Chunk], page_starts: Sequence[int]) -> list[str]:
    """The passage around each chunk, with the chunk in its middle: of its page, or else of its section, up to `CONTEXT_CHARS`.

    Args:
        text: The source's text.
        chunks: All chunks of the source, in order.
        page_starts: Where each page starts, ascending; empty where there are no pages.

    Returns:
        One passage for each chunk; its own text where it is alone on its page or in its section.
    """
    around = _on_pages(chunks, [*page_starts, len(text)]) if page_starts else _in_sections(chunks)
    found = []
    for chunk, (start, end) in zip(chunks, around, strict=True):
        side = max(0, CONTEXT_CHARS - len(chunk.text)) // 2
        found.append(text[max(start, chunk.start - side) : min(end, chunk.end + side)])
    return found


def _on_pages(chunks: Sequence[Chunk], bounds: Sequence[int]) -> list[tuple[int, int]]:
    """The extent of the page on which each chunk begins, up to the chunk's end where that is on the next page."""
    pages = [bisect_right(bounds, chunk.start) for chunk in chunks]
    return [(bounds[page - 1], max(bounds[page], chunk.end)) for page, chunk in zip(pages, chunks, strict=True)]


def _in_sections(chunks: Sequence[Chunk]) -> list[tuple[int, int]]:
    """The extent of the chunks that follow one another under the same headings."""
    found: list[tuple[int, int]] = []
    for _, section in groupby(chunks, key=lambda chunk: chunk.headings):
        together = list(section)
        found += [(together[0].start, together[-1].end)] * len(together)
    return found
