"""Lists that a question asks for as a whole: how to descale a machine is told by all the steps, not by the likeliest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from chains.candidates import Candidate
from chains.reading import ASKS_YES_OR_NO, overlap, wanted
from citewell.documents import Chunk, ScoredChunk
from citewell.sentences import Span, readable, sentence_spans
from citewell.terms import read

ASKED_FROM: Final = 0.6
"""Share of what the question says (numbers and names count more) that the list's headings and its document's title hold."""

_SIGN: Final = r"(?:[-*+\u2022\u2023\u25aa\u25cf\u25e6]|\d{1,3}[.)])"
_ITEM: Final = re.compile(
    rf"^[ \t]*(?P<sign>{_SIGN})[ \t]+(?P<said>\S.*(?:\n(?![ \t]*{_SIGN}[ \t])[ \t]*\S.*)*)", re.MULTILINE
)
_NAMES: Final = re.compile(r"\s*(?:(?P<bold>\*\*|__).+(?P=bold)|.+:)\s*")
"""A line in bold or one that ends in a colon: it says what the list below it is of."""


class _Headed(NamedTuple):
    """What a list stands below."""

    source: str
    title: str
    headings: tuple[str, ...]
    line: str
    """Right above it; empty where that does not name it."""

    def share(self, question: str) -> float:
        """How much of the question it says, 0..1; 0 where only the title says some, which is about all of the document."""
        asked = read(question)
        own = [*(heading for heading in self.headings[-1:] if heading != self.title), self.line]
        if not overlap(asked, read(" ".join(own))):
            return 0.0
        return overlap(asked, read(" ".join((self.title, *self.headings, self.line))))


def asked_for(question: str, chunks: Sequence[ScoredChunk]) -> list[Candidate]:
    """The list whose headings say what the question asks, sentence by sentence; empty where there is none.

    English, as `wanted` is: a date, a number, a reason, yes or no is not told by a list.

    Args:
        question: As it was typed.
        chunks: To quote from. Items that stand in none of them are left out.
    """
    if ASKS_YES_OR_NO.match(question) or wanted(question) in ("date", "number", "reason"):
        return []
    found: dict[_Headed, dict[str, Candidate]] = {}  # chunks that follow one another share some
    for number, scored in enumerate(chunks, 1):
        for headed, one in _items(number, scored.chunk):
            found.setdefault(headed, {}).setdefault(one.text, one)
    best = max(found, key=lambda headed: headed.share(question), default=None)
    if best is None or best.share(question) < ASKED_FROM or len(found[best]) < 2:
        return []
    return list(found[best].values())


def _items(number: int, chunk: Chunk) -> Iterator[tuple[_Headed, Candidate]]:
    """The sentences of a chunk's lists, each with what its list stands below."""
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
            item = "" if said.start else match["sign"]
            yield headed, Candidate(number, span, shown, True, cells=(shown,), item=item)
