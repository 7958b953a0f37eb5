"""Plain text and Markdown. The text is kept as written, without its front matter."""

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


def load_text(data: bytes) -> Document:
    return _load(data, "txt")


def load_markdown(data: bytes) -> Document:
    return _load(data, "md")


def _load(data: bytes, kind: str) -> Document:
    decoded, note = decode(data)
    matter, text = split_front_matter(clean(decoded))
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
