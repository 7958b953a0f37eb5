"""The blocking client."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
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


class Client(Door):
    """The blocking client. Close it, or use it as a context manager.

    Args:
        url: Of the service, as `http://127.0.0.1:8000`.
        key: API key or token, sent as a bearer token. None: the environment's CITEWELL_API_KEY, if it is set.
        timeout: Seconds, or httpx's own; None: ten to connect, three minutes of silence.

    Every method raises ServiceError.
    """

    def __init__(self, url: str, *, key: str | None = None, timeout: httpx.Timeout | float | None = None) -> None:
        super().__init__(url, key=key, timeout=timeout)
        self._http = httpx.Client(**self._options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def ask(self, question: str, *, thread_id: str | None = None, **options: Unpack[Options]) -> Answer:
        """Ask and wait for the whole answer.

        Args:
            thread_id: Conversation to go on with; None starts one, which the answer names.
            options: See `Options`.
        """
        return self._call("POST", "/chat", wire.answer, json=wire.chat(question, thread_id, options))

    def stream(
        self, question: str, *, thread_id: str | None = None, **options: Unpack[Options]
    ) -> Generator[str | Answer, None, None]:
        """Ask, and yield the pieces of the answer as they come, then the whole `Answer`.

        A connection that breaks off is taken up again where the service keeps streams; there, closing the generator
        leaves the run going, and `stop` ends it. Elsewhere closing the generator ends the run.

        Takes what `ask` takes.
        """
        reader = wire.StreamReader()
        body = wire.chat(question, thread_id, options)
        while True:
            try:
                with (
                    wire.faults(self.url),
                    self._http.stream("POST", "/chat", json=body, headers=reader.headers) as response,
                ):
                    if not wire.is_stream(response):
                        response.read()
                    wire.begin(response)
                    for line in response.iter_lines():
                        yield from reader.feed(line)
                reader.end()
                return
            except ServiceError as fault:
                time.sleep(reader.retry_s(fault))

    def stop(self, thread_id: str) -> bool:
        """Stop the answer under way in a conversation, and keep what there is of it. Returns whether there was one."""
        return self._call("POST", f"{wire.thread(thread_id)}/stop", wire.stopped)

    def history(self, thread_id: str, *, before: int | None = None, limit: int = 100) -> Conversation:
        """Read a page of a conversation, by default the newest."""
        return self._call(
            "GET", wire.thread(thread_id), wire.conversation, params=wire.given(before=before, limit=limit)
        )

    def delete(self, thread_id: str) -> None:
        """Delete a conversation and everything kept with it. An unknown one is no error."""
        self._call("DELETE", wire.thread(thread_id), wire.nothing)

    def threads(self, *, limit: int = 50, before: str | None = None) -> ThreadList:
        """List the caller's conversations."""
        return self._call("GET", "/threads", wire.threads, params=wire.given(limit=limit, before=before))

    def rename(self, thread_id: str, title: str) -> Thread:
        """Give a conversation another title."""
        return self._call("PATCH", f"/threads/{wire.path(thread_id)}", Thread.read, json={"title": title})

    def search(self, question: str, *, top_k: int | None = None, filter: Mapping[str, Any] | None = None) -> Found:
        """Search for passages without an answer, and explain the order."""
        return self._call("POST", "/search", wire.found, json=wire.given(question=question, top_k=top_k, filter=filter))

    def sources(self) -> list[Source]:
        """All documents that the caller may read."""
        return self._call("GET", "/sources", wire.sources)

    def passage(self, uri: str, start: int, end: int) -> Passage:
        """A passage of a source with the text around it."""
        return self._call("GET", "/source", Passage.read, params={"uri": uri, "start": start, "end": end})

    def upload(
        self, name: str, data: bytes, *, access: Sequence[str] | None = None
    ) -> Generator[Progress | Ingested, None, None]:
        """Add a document, or replace the one of the same name. Yields its progress, then the result.

        Args:
            access: Labels of who may read it, of those the caller holds. None: as before; of a new one, the caller alone.
        """
        params = wire.given(name=name, access=access)
        request = self._http.stream("POST", "/uploads", params=params, content=data, headers=wire.EVENTS)
        reader = wire.UploadReader()
        with wire.faults(self.url), request as response:
            if not wire.is_stream(response):
                response.read()
            wire.begin(response)
            for line in response.iter_lines():
                yield from reader.feed(line)
        reader.end()

    def remove_upload(self, name: str) -> None:
        """Remove an uploaded document."""
        self._call("DELETE", "/uploads", wire.nothing, params={"name": name})

    def rate(
        self, thread_id: str, rating: Rating, *, message: int | None = None, reason: str = "", comment: str = ""
    ) -> Feedback:
        """Rate an answer. `message` is its position; None: the last answer of the conversation."""
        body = {"thread_id": thread_id, "rating": rating, "reason": reason, "comment": comment} | wire.given(
            message=message
        )
        return self._call("POST", "/feedback", Feedback.read, json=body)

    def ratings(self, thread_id: str) -> list[Feedback]:
        """The ratings of a conversation's answers."""
        return self._call("GET", "/feedback", wire.ratings, params={"thread_id": thread_id})

    def models(self) -> list[str]:
        """The values of `chat_model`, the default first."""
        return self._call("GET", "/v1/models", wire.models)

    def status(self) -> dict[str, Any]:
        """The readiness of the service and of its parts."""
        with wire.faults(self.url):
            return wire.value(self._http.get("/readyz"), wire.status, readiness=True)

    def _call(self, method: str, path: str, read: Callable[[Any], T], **request: Any) -> T:
        with wire.faults(self.url):
            return wire.value(self._http.request(method, path, **request), read)
