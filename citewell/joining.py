"""A queue whose neighbours join while nobody takes them.

A reader that keeps up gets every item as it comes. One that is busy finds all that came meanwhile as one item, so the
work for each falls as the load rises.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class JoiningQueue(Generic[T]):
    """Unbounded, for one reader and one event loop."""

    def __init__(self, join: Callable[[T, T], T | None]) -> None:
        """Args:
        join: Given the last item that waits and a new one, returns both in one; None where they do not go together.
        """
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
        """Nothing comes any more: the iteration ends after what waits."""
        self._ended = True
        self._news.set()

    async def __aiter__(self) -> AsyncGenerator[T, None]:
        while self._waiting or not self._ended:
            if self._waiting:
                yield self._waiting.popleft()
            else:
                self._news.clear()
                await self._news.wait()
