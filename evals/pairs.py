"""Ask two questions in one, and count how often both are answered.

    python -m evals.pairs CORPUS QUERIES QRELS [--sample 200] [--index DIR] [--json]

Made from SQuAD's answerable questions that begin with a question word, two of one paragraph ("same paragraph") or of two
paragraphs of one article ("two paragraphs"): "When was Ann Arbor founded, and who founded it?".
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

from citewell.citations import strip
from evals.answers import Asked, Outcome, holds, read_questions, turns
from evals.command import pack_arguments, show

_ASKS = re.compile(r"(?:who|whom|whose|what|which|when|where|why|how)\b", re.IGNORECASE)
_LONGEST = 110
"""Characters of a question that is asked together with another."""


def pairs(questions: Sequence[Asked], *, one_paragraph: bool, most: int, seed: int) -> list[tuple[Asked, Asked]]:
    """Each question once at most."""
    together: dict[str, list[Asked]] = defaultdict(list)
    for asked in questions:
        if asked.answerable and _ASKS.match(asked.text) and len(asked.text) < _LONGEST:
            together[min(asked.sources) if one_paragraph else str(asked.article)].append(asked)
    rng = random.Random(seed)
    found = []
    for key in sorted(together):
        some = together[key]
        rng.shuffle(some)
        found += [
            (first, second)
            for first, second in zip(some[::2], some[1::2], strict=False)
            if (first.sources == second.sources) is one_paragraph
        ]
    rng.shuffle(found)
    return found[:most]


def in_one(first: Asked, second: Asked) -> Asked:
    return Asked(
        id=f"{first.id} {second.id}", text=f"{first.text.rstrip('? ')}, and {second.text[0].lower()}{second.text[1:]}",
        answerable=True, golds=[], sources=first.sources | second.sources,
    )  # fmt: skip


def judge(asked: Sequence[tuple[Asked, Asked]], outcomes: Sequence[Outcome]) -> dict[str, float]:
    answers = [strip(one.answer) for one in outcomes]
    first, second = (
        [holds(text, pair[which].golds) for text, pair in zip(answers, asked, strict=True)] for which in (0, 1)
    )
    figures = {
        "first_answered": fmean(first),
        "second_answered": fmean(second),
        "both_answered": fmean(a and b for a, b in zip(first, second, strict=True)),
        "citations_of_gold_sources": fmean(
            citation["source"] in one.asked.sources for one in outcomes for citation in one.citations
        ),
        "sentences": fmean(len(one.citations) for one in outcomes),
    }
    return {"questions": len(asked)} | {name: round(value, 3) for name, value in figures.items()}


async def run(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    questions = read_questions(args.queries, args.qrels)
    figures = {}
    async with turns(args.corpus, args.index) as turn:
        for name, one_paragraph in (("same paragraph", True), ("two paragraphs", False)):
            asked = pairs(questions, one_paragraph=one_paragraph, most=args.sample, seed=args.seed)
            figures[name] = judge(asked, [await turn(in_one(*pair)) for pair in asked])
    return figures


def main() -> None:
    args = pack_arguments(__doc__, sample=200, of="pairs of each kind", seed=3)
    show(asyncio.run(run(args)), width=16, as_json=args.json)


if __name__ == "__main__":
    main()
