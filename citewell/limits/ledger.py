"""Ledgers of what callers have used: in this process, or in Redis for all workers.

In both the same operations are atomic, and both read their own clock, so that workers with different clocks agree on the day (UTC). Money
is in billionths of a dollar.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from citewell.errors import CheckpointError, LimitsUnavailable
from citewell.redis_client import Client
from citewell.redis_connection import Connection

DAY_S: Final = 86_400
MINUTE_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """The most that a call costs, with one of the possible models."""

    cost: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A ledger's answer to a reservation."""

    choice: int | None
    """Index of the first `Ask` that fits; None if none does."""
    day: int
    """Days since 1970-01-01 UTC, to which the reservation belongs."""
    spent: int
    """Money spent and reserved on that day, this reservation included."""
    tokens: int
    wait_s: float
    """Seconds until the day ends."""


class Ledger(Protocol):
    async def admit(self, caller: str, per_minute: int) -> float:
        """Count a request if fewer than `per_minute` were made in the last 60 seconds.

        Returns:
            0 if it was counted, else the seconds until one more will be.
        """

    async def reserve(self, caller: str, asks: Sequence[Ask], max_cost: int, max_tokens: int) -> Outcome:
        """Charge the first of `asks` that keeps the day within both limits (0: no limit)."""

    async def adjust(self, caller: str, day: int, cost: int, tokens: int) -> None:
        """Add to the charges of `day`; negative amounts give back. Past days are closed and do not change."""

    async def spent(self, caller: str) -> tuple[int, int]:
        """Money and tokens charged today."""

    async def close(self) -> None: ...


class ProcessLedger:
    """Exact for one process: operations are atomic, as none of them awaits anything.

    Args:
        clock: Seconds since 1970 UTC.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._requests: dict[str, deque[float]] = {}
        self._days: dict[str, tuple[int, int]] = {}
        self._day = 0

    async def admit(self, caller: str, per_minute: int) -> float:
        now = self._clock()
        if len(self._requests) > 10_000:
            self._requests = {name: log for name, log in self._requests.items() if log and log[-1] > now - MINUTE_S}
        log = self._requests.setdefault(caller, deque())
        while log and not now - MINUTE_S < log[0] < now + MINUTE_S:  # later than that, where the clock was set back
            log.popleft()
        if len(log) >= per_minute:
            return log[0] + MINUTE_S - now
        log.append(now)
        return 0.0

    async def reserve(self, caller: str, asks: Sequence[Ask], max_cost: int, max_tokens: int) -> Outcome:
        now, (cost, tokens) = self._today(caller)
        choice = None
        for i, ask in enumerate(asks):
            if _fits(cost + ask.cost, max_cost) and _fits(tokens + ask.tokens, max_tokens):
                choice, cost, tokens = i, cost + ask.cost, tokens + ask.tokens
                self._days[caller] = (cost, tokens)
                break
        return Outcome(choice=choice, day=self._day, spent=cost, tokens=tokens, wait_s=DAY_S - now % DAY_S)

    async def adjust(self, caller: str, day: int, cost: int, tokens: int) -> None:
        _, (had_cost, had_tokens) = self._today(caller)
        if day == self._day:
            self._days[caller] = (max(0, had_cost + cost), max(0, had_tokens + tokens))

    async def spent(self, caller: str) -> tuple[int, int]:
        return self._today(caller)[1]

    async def close(self) -> None:
        pass  # nothing is held

    def _today(self, caller: str) -> tuple[float, tuple[int, int]]:
        now = self._clock()
        if int(now // DAY_S) > self._day:  # a clock that is set back does not reopen a day
            self._day = int(now // DAY_S)
            self._days.clear()
        return now, self._days.get(caller, (0, 0))


def _fits(amount: int, limit: int) -> bool:
    return limit == 0 or amount <= limit


_ADMIT = """
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local limit = tonumber(ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - 60000000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], now + 60000000, '+inf') -- the clock was set back
if redis.call('ZCARD', KEYS[1]) >= limit then
  local oldest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
  return oldest[2] + 60000000 - now
end
local n = 0
while redis.call('ZADD', KEYS[1], 'NX', now, string.format('%d.%d', now, n)) == 0 do n = n + 1 end
redis.call('PEXPIRE', KEYS[1], 61000)
return 0
"""
"""Logs the last minute's requests: unlike counters per minute, this lets no burst pass when a minute begins."""

