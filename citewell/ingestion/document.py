"""A parsed document: the extracted text, its headings and pages by their offsets, and its metadata."""

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
    """A heading in the text."""

    level: int
    """1 is outermost. Levels may be skipped."""
    text: str
    """Without markup, on one line, at most 300 characters, since every chunk below it repeats it."""
    start: int
    """Character offset in the extracted text, markup included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """The result of loading a file. All offsets are in Python code points of `text`."""

    text: str
    """The extracted text, as it is stored and quoted by citations. Never empty, without NUL and surrogates."""
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
    """Access labels that the document itself names."""
    notes: tuple[str, ...] = field(default=())
    """Remarks for the owner of the file, such as a guessed encoding or pages without text."""

    def page_at(self, offset: int) -> int | None:
        """The page, from 1, of the character at `offset`; None if the format has no pages."""
        return bisect_right(self.page_starts, offset) or None

    def page_head(self, page: int) -> str:
        """Up to two short lines at the top of a page (from 1), such as the title of a table; empty if the page begins with
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
