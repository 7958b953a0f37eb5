"""Teach the first look at chunks what the scan of their sentences says; write `citewell/guards/skim.npz`.

    python -m evals.train_skim ITEMS.jsonl --documents CORPUS.jsonl ... --unseen CORPUS.jsonl ... [--copies N]

The document head of `evals.train_injection`, with the questions' head beside it, scans chunks of 500 characters: of the
items, of the corpora, and of these with attacks planted in them. The network learns its logits (distillation, Hinton et al.
2015, arXiv:1503.02531). The printed figures are out of fold, attacks' wordings on one side only for the scan and the first look
alike: how many planted chunks that the scan flags the first look would let go, by how many chunks of corpora that it
has not seen it has scanned. With the shipped threshold the scan flags what it flags; a chunk is only ever let go.
Needs torch.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path

import numpy as np
import scipy.sparse as sparse
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from torch import nn
from torch.nn.functional import smooth_l1_loss

from citewell.guards.features import BUCKETS, in_context, ngram_buckets, windows_of
from citewell.guards.heads import DIRECT_CHARS, load_heads
from citewell.guards.skim import FEATURES, WEIGHTS, Floats, Skim, features, spans_of
from citewell.ingestion.document import Document
from citewell.ingestion.split import split
from citewell.models.minilm import DIMENSION, MiniLM
from evals.command import existing
from evals.packs import read_jsonl
from evals.train_injection import (
    CHUNK_CHARS,
    DOCUMENT_LOGIT,
    EXAMPLES,
    STRENGTH,
    Bags,
    Item,
    benign_documents,
    fit,
    planted,
    read_examples,
    read_items,
)

OVERLAP = 50
HIDDEN, EPOCHS, BATCH, RATE, DECAY, DROPOUT = 32, 12, 256, 1e-3, 0.01, 0.2
NGRAM_RATE = 5.0
"""How much faster n-gram weights learn than the rest."""
MIDDLE = 1.0
"""Windows around which logits weigh as much as all ordinary ones below."""
LEAST, MOST = -5.0, 6.0
"""Logits beyond are as good as these: what matters lies between an ordinary chunk and the threshold."""
HOSTS, UNSEEN = 1000, 450
"""Most documents taken of each corpus, to train on and to see how much is scanned."""
IN_ITEMS = 0.4
"""Share of planted attacks whose host is one of the items' e-mails, tables and pages."""
SCANNED = 0.2
"""Share of the unseen corpora's chunks that are scanned; the limit follows from it."""
SHARES = (0.1, 0.15, SCANNED, 0.25)
"""Shares that the figures are printed for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A chunk as ingestion meets it."""

    text: str
    kind: str
    title: str = ""
    """What is embedded before it."""
    wording: str = ""
    """Name shared by the texts with the same attack, or of the items' benign text that this is."""
    host: str = ""
    """Name of the items' benign text that an attack was planted in."""


def cut(text: str) -> list[str]:
    """The chunks that ingestion would make."""
    chunks = split(Document(text=text, type="txt"), "", chunk_size=CHUNK_CHARS, chunk_overlap=OVERLAP)
    return [chunk.text for chunk in chunks]


