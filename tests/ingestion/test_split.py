import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citewell.ingestion.document import Document, Heading
from citewell.ingestion.loaders.text import load_markdown
from citewell.ingestion.split import split

WORDS = st.sampled_from(
    [
        "tide",
        "harbour",
        "Lantern.",
        "Why?",
        "\n",
        "\n\n",
        "   ",
        "naïve",
        "灯台は古い。",
        "x" * 130,
        "1,946",
        "# Head\n",
        "\t",
    ]
)
TEXTS = st.lists(st.one_of(WORDS, st.text(max_size=12)), min_size=1, max_size=120).map(" ".join)


@st.composite
def documents(draw: st.DrawFn) -> Document:
    text = draw(TEXTS)
    at = st.integers(0, len(text))
    starts = sorted(draw(st.sets(at, max_size=5)))
    headings = tuple(Heading(level=draw(st.integers(1, 4)), text=f"H{start}", start=start) for start in starts)
    pages = tuple(sorted({0, *draw(st.sets(at, max_size=4))})) if draw(st.booleans()) else ()
    return Document(text=text, type="txt", title="T", headings=headings, page_starts=pages)


def test_what_chunks_share_begins_with_a_word_where_lines_are_indented() -> None:
    document = Document(text=f"tide tide \n\n tide harbour {'x' * 100}", type="txt", title="T")
    chunks = split(document, "a.txt", chunk_size=100, chunk_overlap=13)
    assert [chunk.text.strip() for chunk in chunks] == [chunk.text for chunk in chunks]


@settings(max_examples=300, deadline=None)
@given(documents(), st.integers(100, 300), st.integers(0, 120))
def test_chunks_are_exact_in_order_bounded_and_lose_nothing(document: Document, size: int, overlap: int) -> None:
    overlap = min(overlap, size - 1)
    chunks = split(document, "a.txt", chunk_size=size, chunk_overlap=overlap)
    covered = 0
    for number, chunk in enumerate(chunks):
        assert document.text[chunk.start : chunk.end] == chunk.text
        assert 0 < len(chunk.text) <= size
        assert chunk.text == chunk.text.strip()
        assert chunk.index == number
        assert chunk.page == document.page_at(chunk.start)
        assert not document.text[covered : chunk.start].strip(), "text fell between two chunks"
        assert chunk.end > covered, "a chunk adds nothing"
        assert max(0, covered - chunk.start) <= overlap
        covered = chunk.end
    assert not document.text[covered:].strip()
    assert len({chunk.id for chunk in chunks}) == len(chunks)


def test_identifiers_are_the_same_in_every_release_and_depend_on_source_and_text() -> None:
    def identify(uri: str, text: str) -> str:
        return split(Document(text=text, type="txt"), uri, chunk_size=100, chunk_overlap=0)[0].id

    assert identify("a.txt", "High water comes twice a day.") == "b7147a70987094716736fd19918275e8"
    assert identify("b.txt", "High water comes twice a day.") != "b7147a70987094716736fd19918275e8"
    assert identify("a.txt", "High water comes twice a day!") != "b7147a70987094716736fd19918275e8"


def test_prose_overlaps_at_every_place_and_breaks_after_sentences() -> None:
    prose = " ".join(f"This is sentence number {n} of a long and rather even text." for n in range(200))
    chunks = split(Document(text=prose, type="txt"), "p.txt", chunk_size=500, chunk_overlap=50)
    shared = [left.end - right.start for left, right in pairwise(chunks)]
    assert min(shared) > 30
    assert max(shared) <= 50
    assert all(chunk.text.endswith(".") for chunk in chunks)


def test_no_row_of_a_table_is_divided_unless_it_fills_a_chunk() -> None:
    rows = [f"| `--option-{n}` | what it does. And what it does not do, {'more ' * (n % 7)}|" for n in range(40)]
    table = "\n".join(["Before. " * 12, "", "| option | |", "|---|---|", *rows, "", "After. " * 80])
    pieces = {line for chunk in split(Document(text=table, type="md"), "t.md", chunk_size=300, chunk_overlap=50)
              for line in chunk.text.splitlines() if "option-" in line}  # fmt: skip
    assert pieces == set(rows)
    long = "| " + "a sentence of a very long cell. " * 30 + "|"
    chunks = split(Document(text=f"| x |\n{long}\n| y |", type="md"), "t.md", chunk_size=300, chunk_overlap=50)
    assert max(len(chunk.text) for chunk in chunks) <= 300
    assert len(chunks) == 4


