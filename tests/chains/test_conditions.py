"""An answer leaves out no exception that stands right behind it."""

from collections.abc import Iterator

import pytest

from chains.answer import AnswerInput
from chains.candidates import candidates
from chains.conditions import condition, restricts
from chains.extract import extractive_answerer
from citewell.citations import verify
from citewell.documents import Chunk, ScoredChunk
from citewell.models.minilm import MiniLM

RULES = """Scanners stand on every floor. Printers at home may be used. This does not hold for documents that are marked confidential.
Paper is bought by reception.

Phones may be used for mail.

They must be locked with a code."""


@pytest.fixture(scope="module")
def embedder() -> Iterator[MiniLM]:
    model = MiniLM(threads=1)
    yield model
    model.close()


def chunks(*texts: str) -> list[ScoredChunk]:
    return [
        ScoredChunk(chunk=Chunk(id=f"c{i}", source=f"s{i}.txt", title="Rules", text=text, start=0, end=len(text), index=0), score=1)
        for i, text in enumerate(texts)
    ]  # fmt: skip


async def test_what_restricts_the_best_sentence_is_quoted_right_after_it(embedder: MiniLM) -> None:
    found = chunks(RULES)
    answer = await extractive_answerer(embedder).ainvoke(
        AnswerInput(question="May printers be used at home?", chunks=found, history=[], summary="")
    )
    assert answer.text.startswith(
        "Printers at home may be used. [1] This does not hold for documents that are marked confidential. [1]"
    )
    citations = verify(answer.text, found)
    assert {citation["status"] for citation in citations} == {"verified"}
    assert answer.response_metadata["sentences"] == len(citations)


def test_it_stands_in_the_same_paragraph_and_the_same_chunk() -> None:
    found = chunks(RULES, "But scanners are switched off at night.")
    said = candidates(found)
    restricted = {one.text: limit.text for one in said if (limit := condition(one, said, found))}
    assert restricted == {
        "Printers at home may be used.": "This does not hold for documents that are marked confidential."
    }


def test_rows_of_a_table_have_no_condition() -> None:
    found = chunks("| day | open |\n|---|---|\n| Friday | 9 to 17 |\n| not on Saturday | closed |\n")
    said = candidates(found)
    assert [condition(one, said, found) for one in said] == [None, None]


@pytest.mark.parametrize(
    ("before", "text"),
    [
        ("Flippers may be used in lane 1.", "Not on Saturdays, when the lanes are taken out."),
        ("The longest booking is four weeks.", "In July and August it is two."),
        ("A licence is accepted for six months.", "After that half of the time is charged."),
        ("Guests get an account for a day.", "A longer one is asked for by the person they visit."),
        ("Anglers under 14 need no permit.", "They must be with somebody who has one."),
        ("Programs are installed from the catalogue.", "Anything else needs consent."),
        ("Pay with the card.", "If the card is refused, pay yourself."),
        ("Files are backed up every night.", "The folder Scratch is not."),
        ("The guarantee is two years.", "Seals, glass and the igniter are excluded."),
        ("Active members have a vote.", "Supporting members have none."),
    ],
)
def test_a_condition_is_known_by_its_words(before: str, text: str) -> None:
    assert restricts(text, before)


@pytest.mark.parametrize(
    ("before", "text"),
    [
        ("The guarantee lasts two years.", "Spare parts are kept for ten years."),
        ("Dalton assumed that ratios are simple.", "For example, he may have taken water for HO."),
        ("The club was founded in 1921.", "It has its seat in Lowtarn."),
        ("Charcoal grills are forbidden.", "Snakes are not allowed."),
        (
            "The governor was seen at a mill.",
            "The governor of that mill, which had come to the town with his brother many years before, had not seen it.",
        ),
    ],
)
def test_another_matter_is_none(before: str, text: str) -> None:
    assert not restricts(text, before)
