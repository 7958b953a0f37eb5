"""Access labels for files that cannot name their own: in a small file beside them, or in their folder or one above."""

from __future__ import annotations

import errno
import os
import re
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path

from citewell.errors import SourceUnreadable

SUFFIX = ".access"
"""`report.pdf.access` has the labels of `report.pdf`; `.access` those of its folder and all below."""
MOST_LABELS = 64
"""Most labels of one document. A vector store keeps them, with the tags, beside each vector, and Pinecone takes 40 KB."""
_LABEL = re.compile(r"[\w.:@/-]{1,64}")


def check_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Check labels and drop repetitions.

    Raises:
        SourceUnreadable: There are none or too many, or one cannot be used.
    """
    if not labels or not all(_LABEL.fullmatch(label) for label in labels):
        raise SourceUnreadable("access must name one or more labels of letters, digits and _ . : @ / -")
    distinct = tuple(dict.fromkeys(labels))
    if len(distinct) > MOST_LABELS:
        raise SourceUnreadable(f"access names {len(distinct)} labels; at most {MOST_LABELS} can be kept")
    return distinct


class AccessFiles:
    """Reads access labels, each folder once. Blocking."""

    def __init__(self) -> None:
        self._folders: dict[Path, tuple[str, ...] | SourceUnreadable | None] = {}
        self._real: dict[Path, Path] = {}
        self._without: dict[Path, bool] = {}

    def labels(self, path: Path) -> tuple[str, ...] | None:
        """The labels for a file by the nearest access file, up to the root of the file system; None where there is none.

        Args:
            path: The file, absolute.

        Raises:
            SourceUnreadable: The nearest access file cannot be understood. To guess might publish what it was to protect.
        """
        folder = path.parent  # made once: making a path and looking it up costs more than all else here
        found = self._at(path, folder)
        if found is None and (real := self._resolve(path, folder)) is not path:
            return self._at(real, real.parent)  # a link does not escape the labels of its target
        return found

    def _resolve(self, path: Path, folder: Path) -> Path:
        """`os.path.realpath`; the same object if the path is real."""
        if path.is_symlink():
            return Path(os.path.realpath(path))
        real = self._real.get(folder)
        if real is None:
            real = self._real[folder] = Path(os.path.realpath(folder))
        return path if real == folder else real / path.name

    def _at(self, path: Path, folder: Path) -> tuple[str, ...] | None:
        own = None if self._has_none(folder) else _read(beside(path))
        return own if own is not None else self._of_folder(folder)

    def _has_none(self, folder: Path) -> bool:
        """Whether no file in a folder has labels of its own. Which file has them, only the file system can tell: it may treat names as equal
        that are spelled differently."""
        if folder not in self._without:
            try:
                self._without[folder] = not any(name.casefold().endswith(SUFFIX) for name in os.listdir(folder))
            except OSError:  # a folder that may be entered but not listed
                self._without[folder] = False
        return self._without[folder]

    def _of_folder(self, folder: Path) -> tuple[str, ...] | None:
        if folder not in self._folders:
            try:
                found = _read(folder / SUFFIX)
                if found is None and folder.parent != folder:
                    found = self._of_folder(folder.parent)
                self._folders[folder] = found
            except SourceUnreadable as exc:
                self._folders[folder] = exc
        known = self._folders[folder]
        if isinstance(known, SourceUnreadable):
            raise SourceUnreadable(known.detail)
        return known


def beside(path: Path) -> Path:
    """The access file of a file."""
    return path.with_name(path.name + SUFFIX)


def write_labels(path: Path, labels: Sequence[str]) -> None:
    """Write a file's access file, atomically. Blocking."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".labels-")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write("\n".join(labels) + "\n")
    os.replace(temporary, beside(path))


def read_regular(path: Path) -> str:
    """The text of a file among the documents; does not wait for a pipe to which nobody writes. Blocking.

    Raises:
        OSError: It cannot be read, or is not a regular file.
        UnicodeDecodeError: It is not UTF-8.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with open(handle, encoding="utf-8-sig") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return file.read()


def _read(path: Path) -> tuple[str, ...] | None:
    try:
        text = read_regular(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError):
        raise SourceUnreadable(f"who may read it cannot be known: {path.name} cannot be read") from None
    words = [word for line in text.splitlines() for word in line.partition("#")[0].replace(",", " ").split()]
    try:
        return check_labels(words)
    except SourceUnreadable as exc:
        raise SourceUnreadable(f"who may read it cannot be known: in {path.name}, {exc.detail}") from None
