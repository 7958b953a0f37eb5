"""Follows a turn from the question to its end: its metrics, its line in the log, its span."""

import hashlib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import structlog

from citewell.errors import CitewellError
from citewell.telemetry import arrival, metrics, tracing
from citewell.telemetry.arrival import Arrival

log = structlog.get_logger()


class TurnRecord:
    """What is known of a turn while it runs."""

    def __init__(self, door: str) -> None:
        self.door = door
        self.started = time.perf_counter()
        self.first_token_s: float | None = None
        self.metadata: Mapping[str, Any] = {}
        self.usage: Mapping[str, int] = {}
        self.outcome = "left"
        """`answered`, `no_evidence`, `blocked`, `stopped`, `left` (the client went away) or `failed`."""
        self.code: str | None = None
        """The error's, where it failed."""
        self.cause: str | None = None
        """What a dependency reported then; for operators, never shown to callers."""

    def token(self) -> None:
        if self.first_token_s is None:
            self.first_token_s = time.perf_counter() - self.started
            metrics.FIRST_TOKEN.labels(self.door).observe(self.first_token_s)

    def end(self, metadata: Mapping[str, Any], usage: Mapping[str, int]) -> None:
        self.metadata, self.usage = metadata, usage
        named = next((name for name in ("stopped", "blocked") if metadata.get(name)), None)
        self.outcome = named or ("answered" if metadata.get("supported") else "no_evidence")

    def fail(self, exc: Exception) -> None:
        self.outcome = "failed"
        self.code = exc.code if isinstance(exc, CitewellError) else "internal"
        if isinstance(exc, CitewellError) and exc.__cause__ is not None:
            first = exc.__cause__  # the first cause says most: libraries translate one another's exceptions
            while first.__cause__ is not None:
                first = first.__cause__
            self.cause = type(first).__name__
            if not isinstance(first, ValueError | TypeError | LookupError | AttributeError):
                self.cause += f": {first}"  # those quote the value at fault, which may be somebody's text

    @property
    def first_token_ms(self) -> int | None:
        return None if self.first_token_s is None else round(self.first_token_s * 1000)


@contextmanager
def turn(thread_id: str) -> Iterator[TurnRecord]:
    """Count, log and trace a turn, however it ends."""
    came = arrival.current.get()
    record = TurnRecord(came.door)
    with tracing.turn(came) as note:
        metrics.RUNNING.inc()
        try:
            yield record
        except Exception as exc:
            record.fail(exc)
            raise
        finally:
            metrics.RUNNING.dec()
            took_s = time.perf_counter() - record.started
            _count(record, took_s)
            _log(record, came, thread_id, took_s)
            note({
                "citewell.outcome": record.outcome, "citewell.thread": thread_digest(thread_id),
                "citewell.first_token_ms": record.first_token_ms,
                "citewell.retrieved": record.metadata.get("retrieved"), "citewell.kept": record.metadata.get("kept"),
            })  # fmt: skip


def thread_digest(thread_id: str) -> str:
    """Names a thread in logs and traces: whoever knows its id may be able to read the conversation."""
    return hashlib.sha256(thread_id.encode()).hexdigest()[:16]


def _count(record: TurnRecord, took_s: float) -> None:
    metrics.TURNS.labels(record.door, record.outcome).inc()
    for reason in record.metadata.get("review_reasons", ()):
        metrics.REVIEWS.labels(reason).inc()
    if record.code:
        metrics.ERRORS.labels(record.code).inc()
    if record.outcome not in ("left", "failed"):
        metrics.TURN.labels(record.door).observe(took_s)
        for stage, ms in record.metadata.get("stages_ms", {}).items():
            metrics.STAGE.labels(stage).observe(ms / 1000)


def _log(record: TurnRecord, came: Arrival, thread_id: str, took_s: float) -> None:
    log.info(
        "turn.finished", request_id=came.request_id, trace_id=tracing.trace_id(), door=record.door,
        outcome=record.outcome, code=record.code, cause=record.cause, thread=thread_digest(thread_id),
        ms=round(took_s * 1000), first_token_ms=record.first_token_ms, model=record.metadata.get("model"),
        retrieved=record.metadata.get("retrieved"), kept=record.metadata.get("kept"), **record.usage,
    )  # fmt: skip
