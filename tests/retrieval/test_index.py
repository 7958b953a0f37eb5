import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from blockbuster import blockbuster_ctx

from citewell.errors import ConfigurationError, InvalidFilter, ModelUnavailable, SourceNotFound, StoreTimeout
from citewell.models import Embedder, Encoded, Progress
from citewell.retrieval import Index, Trace, open_index
from citewell.retrieval.generation import Generation
from tests.retrieval.samples import HashedWords, made, settings

CATS = "Cats sleep for sixteen hours on an ordinary day."
DOGS = "Dogs bark loudly when the night is quiet."
MOON = "The moon goes round the earth in twenty-seven days."
PAY = "Salaries are paid on the last working day."


@pytest.fixture
async def index(tmp_path: Path) -> AsyncIterator[Index]:
    async with open_index(settings(tmp_path), HashedWords()) as index:
        async with index.writing():
            await index.replace_sources([
                made("animals.md", [CATS, DOGS], type="md", tags=("pets",), date="2024-05-01"),
                made("sky.txt", [MOON, f"  {DOGS} "]),
                made("secret.txt", [PAY, DOGS], access=("hr", "board")),
            ])  # fmt: skip
        yield index


async def test_an_index_without_documents_finds_nothing(tmp_path: Path) -> None:
    async with open_index(settings(tmp_path), HashedWords()) as index:
        assert await index.search("anything") == []
        assert await index.rerank("anything", [], top_k=3) == []
        assert (await index.stats())["sources"] == 0


async def test_a_question_finds_its_chunk_by_words_and_meaning(index: Index) -> None:
    found = await index.search("how many hours do cats sleep on a day")
    best = (await index.rerank("how many hours do cats sleep on a day", found, top_k=2))[0]
    assert best.chunk.text == CATS
    assert {"dense", "dense_rank", "keyword", "keyword_rank", "fused", "maxsim", "rerank_rank"} <= set(best.evidence)


async def test_scores_lie_between_nought_and_one_and_fall(index: Index) -> None:
    for question in ("cats", "the moon and the dogs", "zzz", "", "?!", "ö" * 3000):
        found = await index.search(question)
        for ranked in (found, await index.rerank(question, found, top_k=50)):
            scores = [one.score for one in ranked]
            assert scores == sorted(scores, reverse=True)
            assert all(0 <= score <= 1 for score in scores)


async def test_a_chunk_is_where_it_says_in_its_source(index: Index) -> None:
    for one in await index.search("dogs moon salaries cats"):
        text = await index.text(one.chunk.source)
        assert text[one.chunk.start : one.chunk.end] == one.chunk.text


async def test_of_a_text_any_stretch_can_be_read(index: Index) -> None:
    chance = random.Random(20260331)
    signs = "".join(
        map(chr, [*range(0x20, 0x7F), *range(0x3B1, 0x3C9), *range(0x4E00, 0x4E80), *range(0x1F600, 0x1F640)])
    )
    text = "".join(chance.choices(signs, k=60_000)) + " " * 3_000_000 + "Low water."
    async with index.writing():
        await index.replace_sources([made("long.txt", [text])])
    assert await index.text("long.txt") == text
    places = [0, 1, 59_999, 60_001, len(text) - 1, len(text), len(text) + 9]
    for start in [*places, *(chance.randrange(60_000) for _ in range(40))]:
        for end in (0, start, start + 1, start + chance.randrange(9_000), len(text) + 9):
            assert await index.text("long.txt", start, end) == text[start:end]


async def test_a_replaced_source_shows_only_its_new_state(index: Index) -> None:
    async with index.writing():
        new = made("animals.md", ["Cats are not mentioned any more, parrots are."], type="md")
        await index.replace_sources([new])
    found = {one.chunk.text for one in await index.search("cats sleep dogs parrots")}
    assert CATS not in found
    assert new.chunks[0].text in found
    assert [source.sha256 for source in await index.sources() if source.uri == "animals.md"] == [new.source.sha256]


async def test_a_removed_source_is_gone_everywhere(index: Index) -> None:
    async with index.writing():
        await index.remove_source("animals.md")
        await index.remove_source("never-was.md")
    assert {one.chunk.source for one in await index.search("cats sleep")} == {"sky.txt", "secret.txt"}
    with pytest.raises(SourceNotFound):
        await index.text("animals.md")
    with pytest.raises(SourceNotFound):
        await index.source("animals.md")


async def test_a_source_without_any_text_is_known_all_the_same(index: Index) -> None:
    async with index.writing():
        empty = made("empty.txt", [])
        await index.replace_sources([empty])
    assert (await index.source("empty.txt")).sha256 == empty.source.sha256
    assert await index.text("empty.txt") == ""


