"""Logs and metrics: one line and one set of figures per turn. No text of a user, document or model in either."""

import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import structlog
from prometheus_client import Counter, Gauge, Histogram

from citewell.errors import CitewellError
from citewell.guards.logs import RedactText
from citewell.settings import Settings

TURNS = Counter("citewell_turns", "Turns that ended, by how.", ["outcome"])
"""`answered`, `no_evidence`, `blocked`, `left` (the client went away) or `failed`."""
ERRORS = Counter("citewell_errors", "Turns that failed, by error code.", ["code"])
RUNNING = Gauge("citewell_turns_running", "Turns in progress.", multiprocess_mode="livesum")
FIRST_TOKEN = Histogram("citewell_first_token_seconds", "From the question to the first piece of the answer.")
TURN = Histogram("citewell_turn_seconds", "From the question to the end of the answer.")
STAGE = Histogram(
    "citewell_stage_seconds", "Time in each node of the graph.", ["stage"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)  # fmt: skip
TOKENS = Counter("citewell_tokens", "Tokens the chat model read and wrote.", ["direction"])

log = structlog.get_logger()


class TurnRecord:
    """Follows one turn from the question to its end."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.first_token_s: float | None = None
        self.metadata: Mapping[str, Any] = {}
        self.usage: Mapping[str, int] = {}
        self.ended = False

    def token(self) -> None:
        if self.first_token_s is None:
            self.first_token_s = time.perf_counter() - self.started
            FIRST_TOKEN.observe(self.first_token_s)

    def end(self, metadata: Mapping[str, Any], usage: Mapping[str, int]) -> None:
        self.metadata, self.usage, self.ended = metadata, usage, True


@contextmanager
def turn(thread_id: str) -> Iterator[TurnRecord]:
    """Count and log a turn, however it ends."""
    record = TurnRecord()
    RUNNING.inc()
    outcome, code, cause = "left", None, None
    try:
        yield record
    except CitewellError as exc:
        outcome, code = "failed", exc.code
        if exc.__cause__ is not None:  # what a dependency said, for the operator; callers never see it
            cause = f"{type(exc.__cause__).__name__}: {exc.__cause__}"
        raise
    except Exception:
        outcome, code = "failed", "internal"
        raise
    finally:
        RUNNING.dec()
        took = time.perf_counter() - record.started
        if record.ended:
            blocked, supported = record.metadata.get("blocked"), record.metadata.get("supported")
            outcome = "blocked" if blocked else "answered" if supported else "no_evidence"
            TURN.observe(took)
            for stage, ms in record.metadata.get("stages_ms", {}).items():
                STAGE.labels(stage).observe(ms / 1000)
            TOKENS.labels("in").inc(record.usage.get("input_tokens", 0))
            TOKENS.labels("out").inc(record.usage.get("output_tokens", 0))
        TURNS.labels(outcome).inc()
        if code:
            ERRORS.labels(code).inc()
        log.info(
            "turn.finished", outcome=outcome, code=code, cause=cause, thread_id=thread_id, ms=round(took * 1000),
            first_token_ms=None if record.first_token_s is None else round(record.first_token_s * 1000),
            model=record.metadata.get("model"), retrieved=record.metadata.get("retrieved"),
            kept=record.metadata.get("kept"), **record.usage,
        )  # fmt: skip


def configure_logging(settings: Settings) -> None:
    """One JSON object per line on standard output; coloured text when a person is watching.

    Libraries' own log records take the same way out.
    """
    level = getattr(logging, settings.log_level)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if sys.stdout.isatty() else structlog.processors.JSONRenderer()
    )
    last: list[structlog.typing.Processor] = [structlog.processors.format_exc_info, RedactText(), render]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(level)
