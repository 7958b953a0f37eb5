"""OpenAI's streamed answers with little work per token.

The SDK builds a tree of pydantic objects for every token, which LangChain turns back into a dictionary: a third of the processor time of a
turn under load. Here the dictionary is read directly from the response's bytes, which the SDK passes through five generators (60 tokens:
1.1 ms instead of 3.9), and tokens that arrive together are passed on together. The more answers are streamed at once, the longer further
tokens are left to gather in their sockets: together they leave most of the processor's time to turns whose first word is awaited, and a
single one loses no time.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncGenerator, Iterator
from typing import Any, Final, Self

import httpx2
import orjson
from openai import APIConnectionError, APIError, APIResponseValidationError, AsyncOpenAI, AsyncStream
from openai.resources.chat import AsyncCompletions

from citewell.models.joining import JoiningQueue

Delta = dict[str, Any]
"""One `chat.completion.chunk`, as received."""

LONGEST_HOLD_S: Final = 0.1
"""Longest that tokens are left to gather, in seconds: ten frames a second still read as flowing text."""
HOLD_EACH_S: Final = 0.003
"""Time that tokens are left to gather for every other stream under way, in seconds, up to `LONGEST_HOLD_S`: together, streams pass on some
330 pieces a second. Each piece takes .1 to .4 ms of processor time between the model's socket and the client's."""
_AT_ONCE_S: Final = 0.0005
"""Deltas with less time between them have arrived in one read of the socket."""
_REST_S: Final = 0.25
"""Longest that a stream is read after it said that it is done, in seconds, so that its connection can be reused."""
MOST_EVENT_BYTES: Final = 1_000_000
"""Longest event that is read, in bytes: at every piece all that has arrived of the event is searched, in the event loop."""
MOST_BYTES: Final = 64_000_000
"""Longest body that is read, in bytes; 32,000 tokens with their probabilities take half of it."""
_EVENT_END = re.compile(rb"\n\n|\r\n\r\n|\r\r")


class Completions(AsyncCompletions):
    """Replaces `client.chat.completions` in `ChatOpenAI`; only streams differ.

    Args:
        client: The SDK's.
        streams: Those under way, shared by all models of an event loop.
    """

    def __init__(self, client: AsyncOpenAI, streams: set[Pace]) -> None:
        super().__init__(client)
        self._openai = client
        self._streams = streams

    async def create(self, **payload: Any) -> Any:
        """Like the SDK's, except that a stream yields dictionaries; retries, faults and deadlines are the SDK's."""
        if not payload.get("stream"):
            return await super().create(**payload)
        stream = await self._openai.post(
            "/chat/completions", body=payload, cast_to=object, stream=True, stream_cls=AsyncStream[object]
        )
        return JoinedStream(stream, self._streams)


class JoinedStream:
    """The deltas of a stream, of which those that wait for the reader are joined. An asynchronous context manager."""

    def __init__(self, stream: AsyncStream[Any], streams: set[Pace]) -> None:
        self._stream = stream
        self._streams = streams

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stream.close()

    def __aiter__(self) -> AsyncGenerator[Delta, None]:
        response = self._stream.response
        return joined(deltas_of(response), Pace(self._streams, response))


async def deltas_of(response: httpx2.Response) -> AsyncGenerator[Delta, None]:
    """The `chat.completion.chunk`s of a streamed response, one by one as they arrive.

    Raises:
        openai.APIError: The stream reports an error.
        openai.APIConnectionError: The stream ends within an answer, or without any.
        openai.APIResponseValidationError: The stream holds something other than JSON, or an event that does not end.
        httpx2.RequestError: The connection was lost, or silent for too long.
    """
    rest, has_begun, is_whole = b"", False, False
    try:
        async with contextlib.aclosing(response.aiter_bytes()) as chunks:
            async for chunk in chunks:
                *events, rest = _EVENT_END.split(rest + chunk)
                for event in events:
                    data = b"\n".join(line[5:] for line in event.splitlines() if line.startswith(b"data:")).strip()
                    if data.startswith(b"[DONE]") and has_begun:
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(_REST_S):
                                async for _ in chunks:
                                    pass
                        return
                    if data and not data.startswith(b"[DONE]"):  # else a comment, which keeps the connection alive
                        delta, has_begun = _delta(data, response), True
                        is_whole = is_whole or any(choice.get("finish_reason") for choice in delta.get("choices") or ())
                        yield delta
                if len(rest) > MOST_EVENT_BYTES:
                    raise APIResponseValidationError(
                        response, None, message=f"The stream holds an event of more than {MOST_EVENT_BYTES:,} bytes."
                    )
        if not is_whole:  # a server or a proxy closed it regularly, or it is no stream at all
            raise APIConnectionError(message="The stream ended before the answer did.", request=response.request)
    finally:
        await response.aclose()  # a reader that leaves ends the model's work at once, and its cost


class _Bounded(httpx2.AsyncByteStream):
    """A body that raises an error after `MOST_BYTES`."""

    def __init__(self, body: httpx2.AsyncByteStream) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        read = 0
        async for piece in self._body:
            if (read := read + len(piece)) > MOST_BYTES:
                raise httpx2.ReadError(f"The answer has more than {MOST_BYTES:,} bytes.")
            yield piece

    async def aclose(self) -> None:
        await self._body.aclose()


async def bound(response: httpx2.Response) -> None:
    """A client's hook: read at most `MOST_BYTES` of a response, as answers that are not streamed, and refusals, are read to their end."""
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    response.stream = _Bounded(response.stream)


