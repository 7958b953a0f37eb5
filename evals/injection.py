"""Measure the injection guard as it ships.

    python -m evals.injection ITEMS.jsonl [--json]

ITEMS has one object a line: `text`, `label` (1: an attack), `kind`. One without the last two, as in a BEIR `queries.jsonl`, is
a question that people asked. Kinds with "document" in their name are judged
as an ingestion judges a chunk (skimmed after it was embedded, and scanned where that does not settle it), the others as
questions. Figures on the items the weights were trained on flatter the guard:
`evals.train_injection` prints the out-of-fold ones.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from citewell.guards.features import Form
from citewell.guards.injection import InjectionScanner
from citewell.models.embedder import Embedder
from citewell.models.minilm import MiniLM
from evals.command import existing
from evals.packs import read_jsonl

ASKED = "asked"
APART = "benign_trigger_words"
"""NotInject (Li et al. 2024, arXiv:2410.22770): benign, but full of the words that attacks use."""


def form_of(kind: str) -> Form:
    return "document" if "document" in kind else "question"


def score_chunk(text: str, scanner: InjectionScanner, embedder: Embedder) -> float:
    """0..1, what an ingestion comes to."""
    (skimmed,) = scanner.skim([text], embedder.encode([text], tokens=True))
    return scanner.score_documents([text])[0] if skimmed is None else skimmed


def measure(rows: Sequence[dict[str, Any]], scanner: InjectionScanner, embedder: Embedder) -> dict[str, Any]:
    """Shares flagged by kind, over all benign kinds together, and the time a question takes."""
    flagged: dict[str, list[bool]] = defaultdict(list)
    labels: dict[str, int] = {}
    times_ms = []
    for row in rows:
        form = form_of(row["kind"])
        start = time.perf_counter()
        score = (
            scanner.score_question(row["text"]) if form == "question" else score_chunk(row["text"], scanner, embedder)
        )
        if form == "question":
            times_ms.append((time.perf_counter() - start) * 1000)
        flagged[row["kind"]].append(score >= scanner.threshold(form))
        labels[row["kind"]] = row["label"]
    benign = [flag for kind, flags in flagged.items() if not labels[kind] for flag in flags]
    return {
        "kinds": {
            kind: {"n": len(flags), "label": labels[kind], "flagged": round(float(np.mean(flags)), 4)}
            for kind, flags in sorted(flagged.items())
        },
        "fpr_all_benign": round(float(np.mean(benign)), 4) if benign else None,
        "notinject_accuracy": round(1 - float(np.mean(flagged[APART])), 4) if flagged.get(APART) else None,
        "question_ms": {f"p{p}": round(float(np.percentile(times_ms, p)), 2) for p in (50, 95)} if times_ms else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("items", type=existing)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = [{"label": 0, "kind": ASKED} | row for row in read_jsonl(args.items)]
    embedder = MiniLM()
    result = measure(rows, InjectionScanner(embedder), embedder)
    if args.json:
        print(json.dumps(result))
        return
    print(f"{'kind':26}{'n':>6}  rate      flagged")
    for kind, figures in result["kinds"].items():
        print(f"{kind:26}{figures['n']:6}  {'TPR' if figures['label'] else 'FPR'}  {figures['flagged']:12.3f}")
    print(
        f"FPR on all benign kinds together {result['fpr_all_benign']}, NotInject accuracy {result['notinject_accuracy']}"
    )
    print(f"ms per question: {result['question_ms']}")


if __name__ == "__main__":
    main()
