"""Fit `citewell/retrieval/questions.npz`: how late interaction looks at the tokens of a question.

    python -m evals.train_questions [--data DIR] [--cache DIR] [--questions 3500] [--paragraphs 2000]

A projection of the question's token vectors and the weight of each, learned listwise: the passages that answer against the
others that the product's own search finds. Questions: SQuAD 1.1 training questions (`ce_train`) on whole articles, and
SciFact's training claims, each twice. No question, and of SQuAD no article, of any public or kept-apart half. What is stored
for passages stays as it is, so that no index need be built anew. Needs torch.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from citewell.models import open_embedder
from citewell.retrieval import maxsim
from citewell.retrieval.maxsim import Floats
from citewell.settings import Settings
from evals.command import add_data
from evals.packs import Document, Pack, read_corpus, read_jsonl
from evals.retrieval import CACHE, indexed

OUT = Path(maxsim.__file__).with_name("questions.npz")
SEED = 1
MOST_OF_AN_ARTICLE = 30
"""Paragraphs: enough to be each other's rivals, few enough for many articles."""
LISTED = 20
"""Candidates a question is taught by: those that answer, and the likeliest others."""
EPOCHS, BATCH, RATE = 2, 16, 3e-4
SALIENCE_RATE, POWER_RATE = 50 * RATE, 10 * RATE
TEMPERATURE, TEMPERATURE_ALONE, SHARE_ALONE = 0.05, 0.03, 0.3
"""Of the softmax over final scores, over MaxSim alone, and the share of the latter in the loss."""
KEPT = 0.6
"""Share of what was learned that is kept: a step back to the start keeps what other collections need (WiSE-FT,
Wortsman et al. 2022). All of it gives SciFact .01 more and takes as much from CAsT."""


class Lesson(NamedTuple):
    """One question and its candidates."""

    tokens: Floats
    token_ids: NDArray[np.int64]
    chunks: Sequence[maxsim.Packed]
    others: Floats
    """[chunks]: the dense and keyword evidence, scaled and weighted as in `maxsim.rerank`."""
    right: NDArray[np.bool_]


def squad(data: Path, paragraphs: int, questions: int) -> Pack:
    """Whole articles of the training set, drawn at random, and questions on them."""
    articles: dict[str, list[str]] = {}
    documents = {one.id: one for one in read_corpus(data / "squad2" / "corpus_extra.jsonl") if one.id.startswith("t1-")}
    for id_ in documents:
        articles.setdefault(id_.rsplit("-", 1)[0], []).append(id_)
    names = sorted(articles)
    random.Random(SEED).shuffle(names)
    kept: list[str] = []
    while len(kept) < paragraphs:
        kept += articles[names.pop(0)][:MOST_OF_AN_ARTICLE]
    rows = [row for row in _rows(data, "squad_train", "squad_val") if row[2][0] in set(kept)]
    rows = random.Random(SEED).sample(rows, min(questions, len(rows)))
    return _pack("SQuAD train", [documents[id_] for id_ in kept], rows)


def scifact(data: Path) -> Pack:
    return _pack("SciFact", read_corpus(data / "scifact" / "corpus.jsonl"), _rows(data, "scifact_train"))


def _rows(data: Path, *files: str) -> list[tuple[str, str, list[str]]]:
    return [
        (row["_id"], row["query"], row["pos"]) for file in files for row in read_jsonl(data / "ce_train" / f"{file}.jsonl")
    ]  # fmt: skip


def _pack(name: str, documents: Sequence[Document], rows: Sequence[tuple[str, str, list[str]]]) -> Pack:
    return Pack(
        name=name, documents=documents, queries={id_: text for id_, text, _ in rows},
        qrels={id_: dict.fromkeys(right, 1) for id_, _, right in rows},
    )  # fmt: skip


async def lessons(pack: Pack, cache: Path) -> list[Lesson]:
    """Ask a pack's questions; those whose answer is not among the candidates teach nothing."""
    settings = Settings.load()
    embedder = open_embedder(settings)
    taught = []
    async with (
        indexed(pack, embedder, settings, whole=True, cache=cache) as index,
        index._current.reading() as generation,  # nobody else needs the bare token vectors
    ):
        for id_, question in pack.queries.items():
            found = await index.search(question, candidates=settings.candidates)
            encoded = embedder.encode([question], tokens=True)
            assert encoded.tokens is not None and encoded.token_ids is not None  # noqa: PT018
            evidence = [(one.evidence.get("dense"), one.evidence.get("keyword")) for one in found]
            others = maxsim.others([dense for dense, _ in evidence], [keyword for _, keyword in evidence])
            right = np.array(
                [not pack.qrels[id_].keys().isdisjoint((one.chunk.source, *one.chunk.also_in)) for one in found]
            )
            if not right.any():
                continue
            listed = np.argsort(-(others + 10 * right), kind="stable")[:LISTED]
            stored = generation.token_vectors([found[i].chunk.id for i in listed])
            chunks = [stored[found[i].chunk.id] for i in listed]
            ids = encoded.token_ids[0].astype(np.int64)
            taught.append(Lesson(encoded.tokens[0], ids, chunks, others[listed], right[listed]))
    embedder.close()
    return taught


