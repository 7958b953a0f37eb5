"""Retrieval measured as BEIR does, through the code that serves.

    python -m evals.retrieval CORPUS.jsonl QUERIES.jsonl QRELS.tsv [--whole] [--json] [--questions 500]

Each document is a source, chunked as the product chunks, the best chunk standing for its document; `--whole` makes
each document one chunk (title and text, cut at 256 tokens), which is how published figures are made. The index is kept
under `--cache` by what it was built from, so that a second run only asks.

    dense     the vector store alone           fused     both, as `Index.search` returns them
    keyword   BM25 alone                       reranked  as `Index.rerank` orders those
"""

import argparse
import asyncio
import hashlib
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from citewell.documents import Chunk, ScoredChunk, Source
from citewell.ingestion.document import Document
from citewell.ingestion.split import split
from citewell.models import Embedder, open_embedder
from citewell.retrieval import Index, NewSource, Trace, open_index
from citewell.settings import Settings
from evals import packs
from evals.command import existing
from evals.metrics import hit, ndcg, percentile, recall
from evals.packs import Pack

CACHE = Path(".citewell") / "evals"
STAGES = ("dense", "keyword", "fused", "reranked")
DEEP = 100
"""Depth of recall@100; what serves looks at `settings.candidates`."""
_SOURCES_A_CALL = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One pack, measured."""

    pack: str
    whole: bool
    documents: int
    chunks: int
    questions: int
    quality: Mapping[str, Mapping[str, float]]
    """Stage -> metric -> mean over the questions, 0..1."""
    latency_ms: Mapping[str, Mapping[str, float]]
    """Step -> `p50` and `p95`; `total` is from question to reranked chunks, embedding included."""


async def evaluate(pack: Pack, *, whole: bool, cache: Path = CACHE) -> Result:
    """Index a pack unless the cache holds it, then ask all its questions, one after the other."""
    settings = Settings.load()
    embedder = open_embedder(settings)
    try:
        async with indexed(pack, embedder, settings, whole=whole, cache=cache) as index:
            return await _ask(index, pack, whole, settings)
    finally:
        embedder.close()


@asynccontextmanager
async def indexed(
    pack: Pack, embedder: Embedder, settings: Settings, *, whole: bool, cache: Path = CACHE
) -> AsyncIterator[Index]:
    """An index over a pack, in a folder of the cache that is named by what the index is built from."""
    async with open_index(settings, embedder) as anywhere:
        digest = hashlib.sha256(json.dumps([whole, anywhere.fingerprint], sort_keys=True).encode())
    for document in pack.documents:
        digest.update(f"\0{document.id}\0{document.title}\0{document.text}".encode())
    # What is measured is quality: on a machine that is busy with other things a deadline would only lose questions.
    there = {"data_dir": cache / digest.hexdigest()[:16], "retrieval_timeout_s": 120}
    async with open_index(settings.model_copy(update=there), embedder) as index:
        await fill(index, pack.documents, settings, whole=whole)
        yield index


async def fill(index: Index, documents: Sequence[packs.Document], settings: Settings, *, whole: bool = False) -> None:
    """Index what the index does not hold yet."""
    done = {source.uri for source in await index.sources()}
    missing = [document for document in documents if document.id not in done]
    if not missing:
        return
    async with index.writing():
        for start in range(0, len(missing), _SOURCES_A_CALL):
            print(f"{start} of {len(missing)} documents indexed", file=sys.stderr, flush=True)
            some = missing[start : start + _SOURCES_A_CALL]
            await index.replace_sources([_source(document, whole, settings) for document in some])


def _source(document: packs.Document, whole: bool, settings: Settings) -> NewSource:
    text = document.text.strip() or document.title or "-"
    raw = text.encode()
    source = Source(
        uri=document.id, title=document.title, type="txt", sha256=hashlib.sha256(raw).hexdigest(), size_bytes=len(raw)
    )
    if whole:
        chunks = [
            Chunk(id=document.id, source=document.id, title=document.title, text=text, start=0, end=len(text), index=0)
        ]
    else:
        parsed = Document(text=text, type="txt", title=document.title)
        chunks = split(parsed, document.id, chunk_size=settings.chunk_size, chunk_overlap=settings.chunk_overlap)
    return NewSource(source=source, text=text, chunks=chunks, page_starts=())


async def _ask(index: Index, pack: Pack, whole: bool, settings: Settings) -> Result:
    scores: dict[str, dict[str, list[float]]] = {stage: {} for stage in STAGES}
    times: dict[str, list[float]] = {}
    await index.search("warm up", candidates=5)
    for id_, question in pack.queries.items():
        trace, began = Trace(), time.perf_counter()
        found = await index.search(question, candidates=settings.candidates, trace=trace)
        reranked = await index.rerank(question, found, top_k=len(found), trace=trace)
        times.setdefault("total", []).append((time.perf_counter() - began) * 1000)
        for stage, spent in trace.stages.items():
            times.setdefault(stage, []).append(spent)
        wide = Trace()
        deep = await index.search(question, candidates=DEEP, trace=wide)
        rankings = {
            "dense": _by_rank(wide.candidates, "dense_rank"),
            "keyword": _by_rank(wide.candidates, "keyword_rank"),
            "fused": _documents(found) + _documents(deep),
            "reranked": _documents(reranked) + _documents(deep),
        }
        for stage, ranking in rankings.items():
            for metric, value in _measure(_unique(ranking), pack.qrels[id_]).items():
                scores[stage].setdefault(metric, []).append(value)
    stats = await index.stats()
    return Result(
        pack=pack.name,
        whole=whole,
        documents=len(pack.documents),
        chunks=int(str(stats["chunks"])),
        questions=len(pack.queries),
        quality={stage: {name: sum(v) / len(v) for name, v in metrics.items()} for stage, metrics in scores.items()},
        latency_ms={step: {"p50": percentile(v, 0.5), "p95": percentile(v, 0.95)} for step, v in times.items()},
    )


def _by_rank(rows: Iterable[Mapping[str, object]], rank: str) -> list[str]:
    ranked = [row for row in rows if rank in row]
    return [str(row["source"]) for row in sorted(ranked, key=lambda row: float(str(row[rank])))]


def _documents(chunks: Sequence[ScoredChunk]) -> list[str]:
    """Sources in order, those that hold the same text beside the one that was shown."""
    return [uri for one in chunks for uri in (one.chunk.source, *one.chunk.also_in)]


def _unique(ranking: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(ranking))


def _measure(ranking: Sequence[str], relevance: Mapping[str, int]) -> dict[str, float]:
    return {
        "ndcg@10": ndcg(ranking, relevance),
        "recall@10": recall(ranking, relevance, at=10),
        "recall@100": recall(ranking, relevance, at=DEEP),
        "hit@1": hit(ranking, relevance),
    }


def table(result: Result) -> str:
    """A result as text."""
    unit = "whole" if result.whole else "chunked"
    lines = [
        f"{result.pack} ({unit}): {result.documents:,} documents, {result.chunks:,} chunks, {result.questions:,} questions",
        f"  {'':10}{'nDCG@10':>9}{'recall@10':>11}{'recall@100':>12}{'hit@1':>8}",
    ]
    for stage, metrics in result.quality.items():
        lines.append(
            f"  {stage:10}{metrics['ndcg@10']:9.4f}{metrics['recall@10']:11.4f}"
            f"{metrics['recall@100']:12.4f}{metrics['hit@1']:8.4f}"
        )
    lines.append("  ms p50 / p95: " + ", ".join(
        f"{step} {spent['p50']:.1f} / {spent['p95']:.1f}" for step, spent in result.latency_ms.items()
    ))  # fmt: skip
    return "\n".join(lines)


def sampled(pack: Pack, questions: int | None, *, seed: int = 0) -> Pack:
    """Return the pack with at most this many of its questions, chosen at random but always the same."""
    if questions is None or len(pack.queries) <= questions:
        return pack
    chosen = set(random.Random(seed).sample(sorted(pack.queries), questions))
    return replace(pack, queries={id_: text for id_, text in pack.queries.items() if id_ in chosen})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=existing)
    parser.add_argument("queries", type=existing)
    parser.add_argument("qrels", type=existing)
    parser.add_argument("--more", type=existing, action="append", default=[], help="a further part of the corpus")
    parser.add_argument("--whole", action="store_true", help="one chunk a document")
    parser.add_argument("--questions", type=int, help="a sample of this size")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    try:
        pack = packs.read_pack(
            arguments.corpus.resolve().parent.name,
            [arguments.corpus, *arguments.more],
            arguments.queries,
            arguments.qrels,
        )
    except (OSError, ValueError, KeyError) as error:
        parser.error(f"the data cannot be read: {error}")
    result = asyncio.run(evaluate(sampled(pack, arguments.questions), whole=arguments.whole, cache=arguments.cache))
    if arguments.json:
        print(json.dumps(asdict(result), indent=1))
    else:
        print(table(result))


if __name__ == "__main__":
    main()
