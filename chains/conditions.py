"""Sentences that restrict the one before: "Home printers may be used. This does not hold for confidential documents." English."""

from __future__ import annotations

import re
from collections.abc import Sequence

from chains.candidates import Candidate
from citewell.documents import ScoredChunk
from citewell.terms import overlap, read

_CONTRASTS = re.compile(
    r"(?:but|except|however|instead|neither|nevertheless|nor|not|only|otherwise|still|though|unless|without|yet)\b",
    re.I,
)
"""How a sentence begins that is said against the one before."""
_LIMITED = re.compile(
    r"(?:(?:above|after|before|below|between|during|for|from|if|in|on|once|outside|until|when|with)\s(?:\S+\s){0,8}?"
    r"(?:it|one|ones|others?|they|this)|after that|an?\s\S+\sone|for(?! (?:example|instance)))\b",
    re.I,
)
"""How one begins that says for what, when or where it holds, and refers to what was said: "In August it is two", "A longer one"."""
_EXEMPTS = re.compile(r"\b(?:except(?:ed|ions?)|excluded|exempt(?:ed)?|(?:are|do|does|is) not(?=\s*[.,:;]))", re.I)
_REFERS = re.compile(
    r"(?:(?:if|it|its|one|others?|such|their|these|they|this|those)\b|(?:any|every)(?:body|one|thing) else\b)",
    re.I,
)
_RESTRICTS = re.compile(
    r"\b(?:at (?:least|most|the (?:earliest|latest|least|longest|most))|cannot|forbidden|if|instead|may|must|needs?|never|no|nobody|none"
    r"|not|nothing|only|unless|void)\b|n[’']t\b",
    re.I,
)
_DENIES = re.compile(r"\b(?:cannot|forbidden|never|no|nobody|none|not|nothing)\b|n[’']t\b", re.I)
_SHORT = 100
"""Characters of a sentence that denies and shares a word with the one before: "Supporting members have none". Long ones tell a story."""


def condition(one: Candidate, found: Sequence[Candidate], chunks: Sequence[ScoredChunk]) -> Candidate | None:
    """The sentence that follows one in its paragraph, where it restricts what that says; none after a row of a table.

    Args:
        one: One of `found`.
        found: The candidates of the chunks, in order.
        chunks: See `Candidate.number`.
    """
    following = next(iter(found[found.index(one) + 1 :]), None)
    if following is None or following.number != one.number or one.cells or following.cells:
        return None
    between = chunks[one.number - 1].chunk.text[one.span.end : following.span.start]
    in_paragraph = not between.strip() and between.count("\n") < 2
    return following if in_paragraph and restricts(following.text, one.text) else None


def restricts(text: str, before: str) -> bool:
    """Whether a sentence says when, for whom or for what the one before does not hold, or what else it takes."""
    if _CONTRASTS.match(text) or _LIMITED.match(text) or _EXEMPTS.search(text):
        return True
    if _REFERS.match(text) and _RESTRICTS.search(text):
        return True
    return len(text) <= _SHORT and _DENIES.search(text) is not None and overlap(read(before), read(text)) > 0
