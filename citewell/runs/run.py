"""A turn under way: a task of its own and the answer so far, which any number of listeners can follow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from dataclasses import dataclass
from typing import Any

import structlog

from citewell.citations import Citation
from citewell.errors import CitewellError, InvalidRequest, RunLost

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a turn ended."""

    answer: str
    citations: list[Citation]
    thread_id: str
    usage: dict[str, int]
    metadata: dict[str, Any]


class Run:
    """A turn that is answered whether or not anybody listens.

    Its events are numbered from 1: the pieces of the answer, then the result.

    Args:
        run_id: Unique over all workers.
        thread_id: The conversation it belongs to.
        caller: The caller it belongs to.
        is_kept: Whether it goes on when its listener leaves.
    """

    def __init__(self, run_id: str, thread_id: str, caller: str, *, is_kept: bool) -> None:
        self.run_id = run_id
        self.thread_id = thread_id
        self.caller = caller
        self.is_kept = is_kept
        self.said: list[str] = []
        self.task: asyncio.Task[Result]
        self._listeners: set[asyncio.Event] = set()
        self._cause: CitewellError | None = None

    def start(self, work: Coroutine[Any, Any, Result]) -> None:
        self.task = asyncio.create_task(work)
        self.task.add_done_callback(lambda _: self._over())

    def say(self, piece: str) -> None:
        """Add a piece of the answer."""
        self.said.append(piece)
        self._tell()

    async def follow(self, after: int = 0) -> AsyncGenerator[str | Result, None]:
        """The events after number `after`: the past ones, then the rest as they come.

        Raises:
            CitewellError: What stopped the turn.
        """
        news = asyncio.Event()
        self._listeners.add(news)
        try:
            while True:
                while after < len(self.said):
                    after += 1
                    yield self.said[after - 1]
                if self.task.done():
                    break
                news.clear()
                await news.wait()
        finally:
            self._listeners.discard(news)
        if (fault := self.fault) is not None:
            raise fault
        check_number(after, len(self.said) + 1)
        if after == len(self.said):
            yield self.task.result()

    @property
    def fault(self) -> BaseException | None:
        """Why it ended without a result; only after its end."""
        if self.task.cancelled():
            return self._cause or RunLost()
        return self.task.exception()

    async def end(self, cause: CitewellError | None = None) -> None:
        """Cancel it and wait until it has released everything; listeners get the cause."""
        if not self.task.done():
            self._cause = cause
            self.task.cancel()
            await asyncio.wait([self.task])

    def _over(self) -> None:
        """Retrieve the exception, since asyncio complains about one that nobody retrieves, and log it if nobody listens."""
        fault = self.fault
        if not (self._listeners or fault is None or isinstance(fault, CitewellError)):
            log.error("turn.failed", exc_info=fault)
        self._tell()

    def _tell(self) -> None:
        for news in self._listeners:
            news.set()


def check_number(after: int, last: int) -> None:
    """Raise InvalidRequest when a client claims to have an event that was never sent."""
    if after > last:
        raise InvalidRequest(f"The answer has {last} events; there is none with the number {after}.")
