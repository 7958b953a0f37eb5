"""What could be quoted: the sentences of the evidence and the rows of its tables, each with the context that explains it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from citewell.documents import Chunk, ScoredChunk
from citewell.sentences import ROW_LINES, Span, begin_rows, clauses, readable, sentence_spans
from citewell.terms import LIST_MARK, read

_SHORTEST = 8
_LONGEST = 600
"""Bounds of a candidate, in characters; a longer piece is a table or a list that was not split."""

_TABLE_RULE = re.compile(r"[ \t]*\r?\n[ \t]*\|[ \t]*:?-{2,}[-:| \t]*(?=\r|\n|$)")
"""The line below the column names of a Markdown table."""
_CELLS = " | "
"""What separates the cells of a row, in Markdown and in what the loaders make of other formats' tables."""
_LINE = re.compile(r"[^\s][^\r\n]*[^\s]")
_FIRST_LINE = re.compile(r"(?P<line>[^\r\n]+)(?:\r?\n[ \t]*|$)")
_NUMBERED_HEADING = re.compile(
    r"(?P<apart>(?<![^\n]\n))?\d+(?:\.\d+)*[.)]?[ \t]+[^\W\d_a-z](?:[^\W\d_]\d+|[^\r\n.!?:\d]){0,55}"
    r"(?:\r?\n(?(apart)(?:[ \t]*\r?\n)?)[ \t]*(?=[^\W\d_a-z])|(?(apart)\Z|(?!)))"
)
"""In plain text, a short numbered line right above one that begins with a capital, or between blank lines or the chunk's end. Not the
item of a list: what follows that is another item, or the rest of it, and what stands before the last one is another, too."""
_SECTION = re.compile(r"\d+(?:\.\d+)+\.?[ \t]+[^\W\d_a-z]\D*")
"""A heading of a PDF with the number of its section: its only figures."""
_LEAD_IN = re.compile(r"(\*\*|__)(?=\S)[^\r\n]{1,100}?(?<=\S)\1(?=[ \t]*(?:\r?\n)?[ \t]*\S)")
"""A sentence in bold at the head of a paragraph: a heading within the line, which says what the next sentence is about."""
_ITEM_START = re.compile(rf"{LIST_MARK}[ \t]")
_ITEM_LINE = re.compile(rf"{LIST_MARK}[ \t]+(?P<said>[^\r\n]*[^\s])(?=[ \t]*[\r\n])")
_OWN_FIGURE = re.compile(r"(?<![^\W_])\d")
"""A figure that is no part of a name."""
_YES_OR_NO = re.compile(r"(?:yes|no)[.!]", re.I)
_ASKS = re.compile(r"[?\uff1f\u061f][\"'\u2019\u201d\u00bb)\]*_ ]*$")


class Candidate(NamedTuple):
    """A passage that could be quoted."""

    number: int
    """Number of its chunk, from 1, as in markers."""
    span: Span
    """Where it stands in the chunk's text."""
    text: str
    """As a reader sees it: one line, without markup."""
    whole: bool
    """Whether it begins and ends like a sentence; the edge of a chunk or of a PDF's line may have cut it."""
    cells: tuple[str, ...] = ()
    """The cells of a table's row, as a reader sees them. A row of a PDF, whose cells are unknown, is one cell, and so is an item of a
    list."""
    context: str = ""
    """What the document says elsewhere about its subject: the names of a row's columns, the lead of a list, or the question or the
    words in bold before it. It is judged with its context and quoted without."""
    columns: Candidate | None = None
    """The row that names the columns, which is quoted before the first row of a table."""
    lead: Candidate | None = None
    """The sentence that ends in a colon above the list that it is an item of, which is quoted before it."""
    item: str | None = None
    """Of a list that is quoted whole, the mark or number of the item that begins with this; empty for the continuation of one."""

    @property
    def in_context(self) -> str:
        """What it is judged by."""
        return f"{self.context} {self.text}" if self.context else self.text


def candidates(chunks: Sequence[ScoredChunk]) -> list[Candidate]:
    """The sentences and table rows of the chunks, in order, each text once; of a sentence that overlapping chunks share, the whole.

    Headings, column names and questions are left out: they state nothing.
    """
    found = [one for number, scored in enumerate(chunks, 1) for one in _of_chunk(number, scored.chunk)]
    return [one for i, one in enumerate(found) if not _is_repeated(i, found)]


def _of_chunk(number: int, chunk: Chunk) -> Iterator[Candidate]:
    text = chunk.text
    columns: Candidate | None = None
    lead: Candidate | None = None
    above = ""
    in_table = False
    end = 0
    for span, is_line in _pieces(chunk):
        raw = text[span.start : span.end]
        is_item = _ITEM_START.match(raw) is not None
        if not is_item and "\n" in text[end : span.start]:
            lead = None
        end = span.end
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
            and (not is_row or len(read(shown).terms) > 1)  # a marker after one word would end the sentence before
            and (is_row or not _is_title(raw, chunk))
        ):
            whole = begins(shown) and ends(shown)
            named = columns or lead
            context = named.text if named else above if whole and not is_row else ""
            yield (one := Candidate(number, span, shown, whole, cells, context, columns, lead))
            if shown.endswith(":") and not is_item:
                lead = one
            lead_in = _LEAD_IN.match(text, span.start)
            above = shown if lead_in and lead_in.end() == span.end else ""
        in_table = is_row


