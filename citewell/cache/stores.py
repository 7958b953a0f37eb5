"""Where answers are kept: in this process, or in Redis for all workers. So many of them, each for so long."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

import redis.exceptions

from citewell.threads.connection import TRANSIENT, Client


class StoreLost(Exception):
    """The store cannot be reached. Stays inside the cache, which does without it."""


class Store(Protocol):
    async def get(self, key: str) -> bytes | None:
        """Raises StoreLost."""

    async def put(self, key: str, value: bytes) -> None:
        """Keep it; where there are too many, the oldest goes. Raises StoreLost."""

    async def close(self) -> None: ...


class ProcessStore:
    """Args:
    most: Entries.
    keep_s: For how long, in seconds.
    clock: Seconds, from any moment on.
    """

    def __init__(self, *, most: int, keep_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._keep_s = keep_s
        self._clock = clock
        self._entries: OrderedDict[str, tuple[float, bytes]] = OrderedDict()

    async def get(self, key: str) -> bytes | None:
        ends, value = self._entries.get(key, (0.0, b""))
        return value if ends > self._clock() else None

    async def put(self, key: str, value: bytes) -> None:
        self._entries.pop(key, None)
        self._entries[key] = (self._clock() + self._keep_s, value)
        if len(self._entries) > self._most:
            self._entries.popitem(last=False)

    async def close(self) -> None:
        self._entries.clear()


_PUT: Final = """
local t = redis.call('TIME')
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', t[1] - ARGV[2] - 1)
redis.call('ZADD', KEYS[2], t[1] + t[2] / 1000000, KEYS[1])
local over = math.min(redis.call('ZCARD', KEYS[2]) - tonumber(ARGV[3]), 1000)
if over > 0 then
  local oldest = redis.call('ZRANGE', KEYS[2], 0, over - 1)
  redis.call('DEL', unpack(oldest))
  redis.call('ZREM', KEYS[2], unpack(oldest))
end
redis.call('EXPIRE', KEYS[2], ARGV[2])
return 0
"""
"""A sorted set beside the answers says how old each is. They share one hash slot, for the script needs both."""


class RedisStore:
    """One round trip to read, one to write."""

    def __init__(
        self, client: Client, *, namespace: str, most: int, keep_s: int, timeout_s: float, max_connections: int
    ) -> None:
        self._client = client
        self._slots = asyncio.Semaphore(max_connections)
        self._index = f"{{{namespace}:answers}}"
        self._most = most
        self._keep_s = keep_s
        self._timeout_s = timeout_s

    async def get(self, key: str) -> bytes | None:
        try:
            async with asyncio.timeout(self._timeout_s), self._slots:
                value = await self._client.get(self._name(key))
                return value if isinstance(value, bytes) else None
        except (*TRANSIENT, redis.exceptions.RedisError) as exc:
            raise StoreLost from exc

    async def put(self, key: str, value: bytes) -> None:
        keys_and_args = (2, self._name(key), self._index, value, self._keep_s, self._most)
        try:
            async with asyncio.timeout(self._timeout_s), self._slots:
                try:
                    sha = hashlib.sha1(_PUT.encode(), usedforsecurity=False).hexdigest()
                    await self._client.evalsha(sha, *keys_and_args)
                except redis.exceptions.NoScriptError:  # once after a server's start
                    await self._client.eval(_PUT, *keys_and_args)
        except (*TRANSIENT, redis.exceptions.RedisError) as exc:
            raise StoreLost from exc

    async def close(self) -> None:
        await self._client.aclose()

    def _name(self, key: str) -> str:
        return f"{self._index}:{key}"
