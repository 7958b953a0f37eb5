"""The values in the service's replies, and the error that calls raise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypedDict, TypeVar

Status = Literal["verified", "partial", "unsupported"]
Rating = Literal["up", "down"]
T = TypeVar("T", bound="Value")


class Options(TypedDict, total=False):
    """What a question may be asked with; what is left out or None is as the service is set."""

    chat_model: str | None
    """One of `Client.models`."""
    temperature: float | None
    max_tokens: int | None
    """Longest answer."""
    top_k: int | None
    """Passages that the answer is made from, at most 50."""
    filter: Mapping[str, Any] | None
    """Only documents that it fits, as `{"type": "pdf"}`."""
    thread_policy: Literal["queue", "reject", "replace"] | None
    """What becomes of the question while another one of its conversation is being answered."""
    trace: bool
    """Whether `Answer.metadata["trace"]` says why these passages."""


class ServiceError(Exception):
    """A failure, with the problem details of the service (RFC 9457).

    If the service cannot be reached or breaks off, `status` is 0 and `code` is `unreachable` or `broken_off`.
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
        super().__init__(problem)  # what it is made of again in another process

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


class Value:
    """A value that reads itself from JSON and ignores unknown keys, so that it works with a newer service."""

    @classmethod
    def read(cls: type[T], body: Mapping[str, Any]) -> T:
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]  # every subclass is a dataclass
        return cls(**{name: value for name, value in body.items() if name in known})


@dataclass(frozen=True, kw_only=True)
class Citation(Value):
    """A marker of an answer and the passage behind it. `start` and `end` are character offsets in the text of the source."""

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
    """A whole turn. `metadata["trace"]` explains it, if the call asked for a trace."""

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
    """The threads used most recently, newest first. Give `before` to `threads` for older ones."""

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
    """A quote with the text around it."""

    uri: str
    title: str
    type: str
    before: str
    quote: str
    after: str
    page: int | None
    """Page on which the quote starts; None if the format has no pages."""
    goes_on: bool
    """Whether the text goes on after `after`."""
    has_file: bool
    """Whether the service has the original file, for `file_url`."""


@dataclass(frozen=True, kw_only=True)
class Hit(Value):
    """A passage that search found; `evidence` has the scores of each stage."""

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
    """The result of a search, best first, and the trace that explains it."""

    hits: list[Hit]
    trace: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Progress(Value):
    """The progress of an upload: `stage` is `reading` or `embedding`, `done` and `total` count chunks."""

    stage: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True, kw_only=True)
class Ingested(Value):
    """The result of an upload."""

    uri: str
    status: str
    chunks: int
    reason: str = ""
    pages: int | None = None


@dataclass(frozen=True, kw_only=True)
class Feedback(Value):
    """A rating of an answer; `message` is the position of the answer in the conversation."""

    thread_id: str
    message: int
    rating: Rating
    reason: str = ""
    comment: str = ""
