"""Markers put right while an answer streams, so that what is shown and what was checked name the same chunks."""

from __future__ import annotations

import re
from collections.abc import Sequence

from citewell.citations import MARKER, repair, verify
from citewell.documents import ScoredChunk

_OPEN = re.compile("[\\[\u3010][ \\t0-9,;]*$")
"""The end of a text that may become a marker."""
_NEXT = re.compile(
    rf"(?:[.!?\u3002\uff01\uff1f][\"'\u201d\u2019)]*(?:[ \t]*{MARKER.pattern})*\s+|\n\s*)(?=[^\s\[\u3010a-z])"
)
"""Where another sentence has begun (never with a small letter): a marker before it stands by nothing after it."""


class MarkerRepair:
    """An answer that streams: feed it pieces, show what it gives back. Only markers wait, until their sentence has ended.

    Pure; joined, the pieces are the answer with the markers that `verify` found to stand for another chunk put right.
    """

    def __init__(self, chunks: Sequence[ScoredChunk]) -> None:
        """Args:
        chunks: What the answer is written from, in the order it was numbered.
        """
        self._chunks = chunks
        self._text = ""
        """From the first sentence that is not settled."""
        self._shown = 0
        """How much of it has been given back."""

    def feed(self, text: str) -> str:
        """Take the next piece; returns what may be shown."""
        self._text += text
        settled = ""
        # one sentence after the other, each at its first end: what is shown must not depend on how the pieces were cut
        while (first := MARKER.search(self._text)) and (end := self._end_after(first)):
            settled += self._settle(end)
        held = first or _OPEN.search(self._text)
        upto = held.start() if held else len(self._text)
        settled += self._text[self._shown : upto]
        self._shown = max(self._shown, upto)
        return settled

    def finish(self) -> str:
        """No more will come; returns the rest."""
        return self._settle(len(self._text))

    def _end_after(self, marker: re.Match[str]) -> int | None:
        return next((found.end() for found in _NEXT.finditer(self._text) if found.end() >= marker.end()), None)

    def _settle(self, end: int) -> str:
        done, self._text = self._text[:end], self._text[end:]
        shown, self._shown = self._shown, 0
        return repair(done, verify(done, self._chunks))[shown:]
