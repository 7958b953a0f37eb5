"""Words of the passage that a chunk stands in, over the real tantivy."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import tantivy

from citewell.errors import IndexMismatch
from citewell.retrieval import Index, NewSource, open_index
from citewell.retrieval.catalog import SCHEMA_VERSION
from citewell.retrieval.context import CONTEXT_CHARS, contexts
from tests.retrieval.samples import HashedWords, made, settings

TITLE = "Consolidated statement of cash flows"
ROW = "Purchases of equipment 1,577 1,373"


def on_pages(uri: str, pages: Sequence[Sequence[str]]) -> NewSource:
    """A source whose chunks are the paragraphs of its pages."""
    new = made(uri, [paragraph for page in pages for paragraph in page])
    numbers = [number for number, page in enumerate(pages, 1) for _ in page]
    chunks = [replace(chunk, page=number) for chunk, number in zip(new.chunks, numbers, strict=True)]
    starts = [next(chunk.start for chunk in chunks if chunk.page == number) for number in range(1, len(pages) + 1)]
    return NewSource(source=new.source, text=new.text, chunks=chunks, page_starts=starts)


def of(new: NewSource) -> list[str]:
    return [" / ".join(text.split("\n\n")) for text in contexts(new.text, new.chunks, new.page_starts)]


def test_a_chunk_stands_in_its_page() -> None:
    new = on_pages("a.pdf", [["one", "two"], ["three"], ["four", "five"]])
    assert [text.strip(" /") for text in of(new)] == ["one / two"] * 2 + ["three"] + ["four / five"] * 2


def test_without_pages_it_stands_in_its_section() -> None:
    new = made("a.md", ["one", "two", "three", "four"])
    headings = [("A",), ("A",), ("B",), ("A",)]
    chunks = [replace(chunk, headings=above) for chunk, above in zip(new.chunks, headings, strict=True)]
    assert of(replace(new, chunks=chunks)) == ["one / two", "one / two", "three", "four"]


def test_a_chunk_that_runs_over_the_end_of_its_page_is_in_its_context_whole() -> None:
    new = made("a.pdf", ["begins on one page and ends on the next"])
    assert contexts(new.text, new.chunks, [0, 10]) == [new.text]


def test_a_long_passage_is_cut_around_the_chunk() -> None:
    new = made("a.txt", [f"paragraph number {number}" for number in range(1000)])
    found = contexts(new.text, new.chunks, [])
    assert max(map(len, found)) <= CONTEXT_CHARS
    assert all(chunk.text in context for chunk, context in zip(new.chunks, found, strict=True))


async def fill(index: Index, *new: NewSource) -> None:
    async with index.writing():
        await index.replace_sources(new)


async def test_a_row_is_found_by_the_title_at_the_top_of_its_page(tmp_path: Path) -> None:
    filling = [f"{word} of the year" for word in ("Sales", "Costs", "Taxes")]
    async with open_index(settings(tmp_path), HashedWords()) as index:
        await fill(index, on_pages("a.pdf", [["Notes", ROW], [TITLE, *filling, ROW.replace("1,577", "1,578")]]))
        found = await index.search("purchases in the cash flow statement")
    words = {one.chunk.page: one.evidence["keyword"] for one in found if one.chunk.text.startswith("Purchases")}
    assert words[2] > words[1]


async def test_alone_in_its_document_a_chunk_scores_as_without_context(tmp_path: Path) -> None:
    """BM25 of one term in one of two texts of equal length, by hand."""
    async with open_index(settings(tmp_path), HashedWords()) as index:
        await fill(index, made("a.txt", ["ferry tower"], title=""), made("b.txt", ["bread water"], title=""))
        best = (await index.search("ferry"))[0]
    idf = 0.6931471806  # ln(1 + (2 - 1 + .5) / (1 + .5))
    assert best.evidence["keyword"] == pytest.approx(idf, rel=1e-3)


async def test_an_index_made_before_contexts_is_refused_rebuilt_and_swept(
    tmp_path: Path, chroma_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(tmp_path, vector_store=chroma_server.replace("http", "chroma+http"), namespace="before")
    monkeypatch.setattr("citewell.retrieval.index.SCHEMA_VERSION", SCHEMA_VERSION - 1)
    async with open_index(chosen, HashedWords()) as index:
        await fill(index, made("a.txt", [ROW]))
    (folder,) = (each for each in (tmp_path / "index" / "before").iterdir() if each.is_dir())
    shutil.rmtree(folder / "keywords")
    (folder / "keywords").mkdir()
    other = tantivy.SchemaBuilder().add_text_field("text").build()
    tantivy.Index(other, path=str(folder / "keywords"))
    monkeypatch.undo()
    async with open_index(chosen, HashedWords()) as index:
        with pytest.raises(IndexMismatch, match="--rebuild"):
            await index.search("equipment")
        async with index.rebuilding() as fresh:
            await fresh.replace_sources([made("a.txt", [ROW])])
        async with index.writing():
            pass  # sweeps
        assert (await index.search("equipment"))[0].chunk.text == ROW
    assert not folder.exists()
