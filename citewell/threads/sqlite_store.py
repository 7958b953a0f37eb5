"""Threads in one SQLite file: the default, for a service on one machine.

Beside the two tables of LangGraph's saver, which hold the checkpoints, there are four: `threads` (owner, title, time to live), `runs`
(which run holds a thread), `queue` (which runs wait for it) and `stops` (which runs were asked to stop). Several processes may share
the file.
"""
# ruff: noqa: S608  # only names written in this file are put into SQL; every value is bound

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiosqlite
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    CheckpointTuple,
)

from citewell.threads.leases import Policy, Standing
from citewell.threads.milestones import Milestones
from citewell.threads.sqlite_connection import BUSY_S, OneAtATime, sqlite_errors
from citewell.threads.sqlite_saver import SqliteSaver, check_held
from citewell.threads.store import ThreadInfo

SIZE = """
(SELECT coalesce(sum(length(checkpoint) + length(metadata)), 0) FROM checkpoints c WHERE c.thread_id = t.thread_id)
+ (SELECT coalesce(sum(length(value)), 0) FROM writes w WHERE w.thread_id = t.thread_id)
"""


class _Milestones(Milestones, SqliteSaver):
    """For the service's turns."""


class SqliteThreadStore:
    """Threads in a SQLite file; see `citewell.threads.store.ThreadStore`.

    Args:
        path: The file; its directory must exist.
        ttl_s: How long an unused thread is kept, in seconds; 0: no end.
    """

    def __init__(self, path: Path, *, ttl_s: int) -> None:
        self._path = path
        self._ttl_s = ttl_s
        self._saver_db = aiosqlite.connect(path, timeout=BUSY_S)
        self._db = aiosqlite.connect(path, timeout=BUSY_S)
        self._connection = OneAtATime(self._db)

    async def open(self) -> None:
        """Create the tables that are missing, and drop expired threads."""
        with sqlite_errors():
            await self._saver_db
            await self._db
            self._saver = _Milestones(self._saver_db, ttl_s=self._ttl_s)
            await self._saver.setup()
            await self._db.execute("PRAGMA synchronous=NORMAL")
        await self.sweep()

    async def close(self) -> None:
        await self._db.close()
        await self._saver_db.close()

    @property
    def checkpointer(self) -> BaseCheckpointSaver[Any]:  # Any: the base class is generic over its version type
        return self._saver

    @property
    def journal(self) -> None:
        return None

    # --- turns --------------------------------------------------------------------------------

    async def claim(self, thread_id: str, ticket: str, policy: Policy, lease_s: float) -> bool:
        now = _now()
        ((holder, place, is_over),) = await self._connection.rows(
            "SELECT (SELECT ticket FROM runs WHERE thread_id = ? AND expires > ?), "
            "(SELECT expires FROM queue WHERE ticket = ?), "
            "EXISTS (SELECT 1 FROM threads WHERE thread_id = ? AND expires <= ?)",
            thread_id, now, ticket, thread_id, now,
        )  # fmt: skip
        # Writers of one file wait for each other, so a ticket that only looks whether its turn has come does not write.
        if holder is not None and (policy == "reject" or (policy == "queue" and (place or 0) > now + 0.6 * lease_s)):
            return False
        if is_over:
            await self._drop_expired(thread_id)
        async with self._connection.writing() as db:
            await db.execute("DELETE FROM queue WHERE thread_id = ? AND expires < ?", (thread_id, now))
            ((busy, first),) = await db.execute_fetchall(
                "SELECT EXISTS (SELECT 1 FROM runs WHERE thread_id = ? AND expires > ?), "
                "(SELECT ticket FROM queue WHERE thread_id = ? ORDER BY seq LIMIT 1)",
                (thread_id, now, thread_id),
            )
            if policy == "replace" or not (busy or first not in (None, ticket)):
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

    async def renew(self, thread_id: str, ticket: str, lease_s: float) -> Standing:
        async with self._connection.writing() as db:
            done = await db.execute(
                "UPDATE runs SET expires = ? WHERE thread_id = ? AND ticket = ?",
                (time.time() + lease_s, thread_id, ticket),
            )
            if done.rowcount != 1:
                return "lost"
            async with db.execute("SELECT 1 FROM stops WHERE ticket = ?", (ticket,)) as rows:
                return "held" if await rows.fetchone() is None else "stopped"

    async def stop(self, thread_id: str, ticket: str) -> str | None:
        async with self._connection.writing() as db:
            async with db.execute(
                "SELECT ticket FROM runs WHERE thread_id = ? AND expires > ? AND ? IN ('', ticket)",
                (thread_id, time.time(), ticket),
            ) as rows:
                row = await rows.fetchone()
            if row is None:
                return None
            await db.execute("INSERT OR IGNORE INTO stops VALUES (?)", row)
            return str(row[0])

    async def lives(self, thread_id: str, ticket: str) -> bool:
        ((lives,),) = await self._connection.rows(
            "SELECT EXISTS (SELECT 1 FROM runs WHERE ticket = ? AND thread_id = ? AND expires > ?) "
            "OR EXISTS (SELECT 1 FROM queue WHERE ticket = ? AND expires > ?)",
            ticket, thread_id, time.time(), ticket, time.time(),
        )  # fmt: skip
        return bool(lives)

    async def release(self, thread_id: str, ticket: str) -> None:
        async with self._connection.writing() as db:
            # The row stays, so that a late write with this ticket finds another one there.
            await db.execute(
                "UPDATE runs SET ticket = '', expires = 0 WHERE thread_id = ? AND ticket = ?", (thread_id, ticket)
            )
            for table in ("queue", "stops"):
                await db.execute(f"DELETE FROM {table} WHERE ticket = ?", (ticket,))
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
        """Restart a thread's time to live; enter the thread if it is new."""
        await db.execute(
            "INSERT INTO threads (thread_id, created, updated, expires) VALUES (?, ?, ?, ? + nullif(?, 0)) "
            "ON CONFLICT (thread_id) DO UPDATE SET expires = ? + nullif(coalesce(ttl_s, ?), 0)",
            (thread_id, now, now, now, self._ttl_s, now, self._ttl_s),
        )

    async def _slide(self, db: aiosqlite.Connection, thread_id: str) -> None:
        """Restart a thread's time to live, if there is such a thread."""
        await db.execute(
            "UPDATE threads SET expires = ? + nullif(coalesce(ttl_s, ?), 0) WHERE thread_id = ?",
            (time.time(), self._ttl_s, thread_id),
        )

    async def record(self, thread_id: str, owner: str, title: str, ticket: str = "") -> None:
        now = _now()
        async with self._connection.writing() as db:
            if ticket:
                await check_held(db, thread_id, ticket)
            await self._keep(db, thread_id, now)
            await db.execute(
                "UPDATE threads SET owner = ?, updated = ?, title = CASE title WHEN '' THEN ? ELSE title END WHERE thread_id = ?",
                (owner, now, title, thread_id),
            )

    async def rename(self, thread_id: str, title: str) -> bool:
        async with self._connection.writing() as db:
            done = await db.execute(
                "UPDATE threads SET title = ? WHERE thread_id = ? AND (expires IS NULL OR expires > ?)",
                (title, thread_id, time.time()),
            )
            return done.rowcount == 1

    async def info(self, thread_id: str) -> ThreadInfo | None:
        rows = await self._connection.rows(
            f"SELECT t.thread_id, owner, title, created, updated, {SIZE} FROM threads t "
            "WHERE t.thread_id = ? AND (expires IS NULL OR expires > ?)",
            thread_id, time.time(),
        )  # fmt: skip
        return _info(rows[0]) if rows else None

    async def list(self, owner: str, limit: int, before: datetime | None) -> Sequence[ThreadInfo]:
        rows = await self._connection.rows(
            f"SELECT t.thread_id, owner, title, created, updated, {SIZE} FROM threads t "
            "WHERE owner = ? AND updated < ? AND (expires IS NULL OR expires > ?) ORDER BY updated DESC LIMIT ?",
            owner, before.timestamp() if before else float("inf"), time.time(), limit,
        )  # fmt: skip
        return [_info(row) for row in rows]

    async def peek(self, thread_id: str) -> CheckpointTuple | None:
        rows = await self._connection.rows("SELECT expires FROM threads WHERE thread_id = ?", thread_id)
        if rows and rows[0][0] is not None and rows[0][0] <= time.time():
            return None
        return await self._saver.peek(thread_id)

    async def walk(self) -> AsyncIterator[ThreadInfo]:
        for row in await self._connection.rows(
            f"SELECT t.thread_id, owner, title, created, updated, {SIZE} FROM threads t"
        ):
            yield _info(row)

    async def touch(self, thread_id: str, ttl_s: int | None) -> None:
        async with self._connection.writing() as db:
            if ttl_s is not None:
                await db.execute("UPDATE threads SET ttl_s = ? WHERE thread_id = ?", (ttl_s, thread_id))
            await self._slide(db, thread_id)

    async def delete(self, thread_id: str) -> bool:
        async with self._connection.writing() as db:
            counts = [
                (await db.execute(f"DELETE FROM {table} WHERE thread_id = ?", (thread_id,))).rowcount
                for table in ("checkpoints", "threads", "writes", "runs", "queue")
            ]
        return counts[0] + counts[1] > 0

    async def sweep(self) -> int:
        """Drop expired threads. Returns how many."""
        rows = await self._connection.rows("SELECT thread_id FROM threads WHERE expires <= ?", time.time())
        return sum([await self._drop_expired(thread_id) for (thread_id,) in rows])

    async def _drop_expired(self, thread_id: str) -> bool:
        """Delete an expired thread, unless it has been used since it was found to be expired."""
        async with self._connection.writing() as db:
            gone = await db.execute(
                "DELETE FROM threads WHERE thread_id = ? AND expires <= ?", (thread_id, time.time())
            )
            if gone.rowcount:
                for table in ("checkpoints", "writes", "runs", "queue"):
                    await db.execute(f"DELETE FROM {table} WHERE thread_id = ?", (thread_id,))
        return gone.rowcount > 0

    async def prune(self, thread_id: str) -> None:
        await self._saver.aprune([thread_id])

    async def ping(self) -> None:
        async with self._connection.writing() as db:
            await db.execute("PRAGMA user_version = 0")  # what it is already, and written all the same


def _now() -> float:
    """Seconds since 1970, to the microsecond: a datetime holds no more, and callers ask for what is older than one they were given."""
    return round(time.time(), 6)


def _info(row: Any) -> ThreadInfo:  # Any: a row of SQLite
    thread_id, owner, title, created, updated, size = row
    return ThreadInfo(
        thread_id=thread_id, owner=owner, title=title, created=datetime.fromtimestamp(created, UTC),
        updated=datetime.fromtimestamp(updated, UTC), size_bytes=size,
    )  # fmt: skip
