"""Questions that ask more than one thing: each is looked up, and answered, by itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import NamedTuple

from langchain_core.messages import HumanMessage

from chains.condense import condense_rule
from chains.reading import ASKS_YES_OR_NO
from citewell.documents import ScoredChunk
from citewell.terms import read

_ASKS = r"(?:(?:at|by|for|from|in|of|on|since|to|until|with)\s+)?(?:who|whom|whose|what|which|when|where|why|how)\b"
_ASKS_WHETHER = r"(?:am|are|can|could|did|do|does|has|have|is|may|must|shall|should|was|were|will)\s+(?:a|an|any|he|i|it|my|one|she|the|there|they|we|you)\b"
_NEXT = re.compile(
    rf"(?:[,;]?\s+(?:and|or|but)\s+|[?;]\s+(?:(?:and|or|but)\s+)?)(?={_ASKS}|{_ASKS_WHETHER})", re.IGNORECASE
)
_INTERROGATIVE = re.compile(rf"(?:^|\s){_ASKS}", re.IGNORECASE)
MOST = 8
"""Things that one question asks. Each is embedded and searched for by itself, so that one question could cost hundreds."""


class Single(NamedTuple):
    """One thing that is asked."""

    question: str
    """Understandable by itself: "who found out? (Algol variable)"."""
    typed: str
    """Without the words that a rule added: "who found out?"."""


def singles(question: str, typed: str) -> list[Single]:
    """What a question asks, in order: "Why is Algol variable, and who found out?" asks two things.

    English. Each must ask, with a word of its own or for yes or no, and say about what: "where and when did it begin" is
    one. So is what would ask more than `MOST` things.

    Args:
        question: Standalone.
        typed: The question without the words that a rule added at its end; the same where none did.
    """
    asked = _NEXT.split(typed)
    if len(asked) > MOST or not all(
        (_INTERROGATIVE.search(part) or ASKS_YES_OR_NO.match(part)) and read(part).terms for part in asked
    ):
        asked = [typed]
    if len(asked) == 1:
        return [Single(question, typed)]
    first = f"{asked[0]}{question.removeprefix(typed)}"
    return [Single(first, asked[0]), *(Single(condense_rule(part, [HumanMessage(first)]), part) for part in asked[1:])]


def interleaved(rankings: Sequence[Sequence[ScoredChunk]], most: int) -> list[ScoredChunk]:
    """The best of each ranking, then the second of each, and so on; each chunk once, at most `most`."""
    found: dict[str, ScoredChunk] = {}
    for scored in _in_turn(rankings):
        found.setdefault(scored.chunk.id, scored)
    return list(found.values())[:most]


def _in_turn(rankings: Sequence[Sequence[ScoredChunk]]) -> Iterator[ScoredChunk]:
    for place in zip_longest(*rankings):
        yield from filter(None, place)
