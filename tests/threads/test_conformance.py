"""The ecosystem's own suite for checkpointers, on every server and on SQLite."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import aiosqlite
import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.report import CapabilityReport

from citewell.threads import RedisSaver, SqliteSaver
from tests.redis_servers import Server

BASE = {"put": 17, "put_writes": 10, "get_tuple": 10, "list": 16, "delete_thread": 5}
EXTENDED = {"copy_thread": 8, "delete_for_runs": 7, "prune": 8}


def assert_complete(report: CapabilityReport) -> None:
    failures = [failure for result in report.results.values() for failure in result.failures]
    passed = {name: result.tests_passed for name, result in report.results.items()}
    assert not failures
    assert passed == BASE | EXTENDED
    assert sum(BASE.values()) == 58


@pytest.mark.parametrize("engine", ["valkey", "redis_6"])
async def test_redis_saver_passes_the_whole_suite(engine: str, redis_url: str, redis_6: Server) -> None:
    url = redis_url if engine == "valkey" else redis_6.url

    @checkpointer_test(name=engine)
    async def saver() -> AsyncGenerator[BaseCheckpointSaver[int]]:
        async with RedisSaver.from_conn_string(url) as opened:
            yield opened

    assert_complete(await validate(saver))


async def test_sqlite_saver_passes_the_whole_suite(tmp_path: Path) -> None:
    @checkpointer_test(name="sqlite")
    async def saver() -> AsyncGenerator[BaseCheckpointSaver[str]]:
        async with aiosqlite.connect(tmp_path / "threads.db") as connection:
            yield SqliteSaver(connection)

    assert_complete(await validate(saver))
