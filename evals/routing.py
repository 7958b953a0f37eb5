"""Measure the rule for simple questions: how many it calls simple, and whether these are the easy ones.

    python -m evals.answers CORPUS QUERIES QRELS --details DETAILS.jsonl
    python -m evals.routing DETAILS.jsonl [--json]

DETAILS holds questions with confidence, gold answers and the answer of a model; the quoting answerer, the cheapest there
is, stands for a cheap model. The rule is worth having if that one is right more often on the questions called simple.
A file without confidences (any QUERIES.jsonl) is judged by the words alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from chains.evidence import fitted
from chains.simple import is_lookup, is_simple
from citewell.citations import strip
from evals.answers import holds
from evals.packs import read_jsonl


def measure(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Shares 0..1: of questions called simple, and of answers that hold the gold, among those and the others."""
    figures: dict[str, float] = {
        "questions": len(rows),
        "simple_by_words": fmean(is_lookup(row.get("question") or row["text"]) for row in rows),
    }
    answered = [
        row
        for row in rows
        if row.get("answerable") and row.get("answer") and row["confidence"] >= fitted().supported_from
    ]
    if answered:
        right = [(is_simple(row["question"], confidence=row["confidence"]), holds(strip(row["answer"]), row["golds"])) for row in answered]  # fmt: skip
        figures["answered"] = len(answered)
        figures["simple"] = fmean(simple for simple, _ in right)
        for name, kind in (("simple_right", True), ("other_right", False)):
            if some := [is_right for simple, is_right in right if simple is kind]:
                figures[name] = fmean(some)
    return {name: round(value, 4) for name, value in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m evals.routing", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("details", type=Path)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    figures = measure(list(read_jsonl(args.details)))
    if args.json:
        print(json.dumps(figures, indent=2))
    else:
        for name, value in figures.items():
            print(f"{name:<18}{value:>10}")


if __name__ == "__main__":
    main()
