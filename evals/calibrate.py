"""Fit and draw the line between "in the documents" and "not there": `chains/evidence.npz`.

    python -m evals.calibrate [--data DIR] [--sample 1000] [--indexes DIR] [--plot docs/img/confidence.png] [--json]

Questions of the public halves of SQuAD 2 and ClapNQ, searched and reranked as in a turn: answerable ones; unanswerable
ones, which people wrote (SQuAD) or left unanswered (ClapNQ) about the very paragraph; and `absent` ones, the answerable
again with their own article left out of the search. Weighted so that half are answerable and a quarter of each
other kind. The figures printed are cross-validated: each fifth of the articles is judged by a line fitted on the
others. The operating point is the confidence that refuses 5 % of the answerable questions.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chains import evidence
from chains.evidence import SIGNS, WORDS_ONLY, signs
from citewell.models import open_embedder
from citewell.retrieval import open_index
from citewell.settings import Settings
from evals.answers import auc, draw, fill, read_questions
from evals.citations import data_folder
from evals.packs import read_jsonl
from evals.train_sentences import fit

REFUSED_ANSWERABLE = 0.05
_FOLDS = 5


class Case(NamedTuple):
    """One question as the line sees it."""

    pack: str
    kind: str
    """`answerable`, `unanswerable` or `absent`."""
    group: str
    """The article: all its questions are in one fold."""
    row: tuple[float, ...]


async def gather(name: str, data: Path, sample: int, seed: int, folder: Path) -> list[Case]:
    """Search every question of a pack and read the signs."""
    questions = read_questions(data / name / "public" / "queries.jsonl", data / name / "public" / "qrels.tsv")
    titles = {str(row["_id"]): row.get("title") or "" for row in read_jsonl(data / name / "corpus.jsonl")}
    rows = {str(row["_id"]): row for row in read_jsonl(data / name / "public" / "queries.jsonl")}
    random.Random(seed).shuffle(questions)
    chosen = [*[q for q in questions if q.answerable][:sample], *[q for q in questions if not q.answerable][:sample]]
    settings = Settings.load(data_dir=folder / f"index_{name}", retrieval_timeout_s=120)
    embedder = open_embedder(settings)
    cases = []
    async with open_index(settings, embedder) as index:
        await fill(index, data / name / "corpus.jsonl", settings)
        for asked in chosen:
            row = rows[asked.id]
            group = titles[row.get("paragraph_id") or row["passage_id"]]
            kinds = ["answerable", "absent"] if asked.answerable else ["unanswerable"]
            for kind in kinds:
                where: dict[str, object] | None = {"title": {"$ne": group}} if kind == "absent" else None
                found = await index.search(asked.text, where=where)
                kept = await index.rerank(asked.text, found, top_k=settings.top_k)
                values = signs(asked.text, kept)
                cases.append(Case(name, kind, group, tuple(values[sign] for sign in SIGNS)))
    embedder.close()
    return cases


def weigh(cases: Sequence[Case]) -> NDArray[np.float64]:
    """Weights that make half the cases answerable and a quarter of each other kind, whatever their numbers."""
    share = {"answerable": 0.5, "unanswerable": 0.25, "absent": 0.25}
    count = {kind: sum(case.kind == kind for case in cases) for kind in share}
    return np.array([share[case.kind] / count[case.kind] for case in cases]) * len(cases)


def predicted(rows: NDArray[np.float32], weights: NDArray[np.float32], bias: float) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-(rows @ weights + bias))), np.float64)


def cross_validated(cases: Sequence[Case], columns: Sequence[int]) -> NDArray[np.float64]:
    """The confidence of each case by a line that never saw its article."""
    groups = sorted({case.group for case in cases})
    random.Random(0).shuffle(groups)
    fold = {group: i % _FOLDS for i, group in enumerate(groups)}
    folds = np.array([fold[case.group] for case in cases])
    rows = np.array([case.row for case in cases], np.float32)[:, columns]
    right = np.array([case.kind == "answerable" for case in cases])
    weights = weigh(cases)
    result = np.zeros(len(cases))
    for held in range(_FOLDS):
        train = folds != held
        result[~train] = predicted(rows[~train], *fit(rows[train], right[train], weights[train]))
    return result


def figures(cases: Sequence[Case], confidence: NDArray[np.float64], threshold: float) -> dict[str, Any]:
    """Per pack and kind: how many are refused; and how well each kind is told from the answerable."""
    result: dict[str, Any] = {}
    for pack in sorted({case.pack for case in cases}):
        by_kind = {
            kind: [float(value) for case, value in zip(cases, confidence, strict=True) if (case.pack, case.kind) == (pack, kind)]
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
            gap = abs(np.average(confidence[inside], weights=weights[inside]) - np.average(right[inside], weights=weights[inside]))
            total += gap * weights[inside].sum()
    return float(total / weights.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with squad2/ and clapnq/")
    parser.add_argument("--sample", type=int, default=1000, help="of each pack, answerable and not")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--indexes", type=Path, help="keep the indexes in this folder and use them again")
    parser.add_argument("--plot", type=Path, help="draw trade-off and calibration into this PNG")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    data = args.data or data_folder()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.indexes or Path(temporary)
        cases = [
            case for name in ("squad2", "clapnq")
            for case in asyncio.run(gather(name, data, args.sample, args.seed, folder))
        ]  # fmt: skip
    rows = np.array([case.row for case in cases], np.float32)
    right = np.array([case.kind == "answerable" for case in cases])
    saved: dict[str, Any] = {}
    report: dict[str, Any] = {}
    for name, names in (("full", SIGNS), ("words", WORDS_ONLY)):
        columns = [SIGNS.index(sign) for sign in names]
        honest = cross_validated(cases, columns)
        weights, bias = fit(rows[:, columns], right, weigh(cases))
        threshold = round(float(np.quantile(honest[right], REFUSED_ANSWERABLE)), 3)
        saved |= {f"{name}_weights": weights, f"{name}_bias": np.float32(bias), f"{name}_supported_from": np.float32(threshold)}
        report[name] = {
            "supported_from": threshold, "calibration_error": round(calibration_error(cases, honest), 3),
            **figures(cases, honest, threshold),
        }  # fmt: skip
        if name == "full" and args.plot:
            by_kind = {
                kind: [float(value) for case, value in zip(cases, honest, strict=True) if case.kind == kind]
                for kind in ("answerable", "unanswerable", "absent")
            }
            others: dict[str, Sequence[float]] = {kind: by_kind[kind] for kind in ("unanswerable", "absent")}
            draw(args.plot, "In the documents or not: SQuAD 2 and ClapNQ, public halves, cross-validated", by_kind["answerable"], others)
    np.savez(Path(evidence.__file__).with_name("evidence.npz"), **saved)
    if args.json:
        print(json.dumps(report, indent=2))
        return
    for name, part in report.items():
        print(f"\n{name}: supported from {part['supported_from']}, calibration error {part['calibration_error']}")
        for pack in ("clapnq", "squad2"):
            for kind, row in part[pack].items():
                print(f"  {pack:<8}{kind:<14}{row['n']:>6} questions  refused {row['refused']:.3f}  AUC {row['auc'] or '-'}")


if __name__ == "__main__":
    main()
