"""Train the injection guard's heads and write `citewell/guards/injection.npz`.

    python -m evals.train_injection ITEMS.jsonl --documents CORPUS.jsonl ... --questions QUERIES.jsonl ... [--only question]

As shipped, questions: ITEMS the public half of the injection pack, --documents the corpora of squad2, scifact and clapnq,
--questions the public ones of squad2, conv_mtrag and clapnq, --only question.

Multiple-instance learning (Andrews et al. 2003, MI-SVM, with a logistic loss): a text is a bag of windows; of an
attack only its most suspicious window counts, of a benign text all. For questions a second regression judges the whole and
the logits are added. The printed figures are out of fold, once with
each attack's wording on one side only (what a new attack meets) and once with whole texts dealt at random (what a
known attack in a new place meets); they are, and the threshold is, of all dealings together, since a single one moves them by
.02.
"""

from __future__ import annotations

import argparse
import random
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from citewell.guards.features import BUCKETS, Form, ngram_buckets, windows_of
from citewell.guards.heads import DIRECT_CHARS, WEIGHTS, dense_features
from citewell.models.embedder import Embedder
from citewell.models.minilm import MiniLM
from evals.command import existing
from evals.injection import form_of
from evals.packs import read_jsonl

FORMS: tuple[Form, ...] = ("question", "document")
STRENGTH: dict[Form, float] = {"question": 10.0, "document": 3.0}
WHOLE_STRENGTH = 100.0
"""scikit-learn's C, chosen by the cross-validated figures."""
FALSE_POSITIVES = 0.03
"""Share of the pack's benign questions, out of fold, that may reach the threshold. Of ordinary questions hardly any come near."""
DOCUMENT_LOGIT = 2.5
"""Threshold for documents: about 1 % of 500-character chunks of corpora that were not trained on reach it."""
DIRECT_FALSE_POSITIVES = 0.003
"""Share of benign documents in which the questions' head may find a plain attack."""
ROUNDS = 3
ITERATIONS = 120
BENIGN = 60
"""Texts taken of each file of benign ones; of documents as many whole ones, and twice as many chunks."""
CHUNK_CHARS = 500
WORDS_IN_COMMON = 5
EXAMPLES = Path(__file__).with_name("injection_examples.jsonl")


@dataclass(frozen=True, slots=True)
class Item:
    text: str
    label: int
    kind: str
    form: Form
    wording: str
    """Name shared by the texts with the same attack."""
    place: str
    """Name shared by the texts with the same surroundings."""
    is_scored: bool = True
    """Whether the figures count it; the project's own examples are only trained on."""


def read_items(path: Path) -> list[Item]:
    """Rows with `text`, `label`, `kind`, and `grp` (surroundings) and `attack` (wording) where known."""
    rows = list(read_jsonl(path))
    return [
        Item(row["text"], int(row["label"]), row["kind"], form_of(row["kind"]), wording, row.get("grp") or f"text {i}")
        for i, (row, wording) in enumerate(zip(rows, _wordings(rows), strict=True))
    ]


