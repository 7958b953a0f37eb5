"""Simple questions: which are, who answers them, and that the answer says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chains.simple import is_lookup, is_simple
from citewell.service import Result
from citewell.settings import Settings
from citewell.wiring import open_service
from evals.routing import measure
from graph.state import RunContext
from tests.models.scripted_server import ANSWER, scripted_server

DEAR, CHEAP = "openai:dear", "openai:cheap"


@pytest.mark.parametrize(
    "question",
    ["How high is the tower of the lighthouse?", "when was it lit", "Who designed the Skerrow lighthouse?",
     "What colour is the granite?", "Which quarry did the granite come from?"],
)  # fmt: skip
def test_a_question_for_one_thing_is_simple(question: str) -> None:
    assert is_simple(question, confidence=0.9)
    assert not is_simple(question, confidence=0.7), "only where the documents most likely hold the answer"


@pytest.mark.parametrize(
    "question",
    [
        "Why was the fog horn removed?", "Compare the lighthouse with the ferry.", "How does the lamp work?",
        "What are the differences between the two lamps?", "List all opening hours.", "Wie hoch ist der Turm?",
        "What is the ratio of children's to adults' admission?", "When was it lit? And by whom? And why then?",
        "Who designed it, " + "and then, much later, " * 6 + "who rebuilt it?", "Which ticket should I buy?", "lighthouse",
    ],
)  # fmt: skip
def test_what_asks_for_thought_or_is_not_understood_is_not_simple(question: str) -> None:
    assert not is_lookup(question)


async def test_a_cheaper_model_answers_simple_questions_unless_the_caller_chose(indexed: Path) -> None:
    async with scripted_server() as told:
        settings = Settings(
            _env_file=None, data_dir=indexed, chat_model=DEAR, chat_models=("openai:mine",), simple_model=CHEAP,
            openai_base_url=told.base_url, model_retries=0, answer_cache_s=60,
        )  # type: ignore[call-arg]  # fmt: skip
        async with open_service(settings) as service:

            async def ask(question: str, thread: str | None = None, **context: Any) -> tuple[str, str | None]:
                result: Result = await service.ask(
                    service.prepare(question, thread_id=thread, context=RunContext(**context))
                )
                call = result.metadata["calls"]["answer"]
                return call["answered"], call["why"]

            tower = "When was the lighthouse on Skerrow Point first lit?"
            assert await ask(tower, "t") == (CHEAP, "simple_question")
            told.answer = "Who designed the lighthouse on Skerrow Point?"  # as the follow-up stands alone
            assert await ask("And who designed it?", "t") == (DEAR, None)  # needs the conversation
            told.answer = ANSWER
            assert await ask("Why was the fog horn of the lighthouse removed in 1988?") == (DEAR, None)
            assert await ask(tower, chat_model="openai:mine") == ("openai:mine", None)
            assert await ask(tower, chat_model=DEAR) == (DEAR, None)
            again = await service.ask(service.prepare(tower))
            assert (again.metadata["cached"], again.metadata["model"]) == (True, "cheap")
            told.always["cheap"] = 503
            assert await ask(tower, temperature=0.1) == (
                DEAR,
                None,
            )  # what the cheap one cannot do, the chosen one does


def test_the_measure_counts_by_hand() -> None:
    rows: list[dict[str, Any]] = [
        {"question": "When was it lit?", "answerable": True, "answer": "In 1871 [1].", "golds": ["1871"], "confidence": 0.9},
        {"question": "When was it cut?", "answerable": True, "answer": "In 1900 [1].", "golds": ["1871"], "confidence": 0.9},
        {"question": "Why was it lit?", "answerable": True, "answer": "Ships [1].", "golds": ["fog"], "confidence": 0.9},
        {"question": "Who lit it?", "answerable": False, "answer": "", "golds": [], "confidence": 0.9},
    ]  # fmt: skip
    assert measure(rows) == {
        "questions": 4, "simple_by_words": 0.75, "answered": 3, "simple": 0.6667, "simple_right": 0.5, "other_right": 0.0,
    }  # fmt: skip
