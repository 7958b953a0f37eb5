"""Checks an answer while it streams: for leaked instructions, for markup that is active in a page, and for personal data.

Each stage takes pieces of text and returns what is certain; text that a later character could still change is held back. With
moderation the whole answer is held back to its end.
"""

from __future__ import annotations

import html
import re
from collections.abc import Awaitable, Callable
from typing import Final, Literal

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
_SPECIAL = re.compile(r"[<!\]`~\r]")
_RUN = re.compile(r"`+|~+")
_TICKS = re.compile(r"`+")
_LINE_END = re.compile(r"[\r\n]")
_INDENT = re.compile(r" {0,3}")
_TAG_START = re.compile(r"</?[A-Za-z!?]")
_HARMLESS_TAG = re.compile(
    r"</?(?:b|i|em|strong|sub|sup|br|p|ul|ol|li|code|pre|kbd|table|thead|tbody|tr|td|th)\s{0,3}/?>", re.IGNORECASE
)
_LINK = re.compile(r"\](?:\((?![^\s`()<>\[\]\\]*\))|\[(?!\w{1,9}\]))")
"""Links whose address or label could contain a backtick that delimits no code; `[page](day.html)` and `[1][2]` cannot."""
_LINK_START = re.compile(r"\](?:\([^\s`()<>\[\]\\]*|\[\w{0,9})\Z")
_ADDRESS = re.compile(r"\]\s{0,3}[(:]\s{0,3}<?\s{0,3}")
_ADDRESS_START = re.compile(r"\]\s{0,3}(?:[(:]|\Z)")
_ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")
_CUT = re.compile(r"(?:&#?\w{0,31}|\\)\Z")
_IGNORED = re.compile(r"[\x00- <]")
"""Characters that a browser ignores in a scheme, or that may surround an address."""
_SCHEMES: Final = ("javascript:", "vbscript:", "data:")
_LOOK_AHEAD: Final = 28
"""Characters that are enough to tell what a `<` begins: more than the longest harmless tag has."""
_LONGEST_SCHEME: Final = 160
"""Characters that are enough to tell the scheme of an address, even with each letter written as an entity."""
_LONGEST_CODE_SPAN: Final = 300
_LINE_SEEN: Final = 64
"""Characters of the current line that are remembered."""

LONGEST_SPACED: Final = 80
"""Longest personal data that contains spaces, in characters; a grouped IBAN has 42."""


class Leak:
    """Finds runs of words of the instructions in a stream."""

    def __init__(self, instructions: str) -> None:
        self._places: dict[str, list[int]] = {}
        for i, word in enumerate(re.findall(r"\w+", instructions)):
            self._places.setdefault(word.casefold(), []).append(i)
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


