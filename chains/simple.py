"""Which questions a cheaper model can answer: those that ask for a single thing that a passage very likely states.

A rule, so that it costs nothing and can be measured (`python -m evals.routing`). English; a question that it does not understand
is not simple.
"""

import re
from typing import Final

from chains.answer_type import answer_type

MOST_WORDS: Final = 16
CONFIDENT_FROM: Final = 0.8
"""Calibrated confidence that the documents hold the answer, 0..1."""

_ASKS_FOR_A_THING: Final = re.compile(r"\b(?:what|which|who|whom|whose|when|where|how (?:many|much|long|far|old|often|tall|high|large|big|deep|wide|heavy|fast))\b", re.I)  # fmt: skip
_ASKS_FOR_MORE: Final = re.compile(
    r"\b(?:why|explain|describe|summari[sz]e|discuss|elaborate|outline|compar\w+|contrast|versus|vs|differ\w*|similar\w*|"
    r"relat\w+|between|list|all|each|every|both|steps?|ways|reasons?|causes?|effects?|impacts?|consequences?|advantages?|"
    r"disadvantages?|pros|cons|should|would|could|might|better|best|worse|recommend\w*|evaluat\w+|assess\w*|analy[sz]\w+|"
    r"calculat\w+|comput\w+|average|ratio|margin|growth|trends?|change[ds]?|increas\w+|decreas\w+|improv\w+|total|sum|"
    r"percent\w*|not|never|except|without|if|assum\w+|suppose|role|purpose|process|how (?:do|does|did|can|is|are|was|were))\b",
    re.I,
)


def is_simple(question: str, *, confidence: float) -> bool:
    """Whether a question is short, asks for one date, number, person, place or thing, and has good evidence.

    Args:
        question: One that stands alone as it was asked.
        confidence: That the documents hold the answer, 0..1.
    """
    return confidence >= CONFIDENT_FROM and is_lookup(question)


def is_lookup(question: str) -> bool:
    """The part of the rule that looks at the words alone."""
    return (
        len(question.split()) <= MOST_WORDS
        and len(re.findall(r"[?;\n]", question.strip())) <= 1
        and _ASKS_FOR_A_THING.search(question) is not None
        and _ASKS_FOR_MORE.search(question) is None
        and answer_type(question) != "reason"
    )
