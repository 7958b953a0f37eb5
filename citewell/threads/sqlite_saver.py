"""The checkpointer over SQLite: LangGraph's own, with what the service needs beside it."""
# ruff: noqa: S608  # only names written in this file are put into SQL; every value is bound

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import aiosqlite
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_checkpoint_id,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.checkpoint.sqlite.utils import search_where

from citewell.errors import CheckpointError, RunReplaced, ThreadNotFound
from citewell.threads.ids import draw_after
from citewell.threads.leases import LEASE_KEY
from citewell.threads.sqlite_connection import OneAtATime
from citewell.threads.strict import StrictSerializer

SCHEMA = """
CREATE TABLE IF NOT EXISTS threads (
    thread_id TEXT PRIMARY KEY, owner TEXT NOT NULL DEFAULT '', title TEXT NOT NULL DEFAULT '',
    created REAL NOT NULL, updated REAL NOT NULL, ttl_s INTEGER, expires REAL
);
CREATE INDEX IF NOT EXISTS threads_by_owner ON threads (owner, updated);
CREATE TABLE IF NOT EXISTS runs (thread_id TEXT PRIMARY KEY, ticket TEXT NOT NULL, expires REAL NOT NULL);
CREATE TABLE IF NOT EXISTS queue (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, thread_id TEXT NOT NULL, ticket TEXT NOT NULL UNIQUE, expires REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS stops (ticket TEXT PRIMARY KEY);
"""
"""Tables beside the two of LangGraph's saver; see `citewell.threads.sqlite_store`."""


