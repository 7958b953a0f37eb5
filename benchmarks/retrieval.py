"""How fast retrieval is, and what it takes, at any number of chunks: `python -m benchmarks.retrieval --chunks 21000`.

Chunks are synthetic (words by Zipf's law, vectors in clusters, 100 token vectors each), so that a million need no
model; questions are embedded by the built-in model, and everything else is the code that serves. A folder that is
named with --work is kept and filled further by the next run with more --chunks.

The tutorial's path runs in the same process: a MiniLM-L6 cross-encoder on torch (random weights: the time is the same)
for reranking, SQLite FTS5 beside tantivy for keywords.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import psutil

from citewell.documents import Chunk, Source
from citewell.models import Embedder, Encoded, Progress, open_embedder
from citewell.retrieval import Index, NewSource, Trace, open_index
from citewell.settings import Settings

WORDS, PER_CHUNK, PER_SOURCE, TOKENS = 200_000, 80, 20, 100
"""80 words are about 500 characters, which WordPiece cuts into about 100 tokens."""
CLUSTERS = 2000


class Synthetic(Embedder):
    """Questions by the real model, passages at random: what is timed does not depend on what a vector means."""

    def __init__(self, real: Embedder) -> None:
        self._real = real
        self._random = np.random.default_rng(1)
        self._centres = self._random.standard_normal((CLUSTERS, real.dimension)).astype(np.float32)
        self._tokens = [unit(self._random.standard_normal((TOKENS, real.dimension))) for _ in range(64)]
        self._ids = self._random.integers(1000, 30_000, TOKENS).astype(np.int32)
        self.name, self.dimension, self.gives_tokens = "synthetic", real.dimension, True
        self.fingerprint = f"synthetic-{real.fingerprint}"

    def encode(self, texts: Sequence[str], *, tokens: bool = False, progress: Progress | None = None) -> Encoded:
        if len(texts) == 1:
            return self._real.encode(texts, tokens=tokens)
        noise = self._random.standard_normal((len(texts), self.dimension)).astype(np.float32)
        vectors = unit(self._centres[self._random.integers(0, CLUSTERS, len(texts))] + 0.8 * noise)
        chosen = self._random.integers(0, len(self._tokens), len(texts))
        return Encoded(vectors=vectors, tokens=[self._tokens[n] for n in chosen], token_ids=[self._ids for _ in texts])


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class Texts:
    """Words by Zipf's law."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        vocabulary = files("citewell.models").joinpath("vocab.txt").read_text(encoding="utf-8").split()
        real = [word for word in vocabulary if word.isascii() and word.isalpha() and len(word) > 2]
        self._words = np.array(real + [f"w{n:x}" for n in range(WORDS - len(real))])
        share = 1 / np.arange(1, WORDS + 1) ** 1.05
        self._share = share / share.sum()

    def passages(self, count: int) -> list[str]:
        return [" ".join(row) for row in self._words[self._random.choice(WORDS, (count, PER_CHUNK), p=self._share)]]

    def questions(self, count: int) -> list[str]:
        """Nine words each, as common as those of the passages."""
        return [" ".join(row) for row in self._words[self._random.choice(WORDS, (count, 9), p=self._share)]]


async def build(index: Index, chunks: int) -> float:
    """Fill the index up to this many chunks; returns chunks per second, 0 where nothing had to be done."""
    began, before = time.perf_counter(), int(str((await index.stats())["chunks"]))
    async with index.writing():
        for start in range(before, chunks, 2000):
            count = min(2000, chunks - start)
            texts = Texts(seed=start).passages(count)
            await index.replace_sources(
                [_source(start + n, texts[n : n + PER_SOURCE]) for n in range(0, count, PER_SOURCE)]
            )
            if start % 20_000 == 0:
                print(
                    f"  {start + count:,} chunks, {(start + count - before) / (time.perf_counter() - began):,.0f}/s",
                    flush=True,
                )
    return (chunks - before) / (time.perf_counter() - began) if chunks > before else 0.0


def _source(first: int, texts: Sequence[str]) -> NewSource:
    uri, text = f"synthetic/{first}.txt", "\n".join(texts)
    cut, start = [], 0
    for position, each in enumerate(texts):
        cut.append(
            Chunk(
                id=f"c{first + position}",
                source=uri,
                title=uri,
                text=each,
                start=start,
                end=start + len(each),
                index=position,
            )
        )
        start += len(each) + 1
    return NewSource(
        source=Source(uri=uri, title=uri, type="txt", sha256="0" * 64, size_bytes=len(text)), text=text, chunks=cut
    )


async def ask(
    index: Index, questions: Sequence[str], *, access: frozenset[str] | None = None
) -> dict[str, list[float]]:
    """Milliseconds per stage and in all, one question after the other."""
    spent: dict[str, list[float]] = {}
    for question in questions:
        trace, began, cpu = Trace(), time.perf_counter(), time.process_time()
        found = await index.search(question, candidates=50, access=access, trace=trace)
        await index.rerank(question, found, top_k=5, trace=trace)
        whole = {"in all": (time.perf_counter() - began) * 1000, "CPU": (time.process_time() - cpu) * 1000}
        for stage, ms in {**trace.stages, **whole}.items():
            spent.setdefault(stage, []).append(ms)
    return spent


