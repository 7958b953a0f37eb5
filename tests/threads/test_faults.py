"""Servers that go away, come back, fail over, forget; many threads at once: an error or the whole thread, never less."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import uvloop

from citewell.errors import CheckpointError, ConfigurationError, ThreadNotFound, TornThread
from citewell.redis_connection import FOLLOW_EVERY_S
from citewell.settings import Settings
from citewell.threads import RedisSaver, open_threads
from citewell.threads.scripts import script
from tests.models.paced_server import Paced
from tests.redis_servers import Cluster, Guarded, Server, server, wait_for
from tests.service import running
from tests.threads.echo_graph import ask, config, contents, talk


def spoken(count: int) -> list[str]:
    return [said for number in range(count) for said in (str(number), f"re: {number}")]


async def test_a_server_that_is_down_is_an_error_that_says_so(own_redis: Server) -> None:
    async with RedisSaver.from_conn_string(own_redis.url, patience_s=0.3) as saver:
        app = talk().compile(checkpointer=saver)
        await app.ainvoke(ask("0"), config("t"), durability="sync")
        own_redis.kill()
        for call in (
            app.ainvoke(ask("1"), config("t")),
            app.aget_state(config("t")),
            saver.aget_tuple(config("t")),
            saver.adelete_thread("t"),
        ):
            with pytest.raises(CheckpointError, match="cannot be reached"):
                await call
        with pytest.raises(CheckpointError):
            _ = [found async for found in saver.alist(None)]


async def test_a_server_that_comes_back_goes_on_without_a_restart(own_redis: Server) -> None:
    async with RedisSaver.from_conn_string(own_redis.url, patience_s=0.3) as saver:
        app = talk().compile(checkpointer=saver)
        await app.ainvoke(ask("0"), config("t"), durability="sync")
        own_redis.kill()
        with pytest.raises(CheckpointError):
            await app.ainvoke(ask("1"), config("t"), durability="sync")
        own_redis.start()  # it has forgotten the scripts, too
        saver.connection._patience_s = 60
        await app.ainvoke(ask("1"), config("t"), durability="sync")
        assert contents((await app.aget_state(config("t"))).values) == spoken(2)


async def test_what_a_failover_lost_is_not_shown_by_the_process_that_wrote_it(redis_url: str) -> None:
    async with RedisSaver.from_conn_string(redis_url) as ours, RedisSaver.from_conn_string(redis_url) as others:
        here, there = talk().compile(checkpointer=ours), talk().compile(checkpointer=others)
        await here.ainvoke(ask("0"), config("t"), durability="sync")
        with redis.Redis.from_url(redis_url) as server:
            replica = server.dump(ours.key("t"))
            await here.ainvoke(ask("lost"), config("t"), durability="sync")
            server.restore(ours.key("t"), 0, replica, replace=True)
        await there.ainvoke(ask("1"), config("t"), durability="sync")
        assert contents((await here.aget_state(config("t"))).values) == spoken(2)
        await here.ainvoke(ask("2"), config("t"), durability="sync")
        for app in (here, there):
            assert contents((await app.aget_state(config("t"))).values) == spoken(3)


async def test_a_failover_in_mid_run_loses_nothing_of_the_run(redis_url: str) -> None:
    async with RedisSaver.from_conn_string(redis_url) as saver, RedisSaver.from_conn_string(redis_url) as other:
        with redis.Redis.from_url(redis_url) as server:
            app = talk().compile(checkpointer=saver)
            await app.ainvoke(ask("0"), config("t"), durability="sync")
            replica = server.dump(saver.key("t"))
            async for step in app.astream(ask("1"), config("t"), durability="sync"):
                if "hear" in step:
                    server.restore(saver.key("t"), 0, replica, replace=True)
        assert contents((await talk().compile(checkpointer=other).aget_state(config("t"))).values) == spoken(2)


async def test_a_restart_in_mid_conversation_is_waited_for(own_redis: Server) -> None:
    async with RedisSaver.from_conn_string(own_redis.url, patience_s=20) as saver:
        app = talk(0.02).compile(checkpointer=saver)

        async def converse() -> None:
            for number in range(30):
                await app.ainvoke(ask(str(number)), config("t"), durability="sync")

        talking = asyncio.create_task(converse())
        await asyncio.sleep(0.4)
        own_redis.kill()
        await asyncio.sleep(0.3)
        await asyncio.to_thread(own_redis.start)
        await talking
        assert contents((await app.aget_state(config("t"))).values) == spoken(30)


@pytest.mark.parametrize("fault", ["killed", "hung", "locked"])
async def test_a_store_out_of_reach_for_longer_than_a_lease_ends_the_turn_as_cut_off(
    own_redis: Server, tmp_path: Path, fault: str
) -> None:
    """Not as replaced: nobody knows who holds the thread."""
    url = None if fault == "locked" else own_redis.url
    async with open_threads(Settings(data_dir=tmp_path, redis_url=url), lease_s=3) as threads:
        async with threads.turn("t", "queue") as held:
            await asyncio.sleep(3.5)
            assert not held.lost.is_set(), "a store that answers keeps the thread"
            began = time.monotonic()
            with out_of_reach(own_redis, tmp_path, fault):
                await held.lost.wait()
            assert time.monotonic() - began > 1.9, "not before the lease is over"
            assert (held.is_cut_off, held.stopped) == (True, False)
        if fault == "killed":
            own_redis.start()
        async with threads.turn("t", "queue") as held, threads.turn("t", "replace"):
            await held.lost.wait()
            assert not held.is_cut_off


@contextlib.contextmanager
def out_of_reach(server: Server, data_dir: Path, fault: str) -> Iterator[None]:
    if fault == "locked":
        with contextlib.closing(sqlite3.connect(data_dir / "threads.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
    elif fault == "hung":
        assert server.process is not None
        server.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            server.process.send_signal(signal.SIGCONT)
    else:
        server.kill()
        yield


def test_a_turn_whose_store_is_out_of_reach_says_so_and_not_that_it_was_replaced(
    own_redis: Server, paced: Paced, data_dir: Path
) -> None:
    body = {"message": "How high is the tower of the lighthouse?", "conversation_id": "t"}
    with running(data_dir, CITEWELL_REDIS_URL=own_redis.url, **paced.model(100)) as live:
        before = paced.calls()["started"]
        with ThreadPoolExecutor(1) as asking:
            answer = asking.submit(httpx.post, f"{live.url}/chat", json=body, timeout=60)
            wait_for(lambda: paced.calls()["started"] > before, "the model to be asked")
            own_redis.kill()
            said = answer.result()
        assert (said.status_code, said.json()["code"]) == (503, "checkpoint_error")
        assert "could not be reached" in said.json()["detail"]


async def test_no_service_starts_on_a_server_that_is_not_there(own_redis: Server, tmp_path: Any) -> None:
    own_redis.kill()
    with pytest.raises(CheckpointError):
        async with open_threads(Settings(data_dir=tmp_path, redis_url=own_redis.url)):
            pass


@pytest.mark.parametrize(
    "url",
    [
        "http://x",
        "redis+sentinel://host",
        "redis+cluster://host,host:port",
        "redis://host:port/0",
        "redis://[::1",
        "redis://host?passwrod=x",
        "localhost:6379",
    ],
)
async def test_a_url_that_cannot_be_read_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        async with RedisSaver.from_conn_string(url.replace("//", "//user:secret@")):
            pass
    assert "secret" not in str(caught.value)


async def test_a_wrong_password_is_an_error_at_once(own_redis: Server) -> None:
    own_redis.client.config_set("requirepass", "right")
    async with RedisSaver.from_conn_string(own_redis.url.replace("//", "//:wrong@"), patience_s=3600) as saver:
        with pytest.raises(CheckpointError, match="credentials"):
            await saver.aget_tuple(config("t"))


@pytest.fixture(params=["valkey", "redis"])
def own_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of the test's own, to be set otherwise: the newest line and the oldest."""
    with server(request.param) as one:
        yield one


