"""Threads in each place they can be kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from citewell.settings import Settings
from citewell.threads import RedisSaver, Threads, open_threads


@pytest.fixture(params=["sqlite", "redis"])
def kept_in(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Settings of a place: SQLite, the default, or Redis."""
    settings: dict[str, Any] = {"data_dir": tmp_path / "data", "thread_wait_s": 20}
    if request.param == "redis":
        settings["redis_url"] = request.getfixturevalue("redis_url")
    return settings


@pytest.fixture
async def threads(kept_in: dict[str, Any]) -> AsyncIterator[Threads]:
    async with open_threads(Settings(**kept_in)) as opened:
        yield opened


@pytest.fixture
async def saver(redis_url: str) -> AsyncIterator[RedisSaver]:
    async with RedisSaver.from_conn_string(redis_url) as opened:
        yield opened
