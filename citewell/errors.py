"""Every error Citewell raises on purpose.

CitewellError
├── ConfigurationError            the service cannot start as it is set up (exit code 2)
│   └── MissingExtra              a configured part needs an extra that is not installed
├── InvalidRequest        422     what the caller sent cannot be used
│   ├── MessageTooLong    413
│   ├── BodyTooLarge      413
│   ├── UnknownModel      422
│   └── InvalidFilter     422
├── NotAuthenticated      401
├── NotAuthorized         403
├── NotFound              404
│   ├── ThreadNotFound    404
│   ├── RunNotFound       404     never known, over for too long, or another caller's
│   └── SourceNotFound    404
├── ThreadBusy            409
├── RunReplaced           409     a newer message took this run's place
├── ResumeOff             409     runs end with the connection here, so there is nothing to come back to
├── RateLimited           429     carries retry_after_s
│   └── BudgetExceeded    429
├── ContextOverflow       413     the prompt does not fit the model
├── UpstreamError         502
│   ├── ModelError        502
│   │   ├── ModelRefused      502
│   │   ├── ModelTimeout      504  retryable
│   │   └── ModelUnavailable  503  retryable
│   │       └── CircuitOpen   503  retryable; it has failed too often to be asked just now
│   ├── StoreError        502
│   │   ├── StoreUnavailable  503  retryable
│   │   ├── StoreTimeout      504  retryable
│   │   └── IndexMismatch     500
│   ├── LimitsUnavailable 503     retryable; what callers may spend cannot be read
│   ├── IdentityUnavailable 503   retryable; who asks cannot be checked
│   └── CheckpointError   503     retryable; threads cannot be read or written
│       └── TornThread    500     part of a thread is gone (evicted or expired)
├── TurnTimeout           504     retryable; the whole turn took too long
├── Draining              503     retryable; the service is shutting down
├── RunLost               503     retryable; the process that answered died
└── IngestError
    ├── SourceUnsupported         never worth another try
    ├── SourceUnreadable          may work once the file has changed
    └── IngestBusy                another ingestion holds the index

`code` is what programs match on and part of the public interface; `detail` is written for the person
who called and never holds a foreign exception's text, a prompt, a document's text or a secret.
"""

from __future__ import annotations

from typing import ClassVar


class CitewellError(Exception):
    """Root of the tree.

    Attributes:
        code: Stable, machine-readable name of the fault.
        title: One line that is the same for every occurrence.
        status: HTTP status the fault maps to.
        retryable: Whether the same request may succeed later, unchanged.
        detail: What went wrong this time and what to do about it.
        retry_after_s: When the same request may succeed, in seconds; None where that is not known.
    """

    code: ClassVar[str] = "error"
    title: ClassVar[str] = "Something went wrong"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    retry_after_s: float | None = None

    def __init__(self, detail: str = "", *, retry_after_s: float | None = None) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s


class ConfigurationError(CitewellError):
    code = "configuration"
    title = "The service is not set up correctly"


class MissingExtra(ConfigurationError):
    """A configured part needs packages that are not installed."""

    code = "missing_extra"
    title = "An optional dependency is not installed"

    def __init__(self, extra: str, needed_for: str) -> None:
        super().__init__(f"{needed_for} needs the extra '{extra}': pip install 'citewell[{extra}]'")
        self.extra = extra


class InvalidRequest(CitewellError):
    code = "invalid_request"
    title = "The request cannot be used"
    status = 422


class MessageTooLong(InvalidRequest):
    code = "message_too_long"
    title = "The message is too long"
    status = 413

    def __init__(self, length: int, limit: int) -> None:
        super().__init__(f"The question has {length:,} characters; at most {limit:,} are accepted.")
        self.length = length
        self.limit = limit


class BodyTooLarge(InvalidRequest):
    code = "body_too_large"
    title = "The request body is too large"
    status = 413


class UnknownModel(InvalidRequest):
    code = "unknown_model"
    title = "No such model"


class InvalidFilter(InvalidRequest):
    code = "invalid_filter"
    title = "The metadata filter cannot be used"


class NotAuthenticated(CitewellError):
    code = "not_authenticated"
    title = "Credentials are missing or not valid"
    status = 401


class NotAuthorized(CitewellError):
    code = "not_authorized"
    title = "Not allowed"
    status = 403


class NotFound(CitewellError):
    code = "not_found"
    title = "Not found"
    status = 404


class ThreadNotFound(NotFound):
    code = "thread_not_found"
    title = "No such conversation"


