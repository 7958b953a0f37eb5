"""Single documents that arrive as bytes rather than as files: what a server calls."""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
import unicodedata
from collections.abc import Callable
from pathlib import Path

from citewell.errors import InvalidRequest, SourceNotFound
from citewell.ingestion.files import name_roots, uri_of
from citewell.ingestion.load import TYPES
from citewell.ingestion.manifest import Manifest
from citewell.ingestion.report import FileReport
from citewell.ingestion.sync import WritableIndex, open_parser_for, report_of
from citewell.settings import Settings
from citewell.telemetry import metrics

_MOST_NAME_BYTES = 200
_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"|?*]|[\ud800-\udfff]')


async def ingest_upload(
    index: WritableIndex,
    settings: Settings,
    name: str,
    data: bytes,
    *,
    embedded: Callable[[int, int], None] | None = None,
) -> FileReport:
    """Ingest one document from memory, under `uploads/<name>`; the same name replaces it.

    The bytes are kept in the data directory, so that a rebuild reads them again. They are kept only if they can
    be read.

    Args:
        index: Open.
        settings: Limits, chunking, data directory.
        name: File name with its extension; folders in it are dropped.
        data: The whole file.
        embedded: Told (chunks embedded, chunks in all) as it goes, as the index does.

    Raises:
        InvalidRequest: The name cannot be that of a file.
        SourceUnsupported, SourceUnreadable: No text can be had from it; nothing was changed.
        IngestBusy: Another ingestion holds the index.
    """
    with metrics.ingestion():
        report = await _ingest(index, settings, safe_name(name), data, embedded)
    metrics.INGESTED.labels(report.status).inc()
    metrics.INGESTED_CHUNKS.inc(report.chunks)
    return report


async def _ingest(
    index: WritableIndex, settings: Settings, name: str, data: bytes, embedded: Callable[[int, int], None] | None
) -> FileReport:
    folder = (settings.data_dir / "uploads").absolute()
    temporary = await asyncio.to_thread(_save, folder, data)
    try:
        uri = await asyncio.to_thread(_uri, settings.data_dir, folder, name)
        async with open_parser_for(settings, processes=1) as parser:
            parsed = await parser.parse(temporary, uri)
        async with index.writing():
            await asyncio.to_thread(_register, settings.data_dir, folder)
            is_new = all(source.uri != uri for source in await index.sources())
            # The file first: after a crash between the two, the next ingestion finds a changed file and catches up.
            await asyncio.to_thread(os.replace, temporary, folder / name)
            await index.replace_sources([parsed.for_index()], progress=embedded)
            return report_of(parsed, is_new=is_new)
    finally:
        await asyncio.to_thread(temporary.unlink, missing_ok=True)


async def remove_upload(index: WritableIndex, settings: Settings, name: str) -> None:
    """Forget an uploaded document, its file included.

    Raises:
        SourceNotFound: Nothing was uploaded under this name.
        IngestBusy: Another ingestion holds the index.
    """
    folder = (settings.data_dir / "uploads").absolute()
    name = safe_name(name)
    async with index.writing():
        if not await asyncio.to_thread((folder / name).is_file):
            raise SourceNotFound(f"nothing was uploaded as {name}")
        await index.remove_source(await asyncio.to_thread(_uri, settings.data_dir, folder, name))
        await asyncio.to_thread((folder / name).unlink, missing_ok=True)


def safe_name(name: str) -> str:
    """The file name in what a client sent.

    Raises:
        InvalidRequest: Nothing usable is left of it, or its extension is not one that is read.
    """
    base = re.split(r"[/\\]", unicodedata.normalize("NFC", name))[-1].strip()
    if not base or base.startswith(".") or _UNSAFE.search(base) or len(base.encode()) > _MOST_NAME_BYTES:
        raise InvalidRequest("the file's name cannot be used; it needs 1 to 200 bytes, no leading dot, no control characters")  # fmt: skip
    if Path(base).suffix.casefold() not in TYPES:
        raise InvalidRequest(f"files of this kind are not read; these are: {' '.join(sorted(TYPES))}")
    return base


def _save(folder: Path, data: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    handle, path = tempfile.mkstemp(dir=folder, prefix=".upload-")  # hidden: no ingestion ever sees it
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    return Path(path)


def _uri(data_dir: Path, folder: Path, name: str) -> str:
    ((root, path),) = name_roots([folder], Manifest.read(data_dir).roots)
    return uri_of(root, path / name)


def _register(data_dir: Path, folder: Path) -> None:
    """Make the uploads a folder like any other, for rebuilds."""
    manifest = Manifest.read(data_dir)
    ((root, _),) = name_roots([folder], manifest.roots)
    if root.name not in manifest.roots:
        manifest.roots[root.name] = root.path
        manifest.write()
