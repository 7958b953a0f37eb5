"""Disarms active markup in an answer while it streams: Markdown and HTML that a page would run or load by itself."""

from __future__ import annotations

import html
import re
from typing import Final

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
_DEFINED = re.compile(r"[\s>*+\-\d.)]*\[\s*\d+\s*")
"""The beginning of a line that with `]:` and an address makes links of all the answer's markers with this number."""
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)
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


class Markup:
    """Disarms markup that a page would run or load by itself.

    Outside code, tags other than plain formatting are shown as text, images become links, script addresses become
    fragments of the page, and no line makes links of the answer's markers. Code spans and blocks are left alone, since Markdown escapes their content. Only what is certainly code
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
            return self._backticks(text, at, last)
        if sign == "]":
            return self._bracket(text, at, last)
        if sign == "\r":  # a line end in CommonMark, but not in the rest of this class
            self._lose()
            return 1, sign
        if not last and len(text) - at < (2 if sign == "!" else _LOOK_AHEAD) and not self._is_decided(text, at):
            return 0, ""
        if sign == "!" and text.startswith("![", at):
            self.found = True
            # a space, where the sign before would make an image again
            return 1, " " if self._line.endswith("!") else ""
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
        address = html.unescape(_ESCAPED.sub(r"\1", _CUT.sub("", window[lead.end() :]))) if lead else ""
        plain = _IGNORED.sub("", address).lower()
        may_be_script = any(scheme.startswith(plain) for scheme in _SCHEMES)
        is_defined = lead is not None and ":" in lead.group() and _DEFINED.fullmatch(self._line) is not None
        is_escaped = "&" in window or "\\" in window
        may_be_address = _ADDRESS_START.match(window) and (may_be_script or is_escaped or is_defined)
        if not is_all and (may_be_address or _LINK_START.match(window)):
            return 0, ""
        self._is_open = self._is_open or bool(_LINK.match(window))
        if lead and (plain.startswith(_SCHEMES) or (may_be_script and len(window) == _LONGEST_SCHEME)):
            self.found = True
            return lead.end(), f"{lead.group()}#"
        if is_defined and _ELSEWHERE.match(address):
            self.found = True
            return 1, "] "
        return 1, "]"

    def _backticks(self, text: str, at: int, last: bool) -> tuple[int, str]:
        """Backticks or tildes: a fence, one end of a code span, or neither."""
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
        line, is_whole = window[: line_end.start() if line_end else len(window)], is_end or line_end is not None
        # backticks at the end of what is known may be more than these
        ends = (one.end() for one in _TICKS.finditer(line, len(run)) if one.group() == run)
        span = line[: next((end for end in ends if end < len(window) or is_end), 0)]
        if not span and not is_whole and not is_all and not self._is_lost:
            return 0, ""
        if is_head and not self._is_lost and self._opens_block(run, line, is_whole):
            return len(run), run
        if span and "|" not in span and not self._is_open and not self._is_lost and slashes < _LINE_SEEN:
            return len(span), span
        self._is_open = self._is_open or run[0] == "`"
        return len(run), run

    def _opens_block(self, run: str, line: str, is_whole: bool) -> bool:
        """Whether a line that begins with a fence opens a code block. Where that is uncertain, nothing is treated as code any more."""
        if not _INDENT.fullmatch(self._line):
            self._lose()  # in a list or a quotation
        elif run[0] == "`" and "`" in line[len(run) :]:
            return False  # a code span
        elif "|" in line or not is_whole:
            self._lose()  # may be the head of a table, or a backtick may follow
        else:
            self._fence, self._indent = run, len(self._line)
        return bool(self._fence)

    def _pass_by(self, text: str) -> None:
        *ended, line = text.split("\n")
        for part in ended:
            if self._is_blank and not part.strip(" \t"):
                self._is_open = False
            self._line, self._is_blank = "", True
        self._line = (self._line + line)[-_LINE_SEEN:]
        self._is_blank = self._is_blank and not line.strip(" \t")
