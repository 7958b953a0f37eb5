"""Which files an ingestion is about, and under which name each goes."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from citewell.errors import ConfigurationError, SourceUnreadable
from citewell.ingestion import access
from citewell.ingestion.load import TYPES

IGNORE_FILE = ".citewellignore"
"""Names, in the folder it stands in, files and folders that are not to be ingested."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A folder or file someone asked to have ingested."""

    name: str
    """First part of the URIs below it: unique, and no prefix of another root's."""
    path: Path
    """Absolute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFile:
    """A regular file of a type that is read."""

    uri: str
    path: Path
    size_bytes: int
    mtime_ns: int
    access: tuple[str, ...] | None = None
    """Labels from beside or above it; None where nothing is said."""


@dataclass(slots=True, kw_only=True)
class Found:
    """What a walk over the roots came upon."""

    files: list[FoundFile] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    """URI to reason: hidden, of another type, no regular file, a link in a circle."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """URI of a folder or file that could not be looked at, to reason. What lies below it counts as present."""
    missing: list[str] = field(default_factory=list)
    """Names of roots that are not there."""
    dangling: list[str] = field(default_factory=list)
    """URIs of links to nothing. They are among the skipped, too."""

    def covering(self, uri: str) -> str | None:
        """Because of what nothing can be said about `uri`: itself, a folder above it, or that one's ignore file."""
        return next((place for place in self.unreadable if is_below(uri, place.removesuffix(f"/{IGNORE_FILE}"))), None)


def name_roots(paths: Sequence[Path], known: dict[str, Path]) -> list[tuple[Root, Path]]:
    """Give every path its place: the root it belongs to, and the path itself (the root's, or below it).

    A path inside a known root keeps that root's naming, so that `ingest.py docs/` and later
    `ingest.py docs/a.md` mean the same source. A new one is named as it is called; where that name is taken by
    another place that still exists, folders above are added until it is free.

    Args:
        paths: As given; relative ones are seen from the current directory.
        known: Roots of earlier runs, name to absolute path.

    Raises:
        ConfigurationError: A path does not exist, or cannot be written down.
    """
    roots = dict(known)
    named: list[tuple[Root, Path]] = []
    for given in paths:
        path = Path(os.path.realpath(given))
        if not path.exists():
            raise ConfigurationError(f"{_printable(str(given))} does not exist")
        if (printable := _printable(str(path))) != str(path):
            raise ConfigurationError(f"{printable} is not valid Unicode, or holds control characters; rename it")
        around = [name for name, root in roots.items() if path == root or root in path.parents]
        name = max(around, key=lambda name: len(roots[name].parts), default=None)
        if name is None:
            name = _free_name(path, roots)
            roots[name] = path
        named.append((Root(name=name, path=roots[name]), path))
    return named


def _free_name(path: Path, roots: dict[str, Path]) -> str:
    parts = [part for part in path.parts if part != path.anchor] or ["root"]
    for count in range(1, len(parts) + 1):
        name = "/".join(parts[-count:])
        rivals = [taken for taken in roots if taken == name or f"{taken}/".startswith(f"{name}/") or f"{name}/".startswith(f"{taken}/")]  # fmt: skip
        if rivals == [name] and not roots[name].exists():
            return name  # the folder was moved: its sources go on under the same name
        if not rivals:
            return name
    raise ConfigurationError(f"{path} overlaps with a folder ingested before; ingest that one instead")


def uri_of(root: Root, path: Path) -> str:
    """POSIX, relative to the folder that holds the root: `docs/setup/linux.md`, `README.md`."""
    return root.name if path == root.path else f"{root.name}/{path.relative_to(root.path).as_posix()}"


def is_below(uri: str, place: str) -> bool:
    """Whether a source is that place's, or is the place itself."""
    return uri == place or uri.startswith(f"{place}/")


