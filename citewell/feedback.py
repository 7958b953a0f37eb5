"""Ratings of answers, kept with the question, the answer and its citations, so that they can be judged later.

They are in Redis where threads are (one hash per thread), otherwise in `feedback.db` in the data directory. A rating outlives the
time to live of its thread; it is removed when the conversation is deleted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal, Protocol

import aiosqlite
import orjson
from typing_extensions import TypedDict

from citewell.redis_client import connect
from citewell.redis_connection import Connection
from citewell.settings import Settings
from citewell.threads.sqlite_connection import BUSY_S, sqlite_errors

Rating = Literal["up", "down"]
Reason = Literal["", "incorrect", "incomplete", "wrong_source", "not_answered", "other"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS feedback (
    thread_id TEXT NOT NULL, message INTEGER NOT NULL, row BLOB NOT NULL, PRIMARY KEY (thread_id, message)
)
"""


class Row(TypedDict):
    """One rated answer."""

    thread_id: str
    message: int
    """Position of the answer in its conversation, from 0."""
    caller: str
    rating: Rating
    reason: Reason
    comment: str
    created: str
    """ISO 8601, UTC."""
    question: str
    standalone: str
    """The question as it was searched for; equal to `question` where it did not depend on the conversation."""
    answer: str
    citations: list[Any]
    model: str
    """What answered: `extractive` or the model's name."""


class FeedbackStore(Protocol):
    """Where ratings are kept. Every method raises CheckpointError when the store cannot be used."""

    async def put(self, row: Row) -> None:
        """Keep a rating, in the place of an earlier one of the same answer."""

    async def of_thread(self, thread_id: str) -> list[Row]:
        """A conversation's ratings, in the order of its messages."""

    async def forget(self, thread_id: str) -> None:
        """Remove a conversation's ratings."""

    def walk(self) -> AsyncIterator[Row]:
        """Every rating, in no particular order."""


class SqliteFeedback:
    """Ratings in a SQLite file; several processes may share it."""

    def __init__(self, db: aiosqlite.Connection) -> None:
        self._db = db

    async def put(self, row: Row) -> None:
        with sqlite_errors():
            await self._db.execute(
                "INSERT OR REPLACE INTO feedback VALUES (?, ?, ?)",
                (row["thread_id"], row["message"], orjson.dumps(row)),
            )

    async def of_thread(self, thread_id: str) -> list[Row]:
        query = "SELECT row FROM feedback WHERE thread_id = ? ORDER BY message"
        with sqlite_errors():
            return [orjson.loads(row) for (row,) in await self._db.execute_fetchall(query, (thread_id,))]

    async def forget(self, thread_id: str) -> None:
        with sqlite_errors():
            await self._db.execute("DELETE FROM feedback WHERE thread_id = ?", (thread_id,))

    async def walk(self) -> AsyncIterator[Row]:
        with sqlite_errors():  # read in one step: SQLite refuses to write while the connection reads an older state
            rows = await self._db.execute_fetchall("SELECT row FROM feedback")
        for (row,) in rows:
            yield orjson.loads(row)


class RedisFeedback:
    """Ratings in Redis, `<namespace>:feedback:<thread_id>`: position -> row."""

    def __init__(self, connection: Connection, prefix: str) -> None:
        self._connection = connection
        self._prefix = f"{prefix}:feedback:".encode()

    def _key(self, thread_id: str) -> bytes:
        return self._prefix + thread_id.encode()

    async def put(self, row: Row) -> None:
        await self._connection.command("HSET", self._key(row["thread_id"]), row["message"], orjson.dumps(row))

    async def of_thread(self, thread_id: str) -> list[Row]:
        return await self._rows(self._key(thread_id))

    async def forget(self, thread_id: str) -> None:
        await self._connection.command("DEL", self._key(thread_id))

    async def walk(self) -> AsyncIterator[Row]:
        async for key in self._connection.keys(self._prefix):
            for row in await self._rows(key):
                yield row

    async def _rows(self, key: bytes) -> list[Row]:
        rows: list[Row] = [orjson.loads(row) for row in await self._connection.command("HVALS", key)]
        return sorted(rows, key=lambda row: row["message"])


@asynccontextmanager
async def open_feedback(settings: Settings) -> AsyncIterator[FeedbackStore]:
    """Open the ratings in the place where the settings keep threads.

    Raises:
        CheckpointError: The store cannot be used.
    """
    if settings.redis_url is not None:
        client = connect(settings.redis_url.get_secret_value(), max_connections=8, timeout_s=5.0)
        connection = Connection(client, part="ratings", max_connections=8, patience_s=5.0)
        try:
            yield RedisFeedback(connection, settings.namespace)
        finally:
            await connection.close()
        return
    await asyncio.to_thread(settings.make_data_dir)
    path = settings.data_dir / "feedback.db"
    async with aiosqlite.connect(path, timeout=BUSY_S, isolation_level=None) as db:  # every statement its own commit
        with sqlite_errors():
            await db.execute("PRAGMA journal_mode=WAL")
            await db.execute(_SCHEMA)
        yield SqliteFeedback(db)
