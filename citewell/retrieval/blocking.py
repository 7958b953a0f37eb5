"""The index's blocking calls, which run in threads of its own."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from citewell.errors import StoreError

P = ParamSpec("P")
T = TypeVar("T")

_THREADS = 8
"""Most calls under way at once, searches above all."""


class BlockingCalls:
    """For one event loop."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="index")

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call in a thread.

        Raises:
            StoreError: The file system or SQLite failed it.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: call(*args, **kwargs))
        except (OSError, sqlite3.OperationalError) as exc:
            what = os.strerror(exc.errno) if isinstance(exc, OSError) and exc.errno else _sqlite_fault(exc)
            raise StoreError(f"The index cannot be read or written: {what}.") from exc

    async def complete(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call that must not be left half-done: a caller that is cancelled waits until it has ended."""
        task = asyncio.ensure_future(self.run(call, *args, **kwargs))
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError as exc:
                cancelled = exc
        result = task.result()
        if cancelled is not None:
            raise cancelled
        return result

    def close(self) -> None:
        """Take no further calls; those under way are not waited for."""
        self._threads.shutdown(wait=False)


def _sqlite_fault(exc: Exception) -> str:
    """A name such as SQLITE_BUSY; SQLite's message may hold what must not be shown."""
    name = str(getattr(exc, "sqlite_errorname", None) or type(exc).__name__)
    return os.strerror(errno.ENOSPC) if name == "SQLITE_FULL" else name
