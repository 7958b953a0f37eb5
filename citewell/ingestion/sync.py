"""Brings an index up to date with files: new and changed ones are ingested, those that are gone are removed, the rest is left alone."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence, Set
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from citewell import __version__
from citewell.documents import PUBLIC, Source
from citewell.errors import ConfigurationError, IndexMismatch, IngestError, SourceNotFound, SourceUnsupported
from citewell.ingestion.files import Found, FoundFile, Root, is_below, name_roots, sha256_of, uri_of, walk
from citewell.ingestion.load import TYPES
from citewell.ingestion.manifest import Manifest
from citewell.ingestion.parser import Parsed, Parser, open_parser
from citewell.ingestion.report import FileReport, Progress, Report
from citewell.retrieval import Index
from citewell.settings import Settings
from citewell.wording import count

_READ_AHEAD = 8
"""Files that are being parsed or wait for the index; few, as each may be large."""
_BATCH_CHUNKS = 256
"""Small files are handed to the index together until they have so many chunks: one embedding pass, one commit."""


async def ingest(
    index: Index,
    paths: Sequence[Path],
    settings: Settings,
    *,
    dry_run: bool = False,
    rebuild: bool = False,
    allow_empty: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Bring the index up to date with files and folders.

    A file is unchanged if its size and SHA-256 are (it is not read if size and time are those of the last run). What is gone below `paths`
    is removed. A file that cannot be read is reported, and the index keeps what it has of it until the file can be read or is gone; the same
    goes for a folder of `paths` that held documents and is now gone or empty. Each file becomes visible as a whole or not at all, so a
    killed run loses only the files that it was working on.

    Args:
        index: The index, open.
        paths: Files and folders. Empty: all that were ever ingested.
        settings: Chunk size and overlap, limits, data directory.
        dry_run: Read and report, but write nothing.
        rebuild: Build everything anew beside the current index and then replace it, for every folder that was ever ingested.
        allow_empty: Whether the documents of a folder that is now gone or empty are removed.
        progress: Told about each file.

    Raises:
        ConfigurationError: A path does not exist, or there is none, or a rebuild would lose sources because their folder was
            not named, cannot be read, or is gone or empty.
        IngestBusy: Another ingestion holds the index.
    """
    began = time.monotonic()
    run = _Run(settings=settings, progress=progress, dry_run=dry_run, allow_empty=allow_empty)
    if dry_run:
        await run.locate(paths, everything=rebuild)
        await run.sync(index, known={} if rebuild else await _known(index), replaced=index if rebuild else None)
    elif rebuild:
        async with index.rebuilding() as fresh:
            await run.locate(paths, everything=True)
            # `fresh` is not empty where an earlier rebuild was interrupted: that one is continued.
            await run.sync(fresh, known=await _known(fresh), replaced=index)
    else:
        async with index.writing():
            await run.locate(paths, everything=False)
            await run.sync(index, known=await _known(index))
            run.report.is_worn = await index.is_worn()
    run.report.elapsed_s = time.monotonic() - began
    return run.report


async def forget(index: Index, names: Sequence[str] | None, settings: Settings) -> Report:
    """Remove sources from the index, whether or not their files exist.

    Args:
        index: The index, open.
        names: Sources, and folders with all below them; None: everything.
        settings: The data directory.

    Raises:
        SourceNotFound: No source and no folder has such a name; nothing was removed.
        IngestBusy: Another ingestion holds the index.
    """
    report = Report()
    async with index.writing():
        manifest = await asyncio.to_thread(Manifest.read, settings.data_dir)
        known = await _known(index)
        if names is None:
            names = [*known, *manifest.roots]
        chosen: dict[str, None] = {}
        for name in (name.rstrip("/") for name in names):
            below = [uri for uri in sorted(known) if is_below(uri, name)]
            if not below and name not in manifest.roots:
                raise SourceNotFound(f"the index holds nothing named {name}")
            chosen.update(dict.fromkeys(below))
        for uri in chosen:
            await index.remove_source(uri)
            manifest.forget(uri)
            report.files.append(FileReport(uri=uri, status="removed"))
        for name in names:
            manifest.roots.pop(name.rstrip("/"), None)
        await asyncio.to_thread(manifest.write)
    return report


