"""Measure the detection of personal data.

    python -m evals.pii FILE.jsonl [--names PIPELINE] [--json]

FILE has one object a line: `text` and `spans` ([{type, start, end}], or null for texts without patterned data).
A span is found when one hit of its kind covers it. A negative is a text without any span of a patterned kind; it
counts as a false positive when any patterned kind is found in it.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from citewell.guards.names import open_names
from citewell.guards.personal import Detector, Hit
from evals.command import existing
from evals.packs import read_jsonl

KINDS = {
    "EMAIL_ADDRESS": "email", "PHONE_NUMBER": "phone", "CREDIT_CARD": "card", "IBAN_CODE": "iban",
    "IP_ADDRESS": "ip", "US_SSN": "national_id",
}  # fmt: skip
"""The data's names of the patterned kinds -> ours."""
NAMED = {"PERSON": "name", "GPE": "place"}
"""Found by a model, where one is named."""


def measure(rows: Sequence[dict[str, Any]], detector: Detector) -> dict[str, Any]:
    """Recall by kind, false positives on negatives, and hits that no span explains."""
    found: Counter[str] = Counter()
    total: Counter[str] = Counter()
    spurious: Counter[str] = Counter()
    negatives = false = 0
    for row in rows:
        spans, hits = row["spans"] or [], detector.find(row["text"])
        wanted = [span for span in spans if span["type"] in KINDS]
        for span in spans:
            total[span["type"]] += 1
            found[span["type"]] += any(_covers(hit, span) for hit in hits)
        if not wanted:
            negatives += 1
            false += any(hit.kind not in NAMED.values() for hit in hits)
        for hit in hits:
            if hit.kind not in NAMED.values() and not any(
                hit.start < span["end"] and span["start"] < hit.end for span in wanted
            ):
                spurious[hit.kind] += 1
    patterned = [kind for kind in total if kind in KINDS]
    all_found, all_total = sum(found[kind] for kind in patterned), sum(total[kind] for kind in patterned)
    return {
        "patterned": {
            kind: {"n": total[kind], "recall": round(found[kind] / total[kind], 4)} for kind in sorted(patterned)
        },
        "named": {
            kind: {"n": total[kind], "recall": round(found[kind] / total[kind], 4)}
            for kind in sorted(NAMED)
            if total[kind]
        },
        "recall_patterned": round(all_found / all_total, 4) if all_total else None,
        "negatives": negatives,
        "fpr_negatives": round(false / negatives, 4) if negatives else None,
        "hits_outside_spans": dict(sorted(spurious.items())),
        "other_spans": {kind: total[kind] for kind in sorted(total) if kind not in KINDS | NAMED},
    }


def _covers(hit: Hit, span: dict[str, Any]) -> bool:
    return hit.kind == (KINDS | NAMED).get(span["type"]) and hit.start <= span["start"] and span["end"] <= hit.end


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=existing)
    parser.add_argument("--names", metavar="PIPELINE", help="a spaCy pipeline that finds people and places")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    detector = Detector(open_names(args.names) if args.names else None)
    result = measure(list(read_jsonl(args.file)), detector)
    if args.json:
        print(json.dumps(result))
        return
    for kind, figures in (result["patterned"] | (result["named"] if args.names else {})).items():
        print(f"{kind:16}{figures['n']:6}  recall {figures['recall']:.3f}")
    print(f"all patterned kinds: recall {result['recall_patterned']}")
    print(
        f"negatives {result['negatives']}, FPR {result['fpr_negatives']}; hits outside spans {result['hits_outside_spans']}"
    )
    print(f"spans of other kinds, not looked for: {result['other_spans']}")


if __name__ == "__main__":
    main()
