"""What a citation quotes of a passage that holds personal data."""

from __future__ import annotations

from pathlib import Path

import pytest

from citewell.settings import Settings
from citewell.wiring import open_service
from tests.models.scripted_server import scripted_server
from tests.service import ingest

MAIL = "agnes.tolland@skerrow-harbour.com"
PAGE = f"""# Harbour contacts

The harbour master of Skerrow is Agnes Tolland, whose address is {MAIL}.

The harbour office is open from 8 to 17 on weekdays.
"""
QUESTION = "What is the address of the harbour master?"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    (tmp_path / "contacts.md").write_text(PAGE)
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    ingest(data_dir, tmp_path / "contacts.md")
    return data_dir


async def test_a_quote_is_redacted_as_the_answer_is_and_bears_it_out(data_dir: Path) -> None:
    settings = Settings(_env_file=None, data_dir=data_dir, pii_policy="redact", answer_from=0)  # type: ignore[call-arg]
    async with open_service(settings) as service:
        result = await service.ask(service.prepare(QUESTION, thread_id="t"))
        text = await service.index.text(result.citations[0]["source"])
    assert "[email]" in result.answer
    first = result.citations[0]
    assert "[email]" in first["quote"]
    assert (first["status"], first["score"]) == ("verified", 1.0)
    assert MAIL in text[first["start"] : first["end"]]
    stored = b"".join(path.read_bytes() for path in data_dir.glob("threads.db*"))
    assert b"[email]" in stored
    assert MAIL.encode() not in stored


async def test_a_quote_says_no_more_than_an_answer_may(data_dir: Path) -> None:
    """The model leaves out what the policy refuses; the passage behind its sentence holds it."""
    async with scripted_server() as told:
        settings = Settings(
            _env_file=None, data_dir=data_dir, pii_policy="refuse", answer_from=0, chat_model="openai:told",
            openai_base_url=told.base_url,
        )  # type: ignore[call-arg]  # fmt: skip
        told.answer = "The harbour master of Skerrow is Agnes Tolland [1]."
        async with open_service(settings) as service:
            result = await service.ask(service.prepare("Who is the harbour master of Skerrow?"))
    assert "Agnes Tolland" in result.answer
    assert result.citations
    assert all(MAIL not in citation["quote"] for citation in result.citations)
    assert any("[email]" in citation["quote"] for citation in result.citations)
