"""How well a text supports a sentence, term by term, and with which passage: the comparison behind every citation.

    verified     the passage holds all numbers (with units), names and other words of the sentence, each number and name in the
                 same place, and neither denies what the other asserts
    partial      it holds most of them
    unsupported  it does not, or a number or a denial contradicts it

Pure and deterministic.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

from citewell.sentences import Span, clauses, sentence_spans
from citewell.terms import WEIGHTS, Statement, Term, read

Status = Literal["verified", "partial", "unsupported"]
_Stretch: TypeAlias = tuple[tuple[str, str | None], ...]
"""Terms in a row, as `_compared` gives them."""


class Support(NamedTuple):
    """How well one text supports a sentence, and with which passage of it."""

    status: Status
    score: float
    passage: Span
    """In the text compared with; empty when nothing matches."""


_FRAME = re.compile(
    r"^\W*(?:according to (?:the |this |these )?(?:provided |given )?(?:source|document|text|passage|report|context|excerpt)s?\b,?"
    r"|(?:the |this |these )?(?:provided )?(?:source|document|text|passage|context|excerpt)s? (?:also )?"
    r"(?:say|state|note|mention|explain|indicate|show|report|describe)s?(?: that)?\b)\s*",
    re.IGNORECASE,
)
_MAX_PASSAGE_SENTENCES = 3
"""A passage may run over so many neighbouring sentences; facts further apart are not one statement."""
_PARTIAL_FROM = 0.6
_MISSING_NUMBER_FACTOR = 0.5
_NEIGHBOURS = 4


def state(sentence: str) -> Statement:
    """What a sentence states, without a frame such as "According to the document,". A `<` may stand in it as `&lt;`, as the
    guard writes one that a page could take for markup."""
    return read(_FRAME.sub("", sentence.replace("&lt;", "<")))


@lru_cache(256)
def passages(text: str) -> Passages:
    """The passages of a chunk's text, cached, as chunks that are much asked for are cited in many turns."""
    return Passages(text)


class Passages:
    """A text that is read once and compared with any number of sentences."""

    def __init__(self, text: str) -> None:
        self._spans = [piece for span in sentence_spans(text) for piece in clauses(text, span)]
        self._whole = read(text)
        self._units: defaultdict[tuple[str, str | None], int] = defaultdict(int)
        """The spans that hold a term, one bit each, by what is compared of it."""
        ends = [span.end for span in self._spans]
        unit = 0
        for term in self._whole.terms:
            while unit < len(ends) - 1 and term.start >= ends[unit]:
                unit += 1
            self._units[_compared(term)] |= 1 << unit

    def support(self, statement: Statement) -> Support:
        """The passage of the text, up to three neighbouring sentences, that supports the statement best."""
        spans = self._spans
        nothing = Support("unsupported", 0.0, Span(0, 0))
        if not statement.terms or not spans:
            return nothing
        total = sum(WEIGHTS[term.kind] for term in statement.terms)
        where = [
            (units, WEIGHTS[term.kind]) for term in statement.terms if (units := self._units.get(_compared(term), 0))
        ]
        holds_all = len(where) == len(statement.terms)
        best: Support | None = None
        best_rank: tuple[int, float, int] = (-1, -1.0, 0)
        for first in range(len(spans)):
            for last in range(first, min(len(spans), first + _MAX_PASSAGE_SENTENCES)):
                units = (2 << last) - (1 << first)
                share = sum([weight for units_of, weight in where if units_of & units]) / total
                is_whole = holds_all and all(units_of & units for units_of, _ in where)
                rank = (int(is_whole), share, -(last - first))
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
        held = {_compared(term) for term in terms}
        missing = [term for term in statement.terms if _compared(term) not in held]
        contradicted = _denied_otherwise(statement, terms, denials)
        score = candidate.score
        if contradicted or any(term.kind == "number" for term in missing):
            return Support("unsupported", min(0.49, score * _MISSING_NUMBER_FACTOR), span)
        if not missing and not _changed_places(statement.terms, terms) and not _crossed(statement.terms, terms):
            return Support("verified", 1.0, span)
        score = min(score, 0.95)
        return (
            Support("partial", score, span)
            if score >= _PARTIAL_FROM
            else Support("unsupported", min(0.49, score), span)
        )


def _compared(term: Term) -> tuple[str, str | None]:
    """What must be equal: a number's value and unit, or a word."""
    return term.key, term.unit if term.kind == "number" else None


