"""Checks of an answer: the assistant's own instructions repeated, and markup that runs in a page."""

from __future__ import annotations

import re
from typing import Final

LEAK_WORDS: Final = 12
"""So many words of the instructions in a row, in their order, are a leak; shorter runs are ordinary language."""
HOLD_WORDS: Final = 4
"""From so many words on a stream holds a run back until it breaks off or becomes a leak."""

_WORD = re.compile(r"\w+")
_CODE = re.compile(r"(`{3,}|~{3,}).*?(?:\1|\Z)|(`{1,2})(?!`)[^`\n]+\2", re.DOTALL)
_TAG = re.compile(r"<(?=/?[A-Za-z!?])")
_HARMLESS_TAG = re.compile(r"</?(?:b|i|em|strong|sub|sup|br|p|ul|ol|li|code|pre|kbd|table|thead|tbody|tr|td|th)\s*/?>", re.IGNORECASE)
_IMAGE = re.compile(r"!(?=\[)")
_SCHEME = re.compile(r"(?i)(?<![a-z0-9])(javascript|vbscript|data)\s*:(?=\s*[^\s])")
_LINKED_SCHEME = re.compile(r"(?i)(\]\s*\(\s*<?|\]:\s*<?)((?:java|vb)script|data)(?:\s|&\w+;)*:")


def leak_score(answer: str, instructions: str) -> float:
    """0..1: the longest run of words shared with the instructions, 1 from `LEAK_WORDS` on."""
    return min(1.0, max((n for n, _ in _runs(answer, instructions)), default=0) / LEAK_WORDS)


def leak_tail(answer: str, instructions: str) -> int:
    """Where the run of the instructions' words begins that the answer ends with; `len(answer)` if it is short."""
    runs = _runs(answer, instructions)
    return runs[-1][1] if runs and runs[-1][0] >= HOLD_WORDS else len(answer)


def _runs(answer: str, instructions: str) -> list[tuple[int, int]]:
    """For each word of the answer: length of the longest run of instruction words ending there, and its start."""
    source = [word.casefold() for word in _WORD.findall(instructions)]
    places: dict[str, list[int]] = {}
    for i, word in enumerate(source):
        places.setdefault(word, []).append(i)
    words = list(_WORD.finditer(answer))
    runs: list[tuple[int, int]] = []
    ending: dict[int, int] = {}
    for at, match in enumerate(words):
        ending = {i: ending.get(i - 1, 0) + 1 for i in places.get(match.group().casefold(), ())}
        n = max(ending.values(), default=0)
        runs.append((n, words[at - n + 1].start() if n else match.end()))
    return runs


def defuse(text: str) -> str:
    """The same answer with nothing in it that a page would run or fetch by itself.

    Outside code, tags other than plain formatting are shown as text, remote images become links, and script
    addresses lose their scheme. Code spans and blocks are left alone: Markdown escapes what stands in them.
    """
    parts, at = [], 0
    for code in _CODE.finditer(text):
        parts += [_defuse_prose(text[at : code.start()]), code.group()]
        at = code.end()
    parts.append(_defuse_prose(text[at:]))
    return "".join(parts)


def _defuse_prose(text: str) -> str:
    if "<" in text:
        text = _TAG.sub(lambda match: "<" if _HARMLESS_TAG.match(text, match.start()) else "&lt;", text)
    if "](" in text or "]:" in text or "![" in text:
        text = _LINKED_SCHEME.sub(r"\1#\2-", _IMAGE.sub("", text))
    return text