def test_every_chunk_knows_the_headings_above_it_and_none_spans_two_sections() -> None:
    document = load_markdown(
        b"Preface.\n\n# One\n\n## Deep\n\nBelow deep.\n\n## Other\n\nBelow other.\n\n# Two\n\nEnd.\n"
    )
    chunks = split(document, "a.md", chunk_size=200, chunk_overlap=50)
    assert [chunk.headings for chunk in chunks] == [(), ("One", "Deep"), ("One", "Other"), ("Two",)]
    assert chunks[1].text == "# One\n\n## Deep\n\nBelow deep.", "a heading without text stays with the section below"


def test_the_page_is_that_of_the_first_character() -> None:
    document = Document(text="a" * 150 + " " + "b" * 150, type="pdf", page_starts=(0, 151))
    assert [chunk.page for chunk in split(document, "a.pdf", chunk_size=150, chunk_overlap=0)] == [1, 2]


def test_a_wide_gap_neither_stalls_nor_fills_a_chunk() -> None:
    chunks = split(Document(text="before" + " \n" * 5000 + "after", type="txt"), "a", chunk_size=100, chunk_overlap=50)
    assert [chunk.text for chunk in chunks] == ["before", "after"]


@pytest.mark.parametrize(
    "text", ["x" * 3_000_000, "word " * 600_000, "| a 😀 " * 500_000, "a.\n" * 1_000_000, "\n" * 3_000_000 + "end"]
)
def test_three_million_characters_take_seconds_whatever_they_are(text: str) -> None:
    began = time.process_time()
    split(Document(text=text, type="txt"), "a.txt", chunk_size=500, chunk_overlap=50)
    assert time.process_time() - began < 3


def test_a_line_that_is_all_of_a_file_takes_time_in_proportion() -> None:
    def spent(characters: int) -> float:
        document = Document(text="word 😀 " * (characters // 7), type="txt")
        began = time.process_time()
        split(document, "a.txt", chunk_size=500, chunk_overlap=50)
        return time.process_time() - began

    spent(100_000)
    # eight times as many; by squares it would be 64 times
    assert min(spent(8_000_000) for _ in range(2)) < 32 * max(spent(1_000_000), 0.05)


@pytest.mark.parametrize(
    "letter",
    ["e\u0323\u0301", "ที่", "กำ", "क्ष", "👨\u200d👩\u200d👧", "👍🏽", "🇩🇪", "❤\ufe0f"],
)  # fmt: skip
@pytest.mark.parametrize("before", ["", "x", "xy", "xyz"])
def test_no_chunk_begins_or_ends_within_a_letter(letter: str, before: str) -> None:
    document = Document(text=before + letter * 400, type="txt")
    chunks = split(document, "a.txt", chunk_size=100, chunk_overlap=21)
    assert len(chunks) > 3
    for chunk in chunks:
        assert chunk.start == 0 or (chunk.start - len(before)) % len(letter) == 0
        assert (chunk.end - len(before)) % len(letter) == 0
    assert all(first.end > second.start for first, second in pairwise(chunks)), "they share something"


def test_chunks_further_down_a_page_know_what_stands_at_its_top() -> None:
    rows = "\n".join(f"Item {number} of the year {1000 + number} {2000 + number}" for number in range(30))
    text = f"CONSOLIDATED BALANCE SHEETS\n(in millions)\n{rows}"
    top, *below = split(Document(text=text, type="pdf", page_starts=(0,)), "a.pdf", chunk_size=200, chunk_overlap=0)
    assert top.headings == ()  # it holds them itself
    assert below
    assert {chunk.headings for chunk in below} == {("CONSOLIDATED BALANCE SHEETS, (in millions)",)}


@pytest.mark.parametrize("top", ["It ended here.", "words and " * 12, "12,345 678\n- 17 -\n" + "words and " * 12])
def test_running_text_and_figures_at_the_top_of_a_page_are_no_heading(top: str) -> None:
    document = Document(text=f"{top}\n{'more of it ' * 40}", type="pdf", page_starts=(0,))
    assert {chunk.headings for chunk in split(document, "a.pdf", chunk_size=200, chunk_overlap=0)} == {()}
