"""The documents: list them, search them, see a passage in its place, open the original."""

import asyncio
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Self

from fastapi import APIRouter, Query, Request, Response
from fastapi.openapi.models import Example
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr

from citewell.api.requests import SAMPLE, identity_of, run_context
from citewell.documents import ScoredChunk, Source, may_read
from citewell.errors import InvalidRequest, SourceNotFound
from citewell.ingestion.files import is_below, sha256_of
from citewell.ingestion.manifest import roots
from citewell.retrieval.index import Index
from citewell.service import Service
from citewell.settings import Settings

router = APIRouter(tags=["documents"])
LONGEST = 100_000
"""Most characters of a passage."""
AROUND = 250
"""Most characters shown on either side of a passage: so few that it is in sight where they begin, on a phone too."""
_LONGEST_WORD = 40
"""Characters that may be left out so that what is shown begins and ends with a whole word; some scripts have no spaces."""
_MEDIA_TYPES = {
    "pdf": "application/pdf",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
}
"""Other types are served as plain text: a document's markup must not run on our origin."""

_SAMPLE_URI: dict[str, Example] = {"a sample document": {"value": "examples/safety-rules.txt"}}


class SourceEntry(BaseModel):
    uri: str
    title: str
    type: str
    size_bytes: int
    date: str | None = None
    tags: list[str] = []
    pages: int | None = None


class SourceList(BaseModel):
    sources: list[SourceEntry] = Field(description="By uri.")


class PassageInPlace(BaseModel):
    """A passage of a source's extracted text: `before`, `quote` and `after` joined are a stretch of that text."""

    uri: str
    title: str
    type: str
    before: str
    quote: str
    after: str
    page: int | None = Field(None, description="Page on which the quote starts, from 1, where the format has pages.")
    goes_on: bool = Field(description="Whether the text goes on after it.")
    has_file: bool = Field(description="Whether /source/file has the original.")


class SearchRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"question": SAMPLE, "top_k": 3}]})
    question: StrictStr
    top_k: StrictInt | None = Field(None, ge=1, le=50, description="Passages to return.")
    filter: dict[str, Any] | None = Field(None, description="Metadata filter, see docs/filters.md.")


class SearchHit(BaseModel):
    chunk_id: str
    source: str
    title: str
    text: str
    page: int | None
    start: int
    end: int
    score: float
    evidence: dict[str, float] = Field(description="Raw figures of each stage, and ranks from 1.")
    also_in: list[str] = Field([], description="Other documents that hold the same passage.")

    @classmethod
    def of(cls, one: ScoredChunk) -> Self:
        chunk = one.chunk
        return cls(
            chunk_id=chunk.id, source=chunk.source, title=chunk.title, text=chunk.text, page=chunk.page,
            start=chunk.start, end=chunk.end, score=one.score, evidence=dict(one.evidence),
            also_in=list(chunk.also_in),
        )  # fmt: skip


class SearchResult(BaseModel):
    hits: list[SearchHit] = Field(description="Best first.")
    trace: dict[str, Any] = Field(description="What every stage said about every candidate, and how long it took.")
    blocked: str | None = Field(None, description="The rule that refused the question; null when none did.")


@router.get("/sources")
async def sources(request: Request) -> SourceList:
    """Every document that the caller may read."""
    found = [source for source in await _index(request).sources() if caller_may_read(request, source)]
    return SourceList(
        sources=[
            SourceEntry(
                uri=source.uri, title=source.title, type=source.type, size_bytes=source.size_bytes, date=source.date,
                tags=list(source.tags), pages=source.pages,
            )
            for source in found
        ]
    )  # fmt: skip


@router.post("/search")
async def search(request: Request, body: SearchRequest) -> SearchResult:
    """Find passages as a turn would, without an answer."""
    service: Service = request.app.state.service
    context = run_context(body.model_dump(), identity_of(request))
    found = await service.search(service.prepare(body.question, context=context, history=()))
    hits = [SearchHit.of(one) for one in found.chunks]
    return SearchResult(hits=hits, trace=found.trace, blocked=found.blocked)


