"""What the guard thinks of chunks: found out once, kept with them, and made anew for another guard."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from citewell.models import Encoded
from citewell.models.embedder import Progress
from citewell.retrieval import Index, open_index
from tests.retrieval.samples import HashedWords, made, settings

TEXTS = ["cats sleep", "dogs bark", "obey me"]


class WordGuard:
    """Suspects texts that say "obey", and remembers what it was shown. Of cows it knows by their vectors."""

    def __init__(self, fingerprint: str = "one") -> None:
        self.fingerprint = fingerprint
        self.seen: list[str] = []

    def load(self) -> None:
        """It knows all it needs."""

    def skim(self, texts: Sequence[str], encoded: Encoded) -> list[float | None]:
        assert len(encoded.vectors) == len(texts)
        return [0.25 if "cows" in text else None for text in texts]

    def score_documents(self, texts: Sequence[str]) -> list[float]:
        self.seen += texts
        return [float("nan") if "odd" in text else float("obey" in text) for text in texts]


async def verdicts(index: Index) -> dict[str, float]:
    question = "cats dogs obey birds odd"
    kept = await index.rerank(question, await index.search(question, candidates=100), top_k=100)
    return {one.chunk.text: one.suspicion for one in kept if one.suspicion is not None}


async def test_a_chunk_is_judged_once_and_anew_when_its_text_or_the_guard_changes(tmp_path: Path) -> None:
    guard = WordGuard()
    async with open_index(settings(tmp_path), HashedWords(), guard=guard) as index:
        async with index.writing():
            await index.replace_sources([made("a.txt", TEXTS), made("b.txt", ["birds sing"])])
            assert await verdicts(index) == {}
            await index.judge(["a.txt"])
            assert await verdicts(index) == {"cats sleep": 0.0, "dogs bark": 0.0, "obey me": 1.0}
            await index.judge()
        revision = index.generation
        async with index.writing():
            await index.judge()
            assert sorted(guard.seen) == sorted([*TEXTS, "birds sing"])
            assert index.generation == revision, "a verdict is no change that a reader could see"
            await index.replace_sources([made("a.txt", ["obey now"])])
            await index.judge()
        assert await verdicts(index) == {"obey now": 1.0, "birds sing": 0.0}
    other = WordGuard("another")
    async with open_index(settings(tmp_path), HashedWords(), guard=other) as index:
        assert await verdicts(index) == {}
        async with index.writing():
            await index.judge()
        assert sorted(other.seen) == ["birds sing", "obey now"]
        assert await verdicts(index) == {"obey now": 1.0, "birds sing": 0.0}
        async with index.rebuilding() as fresh:
            await fresh.replace_sources([made("a.txt", TEXTS)])
            await fresh.judge()
        assert await verdicts(index) == {"cats sleep": 0.0, "dogs bark": 0.0, "obey me": 1.0}
    async with open_index(settings(tmp_path), HashedWords()) as index:
        assert await verdicts(index) == {}


async def test_no_verdict_is_kept_where_the_guard_could_not_decide(tmp_path: Path) -> None:
    guard = WordGuard()
    async with open_index(settings(tmp_path), HashedWords(), guard=guard) as index, index.writing():
        await index.replace_sources([made("a.txt", [*(f"cats {n}" for n in range(70)), "odd birds"])])
        await index.judge()
        assert len(guard.seen) == 71
        assert set(await verdicts(index)) == {f"cats {n}" for n in range(70)}


class InParts(HashedWords):
    """Remembers how many texts it was given at once."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[int] = []

    def encode(self, texts: Sequence[str], *, tokens: bool = False, progress: Progress | None = None) -> Encoded:
        self.given.append(len(texts))
        if progress is not None:
            progress(len(texts), len(texts))
        return super().encode(texts, tokens=tokens)


async def test_what_the_guard_knows_by_its_embedding_is_kept_at_once_and_not_scanned(tmp_path: Path) -> None:
    guard = WordGuard()
    texts = [f"{'cows' if n % 2 else 'cats'} {n}" for n in range(600)]
    embedder = InParts()
    cows = {text: 0.25 for text in texts if "cows" in text}
    async with open_index(settings(tmp_path), embedder, guard=guard) as index, index.writing():
        told: list[tuple[int, int]] = []
        await index.replace_sources([made("a.txt", texts)], progress=lambda done, of: told.append((done, of)))
        assert (guard.seen, embedder.given, told) == ([], [256, 256, 88], [(256, 600), (512, 600), (600, 600)])
        found = await index.neighbours(await index.search("cows 301", candidates=3))
        assert found
        assert all(one.suspicion == 0.25 and one.chunk.text in cows for one in found)
        await index.judge()
        assert sorted(guard.seen) == sorted(text for text in texts if text not in cows)
        await index.judge()
        assert len(guard.seen) == 300


async def test_sources_stored_at_the_same_time_are_all_there(tmp_path: Path) -> None:
    names = [f"{n}.txt" for n in range(12)]
    async with open_index(settings(tmp_path), HashedWords(), guard=WordGuard()) as index:
        async with index.writing():
            await asyncio.gather(*(index.replace_sources([made(name, [f"cows of {name}"] * 3)]) for name in names))
        assert [source.uri for source in await index.sources()] == sorted(names)
        for name in names:
            kept = await index.rerank(name, await index.search(name, where={"source": name}), top_k=9)
            assert {one.chunk.source for one in kept} == {name}


async def test_judging_is_writing(tmp_path: Path) -> None:
    async with open_index(settings(tmp_path), HashedWords(), guard=WordGuard()) as index:
        with pytest.raises(RuntimeError):
            await index.judge()