def plant(attack: str, host: str, rng: random.Random) -> str:
    """A chunk with an attack in it."""
    attack = attack[: CHUNK_CHARS * 4 // 5]
    text = planted(attack, host, rng, on_a_line=0.5)
    start = max(0, text.find(attack) - rng.randint(0, CHUNK_CHARS - len(attack))) if len(text) > CHUNK_CHARS else 0
    return text[start:][:CHUNK_CHARS]


def corpus_passages(path: Path, most: int) -> list[Passage]:
    rows = list(read_jsonl(path))
    rows = random.Random(7).sample(rows, min(most, len(rows)))
    return [
        Passage(text=text, title=row.get("title", ""), kind=path.parent.name)
        for row in rows
        for text in cut(row["text"])
    ]


def item_passages(items: Sequence[Item]) -> list[Passage]:
    """The documents of the pack, cut."""
    documents = [item for item in items if item.form == "document"]
    return [Passage(text=text, kind=item.kind, wording=item.wording) for item in documents for text in cut(item.text)]


def planted_passages(path: Path, items: Sequence[Item], hosts: Sequence[Passage], copies: int) -> list[Passage]:
    """Every attack of the pack, of those on documents and of the direct ones, and of the project's own examples, planted in
    corpora and in the pack's benign documents."""
    rng = random.Random(7)
    own = [one for one in item_passages(items) if one.kind.startswith("benign")]
    attacks: list[tuple[str, str, str, int]] = []
    for row, item in zip(read_jsonl(path), items, strict=True):
        if item.label:
            kind, times = ("planted", copies) if "attack" in row else ("planted, direct", copies // 4)
            attacks.append((row.get("attack", row["text"]), item.wording, kind, times))
    share = {"example_planted": copies * 2 // 3, "example_question": copies // 6}
    examples = [row for row in read_jsonl(EXAMPLES) if row.get("label", 1) and row["kind"] in share]
    attacks += [(row["text"], "", "own", share[row["kind"]]) for row in examples]
    made = []
    for attack, wording, kind, times in dict.fromkeys(attacks):
        for _ in range(times):
            host = rng.choice(own if rng.random() < IN_ITEMS else hosts)
            title = rng.choice(hosts).title if rng.random() < 0.5 else ""
            text = plant(attack, host.text, rng)
            made.append(Passage(text=text, kind=kind, title=title, wording=wording, host=host.wording))
    return made


def states_of(passages: Sequence[Passage], embedder: MiniLM, centre: Floats) -> tuple[list[int], Floats]:
    """The numbers of those passages that can be looked at, and `features` of all their windows."""
    read: list[int] = []
    rows: list[Floats] = []
    for start in range(0, len(passages), BATCH):
        some = passages[start : start + BATCH]
        bags = [windows_of(one.text, "document") for one in some]
        encoded = embedder.encode([f"{one.title}\n{one.text}" if one.title else one.text for one in some], tokens=True)
        early, ids = encoded.early or [], encoded.token_ids or []
        spans = {i: found for i, found in enumerate(spans_of(bags, [one.tolist() for one in ids])) if found}
        rows.append(features([bags[i] for i in spans], [early[i] for i in spans], list(spans.values()), centre)[0])
        read += [start + i for i in spans]
    return read, np.vstack(rows)


class Seen:
    """Passages as the first look and as the scan see them, a row for each window."""

    def __init__(self, passages: Sequence[Passage], embedder: MiniLM, centre: Floats) -> None:
        read, self.dense = states_of(passages, embedder, centre)
        self.passages = [passages[i] for i in read]
        bags = [windows_of(one.text, "document") for one in self.passages]
        windows = list(chain.from_iterable(bags))
        sizes = np.array([len(bag) for bag in bags])
        self.firsts = np.cumsum(sizes) - sizes
        self.owner = np.repeat(np.arange(len(sizes)), sizes)
        rows, buckets, weights = ngram_buckets(windows)
        self.ngrams = sparse.csr_matrix((weights, (rows, buckets)), shape=(len(windows), BUCKETS))
        different = {window: row for row, window in enumerate(dict.fromkeys(windows))}
        vectors = embedder.encode(list(different)).vectors[[different[window] for window in windows]]
        parts = [slice(first, first + size) for first, size in zip(self.firsts, sizes, strict=True)]
        self.scanned = np.vstack([in_context(bag, vectors[part]) for bag, part in zip(bags, parts, strict=True)])
        direct = load_heads()[0]["document"].direct
        assert direct is not None
        shift = DOCUMENT_LOGIT - np.log(direct.threshold / (1 - direct.threshold))
        long = np.array([len(window) for window in windows]) >= DIRECT_CHARS
        self.direct = np.where(
            long, vectors @ direct.dense + self.ngrams @ direct.ngrams + direct.bias + shift, -np.inf
        )

    def scan(self, head: LogisticRegression) -> Floats:
        """Logits of the windows by a document head, with the questions' head beside it."""
        weights, wide = head.coef_[0], self.scanned.shape[1]
        logits = self.scanned @ weights[:wide] + self.ngrams @ weights[wide:] + head.intercept_[0]
        highest: Floats = np.maximum(logits, self.direct).astype(np.float32)
        return highest

    def of_passages(self, logits: Floats) -> Floats:
        highest: Floats = np.maximum.reduceat(logits, self.firsts)
        return highest

    def rows(self, chosen: NDArray[np.bool_]) -> NDArray[np.intp]:
        return np.flatnonzero(chosen[self.owner])


class Network(nn.Module):
    """What `Skim` holds, before the features' means and deviations are folded into it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer, self.linear = nn.Linear(FEATURES, HIDDEN), nn.Linear(HIDDEN, 1), nn.Linear(FEATURES, 1)
        self.ngrams = nn.EmbeddingBag(BUCKETS, 1, mode="sum")
        nn.init.zeros_(self.ngrams.weight)
        self.drop = nn.Dropout(DROPOUT)

    def forward(self, dense: torch.Tensor, ngrams: sparse.csr_matrix) -> torch.Tensor:
        x = self.drop(dense)
        inner = self.outer(self.drop(torch.relu(self.inner(x)))) + self.linear(x)
        places = (torch.from_numpy(one.astype(np.int64)) for one in (ngrams.indices, ngrams.indptr[:-1]))
        found = self.ngrams(*places, per_sample_weights=torch.from_numpy(ngrams.data.astype(np.float32)))
        logits: torch.Tensor = (inner + NGRAM_RATE * found)[:, 0]
        return logits


def teach(seen: Seen, rows: NDArray[np.intp], scanned: Floats, centre: Floats) -> Skim:
    """Fit on these windows; the limit is left open."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    mean, deviation = seen.dense[rows].mean(axis=0), seen.dense[rows].std(axis=0) + 1e-6
    suspicious = 1 / (1 + np.exp(MIDDLE - scanned))
    half = len(rows) / 2
    weights = suspicious * half / suspicious[rows].sum() + (1 - suspicious) * half / (1 - suspicious[rows]).sum()
    target = np.clip(scanned, LEAST, MOST)
    network = Network()
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    for epoch in range(EPOCHS):
        for group in optimiser.param_groups:
            group["lr"] = RATE * (1 - epoch / EPOCHS)
        order = rng.permutation(rows)
        for start in range(0, len(order), BATCH):
            some = order[start : start + BATCH]
            dense = torch.from_numpy((seen.dense[some] - mean) / deviation)
            said, wanted, weight = network(dense, seen.ngrams[some]), torch.from_numpy(target[some]), torch.from_numpy(weights[some])  # fmt: skip
            loss = (smooth_l1_loss(said, wanted, reduction="none") * weight).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    of = {name: value.detach().numpy() for name, value in network.named_parameters()}
    inner, linear = of["inner.weight"].T / deviation[:, None], of["linear.weight"][0] / deviation
    return Skim(
        centre=centre, inner=inner, inner_bias=of["inner.bias"] - mean @ inner, outer=of["outer.weight"][0], linear=linear,
        ngrams=NGRAM_RATE * of["ngrams.weight"][:, 0], bias=of["outer.bias"] + of["linear.bias"] - mean @ linear,
        limit=np.zeros(1, np.float32),
    )  # fmt: skip


def estimate(skim: Skim, seen: Seen) -> Floats:
    """The first look's logits of passages."""
    return seen.of_passages(skim.of_windows(seen.dense) + seen.ngrams @ skim.ngrams)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("items", type=existing)
    parser.add_argument("--documents", type=existing, nargs="+", required=True, help="BEIR corpora to learn from")
    parser.add_argument(
        "--unseen", type=existing, nargs="+", required=True, help="BEIR corpora to see how much is scanned"
    )
    parser.add_argument("--copies", type=int, default=12, help="chunks in which each attack on documents is planted")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("citewell/guards") / WEIGHTS)
    args = parser.parse_args()
    embedder = MiniLM()
    items = read_items(args.items)
    corpora = [one for path in args.documents for one in corpus_passages(path, HOSTS)]
    unseen = [one for path in args.unseen for one in corpus_passages(path, UNSEEN)]
    passages = [*item_passages(items), *corpora, *planted_passages(args.items, items, corpora, args.copies), *unseen]
    centre = states_of(corpora[:BATCH], embedder, np.zeros(DIMENSION, np.float32))[1][:, :DIMENSION].mean(axis=0)
    seen = Seen(passages, embedder, centre)
    print(f"{len(passages)} chunks, of which {len(passages) - len(seen.passages)} are always scanned", flush=True)
    is_unseen = np.array([one.kind in {path.parent.name for path in args.unseen} for one in seen.passages])

    hosts = [text for path in args.documents for text in benign_documents(path)]
    texts = [item for item in items + read_examples(hosts) if item.form == "document"]
    bags = Bags(texts, embedder)
    scored = np.flatnonzero([item.is_scored for item in texts])
    own = np.flatnonzero([not item.is_scored for item in texts])
    direct = sorted({item.wording for item in items if item.kind == "direct"})
    kinds = np.array([one.kind for one in seen.passages])
    flagged: Counter[str] = Counter()
    let_go: dict[float, Counter[str]] = {share: Counter() for share in SHARES}
    splitter = StratifiedGroupKFold(args.folds, shuffle=True, random_state=0)
    folds = splitter.split(scored, bags.labels[scored], [texts[i].wording for i in scored])
    for number, (train, test) in enumerate(folds):
        held = {texts[i].wording for i in scored[test]} | set(direct[number :: args.folds])
        is_held = np.array([one.wording in held for one in seen.passages])
        has_held = is_held | np.array([one.host in held for one in seen.passages])
        head = fit(bags, np.concatenate([scored[train], own]), STRENGTH["document"])
        scanned = seen.scan(head)
        skim = teach(seen, seen.rows(~has_held & ~is_unseen), scanned, centre)
        logits = estimate(skim, seen)
        is_flagged = is_held & (seen.of_passages(scanned) >= DOCUMENT_LOGIT)
        flagged.update(kinds[is_flagged])
        for share, of_share in let_go.items():
            of_share.update(kinds[is_flagged & (logits < np.quantile(logits[is_unseen], 1 - share))])
    print("of chunks that the scan flags, out of fold, the first look lets go")
    for share, of_share in let_go.items():
        print(
            f"  {share:.2f} scanned: "
            + ", ".join(f"{kind} {of_share[kind]} of {n}" for kind, n in sorted(flagged.items()))
        )

    scanned = seen.scan(fit(bags, np.arange(len(texts)), STRENGTH["document"]))
    skim = teach(seen, seen.rows(~is_unseen), scanned, centre)
    logits = estimate(skim, seen)
    limit = np.quantile(logits[is_unseen], 1 - SCANNED)
    print(f"limit {limit:.2f}; scanned of " + ", ".join(f"{kind} {np.mean(logits[kinds == kind] >= limit):.3f}" for kind in sorted({*kinds})))  # fmt: skip
    arrays = {one.name: getattr(skim, one.name).astype(np.float16) for one in fields(skim)}
    np.savez_compressed(args.out, **arrays | {"limit": np.array([limit])})
    print(f"wrote {args.out}, {args.out.stat().st_size:,} bytes; citewell.guards.injection.DIGEST has to follow")


if __name__ == "__main__":
    main()
