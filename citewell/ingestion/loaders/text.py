"""Plain text and Markdown. The text is kept as written, without its front matter and without comments."""

from __future__ import annotations

import re
from collections.abc import Iterator

from citewell.ingestion.document import Document, Heading
from citewell.ingestion.encoding import clean, clean_line, decode
from citewell.ingestion.front_matter import split_front_matter

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t](.*))?$")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_TRAILER = re.compile(r"[ \t]+#+$|[ \t]*\{[^{}]*\}$")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_MARKUP = re.compile(r"[*_`]{1,3}(?=\S)|(?<=\S)[*_`]{1,3}|<[^>]+>")
_CODE_OR_COMMENT = re.compile(
    r"^[ \t>]*(?P<fence>`{3,}+|~{3,}+)[^\n]*\n(?:.*?^[ \t>]*(?P=fence)[`~]*[ \t]*$|.*)"
    r"|(?<!`)(?P<ticks>`++)[^`\n]+(?P=ticks)"
    r"|(?P<remark>^ {0,3}\[[^\^\]\n][^\]\n]{0,99}\]:[ \t]+(?:#|<>)[ \t]+[\"'(][^\n]*$)"
    r"|(?P<comment><!--)",
    re.DOTALL | re.MULTILINE,
)
"""Code; a link that leads nowhere, which is how comments are written in Markdown without HTML; and the beginning of an HTML comment."""


def load_text(data: bytes) -> Document:
    return _load(data, "txt")


def load_markdown(data: bytes) -> Document:
    return _load(data, "md")


def _load(data: bytes, kind: str) -> Document:
    decoded, note = decode(data)
    matter, text = split_front_matter(clean(decoded))
    text = _without_comments(text) if kind == "md" else text
    headings = tuple(_headings(text)) if kind == "md" else ()
    own_title = next((heading.text for heading in headings if heading.level == 1), "")
    return Document(
        text=text,
        type=kind,
        title=matter.title or own_title,
        headings=headings,
        date=matter.date,
        tags=matter.tags,
        access=matter.access,
        notes=matter.notes + ((note,) if note else ()),
    )


def _without_comments(text: str) -> str:
    """The text without comments outside of code. One that is not closed is left, as the rest of the text could be meant."""
    kept: list[str] = []
    at = read = 0
    while found := _CODE_OR_COMMENT.search(text, read):
        read = found.end()
        if found["comment"]:
            if (end := text.find("-->", read)) < 0:
                break
            read = end + len("-->")
        if found["comment"] or found["remark"]:
            kept.append(text[at : found.start()])
            at = read
    return "".join([*kept, text[at:]])


def _headings(text: str) -> Iterator[Heading]:
    """ATX and Setext headings of CommonMark, without those in fenced code."""
    fence = ""
    above, above_start = "", 0
    start = 0
    for line in text.splitlines(keepends=True):
        bare = line.rstrip("\n")
        mark = _FENCE.match(bare)
        if fence:
            if mark and mark[1].startswith(fence) and not bare.strip(" `~"):
                fence = ""
            bare = ""
        elif mark:
            fence, bare = mark[1], ""
        elif heading := _ATX.match(bare):
            if name := _plain(heading[2] or ""):
                yield Heading(level=len(heading[1]), text=name, start=start)
            bare = ""
        elif (rule := _SETEXT.match(bare)) and above.strip():
            yield Heading(level=1 if rule[1][0] == "=" else 2, text=_plain(above), start=above_start)
            bare = ""
        # A Setext underline belongs to a paragraph line, never to a list, a quote, a table or indented code.
        above, above_start = ("" if bare.startswith(("    ", "\t", "-", "*", "+", ">", "|", "<")) else bare), start
        start += len(line)


def _plain(heading: str) -> str:
    heading = clean_line(heading)
    while (shorter := _TRAILER.sub("", heading)) != heading:
        heading = shorter
    return _MARKUP.sub("", _LINK.sub(r"\1", heading)).strip()
