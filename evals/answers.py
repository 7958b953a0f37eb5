"""Judge answers by data: do they hold the gold answer, cite the gold paragraph or page, refuse where there is none?

    python -m evals.answers CORPUS QUERIES [QRELS] [--json] [--model NAME] [--sample N] [--index DIR] [--plot PNG]

CORPUS is a `corpus.jsonl` or a folder of files, which is then ingested as any folder is. QUERIES holds SQuAD 2,
ClapNQ or FinanceBench questions (the fields tell which). Everything goes the way a turn of the service goes: search,
rerank, confidence, answer, verification.

Refusals come twice: by the confidence line (the operating point), and by the answerer itself where it finds nothing to quote.
Where questions carry their article's title, `absent` asks the answerable ones again with that article left out of
the search: questions whose answer really is not in the documents.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import string
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from langchain_core.runnables import Runnable, RunnableLambda

from chains.answer import AnswerInput, answer_messages
from citewell.citations import Citation, strip, verify
from citewell.documents import ScoredChunk
from citewell.guards.features import ends_at
from citewell.ingestion.sync import ingest
from citewell.retrieval.neighbours import join
from citewell.settings import EXTRACTIVE, Settings
from citewell.wiring import open_parts
from evals.command import existing
from evals.packs import read_corpus, read_jsonl, read_qrels
from evals.retrieval import fill
from graph.parts import Parts
from graph.searching import Searching
from graph.state import RunContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question of a test collection and what is known about its answer."""

    id: str
    text: str
    answerable: bool
    golds: Sequence[str]
    """Answers that count as right; short for SQuAD, sentences to quote for ClapNQ."""
    sources: frozenset[str]
    """Uris of the documents that hold the answer."""
    pages: frozenset[tuple[str, int]] = frozenset()
    """(file name, page from 1) of the evidence, where the documents have pages."""
    article: str | None = None
    standalone: str = ""
    """What a rule made of it, where it is a follow-up that it added words to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came back."""

    asked: Asked
    confidence: float
    is_supported: bool
    """Whether the confidence is above its line. All are answered, to see what the line costs."""
    answer: str
    citations: Sequence[Citation]
    retrieved: Sequence[ScoredChunk]
    given: Sequence[ScoredChunk]
    """What the answer was made from."""
    seconds: float


def read_questions(path: Path, qrels: Path | None) -> list[Asked]:
    judged = read_qrels(qrels) if qrels else {}
    questions = []
    for row in read_jsonl(path):
        id_ = str(row["_id"])
        pages = frozenset((f"{one['doc']}.pdf", one["page0"] + 1) for one in row.get("evidence", []))
        selected = [sentence for output in row.get("outputs", []) for sentence in output.get("selected_sentences", [])]
        questions.append(
            Asked(
                id=id_, text=row["text"], answerable=row.get("answerable", True),
                golds=row.get("answers") or selected or ([row["answer"]] if "answer" in row else []),
                sources=frozenset(judged.get(id_, ())) or frozenset(file for file, _ in pages),
                pages=pages, article=row.get("article"),
            )
        )  # fmt: skip
    return questions


class Turn:
    """Answers one question as the graph does, without the thread around it."""

    def __init__(self, parts: Parts, answerer: Runnable[AnswerInput, Any]) -> None:
        self._parts = parts
        self._settings = parts.settings
        self._searching = Searching(parts)
        self._answerer = answerer

    async def __call__(self, asked: Asked, *, without: str | None = None, answer: bool = True) -> Outcome:
        began = time.perf_counter()
        context = RunContext(filter={"title": {"$ne": without}} if without else None)
        question, typed, hits = await self._searching.found(context, asked.standalone or asked.text, asked.text)
        best, kept = await self._searching.best(hits, typed, self._settings.top_k)
        question = best.question
        confidence = self._parts.evidence.confidence(question, kept)
        is_supported = self._parts.evidence.is_supported(confidence)
        text, citations, shown = "", list[Citation](), list[ScoredChunk]()
        if answer:
            shown = kept[: self._settings.top_n]
            if self._settings.neighbour_chars:
                around = await self._parts.index.neighbours(shown)
                shown = join(shown, around, max_chars=self._settings.neighbour_chars, apart=ends_at)
            given = AnswerInput(question=question, typed=typed, chunks=shown, history=[], summary="")
            said = await self._answerer.ainvoke(given)
            text, head = said.text, said.response_metadata
            if "sentences" in head:  # quotations
                confidence, is_supported = self._parts.evidence.quoted(confidence, head.get("answers"), kept)
            citations = verify(text, shown)
            for citation in citations:  # a chunk may run over the end of a page; the graph puts it right as well
                if citation["page"] is not None:
                    citation["page"] = await self._parts.index.page_at(citation["source"], citation["start"])
        return Outcome(
            asked=asked, confidence=confidence, is_supported=is_supported, answer=text, citations=citations, retrieved=kept, given=shown,
            seconds=time.perf_counter() - began,
        )  # fmt: skip


