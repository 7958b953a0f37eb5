"""The asynchronous client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx

from . import wire
from .door import Door
from .values import (
    Answer,
    Conversation,
    Feedback,
    Found,
    Ingested,
    Options,
    Passage,
    Progress,
    Rating,
    ServiceError,
    Source,
    Thread,
    ThreadList,
)  # fmt: skip

T = TypeVar("T")


class AsyncClient(Door):
    """The asynchronous client; its calls are those of `Client`."""

    def __init__(self, url: str, *, key: str | None = None, timeout: httpx.Timeout | float | None = None) -> None:
        super().__init__(url, key=key, timeout=timeout)
        self._http = httpx.AsyncClient(**self._options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def ask(self, question: str, *, thread_id: str | None = None, **options: Unpack[Options]) -> Answer:
        """See `Client.ask`."""
        return await self._call("POST", "/chat", wire.answer, json=wire.chat(question, thread_id, options))

    async def stream(
        self, question: str, *, thread_id: str | None = None, **options: Unpack[Options]
    ) -> AsyncGenerator[str | Answer, None]:
        """See `Client.stream`."""
        reader = wire.StreamReader()
        body = wire.chat(question, thread_id, options)
        while True:
            try:
                with wire.faults(self.url):
                    async with self._http.stream("POST", "/chat", json=body, headers=reader.headers) as response:
                        if not wire.is_stream(response):
                            await response.aread()
                        wire.begin(response)
                        async for line in response.aiter_lines():
                            for event in reader.feed(line):
                                yield event
                reader.end()
                return
            except ServiceError as fault:
                await asyncio.sleep(reader.retry_s(fault))

    async def stop(self, thread_id: str) -> bool:
        """See `Client.stop`."""
        return await self._call("POST", f"{wire.thread(thread_id)}/stop", wire.stopped)

    async def history(self, thread_id: str, *, before: int | None = None, limit: int = 100) -> Conversation:
        """See `Client.history`."""
        return await self._call(
            "GET", wire.thread(thread_id), wire.conversation, params=wire.given(before=before, limit=limit)
        )

    async def delete(self, thread_id: str) -> None:
        """See `Client.delete`."""
        await self._call("DELETE", wire.thread(thread_id), wire.nothing)

    async def threads(self, *, limit: int = 50, before: str | None = None) -> ThreadList:
        """See `Client.threads`."""
        return await self._call("GET", "/threads", wire.threads, params=wire.given(limit=limit, before=before))

    async def rename(self, thread_id: str, title: str) -> Thread:
        """See `Client.rename`."""
        return await self._call("PATCH", f"/threads/{wire.path(thread_id)}", Thread.read, json={"title": title})

    async def search(
        self, question: str, *, top_k: int | None = None, filter: Mapping[str, Any] | None = None
    ) -> Found:
        """See `Client.search`."""
        return await self._call(
            "POST", "/search", wire.found, json=wire.given(question=question, top_k=top_k, filter=filter)
        )

    async def sources(self) -> list[Source]:
        """See `Client.sources`."""
        return await self._call("GET", "/sources", wire.sources)

    async def passage(self, uri: str, start: int, end: int) -> Passage:
        """See `Client.passage`."""
        return await self._call("GET", "/source", Passage.read, params={"uri": uri, "start": start, "end": end})

    async def upload(
        self, name: str, data: bytes, *, access: Sequence[str] | None = None
    ) -> AsyncGenerator[Progress | Ingested, None]:
        """See `Client.upload`."""
        params = wire.given(name=name, access=access)
        request = self._http.stream("POST", "/uploads", params=params, content=data, headers=wire.EVENTS)
        reader = wire.UploadReader()
        with wire.faults(self.url):
            async with request as response:
                if not wire.is_stream(response):
                    await response.aread()
                wire.begin(response)
                async for line in response.aiter_lines():
                    for event in reader.feed(line):
                        yield event
        reader.end()

    async def remove_upload(self, name: str) -> None:
        """See `Client.remove_upload`."""
        await self._call("DELETE", "/uploads", wire.nothing, params={"name": name})

    async def rate(
        self, thread_id: str, rating: Rating, *, message: int | None = None, reason: str = "", comment: str = ""
    ) -> Feedback:
        """See `Client.rate`."""
        body = {"thread_id": thread_id, "rating": rating, "reason": reason, "comment": comment} | wire.given(
            message=message
        )
        return await self._call("POST", "/feedback", Feedback.read, json=body)

    async def ratings(self, thread_id: str) -> list[Feedback]:
        """See `Client.ratings`."""
        return await self._call("GET", "/feedback", wire.ratings, params={"thread_id": thread_id})

    async def models(self) -> list[str]:
        """See `Client.models`."""
        return await self._call("GET", "/v1/models", wire.models)

    async def status(self) -> dict[str, Any]:
        """See `Client.status`."""
        with wire.faults(self.url):
            return wire.value(await self._http.get("/readyz"), wire.status, readiness=True)

    async def _call(self, method: str, path: str, read: Callable[[Any], T], **request: Any) -> T:
        with wire.faults(self.url):
            return wire.value(await self._http.request(method, path, **request), read)
