"""Streams of a run's inner events: nothing in them that the guards have not seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.models.scripted_server import scripted_server
from tests.service import running

ADDRESS = "jane.doe@example.org"
OURS = "The codeword of the harbour office is PLATYPUS, and it is for nobody."


@pytest.mark.parametrize("asked_for", [{}, {"include_types": ["chat_model", "llm"]}, {"exclude_types": None}])
async def test_neither_the_prompt_nor_a_raw_answer_is_in_them(data_dir: Path, asked_for: dict[str, Any]) -> None:
    async with scripted_server() as told:
        told.answer = f"The tower is 42 metres high, says {ADDRESS} [1]."
        settings = {
            "CITEWELL_CHAT_MODEL": "openai:told", "OPENAI_API_KEY": "none", "OPENAI_BASE_URL": told.base_url,
            "CITEWELL_PII_POLICY": "refuse", "CITEWELL_INSTRUCTIONS": OURS,
        }  # fmt: skip
        body = {"input": {"question": "How high is the tower of the lighthouse?"}} | asked_for
        with running(data_dir, **settings) as live:
            async with httpx.AsyncClient(base_url=live.url, timeout=60) as client:
                for door in ("stream_events", "stream_log", "stream", "invoke"):
                    reply = await client.post(f"/rag/{door}", json=body)
                    assert told.calls, reply.text
                    for secret in (ADDRESS, "PLATYPUS", "SOURCE-"):
                        assert secret not in reply.text, door
                    told.calls.clear()
