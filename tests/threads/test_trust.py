"""What lies in the store is not trusted, little is asked of the server, and old state still loads."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pickle
from pathlib import Path
from typing import Any

import aiosqlite
import ormsgpack
import pytest
import redis
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.conformance.test_utils import generate_checkpoint, generate_metadata
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from citewell.errors import CheckpointError
from citewell.settings import Settings
from citewell.threads import RedisSaver, SqliteSaver, StrictSerializer, open_threads
from tests.redis_servers import Server
from tests.threads.echo_graph import ask, config, contents, talk, transcript

FIXTURE = Path(__file__).with_name("state_v1.json")


def poison(mark: Path) -> list[tuple[str, bytes]]:
    """Payloads that run a command in a reader that believes them: one for each way LangGraph's format offers."""
    command = f"touch {mark}"
    calls = [
        ormsgpack.packb(ormsgpack.Ext(0, ormsgpack.packb(("os", "system", command)))),
        ormsgpack.packb(ormsgpack.Ext(1, ormsgpack.packb(("os", "system", (command,))))),
        ormsgpack.packb(ormsgpack.Ext(2, ormsgpack.packb(("subprocess", "run", {"args": command, "shell": True})))),
        ormsgpack.packb(ormsgpack.Ext(3, ormsgpack.packb(("os", "path", command, "os.system")))),
        ormsgpack.packb(ormsgpack.Ext(4, ormsgpack.packb(("subprocess", "Popen", {"args": command, "shell": True})))),
        ormsgpack.packb(
            ormsgpack.Ext(5, ormsgpack.packb(("subprocess", "Popen", {"args": command, "shell": True}, "x")))
        ),
    ]
    constructor = {"lc": 2, "type": "constructor", "id": ["os", "system"], "args": [command]}

    class Pickled:
        def __reduce__(self) -> Any:
            return os.system, (command,)

    return [("msgpack", call) for call in calls] + [
        ("json", json.dumps(constructor).encode()), ("pickle", pickle.dumps(Pickled())),
    ]  # fmt: skip


async def test_a_poisoned_value_in_redis_runs_nothing(saver: RedisSaver, tmp_path: Path) -> None:
    mark = tmp_path / "owned"
    version = saver.get_next_version(None, None)
    for kind, payload in poison(mark):
        point = generate_checkpoint(channel_values={"value": "x"}, channel_versions={"value": version})
        await saver.aput(config("t", checkpoint_ns=""), point, generate_metadata(), {"value": version})
        fields = await saver.connection.command("HKEYS", saver.key("t"))
        for field in fields:
            if field[:1] == b"b":
                await saver.connection.command("HSET", saver.key("t"), field, b"v%b\0%b" % (kind.encode(), payload))
        if kind == "msgpack":
            found = await saver.aget_tuple(config("t"))
            assert found is not None
            assert isinstance(found.checkpoint["channel_values"]["value"], str | list | dict), (
                "plain data, nothing made of it"
            )
        else:
            with pytest.raises(CheckpointError, match="never read"):
                await saver.aget_tuple(config("t"))
        assert not mark.exists()


async def test_a_poisoned_message_and_a_poisoned_record_run_nothing(saver: RedisSaver, tmp_path: Path) -> None:
    mark = tmp_path / "owned"
    app = talk().compile(checkpointer=saver)
    for kind, payload in poison(mark):
        for place in (b"m", b"c"):
            await saver.adelete_thread("t")
            await app.ainvoke(ask("a"), config("t"), durability="sync")
            async with RedisSaver.from_conn_string(_url(saver)) as reader:
                for name, value in (await saver.connection.command("HGETALL", saver.key("t"))).items():
                    if name[:1] == place:
                        record = value[: value.rindex(b"msgpack\0")] if place == b"c" else b""
                        await saver.connection.command(
                            "HSET", saver.key("t"), name, record + b"%b\0%b" % (kind.encode(), payload)
                        )
                with contextlib.suppress(CheckpointError):
                    await reader.aget_tuple(config("t"))
                assert not mark.exists()


async def test_a_poisoned_value_in_sqlite_runs_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "owned"
    async with aiosqlite.connect(tmp_path / "threads.db") as connection:
        saver = SqliteSaver(connection)
        await saver.aput(config("t", checkpoint_ns=""), generate_checkpoint(), generate_metadata(), {})
        for kind, payload in poison(mark):
            await connection.execute("UPDATE checkpoints SET type = ?, checkpoint = ?", (kind, payload))
            await connection.commit()
            if kind == "msgpack":
                await saver.aget_tuple(config("t"))
            else:
                with pytest.raises(CheckpointError, match="never read"):
                    await saver.aget_tuple(config("t"))
            assert not mark.exists()


def test_the_poison_works_on_a_reader_that_believes_it(tmp_path: Path) -> None:
    """Or the tests above would prove nothing."""
    mark = tmp_path / "owned"
    kind, payload = poison(mark)[0]
    JsonPlusSerializer(allowed_msgpack_modules=True).loads_typed((kind, payload))
    assert mark.exists()


