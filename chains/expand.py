"""Other wordings of a question, which find passages that use other words for the same."""

from __future__ import annotations

import re

from langchain_core.prompts import ChatPromptTemplate
from typing_extensions import TypedDict


class ExpandInput(TypedDict):
    question: str
    """Standalone."""
    count: int
    """How many wordings are wanted."""


PROMPT = ChatPromptTemplate.from_messages([
    (
        "system",
        "Write {count} other wordings of the user's question for a search in documents that may use other words: synonyms, "
        "technical terms, spelled-out abbreviations. Keep names, numbers and its language. Do not answer it. One wording a "
        "line and nothing else.",
    ),
    ("human", "{question}"),
])  # fmt: skip

_MARK = re.compile(r"^\s*(?:[-*\u2022]|\d+[.)])\s+")
"""What models put before the items of a list, asked or not."""


def wordings(written: str, question: str, *, most: int, longest: int) -> list[str]:
    """The wordings in what a model wrote, without list marks, repetitions and the question itself.

    Args:
        written: By a model that was given `PROMPT`.
        question: What was to be reworded.
        most: How many to return at most.
        longest: Characters of the longest that is kept; whatever is longer is no wording of a question.
    """
    lines = (_MARK.sub("", line).strip() for line in written.splitlines())
    kept = dict.fromkeys(line for line in lines if line and len(line) <= longest and line != question)
    return list(kept)[:most]
