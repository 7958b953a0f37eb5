"""Requests and replies of the HTTP interface, without the HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote

import httpx

from .values import (
    Answer,
    Citation,
    Conversation,
    Feedback,
    Found,
    Hit,
    Ingested,
    Message,
    Progress,
    ServiceError,
    Source,
    Statistics,
    Thread,
    ThreadList,
)  # fmt: skip

T = TypeVar("T")

# --- what calls send ------------------------------------------------------------------------------

RESUMABLE = ("broken_off", "unreachable", "timeout", "draining")
"""Errors of a connection or of one process, after which the stream may go on at another."""
TRIES = 8
"""Attempts to resume a stream while the service sends nothing: about ten seconds."""
EVENTS = {"accept": "text/event-stream", "content-type": "application/octet-stream"}


def given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def chosen(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value not in (None, "", {})}


def chat(question: str, thread_id: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    return {"message": question, "conversation_id": thread_id, "include_sources": True} | chosen(options)


def path(thread_id: str) -> str:
    return quote(thread_id, safe="", errors="surrogatepass")  # no id of the service's, which says so


def thread(thread_id: str) -> str:
    return f"/conversation/{path(thread_id)}"


# --- what replies mean ----------------------------------------------------------------------------


class Foreign(Exception):
    """What came is no reply of the service's."""


@contextmanager
def faults(url: str) -> Iterator[None]:
    """Raise errors of the connection to `url`, and of what answers there, as ServiceError."""
    try:
        yield
    except Foreign as exc:
        raise ServiceError({"code": "unreachable", "detail": f"What answers at {url} is no Citewell service."}) from exc
    except UnicodeEncodeError as exc:
        detail = "What is to be sent holds half of a surrogate pair, which is not a character."
        raise ServiceError({"code": "invalid_request", "detail": detail}) from exc
    except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError, httpx.DecodingError) as exc:
        raise ServiceError({"code": "broken_off", "detail": "The service broke off.", "retryable": True}) from exc
    except httpx.TimeoutException as exc:
        raise ServiceError(
            {"code": "timeout", "detail": "The service did not answer in time.", "retryable": True}
        ) from exc
    except (httpx.UnsupportedProtocol, httpx.InvalidURL) as exc:
        detail = f"{url!r} is no address of a service: it must be like http://127.0.0.1:8000."
        raise ServiceError({"code": "unreachable", "detail": detail}) from exc
    except httpx.TransportError as exc:
        raise ServiceError(
            {"code": "unreachable", "detail": f"The service at {url} cannot be reached.", "retryable": True}
        ) from exc


def is_stream(response: httpx.Response) -> bool:
    """Whether the reply is a stream of events, which are read one by one."""
    return "text/event-stream" in response.headers.get("content-type", "")


def begin(response: httpx.Response) -> None:
    """Let a stream begin; raises the problem that stands in its place."""
    if response.status_code != 204 and not (response.is_success and is_stream(response)):  # 204: nothing is left of it
        _refuse(response)


def value(response: httpx.Response, read: Callable[[Any], T], *, readiness: bool = False) -> T:
    """What `read` makes of the JSON of the reply, None where it has none; raises the problem that the reply reports."""
    if not (response.is_success or (readiness and response.status_code == 503)):
        _refuse(response)
    with _ours():
        return read(None if response.status_code == 204 else response.json())


def _refuse(response: httpx.Response) -> NoReturn:
    if response.is_success:
        raise Foreign
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


@contextmanager
def _ours() -> Iterator[None]:
    """Raise what fails in reading a reply as Foreign."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise Foreign from exc


class EventReader:
    """Server-sent events, line by line (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

    def __init__(self) -> None:
        self._event = ""
        self._data: list[str] = []
        self._id = ""
        self.last_id = ""
        """The id of the last whole event."""
        self._ended = False

    def feed(self, line: str) -> Iterator[Any]:
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                self._event = value
            elif name == "data":
                self._data.append(value)
            elif name == "id":
                self._id = value
            return
        event, data = self._event or "message", "\n".join(self._data)
        self._event, self._data = "", []
        if not data:  # a comment, which keeps the connection open
            return
        self.last_id = self._id
        with _ours():
            body = json.loads(data)
            if event == "error":
                raise ServiceError(body)
            yield from self.read(event, body)

    def read(self, event: str, body: Any) -> Iterator[Any]:
        raise NotImplementedError

    def end(self) -> None:
        """Raise if the stream stopped before its end."""
        if not self._ended:
            raise ServiceError({"code": "broken_off", "detail": "The service broke off.", "retryable": True})


class StreamReader(EventReader):
    """The events of an answer, over as many connections as needed."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[str] = []
        self._tries = 0

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the next request, which after the first say where to resume."""
        return {"accept": "text/event-stream"} | ({"last-event-id": self.last_id} if self.last_id else {})

    def read(self, event: str, frame: Any) -> Iterator[str | Answer]:
        self._tries = 0
        if event == "done":
            self._ended = True
            yield answer({"response": "".join(self._pieces)} | frame)
        elif frame["token"]:
            self._pieces.append(frame["token"])
            yield frame["token"]

    def retry_s(self, fault: ServiceError) -> float:
        """The wait before the stream is resumed, in seconds.

        Raises:
            ServiceError: The fault, where that is no use: the service keeps no stream, or it was tried often enough.
        """
        if not self.last_id or fault.code not in RESUMABLE or self._tries >= TRIES:
            raise fault
        self._event, self._data = "", []
        self._tries += 1
        return float(min(0.1 * 2**self._tries, 2.0))


class UploadReader(EventReader):
    def read(self, event: str, body: Any) -> Iterator[Progress | Ingested]:
        if event == "progress":
            yield Progress.read(body)
        elif event == "done":
            self._ended = True
            yield Ingested.read(body)


def whole(text: str, citations: list[dict[str, Any]], body: Mapping[str, Any]) -> Answer:
    return Answer(
        text=text,
        citations=[Citation.read(citation) for citation in citations],
        thread_id=body["thread_id"],
        usage=body["usage"],
        metadata=body["metadata"],
    )


def answer(body: Mapping[str, Any]) -> Answer:
    metadata = dict(body["metadata"])
    usage = metadata.pop("usage")
    rest = {"thread_id": body["conversation_id"], "usage": usage, "metadata": metadata}
    return whole(body["response"], body["sources"], rest)


def conversation(body: Mapping[str, Any]) -> Conversation:
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


def threads(body: Mapping[str, Any]) -> ThreadList:
    return ThreadList(threads=[Thread.read(thread) for thread in body["threads"]], before=body["before"])


def found(body: Mapping[str, Any]) -> Found:
    return Found(hits=[Hit.read(hit) for hit in body["hits"]], trace=body["trace"])


def sources(body: Mapping[str, Any]) -> list[Source]:
    return [Source.read(source) for source in body["sources"]]


def ratings(body: Mapping[str, Any]) -> list[Feedback]:
    return [Feedback.read(row) for row in body["feedback"]]


def stopped(body: Mapping[str, Any]) -> bool:
    return bool(body["stopped"])


def nothing(body: Any) -> None:
    if body is not None:
        raise Foreign


def status(body: dict[str, Any]) -> dict[str, Any]:
    return body | {"checks": body["checks"]}


def models(body: Mapping[str, Any]) -> list[str]:
    return [model["id"] for model in body["data"] if model["id"] != "citewell"]