class SqliteSaver(AsyncSqliteSaver):
    """LangGraph's SQLite saver with a strict serializer, a check of the fencing token, and the base class's newer methods."""

    def __init__(self, conn: aiosqlite.Connection, *, serde: SerializerProtocol | None = None, ttl_s: int = 0) -> None:
        super().__init__(conn, serde=serde or StrictSerializer())
        self._ttl_s = ttl_s
        self._connection = OneAtATime(conn)
        self._is_ready = False

    async def setup(self) -> None:
        if self._is_ready:
            return
        async with self._connection.alone() as db:
            if not self._is_ready:
                await super().setup()
                await db.execute("PRAGMA synchronous=NORMAL")  # with WAL: a crash of the process loses nothing
                await db.executescript(SCHEMA)
                self._is_ready = True

    @contextlib.asynccontextmanager
    async def _transaction(self, config: RunnableConfig | None = None) -> AsyncIterator[None]:
        await self.setup()
        async with self._connection.writing() as db:
            await self._check_turn(db, config)
            yield

    async def _check_turn(self, db: aiosqlite.Connection, config: RunnableConfig | None) -> None:
        if config and (ticket := config["configurable"].get(LEASE_KEY)) is not None:
            await check_held(db, str(config["configurable"]["thread_id"]), ticket)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        if await self._expired(str(config["configurable"]["thread_id"])):
            return None
        if (found := await self._read(config)) is not None:
            draw_after(found.checkpoint)
        return found

    async def _read(self, config: RunnableConfig) -> CheckpointTuple | None:
        async with self._connection.reading():
            return await super().aget_tuple(config)

    async def peek(self, thread_id: str) -> CheckpointTuple | None:
        """A thread's newest checkpoint, without starting its time to live anew."""
        await self.setup()
        return await self._read({"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}})

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """The checkpoints that match, newest first, each read when it is asked for.

        In between the connection is free, so that a caller may write while it iterates, or stop early.
        """
        await self.setup()
        where, values = search_where(config, filter, before)
        names = await self._connection.rows(
            f"SELECT thread_id, checkpoint_ns, checkpoint_id FROM checkpoints {where} ORDER BY checkpoint_id DESC LIMIT ?",
            *values, -1 if limit is None else limit,
        )  # fmt: skip
        for thread_id, checkpoint_ns, checkpoint_id in names:
            found = await self._read({
                "configurable": {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns, "checkpoint_id": checkpoint_id}
            })  # fmt: skip
            if found is not None:  # None: deleted meanwhile
                yield found

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        if get_checkpoint_id(config) is None:
            newest = await self.aget_tuple(config)
            if newest is None:
                return {channel: {"writes": []} for channel in channels}
            config = newest.config
        await self.setup()
        async with self._connection.reading():
            return await super().aget_delta_channel_history(config=config, channels=channels)

    async def _expired(self, thread_id: str) -> bool:
        """Whether the thread has expired; if not, restart its time to live once a hundredth of it has passed."""
        await self.setup()
        now = time.time()
        rows = await self._connection.rows(
            "SELECT expires, coalesce(ttl_s, ?) FROM threads WHERE thread_id = ?", self._ttl_s, thread_id
        )
        if not rows or rows[0][0] is None:
            return False
        expires, ttl_s = rows[0]
        if now < expires < now + 0.99 * ttl_s:
            with contextlib.suppress(CheckpointError):  # a full disk can be read
                async with self._transaction():
                    await self.conn.execute(
                        "UPDATE threads SET expires = ? WHERE thread_id = ?", (now + ttl_s, thread_id)
                    )
        return bool(expires <= now)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        async with self._transaction(config):
            return await super().aput(config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        async with self._transaction(config):
            await super().aput_writes(config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        async with self._transaction():
            for table in ("checkpoints", "writes"):
                await self.conn.execute(f"DELETE FROM {table} WHERE thread_id = ?", (str(thread_id),))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        gone = "SELECT thread_id, checkpoint_ns, checkpoint_id FROM checkpoints WHERE json_extract(CAST(metadata AS TEXT), '$.run_id') = ?"
        async with self._transaction():
            for run_id in run_ids:
                for table in ("writes", "checkpoints"):
                    await self.conn.execute(
                        f"DELETE FROM {table} WHERE (thread_id, checkpoint_ns, checkpoint_id) IN ({gone})",
                        (str(run_id),),
                    )

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        columns = {
            "checkpoints": "checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata",
            "writes": "checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, value",
        }
        async with self._transaction():
            for table, names in columns.items():
                await self.conn.execute(
                    f"INSERT OR REPLACE INTO {table} (thread_id, {names}) SELECT ?, {names} FROM {table} WHERE thread_id = ?",
                    (str(target_thread_id), str(source_thread_id)),
                )

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        if strategy == "delete":
            for thread_id in thread_ids:
                await self.adelete_thread(thread_id)
            return
        if strategy != "keep_latest":
            raise ValueError(f"unknown strategy {strategy!r}: 'keep_latest' or 'delete'")
        async with self._transaction():
            for thread_id in thread_ids:
                for (ns,) in await self.conn.execute_fetchall(
                    "SELECT DISTINCT checkpoint_ns FROM checkpoints WHERE thread_id = ?", (str(thread_id),)
                ):
                    needed = json.dumps(await self._needed(str(thread_id), ns))
                    for table in ("writes", "checkpoints"):
                        await self.conn.execute(
                            f"DELETE FROM {table} WHERE thread_id = ? AND checkpoint_ns = ? "
                            "AND checkpoint_id NOT IN (SELECT value FROM json_each(?))",
                            (str(thread_id), ns, needed),
                        )

    async def _needed(self, thread_id: str, ns: str) -> list[str]:
        """The newest checkpoint of a namespace, and the ancestors from which its delta channels are rebuilt."""
        ((newest, parent, metadata),) = await self.conn.execute_fetchall(
            "SELECT checkpoint_id, parent_checkpoint_id, metadata FROM checkpoints "
            "WHERE thread_id = ? AND checkpoint_ns = ? ORDER BY checkpoint_id DESC LIMIT 1",
            (thread_id, ns),
        )
        needed = [newest]
        unseen = set(json.loads(metadata or b"{}").get("counters_since_delta_snapshot", ()))
        while (
            unseen
            and parent not in needed
            and (
                found := list(
                    await self.conn.execute_fetchall(
                        "SELECT parent_checkpoint_id, type, checkpoint FROM checkpoints "
                        "WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?",
                        (thread_id, ns, parent),
                    )
                )
            )
        ):
            needed.append(parent)
            ((parent, kind, checkpoint),) = found
            unseen -= self.serde.loads_typed((kind, checkpoint))["channel_values"].keys()
        return needed


async def check_held(db: aiosqlite.Connection, thread_id: str, ticket: str) -> None:
    """Raise RunReplaced or ThreadNotFound where the ticket does not hold the thread."""
    held = list(await db.execute_fetchall("SELECT ticket FROM runs WHERE thread_id = ?", (thread_id,)))
    if not held:
        raise ThreadNotFound("This conversation was deleted, or expired, while it was being answered.")
    if held[0][0] != ticket:
        raise RunReplaced
