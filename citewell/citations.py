"""Citations: an answer with markers and the chunks it was written from -> what each marker really rests on.

Every marker of the answer (`[1]`, `[1][2]`, `[1, 2]`) becomes one citation: the sentence it stands by is compared
with the chunk it names, term by term (`citewell.terms`), and aligned with the passage of that chunk that supports it
best. A marker that names the wrong chunk is corrected when another chunk supports its sentence.

    verified     all numbers (with units), names and other words of the sentence stand in the quote, nothing the
                 quote denies is asserted or the other way round, and no number or name has changed places
    partial      most of it does
    unsupported  it does not, or a number or a denial contradicts the chunk

Pure and deterministic; no model, no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from typing_extensions import TypedDict

from citewell.documents import ScoredChunk
from citewell.sentences import Span, sentence_spans
from citewell.terms import Statement, Term, read

Status = Literal["verified", "partial", "unsupported"]


class Citation(TypedDict):
    """One marker of an answer and the passage behind it."""

    marker: int
    """Number (from 1) of the chunk that stands behind the sentence; another than the answer's when that was wrong."""
    sentence: str
    """What the marker stands by, without markers, white space collapsed."""
    quote: str
    """The passage, verbatim: the source's extracted text from `start` to `end`. Empty when nothing matches."""
    status: Status
    score: float
    """Share of the sentence that the quote holds, 0..1; 1 only when verified, at most .49 when unsupported."""
    source: str
    title: str
    page: int | None
    start: int
    end: int
    chunk_id: str


class Support(NamedTuple):
    """How well one text supports a sentence, and with which passage of it."""

    status: Status
    score: float
    passage: Span
    """In the text compared with; empty when nothing matches."""


_MARKER = re.compile(r"[\[\u3010][ \t]*[0-9]{1,4}(?:[ \t]*[,;][ \t]*[0-9]{1,4})*[ \t]*[\]\u3011]")
_INTEGER = re.compile("[0-9]+")
_FRAME = re.compile(
    r"^\W*(?:according to (?:the |this |these )?(?:provided |given )?(?:source|document|text|passage|report|context|excerpt)s?\b,?"
    r"|(?:the |this |these )?(?:provided )?(?:source|document|text|passage|context|excerpt)s? (?:also )?"
    r"(?:say|state|note|mention|explain|indicate|show|report|describe)s?(?: that)?\b)\s*",
    re.IGNORECASE,
)
# A passage may run over this many neighbouring sentences; facts further apart are not one statement.
_MAX_PASSAGE_SENTENCES = 3
_LONG_SENTENCE = 320
_CLAUSE = re.compile(r"(?<=[;:\u2014])\s+|\s+(?=[\u2013\u2014]\s)|(?:\r?\n)+")
# Numbers and names carry what a reader would check.
_WEIGHTS = {"number": 2.0, "name": 1.5, "word": 1.0}
_PARTIAL_FROM = 0.6
_MISSING_NUMBER_FACTOR = 0.5
_NEIGHBOURS = 4


def verify(answer: str, chunks: Sequence[ScoredChunk]) -> list[Citation]:
    """Check every marker of an answer.

    Args:
        answer: Any text. Markers are 1-based numbers into `chunks`.
        chunks: What the answer was written from, in the order it was numbered.

    Returns:
        One citation per marker, in the order of the markers in the answer. Never raises on any text.
    """
    read_chunks = [_Passages(scored.chunk.text) for scored in chunks]
    citations: list[Citation] = []
    for claim in claims(answer):
        statement = read(_FRAME.sub("", claim.text))
        supports: dict[int, Support] = {}
        taken = set(claim.markers)
        for marker in claim.markers:
            number, support = _best_marker(marker, taken, statement, read_chunks, supports)
            taken.add(number)
            citations.append(_citation(number, claim.text, support, chunks))
    return citations


def repair(answer: str, citations: Sequence[Citation]) -> str:
    """The answer with the markers that `verify` found to stand for another chunk put right.

    Args:
        answer: The text that `verify` was given.
        citations: What it returned.
    """
    numbers = iter([citation["marker"] for citation in citations])
    return _MARKER.sub(
        lambda match: _INTEGER.sub(lambda digits: str(next(numbers, digits.group())), match.group()), answer
    )


def strip(text: str) -> str:
    """The text without its markers."""
    return re.sub(r"[ \t]+(?=[.,;:!?]|$)", "", _MARKER.sub("", text), flags=re.MULTILINE)


class Claim(NamedTuple):
    """The part of an answer that one group of markers stands by."""

    text: str
    markers: tuple[int, ...]