async def test_a_filter_is_applied_before_ranking(index: Index) -> None:
    found = await index.search("dogs bark", where={"tags": "pets"}, candidates=5)
    assert {one.chunk.source for one in found} == {"animals.md"}
    assert await index.search("dogs bark", where={"date": {"$gt": "2030"}}) == []
    with pytest.raises(InvalidFilter):
        await index.search("dogs", where={"colour": "red"})


async def test_a_caller_sees_only_what_shares_a_label(index: Index) -> None:
    public = await index.search("salaries paid dogs", access=frozenset({"public"}))
    assert "secret.txt" not in {one.chunk.source for one in public}
    assert "secret.txt" not in {uri for one in public for uri in one.chunk.also_in}
    board = await index.search("salaries paid dogs", access=frozenset({"board"}))
    assert {one.chunk.source for one in board} == {"secret.txt"}
    assert all(not one.chunk.also_in for one in board)
    assert await index.search("dogs", access=frozenset()) == []
    assert await index.search("dogs", access=frozenset({"nobody"})) == []


async def test_hidden_chunks_do_not_take_the_place_of_visible_ones(index: Index) -> None:
    async with index.writing():
        await index.replace_sources([made(f"hidden{n}.txt", [f"dogs bark {n}"], access=("hr",)) for n in range(60)])
    found = await index.search("dogs bark", candidates=5, access=frozenset({"public"}))
    assert {one.chunk.source for one in found} >= {"animals.md", "sky.txt"} or DOGS in {one.chunk.text for one in found}
    assert len(found) == 3


async def test_the_same_text_in_two_files_is_shown_once_with_both_named(index: Index) -> None:
    found = [one for one in await index.search("dogs bark loudly") if "Dogs bark" in one.chunk.text]
    assert [(one.chunk.source, one.chunk.also_in) for one in found] == [("animals.md", ("secret.txt", "sky.txt"))]
    public = await index.search("dogs bark loudly", access=frozenset({"public"}))
    assert [one.chunk.also_in for one in public if one.chunk.source == "animals.md" and one.chunk.text == DOGS] == [
        ("sky.txt",)
    ]


async def test_many_copies_of_one_text_leave_room_for_others(index: Index) -> None:
    async with index.writing():
        await index.replace_sources([made(f"copy{n:03}.txt", ["cats cats cats"]) for n in range(40)])
    found = await index.search("cats cats cats sleep", candidates=5)
    assert CATS in {one.chunk.text for one in found}
    assert len({one.chunk.text for one in found}) == len(found) == 5


async def test_chunks_come_in_the_order_asked_for(index: Index) -> None:
    found = await index.search("cats dogs moon")
    ids = [one.chunk.id for one in found]
    assert [chunk.id for chunk in await index.chunks([*reversed(ids), "unknown"])] == ids[::-1]


async def test_a_trace_says_why_each_candidate_was_kept_or_not(index: Index) -> None:
    trace = Trace()
    found = await index.search("dogs bark at the moon", trace=trace)
    await index.rerank("dogs bark at the moon", found, top_k=1, trace=trace)
    told = trace.as_dict()
    assert set(trace.stages) == {"embed", "dense", "keyword", "catalog", "rerank"}
    assert [row["dropped"] for row in trace.candidates] == [None] + ["below top_k"] * (len(found) - 1)
    assert {one["why"] for one in trace.dropped} == {"the same text as another candidate"}
    assert {"stages_ms", "candidates", "dropped"} == set(told)
    assert await index.search("dogs bark at the moon") == found, "and changes nothing"


