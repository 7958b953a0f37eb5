"""HTML: the visible text, block by block."""

from __future__ import annotations

import copy
import re
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import lxml.etree
import lxml.html

from citewell.errors import SourceUnreadable, SourceUnsupported
from citewell.ingestion.document import Document, Heading
from citewell.ingestion.encoding import clean, clean_line, decode, raised
from citewell.ingestion.front_matter import TWICE, read_metadata, split_front_matter

# Text that is not the page's own, is invisible or struck out. What is hidden from readers must not reach a model either.
_DROPPED = frozenset({
    "script", "style", "noscript", "template", "svg", "math", "canvas", "iframe", "object", "nav", "select", "datalist",
    "textarea", "label", "button", "head", "title", "s", "strike", "del",
})  # fmt: skip
_PARAGRAPHS = frozenset({
    "p", "div", "section", "article", "main", "aside", "header", "footer", "blockquote", "ul", "ol", "dl", "table",
    "pre", "figure", "figcaption", "details", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "address", "fieldset",
})  # fmt: skip
_LEVELS = {f"h{level}": level for level in range(1, 7)}
"""HTML has no deeper headings. As each passage repeats those above it, ever deeper ones of a hostile page would grow by their square."""
_SIGNS = frozenset("¶#§🔗")
"""Texts of links next to a heading or a term that lead to the heading or term itself."""
_LINES = frozenset({"li", "dt", "dd", "tr", "caption", "summary"})
_CELLS = frozenset({"td", "th"})
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)", re.I)
_COMMENT = re.compile(r"/\*.*?\*/", re.S)
_SPACE = re.compile(r"[ \t\n\f\r]+")
_SHORT_CHARS = 200
"""Longest cell, in characters, that counts as a value; a longer one may contain a whole page."""
_MOST_SPANNED = 1_000
"""Most rows or columns that a cell spans; browsers have this limit for columns."""
_MOST_ADDED = 100_000
"""Most cells that are added to a page because another spans them; beyond that, cells are read as written."""
_HEADING_CHARS = 2_000
"""Longest heading that is considered, in characters with white space: one that is never closed contains the rest of the page."""


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
        # Bytes, because lxml refuses a str that declares an encoding.
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
    title = clean_line(root.findtext("./head/title") or "")
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
    """The visible `<main>` elements that are not inside another."""
    return [
        main
        for main in root.iter("main")
        if not any(above.tag == "main" or _is_left_out(above) for above in main.iterancestors())
    ]


def _read(bodies: Sequence[lxml.html.HtmlElement]) -> tuple[str, tuple[Heading, ...]]:
    page = _Page()
    for body in bodies:
        _spread(body)
        page.add(body)
    return page.finish()


def _spread(body: lxml.html.HtmlElement) -> None:
    """Give each row of a table a cell in each column, so that figures stay under their headings. A cell that spans several rows,
    or heads several columns, is repeated in each, since rows are read one by one. A column in which no row begins a cell is
    merged with the one before."""
    room = _MOST_ADDED
    for table in dict.fromkeys(
        next(cell.iterancestors("table"), None) for cell in body.xpath(".//tr/*[@rowspan or @colspan]")
    ):
        if table is None:
            continue
        rows: list[tuple[lxml.html.HtmlElement, list[_Place]]] = []
        for group in (table, *table.iterchildren("thead", "tbody", "tfoot")):
            places: list[_Place] = []
            for row in group.iterchildren("tr"):
                places = _lay_out(row, places if room > 0 else [])
                room -= sum(place.is_from_above for place in places)
                rows.append((row, places))
        columns = sorted({place.column for _, places in rows if len(places) > 1 for place in places})
        for row, places in rows:
            others = [element for element in row if element.tag not in _CELLS]
            filled: list[lxml.html.HtmlElement] = []
            for place in places:
                filled.append(_again(place.cell) if place.is_from_above else place.cell)
                further = bisect_left(columns, place.column + place.columns) - bisect_left(columns, place.column) - 1
                if len(places) > 1 and 0 < further <= room:  # else it is a title for the rows below
                    room -= further
                    empty = row.makeelement("td")
                    filled += [_again(place.cell if place.cell.tag == "th" else empty) for _ in range(further)]
            row[:] = [*filled, *others]


def _lay_out(row: lxml.html.HtmlElement, above: list[_Place]) -> list[_Place]:
    """The places of the row's cells, including those that span it from above."""
    own = deque(cell for cell in row.iterchildren(*_CELLS) if not _is_left_out(cell))
    places: list[_Place] = []
    column = 0
    spanning = deque(place for place in above if place.rows > 1)
    while own or spanning:
        if spanning and (spanning[0].column <= column or not own):
            place = spanning.popleft()
            if place.column > column:  # the row has no cells there
                places.append(_Place(column, place.column - column, 1, row.makeelement("td")))
            place = replace(place, rows=place.rows - 1, is_from_above=True)
        else:
            cell = own.popleft()
            place = _Place(column, _span(cell, "colspan"), _span(cell, "rowspan"), cell)
        places.append(place)
        column = place.column + place.columns
    return places


@dataclass(frozen=True, slots=True)
class _Place:
    """A cell in one of the rows that it spans."""

    column: int
    columns: int
    rows: int
    """The number of rows from this one on that it spans."""
    cell: lxml.html.HtmlElement
    is_from_above: bool = False


def _span(cell: lxml.html.HtmlElement, over: str) -> int:
    number = cell.get(over, "").strip()[:4]
    return max(1, min(int(number), _MOST_SPANNED)) if number.isdecimal() else 1