async def _known(index: Index) -> dict[str, Source]:
    return {source.uri: source for source in await index.sources()}


@dataclass(slots=True, kw_only=True)
class _Read:
    """A file that went through the parser."""

    file: FoundFile
    parsed: Parsed | None = None
    error: IngestError | None = None


class _Run:
    """One ingestion."""

    def __init__(self, *, settings: Settings, progress: Progress | None, dry_run: bool, allow_empty: bool) -> None:
        self.report = Report(dry_run=dry_run)
        self._settings = settings
        self._progress = progress
        self._dry_run = dry_run
        self._allow_empty = allow_empty
        self._manifest = Manifest(path=settings.data_dir)
        self._places: dict[str, tuple[Root, Path]] = {}
        """The places to ingest, by the beginning of the URIs below them."""
        self._batch: list[Parsed] = []
        self._handed: deque[asyncio.Task[None]] = deque()
        """Batches that the index is working on, at most two: one is embedded while the other is stored."""

    async def locate(self, paths: Sequence[Path], *, everything: bool) -> None:
        """Determine the places to ingest: `paths` and earlier places within them; if there are no `paths`, or with `everything`, all earlier
        places."""
        self._manifest = await asyncio.to_thread(Manifest.read, self._settings.data_dir)
        self._manifest.read_by(f"{__version__}, {self._settings.max_source_bytes} bytes")
        if everything:  # a rebuild tries every file again
            self._manifest.refusals.clear()
        earlier = self._manifest.roots
        named = await asyncio.to_thread(name_roots, paths, earlier)
        # They keep their names: if a file had two, its old state would remain under one of them.
        named += [
            (Root(name=name, path=path), path)
            for name, path in earlier.items()
            if any(place in path.parents for _, place in named)
        ]
        if everything or not named:
            named += [(Root(name=name, path=path), path) for name, path in earlier.items()]
        if not named:
            raise ConfigurationError("nothing to ingest: name at least one file or folder")
        self._places = {uri_of(root, path): (root, path) for root, path in named}

    async def sync(self, index: Index, known: dict[str, Source], *, replaced: Index | None = None) -> None:
        """Bring `index`, which holds `known`, up to date. `replaced` is the index that it will replace in a rebuild."""
        manifest = self._manifest
        if not self._dry_run:
            manifest.roots.update((root.name, root.path) for root, _ in self._places.values())
            await asyncio.to_thread(manifest.write)
        try:
            await self._sync(index, known, replaced)
        finally:
            if not self._dry_run:
                await asyncio.shield(asyncio.to_thread(manifest.write))

    async def _sync(self, index: Index, known: dict[str, Source], replaced: Index | None) -> None:
        found = await asyncio.to_thread(walk, [*self._places.values()])
        held = known.keys() if replaced is None else await self._held(replaced)
        if not self._allow_empty:
            found.unreadable.update(self._vanished(found, held))
        if replaced is not None:
            self._refuse_to_lose(found, held)
        present = {file.uri for file in found.files}
        gone = [
            uri for uri in sorted(known) if uri not in present and self._is_ours(uri) and found.covering(uri) is None
        ]
        if self._progress is not None:
            self._progress.started(len(found.files) + len(found.unreadable) + len(gone))
        for uri, reason in sorted(found.unreadable.items()):
            self._note(FileReport(uri=uri, status="failed", reason=reason, code="source_unreadable"))
        to_read = await self._triage(found, known)
        await self._read_and_write(index, to_read, known)
        for uri in [
            uri for uri in self._manifest.uris() if uri not in present and uri not in known and self._is_ours(uri)
        ]:
            self._manifest.forget(uri)
        for uri in gone:
            if not self._dry_run:
                await index.remove_source(uri)
                self._manifest.forget(uri)
            self._note(FileReport(uri=uri, status="removed"))
        for name in found.missing:
            if name not in found.unreadable:
                self._manifest.roots.pop(name, None)
        for file in self.report.files:
            is_of_type = Path(file.uri).suffix.casefold() in TYPES
            if file.code == SourceUnsupported.code and not is_of_type and file.uri not in known:
                self._manifest.roots.pop(file.uri, None)  # named by mistake: it would fail in every later run
        if not self._dry_run:
            await index.judge()  # what an earlier run left, and everything where the guard has changed
        for uri, reason in sorted(found.skipped.items()):
            if uri not in found.unreadable:
                self.report.files.append(FileReport(uri=uri, status="skipped", reason=reason))
        self.report.files.sort(key=lambda file: file.uri)

    def _is_ours(self, uri: str) -> bool:
        """Whether `uri` is below one of the places to ingest."""
        return any(is_below(uri, place) for place in self._places)

    async def _held(self, index: Index) -> Set[str]:
        """The URIs in an index that is to be replaced."""
        try:
            return (await _known(index)).keys()
        except IndexMismatch:  # a common reason for a rebuild; then it cannot be read
            return self._manifest.uris()

    def _vanished(self, found: Found, held: Set[str]) -> dict[str, str]:
        """Places that held documents and are gone or empty now, and dangling links through which documents were read, each with the reason
        why it fails: it is more likely that a volume is not mounted or a copy was interrupted than that somebody emptied the place."""
        vanished: dict[str, str] = {}
        left = [path for name, (_, path) in self._places.items() if _is_anything_left(found, name, path)]
        for name, (root, path) in self._places.items():
            if path in left:
                continue
            is_missing = root.name in found.missing
            is_within = any(other in path.parents for other in left)
            lost = sum(is_below(uri, name) for uri in held)
            if is_within and (not lost or name in held):
                continue  # of a folder that is there: one that held nothing, or a file
            if is_missing or lost:
                what = f"{path} is not there" if is_missing else f"of {count(lost, 'document')} none is left"
                vanished[name] = f"{what}; the index keeps what it has, unless --allow-empty says that this is meant"
        for link in found.dangling:
            if any(is_below(uri, link) for uri in held):
                vanished[link] = "a link to nothing; the index keeps what it has until the link is gone, too"
        return vanished

    def _refuse_to_lose(self, found: Found, held: Set[str]) -> None:
        """Refuse a rebuild that would drop sources only because their folder was not named or cannot be read."""
        for uri in sorted(held):
            if not self._is_ours(uri):
                raise ConfigurationError(
                    f"a rebuild would lose {uri}: name its folder as well, or drop it with --remove {uri}"
                )
            if uri not in found.unreadable and (place := found.covering(uri)) is not None:
                raise ConfigurationError(f"a rebuild would lose {uri}: in {place}, {found.unreadable[place]}")

    async def _triage(self, found: Found, known: dict[str, Source]) -> list[FoundFile]:
        """Report what needs no parsing; return the rest."""
        to_read: list[FoundFile] = []
        doubtful: list[FoundFile] = []
        for file in found.files:
            source = known.get(file.uri)
            digest = self._manifest.digest_of(file)
            if source is not None and digest == source.sha256:
                self._note(FileReport(uri=file.uri, status="unchanged"))
            elif (refusal := self._manifest.refusal_of(file)) is not None:
                reason, code = refusal
                self._note(FileReport(uri=file.uri, status="failed", reason=reason, code=code))
            elif source is not None and digest is None and source.size_bytes == file.size_bytes:
                doubtful.append(file)
            else:
                to_read.append(file)
        for file in doubtful:
            try:
                digest = await asyncio.to_thread(sha256_of, file.path)
            except OSError:
                to_read.append(file)  # the parser will report what is wrong with it
                continue
            # A document that names its own labels is read again if the manifest does not have it.
            if digest == known[file.uri].sha256 and known[file.uri].access == (file.access or (PUBLIC,)):
                self._manifest.remember_digest(file.uri, file.size_bytes, file.mtime_ns, digest, file.access)
                self._note(FileReport(uri=file.uri, status="unchanged"))
            else:
                to_read.append(file)
        return sorted(to_read, key=lambda file: file.uri)

    async def _read_and_write(self, index: Index, files: list[FoundFile], known: dict[str, Source]) -> None:
        """Parse in worker processes, a few files ahead of the index, so that both are busy."""
        if not files:
            return
        ahead: deque[asyncio.Task[_Read]] = deque()
        async with open_parser(self._settings) as parser:
            preparing = [] if self._dry_run else [asyncio.create_task(index.prepare())]  # while files are being read
            try:
                for file in files:
                    ahead.append(asyncio.create_task(_read(parser, file)))
                    if len(ahead) >= _READ_AHEAD:
                        await self._take(index, await ahead.popleft(), known)
                while ahead:
                    await self._take(index, await ahead.popleft(), known)
                await self._flush(index, known)
                await self._flush(index, known)  # the batch is empty now: wait for the last one
                await asyncio.gather(*preparing)
            finally:
                for task in (*preparing, *ahead, *self._handed):
                    task.cancel()
                await asyncio.gather(*preparing, *ahead, *self._handed, return_exceptions=True)

    async def _take(self, index: Index, result: _Read, known: dict[str, Source]) -> None:
        """Report a file that failed; add one that was read to the batch, and write the batch if it is full."""
        file, error = result.file, result.error
        if error is not None:
            if error.same_for is not None:
                self._manifest.remember_refusal(file.uri, *error.same_for, error.detail, error.code)
            self._note(FileReport(uri=file.uri, status="failed", reason=error.detail, code=error.code))
        if result.parsed is not None:
            self._batch.append(result.parsed)
        if sum(len(parsed.chunks) for parsed in self._batch) >= _BATCH_CHUNKS:
            await self._flush(index, known)

    async def _flush(self, index: Index, known: dict[str, Source]) -> None:
        """Hand the batch to the index, and wait until the one before it is stored."""
        batch, self._batch = self._batch, []
        if batch:
            self._handed.append(asyncio.create_task(self._write(index, batch, known)))
        while len(self._handed) > (1 if batch else 0):
            await self._handed.popleft()

    async def _write(self, index: Index, batch: list[Parsed], known: dict[str, Source]) -> None:
        if not self._dry_run:
            watch = self._progress.embedded if self._progress is not None else None
            await index.replace_sources([parsed.for_index() for parsed in batch], progress=watch)
            # Only now: chunks that are found before they are judged here are judged when they are found.
            await index.judge([parsed.source.uri for parsed in batch])
        for parsed in batch:
            source = parsed.source
            if not self._dry_run:
                self._manifest.remember_digest(
                    source.uri, source.size_bytes, parsed.mtime_ns, source.sha256, parsed.inherited
                )
            self._note(report_of(parsed, is_new=source.uri not in known))

    def _note(self, file: FileReport) -> None:
        self.report.files.append(file)
        if self._progress is not None:
            self._progress.finished(file)


async def _read(parser: Parser, file: FoundFile) -> _Read:
    try:
        return _Read(file=file, parsed=await parser.parse(file.path, file.uri, file.access))
    except IngestError as exc:
        return _Read(file=file, error=exc)


def report_of(parsed: Parsed, *, is_new: bool) -> FileReport:
    """The line of a file that was read."""
    return FileReport(
        uri=parsed.source.uri,
        status="new" if is_new else "changed",
        reason="; ".join(parsed.notes),
        chunks=len(parsed.chunks),
        pages=parsed.source.pages,
    )


def _is_anything_left(found: Found, name: str, path: Path) -> bool:
    """Whether a place holds any file, including those named after a place within it and those that cannot be read."""
    uris = chain((file.uri for file in found.files), found.unreadable)
    return any(is_below(uri, name) for uri in uris) or any(file.path.is_relative_to(path) for file in found.files)
