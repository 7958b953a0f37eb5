"""PDF, read by PDFium. Only called in the worker process, since a broken file may crash it or never end."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from functools import partial

import pypdf
import pypdfium2
import pypdfium2.raw as pdfium

from citewell.errors import SourceUnreadable, SourceUnsupported
from citewell.ingestion.document import Document, Heading
from citewell.ingestion.encoding import clean_line
from citewell.ingestion.front_matter import iso_date
from citewell.ingestion.loaders.pages import assemble

_LOCKED = "the PDF needs a password"
_DAMAGED = "the PDF is damaged and cannot be opened"
_STAMP_CHARS = 20
"""Most characters on a page filled by an image for it to count as a scan with a stamp ("Background", "Page 3")."""
_NO_CHARACTER = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufffd\ue000-\uf8ff]")
_MOST_GARBLED = 0.2
"""Share of glyph numbers in the text above which the fonts of a page have no usable mapping to characters."""
_WRITTEN = (pdfium.FPDF_ANNOT_WIDGET, pdfium.FPDF_ANNOT_FREETEXT)
_DATE = re.compile(r"D:(\d{4})(\d\d)?(\d\d)?")
_NO_TITLE = re.compile(r"[\d\W_]+|untitled|\(anonymous\)|unspecified|microsoft word - .*|.*\.(docx?|pdf|indd|tex|dvi|xlsx?|pptx?|qxp|rtf|pages)", re.I)  # fmt: skip
"""Values that programs write in place of a title: a registry number, a file name, a note that there is none."""


def load_pdf(data: bytes) -> Document:
    """Extract the text page by page; lines of a paragraph are joined, running heads and page numbers dropped.

    Headings come from the outline, the title and date from the document information.

    Raises:
        SourceUnsupported: It needs a password, or holds no text: images only, or nothing at all.
        SourceUnreadable: The file is damaged.
    """
    try:
        pdf = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as exc:
        if exc.err_code != pdfium.FPDF_ERR_PASSWORD:
            raise SourceUnreadable(_DAMAGED) from exc
        return _document(_read_with_pypdf(data), [], {}, unread=0)
    with pdf:
        pages: list[str] = []
        scanned = garbled = 0
        for number in range(len(pdf)):
            try:
                page = _with_fields(pdf, number)
            except pypdfium2.PdfiumError:
                pages.append("")  # one page is damaged: the rest stays readable, and the numbering right
                continue
            text = page.get_textpage().get_text_range()
            if len(text.strip()) <= _STAMP_CHARS and _is_image(page):
                text = ""
                scanned += 1
            elif len(_NO_CHARACTER.findall(text)) > _MOST_GARBLED * len(text):
                text = ""
                garbled += 1
            pages.append(text)
            page.close()
        outline = [
            (bookmark.level + 1, _told(bookmark.get_title), destination.get_index())
            for bookmark in pdf.get_toc(max_depth=6)
            if (destination := bookmark.get_dest()) is not None
        ]
        info = {key: _told(partial(pdf.get_metadata_value, key)) for key in ("Title", "CreationDate")}
        return _document(pages, outline, info, scanned + garbled)


def _told(tell: Callable[[], str]) -> str:
    """What the file says of itself; empty where that is no text, which must not cost its pages."""
    try:
        return tell()
    except UnicodeDecodeError:
        return ""


def _with_fields(pdf: pypdfium2.PdfDocument, number: int) -> pypdfium2.PdfPage:
    """A page with the values of form fields and free-text annotations as part of its text, after the rest."""
    page = pdf[number]
    written = False
    for at in range(pdfium.FPDFPage_GetAnnotCount(page)):
        annotation = pdfium.FPDFPage_GetAnnot(page, at)
        written = written or pdfium.FPDFAnnot_GetSubtype(annotation) in _WRITTEN
        pdfium.FPDFPage_CloseAnnot(annotation)
    if written and pdfium.FPDFPage_Flatten(page, pdfium.FLAT_NORMALDISPLAY) == pdfium.FLATTEN_SUCCESS:
        page.close()
        page = pdf[number]
    return page


def _is_image(page: pypdfium2.PdfPage) -> bool:
    """Whether one image covers at least half of the page."""
    width, height = page.get_size()
    for image in page.get_objects(filter=[pdfium.FPDF_PAGEOBJ_IMAGE], max_depth=3):
        left, bottom, right, top = image.get_bounds()
        if (right - left) * (top - bottom) >= 0.5 * width * height:
            return True
    return False


def _read_with_pypdf(data: bytes) -> list[str]:
    """The text of a file for which PDFium needs a password; pypdf also tries the empty owner password."""
    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        if not reader.decrypt(""):
            raise SourceUnsupported(_LOCKED)
        return [page.extract_text() for page in reader.pages]
    except SourceUnsupported:
        raise
    except Exception as exc:  # pypdf may raise anything for a broken file
        raise SourceUnsupported(_LOCKED) from exc


def _document(
    pages: list[str], outline: list[tuple[int, str, int | None]], info: dict[str, str], unread: int
) -> Document:
    text, page_starts = assemble(pages)
    if not text.strip():
        raise SourceUnsupported(
            "the PDF holds no text, only pictures of it; run text recognition (OCR) on it first"
            if unread
            else "the PDF holds no text"
        )
    empty = sum(not page.strip() for page in pages)
    note = f"{empty} of {len(pages)} pages hold no text{f'; {unread} need text recognition (OCR)' if unread else ''}"
    title = clean_line(info.get("Title", ""))
    return Document(
        text=text,
        type="pdf",
        title="" if _NO_TITLE.fullmatch(title) else title,
        headings=_headings(text, page_starts, outline),
        page_starts=page_starts,
        date=_date(info.get("CreationDate", "")),
        notes=(note,) if empty else (),
    )


def _date(created: str) -> str | None:
    """The date, as far as it is valid: programs write 00 for an unknown month or day, and worse."""
    found = _DATE.match(created)
    if found is None or not "1980" <= found[1] <= "2100":
        return None
    year, month, day = found.groups()
    return iso_date(f"{year}-{month}-{day}") or iso_date(f"{year}-{month}") or iso_date(year)


def _headings(
    text: str, page_starts: tuple[int, ...], outline: list[tuple[int, str, int | None]]
) -> tuple[Heading, ...]:
    """The headings of the outline, each where its title is on its page, else at the start of the page."""
    headings: list[Heading] = []
    for level, raw_title, page in outline:
        title = clean_line(raw_title)
        if not title or page is None or not 0 <= page < len(page_starts):
            continue
        start = page_starts[page]
        end = page_starts[page + 1] if page + 1 < len(page_starts) else len(text)
        words = r"\s+".join(re.escape(word) for word in title.split())
        found = re.compile(rf"(?:^|(?<=\s))(?:[\dIVX.]+\s+)?{words}", re.I).search(text, start, end)
        headings.append(Heading(level=level, text=title, start=found.start() if found else start))
    return tuple(sorted(headings, key=lambda heading: heading.start))
