"""A small client of the service, blocking (`Client`) and asynchronous (`AsyncClient`).

    with Client("http://127.0.0.1:8000") as citewell:
        for event in citewell.stream("How high is the tower?"):
            print(event.text if isinstance(event, Answer) else event, end="")

It speaks HTTP only and imports nothing of the server, so this one file can be copied elsewhere; it needs httpx.
Every fault is a `ServiceError`.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from types import TracebackType
from typing import Any, ClassVar, Literal, Self, TypeVar
from urllib.parse import quote, urlencode

import httpx

Status = Literal["verified", "partial", "unsupported"]
Rating = Literal["up", "down"]
T = TypeVar("T", bound="_Value")


class ServiceError(Exception):
    """What went wrong, as the service's problem details have it (RFC 9457).

    A service that cannot be reached, or breaks off, has `status` 0 and the code `unreachable` or `broken_off`.
    """

    def __init__(self, problem: Mapping[str, Any]) -> None:
        self.status: int = problem.get("status", 0)
        self.code: str = problem.get("code", "error")
        self.title: str = problem.get("title", "The request failed")
        self.detail: str = problem.get("detail") or self.title
        self.retryable: bool = problem.get("retryable", False)
        self.retry_after_s: float | None = problem.get("retry_after_s")
        self.request_id: str | None = problem.get("request_id")
        self.errors: list[dict[str, str]] = problem.get("errors") or []
        super().__init__(f"{self.code}: {self.detail}")


class _Value:
    """Reads itself from JSON; keys it does not know are left out, so that a newer service does no harm."""

    @classmethod
    def read(cls: type[T], body: Mapping[str, Any]) -> T:
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]  # every subclass is a dataclass
        return cls(**{name: value for name, value in body.items() if name in known})


@dataclass(frozen=True, kw_only=True)
class Citation(_Value):
    """One marker of an answer and the passage behind it. `start` and `end` are characters of the source's text."""

    marker: int
    sentence: str
    quote: str
    status: Status
    score: float
    source: str
    title: str
    page: int | None
    start: int
    end: int
    chunk_id: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A whole turn. `metadata["trace"]` says why, where the call asked for it."""

    text: str
    citations: list[Citation]
    thread_id: str
    usage: dict[str, int]
    metadata: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Message:
    role: Literal["user", "assistant"]
    content: str
    created_at: str | None
    citations: list[Citation]
    metadata: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Statistics(_Value):
    """Counts of messages; times are ISO 8601, UTC."""

    total: int
    user: int
    assistant: int
    first: str | None = None
    last: str | None = None


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """A page of a conversation, oldest message first. Give `before` to `history` for the page of older ones."""

    thread_id: str
    messages: list[Message]
    statistics: Statistics
    summary: str
    before: int | None
    first: int
    """Position of the first message of this page in the whole conversation."""


@dataclass(frozen=True, kw_only=True)
class Thread(_Value):
    thread_id: str
    title: str
    created: str
    updated: str
    size_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class ThreadList:
    """The threads used last, newest first. Give `before` to `threads` for older ones."""

    threads: list[Thread]
    before: str | None


@dataclass(frozen=True, kw_only=True)
class Source(_Value):
    uri: str
    title: str
    type: str
    size_bytes: int
    date: str | None = None
    tags: list[str] = field(default_factory=list)
    pages: int | None = None


@dataclass(frozen=True, kw_only=True)
class Passage(_Value):
    """A quote in its surroundings."""

    uri: str
    title: str
    type: str
    before: str
    quote: str
    after: str
    page: int | None
    """Page on which the quote starts, where the format has pages."""
    has_file: bool
    """Whether `file_url` leads to the original file."""


@dataclass(frozen=True, kw_only=True)
class Hit(_Value):
    """A passage that search found; `evidence` holds the raw figures of each stage."""

    chunk_id: str
    source: str
    title: str
    text: str
    page: int | None
    start: int
    end: int
    score: float
    evidence: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What search found, best first, and how it came about."""

    hits: list[Hit]
    trace: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Progress(_Value):
    """How far an upload is: `stage` is `reading` or `embedding`, `done` of `total` in chunks."""

    stage: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True, kw_only=True)
class Ingested(_Value):
    """What became of an uploaded document."""

    uri: str
    status: str
    chunks: int
    reason: str = ""
    pages: int | None = None


@dataclass(frozen=True, kw_only=True)
class Feedback(_Value):
    """What somebody thought of an answer; `message` is its position in the conversation."""

    thread_id: str
    message: int
    rating: Rating
    reason: str = ""
    comment: str = ""