async def test_what_nobody_asks_to_be_traced_is_cut_before_it_is_described(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = await index.search("dogs bark at the moon")
    traced = await index.rerank("dogs bark at the moon", found, top_k=1, trace=Trace())
    described: list[object] = []
    monkeypatch.setattr("citewell.retrieval.trace._row", lambda one, _: described.append(one))
    assert await index.rerank("dogs bark at the moon", found, top_k=1) == traced
    assert not described


async def test_changes_that_overlap_are_all_stored(tmp_path: Path) -> None:
    names = {f"{number}.txt" for number in range(20)}
    async with open_index(settings(tmp_path), HashedWords()) as index:
        async with index.writing():
            await asyncio.gather(*(index.replace_sources([made(name, [f"This is {name}."])]) for name in names))
        assert {source.uri for source in await index.sources()} == names


class Failing(HashedWords):
    fails = False

    def encode(self, texts: object, *, tokens: bool = False, progress: Progress | None = None) -> Encoded:
        if self.fails:
            raise ModelUnavailable("It is not there.")
        return super().encode(texts, tokens=tokens)  # type: ignore[arg-type]


async def test_a_question_that_could_not_be_embedded_is_embedded_when_it_is_asked_again(tmp_path: Path) -> None:
    model = Failing()
    async with open_index(settings(tmp_path), model) as index:
        async with index.writing():
            await index.replace_sources([made("a.txt", [CATS])])
        model.fails = True
        with pytest.raises(ModelUnavailable):
            await index.search("cats sleep")
        model.fails = False
        assert await index.search("cats sleep")


class Slow(HashedWords):
    def encode(self, texts: object, *, tokens: bool = False, progress: Progress | None = None) -> Encoded:
        time.sleep(1)
        return super().encode(texts, tokens=tokens)  # type: ignore[arg-type]


async def test_a_search_that_takes_too_long_ends_with_an_error(tmp_path: Path) -> None:
    async with open_index(settings(tmp_path, retrieval_timeout_s=0.2), Slow()) as index:
        with pytest.raises(StoreTimeout, match=r"0\.2 seconds"):
            await index.search("anything")


async def test_an_index_that_is_slow_to_open_opens_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(tmp_path)
    async with open_index(chosen, HashedWords()) as index, index.writing():
        await index.replace_sources([made("a.txt", [CATS])])
    opened, really = 0, Generation.__init__

    def slow(self: Generation, *args: object, **kwargs: object) -> None:
        nonlocal opened
        opened += 1
        time.sleep(1)
        really(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Generation, "__init__", slow)
    async with open_index(settings(tmp_path, retrieval_timeout_s=0.4), HashedWords()) as index:
        for _ in range(100):
            try:
                assert len(await index.sources()) == 1
                break
            except StoreTimeout:
                continue
        else:
            pytest.fail("every caller began to open it anew")
    assert opened == 1


async def test_nothing_blocks_the_event_loop(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    with blockbuster_ctx():
        async with open_index(chosen, HashedWords()) as index:
            async with index.writing():
                new = made("a.txt", [CATS, DOGS])
                await index.replace_sources([new])
            found = await index.search("cats", where={"type": "txt"}, access=frozenset({"public"}))
            await index.rerank("cats", found, top_k=1)
            await index.neighbours(found)
            await index.sources()
            await index.stats()
            async with index.rebuilding() as fresh:
                await fresh.replace_sources([new])
            assert await index.text("a.txt") == new.text


async def test_many_searches_at_once_agree_with_one_after_the_other(index: Index) -> None:
    questions = ["cats sleep", "dogs bark", "moon earth", "salaries paid"] * 10
    alone = [await index.search(question) for question in questions[:4]]
    together = await asyncio.gather(*(index.search(question) for question in questions))
    assert together == alone * 10


async def test_without_a_reranker_the_fused_order_stays(tmp_path: Path) -> None:
    model: Embedder = HashedWords("no tokens")
    model.gives_tokens = False
    async with open_index(settings(tmp_path, reranker="none"), model) as index:
        async with index.writing():
            new = made("a.txt", [CATS, DOGS, MOON])
            await index.replace_sources([new])
        found = await index.search("cats moon")
        assert await index.rerank("cats moon", found, top_k=2) == found[:2]


async def test_late_interaction_without_token_vectors_is_refused_at_the_start(tmp_path: Path) -> None:
    model: Embedder = HashedWords("no tokens")
    model.gives_tokens = False
    with pytest.raises(ConfigurationError, match="CITEWELL_RERANKER to none"):
        async with open_index(settings(tmp_path), model):
            pass


class LongestFirst:
    async def rerank(self, question: str, texts: Sequence[str]) -> np.ndarray:
        return np.array([len(text) / 1000 for text in texts], np.float32)

    def close(self) -> None:
        pass


async def test_a_cross_encoder_reranks_in_place_of_late_interaction(tmp_path: Path) -> None:
    index = Index(settings(tmp_path), HashedWords(), cross_encoder=LongestFirst())
    async with index.writing():
        await index.replace_sources([made("a.txt", [CATS, DOGS, MOON])])
    ranked = await index.rerank("dogs", await index.search("dogs"), top_k=2)
    assert [one.chunk.text for one in ranked] == [MOON, CATS]
    assert ranked[0].evidence["cross_encoder"] == pytest.approx(len(MOON) / 1000)
    await index.close()


async def test_a_cancelled_change_is_completed_before_the_index_is_let_go(index: Index) -> None:
    async def change() -> None:
        async with index.writing():
            await index.replace_sources([made(f"new{n}.txt", [f"parrots number{n}"]) for n in range(30)])

    for delay in (0.0, 0.01, 0.05, 0.1, 0.2):
        task = asyncio.create_task(change())
        await asyncio.sleep(delay)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        async with index.writing():  # not busy, and nothing half-done
            found = await index.search("parrots number1", where={"source": [f"new{n}.txt" for n in range(30)]})
        assert len(found) in (0, 30)


async def test_changes_outside_writing_are_a_mistake(index: Index) -> None:
    with pytest.raises(RuntimeError, match="writing"):
        await index.remove_source("animals.md")