def benign_documents(path: Path) -> list[str]:
    """Some documents of a BEIR corpus, and chunks of others: a chunk is what the guard meets at retrieval."""
    texts = [row["text"] for row in read_jsonl(path) if len(row["text"]) > CHUNK_CHARS / 2]
    texts = random.Random(3).sample(texts, min(len(texts), 3 * BENIGN))
    chunks = [text[max(0, len(text) // 2 - CHUNK_CHARS // 2) :][:CHUNK_CHARS] for text in texts[BENIGN:]]
    return [text[:1200] for text in texts[:BENIGN]] + chunks


def benign_questions(path: Path) -> list[Item]:
    rows = random.Random(3).sample(list(read_jsonl(path)), BENIGN)
    return [Item(row["text"], 0, "asked", "question", row["text"], "", False) for row in rows]


def read_examples(hosts: Sequence[str], path: Path = EXAMPLES) -> list[Item]:
    """The project's own examples; planted sentences are put at the start, the end or inside of three hosts each."""
    rows, rng = list(read_jsonl(path)), random.Random(3)
    hosts = [*hosts, *(row["text"] for row in rows if row["kind"] == "example_document")]
    items = [Item(host, 0, "example_document", "document", f"host {i}", "", False) for i, host in enumerate(hosts)]
    for row in rows:
        if row["kind"] == "example_question":
            items.append(Item(row["text"], int(row["label"]), row["kind"], "question", row["text"], "", False))
        elif row["kind"] == "example_planted":
            for host in rng.sample(hosts, 3):
                text = planted(row["text"], host, rng, on_a_line=0.6)
                items.append(Item(text, 1, "example_planted", "document", row["text"], "", False))
    return items


def planted(attack: str, host: str, rng: random.Random, *, on_a_line: float) -> str:
    """A text with an attack at its start, its end, or between two of its sentences or lines.

    Args:
        attack: What is planted.
        host: The text.
        rng: Decides where.
        on_a_line: How often (0..1) it stands on a line of its own in a text that has no lines.
    """
    lines = host.split("\n") if "\n" in host else re.split(r"(?<=[.!?]) ", host)
    at = rng.choice([0, len(lines), rng.randint(0, len(lines))])
    between = "\n" if "\n" in host or rng.random() < on_a_line else " "
    return between.join([*lines[:at], attack, *lines[at:]])


def _wordings(rows: Sequence[dict[str, str]]) -> list[str]:
    """One name for all rows that share an attack's wording, or a document."""
    parent = list(range(len(rows)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    seen: dict[object, int] = {}
    for i, row in enumerate(rows):
        if not row["label"]:
            keys: list[object] = [row.get("grp") or row["text"]]
        elif "attack" in row:
            keys = [row["attack"]]
        else:
            words = re.findall(r"\w+", row["text"].lower())
            keys = [tuple(words[j : j + WORDS_IN_COMMON]) for j in range(max(1, len(words) - WORDS_IN_COMMON + 1))]
        for key in keys:
            parent[root(i)] = root(seen.setdefault(key, i))
    return [str(root(i)) for i in range(len(rows))]


class Bags:
    """The windows of many texts as one matrix: dense columns, then n-gram buckets."""

    def __init__(self, items: Sequence[Item], embedder: Embedder, windows_as: Form | None = None) -> None:
        windows = [windows_of(item.text, windows_as or item.form) or [" "] for item in items]
        self.windows = flat = [window for bag in windows for window in bag]
        ends = np.cumsum([len(bag) for bag in windows])
        vectors = embedder.encode(flat).vectors
        dense = [
            dense_features(bag, vectors[end - len(bag) : end], items[0].form)
            for bag, end in zip(windows, ends, strict=True)
        ]
        rows, buckets, weights = ngram_buckets(flat)
        ngrams = sparse.csr_matrix((weights, (rows, buckets)), shape=(len(flat), BUCKETS))
        self.firsts = ends - [len(bag) for bag in windows]
        """Row of each text's first window: of a question, the whole of it."""
        self.matrix = sparse.hstack([sparse.csr_matrix(np.vstack(dense)), ngrams]).tocsr()
        self.owner = np.repeat(np.arange(len(items)), [len(bag) for bag in windows])
        self.labels = np.array([item.label for item in items])

    def highest(self, model: LogisticRegression, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """Per text the highest logit of those of its windows that are among `rows`."""
        best = np.full(len(self.labels), -np.inf)
        np.maximum.at(best, self.owner[rows], model.decision_function(self.matrix[rows]))
        return best


def fit(bags: Bags, chosen: NDArray[np.intp], strength: float) -> LogisticRegression:
    """Fit on the texts numbered `chosen`."""
    rows = np.flatnonzero(np.isin(bags.owner, chosen))
    owner = bags.owner[rows]
    matrix, positive = bags.matrix[rows], bags.labels[owner] == 1
    keep = np.ones(len(rows), dtype=bool)  # at first, which window is the attack is not known
    model = LogisticRegression(C=strength, max_iter=ITERATIONS, tol=1e-3)
    for _ in range(ROUNDS):
        labels = bags.labels[owner[keep]]
        in_text = np.bincount(owner[keep], minlength=len(bags.labels))[owner[keep]]
        weights = np.where(labels == 1, 1 / in_text, 1 / np.sqrt(in_text))
        for label in (0, 1):
            weights[labels == label] /= weights[labels == label].sum()
        model.fit(matrix[np.flatnonzero(keep)], labels, sample_weight=weights * len(chosen))
        keep = ~positive | (model.decision_function(matrix) >= bags.highest(model, rows)[owner] - 1e-9)
    return model


def fit_whole(bags: Bags, chosen: NDArray[np.intp]) -> LogisticRegression:
    """Fit on the questions numbered `chosen` as wholes."""
    model = LogisticRegression(C=WHOLE_STRENGTH, class_weight="balanced", max_iter=300)
    return model.fit(bags.matrix[bags.firsts[chosen]], bags.labels[chosen])


def cross_validate(
    items: Sequence[Item], bags: Bags, groups: Sequence[str], folds: int, dealings: int
) -> NDArray[np.float64]:
    """Out-of-fold logits of every scored text, float64[dealings, len(items)]; the project's own examples are trained on in every
    fold."""
    return np.stack([_dealt(items, bags, groups, folds, seed) for seed in range(dealings)])


def _dealt(items: Sequence[Item], bags: Bags, groups: Sequence[str], folds: int, seed: int) -> NDArray[np.float64]:
    scored = np.flatnonzero([item.is_scored for item in items])
    own = np.flatnonzero([not item.is_scored for item in items])
    logits = np.full(len(items), np.nan)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for train, test in splitter.split(scored, bags.labels[scored], [groups[i] for i in scored]):
        chosen, left = np.concatenate([scored[train], own]), scored[test]
        model = fit(bags, chosen, STRENGTH[items[0].form])
        rows = np.flatnonzero(np.isin(bags.owner, left))
        logits[left] = bags.highest(model, rows)[left]
        if items[0].form == "question":
            logits[left] += fit_whole(bags, chosen).decision_function(bags.matrix[bags.firsts[left]])
    return logits


def direct_threshold(model: LogisticRegression, items: Sequence[Item], embedder: Embedder) -> float:
    """Probability from which the questions' head takes a sentence of a document for an attack.

    No document was shown to that head, so the benign documents are a fair sample for its false positives.
    """
    benign = [item for item in items if item.form == "document" and item.label == 0]
    bags = Bags([replace(item, form="question") for item in benign], embedder, windows_as="document")
    logits = bags.highest(model, np.flatnonzero([len(window) >= DIRECT_CHARS for window in bags.windows]))
    return float(1 / (1 + np.exp(-np.quantile(logits, 1 - DIRECT_FALSE_POSITIVES))))


def head(name: str, model: LogisticRegression, threshold: float) -> dict[str, NDArray[np.generic]]:
    """What is stored of a regression; its threshold as a probability."""
    weights = model.coef_[0].astype(np.float16)
    return {
        f"{name}_dense": weights[:-BUCKETS], f"{name}_ngrams": weights[-BUCKETS:],
        f"{name}_bias_threshold": np.array([model.intercept_[0], threshold]),
    }  # fmt: skip


def report(items: Sequence[Item], logits: NDArray[np.float64], threshold: float, name: str) -> None:
    shares: dict[str, list[float]] = defaultdict(list)
    for item, found in zip(items, logits.T, strict=True):
        if item.is_scored:
            shares[item.kind].append(float(np.mean(found >= threshold)))
    print(
        f"  {name}: "
        + ", ".join(f"{kind} {np.mean(flags):.3f} of {len(flags)}" for kind, flags in sorted(shares.items()))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("items", type=existing)
    parser.add_argument("--documents", type=existing, nargs="+", required=True, help="benign documents, BEIR corpora")
    parser.add_argument("--questions", type=existing, nargs="+", required=True, help="benign questions, BEIR queries")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--dealings", type=int, default=5, help="how often texts are dealt into folds")
    parser.add_argument("--only", choices=FORMS, help="train this form, keep the other's weights")
    parser.add_argument("--out", type=Path, default=Path("citewell/guards") / WEIGHTS)
    args = parser.parse_args()
    embedder = MiniLM()
    hosts = [text for path in args.documents for text in benign_documents(path)]
    everything = read_items(args.items) + read_examples(hosts)
    everything += [item for path in args.questions for item in benign_questions(path)]
    arrays: dict[str, NDArray[np.generic]] = {}
    if args.only:
        with np.load(args.out, allow_pickle=False) as data:
            arrays |= dict(data)
    arrays["model"] = np.array(embedder.fingerprint)
    for form in (args.only,) if args.only else FORMS:
        items = [item for item in everything if item.form == form]
        bags = Bags(items, embedder)
        logits = cross_validate(items, bags, [item.wording for item in items], args.folds, args.dealings)
        benign = (bags.labels == 0) & np.array([item.is_scored for item in items])
        threshold = DOCUMENT_LOGIT if form == "document" else float(np.quantile(logits[:, benign], 1 - FALSE_POSITIVES))
        print(
            f"{form}: {len(items)} texts, {bags.matrix.shape[0]} windows, threshold {threshold:.3f}; flagged out of fold",
            flush=True,
        )
        report(items, logits, threshold, "unseen wording")
        placed = [replace(item, place=item.place or item.wording) for item in items]
        report(
            items,
            cross_validate(items, bags, [item.place for item in placed], args.folds, args.dealings),
            threshold,
            "unseen text",
        )
        model = fit(bags, np.arange(len(items)), STRENGTH[form])
        arrays |= head(form, model, 1 / (1 + np.exp(-threshold)))
        if form == "question":
            arrays |= head("whole", fit_whole(bags, np.arange(len(items))), 0.5)
            if not args.only:  # else documents keep theirs: with another one every index would have to be scanned anew
                arrays |= head("direct", model, direct_threshold(model, everything, embedder))
    np.savez_compressed(args.out, **arrays)  # type: ignore[arg-type]  # numpy's stub takes arrays by name
    print(f"wrote {args.out}, {args.out.stat().st_size:,} bytes; citewell.guards.injection.DIGEST has to follow")


if __name__ == "__main__":
    main()