def cross_encoder(pairs: int) -> Callable[[], object]:
    """The tutorial's reranker: MiniLM-L6's shape on torch, 50 pairs of a question and a 500-character chunk."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    model = BertForSequenceClassification(BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, num_labels=1,
    )).eval()  # fmt: skip
    ids = torch.randint(1000, 30_000, (pairs, TOKENS + 15))

    def run() -> object:
        with torch.inference_mode():
            return model(input_ids=ids).logits

    return run


def full_text_search(folder: Path, chunks: int, questions: Sequence[str]) -> tuple[list[float], int]:
    """SQLite FTS5 over the same text: milliseconds per question, bytes on disk."""
    path = folder / "fts5.sqlite"
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path)
    connection.execute("CREATE VIRTUAL TABLE t USING fts5(text, content='', tokenize='porter unicode61')")
    for start in range(0, chunks, 2000):
        rows = Texts(seed=start).passages(min(2000, chunks - start))
        connection.executemany(
            "INSERT INTO t(rowid, text) VALUES (?, ?)", ((start + n, row) for n, row in enumerate(rows))
        )
        connection.commit()
    spent = []
    for question in questions:
        began = time.perf_counter()
        query = " OR ".join(f'"{word}"' for word in question.split())
        connection.execute(
            "SELECT rowid, bm25(t) FROM t WHERE t MATCH ? ORDER BY bm25(t) LIMIT 50", (query,)
        ).fetchall()
        spent.append((time.perf_counter() - began) * 1000)
    connection.close()
    size = path.stat().st_size
    path.unlink()
    return spent, size


async def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--chunks", type=int, default=21_000)
    arguments.add_argument("--questions", type=int, default=200)
    arguments.add_argument("--work", type=Path, help="keep the index here (default: a folder that is removed)")
    arguments.add_argument("--json", action="store_true", help="print figures as JSON instead of a table")
    arguments.add_argument("--alone", action="store_true", help="leave the tutorial's path out")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.work or Path(scratch)
        figures = await measure(folder, given.chunks, given.questions, alone=given.alone)
    if given.json:
        print(json.dumps(figures, indent=1))
    else:
        for name, value in figures.items():
            print(f"{name:<44} {value}")


async def measure(folder: Path, chunks: int, count: int, *, alone: bool) -> dict[str, object]:
    settings, process = Settings(data_dir=folder, retrieval_timeout_s=120), psutil.Process()
    embedder = Synthetic(open_embedder(settings))
    questions = Texts(seed=-chunks % 2**31).questions(count)
    async with open_index(settings, embedder) as index:
        rate = await build(index, chunks)
    resident, began = process.memory_full_info().uss, time.perf_counter()
    async with open_index(settings, embedder) as index:
        await index.stats()
        opened = time.perf_counter() - began
        await ask(index, questions[:20])
        spent = await ask(index, questions)
        public = await ask(index, questions[: count // 4], access=frozenset({"public"}))
        resident = process.memory_full_info().uss - resident
        stats = await index.stats()
        name = index.generation.partition(".")[0]
    figures: dict[str, object] = {
        "chunks": stats["chunks"],
        "added, chunks/s": round(rate),
        "index opens, s": round(opened, 2),
    }
    for stage, ms in spent.items():
        figures[f"{stage}, ms p50 / p95"] = f"{statistics.median(ms):.2f} / {statistics.quantiles(ms, n=20)[-1]:.2f}"
    figures["in all for a caller with labels, ms p50"] = round(statistics.median(public["in all"]), 2)
    chunks = int(str(stats["chunks"]))
    where = folder / "index" / settings.namespace / name
    for part in ("catalog.sqlite", "keywords", "vectors", "tokens.bin"):
        files = [where / part] if (where / part).is_file() else [f for f in (where / part).rglob("*") if f.is_file()]
        figures[f"disk, bytes a chunk: {part}"] = round(sum(file.stat().st_size for file in files) / chunks)
    figures["disk, bytes a chunk: in all"] = round(int(str(stats["bytes"])) / chunks)
    figures["memory for an open index, bytes a chunk"] = round(resident / chunks)
    if not alone:
        fts, size = await asyncio.to_thread(full_text_search, folder, chunks, questions)
        figures["SQLite FTS5 instead of tantivy, ms p50 / p95"] = (
            f"{statistics.median(fts):.2f} / {statistics.quantiles(fts, n=20)[-1]:.2f}"
        )
        figures["SQLite FTS5, bytes a chunk"] = round(size / chunks)
        run = cross_encoder(50)
        await asyncio.to_thread(run)
        times = []
        for _ in range(3):
            began = time.perf_counter()
            await asyncio.to_thread(run)
            times.append((time.perf_counter() - began) * 1000)
        ours = statistics.median(spent["rerank"])
        figures["rerank 50: MiniLM-L6 cross-encoder on torch, ms"] = round(statistics.median(times), 1)
        figures["rerank 50: late interaction is faster by"] = f"{statistics.median(times) / ours:.0f} x"
    return figures


if __name__ == "__main__":
    asyncio.run(main())
