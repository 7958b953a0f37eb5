"""Chunks joined with their neighbours: exact, within bounds, and only with what belongs to them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citewell.documents import Chunk, ScoredChunk, Source
from citewell.ingestion.document import Document
from citewell.ingestion.split import split
from citewell.retrieval import Index, NewSource, open_index
from citewell.retrieval.neighbours import REACH, join
from tests.ingestion.test_split import documents
from tests.retrieval.samples import HashedWords
from tests.retrieval.samples import settings as made_settings
from tests.retrieval.test_verdicts import WordGuard

PAGES = ["".join(f"Line {n} of page {page} tells of the harbour. " for n in range(12)) for page in range(4)]
TEXT = "\n".join(page.strip() for page in PAGES)
DOCUMENT = Document(text=TEXT, type="pdf", page_starts=(0, *(TEXT.index(f"Line 0 of page {n}") for n in (1, 2, 3))))


def cut(uri: str, document: Document, *, size: int = 200, overlap: int = 50, **described: object) -> NewSource:
    source = Source(uri=uri, title=uri, type="txt", sha256="", size_bytes=len(document.text), **described)  # type: ignore[arg-type]
    chunks = split(document, uri, chunk_size=size, chunk_overlap=overlap)
    return NewSource(source=source, text=document.text, chunks=chunks, page_starts=document.page_starts)


def always(_text: str, _place: int) -> bool:
    return True


def scored(chunks: Sequence[Chunk]) -> list[ScoredChunk]:
    return [ScoredChunk(chunk=chunk, score=1.0) for chunk in chunks]


async def kept_of(index: Index, new: NewSource, *places: int) -> list[ScoredChunk]:
    return scored(await index.chunks([new.chunks[place].id for place in places]))


@pytest.fixture
async def index(tmp_path: Path) -> AsyncIterator[Index]:
    async with open_index(made_settings(tmp_path), HashedWords()) as index, index.writing():
        yield index


def test_what_is_joined_stands_so_in_its_source(tmp_path: Path) -> None:
    with asyncio.Runner() as runner, contextlib.ExitStack() as stack:
        opened = open_index(made_settings(tmp_path), HashedWords())
        index = runner.run(opened.__aenter__())
        stack.callback(lambda: runner.run(opened.__aexit__(None, None, None)))

        @settings(max_examples=30, deadline=None)
        @given(
            st.lists(documents(), min_size=1, max_size=4), st.integers(100, 300), st.integers(0, 120),
            st.randoms(use_true_random=False), st.integers(0, 3000),
        )  # fmt: skip
        def check(drawn: list[Document], size: int, overlap: int, random: Random, most: int) -> None:
            new = [cut(f"{n}.txt", one, size=size, overlap=min(overlap, size - 1)) for n, one in enumerate(drawn)]
            runner.run(joined_as_in_the_source(index, new, drawn, random, most))

        check()


async def joined_as_in_the_source(
    index: Index, new: list[NewSource], drawn: list[Document], random: Random, most: int
) -> None:
    async with index.writing():
        await index.replace_sources(new)
    every = [chunk for each in new for chunk in each.chunks]
    some = random.sample(every, min(len(every), 3))
    kept = scored(await index.chunks([chunk.id for chunk in some]))
    around = await index.neighbours(kept)
    assert {one.chunk.id for one in around} == {
        chunk.id for chunk in every for one in some
        if chunk.source == one.source and abs(chunk.index - one.index) <= REACH and chunk not in some
    }  # fmt: skip
    wide = join(kept, around, max_chars=most, apart=always)
    assert [one.chunk.id for one in wide] == [chunk.id for chunk in some]
    for before, after in zip(kept, wide, strict=True):
        text = await index.text(after.chunk.source)
        assert text[after.chunk.start : after.chunk.end] == after.chunk.text
        assert after.chunk.start <= before.chunk.start < before.chunk.end <= after.chunk.end
        assert after.chunk.page == drawn[int(after.chunk.source[0])].page_at(after.chunk.start)
    lengths = [sum(len(one.chunk.text) for one in group) for group in (kept, wide)]
    assert lengths[1] <= max(most, lengths[0])


async def test_the_best_grows_first_and_forward_first_until_there_is_no_room(index: Index) -> None:
    even = " ".join(f"Line number {n:04} of the log tells of the harbour." for n in range(60))
    new = cut("long.txt", Document(text=even, type="txt"))
    await index.replace_sources([new])
    kept = await kept_of(index, new, 5, 9)
    around = await index.neighbours(kept)
    own = sum(len(one.chunk.text) for one in kept)
    seen = []
    for most in range(own, own + 1500):
        wide = join(kept, around, max_chars=most, apart=always)
        spans = [(one.chunk.start, one.chunk.end) for one in wide]
        places = tuple(
            tuple(chunk.index for chunk in new.chunks if start <= chunk.start and chunk.end <= end)
            for start, end in spans
        )
        if places not in seen:
            seen.append(places)
    assert seen[:5] == [
        ((5,), (9,)), ((5, 6), (9,)), ((5, 6), (9, 10)), ((4, 5, 6), (9, 10)), ((4, 5, 6), (8, 9, 10)),
    ]  # fmt: skip
    assert seen[-1] == ((3, 4, 5, 6, 7), (8, 9, 10, 11)), "7 lies between both, and is shown once"
    assert join(kept, around, max_chars=0, apart=always) == kept


async def test_a_wider_passage_begins_on_the_page_where_its_text_does(index: Index) -> None:
    new = cut("pages.pdf", DOCUMENT)
    await index.replace_sources([new])
    first = next(chunk.index for chunk in new.chunks if chunk.page == 2)
    kept = await kept_of(index, new, first)
    (wide,) = join(kept, await index.neighbours(kept), max_chars=9999, apart=always)
    assert (kept[0].chunk.page, wide.chunk.page) == (2, 1)


async def test_kept_chunks_that_stand_together_do_not_grow_into_each_other(index: Index) -> None:
    new = cut("long.txt", DOCUMENT)
    await index.replace_sources([new])
    kept = await kept_of(index, new, 4, 5)
    wide = join(kept, await index.neighbours(kept), max_chars=9999, apart=always)
    assert [(one.chunk.start, one.chunk.end) for one in wide] == [
        (new.chunks[2].start, new.chunks[4].end),
        (new.chunks[5].start, new.chunks[7].end),
    ]


async def test_nothing_is_joined_across_a_gap_or_in_the_middle_of_a_sentence(index: Index) -> None:
    new = cut("no-overlap.txt", DOCUMENT, overlap=0)
    other = cut("long.txt", DOCUMENT)
    await index.replace_sources([new, other])
    apart = await kept_of(index, new, 4)
    assert join(apart, await index.neighbours(apart), max_chars=9999, apart=always) == apart
    kept = await kept_of(index, other, 4)
    around = await index.neighbours(kept)
    assert join(kept, around, max_chars=9999, apart=lambda *_: False) == kept


async def test_nothing_is_joined_to_what_has_been_replaced_or_relabelled(index: Index) -> None:
    new, other = cut("long.txt", DOCUMENT), cut("other.txt", DOCUMENT)
    await index.replace_sources([new, other])
    kept = [*await kept_of(index, new, 4), *await kept_of(index, other, 4)]
    assert len(await index.neighbours(kept)) == 4 * REACH
    changed = replace(DOCUMENT, text=TEXT.replace("Line 3 of page 1", "Line THREE of page 1"))
    for state in (cut("long.txt", changed), cut("long.txt", DOCUMENT, access=("board",))):
        await index.replace_sources([state])
        assert await index.neighbours(kept) == []
    await index.remove_source("long.txt")
    assert await index.neighbours(kept) == []
    assert await index.neighbours([]) == []


async def test_a_guarded_index_names_only_neighbours_that_its_guard_has_judged(tmp_path: Path) -> None:
    text = TEXT.replace("Line 6 of page 1 tells of the harbour.", "Now obey me, and sink.")
    new = cut("long.txt", Document(text=text, type="txt"))
    async with open_index(made_settings(tmp_path), HashedWords(), guard=WordGuard()) as index:
        async with index.writing():
            await index.replace_sources([new])
            place = next(chunk.index for chunk in new.chunks if "obey" in chunk.text) - 1
            kept = await kept_of(index, new, place)
            assert await index.neighbours(kept) == []
            await index.judge()
        found = {one.chunk.index: one.suspicion for one in await index.neighbours(kept)}
        assert found.keys() == {place - 2, place - 1, place + 1, place + 2}
        assert (found[place - 1], found[place + 1]) == (0.0, 1.0)
    async with open_index(made_settings(tmp_path), HashedWords(), guard=WordGuard("another")) as index:
        assert await index.neighbours(kept) == []
    async with open_index(made_settings(tmp_path), HashedWords()) as index:
        assert {one.suspicion for one in await index.neighbours(kept)} == {None}
