"""Word documents (.docx): paragraphs, lists and tables in reading order, headings by their styles."""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import lxml.etree

from citewell.errors import SourceUnreadable, SourceUnsupported
from citewell.ingestion.document import Document, Heading
from citewell.ingestion.encoding import clean, clean_line, raised
from citewell.ingestion.front_matter import read_metadata
from citewell.ingestion.loaders.pages import PAGE_NUMBER
from citewell.ingestion.loaders.signs import drawn

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_M = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_STRICT = (
    (
        b"http://purl.oclc.org/ooxml/wordprocessingml/main",
        b"http://schemas.openxmlformats.org/wordprocessingml/2006/main",
    ),
    (b"http://purl.oclc.org/ooxml/officeDocument/math", b"http://schemas.openxmlformats.org/officeDocument/2006/math"),
    (
        b"http://purl.oclc.org/ooxml/officeDocument/relationships",
        b"http://schemas.openxmlformats.org/officeDocument/2006/relationships",
    ),
)
"""Namespaces of a file saved as "Strict Open XML", and the usual ones that they stand for."""
_MC_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_PROPERTIES = {
    "title": "{http://purl.org/dc/elements/1.1/}title",
    "keywords": "{http://schemas.openxmlformats.org/package/2006/metadata/core-properties}keywords",
    "date": "{http://purl.org/dc/terms/}created",
}
_ID = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_SHORT_CHARS = 200
"""Longest cell, in characters, that is repeated in all rows that it spans; a longer one is running text."""
_MOST_COLUMNS = 63
"""The most columns that Word allows in a table."""
_SIGN_NUMBER = re.compile("[0-9A-Fa-f]{2,4}")
_UNSEEN = ("vanish", "strike", "dstrike")
"""What hides text or strikes it out, among the properties of a run."""
_HEADING_STYLE = re.compile(r"heading\s*([1-9])", re.I)
Unseen: TypeAlias = dict[str | None, frozenset[str]]
"""By a style's identifier, which of `_UNSEEN` it switches on; None: the style of paragraphs that name none."""


