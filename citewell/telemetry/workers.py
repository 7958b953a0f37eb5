"""Metrics over several worker processes: each keeps its figures in a shared folder, and any of them can add up all.

prometheus_client reads the variable below when it is imported, so the process that starts the workers sets it.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
PREFIX: Final = "citewell-metrics-"
SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108  # nothing predictable is written there


@contextmanager
def shared_metrics() -> Iterator[Path]:
    """A folder for the workers that are started in this block, which is removed at its end.

    The workers map their files into memory, and the system kills who writes into a mapped file for which a full disk has no room. So
    the folder lies in shared memory where there is such a thing, not among the temporary files.
    """
    where = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK | os.X_OK) else tempfile.gettempdir()
    _remove_what_was_left(Path(where))
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=where) as folder, _locked(folder, fcntl.LOCK_SH):
        os.environ[VARIABLE] = folder  # noqa: TID251  # for the workers, which inherit it
        try:
            yield Path(folder)
        finally:
            del os.environ[VARIABLE]  # noqa: TID251  # as above


def _remove_what_was_left(where: Path) -> None:
    """Remove the folders of processes that were killed: shared memory that nothing else gives back before the system restarts."""
    for folder in where.glob(f"{PREFIX}*"):
        with suppress(OSError), _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):  # in use, or another user's
            if any(folder.iterdir()):  # or a process has only just made it
                shutil.rmtree(folder)


@contextmanager
def _locked(folder: str | Path, how: int) -> Iterator[None]:
    """Lock a folder until the end of the block, or of the process."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(opened, how)
        yield
    finally:
        os.close(opened)


def exposition() -> bytes:
    """All metrics in Prometheus' text format. Blocking: it reads a few files per worker."""
    folder = os.environ.get(VARIABLE)  # noqa: TID251  # no setting of ours
    if not folder:
        return generate_latest()
    _forget_the_dead(Path(folder))
    registry = CollectorRegistry()
    MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def _forget_the_dead(folder: Path) -> None:
    """Drop the gauges of workers that have ended; their counters stay."""
    for file in folder.glob("gauge_live*_*.db"):
        try:
            os.kill(int(file.stem.rpartition("_")[2]), 0)
        except ProcessLookupError:
            file.unlink(missing_ok=True)  # another worker may do the same
