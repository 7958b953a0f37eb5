"""Finds the files to ingest and names them."""

from __future__ import annotations

import hashlib
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
"""A file that lists the files and folders in its own folder that are not to be ingested."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A folder or file that somebody asked to ingest."""

    name: str
    """The beginning of the URIs below it: unique, and no prefix of another root's name."""
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
    """Access labels from files beside or above it; None where there are none."""


@dataclass(slots=True, kw_only=True)
class Found:
    """What a walk over the roots found."""

    files: list[FoundFile] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    """URI to reason: hidden, of another type, not a regular file, a circular link."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """URI of a folder or file that could not be read, to reason. What is below it counts as present."""
    missing: list[str] = field(default_factory=list)
    """Names of roots that do not exist."""
    dangling: list[str] = field(default_factory=list)
    """URIs of links to nothing; they are among `skipped` too."""

    def covering(self, uri: str) -> str | None:
        """The entry of `unreadable` because of which nothing is known about `uri`: itself, a folder above it, or that folder's ignore file."""
        return next((place for place in self.unreadable if is_below(uri, place.removesuffix(f"/{IGNORE_FILE}"))), None)


def name_roots(paths: Sequence[Path], known: dict[str, Path]) -> list[tuple[Root, Path]]:
    """Assign every path to a root. Returns (root, absolute path), where the path is the root's or below it.

    A path within a known root belongs to it, so that `ingest.py docs/` and a later `ingest.py docs/a.md` mean the same source. A new root
    has the name of its folder or file; if that is taken by another place that still exists, folders above are added until it is free.

    Args:
        paths: As given; relative ones are relative to the current directory.
        known: Roots of earlier runs, name to absolute path.

    Raises:
        ConfigurationError: A path does not exist, or its name cannot be stored.
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
            return name  # the folder was moved: its sources keep their names
        if not rivals:
            return name
    raise ConfigurationError(f"{path} overlaps with a folder ingested before; ingest that one instead")


def uri_of(root: Root, path: Path) -> str:
    """The path's URI: POSIX, relative to the folder that contains the root, as `docs/setup/linux.md` or `README.md`."""
    return root.name if path == root.path else f"{root.name}/{path.relative_to(root.path).as_posix()}"


def is_below(uri: str, place: str) -> bool:
    """Whether a source is below a place, or is the place itself."""
    return uri == place or uri.startswith(f"{place}/")


def sha256_of(path: Path) -> str:
    """The digest of a file, in hexadecimal. Blocking."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def walk(places: Sequence[tuple[Root, Path]]) -> Found:
    """List the files, sorted by URI. Blocking.

    Links are followed, but every folder is read once. Where one place is within another, the inner one names its files.
    """
    found = Found()
    files: dict[Path, _Entry] = {}
    links: list[_Entry] = []  # to folders; followed after all real folders, so that files are named by their real paths
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
    asked: bool = False  # named by the user, so never skipped silently
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
    """The patterns of the folder's ignore file, one per line, for names in that folder; `#` starts a comment."""
    try:
        lines = access.read_regular(folder.path / IGNORE_FILE).splitlines()
    except (OSError, UnicodeDecodeError):
        found.unreadable[_printable(f"{folder.uri}/{IGNORE_FILE}")] = "the file cannot be read as UTF-8 text"
        return ["*"]  # it is not known which files must not be ingested
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
    try:  # also for all links: one to a folder that does not exist now looks like a file without a type
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
    """The URI without characters that cannot be stored, or that are more than text on a terminal or in a prompt."""
    return _CONTROL.sub("\ufffd", uri.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
