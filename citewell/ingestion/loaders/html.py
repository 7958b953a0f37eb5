"""HTML: the text a reader sees, block by block."""

from __future__ import annotations

import re
from collections.abc import Sequence

import lxml.etree
import lxml.html

from citewell.errors import SourceUnreadable, SourceUnsupported
from citewell.ingestion.document import Document, Heading
from citewell.ingestion.encoding import clean, clean_line, decode
from citewell.ingestion.front_matter import TWICE, read_metadata, split_front_matter

# Text that is not the page's own, or that nobody sees. What is hidden from readers must not reach a model either.
_DROPPED = frozenset({
    "script", "style", "noscript", "template", "svg", "math", "canvas", "iframe", "object", "nav", "form", "select",
    "button", "head", "title",
})  # fmt: skip
_PARAGRAPHS = frozenset({
    "p", "div", "section", "article", "main", "aside", "header", "footer", "blockquote", "ul", "ol", "dl", "table",
    "pre", "figure", "figcaption", "details", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "address", "fieldset",
})  # fmt: skip
_LINES = frozenset({"li", "dt", "dd", "tr", "caption", "summary"})
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.I)
_SPACE = re.compile(r"[ \t\n\f\r]+")


def load_html(data: bytes) -> Document:
    """Extract the visible text of a page.

    `<meta name>` gives `date`, `keywords` and `access`, as front matter does in Markdown, and does here too where a
    generator of sites left it: then that comes first.

    Raises:
        SourceUnreadable: Nothing in it can be parsed as HTML, or its front matter cannot be understood.
        SourceUnsupported: It is nested deeper than libxml2 goes (2,048), which would lose text unseen.
    """
    decoded, note = decode(data)
    front, markup = split_front_matter(clean(decoded))
    try:
        # Bytes, because lxml refuses text that still declares an encoding of its own.
        parser = lxml.html.HTMLParser(encoding="utf-8", huge_tree=True, remove_comments=True, remove_pis=True)
        root = lxml.html.document_fromstring(markup.encode("utf-8"), parser=parser)
    except (lxml.etree.LxmlError, ValueError) as exc:
        raise SourceUnreadable("the content cannot be parsed as HTML") from exc
    if any(entry.type == lxml.etree.ErrorTypes.ERR_RESOURCE_LIMIT for entry in parser.error_log):
        raise SourceUnsupported("the elements are nested too deep to be read whole")
    meta = read_metadata(_meta(root))
    text, headings = _read(_mains(root))
    if not text.strip():
        text, headings = _read([*root.iter("body")] or [root])
    title = clean_line(root.findtext(".//title") or "")
    return Document(
        text=text,
        type="html",
        title=front.title or title or next((heading.text for heading in headings if heading.level == 1), ""),
        headings=headings,
        date=front.date or meta.date,
        tags=front.tags or meta.tags,
        access=front.access or meta.access,
        notes=front.notes + meta.notes + ((note,) if note else ()),
    )


def _meta(root: lxml.html.HtmlElement) -> dict[str, object]:
    values: dict[str, object] = {}
    for meta in root.iter("meta"):
        name = (meta.get("name") or meta.get("property") or "").strip().casefold().removeprefix("article:")
        if name == "access" and name in values:
            raise SourceUnreadable(TWICE)
        if (content := meta.get("content", "" if name == "access" else None)) is not None:
            values.setdefault(name.replace("published_time", "date"), content)
    return {key: value for key, value in values.items() if key in {"date", "keywords", "access"}}


def _mains(root: lxml.html.HtmlElement) -> list[lxml.html.HtmlElement]:
    """Each that is seen and stands in no other. One in a form counts: some frameworks put all of a page into one."""
    return [
        main
        for main in root.iter("main")
        if not any(
            above.tag == "main" or (above.tag in _DROPPED and above.tag != "form") or _is_hidden(above)
            for above in main.iterancestors()
        )
    ]


def _read(bodies: Sequence[lxml.html.HtmlElement]) -> tuple[str, tuple[Heading, ...]]:
    page = _Page()
    for body in bodies:
        page.add(body)
    return page.finish()


class _Page:
    """Text under construction: collapses white space as a browser does and keeps blocks apart."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self._gap = ""  # what separates the next text from the one before
        self._preformatted = 0
        self._headings: list[tuple[int, int, int]] = []  # level, start, end

    def add(self, body: lxml.html.HtmlElement) -> None:
        """Walk a tree without recursion: pages nest deep."""
        opened: list[tuple[int, int]] = []
        walk = lxml.etree.iterwalk(body, events=("start", "end"))
        for event, element in walk:
            tag = element.tag if isinstance(element.tag, str) else ""
            if event == "start":
                if tag in _DROPPED or _is_hidden(element):
                    walk.skip_subtree()
                    continue
                self._open(tag)
                if tag[:1] == "h" and tag[1:].isdigit():
                    opened.append((int(tag[1:]), self._length + len(self._gap) if self._parts else 0))
                self._text(element.text)
            else:
                if tag not in _DROPPED and not _is_hidden(element):
                    if tag[:1] == "h" and tag[1:].isdigit() and opened:
                        level, start = opened.pop()
                        self._headings.append((level, start, self._length))
                    self._close(tag)
                if element is not body:
                    self._text(element.tail)

    def finish(self) -> tuple[str, tuple[Heading, ...]]:
        text = "".join(self._parts)
        found = ((level, text[start:end].strip(), start) for level, start, end in self._headings)
        return text, tuple(Heading(level=level, text=name, start=start) for level, name, start in found if name)

    def _open(self, tag: str) -> None:
        if tag == "br":
            self._separate("\n")
        elif tag in {"td", "th"} and not self._gap.endswith("\n") and self._parts:
            self._gap = " | "
        else:
            self._separate("\n\n" if tag in _PARAGRAPHS else "\n" if tag in _LINES else "")
        if tag == "li":
            self._append("- ")
        self._preformatted += tag == "pre"

    def _close(self, tag: str) -> None:
        self._preformatted -= tag == "pre"
        self._separate("\n\n" if tag in _PARAGRAPHS else "\n" if tag in _LINES else "")

    def _separate(self, gap: str) -> None:
        if len(gap) > len(self._gap.strip(" |")):
            self._gap = gap

    def _text(self, text: str | None) -> None:
        text = clean(text or "")  # character references may name anything
        if not text:
            return
        if self._preformatted:
            self._append(text)
            return
        words = _SPACE.sub(" ", text)
        if words[0] == " " and not self._gap:
            self._gap = " "
        if words := words.strip(" "):
            self._append(words)
            if _SPACE.match(text[-1]):
                self._gap = " "

    def _append(self, text: str) -> None:
        if self._gap and self._parts and not (self._gap == " " and self._parts[-1].endswith((" ", "\n"))):
            self._parts.append(self._gap)
            self._length += len(self._gap)
        self._gap = ""
        self._parts.append(text)
        self._length += len(text)


def _is_hidden(element: lxml.html.HtmlElement) -> bool:
    return (
        element.get("hidden") is not None
        or element.get("aria-hidden") == "true"
        or _HIDDEN.search(element.get("style") or "") is not None
    )
