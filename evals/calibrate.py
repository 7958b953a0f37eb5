"""Fit and draw the line between "in the documents" and "not there": `chains/evidence.npz`.

    python -m evals.calibrate [--data DIR] [--sample 1000] [--indexes DIR] [--plot docs/img/confidence.png] [--json]

Questions of the public halves of SQuAD 2, ClapNQ and MTRAG, searched and reranked as in a turn: answerable ones; unanswerable
ones, which people wrote (SQuAD) or left unanswered (ClapNQ, MTRAG) about the very same things; and `absent` ones, the
answerable again with their own article left out of the search. Weighted so that half are answerable, a quarter of each
other kind, and every pack counts alike. The figures printed are cross-validated: each fifth of the articles is judged by a line fitted on the
others. The operating point is the confidence that refuses 2 % of the answerable questions. Where it is known what would be quoted,
it is the confidence by that, too, which refuses 2 % of those for which the right document is quoted; this one is drawn.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chains import evidence
from chains.evidence import ALL_FEATURES, FEATURES, WORD_FEATURES, features
from chains.extract import select
from citewell.models import open_embedder
from citewell.retrieval import open_index
from citewell.settings import Settings
from evals.answers import auc, draw
from evals.command import add_data
from evals.packs import read_corpus, read_jsonl, read_qrels
from evals.retrieval import fill
from evals.train_sentences import fit

PACKS = ("squad2", "clapnq", "conv_mtrag")
REFUSED_ANSWERABLE = 0.02
_FOLDS = 5


class Case(NamedTuple):
    """One question as the line sees it."""

    pack: str
    kind: str
    """`answerable`, `unanswerable` or `absent`."""
    group: str
    """The article: all its questions are in one fold."""
    row: tuple[float, ...]
    """ALL_FEATURES."""
    answers: float
    """Probability (0..1) that a quoted sentence answers."""
    is_right: bool
    """Whether a document that holds the answer is quoted."""


def ask(name: str, data: Path) -> list[tuple[str, str, str, str]]:
    """(id, question, kind, article) of a pack's public half. MTRAG's are the standalone rewrites of follow-ups."""
    folder = data / name
    titles = {str(row["_id"]): row.get("title") or "" for row in read_jsonl(folder / "corpus.jsonl")}
    asked = []
    for row in read_jsonl(folder / "public" / "queries.jsonl"):
        if "answerability" in row:
            kind = {"ANSWERABLE": "answerable", "UNANSWERABLE": "unanswerable"}.get((row["answerability"] or [""])[0])
            if kind and row["rewrite"] and (kind == "unanswerable" or row["gold_in_corpus"] == "full"):
                asked.append((row["_id"], row["rewrite"], kind, row["_id"].split("<")[0]))
            continue
        title = titles[row.get("paragraph_id") or row["passage_id"]]
        asked.append((row["_id"], row["text"], "answerable" if row["answerable"] else "unanswerable", title))
        if row["answerable"]:
            asked.append((row["_id"], row["text"], "absent", title))
    return asked


async def gather(name: str, data: Path, sample: int, seed: int, folder: Path) -> list[Case]:
    """Search every question of a pack and compute the features."""
    questions = ask(name, data)
    ids = {
        kind: sorted({id_ for id_, _, kind_, _ in questions if (kind_ == "unanswerable") == (kind == "unanswerable")})
        for kind in ("answerable", "unanswerable")
    }
    rng = random.Random(seed)
    judged = read_qrels(data / name / "public" / "qrels.tsv")
    chosen = {id_ for each in ids.values() for id_ in rng.sample(each, min(sample, len(each)))}
    settings = Settings.load(data_dir=folder / f"index_{name}", retrieval_timeout_s=120)
    embedder = open_embedder(settings)
    cases = []
    async with open_index(settings, embedder) as index:
        await fill(index, read_corpus(data / name / "corpus.jsonl"), settings)
        for id_, question, kind, article in questions:
            if id_ in chosen:
                where: dict[str, object] | None = {"title": {"$ne": article}} if kind == "absent" else None
                kept = await index.rerank(question, await index.search(question, where=where), top_k=settings.top_k)
                values = features(question, kept)
                quoted = await asyncio.to_thread(select, question, kept[: settings.top_n], embedder, typed=question)
                assert quoted.answers is not None, "the questions follow on no others"
                row = tuple(values[name] for name in ALL_FEATURES)
                is_right = kind == "answerable" and any(
                    kept[one.number - 1].chunk.source in judged.get(id_, ()) for one in quoted.sentences
                )
                cases.append(Case(name, kind, f"{name} {article}", row, quoted.answers, is_right))
    embedder.close()
    return cases


def weigh(cases: Sequence[Case]) -> NDArray[np.float64]:
    """Weights that make half the cases answerable and a quarter of each other kind, every pack alike."""
    share = {"answerable": 0.5, "unanswerable": 0.25, "absent": 0.25}
    count = Counter((case.pack, case.kind) for case in cases)
    packs = Counter(kind for _, kind in count)
    return np.array([share[case.kind] / packs[case.kind] / count[case.pack, case.kind] for case in cases]) * len(cases)


def predicted(rows: NDArray[np.float32], weights: NDArray[np.float32], bias: float) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-(rows @ weights + bias))), np.float64)


def cross_validated(cases: Sequence[Case], rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """The confidence of each case by a line over `rows`, [cases, features], that never saw its article."""
    groups = sorted({case.group for case in cases})
    random.Random(0).shuffle(groups)
    fold = {group: i % _FOLDS for i, group in enumerate(groups)}
    folds = np.array([fold[case.group] for case in cases])
    right = np.array([case.kind == "answerable" for case in cases])
    weights = weigh(cases)
    result = np.zeros(len(cases))
    for held in range(_FOLDS):
        train = folds != held
        result[~train] = predicted(rows[~train], *fit(rows[train], right[train], weights[train]))
    return result


def lowest(values: NDArray[np.float64], weights: NDArray[np.float64], share: float) -> float:
    """The weighted quantile of the values."""
    order = np.argsort(values)
    return float(values[order][np.searchsorted(np.cumsum(weights[order]) / weights.sum(), share)])


def figures(cases: Sequence[Case], confidence: NDArray[np.float64], threshold: float) -> dict[str, Any]:
    """Per pack and kind: how many are refused; and how well each kind is told from the answerable."""
    result: dict[str, Any] = {}
    for pack in sorted({case.pack for case in cases}):
        by_kind = {
            kind: [
                float(value)
                for case, value in zip(cases, confidence, strict=True)
                if (case.pack, case.kind) == (pack, kind)
            ]
            for kind in ("answerable", "unanswerable", "absent")
        }
        result[pack] = {
            kind: {
                "n": len(values),
                "refused": round(sum(value < threshold for value in values) / max(1, len(values)), 3),
                "auc": None if kind == "answerable" else round(auc(by_kind["answerable"], values), 3),
            }
            for kind, values in by_kind.items()
        }
    return result


def calibration_error(cases: Sequence[Case], confidence: NDArray[np.float64]) -> float:
    """Expected calibration error over ten bins, with the weights of `weigh` (Naeini et al. 2015)."""
    weights, right = weigh(cases), np.array([case.kind == "answerable" for case in cases], float)
    bins = np.minimum((confidence * 10).astype(int), 9)
    total = 0.0
    for one in range(10):
        inside = bins == one
        if weights[inside].sum():
            gap = abs(
                np.average(confidence[inside], weights=weights[inside])
                - np.average(right[inside], weights=weights[inside])
            )
            total += gap * weights[inside].sum()
    return float(total / weights.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data(parser)
    parser.add_argument("--sample", type=int, default=1000, help="of each pack, answerable and not")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--indexes", type=Path, help="keep the indexes in this folder and use them again")
    parser.add_argument("--plot", type=Path, help="draw trade-off and calibration into this PNG")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.indexes or Path(temporary)
        cases = [
            case for name in PACKS
            for case in asyncio.run(gather(name, args.data, args.sample, args.seed, folder))
        ]  # fmt: skip
    rows = np.array([case.row for case in cases], np.float32)
    right = np.array([case.kind == "answerable" for case in cases])
    full = rows[:, [ALL_FEATURES.index(name) for name in FEATURES]]
    by_chunks = cross_validated(cases, full)
    answers = np.array([case.answers for case in cases])
    lines = {
        "full": full,
        "words": rows[:, [ALL_FEATURES.index(name) for name in WORD_FEATURES]],
        "quoted": np.column_stack([np.log(by_chunks / (1 - by_chunks)), answers]).astype(np.float32),
    }
    saved: dict[str, Any] = {}
    report: dict[str, Any] = {}
    for name, table in lines.items():
        honest = cross_validated(cases, table)
        weights, bias = fit(table, right, weigh(cases))
        if name != "words":
            paid = np.array([case.is_right for case in cases]) if name == "quoted" else right
            threshold = round(lowest(honest[paid], weigh(cases)[paid], REFUSED_ANSWERABLE), 3)
            saved["quoted_from" if name == "quoted" else "supported_from"] = np.float32(threshold)
        saved |= {f"{name}_weights": weights, f"{name}_bias": np.float32(bias)}
        report[name] = {
            "supported_from": threshold, "calibration_error": round(calibration_error(cases, honest), 3),
            **figures(cases, honest, threshold),
        }  # fmt: skip
        if name == "quoted" and args.plot:
            by_kind = {
                kind: [float(value) for case, value in zip(cases, honest, strict=True) if case.kind == kind]
                for kind in ("answerable", "unanswerable", "absent")
            }
            others: dict[str, Sequence[float]] = {kind: by_kind[kind] for kind in ("unanswerable", "absent")}
            draw(
                args.plot,
                "In the documents or not: public halves of SQuAD 2, ClapNQ and MTRAG, cross-validated",
                by_kind["answerable"],
                others,
            )
    np.savez(Path(evidence.__file__).with_name("evidence.npz"), **saved)
    if args.json:
        print(json.dumps(report, indent=2))
        return
    for name, part in report.items():
        print(f"\n{name}: supported from {part['supported_from']}, calibration error {part['calibration_error']}")
        for pack in PACKS:
            for kind, row in part[pack].items():
                print(
                    f"  {pack:<12}{kind:<14}{row['n']:>6} questions  refused {row['refused']:.3f}  AUC {row['auc'] or '-'}"
                )


if __name__ == "__main__":
    main()
