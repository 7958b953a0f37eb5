"""The row with the largest, smallest, first or last value is the one that a superlative asks for."""

import pytest

from chains.candidates import candidates
from chains.superlatives import extreme
from citewell.documents import Chunk, ScoredChunk

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


def asked(question: str, *texts: str, quoted: int = 0) -> str | None:
    """The first cell of the row that is found where the candidate at `quoted` would be quoted."""
    found = candidates([
        ScoredChunk(chunk=Chunk(id=text, source="s.md", title="", text=text, start=0, end=len(text), index=0), score=1)
        for text in texts
    ])  # fmt: skip
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
