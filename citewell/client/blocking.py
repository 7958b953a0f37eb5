"""The blocking client."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from types import TracebackType
from typing import Any, Self

import httpx

from . import wire
from .door import Door
from .values import (
    Answer,
    Conversation,
    Feedback,
    Found,
    Ingested,
    Passage,
    Progress,
    Rating,
    ServiceError,
    Source,
    Thread,
    ThreadList,
)  # fmt: skip


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

    def ask(self, question: str, *, thread_id: str | None = None, **options: Any) -> Answer:
        """Ask and wait for the whole answer.

        Args:
            thread_id: Conversation to go on with; None starts one, which the answer names.
            options: `chat_model`, `temperature`, `max_tokens`, `top_k`, `filter`, `thread_policy`, `trace`.
        """
        return wire.answer(self._json("POST", "/chat", json=wire.chat(question, thread_id, options)))

    def stream(
        self, question: str, *, thread_id: str | None = None, **options: Any
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
                    wire.check(response)
                    for line in response.iter_lines():
                        yield from reader.feed(line)
                reader.end()
                return
            except ServiceError as fault:
                time.sleep(reader.retry_s(fault))

    def stop(self, thread_id: str) -> bool:
        """Stop the answer under way in a conversation, and keep what there is of it. Returns whether there was one."""
        return bool(self._json("POST", f"{wire.thread(thread_id)}/stop")["stopped"])

    def history(self, thread_id: str, *, before: int | None = None, limit: int = 100) -> Conversation:
        """Read a page of a conversation, by default the newest."""
        return wire.conversation(
            self._json("GET", wire.thread(thread_id), params=wire.given(before=before, limit=limit))
        )

    def delete(self, thread_id: str) -> None:
        """Delete a conversation and everything kept with it. An unknown one is no error."""
        self._json("DELETE", wire.thread(thread_id))

    def threads(self, *, limit: int = 50, before: str | None = None) -> ThreadList:
        """List the caller's conversations."""
        return wire.threads(self._json("GET", "/threads", params=wire.given(limit=limit, before=before)))

    def rename(self, thread_id: str, title: str) -> Thread:
        """Give a conversation another title."""
        return Thread.read(self._json("PATCH", f"/threads/{wire.path(thread_id)}", json={"title": title}))

    def search(self, question: str, **options: Any) -> Found:
        """Search for passages without an answer, and explain the order. Options: `top_k`, `filter`."""
        return wire.found(self._json("POST", "/search", json={"question": question} | wire.chosen(options)))

    def sources(self) -> list[Source]:
        """All documents that the caller may read."""
        return [Source.read(source) for source in self._json("GET", "/sources")["sources"]]

    def passage(self, uri: str, start: int, end: int) -> Passage:
        """A passage of a source with the text around it."""
        return Passage.read(self._json("GET", "/source", params={"uri": uri, "start": start, "end": end}))

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
            wire.check(response)
            for line in response.iter_lines():
                yield from reader.feed(line)
        reader.end()

    def remove_upload(self, name: str) -> None:
        """Remove an uploaded document."""
        self._json("DELETE", "/uploads", params={"name": name})

    def rate(
        self, thread_id: str, rating: Rating, *, message: int | None = None, reason: str = "", comment: str = ""
    ) -> Feedback:
        """Rate an answer. `message` is its position; None: the last answer of the conversation."""
        body = {"thread_id": thread_id, "rating": rating, "reason": reason, "comment": comment} | wire.given(
            message=message
        )
        return Feedback.read(self._json("POST", "/feedback", json=body))

    def ratings(self, thread_id: str) -> list[Feedback]:
        """The ratings of a conversation's answers."""
        return [
            Feedback.read(row) for row in self._json("GET", "/feedback", params={"thread_id": thread_id})["feedback"]
        ]

    def models(self) -> list[str]:
        """The values of `chat_model`, the default first."""
        return wire.models(self._json("GET", "/v1/models"))

    def status(self) -> dict[str, Any]:
        """The readiness of the service and of its parts."""
        with wire.faults(self.url):
            return wire.check(self._http.get("/readyz"), readiness=True)  # type: ignore[no-any-return]  # JSON

    def _json(self, method: str, path: str, **request: Any) -> Any:
        with wire.faults(self.url):
            return wire.check(self._http.request(method, path, **request))
