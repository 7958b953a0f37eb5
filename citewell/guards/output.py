"""Checks an answer while it streams: for leaked instructions, for markup that is active in a page, and for personal data.

Each stage takes pieces of text and returns what is certain; text that a later character could still change is held back. With
moderation the whole answer is held back to its end.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Final, Literal

from citewell.guards.markup import Markup
from citewell.guards.personal import CUE_WINDOW, Detector, Hit, replace
from citewell.guards.verdict import ACTIVE_MARKUP, PERSONAL_DATA, PROMPT_LEAK, Verdict, allow, block, change
from citewell.telemetry import metrics

Policy = Literal["allow", "redact", "refuse"]

LEAK_WORDS: Final = 12
"""Consecutive words of the instructions that make a leak; a shorter run is ordinary language."""
HOLD_WORDS: Final = 4
"""Length of a run at which the stream is held back until the run breaks off or becomes a leak."""

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""Control characters, which a terminal would obey. They are removed from questions and documents too."""
_WORDS = re.compile(r"\w+|\W+")

_BETWEEN: Final = " \n。、，"
"""Signs at which a text may be divided: those between words and, where there are none, between clauses."""
LONGEST_SPACED: Final = 80
"""Longest personal data that contains spaces, in characters; a grouped IBAN has 42."""


@lru_cache(8)
def _places(instructions: str) -> dict[str, list[int]]:
    """The numbers of the words at which each word stands. Cached, as all answers of a service have the same instructions."""
    places: dict[str, list[int]] = {}
    for i, word in enumerate(re.findall(r"\w+", instructions)):
        places.setdefault(word.casefold(), []).append(i)
    return places


class Leak:
    """Finds runs of words of the instructions in a stream."""

    def __init__(self, instructions: str) -> None:
        self._places = _places(instructions)
        self._ends: dict[int, int] = {}  # word number in the instructions -> length of the run that ends there
        self._word = ""
        self._held = ""
        self.longest = 0

    def feed(self, piece: str, *, last: bool = False) -> str:
        out = ""
        for part in _WORDS.findall(piece):
            if part[0].isalnum() or part[0] == "_":
                self._word += part
            else:
                self._end_word()
            self._held += part
            if not self._is_holding():
                out, self._held = out + self._held, ""
        if last:
            self._end_word()
            if not self.is_leak:
                out, self._held = out + self._held, ""
        return out

    @property
    def is_leak(self) -> bool:
        return self.longest >= LEAK_WORDS

    def _is_holding(self) -> bool:
        return self.is_leak or max(self._ends.values(), default=0) >= HOLD_WORDS

    def _end_word(self) -> None:
        if not self._word:
            return
        places = self._places.get(self._word.casefold(), ())
        self._ends = {i: self._ends.get(i - 1, 0) + 1 for i in places}
        self.longest = max(self.longest, *self._ends.values(), 0)
        self._word = ""


class PersonalData:
    """Redacts personal data in a stream, or stops the stream at the first."""

    def __init__(self, policy: Policy, detector: Detector) -> None:
        self._policy = policy
        self._detector = detector
        self._before = ""
        self._waiting = ""
        self._look_at = 2 * LONGEST_SPACED
        self.found = False

    def feed(self, piece: str, *, last: bool = False) -> str:
        if self._policy == "allow":
            return piece
        self._waiting += piece
        if not last and len(self._waiting) < self._look_at:
            return ""
        text, begin = self._before + self._waiting, len(self._before)
        hits = [hit for hit in self._detector.find(text) if hit.end > begin]
        cut = len(text)
        if not last:
            cut = max(begin, *(text.rfind(sign, begin, len(text) - LONGEST_SPACED) for sign in _BETWEEN))
            for hit in reversed(hits):
                if hit.start < cut < hit.end:
                    cut = max(begin, hit.start)
        # a hit that begins in text already shown was decided on then
        done = [
            Hit(hit.start - begin, hit.end - begin, hit.kind) for hit in hits if begin <= hit.start and hit.end <= cut
        ]
        self.found = self.found or bool(done)
        if done and self._policy == "refuse":
            return ""
        out = replace(text[begin:cut], done)
        self._before, self._waiting = text[max(0, cut - CUE_WINDOW) : cut], text[cut:]
        # else a long run is looked over again with each piece
        self._look_at = 2 * max(LONGEST_SPACED, len(self._waiting))
        return out


class AnswerScreen:
    """All checks of one answer, piece by piece.

    Args:
        instructions: The system prompt the model was given, without the documents; empty for none.
        policy: What to do with personal data.
        detector: Finds personal data.
        moderate: Judges the whole answer, which is then shown in one piece or not at all; never raises. None: no moderation.
    """

    def __init__(
        self, instructions: str, policy: Policy, detector: Detector,
        moderate: Callable[[str], Awaitable[Verdict]] | None = None,
    ) -> None:  # fmt: skip
        self._leak = Leak(instructions)
        self._markup = Markup()
        self._personal = PersonalData(policy, detector)
        self._policy = policy
        self._moderate = moderate
        self._moderated = allow()
        self._shown: list[str] = []

    def feed(self, piece: str) -> str:
        """What may be shown now; empty while the text is undecided, and always once the answer is blocked."""
        certain = self._pass(piece, last=False)
        return "" if self._moderate else certain

    async def finish(self) -> str:
        """The rest of what may be shown."""
        rest = self._pass("", last=True)
        if self._moderate and not self.is_blocked:
            rest = "".join(self._shown)
            if rest.strip():
                self._moderated = await self._moderate(rest)
        metrics.judged("answer", self.verdict)
        return "" if self.is_blocked else rest

    @property
    def is_blocked(self) -> bool:
        """Whether no more of the answer may be shown."""
        refused = self._policy == "refuse" and self._personal.found
        return self._leak.is_leak or refused or not self._moderated.allowed

    @property
    def verdict(self) -> Verdict:
        """The verdict on the answer so far; its `text` is what was shown, if that differs from what was fed."""
        if self._leak.is_leak:
            return block(PROMPT_LEAK)
        if not self._moderated.allowed:
            return self._moderated
        if self._personal.found:
            return block(PERSONAL_DATA) if self._policy == "refuse" else change(PERSONAL_DATA, "".join(self._shown))
        if self._markup.found:
            return change(ACTIVE_MARKUP, "".join(self._shown))
        return allow()

    def _pass(self, piece: str, *, last: bool) -> str:
        if self.is_blocked:
            return ""
        piece = _CONTROL.sub("", piece)
        # personal data before markup, as what stands for it, "[phone]", may make an image or a link of what follows
        for stage in (self._leak, self._personal, self._markup):
            piece = stage.feed(piece, last=last)
        if not self.is_blocked:
            self._shown.append(piece)
        return "" if self.is_blocked else piece
