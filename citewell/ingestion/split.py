"""Splits a document into chunks that know their exact offsets.

LangChain's RecursiveCharacterTextSplitter was measured first (500 / 50, 4.3 MB of prose): only 51 % of neighbours overlap
(25 % in Markdown), chunks average 378 characters because a long paragraph flushes the short one before it, headings become
chunks of their own, and offsets have to be searched for afterwards. The sliding window below keeps the offsets, fills chunks
better (so there are fewer to embed) and always overlaps.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator

from citewell.documents import PUBLIC, Chunk
from citewell.ingestion.document import Document, Heading

_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
_SENTENCE = re.compile(r"(?:(?<=[.!?…])|(?<=[.!?][\"'”’»)\]]))\s+|(?<=[。！？])\s*")
_LINE = re.compile(r"\n\s*")
_WORD = re.compile(r"\s+")
# Where to break, best first, and the least share of the chunk that must be filled: a worse break is better than a stub.
_BREAKS = ((_PARAGRAPH, 0.5), (_SENTENCE, 0.5), (_LINE, 0.5), (_SENTENCE, 0.25), (_WORD, 0.25))
_SPACE = re.compile(r"\s*")
_JOINED = (
    frozenset("\u200d\u0e33\u0eb3")
    | frozenset(map(chr, range(0x1F3FB, 0x1F400)))
    | frozenset(map(chr, range(0xE0020, 0xE0080)))
)
"""Characters that belong to the one before: joiners, vowels that Unicode counts as letters, skin tones, parts of flags."""
_VIRAMA = 9
"""The combining class of the sign that joins two consonants."""
_ROW = re.compile(r"[ \t]*\|")
"""A row of a Markdown table: half a row means nothing, so a row that fits into a chunk is never divided."""


def split(document: Document, uri: str, *, chunk_size: int, chunk_overlap: int) -> list[Chunk]:
    """Cut a document into chunks of at most `chunk_size` characters.

    Chunks end at paragraphs, else sentences, else lines, else words. They never span two sections with headings, but may run
    over the end of a page. Neighbours in one section share up to `chunk_overlap` characters, beginning with a word or, in a
    table, with a row. Nothing but white space is left out, and `document.text[start:end] == text` for every chunk.

    Args:
        document: The parsed document.
        uri: `Source.uri`; part of what the chunks' identifiers are made from.
        chunk_size: 100..4000 characters.
        chunk_overlap: 0..chunk_size - 1 characters; reduced to half of `chunk_size` if it is more.

    Returns:
        Chunks in order of `start`, `index` counting from 0.
    """
    chunks: list[Chunk] = []
    text = document.text
    for start, end, path in _sections(document):
        for left, right in _windows(text, start, end, chunk_size, min(chunk_overlap, chunk_size // 2)):
            piece = text[left:right]
            page = document.page_at(left)
            # The title of a table is at the top of its page; without it the later chunks are only figures.
            head = document.page_head(page) if page and left > document.page_starts[page - 1] else ""
            headings = (*path, head) if head and head not in path else path
            chunks.append(
                Chunk(
                    id=_identify(uri, left, right, piece),
                    source=uri,
                    title=document.title,
                    text=piece,
                    start=left,
                    end=right,
                    index=len(chunks),
                    page=page,
                    headings=headings,
                    type=document.type,
                    date=document.date,
                    tags=document.tags,
                    access=document.access or (PUBLIC,),
                )
            )
    return chunks


def _identify(uri: str, start: int, end: int, text: str) -> str:
    digest = hashlib.blake2b(f"{uri}\0{start}\0{end}\0{text}".encode(), digest_size=16)
    return digest.hexdigest()


def _sections(document: Document) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """Yield (start, end, heading path). A heading without text of its own stays with the section below it."""
    text = document.text
    path: list[Heading] = []
    start = 0
    bounds = [*(heading.start for heading in document.headings), len(text)]
    if bounds[0] > 0 and text[: bounds[0]].strip():
        yield 0, bounds[0], ()
        start = bounds[0]
    for heading, end in zip(document.headings, bounds[1:], strict=True):
        while path and path[-1].level >= heading.level:
            path.pop()
        path.append(heading)
        line_end = text.find("\n", heading.start)
        first_line = line_end if line_end >= 0 else len(text)
        body = bool(text[first_line:end].strip(" \t\n=-")) or end - heading.start > 2 * len(heading.text) + 20
        if body and end > start:
            yield start, end, tuple(heading.text for heading in path)
            start = end
    if start < len(text) and text[start:].strip():
        yield start, len(text), tuple(heading.text for heading in path)


def _windows(text: str, start: int, end: int, size: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Slide over text[start:end]; no window begins or ends with white space."""
    end = start + len(text[start:end].rstrip())
    left = _SPACE.match(text, start, end).end()  # type: ignore[union-attr]  # \s* always matches
    floor = left  # the end of the window before, which the next one must pass
    line = text.rfind("\n", 0, left) + 1  # start of the line of `left`, kept since a line may be as long as the file
    while left < end:
        limit = left + size
        right = end if end <= limit else _break(text, max(left, floor), left, limit)
        # At least one character of progress: a window is never only white space.
        stop = left + len(text[left:right].rstrip())
        yield left, stop
        if right >= end:
            return
        floor = _SPACE.match(text, right, end).end()  # type: ignore[union-attr]
        back = _overlap_start(text, stop, overlap, left, line)
        # A wide gap (blank lines by the hundred) must not fill the next window.
        after = back if back is not None and floor - back <= size // 2 else floor
        line = _line_start(text, after, left, line)
        left = after


