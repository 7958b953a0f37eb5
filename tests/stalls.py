"""How long the event loop is held up, in processor time: what else a machine does is not counted."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass
class Spent:
    """Seconds of the processor's time."""

    longest_s: float = 0.0
    """Of the event loop's thread, between two times at which it went round."""
    whole_s: float = 0.0
    """Of all threads together, once the block is left."""


@asynccontextmanager
async def stalls() -> AsyncIterator[Spent]:
    """Watch the event loop while the block runs."""
    spent = Spent()

    async def watch() -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(0.001)
            spent.longest_s = max(spent.longest_s, time.thread_time() - before)

    watcher = asyncio.create_task(watch())
    await asyncio.sleep(0)  # so that it has begun
    begun = time.process_time()
    try:
        yield spent
        await asyncio.sleep(0.002)  # so that it sees what came last
    finally:
        spent.whole_s = time.process_time() - begun
        watcher.cancel()
