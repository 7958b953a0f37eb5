"""The events of a run: `{"token": text}` and `{"stage": name, "ms": milliseconds}`.

The service listens to them directly. LangGraph's own stream carries them where nobody listens (`langgraph dev`), but it wakes its
scheduler for each event, which at one event per token is a good part of a turn's time.
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
"""Set by the service for the same task; closed when the run is over, however it ended."""

at_model: ContextVar[Callable[[], None] | None] = ContextVar("at_model", default=None)
"""Set by the service for the same task; called whenever a chat model is about to be asked."""


def emit(runtime: Runtime[RunContext], event: Event) -> None:
    """Send an event to the listener, or into LangGraph's stream where there is none."""
    if (listen := listener.get()) is not None:
        listen(event)
    else:
        runtime.stream_writer(event)