def walk(places: Sequence[tuple[Root, Path]]) -> Found:
    """List what is there, sorted by URI. Blocking; follows links, but walks every folder once. Of places that lie within
    one another the innermost gives the names; one that is not there holds nothing."""
    found = Found()
    files: dict[Path, _Entry] = {}
    links: list[_Entry] = []  # to folders; after all real ones, so that a real path gives the name
    visited: set[tuple[int, int]] = set()
    inward = sorted(places, key=lambda place: len(place[1].parts))  # the last one is looked at first
    folders: list[_Entry] = []
    for root, path in inward:
        if path.exists():
            folders.append(_Entry(uri_of(root, path), path, asked=True))
        elif path == root.path:
            found.missing.append(root.name)
    while folders or links:
        entry = folders.pop() if folders else links.pop(0)
        if entry.asked and entry.path.is_file():
            files[entry.path] = entry
            continue
        for below in _list(found, entry, visited):
            if not below.is_folder:
                files.setdefault(below.path, below)
            elif below.is_link:
                links.append(below)
            else:
                folders.append(below)
    labels = access.AccessFiles()
    for entry in files.values():
        _add(found, entry, labels)
    found.files.sort(key=lambda file: file.uri)
    return found


@dataclass(frozen=True, slots=True)
class _Entry:
    uri: str
    path: Path
    asked: bool = False  # by name, by the user: never passed over in silence
    is_folder: bool = False
    is_link: bool = False


def _list(found: Found, folder: _Entry, visited: set[tuple[int, int]]) -> list[_Entry]:
    try:
        status = folder.path.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in visited:
            if folder.is_link:
                found.skipped[_printable(folder.uri)] = "a link to a folder that is read under its own name"
            return []
        visited.add(identity)
        with os.scandir(folder.path) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as exc:
        found.unreadable[_printable(folder.uri)] = f"the folder cannot be read ({os.strerror(exc.errno or 0)})"
        return []
    ignored = _ignored(found, folder) if any(entry.name == IGNORE_FILE for entry in entries) else []
    below = []
    for entry in entries:
        uri = f"{folder.uri}/{entry.name}"
        if entry.name == IGNORE_FILE or entry.name.endswith(access.SUFFIX):
            continue
        if entry.name.startswith("."):
            found.skipped[_printable(uri)] = "hidden"
        elif any(fnmatchcase(entry.name, pattern) for pattern in ignored):
            found.skipped[_printable(uri)] = f"named in {IGNORE_FILE}"
        else:
            below.append(_Entry(uri, folder.path / entry.name, is_folder=_is_folder(entry), is_link=entry.is_symlink()))
    return below


def _ignored(found: Found, folder: _Entry) -> list[str]:
    """Patterns of the folder's ignore file, one a line, for names in that folder; `#` starts a comment."""
    try:
        lines = access.read_regular(folder.path / IGNORE_FILE).splitlines()
    except (OSError, UnicodeDecodeError):
        found.unreadable[_printable(f"{folder.uri}/{IGNORE_FILE}")] = "the file cannot be read as UTF-8 text"
        return ["*"]  # which files were not meant to be ingested cannot be known
    return [line.strip().rstrip("/") for line in lines if line.strip() and not line.startswith("#")]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _add(found: Found, entry: _Entry, labels: access.AccessFiles) -> None:
    uri = entry.uri
    if (printable := _printable(uri)) != uri:
        found.unreadable[printable] = "the file's name is not valid Unicode, or holds control characters; rename it"
        return
    is_of_type = entry.asked or entry.path.suffix.casefold() in TYPES
    try:  # of links all: one to a folder that is not there now looks like a file of no type
        status = entry.path.stat() if is_of_type or entry.is_link else None
    except FileNotFoundError:
        found.skipped[uri] = "a link to nothing"
        found.dangling.append(uri)
        return
    except OSError as exc:
        found.unreadable[uri] = f"the file cannot be looked at ({os.strerror(exc.errno or 0)})"
        return
    if status is None or not is_of_type:
        found.skipped[uri] = f"not a type that is read ({entry.path.suffix or 'no extension'})"
        return
    if not stat.S_ISREG(status.st_mode):
        found.skipped[uri] = "not a regular file"  # opening a pipe would wait for ever
        return
    try:
        known = labels.labels(entry.path)
    except SourceUnreadable as exc:
        found.unreadable[uri] = exc.detail
        return
    found.files.append(
        FoundFile(
            uri=uri, path=entry.path, size_bytes=status.st_size, mtime_ns=status.st_mtime_ns, access=known
        )
    )  # fmt: skip


def _printable(uri: str) -> str:
    """What can be stored, and shown on a terminal and in a prompt without being more than a name."""
    return _CONTROL.sub("\ufffd", uri.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