class _Door:
    """What both clients share: where the service is, what a call sends, what a reply means."""

    TIMEOUT: ClassVar[httpx.Timeout] = httpx.Timeout(10, read=180)
    """Seconds; `read` is the longest silence, so it must outlast the wait for a busy thread."""

    def __init__(self, url: str, *, key: str | None, timeout: httpx.Timeout | float | None) -> None:
        self.url = url.rstrip("/")
        key = os.environ.get("CITEWELL_API_KEY") if key is None else key
        self._options: dict[str, Any] = {
            "base_url": self.url,
            "headers": {"authorization": f"Bearer {key}"} if key else {},
            "timeout": self.TIMEOUT if timeout is None else timeout,
        }

    def file_url(self, uri: str, page: int | None = None) -> str:
        """Where a browser opens the original file, a PDF at the page."""
        return f"{self.url}/source/file?{urlencode({'uri': uri})}" + (f"#page={page}" if page else "")


class Client(_Door):
    """Calls that block. Close it, or use it as a context manager.

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
        return _answer(self._json("POST", "/chat", json=_chat(question, thread_id, options)))

    def stream(
        self, question: str, *, thread_id: str | None = None, **options: Any
    ) -> Generator[str | Answer, None, None]:
        """Ask, and get the answer's pieces as they come, then the whole `Answer`. Closing the generator stops the run.

        Takes what `ask` takes.
        """
        reader = _StreamReader()
        body = _rag(question, thread_id, options)
        with _faults(), self._http.stream("POST", "/rag/stream", json=body) as response:
            if response.is_error:
                response.read()
            _check(response)
            for line in response.iter_lines():
                yield from reader.feed(line)
        reader.end()

    def history(self, thread_id: str, *, before: int | None = None, limit: int = 100) -> Conversation:
        """Read a page of a conversation, the newest first."""
        return _conversation(self._json("GET", _thread(thread_id), params=_given(before=before, limit=limit)))

    def delete(self, thread_id: str) -> None:
        """Delete every trace of a conversation; one that is not there is no fault."""
        self._json("DELETE", _thread(thread_id))

    def threads(self, *, limit: int = 50, before: str | None = None) -> ThreadList:
        """List the caller's conversations."""
        return _threads(self._json("GET", "/threads", params=_given(limit=limit, before=before)))

    def rename(self, thread_id: str, title: str) -> Thread:
        """Give a conversation another title."""
        return Thread.read(self._json("PATCH", f"/threads/{_path(thread_id)}", json={"title": title}))

    def search(self, question: str, **options: Any) -> Found:
        """Find passages without an answer, and why these. Options: `top_k`, `filter`."""
        return _found(self._json("POST", "/search", json={"question": question} | _chosen(options)))

    def sources(self) -> list[Source]:
        """Every document the caller may read."""
        return [Source.read(source) for source in self._json("GET", "/sources")["sources"]]

    def passage(self, uri: str, start: int, end: int) -> Passage:
        """A passage of a source's text with what stands around it."""
        return Passage.read(self._json("GET", "/source", params={"uri": uri, "start": start, "end": end}))

    def upload(
        self, name: str, data: bytes, *, access: Sequence[str] | None = None
    ) -> Generator[Progress | Ingested, None, None]:
        """Add a document: progress as it comes, then what became of it. The same name replaces it.

        Args:
            access: Labels of who may read it, of those the caller holds. None: as before; of a new one, the caller alone.
        """
        params = _given(name=name, access=access)
        request = self._http.stream("POST", "/uploads", params=params, content=data, headers=_EVENTS)
        reader = _UploadReader()
        with _faults(), request as response:
            if response.is_error:
                response.read()
            _check(response)
            for line in response.iter_lines():
                yield from reader.feed(line)
        reader.end()

    def remove_upload(self, name: str) -> None:
        """Forget a document that was uploaded."""
        self._json("DELETE", "/uploads", params={"name": name})

    def rate(
        self, thread_id: str, rating: Rating, *, message: int | None = None, reason: str = "", comment: str = ""
    ) -> Feedback:
        """Say what an answer was worth. `message` is its position; None: the conversation's last answer."""
        body = {"thread_id": thread_id, "rating": rating, "reason": reason, "comment": comment} | _given(
            message=message
        )
        return Feedback.read(self._json("POST", "/feedback", json=body))

    def ratings(self, thread_id: str) -> list[Feedback]:
        """What was said about a conversation's answers."""
        return [
            Feedback.read(row) for row in self._json("GET", "/feedback", params={"thread_id": thread_id})["feedback"]
        ]

    def models(self) -> list[str]:
        """Names that `chat_model` takes; the default first."""
        return _models(self._json("GET", "/v1/models"))

    def status(self) -> dict[str, Any]:
        """The service's readiness and what its parts say."""
        with _faults():
            return _check(self._http.get("/readyz"), readiness=True)  # type: ignore[no-any-return]  # JSON

    def _json(self, method: str, path: str, **request: Any) -> Any:
        with _faults():
            return _check(self._http.request(method, path, **request))


