"""Word documents (.docx): paragraphs, lists and tables in reading order, headings by their styles."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterator

import lxml.etree

from citewell.errors import SourceUnreadable, SourceUnsupported
from citewell.ingestion.document import Document, Heading
from citewell.ingestion.encoding import clean, clean_line, raised
from citewell.ingestion.front_matter import read_metadata

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_M = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_STRICT = (
    (
        b"http://purl.oclc.org/ooxml/wordprocessingml/main",
        b"http://schemas.openxmlformats.org/wordprocessingml/2006/main",
    ),
    (b"http://purl.oclc.org/ooxml/officeDocument/math", b"http://schemas.openxmlformats.org/officeDocument/2006/math"),
)
"""Names of the same elements in a file that was saved as "Strict Open XML"."""
_MC_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_PROPERTIES = {
    "title": "{http://purl.org/dc/elements/1.1/}title",
    "keywords": "{http://schemas.openxmlformats.org/package/2006/metadata/core-properties}keywords",
    "date": "{http://purl.org/dc/terms/}created",
}
_HEADING_STYLE = re.compile(r"heading\s*([1-9])", re.I)


def load_docx(data: bytes, *, max_bytes: int) -> Document:
    """Extract the text that is seen; of tracked changes, deleted and moved passages are left out where they stood.

    Args:
        data: The file.
        max_bytes: Most bytes any part may have once unpacked; guards against zip bombs.

    Raises:
        SourceUnreadable: The archive or the XML in it is damaged.
        SourceUnsupported: A part unpacks to more than `max_bytes`.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            body = _part(archive, "word/document", max_bytes)
            styles = _part(archive, "word/styles", max_bytes)
            core = _part(archive, "docProps/core", max_bytes)
            notes = [_part(archive, f"word/{name}notes", max_bytes) for name in ("foot", "end")]
        levels, hidden = _styles(styles)
        blocks = [*_blocks(body, levels, hidden)]
        for part in notes:
            blocks += _blocks(part, {}, hidden)
        matter = read_metadata(_properties(core))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, lxml.etree.LxmlError) as exc:
        raise SourceUnreadable("the Word document is damaged") from exc
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
                    tags=matter.tags, notes=matter.notes)  # fmt: skip


def _part(archive: zipfile.ZipFile, name: str, max_bytes: int) -> bytes:
    numbered = re.compile(rf"{name}\d*\.xml")  # as some programs do
    found = next((each for each in archive.namelist() if numbered.fullmatch(each)), None)
    if found is None:
        return b""
    with archive.open(found) as file:  # the size in the directory may lie: count what comes out
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise SourceUnsupported(f"a part of the document unpacks to more than {max_bytes / 1e6:,.0f} MB")
    for strict, usual in _STRICT:
        content = content.replace(strict, usual)
    return content


def _parse(xml: bytes) -> lxml.etree._Element:
    parser = lxml.etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=True)
    return lxml.etree.fromstring(xml, parser)


def _styles(xml: bytes) -> tuple[dict[str, int], frozenset[str]]:
    """Style identifiers that mean a heading, with its level, and those that hide text, by themselves or by what they are based
    on. Identifiers are translated in localised Word, names are not."""
    levels: dict[str, int] = {}
    hidden: set[str] = set()
    every = _parse(xml).iter(f"{_W}style") if xml else ()
    styles = {identity: style for style in every if (identity := style.get(f"{_W}styleId"))}
    for identity in styles:
        level = vanish = None
        above: str | None = identity
        passed: set[str] = set()
        while above in styles and above not in passed:
            passed.add(above)
            style = styles[above]
            level = _level(style) if level is None else level
            vanish = style.find(f"{_W}rPr/{_W}vanish") if vanish is None else vanish
            above = _value(style.find(f"{_W}basedOn"))
        if level is not None:
            levels[identity] = level
        if _is_on(vanish):
            hidden.add(identity)
    return levels, frozenset(hidden)


def _level(style: lxml.etree._Element) -> int | None:
    label = _value(style.find(f"{_W}name"))
    match = _HEADING_STYLE.fullmatch(label)
    return 1 if label.casefold() == "title" else int(match[1]) if match else None


def _value(element: lxml.etree._Element | None) -> str:
    return element.get(f"{_W}val", "") if element is not None else ""


def _is_on(switch: lxml.etree._Element | None) -> bool:
    return switch is not None and switch.get(f"{_W}val", "true") not in {"false", "0", "off"}


