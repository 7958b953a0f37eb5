"""OpenAI's streamed answers with little work per token.

The SDK makes a tree of pydantic objects of every token, which LangChain turns back into a dictionary: a third of the
processor time of a turn under load. Here the dictionary stays one, and tokens that have arrived together go on
together, so that a busy service does less per token and an idle one loses no time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Self

from openai import AsyncOpenAI, AsyncStream
from openai.resources.chat import AsyncCompletions

from citewell.joining import JoiningQueue

Delta = dict[str, Any]
"""One `chat.completion.chunk` as it came."""


class Completions(AsyncCompletions):
    """What `ChatOpenAI` calls in place of `client.chat.completions`; differs in the streams only."""

    def __init__(self, client: AsyncOpenAI) -> None:
        super().__init__(client)
        self._openai = client

    async def create(self, **payload: Any) -> Any:
        """As the SDK's. A stream gives dictionaries; its retries, faults and deadlines are the SDK's."""
        if not payload.get("stream"):
            return await super().create(**payload)
        stream = await self._openai.post(
            "/chat/completions", body=payload, cast_to=object, stream=True, stream_cls=AsyncStream[object]
        )
        return JoinedStream(stream)


class JoinedStream:
    """The deltas of a stream; those that wait for the reader become one. An asynchronous context manager."""

    def __init__(self, stream: AsyncStream[Any]) -> None:
        self._stream = stream

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stream.close()

    def __aiter__(self) -> AsyncGenerator[Delta, None]:
        return joined(self._stream)


async def joined(deltas: AsyncIterator[Delta]) -> AsyncGenerator[Delta, None]:
    """Pass deltas on, those that have come while the reader was busy as one.

    Raises:
        Exception: What `deltas` raises, after everything that came before it.
    """
    queue: JoiningQueue[Delta] = JoiningQueue(_join)

    async def read() -> None:
        try:
            async for delta in deltas:
                queue.put(delta)
        finally:
            queue.end()

    reading = asyncio.create_task(read())
    try:
        async for delta in queue:
            yield delta
        await reading
    finally:
        reading.cancel()
        await asyncio.wait({reading})


def _join(last: Delta, delta: Delta) -> Delta | None:
    """Both as one, where the second is more text of the same answer and nothing else; what is not known stays alone."""
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
