"""A cache of answers, for callers who ask the same of the same documents. Off unless set."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

import orjson
import structlog
from typing_extensions import TypedDict

from citewell.cache.stores import LEASE_S, ProcessStore, RedisStore, Store, StoreLost
from citewell.redis_client import connect
from citewell.settings import Settings
from citewell.telemetry import metrics

__all__ = ["AnswerCache", "Kept", "open_cache"]

MOST_BYTES: Final = 200_000
"""Largest answer that is kept, including its citations."""
REDIS_TIMEOUT_S: Final = 1.0
"""Longest that a turn waits for the cache, in seconds."""
REDIS_REPLY_S: Final = 0.5
"""Longest wait for one reply, in seconds: shorter, so that a cluster's client learns that a node is silent, and asks who took its place."""
REDIS_CONNECTIONS: Final = 16
POLL_S: Final = 0.05
"""First pause before a turn asks again whether another process has answered, in seconds; each further one is half as long again."""
LONGEST_POLL_S: Final = 0.5
"""Longest such pause."""

log = structlog.get_logger()


class Kept(TypedDict):
    """An answer as it is kept."""

    answer: str
    citations: list[dict[str, Any]]
    metadata: dict[str, Any]
    cited: list[str]
    """Ids of the chunks that it cites, for the next question of the thread."""
    at: str
    """When it was made, ISO 8601."""


Flight = asyncio.Future[Kept | None]
"""Resolved with an answer once it has been kept, or with None if it will not be."""


class AnswerCache:
    """Answers by a key of everything that they are made from. While one is being made, turns with the same key wait for it, in this process
    and in all others that share the store.

    If the store cannot be reached, that is counted and logged, and answers are made anew.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._flights: dict[str, Flight] = {}
        """By key, the answers being made, here or in another process, for which turns of this process wait."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def find(self, key: str, at_end: ExitStack | None) -> Kept | None:
        """The cached answer. A turn that gets None makes the answer, for all that ask the same until `at_end` is closed.

        Args:
            key: A digest of everything that the answer is made from.
            at_end: Closed when the turn is over, however it ends. None: no other turn waits for this one.
        """
        if (flight := self._flights.get(key)) is None:
            ticket = uuid4().hex
            found = await self._look(key, None if at_end is None else ticket)
            if isinstance(found, bytes):
                metrics.CACHE.labels("hit").inc()
                return _read(found)
            if found is not True:  # True: this turn makes the answer, even if another began here meanwhile
                flight = self._flights.get(key)
            if found is False and flight is None:
                flight = self._set_out(key)
                self._begin(self._watch(key, flight))
        if flight is None:
            metrics.CACHE.labels("miss").inc()
            if at_end is not None:
                flight = self._set_out(key)
                at_end.callback(self._land, key, flight, None)
                if found is True:
                    self._begin(self._hold(key, ticket, flight))
            return None
        # None: nothing came of it that was worth keeping. Then every turn that waited makes its own answer.
        kept = await asyncio.shield(flight)
        metrics.CACHE.labels("joined" if kept else "miss").inc()
        return kept

    async def keep(
        self, key: str, *, answer: str, citations: list[dict[str, Any]], metadata: dict[str, Any], cited: list[str]
    ) -> None:
        """Keep an answer. One that is too long for the cache only goes to the turns that wait for it."""
        kept = Kept(
            answer=answer, citations=citations, metadata=metadata, cited=cited,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
        )  # fmt: skip
        value = orjson.dumps(kept)
        if len(value) <= MOST_BYTES:
            try:
                await self._store.put(key, value)
            except StoreLost as exc:
                self._lost(exc)
        if (flight := self._flights.get(key)) is not None:
            self._land(key, flight, _read(value))  # only now, when others can find it

    async def close(self) -> None:
        for key, flight in list(self._flights.items()):
            self._land(key, flight, None)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2 * REDIS_TIMEOUT_S)
        await self._store.close()

    def _set_out(self, key: str) -> Flight:
        flight: Flight = asyncio.get_running_loop().create_future()
        self._flights[key] = flight
        return flight

    def _land(self, key: str, flight: Flight, kept: Kept | None) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        if not flight.done():
            flight.set_result(kept)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _hold(self, key: str, ticket: str, flight: Flight) -> None:
        """Keep the lease, so that other processes wait, until the flight has landed."""
        try:
            while not (await asyncio.wait([flight], timeout=LEASE_S / 3))[0]:
                if await self._store.take(key, ticket) is not True:
                    break
            await self._store.free(key, ticket)
        except StoreLost as exc:
            self._lost(exc)

    async def _watch(self, key: str, flight: Flight) -> None:
        """Wait for another process's answer and land with it: with None if it keeps none or its lease runs out."""
        kept, pause_s = None, POLL_S
        try:
            while not flight.done() and await self._store.is_taken(key):
                await asyncio.wait([flight], timeout=pause_s)
                pause_s = min(1.5 * pause_s, LONGEST_POLL_S)
            value = await self._store.get(key)
            kept = _read(value) if value else None
        except StoreLost as exc:
            self._lost(exc)
        finally:
            self._land(key, flight, kept)

    async def _look(self, key: str, ticket: str | None) -> bytes | bool | None:
        """Like `Store.take`, or without a ticket like `Store.get`; None also where the store is lost."""
        try:
            return await (self._store.take(key, ticket) if ticket else self._store.get(key))
        except StoreLost as exc:
            self._lost(exc)
            return None

    def _lost(self, exc: StoreLost) -> None:
        metrics.CACHE.labels("failed").inc()
        log.warning("cache.unavailable", error=type(exc.__cause__).__name__)


def _read(value: bytes) -> Kept:
    kept: Kept = orjson.loads(value)
    return kept


@asynccontextmanager
async def open_cache(settings: Settings) -> AsyncIterator[AnswerCache | None]:
    """Open the cache: in Redis if `settings.redis_url` is set, so that all workers share it, else in this process. None if it is off."""
    if not settings.answer_cache_s:
        yield None
        return
    store: Store = ProcessStore(most=settings.answer_cache_entries, keep_s=settings.answer_cache_s)
    if settings.redis_url is not None:
        client = connect(
            settings.redis_url.get_secret_value(), max_connections=REDIS_CONNECTIONS, timeout_s=REDIS_REPLY_S
        )
        store = RedisStore(
            client, namespace=settings.namespace, most=settings.answer_cache_entries, keep_s=settings.answer_cache_s,
            timeout_s=REDIS_TIMEOUT_S, max_connections=REDIS_CONNECTIONS,
        )  # fmt: skip
    cache = AnswerCache(store)
    try:
        yield cache
    finally:
        await cache.close()