def _denied_otherwise(statement: Statement, terms: Sequence[Term], denials: Sequence[tuple[int, ...]]) -> bool:
    """Whether the sentence denies what the passage does not, or the passage denies what the sentence asserts; not where the passage
    says the same, word for word."""
    if _says_the_same(statement, terms, denials):
        return False
    here, there = statement.denials, denials
    return _unmatched(here, statement.terms, there, terms) or _unmatched(there, terms, here, statement.terms)


def _says_the_same(statement: Statement, terms: Sequence[Term], denials: Sequence[tuple[int, ...]]) -> bool:
    """Whether the sentence's terms stand in the passage one after the other, the same of them denied: what stands beside them denies
    something else, as in "Dogs are allowed on the beach, cats are not allowed in the hall"."""
    said, there = [_compared(term) for term in statement.terms], [_compared(term) for term in terms]
    denied = {i for denial in statement.denials for i in denial}
    denied_there = {i for denial in denials for i in denial}
    return any(
        there[at : at + len(said)] == said and {i for i in range(len(said)) if at + i in denied_there} == denied
        for at in range(len(there) - len(said) + 1)
    )


def _unmatched(
    denials: Sequence[tuple[int, ...]], terms: Sequence[Term],
    others: Sequence[tuple[int, ...]], other_terms: Sequence[Term],
) -> bool:  # fmt: skip
    """Whether one of the denials governs a term that the other side has in the same place without denying it: one is enough, as
    "never in summer" is not said by "never in storms, but in summer"."""
    denied = {i for denial in others for i in denial}
    for denial in denials:
        for i in denial:
            places = [j for j, other in enumerate(other_terms) if other.key == terms[i].key]
            if not places:
                continue
            around = _around(terms, i)
            # of places that fit alike, one that is not denied: what cannot be told apart is not verified
            place = max(places, key=lambda j: (_fit(around, other_terms, j), j not in denied))
            if place not in denied:
                return True
    return False


def _changed_places(claim: Sequence[Term], passage: Sequence[Term]) -> bool:
    """Whether the passage has another number or name where the sentence has this one, judged by the terms around it.

    "Grew 5 % in 2019 and 7 % in 2020" supports "7 % in 2020", not "5 % in 2020".
    """
    for i, term in enumerate(claim):
        if term.kind == "word":
            continue
        around = _around(claim, i)
        if not around:
            continue
        # "In 1999 she ..." may say the same as "she ... in 1999": at the head, the side of a neighbour matters less
        other_side, margin = (1.0, 0.75) if i == 0 else (0.5, 0.5)
        fits = [
            (_fit(around, passage, j, other_side), _compared(term) == _compared(other))
            for j, other in enumerate(passage)
            if other.kind == term.kind
            or _compared(term) == _compared(other)  # a name at the head of a sentence looks like a word
        ]
        own = max((fit for fit, same in fits if same), default=0.0)
        if any(fit > own + margin and not same for fit, same in fits):
            return True
    return False


def _crossed(claim: Sequence[Term], passage: Sequence[Term]) -> bool:
    """Whether the passage says of something else what the sentence says, and something else of what it speaks of: "the VX400 weighs
    5 kg" is not said by "the VX200 weighs 5 kg, the VX400 weighs 9 kg". Looks at stretches of three to five terms with a number."""
    for length in range(3, 6):
        if not (here := _stretches(claim, length)) or here <= (there := _stretches(passage, length)):
            continue
        near = {rest for row in there for rest in _but_for_one(row)}
        if any(len(near & _but_for_one(row)) > 1 for row in here - there):
            return True
    return False


def _stretches(terms: Sequence[Term], length: int) -> set[_Stretch]:
    """What is compared of so many terms in a row, wherever a number is among them."""
    numbers = [at for at, term in enumerate(terms) if term.kind == "number"]
    starts = {at - i for at in numbers for i in range(length) if 0 <= at - i <= len(terms) - length}
    return {tuple([_compared(term) for term in terms[at : at + length]]) for at in starts}


def _but_for_one(stretch: _Stretch) -> set[tuple[int, _Stretch]]:
    """A stretch without each of its terms in turn, and the place of that term."""
    return {(i, (*stretch[:i], *stretch[i + 1 :])) for i in range(len(stretch))}


def _around(terms: Sequence[Term], i: int) -> dict[str, int]:
    low, high = max(0, i - _NEIGHBOURS), min(len(terms), i + _NEIGHBOURS + 1)
    return {terms[j].key: j - i for j in range(low, high) if j != i and terms[j].key != terms[i].key}


def _fit(around: dict[str, int], passage: Sequence[Term], j: int, other_side: float = 0.5) -> float:
    """How well a place of the passage fits the neighbours: each counts by its nearness, and less on the other side."""
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