def claims(answer: str) -> list[Claim]:
    """Split an answer into what its markers stand by; sentences without a marker are left out.

    A marker stands by its sentence; markers within one sentence each stand by the words before them. Markers after a
    full stop belong to the sentence before, at the head of a line to the one after.
    """
    groups: list[tuple[int, list[int]]] = []  # place in the plain text, numbers
    plain = ""
    position = 0
    for match in _MARKER.finditer(answer):
        between = answer[position : match.start()]
        plain += between
        numbers = [int(digits) for digits in _INTEGER.findall(match.group())]
        if groups and not between.strip() and "\n" not in between:
            groups[-1][1].extend(numbers)
        else:
            groups.append((len(plain), numbers))
            plain += " "
        position = match.end()
    plain += answer[position:]

    spans = sentence_spans(plain)
    owners: list[list[tuple[int, list[int]]]] = [[] for _ in spans]
    for place, numbers in groups:
        index = _owner(place, spans, plain)
        if index is not None:
            owners[index].append((place, numbers))
    return [claim for span, owned in zip(spans, owners, strict=True) for claim in _claims_in(plain, span, owned)]


def _owner(place: int, spans: Sequence[Span], plain: str) -> int | None:
    before = [i for i, span in enumerate(spans) if span.start < place]
    if before:
        last = spans[before[-1]]
        if place <= last.end or not re.search(r"[\r\n]", plain[last.end : place]) or len(before) == len(spans):
            return before[-1]
        return before[-1] + 1
    return 0 if spans else None


def _claims_in(plain: str, span: Span, owned: Sequence[tuple[int, list[int]]]) -> list[Claim]:
    whole = _one_line(plain[span.start : span.end])
    if len(owned) < 2:
        return [Claim(whole, tuple(numbers)) for _, numbers in owned]
    found = []
    start = span.start
    for i, (place, numbers) in enumerate(owned):
        end = span.end if i == len(owned) - 1 else place
        text = _one_line(plain[start:end]).lstrip(",;. ")
        # "As [1] says, ...": too little stands before the marker to be what it stands by
        found.append(Claim(text if len(read(text).terms) >= 2 else whole, tuple(numbers)))
        start = place
    return found


def _one_line(text: str) -> str:
    return re.sub(r" (?=[.,;:!?](?:\s|$))", "", " ".join(text.split()))


def _best_marker(
    marker: int, taken: set[int], statement: Statement, chunks: Sequence[_Passages], supports: dict[int, Support]
) -> tuple[int, Support]:
    """The marker as written, or that of a chunk which supports the sentence where the cited one does not."""

    def support(number: int) -> Support:
        if number not in supports:
            supports[number] = chunks[number - 1].support(statement)
        return supports[number]

    cited = support(marker) if 1 <= marker <= len(chunks) else Support("unsupported", 0.0, Span(0, 0))
    if cited.status == "verified":
        return marker, cited
    others = [n for n in range(1, len(chunks) + 1) if n not in taken]
    best = max(others, key=lambda n: (support(n).status == "verified", support(n).score, -n), default=None)
    if best is None:
        return marker, cited
    better = support(best)
    if better.status == "verified" or (cited.status == "unsupported" and better.status == "partial"):
        return best, better
    return marker, cited


def _citation(number: int, sentence: str, support: Support, chunks: Sequence[ScoredChunk]) -> Citation:
    chunk = chunks[number - 1].chunk if 1 <= number <= len(chunks) else None
    start, end = support.passage
    return Citation(
        marker=number, sentence=sentence, quote=chunk.text[start:end] if chunk else "",
        status=support.status, score=round(support.score, 4),
        source=chunk.source if chunk else "", title=chunk.title if chunk else "",
        page=chunk.page if chunk else None,
        start=chunk.start + start if chunk else 0, end=chunk.start + end if chunk else 0,
        chunk_id=chunk.id if chunk else "",
    )  # fmt: skip


def support(sentence: str, text: str) -> Support:
    """How well a text supports one sentence that has no markers."""
    return _Passages(text).support(read(_FRAME.sub("", sentence)))