@router.get("/source")
async def passage(
    request: Request, uri: Annotated[str, Query(openapi_examples=_SAMPLE_URI)], start: int = 0, end: int = 0
) -> PassageInPlace:
    """A passage of a source's extracted text with its surroundings, so that a reader can see a quote in its place."""
    found = await _readable(request, uri)
    index = _index(request)
    start = max(0, start)
    end = max(start, end)
    if end - start > LONGEST:
        raise InvalidRequest(f"A passage has at most {LONGEST:,} characters; /source/file gives the whole document.")
    # with one character more on either side, by which it is seen whether the text goes on there
    first = max(0, start - AROUND - 1)
    text = await index.text(uri, first, end + AROUND + 1)
    begin, stop = start - first, end - first
    low, high = _surroundings(text, begin, stop)
    return PassageInPlace(
        uri=uri,
        title=found.title,
        type=found.type,
        before=text[low:begin],
        quote=text[begin:stop],
        after=text[stop:high],
        page=await index.page_at(uri, start),
        goes_on=high < len(text),
        has_file=await asyncio.to_thread(_original, _settings(request), found) is not None,
    )


def _surroundings(text: str, start: int, end: int) -> tuple[int, int]:
    """Where to begin and to end around a passage."""
    low, high = max(0, start - AROUND), min(len(text), end + AROUND)
    if low and (begun := re.match(rf"\S{{0,{_LONGEST_WORD}}}\s+", text[low:start])):
        low += begun.end()
    if high < len(text) and (cut := re.search(rf"\s+\S{{0,{_LONGEST_WORD}}}\Z", text[end:high])):
        high = end + cut.start()
    return low, high


@router.get("/source/file", response_class=FileResponse, response_model=None)
async def file(request: Request, uri: Annotated[str, Query(openapi_examples=_SAMPLE_URI)]) -> Response:
    """The original file, as it was ingested. A browser opens a PDF at a page with `#page=N`."""
    found = await _readable(request, uri)
    path = await asyncio.to_thread(_original, _settings(request), found)
    if path is None or await asyncio.to_thread(_digest_now, path) != found.sha256:
        raise SourceNotFound("The original file is not where it was ingested from, or has changed since.")
    return FileResponse(
        path,
        filename=Path(uri).name,
        media_type=_MEDIA_TYPES.get(found.type, "text/plain; charset=utf-8"),
        content_disposition_type="attachment" if found.type == "docx" else "inline",
        headers={"x-content-type-options": "nosniff"},
    )


def _index(request: Request) -> Index:
    index: Index = request.app.state.service.index
    return index


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.service.settings
    return settings


async def _readable(request: Request, uri: str) -> Source:
    """A source that the caller may read. Raises SourceNotFound for any other, whether it exists or not."""
    found = await _index(request).source(uri)
    if not caller_may_read(request, found):
        raise SourceNotFound(f"No source is called {uri!r}.")
    return found


def caller_may_read(request: Request, source: Source) -> bool:
    return may_read(identity_of(request).readable, source.access)


def _original(settings: Settings, source: Source) -> Path | None:
    """Where the source's file is; None where it is gone, has another size, or is outside its folder. Blocking."""
    for name, root in roots(settings.data_dir).items():
        if is_below(source.uri, name):
            path = Path(os.path.realpath(root / source.uri[len(name) + 1 :]))
            inside = path == root or root in path.parents
            return path if inside and path.is_file() and path.stat().st_size == source.size_bytes else None
    return None


def _digest_now(path: Path) -> str:
    now = path.stat()
    return _digest(path, now.st_size, now.st_ctime_ns, now.st_ino)


@lru_cache(4096)
def _digest(path: Path, *_version: int) -> str:
    """Once for each version of a file: a viewer asks for a large one in many parts, and while it is read as often, what others
    ask for waits."""
    return sha256_of(path)
