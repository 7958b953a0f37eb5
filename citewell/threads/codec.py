"""Encodes a thread's values for Redis and decodes them; `lua/common.lua` describes the layout of the hash.

Each message is stored once, in the order in which messages were first seen, and a channel that holds messages stores runs of their
positions: a transcript of 400 messages is "0+400" if it has only grown. So what a turn adds does not depend on the length of the
thread.
"""

from __future__ import annotations

import hashlib
import operator
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import BaseMessage
from langgraph.checkpoint.serde.base import SerializerProtocol

from citewell.errors import CheckpointError, TornThread

NOTHING = b"e"
_DIGEST_BYTES = 16
_FIELDS = operator.attrgetter("__dict__")
_EXTRA = operator.attrgetter("__pydantic_extra__")


class _NotPlainError(Exception):
    """A message holds something other than plain values and containers of them."""


def _copy(value: Any) -> Any:
    """A copy that shares the plain values, which are immutable, so that changes made in place can be detected."""
    if value is None or isinstance(value, str | int | float | bool | bytes):
        return value
    if type(value) is dict:
        return {key: _copy(item) for key, item in value.items()}
    if type(value) is list:
        return [_copy(item) for item in value]
    raise _NotPlainError


@dataclass(slots=True)
class Transcript:
    """The messages of one thread that this process has decoded: positions 0..n-1 without a gap.

    Beside each message there is a copy of its contents as they are stored. LangGraph hands the same objects from step to step, so most
    of a transcript is recognised by identity and found unchanged by comparison with the copies. Both take a few calls that run in C, as
    this is done for every message of a thread, several times per turn.
    """

    generation: bytes = b""
    messages: list[BaseMessage] = field(default_factory=list)
    fields: list[Any] = field(default_factory=list)
    """Copies of the messages' fields. None, which equals none of them, marks a message that is always serialised anew."""
    extras: list[Any] = field(default_factory=list)
    """Copies of fields that the message's class does not declare."""
    by_identity: dict[int, int] = field(default_factory=dict)
    by_digest: dict[bytes, int] = field(default_factory=dict)
    digests: list[bytes] = field(default_factory=list)
    """Of the stored messages. The last one is sent to the server, so that it can tell whether it has lost messages it had acknowledged."""
    counted: int = 0
    """How many of the messages `Transcripts` has counted."""

    def add(self, position: int, message: BaseMessage, digest: bytes) -> None:
        """Remember a message, if it is the next one or equals a known one."""
        if position > len(self.messages):
            return
        try:
            fields, extra = _copy(message.__dict__), _copy(message.__pydantic_extra__)
        except _NotPlainError:
            fields = extra = None
        if position == len(self.messages):
            self.messages.append(message)
            self.fields.append(fields)
            self.extras.append(extra)
            self.digests.append(digest)
        else:
            self.by_identity.pop(id(self.messages[position]), None)
            self.messages[position], self.fields[position], self.extras[position] = message, fields, extra
            self.digests[position] = digest
        self.by_identity[id(message)] = position
        self.by_digest[digest] = position

    def is_unchanged(self, position: int) -> bool:
        """Whether a message still equals the stored one."""
        message = self.messages[position]
        return bool(message.__dict__ == self.fields[position] and message.__pydantic_extra__ == self.extras[position])

    def are_unchanged(self, count: int) -> bool:
        """Whether the first `count` messages do."""
        messages, fields, extras = self.messages, self.fields, self.extras
        if count < len(messages):
            messages, fields, extras = messages[:count], fields[:count], extras[:count]
        return list(map(_FIELDS, messages)) == fields and list(map(_EXTRA, messages)) == extras

    def beginning_of(self, messages: Sequence[object]) -> int:
        """How many messages at the beginning of a list are this transcript's own objects, unchanged: all of them, or 0."""
        count = min(len(messages), len(self.messages))
        if count and all(map(operator.is_, messages, self.messages)) and self.are_unchanged(count):
            return count
        return 0

    def trusted(self) -> Transcript:
        """This transcript up to the first message that was changed in place."""
        if self.are_unchanged(len(self.messages)):
            return self
        count = next(at for at in range(len(self.messages)) if not self.is_unchanged(at))
        kept = Transcript(self.generation, self.messages[:count], self.fields[:count], self.extras[:count])
        kept.by_identity = {id(message): at for at, message in enumerate(kept.messages)}
        kept.by_digest = {digest: at for digest, at in self.by_digest.items() if at < count}
        kept.digests = self.digests[:count]
        return kept


