"""Stores of answers, bounded in number and time: in this process, or in Redis for all workers.

Redis also holds leases: which process is making an answer that others wait for. A lease is held under a ticket, and ends by itself if its
holder does not renew it.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import redis.exceptions

from citewell.redis_client import TRANSIENT, Client, evaluate

LEASE_S: Final = 5.0
"""How long a lease lasts unless it is renewed, in seconds."""


class StoreLost(Exception):
    """The store cannot be reached. Stays inside the cache, which does without it."""


class Store(Protocol):
    async def get(self, key: str) -> bytes | None:
        """Raises StoreLost."""

    async def put(self, key: str, value: bytes) -> None:
        """Keep a value; if there are too many, drop the oldest. Raises StoreLost."""

    async def take(self, key: str, ticket: str) -> bytes | bool:
        """Get a value or, if there is none, take or renew the lease on making it. Raises StoreLost.

        Returns:
            The value; else whether this ticket has the lease.
        """

    async def is_taken(self, key: str) -> bool:
        """Whether any ticket has the lease. Raises StoreLost."""

    async def free(self, key: str, ticket: str) -> None:
        """Give up the lease, if the ticket has it. Raises StoreLost."""

    async def close(self) -> None: ...


class ProcessStore:
    """Answers in this process. No other sees them, so there are no leases.

    Args:
        most: Most entries.
        keep_s: How long each is kept, in seconds.
    """

    def __init__(self, *, most: int, keep_s: float) -> None:
        self._most = most
        self._keep_s = keep_s
        self._entries: OrderedDict[str, tuple[float, bytes]] = OrderedDict()

    async def get(self, key: str) -> bytes | None:
        ends, value = self._entries.get(key, (0.0, b""))
        return value if ends > time.monotonic() else None

    async def put(self, key: str, value: bytes) -> None:
        self._entries.pop(key, None)
        self._entries[key] = (time.monotonic() + self._keep_s, value)
        if len(self._entries) > self._most:
            self._entries.popitem(last=False)

    async def take(self, key: str, ticket: str) -> bytes | bool:
        return await self.get(key) or True

    async def is_taken(self, key: str) -> bool:
        return False

    async def free(self, key: str, ticket: str) -> None: ...

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
"""A sorted set beside the answers has their ages. All are in one hash slot, as the script needs both."""

_TAKE: Final = """
local kept = redis.call('GET', KEYS[1])
if kept then return kept end
local holder = redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return 1
"""
_FREE: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 0
"""


class RedisStore:
    """Each call is one round trip."""

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
        value = await self._ask(lambda: self._client.get(self._name(key)))
        return value if isinstance(value, bytes) else None

    async def put(self, key: str, value: bytes) -> None:
        await self._run(_PUT, [self._name(key), self._index], value, self._keep_s, self._most)

    async def take(self, key: str, ticket: str) -> bytes | bool:
        found = await self._run(_TAKE, [self._name(key), self._lease(key)], ticket, round(LEASE_S * 1000))
        return found if isinstance(found, bytes) else bool(found)

    async def is_taken(self, key: str) -> bool:
        return bool(await self._ask(lambda: self._client.exists(self._lease(key))))

    async def free(self, key: str, ticket: str) -> None:
        await self._run(_FREE, [self._lease(key)], ticket)

    async def close(self) -> None:
        await self._client.aclose()

    async def _run(self, script: str, keys: list[str], *args: bytes | str | int) -> object:
        return await self._ask(lambda: evaluate(self._client, script, keys, *args))

    async def _ask(self, call: Callable[[], Awaitable[object]]) -> object:
        try:
            async with asyncio.timeout(self._timeout_s), self._slots:
                return await call()
        except (*TRANSIENT, redis.exceptions.RedisError) as exc:
            raise StoreLost from exc

    def _name(self, key: str) -> str:
        return f"{self._index}:{key}"

    def _lease(self, key: str) -> str:
        return f"{self._index}:by:{key}"
