"""How a thread's values become bytes in Redis and come back; `lua/common.lua` has the layout of the hash.

Messages are kept once each, in the order they were first seen, and a channel that holds messages stores only runs of
their positions: a transcript of any length is "0+400" as long as it only grew. So what a turn adds does not depend on
how long the thread already is.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import BaseMessage
from langgraph.checkpoint.serde.base import SerializerProtocol

from citewell.errors import CheckpointError, TornThread

NOTHING = b"e"
_DIGEST_BYTES = 16


class _NotPlainError(Exception):
    """A message holds something that is neither a plain value nor a container of those."""


def _copy(value: Any) -> Any:
    """Copy containers, so that a later change in place shows; plain values are immutable and stay."""
    if value is None or isinstance(value, str | int | float | bool | bytes):
        return value
    if type(value) is dict:
        return {key: _copy(item) for key, item in value.items()}
    if type(value) is list:
        return [_copy(item) for item in value]
    raise _NotPlainError


class Known:
    """A message in the process, beside a copy of what it held when it equalled the stored one."""

    __slots__ = ("extra", "fields", "message")

    def __init__(self, message: BaseMessage) -> None:
        self.message = message
        try:
            self.fields: Any = _copy(message.__dict__)
            self.extra: Any = _copy(message.__pydantic_extra__)
        except _NotPlainError:
            self.fields = None  # equals nothing, so the message is always serialised anew

    @property
    def is_unchanged(self) -> bool:
        message = self.message
        return bool(message.__dict__ == self.fields and message.__pydantic_extra__ == self.extra)


@dataclass(slots=True)
class Transcript:
    """The messages of one thread that this process has decoded: positions 0..n-1 without a gap."""

    generation: bytes = b""
    known: list[Known] = field(default_factory=list)
    by_identity: dict[int, int] = field(default_factory=dict)
    by_digest: dict[bytes, int] = field(default_factory=dict)
    counted: int = 0
    """Messages the cache has accounted for."""

    def add(self, position: int, message: BaseMessage, digest: bytes) -> None:
        """Remember a message, if it is the next one or stands in for one that is known."""
        if position > len(self.known):
            return
        known = Known(message)
        if position == len(self.known):
            self.known.append(known)
        else:
            self.by_identity.pop(id(self.known[position].message), None)
            self.known[position] = known
        self.by_identity[id(message)] = position
        self.by_digest[digest] = position

    def trusted(self) -> Transcript:
        """This transcript up to the first message that somebody in this process has changed in place."""
        for position, known in enumerate(self.known):
            if not known.is_unchanged:
                kept = Transcript(self.generation, self.known[:position])
                kept.by_identity = {id(known.message): at for at, known in enumerate(kept.known)}
                kept.by_digest = {digest: at for digest, at in self.by_digest.items() if at < position}
                return kept
        return self


@dataclass(slots=True)
class Outgoing:
    """What one call of the put script carries beside the checkpoint itself."""

    transcript: Transcript
    serde: SerializerProtocol
    whole: bool
    """Send every message; positions from `transcript` are not used."""
    messages: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Digest and bytes of messages the server may not have."""
    objects: list[BaseMessage] = field(default_factory=list)
    refers: bool = False
    """Whether positions of `transcript` occur in any value."""
    _numbers: dict[bytes, int] = field(default_factory=dict)

    def value(self, value: Any) -> bytes:
        """Encode a channel's value, or what a task wrote to it."""
        if isinstance(value, BaseMessage):
            return b"s" + self._runs((value,))
        if type(value) is list and value and all(isinstance(item, BaseMessage) for item in value):
            return b"r" + self._runs(value)
        kind, payload = self.serde.dumps_typed(value)
        return b"v%b\0%b" % (kind.encode(), payload)

    def _runs(self, messages: Iterable[BaseMessage]) -> bytes:
        runs: list[str] = []
        first = count = 0
        by_identity, known = self.transcript.by_identity, self.transcript.known
        for message in messages:
            position = None if self.whole else by_identity.get(id(message))
            if position is None or not known[position].is_unchanged:
                number = self._send(message)
                if isinstance(number, str):
                    if count:
                        runs.append(f"{first}+{count}")
                        count = 0
                    runs.append(number)
                    continue
                position = number
            if count and position == first + count:
                count += 1
                continue
            if count:
                runs.append(f"{first}+{count}")
            first, count = position, 1
        if count:
            runs.append(f"{first}+{count}")
        self.refers = self.refers or any(run[0] != "#" for run in runs)
        return ",".join(runs).encode()

    def _send(self, message: BaseMessage) -> str | int:
        kind, payload = self.serde.dumps_typed(message)
        data = b"%b\0%b" % (kind.encode(), payload)
        digest = hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()
        if not self.whole and (position := self.transcript.by_digest.get(digest)) is not None:
            self.transcript.add(position, message, digest)
            return position
        if digest not in self._numbers:
            self.messages.append((digest, data))
            self.objects.append(message)
            self._numbers[digest] = len(self.messages)
        return f"#{self._numbers[digest]}"

    def sent(self, generation: bytes, positions: Sequence[int]) -> None:
        """Remember where the server put the messages."""
        transcript = self.transcript
        transcript.generation = transcript.generation or generation
        if transcript.generation != generation:
            return
        for (digest, _), message, position in zip(self.messages, self.objects, positions, strict=True):
            transcript.add(position, message, digest)


