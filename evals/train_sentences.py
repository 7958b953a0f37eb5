"""Fit `chains/judge.npz`: how probable it is that a sentence answers the question, from `chains.features`'s features.

    python -m evals.train_sentences [--data DIR] [--questions 1500] [--index DIR]

Logistic regression over the sentences of the three best chunks for SQuAD 1.1 training questions (`ce_train`, whole
articles of `squad2/corpus_extra.jsonl`, so that each paragraph has its real rivals; no article of the development
set). A sentence is right when it holds an answer and stands in the question's own paragraph. The validation articles
of `ce_train` say how well it does; the figures of `docs/answer-quality.md` come from other questions altogether.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chains import judge
from chains.candidates import candidates
from chains.features import FEATURES, Floats, features
from citewell.models import open_embedder
from citewell.retrieval import Index, open_index
from citewell.settings import Settings
from evals.command import add_data
from evals.packs import Document, read_corpus, read_jsonl
from evals.retrieval import fill

_RIDGE = 200.0
"""Strong: many features say nearly the same, and weights that cancel each other out do not travel to other documents.
Between 1 and 300 it makes no difference on other articles of SQuAD."""


def choose(
    data: Path, questions: int, paragraphs: int, seed: int
) -> tuple[list[Document], list[dict[str, Any]], list[dict[str, Any]]]:
    """Paragraphs of whole articles, and the questions on them: (paragraphs, training, validation)."""
    rng = random.Random(seed)
    train = list(read_jsonl(data / "ce_train" / "squad_train.jsonl"))
    held = list(read_jsonl(data / "ce_train" / "squad_val.jsonl"))
    documents = {one.id: one for one in read_corpus(data / "squad2" / "corpus_extra.jsonl")}
    articles: dict[str, list[str]] = {}
    for id_ in documents:
        articles.setdefault(id_.rsplit("-", 1)[0], []).append(id_)
    kept: list[str] = []
    for rows, most in ((train, paragraphs), (held, paragraphs // 4)):
        names = sorted({row["pos"][0].rsplit("-", 1)[0] for row in rows})
        rng.shuffle(names)
        taken: list[str] = []
        while names and len(taken) < most:
            taken += articles[names.pop()]
        kept += taken
    known = set(kept)
    chosen = []
    for rows, most in ((train, questions), (held, questions // 4)):
        mine = [row for row in rows if row["pos"][0] in known]
        rng.shuffle(mine)
        chosen.append(mine[:most])
    return [documents[id_] for id_ in kept], chosen[0], chosen[1]


async def describe(
    index: Index, embedder: Any, rows: Sequence[dict[str, Any]], top_n: int
) -> list[tuple[Floats, NDArray[np.bool_]]]:
    """Per question the features of its candidate sentences, and which are right."""
    described = []
    for row in rows:
        found = await index.rerank(row["query"], await index.search(row["query"]), top_k=top_n)
        sentences = candidates(found)
        table = await asyncio.to_thread(features, row["query"], sentences, found, embedder)
        right = [
            found[one.number - 1].chunk.source in row["pos"] and any(answer in one.text for answer in row["answers"])
            for one in sentences
        ]
        described.append((table, np.array(right, bool)))
    return described


def fit(
    rows: Floats, right: NDArray[np.bool_], importance: NDArray[np.float64] | None = None, *, ridge: float = 1.0
) -> tuple[Floats, float]:
    """Ridge logistic regression by Newton's method on standardised features; weights for the raw features.

    Args:
        rows: [n, features].
        right: [n]
        importance: [n], how much each row counts; 1 for all when None.
        ridge: Weight of the squared weights; the bias is free.
    """
    count = np.ones(len(rows)) if importance is None else importance
    mean, deviation = rows.mean(axis=0), rows.std(axis=0) + 1e-6
    x = np.column_stack([(rows - mean) / deviation, np.ones(len(rows))]).astype(np.float64)
    penalty = np.full(x.shape[1], ridge)
    penalty[-1] = 0
    weights = np.zeros(x.shape[1])
    for _ in range(25):
        predicted = 1 / (1 + np.exp(-x @ weights))
        gradient = x.T @ (count * (predicted - right)) + penalty * weights
        curvature = (x * (count * predicted * (1 - predicted))[:, None]).T @ x + np.diag(penalty)
        weights -= np.linalg.solve(curvature, gradient)
    raw = weights[:-1] / deviation
    return raw.astype(np.float32), float(weights[-1] - raw @ mean)


def report(name: str, described: Sequence[tuple[Floats, NDArray[np.bool_]]], weights: Floats, bias: float) -> None:
    """Print how often the right sentence is among the best 1, 2, 3, and the Brier score."""
    hits = np.zeros(3)
    errors = []
    for table, right in described:
        if not len(table):
            continue
        probable = 1 / (1 + np.exp(-(table @ weights + bias)))
        order = np.argsort(-probable)
        hits += [right[order[:k]].any() for k in (1, 2, 3)]
        errors += list((probable - right) ** 2)
    shares = hits / len(described)
    print(f"{name:<12}{len(described):>6} questions  right sentence among the best 1/2/3: "
          f"{shares[0]:.3f} {shares[1]:.3f} {shares[2]:.3f}  Brier {np.mean(errors):.4f}")  # fmt: skip


async def run(args: argparse.Namespace) -> None:
    paragraphs, train, held = choose(args.data, args.questions, args.paragraphs, args.seed)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.load(data_dir=args.index or Path(folder), retrieval_timeout_s=120)
        embedder = open_embedder(settings)
        async with open_index(settings, embedder) as index:
            await fill(index, paragraphs, settings)
            described = await describe(index, embedder, train, settings.top_n)
            validation = await describe(index, embedder, held, settings.top_n)
        embedder.close()
    weights, bias = fit(
        np.concatenate([t for t, _ in described]), np.concatenate([r for _, r in described]), ridge=_RIDGE
    )
    report("training", described, weights, bias)
    report("validation", validation, weights, bias)
    for name, weight in sorted(zip(FEATURES, weights, strict=True), key=lambda pair: -abs(pair[1])):
        print(f"  {name:<20}{weight:>9.3f}")
    np.savez(
        Path(judge.__file__).with_name("judge.npz"), names=np.array(FEATURES), weights=weights, bias=np.float32(bias)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data(parser)
    parser.add_argument("--questions", type=int, default=1500)
    parser.add_argument("--paragraphs", type=int, default=1000, help="about; whole articles are taken")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--index", type=Path, help="keep the index in this folder and use it again")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
