"""The report of an ingestion, file by file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Status = Literal["new", "changed", "unchanged", "removed", "failed", "skipped"]

STATUSES: tuple[Status, ...] = ("new", "changed", "unchanged", "removed", "failed", "skipped")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReport:
    """One file."""

    uri: str
    status: Status
    reason: str = ""
    """Why it failed or was skipped, in words for the owner of the file; otherwise notes on how it was read."""
    code: str = ""
    """The error's code where `status` is `failed`."""
    chunks: int = 0
    """Chunks written (or, in a dry run, that would be)."""
    pages: int | None = None


@dataclass(slots=True, kw_only=True)
class Report:
    """The report of a whole run."""

    files: list[FileReport] = field(default_factory=list)
    dry_run: bool = False
    elapsed_s: float = 0.0
    is_worn: bool = False
    """Whether so much of the index has changed that a rebuild is advised."""

    def count(self, status: Status) -> int:
        return self.counts()[status]

    def counts(self) -> dict[Status, int]:
        counted = Counter(file.status for file in self.files)
        return {status: counted[status] for status in STATUSES}

    @property
    def chunks(self) -> int:
        return sum(file.chunks for file in self.files)

    @property
    def exit_code(self) -> int:
        """1 when a file failed, else 0."""
        return 1 if self.count("failed") else 0

    def as_dict(self) -> dict[str, Any]:
        """For `--json`: the counts by status, then every file, as orjson writes data classes."""
        return {
            **{str(status): count for status, count in self.counts().items()},
            "chunks": self.chunks,
            "dry_run": self.dry_run,
            "elapsed_s": round(self.elapsed_s, 3),
            "exit_code": self.exit_code,
            "rebuild_advised": self.is_worn,
            "files": self.files,
        }


class Progress(Protocol):
    """Follows a run. `embedded` may be called from another thread; no method may block."""

    def started(self, total: int) -> None:
        """`total` files will be checked or read."""

    def embedded(self, chunks: int, total: int) -> None:
        """`chunks` of the `total` that are now being embedded are done."""

    def finished(self, file: FileReport) -> None:
        """One file is done."""
