"""The values that travel from a file to a citation: source, document, chunk, scored chunk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

PUBLIC = "public"
"""The access label of a source that names none: everyone may read it."""


def may_read(held: frozenset[str] | None, labels: Iterable[str]) -> bool:
    """Whether a caller who holds some access labels (None: everything may be read) may read what carries others."""
    return held is None or not held.isdisjoint(labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a document came from. Every field that a metadata filter can name is here."""

    uri: str
    """Its path as the ingestion saw it (POSIX, relative to the folder given) or a URI. Unique in an index."""
    title: str
    type: str
    """`pdf`, `md`, `txt`, `html` or `docx`."""
    sha256: str
    """Of the file's bytes, in hexadecimal; changes are detected by it."""
    size_bytes: int
    date: str | None = None
    """ISO 8601 date from front matter or the document's own metadata, never the file's clock."""
    tags: tuple[str, ...] = ()
    access: tuple[str, ...] = (PUBLIC,)
    """A caller must hold at least one of these labels to read it."""
    pages: int | None = None
    """Number of pages where the format has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """One indexed piece of a source. `document_text[start:end] == text`, always."""

    id: str
    """Stable over ingestions: derived from the source's uri, the offsets and the text."""
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
    """Other sources that hold the same text; set by retrieval, which shows duplicates once. Of a chunk that was joined with its
    neighbours, they hold the original text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredChunk:
    """A chunk and how well it answers, with the evidence that led there."""

    chunk: Chunk
    score: float
    """0..1, higher is better; its meaning depends on the stage that set it."""
    evidence: Mapping[str, float] = field(default_factory=dict)
    """Raw figures by name, for the trace: `dense`, `keyword`, `fused`, `maxsim`, and `<name>_rank` (from 1)."""
    suspicion: float | None = None
    """How much the chunk reads like an instruction to the assistant, 0..1, as the current guard judged it when it was ingested; None
    where that guard has not judged it."""
