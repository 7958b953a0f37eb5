"""Single documents that are sent, rather than found in a folder: what a server calls."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import tempfile
import unicodedata
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from citewell.documents import Source
from citewell.errors import InvalidRequest, NotAuthorized, SourceNotFound, SourceUnreadable
from citewell.identity import LOCAL, Identity
from citewell.ingestion.access import AccessFiles, beside, check_labels, write_labels
from citewell.ingestion.files import name_roots, uri_of
from citewell.ingestion.load import TYPES
from citewell.ingestion.manifest import Manifest
from citewell.ingestion.report import FileReport
from citewell.ingestion.sync import WritableIndex, open_parser_for, report_of
from citewell.settings import Settings
from citewell.telemetry import metrics

_MOST_NAME_BYTES = 200
_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"|?*]|[\ud800-\udfff]')


class Upload:
    """A document that somebody sends: under which name, whose it is, who may read it.

    Args:
        name: File name with its extension; folders in it are dropped.
        owner: Who sends it. Callers have folders of their own, so nobody replaces or removes another's.
        access: Labels of who may read it. None: those it had before; for a new one its owner alone, or where nobody is
            asked who they are, whoever may read the folder.

    Raises:
        InvalidRequest: The name cannot be that of a file, or a label cannot be used.
        NotAuthorized: A label is not the owner's to give.
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
        """Raise NotAuthorized for labels that are not the owner's to give, InvalidRequest for others than those asked."""
        if not self.owner.holds(labels):
            raise NotAuthorized("A document can be given only access labels that its sender holds.")
        if self.access is not None and set(labels) != set(self.access):
            raise InvalidRequest("access: the document itself names other labels.")

    def folder(self, uploads: Path) -> Path:
        """Where it is kept."""
        return uploads if self.owner.caller == LOCAL else uploads / self.owner.folder

    def labels(self, path: Path) -> tuple[str, ...] | None:
        """Labels for a document that names none itself. Blocking."""
        if self.access is not None:
            return self.access
        if self.owner.caller == LOCAL or beside(path).exists():
            return AccessFiles().labels(path)
        return (self.owner.own_label,)


async def ingest_upload(
    index: WritableIndex,
    settings: Settings,
    upload: Upload,
    data: BinaryIO,
    *,
    embedded: Callable[[int, int], None] | None = None,
) -> FileReport:
    """Ingest one document that is sent, under `uploads/`; the same name of the same owner replaces it.

    The bytes are kept in the data directory, so that a rebuild reads them again. They are kept only if they can
    be read and stored.

    Args:
        index: Open.
        settings: Limits, chunking, data directory.
        upload: What it is called and whose it is.
        data: The whole file, open at its beginning. It is read and not closed.
        embedded: Told (chunks embedded, chunks in all) as it goes, as the index does.

    Raises:
        SourceUnsupported, SourceUnreadable: No text can be had from it; nothing was changed.
        NotAuthorized, InvalidRequest: It names access labels that its sender may not give, or did not ask for.
        IngestBusy: Another ingestion holds the index.
    """
    with metrics.ingestion():
        report = await _ingest(index, settings, upload, data, embedded)
    metrics.INGESTED.labels(report.status).inc()
    metrics.INGESTED_CHUNKS.inc(report.chunks)
    return report


async def _ingest(
    index: WritableIndex,
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
        async with open_parser_for(settings, processes=1) as parser:
            parsed = await parser.parse(temporary, uri, labels)
        upload.check(parsed.source.access)
        async with index.writing():
            await asyncio.to_thread(_register, settings.data_dir, uploads)
            is_new = all(source.uri != uri for source in await index.sources())
            # The file first: after a crash between the two, the next ingestion finds a changed file and catches up.
            # And its labels before it, so that it is never there without them.
            async with _or_as_before(path, beside(path), unless=lambda: _holds(index, parsed.source)):
                if labels is not None:
                    await asyncio.to_thread(write_labels, path, labels)
                await asyncio.to_thread(os.replace, temporary, path)
                await index.replace_sources([parsed.for_index()], progress=embedded)
            await index.judge([uri])
            return report_of(parsed, is_new=is_new)
    finally:
        await asyncio.to_thread(temporary.unlink, missing_ok=True)


async def remove_upload(index: WritableIndex, settings: Settings, upload: Upload) -> None:
    """Forget an uploaded document, its file included.

    Raises:
        SourceNotFound: Its owner uploaded nothing under this name.
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
    """The file name in what a client sent.

    Raises:
        InvalidRequest: Nothing usable is left of it, or its extension is not one that is read.
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
    """Write to a file of a fresh name. Whoever leaves meanwhile leaves none behind: a thread goes on writing."""
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
    handle, path = tempfile.mkstemp(dir=folder, prefix=".upload-")  # hidden: no ingestion ever sees it
    try:
        with os.fdopen(handle, "wb") as file:
            shutil.copyfileobj(data, file)
    except BaseException:  # a full disk must not stay full of what did not fit
        Path(path).unlink()
        raise
    return Path(path)


async def _holds(index: WritableIndex, source: Source) -> bool:
    return source in await index.sources()


@contextlib.asynccontextmanager
async def _or_as_before(*paths: Path, unless: Callable[[], Awaitable[bool]]) -> AsyncIterator[None]:
    """Files of one folder that are what they were, or again not there, when the block fails; or is left, unless it has done its
    work by then."""
    kept = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=paths[0].parent, prefix=".upload-"))
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
    """Make the uploads a folder like any other, for rebuilds."""
    manifest = Manifest.read(data_dir)
    ((root, _),) = name_roots([folder], manifest.roots)
    if root.name not in manifest.roots:
        manifest.roots[root.name] = root.path
        manifest.write()
