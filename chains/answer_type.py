"""The answer type of a question: what kind of thing it asks for, by its words, and whether a sentence holds one. English."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from citewell.terms import MONTHS, Term

AnswerType = Literal["date", "number", "person", "place", "reason", "thing"]

_CAUSES = re.compile(
    r"\b(?:because|due to|owing to|since|so that|in order to|thanks to|cause[sd]?|result|therefore|thus|reason|led to|to avoid|to prevent)\b",
    re.IGNORECASE,
)
_LOCATED = re.compile(r"\b(?:in|at|near|from|to|of|on|between|across|around|outside|inside)\s+(?:the\s+)?[A-Z]")
_TYPES: tuple[tuple[AnswerType, re.Pattern[str]], ...] = (
    ("date", re.compile(r"\b(?:when|(?:what|which) (?:year|date|day|month|decade|century|time|period)|how (?:old|recently))\b", re.I)),
    ("number", re.compile(r"\b(?:how (?:many|much|long|far|tall|large|big|high|fast|deep|wide|often|heavy)|(?:what|which)\b.{0,30}\b(?:percent\w*|number|amount|population|rate|ratio|price|cost|size|length|height|area|temperature|total))\b", re.I)),
    ("person", re.compile(r"\b(?:who|whom|whose|(?:what|which) (?:person|man|woman|people|king|queen|president|author|actor|scientist|leader))\b", re.I)),
    ("place", re.compile(r"\b(?:where|(?:what|which) (?:\w+ )?(?:city|country|state|place|region|town|river|location|continent|island|area))\b", re.I)),
    ("reason", re.compile(r"\b(?:why|what (?:\w+ )?(?:cause[sd]?|reason|led to|purpose))\b", re.I)),
)  # fmt: skip


def answer_type(question: str) -> AnswerType:
    """What a question asks for; "thing" where its words do not tell, or are not English."""
    for kind, pattern in _TYPES:
        if pattern.search(question):
            return kind
    return "thing"


_YES_OR_NO = re.compile(
    r"\W*(?:am|are|can|could|did|do|does|had|has|have|is|may|must|shall|should|was|were|will|would)\b", re.I
)


def asks_yes_or_no(question: str) -> bool:
    """Whether a question begins like one that asks for yes or no."""
    return _YES_OR_NO.match(question) is not None


_DATE = re.compile(r"1\d{3}|20\d\d|\d{3,4}s|#\d+")
"""A year, a decade or an ordinal, as the key of a number (`citewell.terms`)."""


def cue(kind: AnswerType, new: Sequence[Term], text: str) -> float:
    """Whether a sentence holds something of the type that is asked for, 0..1.

    Args:
        kind: The question's answer type.
        new: The sentence's terms that the question does not hold.
        text: The sentence.
    """
    if kind == "date":
        return float(any((term.kind == "number" and _DATE.fullmatch(term.key)) or term.key in MONTHS for term in new))
    if kind == "number":
        return float(any(term.kind == "number" for term in new))
    if kind == "person":
        return float(any(term.kind == "name" for term in new))
    if kind == "place":
        return 0.5 * (_LOCATED.search(text) is not None) + 0.5 * any(term.kind == "name" for term in new)
    if kind == "reason":
        return float(_CAUSES.search(text) is not None)
    return float(bool(new))
