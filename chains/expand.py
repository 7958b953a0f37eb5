"""Other wordings of a question, to find passages that use other words for the same thing."""

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
"""List marks, which models write whether asked to or not."""


def wordings(written: str, question: str, *, most: int, longest: int) -> list[str]:
    """Read the wordings from a model's reply, without list marks, repetitions and the question itself.

    Args:
        written: The reply to `PROMPT`, one wording per line.
        question: What was to be reworded.
        most: How many to return at most.
        longest: Longer lines, in characters, are dropped.
    """
    lines = (_MARK.sub("", line).strip() for line in written.splitlines())
    kept = dict.fromkeys(line for line in lines if line and len(line) <= longest and line != question)
    return list(kept)[:most]
