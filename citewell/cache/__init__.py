"""Answers that were given before, for whoever asks the same of the same documents. Off unless set."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import structlog
from typing_extensions import TypedDict

from citewell.cache.stores import ProcessStore, RedisStore, Store, StoreLost
from citewell.settings import Settings
from citewell.telemetry import metrics
from citewell.threads.connection import connect

__all__ = ["AnswerCache", "Kept", "open_cache"]

MOST_BYTES: Final = 200_000
"""Largest answer that is kept, its citations included."""
REDIS_TIMEOUT_S: Final = 1.0
"""Longest that a turn waits for the cache, in seconds."""
REDIS_CONNECTIONS: Final = 16

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


class AnswerCache:
    """Answers by a key that holds everything they were made from. While one is being made, others wait for it.

    A store that is lost is no reason not to answer: it is counted and logged, and the answer is made anew.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._flights: dict[str, asyncio.Future[Kept | None]] = {}

    async def find(self, key: str, at_end: ExitStack | None) -> Kept | None:
        """What was answered before. Who gets None answers for all that ask the same until `at_end` is closed.

        Args:
            key: Of everything the answer is made from.
            at_end: Closed when the turn is over, however it ends. None: nobody waits for this turn.
        """
        flight = self._flights.get(key)
        if flight is None:
            if (kept := await self._read(key)) is not None:
                metrics.CACHE.labels("hit").inc()
                return kept
            flight = self._flights.get(key)  # another may have set out while we looked
        if flight is None:
            metrics.CACHE.labels("miss").inc()
            if at_end is not None:
                flight = self._flights[key] = asyncio.get_running_loop().create_future()
                at_end.callback(self._land, key, flight)
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
        if (flight := self._flights.get(key)) is not None and not flight.done():
            flight.set_result(orjson.loads(value))
        if len(value) > MOST_BYTES:
            return
        try:
            await self._store.put(key, value)
        except StoreLost as exc:
            self._lost(exc)

    async def close(self) -> None:
        await self._store.close()

    async def _read(self, key: str) -> Kept | None:
        try:
            value = await self._store.get(key)
        except StoreLost as exc:
            self._lost(exc)
            return None
        if value is None:
            return None
        kept: Kept = orjson.loads(value)
        return kept

    def _land(self, key: str, flight: asyncio.Future[Kept | None]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        if not flight.done():
            flight.set_result(None)

    def _lost(self, exc: StoreLost) -> None:
        metrics.CACHE.labels("failed").inc()
        log.warning("cache.unavailable", error=type(exc.__cause__).__name__)


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
