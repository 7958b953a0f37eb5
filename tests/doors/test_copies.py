"""Two documents with the same passage: every door that cites names both."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from citewell.client import Client
from tests.doors import test_contract as doors
from tests.service import LIBRARY, Live

COPY = "library/z-copy.md"


@pytest.fixture
def live(start: Callable[..., Live], tmp_path: Path) -> Live:
    library = Path(shutil.copytree(LIBRARY, tmp_path / "library"))
    shutil.copy(library / "lighthouse.md", tmp_path / COPY)
    return start(documents=library, CITEWELL_MCP="on")


async def test_every_door_names_both(live: Live) -> None:
    for door in doors.DOORS:
        answer: dict[str, Any] = await door(live, doors.QUESTION, f"copies {door.__name__}")
        assert {tuple(citation["also_in"]) for citation in answer["citations"]} == {(COPY,)}, door.__name__


def test_so_do_search_the_client_and_the_page(live: Live, page: Page) -> None:
    hits = httpx.post(f"{live.url}/search", json={"question": doors.QUESTION}).json()["hits"]
    assert next(hit["also_in"] for hit in hits if hit["source"] == "library/lighthouse.md") == [COPY]
    assert COPY not in {hit["source"] for hit in hits}
    with Client(live.url) as client:
        assert client.ask(doors.QUESTION).citations[0].also_in == [COPY]
        assert client.search(doors.QUESTION).hits[0].also_in == [COPY]
    page.goto(live.url)
    page.fill("#question", doors.QUESTION)
    page.keyboard.press("Enter")
    page.locator("#turns details").first.click()
    expect(page.locator("#turns details").first).to_contain_text(f"Also in {COPY}")
