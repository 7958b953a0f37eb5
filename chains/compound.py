"""Questions that ask several things: each is searched for and answered separately."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import zip_longest
from typing import NamedTuple

from langchain_core.messages import HumanMessage

from chains.answer_type import asks_yes_or_no
from chains.condense import condense_rule
from citewell.documents import ScoredChunk
from citewell.terms import read

_ASKS = r"(?:(?:at|by|for|from|in|of|on|since|to|until|with)\s+)?(?:who|whom|whose|what|which|when|where|why|how)\b"
_ASKS_WHETHER = r"(?:am|are|can|could|did|do|does|has|have|is|may|must|shall|should|was|were|will)\s+(?:a|an|any|he|i|it|my|one|she|the|there|they|we|you)\b"
_NEXT = re.compile(
    rf"(?:(?:[,;]|(?<!\s))\s+(?:and|or|but)\s+|[?;]\s+(?:(?:and|or|but)\s+)?)(?={_ASKS}|{_ASKS_WHETHER})", re.IGNORECASE
)
_INTERROGATIVE = re.compile(rf"(?:^|\s){_ASKS}", re.IGNORECASE)
MOST = 8
"""Things that one question asks. Each is embedded and searched for by itself, so that one question could cost hundreds."""


class Single(NamedTuple):
    """One thing that is asked."""

    question: str
    """Standalone: "who found out? (Algol variable)"."""
    typed: str
    """Without the words that a rule added: "who found out?"."""


def singles(question: str, typed: str) -> list[Single]:
    """Split a question into the things it asks, in order: "Why is Algol variable, and who found out?" asks two.

    English. Each part must have an interrogative or ask for yes or no, and must name something: "where and when did it begin" is one
    question. So is one that would be split into more than `MOST`.

    Args:
        question: Standalone.
        typed: The question without the words that a rule added at its end; equal to `question` where none were.
    """
    asked = _NEXT.split(typed)
    if len(asked) > MOST or not all(
        (_INTERROGATIVE.search(part) or asks_yes_or_no(part)) and read(part).terms for part in asked
    ):
        asked = [typed]
    if len(asked) == 1:
        return [Single(question, typed)]
    first = f"{asked[0]}{question.removeprefix(typed)}"
    return [Single(first, asked[0]), *(Single(condense_rule(part, [HumanMessage(first)]), part) for part in asked[1:])]


def interleaved(rankings: Sequence[Sequence[ScoredChunk]], most: int) -> list[ScoredChunk]:
    """The best of each ranking, then the second best of each, and so on: each chunk once, at most `most`."""
    in_turn = (scored for place in zip_longest(*rankings) for scored in place if scored is not None)
    found: dict[str, ScoredChunk] = {}
    for scored in in_turn:
        found.setdefault(scored.chunk.id, scored)
    return list(found.values())[:most]