def _again(cell: lxml.html.HtmlElement) -> lxml.html.HtmlElement:
    """A copy of the cell; an empty cell if it contains more than a value."""
    if cell.find(".//table") is not None or not _is_within(cell, _SHORT_CHARS):
        return cell.makeelement(cell.tag)
    again = copy.copy(cell)
    again.tail = None
    return again


class _Page:
    """Text under construction: collapses white space as a browser does and keeps blocks apart."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self._gap = ""  # white space before the next text
        self._rows: list[_Row] = []  # the open rows, outermost first, since tables may be nested
        self._cells: list[int] = []  # the number of parts before each open cell
        self._is_short = False  # whether the innermost cell is one line, whatever its elements
        self._is_fresh = False  # whether a cell or item has begun but is empty: a block at its start begins no new line
        self._preformatted = 0
        self._raised = 0
        self._headings: list[tuple[int, int, int]] = []  # level, start, end

    def add(self, body: lxml.html.HtmlElement) -> None:
        """Walk a tree without recursion, since pages may be deeply nested."""
        opened: list[tuple[int, int]] = []
        walk = lxml.etree.iterwalk(body, events=("start", "end"))
        for event, element in walk:
            tag = element.tag if isinstance(element.tag, str) else ""
            if event == "start":
                if _is_left_out(element):
                    walk.skip_subtree()
                    continue
                self._open(tag, element)
                if tag in _LEVELS:
                    opened.append((_LEVELS[tag], self._length + len(self._between())))
                self._text(element.text)
            else:
                if not _is_left_out(element):
                    if tag in _LEVELS and opened:
                        level, start = opened.pop()
                        self._headings.append((level, start, self._length))
                    self._close(tag)
                if element is not body:
                    self._text(element.tail)

    def finish(self) -> tuple[str, tuple[Heading, ...]]:
        text = "".join(self._parts)
        found = (
            (level, clean_line(text[start : min(end, start + _HEADING_CHARS)]), start)
            for level, start, end in self._headings
        )
        return text, tuple(Heading(level=level, text=name, start=start) for level, name, start in found if name)

    def _open(self, tag: str, element: lxml.html.HtmlElement) -> None:
        if tag in _CELLS:
            self._begin_cell(element)
        elif tag == "br":
            self._separate("\n")
        else:
            self._separate("\n\n" if tag in _PARAGRAPHS else "\n" if tag in _LINES else "")
        if tag == "tr":
            self._rows.append(_Row(len(self._parts)))
        elif tag == "li":
            self._append("- ")
            self._is_fresh = True
        self._preformatted += tag == "pre"
        self._raised += tag == "sup"

    def _close(self, tag: str) -> None:
        self._preformatted -= tag == "pre"
        self._raised -= tag == "sup"
        if tag in _CELLS:
            self._end_cell()
        elif tag == "tr":
            self._rows.pop()
        elif tag == "li":
            self._is_fresh = False
        self._separate("\n\n" if tag in _PARAGRAPHS else "\n" if tag in _LINES else "")

    def _begin_cell(self, cell: lxml.html.HtmlElement) -> None:
        if self._rows:
            self._rows[-1].bars += self._rows[-1].cells > 0
            self._rows[-1].cells += 1
        self._cells.append(len(self._parts))
        self._is_short = cell.find(".//table") is None and _is_within(cell, _SHORT_CHARS)
        self._is_fresh = True

    def _end_cell(self) -> None:
        """A cell of one line is followed by the next cell on that line, whatever its elements. Other cells are for page layout."""
        begun = self._cells.pop()
        self._is_short = self._is_fresh = False
        if len(self._parts) > begun and not any("\n" in part for part in self._parts[begun + 1 :]):
            self._gap = ""

    def _separate(self, gap: str) -> None:
        if self._is_fresh:
            return
        if self._is_short:
            gap = gap and " "
        if len(gap) > len(self._gap):
            self._gap = gap

    def _between(self) -> str:
        """The separator between the text before and the next."""
        gap = self._gap if self._parts else ""
        if self._rows and (bars := self._rows[-1].bars):
            is_first = len(self._parts) == self._rows[-1].begun
            if is_first or "\n" not in gap:  # empty cells count, or figures would slip under another heading
                return (gap if is_first else "") + " | " * bars
        return "" if gap == " " and self._parts[-1].endswith((" ", "\n")) else gap

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
        if between := self._between():
            self._parts.append(between)
            self._length += len(between)
        if self._rows:
            self._rows[-1].bars = 0
        self._gap = ""
        self._is_fresh = False
        text = raised(text) if self._raised else text
        self._parts.append(text)
        self._length += len(text)


@dataclass(slots=True)
class _Row:
    """A table row that is being read."""

    begun: int
    """The number of parts before it."""
    cells: int = 0
    bars: int = 0
    """The separators of cells that are due before the next text."""


def _is_within(element: lxml.html.HtmlElement, most: int) -> bool:
    """Whether the text of an element has at most this many characters."""
    length = 0
    for text in element.itertext():
        length += len(text)
        if length > most:
            return False
    return True


def _is_left_out(element: lxml.html.HtmlElement) -> bool:
    return (
        element.tag in _DROPPED
        or element.get("role") == "navigation"
        or "mw-editsection" in (element.get("class") or "")  # of every heading of a wiki
        or (element.tag in {"ol", "ul"} and "breadcrumb" in f"{element.get('id')} {element.get('class')}".lower())
        or (element.tag == "a" and element.get("href", "").startswith("#") and element.text_content().strip() in _SIGNS)
        or _is_hidden(element)
    )


def _is_hidden(element: lxml.html.HtmlElement) -> bool:
    return (
        element.get("hidden") is not None
        or element.get("aria-hidden") == "true"
        or (element.tag == "dialog" and element.get("open") is None)
        or _HIDDEN.search(_COMMENT.sub("", element.get("style") or "")) is not None
    )
