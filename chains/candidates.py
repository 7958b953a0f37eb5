"""What could be quoted: the sentences of the evidence and the rows of its tables, each with what it is understood by."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from citewell.documents import Chunk, ScoredChunk
from citewell.sentences import Span, clauses, readable, sentence_spans

_SHORTEST = 8
_LONGEST = 600
"""Characters of what may be quoted; a longer piece is a table or a list that was not split."""

_TABLE_RULE = re.compile(r"[ \t]*\r?\n[ \t]*\|[ \t]*:?-{2,}[-:| \t]*(?=\r|\n|$)")
"""What stands below the names of a Markdown table's columns."""
_CELLS = " | "
"""What stands between a row's cells, in Markdown and in what the loaders make of other formats' tables."""
_LINE = re.compile(r"[^\s][^\r\n]*[^\s]")
_FIRST_LINE = re.compile(r"(?P<line>[^\r\n]+)(?:\r?\n[ \t]*|$)")
_NUMBERED_HEADING = re.compile(r"\d+(?:\.\d+)*[.)]?[ \t]+[^\W\d_a-z][^\r\n.!?:\d]{0,55}\r?\n[ \t]*(?=[^\W\d_a-z])")
"""A short numbered line right above what begins with a capital, in plain text; not an item of a list, which another or the
rest of it follows."""
_LEAD_IN = re.compile(r"(\*\*|__)(?=\S)[^\r\n]{1,100}?(?<=\S)\1(?=[ \t]*(?:\r?\n)?[ \t]*\S)")
"""A sentence in bold with more of its paragraph after it, as a heading within the line: what it says, the next ones are about."""
_ASKS = re.compile(r"[?\uff1f\u061f][\"'\u2019\u201d\u00bb)\]*_ ]*$")


class Candidate(NamedTuple):
    """A passage that could be quoted."""

    number: int
    """Of its chunk, from 1, as the markers count."""
    span: Span
    """In the chunk's text."""
    text: str
    """As a reader sees it: one line, without markup."""
    whole: bool
    """Begins and ends like a sentence; a chunk's edge or a PDF's line may have cut it."""
    cells: tuple[str, ...] = ()
    """Of a table's row, as a reader sees them; of one in a PDF, which has none, the whole row, and so of a list's item."""
    context: str = ""
    """What says what it is about and stands elsewhere: the names of a row's columns, the question or the words in bold that the
    document puts before it. It is scored with that, and quoted without."""
    columns: Candidate | None = None
    """The row that names them, to be quoted before the first of a table."""
    item: str | None = None
    """Of a list that is quoted whole, the sign or number of the item that begins with this; empty for one that goes on."""


def candidates(chunks: Sequence[ScoredChunk]) -> list[Candidate]:
    """The sentences and rows of the chunks, in order, each text once; not the part of one that overlapping chunks share.

    No headings, no names of columns and no questions: they say nothing by themselves.
    """
    found = [one for number, scored in enumerate(chunks, 1) for one in _of_chunk(number, scored.chunk)]
    return [one for i, one in enumerate(found) if not _is_told(one, i, found)]


def _of_chunk(number: int, chunk: Chunk) -> Iterator[Candidate]:
    text = chunk.text
    columns: Candidate | None = None
    above = ""
    in_table = False
    for span, is_line in _pieces(chunk):
        raw = text[span.start : span.end]
        shown = readable(raw)
        is_row = _CELLS in raw or raw.startswith("|")
        cells = _cells(raw) if is_row else (shown,) if is_line else ()
        if not is_row:
            columns = None
        if _TABLE_RULE.match(text, span.end) or (is_row and not in_table and _names_columns(raw)):
            columns = Candidate(number, span, shown, True, cells)
        elif asks(raw):
            above = shown
        elif (
            _SHORTEST <= len(shown) <= _LONGEST
            and any(map(str.isalnum, shown))
            and (is_row or not _is_title(raw, chunk))
        ):
            whole = begins(shown) and ends(shown)
            context = columns.text if columns else above if whole and not is_row else ""
            yield Candidate(number, span, shown, whole, cells, context, columns)
            lead_in = _LEAD_IN.match(text, span.start)
            above = shown if lead_in and lead_in.end() == span.end else ""
        in_table = is_row