def _break(text: str, floor: int, left: int, limit: int) -> int:
    """The end of the window that starts at `left`: after `floor`, at most `limit`."""
    for pattern, fill in _BREAKS:
        least = max(floor + 1, left + int(fill * (limit - left)))
        last = 0
        for match in pattern.finditer(text, least, limit + 1):
            if match.start() <= limit:
                last = match.start()
        if last >= least:
            row = _line_start(text, last, floor + 1, 0)
            if row and _is_in_row(text, row, last) and "\n" in text[last : row + limit - left + 1]:
                return row - 1
            return last
    return _letter_start(text, limit, least)


def _line_start(text: str, place: int, since: int, line: int) -> int:
    """The start of the line of `place`; `line` if that is also the line of `since`."""
    return text.rfind("\n", since, place) + 1 or line


def _is_in_row(text: str, line: int, place: int) -> bool:
    """Whether `place` is inside a table row that begins at `line`, neither between rows nor outside of tables."""
    return line < place and _ROW.match(text, line) is not None and not text.startswith("\n", place)


def _letter_start(text: str, place: int, least: int) -> int:
    """`place`, or the nearest place before it, down to `least`, that divides no character as a reader sees it."""
    for start in range(place, least, -1):
        if not _joins(text, start):
            return start
    return place


def _joins(text: str, place: int) -> bool:
    """Whether the code points on both sides of a place are one character to a reader: accents, vowel signs, joined emoji,
    flags."""
    before, after = text[place - 1], text[place : place + 1]
    if _is_flag_half(before) and _is_flag_half(after):
        halves = 0
        while halves < place and _is_flag_half(text[place - 1 - halves]):
            halves += 1
        return halves % 2 == 1
    is_mark = after in _JOINED or unicodedata.category(after or " ") in {"Mn", "Mc", "Me"}
    return is_mark or before == "\u200d" or unicodedata.combining(before) == _VIRAMA


def _is_flag_half(letter: str) -> bool:
    return "\U0001f1e6" <= letter <= "\U0001f1ff"


def _overlap_start(text: str, stop: int, overlap: int, left: int, line: int) -> int | None:
    """Step back from `stop` by up to `overlap` characters, then forward to the start of a word. `line` is that of `left`.

    None if the window that began at `left` shares nothing with the next.
    """
    back = max(stop - overlap, left + 1)
    if back >= stop:
        return None
    if _is_in_row(text, _line_start(text, back, left, line), back):
        row = text.find("\n", back, stop) + 1
        return _SPACE.match(text, row).end() if 0 < row < stop else None  # type: ignore[union-attr]
    if text[back - 1].isspace():
        word = _SPACE.match(text, back).end()  # type: ignore[union-attr]
        return word if word < stop else None
    if (space := _WORD.search(text, back, stop)) is not None:
        return space.end()
    # No word starts here. A script without spaces shares the characters; a long token is not divided once more.
    return None if text[back:stop].isascii() else next((at for at in range(back, stop) if not _joins(text, at)), None)
