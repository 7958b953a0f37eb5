"""Threads in one SQLite file: the default, for a service on one machine.

LangGraph's own saver stores the checkpoints; beside its two tables stand three of ours: `threads` (owner, title, time
to live), `runs` (who holds a thread) and `queue` (who waits for it). Several processes may share the file.
"""
# ruff: noqa: S608  # only names written in this file are put into SQL; every value is bound

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiosqlite
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from citewell.errors import CheckpointError, RunReplaced, ThreadNotFound
from citewell.threads.index import ThreadInfo
from citewell.threads.strict import StrictSerializer
from citewell.threads.turns import LEASE_KEY, Policy

BUSY_S = 10.0
"""Longest one process waits for another's write, in seconds."""

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
"""

SIZE = """
(SELECT coalesce(sum(length(checkpoint) + length(metadata)), 0) FROM checkpoints c WHERE c.thread_id = t.thread_id)
+ (SELECT coalesce(sum(length(value)), 0) FROM writes w WHERE w.thread_id = t.thread_id)
"""

NEWEST = """
(SELECT max(checkpoint_id) FROM checkpoints n WHERE n.thread_id = {0}.thread_id AND n.checkpoint_ns = {0}.checkpoint_ns)
"""


@contextlib.contextmanager
def sqlite_errors() -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except (sqlite3.Error, ValueError) as exc:
        # aiosqlite raises ValueError for a connection that is closed
        if isinstance(exc, ValueError) and "no active connection" not in str(exc).lower():
            raise
        raise CheckpointError("The thread database cannot be read or written.") from exc


async def begin(db: aiosqlite.Connection) -> None:
    """Begin a transaction that writes.

    SQLite waits by itself for another writer, but refuses at once where the connection still reads from an older state:
    a reader in another task, or a statement whose task was cancelled. Either is over in a moment.
    """
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            await db.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        await db.rollback()  # lets go of the statement of a cancelled task; there is nothing else to roll back
        await asyncio.sleep(0.005)


class SqliteSaver(AsyncSqliteSaver):
    """LangGraph's SQLite saver with a strict serializer, a fencing token, and the newer methods of the base class."""

    def __init__(self, conn: aiosqlite.Connection, *, serde: SerializerProtocol | None = None, ttl_s: int = 0) -> None:
        super().__init__(conn, serde=serde or StrictSerializer())
        self._ttl_s = ttl_s
        self._writing = asyncio.Lock()

    async def setup(self) -> None:
        if not self.is_setup:
            await super().setup()
            await self.conn.execute("PRAGMA synchronous=NORMAL")  # with WAL: a crash of the process loses nothing
            await self.conn.executescript(SCHEMA)
            await self.conn.commit()

    @contextlib.asynccontextmanager
    async def _transaction(self, config: RunnableConfig | None = None) -> AsyncIterator[None]:
        await self.setup()
        with sqlite_errors():
            async with self._writing:
                try:
                    await begin(self.conn)
                    await self._check_turn(config)
                    yield
                    await self.conn.commit()
                except BaseException:  # also a cancellation: the file must not stay locked
                    await asyncio.shield(self.conn.rollback())
                    raise

    async def _check_turn(self, config: RunnableConfig | None) -> None:
        ticket = config["configurable"].get(LEASE_KEY) if config else None
        if config is None or ticket is None:
            return
        async with self.conn.execute(
            "SELECT ticket FROM runs WHERE thread_id = ?", (str(config["configurable"]["thread_id"]),)
        ) as rows:
            row = await rows.fetchone()
        if row is None:
            raise ThreadNotFound("This conversation was deleted, or expired, while it was being answered.")
        if row[0] != ticket:
            raise RunReplaced

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        if await self._expired(str(config["configurable"]["thread_id"])):
            return None
        with sqlite_errors():
            return await super().aget_tuple(config)

    async def _expired(self, thread_id: str) -> bool:
        """Whether the thread's time is over; if not, start it anew once a hundredth of it has passed."""
        await self.setup()
        now = time.time()
        with sqlite_errors():
            async with self.conn.execute(
                "SELECT expires, coalesce(ttl_s, ?) FROM threads WHERE thread_id = ?", (self._ttl_s, thread_id)
            ) as rows:
                row = await rows.fetchone()
        if row is None or row[0] is None:
            return False
        expires, ttl_s = row
        if now < expires < now + 0.99 * ttl_s:
            async with self._transaction():
                await self.conn.execute("UPDATE threads SET expires = ? WHERE thread_id = ?", (now + ttl_s, thread_id))
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
                for table in ("writes", "checkpoints"):
                    await self.conn.execute(
                        f"DELETE FROM {table} WHERE thread_id = ? AND checkpoint_id <> {NEWEST.format(table)}",
                        (str(thread_id),),
                    )


