"""What a store of threads must offer beside the checkpointer, and what it says of a thread."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple

from citewell.threads.journal import Journal
from citewell.threads.leases import Leases


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadInfo:
    """One conversation in a list of conversations."""

    thread_id: str
    owner: str
    """Who may see it; empty for a thread that was never entered in a list."""
    title: str
    created: datetime
    """UTC."""
    updated: datetime
    """UTC."""
    size_bytes: int
    """Its size in the store, with its whole history."""


class ThreadStore(Leases, Protocol):
    """Keeps threads, in Redis or SQLite."""

    @property
    def checkpointer(self) -> BaseCheckpointSaver[Any]:  # Any: the base class is generic over its version type
        """Saves the state of threads, and checks a turn's fencing token."""

    @property
    def journal(self) -> Journal | None:
        """Where runs write what they say for other processes; None where there is no such place."""

    async def record(self, thread_id: str, owner: str, title: str, ticket: str = "") -> None:
        """Enter a thread in its owner's list, or move it to the top; an existing title stays. With a ticket, raises what a write of the
        run would raise where the ticket does not hold the thread."""

    async def rename(self, thread_id: str, title: str) -> bool:
        """Change a thread's title. False: there is no such thread."""

    async def info(self, thread_id: str) -> ThreadInfo | None:
        """One thread; None if there is none, or it has expired."""

    async def list(self, owner: str, limit: int, before: datetime | None) -> Sequence[ThreadInfo]:
        """At most `limit` of an owner's threads updated before `before`, newest first."""

    async def peek(self, thread_id: str) -> CheckpointTuple | None:
        """A thread's newest checkpoint; None if there is none, or it has expired. Does not restart its time to live."""

    def walk(self) -> AsyncIterator[ThreadInfo]:
        """Every thread, in no particular order; for maintenance."""

    async def touch(self, thread_id: str, ttl_s: int | None) -> None:
        """Restart the thread's time to live; `ttl_s` gives it one of its own, in seconds (0: no end)."""

    async def delete(self, thread_id: str) -> bool:
        """Remove every trace of a thread, atomically; a run that holds it cannot write any more. False: there was none."""

    async def prune(self, thread_id: str) -> None:
        """Drop all checkpoints but the newest; the transcript stays."""

    async def ping(self) -> None:
        """Raise CheckpointError when the store cannot be reached or takes nothing in. Writes a little."""