class _Passages:
    """A chunk's text, read once for all the sentences that are compared with it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._spans: list[Span] | None = None

    def _read(self) -> None:
        self._spans = [piece for span in sentence_spans(self._text) for piece in _clauses(self._text, span)]
        self._whole = read(self._text)
        starts = [span.end for span in self._spans]
        self._unit_of = []
        unit = 0
        for term in self._whole.terms:
            while unit < len(starts) - 1 and term.start >= starts[unit]:
                unit += 1
            self._unit_of.append(unit)

    def support(self, statement: Statement) -> Support:
        if self._spans is None:
            self._read()
        spans = self._spans or []
        nothing = Support("unsupported", 0.0, Span(0, 0))
        if not statement.terms or not spans:
            return nothing
        where: list[set[int]] = [
            {self._unit_of[i] for i, other in enumerate(self._whole.terms) if _same(term, other)} for term in statement.terms
        ]
        best: Support | None = None
        best_rank: tuple[int, float, int] = (-1, -1.0, 0)
        for first in range(len(spans)):
            for last in range(first, min(len(spans), first + _MAX_PASSAGE_SENTENCES)):
                units = range(first, last + 1)
                matched = [not units_of.isdisjoint(units) for units_of in where]
                share = _weight(statement.terms, matched)
                rank = (int(all(matched)), share, -(last - first))
                if share <= 0 or rank <= best_rank:
                    continue
                best_rank = rank
                best = Support("partial", share, Span(spans[first].start, spans[last].end))
        return self._judge(statement, best) if best else nothing

    def _judge(self, statement: Statement, candidate: Support) -> Support:
        span = candidate.passage
        inside = [i for i, term in enumerate(self._whole.terms) if span.start <= term.start < span.end]
        terms = [self._whole.terms[i] for i in inside]
        place = {i: n for n, i in enumerate(inside)}
        denials = [tuple(place[i] for i in denial if i in place) for denial in self._whole.denials]
        denials = [denial for denial in denials if denial]
        missing = [term for term in statement.terms if not any(_same(term, other) for other in terms)]
        contradicted = _denied_otherwise(statement, terms, denials)
        score = candidate.score
        if contradicted or any(term.kind == "number" for term in missing):
            return Support("unsupported", min(0.49, score * _MISSING_NUMBER_FACTOR), span)
        if not missing and not _changed_places(statement.terms, terms):
            return Support("verified", 1.0, span)
        score = min(score, 0.95)
        return Support("partial", score, span) if score >= _PARTIAL_FROM else Support("unsupported", min(0.49, score), span)


def _clauses(text: str, span: Span) -> list[Span]:
    """A long sentence in its clauses, so that a quote stays short."""
    if span.end - span.start <= _LONG_SENTENCE:
        return [span]
    pieces, start = [], span.start
    for match in _CLAUSE.finditer(text, span.start, span.end):
        if match.start() - start >= 40 and span.end - match.end() >= 40:
            pieces.append(Span(start, match.start()))
            start = match.end()
    return [*pieces, Span(start, span.end)]


def _same(term: Term, other: Term) -> bool:
    if term.key != other.key or (term.kind == "number") != (other.kind == "number"):
        return False
    return term.kind != "number" or term.unit == other.unit


def _weight(terms: Sequence[Term], matched: Sequence[bool]) -> float:
    total = sum(_WEIGHTS[term.kind] for term in terms)
    return sum(_WEIGHTS[term.kind] for term, hit in zip(terms, matched, strict=True) if hit) / total


def _denied_otherwise(statement: Statement, terms: Sequence[Term], denials: Sequence[tuple[int, ...]]) -> bool:
    """Whether the sentence denies what the passage does not, or the passage denies what the sentence asserts."""
    here, there = statement.denials, denials
    return _unmatched(here, statement.terms, there, terms) or _unmatched(there, terms, here, statement.terms)


def _unmatched(
    denials: Sequence[tuple[int, ...]], terms: Sequence[Term],
    others: Sequence[tuple[int, ...]], other_terms: Sequence[Term],
) -> bool:  # fmt: skip
    """Whether one of the denials governs a term that the other side has, at the same place, without denying it."""
    denied = {i for denial in others for i in denial}
    for denial in denials:
        for i in denial:
            places = [j for j, other in enumerate(other_terms) if other.key == terms[i].key]
            if not places:
                continue  # judged by the next word that the denial governs
            around = _around(terms, i)
            place = max(places, key=lambda j: (_fit(around, other_terms, j), j in denied))
            if place not in denied:
                return True
            break
    return False


def _changed_places(claim: Sequence[Term], passage: Sequence[Term]) -> bool:
    """Whether another number or name of the passage stands where the sentence has this one.

    Both have their neighbours: "grew 5 % in 2019 and 7 % in 2020" supports "7 % in 2020", not "5 % in 2020".
    """
    for i, term in enumerate(claim):
        if term.kind == "word":
            continue
        around = _around(claim, i)
        if not around:
            continue
        # "In 1999 she ..." may say what "she ... in 1999" says: at the head, the side of a neighbour tells little
        other_side, margin = (1.0, 0.75) if i == 0 else (0.5, 0.5)
        fits = [
            (_fit(around, passage, j, other_side), _same(term, other))
            for j, other in enumerate(passage)
            if other.kind == term.kind or _same(term, other)  # a name at the head of a sentence looks like a word
        ]
        own = max((fit for fit, same in fits if same), default=0.0)
        if any(fit > own + margin and not same for fit, same in fits):
            return True
    return False


def _around(terms: Sequence[Term], i: int) -> dict[str, int]:
    low, high = max(0, i - _NEIGHBOURS), min(len(terms), i + _NEIGHBOURS + 1)
    return {terms[j].key: j - i for j in range(low, high) if j != i and terms[j].key != terms[i].key}


def _fit(around: dict[str, int], passage: Sequence[Term], j: int, other_side: float = 0.5) -> float:
    """How well a place of the passage fits the neighbours: each counts by its nearness, less on the other side."""
    fit = 0.0
    seen = set()
    for distance in sorted(range(-_NEIGHBOURS - 2, _NEIGHBOURS + 3), key=abs):
        k = j + distance
        if distance == 0 or not 0 <= k < len(passage):
            continue
        key = passage[k].key
        if key in around and key not in seen:
            seen.add(key)
            here = around[key]
            fit += (1.0 if here * distance > 0 else other_side) / max(abs(here), abs(distance))
    return fit
