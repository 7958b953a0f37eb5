"""Evaluation data in BEIR format (Thakur et al. 2021, arXiv:2104.08663): read, never written."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA = Path(os.environ.get("CITEWELL_EVAL_DATA") or Path(__file__).parents[2] / "shared" / "data")
"""Where the packs are, unless an argument says otherwise."""
Qrels = dict[str, dict[str, int]]
"""Query id -> document id -> relevance, positive ones only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """One test collection."""

    name: str
    documents: Sequence[Document]
    queries: dict[str, str]
    """Query id -> text, only those with a relevant document."""
    qrels: Qrels


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                yield json.loads(line)


def read_corpus(*paths: Path) -> list[Document]:
    return [
        Document(id=str(row["_id"]), title=row.get("title") or "", text=row["text"])
        for path in paths
        for row in read_jsonl(path)
    ]


def read_qrels(path: Path) -> Qrels:
    """Read `query-id<TAB>corpus-id<TAB>score` under a header line."""
    qrels: Qrels = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fields = line.split("\t")
        if not line.strip() or (number == 1 and not fields[-1].lstrip("-").isdigit()):
            continue
        if len(fields) != 3:
            raise ValueError(f"{path}, line {number}: expected query, document and score between tabs")
        if int(fields[2]) > 0:
            qrels.setdefault(fields[0], {})[fields[1]] = int(fields[2])
    return qrels


def read_pack(name: str, corpus: Sequence[Path], queries: Path, qrels: Path) -> Pack:
    """Read a collection; queries without a relevant document are left out, as trec_eval does."""
    judged = read_qrels(qrels)
    texts = {str(row["_id"]): row["text"] for row in read_jsonl(queries)}
    return Pack(
        name=name,
        documents=read_corpus(*corpus),
        queries={id_: text for id_, text in texts.items() if id_ in judged},
        qrels=judged,
    )
