"""A parsed document: the extracted text and everything that is known by its offsets."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Final

_HEAD_LINES: Final = 2
_HEAD_LINE_CHARS: Final = 90
"""Longer lines are running text: a paragraph's lines are joined."""
_HEAD_CHARS: Final = 400
_WORD = re.compile(r"[^\W\d_]{3}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """A heading as it stands in the text."""

    level: int
    """1 is outermost. Levels may be skipped."""
    text: str
    """Without markup, on one line, at most 300 characters: every chunk below carries it."""
    start: int
    """Character offset in the extracted text, markup included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What a loader makes of a file. All offsets are Python code points in `text`."""

    text: str
    """The extracted text, as it is stored and as citations quote it. Never empty, holds no NUL and no surrogate."""
    type: str
    """`pdf`, `md`, `txt`, `html` or `docx`, by content rather than by name."""
    title: str = ""
    """The document's own title; empty when it has none."""
    headings: tuple[Heading, ...] = ()
    """In order of `start`."""
    page_starts: tuple[int, ...] = ()
    """Where each page starts, ascending, the first at 0. Empty where the format has no pages."""
    date: str | None = None
    """ISO 8601."""
    tags: tuple[str, ...] = ()
    access: tuple[str, ...] = ()
    """Labels, where the document itself names some."""
    notes: tuple[str, ...] = field(default=())
    """What the owner of the file should know: a guessed encoding, pages without text."""

    def page_at(self, offset: int) -> int | None:
        """The 1-based page on which the character at `offset` stands; None where the format has no pages."""
        return bisect_right(self.page_starts, offset) or None

    def page_head(self, page: int) -> str:
        """What stands at the top of a page (from 1): up to two short lines, as a table's title; empty where it begins with
        running text."""
        start = self.page_starts[page - 1]
        end = self.page_starts[page] if page < len(self.page_starts) else len(self.text)
        head: list[str] = []
        for line in self.text[start : min(end, start + _HEAD_CHARS)].split("\n"):
            if len(head) == _HEAD_LINES or len(line) > _HEAD_LINE_CHARS or line.rstrip().endswith((".", ";", ",")):
                break
            if _WORD.search(line):
                head.append(" ".join(line.split()))
        return ", ".join(head)

    @property
    def pages(self) -> int | None:
        return len(self.page_starts) or None
