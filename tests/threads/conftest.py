"""Threads in each place they can be kept."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver

from citewell.settings import Settings
from citewell.threads import RedisSaver, SqliteSaver, Threads, open_threads


@pytest.fixture(params=["sqlite", "redis"])
def kept_in(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Settings of a place: SQLite, the default, or Redis."""
    settings: dict[str, Any] = {"data_dir": tmp_path / "data", "thread_wait_s": 60}
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


OpenSaver = Callable[[], contextlib.AbstractAsyncContextManager[BaseCheckpointSaver[Any]]]


@pytest.fixture(params=["sqlite", "redis"])
def open_saver(request: pytest.FixtureRequest, tmp_path: Path) -> OpenSaver:
    """Opens a saver of one place, again and again, as several processes would."""
    url = request.getfixturevalue("redis_url") if request.param == "redis" else None

    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[BaseCheckpointSaver[Any]]:
        if url is not None:
            async with RedisSaver.from_conn_string(url) as saver:
                yield saver
        else:
            async with aiosqlite.connect(tmp_path / "threads.db", timeout=10) as connection:
                yield SqliteSaver(connection)

    return opened


@pytest.fixture
async def either(open_saver: OpenSaver) -> AsyncIterator[BaseCheckpointSaver[Any]]:
    async with open_saver() as opened:
        yield opened
