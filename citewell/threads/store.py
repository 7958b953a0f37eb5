"""What a list of conversations shows, and what a place that keeps threads must offer beside the checkpointer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple

from citewell.threads.journal import Journal
from citewell.threads.turns import Leases


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadInfo:
    """One conversation in a list of conversations."""

    thread_id: str
    owner: str
    """Who may see it; empty for a thread that was never recorded."""
    title: str
    created: datetime
    """UTC."""
    updated: datetime
    """UTC."""
    size_bytes: int
    """What it takes in the store, its whole history included."""


class ThreadStore(Leases, Protocol):
    """Where threads are kept: Redis or SQLite."""

    @property
    def checkpointer(self) -> BaseCheckpointSaver[Any]:  # Any: the base class is generic over its version type
        """Saves the state of threads, and checks the fencing token of a turn."""

    @property
    def journal(self) -> Journal | None:
        """Where runs write down what they say, if it is shared between processes."""

    async def record(self, thread_id: str, owner: str, title: str, ticket: str = "") -> None:
        """Enter a thread in its owner's list, or move it to the top; an existing title stays. With a ticket, only while that
        holds the thread; else it raises as a write of the run does."""

    async def rename(self, thread_id: str, title: str) -> bool:
        """Give a thread another title. False: no such thread."""

    async def info(self, thread_id: str) -> ThreadInfo | None:
        """One thread, None when there is no such (or no longer)."""

    async def list(self, owner: str, limit: int, before: datetime | None) -> Sequence[ThreadInfo]:
        """An owner's threads updated before `before`, newest first."""

    async def peek(self, thread_id: str) -> CheckpointTuple | None:
        """A thread's newest checkpoint, None when there is none (or no longer). Its time to live goes on."""

    def walk(self) -> AsyncIterator[ThreadInfo]:
        """Every thread there is, in no order; for maintenance."""

    async def touch(self, thread_id: str, ttl_s: int | None) -> None:
        """Start the thread's time to live anew; with `ttl_s`, give it one of its own (0: it stays for good)."""

    async def delete(self, thread_id: str) -> bool:
        """Remove every trace of a thread, atomically; a run that holds it cannot write any more. False: no such."""

    async def prune(self, thread_id: str) -> None:
        """Drop all checkpoints but the newest; the transcript stays."""

    async def ping(self) -> None:
        """Raise CheckpointError when the store cannot be reached or takes nothing in. Writes a little."""
