"""The rule that condenses follow-ups without a chat model."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage

from chains.condense import CONTEXT_WORDS, completed, condense_rule

TALK = [
    HumanMessage("What is the Kubernetes autoscaler?"),
    AIMessage("It adds and removes nodes."),
    HumanMessage("Does it need a metrics server?"),
    AIMessage("Yes."),
]


def test_a_first_question_stays_as_it_is() -> None:
    assert condense_rule("And what about it?", []) == "And what about it?"


@pytest.mark.parametrize(
    "question", ["What is the capital city of France?", "Which tax forms must a sole trader file?"]
)
def test_a_question_that_refers_to_nothing_before_it_is_left_alone_unless_it_goes_on(question) -> None:
    expected_alone = question.startswith("What")  # "Which ..." usually chooses among what came before
    assert (condense_rule(question, TALK) == question) is expected_alone


def test_a_follow_up_gets_the_words_of_the_topic_and_still_reads_as_asked() -> None:
    condensed = condense_rule("How do I install it?", TALK)
    assert condensed.startswith("How do I install it? (")
    assert "Kubernetes" in condensed
    assert "autoscaler" in condensed


def test_words_that_the_question_has_are_not_said_twice() -> None:
    assert "autoscaler" not in condense_rule("How do I install it, the autoscalers?", TALK).split("(")[1]


def test_answers_lend_no_words() -> None:
    assert "nodes" not in condense_rule("And how fast?", TALK)


def test_a_conversation_without_content_lends_nothing() -> None:
    assert condense_rule("And this?", [HumanMessage("Hello!"), AIMessage("Hi.")]) == "And this?"


@given(st.text(max_size=200), st.lists(st.text(max_size=200), max_size=6))
def test_any_text_is_taken_and_at_most_a_few_words_are_added(question, earlier) -> None:
    condensed = condense_rule(question, [HumanMessage(text) for text in earlier])
    assert condensed.startswith(question)
    assert len(condensed[len(question) :].split()) <= CONTEXT_WORDS


def test_a_long_conversation_takes_milliseconds() -> None:
    talk = [HumanMessage("How does photosynthesis in tropical orchids depend on rainfall? " * 5)] * 50
    condense_rule("And why?", talk)  # reads the vocabulary

    def spent_s() -> float:
        began = time.process_time()
        condense_rule("And why?", talk)
        return time.process_time() - began

    assert min(spent_s() for _ in range(5)) < 0.05  # the collection of a whole process's garbage takes nearly as long


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (["When are you open on Thursday?", "and on Sundays?"], "When are you open on Sundays?"),
        (["When do lessons end?", "And on Fridays?"], "When do lessons end on Fridays?"),
        (["List all error codes of the VX200.", "and of the VX400"], "List all error codes of the VX400?"),
        (["What does a hotel in London cost?", "and in Leeds?"], "What does a hotel in Leeds cost?"),
        (["What does it cost for a dog?", "and for two cats?"], "What does it cost for two cats?"),
        (["What is on the menu for Friday?", "and on Saturday?"], "and on Saturday?"),
        (["What is the rate limit?", "thanks", "what about for test keys?"], "What is the rate limit for test keys?"),
        (["Is it open on Mondays?", "and on Tuesdays?", "and in May?"], "Is it open on Tuesdays in May?"),
        (["When does it close?", "and at what time?"], "and at what time?"),
        (["When does it close?", "and for how long?"], "and for how long?"),
        (["When does it close?", "and with the other one, when it rains?"], "and with the other one, when it rains?"),
        (["It closes early. Why?", "and on Sundays?"], "and on Sundays?"),
        (["and on Sundays?"], "and on Sundays?"),
    ],
)
def test_a_follow_up_that_changes_one_thing_is_put_in_full(said: list[str], meant: str) -> None:
    assert completed(said[-1], [HumanMessage(text) for text in said[:-1]])[0] == meant
