"""One run per thread at a time, across tasks, workers and machines.

Whoever wants to run takes a ticket. The store (Redis or SQLite) hands the thread to the oldest living ticket and
remembers which one holds it; the holder's ticket travels in the run's configuration, and the checkpointer refuses
any write that carries another (a fencing token: Kleppmann 2016, "How to do distributed locking"). A holder that dies
stops its heartbeat and loses the thread after `lease_s` seconds.
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
"""Of a run: it holds its thread, does so but was asked to stop, or holds it no more."""

LEASE_KEY = "__thread_lease__"
"""Where the fencing token stands in `config["configurable"]`; the underscores keep it out of stored metadata."""
POLL_S = 0.05
"""How often a waiting turn asks when its predecessor runs in another process."""


class Leases(Protocol):
    """What a store must be able to do, each in one atomic step."""

    async def claim(self, thread_id: str, ticket: str, policy: Policy, lease_s: float) -> bool:
        """Take the thread if it is free and no older ticket lives (or at once, with `replace`).

        Otherwise, with `queue`, keep the ticket's place for another `lease_s` seconds.
        """

    async def renew(self, thread_id: str, ticket: str, lease_s: float) -> Standing:
        """Hold the thread for another `lease_s` seconds, unless it belongs to somebody else, or is gone."""

    async def stop(self, thread_id: str, ticket: str) -> str | None:
        """Ask the run that holds the thread to stop, if it is this one (empty: whichever). Its ticket; None: no such."""

    async def lives(self, thread_id: str, ticket: str) -> bool:
        """Whether the ticket holds the thread, or waits for it, and was heard of lately."""

    async def release(self, thread_id: str, ticket: str) -> None:
        """Give up the thread, or the place in the queue. Harmless when neither is held."""


@dataclass(eq=False, slots=True)
class Turn:
    """The right to run on one thread."""

    thread_id: str
    ticket: str
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the run must end: the thread was taken away, and nothing it writes will be accepted; or `stopped`."""
    stopped: bool = False
    """Whether somebody asked the run to stop. It holds its thread for a few seconds more, to write down what it has."""

    is_cut_off: bool = False
    """Whether the store could not be reached for as long as the lease lasted, so that nobody knows who holds the thread."""

    @property
    def config(self) -> dict[str, str]:
        """To be merged into `config["configurable"]` of the run."""
        return {"thread_id": self.thread_id, LEASE_KEY: self.ticket}


class Turns:
    """Hands out turns.

    Args:
        leases: Where they are kept.
        wait_s: Longest a queued turn waits, in seconds.
        lease_s: A silent holder loses its thread after this many seconds. Heartbeats come three times as often.
    """

    def __init__(self, leases: Leases, *, wait_s: float, lease_s: float = 5.0) -> None:
        self._leases = leases
        self._wait_s = wait_s
        self._lease_s = lease_s
        self._held: dict[str, Turn] = {}
        self._freed: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        # Tickets leave this process in the order they were drawn, whatever connections they travel on.
        self._order: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    @contextlib.asynccontextmanager
    async def turn(self, thread_id: str, policy: Policy, ticket: str | None = None) -> AsyncIterator[Turn]:
        """Hold `thread_id` for the length of the block.

        Args:
            ticket: Letters and digits that no other turn ever had; None: a random one.

        Raises:
            ThreadBusy: With `reject`, another run holds the thread; with `queue`, it did so for `wait_s` seconds.
            CheckpointError: The store cannot be reached.
        """
        turn = Turn(thread_id, ticket or uuid.uuid4().hex)
        try:
            await self._claim(turn, policy)
            if (before := self._held.get(thread_id)) is not None:
                before.lost.set()
            self._held[thread_id] = turn
            # Told to stop rather than cancelled: a heartbeat that is under way must not be cut in two.
            over = asyncio.Event()
            heartbeat = asyncio.create_task(self._keep(turn, over))
            try:
                yield turn
            finally:
                over.set()
                await asyncio.shield(asyncio.gather(heartbeat, return_exceptions=True))
        finally:
            if self._held.get(thread_id) is turn:
                del self._held[thread_id]
            await self._release(turn)

    def revoke(self, thread_id: str) -> None:
        """Tell this process's run of the thread that the thread is gone."""
        if (turn := self._held.get(thread_id)) is not None:
            turn.lost.set()

    async def stop(self, thread_id: str, ticket: str = "") -> str | None:
        """Ask the run that holds the thread to stop, wherever it is; it notices at its next heartbeat, here at once.

        Args:
            ticket: Only if this is the one; empty: whichever it is.

        Returns:
            Its ticket; None when no such run holds the thread.
        """
        asked = await self._leases.stop(thread_id, ticket)
        if (turn := self._held.get(thread_id)) is not None and turn.ticket == asked:
            turn.stopped = True
            turn.lost.set()
        return asked

    async def _claim(self, turn: Turn, policy: Policy) -> None:
        deadline = time.monotonic() + self._wait_s
        freed = asyncio.Event()
        self._freed[turn.thread_id].add(freed)
        order = self._order.setdefault(turn.thread_id, asyncio.Lock())
        try:
            async with order:
                held = await self._leases.claim(turn.thread_id, turn.ticket, policy, self._lease_s)
            while not held:
                if policy == "reject":
                    raise ThreadBusy("Another message of this conversation is being answered; try again later.")
                left = deadline - time.monotonic()
                if left <= 0:
                    raise ThreadBusy(f"This message waited {self._wait_s:g} s for the one before it.")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left, POLL_S)):
                        await freed.wait()
                freed.clear()
                held = await self._leases.claim(turn.thread_id, turn.ticket, policy, self._lease_s)
        finally:
            waiting = self._freed[turn.thread_id]
            waiting.discard(freed)
            if not waiting:
                del self._freed[turn.thread_id]

    async def _keep(self, turn: Turn, over: asyncio.Event) -> None:
        held_until = time.monotonic() + self._lease_s
        while not turn.lost.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._lease_s / 3):
                    await over.wait()
                    return
            try:
                async with asyncio.timeout(self._lease_s):
                    standing = await self._leases.renew(turn.thread_id, turn.ticket, self._lease_s)
            except (CheckpointError, TimeoutError):
                if time.monotonic() >= held_until:
                    turn.is_cut_off = True
                    turn.lost.set()
                continue
            if standing == "held":
                held_until = time.monotonic() + self._lease_s
            else:
                turn.stopped = standing == "stopped"
                turn.lost.set()

    async def _release(self, turn: Turn) -> None:
        # A cancelled run must free its thread too, and a dead store will do it by itself when the lease ends.
        releasing = asyncio.ensure_future(self._leases.release(turn.thread_id, turn.ticket))
        try:
            await asyncio.shield(releasing)
        except asyncio.CancelledError:
            with contextlib.suppress(CheckpointError):
                await releasing
            raise
        except CheckpointError:
            return
        finally:
            for freed in self._freed.get(turn.thread_id, ()):
                freed.set()
