"""Lists that a question asks for as a whole: "how to descale a machine" is answered by all the steps, not by the likeliest one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from chains.answer_type import answer_type, asks_yes_or_no
from chains.candidates import LIST_MARK, Candidate
from citewell.documents import Chunk, ScoredChunk
from citewell.sentences import Span, readable, sentence_spans
from citewell.terms import overlap, read

ASKED_FROM: Final = 0.6
"""Overlap (0..1) of the question with the list's headings and its document's title, from which the list is what it asks for."""

_ITEM: Final = re.compile(
    rf"^[ \t]*(?P<mark>{LIST_MARK})[ \t]+(?P<said>\S.*(?:\n(?![ \t]*{LIST_MARK}[ \t])[ \t]*\S.*)*)", re.MULTILINE
)
_HOW_TO: Final = re.compile(r"[\W\d]*how (?:to|do|can|should|must)\b", re.IGNORECASE)
_NAMES: Final = re.compile(r"\s*(?:(?P<bold>\*\*|__).+(?P=bold)|.+:)\s*")
"""A line in bold, or one that ends in a colon: it names the list below it."""


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
        if not overlap(asked, said):
            return 0.0
        if _HOW_TO.match(question) and any(map(_HOW_TO.match, own)) and overlap(said, asked) == 1:
            return 1.0  # "How do I return a unit?" is all that "How to return" says, and names the thing besides
        return overlap(asked, read(" ".join((self.title, *self.headings, self.line))))


def asked_for(question: str, chunks: Sequence[ScoredChunk]) -> list[Candidate]:
    """The sentences of the list whose headings say what the question asks for; empty where there is none.

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
    best = max(found, key=lambda headed: headed.share(question), default=None)
    if best is None or best.share(question) < ASKED_FROM or len(found[best]) < 2:
        return []
    return list(found[best].values())


def _items(number: int, chunk: Chunk) -> Iterator[tuple[_Headed, Candidate]]:
    """The sentences of a chunk's lists, each with where its list stands."""
    line, end = "", None
    for match in _ITEM.finditer(chunk.text):
        before = chunk.text[end : match.start()].strip()
        if end is None or before:
            last = before.rpartition("\n")[2]
            line = last if _NAMES.fullmatch(last) else ""
        end = match.end()
        headed = _Headed(chunk.source, chunk.title, chunk.headings, line)
        for said in sentence_spans(match["said"]):
            span = Span(match.start("said") + said.start, match.start("said") + said.end)
            shown = readable(chunk.text[span.start : span.end])
            # a number, or the dash that Markdown knows for a bullet of any kind
            item = "" if said.start else match["mark"] if match["mark"][0].isdigit() else "-"
            yield headed, Candidate(number, span, shown, True, cells=(shown,), item=item)