def _delta(data: bytes, response: httpx2.Response) -> Delta:
    try:
        delta = orjson.loads(data)
    except orjson.JSONDecodeError:
        delta = None
    if not isinstance(delta, dict):
        raise APIResponseValidationError(
            response, None, message="The stream holds something that is not a JSON object."
        )
    choices = delta.get("choices") or []
    if not isinstance(choices, list) or not all(
        isinstance(choice, dict) and isinstance(choice.get("delta") or {}, dict) for choice in choices
    ):
        raise APIResponseValidationError(response, None, message="The stream holds choices that are none.")
    if error := delta.get("error"):
        message = error.get("message") if isinstance(error, dict) else None
        raise APIError(str(message or "An error occurred during streaming"), response.request, body=error)
    return delta


async def joined(deltas: AsyncGenerator[Delta, None], pace: Pace | None = None) -> AsyncGenerator[Delta, None]:
    """Pass deltas on, joining those that arrive while the reader is busy. Closes `deltas` when it is closed.

    Args:
        deltas: As they arrive.
        pace: Holds them up; None: one that knows no other stream.

    Raises:
        Exception: What `deltas` raises, after all that came before it.
    """
    queue: JoiningQueue[Delta] = JoiningQueue(_join)
    pace = pace or Pace(set())

    async def read() -> None:
        has_begun = False
        try:
            async with contextlib.aclosing(deltas):
                async for delta in deltas:
                    if has_begun:
                        await pace.hold()
                    queue.put(delta)
                    has_begun = has_begun or _has_text(delta)
                    pace.passed()
        finally:
            pace.ended()
            queue.end()

    reading = asyncio.create_task(read())
    try:
        async for delta in queue:
            yield delta
        await reading
    finally:
        reading.cancel()
        await asyncio.wait({reading})


class Pace:
    """Holds up a stream while others are under way, see `HOLD_EACH_S`.

    Args:
        streams: Those under way on this event loop; this one is among them from its first piece to its end.
        response: What is streamed, which is left unread while it is held up.
    """

    def __init__(self, streams: set[Pace], response: httpx2.Response | None = None) -> None:
        self._streams = streams
        self._response = response
        self._passed = 0.0

    @property
    def hold_s(self) -> float:
        """How long tokens should gather, in seconds, 0..LONGEST_HOLD_S."""
        return min(LONGEST_HOLD_S, HOLD_EACH_S * (len(self._streams) - 1))

    async def hold(self) -> None:
        """Wait before a delta is passed on, unless it arrived together with the one before."""
        if time.perf_counter() - self._passed < _AT_ONCE_S or not (hold_s := self.hold_s):
            return
        with _unread(self._response):
            await asyncio.sleep(hold_s)
        await asyncio.sleep(0)  # until all that has arrived meanwhile has been read

    def passed(self) -> None:
        """Note that a delta was passed on."""
        self._streams.add(self)
        self._passed = time.perf_counter()

    def ended(self) -> None:
        """Note that the stream is over."""
        self._streams.discard(self)


@contextlib.contextmanager
def _unread(response: httpx2.Response | None) -> Iterator[None]:
    """Leave what arrives for a response with the system: to be woken for each token, only to keep it, costs as much as to pass it on."""
    transport = _transport(response)
    if transport is None or transport.is_closing():
        yield
        return
    transport.pause_reading()
    try:
        yield
    finally:
        if not transport.is_closing():
            transport.resume_reading()


def _transport(response: httpx2.Response | None) -> asyncio.Transport | None:
    """aiohttp's, for which no layer above has a name; None where the response has been read to its end, as its connection may then be
    another's, or comes from another client."""
    layer: Any = response and response.stream
    while layer is not None and not hasattr(layer, "_aiohttp_response"):
        layer = getattr(layer, "_body", None) or getattr(layer, "_stream", None)
    connection = layer and layer._aiohttp_response.connection
    transport: asyncio.Transport | None = connection and connection.transport
    return transport


def _has_text(delta: Delta) -> bool:
    return any((choice.get("delta") or {}).get("content") for choice in delta.get("choices") or ())


def _join(last: Delta, delta: Delta) -> Delta | None:
    """Both as one, if the second only adds text to the same answer; None if it holds anything else."""
    if last.get("usage") or delta.get("usage"):
        return None
    (before, *others), (choice, *more) = (each.get("choices") or [{}] for each in (last, delta))
    text, new = before.get("delta") or {}, choice.get("delta") or {}
    if (
        others
        or more
        or before.get("index") != choice.get("index")
        or before.get("finish_reason")
        or before.get("logprobs")
        or choice.get("logprobs")
        or not isinstance(text.get("content"), str)
        or any(value for key, value in new.items() if key not in ("content", "role"))
    ):
        return None
    text = text | {"content": text["content"] + (new.get("content") or "")}
    return last | {"choices": [before | {"delta": text, "finish_reason": choice.get("finish_reason")}]}
