"""Other wordings of a question: asked for where the settings say so, searched, paid for, and told."""

from __future__ import annotations

from pathlib import Path

import pytest

from chains.expand import wordings
from citewell.errors import ModelUnavailable
from citewell.service import Result
from citewell.settings import Settings
from citewell.wiring import open_service
from graph.state import RunContext
from tests.models.scripted_server import ScriptedServer, scripted_server
from tests.service import LIBRARY, ingest

QUESTION = "How high is the tower of the lighthouse?"
FERRY = "What does a return ticket of the ferry cost?"


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("Height of the tower\nTower, metres", ["Height of the tower", "Tower, metres"]),
        ("1. Height of the tower\n2) Tower, metres\n- third\n* fourth", ["Height of the tower", "Tower, metres", "third"]),
        (f"\n{QUESTION}\n  Height \nHeight\n\n", ["Height"]),
        ("-1 degree at night\n" + "x" * 201, ["-1 degree at night"]),
        ("", []),
    ],
)  # fmt: skip
def test_wordings_are_read_from_what_models_write(written: str, kept: list[str]) -> None:
    assert wordings(written, QUESTION, most=3, longest=200) == kept


async def asked(told: ScriptedServer, indexed: Path, **changes: object) -> Result:
    settings = Settings(
        _env_file=None, data_dir=indexed, chat_model="openai:told", openai_base_url=told.base_url, candidates=5,
        model_retries=0, **changes,
    )  # type: ignore[call-arg,arg-type]  # fmt: skip
    async with open_service(settings) as service:
        return await service.ask(service.prepare(QUESTION, context=RunContext(trace=True)))


async def test_another_wording_brings_candidates_that_the_question_alone_does_not(tmp_path: Path) -> None:
    (documents := tmp_path / "towers").mkdir()
    for name in ("Cape", "Sound", "Ness", "Holm", "Skerry", "Voe"):
        (documents / f"{name}.txt").write_text(
            f"The tower of the lighthouse on {name} is high: {len(name) * 7} metres."
        )
    ingest(indexed := tmp_path / "data", documents, LIBRARY)
    async with scripted_server() as told:
        plain = await asked(told, indexed)
        assert "wordings" not in plain.metadata
        assert len(told.calls) == 1
        told.answer = FERRY
        result = await asked(told, indexed, query_variants=2)
    assert result.metadata["wordings"] == [FERRY]
    assert result.metadata["retrieved"] > plain.metadata["retrieved"]
    assert result.metadata["calls"]["expand"]["answered"] == "openai:told"
    assert len(told.calls) == 3
    seen = {one["source"] for one in result.metadata["trace"]["candidates"]}
    assert any("ferry" in source for source in seen - {one["source"] for one in plain.metadata["trace"]["candidates"]})
    assert result.metadata["trace"]["candidates"][0]["source"].startswith("towers/"), (
        "the question as asked decides the order"
    )


async def test_a_model_that_fails_to_reword_fails_the_turn_unless_the_settings_let_a_rule_stand_in(
    indexed: Path,
) -> None:
    async with scripted_server() as told:
        told.always["told"] = 503
        with pytest.raises(ModelUnavailable):
            await asked(told, indexed, query_variants=1)
        result = await asked(told, indexed, query_variants=1, fallback_models=("extractive",))
    assert result.metadata["answerer"] == "extractive"
    assert result.metadata["calls"]["expand"]["why"] == "model_unavailable"
    assert "wordings" not in result.metadata


async def test_the_extractive_answerer_asks_nobody(indexed: Path) -> None:
    settings = Settings(_env_file=None, data_dir=indexed, query_variants=3)  # type: ignore[call-arg]
    async with open_service(settings) as service:
        result = await service.ask(service.prepare(QUESTION))
    assert "calls" not in result.metadata