class AsyncClient(_Door):
    """The same calls, awaited; see `Client`."""

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

    async def ask(self, question: str, *, thread_id: str | None = None, **options: Any) -> Answer:
        """See `Client.ask`."""
        return _answer(await self._json("POST", "/chat", json=_chat(question, thread_id, options)))

    async def stream(
        self, question: str, *, thread_id: str | None = None, **options: Any
    ) -> AsyncGenerator[str | Answer, None]:
        """See `Client.stream`."""
        reader = _StreamReader()
        body = _rag(question, thread_id, options)
        with _faults():
            async with self._http.stream("POST", "/rag/stream", json=body) as response:
                if response.is_error:
                    await response.aread()
                _check(response)
                async for line in response.aiter_lines():
                    for event in reader.feed(line):
                        yield event
        reader.end()

    async def history(self, thread_id: str, *, before: int | None = None, limit: int = 100) -> Conversation:
        """See `Client.history`."""
        return _conversation(await self._json("GET", _thread(thread_id), params=_given(before=before, limit=limit)))

    async def delete(self, thread_id: str) -> None:
        """See `Client.delete`."""
        await self._json("DELETE", _thread(thread_id))

    async def threads(self, *, limit: int = 50, before: str | None = None) -> ThreadList:
        """See `Client.threads`."""
        return _threads(await self._json("GET", "/threads", params=_given(limit=limit, before=before)))

    async def rename(self, thread_id: str, title: str) -> Thread:
        """See `Client.rename`."""
        return Thread.read(await self._json("PATCH", f"/threads/{_path(thread_id)}", json={"title": title}))

    async def search(self, question: str, **options: Any) -> Found:
        """See `Client.search`."""
        return _found(await self._json("POST", "/search", json={"question": question} | _chosen(options)))

    async def sources(self) -> list[Source]:
        """See `Client.sources`."""
        return [Source.read(source) for source in (await self._json("GET", "/sources"))["sources"]]

    async def passage(self, uri: str, start: int, end: int) -> Passage:
        """See `Client.passage`."""
        return Passage.read(await self._json("GET", "/source", params={"uri": uri, "start": start, "end": end}))

    async def upload(
        self, name: str, data: bytes, *, access: Sequence[str] | None = None
    ) -> AsyncGenerator[Progress | Ingested, None]:
        """See `Client.upload`."""
        params = _given(name=name, access=access)
        request = self._http.stream("POST", "/uploads", params=params, content=data, headers=_EVENTS)
        reader = _UploadReader()
        with _faults():
            async with request as response:
                if response.is_error:
                    await response.aread()
                _check(response)
                async for line in response.aiter_lines():
                    for event in reader.feed(line):
                        yield event
        reader.end()

    async def remove_upload(self, name: str) -> None:
        """See `Client.remove_upload`."""
        await self._json("DELETE", "/uploads", params={"name": name})

    async def rate(
        self, thread_id: str, rating: Rating, *, message: int | None = None, reason: str = "", comment: str = ""
    ) -> Feedback:
        """See `Client.rate`."""
        body = {"thread_id": thread_id, "rating": rating, "reason": reason, "comment": comment} | _given(
            message=message
        )
        return Feedback.read(await self._json("POST", "/feedback", json=body))

    async def ratings(self, thread_id: str) -> list[Feedback]:
        """See `Client.ratings`."""
        found = await self._json("GET", "/feedback", params={"thread_id": thread_id})
        return [Feedback.read(row) for row in found["feedback"]]

    async def models(self) -> list[str]:
        """See `Client.models`."""
        return _models(await self._json("GET", "/v1/models"))

    async def status(self) -> dict[str, Any]:
        """See `Client.status`."""
        with _faults():
            return _check(await self._http.get("/readyz"), readiness=True)  # type: ignore[no-any-return]  # JSON

    async def _json(self, method: str, path: str, **request: Any) -> Any:
        with _faults():
            return _check(await self._http.request(method, path, **request))


# --- what calls send ------------------------------------------------------------------------------

_EVENTS = {"accept": "text/event-stream", "content-type": "application/octet-stream"}


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _chosen(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value not in (None, "", {})}


