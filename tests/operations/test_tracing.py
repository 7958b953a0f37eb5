"""OpenTelemetry traces, against a receiver that reads OTLP."""

import gzip
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from citewell.errors import MissingExtra
from citewell.settings import Settings
from citewell.telemetry import tracing
from tests.models.paced_server import Paced
from tests.operations.recorder import Recorder
from tests.service import STOP_WITHIN_S, Live, problem

QUESTION = "How high is the tower of the lighthouse?"
LANGSMITH = {"LANGSMITH_API_KEY": "k", "LANGSMITH_PROJECT": "citewell"}
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def collector() -> Iterator[Recorder]:
    with Recorder().running() as recorder:
        yield recorder


@pytest.fixture
def upstream(paced: Paced) -> Iterator[Recorder]:
    with Recorder(f"{paced.url}/pace/0").running() as recorder:
        yield recorder


def stopped(live: Live) -> None:
    """Let the service end, which sends what is left."""
    live.process.terminate()
    live.process.wait(STOP_WITHIN_S)


def exported(collector: Recorder) -> tuple[dict[str, Any], list[Span]]:
    """The resource's attributes, and every span."""
    resource: dict[str, Any] = {}
    spans: list[Span] = []
    for path, headers, body in collector.requests:
        assert path == "/v1/traces"
        data = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
        for group in ExportTraceServiceRequest.FromString(data).resource_spans:
            resource |= {each.key: each.value.string_value for each in group.resource.attributes}
            spans += [span for scope in group.scope_spans for span in scope.spans]
    return resource, spans


def attributes(span: Span) -> dict[str, Any]:
    return {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in span.attributes}


def test_a_turn_is_followed_from_its_door_to_the_model(
    start: Callable[..., Live], collector: Recorder, upstream: Recorder
) -> None:
    live = start(
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_SERVICE_NAME="library", CITEWELL_CHAT_MODEL="openai:paced",
        OPENAI_BASE_URL=upstream.url, CITEWELL_TEMPERATURE="0.25",
        CITEWELL_MODEL_RETRIES="0",
    )  # fmt: skip
    for question in (QUESTION, "And when was it first lit?"):
        body = {"message": question, "conversation_id": "ada-9"}
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "r-1"}
        httpx.post(f"{live.url}/chat", json=body, headers=headers, timeout=60).raise_for_status()
    upstream.is_broken = True
    failed = httpx.post(f"{live.url}/rag/invoke", json={"input": {"question": QUESTION}}, timeout=60)
    problem(failed, "model_unavailable", 503)
    stopped(live)
    resource, every = exported(collector)
    spans = [span for span in every if span.trace_id.hex() == TRACE]
    assert resource["service.name"] == "library"
    assert resource["telemetry.sdk.language"] == "python"

    first, second = sorted((span for span in spans if span.name == "turn rest"), key=lambda span: span.start_time_unix_nano)  # fmt: skip
    for turn in (first, second):
        assert turn.kind == Span.SPAN_KIND_SERVER
        assert turn.parent_span_id.hex() == PARENT
        known = attributes(turn)
        assert (known["citewell.door"], known["citewell.request_id"]) == ("rest", "r-1")
    assert attributes(first)["citewell.outcome"] == "answered"
    below = {turn.span_id: [span for span in spans if span.parent_span_id == turn.span_id] for turn in (first, second)}
    stages = {"screen", "retrieve", "rerank", "generate", "verify"}
    assert {span.name for span in below[first.span_id]} == stages
    assert {span.name for span in below[second.span_id]} == stages | {"condense"}
    for turn in (first, second):
        for stage in below[turn.span_id]:
            assert turn.start_time_unix_nano <= stage.start_time_unix_nano
            assert stage.end_time_unix_nano <= turn.end_time_unix_nano

    calls = [span for span in spans if span.name == "chat paced"]
    asked = [span.name for call in calls for span in spans if span.span_id == call.parent_span_id]
    assert sorted(asked) == ["condense", "generate"]  # the paced model's idea of the second question has no answer
    for call in calls:
        assert call.kind == Span.SPAN_KIND_CLIENT
        assert attributes(call).items() >= {
            "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "paced",
            "gen_ai.request.temperature": 0.25, "gen_ai.request.max_tokens": 500,
            "gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 60,
        }.items()  # fmt: skip
    sent = {headers["traceparent"] for _, headers, _ in upstream.requests if TRACE in headers["traceparent"]}
    assert sent == {f"00-{TRACE}-{call.span_id.hex()}-01" for call in calls}
    assert len(spans) == 2 + 5 + 6 + 2

    broken = {span.name: span for span in every if span.status.code == Status.STATUS_CODE_ERROR}
    assert broken.keys() == {"turn langserve", "generate", "chat paced"}
    for span in broken.values():
        assert attributes(span)["error.type"] == "model_unavailable"
        assert not span.events
        assert not span.status.message
    assert not broken["turn langserve"].parent_span_id, "who came without a trace begins one"

    told = b"".join(span.SerializeToString() for span in every).lower()
    assert not [word for word in (b"broken", b"lighthouse", b"tower", b"ada-9", b"lit?", b"metres") if word in told]
    turns = [json.loads(line) for line in live.log.read_text().splitlines() if '"turn.finished"' in line]
    assert [line["trace_id"] for line in turns[:2]] == [TRACE, TRACE]
    assert turns[2]["trace_id"] == broken["turn langserve"].trace_id.hex()


def test_nothing_leaves_unless_it_is_asked_for(
    start: Callable[..., Live], upstream: Recorder, collector: Recorder
) -> None:
    live = start(
        CITEWELL_CHAT_MODEL="openai:paced", OPENAI_BASE_URL=upstream.url, **LANGSMITH, LANGSMITH_ENDPOINT=collector.url
    )
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    httpx.post(f"{live.url}/chat", json={"message": QUESTION}, headers=headers, timeout=60).raise_for_status()
    stopped(live)
    [(_, sent, _)] = upstream.requests
    assert "traceparent" not in sent
    assert not collector.requests


def test_langsmith_gets_runs_where_its_own_variable_says_so_and_a_collector_that_is_down_costs_no_answer(
    start: Callable[..., Live], collector: Recorder
) -> None:
    live = start(
        **LANGSMITH, LANGSMITH_ENDPOINT=collector.url, LANGSMITH_TRACING="true",
        CITEWELL_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_EXPORTER_OTLP_TIMEOUT="2",
        OTEL_EXPORTER_OTLP_HEADERS="a=b, Authorization: Bearer its-own-key",
    )  # fmt: skip
    httpx.post(f"{live.url}/rag/invoke", json={"input": {"question": QUESTION}}, timeout=60).raise_for_status()
    began = time.monotonic()
    stopped(live)
    assert time.monotonic() - began < 15
    assert [path for path, _, _ in collector.requests if "runs" in path]
    assert "its-own-key" not in live.log.read_text()


def test_what_is_off_costs_nothing() -> None:
    assert (
        tracing.stage("retrieve") is tracing.stage("verify") is tracing.model_call("a:b", temperature=0, max_tokens=1)
    )
    assert tracing.trace_id() is None


async def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(MissingExtra, match=r"citewell\[otel\]"):
        async with tracing.open_tracing(Settings(otlp_endpoint="http://127.0.0.1:4318")):
            pass
