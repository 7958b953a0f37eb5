"""OpenTelemetry traces, off unless an OTLP endpoint is set: a span for each turn, stage and call to a chat model.

Spans hold names, figures and codes, but no text of users, documents or models and no exception's message. The tracer provider is our own,
not the process's global one, so that libraries with tracing of their own do not add spans.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final

from citewell import __version__
from citewell.errors import CitewellError, MissingExtra
from citewell.settings import Settings
from citewell.telemetry.arrival import Arrival

if TYPE_CHECKING:
    import httpx
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import SpanKind, Tracer

Note = Callable[[Mapping[str, Any]], None]
"""Adds attributes to a span; those with the value None are left out."""


def _ignore(_: Mapping[str, Any]) -> None:
    pass


_OFF: Final = nullcontext(_ignore)
_tracer: Tracer | None = None


@asynccontextmanager
async def open_tracing(settings: Settings) -> AsyncIterator[None]:
    """Send spans to `settings.otlp_endpoint` until the end of the block; without an endpoint, do nothing.

    OpenTelemetry's own variables (OTEL_SERVICE_NAME, OTEL_EXPORTER_OTLP_HEADERS, OTEL_TRACES_SAMPLER ...) apply.

    Raises:
        MissingExtra: An endpoint is set and the extra `otel` is not installed.
    """
    global _tracer  # instead of a parameter of every node and every model call
    if settings.otlp_endpoint is None:
        yield
        return
    provider = _provider(settings.otlp_endpoint)
    _tracer = provider.get_tracer("citewell", __version__)
    try:
        yield
    finally:
        _tracer = None
        await asyncio.to_thread(provider.shutdown)


def _provider(endpoint: str) -> TracerProvider:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as exc:
        raise MissingExtra("otel", "Sending traces to an OTLP endpoint") from exc
    named = Resource.create({"service.name": "citewell", "service.version": __version__})
    # merged again, so that OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES take precedence over the name above
    provider = TracerProvider(resource=named.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")))
    return provider


def turn(came: Arrival) -> AbstractContextManager[Note]:
    """The span of a turn, below the caller's own where it sent a `traceparent`."""
    if _tracer is None:
        return _OFF
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    above = TraceContextTextMapPropagator().extract(came.trace, Context())
    known = {"citewell.door": came.door, "citewell.request_id": came.request_id}
    return _span(_tracer, f"turn {came.door}", SpanKind.SERVER, known, above)


def stage(name: str) -> AbstractContextManager[Note]:
    """The span of one node of the graph."""
    if _tracer is None:
        return _OFF
    from opentelemetry.trace import SpanKind

    return _span(_tracer, name, SpanKind.INTERNAL, {})


def model_call(name: str, *, temperature: float, max_tokens: int) -> AbstractContextManager[Note]:
    """The span of one call to a chat model, by the semantic conventions for generative AI.

    Args:
        name: `provider:model`.
        temperature: As asked for.
        max_tokens: Longest answer, in tokens.
    """
    if _tracer is None:
        return _OFF
    from opentelemetry.trace import SpanKind

    provider, _, model = name.partition(":")
    asked = {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": provider, "gen_ai.request.model": model,
        "gen_ai.request.temperature": temperature, "gen_ai.request.max_tokens": max_tokens,
    }  # fmt: skip
    return _span(_tracer, f"chat {model}", SpanKind.CLIENT, asked)


async def pass_on(request: httpx.Request) -> None:
    """Give a request the `traceparent` of the span it is made in; for httpx's event hooks."""
    if _tracer is not None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        TraceContextTextMapPropagator().inject(request.headers)


def trace_id() -> str | None:
    """The current span's trace id, as 32 hexadecimal digits; None if tracing is off."""
    if _tracer is None:
        return None
    from opentelemetry.trace import format_trace_id, get_current_span

    return format_trace_id(get_current_span().get_span_context().trace_id)


@contextmanager
def _span(
    tracer: Tracer, name: str, kind: SpanKind, known: Mapping[str, Any], above: Context | None = None
) -> Iterator[Note]:
    from opentelemetry.trace import StatusCode

    with tracer.start_as_current_span(
        name, above, kind, known, record_exception=False, set_status_on_exception=False
    ) as span:

        def note(more: Mapping[str, Any]) -> None:
            span.set_attributes({key: value for key, value in more.items() if value is not None})

        try:
            yield note
        except Exception as exc:
            code = exc.code if isinstance(exc, CitewellError) else type(exc).__name__
            span.set_attribute("error.type", code)
            span.set_status(StatusCode.ERROR)
            raise
