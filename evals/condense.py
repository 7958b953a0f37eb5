"""What condensing a follow-up by rule does to retrieval: `python -m evals.condense [--data FOLDER] [--json]`.

Three ways of asking, on the conversational packs: the follow-up as typed (`raw`), after `chains.condense.by_rule` (`rule`), and as
a person rewrote it (`human`, where there is such a rewrite). Then how the follow-ups that the rule rewrites are answered without
a key: each searched for as typed and by rule, that is kept which finds better evidence; a cited passage counts where it is
the right one. CANARD has no passages: there the words of the human rewrite that the rule supplies are counted.
"""

import argparse
import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from chains import condense
from citewell.models import open_embedder
from citewell.settings import Settings
from citewell.wiring import open_parts
from evals.answers import Asked, Turn, judge
from evals.command import add_data, show
from evals.packs import Pack, read_corpus, read_jsonl, read_qrels
from evals.retrieval import evaluate, indexed

PACKS = ("conv_cast", "conv_mtrag")


def history(row: Mapping[str, Any]) -> list[BaseMessage]:
    """The turns before a question: all of them where the pack has them, else those of the user."""
    if row.get("history"):
        return [
            (HumanMessage if turn["role"] == "user" else AIMessage)(content=turn["text"]) for turn in row["history"]
        ]
    return [HumanMessage(content=text) for text in row.get("user_history", ())]


def rule(row: Mapping[str, Any]) -> str:
    return condense.by_rule(row["text"], history(row))[0]


def conversations(data: Path, name: str) -> tuple[Pack, list[dict[str, Any]]]:
    """A conversational pack and its judged turns. MTRAG counts only turns whose passages are all in the corpus."""
    folder = data / name
    qrels = read_qrels(folder / "public" / "qrels.tsv")
    rows = [
        row for row in read_jsonl(folder / "public" / "queries.jsonl")
        if row["_id"] in qrels and row.get("gold_in_corpus", "full") == "full"
    ]  # fmt: skip
    documents = read_corpus(folder / "corpus.jsonl")
    return Pack(name=name, documents=documents, queries={row["_id"]: row["text"] for row in rows}, qrels=qrels), rows


async def measure(data: Path) -> dict[str, dict[str, float]]:
    """nDCG@10 of the reranked passages: "pack, turns" -> way of asking -> mean."""
    figures: dict[str, dict[str, float]] = {}
    for name in PACKS:
        pack, rows = conversations(data, name)
        later = [row for row in rows if row["user_history"]]
        asked = {
            "all turns": (rows, ("raw", "rule")),
            "follow-ups": (later, ("raw", "rule")),
            "rewritten follow-ups": ([row for row in later if row.get("rewrite")], ("raw", "rule", "human")),
            "follow-ups the rewriter left alone": (
                [row for row in later if row.get("rewrite") == row["text"]], ("raw", "rule"),
            ),
        }  # fmt: skip
        for turns, (chosen, ways) in asked.items():
            figures[f"{name}, {turns} ({len(chosen)})"] = {
                way: await _ndcg(pack, {row["_id"]: _ask(row, way) for row in chosen}) for way in ways
            }
    return figures


async def _ndcg(pack: Pack, queries: dict[str, str]) -> float:
    result = await evaluate(replace(pack, queries=queries), whole=True)
    return result.quality["reranked"]["ndcg@10"]


def _ask(row: Mapping[str, Any], way: str) -> str:
    return rule(row) if way == "rule" else str(row["rewrite"] if way == "human" else row["text"])


async def answered(data: Path) -> dict[str, dict[str, float]]:
    """What `evals.answers` counts of the follow-ups that the rule rewrites, by pack."""
    settings = Settings.load()
    embedder = open_embedder(settings)
    figures = {}
    try:
        for name in PACKS:
            pack, rows = conversations(data, name)
            async with open_parts(settings) as parts, indexed(pack, embedder, settings, whole=False) as index:
                turn = Turn(replace(parts, index=index), parts.extractive)
                asked = [
                    Asked(
                        id=row["_id"], text=row["text"], standalone=rule(row), answerable=True, golds=[],
                        sources=frozenset(id_ for id_, grade in pack.qrels[row["_id"]].items() if grade > 0),
                    )
                    for row in rows if rule(row) != row["text"]
                ]  # fmt: skip
                figures[name] = judge([await turn(one) for one in asked])
    finally:
        embedder.close()
    return figures


def supplied(data: Path) -> dict[str, float]:
    """Of the words that CANARD's rewriters put in: the share the rule puts in too; of the rule's, the share they did."""
    found = wanted = given = 0
    for row in read_jsonl(data / "conv_canard" / "public" / "queries.jsonl"):
        raw, human, ours = (_stems(text) for text in (row["text"], row["rewrite"], rule(row)))
        wanted += len(human - raw)
        given += len(ours - raw)
        found += len((human - raw) & (ours - raw))
    return {"recall": found / wanted, "precision": found / given}


def _stems(text: str) -> set[str]:
    return {condense._stem(word) for word in condense._content(text)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data(parser)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = asyncio.run(measure(arguments.data)) | {"conv_canard, words supplied": supplied(arguments.data)}
    for name, counted in asyncio.run(answered(arguments.data)).items():
        shown = {part: counted[part] for part in ("gold_source_cited", "gold_source_cited_first")}
        figures[f"{name}, answers to rewritten follow-ups ({counted['questions']:.0f})"] = shown
    rounded = {name: {way: round(value, 3) for way, value in ways.items()} for name, ways in figures.items()}
    show(rounded, width=55, as_json=arguments.json)


if __name__ == "__main__":
    main()
