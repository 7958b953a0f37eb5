"""The row with the largest, smallest, first or last value is the one that a superlative asks for."""

import pytest

from chains.answer import AnswerInput
from chains.candidates import candidates
from chains.extract import NEAREST, extractive_answerer
from chains.superlatives import extreme, may_answer
from citewell.documents import Chunk, ScoredChunk
from citewell.models.minilm import MiniLM

BRIDGES = """| bridge | opened | length | cost |
|---|---|---|---|
| Cobble Bridge | 1786 | 22 m | 1,900 |
| Station Bridge | 9 May 1871 | 64 m | £14,200 |
| New Road Bridge | 3 June 1934 | 118 m | £88,000 |
| Weir footbridge | 1 March 1934 | 41 m | £310,000 |
"""
HIRE = """| | day | deposit |
|---|---|---|
| City bike | 14 | 50 |
| E-bike | 35 | 200 |
| Child's bike | 8 | none |
"""
HOURS = """| day | pool | sauna |
|---|---|---|
| Monday | 6:30 to 21:00 | closed |
| Tuesday | 7:30 to 21:00 | 12:00 to 21:00 |
"""
WEATHER = """| | value | when |
|---|---|---|
| highest temperature | 30.4 | 2022 |
| lowest temperature | -18.7 | 1947 |
"""


def scored(*texts: str) -> list[ScoredChunk]:
    return [
        ScoredChunk(chunk=Chunk(id=text, source="s.md", title="", text=text, start=0, end=len(text), index=0), score=1)
        for text in texts
    ]


def asked(question: str, *texts: str, quoted: int = 0) -> str | None:
    """The first cell of the row that is found where the candidate at `quoted` would be quoted."""
    found = candidates(scored(*texts))
    row = extreme(question, [found[quoted]], found)
    return row and row.cells[0]


@pytest.mark.parametrize(
    ("question", "table", "row"),
    [
        ("Which bridge is the oldest?", BRIDGES, "Cobble Bridge"),
        ("Which bridge is the newest?", BRIDGES, "New Road Bridge"),
        ("Which bridge was the most expensive?", BRIDGES, "Weir footbridge"),
        ("What is the cheapest bridge?", BRIDGES, "Cobble Bridge"),
        ("Which bridge has the greatest length?", BRIDGES, "New Road Bridge"),
        ("Which bike has the highest deposit?", HIRE, "E-bike"),
        ("What is the cheapest bike for a day?", HIRE, "Child's bike"),
    ],
)
def test_the_row_is_found_by_the_value_in_the_column_that_is_asked_about(question: str, table: str, row: str) -> None:
    assert asked(question, table, quoted=1) == row


@pytest.mark.parametrize(
    ("question", "table"),
    [
        ("Who built Station Bridge?", BRIDGES),
        ("Which bridge is the tallest?", BRIDGES),
        ("On which day is the pool open longest?", HOURS),
        ("What was the lowest temperature?", WEATHER),
    ],
)
def test_where_no_column_tells_there_is_none(question: str, table: str) -> None:
    assert asked(question, table) is None


def test_only_the_table_of_a_quoted_row_is_looked_at() -> None:
    text = "The town has four bridges, all of which are in good repair."
    assert asked("Which bridge is the oldest?", text, BRIDGES, quoted=0) is None
    assert asked("Which bridge is the oldest?", text, BRIDGES, quoted=2) == "Cobble Bridge"


AUDITED = "We have audited the balance sheet of the Fellside Company as of December 31, 2022 and 2021."


@pytest.mark.parametrize(
    ("question", "text", "fits"),
    [
        ("What is the largest debt?", AUDITED, False),
        ("What is the largest debt?", "Customer deposits 110,239 84,382", True),
        ("What is the largest debt?", "The customers' deposits are its biggest debt.", True),
        ("What is the largest debt?", "Of two debts the mortgage was paid back.", True),
        ("What was the latest debt?", AUDITED, True),
        ("What is the debt?", AUDITED, True),
    ],
)
def test_a_superlative_of_size_is_answered_by_figures_or_superlatives(question: str, text: str, fits: bool) -> None:
    assert may_answer(question, candidates(scored(text))) is fits


async def test_where_no_superlative_is_answered_every_passage_is_shown_with_reserve(embedder: MiniLM) -> None:
    chunks = scored(AUDITED, "Deposits came to 110,239 pounds. Borrowings came to 1,348 pounds.")
    given = AnswerInput(question="Whose balance sheet was audited?", chunks=chunks, history=[], summary="")
    plain = (await extractive_answerer(embedder).ainvoke(given)).text
    asked = given | {"question": "What was the largest debt in Fellside's balance sheet?"}
    reserved = (await extractive_answerer(embedder).ainvoke(asked)).text
    assert plain == f"{AUDITED} [1]"
    assert reserved.startswith(f"{NEAREST}\n\n{AUDITED} [1]")
    assert "1,348 pounds. [2]" in reserved
