"""What a run tells whoever watches it: `{"token": text}`, `{"stage": name, "ms": milliseconds}`.

The service listens directly. LangGraph's own stream carries the same events where nobody does (`langgraph dev`), but
wakes its scheduler for each of them, which at one event a token is a good part of a turn's time.
"""

from collections.abc import Callable
from contextlib import ExitStack
from contextvars import ContextVar

from langgraph.runtime import Runtime

from graph.state import RunContext

Event = dict[str, str | float]
listener: ContextVar[Callable[[Event], None] | None] = ContextVar("listener", default=None)
"""Set by the service for the task that runs the graph."""

at_end: ContextVar[ExitStack | None] = ContextVar("at_end", default=None)
"""Set by the service as well: closed when the run is over, however it ended."""


def emit(runtime: Runtime[RunContext], event: Event) -> None:
    if (listen := listener.get()) is not None:
        listen(event)
    else:
        runtime.stream_writer(event)
