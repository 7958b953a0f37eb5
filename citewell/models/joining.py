"""A queue whose items are joined while they wait.

A reader that keeps up gets every item as it comes. A reader that is busy finds all that came meanwhile as one item, so the work per
item falls as the load rises.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class JoiningQueue(Generic[T]):
    """Unbounded; for one reader on one event loop.

    Args:
        join: Given the last waiting item and a new one, returns both as one item, or None where they cannot be joined.
    """

    def __init__(self, join: Callable[[T, T], T | None]) -> None:
        self._join = join
        self._waiting: deque[T] = deque()
        self._news = asyncio.Event()
        self._ended = False

    def put(self, item: T) -> None:
        both = self._join(self._waiting[-1], item) if self._waiting else None
        if both is None:
            self._waiting.append(item)
        else:
            self._waiting[-1] = both
        self._news.set()

    def end(self) -> None:
        """End the iteration once the waiting items have been taken."""
        self._ended = True
        self._news.set()

    async def __aiter__(self) -> AsyncGenerator[T, None]:
        while self._waiting or not self._ended:
            if self._waiting:
                yield self._waiting.popleft()
            else:
                self._news.clear()
                await self._news.wait()
