"""A list that is asked for as a whole is given as a whole."""

import pytest

from chains.answer import AnswerInput
from chains.extract import extractive_answerer
from chains.lists import asked_for
from citewell.citations import verify
from citewell.documents import Chunk, ScoredChunk
from citewell.models.minilm import MiniLM

TITLE = "Emberline stove: manual"
IGNITER = """## Replacing the igniter

Use nothing but our own igniter.

1. Pull the plug. Let it cool.
2. Take off the side panel,
   which has two screws.
3. Igniter out
4. New igniter in

Now test it."""
RELEASE = """## 4.2.0

**New**

- Dark mode.
- Nutmeg

**Removed**

- Fax
- Telex

The teams are:

\u2022 Red
\u2022 Green
"""


def chunk(text: str, *headings: str, source: str = "stove.md", title: str = TITLE, start: int = 0) -> ScoredChunk:
    made = Chunk(
        id=f"{source}{start}", source=source, title=title, text=text, start=start, end=start + len(text), index=0,
        headings=(title, *headings),
    )  # fmt: skip
    return ScoredChunk(chunk=made, score=1.0)


STOVE = chunk(IGNITER, "Replacing the igniter")
NOTES = chunk(RELEASE, "4.2.0", source="notes.md", title="Release notes of Ferrydesk")


def said(question: str, *chunks: ScoredChunk) -> list[str]:
    return [one.text for one in asked_for(question, chunks)]


@pytest.mark.parametrize(
    "question", ["How do I replace the igniter?", "replacing igniter", "steps to replace the igniter"]
)
async def test_steps_are_quoted_all_and_in_order_each_with_its_marker(embedder: MiniLM, question: str) -> None:
    given = AnswerInput(question=question, chunks=[NOTES, STOVE], history=[], summary="")
    answer = await extractive_answerer(embedder).ainvoke(given)
    assert answer.text == (
        "1. Pull the plug. [2] Let it cool. [2]\n2. Take off the side panel, which has two screws. [2]\n"
        "3. Igniter out [2]\n4. New igniter in [2]"
    )
    citations = verify(answer.text, given["chunks"])
    assert {citation["status"] for citation in citations} == {"verified"}
    assert len(citations) == answer.response_metadata["sentences"] == 5


async def test_what_else_is_asked_stands_apart_from_the_list(embedder: MiniLM) -> None:
    dishes = chunk("Fish pie is baked at 200 degrees.", source="pie.md", title="Kitchen")
    asked = "How do I replace the igniter, and at how many degrees is the fish pie baked?"
    given = AnswerInput(question=asked, chunks=[STOVE, dishes], history=[], summary="")
    answer = await extractive_answerer(embedder).ainvoke(given)
    assert "4. New igniter in [1]\n\nFish pie is baked at 200 degrees. [2]" in answer.text
    first, second = asked.removesuffix("?").split(", and ")
    turned = await extractive_answerer(embedder).ainvoke(given | {"question": f"{second}, and {first}?"})
    assert "Fish pie is baked at 200 degrees. [2]\n\n1. Pull the plug. [1]" in turned.text


def test_a_line_in_bold_or_with_a_colon_names_the_list_below_it() -> None:
    assert said("What's new in 4.2.0?", NOTES) == ["Dark mode.", "Nutmeg"]
    assert said("What was removed in 4.2.0?", NOTES) == ["Fax", "Telex"]
    assert said("Which teams are there in 4.2.0?", NOTES) == ["Red", "Green"]


@pytest.mark.parametrize(
    "question",
    [
        "What do I do when the igniter is wet?",  # the heading says too little of it
        "When do I replace the igniter?",
        "How many screws do I need for replacing the igniter?",
        "Can I replace the igniter?",
        "Why must I replace the igniter?",
        "What is Emberline?",  # a title asks for none of its document's lists
    ],
)
def test_other_questions_are_not_answered_by_a_list(question: str) -> None:
    assert said(question, STOVE, NOTES) == []


def test_a_list_that_goes_on_in_the_next_chunk_is_put_together_and_each_sentence_is_said_once() -> None:
    cut = IGNITER.index("3. Igniter out")
    first, rest = IGNITER[: cut + len("3. Igniter out")], IGNITER[cut:]
    both = [chunk(first, "Replacing the igniter"), chunk(rest, "Replacing the igniter", start=cut)]
    assert said("How do I replace the igniter?", *both) == said("How do I replace the igniter?", STOVE)


def test_a_bullet_is_shown_as_markdown_writes_it() -> None:
    assert [one.item for one in asked_for("Which teams are there in 4.2.0?", [NOTES])] == ["-", "-"]


def test_one_item_is_no_list() -> None:
    assert said("How do I replace the igniter?", chunk("- Pull the plug.", "Replacing the igniter")) == []


def test_a_list_headed_how_to_is_asked_for_by_who_names_the_thing_besides() -> None:
    steps = chunk("## How to return\n\n1. Ask for a number.\n2. Pack it.\n", "How to return", title="Returns")
    for question in ("How do I return a unit?", "How can I return my kettle?"):
        assert [one.text for one in asked_for(question, [steps])] == ["Ask for a number.", "Pack it."]
    for question in ("How do I descale a unit?", "How much is a return?", "May I return a unit?"):
        assert asked_for(question, [steps]) == []


FAULTS = """1 Bags

Both take bags of type K.

2 Error codes of the VX200

E1: the bag is full. Put in a new one.
E2: the hose is blocked.

3 Error codes of the VX400

F1: the bag is missing.
F2: the brush is jammed."""
HOURS = "Opening hours\n\nDay | Reception | Doctors\nMonday | 8:00-18:30 | 8:30-18:00\nTuesday | 8:00-13:00 | none"


def test_labelled_lines_below_a_numbered_heading_are_a_list() -> None:
    faults = chunk(FAULTS, source="vx.txt", title="Vacuum cleaners")
    expected = ["E1: the bag is full.", "Put in a new one.", "E2: the hose is blocked."]
    assert expected == said("List all error codes of the VX200", faults)
    assert said("error codes of the VX400?", faults) == ["F1: the bag is missing.", "F2: the brush is jammed."]


async def test_a_table_is_quoted_whole_where_its_heading_is_all_that_is_asked_for(embedder: MiniLM) -> None:
    hours = chunk(HOURS, "Opening hours", source="visit.html", title="Visiting us")
    given = AnswerInput(question="What are your opening hours?", chunks=[hours], history=[], summary="")
    answer = (await extractive_answerer(embedder).ainvoke(given)).text
    rows = ["Monday \u00b7 8:00-18:30 \u00b7 8:30-18:00 [1]", "Tuesday \u00b7 8:00-13:00 \u00b7 none [1]"]
    assert answer == "Day \u00b7 Reception \u00b7 Doctors [1]\n\n" + " ".join(rows)
    assert said("opening hours on Tuesday", hours) == []
