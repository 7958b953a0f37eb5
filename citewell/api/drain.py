"""Graceful shutdown: readiness fails, new turns are refused, those under way end, then the server stops."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from types import FrameType

import structlog

from citewell.runs import Runs
from citewell.settings import Settings

Handler = Callable[[int, FrameType | None], object]
log = structlog.get_logger()


class Drain:
    """Delays the server's own handling of SIGTERM and SIGINT, which closes sockets at once.

    After SIGTERM the process still takes turns for `settings.drain_notice_s` seconds while its readiness fails, so that a load balancer can
    turn away first. SIGINT comes without a load balancer, so there is no such delay; a second SIGINT ends the process at once.
    """

    def __init__(self, runs: Runs, settings: Settings) -> None:
        self._runs = runs
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._draining: asyncio.Task[None] | None = None

    def listen(self) -> None:
        """Take over the signals from the server's handlers. Only in the main thread, where signals arrive."""
        for sig in (signal.SIGTERM, signal.SIGINT):
            if callable(stop := signal.getsignal(sig)):
                signal.signal(sig, self._handler(stop))

    def _handler(self, stop: Handler) -> Handler:
        def handle(sig: int, frame: FrameType | None) -> None:
            if self._draining is not None and sig == signal.SIGINT:
                stop(sig, frame)
            else:
                self._loop.call_soon_threadsafe(self._begin, sig, stop)

        return handle

    def _begin(self, sig: int, stop: Handler) -> None:
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain(sig, stop))

    async def _drain(self, sig: int, stop: Handler) -> None:
        log.info("drain.began", signal=signal.Signals(sig).name)
        self._runs.is_leaving = True
        if sig == signal.SIGTERM:
            await asyncio.sleep(self._settings.drain_notice_s)
        await self._runs.drain(self._settings.drain_s)
        log.info("drain.ended")
        stop(sig, None)
