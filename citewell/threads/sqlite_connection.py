"""A connection to SQLite that only one task at a time uses."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

import aiosqlite

from citewell.errors import CheckpointError

BUSY_S = 10.0
"""Longest one process waits for another's write, in seconds."""

LINE_S = 30.0
"""Longest one task waits for the others of its process, in seconds."""


@contextlib.contextmanager
def sqlite_errors() -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except (sqlite3.Error, ValueError) as exc:
        # aiosqlite raises ValueError for a connection that is closed
        if isinstance(exc, ValueError) and not str(exc).lower().startswith(
            ("no active connection", "connection closed")
        ):
            raise
        raise CheckpointError("The thread database cannot be read or written.") from exc


class OneAtATime:
    """Lets one task at a time use a connection, each in a transaction of its own.

    A connection has one snapshot of the file. If a task began to write while another's read was still open, SQLite would refuse the write
    whenever another process had written in between (SQLITE_BUSY_SNAPSHOT), and the read would see what is not committed yet.
    """

    def __init__(self, db: aiosqlite.Connection) -> None:
        self._db = db
        self._line = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[aiosqlite.Connection]:
        """Use the connection without a transaction.

        Raises:
            CheckpointError: Others used it for `LINE_S` seconds, or SQLite failed.
        """
        try:
            async with asyncio.timeout(LINE_S):
                await self._line.acquire()
        except TimeoutError as exc:
            raise CheckpointError(f"The thread database was busy for {LINE_S:g} s.") from exc
        try:
            with sqlite_errors():
                yield self._db
        finally:
            self._line.release()

    def writing(self) -> contextlib.AbstractAsyncContextManager[aiosqlite.Connection]:
        """A transaction that writes: committed at the end of the block, undone if it raises.

        Raises:
            CheckpointError: As `alone`, or another process wrote for `BUSY_S` seconds.
        """
        return self._transaction("IMMEDIATE")

    def reading(self) -> contextlib.AbstractAsyncContextManager[aiosqlite.Connection]:
        """A transaction that only reads, from one state of the file.

        Raises:
            CheckpointError: As `alone`.
        """
        return self._transaction("DEFERRED")

    @contextlib.asynccontextmanager
    async def _transaction(self, kind: Literal["IMMEDIATE", "DEFERRED"]) -> AsyncIterator[aiosqlite.Connection]:
        async with self.alone() as db:
            try:
                await db.execute(f"BEGIN {kind}")
                yield db
                await db.commit()
            except BaseException:  # also a cancellation: the file must not stay locked
                await asyncio.shield(db.rollback())
                raise

    async def rows(self, query: str, *values: object) -> list[Any]:
        """All rows of one query, which runs to its end in one step, so that a cancelled task leaves nothing open."""
        async with self.alone() as db:
            return list(await db.execute_fetchall(query, values))