_TODAY = """
local t = redis.call('TIME')
local day = math.floor(t[1] / 86400)
local had = redis.call('HMGET', KEYS[1], 'day', 'cost', 'tokens')
local cost, tokens = 0, 0
if had[1] and tonumber(had[1]) >= day then
  day = tonumber(had[1])
  cost, tokens = tonumber(had[2]), tonumber(had[3])
end
local function keep()
  redis.call('HSET', KEYS[1], 'day', day, 'cost', string.format('%.0f', cost), 'tokens', string.format('%.0f', tokens))
  redis.call('EXPIRE', KEYS[1], 172800)
end
"""

_RESERVE = (
    _TODAY
    + """
local max_cost, max_tokens = tonumber(ARGV[1]), tonumber(ARGV[2])
local choice = -1
for i = 3, #ARGV, 2 do
  local c, n = cost + tonumber(ARGV[i]), tokens + tonumber(ARGV[i + 1])
  if (max_cost == 0 or c <= max_cost) and (max_tokens == 0 or n <= max_tokens) then
    choice, cost, tokens = (i - 3) / 2, c, n
    keep()
    break
  end
end
return {choice, day, string.format('%.0f', cost), string.format('%.0f', tokens), (day + 1) * 86400 - t[1]}
"""
)

_ADJUST = (
    _TODAY
    + """
if day == tonumber(ARGV[1]) then
  cost, tokens = math.max(0, cost + tonumber(ARGV[2])), math.max(0, tokens + tonumber(ARGV[3]))
  keep()
end
return 0
"""
)

_SPENT = _TODAY + "return {string.format('%.0f', cost), string.format('%.0f', tokens)}"


class RedisLedger:
    """Exact for all workers that share a server: every operation is one script on one key, in one round trip.

    While the server cannot be reached it is tried again for `timeout_s` seconds, as a restart or a failover takes. A charge whose reply was
    lost is made anew, and the first stays.

    Lua counts in doubles, which hold integers up to 2^53: nine million dollars per day and caller.
    """

    def __init__(self, client: Client, *, namespace: str, timeout_s: float, max_connections: int) -> None:
        self._connection = Connection(client, part="limits", max_connections=max_connections, patience_s=timeout_s)
        self._prefix = f"{namespace}:limits:".encode()
        self._timeout_s = timeout_s

    async def admit(self, caller: str, per_minute: int) -> float:
        return float(await self._run(_ADMIT, self._key(caller, b":minute"), per_minute)) / 1e6

    async def reserve(self, caller: str, asks: Sequence[Ask], max_cost: int, max_tokens: int) -> Outcome:
        amounts = [amount for ask in asks for amount in (ask.cost, ask.tokens)]
        choice, day, cost, tokens, wait_s = await self._run(
            _RESERVE, self._key(caller, b":day"), max_cost, max_tokens, *amounts
        )
        return Outcome(
            choice=None if choice < 0 else choice, day=day, spent=int(cost), tokens=int(tokens), wait_s=float(wait_s)
        )

    async def adjust(self, caller: str, day: int, cost: int, tokens: int) -> None:
        await self._run(_ADJUST, self._key(caller, b":day"), day, cost, tokens)

    async def spent(self, caller: str) -> tuple[int, int]:
        cost, tokens = await self._run(_SPENT, self._key(caller, b":day"))
        return int(cost), int(tokens)

    async def ping(self) -> None:
        """Raise `LimitsUnavailable` unless the server answers now."""
        await self._run("return 1", self._key("", b":ping"), patience_s=0)

    async def close(self) -> None:
        await self._connection.close()

    def _key(self, caller: str, kind: bytes) -> bytes:
        # a digest: a caller's name may be long, and is personal data
        return self._prefix + hashlib.blake2b(caller.encode(), digest_size=16).hexdigest().encode() + kind

    async def _run(self, script: str, key: bytes, *args: int, patience_s: float | None = None) -> Any:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._connection.evaluate(script, key, *args, patience_s=patience_s)
        except (CheckpointError, TimeoutError) as exc:
            raise LimitsUnavailable("The Redis server that keeps the limits cannot be reached.") from exc
