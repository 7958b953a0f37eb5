"""One turn, followed from the question to its end: its figures, its line in the log, its span."""

import hashlib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import structlog

from citewell.errors import CitewellError
from citewell.telemetry import arrival, metrics

log = structlog.get_logger()


class TurnRecord:
    """What is known of a turn while it runs."""

    def __init__(self, door: str) -> None:
        self.door = door
        self.started = time.perf_counter()
        self.first_token_s: float | None = None
        self.metadata: Mapping[str, Any] = {}
        self.usage: Mapping[str, int] = {}
        self.ended = False

    def token(self) -> None:
        if self.first_token_s is None:
            self.first_token_s = time.perf_counter() - self.started
            metrics.FIRST_TOKEN.labels(self.door).observe(self.first_token_s)

    def end(self, metadata: Mapping[str, Any], usage: Mapping[str, int]) -> None:
        self.metadata, self.usage, self.ended = metadata, usage, True

    def outcome(self) -> str:
        if not self.ended:
            return "left"
        blocked, supported = self.metadata.get("blocked"), self.metadata.get("supported")
        return "blocked" if blocked else "answered" if supported else "no_evidence"


@contextmanager
def turn(thread_id: str) -> Iterator[TurnRecord]:
    """Count and log a turn, however it ends."""
    came = arrival.current.get()
    record = TurnRecord(came.door)
    metrics.RUNNING.inc()
    failed, code, cause = False, None, None
    try:
        yield record
    except CitewellError as exc:
        failed, code = True, exc.code
        if exc.__cause__ is not None:  # what a dependency said, for the operator; callers never see it
            cause = f"{type(exc.__cause__).__name__}: {exc.__cause__}"
        raise
    except Exception:
        failed, code = True, "internal"
        raise
    finally:
        metrics.RUNNING.dec()
        outcome = "failed" if failed else record.outcome()
        took_s = time.perf_counter() - record.started
        _count(record, outcome, code, took_s)
        log.info(
            "turn.finished", request_id=came.request_id, door=record.door, outcome=outcome, code=code, cause=cause,
            thread=thread_digest(thread_id), ms=round(took_s * 1000),
            first_token_ms=None if record.first_token_s is None else round(record.first_token_s * 1000),
            model=record.metadata.get("model"), retrieved=record.metadata.get("retrieved"),
            kept=record.metadata.get("kept"), **record.usage,
        )  # fmt: skip


def thread_digest(thread_id: str) -> str:
    """Stands for a thread in logs and traces: who knows an id may be able to read the conversation."""
    return hashlib.sha256(thread_id.encode()).hexdigest()[:16]


def _count(record: TurnRecord, outcome: str, code: str | None, took_s: float) -> None:
    metrics.TURNS.labels(record.door, outcome).inc()
    if code:
        metrics.ERRORS.labels(code).inc()
    if record.ended:
        metrics.TURN.labels(record.door).observe(took_s)
        for stage, ms in record.metadata.get("stages_ms", {}).items():
            metrics.STAGE.labels(stage).observe(ms / 1000)
