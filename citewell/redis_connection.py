"""A connection to Redis: it runs scripts and commands, tries again, and turns exceptions into ours."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import redis.asyncio
import redis.exceptions
from redis.asyncio.sentinel import SentinelConnectionPool

from citewell.errors import CheckpointError
from citewell.redis_client import PERMANENT, TRANSIENT, Client, evaluate
from citewell.telemetry import metrics

FOLLOW_EVERY_S = 1.0
FOLLOW_WITHIN_S = 0.1
_PASSES = re.compile(r"(?:^|-)(?:READONLY|NOREPLICAS|BUSY) ")
"""Further transient errors, which redis-py has no classes for: a script that runs too long, a primary without replicas, and Redis 6's
words for a failed write in a script (`Error running script ...: -READONLY You can't write against a read only replica.`)."""
_FULL = "-OOM "
"""Redis 6's word for a full server in the error of a script."""


class Connection:
    """Runs scripts on one key, and commands, with a deadline.

    Args:
        client: A client that does not decode replies.
        part: Whose it is, in the metrics.
        max_connections: Calls under way at once; further ones wait.
        patience_s: How long a server that cannot be reached is tried again, in seconds.
    """

    def __init__(self, client: Client, *, part: metrics.RedisPart, max_connections: int, patience_s: float) -> None:
        self.client = client
        self._part = part
        self._slots = asyncio.Semaphore(max_connections)
        metrics.REDIS_LIMIT.labels(part).set(max_connections)
        self._patience_s = patience_s
        self._follow_at = 0.0
        self.calls = 0
        """Scripts and commands sent so far, tries included."""

    async def evaluate(self, script: str, key: bytes, *args: bytes | str | int, patience_s: float | None = None) -> Any:
        """Run a script on one key; twice, perhaps, where the reply to the first was lost.

        Raises:
            CheckpointError: The server could not be reached for `patience_s` seconds, or refused.
        """
        return await self._try(lambda: evaluate(self.client, script, [key], *args), patience_s)

    async def command(self, *args: bytes | str | int, patience_s: float | None = None) -> Any:
        """Run a command, see `evaluate`."""
        return await self._try(lambda: self.client.execute_command(*args), patience_s)

    async def _try(self, call: Callable[[], Awaitable[Any]], patience_s: float | None = None) -> Any:
        deadline = time.monotonic() + (self._patience_s if patience_s is None else patience_s)
        pause_s = 0.02
        async with self._slots:
            await self._follow()
            while True:
                self.calls += 1
                try:
                    with metrics.redis_call(self._part):
                        return await call()
                except PERMANENT as exc:
                    raise CheckpointError("Redis refuses the credentials it was given.") from exc
                except TRANSIENT as exc:
                    if time.monotonic() + pause_s > deadline:
                        is_replica = isinstance(exc, redis.exceptions.ReadOnlyError)
                        what = "takes no writes: it is a replica" if is_replica else "cannot be reached"
                        raise CheckpointError(f"The Redis server {what}.") from exc
                except redis.exceptions.RedisError as exc:
                    if isinstance(exc, redis.exceptions.OutOfMemoryError) or _FULL in str(exc):
                        raise CheckpointError("The Redis server is out of memory.") from exc
                    if not _PASSES.search(str(exc)) or time.monotonic() + pause_s > deadline:
                        raise CheckpointError("The Redis server refused a command.") from exc
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, 0.5)

    async def _follow(self) -> None:
        """Ask the sentinels now and then which server is the primary. redis-py asks for new connections only, and over those that stand
        a primary that was replaced on purpose goes on taking writes, all of which are lost, for ten more seconds."""
        pool = getattr(self.client, "connection_pool", None)  # of a cluster's client there is none
        if not isinstance(pool, SentinelConnectionPool) or time.monotonic() < self._follow_at:
            return
        self._follow_at = time.monotonic() + FOLLOW_EVERY_S
        with contextlib.suppress(*TRANSIENT):  # while they cannot say, the primary that is known goes on
            async with asyncio.timeout(FOLLOW_WITHIN_S):
                await pool.get_master_address()  # type: ignore[no-untyped-call]  # drops connections to another than this

    async def keys(self, prefix: bytes) -> AsyncIterator[bytes]:
        """Every key that begins with `prefix`, with SCAN, on every primary of a cluster."""
        pattern = re.sub(rb"([\\*?\[\]])", rb"\\\1", prefix) + b"*"
        try:
            async for key in self.client.scan_iter(match=pattern, count=1000):
                yield key
        except (*TRANSIENT, redis.exceptions.RedisError) as exc:
            raise CheckpointError("The Redis server cannot be reached.") from exc

    async def close(self) -> None:
        await self.client.aclose()
