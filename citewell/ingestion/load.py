"""Loads the bytes of a file as a document. The type is told by the content; a file that cannot be read is refused with a reason."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import PurePath

from citewell.errors import SourceUnreadable, SourceUnsupported
from citewell.ingestion.document import Document

TYPES = {
    ".txt": "txt", ".text": "txt", ".log": "txt",
    ".md": "md", ".markdown": "md",
    ".html": "html", ".htm": "html", ".xhtml": "html",
    ".pdf": "pdf",
    ".docx": "docx",
}  # fmt: skip
"""Extensions that are ingested, and their types."""

_FOREIGN = (
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old or a password-protected Office document; save it as .docx without a password"),
    (b"\x89PNG", "an image; run text recognition (OCR) on it first"),
    (b"\xff\xd8\xff", "an image; run text recognition (OCR) on it first"),
    (b"GIF8", "an image; run text recognition (OCR) on it first"),
    (b"II*\0", "an image; run text recognition (OCR) on it first"),
    (b"{\\rtf", "a rich text (RTF) document; save it as .docx"),
    (b"\x1f\x8b", "a compressed file; unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a compressed file; unpack it first"),
    (b"\x7fELF", "a program"),
    (b"MZ\x90\0", "a program"),
    (b"SQLite format 3\0", "a database"),
)  # fmt: skip
_PACKED = (("xl/", "an Excel workbook"), ("ppt/", "a PowerPoint presentation"),
           ("META-INF/container.xml", "an e-book (EPUB)"), ("content.xml", "an OpenDocument file; save it as .docx"))  # fmt: skip


def load(data: bytes, name: str, *, max_bytes: int = 200_000_000) -> Document:
    """Extract text, structure and metadata. CPU-bound, and for PDF not crash-proof: see `parser.py`.

    Args:
        data: The whole file.
        name: Its file name, which decides on the type if the content does not, and is the title if it has none.
        max_bytes: Largest size of the file, of a part packed in it, and (in characters) of the extracted text.

    Raises:
        SourceUnsupported: These bytes can never be ingested; the message says why.
        SourceUnreadable: The file is damaged, or its metadata cannot be understood; another copy may be readable.
    """
    check_size(len(data), max_bytes)
    if not data.strip(b"\0\t\n\x0b\x0c\r "):
        raise SourceUnsupported("the file is empty" if not data else "the file holds nothing but white space")
    kind = sniff(data, name)
    # Each loader is imported at its first use: a folder of text never loads PDFium or lxml, an unchanged folder none at all.
    if kind == "pdf":
        from citewell.ingestion.loaders.pdf import load_pdf

        document = load_pdf(data)
    elif kind == "docx":
        from citewell.ingestion.loaders.docx import load_docx

        document = load_docx(data, max_bytes=max_bytes)
    elif kind == "html":
        from citewell.ingestion.loaders.html import load_html

        document = load_html(data)
    else:
        from citewell.ingestion.loaders.text import load_markdown, load_text

        document = load_markdown(data) if kind == "md" else load_text(data)
    if not document.text.strip():
        raise SourceUnsupported("the document holds no text")
    if len(document.text) > max_bytes:
        raise SourceUnsupported(f"the extracted text has more than {max_bytes / 1e6:,.1f} million characters")
    return document if document.title else replace(document, title=PurePath(name).stem or name)


def check_size(size_bytes: int, max_bytes: int) -> None:
    """Raise SourceUnsupported for a file that is too large."""
    if size_bytes > max_bytes:
        raise SourceUnsupported(f"the file has {size_bytes / 1e6:,.1f} MB; at most {max_bytes / 1e6:,.1f} MB are read")


def sniff(data: bytes, name: str) -> str:
    """The type of a file by its content or, if that does not tell, by its name.

    Raises:
        SourceUnsupported: The format is not supported, or the content is not of the type that the name says.
    """
    named = TYPES.get(PurePath(name).suffix.casefold())
    is_named_text = named not in {"pdf", "docx", None}
    # PDF readers accept the signature anywhere in the first KB, where a text may mention it.
    if data.lstrip().startswith(b"%PDF-") if is_named_text else b"%PDF-" in data[:1024]:
        return "pdf"
    if data.startswith(b"PK\x03\x04"):
        return _sniff_zip(data)
    for magic, what in _FOREIGN:
        if data.startswith(magic) and not (is_named_text and magic.isalnum() and _is_text(data[:1024])):
            raise SourceUnsupported(f"the content is {what}")
    if named in {"pdf", "docx"}:
        what = "text" if b"\0" not in data[:1024] and _is_text(data[:1024]) else "neither that nor text"
        article = "a PDF" if named == "pdf" else "a Word document"
        raise SourceUnsupported(f"the name says {article}, but the content is {what}")
    if named is None:
        raise SourceUnsupported(f"files named {PurePath(name).suffix or 'without an extension'} are not read")
    return named


def _is_text(head: bytes) -> bool:
    return sum(byte < 32 and byte not in b"\t\n\r\x0c" for byte in head) == 0


def _sniff_zip(data: bytes) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as exc:
        raise SourceUnreadable("the archive is damaged (a .docx is one)") from exc
    if any(name.startswith("word/document") for name in names):
        return "docx"
    for prefix, what in _PACKED:
        if any(entry.startswith(prefix) for entry in names):
            raise SourceUnsupported(f"the content is {what}")
    raise SourceUnsupported("the content is a ZIP archive; unpack it first")