@asynccontextmanager
async def turns(
    corpus: Path, folder: Path | None = None, *, model: str = EXTRACTIVE, **chosen: Any
) -> AsyncIterator[Turn]:
    """Turns over a corpus.

    Args:
        corpus: A `corpus.jsonl`, or a folder of files, which is ingested.
        folder: Where the index is kept for the next run; None: nowhere.
        model: What answers.
        chosen: Settings that differ from the environment's. Quotations are made without neighbours unless they say otherwise.
    """
    if model == EXTRACTIVE:
        chosen = {"neighbour_chars": 0} | chosen
    with tempfile.TemporaryDirectory() as scratch:
        settings = Settings.load(
            data_dir=folder or Path(scratch), chat_model=model, retrieval_timeout_s=120, injection_guard="off", **chosen
        )
        async with open_parts(settings) as parts:
            if not await asyncio.to_thread(corpus.is_dir):
                await fill(parts.index, read_corpus(corpus), settings)
            elif not await parts.index.sources():
                report = await ingest(parts.index, [corpus], settings)
                print(f"ingested {corpus}: {len(report.files)} files in {report.elapsed_s:.0f} s", file=sys.stderr)
            answerer: Runnable[AnswerInput, Any] = parts.extractive
            if model != EXTRACTIVE:
                answerer = RunnableLambda(answer_messages) | parts.models.get()
            yield Turn(parts, answerer)


def normalised(text: str) -> str:
    """As the official SQuAD script does: lower case, no punctuation, no articles, single spaces."""
    text = "".join(char for char in text.lower() if char not in string.punctuation)
    return " ".join(re.sub(r"\b(?:a|an|the)\b", " ", text).split())


def holds(answer: str, golds: Sequence[str]) -> bool:
    padded = f" {normalised(answer)} "
    return any(f" {normalised(gold)} " in padded for gold in golds if normalised(gold))


def f1(answer: str, golds: Sequence[str]) -> float:
    """Best token F1 over the gold answers, 0..1."""
    said = normalised(answer).split()
    best = 0.0
    for gold in golds:
        right = normalised(gold).split()
        common = sum((Counter(said) & Counter(right)).values())
        if common:
            best = max(best, 2 * common / (len(said) + len(right)))
    return best


