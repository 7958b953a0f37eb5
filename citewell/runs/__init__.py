"""The turns of this process: counted, followed, and ended in good order when it shuts down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from citewell.errors import Draining
from citewell.runs.run import Result, Run

__all__ = ["Result", "Run", "Runs"]

POLL_S = 0.02
FAREWELL_S = 1.0
"""Time for listeners to pass on that their run was cut, in seconds."""


class Runs:
    """Starts turns as tasks and lets clients follow them."""

    def __init__(self) -> None:
        self._running: set[Run] = set()
        self._followed = 0
        self.is_leaving = False
        """Whether the process is about to go: it still works, but should get no new clients."""
        self.is_closed = False
        """Whether new turns are refused."""

    def check_open(self) -> None:
        """Raise Draining when no new turn may begin."""
        if self.is_closed:
            raise Draining("This process is shutting down and takes no new turns; another one will.")

    def start(self, run: Run, work: Coroutine[Any, Any, Result]) -> None:
        """Let a turn begin."""
        self._running.add(run)
        run.start(work)
        run.task.add_done_callback(lambda _: self._running.discard(run))

    @asynccontextmanager
    async def following(self, run: Run, after: int = 0) -> AsyncIterator[AsyncGenerator[str | Result, None]]:
        """The run's events after number `after`. Leaving the block ends a run that is not kept."""
        self._followed += 1
        events = run.follow(after)
        try:
            yield events
        finally:
            await events.aclose()
            self._followed -= 1
            if not run.is_kept:
                await run.end()

    async def drain(self, within_s: float) -> None:
        """Refuse new turns and wait until those under way have ended and been passed on; cut the ones that last longer
        than `within_s` seconds."""
        self.is_leaving = self.is_closed = True
        if await self._quiet(within_s):
            return
        cause = Draining("The service shut down before the answer was complete. Ask again.")
        await asyncio.gather(*(run.end(cause) for run in self._running))
        await self._quiet(FAREWELL_S)

    async def _quiet(self, within_s: float) -> bool:
        deadline = time.monotonic() + within_s
        while self._running or self._followed:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(POLL_S)
        return True
