"""What bringing documents in costs: `python -m benchmarks.ingestion [--files 1000] [--alone] [--data FOLDER] [--json]`.

Abstracts of `scifact` as text files, each command in a process of its own, start-up included, one after the other:

    tutorial's path        sentence-transformers on torch, `add` to Chroma, all texts at once (`benchmarks.tutorial`)
    ingest.py              as it comes: vectors, token vectors, keywords, every chunk scanned for planted instructions
    ingest.py, no guard    the same without the scan (CITEWELL_INJECTION_GUARD=off), which the tutorial's path has not either
    again                  nothing has changed
    one file changed       in one of the files there is a new sentence

`--alone` leaves out the tutorial's path and the run without the scan, which take most of the time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.load.services import ROOT, clean_environment
from evals.command import add_data
from evals.packs import read_jsonl

TUTORIAL = "import sys; from pathlib import Path; from benchmarks.tutorial import Passages; Passages(sys.argv[1]).ingest(Path(sys.argv[2]))"


@dataclass(frozen=True)
class Row:
    """One command."""

    command: str
    chunks: int
    """That it made."""
    wall_s: float
    cpu_s: float
    """Of the process and its children."""


def write_files(folder: Path, data: Path, count: int) -> None:
    """Texts of real documents, one file each."""
    folder.mkdir()
    for number, row in zip(range(count), read_jsonl(data / "scifact" / "corpus.jsonl"), strict=False):
        (folder / f"{number:05}.txt").write_text(f"{row['title']}\n\n{row['text']}\n", encoding="utf-8")


def timed(command: Sequence[str], environment: Mapping[str, str]) -> tuple[str, float, float]:
    """What a command prints, its seconds and its CPU seconds."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=clean_environment(environment), check=True, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return done.stdout, wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(files: int, data: Path, progress: Progress, *, alone: bool) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        documents, rows = Path(folder, "documents"), []
        write_files(documents, data, files)

        def ingest(name: str, place: str, **environment: str) -> None:
            task = progress.add_task(name)
            environment["CITEWELL_DATA_DIR"] = str(Path(folder, place))
            said, wall, cpu = timed(["ingest.py", "--json", str(documents)], environment)
            rows.append(Row(name, json.loads(said)["chunks"], wall, cpu))
            progress.remove_task(task)

        ingest("ingest.py", "whole")
        if not alone:
            ingest("ingest.py, no guard", "bare", CITEWELL_INJECTION_GUARD="off")
        ingest("again", "whole")
        with (documents / "00000.txt").open("a", encoding="utf-8") as file:
            file.write("\nThis sentence is new.\n")
        ingest("one file changed", "whole")
        if alone:
            return rows
        task = progress.add_task("tutorial's path")
        _, wall, cpu = timed(["-c", TUTORIAL, str(Path(folder, "tutorial")), str(documents)], {})
        progress.remove_task(task)
        return [Row("tutorial's path", rows[0].chunks, wall, cpu), *rows]


def show(rows: Sequence[Row], files: int) -> None:
    first = next(row for row in rows if row.command == "ingest.py")
    tutorial = rows[0] if rows[0] is not first else None
    table = Table(
        title=f"{files:,} files, {first.chunks:,} chunks of at most 500 characters, {len(os.sched_getaffinity(0))} cores"
    )
    for name in ("command", "s", "CPU s", "chunks/s", "× tutorial", "first run ×"):
        table.add_column(name, justify="left" if name == "command" else "right")
    for row in rows:
        is_first = row.chunks == first.chunks
        table.add_row(
            row.command, f"{row.wall_s:.2f}", f"{row.cpu_s:.2f}", f"{row.chunks / row.wall_s:.0f}" if is_first else "",
            f"{tutorial.wall_s / row.wall_s:.2f}" if tutorial and is_first else "", "" if is_first else f"{first.wall_s / row.wall_s:.0f}",
        )  # fmt: skip
    Console(width=110).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--alone", action="store_true", help="only what is ours, with the scan")
    add_data(parser)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        rows = measure(arguments.files, arguments.data, progress, alone=arguments.alone)
    if arguments.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        show(rows, arguments.files)


if __name__ == "__main__":
    main()
