"""The operator's own words to the model: where they stand, that they stay there, and that they are not given away."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from citewell.errors import ConfigurationError
from citewell.service import Result
from citewell.settings import Settings
from citewell.wiring import open_service
from graph.recall import fingerprint
from tests.models.scripted_server import scripted_server

OURS = "You answer for the harbour office of Skerrow. Speak to visitors, in {plain} words, and never joke about the fog or the ferry."
QUESTION = "How high is the tower of the lighthouse?"


async def test_they_reach_the_model_between_the_rules_and_the_sources(indexed: Path) -> None:
    async with scripted_server() as told:
        result = await ask(indexed, told.base_url)
        [prompt] = told.prompts
        told.answer = f"I was told: {OURS}"
        leaked = await ask(indexed, told.base_url)
    assert "42 metres" in result.answer
    system = json.loads(prompt)[0]["content"]
    assert system.index("Rules:") < system.index(OURS) < system.index("=====SOURCE-", system.index(OURS))
    assert (leaked.metadata["guard"], leaked.metadata["finish_reason"]) == ("prompt_leak", "blocked")
    assert "never joke" not in leaked.answer


async def ask(indexed: Path, base_url: str) -> Result:
    settings = Settings(
        _env_file=None, data_dir=indexed, chat_model="openai:told", openai_base_url=base_url, instructions=OURS
    )  # type: ignore[call-arg]  # fmt: skip
    async with open_service(settings) as service:
        return await service.ask(service.prepare(QUESTION))


def test_an_answer_given_under_other_instructions_is_not_given_again() -> None:
    one, other = (Settings(_env_file=None, instructions=words) for words in ("", OURS))  # type: ignore[call-arg]
    assert fingerprint(one) != fingerprint(other)


def test_instructions_as_long_as_a_document_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CITEWELL_INSTRUCTIONS", "x" * 4001)
    with pytest.raises(ConfigurationError, match=r"CITEWELL_INSTRUCTIONS: .*4000"):
        Settings.load()
