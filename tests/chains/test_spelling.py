"""A misspelt word of a question is taken for the documents' word that is one slip away."""

import time

import pytest

from chains.spelling import respelt
from citewell.documents import Chunk


def chunk(text: str, title: str = "Home insurance", *headings: str) -> Chunk:
    return Chunk(id=text, source="s", title=title, text=text, start=0, end=len(text), index=0, headings=headings)


FOUND = [
    chunk("The excess for storm damage is 300. Guarantee: flood, biscuits, children. The tower subsided."),
    chunk("A café in the town of Farnley.", "Ashworth reflector", "Houseboats"),
]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("whats the exess for strom damage", "whats the excess for storm damage"),
        ("is flod insured?", "is flood insured?"),
        ("childern allowed?", "children allowed?"),
        ("how long is the garantee", "how long is the guarantee"),
        ("bisquits", "biscuits"),
        ("Who built the Ashwirth reflctor?", "Who built the Ashworth reflector?"),  # in a title
        ("houseboads", "houseboats"),  # in a heading
        ("Is the caffé open?", "Is the café open?"),
    ],
)
def test_a_slip_is_put_right(typed: str, meant: str) -> None:
    assert respelt(typed, FOUND) == meant


@pytest.mark.parametrize(
    "typed",
    [
        "When did the tower subside?",  # another form of a word that is there
        "Is Barnley far?",  # begins with another letter
        "What does the guaranty say of flour?",  # English, though the documents do not say it
        "exces McXyzzyq 2024 E17 a@exess.example",
        "",
    ],
)
def test_other_words_stay_as_they_were_typed(typed: str) -> None:
    assert respelt(typed, FOUND[1:]) == typed


def test_of_two_words_the_documents_commoner_one_is_meant() -> None:
    found = [chunk("A gauntlet. The gauntlets, the gauntlets."), chunk("gauntled")]
    assert respelt("gauntlef", found) == "gauntlet"
    assert respelt("gauntletz", found) == "gauntlets"


def test_a_pasted_text_of_unknown_words_takes_no_time_to_speak_of() -> None:
    began = time.process_time()
    pasted = " ".join(f"x{chr(97 + i % 26)}{chr(97 + i // 26)}qz" for i in range(676))
    assert respelt(f"{'e' * 5000} {pasted} exess", FOUND) == f"{'e' * 5000} {pasted} excess"
    assert time.process_time() - began < 1
