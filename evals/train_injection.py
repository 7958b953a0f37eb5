"""Train the injection guard's heads and write `citewell/guards/injection.npz`.

    python -m evals.train_injection ITEMS.jsonl [--examples evals/injection_examples.jsonl] [--folds 5] [--dry-run]

Multiple-instance learning (Andrews et al. 2003, MI-SVM, with a logistic loss): a text is a bag of windows; of an
attack only its most suspicious window counts, of a benign text all. The printed figures are cross-validated over
groups, so that no attack's wording and no document stands on both sides; the threshold is taken from them.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from citewell.guards.features import BUCKETS, ngram_buckets
from citewell.guards.injection import WEIGHTS, Form, windows_of
from citewell.models.embedder import Embedder
from citewell.models.minilm import MiniLM

FORMS: tuple[Form, ...] = ("question", "document")
ROUNDS = 4
MAX_FALSE_POSITIVES = 0.02
"""Share of benign texts, out of fold, that may score above the threshold: below the .03 aimed at, for safety."""
WORDS_IN_COMMON = 5


@dataclass(frozen=True, slots=True)
class Item:
    text: str
    label: int
    kind: str
    form: Form
    group: str


def form_of(kind: str) -> Form:
    return "document" if "document" in kind else "question"


def read_items(path: Path) -> list[Item]:
    """Rows of a JSON-lines file with `text`, `label`, `kind`, and `grp` or `attack` where known."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    groups = _groups(rows)
    return [
        Item(row["text"], row["label"], row["kind"], form_of(row["kind"]), group)
        for row, group in zip(rows, groups, strict=True)
    ]


def _groups(rows: Sequence[dict[str, str]]) -> list[str]:
    """One name for all rows that share an attack's wording or a document."""
    parent = list(range(len(rows)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    seen: dict[object, int] = {}
    for i, row in enumerate(rows):
        keys: list[object] = [row["attack"]] if "attack" in row else []
        if "attack" not in row and row["label"]:
            words = re.findall(r"\w+", row["text"].lower())
            keys += [tuple(words[j : j + WORDS_IN_COMMON]) for j in range(max(1, len(words) - WORDS_IN_COMMON + 1))]
        if not row["label"]:
            keys.append(row.get("grp") or row["text"])
        for key in keys:
            parent[root(i)] = root(seen.setdefault(key, i))
    return [str(root(i)) for i in range(len(rows))]


class Bags:
    """The windows of many texts as one matrix: embedding columns, then n-gram buckets."""

    def __init__(self, items: Sequence[Item], embedder: Embedder) -> None:
        windows = [windows_of(item.text, item.form) or [" "] for item in items]
        flat = [window for bag in windows for window in bag]
        self.windows = flat
        self.owner = np.repeat(np.arange(len(items)), [len(bag) for bag in windows])
        columns = [ngram_buckets(window) for window in flat]
        ngrams = sparse.csr_matrix(
            (np.concatenate([w for _, w in columns]), np.concatenate([b for b, _ in columns]),
             np.cumsum([0, *(len(b) for b, _ in columns)])), shape=(len(flat), BUCKETS),
        )  # fmt: skip
        self.matrix = sparse.hstack([sparse.csr_matrix(embedder.encode(flat).vectors), ngrams]).tocsr()
        self.labels = np.array([item.label for item in items])

    def highest(self, logits: NDArray[np.float64], rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """Per text its windows' highest logit; `logits` belong to the windows numbered `rows`."""
        best = np.full(len(self.labels), -np.inf)
        np.maximum.at(best, self.owner[rows], logits)
        return best


def fit(bags: Bags, chosen: NDArray[np.intp], strength: float) -> LogisticRegression:
    """Fit on the texts numbered `chosen`. `strength` is scikit-learn's C."""
    rows = np.flatnonzero(np.isin(bags.owner, chosen))
    owner = bags.owner[rows]
    positive = bags.labels[owner] == 1
    # first guess: an attack's shortest distance from anything benign is unknown, so all its windows count
    keep, model = np.ones(len(rows), dtype=bool), None
    for _ in range(ROUNDS):
        used = rows[keep]
        labels = bags.labels[bags.owner[used]]
        # every text weighs the same, whatever its number of windows; both classes weigh the same
        per_text = np.bincount(bags.owner[used], minlength=len(bags.labels))[bags.owner[used]]
        weights = np.where(labels == 1, 1 / per_text, 1 / np.sqrt(per_text))
        for label in (0, 1):
            weights[labels == label] /= weights[labels == label].sum()
        model = LogisticRegression(C=strength, max_iter=400)
        model.fit(bags.matrix[used], labels, sample_weight=weights * len(chosen))
        best = bags.highest(model.decision_function(bags.matrix[rows]), rows)
        keep = ~positive | (model.decision_function(bags.matrix[rows]) >= best[owner] - 1e-9)
    assert model is not None
    return model


def cross_validate(items: Sequence[Item], bags: Bags, folds: int, strength: float) -> NDArray[np.float64]:
    """Out-of-fold logit of every text."""
    logits = np.full(len(items), np.nan)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    for train, test in splitter.split(items, bags.labels, [item.group for item in items]):
        model = fit(bags, train, strength)
        rows = np.flatnonzero(np.isin(bags.owner, test))
        logits[test] = bags.highest(model.decision_function(bags.matrix[rows]), rows)[test]
    return logits


def report(items: Sequence[Item], flagged: NDArray[np.bool_]) -> None:
    shares: dict[str, list[bool]] = defaultdict(list)
    for item, flag in zip(items, flagged, strict=True):
        shares[item.kind].append(bool(flag))
    for kind, flags in sorted(shares.items()):
        print(f"  {kind:28} n={len(flags):5}  flagged {np.mean(flags):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("items", type=Path)
    parser.add_argument("--examples", type=Path, default=Path(__file__).with_name("injection_examples.jsonl"))
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--strength", type=float, default=10.0)
    parser.add_argument("--dry-run", action="store_true", help="print the figures, write no weights")
    args = parser.parse_args()
    embedder = MiniLM()
    everything = read_items(args.items) + (read_items(args.examples) if args.examples.exists() else [])
    arrays: dict[str, NDArray[np.float16] | NDArray[np.float64] | NDArray[np.str_]] = {"model": np.array(embedder.fingerprint)}
    for form in FORMS:
        items = [item for item in everything if item.form == form]
        bags = Bags(items, embedder)
        logits = cross_validate(items, bags, args.folds, args.strength)
        public = np.array([item.kind != "example" for item in items])
        benign = (bags.labels == 0) & public
        threshold = float(np.quantile(logits[benign], 1 - MAX_FALSE_POSITIVES))
        print(f"{form}: {len(items)} texts, threshold {threshold:.3f}; out of fold:")
        report(items, logits >= threshold)
        model = fit(bags, np.arange(len(items)), args.strength)
        weights = model.coef_[0]
        split = embedder.dimension
        arrays |= {
            f"{form}_embedding": weights[:split].astype(np.float16),
            f"{form}_ngrams": weights[split:].astype(np.float16),
            f"{form}_bias_threshold": np.array([model.intercept_[0], 1 / (1 + np.exp(-threshold))]),
        }
    if not args.dry_run:
        path = Path("citewell/guards") / WEIGHTS
        np.savez_compressed(path, **arrays)  # type: ignore[arg-type]  # numpy's stub takes arrays by name
        print(f"wrote {path}, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