def load_docx(data: bytes, *, max_bytes: int) -> Document:
    """Extract the visible text, without what is struck out, tracked deletions and moved passages in their old place. Headers and
    footers come first, each once.

    Args:
        data: The file.
        max_bytes: Largest unpacked size of a part, in bytes; guards against zip bombs.

    Raises:
        SourceUnreadable: The archive or the XML in it is damaged.
        SourceUnsupported: A part unpacks to more than `max_bytes`, or all text is in embedded documents.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            body = _part(archive, r"word/document\d*\.xml", max_bytes)
            styles = _part(archive, r"word/styles\d*\.xml", max_bytes)
            core = _part(archive, r"docProps/core\d*\.xml", max_bytes)
            edges = [_part(archive, name, max_bytes) for name in _edges(archive, body, max_bytes)]
            notes = [_part(archive, rf"word/{name}notes\d*\.xml", max_bytes) for name in ("foot", "end")]
        levels, unseen = _styles(styles)
        blocks = [*_blocks(body, levels, unseen)]
        for part in notes:
            blocks += _blocks(part, {}, unseen)
        blocks = [*_running_heads(edges, unseen, {text for *_, text in blocks}), *blocks]
        matter = read_metadata(_properties(core))
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
        lxml.etree.LxmlError,
    ) as exc:
        raise SourceUnreadable("the Word document is damaged") from exc
    taken_in = len(body.findall(f".//{_W}altChunk")) if body is not None else 0
    if taken_in and not blocks:
        raise SourceUnsupported("its text is that of another document which Word takes in; open it in Word and save it")
    unread = (
        (f"it takes in other documents ({taken_in}), which are not read; open it in Word and save it",)
        if taken_in
        else ()
    )
    parts: list[str] = []
    headings: list[Heading] = []
    length = 0
    for gap, level, block in blocks:
        block = clean(block)
        if parts:
            parts.append(gap)
            length += len(gap)
        if level:
            headings.append(Heading(level=level, text=clean_line(block), start=length))
        parts.append(block)
        length += len(block)
    title = matter.title or next((heading.text for heading in headings if heading.level == 1), "")
    return Document(text="".join(parts), type="docx", title=title, headings=tuple(headings), date=matter.date,
                    tags=matter.tags, notes=matter.notes + unread)  # fmt: skip


def _part(archive: zipfile.ZipFile, name: str, max_bytes: int) -> lxml.etree._Element | None:
    """The part whose name matches the pattern; some programs number the parts."""
    pattern = re.compile(name)
    found = next((each for each in archive.namelist() if pattern.fullmatch(each)), None)
    if found is None:
        return None
    with archive.open(found) as file:  # the size in the directory may be wrong, so count the bytes read
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise SourceUnsupported(f"a part of the document unpacks to more than {max_bytes / 1e6:,.0f} MB")
    for strict, usual in _STRICT:
        content = content.replace(strict, usual)
    parser = lxml.etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=True)
    return lxml.etree.fromstring(content, parser)


def _edges(archive: zipfile.ZipFile, body: lxml.etree._Element | None, max_bytes: int) -> list[str]:
    """The names of the headers and footers that are shown, as patterns, headers first. A file also keeps those switched off."""
    links = _part(archive, r"word/_rels/document\d*\.xml\.rels", max_bytes)
    settings = _part(archive, r"word/settings\d*\.xml", max_bytes)
    if body is None or links is None:
        return []
    targets = {link.get("Id"): posixpath.join("word", link.get("Target", "")) for link in links.iter("{*}Relationship")}
    is_two_sided = settings is not None and _is_on(settings.find(f"{_W}evenAndOddHeaders"))
    names: dict[str, None] = {}
    for tag in (f"{_W}headerReference", f"{_W}footerReference"):
        for reference in body.iter(tag):
            section = reference.getparent()
            has_first = section is not None and _is_on(section.find(f"{_W}titlePg"))
            if {"first": has_first, "even": is_two_sided}.get(reference.get(f"{_W}type", ""), True):
                names[re.escape(targets.get(reference.get(_ID), "").lstrip("/"))] = None
    return [*names]


def _running_heads(
    edges: Sequence[lxml.etree._Element | None], unseen: Unseen, seen: set[str]
) -> Iterator[tuple[str, int, str]]:
    """The lines, each once, without page numbers and without lines that are in the document itself."""
    for edge in edges:
        for gap, level, text in _blocks(edge, {}, unseen):
            if text not in seen and not PAGE_NUMBER.fullmatch(text):
                seen.add(text)
                yield gap, level, text


def _styles(part: lxml.etree._Element | None) -> tuple[dict[str, int], Unseen]:
    """Style identifiers that mean a heading, with its level, or an item of a list, with 0, and those of which text is not seen, by
    themselves or by what they are based on. Identifiers are translated in localised Word, names are not."""
    levels: dict[str, int] = {}
    unseen: Unseen = {}
    every = part.iter(f"{_W}style") if part is not None else ()
    styles = {identity: style for style in every if (identity := style.get(f"{_W}styleId"))}
    for identity in styles:
        level = listed = None
        switches: dict[str, lxml.etree._Element | None] = dict.fromkeys(_UNSEEN)
        above: str | None = identity
        passed: set[str] = set()
        while above in styles and above not in passed:
            passed.add(above)
            style = styles[above]
            level = _level(style) if level is None else level
            switches = {
                name: style.find(f"{_W}rPr/{_W}{name}") if own is None else own for name, own in switches.items()
            }
            listed = style.find(f"{_W}pPr/{_W}numPr") if listed is None else listed
            above = _value(style.find(f"{_W}basedOn"))
        if level is not None or _is_item(listed):
            levels[identity] = level or 0
        unseen[identity] = frozenset(name for name, switch in switches.items() if _is_on(switch))
        if styles[identity].get(f"{_W}type") == "paragraph" and styles[identity].get(f"{_W}default") in {"1", "true"}:
            unseen[None] = unseen[identity]
    return levels, unseen


def _level(style: lxml.etree._Element) -> int | None:
    label = _value(style.find(f"{_W}name"))
    match = _HEADING_STYLE.fullmatch(label)
    return 1 if label.casefold() == "title" else int(match[1]) if match else _outline(style.find(f"{_W}pPr"))


def _value(element: lxml.etree._Element | None) -> str:
    return element.get(f"{_W}val", "") if element is not None else ""


def _is_on(switch: lxml.etree._Element | None) -> bool:
    return switch is not None and switch.get(f"{_W}val", "true") not in {"false", "0", "off"}


def _blocks(part: lxml.etree._Element | None, levels: dict[str, int], unseen: Unseen) -> Iterator[tuple[str, int, str]]:
    """Yield (separator before, heading level or 0, text) for each paragraph and table row that has text."""
    if part is None:
        return
    table: list[dict[int, str]] = []  # per row, the text of each cell by its first column
    column = 0
    cell: list[str] = []
    depth = 0  # of nested tables: an inner one is read as text of its cell
    for event, element in lxml.etree.iterwalk(part, events=("start", "end")):
        tag = element.tag
        if tag == f"{_W}tbl":
            depth += 1 if event == "start" else -1
            if not depth:
                yield from (("\n", 0, row) for row in _rows(table) if row.strip(" |"))
                table = []
        elif tag == f"{_W}tr" and depth == 1 and event == "start":
            table.append({})
            column = _number(element.find(f"{_W}trPr/{_W}gridBefore"))
        elif tag == f"{_W}tc" and depth == 1 and event == "end" and table:
            merge = element.find(f"{_W}tcPr/{_W}vMerge")
            if merge is not None and not cell and merge.get(f"{_W}val") != "restart":  # so that a row is read by itself
                above = table[-2].get(column, "") if len(table) > 1 else ""
                cell = [above] if len(above) <= _SHORT_CHARS else []
            table[-1][column] = " ".join(cell)
            column += max(1, _number(element.find(f"{_W}tcPr/{_W}gridSpan")))
            cell = []
        elif tag == f"{_W}p" and event == "end" and not _inside_fallback(element):
            text = _paragraph(element, unseen)
            if not text.strip():
                continue
            if depth:
                cell.append(" ".join(text.split()))
                continue
            level, is_item = _style(element, levels)
            yield ("\n" if is_item else "\n\n"), level, (f"- {text.strip()}" if is_item else text.strip())


def _rows(table: list[dict[int, str]]) -> Iterator[str]:
    """Rows with a place for each column, so that figures stay under their heading. Columns in which no row begins a cell count
    as one with those before."""
    columns = sorted({column for row in table if len(row) > 1 for column in row})
    for row in table:
        within = columns[: bisect_right(columns, max(row, default=-1))] if len(row) > 1 else row
        yield " | ".join(row.get(column, "") for column in within)


def _number(element: lxml.etree._Element | None) -> int:
    value = _value(element)
    return min(int(value[:4]), _MOST_COLUMNS) if value.isdecimal() else 0


def _paragraph(paragraph: lxml.etree._Element, unseen: Unseen) -> str:
    parts: list[str] = []
    # found once, since a paragraph may have 100,000 runs
    by_paragraph = unseen.get(_value(paragraph.find(f"{_W}pPr/{_W}pStyle")) or None, frozenset())
    for node in paragraph.iter(f"{_W}t", f"{_M}t", f"{_W}sym", f"{_W}tab", f"{_W}br", f"{_W}cr", f"{_W}noBreakHyphen"):
        owner = next(node.iterancestors(f"{_W}p"), None)
        if owner is not paragraph:
            continue  # in a text box, which is read as a paragraph of its own
        if _is_unseen(node, by_paragraph, unseen):
            continue
        if node.tag in {f"{_W}t", f"{_M}t", f"{_W}sym"}:
            text = _text(node)
            parts.append(raised(text) if _is_raised(node) else text)
        else:
            parts.append("-" if node.tag == f"{_W}noBreakHyphen" else "\t" if node.tag == f"{_W}tab" else "\n")
    return "".join(parts)


def _text(node: lxml.etree._Element) -> str:
    if node.tag == f"{_W}sym":
        number = node.get(f"{_W}char", "")
        return drawn(chr(int(number, 16)), node.get(f"{_W}font", "")) if _SIGN_NUMBER.fullmatch(number) else ""
    run = next(node.iterancestors(f"{_W}r"), None)
    fonts = run.find(f"{_W}rPr/{_W}rFonts") if run is not None else None
    return drawn(node.text or "", fonts.get(f"{_W}ascii", "") if fonts is not None else "")


def _is_unseen(node: lxml.etree._Element, by_paragraph: frozenset[str], unseen: Unseen) -> bool:
    """Whether text was moved away, deleted or struck out, or is formatted as hidden: by itself or else by a style, its paragraph's
    (`by_paragraph`) too."""
    if next(node.iterancestors(f"{_W}moveFrom", f"{_W}del"), None) is not None:
        return True
    run = next(node.iterancestors(f"{_W}r"), None)
    if run is None:
        return bool(by_paragraph)
    by_style = by_paragraph | unseen.get(_value(run.find(f"{_W}rPr/{_W}rStyle")), frozenset())
    return any(
        _is_on(own) if (own := run.find(f"{_W}rPr/{_W}{name}")) is not None else name in by_style for name in _UNSEEN
    )


def _is_raised(node: lxml.etree._Element) -> bool:
    if node.tag == f"{_M}t":
        return next(node.iterancestors(f"{_M}sup"), None) is not None
    run = next(node.iterancestors(f"{_W}r"), None)
    return run is not None and _value(run.find(f"{_W}rPr/{_W}vertAlign")) == "superscript"


def _style(paragraph: lxml.etree._Element, levels: dict[str, int]) -> tuple[int, bool]:
    properties = paragraph.find(f"{_W}pPr")
    if properties is None:
        return 0, False
    level = levels.get(_value(properties.find(f"{_W}pStyle")))
    listed = properties.find(f"{_W}numPr")
    is_item = _is_item(listed) if listed is not None else level == 0
    level = level or _outline(properties) or 0
    return level, is_item and not level


def _is_item(listed: lxml.etree._Element | None) -> bool:
    return listed is not None and _value(listed.find(f"{_W}numId")) != "0"


def _outline(properties: lxml.etree._Element | None) -> int | None:
    level = _value(properties.find(f"{_W}outlineLvl")) if properties is not None else ""
    return int(level) + 1 if level in {*"012345678"} else None


def _inside_fallback(element: lxml.etree._Element) -> bool:
    """Whether an element is in the second copy of a text box, which Word writes for older readers."""
    return next(element.iterancestors(_MC_FALLBACK), None) is not None


def _properties(core: lxml.etree._Element | None) -> dict[str, object]:
    if core is None:
        return {}
    values = {name: core.findtext(tag) for name, tag in _PROPERTIES.items()}
    if values["date"]:
        values["date"] = values["date"][:10]
    return {name: value for name, value in values.items() if value}