def _pieces(chunk: Chunk) -> Iterator[tuple[Span, bool]]:
    """The sentences (long ones as clauses) and table rows of a chunk; each with whether it is a whole line: a row of a
    PDF's table, or a list's item."""
    text = chunk.text
    labelled = _labelled(text) if chunk.type == "pdf" else ()
    for sentence in _with_yes_and_no(text):
        if heading := _NUMBERED_HEADING.match(text, sentence.start) or _heading(chunk, sentence):
            if heading.end() >= sentence.end:  # else it has been taken for the beginning of the sentence below
                continue
            sentence = Span(heading.end(), sentence.end)
        lines = [Span(*match.span()) for match in _LINE.finditer(text, sentence.start, sentence.end)]
        if text.startswith("|", sentence.start) or (
            len(lines) > 1 and all(_CELLS in text[slice(*one)] for one in lines)
        ):
            yield from ((line, False) for line in lines)
        elif sentence.start in labelled and len(lines) <= ROW_LINES:  # with what its cells run on to
            yield sentence, sentence.start > 0 and sentence.end < len(text)
        elif chunk.type == "pdf" and _are_rows([text[slice(*line)] for line in lines]):
            for line in lines:
                if _has_figure(text[slice(*line)]) and not _SECTION.fullmatch(text, *line):
                    yield line, line.start > 0 and line.end < len(text)  # else the chunk's edge may have cut it
        else:
            pieces = clauses(text, sentence)
            yield from ((clause, len(pieces) == 1 and _is_item(text, sentence)) for clause in pieces)


def _labelled(text: str) -> set[int]:
    """Where the rows of a table begin that have labels of one make (E11, E17)."""
    lines = [*_LINE.finditer(text)]
    starts = begin_rows([text[line.start() : line.end() + 1] for line in lines])
    return {line.start() for line, begins_row in zip(lines, starts, strict=True) if begins_row}


def _with_yes_and_no(text: str) -> Iterator[Span]:
    """The sentences of a text; a "Yes." or "No." is quoted with the sentence that follows it, as it says too little by itself."""
    begun: int | None = None
    for sentence in sentence_spans(text):
        if _YES_OR_NO.fullmatch(text, *sentence):
            begun = sentence.start
            continue
        yield Span(sentence.start if begun is None else begun, sentence.end)
        begun = None


def _is_item(text: str, sentence: Span) -> bool:
    """Whether a sentence is a list's item, whole without a full stop, as the line ends after it; and more than one word, as markers
    need between them."""
    line = _ITEM_LINE.match(text, sentence.start)
    return line is not None and line.end() == sentence.end and len(read(line["said"]).terms) > 1


def _heading(chunk: Chunk, sentence: Span) -> re.Match[str] | None:
    """The sentence's first line, including the break after it, where it is a heading that the loader found."""
    line = _FIRST_LINE.match(chunk.text, sentence.start, sentence.end)
    return line if line and readable(line["line"]) in (*chunk.headings, chunk.title) else None


def _are_rows(lines: Sequence[str]) -> bool:
    """Whether lines that the loader did not join are rows of a table: at least half of them hold a figure (two at least, if there is more
    than one line), and the last does not end like a sentence."""
    figures = sum(map(_has_figure, lines))
    return figures >= max(min(2, len(lines)), len(lines) / 2) and not ends(lines[-1])


def _has_figure(text: str) -> bool:
    return any(map(str.isdigit, text))


def _cells(raw: str) -> tuple[str, ...]:
    """The cells of a row. An empty one between others becomes a dash, so that those after it stay below their columns' names; empty
    ones at the ends are dropped, as a dash at the head would make the row the item of a list."""
    inner = raw.strip().removeprefix("|").removesuffix("|")
    bar = r"(?<!\\)\|" if raw.startswith("|") else r"(?<=\s)\|(?=\s)"  # Markdown needs no spaces around it
    cells = [readable(cell) for cell in re.split(bar, f" {inner} ")]
    while cells and not cells[-1]:
        cells.pop()
    while cells and not cells[0]:
        cells.pop(0)
    return tuple(cell or "\u2013" for cell in cells)


def _names_columns(raw: str) -> bool:
    """Whether a table's first row names its columns, in a format that does not say: it holds no figure, but for those of names
    (VX200) after the first cell. Not with two columns, of which the first as often names what the second holds."""
    first, _, others = raw.strip("| ").partition(_CELLS)
    return _CELLS in others and not _has_figure(first) and _OWN_FIGURE.search(others) is None


def asks(text: str) -> bool:
    """Whether a text is a question, which states nothing."""
    return _ASKS.search(text) is not None


def _is_title(raw: str, chunk: Chunk) -> bool:
    """Whether it is a heading, by its mark or because it is short, holds no figure and does not end like a sentence; or the fence above
    code. It begins with a capital, except in a PDF, where column names and what a chunk's edge cut off may not."""
    if raw.startswith(("#", "```", "~~~")):
        return True
    return (
        len(raw) < 60
        and (raw[:1].isupper() or (chunk.type == "pdf" and not _ITEM_START.match(raw)))
        and not ends(raw)
        and not any(char.isdigit() or char == ":" for char in raw)
    )


def _is_repeated(place: int, found: Sequence[Candidate]) -> bool:
    """Whether another candidate contains the one at `place`; of two equal ones the first stays."""
    text = found[place].text
    return any(
        text in other.text and (len(text) < len(other.text) or i < place) for i, other in enumerate(found) if i != place
    )


def begins(text: str) -> bool:
    """Whether a text begins like a sentence, that is, not with a small letter."""
    return not text.lstrip("\"'\u2018\u201c\u00ab([*_")[:1].islower()


def ends(text: str) -> bool:
    """Whether a text ends like a sentence, with a full stop or the like."""
    return text.rstrip("\"'\u2019\u201d\u00bb)]*_ ")[-1:] in tuple(".!?:\u2026\u3002\uff01\uff1f\u061f\u0964")
