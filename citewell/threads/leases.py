"""One run per thread at a time, across tasks, workers and machines.

Each run draws a ticket. The store (Redis or SQLite) gives the thread to the oldest living ticket and remembers which one holds it. The
holder's ticket is in the run's configuration, and the checkpointer refuses writes that carry another one (a fencing token: Kleppmann
2016, "How to do distributed locking"). When a holder dies, its heartbeat stops, and it loses the thread after `lease_s` seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
import weakref
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

from citewell.errors import CheckpointError, ThreadBusy

Policy = Literal["queue", "reject", "replace"]
Standing = Literal["held", "stopped", "lost"]
"""A run holds its thread, holds it but was asked to stop, or has lost it."""

LEASE_KEY = "__thread_lease__"
"""The fencing token's key in `config["configurable"]`; the underscores keep it out of stored metadata."""
POLL_S = 0.05
"""How often the first turn that waits in this process asks for its thread, in seconds; it is told at once if the turn before it
runs here. The others only keep their place in line: if each asked as often, those of one caller would keep the store busy."""

MOST_WAITING = 50
"""Turns that may wait for one thread in each process. In line, each costs as much as there are others."""


class Leases(Protocol):
    """The operations on leases that a store must offer, each atomic."""

    async def claim(self, thread_id: str, ticket: str, policy: Policy, lease_s: float) -> bool:
        """Take the thread if it is free and no older ticket waits for it; with `replace`, in any case.

        Otherwise, with `queue`, keep the ticket's place in line for another `lease_s` seconds.
        """

    async def renew(self, thread_id: str, ticket: str, lease_s: float) -> Standing:
        """Hold the thread for another `lease_s` seconds, unless another ticket holds it or it is gone."""

    async def stop(self, thread_id: str, ticket: str) -> str | None:
        """Ask the run that holds the thread to stop, if it has this ticket (empty: any). Returns its ticket; None: there is none."""

    async def lives(self, thread_id: str, ticket: str) -> bool:
        """Whether the ticket holds the thread or waits for it, and its lease has not run out."""

    async def release(self, thread_id: str, ticket: str) -> None:
        """Give up the thread, or the place in line; harmless if the ticket has neither."""


@dataclass(eq=False, slots=True)
class Lease:
    """The right to run on one thread."""

    thread_id: str
    ticket: str
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the run must end: because it has lost the thread, so that its writes are refused, or because it was `stopped`."""
    stopped: bool = False
    """Whether the run was asked to stop. It still holds its thread, to store what it has said."""

    is_cut_off: bool = False
    """Whether the store was out of reach until the lease ended, so that nobody knows who holds the thread."""

    @property
    def config(self) -> dict[str, str]:
        """To be merged into the run's `config["configurable"]`."""
        return {"thread_id": self.thread_id, LEASE_KEY: self.ticket}