class Markup:
    """Disarms markup that a page would run or load by itself.

    Outside code, tags other than plain formatting are shown as text, images become links, and script addresses become
    fragments of the page. Code spans and blocks are left alone, since Markdown escapes their content. Only what is certainly code
    by the rules of CommonMark is treated as such; where lists, tables or links could change that, it is not.
    """

    def __init__(self) -> None:
        self._waiting = ""
        self._fence, self._indent = "", 0
        """The fence that opened the code block, and the spaces before it: a line further left may end a list and the block."""
        self._line, self._is_blank = "", True
        """The end of the current line, as far as it is decided, and whether the line is white space so far."""
        self._is_open = False
        """Whether this paragraph may have one end of a code span already: what looks like code may then be outside of code."""
        self._is_lost = False
        """Whether it is no longer certain which lines are code blocks: then nothing is treated as code."""
        self.found = False

    def feed(self, piece: str, *, last: bool = False) -> str:
        text, at, out = self._waiting + piece, 0, ""
        while at < len(text):
            taken, shown = self._code(text, at, last) if self._fence else self._prose(text, at, last)
            out += shown
            if taken == 0:
                break  # undecided without the next characters
            self._pass_by(text[at : at + taken])
            at += taken
        self._waiting = text[at:]
        return out

    def _code(self, text: str, at: int, last: bool) -> tuple[int, str]:
        """The number of characters taken from `text[at:]` inside a code block, and what to show for them."""
        line_end = _LINE_END.search(text, at)
        line = text[at : line_end.start() if line_end else len(text)]
        if line_end and line_end.group() == "\r" and not line:
            self._lose()
        elif not self._line:
            columns = line.expandtabs(4)
            run, indent = columns.strip(" "), len(columns) - len(columns.lstrip(" "))
            is_run = not run.strip(self._fence[0])
            if is_run and line_end is None and not last:
                return 0, ""
            is_fence = is_run and len(run) >= len(self._fence)
            if run and (indent < self._indent or (is_fence and 3 < indent <= 3 + self._indent)):
                self._lose()  # whether the block ends here depends on whether it is in a list
            elif is_fence and indent <= 3:
                self._fence = ""
        if self._is_lost:
            return self._prose(text, at, last)
        taken = len(line) or 1
        return taken, text[at : at + taken]

    def _lose(self) -> None:
        self._fence, self._is_lost = "", True

    def _prose(self, text: str, at: int, last: bool) -> tuple[int, str]:
        special = _SPECIAL.search(text, at)
        if special is None:
            return len(text) - at, text[at:]
        if special.start() > at:
            return special.start() - at, text[at : special.start()]
        sign = special.group()
        if sign in "`~":
            return self._run(text, at, last)
        if sign == "]":
            return self._bracket(text, at, last)
        if sign == "\r":  # a line end in CommonMark, but not in the rest of this class
            self._lose()
            return 1, sign
        if not last and len(text) - at < (2 if sign == "!" else _LOOK_AHEAD) and not self._is_decided(text, at):
            return 0, ""
        if sign == "!" and text.startswith("![", at):
            self.found = True
            return 1, ""
        # at the start of a line even a harmless tag begins an HTML block, in which nothing is code
        is_inline = any(map(str.isalpha, self._line))
        if sign == "<" and _TAG_START.match(text, at) and not (is_inline and _HARMLESS_TAG.match(text, at)):
            self.found = True
            return 1, "&lt;"
        return 1, sign

    def _is_decided(self, text: str, at: int) -> bool:
        """Whether the character after a `<` already rules out that it begins a tag."""
        following = text[at + 1 : at + 2]
        return text[at] == "<" and bool(following) and not (following.isalpha() or following in "/!?")

    def _bracket(self, text: str, at: int, last: bool) -> tuple[int, str]:
        window = text[at : at + _LONGEST_SCHEME]
        is_all = last or len(window) == _LONGEST_SCHEME
        lead = _ADDRESS.match(window)
        address = _CUT.sub("", window[lead.end() :]) if lead else ""
        plain = _IGNORED.sub("", html.unescape(_ESCAPED.sub(r"\1", address))).lower()
        may_be_script = any(scheme.startswith(plain) for scheme in _SCHEMES)
        is_escaped = "&" in window or "\\" in window
        may_be_address = _ADDRESS_START.match(window) and (may_be_script or is_escaped)
        if not is_all and (may_be_address or _LINK_START.match(window)):
            return 0, ""
        self._is_open = self._is_open or bool(_LINK.match(window))
        if lead and (plain.startswith(_SCHEMES) or (may_be_script and len(window) == _LONGEST_SCHEME)):
            self.found = True
            return lead.end(), f"{lead.group()}#"
        return 1, "]"

    def _run(self, text: str, at: int, last: bool) -> tuple[int, str]:
        """Backticks or tildes: a fence, a code span, or neither."""
        window = text[at : at + _LONGEST_CODE_SPAN]
        is_end = last and at + len(window) == len(text)
        is_all = is_end or len(window) == _LONGEST_CODE_SPAN
        run = _RUN.match(window)[0]  # type: ignore[index]  # called at a backtick or tilde
        if len(run) == len(window) and not is_all:
            return 0, ""
        slashes = len(self._line) - len(self._line.rstrip("\\"))
        if slashes % 2:
            return 1, run[0]  # escaped
        is_head = len(run) >= 3 and not any(map(str.isalpha, self._line))
        if run[0] == "~" and not is_head:
            return len(run), run
        line_end = _LINE_END.search(window)
        line = window[: line_end.start() if line_end else len(window)]
        ends = [found for found in _TICKS.finditer(line, len(run)) if found.end() < len(window) or is_end]
        end = next((found.end() for found in ends if found.group() == run), 0)
        if not end and line_end is None and not is_all and not self._is_lost:
            return 0, ""
        if is_head and not self._is_lost:
            if not _INDENT.fullmatch(self._line):
                self._lose()  # in a list or a quotation
            elif run[0] == "~" or "`" not in line[len(run) :]:
                if "|" in line or (line_end is None and not is_end):
                    self._lose()  # may be the head of a table, or a backtick may follow
                else:
                    self._fence, self._indent = run, len(self._line)
                    return len(run), run
        is_sure = not self._is_open and not self._is_lost and slashes < _LINE_SEEN
        if end and is_sure and "|" not in line[:end]:
            return end, line[:end]
        self._is_open = self._is_open or run[0] == "`"
        return len(run), run

    def _pass_by(self, text: str) -> None:
        *ended, line = text.split("\n")
        for part in ended:
            if self._is_blank and not part.strip(" \t"):
                self._is_open = False
            self._line, self._is_blank = "", True
        self._line = (self._line + line)[-_LINE_SEEN:]
        self._is_blank = self._is_blank and not line.strip(" \t")


class PersonalData:
    """Redacts personal data in a stream, or stops the stream at the first."""

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
        # a hit that begins in text already shown was decided on then
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
        for stage in (self._leak, self._markup, self._personal):
            piece = stage.feed(piece, last=last)
        if not self.is_blocked:
            self._shown.append(piece)
        return "" if self.is_blocked else piece
