"""What the service's replies hold, and what it says when something went wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar

Status = Literal["verified", "partial", "unsupported"]
Rating = Literal["up", "down"]
T = TypeVar("T", bound="Value")


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


class Value:
    """Reads itself from JSON; keys it does not know are left out, so that a newer service does no harm."""

    @classmethod
    def read(cls: type[T], body: Mapping[str, Any]) -> T:
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]  # every subclass is a dataclass
        return cls(**{name: value for name, value in body.items() if name in known})


@dataclass(frozen=True, kw_only=True)
class Citation(Value):
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
    also_in: list[str] = field(default_factory=list)
    """Other documents that hold the same passage."""


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
class Statistics(Value):
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
class Thread(Value):
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
class Source(Value):
    uri: str
    title: str
    type: str
    size_bytes: int
    date: str | None = None
    tags: list[str] = field(default_factory=list)
    pages: int | None = None


@dataclass(frozen=True, kw_only=True)
class Passage(Value):
    """A quote in its surroundings."""

    uri: str
    title: str
    type: str
    before: str
    quote: str
    after: str
    page: int | None
    """Page on which the quote starts, where the format has pages."""
    goes_on: bool
    """Whether the text goes on after it."""
    has_file: bool
    """Whether `file_url` leads to the original file."""


@dataclass(frozen=True, kw_only=True)
class Hit(Value):
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
    also_in: list[str] = field(default_factory=list)
    """Other documents that hold the same passage."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What search found, best first, and how it came about."""

    hits: list[Hit]
    trace: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Progress(Value):
    """How far an upload is: `stage` is `reading` or `embedding`, `done` of `total` in chunks."""

    stage: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True, kw_only=True)
class Ingested(Value):
    """What became of an uploaded document."""

    uri: str
    status: str
    chunks: int
    reason: str = ""
    pages: int | None = None


@dataclass(frozen=True, kw_only=True)
class Feedback(Value):
    """What somebody thought of an answer; `message` is its position in the conversation."""

    thread_id: str
    message: int
    rating: Rating
    reason: str = ""
    comment: str = ""