class Turns:
    """Hands out turns.

    Args:
        leases: Where they are kept.
        wait_s: Longest a queued turn waits, in seconds.
        lease_s: A holder without a heartbeat loses its thread after this many seconds. Heartbeats come three times as often.
    """

    def __init__(self, leases: Leases, *, wait_s: float, lease_s: float = 5.0) -> None:
        self._leases = leases
        self._wait_s = wait_s
        self._lease_s = lease_s
        self._held: dict[str, Lease] = {}
        self._waiting: defaultdict[str, dict[asyncio.Event, None]] = defaultdict(dict)
        """By thread, the turns that wait for it here, in order: each by the event at which it asks again."""
        # Tickets are sent in the order in which they were drawn, over whichever connections they go.
        self._order: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    @contextlib.asynccontextmanager
    async def turn(self, thread_id: str, policy: Policy, ticket: str | None = None) -> AsyncIterator[Lease]:
        """Hold `thread_id` for the length of the block.

        Args:
            ticket: Letters and digits that no other turn has ever had; None: a random one.

        Raises:
            ThreadBusy: With `reject`, another run holds the thread; with `queue`, it did so for `wait_s` seconds. Or too many turns
                wait for it.
            CheckpointError: The store cannot be reached.
        """
        lease = Lease(thread_id, ticket or uuid.uuid4().hex)
        try:
            await self._claim(lease, policy)
            if (before := self._held.get(thread_id)) is not None:
                before.lost.set()
            self._held[thread_id] = lease
            # Told to stop instead of cancelled: a heartbeat under way must not be interrupted.
            over = asyncio.Event()
            heartbeat = asyncio.create_task(self._keep(lease, over))
            try:
                yield lease
            finally:
                over.set()
                await asyncio.shield(asyncio.gather(heartbeat, return_exceptions=True))
        finally:
            if self._held.get(thread_id) is lease:
                del self._held[thread_id]
            await self._release(lease)

    def revoke(self, thread_id: str) -> None:
        """Tell the run of this process that holds the thread, if there is one, that the thread is gone."""
        if (lease := self._held.get(thread_id)) is not None:
            lease.lost.set()

    async def stop(self, thread_id: str, ticket: str = "") -> str | None:
        """Ask the run that holds the thread to stop. It notices at its next heartbeat, or at once if it is in this process.

        Args:
            thread_id: The thread.
            ticket: Only if the run has this ticket; empty: any.

        Returns:
            The run's ticket; None if no such run holds the thread.
        """
        asked = await self._leases.stop(thread_id, ticket)
        if (lease := self._held.get(thread_id)) is not None and lease.ticket == asked:
            lease.stopped = True
            lease.lost.set()
        return asked

    async def _claim(self, lease: Lease, policy: Policy) -> None:
        deadline = time.monotonic() + self._wait_s
        again = asyncio.Event()
        waiting = self._waiting[lease.thread_id]
        if len(waiting) >= MOST_WAITING:
            raise ThreadBusy(f"{MOST_WAITING} messages of this conversation wait already; try again later.")
        waiting[again] = None
        order = self._order.setdefault(lease.thread_id, asyncio.Lock())
        try:
            async with order:
                held = await self._leases.claim(lease.thread_id, lease.ticket, policy, self._lease_s)
            while not held:
                if policy == "reject":
                    raise ThreadBusy("Another message of this conversation is being answered; try again later.")
                left = deadline - time.monotonic()
                if left <= 0:
                    raise ThreadBusy(f"This message waited {self._wait_s:g} s for the one before it.")
                pause_s = POLL_S if next(iter(waiting)) is again else self._lease_s / 2
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left, pause_s)):
                        await again.wait()
                again.clear()
                held = await self._leases.claim(lease.thread_id, lease.ticket, policy, self._lease_s)
        finally:
            del waiting[again]
            if waiting:
                next(iter(waiting)).set()
            else:
                del self._waiting[lease.thread_id]

    async def _keep(self, lease: Lease, over: asyncio.Event) -> None:
        held_until = time.monotonic() + self._lease_s
        while not lease.lost.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._lease_s / 3):
                    await over.wait()
                    return
            try:
                async with asyncio.timeout(self._lease_s):
                    standing = await self._leases.renew(lease.thread_id, lease.ticket, self._lease_s)
            except (CheckpointError, TimeoutError):
                if time.monotonic() >= held_until:
                    lease.is_cut_off = True
                    lease.lost.set()
                continue
            if standing == "held":
                held_until = time.monotonic() + self._lease_s
            else:
                lease.stopped = standing == "stopped"
                lease.lost.set()

    async def _release(self, lease: Lease) -> None:
        # A cancelled run must free its thread too. If the store is out of reach, the thread is free when the lease ends.
        releasing = asyncio.ensure_future(self._leases.release(lease.thread_id, lease.ticket))
        try:
            await asyncio.shield(releasing)
        except asyncio.CancelledError:
            with contextlib.suppress(CheckpointError):
                await releasing
            raise
        except CheckpointError:
            return
        finally:
            if waiting := self._waiting.get(lease.thread_id):
                next(iter(waiting)).set()
