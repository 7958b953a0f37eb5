"""What runs have said, in Redis, so that a client that lost its connection can continue on any worker.

There is one stream per thread, `<prefix>:events:<digest of the thread's id>`, so that deleting a conversation deletes it too. Each of its
entries belongs to a run; a run's id begins with that digest, so the id alone says where to read.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from uuid import uuid4

from citewell.redis_connection import Connection
from citewell.threads.scripts import script

MOST = 4096
"""Most entries of a stream, about; a run writes at most four per second."""
_DIGEST = 16


def new_run_id(thread_id: str) -> str:
    """A unique id: 32 hexadecimal digits."""
    return _digest(thread_id) + uuid4().hex[_DIGEST:]


class Journal:
    """Writes and reads the streams."""

    def __init__(self, connection: Connection, prefix: str) -> None:
        self._connection = connection
        self._prefix = prefix

    async def add(self, run_id: str, first: bytes, payload: bytes, *, ttl_s: float) -> bytes | None:
        """Add an entry of a run.

        Args:
            run_id: The run.
            first: Id of the run's first entry; empty: this is the first.
            payload: What the entry holds.
            ttl_s: How long the stream lives from now on, in seconds.

        Returns:
            The entry's id; None if the first one is gone because the conversation was deleted.

        Raises:
            CheckpointError: Redis cannot be reached.
        """
        added: bytes | None = await self._connection.evaluate(
            script("keep_event"), self._key(run_id), round(ttl_s * 1000), first, run_id, payload, MOST
        )
        return added

    async def read(self, run_id: str, after: bytes = b"0") -> tuple[bytes, Sequence[bytes]]:
        """The entry to continue after, and a run's payloads after the entry `after`, in order."""
        last, *payloads = await self._connection.evaluate(script("read_events"), self._key(run_id), run_id, after)
        return last, payloads

    async def drop(self, thread_id: str) -> None:
        """Forget what the thread's runs said."""
        await self._connection.command("UNLINK", self._key(_digest(thread_id)))

    def _key(self, run_id: str) -> bytes:
        return f"{self._prefix}:events:{run_id[:_DIGEST]}".encode()


def _digest(thread_id: str) -> str:
    return blake2b(thread_id.encode("utf-8", "surrogatepass"), digest_size=_DIGEST // 2).hexdigest()
