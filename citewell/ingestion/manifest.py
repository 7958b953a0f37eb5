"""What is remembered between ingestions: the roots, and each file's digest by size and time.

What is ingested is known by the index alone. If this file is lost, the next run hashes all files again, and folders of the same name may be
named differently; nothing is embedded again.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import orjson

from citewell.errors import ConfigurationError
from citewell.ingestion.files import FoundFile

_VERSION = 1
_RACY_NS = 2_000_000_000
"""Age below which a file's time is not trusted, in nanoseconds: the file may change again within the same tick of the clock."""


@dataclass(slots=True, kw_only=True)
class Manifest:
    """Read with `Manifest.read`, changed in memory, kept with `write`."""

    path: Path
    roots: dict[str, Path] = field(default_factory=dict)
    """Name to absolute path of every folder and file that was ever ingested. Those within the data directory, such as uploads, move with
    it."""
    digests: dict[str, tuple[int, int, str]] = field(default_factory=dict)
    """URI to (size in bytes, mtime in ns, sha256 in hexadecimal)."""
    access: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """URI to the access labels that were beside or above the file then; without an entry there were none."""
    refusals: dict[str, tuple[int, int, str, str]] = field(default_factory=dict)
    """URI to (size in bytes, mtime in ns, reason, error code) of files that cannot be ingested unless they change."""
    reader: str = ""
    """The version and limits that refused them."""
    on_disk: bytes = b""
    """The content of the file."""

    @classmethod
    def read(cls, data_dir: Path) -> Manifest:
        """Read the manifest, empty if there is none yet. Blocking: about a tenth of a second for 100,000 files.

        Raises:
            ConfigurationError: It cannot be read, or is of another version.
        """
        path = _place(data_dir)
        try:
            body = path.read_bytes()
            stored = orjson.loads(body)
        except FileNotFoundError:
            return cls(path=path)
        except (OSError, orjson.JSONDecodeError) as exc:
            raise ConfigurationError(f"{path} cannot be read; delete it to have every file looked at anew") from exc
        if not isinstance(stored, dict) or stored.get("version") != _VERSION:
            raise ConfigurationError(f"{path} is of another version; delete it to have every file looked at anew")
        return cls(
            path=path,
            roots={name: _real(data_dir) / root for name, root in stored["roots"].items()},
            digests={uri: (size, mtime, digest) for uri, (size, mtime, digest) in stored["digests"].items()},
            access={uri: tuple(labels) for uri, labels in stored.get("access", {}).items()},
            # without a code, as they once were: such a file is read again
            refusals={uri: tuple(refusal) for uri, refusal in stored["refusals"].items() if len(refusal) == 4},
            reader=stored.get("reader", ""),
            on_disk=body,
        )

    def write(self) -> None:
        """Replace the file atomically, unless nothing has changed. Blocking."""
        here = _real(self.path.parent)
        body = orjson.dumps(
            {
                "version": _VERSION,
                "roots": {
                    name: str(root.relative_to(here) if root.is_relative_to(here) else root)
                    for name, root in self.roots.items()
                },
                "digests": self.digests,
                "access": self.access,
                "refusals": self.refusals,
                "reader": self.reader,
            }
        )
        if body == self.on_disk:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=".ingestion-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        except BaseException:
            os.unlink(temporary)
            raise
        self.on_disk = body

    def digest_of(self, file: FoundFile) -> str | None:
        """The file's digest, if it had the same size, time and labels when that was taken; else None."""
        size, mtime, digest = self.digests.get(file.uri, (-1, -1, ""))
        is_same = (size, mtime, self.access.get(file.uri)) == (file.size_bytes, file.mtime_ns, file.access)
        return digest if is_same else None

    def read_by(self, reader: str) -> None:
        """Drop the refusals of another version or with other limits."""
        if reader != self.reader:
            self.refusals.clear()
            self.reader = reader

    def refusal_of(self, file: FoundFile) -> tuple[str, str] | None:
        """Why the file, unchanged since, was refused, and the error's code; None where it must be tried."""
        size, mtime, reason, code = self.refusals.get(file.uri, (-1, -1, "", ""))
        return (reason, code) if (size, mtime) == (file.size_bytes, file.mtime_ns) else None

    def remember_digest(
        self, uri: str, size_bytes: int, mtime_ns: int, sha256: str, access: tuple[str, ...] | None
    ) -> None:
        self.forget(uri)
        if access is not None:
            self.access[uri] = access
        if time.time_ns() - mtime_ns > _RACY_NS:
            self.digests[uri] = (size_bytes, mtime_ns, sha256)

    def remember_refusal(self, uri: str, size_bytes: int, mtime_ns: int, reason: str, code: str) -> None:
        self.forget(uri)
        if time.time_ns() - mtime_ns > _RACY_NS:
            self.refusals[uri] = (size_bytes, mtime_ns, reason, code)

    def uris(self) -> set[str]:
        """The files of which something is remembered."""
        return self.digests.keys() | self.refusals.keys()

    def forget(self, uri: str) -> None:
        self.digests.pop(uri, None)
        self.access.pop(uri, None)
        self.refusals.pop(uri, None)


def roots(data_dir: Path) -> Mapping[str, Path]:
    """`Manifest.roots` alone, for those who ask often: read once for each version of the file. Blocking.

    Raises:
        ConfigurationError: As `Manifest.read`.
    """
    try:
        now = _place(data_dir).stat()
    except FileNotFoundError:
        return {}
    return _roots(data_dir, now.st_ctime_ns, now.st_ino)


@lru_cache(1)
def _roots(data_dir: Path, *_version: int) -> Mapping[str, Path]:
    return Manifest.read(data_dir).roots


def _real(folder: Path) -> Path:
    return Path(os.path.realpath(folder))


def _place(data_dir: Path) -> Path:
    return data_dir / "ingestion.json"
