"""Ingests single documents that are uploaded."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import tempfile
import time
import unicodedata
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from citewell.documents import Source
from citewell.errors import InvalidRequest, NotAuthorized, SourceNotFound, SourceUnreadable, StoreError
from citewell.identity import LOCAL, Identity
from citewell.ingestion.access import AccessFiles, beside, check_labels, write_labels
from citewell.ingestion.files import name_roots, uri_of
from citewell.ingestion.load import TYPES
from citewell.ingestion.manifest import Manifest
from citewell.ingestion.parser import open_parser
from citewell.ingestion.report import FileReport
from citewell.ingestion.sync import report_of
from citewell.retrieval import Index
from citewell.settings import Settings
from citewell.telemetry import metrics

_MOST_NAME_BYTES = 200
_DRAFT = ".upload-"
"""Begins the names of what is being uploaded; hidden, so that no ingestion ever sees it."""
_LEFT_OVER_S = 86_400
"""What is older than this nobody is uploading any more, in seconds."""
_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"|?*]|[\u202a-\u202e\u2066-\u2069]|[\ud800-\udfff]')
"""Control characters, those that turn the direction of what is shown beside the name included, and what some systems refuse."""


class Upload:
    """An uploaded document: its name, its owner and who may read it.

    Args:
        name: File name with its extension; folders in it are dropped.
        owner: Who uploads it. Callers have folders of their own, so nobody replaces or removes another's documents.
        access: Labels of those who may read it. None: the labels that it had before; a new document can be read by its owner alone or, where
            there are neither keys nor tokens, by those who may read the folder.

    Raises:
        InvalidRequest: The name cannot be a file's, or a label cannot be used.
        NotAuthorized: The owner does not hold a label.
    """

    def __init__(self, name: str, *, owner: Identity | None = None, access: Sequence[str] | None = None) -> None:
        self.name = safe_name(name)
        self.owner = owner or Identity()
        self.access: tuple[str, ...] | None = None
        if access is not None:
            try:
                self.access = check_labels(access)
            except SourceUnreadable as exc:
                raise InvalidRequest(exc.detail) from None
            self.check(self.access)

    def check(self, labels: Sequence[str]) -> None:
        """Raise NotAuthorized for labels that the owner does not hold, and InvalidRequest for labels other than `access`."""
        if not self.owner.holds(labels):
            raise NotAuthorized("A document can be given only access labels that its sender holds.")
        if self.access is not None and set(labels) != set(self.access):
            raise InvalidRequest("access: the document itself names other labels.")

    def folder(self, uploads: Path) -> Path:
        """The folder in which it is kept."""
        return uploads if self.owner.caller == LOCAL else uploads / self.owner.folder

    def labels(self, path: Path) -> tuple[str, ...] | None:
        """The labels for a document that names none itself. Blocking."""
        if self.access is not None:
            return self.access
        if self.owner.caller == LOCAL or beside(path).exists():
            return AccessFiles().labels(path)
        return (self.owner.own_label,)


async def ingest_upload(
    index: Index,
    settings: Settings,
    upload: Upload,
    data: BinaryIO,
    *,
    embedded: Callable[[int, int], None] | None = None,
) -> FileReport:
    """Ingest an uploaded document under `uploads/`, in the place of one with the same name and owner.

    Its bytes are kept in the data directory, for rebuilds, if the document can be read and stored.

    Args:
        index: The index, open.
        settings: Limits, chunking, data directory.
        upload: Its name, owner and labels.
        data: The file's content, open at its beginning; not closed here.
        embedded: Called with (chunks embedded, chunks in all).

    Raises:
        SourceUnsupported, SourceUnreadable: No text can be extracted; nothing was changed.
        NotAuthorized, InvalidRequest: The document names access labels that its owner does not hold, or others than `upload` does.
        IngestBusy: Another ingestion holds the index.
        StoreError: The data directory cannot be written, as on a full disk; nothing was changed.
    """
    with metrics.ingestion(), storing():
        report = await _ingest(index, settings, upload, data, embedded)
    metrics.INGESTED.labels(report.status).inc()
    metrics.INGESTED_CHUNKS.inc(report.chunks)
    return report


async def _ingest(
    index: Index,
    settings: Settings,
    upload: Upload,
    data: BinaryIO,
    embedded: Callable[[int, int], None] | None,
) -> FileReport:
    uploads = _folder(settings)
    path = upload.folder(uploads) / upload.name
    temporary = await _saved(path.parent, data)
    try:
        uri = await asyncio.to_thread(_uri, settings.data_dir, uploads, path)
        labels = await asyncio.to_thread(upload.labels, path)
        async with open_parser(settings, processes=1) as parser:
            parsed = await parser.parse(temporary, uri, labels)
        upload.check(parsed.source.access)
        async with index.writing():
            await asyncio.to_thread(_register, settings.data_dir, uploads)
            is_new = all(source.uri != uri for source in await index.sources())
            # The file comes before the index: after a crash in between, the next ingestion finds a changed file and catches up. Its
            # labels come before the file, so that it never exists without them.
            async with _or_as_before(path, beside(path), unless=lambda: _holds(index, parsed.source)):
                if labels is not None:
                    await asyncio.to_thread(write_labels, path, labels)
                await asyncio.to_thread(os.replace, temporary, path)
                await index.replace_sources([parsed.for_index()], progress=embedded)
            await index.judge([uri])
            return report_of(parsed, is_new=is_new)
    finally:
        await asyncio.to_thread(temporary.unlink, missing_ok=True)


def remove_left_over(settings: Settings) -> None:
    """Remove what uploads left behind whose process was killed: parts of documents, and what they replaced. Blocking."""
    until = time.time() - _LEFT_OVER_S
    for left in list(_folder(settings).rglob(f"{_DRAFT}*")):
        with contextlib.suppress(OSError):  # another worker was quicker, or it is none of ours
            if left.stat().st_mtime < until:
                shutil.rmtree(left) if left.is_dir() else left.unlink()


@contextlib.contextmanager
def storing() -> Iterator[None]:
    """Say what the system says where the data directory cannot be written. Raises StoreError."""
    try:
        yield
    except OSError as exc:
        if exc.errno is None:  # a deadline's, which is no fault of the disk
            raise
        raise StoreError(f"The data directory cannot be written: {os.strerror(exc.errno)}.") from exc


async def remove_upload(index: Index, settings: Settings, upload: Upload) -> None:
    """Remove an uploaded document from the index, and its file.

    Raises:
        SourceNotFound: The owner has uploaded nothing under this name.
        IngestBusy: Another ingestion holds the index.
    """
    uploads = _folder(settings)
    path = upload.folder(uploads) / upload.name
    async with index.writing():
        if not await asyncio.to_thread(path.is_file):
            raise SourceNotFound(f"nothing was uploaded as {upload.name}")
        await index.remove_source(await asyncio.to_thread(_uri, settings.data_dir, uploads, path))
        for gone in (path, beside(path)):
            await asyncio.to_thread(gone.unlink, missing_ok=True)


def safe_name(name: str) -> str:
    """The file name in the name that a client sent.

    Raises:
        InvalidRequest: It cannot be used, or its extension is not one of those that are read.
    """
    base = re.split(r"[/\\]", unicodedata.normalize("NFC", name))[-1].strip()
    if not base or base.startswith(".") or _UNSAFE.search(base):
        raise InvalidRequest(
            "the file's name cannot be used: it is empty, begins with a dot, or holds a sign like : ? * or |"
        )
    if (length := len(base.encode())) > _MOST_NAME_BYTES:
        raise InvalidRequest(f"the file's name has {length} bytes; at most {_MOST_NAME_BYTES} are accepted: shorten it")
    if Path(base).suffix.casefold() not in TYPES:
        raise InvalidRequest(f"files of this kind are not read; these are: {' '.join(sorted(TYPES))}")
    return base


async def _saved(folder: Path, data: BinaryIO) -> Path:
    """Write to a new file. If the caller is cancelled, the thread goes on writing, and the file is removed afterwards."""
    saving = asyncio.ensure_future(asyncio.to_thread(_save, folder, data))
    try:
        return await asyncio.shield(saving)
    except asyncio.CancelledError:
        saving.add_done_callback(_drop)
        raise


def _drop(saving: asyncio.Future[Path]) -> None:
    if not saving.cancelled() and saving.exception() is None:
        saving.result().unlink(missing_ok=True)


def _save(folder: Path, data: BinaryIO) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    handle, path = tempfile.mkstemp(dir=folder, prefix=_DRAFT)
    try:
        with os.fdopen(handle, "wb") as file:
            shutil.copyfileobj(data, file)
    except BaseException:  # a full disk must not stay full of what did not fit
        Path(path).unlink()
        raise
    return Path(path)


async def _holds(index: Index, source: Source) -> bool:
    return source in await index.sources()


@contextlib.asynccontextmanager
async def _or_as_before(*paths: Path, unless: Callable[[], Awaitable[bool]]) -> AsyncIterator[None]:
    """Restore files of one folder, or remove them again, if the block fails or is cancelled; if it is cancelled, not if `unless` says that it
    had done its work by then."""
    kept = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=paths[0].parent, prefix=_DRAFT))
    try:
        await asyncio.to_thread(_keep, paths, kept)
        try:
            yield
        except BaseException as exc:
            if not (isinstance(exc, asyncio.CancelledError) and await unless()):
                await asyncio.shield(asyncio.to_thread(_put_back, paths, kept))
            raise
    finally:
        await asyncio.to_thread(shutil.rmtree, kept, ignore_errors=True)


def _keep(paths: Sequence[Path], folder: Path) -> None:
    for path in paths:
        if path.exists():
            shutil.copy2(path, folder / path.name)  # with its time, by which it is known to be unchanged


def _put_back(paths: Sequence[Path], folder: Path) -> None:
    for path in paths:
        if (kept := folder / path.name).exists():
            os.replace(kept, path)
        else:
            path.unlink(missing_ok=True)


def _folder(settings: Settings) -> Path:
    return (settings.data_dir / "uploads").absolute()


def _uri(data_dir: Path, uploads: Path, path: Path) -> str:
    ((root, place),) = name_roots([uploads], Manifest.read(data_dir).roots)
    return uri_of(root, place / path.relative_to(uploads))


def _register(data_dir: Path, folder: Path) -> None:
    """Enter the folder of uploads in the manifest like any other, for rebuilds."""
    manifest = Manifest.read(data_dir)
    ((root, _),) = name_roots([folder], manifest.roots)
    if root.name not in manifest.roots:
        manifest.roots[root.name] = root.path
        manifest.write()
