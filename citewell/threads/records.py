"""Checkpoints and pending writes as bytes, in a format that the Lua scripts can read.

A record consists of parts, each preceded by its length in four bytes. Those of a checkpoint are: the node before it in the thread's chain
of checkpoints (kept by the scripts), its parent, its run, its delta channels, and its channels with their versions; all else follows as
the serializer made it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import ormsgpack
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple, PendingWrite, writes_sort_key
from langgraph.checkpoint.serde.base import SerializerProtocol

from citewell.errors import TornThread
from citewell.threads.codec import Incoming

Version = str | int | float


def node(checkpoint_id: str, ns: str) -> bytes:
    """A checkpoint's name within its thread."""
    return f"{checkpoint_id}\0{ns}".encode()


def node_of(found: CheckpointTuple) -> bytes:
    """The name of a checkpoint that was read."""
    conf = found.config["configurable"]
    return node(conf["checkpoint_id"], conf["checkpoint_ns"])


def blob_field(ns: str, channel: str, version: Version) -> bytes:
    """The hash field that holds a channel's value."""
    return f"b{ns}\0{channel}\0{_version(version)}".encode()


def write_head(task_id: str, task_path: str, index: int, channel: str) -> bytes:
    """What is kept of a write beside its value."""
    return ormsgpack.packb((task_id, task_path, index, channel))


def encode_record(
    serde: SerializerProtocol,
    rest: object,
    *,
    parent: str,
    run_id: str,
    deltas: Iterable[str],
    stored: Mapping[str, Version],
) -> bytes:
    """The record of a checkpoint, without its values and without the part that the scripts keep."""
    names = "".join(f"{channel}\0{_version(version)}\0" for channel, version in stored.items())
    parts = (parent, run_id, "".join(f"{channel}\0" for channel in deltas), names)
    kind, payload = serde.dumps_typed(rest)
    head = b"".join(struct.pack(">I", len(data)) + data for data in (_bytes(part) for part in parts))
    return head + b"%b\0%b" % (kind.encode(), payload)


def checkpoint_tuple(thread_id: str, incoming: Incoming, row: Sequence[Any]) -> CheckpointTuple:
    """Decode a checkpoint of a reply: id, namespace, record, names of values, values, writes.

    Raises:
        TornThread: Part of it is missing.
    """
    if not row:
        raise TornThread
    id_, ns, record, refs, values, log = row
    checkpoint_id, checkpoint_ns = id_.decode(), ns.decode()
    _, parent, _, _, _, everything_else = _split(record, 5)
    kind, _, payload = everything_else.partition(b"\0")
    rest, metadata = incoming.serde.loads_typed((kind.decode(), payload))
    channel_values: dict[str, Any] = {}
    for ref, data in zip(refs, values, strict=True):
        channel, _, version = ref.decode().partition("\0")
        if data is None or version != _version(rest["channel_versions"][channel]):
            raise TornThread(f"The value of {channel!r} of this conversation is gone from Redis.")
        channel_values[channel] = incoming.value(data)
    checkpoint: Any = {**rest, "id": checkpoint_id, "channel_values": channel_values}

    def address(checkpoint_id: str) -> RunnableConfig:
        return {
            "configurable": {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns, "checkpoint_id": checkpoint_id}
        }

    return CheckpointTuple(
        config=address(checkpoint_id),
        checkpoint=checkpoint,
        metadata=metadata,
        parent_config=address(parent.decode()) if parent else None,
        pending_writes=_pending(log, incoming),
    )


def _pending(log: bytes, incoming: Incoming) -> list[PendingWrite]:
    """The pending writes of a checkpoint: of several for one slot of a task the first counts, for special channels the last."""
    kept: dict[tuple[str, int], tuple[str, str, bytes]] = {}
    parts = list(_split(log))
    for head, value in zip(parts[::2], parts[1::2], strict=True):
        task_id, path, index, channel = ormsgpack.unpackb(head)
        if index < 0 or (task_id, index) not in kept:
            kept[task_id, index] = (path, channel, value)
    ordered = sorted(kept.items(), key=lambda item: writes_sort_key(item[1][0], *item[0]))
    return [(task_id, channel, incoming.value(value)) for (task_id, _), (_, channel, value) in ordered]


def _split(data: bytes, most: int | None = None) -> Iterator[bytes]:
    """The parts of a record; with `most`, so many of them and then the rest as one."""
    at = 0
    while at < len(data):
        if most is not None:
            if not most:
                yield data[at:]
                return
            most -= 1
        size = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 4 + size]
        at += 4 + size


def _version(version: Version) -> str:
    """A version with its type, as it stands in the name of a field."""
    return f"{type(version).__name__[0]}{version}"


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
