"""Threads: conversations that outlive the process, each with one run at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple

from citewell.errors import CheckpointError
from citewell.settings import Settings
from citewell.threads.journal import Journal
from citewell.threads.leases import LEASE_KEY, Lease, Policy, Turns
from citewell.threads.milestones import milestones_only
from citewell.threads.redis_saver import RedisSaver
from citewell.threads.redis_store import RedisMilestones, RedisThreadStore
from citewell.threads.sqlite_saver import SqliteSaver
from citewell.threads.sqlite_store import SqliteThreadStore
from citewell.threads.store import ThreadInfo, ThreadStore
from citewell.threads.strict import StrictSerializer

__all__ = [
    "LEASE_KEY", "Lease", "Policy", "RedisSaver", "SqliteSaver", "StrictSerializer", "ThreadInfo", "Threads",
    "milestones_only", "open_threads",
]  # fmt: skip

SWEEP_S = 60.0
"""Seconds between two searches for expired threads in SQLite; Redis drops them by itself."""


class Threads:
    """Everything the service does with conversations. Made by `open_threads`."""

    def __init__(self, store: ThreadStore, *, policy: Policy, wait_s: float, lease_s: float = 5.0) -> None:
        self._store = store
        self._policy = policy
        self._turns = Turns(store, wait_s=wait_s, lease_s=lease_s)

    @property
    def checkpointer(self) -> BaseCheckpointSaver[Any]:  # Any: the base class is generic over its version type
        """To compile the graph with."""
        return self._store.checkpointer

    def turn(
        self, thread_id: str, policy: Policy | None = None, ticket: str | None = None
    ) -> contextlib.AbstractAsyncContextManager[Lease]:
        """Hold a thread for one run; the run's configuration must include the lease's `config`.

        Args:
            thread_id: The thread.
            policy: What to do while another run holds it: wait in line (`queue`), give up (`reject`) or take its place
                (`replace`). None: as the settings say.
            ticket: Names the run, for `stop` and `lives`; None: a random one.

        Raises:
            ThreadBusy: The thread did not become free in time, or at once with `reject`.
            CheckpointError: The store cannot be reached.
        """
        return self._turns.turn(thread_id, policy or self._policy, ticket)

    async def stop(self, thread_id: str, ticket: str = "") -> str | None:
        """Ask the run that holds the thread to stop, see `citewell.threads.leases.Turns.stop`."""
        return await self._turns.stop(thread_id, ticket)

    async def lives(self, thread_id: str, ticket: str) -> bool:
        """Whether a run holds the thread or waits for it, and its process is alive."""
        return await self._store.lives(thread_id, ticket)

    @property
    def journal(self) -> Journal | None:
        """What runs have said, for other processes to read; None where threads are not in Redis."""
        return self._store.journal

    async def record(self, thread_id: str, owner: str, title: str, *, ticket: str = "") -> None:
        """Enter a thread in its owner's list, or move it to the top. The first title that is not empty stays.

        Args:
            thread_id: The thread.
            owner: Its owner.
            title: Cut to 200 characters.
            ticket: The run on whose behalf this is done; empty: none.

        Raises:
            RunReplaced, ThreadNotFound: That run does not hold the thread any more.
        """
        await self._store.record(thread_id, owner, " ".join(title.split())[:200], ticket)

    async def rename(self, thread_id: str, title: str) -> bool:
        """Change a thread's title for good. False: there is no such thread."""
        return await self._store.rename(thread_id, " ".join(title.split())[:200])

    async def info(self, thread_id: str) -> ThreadInfo | None:
        """One thread; None if there is none."""
        return await self._store.info(thread_id)

    async def list(self, owner: str, *, limit: int = 50, before: datetime | None = None) -> Sequence[ThreadInfo]:
        """An owner's threads, the most recently used first.

        Args:
            owner: Whose threads.
            limit: Most threads to return, 1..1000.
            before: Only threads last used before this moment: `updated` of the last thread of the previous page.
        """
        return await self._store.list(owner, limit, before)

    async def touch(self, thread_id: str, *, ttl_s: int | None = None) -> None:
        """Restart a thread's time to live; `ttl_s` gives it one of its own, in seconds (0: no end)."""
        await self._store.touch(thread_id, ttl_s)

    async def delete(self, thread_id: str) -> bool:
        """Remove every trace of a thread. A run that holds it is told, and cannot write any more. False: there was none."""
        found = await self._store.delete(thread_id)
        self._turns.revoke(thread_id)
        return found

    async def prune(self, thread_id: str) -> None:
        """Drop a thread's old checkpoints; the transcript stays."""
        await self._store.prune(thread_id)

    async def peek(self, thread_id: str) -> CheckpointTuple | None:
        """A thread's newest checkpoint, or None; does not count as use. For maintenance.

        Raises:
            TornThread: Part of the thread is gone.
        """
        return await self._store.peek(thread_id)

    def walk(self) -> AsyncIterator[ThreadInfo]:
        """Every thread, in no particular order; for maintenance."""
        return self._store.walk()

    async def ping(self) -> None:
        """Raise CheckpointError when threads cannot be reached or take nothing in, as on a full disk. Writes a little."""
        await self._store.ping()


@contextlib.asynccontextmanager
async def open_threads(settings: Settings, *, lease_s: float = 5.0) -> AsyncIterator[Threads]:
    """Open threads in Redis if `settings.redis_url` is set, else in `settings.data_dir / "threads.db"`.

    Args:
        settings: As above; time to live, policy and waiting time are among them.
        lease_s: A run whose process died or hangs loses its thread after this many seconds.

    Raises:
        CheckpointError: The store cannot be reached.
        ConfigurationError: The Redis URL cannot be used.
    """
    async with _open_store(settings) as store:
        yield Threads(store, policy=settings.thread_policy, wait_s=settings.thread_wait_s, lease_s=lease_s)


@contextlib.asynccontextmanager
async def _open_store(settings: Settings) -> AsyncIterator[ThreadStore]:
    if settings.redis_url is None:
        async with _open_sqlite(settings) as file:
            yield file
        return
    url = settings.redis_url.get_secret_value()
    async with RedisMilestones.from_conn_string(url, prefix=settings.namespace, ttl_s=settings.thread_ttl_s) as saver:
        await saver.connection.command("PING")  # and no more: a full server can still be cleared out
        yield RedisThreadStore(saver)


@contextlib.asynccontextmanager
async def _open_sqlite(settings: Settings) -> AsyncIterator[SqliteThreadStore]:
    await asyncio.to_thread(settings.make_data_dir)
    store = SqliteThreadStore(settings.data_dir / "threads.db", ttl_s=settings.thread_ttl_s)
    sweeping: asyncio.Task[None] | None = None
    try:
        await store.open()
        sweeping = asyncio.create_task(_sweep(store))
        yield store
    finally:
        if sweeping is not None:
            sweeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sweeping
        await store.close()


async def _sweep(store: SqliteThreadStore) -> None:
    while True:
        await asyncio.sleep(SWEEP_S)
        with contextlib.suppress(CheckpointError):  # tried again next time
            await store.sweep()