@dataclass(slots=True)
class Incoming:
    """Decodes the values of one reply."""

    transcript: Transcript
    serde: SerializerProtocol
    extra: dict[int, BaseMessage] = field(default_factory=dict)
    """Messages of the reply that do not join on to the transcript."""

    def receive(self, generation: bytes, positions: Sequence[int], payloads: Sequence[bytes | None]) -> None:
        """Decode the messages of a reply."""
        for position, data in zip(positions, payloads, strict=True):
            if data is None:
                raise TornThread("A message of this conversation is gone from Redis.")
            message = self._load(data)
            self.extra[position] = message
            if isinstance(message, BaseMessage) and self.transcript.generation == generation:
                digest = hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()
                self.transcript.add(position, message, digest)

    def value(self, data: bytes) -> Any:
        """Decode a value; `NOTHING` must not be passed."""
        kind, rest = data[:1], data[1:]
        if kind == b"v":
            return self._load(rest)
        if kind == b"r":
            return list(self._messages(rest))
        if kind == b"s":
            return next(self._messages(rest))
        raise CheckpointError("A stored value is of an unknown kind; it was written by a newer version.")

    def _load(self, data: bytes) -> Any:
        kind, _, payload = data.partition(b"\0")
        return self.serde.loads_typed((kind.decode(), payload))

    def _messages(self, runs: bytes) -> Iterator[BaseMessage]:
        known = self.transcript.known
        for run in runs.decode().split(","):
            first, count = map(int, run.split("+"))
            for position in range(first, first + count):
                if (message := self.extra.get(position)) is not None:
                    yield message
                elif position < len(known):
                    yield known[position].message
                else:
                    raise TornThread("A message of this conversation is gone from Redis.")


# --- records: parts, each its length in four bytes and then its bytes -------------------------


def join(parts: Iterable[bytes]) -> bytes:
    """Lay parts one behind the other."""
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def split(data: bytes) -> Iterator[bytes]:
    """Take parts apart again."""
    at = 0
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        yield data[at + 4 : at + 4 + size]
        at += 4 + size


def version_text(version: str | int | float) -> str:
    """A channel's version in the name of a field, with its type."""
    return f"{type(version).__name__[0]}{version}"


def names(channels: Mapping[str, str | int | float]) -> bytes:
    """Channels with their versions, as the record lists them."""
    return "".join(f"{channel}\0{version_text(version)}\0" for channel, version in channels.items()).encode()
