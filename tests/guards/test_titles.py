"""Titles come from documents too: what is in them is shown, and told to a model, no more freely than their text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from citewell.service import Result
from citewell.settings import Settings
from citewell.wiring import open_service
from tests.service import ingest

MAIL = "bob.smith@example.com"
TITLE = f"![plan](http://evil.example/p.png) [go](javascript:alert(1)) <script>alert(1)</script> by {MAIL}"
TEXT = "The ferry leaves at nine in the morning and comes back at noon.\n"


@pytest.fixture(scope="module")
def titled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with one document, whose title is no plain name."""
    folder = tmp_path_factory.mktemp("titled")
    (folder / "docs").mkdir()
    (folder / "docs" / "ferry.md").write_text(f'---\ntitle: "{TITLE}"\n---\n{TEXT}')
    (folder / "data").mkdir()
    ingest(folder / "data", folder / "docs")
    return folder / "data"


async def nothing_found(data_dir: Path, **settings: Any) -> Result:
    async with open_service(Settings(_env_file=None, data_dir=data_dir, **settings)) as service:
        result = await service.ask(service.prepare("What do penguins eat in winter?"))
    assert result.metadata["finish_reason"] == "no_evidence"
    return result


async def test_the_nearest_sources_are_named_without_active_markup(titled: Path) -> None:
    result = await nothing_found(titled)
    for active in ("![", "(javascript:", "<script"):
        assert active not in result.answer
    assert "[plan](http://evil.example/p.png)" in result.answer
    assert result.metadata["guard"] == "active_markup"


@pytest.mark.parametrize("policy", ["redact", "refuse"])
async def test_the_nearest_sources_are_named_without_personal_data(titled: Path, policy: str) -> None:
    result = await nothing_found(titled, pii_policy=policy)
    assert MAIL not in result.answer
    assert ("[email]" in result.answer) == (policy == "redact")
    assert result.metadata["guard"] == "personal_data"
