"""Make evaluation rows of what people said about answers.

    python -m evals.feedback [--out FOLDER] [--rating up|down]

Reads the ratings where the settings keep them (Redis, or the data directory). Without --out, prints one JSON object a
line: `_id`, `text` (the question as it was searched for), `rating`, `reason`, `comment`, `answer`, `citations`,
`thread_id`, `message`, `created`, `model`. With it, writes `queries.jsonl` (those lines) and `qrels.tsv` (BEIR: the
passages cited and verified in answers that were liked), and prints how many of each.

A comment of a rejected answer often holds the right one; whether it does is for a person to judge.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from citewell.errors import CitewellError
from citewell.feedback import Row, open_feedback
from citewell.settings import Settings


def evaluation_row(row: Row) -> dict[str, Any]:
    """One query in BEIR's form, with what is known about its answer. The id is stable and names nobody."""
    mark = hashlib.sha256(f"{row['thread_id']}\0{row['message']}".encode()).hexdigest()[:16]
    kept = ("rating", "reason", "comment", "answer", "citations", "thread_id", "message", "created", "model")
    return {"_id": mark, "text": row["standalone"] or row["question"], "question": row["question"]} | {
        name: row[name]
        for name in kept  # type: ignore[literal-required]  # names of Row
    }


def qrels(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str, int]]:
    """(query, source, 1) for every verified citation of an answer that was liked."""
    found = {
        (row["_id"], citation["source"], 1)
        for row in rows
        if row["rating"] == "up"
        for citation in row["citations"]
        if citation["status"] == "verified"
    }
    return sorted(found)


async def read(settings: Settings, rating: str | None) -> list[dict[str, Any]]:
    """Every rating kept, oldest first."""
    async with open_feedback(settings) as store:
        rows = [row async for row in store.walk() if rating in (None, row["rating"])]
    return [evaluation_row(row) for row in sorted(rows, key=lambda row: row["created"])]


def write(folder: Path, rows: Sequence[dict[str, Any]]) -> int:
    """Write both files. Returns how many judgements."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "queries.jsonl").write_text(lines, encoding="utf-8")
    judged = qrels(rows)
    table = "".join(f"{query}\t{source}\t{score}\n" for query, source, score in judged)
    (folder / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\n{table}", encoding="utf-8")
    return len(judged)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m evals.feedback", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="write queries.jsonl and qrels.tsv into this folder")
    parser.add_argument("--rating", choices=["up", "down"], help="only these")
    args = parser.parse_args(argv)
    try:
        rows = asyncio.run(read(Settings.load(), args.rating))
    except CitewellError as exc:
        print(f"evals.feedback: {exc.detail}", file=sys.stderr)
        return 2
    if args.out is None:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
        return 0
    judgements = write(args.out, rows)
    print(f"{len(rows)} rated answers and {judgements} judgements in {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