READ_ONLY = (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE"))
NO_REPLICAS = (("CONFIG", "SET", "min-replicas-to-write", "1"), ("CONFIG", "SET", "min-replicas-to-write", "0"))


@pytest.mark.parametrize(("begin", "end"), [READ_ONLY, NO_REPLICAS])
async def test_a_server_that_takes_no_writes_for_a_moment_is_waited_for(
    own_server: Server, begin: tuple[str, ...], end: tuple[str, ...]
) -> None:
    async with RedisSaver.from_conn_string(own_server.url) as saver:
        app = talk().compile(checkpointer=saver)
        await app.ainvoke(ask("0"), config("t"), durability="sync")
        own_server.client.execute_command(*begin)
        asking = asyncio.create_task(app.ainvoke(ask("1"), config("t"), durability="sync"))
        await asyncio.sleep(0.5)
        own_server.client.execute_command(*end)
        await asking
        assert contents((await app.aget_state(config("t"))).values) == spoken(2)


async def test_a_full_server_is_an_error_and_harms_nothing(own_server: Server) -> None:
    async with RedisSaver.from_conn_string(own_server.url) as saver:
        app = talk().compile(checkpointer=saver)
        await app.ainvoke(ask("0"), config("t"), durability="sync")
        own_server.client.config_set("maxmemory", 1)
        with pytest.raises(CheckpointError, match="out of memory"):
            await app.ainvoke(ask("1"), config("t"), durability="sync")
        own_server.client.config_set("maxmemory", 0)
        await app.ainvoke(ask("1"), config("t"), durability="sync")
        assert contents((await app.aget_state(config("t"))).values) == spoken(2)


async def test_scripts_that_were_flushed_are_loaded_again(saver: RedisSaver, redis_url: str) -> None:
    app = talk().compile(checkpointer=saver)
    for number in range(3):
        redis.Redis.from_url(redis_url).script_flush()
        await app.ainvoke(ask(str(number)), config("t"), durability="sync")
    assert contents((await app.aget_state(config("t"))).values) == spoken(3)


async def test_a_hundred_threads_of_twenty_turns_at_once_on_ten_connections(redis_url: str) -> None:
    async with RedisSaver.from_conn_string(redis_url, max_connections=10) as saver:
        app = talk().compile(checkpointer=saver)

        async def converse(thread: str) -> None:
            for number in range(20):
                await app.ainvoke(ask(str(number)), config(thread), durability="exit")

        await asyncio.gather(*(converse(f"t{number}") for number in range(100)))
        for number in range(100):
            assert contents((await app.aget_state(config(f"t{number}"))).values) == spoken(20)
    with redis.Redis.from_url(redis_url) as client:
        wait_for(lambda: len(client.client_list()) <= 2, "the connections to close")


async def test_a_thread_evicted_in_mid_answer_is_stored_whole(saver: RedisSaver) -> None:
    evicted = talk(meanwhile=lambda: saver.connection.command("UNLINK", saver.key("t")))
    await talk().compile(checkpointer=saver).ainvoke(ask("0"), config("t"), durability="sync")
    app = evicted.compile(checkpointer=saver)
    await app.ainvoke(ask("1"), config("t"), durability="sync")
    assert contents((await app.aget_state(config("t"))).values) == spoken(2)
    async with RedisSaver.from_conn_string(_url(saver)) as cold:
        assert contents((await talk().compile(checkpointer=cold).aget_state(config("t"))).values) == spoken(2)


async def test_a_server_under_eviction_keeps_or_drops_threads_as_a_whole(own_redis: Server) -> None:
    async with RedisSaver.from_conn_string(own_redis.url) as saver:
        app = talk().compile(checkpointer=saver)
        own_redis.client.config_set("maxmemory-policy", "allkeys-random")
        own_redis.client.config_set("maxmemory", own_redis.client.info("memory")["used_memory"] + 5_000_000)
        for number in range(8):
            await asyncio.gather(*(
                app.ainvoke(ask(str(number) + "x" * 20_000), config(f"t{thread}"), durability="sync") for thread in range(24)
            ))  # fmt: skip
        assert own_redis.client.info("stats")["evicted_keys"] > 0
        own_redis.client.config_set("maxmemory", 0)
        async with RedisSaver.from_conn_string(own_redis.url) as cold:
            for thread in range(24):
                found = await cold.aget_tuple(config(f"t{thread}"))
                if found is None:
                    continue
                said = contents(found.checkpoint["channel_values"])
                first = int(said[0][0])
                expected = [str(number) + "x" * 20_000 for number in range(first, 8)]
                assert said == [text for asked in expected for text in (asked, f"re: {asked}")]


@pytest.mark.parametrize("kind", ["m", "b", "c"])
async def test_a_thread_with_a_hole_is_an_error_and_not_a_shorter_thread(saver: RedisSaver, kind: str) -> None:
    app = talk().compile(checkpointer=saver)
    for number in range(3):
        await app.ainvoke(ask(str(number)), config("t"), durability="sync")
    fields = [name for name in await saver.connection.command("HKEYS", saver.key("t")) if name[:1] == kind.encode()]
    if kind == "c":
        fields = [max(fields)]
    await saver.connection.command("HDEL", saver.key("t"), *fields)
    async with RedisSaver.from_conn_string(_url(saver)) as cold:
        with pytest.raises(TornThread):
            await cold.aget_tuple(config("t"))


async def test_a_run_whose_thread_expired_says_so(redis_url: str, tmp_path: Any) -> None:
    async with open_threads(Settings(data_dir=tmp_path, redis_url=redis_url)) as threads:
        expire = redis.Redis.from_url(redis_url).flushdb
        app = talk(meanwhile=lambda: asyncio.to_thread(expire)).compile(checkpointer=threads.checkpointer)
        async with threads.turn("t") as held:
            with pytest.raises(ThreadNotFound):
                await app.ainvoke(ask("a"), {"configurable": held.config}, durability="sync")


async def test_it_speaks_tls(redis_tls_url: str, redis_url: str) -> None:
    async with RedisSaver.from_conn_string(redis_tls_url) as saver:
        await talk().compile(checkpointer=saver).ainvoke(ask("0"), config("t"), durability="sync")
    async with RedisSaver.from_conn_string(redis_url) as plain:
        assert contents((await talk().compile(checkpointer=plain).aget_state(config("t"))).values) == spoken(1)
    async with RedisSaver.from_conn_string(redis_tls_url.partition("?")[0], patience_s=0.2) as distrustful:
        with pytest.raises(CheckpointError):
            await distrustful.aget_tuple(config("t"))


async def test_a_sentinel_names_the_new_primary_when_the_old_one_dies(redis_sentinel: Guarded) -> None:
    async with RedisSaver.from_conn_string(redis_sentinel.url, patience_s=30) as saver:
        app = talk().compile(checkpointer=saver)
        for number in range(5):
            await app.ainvoke(ask(str(number)), config("t"), durability="sync")
        assert redis_sentinel.primary.client.wait(1, 5000) == 1
        redis_sentinel.primary.kill()
        for number in range(5, 10):
            await app.ainvoke(ask(str(number)), config("t"), durability="sync")
        assert contents((await app.aget_state(config("t"))).values) == spoken(10)
        assert redis_sentinel.replica.client.role()[0] == b"master"


async def test_a_primary_that_was_replaced_on_purpose_is_left_though_it_still_takes_writes(
    redis_sentinel: Guarded,
) -> None:
    replica, sentinel = redis_sentinel.replica, redis_sentinel.sentinel
    async with RedisSaver.from_conn_string(redis_sentinel.url) as saver:
        app = talk().compile(checkpointer=saver)
        await app.ainvoke(ask("0"), config("before"), durability="sync")
        wait_for(lambda: sentinel.client.execute_command("SENTINEL", "FAILOVER", "threads"), "a failover")
        wait_for(lambda: sentinel.client.sentinel_master("threads")["port"] == replica.port, "the replica's promotion")
        await asyncio.sleep(FOLLOW_EVERY_S)
        await app.ainvoke(ask("0"), config("after"), durability="sync")
        assert redis_sentinel.primary.client.role()[0] == b"master"
        assert replica.client.exists(saver.key("before"), saver.key("after")) == 2


async def test_a_cluster_fails_over_in_mid_conversation(redis_cluster: Cluster) -> None:
    threads = [f"t{{{number}}}" for number in range(12)]  # on every node
    async with RedisSaver.from_conn_string(redis_cluster.url, patience_s=30) as saver:
        app = talk(0.02).compile(checkpointer=saver)

        async def converse(thread: str) -> None:
            for number in range(20):
                await app.ainvoke(ask(str(number)), config(thread), durability="sync")

        talking = [asyncio.create_task(converse(thread)) for thread in threads]
        await asyncio.sleep(0.5)
        victim = await asyncio.to_thread(redis_cluster.primary_of, saver.key(threads[0]))
        assert not any(task.done() for task in talking)
        await asyncio.to_thread(victim.kill)
        await asyncio.gather(*talking)
        assert victim.process is None
        for thread in threads:
            assert contents((await app.aget_state(config(thread))).values) == spoken(20)
    async with RedisSaver.from_conn_string(redis_cluster.url) as cold:
        for thread in threads:
            assert contents((await talk().compile(checkpointer=cold).aget_state(config(thread))).values) == spoken(20)
        assert {found.config["configurable"]["thread_id"] async for found in cold.alist(None)} == set(threads)
        for thread in threads:
            await cold.adelete_thread(thread)
        assert [key async for key in cold.connection.keys(b"")] == []


def test_a_connection_that_another_task_has_closed_is_opened_anew(redis_cluster: Cluster) -> None:
    async def call_over_closed_connections() -> None:
        async with RedisSaver.from_conn_string(redis_cluster.url) as saver:
            await saver.connection.evaluate(script("lives"), saver.key("t"), "ticket")
            for node in saver.connection.client.get_nodes():  # type: ignore[union-attr]
                for connection in node._connections:
                    connection._writer.transport.abort()
            assert await saver.connection.evaluate(script("lives"), saver.key("t"), "ticket") == 0

    uvloop.run(call_over_closed_connections())  # the service's loop: asyncio's own only warns of such a write


def _url(saver: RedisSaver) -> str:
    options = saver.connection.client.connection_pool.connection_kwargs  # type: ignore[union-attr]
    return f"redis://{options['host']}:{options['port']}/{options.get('db', 0)}"
