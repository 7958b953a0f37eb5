"""Corrects markers, and adds missing ones, while an answer streams, so that what is shown names the chunks that were checked."""

from __future__ import annotations

import re
from collections.abc import Sequence

from citewell.citations import MARKER, bears_out, repair, verify
from citewell.documents import ScoredChunk
from citewell.sentences import sentence_spans

_OPEN = re.compile("[\\[\u3010][ \\t0-9,;]*$")
"""The end of a text that may turn into a marker."""
_NEXT = re.compile(
    rf"(?:(?:[.!?\u2026][\"'\u201d\u2019)*_]*(?:[ \t]*{MARKER.pattern})*\s+"
    rf"|[\u3002\uff01\uff1f]+[\u300d\u300f\u201d\uff09]*(?:[ \t]*{MARKER.pattern})*\s*)|\n\s*)(?=[^\s\[\u3010a-z])"
)
"""Where another sentence may have begun (never with a small letter): a marker before it belongs to nothing after it."""
_WORD = re.compile(r"\S+\s")
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)


class MarkerRepair:
    """Takes an answer piece by piece and returns what may be shown of it. Pure.

    It holds back markers until their sentence has ended, and the space between two sentences until it is clear that the first has
    ended. Joined, what it returns is the answer with wrong markers corrected as `verify` finds them, and with a marker after each
    sentence that had none and that a chunk verifies.

    Args:
        chunks: What the answer is written from, in the order of their numbers.
    """

    def __init__(self, chunks: Sequence[ScoredChunk]) -> None:
        self._chunks = chunks
        self._text = ""
        """The text from the first sentence that is not settled yet."""
        self._shown = 0
        """How much of it has been returned."""
        self._in_code = False
        """Whether it begins within a block of code."""

    def feed(self, text: str) -> str:
        """Take the next piece; return what may be shown now."""
        self._text += text
        return self._show(is_last=False)

    def finish(self) -> str:
        """Return the rest; no more pieces will come."""
        return self._show(is_last=True) + self._settle(len(self._text))

    def _show(self, *, is_last: bool) -> str:
        settled = ""
        # sentence by sentence, each at its first possible end, so that the result does not depend on how the pieces were cut
        while True:
            first = MARKER.search(self._text)
            end, held = self._end_after(first, is_last=is_last)
            if end is None:
                break
            settled += self._settle(end)
        opening = first or _OPEN.search(self._text)
        upto = min(held, opening.start() if opening else held)
        settled += self._text[self._shown : upto]
        self._shown = max(self._shown, upto)
        return settled

    def _end_after(self, marker: re.Match[str] | None, *, is_last: bool) -> tuple[int | None, int]:
        """Where the first sentence ends (None: not known yet), and how far the text may be shown until then."""
        for found in _NEXT.finditer(self._text):
            end = found.end()
            if marker and marker.end() <= end:
                return end, end
            # Without a marker nothing is held back so far, so there is time to wait for one word more, which tells whether the
            # sentence has ended: "in the U.S. The", "in the U.S. Army".
            word = _WORD.match(self._text, end)
            if word is None and not is_last:
                return None, len(self._text[:end].rstrip())
            known = self._text[: word.end()] if word else self._text
            if any(span.start == end for span in sentence_spans(known)):
                return end, end
        return None, len(self._text.rstrip())

    def _settle(self, end: int) -> str:
        done, self._text = self._text[:end], self._text[end:]
        shown, self._shown = self._shown, 0
        was_code = self._in_code
        self._in_code ^= len(_FENCE.findall(done)) % 2 == 1
        if MARKER.search(done):
            done = repair(done, verify(done, self._chunks))
        elif not was_code and not self._in_code and (number := bears_out(done, self._chunks)):
            ends = len(done.rstrip())
            gap = done[ends:] or (" " if self._text.startswith("(") else "")  # else it would be a link to what follows
            done = f"{done[:ends]} [{number}]{gap}"
        return done[shown:]
