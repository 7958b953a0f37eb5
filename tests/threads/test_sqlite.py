"""Readers and writers of one SQLite file do not stand in each other's way."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import aiosqlite
import pytest
from langgraph.checkpoint.conformance.test_utils import generate_checkpoint, generate_metadata

from citewell.errors import CheckpointError
from citewell.threads import SqliteSaver, sqlite_connection
from tests.threads.echo_graph import ask, config, contents, talk


@contextlib.asynccontextmanager
async def opened(tmp_path: Path) -> AsyncIterator[SqliteSaver]:
    async with aiosqlite.connect(tmp_path / "threads.db", timeout=10) as connection:
        yield SqliteSaver(connection)


async def test_who_walks_through_a_list_may_write(tmp_path: Path) -> None:
    async with opened(tmp_path) as saver, opened(tmp_path) as other, asyncio.timeout(60):
        app, beside = (talk().compile(checkpointer=one) for one in (saver, other))
        for text in ("a", "b"):
            await app.ainvoke(ask(text), config("t"), durability="sync")
        seen = 0
        async for _ in saver.alist(config("t")):
            await beside.ainvoke(ask(f"other {seen}"), config("beside"), durability="exit")
            await app.ainvoke(ask(f"mine {seen}"), config("new"), durability="exit")
            seen += 1
        assert seen == 8
        assert len(contents((await app.aget_state(config("new"))).values)) == 16


async def test_a_checkpoint_and_its_writes_are_read_at_one_moment(tmp_path: Path) -> None:
    async with opened(tmp_path) as saver, opened(tmp_path) as other, asyncio.timeout(60):
        whole = 0
        for _ in range(150):
            put = await saver.aput(config("t", checkpoint_ns=""), generate_checkpoint(), generate_metadata(), {})
            await saver.aput_writes(put, [("messages", "said")], "task")
            _, found = await asyncio.gather(other.adelete_thread("t"), saver.aget_tuple(config("t")))
            assert found is None or found.pending_writes == [("task", "messages", "said")]
            whole += found is not None
        assert whole, "some reads came before the deletion"


async def test_reads_that_are_cancelled_keep_no_write_out(tmp_path: Path) -> None:
    chance = random.Random(7)
    async with opened(tmp_path) as saver, opened(tmp_path) as other, asyncio.timeout(60):
        app, beside = (talk().compile(checkpointer=one) for one in (saver, other))
        await app.ainvoke(ask("a"), config("t"), durability="sync")
        for number in range(100):
            reads = [asyncio.create_task(saver.aget_tuple(config("t"))) for _ in range(4)]
            await asyncio.sleep(chance.uniform(0, 0.002))
            for read in reads:
                read.cancel()
            await beside.ainvoke(ask(str(number)), config("beside"), durability="exit")
            await app.ainvoke(ask(str(number)), config("t"), durability="exit")
            await asyncio.gather(*reads, return_exceptions=True)
        assert len(contents((await app.aget_state(config("t"))).values)) == 202


async def test_the_line_for_a_connection_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_connection, "LINE_S", 0.1)
    async with aiosqlite.connect(tmp_path / "threads.db") as db:
        line = sqlite_connection.OneAtATime(db)
        async with line.writing():
            with pytest.raises(CheckpointError, match=r"busy for 0\.1 s"):
                await line.rows("SELECT 1")
        assert await line.rows("SELECT 1") == [(1,)]
