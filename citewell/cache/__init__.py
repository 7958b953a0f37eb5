"""Answers that were given before, for whoever asks the same of the same documents. Off unless set."""

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
"""Largest answer that is kept, its citations included."""
REDIS_TIMEOUT_S: Final = 1.0
"""Longest that a turn waits for the cache, in seconds."""
REDIS_CONNECTIONS: Final = 16
POLL_S: Final = 0.05
"""How soon a turn asks again whether another process has answered, in seconds; half as long again each time ..."""
LONGEST_POLL_S: Final = 0.5
"""... up to this."""

log = structlog.get_logger()


class Kept(TypedDict):
    """An answer as it is kept."""

    answer: str
    citations: list[dict[str, Any]]
    metadata: dict[str, Any]
    cited: list[str]
    """Ids of the chunks it cites, for the question that follows."""
    at: str
    """When it was made, ISO 8601."""


Flight = asyncio.Future[Kept | None]
"""Done when the answer that it is about has been kept, or will not be."""


class AnswerCache:
    """Answers by a key that holds everything they were made from. While one is being made, others wait for it: in this
    process, and in all that share the store.

    A store that is lost is no reason not to answer: it is counted and logged, and the answer is made anew.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._flights: dict[str, Flight] = {}
        """By key, what others in this process wait for: a turn in this process, or in another."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def find(self, key: str, at_end: ExitStack | None) -> Kept | None:
        """What was answered before. Who gets None answers for all that ask the same until `at_end` is closed.

        Args:
            key: Of everything the answer is made from.
            at_end: Closed when the turn is over, however it ends. None: nobody waits for this turn.
        """
        if (flight := self._flights.get(key)) is None:
            ticket = uuid4().hex
            found = await self._look(key, None if at_end is None else ticket)
            if isinstance(found, bytes):
                metrics.CACHE.labels("hit").inc()
                return _read(found)
            if found is not True:  # else others wait for this turn already, whatever began here while we looked
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
        # Nothing worth keeping came of it, or nothing at all: then everybody answers for themselves.
        kept = await asyncio.shield(flight)
        metrics.CACHE.labels("joined" if kept else "miss").inc()
        return kept

    async def keep(
        self, key: str, *, answer: str, citations: list[dict[str, Any]], metadata: dict[str, Any], cited: list[str]
    ) -> None:
        """Let others have it. An answer too long for the cache goes to those that wait for it and to nobody else."""
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
            self._land(key, flight, _read(value))  # not before others can find it

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
        """Have other processes wait until a flight of this one has landed."""
        try:
            while not (await asyncio.wait([flight], timeout=LEASE_S / 3))[0]:
                if await self._store.take(key, ticket) is not True:
                    break
            await self._store.free(key, ticket)
        except StoreLost as exc:
            self._lost(exc)

    async def _watch(self, key: str, flight: Flight) -> None:
        """Land with what another process makes of it: nothing, where that keeps none or is not heard of any more."""
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
        """As `Store.take`, without taking where there is no ticket; None where the store is lost."""
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
    """In Redis when `settings.redis_url` is set, so that all workers share it; else in this process. None when off."""
    if not settings.answer_cache_s:
        yield None
        return
    store: Store = ProcessStore(most=settings.answer_cache_entries, keep_s=settings.answer_cache_s)
    if settings.redis_url is not None:
        client = connect(
            settings.redis_url.get_secret_value(), max_connections=REDIS_CONNECTIONS, timeout_s=REDIS_TIMEOUT_S
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
