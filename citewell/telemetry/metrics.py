"""The metrics, all of them: docs/operations.md lists what stands here, and a test compares it with `/metrics`.

Labels take few and fixed values: doors, outcomes, error codes, stages, rules and the models that are offered. Never a
caller, a thread or a path.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Literal

from prometheus_client import Counter, Gauge, Histogram

from citewell.errors import CitewellError, every_code
from citewell.guards.verdict import Verdict

_FAST_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SLOW_S: Final = (0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2.5, 5, 10, 20, 30, 60, 120)
_LONG_S: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

TURNS = Counter("citewell_turns", "Turns that ended, by how.", ["door", "outcome"])
"""`answered`, `no_evidence`, `blocked`, `stopped`, `left` (the client went away) or `failed`."""
ERRORS = Counter("citewell_errors", "Turns that failed, by error code.", ["code"])
RUNNING = Gauge("citewell_turns_running", "Turns in progress.", multiprocess_mode="livesum")
FIRST_TOKEN = Histogram(
    "citewell_first_token_seconds", "From the question to the first piece of the answer.", ["door"], buckets=_SLOW_S
)
TURN = Histogram("citewell_turn_seconds", "From the question to the end of the answer.", ["door"], buckets=_SLOW_S)
STAGE = Histogram("citewell_stage_seconds", "Time in each node of the graph.", ["stage"], buckets=_FAST_S)
RESPONSES = Counter("citewell_http_responses", "HTTP answers begun, WebSocket handshakes included.", ["door", "status"])

TOKENS = Counter("citewell_tokens", "Tokens chat models read and wrote, as they say.", ["model", "direction"])
COST = Counter(
    "citewell_cost_dollars", "What they cost by the price list; a model without a price: nothing.", ["model"]
)

MODEL_CALLS = Counter(
    "citewell_model_calls", "Calls to chat models, each try by itself, by how it ended.", ["model", "outcome"]
)
"""`answered`, `left` (nobody waited for it any more) or an error code; `model_circuit_open`: none was made."""
MODEL_CHANGES = Counter(
    "citewell_model_changes", "Calls answered by another model than the one asked for, by why.", ["model", "why"]
)
"""`model` is the one that answered; `why` is `simple_question`, `budget` or the error code of the one that failed."""
CIRCUIT_OPEN = Gauge(
    "citewell_model_circuit_open", "1 while a chat model is left alone, or tried again, after failures.", ["model"],
    multiprocess_mode="livemax",
)  # fmt: skip

CACHE = Counter("citewell_answer_cache", "Turns that looked into the answer cache, by what came of it.", ["result"])
"""`hit`; `joined`: waited for an equal question's answer; `miss`; `failed`: the store could not be used."""

VERDICTS = Counter("citewell_guard_verdicts", "What guards decided.", ["subject", "verdict", "rule"])
"""On a `question`, an `earlier` message, a retrieved `chunk` or an `answer`: `allowed`, `changed` or `blocked`, and by which rule."""

REVIEWS = Counter("citewell_reviews_needed", "Reasons for a person to look at an answer.", ["reason"])
"""As `citewell.citations.review` names them; one answer may have several."""

RATINGS = Counter("citewell_ratings", "Ratings given to answers.", ["rating", "reason"])
"""`up` or `down`, and why; an answer that is rated again counts again."""

INGESTED = Counter("citewell_ingested_sources", "Documents added through the service.", ["status"])
"""`new`, `changed` or `failed`."""
INGESTED_CHUNKS = Counter("citewell_ingested_chunks", "Chunks written for them.")
INGESTION = Histogram("citewell_ingestion_seconds", "Time for each of them, embedding included.", buckets=_LONG_S)
INGESTION_FAILURES = Counter("citewell_ingestion_failures", "Those that failed, by error code.", ["code"])

READY = Gauge(
    "citewell_ready", "1 while a part that turns need can be used, asked at each scrape.", ["part"],
    multiprocess_mode="livemostrecent",
)  # fmt: skip
"""`index` (the vector store included), `threads`, `model`: the checks of `/readyz`."""

INDEX_SOURCES = Gauge("citewell_index_sources", "Documents in the index.", multiprocess_mode="livemostrecent")
INDEX_CHUNKS = Gauge("citewell_index_chunks", "Chunks in the index.", multiprocess_mode="livemostrecent")
INDEX_BYTES = Gauge("citewell_index_bytes", "The index on disk.", multiprocess_mode="livemostrecent")

LOG_LOST = Counter("citewell_log_writes_lost", "Writes of the log that failed: a full disk, a reader that is gone.")

RedisPart = Literal["threads", "ratings", "limits"]
"""What keeps something in Redis, each over connections of its own."""
REDIS_CALL = Histogram("citewell_redis_call_seconds", "Round trips to Redis.", buckets=_FAST_S)
REDIS_IN_USE = Gauge(
    "citewell_redis_connections_in_use", "Connections busy with a call.", ["part"], multiprocess_mode="livesum"
)
REDIS_LIMIT = Gauge("citewell_redis_connections_limit", "Most that may be.", ["part"], multiprocess_mode="livesum")


# For Prometheus a series that first appears at 1 has not increased, so those that alerts and ratios read begin at 0.
for _code in {"internal", *every_code()}:
    ERRORS.labels(_code)
for _rating in ("up", "down"):
    RATINGS.labels(_rating, "none")
for _subject in ("question", "chunk", "answer"):
    VERDICTS.labels(_subject, "blocked", "undecided")


def judged(subject: str, verdict: Verdict, times: int = 1) -> None:
    """Count a guard's verdict; `subject` is one of those of `VERDICTS`."""
    decided = "blocked" if not verdict.allowed else "changed" if verdict.text is not None else "allowed"
    VERDICTS.labels(subject, decided, verdict.rule or "none").inc(times)


def model_used(model: str, input_tokens: int, output_tokens: int, dollars: float) -> None:
    """Count what one call to a chat model used."""
    TOKENS.labels(model, "in").inc(input_tokens)
    TOKENS.labels(model, "out").inc(output_tokens)
    COST.labels(model).inc(dollars)


def index_size(stats: Mapping[str, Any]) -> None:
    """Show how large the index is: `sources`, `chunks`, `bytes`."""
    INDEX_SOURCES.set(stats["sources"])
    INDEX_CHUNKS.set(stats["chunks"])
    INDEX_BYTES.set(stats["bytes"])


@contextmanager
def ingestion() -> Iterator[None]:
    """Time a document that is added, and count it where it fails."""
    started = time.perf_counter()
    try:
        yield
    except Exception as exc:
        INGESTED.labels("failed").inc()
        INGESTION_FAILURES.labels(exc.code if isinstance(exc, CitewellError) else "internal").inc()
        raise
    INGESTION.observe(time.perf_counter() - started)


@contextmanager
def redis_call(part: RedisPart) -> Iterator[None]:
    """Time a round trip."""
    started = time.perf_counter()
    in_use = REDIS_IN_USE.labels(part)
    in_use.inc()
    try:
        yield
    finally:
        in_use.dec()
        REDIS_CALL.observe(time.perf_counter() - started)