class Model(torch.nn.Module):
    """What is learned; it starts where passages stand: their projection, the root of the idf."""

    def __init__(self) -> None:
        super().__init__()
        passages = maxsim.passages()
        self.projection = torch.nn.Parameter(torch.tensor(passages.projection))
        self.salience = torch.nn.Parameter(torch.zeros(len(passages.projection)))
        self.idf_power = torch.nn.Parameter(torch.tensor(0.5))
        self.idf = torch.tensor(passages.idf)

    def forward(self, lesson: Lesson) -> torch.Tensor:
        """[chunks]: MaxSim."""
        unit = torch.nn.functional.normalize(torch.from_numpy(lesson.tokens), dim=1)
        vectors = torch.nn.functional.normalize(unit @ self.projection, dim=1)
        idf = self.idf[torch.from_numpy(lesson.token_ids)]
        weights = (idf > 0) * idf.clamp(min=1e-3) ** self.idf_power * torch.exp(unit @ self.salience)
        weights = weights / weights.sum().clamp(min=1e-6)
        # Which token of the passage is the nearest is looked up, not learned: only those vectors take part.
        asked = vectors.detach().numpy()
        nearest = np.stack([_nearest(chunk, asked) for chunk in lesson.chunks])
        similar: torch.Tensor = (torch.from_numpy(nearest) * vectors).sum(dim=-1) @ weights
        return similar


def _nearest(chunk: maxsim.Packed, asked: Floats) -> Floats:
    """[tokens of the question, DIMENSIONS]: for each the chunk's token vector most like it."""
    if not len(chunk):
        return np.zeros_like(asked)
    vectors = maxsim.decoded(chunk)
    return vectors[(vectors @ asked.T).argmax(axis=0)]


def loss(model: Model, lesson: Lesson) -> torch.Tensor:
    """Listwise: how improbable the right ones are, by the final score (without neighbours, the best stretch taken for as good
    as the whole) and by MaxSim alone. Learning from the stretch as well brought nothing (docs/retrieval-experiments.md)."""
    similar, right = model(lesson), torch.from_numpy(lesson.right)
    scaled = (similar - similar.min()) / (similar.max() - similar.min() + 1e-6)
    final = (sum(maxsim.WEIGHTS[:2]) * scaled + torch.from_numpy(lesson.others)) / TEMPERATURE
    alone = similar / TEMPERATURE_ALONE
    return _surprise(final, right) + SHARE_ALONE * _surprise(alone, right)


def _surprise(logits: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return torch.logsumexp(logits, 0) - torch.logsumexp(logits[right], 0)


def learn(taught: list[Lesson]) -> Model:
    """Adam, warmed up over 20 batches, then down to nothing."""
    model = Model()
    rates = ((model.projection, RATE), (model.salience, SALIENCE_RATE), (model.idf_power, POWER_RATE))
    adam = torch.optim.Adam([{"params": [what], "lr": rate} for what, rate in rates], betas=(0.9, 0.99))
    steps = EPOCHS * (len(taught) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: min(1, step / 20) * (1 - step / steps))
    rng = random.Random(SEED)
    for epoch in range(EPOCHS):
        rng.shuffle(taught)
        total = 0.0
        for start in range(0, len(taught) - BATCH + 1, BATCH):
            adam.zero_grad()
            batch = torch.stack([loss(model, lesson) for lesson in taught[start : start + BATCH]]).mean()
            batch.backward()  # type: ignore[no-untyped-call]
            adam.step()
            schedule.step()
            total += float(batch.detach()) * BATCH
        print(f"epoch {epoch + 1}: loss {total / len(taught):.4f} over {len(taught)} questions", flush=True)
    return model


def save(model: Model) -> None:
    """Write the part of what was learned that is kept."""
    start, end = Model().state_dict(), model.state_dict()
    kept = {name: (start[name] + KEPT * (end[name] - start[name])).numpy().astype(np.float16) for name in start}
    np.savez_compressed(OUT, passages=maxsim.passages().projection[0].astype(np.float16), **kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data(parser)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--questions", type=int, default=3500, help="of SQuAD")
    parser.add_argument("--paragraphs", type=int, default=2000, help="of SQuAD")
    arguments = parser.parse_args()
    torch.manual_seed(SEED)
    taught = asyncio.run(lessons(squad(arguments.data, arguments.paragraphs, arguments.questions), arguments.cache))
    taught += 2 * asyncio.run(lessons(scifact(arguments.data), arguments.cache))
    save(learn(taught))


if __name__ == "__main__":
    main()