class RunNotFound(NotFound):
    code = "run_not_found"
    title = "No such answer to go on with"


class SourceNotFound(NotFound):
    code = "source_not_found"
    title = "No such source"


class ThreadBusy(CitewellError):
    code = "thread_busy"
    title = "Another message of this conversation is being answered"
    status = 409
    retryable = True


class RunReplaced(CitewellError):
    code = "run_replaced"
    title = "A newer message took this one's place, or its conversation was deleted"
    status = 409


class ResumeOff(CitewellError):
    code = "resume_off"
    title = "Answers cannot be resumed here"
    status = 409


class RateLimited(CitewellError):
    """Too much in too short a time."""

    code = "rate_limited"
    title = "Too many requests"
    status = 429
    retryable = True
    retry_after_s = 1.0


class BudgetExceeded(RateLimited):
    code = "budget_exceeded"
    title = "The budget for today is used up"


class ContextOverflow(CitewellError):
    code = "context_overflow"
    title = "The prompt does not fit the model's context window"
    status = 413


class UpstreamError(CitewellError):
    code = "upstream"
    title = "A service this one depends on failed"
    status = 502


class ModelError(UpstreamError):
    code = "model_error"
    title = "The chat model failed"


class ModelRefused(ModelError):
    code = "model_refused"
    title = "The chat model refused the request"


class ModelTimeout(ModelError):
    code = "model_timeout"
    title = "The chat model did not answer in time"
    status = 504
    retryable = True


class ModelUnavailable(ModelError):
    code = "model_unavailable"
    title = "The chat model cannot be reached"
    status = 503
    retryable = True


class CircuitOpen(ModelUnavailable):
    code = "model_circuit_open"
    title = "The chat model has failed repeatedly and is left alone for a while"
    retry_after_s = 1.0


class StoreError(UpstreamError):
    code = "store_error"
    title = "The vector store failed"


class StoreUnavailable(StoreError):
    code = "store_unavailable"
    title = "The vector store cannot be reached"
    status = 503
    retryable = True


class StoreTimeout(StoreError):
    code = "store_timeout"
    title = "The vector store did not answer in time"
    status = 504
    retryable = True


class IndexMismatch(StoreError):
    code = "index_mismatch"
    title = "The index was built with other settings"
    status = 500


class LimitsUnavailable(UpstreamError):
    code = "limits_unavailable"
    title = "Limits cannot be checked right now"
    status = 503
    retryable = True


class IdentityUnavailable(UpstreamError):
    code = "identity_unavailable"
    title = "Keys and tokens cannot be checked right now"
    status = 503
    retryable = True


class CheckpointError(UpstreamError):
    code = "checkpoint_error"
    title = "Conversations cannot be read or written right now"
    status = 503
    retryable = True


class TornThread(CheckpointError):
    code = "torn_thread"
    title = "Part of this conversation is gone"
    status = 500
    retryable = False


class TurnTimeout(CitewellError):
    code = "turn_timeout"
    title = "The answer took too long"
    status = 504
    retryable = True


class Draining(CitewellError):
    code = "draining"
    title = "The service is shutting down"
    status = 503
    retryable = True
    retry_after_s = 1.0  # another process answers, or soon will


class RunLost(CitewellError):
    code = "run_lost"
    title = "The answer broke off"
    status = 503
    retryable = True


class IngestError(CitewellError):
    code = "ingest_error"
    title = "The source could not be ingested"
    same_for: tuple[int, int] | None = None
    """Size in bytes and mtime in ns of the file where it would fail so again; None where another try may do."""


class SourceUnsupported(IngestError):
    code = "source_unsupported"
    title = "This kind of source is not supported"
    status = 415


class SourceUnreadable(IngestError):
    code = "source_unreadable"
    title = "The source could not be read"
    status = 422


class IngestBusy(IngestError):
    code = "ingest_busy"
    title = "Another ingestion is running"
    status = 409
    retryable = True


def every_kind() -> list[type[CitewellError]]:
    """The whole tree, each before its kinds; of those that share a code the first."""
    kinds: dict[str, type[CitewellError]] = {}
    waiting = [CitewellError]
    while waiting:
        kind = waiting.pop()
        kinds.setdefault(kind.code, kind)
        waiting += reversed(kind.__subclasses__())
    return list(kinds.values())


def every_code() -> set[str]:
    """The codes of the whole tree."""
    return {kind.code for kind in every_kind()}
