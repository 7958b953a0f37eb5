"""Threads in Redis: the saver, the turns and the lists of threads, over one connection.

A thread is one key, `<prefix>:thread:<thread_id>`, which includes its lease, queue and title; what its runs have said may be for a while in
another (see `citewell.threads.journal`). Each owner has a key too, `<prefix>:owner:<owner>`: a sorted set of thread ids by last use. Threads
that are gone are dropped from it when the list is read, and some of them whenever a thread is entered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

from langgraph.checkpoint.base import CheckpointTuple

from citewell.threads.journal import Journal
from citewell.threads.leases import Policy, Standing
from citewell.threads.milestones import Milestones
from citewell.threads.redis_saver import RedisSaver, check_held, fresh_generation
from citewell.threads.scripts import script
from citewell.threads.store import ThreadInfo

SAMPLES = 1000
"""Fields of a thread that are measured for its size in lists, about 25 turns; of a longer thread the size is estimated. Maintenance
measures all fields."""

PING_PATIENCE_S = 1.0
"""How long readiness tries again, in seconds: shorter than it waits (`citewell.api.ops`), so that it can say what is wrong."""

STANDINGS: tuple[Standing, ...] = ("lost", "held", "stopped")
"""In the order of what the script `renew` returns."""


class RedisMilestones(Milestones, RedisSaver):
    """For the service's turns."""


class RedisThreadStore:
    """Threads in Redis; see `citewell.threads.store.ThreadStore`."""

    def __init__(self, saver: RedisSaver) -> None:
        self._saver = saver
        self._connection = saver.connection

    @property
    def checkpointer(self) -> RedisSaver:
        return self._saver

    @property
    def journal(self) -> Journal:
        return Journal(self._connection, self._saver.prefix)

    # --- turns --------------------------------------------------------------------------------

    async def claim(self, thread_id: str, ticket: str, policy: Policy, lease_s: float) -> bool:
        held = await self._run("claim", thread_id, self._saver.ttl_ms, ticket, policy, _ms(lease_s), fresh_generation())
        return bool(held)

    async def renew(self, thread_id: str, ticket: str, lease_s: float) -> Standing:
        standing: int = await self._run("renew", thread_id, ticket, _ms(lease_s))
        return STANDINGS[standing]

    async def stop(self, thread_id: str, ticket: str) -> str | None:
        asked: bytes = await self._run("stop", thread_id, ticket)
        return asked.decode() or None

    async def lives(self, thread_id: str, ticket: str) -> bool:
        return bool(await self._run("lives", thread_id, ticket))

    async def release(self, thread_id: str, ticket: str) -> None:
        await self._run("release", thread_id, ticket)

    # --- the index ----------------------------------------------------------------------------

    async def record(self, thread_id: str, owner: str, title: str, ticket: str = "") -> None:
        reply = await self._run("record", thread_id, self._saver.ttl_ms, owner, title, fresh_generation(), ticket)
        check_held(reply[0])
        await self._enter(owner, thread_id, *reply)

    async def _enter(self, owner: str, thread_id: str, updated: bytes | int, ttl_ms: int) -> None:
        unused = await self._connection.evaluate(
            script("enter"), self._owner_key(owner), _text(thread_id), updated, ttl_ms
        )
        await self._living(owner, unused)  # a list that is never read must not grow for ever

    async def rename(self, thread_id: str, title: str) -> bool:
        return bool(await self._run("rename", thread_id, title))

    async def info(self, thread_id: str) -> ThreadInfo | None:
        return await self._info(thread_id, SAMPLES)

    async def _info(self, thread_id: str, samples: int) -> ThreadInfo | None:
        row = await self._run("info", thread_id, samples)
        if row is None:
            return None
        owner, title, created, updated, size = row
        return ThreadInfo(
            thread_id=thread_id, owner=(owner or b"").decode(), title=(title or b"").decode(),
            created=_moment(created), updated=_moment(updated), size_bytes=size,
        )  # fmt: skip

    async def list(self, owner: str, limit: int, before: datetime | None) -> Sequence[ThreadInfo]:
        index = self._owner_key(owner)
        found: list[ThreadInfo] = []
        start = f"({round(before.timestamp() * 1000)}" if before else "+inf"
        skip = 0
        while len(found) < limit:
            members: Sequence[bytes] = await self._connection.command(
                "ZREVRANGEBYSCORE", index, start, "-inf", "LIMIT", skip, limit
            )
            living = await self._living(owner, members)
            skip += len(living)
            found += living
            if len(members) < limit:
                break
        return found[:limit]

    async def _living(self, owner: str, members: Sequence[bytes]) -> Sequence[ThreadInfo]:
        """Those of an owner's list that are still there. The others drop out of the list."""
        threads = [member.decode("utf-8", "surrogatepass") for member in members]
        infos = await asyncio.gather(*map(self.info, threads))
        for member, info in zip(members, infos, strict=True):
            if info is None or info.owner != owner:
                await self._connection.command("ZREM", self._owner_key(owner), member)
        return [info for info in infos if info is not None and info.owner == owner]

    async def peek(self, thread_id: str) -> CheckpointTuple | None:
        return await self._saver.peek(thread_id)

    async def walk(self) -> AsyncIterator[ThreadInfo]:
        async for key in self._connection.keys(self._saver.key("")):
            if (info := await self._info(self._saver.thread_id(key), 0)) is not None:
                yield info

    async def touch(self, thread_id: str, ttl_s: int | None) -> None:
        row = await self._run("touch", thread_id, self._saver.ttl_ms, "" if ttl_s is None else ttl_s * 1000)
        if row is None:
            return
        owner, updated, ttl_ms = row
        if owner:  # the list must live as long as any thread in it
            await self._enter(owner.decode(), thread_id, updated, ttl_ms)

    async def delete(self, thread_id: str) -> bool:
        was, owner = await self._run("delete", thread_id)
        self._saver.forget(thread_id)
        if owner:
            await self._connection.command("ZREM", self._owner_key(owner.decode()), _text(thread_id))
        return bool(was)

    async def prune(self, thread_id: str) -> None:
        await self._saver.aprune([thread_id])

    async def ping(self) -> None:
        await self._connection.command("HSET", _text(f"{self._saver.prefix}:ready"), "", "", patience_s=PING_PATIENCE_S)

    # ------------------------------------------------------------------------------------------

    async def _run(self, name: str, thread_id: str, *args: bytes | str | int) -> Any:  # Any: each script's own reply
        return await self._connection.evaluate(script(name), self._saver.key(thread_id), *args)

    def _owner_key(self, owner: str) -> bytes:
        return _text(f"{self._saver.prefix}:owner:{owner}")


def _text(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _moment(ms: bytes | None) -> datetime:
    return datetime.fromtimestamp(int(ms or 0) / 1000, UTC)
