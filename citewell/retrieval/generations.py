"""Generations: each is a whole index in a folder of its own; a one-line file names the current one.

index/<namespace>/current            the name of the generation that readers use, replaced atomically
index/<namespace>/building           the name of one that a rebuild is filling, if any
index/<namespace>/writer.lock        held (flock) by the one ingestion that may write
index/<namespace>/<name>/            catalog.sqlite, keywords/, vectors/, tokens.bin
index/<namespace>/<name>/in-use.lock held shared by every process that has the generation open
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from citewell.errors import IngestBusy


class Generations:
    """The folder of an index. Blocking; call it from a thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pointer = str(folder / "current")
        self._known: tuple[tuple[int, int], str | None] | None = None

    def current(self) -> str | None:
        """The generation that readers use; None before the first."""
        try:
            stat = os.stat(self._pointer)  # asked by every read of the index, where a Path costs as much again
        except FileNotFoundError:
            return None
        # The file is replaced, never changed: the same file has the same content.
        file, known = (stat.st_ino, stat.st_mtime_ns), self._known
        if known is None or known[0] != file:
            known = self._known = file, self._read("current")
        return known[1]

    def building(self) -> str | None:
        """The generation that a rebuild was filling when it ended or was killed."""
        return self._read("building")

    def begin(self) -> str:
        """Make the folder of a new generation; return its name."""
        name = f"g{int(time.time()):x}{secrets.token_hex(3)}"
        (self.folder / name).mkdir(parents=True)
        return name

    def set_building(self, name: str) -> None:
        self._write("building", name)

    def make_current(self, name: str) -> None:
        """Let readers use this generation from now on."""
        self._write("current", name)
        if self.building() == name:
            (self.folder / "building").unlink()

    def make_first(self, name: str) -> str:
        """Make this generation current unless there is a current one; return the one that is."""
        draft = self.folder / f"{name}.new"
        draft.write_text(name)
        try:
            os.link(draft, self.folder / "current")
        except FileExistsError:  # another process was quicker
            shutil.rmtree(self.folder / name)
        finally:
            draft.unlink()
        return self.current() or name

    def others(self) -> Iterator[Path]:
        """Folders of generations that are neither current nor being built and that no process has open."""
        kept = {self.current(), self.building()}
        for folder in sorted(self.folder.iterdir()):
            if folder.is_dir() and folder.name not in kept:
                with (folder / "in-use.lock").open("a") as lock:
                    if _locked(lock, fcntl.LOCK_EX):
                        yield folder

    def remove(self, folder: Path) -> None:
        shutil.rmtree(folder)

    def use(self, name: str) -> IO[str]:
        """Keep a generation from being removed until the returned file is closed.

        Raises:
            FileNotFoundError: It has been removed already.
        """
        lock = (self.folder / name / "in-use.lock").open("a")
        if not (_locked(lock, fcntl.LOCK_SH) and (self.folder / name / "in-use.lock").exists()):
            lock.close()
            raise FileNotFoundError(name)
        return lock

    def lock(self) -> IO[str]:
        """Take the writer's lock, until the returned file is closed or the process ends, however it ends.

        Raises:
            IngestBusy: Another process holds it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = (self.folder / "writer.lock").open("a+")
        if not _locked(lock, fcntl.LOCK_EX):
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise IngestBusy(
                f"Another ingestion (process {holder}) is writing this index. Wait until it has ended, or stop it; "
                "nothing it has finished is lost."
            )
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        return lock

    def size_bytes(self, name: str) -> int:
        """Disk space that a generation takes."""
        return sum(file.stat().st_size for file in (self.folder / name).rglob("*") if file.is_file())

    def _read(self, name: str) -> str | None:
        try:
            return (self.folder / name).read_text().strip() or None
        except FileNotFoundError:
            return None

    def _write(self, name: str, value: str) -> None:
        draft = self.folder / f"{name}.new"
        with draft.open("w") as file:
            file.write(value)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.folder / name)


def _locked(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
