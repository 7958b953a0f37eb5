"""History in pages, lists of an owner's threads, time to live, deletion that leaves nothing, maintenance."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from blockbuster import blockbuster_ctx

from citewell.settings import Settings
from citewell.threads import RedisSaver, Threads, open_threads
from citewell.threads.sqlite_store import SqliteThreadStore
from tests.threads.echo_graph import ask, config, contents, talk, transcript
from tests.threads.maintenance import maintain


async def converse(threads: Threads, thread: str, count: int = 1, owner: str = "me", first: int = 0) -> None:
    app = talk().compile(checkpointer=threads.checkpointer)
    for number in range(first, first + count):
        async with threads.turn(thread) as held:
            await app.ainvoke(ask(str(number)), {"configurable": held.config}, durability="sync")
            await threads.record(thread, owner, f"  question\n{number} ")


async def test_threads_that_stay_for_good_stay_in_the_list(redis_url: str, tmp_path: Path) -> None:
    settings = Settings(redis_url=redis_url, thread_ttl_s=0, data_dir=tmp_path)
    async with open_threads(settings) as threads, threads.turn("t") as held:
        await threads.record("t", "me", "title")  # as the service does, before anything is saved
        await talk().compile(checkpointer=threads.checkpointer).ainvoke(ask("a"), {"configurable": held.config})
    with redis.Redis.from_url(redis_url) as server:
        assert {server.pttl(key) for key in (b"citewell:thread:t", b"citewell:owner:me")} == {-1}


async def test_a_thread_that_is_only_read_stays_in_the_list(kept_in: dict[str, Any]) -> None:
    async with open_threads(Settings(**kept_in | {"thread_ttl_s": 4})) as threads:
        await converse(threads, "t")
        for _ in range(4):
            await asyncio.sleep(1.1)
            await threads.touch("t")
        assert [info.thread_id for info in await threads.list("me")] == ["t"]


async def test_a_list_that_is_never_read_loses_the_threads_that_are_gone(redis_url: str, tmp_path: Path) -> None:
    settings = Settings(redis_url=redis_url, thread_ttl_s=1, data_dir=tmp_path)
    async with open_threads(settings) as threads:
        await threads.record("for good", "me", "title")
        await threads.touch("for good", ttl_s=0)
        for number in range(30):
            await threads.record(f"gone {number}", "me", "title")
        await asyncio.sleep(1.1)
        for number in range(40):
            await threads.record(f"new {number}", "me", "title")
    with redis.Redis.from_url(redis_url) as server:
        listed = {member.decode() for member in server.zrange("citewell:owner:me", 0, -1)}
    assert {"for good", "new 39"} <= listed
    assert not any(name.startswith("gone") for name in listed)


async def test_a_thread_that_is_begun_anew_while_others_are_swept_stays(tmp_path: Path) -> None:
    async with open_threads(Settings(thread_ttl_s=3, data_dir=tmp_path)) as threads:
        await converse(threads, "t")
        await asyncio.sleep(3.1)
        assert isinstance(threads._store, SqliteThreadStore)
        sweep, threads._store._connection.rows = threads._store.sweep, begin_anew_after(threads)  # type: ignore[method-assign]
        assert await sweep() == 0
        assert await threads.info("t") is not None


def begin_anew_after(threads: Threads) -> Any:
    """The connection's `rows`, after which the thread is in use once more."""
    assert isinstance(threads._store, SqliteThreadStore)
    rows = threads._store._connection.rows

    async def read(*query: Any) -> Any:
        found = list(await rows(*query))
        threads._store._connection.rows = rows  # type: ignore[attr-defined]
        await threads.record("t", "me", "again")
        return found

    return read


async def test_an_owner_sees_their_own_threads_the_last_used_first(threads: Threads) -> None:
    for thread, owner in [("a", "me"), ("b", "me"), ("c", "you"), ("a", "me")]:
        await converse(threads, thread, owner=owner, first=7)
        await asyncio.sleep(0.01)
    mine = await threads.list("me")
    assert [info.thread_id for info in mine] == ["a", "b"]
    assert mine[0].title == "question 7"
    assert mine[0].created < mine[0].updated
    assert mine[0].size_bytes > 500
    assert [info.thread_id for info in await threads.list("you")] == ["c"]
    assert await threads.list("nobody") == []
    assert [info.thread_id for info in await threads.list("me", limit=1)] == ["a"]
    assert [info.thread_id for info in await threads.list("me", before=mine[0].updated)] == ["b"]
    info = await threads.info("c")
    assert info is not None
    assert info.owner == "you"
    assert await threads.info("nobody") is None


async def test_a_page_begins_after_the_last_thread_of_the_one_before(threads: Threads) -> None:
    for _ in range(30):  # whatever the digits of the clock
        await threads.record("t", "me", "")
        (info,) = await threads.list("me")
        assert await threads.list("me", before=info.updated) == []


async def test_the_first_title_stays(threads: Threads) -> None:
    await threads.record("t", "me", "")
    await threads.record("t", "me", "How tall is it?")
    await threads.record("t", "me", "And how old?")
    assert [info.title for info in await threads.list("me")] == ["How tall is it?"]


async def test_deleting_leaves_nothing(threads: Threads, kept_in: dict[str, Any]) -> None:
    await converse(threads, "keep")
    before = _everything(kept_in)
    await converse(threads, "a:b {x}", 3, owner="somebody")
    assert await threads.delete("a:b {x}")
    assert not await threads.delete("a:b {x}")
    assert _everything(kept_in) == before
    assert await threads.list("somebody") == []
    assert [info.thread_id for info in await threads.list("me")] == ["keep"]
    await threads.delete("keep")
    assert not _everything(kept_in)


