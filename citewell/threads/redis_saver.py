"""A LangGraph checkpointer for any Redis (6 or newer) or Valkey, without modules: one key per thread, one round trip per call."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from citewell.errors import RunReplaced, ThreadNotFound, TornThread
from citewell.redis_client import Client, connect
from citewell.redis_connection import Connection
from citewell.threads.blocking import BlockingSaver, Opening
from citewell.threads.codec import Incoming, Outgoing, Transcript, Transcripts
from citewell.threads.ids import draw_after
from citewell.threads.leases import LEASE_KEY
from citewell.threads.records import blob_field, checkpoint_tuple, encode_record, node, node_of, write_head
from citewell.threads.scripts import load_scripts, script
from citewell.threads.strict import StrictSerializer

BATCH = 50
"""Checkpoints that one round trip of `alist` fetches."""

_chance = random.Random()  # noqa: S311  # its numbers are no secrets
"""Of this process, and seeded by nobody else. To ask the system for each number would hand the interpreter to another thread each time:
nine times a turn, for a fifth of the time that a busy event loop spends until the model is asked."""
os.register_at_fork(after_in_child=_chance.seed)


@dataclass(slots=True, eq=False)
class _Writes:
    """What one task wrote."""

    node: bytes
    rows: Sequence[tuple[bytes, Any]]
    """Heads and values."""
    encoded: Sequence[bytes]
    """The values, encoded when they were written: a reducer may change them in place before they are sent."""
    done: asyncio.Future[None]


@dataclass(slots=True, eq=False)
class _Box:
    """Writes of a run that wait to be sent, with the next checkpoint or by themselves."""

    out: Outgoing
    writes: list[_Writes] = field(default_factory=list)

    def settle(self, exc: BaseException | None = None) -> None:
        """Resolve the futures of those who wait."""
        for writes in self.writes:
            if writes.done.done():
                continue
            if exc is None:
                writes.done.set_result(None)
            elif isinstance(exc, asyncio.CancelledError):
                writes.done.cancel()
            else:
                writes.done.set_exception(exc)


class RedisSaver(BlockingSaver):
    """Keeps each thread in one Redis hash.

    Every message is stored once, so a thread grows in proportion to what is said and not to its square; history, forks and time travel
    are exact. A thread is one key: it expires, is evicted, moves between cluster nodes and is deleted as a whole.

    The messages of a state are shared with the saver's cache and should be treated as values: replace them, as LangGraph's reducers do.
    One that was changed in place is detected, and read again or stored as a new message.

    Args:
        client: A `redis.asyncio` client (`Redis` or `RedisCluster`) with `decode_responses=False`.
        prefix: Keys are `<prefix>:thread:<thread_id>`.
        ttl_s: How long a thread lives after it was last read or written, in seconds; 0: no end.
        serde: Turns values into bytes. Default: `StrictSerializer()`.
        max_connections: Most calls under way at once.
        patience_s: How long an unreachable server is tried again before CheckpointError, in seconds.
        linger_s: How long a task's writes wait for the next checkpoint, to share its round trip, in seconds.
        cache_messages: Most decoded messages kept in this process, over all threads.

    Raises (every method):
        CheckpointError: The server cannot be reached, or refuses; that never looks like an empty conversation.
        TornThread: Part of a thread is missing.
        RunReplaced: The run that writes does not hold the thread any more (see `citewell.threads.leases`).
        ThreadNotFound: The thread was deleted or evicted while the run held it.
    """

    def __init__(
        self,
        client: Client,
        *,
        prefix: str = "citewell",
        ttl_s: int = 0,
        serde: SerializerProtocol | None = None,
        max_connections: int = 50,
        patience_s: float = 5.0,
        linger_s: float = 0.005,
        cache_messages: int = 20_000,
    ) -> None:
        super().__init__(serde=serde or StrictSerializer())
        self.connection = Connection(client, part="threads", max_connections=max_connections, patience_s=patience_s)
        self.prefix = prefix
        self.ttl_ms = ttl_s * 1000
        self._linger_s = linger_s
        self._transcripts = Transcripts(cache_messages)
        self._outbox: dict[tuple[bytes, str], _Box] = {}
        self._putting: Counter[bytes] = Counter()
        self._sending: set[asyncio.Task[None]] = set()

    @classmethod
    def from_conn_string(
        cls, url: str, *, max_connections: int = 50, timeout_s: float = 5.0, **options: Any
    ) -> Opening[RedisSaver]:
        """Connect for an `async with` block or, without an event loop, a `with` block.

        Args:
            url: See `citewell.redis_client.connect`.
            timeout_s: Longest one command may take, in seconds.
            options: The constructor's other arguments.
        """

        def make() -> RedisSaver:
            # Two more, for scans, which are not counted among the calls.
            client = connect(url, max_connections=max_connections + 2, timeout_s=timeout_s)
            return cls(client, max_connections=max_connections, **options)

        return Opening(make)

    async def asetup(self) -> None:
        """Read the scripts, off the event loop; nothing has to be created on the server."""
        await asyncio.to_thread(load_scripts)

    async def aclose(self) -> None:
        """Send what waits to be sent, and close the connections."""
        for name in list(self._outbox):
            self._sending.add(asyncio.create_task(self._send(name, self._outbox.pop(name))))
        await asyncio.gather(*self._sending, return_exceptions=True)
        await self.connection.close()

    # --- names --------------------------------------------------------------------------------

    def key(self, thread_id: str) -> bytes:
        """The thread's key."""
        return f"{self.prefix}:thread:{thread_id}".encode("utf-8", "surrogatepass")

    def thread_id(self, key: bytes) -> str:
        """The thread a key belongs to."""
        return key[len(self.key("")) :].decode("utf-8", "surrogatepass")

    def get_next_version(self, current: Any, channel: None) -> Any:  # Any: versions of other savers may be strings
        """The next version: counted up, with random low bits, so that two branches of a fork never share a version."""
        if isinstance(current, str):  # the thread was copied here from another saver: continue in its format
            return f"{int(current.split('.')[0]) + 1:032}.{_chance.random():016}"
        return ((int(current or 0) >> 32) + 1) << 32 | _chance.getrandbits(32)

    # --- writing ------------------------------------------------------------------------------

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        conf = config["configurable"]
        thread_id, ns = str(conf["thread_id"]), conf.get("checkpoint_ns", "")
        rest: dict[str, Any] = dict(checkpoint)
        values, versions = rest.pop("channel_values"), checkpoint["channel_versions"]
        stored = {channel: versions[channel] for channel in values if channel in versions}
        saved_metadata = get_checkpoint_metadata(config, metadata)
        record = encode_record(
            self.serde,
            (rest, saved_metadata),
            parent=conf.get("checkpoint_id") or "",
            run_id=str(saved_metadata.get("run_id", "")),
            deltas=metadata.get("counters_since_delta_snapshot", ()),
            stored=stored,
        )
        key, ticket = self.key(thread_id), conf.get(LEASE_KEY, "")
        blobs = {
            blob_field(ns, channel, version): (values[channel], channel in new_versions)
            for channel, version in stored.items()
        }
        box = self._outbox.pop((key, ticket), None) or self._box(key)
        self._putting[key] += 1
        try:
            await self._put(key, ticket, (checkpoint["id"], ns, record), blobs, box)
        except BaseException as exc:
            box.settle(exc)
            raise
        finally:
            self._putting[key] -= 1
            if not self._putting[key]:
                del self._putting[key]
        box.settle()
        return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ns, "checkpoint_id": checkpoint["id"]}}

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        conf = config["configurable"]
        rows = [
            (write_head(task_id, task_path, WRITES_IDX_MAP.get(channel, index), channel), value)
            for index, (channel, value) in enumerate(writes)
        ]
        loop = asyncio.get_running_loop()
        name = (self.key(str(conf["thread_id"])), conf.get(LEASE_KEY, ""))
        if (box := self._outbox.get(name)) is None:
            box = self._outbox[name] = self._box(name[0])
            loop.call_later(self._linger_s, self._flush, name)
        encoded = [box.out.value(value) for _, value in rows]
        at = node(conf["checkpoint_id"], conf.get("checkpoint_ns", ""))
        box.writes.append(_Writes(at, rows, encoded, loop.create_future()))
        await box.writes[-1].done

    def _box(self, key: bytes) -> _Box:
        return _Box(Outgoing(self._transcripts.get(key) or Transcript(), self.serde, whole=False))

    def _flush(self, name: tuple[bytes, str]) -> None:
        """Send the writes that were not sent with a checkpoint."""
        if self._putting[name[0]]:  # they will be sent with the checkpoint after the one that is being stored
            asyncio.get_running_loop().call_later(self._linger_s, self._flush, name)
        elif (box := self._outbox.pop(name, None)) is not None and box.writes:
            sending = asyncio.get_running_loop().create_task(self._send(name, box))
            self._sending.add(sending)
            sending.add_done_callback(self._sending.discard)

    async def _send(self, name: tuple[bytes, str], box: _Box) -> None:
        try:
            await self._put(*name, ("", "", b""), {}, box)
        except BaseException as exc:  # noqa: BLE001  # handed to those who wait for it
            box.settle(exc)
        else:
            box.settle()

    async def _put(
        self,
        key: bytes,
        ticket: str,
        checkpoint: tuple[str, str, bytes],
        blobs: Mapping[bytes, tuple[Any, bool]],
        box: _Box,
    ) -> None:
        """Store a checkpoint (with an empty id: none) and the writes of a box. `blobs`: field -> (value, whether it is new)."""
        for whole in (False, True):
            out = Outgoing(Transcript(), self.serde, whole=True) if whole else box.out
            required = [] if whole else [name for name, (_, is_new) in blobs.items() if not is_new]
            values = [(name, out.value(value)) for name, (value, is_new) in blobs.items() if whole or is_new]
            rows = [
                (writes.node, head, out.value(value) if whole else encoded)
                for writes in box.writes
                for (head, value), encoded in zip(writes.rows, writes.encoded, strict=True)
            ]
            reply = await self.connection.evaluate(
                script("put"), key, self.ttl_ms, ticket, out.transcript.generation if out.refers else b"", *anchor(out.transcript), fresh_generation(), *checkpoint,
                *_rows([(name,) for name in required]), *_rows(out.messages), *_rows(values), *_rows(rows),
            )  # fmt: skip
            if reply[0] == b"ok":
                out.sent(reply[1], reply[2])
                self._transcripts.put(key, out.transcript)
                return
            check_held(reply[0])
            self._transcripts.drop(key)  # the reply was "again": what this process knows of the thread is outdated
        raise TornThread("This conversation changes faster than it can be written.")

    # --- reading ------------------------------------------------------------------------------

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        conf = config["configurable"]
        thread_id, ns = str(conf["thread_id"]), conf.get("checkpoint_ns", "")
        found = await self._read("get", thread_id, conf.get("checkpoint_id") or "", ns)
        if not found:
            return None
        draw_after(found[0].checkpoint)
        return found[0]

    async def peek(self, thread_id: str) -> CheckpointTuple | None:
        """A thread's newest checkpoint, without starting its time to live anew."""
        found = await self._read("get", thread_id, "", "", is_use=False)
        return found[0] if found else None

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        if config is None:
            async for key in self.connection.keys(self.key("")):
                everything: RunnableConfig = {"configurable": {"thread_id": self.thread_id(key)}}
                async for found in self.alist(everything, filter=filter, before=before, limit=limit):
                    yield found
                    if limit is not None:
                        limit -= 1
            return
        conf = config["configurable"]
        thread_id, ns, only = str(conf["thread_id"]), conf.get("checkpoint_ns"), conf.get("checkpoint_id")
        cursor = b""
        if before is not None and (start := before["configurable"].get("checkpoint_id")):
            cursor = node(start, before["configurable"].get("checkpoint_ns", ""))
        left = limit
        while left is None or left > 0:
            if only:
                one = await self._read("get", thread_id, only, ns or "")
                batch = [found for found in one if not cursor or node_of(found) < cursor]
            else:
                size = BATCH if left is None or filter else min(BATCH, left)
                batch = await self._read("list", thread_id, cursor, "0" if ns is None else "1", ns or "", size)
            for found in batch:
                metadata: Mapping[str, Any] = found.metadata
                if filter and any(metadata.get(name) != value for name, value in filter.items()):
                    continue
                yield found
                if left is not None and (left := left - 1) == 0:
                    return
            if only or len(batch) < size:
                return
            cursor = node_of(batch[-1])

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        conf = config["configurable"]
        result: dict[str, DeltaChannelHistory] = {channel: {"writes": []} for channel in channels}
        if not channels:
            return result
        ancestors = await self._read(
            "delta",
            str(conf["thread_id"]),
            conf.get("checkpoint_id") or "",
            conf.get("checkpoint_ns", ""),
            more=channels,
        )
        for found in ancestors:  # nearest first
            values = found.checkpoint["channel_values"]
            for channel, entry in result.items():
                if "seed" in entry:
                    continue
                entry["writes"] = [write for write in found.pending_writes or () if write[1] == channel] + entry[
                    "writes"
                ]
                if channel in values:
                    entry["seed"] = values[channel]
        return result

    async def _read(
        self, name: str, thread_id: str, *args: bytes | str | int, more: Sequence[str] = (), is_use: bool = True
    ) -> list[CheckpointTuple]:
        key = self.key(thread_id)
        transcript = (self._transcripts.get(key) or Transcript()).trusted()
        reply = await self.connection.evaluate(
            script(name), key, self.ttl_ms if is_use else "", *args, transcript.generation, *anchor(transcript), *more
        )
        if reply is None:
            return []
        if not reply:
            raise TornThread
        generation, checkpoints, (positions, payloads) = reply
        if transcript.generation != generation or any(position < len(transcript.messages) for position in positions):
            transcript = Transcript(
                generation
            )  # a new thread of that id, or the server lost what this process has seen
        incoming = Incoming(transcript, self.serde)
        try:
            incoming.receive(generation, positions, payloads)
            self._transcripts.put(key, transcript)
            rows = [checkpoints] if name == "get" else checkpoints
            return [checkpoint_tuple(thread_id, incoming, row) for row in rows]
        except (ValueError, TypeError, LookupError, AttributeError) as exc:  # the bytes are not those that were written
            raise TornThread("What is stored of this conversation cannot be read.") from exc

    # --- threads as a whole -------------------------------------------------------------------

    async def adelete_thread(self, thread_id: str) -> None:
        key = self.key(str(thread_id))
        self._transcripts.drop(key)
        await self.connection.command("UNLINK", key)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Drop the checkpoints of some runs, in whichever thread; reads every thread."""
        if not run_ids:
            return
        async for key in self.connection.keys(self.key("")):
            await self.connection.evaluate(script("prune"), key, self.ttl_ms, fresh_generation(), *map(str, run_ids))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        fields = await self.connection.command("HGETALL", self.key(str(source_thread_id)))
        if not fields:
            return
        pairs = [item for pair in fields.items() for item in pair]
        target = self.key(str(target_thread_id))
        self._transcripts.drop(target)
        await self.connection.evaluate(script("adopt"), target, self.ttl_ms, fresh_generation(), *pairs)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        if strategy not in ("keep_latest", "delete"):
            raise ValueError(f"unknown strategy {strategy!r}: 'keep_latest' or 'delete'")
        for thread_id in thread_ids:
            if strategy == "delete":
                await self.adelete_thread(thread_id)
            else:
                await self.connection.evaluate(
                    script("prune"), self.key(str(thread_id)), self.ttl_ms, fresh_generation()
                )

    # --- what this process knows --------------------------------------------------------------

    def forget(self, thread_id: str) -> None:
        """Drop what this process remembers of a thread."""
        self._transcripts.drop(self.key(thread_id))


def anchor(transcript: Transcript) -> tuple[int, bytes]:
    """How many messages are known, and the digest of the last, by which the server can tell whether it has lost some."""
    return len(transcript.messages), transcript.digests[-1] if transcript.digests else b""


def check_held(status: bytes) -> None:
    """Raise RunReplaced or ThreadNotFound where a script says that the ticket does not hold the thread."""
    if status == b"stale":
        raise RunReplaced
    if status == b"gone":
        raise ThreadNotFound("This conversation was deleted, or expired, while it was being answered.")


def fresh_generation() -> bytes:
    """Names one life of a thread: after it was deleted, another one may get the same id."""
    return _chance.randbytes(8)


def _rows(rows: Sequence[Sequence[bytes]]) -> list[bytes | int]:
    return [len(rows), *(item for row in rows for item in row)]
