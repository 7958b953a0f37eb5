"""The values that travel from a file to a citation: source, document, chunk, scored chunk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

PUBLIC = "public"
"""The access label of a source that names none: everyone may read it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a document came from. Everything a metadata filter can name stands here."""

    uri: str
    """Path as the ingestion saw it (POSIX, relative to the folder given) or a URI. Unique in an index."""
    title: str
    type: str
    """`pdf`, `md`, `txt`, `html` or `docx`."""
    sha256: str
    """Of the file's bytes, hexadecimal; what change detection compares."""
    size_bytes: int
    date: str | None = None
    """ISO 8601 date from front matter or the document's own metadata, never the file's clock."""
    tags: tuple[str, ...] = ()
    access: tuple[str, ...] = (PUBLIC,)
    """Labels of which a caller must hold at least one to be shown any of it."""
    pages: int | None = None
    """Number of pages where the format has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """One indexed piece of a source. `document_text[start:end] == text`, always."""

    id: str
    """Stable over runs: derived from the source's uri, the offsets and the text."""
    source: str
    """`Source.uri`."""
    title: str
    text: str
    start: int
    """Character offset (Python code points) in the source's extracted text."""
    end: int
    index: int
    """Position among the source's chunks, from 0."""
    page: int | None = None
    """1-based page on which the chunk starts, where the format has pages."""
    headings: tuple[str, ...] = ()
    """The headings above the chunk, outermost first."""
    type: str = "txt"
    date: str | None = None
    tags: tuple[str, ...] = ()
    access: tuple[str, ...] = (PUBLIC,)
    also_in: tuple[str, ...] = ()
    """Other sources that hold the same text; set by retrieval when it shows duplicates once. Of a chunk grown by its
    neighbours, they hold what it was before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredChunk:
    """A chunk and how well it answers, with the evidence that led there."""

    chunk: Chunk
    score: float
    """0..1, higher is better; what that means is the stage's that set it."""
    evidence: Mapping[str, float] = field(default_factory=dict)
    """Raw figures by name, for the trace: `dense`, `keyword`, `fused`, `maxsim`, and `<name>_rank` (from 1)."""
    suspicion: float | None = None
    """0..1, how much of an instruction to the assistant the guard, as it is now, saw in the chunk when it was ingested;
    None where it has not judged it."""