class Transcripts:
    """The transcripts that a process remembers: those used last, up to a number of messages in all."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._messages = 0
        self._kept: OrderedDict[bytes, Transcript] = OrderedDict()

    def get(self, key: bytes) -> Transcript | None:
        """A thread's transcript."""
        return self._kept.get(key)

    def put(self, key: bytes, transcript: Transcript) -> None:
        """Remember a transcript, or that it has grown."""
        self.drop(key)
        transcript.counted = len(transcript.messages)
        self._messages += transcript.counted
        self._kept[key] = transcript
        while self._messages > self._most and len(self._kept) > 1:
            self.drop(next(iter(self._kept)))

    def drop(self, key: bytes) -> None:
        """Forget a thread."""
        if (transcript := self._kept.pop(key, None)) is not None:
            self._messages -= transcript.counted


@dataclass(slots=True)
class Outgoing:
    """Encodes what one call of the script `put` sends beside the checkpoint itself."""

    transcript: Transcript
    serde: SerializerProtocol
    whole: bool
    """Whether every message is sent, without using positions of `transcript`."""
    messages: list[tuple[bytes, bytes]] = field(default_factory=list)
    """(digest, bytes) of messages that the server may not have."""
    objects: list[BaseMessage] = field(default_factory=list)
    refers: bool = False
    """Whether any value refers to positions of `transcript`."""
    _numbers: dict[bytes, int] = field(default_factory=dict)

    def value(self, value: Any) -> bytes:
        """Encode a channel's value, or a value that a task wrote to it."""
        if isinstance(value, BaseMessage):
            return b"s" + self._runs((value,))
        if type(value) is list and value:
            begun = 0 if self.whole else self.transcript.beginning_of(value)
            if all(isinstance(item, BaseMessage) for item in value[begun:]):
                return b"r" + self._runs(value[begun:], begun)
        kind, payload = self.serde.dumps_typed(value)
        return b"v%b\0%b" % (kind.encode(), payload)

    def _runs(self, messages: Iterable[BaseMessage], count: int = 0) -> bytes:
        """The runs of positions of a transcript's first `count` messages and the messages that follow them."""
        runs: list[str] = []
        first = 0
        for message in messages:
            place = self._place(message)
            if isinstance(place, int) and count and place == first + count:
                count += 1
                continue
            if count:
                runs.append(f"{first}+{count}")
                count = 0
            if isinstance(place, int):
                first, count = place, 1
            else:
                runs.append(place)
        if count:
            runs.append(f"{first}+{count}")
        self.refers = self.refers or any(run[0] != "#" for run in runs)
        return ",".join(runs).encode()

    def _place(self, message: BaseMessage) -> str | int:
        """The position of a message, or `#` and its number among those that are sent."""
        if not self.whole:
            position = self.transcript.by_identity.get(id(message))
            if position is not None and self.transcript.is_unchanged(position):
                return position
        return self._send(message)

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
    """The messages of the reply, by position."""

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
        known = self.transcript.messages
        for run in runs.decode().split(","):
            first, count = map(int, run.split("+"))
            if first + count <= len(known) and not self.extra:
                yield from known[first : first + count]
                continue
            for position in range(first, first + count):
                if (message := self.extra.get(position)) is not None:
                    yield message
                elif position < len(known):
                    yield known[position]
                else:
                    raise TornThread("A message of this conversation is gone from Redis.")