def _everything(kept_in: dict[str, Any]) -> dict[str, Any]:
    """All that is stored anywhere."""
    if "redis_url" in kept_in:
        with redis.Redis.from_url(kept_in["redis_url"]) as client:
            return {key.decode(): client.dump(key) for key in client.scan_iter()}
    with sqlite3.connect(kept_in["data_dir"] / "threads.db") as db:
        tables = ("checkpoints", "writes", "threads", "runs", "queue")
        return {f"{table} {row}": 1 for table in tables for row in db.execute(f"SELECT * FROM {table}")}


async def test_an_unused_thread_expires_as_a_whole(kept_in: dict[str, Any]) -> None:
    async with open_threads(Settings(**kept_in, thread_ttl_s=3)) as threads:
        await converse(threads, "t", 3)
        assert await threads.list("me")
        await asyncio.sleep(3.3)
        assert await transcript(threads, "t") == []
        assert await threads.info("t") is None
        assert await threads.list("me") == []
        await converse(threads, "t", 1)
        assert len(await transcript(threads, "t")) == 2, "and the next message begins a new one"


async def test_reading_and_writing_both_keep_a_thread_alive(kept_in: dict[str, Any]) -> None:
    async with open_threads(Settings(**kept_in, thread_ttl_s=4)) as threads:
        await converse(threads, "read")
        await converse(threads, "written")
        for number in range(1, 6):
            await asyncio.sleep(1)
            await transcript(threads, "read")
            await converse(threads, "written", first=number)
        assert len(await transcript(threads, "read")) == 2
        assert len(await transcript(threads, "written")) == 12


async def test_a_thread_can_have_a_life_of_its_own(kept_in: dict[str, Any]) -> None:
    async with open_threads(Settings(**kept_in, thread_ttl_s=3)) as threads:
        for thread in ("short", "long", "for good"):
            await converse(threads, thread)
        await threads.touch("long", ttl_s=60)
        await threads.touch("for good", ttl_s=0)
        await converse(threads, "long", first=1)  # and a write does not take it back
        await asyncio.sleep(3.3)
        assert await transcript(threads, "short") == []
        assert len(await transcript(threads, "long")) == 4
        assert len(await transcript(threads, "for good")) == 2


async def test_every_key_of_a_thread_gets_its_time_anew_with_each_read(redis_url: str) -> None:
    async with RedisSaver.from_conn_string(redis_url, ttl_s=100) as saver:
        app = talk().compile(checkpointer=saver)
        for number in range(3):
            await app.ainvoke(ask(str(number)), config("t"), durability="sync")
        with redis.Redis.from_url(redis_url) as client:
            for read in (
                lambda: saver.aget_tuple(config("t")),
                lambda: _drain(saver),
                lambda: saver.aget_delta_channel_history(config=config("t"), channels=["messages"]),
            ):
                for key in client.scan_iter():
                    client.expire(key, 5)
                await read()
                assert [client.ttl(key) > 90 for key in client.scan_iter()] == [True]


async def _drain(saver: RedisSaver) -> None:
    _ = [found async for found in saver.alist(config("t"))]


async def test_the_maintenance_commands_show_and_trim(kept_in: dict[str, Any]) -> None:
    async with open_threads(Settings(**kept_in)) as threads:
        await converse(threads, "t", 12)
        await converse(threads, "u", 2)
        await threads.rename("u", "What is [/b]?")
        await converse(threads, name := str(uuid4()), 1)
        await threads.rename(name, "What is " + "the tide " * 9)
    shown = await _maintain(kept_in, "du")
    assert "3 threads" in shown
    assert f" {name} " in shown, "whole, for the other commands"
    assert "What is [/b]?" in shown
    assert shown.index(" t ") < shown.index(" u "), "the largest first"
    assert "question 0" in shown
    trimmed = await _maintain(kept_in, "prune", "t", "--idle-days", "0")
    assert "1 thread trimmed" in trimmed
    before, after = (
        int(text.replace(",", "")) for text in trimmed.split(":")[1].replace("bytes before,", " ").split()[:2]
    )
    assert after < before / 2
    async with open_threads(Settings(**kept_in)) as threads:
        assert len(await transcript(threads, "t")) == 24
        app = talk().compile(checkpointer=threads.checkpointer)
        assert len([state async for state in app.aget_state_history(config("t"))]) == 1
        assert len([state async for state in app.aget_state_history(config("u"))]) == 8
        assert contents((await app.aget_state(config("u"))).values) == ["0", "re: 0", "1", "re: 1"]


async def _maintain(kept_in: dict[str, Any], *arguments: str) -> str:
    code, out, errors = await maintain(kept_in, *arguments)
    assert code == 0, errors
    return out


async def test_a_turn_that_saved_nothing_leaves_nothing(threads: Threads, kept_in: dict[str, Any]) -> None:
    with pytest.raises(RuntimeError):
        async with threads.turn("t"):
            raise RuntimeError
    await threads.touch("never there", ttl_s=60)
    assert not _everything(kept_in)


async def test_a_turn_never_blocks_the_event_loop(threads: Threads) -> None:
    await converse(threads, "t")
    with blockbuster_ctx("citewell.threads"):
        await converse(threads, "t", 2, first=1)
        assert len(await transcript(threads, "t")) == 6
        assert len(await threads.list("me")) == 1
        assert await threads.delete("t")
