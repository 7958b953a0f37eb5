"""Sentences that a chat model writes without a marker: given one where a passage holds them, told apart where none does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chains.answer import SYSTEM
from citewell.service import Result, Service
from citewell.settings import Settings
from citewell.wiring import open_service
from graph.state import RunContext
from tests.models.scripted_server import ScriptedServer

QUESTION = "How high is the tower of the lighthouse?"


@pytest.fixture
async def service(told: ScriptedServer, indexed: Path) -> AsyncIterator[Service]:
    settings = Settings(_env_file=None, data_dir=indexed, chat_model="openai:told", openai_base_url=told.base_url)  # type: ignore[call-arg, arg-type]
    async with open_service(settings) as opened:
        yield opened


async def test_it_is_given_the_marker_of_the_passage_that_holds_it_while_the_answer_streams(
    service: Service, told: ScriptedServer
) -> None:
    told.answer = "The tower is 42 metres high. Elephants painted it in 1702."
    *pieces, done = [event async for event in service.stream(service.prepare(QUESTION, thread_id="t"))]
    assert isinstance(done, Result)
    assert "".join(map(str, pieces)) == done.answer
    assert done.answer == "The tower is 42 metres high. [1] Elephants painted it in 1702."
    assert [(one["marker"], one["status"]) for one in done.citations] == [(1, "verified")]
    assert done.metadata["unmarked"] == ["Elephants painted it in 1702."]
    transcript = await service.transcript("local", "t")
    assert transcript is not None
    assert transcript.messages[-1].additional_kwargs["metadata"]["unmarked"] == ["Elephants painted it in 1702."]


async def test_nothing_is_told_of_an_answer_that_every_sentence_of_has_a_marker_or_that_quotes(
    service: Service, told: ScriptedServer
) -> None:
    assert (await service.ask(service.prepare(QUESTION))).metadata["unmarked"] == []
    quoted = await service.ask(service.prepare(QUESTION, context=RunContext(chat_model="extractive")))
    assert quoted.citations
    assert "unmarked" not in quoted.metadata


async def test_a_guards_words_are_no_sentence_of_the_answer(service: Service, told: ScriptedServer) -> None:
    told.answer = f"The tower is 42 metres high. {SYSTEM[100:400]}"
    result = await service.ask(service.prepare(QUESTION))
    assert result.metadata["finish_reason"] == "blocked"
    assert "unmarked" not in result.metadata