class Foreign:
    """A type nobody has allowed."""

    def __init__(self, **fields: Any) -> None:
        self.fields = fields

    def model_dump(self) -> dict[str, Any]:
        return self.fields


def test_a_type_that_is_not_allowed_comes_back_as_plain_data_and_an_allowed_one_as_itself() -> None:
    data = StrictSerializer().dumps_typed(Foreign(a=1))
    assert StrictSerializer().loads_typed(data) == {"a": 1}
    loaded = StrictSerializer(allowed=[Foreign]).loads_typed(data)
    assert isinstance(loaded, Foreign)
    assert loaded.fields == {"a": 1}


# What a proxy or a managed service may well forbid is not needed.
FEW = "+evalsha +eval +unlink +hget +hset +hmget +hdel +hkeys +hexists +hincrby +hsetnx +hgetall +pexpire +persist +pttl " \
    "+zadd +zrem +zcount +zrevrangebyscore +time +ping +hello +auth +scan +exists"  # fmt: skip


async def test_a_service_needs_few_commands(own_redis: Server, tmp_path: Path) -> None:
    own_redis.client.execute_command("ACL", "SETUSER", "app", "on", ">word", "~*", "-@all", *FEW.split())
    url = own_redis.url.replace("//", "//app:word@")
    async with open_threads(Settings(data_dir=tmp_path, redis_url=url)) as threads:
        app = talk().compile(checkpointer=threads.checkpointer)
        async with threads.turn("t") as held:
            await app.ainvoke(ask("a"), {"configurable": held.config}, durability="sync")
            await threads.record("t", "me", "a")
        assert contents((await app.aget_state(config("t"))).values) == ["a", "re: a"]
        listed = await threads.list("me")
        assert [(info.thread_id, info.size_bytes) for info in listed] == [("t", 0)], "MEMORY is forbidden: size unknown"
        await threads.prune("t")
        assert len([found async for found in threads.checkpointer.alist(None)]) == 1
        assert await threads.delete("t")


async def test_no_command_of_a_turn_touches_more_than_its_own_thread(own_redis: Server, tmp_path: Path) -> None:
    own_redis.client.execute_command(
        "ACL", "SETUSER", "app", "on", ">word", "~citewell:thread:t", "~citewell:owner:me", "-@all", *FEW.split()
    )
    url = own_redis.url.replace("//", "//app:word@")
    async with open_threads(Settings(data_dir=tmp_path, redis_url=url)) as threads:
        app = talk().compile(checkpointer=threads.checkpointer)
        async with threads.turn("t") as held:
            await app.ainvoke(ask("a"), {"configurable": held.config}, durability="sync")
        await threads.record("t", "me", "a")
        assert await threads.delete("t")
        with pytest.raises(CheckpointError, match="refused"):
            await transcript(threads, "other")


async def test_a_state_written_by_version_1_still_loads(saver: RedisSaver, redis_url: str) -> None:
    """`state_v1.json` holds a thread as the first version of the layout wrote it; see `write_fixture`."""
    fields = {
        base64.b64decode(name): base64.b64decode(value) for name, value in json.loads(FIXTURE.read_text()).items()
    }
    with redis.Redis.from_url(redis_url) as client:
        client.hset(saver.key("t"), mapping=fields)  # type: ignore[arg-type]  # stubs know str only
    app = talk().compile(checkpointer=saver)
    state = await app.aget_state(config("t"))
    assert contents(state.values) == ["0", "re: 0", "1", "re: 1", "2", "re: 2"]
    assert isinstance(state.values["messages"][0], HumanMessage)
    assert isinstance(state.values["messages"][1], AIMessage)
    assert [len(state.values["messages"]) async for state in app.aget_state_history(config("t")) if state.values] == [
        6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0,
    ]  # fmt: skip
    await app.ainvoke(ask("3"), config("t"), durability="sync")
    assert contents((await app.aget_state(config("t"))).values)[-4:] == ["2", "re: 2", "3", "re: 3"]


async def write_fixture(url: str) -> None:
    """Run once for each version of the layout, and never again for that version."""
    async with RedisSaver.from_conn_string(url) as saver:
        app = talk().compile(checkpointer=saver)
        for number in range(3):
            await app.ainvoke(ask(str(number)), config("t"), durability="sync")
        fields = await saver.connection.command("HGETALL", saver.key("t"))
    FIXTURE.write_text(json.dumps(
        {base64.b64encode(name).decode(): base64.b64encode(value).decode() for name, value in fields.items()}, indent=1
    ))  # fmt: skip


def _url(saver: RedisSaver) -> str:
    options = saver.connection.client.connection_pool.connection_kwargs  # type: ignore[union-attr]
    return f"redis://{options['host']}:{options['port']}/{options.get('db', 0)}"
