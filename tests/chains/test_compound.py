"""Questions that ask more than one thing."""

from dataclasses import replace

import pytest

from chains.compound import MOST, Single, interleaved, singles
from chains.extract import select
from citewell.documents import Chunk, ScoredChunk
from citewell.models.minilm import MiniLM

GUIDE = (
    "Dogs may come into the grounds and the café, but not into the domes. The car park has 48 places and is locked at "
    "midnight. A yearly membership costs £34. Torches must show red light."
)
STARS = (
    "Algol fades from magnitude 2.1 to 3.4 every 2.867 days. It is not pulsating at all: two stars circle each other, and "
    "the dimmer one passes in front of the brighter. John Goodricke proposed this explanation in 1783."
)


def chunk(name: str, text: str) -> ScoredChunk:
    return ScoredChunk(
        chunk=Chunk(id=name, source=name, title=name, text=text, start=0, end=len(text), index=0), score=0.9
    )


@pytest.mark.parametrize(
    ("question", "typed"),
    [
        ("Why is Algol variable, and who found out?", ["Why is Algol variable", "who found out?"]),
        (
            "who bought the old london bridge and where is it now",
            ["who bought the old london bridge", "where is it now"],
        ),
        ("What is a catch basin? How is it cleaned?", ["What is a catch basin", "How is it cleaned?"]),
        ("Are dogs allowed, and can I take photos?", ["Are dogs allowed", "can I take photos?"]),
        ("Is herpes lethal; in which cells does it live?", ["Is herpes lethal", "in which cells does it live?"]),
    ],
)
def test_each_thing_that_is_asked_stands_by_itself(question: str, typed: list[str]) -> None:
    assert [single.typed for single in singles(question, question)] == typed


@pytest.mark.parametrize(
    "question",
    [
        "Where and when did the investigation begin?",
        "European nations and which country left the alliance?",
        "What does error E17 mean, and what do I do about it?",
        "A constitutional impasse pertains to how a citizen relates to the state and what?",
        "How do I get there?",
        "What is the length and are of the field?",
        "",
    ],
)
def test_one_thing_stays_whole(question: str) -> None:
    assert singles(question, question) == [Single(question, question)]


def test_nobody_has_hundreds_of_things_looked_up_with_one_question() -> None:
    asked = [f"how is lamp {number} lit" for number in range(MOST + 1)]
    for parts in (asked[:MOST], asked):
        question = " and ".join(parts)
        assert [single.typed for single in singles(question, question)] == (parts if len(parts) == MOST else [question])


def test_a_later_part_gets_the_words_that_it_refers_to() -> None:
    assert singles("Why is Algol variable, and who found out?", "Why is Algol variable, and who found out?")[
        1
    ].question == ("who found out? (Algol variable)")


def test_words_of_the_conversation_reach_every_part() -> None:
    first, second = singles(
        "When does it open, and what does it cost? (museum)", "When does it open, and what does it cost?"
    )
    assert first == Single("When does it open (museum)", "When does it open")
    assert "museum" in second.question
    assert second.typed == "what does it cost?"


def test_the_best_of_each_ranking_comes_first_and_each_chunk_once() -> None:
    a, b, c, d = (chunk(name, name) for name in "abcd")
    assert interleaved([[a, b, c], [a, d]], 5) == [a, b, d, c]
    assert interleaved([[a, b, c], [d]], 2) == [a, d]
    assert interleaved([[], []], 5) == []


def test_every_part_is_answered_in_the_order_asked(embedder: MiniLM) -> None:
    question = "Where do dogs have to stay out, and how often does Algol fade?"
    found = [chunk("stars", STARS), chunk("guide", GUIDE)]
    assert [one.text for one in select(question, found, embedder, typed=question)[0]] == [
        "Dogs may come into the grounds and the café, but not into the domes.",
        "Algol fades from magnitude 2.1 to 3.4 every 2.867 days.",
        "It is not pulsating at all: two stars circle each other, and the dimmer one passes in front of the brighter.",
    ]


def test_what_a_pronoun_stands_for_may_be_named_in_the_heading_only(embedder: MiniLM) -> None:
    question = "When is the museum open and what does it show?"
    shown = "Two rooms about herring fishing and the shipwreck of the Adelheid in 1907, in which 23 sailors were saved by islanders."
    text = f"The museum\n\n{shown} Open from Monday to Friday, 10:00 to 13:00; donations welcome."
    found = chunk("vessay", text)
    below = replace(found, chunk=replace(found.chunk, headings=("Isle of Vessay", "The museum")))
    quoted = [one.text for one in select(question, [below, chunk("guide", GUIDE)], embedder, typed=question)[0]]
    assert shown in quoted
