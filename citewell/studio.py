"""The graph for `langgraph dev`: the same nodes and parts, but no checkpointer, since the development server has its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from langgraph.graph.state import CompiledStateGraph

from citewell.settings import Settings
from citewell.wiring import open_parts
from graph.build import build_graph


class _Parts:
    """Opened at the first use and kept, since the development server asks for the graph at every request."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._graph: CompiledStateGraph[Any, Any, Any, Any] | None = None

    async def graph(self) -> CompiledStateGraph[Any, Any, Any, Any]:
        async with self._lock:
            if self._graph is None:
                settings = await asyncio.to_thread(Settings.load)
                opening = open_parts(settings)
                parts = await opening.__aenter__()
                self._opening = opening  # never closed: the parts live as long as the process
                self._graph = build_graph(parts).compile(name="citewell")
            return self._graph


_parts = _Parts()


@asynccontextmanager
async def graph() -> AsyncIterator[CompiledStateGraph[Any, Any, Any, Any]]:
    """The entry in langgraph.json."""
    yield await _parts.graph()
