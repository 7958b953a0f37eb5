"""Lists that a question asks for as a whole: "how to descale a machine" is answered by all the steps, not by the likeliest one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from chains.answer_type import answer_type, asks_yes_or_no
from chains.candidates import Candidate, candidates
from citewell.documents import Chunk, ScoredChunk
from citewell.sentences import Span, begin_rows, readable, sentence_spans
from citewell.terms import LIST_MARK, Statement, overlap, read

ASKED_FROM: Final = 0.6
"""Overlap (0..1) of the question with the list's headings and its document's title, from which the list is what it asks for."""

_ITEM: Final = re.compile(
    rf"^[ \t]*(?P<mark>{LIST_MARK})[ \t]+(?P<said>\S.*(?:\n(?![ \t]*{LIST_MARK}[ \t])[ \t]*\S.*)*)", re.MULTILINE
)
_LINE: Final = re.compile(r"^.*\S.*$", re.MULTILINE)
_HOW_TO: Final = re.compile(r"[\W\d]*how (?:to|do|can|should|must)\b", re.IGNORECASE)
_NAMES: Final = re.compile(
    r"\s*(?:(?P<bold>\*\*|__).+(?P=bold)|.+:|\d+(?:\.\d+)*[.)]?[ \t]+[^\W\d_a-z].{0,55}[^\W_])\s*"
)
"""A line in bold, one that ends in a colon, or a numbered heading of plain text: it names the list below it."""
_LIST: Final = re.compile(
    r"\W*(?:(?:please )?(?:give|list|name|show|tell)\s+(?:me\s+|us\s+)?)?(?:(?:all|every)\s+)?", re.IGNORECASE
)
"""The words at the head of a question that ask for a list and do not say of what."""


class _Headed(NamedTuple):
    """Where a list stands, and what it stands below."""

    source: str
    title: str
    headings: tuple[str, ...]
    line: str
    """The line right above the list; empty where that does not name it."""

    def share(self, question: str) -> float:
        """Overlap with the question, 0..1; 0 where only the title overlaps, for that is about the whole document."""
        asked = read(question)
        own = [*(heading for heading in self.headings[-1:] if heading != self.title), self.line]
        said = read(" ".join(own))
        whole = read(" ".join((self.title, *self.headings, self.line)))
        words = Statement(tuple(term for term in asked.terms if term.kind == "word"), ())
        if not overlap(asked, said) or (
            words.terms and overlap(words, whole) < 0.5 and overlap(said, asked) < ASKED_FROM
        ):
            return 0.0  # "How loud is the VX400?" does not ask for "Error codes of the VX400"
        if _HOW_TO.match(question) and any(map(_HOW_TO.match, own)) and overlap(said, asked) == 1:
            return 1.0  # "How do I return a unit?" is all that "How to return" says, and names the thing besides
        return overlap(asked, whole)


def asked_for(question: str, chunks: Sequence[ScoredChunk]) -> list[Candidate]:
    """The sentences of the list, or the rows of the best chunk's table, whose headings say what the question asks for; empty where there
    is none. A table's must say all of it, as one row answers a question for more.

    English. No list answers a question for a date, a number or a reason, or for yes or no.

    Args:
        question: As it was typed.
        chunks: What to quote from; items that stand in none of them are left out.
    """
    if asks_yes_or_no(question) or answer_type(question) in ("date", "number", "reason"):
        return []
    found: dict[_Headed, dict[str, Candidate]] = {}  # by text: neighbouring chunks overlap
    for number, scored in enumerate(chunks, 1):
        for headed, one in _items(number, scored.chunk):
            found.setdefault(headed, {}).setdefault(one.text, one)
    of_what = _LIST.sub("", question, count=1)
    best = max(found, key=lambda headed: headed.share(of_what), default=None)
    if best is not None and best.share(of_what) >= ASKED_FROM and len(found[best]) > 1:
        return list(found[best].values())
    table = _below(chunks[0].chunk) if chunks else None
    if table is None or table.share(of_what) < 1:
        return []
    rows = [one for one in candidates(chunks) if one.columns and _below(chunks[one.number - 1].chunk) == table]
    return [one._replace(item="") for one in rows] if len(rows) > 1 else []


def _below(chunk: Chunk, line: str = "") -> _Headed:
    return _Headed(chunk.source, chunk.title, chunk.headings, line)


def _items(number: int, chunk: Chunk) -> Iterator[tuple[_Headed, Candidate]]:
    """The sentences of a chunk's lists, each with where its list stands."""
    line, end = "", None
    for whole, item, mark in _marked(chunk.text):
        before = chunk.text[end : whole.start].strip()
        if end is None or before:
            last = before.rpartition("\n")[2]
            line = last if _NAMES.fullmatch(last) else ""
        end = whole.end
        headed = _below(chunk, line)
        for said in sentence_spans(chunk.text[slice(*item)]):
            span = Span(item.start + said.start, item.start + said.end)
            shown = readable(chunk.text[slice(*span)])
            yield headed, Candidate(number, span, shown, True, cells=(shown,), item="" if said.start else mark)


def _marked(text: str) -> list[tuple[Span, Span, str]]:
    """The items of a text's lists and the lines that begin with labels of one make (E11, E17): with and without the mark, and the mark:
    a number, or the dash that Markdown knows for a bullet of any kind."""
    found = [
        (Span(*match.span()), Span(*match.span("said")), match["mark"] if match["mark"][0].isdigit() else "-")
        for match in _ITEM.finditer(text)
    ]
    lines = [*_LINE.finditer(text)]
    labelled = begin_rows([line[0] + "\n" for line in lines])
    found += [(span := Span(*line.span()), span, "-") for line, is_row in zip(lines, labelled, strict=True) if is_row]
    return sorted(found)
