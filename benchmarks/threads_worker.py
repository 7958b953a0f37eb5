"""One saver, one durability, one thread of many turns: measured in a process of its own and printed as JSON lines."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any

import redis
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from typing_extensions import TypedDict

TURNS = (1, 10, 50, 200)
WORDS = "the lighthouse keeper wrote down the wind and the weather every evening before he lit the lamp " * 6

trips = 0
"""Requests this process has written to a server; a pipeline is one."""


class State(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    standalone: str
    cited: list[str]
    summary: str


def text(number: int, who: str) -> str:
    return f"{who} {number}: {WORDS}"[:500]


def graph() -> StateGraph[State]:
    """Four nodes, as a turn of Citewell has at least; a turn adds a question and an answer of 500 characters."""
    builder = StateGraph(State)

    async def condense(state: State) -> dict[str, Any]:
        return {"standalone": f"question {len(state['messages'])}"}

    async def retrieve(state: State) -> dict[str, Any]:
        return {"cited": [f"chunk-{len(state['messages'])}-{n}" for n in range(3)]}

    async def generate(state: State) -> dict[str, Any]:
        number = len(state["messages"])
        return {"messages": [AIMessage(text(number, "answer"), id=f"a{number}")]}

    async def verify(state: State) -> dict[str, Any]:
        return {"summary": f"so far {len(state['messages'])} messages"}

    nodes: list[tuple[str, Callable[[State], Any]]] = [
        ("condense", condense), ("retrieve", retrieve), ("generate", generate), ("verify", verify),
    ]  # fmt: skip
    for name, node in nodes:
        builder.add_node(name, node)
    order = [START, *(name for name, _ in nodes), END]
    for one, other in itertools.pairwise(order):
        builder.add_edge(one, other)
    return builder


def count_requests() -> None:
    """Count what is written to a server by redis-py and valkey-py, whoever calls them."""
    import redis.asyncio.connection
    import redis.connection
    import valkey.asyncio.connection
    import valkey.connection

    for module in (redis.asyncio.connection, valkey.asyncio.connection):
        cls = module.AbstractConnection
        plain = cls.send_packed_command

        async def send(self: Any, *args: Any, _plain: Any = plain, **options: Any) -> Any:
            global trips
            trips += 1
            return await _plain(self, *args, **options)

        cls.send_packed_command = send
    for module in (redis.connection, valkey.connection):
        cls = module.AbstractConnection
        blocking = cls.send_packed_command

        def send_blocking(self: Any, *args: Any, _plain: Any = blocking, **options: Any) -> Any:
            global trips
            trips += 1
            return _plain(self, *args, **options)

        cls.send_packed_command = send_blocking


@contextlib.asynccontextmanager
async def opened(name: str, url: str, folder: Path) -> AsyncIterator[BaseCheckpointSaver[Any]]:
    if name == "InMemorySaver":
        from langgraph.checkpoint.memory import InMemorySaver

        yield InMemorySaver()
    elif name == "AsyncSqliteSaver":
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

        async with AsyncSqliteSaver.from_conn_string(str(folder / "threads.db")) as sqlite:
            yield sqlite
    elif name == "citewell RedisSaver":
        from citewell.threads import RedisSaver

        async with RedisSaver.from_conn_string(url) as ours:
            yield ours
    elif name == "ValkeySaver":
        from langgraph_checkpoint_aws import AsyncValkeySaver

        async with AsyncValkeySaver.from_conn_string(url.replace("redis://", "valkey://")) as valkey:
            yield valkey
    elif name == "plainredis":
        from langgraph_checkpoint_plainredis import AsyncRedisSaver as Plain

        plain = Plain(url=url)
        yield plain
        await plain.client.aclose()
    elif name == "langgraph-checkpoint-redis":
        from langgraph.checkpoint.redis.aio import AsyncRedisSaver

        async with AsyncRedisSaver.from_conn_string(url) as official:
            await official.asetup()
            yield official
    else:
        raise ValueError(name)


def stored_bytes(name: str, saver: Any, url: str, folder: Path) -> int:
    if name == "InMemorySaver":
        blobs = sum(len(data) for _, data in saver.blobs.values())
        points = sum(
            len(row[0][1]) + len(row[1][1]) for ns in saver.storage.values() for c in ns.values() for row in c.values()
        )
        return blobs + points + sum(len(row[2][1]) for task in saver.writes.values() for row in task.values())
    if name == "AsyncSqliteSaver":
        return sum(file.stat().st_size for file in folder.iterdir())
    with redis.Redis.from_url(url) as client:
        return int(client.info("memory")["used_memory"])


def server_cpu_ms(name: str, url: str) -> float:
    if name in ("InMemorySaver", "AsyncSqliteSaver"):
        return 0.0
    with redis.Redis.from_url(url) as client:
        info = client.info("cpu")
        return float(info["used_cpu_user"] + info["used_cpu_sys"]) * 1000


async def measure(name: str, durability: Any, url: str, most: int) -> None:
    count_requests()
    with tempfile.TemporaryDirectory() as folder:
        async with opened(name, url, Path(folder)) as saver:
            app = graph().compile(checkpointer=saver)

            async def turn(thread: str, number: int) -> None:
                question = HumanMessage(text(number, "question"), id=f"q{number}")
                await app.ainvoke(
                    {"messages": [question]}, {"configurable": {"thread_id": thread}}, durability=durability
                )

            for number in range(5):  # connections, scripts, imports
                await turn("warm-up", number)
            await saver.adelete_thread("warm-up")
            floor = stored_bytes(name, saver, url, Path(folder))
            cpu_ms: list[float] = []
            sent: list[int] = []
            last, server = 0, server_cpu_ms(name, url)
            for number in range(1, most + 1):
                began, before = time.process_time(), trips
                await turn("measured", number)
                cpu_ms.append((time.process_time() - began) * 1000)
                sent.append(trips - before)
                if number in TURNS:
                    before_server, server = server, server_cpu_ms(name, url)
                    row = {
                        "saver": name, "durability": durability, "turn": number, "trips": statistics.median(sent[-10:]),
                        "cpu_ms": statistics.median(cpu_ms[-10:]), "server_cpu_ms": (server - before_server) / (number - last),
                        "bytes": stored_bytes(name, saver, url, Path(folder)) - floor,
                    }  # fmt: skip
                    print(json.dumps(row), flush=True)
                    last = number


if __name__ == "__main__":
    asyncio.run(measure(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