def judge(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Answerable questions, all of them answered whatever the confidence."""
    answers = [strip(one.answer) for one in outcomes]
    citations = [citation for one in outcomes for citation in one.citations]
    result = {
        "questions": len(outcomes),
        "contains_gold": fmean(holds(text, one.asked.golds) for text, one in zip(answers, outcomes, strict=True)),
        "gold_given": fmean(max(_given(one), default=False) for one in outcomes),
        "golds_given": fmean(fmean(_given(one) or [False]) for one in outcomes),
        "chars_given": fmean(sum(len(each.chunk.text) for each in one.given) for one in outcomes),
        "exact_match": fmean(
            any(normalised(text) == normalised(gold) for gold in one.asked.golds)
            for text, one in zip(answers, outcomes, strict=True)
        ),
        "f1": fmean(f1(text, one.asked.golds) for text, one in zip(answers, outcomes, strict=True)),
        "gold_source_cited": fmean(bool(one.asked.sources & _sources(one)) for one in outcomes),
        "gold_source_cited_first": fmean(
            bool(one.citations) and bool(one.asked.sources & _names(one.citations[0]["source"])) for one in outcomes
        ),
        "citations_of_gold_source": fmean(
            bool(one.asked.sources & _names(citation["source"])) for one in outcomes for citation in one.citations
        ) if citations else 0.0,
        "citations_verified": fmean(citation["status"] == "verified" for citation in citations) if citations else 0.0,
        "refused_by_the_answerer": fmean(not one.citations for one in outcomes),
        "sentences": fmean(len(one.citations) for one in outcomes),
        "words": fmean(len(text.split()) for text in answers),
        "ms": 1000 * fmean(one.seconds for one in outcomes),
    }  # fmt: skip
    if any(one.asked.pages for one in outcomes):
        result["gold_page_cited"] = fmean(bool(one.asked.pages & _pages(one)) for one in outcomes)
        result["gold_page_retrieved"] = fmean(
            bool(one.asked.pages & {(Path(c.chunk.source).name, c.chunk.page or 0) for c in one.retrieved})
            for one in outcomes
        )
    return {name: round(float(value), 4) for name, value in result.items()}


def _given(one: Outcome) -> list[bool]:
    """For each gold answer, whether it stands in a passage that the answer was made from."""
    return [any(holds(each.chunk.text, [gold]) for each in one.given) for gold in one.asked.golds]


def _names(source: str) -> frozenset[str]:
    return frozenset((source, Path(source).name))


def _sources(one: Outcome) -> frozenset[str]:
    return frozenset(name for citation in one.citations for name in _names(citation["source"]))


def _pages(one: Outcome) -> frozenset[tuple[str, int]]:
    return frozenset((Path(citation["source"]).name, citation["page"] or 0) for citation in one.citations)


def tradeoff(supported: Sequence[float], unsupported: Sequence[float]) -> list[tuple[float, float, float]]:
    """(threshold, share of answerable refused, share of unanswerable refused) for every threshold that matters."""
    return [
        (
            threshold,
            sum(value < threshold for value in supported) / max(1, len(supported)),
            sum(value < threshold for value in unsupported) / max(1, len(unsupported)),
        )
        for threshold in sorted({0.0, *supported, *unsupported, 1.01})
    ]


def auc(supported: Sequence[float], unsupported: Sequence[float]) -> float:
    """How often an answerable question has the higher confidence of two; ties count half."""
    order = sorted([(value, 1) for value in supported] + [(value, 0) for value in unsupported])
    total, below, i = 0.0, 0, 0
    while i < len(order):
        same = [kind for value, kind in order[i:] if value == order[i][0]]
        ups, downs = sum(same), len(same) - sum(same)
        total += ups * (below + downs / 2)
        below += downs
        i += len(same)
    return total / max(1, len(supported) * len(unsupported))


def refusals(answerable: Sequence[Outcome], others: Sequence[Outcome]) -> dict[str, float]:
    """How the confidence line parts the answerable from the others at the operating point, and what it is worth."""
    yes, no = [one.confidence for one in answerable], [one.confidence for one in others]
    return {
        "questions": len(no),
        "refused": round(fmean(not one.is_supported for one in others), 4),
        "answerable_refused": round(fmean(not one.is_supported for one in answerable), 4),
        "auc": round(auc(yes, no), 4),
    }


def draw(path: Path, title: str, answerable: Sequence[float], others: dict[str, Sequence[float]]) -> None:
    """The trade-off curve for each kind of unanswerable question, and how often each confidence turns out right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, values in others.items():
        points = tradeoff(answerable, values)
        left.plot([p[1] for p in points], [p[2] for p in points], label=f"{name} (AUC {auc(answerable, values):.2f})")
        bins = [(low / 10, low / 10 + 0.1) for low in range(10)]
        shown = []
        for low, high in bins:
            yes = sum(low <= value < high for value in answerable)
            no = sum(low <= value < high for value in values) * len(answerable) / max(1, len(values))
            if yes + no >= 10:
                shown.append(((low + high) / 2, yes / (yes + no)))
        right.plot([p[0] for p in shown], [p[1] for p in shown], "o-", label=f"against {name}")
    left.set(xlabel="answerable questions refused", ylabel="unanswerable questions refused", xlim=(0, 0.5), ylim=(0, 1))
    right.plot([0, 1], [0, 1], ":", color="grey")
    right.set(xlabel="confidence", ylabel="share answerable (both kinds equally frequent)", xlim=(0, 1), ylim=(0, 1))
    left.legend()
    right.legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


async def run(args: argparse.Namespace) -> dict[str, Any]:
    questions = read_questions(args.queries, args.qrels)
    random.Random(args.seed).shuffle(questions)
    if args.sample:
        questions = questions[: args.sample]
    chosen = {"top_n": args.top_n, "top_k": max(5, args.top_n)}
    if args.neighbour_chars is not None:
        chosen["neighbour_chars"] = args.neighbour_chars
    is_quoted = args.model == EXTRACTIVE  # what would be quoted tells whether it is; a model is not asked for that
    async with turns(args.corpus, args.index, model=args.model, **chosen) as turn:
        outcomes = [await turn(asked) for asked in questions if asked.answerable and (asked.sources or asked.pages)]
        others = {}
        negatives = [asked for asked in questions if not asked.answerable]
        if negatives:
            others["unanswerable"] = [await turn(asked, answer=is_quoted) for asked in negatives]
        if any(asked.article for asked in questions):
            others["absent"] = [
                await turn(one.asked, without=one.asked.article, answer=is_quoted)
                for one in outcomes
                if one.asked.article
            ]
    result: dict[str, Any] = {"model": args.model, "answerable": judge(outcomes)}
    result |= {name: refusals(outcomes, found) for name, found in others.items()}
    if args.plot and others:
        draw(
            args.plot, f"{args.corpus.parent.name}: answerable or not", [one.confidence for one in outcomes],
            {name: [one.confidence for one in found] for name, found in others.items()},
        )  # fmt: skip
    if args.details:
        lines = []
        for one in [*outcomes, *(one for found in others.values() for one in found)]:
            row = {"id": one.asked.id, "question": one.asked.text, "answerable": one.asked.answerable,
                   "golds": list(one.asked.golds)[:3], "confidence": one.confidence, "answer": one.answer,
                   "cited": [(c["source"], c["page"]) for c in one.citations],
                   "pages": sorted(one.asked.pages)}  # fmt: skip
            lines.append(json.dumps(row, ensure_ascii=False))
        await asyncio.to_thread(args.details.write_text, "\n".join(lines) + "\n", encoding="utf-8")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m evals.answers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=existing)
    parser.add_argument("queries", type=existing)
    parser.add_argument("qrels", type=existing, nargs="?")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--model", default=EXTRACTIVE, help="`extractive` or `provider:model`")
    parser.add_argument("--sample", type=int, default=0, help="this many questions, drawn at random; 0 takes all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--top-n", type=int, default=Settings.model_fields["top_n"].default, help="chunks answered from"
    )
    parser.add_argument(
        "--neighbour-chars", type=int,
        help="most characters of those with their neighbours; unset: 0 for `extractive`, else as a service has it",
    )  # fmt: skip
    parser.add_argument("--index", type=Path, help="keep the index in this folder and use it again")
    parser.add_argument("--plot", type=Path, help="draw trade-off and calibration into this PNG")
    parser.add_argument("--details", type=Path, help="write every answer into this JSON lines file")
    args = parser.parse_args(argv)
    if not any(
        asked.answerable and (asked.sources or asked.pages) for asked in read_questions(args.queries, args.qrels)
    ):
        parser.error("no question that has an answer names the document that holds it: give QRELS")
    result = asyncio.run(run(args))
    if args.json:
        print(json.dumps(result, indent=2))
        return
    for part, figures in result.items():
        if isinstance(figures, dict):
            print(f"\n{part}")
            for name, value in figures.items():
                print(f"  {name:<26}{value:>10}")


if __name__ == "__main__":
    main()
