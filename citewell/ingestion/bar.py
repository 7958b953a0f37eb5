"""The progress bar of an ingestion on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from citewell.ingestion.report import FileReport
from citewell.wording import count


class Bar:
    """Shown on standard error while the block runs."""

    def __init__(self) -> None:
        self._bar = Progress(
            SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[chunks]}"), TimeElapsedColumn(), console=Console(stderr=True), transient=True,
        )  # fmt: skip
        self._task: TaskID | None = None
        self._chunks = 0

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def started(self, total: int) -> None:
        self._task = self._bar.add_task("reading", total=total, chunks=count(0, "chunk"))

    def embedded(self, chunks: int, total: int) -> None:
        if self._task is not None:
            self._bar.update(self._task, chunks=count(self._chunks + chunks, "chunk"))

    def finished(self, file: FileReport) -> None:
        self._chunks += file.chunks
        if self._task is not None:
            name = file.uri if len(file.uri) <= 40 else f"...{file.uri[-37:]}"
            self._bar.update(self._task, advance=1, description=name, chunks=count(self._chunks, "chunk"))
