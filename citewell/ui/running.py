"""A turn under way. The script must never wait long, since Streamlit handles a click only when the script calls it."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from citewell.client import Answer, AsyncClient, ServiceError

STOP_WITHIN_S = 3.0
TICK_S = 0.1
Event = str | Answer | ServiceError


class Run:
    """Streams one answer in a thread of its own, so that it can be stopped between two pieces too.

    Args:
        url: Of the service.
        options: What `AsyncClient.stream` takes.
    """

    def __init__(self, url: str, key: str | None, question: str, options: dict[str, Any]) -> None:
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._url, self._key, self._thread_id = url, key, options["thread_id"]
        self._stopping: asyncio.Task[None] | None = None
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(self._stream(question, options))
        self._thread = threading.Thread(target=self._work, daemon=True, name="answer")
        self._thread.start()

    def events(self) -> Iterator[Event | None]:
        """The pieces of the answer, then the whole or the error; None whenever nothing came for `TICK_S` seconds."""
        while True:
            try:
                event = self._events.get(timeout=TICK_S)
            except queue.Empty:
                yield None
                continue
            if event is None:
                return
            yield event

    def stop(self) -> None:
        """Stop the turn, here and in the service. Does nothing if it is over."""
        with suppress(RuntimeError):  # the loop was closed meanwhile: it is over
            self._loop.call_soon_threadsafe(self._begin_to_stop)
        self._thread.join(5)

    def _begin_to_stop(self) -> None:
        if not self._task.done():
            self._stopping = self._loop.create_task(self._stop())

    async def _stop(self) -> None:
        """Say so, that what came stays in the conversation; leaving may end the run, or not, and keeps nothing."""
        try:
            async with asyncio.timeout(STOP_WITHIN_S), AsyncClient(self._url, key=self._key) as client:
                await client.stop(self._thread_id)
        except (TimeoutError, ServiceError):  # not begun, or the service is gone
            pass
        finally:
            self._task.cancel()

    def _work(self) -> None:
        try:
            self._loop.run_until_complete(asyncio.wait([self._task]))
            if self._stopping is not None:
                self._loop.run_until_complete(self._stopping)
        finally:
            self._loop.close()
            self._events.put(None)

    async def _stream(self, question: str, options: dict[str, Any]) -> None:
        try:
            async with AsyncClient(self._url, key=self._key) as client:
                async for event in client.stream(question, **options):
                    self._events.put(event)
        except ServiceError as fault:
            self._events.put(fault)