def _chat(question: str, thread_id: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    return {"message": question, "conversation_id": thread_id, "include_sources": True} | _chosen(options)


def _rag(question: str, thread_id: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    chosen = _chosen({"thread_id": thread_id, **options})
    return {"input": {"question": question}, "config": {"configurable": chosen}}


def _path(thread_id: str) -> str:
    return quote(thread_id, safe="")


def _thread(thread_id: str) -> str:
    return f"/conversation/{_path(thread_id)}"


# --- what replies mean ----------------------------------------------------------------------------


@contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except httpx.RemoteProtocolError as exc:
        raise ServiceError({"code": "broken_off", "detail": "The service broke off.", "retryable": True}) from exc
    except httpx.TimeoutException as exc:
        raise ServiceError(
            {"code": "timeout", "detail": "The service did not answer in time.", "retryable": True}
        ) from exc
    except httpx.TransportError as exc:
        raise ServiceError(
            {"code": "unreachable", "detail": "The service cannot be reached.", "retryable": True}
        ) from exc


def _check(response: httpx.Response, *, readiness: bool = False) -> Any:
    """The reply's JSON, or the problem it holds. A stream is left unread."""
    if response.is_success or (readiness and response.status_code == 503):
        streamed = response.headers.get("content-type", "").startswith("text/event-stream")
        return None if streamed or response.status_code == 204 else response.json()
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if isinstance(problem, dict):
        problem = problem.get("error", problem)  # the OpenAI door wraps its errors
    if not isinstance(problem, dict):
        problem = {"detail": f"The service answered {response.status_code} {response.reason_phrase}."}
    problem = {"status": response.status_code, "request_id": response.headers.get("x-request-id")} | problem
    raise ServiceError(problem | ({"detail": problem["message"]} if "message" in problem else {}))


class _EventReader:
    """Server-sent events, line by line (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

    def __init__(self) -> None:
        self._event = ""
        self._data: list[str] = []
        self._ended = False

    def feed(self, line: str) -> Iterator[Any]:
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                self._event = value
            elif name == "data":
                self._data.append(value)
            return
        event, data = self._event or "message", "\n".join(self._data)
        self._event, self._data = "", []
        if event == "error":
            raise ServiceError(json.loads(data))
        yield from self.read(event, data)

    def read(self, event: str, data: str) -> Iterator[Any]:
        raise NotImplementedError

    def end(self) -> None:
        """Raise when the stream stopped before it was whole."""
        if not self._ended:
            raise ServiceError({"code": "broken_off", "detail": "The service broke off.", "retryable": True})


class _StreamReader(_EventReader):
    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[str] = []

    def read(self, event: str, data: str) -> Iterator[str | Answer]:
        if event != "data":
            return
        piece = json.loads(data)
        if "citations" in piece:
            self._ended = True
            yield _whole("".join(self._pieces), piece["citations"], piece)
        elif piece.get("answer"):
            self._pieces.append(piece["answer"])
            yield piece["answer"]


class _UploadReader(_EventReader):
    def read(self, event: str, data: str) -> Iterator[Progress | Ingested]:
        if event == "progress":
            yield Progress.read(json.loads(data))
        elif event == "done":
            self._ended = True
            yield Ingested.read(json.loads(data))


def _whole(text: str, citations: list[dict[str, Any]], body: Mapping[str, Any]) -> Answer:
    return Answer(
        text=text,
        citations=[Citation.read(citation) for citation in citations],
        thread_id=body["thread_id"],
        usage=body["usage"],
        metadata=body["metadata"],
    )


def _answer(body: Mapping[str, Any]) -> Answer:
    metadata = dict(body["metadata"])
    usage = metadata.pop("usage")
    rest = {"thread_id": body["conversation_id"], "usage": usage, "metadata": metadata}
    return _whole(body["response"], body["sources"], rest)


def _conversation(body: Mapping[str, Any]) -> Conversation:
    messages = [
        Message(
            role=message["role"],
            content=message["content"],
            created_at=message["created_at"],
            citations=[Citation.read(citation) for citation in message["citations"]],
            metadata=message["metadata"],
        )
        for message in body["history"]
    ]
    return Conversation(
        thread_id=body["conversation_id"],
        messages=messages,
        statistics=Statistics.read(body["statistics"]),
        summary=body["summary"],
        before=body["before"],
        first=body["before"] or 0,
    )


def _threads(body: Mapping[str, Any]) -> ThreadList:
    return ThreadList(threads=[Thread.read(thread) for thread in body["threads"]], before=body["before"])


def _found(body: Mapping[str, Any]) -> Found:
    return Found(hits=[Hit.read(hit) for hit in body["hits"]], trace=body["trace"])


def _models(body: Mapping[str, Any]) -> list[str]:
    return [model["id"] for model in body["data"] if model["id"] != "citewell"]
