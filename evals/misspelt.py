"""Ask questions with one slip of the fingers, and count how often they are still answered.

    python -m evals.misspelt CORPUS QUERIES QRELS [--sample 300] [--index DIR] [--json]

In each of SQuAD's answerable questions one word of five letters or more, not the first, loses a letter, gets one twice, has one
exchanged, or has two neighbours swapped, after its first letter: "When was the lihgthouse built?".
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from string import ascii_lowercase

from citewell.citations import strip
from evals.answers import Outcome, holds, read_questions, turns
from evals.command import pack_arguments, show

_WORD = re.compile(r"(?<=\W)[A-Za-z]{5,}")


def misspelt(question: str, rng: random.Random) -> str:
    """The question with one slip; as it is where no word is long enough."""
    words = list(_WORD.finditer(question))
    if not words:
        return question
    word = rng.choice(words)
    letters = word[0]
    i = rng.randrange(1, len(letters) - 1)
    slip = rng.choice([
        letters[:i] + letters[i + 1 :],
        letters[:i] + letters[i] + letters[i:],
        letters[:i] + rng.choice(ascii_lowercase) + letters[i + 1 :],
        letters[:i] + letters[i + 1] + letters[i] + letters[i + 2 :],
    ])  # fmt: skip
    return question[: word.start()] + slip + question[word.end() :]


def judge(outcomes: Sequence[Outcome]) -> dict[str, float]:
    refused = [not one.is_supported for one in outcomes]
    answered = [not no and holds(strip(one.answer), one.asked.golds) for one, no in zip(outcomes, refused, strict=True)]
    return {
        "questions": len(outcomes), "answered": round(fmean(answered), 3), "refused": round(fmean(refused), 3),
    }  # fmt: skip


async def run(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    questions = [asked for asked in read_questions(args.queries, args.qrels) if asked.answerable]
    rng = random.Random(args.seed)
    rng.shuffle(questions)
    questions = questions[: args.sample]
    slips = [replace(asked, text=misspelt(asked.text, rng)) for asked in questions]
    async with turns(args.corpus, args.index) as turn:
        return {
            name: judge([await turn(one) for one in asked])
            for name, asked in (("as meant", questions), ("misspelt", slips))
        }


def main() -> None:
    args = pack_arguments(__doc__, sample=300, of="questions", seed=5)
    show(asyncio.run(run(args)), width=10, as_json=args.json)


if __name__ == "__main__":
    main()
