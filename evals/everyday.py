"""Short questions as people ask them, to four small collections: how many are answered, and how many rightly refused?

    python -m evals.everyday [--details DETAILS.jsonl] [--json]

`everyday.jsonl` asks the samples in `examples/`, the made-up documents in `evals/handbook/` (a firm's handbook, house
rules, a library's page, a machine's instructions), the twelve in `evals/papers/` (an insurance policy, minutes, recipes, a price
list, e-mails, ...), the five in `evals/leaflets/` (terms, rules, records, news) and the six in `evals/notices/` (opening hours, menus,
faults, a policy, statutes in German). `holds` lists what the answer must hold, each in
one of several wordings; empty where the documents do not say it. Of several questions in `asked` the last follows on the others.
`style` says how it is asked; a "condition" is right only with the exception that stands near the answer. Each goes the way a turn
goes, without a key. Written by hand, few, and known to those who chose the features of the confidence: they show what kind of
question fails, not how many of yours will.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from langchain_core.messages import HumanMessage

from chains.condense import by_rule
from chains.extract import NEAREST
from citewell.citations import strip
from evals.answers import Asked, turns
from evals.command import show
from evals.packs import read_jsonl

_HERE = Path(__file__).parent
FOLDERS = {"examples": _HERE.parent / "examples"} | {
    name: _HERE / name for name in ("handbook", "papers", "leaflets", "notices")
}


def holds(answer: str, parts: Sequence[Sequence[str]]) -> bool:
    """Whether an answer holds every part, in one of its wordings."""
    plain = " ".join(answer.replace("\u00b7", " ").split())
    return all(any(wording in plain for wording in wordings) for wordings in parts)


def kind(row: dict[str, Any]) -> str:
    if "style" in row:
        return (
            f"{row['folder']}: {row['style']}"
            if row["folder"] in ("papers", "leaflets", "notices")
            else str(row["style"])
        )
    if not row["holds"]:
        return "not there"
    if len(row["asked"]) > 1:
        return "follow-up"
    return "two things" if len(row["holds"]) > 1 else "one thing"


async def answered(folder: str, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each row with its `kind`, the `answer`, its `confidence`, whether it was `refused`, given with `reserve`, and is `right`, and how
    many sentences in it are `needless`: they hold nothing of what it must hold."""
    found = []
    async with turns(FOLDERS[folder]) as turn:
        for row in rows:
            *before, last = row["asked"]
            standalone, typed = by_rule(last, [HumanMessage(text) for text in before])
            asked = Asked(
                    id="", text=typed, standalone="" if standalone == typed else standalone,
                    answerable=bool(row["holds"]), golds=[], sources=frozenset(),
                )  # fmt: skip
            outcome = await turn(asked)
            refused = not (outcome.is_supported and outcome.citations)
            quoted = [] if refused else [citation["sentence"] for citation in outcome.citations]
            right = refused if not row["holds"] else not refused and holds(strip(outcome.answer), row["holds"])
            found.append(
                    row | {
                        "kind": kind(row), "confidence": round(outcome.confidence, 3), "refused": refused,
                        "reserve": not refused and outcome.answer.startswith(NEAREST), "right": right,
                        "needless": sum(not any(holds(sentence, [part]) for part in row["holds"]) for sentence in quoted),
                        "answer": outcome.answer,
                    }
                )  # fmt: skip
    return found


async def run() -> list[dict[str, Any]]:
    asked: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in read_jsonl(_HERE / "everyday.jsonl"):
        asked[row["folder"]].append(row)
    return [row for folder, rows in asked.items() for row in await answered(folder, rows)]


def figures(found: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """By kind of question: how many, the shares right, refused and answered with reserve, and needless sentences per question."""
    result = {}
    for name in dict.fromkeys(row["kind"] for row in found):
        some = [row for row in found if row["kind"] == name]
        result[name] = {
            "questions": len(some),
            "right": round(fmean(row["right"] for row in some), 3),
            "refused": round(fmean(row["refused"] for row in some), 3),
            "reserve": round(fmean(row["reserve"] for row in some), 3),
            "needless": round(fmean(row["needless"] for row in some), 2),
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--details", type=Path, help="write every answer into this JSON lines file")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    found = asyncio.run(run())
    if args.details:
        args.details.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found), encoding="utf-8")
    show(figures(found), width=24, as_json=args.json)


if __name__ == "__main__":
    main()
