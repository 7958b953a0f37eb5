"""A parsed document: the extracted text and everything that is known by its offsets."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """A heading as it stands in the text."""

    level: int
    """1 is outermost. Levels may be skipped."""
    text: str
    """Without markup."""
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

    @property
    def pages(self) -> int | None:
        return len(self.page_starts) or None