def _pieces(chunk: Chunk) -> Iterator[tuple[Span, bool]]:
    """Sentences, long ones in their clauses, and tables in their rows; and whether it is a whole line of a PDF's table, which
    has no cells."""
    text = chunk.text
    for sentence in sentence_spans(text):
        if heading := _NUMBERED_HEADING.match(text, sentence.start) or _heading(chunk, sentence):
            if heading.end() >= sentence.end:  # else it has been taken for the beginning of the sentence below
                continue
            sentence = Span(heading.end(), sentence.end)
        lines = [Span(*match.span()) for match in _LINE.finditer(text, sentence.start, sentence.end)]
        if text.startswith("|", sentence.start) or (
            len(lines) > 1 and all(_CELLS in text[slice(*one)] for one in lines)
        ):
            yield from ((line, False) for line in lines)
        elif chunk.type == "pdf" and _are_rows([text[slice(*line)] for line in lines]):
            for line in lines:
                if _has_figure(text[slice(*line)]):
                    yield line, line.start > 0 and line.end < len(text)  # else the chunk's edge may have cut it
        else:
            yield from ((clause, False) for clause in clauses(text, sentence))


def _heading(chunk: Chunk, sentence: Span) -> re.Match[str] | None:
    """The sentence's first line, with the break after it, where it is a heading that the loader found."""
    line = _FIRST_LINE.match(chunk.text, sentence.start, sentence.end)
    return line if line and readable(line["line"]) in chunk.headings else None


def _are_rows(lines: Sequence[str]) -> bool:
    """Whether lines that the loader did not join are a table's: half of them, one by itself or two at least, hold a figure, and
    they do not end like a sentence."""
    figures = sum(map(_has_figure, lines))
    return figures >= max(min(2, len(lines)), len(lines) / 2) and not ends(lines[-1])


def _has_figure(text: str) -> bool:
    return any(map(str.isdigit, text))


def _cells(raw: str) -> tuple[str, ...]:
    """An empty one between others has a dash, so that those after it stand below their columns' names. Before the first there
    is none: it would make the row a list's item."""
    inner = raw.strip().removeprefix("|").removesuffix("|")
    cells = [readable(cell) for cell in re.split(r"(?<=\s)\|(?=\s)", f" {inner} ")]
    while cells and not cells[-1]:
        cells.pop()
    while cells and not cells[0]:
        cells.pop(0)
    return tuple(cell or "\u2013" for cell in cells)


def _names_columns(raw: str) -> bool:
    """Whether a table's first row, in a format that does not tell, names its columns: it says no figure. Of two columns the
    first as often names what the second holds."""
    return raw.strip("| ").count(_CELLS) >= 2 and not _has_figure(raw)


def asks(text: str) -> bool:
    """Whether it is a question, which states nothing."""
    return _ASKS.search(text) is not None


def _is_title(raw: str, chunk: Chunk) -> bool:
    """A heading, by its sign or because it is short, says no figure and ends like none, or what stands above code; list items
    are not. In a PDF it may begin with a small letter: so do the names of a table's columns and what a chunk's edge cut off."""
    if raw.startswith(("#", "```", "~~~")):
        return True
    return (
        len(raw) < 60
        and (raw[:1].isupper() or chunk.type == "pdf")
        and not ends(raw)
        and not any(char.isdigit() or char == ":" for char in raw)
    )


def _is_told(one: Candidate, place: int, found: Sequence[Candidate]) -> bool:
    """Whether another sentence says all of it; of two that are equal the first stays."""
    return any(
        one.text in other.text and (len(one.text) < len(other.text) or i < place)
        for i, other in enumerate(found)
        if i != place
    )


def begins(text: str) -> bool:
    """Whether it starts like a sentence, not with a small letter."""
    return not text.lstrip("\"'\u2018\u201c\u00ab([*_")[:1].islower()


def ends(text: str) -> bool:
    """Whether it ends like a sentence, with a full stop or its like."""
    return text.rstrip("\"'\u2019\u201d\u00bb)]*_ ")[-1:] in tuple(".!?:\u2026\u3002\uff01\uff1f\u061f\u0964")