def _blocks(xml: bytes, levels: dict[str, int], hidden: frozenset[str]) -> Iterator[tuple[str, int, str]]:
    """Yield (separator before, heading level or 0, text) for each paragraph and table row that has text."""
    if not xml:
        return
    row: list[str] | None = None
    cell: list[str] = []
    depth = 0  # of tables: an inner one is read as text of the cell it stands in
    for event, element in lxml.etree.iterwalk(_parse(xml), events=("start", "end")):
        tag = element.tag
        if tag == f"{_W}tbl":
            depth += 1 if event == "start" else -1
        elif tag == f"{_W}tr" and depth == 1:
            if event == "start":
                row = []
            elif row:
                text = " | ".join(row)
                row = None
                if text.strip(" |"):
                    yield "\n", 0, text
        elif tag == f"{_W}tc" and depth == 1 and event == "end" and row is not None:
            row.append(" ".join(cell))
            cell = []
        elif tag == f"{_W}p" and event == "end" and not _inside_fallback(element):
            text = _paragraph(element, hidden)
            if not text.strip():
                continue
            if depth:
                cell.append(" ".join(text.split()))
                continue
            level, is_item = _style(element, levels)
            yield ("\n" if is_item else "\n\n"), level, (f"- {text.strip()}" if is_item else text.strip())


def _paragraph(paragraph: lxml.etree._Element, hidden: frozenset[str]) -> str:
    parts: list[str] = []
    # looked for once: a paragraph may have 100,000 runs
    is_hidden = _value(paragraph.find(f"{_W}pPr/{_W}pStyle")) in hidden
    for node in paragraph.iter(f"{_W}t", f"{_M}t", f"{_W}tab", f"{_W}br", f"{_W}cr", f"{_W}noBreakHyphen"):
        owner = next(node.iterancestors(f"{_W}p"), None)
        if owner is not paragraph:
            continue  # belongs to a text box inside, which comes as a paragraph of its own
        if _is_unseen(node, is_hidden, hidden):
            continue
        if node.tag in {f"{_W}t", f"{_M}t"}:
            parts.append(raised(node.text or "") if _is_raised(node) else node.text or "")
        else:
            parts.append("-" if node.tag == f"{_W}noBreakHyphen" else "\t" if node.tag == f"{_W}tab" else "\n")
    return "".join(parts)


def _is_unseen(node: lxml.etree._Element, is_hidden: bool, hidden: frozenset[str]) -> bool:
    """Whether text was moved away, or is formatted as hidden: by itself or else by a style, its paragraph's (`is_hidden`) too."""
    if next(node.iterancestors(f"{_W}moveFrom"), None) is not None:
        return True
    run = next(node.iterancestors(f"{_W}r"), None)
    if run is None:
        return is_hidden
    own = run.find(f"{_W}rPr/{_W}vanish")
    return _is_on(own) if own is not None else is_hidden or _value(run.find(f"{_W}rPr/{_W}rStyle")) in hidden


def _is_raised(node: lxml.etree._Element) -> bool:
    if node.tag == f"{_M}t":
        return next(node.iterancestors(f"{_M}sup"), None) is not None
    run = next(node.iterancestors(f"{_W}r"), None)
    return run is not None and _value(run.find(f"{_W}rPr/{_W}vertAlign")) == "superscript"


def _style(paragraph: lxml.etree._Element, levels: dict[str, int]) -> tuple[int, bool]:
    properties = paragraph.find(f"{_W}pPr")
    if properties is None:
        return 0, False
    style = properties.find(f"{_W}pStyle")
    level = levels.get(style.get(f"{_W}val", ""), 0) if style is not None else 0
    outline = properties.find(f"{_W}outlineLvl")
    if not level and outline is not None and outline.get(f"{_W}val", "9").isdigit():
        level = int(outline.get(f"{_W}val", "9")) + 1
    level = level if level <= 9 else 0
    return level, properties.find(f"{_W}numPr") is not None and not level


def _inside_fallback(element: lxml.etree._Element) -> bool:
    """Word writes text boxes twice: for itself, and once more for readers that are older."""
    return next(element.iterancestors(_MC_FALLBACK), None) is not None


def _properties(core: bytes) -> dict[str, object]:
    if not core:
        return {}
    root = _parse(core)
    values = {name: root.findtext(tag) for name, tag in _PROPERTIES.items()}
    if values["date"]:
        values["date"] = values["date"][:10]
    return {name: value for name, value in values.items() if value}
