"""Checks of an answer while it streams: instructions repeated, markup that runs in a page, personal data.

Each stage takes pieces of text and gives back what is certain; what a later character could still change waits. With
moderation all of it waits for the end.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final, Literal

from citewell.guards.personal import CUE_WINDOW, Detector, Hit, replace
from citewell.guards.verdict import ACTIVE_MARKUP, PERSONAL_DATA, PROMPT_LEAK, Verdict, allow, block, change
from citewell.telemetry import metrics

Policy = Literal["allow", "redact", "refuse"]

LEAK_WORDS: Final = 12
"""So many words of the instructions in a row, in their order, are a leak; shorter runs are ordinary language."""
HOLD_WORDS: Final = 4
"""From so many words on a stream waits for the run to break off or to become a leak."""

_WORDS = re.compile(r"\w+|\W+")
_SPECIAL = re.compile(r"[<!\]`]")
_TICKS = re.compile(r"`+")
_TAG_START = re.compile(r"</?[A-Za-z!?]")
_HARMLESS_TAG = re.compile(
    r"</?(?:b|i|em|strong|sub|sup|br|p|ul|ol|li|code|pre|kbd|table|thead|tbody|tr|td|th)\s{0,3}/?>", re.IGNORECASE
)
_SCHEME = re.compile(r"(?i)(\]\s{0,3}[(:]\s{0,3}<?\s{0,3})((?:java|vb)script|data)\s{0,3}:")
_LOOK_AHEAD: Final = 28
"""Characters that decide what a `<` or a `]` begins: more than the longest match above."""
_LONGEST_CODE_SPAN: Final = 300

LONGEST_SPACED: Final = 80
"""No personal data with spaces in it is longer, in characters; a grouped IBAN has 42."""


class Leak:
    """Finds runs of the instructions' words in a stream."""

    def __init__(self, instructions: str) -> None:
        self._places: dict[str, list[int]] = {}
        for i, word in enumerate(re.findall(r"\w+", instructions)):
            self._places.setdefault(word.casefold(), []).append(i)
        self._ends: dict[int, int] = {}  # place in the instructions -> length of the run that ends there
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


class Markup:
    """Takes the life out of markup that a page would run, or fetch by itself.

    Outside code, tags other than plain formatting are shown as text, images become links, and script addresses
    lose their scheme. Code spans and blocks are left alone: Markdown escapes what stands in them.
    """

    def __init__(self) -> None:
        self._waiting = ""
        self._fence = ""
        self.found = False

    def feed(self, piece: str, *, last: bool = False) -> str:
        text, at, out = self._waiting + piece, 0, ""
        while at < len(text):
            taken, shown = self._code(text, at, last) if self._fence else self._prose(text, at, last)
            out += shown
            if taken == 0:
                break  # the next characters decide
            at += taken
        self._waiting = text[at:]
        return out

    def _code(self, text: str, at: int, last: bool) -> tuple[int, str]:
        """Characters taken from `text[at:]` inside a code block, and what to show for them."""
        end = text.find(self._fence, at)
        if end >= 0:
            end += len(self._fence)
            self._fence = ""
        else:
            end = len(text) if last else max(at, len(text) - len(self._fence) + 1)
        return end - at, text[at:end]

    def _prose(self, text: str, at: int, last: bool) -> tuple[int, str]:
        special = _SPECIAL.search(text, at)
        if special is None:
            return len(text) - at, text[at:]
        if special.start() > at:
            return special.start() - at, text[at : special.start()]
        sign = special.group()
        if sign == "`":
            return self._ticks(text, at, last)
        if not last and len(text) - at < (2 if sign == "!" else _LOOK_AHEAD) and not self._is_decided(text, at):
            return 0, ""
        if sign == "!" and text.startswith("![", at):
            self.found = True
            return 1, ""
        if sign == "<" and _TAG_START.match(text, at) and not _HARMLESS_TAG.match(text, at):
            self.found = True
            return 1, "&lt;"
        if sign == "]" and (scheme := _SCHEME.match(text, at)):
            self.found = True
            return len(scheme.group()), f"{scheme.group(1)}#{scheme.group(2)}-"
        return 1, sign

    def _is_decided(self, text: str, at: int) -> bool:
        """Whether the character after a sign already rules out that it begins something."""
        following = text[at + 1 : at + 2]
        return bool(following) and (
            (text[at] == "<" and not (following.isalpha() or following in "/!?"))
            or (text[at] == "]" and following not in "(: \t\n")
        )

    def _ticks(self, text: str, at: int, last: bool) -> tuple[int, str]:
        match = _TICKS.match(text, at)
        assert match is not None
        ticks = match.group()
        if match.end() == len(text) and not last:
            return 0, ""
        if len(ticks) >= 3:
            self._fence = ticks
            return len(ticks), ticks
        line_end = text.find("\n", match.end())
        end = text.find(ticks, match.end(), len(text) if line_end < 0 else line_end)
        if end >= 0:
            end += len(ticks)
            return end - at, text[at:end]
        if line_end < 0 and not last and len(text) - at < _LONGEST_CODE_SPAN:
            return 0, ""
        return len(ticks), ticks  # no code span after all


class PersonalData:
    """Redacts a stream, or stops it at the first piece of personal data."""

    def __init__(self, policy: Policy, detector: Detector) -> None:
        self._policy = policy
        self._detector = detector
        self._before = ""
        self._waiting = ""
        self.found = False

    def feed(self, piece: str, *, last: bool = False) -> str:
        if self._policy == "allow":
            return piece
        self._waiting += piece
        if not last and len(self._waiting) < 2 * LONGEST_SPACED:
            return ""
        text, begin = self._before + self._waiting, len(self._before)
        hits = [hit for hit in self._detector.find(text) if hit.end > begin]
        cut = len(text)
        if not last:
            cut = max(begin, text.rfind(" ", begin, len(text) - LONGEST_SPACED))
            for hit in reversed(hits):
                if hit.start < cut < hit.end:
                    cut = max(begin, hit.start)
        # a hit that begins in what has been shown was weighed then, with what was known
        done = [
            Hit(hit.start - begin, hit.end - begin, hit.kind) for hit in hits if begin <= hit.start and hit.end <= cut
        ]
        self.found = self.found or bool(done)
        if done and self._policy == "refuse":
            return ""
        out = replace(text[begin:cut], done)
        self._before, self._waiting = text[max(0, cut - CUE_WINDOW) : cut], text[cut:]
        return out


class AnswerScreen:
    """All checks of one answer, piece by piece.

    Args:
        instructions: The system prompt the model was given, without the documents; empty for none.
        policy: What to do with personal data.
        detector: What counts as such.
        moderate: Judges the whole answer, which is then shown in one piece or not at all; never raises. None: nobody does.
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
        """What may be shown now: empty while something waits to be decided, and for good once it is blocked."""
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
        """Whether the answer must end here."""
        refused = self._policy == "refuse" and self._personal.found
        return self._leak.is_leak or refused or not self._moderated.allowed

    @property
    def verdict(self) -> Verdict:
        """Of what was fed so far; its `text` is what was shown, where that differs from what was fed."""
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
        for stage in (self._leak, self._markup, self._personal):
            piece = stage.feed(piece, last=last)
        if not self.is_blocked:
            self._shown.append(piece)
        return "" if self.is_blocked else piece
