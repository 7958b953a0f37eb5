"""Real and broken files, and what becomes of each: `python -m evals.ingest_files [FOLDER] [--index] [--json]`.

FOLDER holds `manifest.jsonl` and `files/`; each line names a `file`, what to `expect` and the strings its text
`must_contain`. Without --index every file is parsed in the worker processes, as an ingestion does; with it every file
of at most 100 kB is also ingested into a fresh index, which is then compared with the files.

Strings are compared after Unicode compatibility folding (NFKC): PDFium spells ligatures out, as search needs it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from citewell.errors import IngestError
from citewell.ingestion.parser import Parsed, open_parser
from citewell.ingestion.sync import ingest
from citewell.models import open_embedder
from citewell.retrieval import open_index
from citewell.settings import Settings
from evals.command import existing
from evals.packs import DATA, read_jsonl

_INDEXED_BYTES = 100_000
_REFUSAL_EXPECTED = {"error", "needs_password", "no_text"}
_EITHER = {"text_or_error", "no_text_or_error", "empty_or_error", "error_or_detect", "error_or_skip"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    file: str
    expect: str
    characters: int
    chunks: int
    reason: str
    """Why it was refused, or notes on how it was read."""
    missing: tuple[str, ...]
    """Strings that its text must contain and does not."""
    as_expected: bool
    seconds: float


async def parse_all(folder: Path) -> list[Outcome]:
    """Parse every file of the manifest and judge it."""
    outcomes = []
    async with open_parser(Settings(data_dir=Path("unused"))) as parser:
        for row in read_jsonl(folder / "manifest.jsonl"):
            began = time.monotonic()
            try:
                parsed: Parsed | None = await parser.parse(folder / "files" / row["file"], row["file"])
                reason = "; ".join(parsed.notes) if parsed else ""
            except IngestError as exc:
                parsed, reason = None, exc.detail
            outcomes.append(_judge(row, parsed, reason, time.monotonic() - began))
    return outcomes


def _judge(row: dict[str, Any], parsed: Parsed | None, reason: str, seconds: float) -> Outcome:
    expect, text = row["expect"], _fold(parsed.text) if parsed else ""
    missing = tuple(wanted for wanted in row.get("must_contain", ()) if _fold(wanted) not in text)
    if parsed is None:
        as_expected = expect in _REFUSAL_EXPECTED | _EITHER and bool(reason)
    else:
        as_expected = expect in {"text"} | _EITHER and not missing and bool(text.strip())
        exact = all(parsed.text[chunk.start : chunk.end] == chunk.text for chunk in parsed.chunks)
        as_expected = as_expected and exact and bool(parsed.chunks)
    return Outcome(
        file=row["file"], expect=expect, characters=len(parsed.text) if parsed else 0, reason=reason,
        chunks=len(parsed.chunks) if parsed else 0, missing=missing if parsed else (), as_expected=as_expected, seconds=seconds,
    )  # fmt: skip


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


async def index_small(folder: Path) -> list[str]:
    """Ingest the small files into a fresh index and return every way in which it differs from them."""
    with tempfile.TemporaryDirectory() as temporary:
        files = Path(temporary) / "files"
        files.mkdir()
        for path in (folder / "files").iterdir():
            if path.stat().st_size <= _INDEXED_BYTES:
                shutil.copy(path, files)
        settings = Settings(data_dir=Path(temporary) / "data")
        async with open_index(settings, open_embedder(settings)) as index, open_parser(settings) as parser:
            report = await ingest(index, [files], settings)
            shown = {source.uri: source for source in await index.sources()}
            faults = []
            for line in report.files:
                path = files.parent / line.uri
                if line.status == "failed":
                    faults += [f"{line.uri} failed but is in the index"] * (line.uri in shown)
                    continue
                parsed = await parser.parse(path, line.uri)
                held = await index.chunks([chunk.id for chunk in parsed.chunks])
                if await index.text(line.uri) != parsed.text or [c.text for c in held] != [
                    c.text for c in parsed.chunks
                ]:
                    faults.append(f"{line.uri} is not in the index as it was read")
            chunks = (await index.stats())["chunks"]
            if chunks != report.chunks:
                faults.append(f"the index holds {chunks} chunks, {report.chunks} were reported")
        return faults


def _rows(outcomes: list[Outcome]) -> Iterator[tuple[str, ...]]:
    for outcome in outcomes:
        yield (
            outcome.file, outcome.expect, "yes" if outcome.as_expected else "NO",
            f"{outcome.characters:,}" if outcome.characters else "", f"{outcome.chunks:,}" if outcome.chunks else "",
            outcome.reason + (f" missing: {outcome.missing}" if outcome.missing else ""),
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m evals.ingest_files", description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=existing, default=str(DATA / "ingest_files"))
    parser.add_argument("--index", action="store_true", help="also ingest the small files and compare the index")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    began = time.monotonic()
    outcomes = asyncio.run(parse_all(options.folder))
    elapsed = time.monotonic() - began
    faults = asyncio.run(index_small(options.folder)) if options.index else []
    good = sum(outcome.as_expected for outcome in outcomes)
    if options.json:
        print(
            json.dumps(
                {"files": [asdict(outcome) for outcome in outcomes], "index_faults": faults, "elapsed_s": elapsed}
            )
        )
    else:
        table = Table("file", "expected", "as expected", "characters", "chunks", "reason", box=None, pad_edge=False)
        for row in _rows(outcomes):
            table.add_row(*(cell.replace("[", r"\[") for cell in row))
        Console().print(table)
        print(f"\n{good} of {len(outcomes)} files as expected, read in {elapsed:.1f} s")
        if options.index:
            print("\n".join(faults) or "the index holds exactly what was read, and nothing of what failed")
    sys.exit(0 if good == len(outcomes) and not faults else 1)


if __name__ == "__main__":
    main()
