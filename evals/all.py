"""Every retrieval pack, one table and its picture: `python -m evals.all [--data FOLDER] [--quick]`, or `make eval`.

The figures go to `evals/results/retrieval.json` too, the picture to `docs/retrieval-quality.png`.
"""

import argparse
import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from evals.command import add_data
from evals.condense import conversations, rule
from evals.packs import Pack, read_pack
from evals.retrieval import CACHE, STAGES, Result, evaluate, sampled, table

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "evals" / "results" / "retrieval.json"
QUESTIONS = 500
"""Of packs that have thousands, where each takes long: the same sample in each run."""


def collections(data: Path, *, quick: bool) -> Iterator[tuple[Pack, bool]]:
    """Every pack and whether its documents stay whole. `quick` leaves out the one that takes long to index."""
    scifact, squad, clapnq = data / "scifact", data / "squad2", data / "clapnq"
    dev = _read("SQuAD 1,204", squad, ["corpus.jsonl"], questions=None)
    yield _read("SciFact", scifact, ["corpus.jsonl"]), True
    yield dev, True
    yield replace(sampled(dev, QUESTIONS), name="SQuAD 1,204 chunked"), False
    if not quick:
        yield _read("SQuAD 20,956", squad, ["corpus.jsonl", "corpus_extra.jsonl"]), True
    yield _read("CLAP NQ", clapnq, ["corpus.jsonl"]), True
    for folder, name in (("conv_mtrag", "MTRAG"), ("conv_cast", "CAsT")):
        pack, rows = conversations(data, folder)
        yield replace(pack, name=f"{name} last turn"), True
        yield replace(pack, name=f"{name} condensed", queries={row["_id"]: rule(row) for row in rows}), True


def _read(name: str, folder: Path, corpora: Sequence[str], questions: int | None = QUESTIONS) -> Pack:
    public = folder / "public"
    pack = read_pack(name, [folder / corpus for corpus in corpora], public / "queries.jsonl", public / "qrels.tsv")
    return sampled(pack, questions)


def draw(results: Sequence[Result], path: Path) -> None:
    """Bars of nDCG@10: a group for each pack, a bar for each stage."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    axes = figure.subplots()
    width = 0.2
    for number, (stage, colour) in enumerate(zip(STAGES, ("#9db4c0", "#e0c097", "#7a9e7e", "#1f4e79"), strict=True)):
        places = [place + (number - 1.5) * width for place in range(len(results))]
        heights = [result.quality[stage]["ndcg@10"] for result in results]
        bars = axes.bar(places, heights, width, label=stage, color=colour)
        if stage == STAGES[-1]:
            axes.bar_label(bars, [f"{height:.3f}".removeprefix("0") for height in heights], fontsize=8, padding=2)
    axes.set_xticks(range(len(results)), [result.pack.replace(" ", "\n", 1) for result in results], fontsize=9)
    axes.set_ylim(min(0.4, *(min(r.quality[s]["ndcg@10"] for s in STAGES) for r in results)), 1)
    axes.set_ylabel("nDCG@10")
    axes.legend(ncols=len(STAGES), loc="upper center", bbox_to_anchor=(0.5, 1.12), frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


async def run(data: Path, cache: Path, *, quick: bool) -> list[Result]:
    results = []
    for pack, whole in collections(data, quick=quick):
        results.append(await evaluate(pack, whole=whole, cache=cache))
        print(table(results[-1]), flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data(parser)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--quick", action="store_true", help="without the 20,956 paragraphs")
    arguments = parser.parse_args()
    results = asyncio.run(run(arguments.data, arguments.cache, quick=arguments.quick))
    rows = ",\n".join(json.dumps(asdict(result)) for result in results)  # a pack a line
    RESULTS.write_text(f"[\n{rows}\n]\n", encoding="utf-8")
    draw(results, ROOT / "docs" / "retrieval-quality.png")


if __name__ == "__main__":
    main()