class SqlitePlace:
    """A SQLite file as a place for threads.

    Args:
        path: The file; its directory must exist.
        ttl_s: Seconds an unused thread is kept; 0 keeps it.
    """

    def __init__(self, path: Path, *, ttl_s: int) -> None:
        self._path = path
        self._ttl_s = ttl_s
        self._saver_db = aiosqlite.connect(path, timeout=BUSY_S)
        self._db = aiosqlite.connect(path, timeout=BUSY_S)
        self._lock = asyncio.Lock()

    async def open(self) -> None:
        """Create what is missing and start with expired threads gone."""
        with sqlite_errors():
            await self._saver_db
            await self._db
            self._saver = SqliteSaver(self._saver_db, ttl_s=self._ttl_s)
            await self._saver.setup()
            await self._db.execute("PRAGMA synchronous=NORMAL")
        await self.sweep()

    async def close(self) -> None:
        await self._db.close()
        await self._saver_db.close()

    @property
    def checkpointer(self) -> BaseCheckpointSaver[Any]:  # Any: the base class is generic over its version type
        return self._saver

    @contextlib.asynccontextmanager
    async def _transaction(self) -> AsyncIterator[aiosqlite.Connection]:
        with sqlite_errors():
            async with self._lock:
                try:
                    await begin(self._db)
                    yield self._db
                    await self._db.commit()
                except BaseException:  # also a cancellation: the file must not stay locked
                    await asyncio.shield(self._db.rollback())
                    raise

    async def _rows(self, query: str, *values: object) -> list[Any]:
        with sqlite_errors():
            async with self._lock, self._db.execute(query, values) as rows:
                return list(await rows.fetchall())

    # --- turns --------------------------------------------------------------------------------

    async def claim(self, thread_id: str, ticket: str, policy: Policy, lease_s: float) -> bool:
        now = time.time()
        ((holder, place, is_over),) = await self._rows(
            "SELECT (SELECT ticket FROM runs WHERE thread_id = ? AND expires > ?), "
            "(SELECT expires FROM queue WHERE ticket = ?), "
            "EXISTS (SELECT 1 FROM threads WHERE thread_id = ? AND expires <= ?)",
            thread_id, now, ticket, thread_id, now,
        )  # fmt: skip
        # Writers of one file wait for each other, so whoever only looks whether its turn has come does not write.
        if holder is not None and (policy == "reject" or (policy == "queue" and (place or 0) > now + 0.6 * lease_s)):
            return False
        if is_over:
            await self.delete(thread_id)
        async with self._transaction() as db:
            await db.execute("DELETE FROM queue WHERE thread_id = ? AND expires < ?", (thread_id, now))
            async with db.execute(
                "SELECT ticket FROM runs WHERE thread_id = ? AND expires > ?", (thread_id, now)
            ) as rows:
                busy = await rows.fetchone() is not None
            async with db.execute(
                "SELECT ticket FROM queue WHERE thread_id = ? ORDER BY seq LIMIT 1", (thread_id,)
            ) as rows:
                first = await rows.fetchone()
            if policy == "replace" or not (busy or (first is not None and first[0] != ticket)):
                await db.execute("DELETE FROM queue WHERE ticket = ?", (ticket,))
                await db.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?)", (thread_id, ticket, now + lease_s))
                await self._keep(db, thread_id, now)
                return True
            if policy == "queue":
                await db.execute(
                    "INSERT INTO queue (thread_id, ticket, expires) VALUES (?, ?, ?) "
                    "ON CONFLICT (ticket) DO UPDATE SET expires = excluded.expires",
                    (thread_id, ticket, now + lease_s),
                )
            return False

    async def renew(self, thread_id: str, ticket: str, lease_s: float) -> bool:
        async with self._transaction() as db:
            done = await db.execute(
                "UPDATE runs SET expires = ? WHERE thread_id = ? AND ticket = ?",
                (time.time() + lease_s, thread_id, ticket),
            )
            return done.rowcount == 1

    async def release(self, thread_id: str, ticket: str) -> None:
        async with self._transaction() as db:
            # The row stays: a late write of this ticket must meet a ticket that is not its own.
            await db.execute(
                "UPDATE runs SET ticket = '', expires = 0 WHERE thread_id = ? AND ticket = ?", (thread_id, ticket)
            )
            await db.execute("DELETE FROM queue WHERE ticket = ?", (ticket,))
            await self._slide(db, thread_id)
            await db.execute(  # the run never saved anything
                "DELETE FROM threads WHERE thread_id = ? AND owner = '' AND ttl_s IS NULL AND NOT EXISTS "
                "(SELECT 1 FROM checkpoints WHERE checkpoints.thread_id = threads.thread_id)",
                (thread_id,),
            )
            await db.execute(
                "DELETE FROM runs WHERE thread_id = ? AND ticket = '' AND NOT EXISTS "
                "(SELECT 1 FROM threads WHERE threads.thread_id = runs.thread_id)",
                (thread_id,),
            )

    # --- the index ----------------------------------------------------------------------------

    async def _keep(self, db: aiosqlite.Connection, thread_id: str, now: float) -> None:
        """Slide the time to live, entering the thread if it is new."""
        await db.execute(
            "INSERT INTO threads (thread_id, created, updated, expires) VALUES (?, ?, ?, ? + nullif(?, 0)) "
            "ON CONFLICT (thread_id) DO UPDATE SET expires = ? + nullif(coalesce(ttl_s, ?), 0)",
            (thread_id, now, now, now, self._ttl_s, now, self._ttl_s),
        )

    async def _slide(self, db: aiosqlite.Connection, thread_id: str) -> None:
        """Slide the time to live of a thread, if there is such."""
        await db.execute(
            "UPDATE threads SET expires = ? + nullif(coalesce(ttl_s, ?), 0) WHERE thread_id = ?",
            (time.time(), self._ttl_s, thread_id),
        )

    async def record(self, thread_id: str, owner: str, title: str) -> None:
        now = time.time()
        async with self._transaction() as db:
            await self._keep(db, thread_id, now)
            await db.execute(
                "UPDATE threads SET owner = ?, updated = ?, title = CASE title WHEN '' THEN ? ELSE title END WHERE thread_id = ?",
                (owner, now, title, thread_id),
            )

    async def rename(self, thread_id: str, title: str) -> bool:
        async with self._transaction() as db:
            done = await db.execute(
                "UPDATE threads SET title = ? WHERE thread_id = ? AND (expires IS NULL OR expires > ?)",
                (title, thread_id, time.time()),
            )
            return done.rowcount == 1

    async def info(self, thread_id: str) -> ThreadInfo | None:
        rows = await self._rows(
            f"SELECT t.thread_id, owner, title, created, updated, {SIZE} FROM threads t "
            "WHERE t.thread_id = ? AND (expires IS NULL OR expires > ?)",
            thread_id, time.time(),
        )  # fmt: skip
        return _info(rows[0]) if rows else None

    async def list(self, owner: str, limit: int, before: datetime | None) -> Sequence[ThreadInfo]:
        rows = await self._rows(
            f"SELECT t.thread_id, owner, title, created, updated, {SIZE} FROM threads t "
            "WHERE owner = ? AND updated < ? AND (expires IS NULL OR expires > ?) ORDER BY updated DESC LIMIT ?",
            owner, before.timestamp() if before else float("inf"), time.time(), limit,
        )  # fmt: skip
        return [_info(row) for row in rows]

    async def walk(self) -> AsyncIterator[ThreadInfo]:
        for row in await self._rows(f"SELECT t.thread_id, owner, title, created, updated, {SIZE} FROM threads t"):
            yield _info(row)

    async def touch(self, thread_id: str, ttl_s: int | None) -> None:
        async with self._transaction() as db:
            if ttl_s is not None:
                await db.execute("UPDATE threads SET ttl_s = ? WHERE thread_id = ?", (ttl_s, thread_id))
            await self._slide(db, thread_id)

    async def delete(self, thread_id: str) -> bool:
        async with self._transaction() as db:
            counts = [
                (await db.execute(f"DELETE FROM {table} WHERE thread_id = ?", (thread_id,))).rowcount
                for table in ("checkpoints", "threads", "writes", "runs", "queue")
            ]
        return counts[0] + counts[1] > 0

    async def sweep(self) -> int:
        """Drop threads that were not used for their time to live. Returns how many."""
        rows = await self._rows("SELECT thread_id FROM threads WHERE expires <= ?", time.time())
        for (thread_id,) in rows:
            await self.delete(thread_id)
        return len(rows)

    async def prune(self, thread_id: str) -> None:
        await self._saver.aprune([thread_id])

    async def ping(self) -> None:
        await self._rows("SELECT 1")


def _info(row: Any) -> ThreadInfo:  # Any: a row of SQLite
    thread_id, owner, title, created, updated, size = row
    return ThreadInfo(
        thread_id=thread_id, owner=owner, title=title, created=datetime.fromtimestamp(created, UTC),
        updated=datetime.fromtimestamp(updated, UTC), size_bytes=size,
    )  # fmt: skip
