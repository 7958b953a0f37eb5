"""Lets turns in one after the other, so that those that begin together do not all get their first word when the last of them does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

PLACES: Final = 3
"""Turns that prepare their answers at the same time: while one waits for Redis or a thread, another works."""
LONGEST_S: Final = 0.03
"""Longest that a turn keeps its place, in seconds: about twice what preparing takes a busy processor. So one that waits for something
elsewhere, such as hosted embeddings, holds up the others no longer than its work would."""
LINE: Final = 16
"""Most turns that wait for a place; further ones are let in at once. To let in all in order took 256 clients at once from 62 turns a second to
52 and their first words from 2.4 to 3.5 s (p50)."""


class Turnstile:
    """Lets turns in, in the order in which they come, until they ask a model. For one event loop.

    What a turn does before that keeps the processor busy. Turns that do it side by side all ask their models at the same late moment;
    one after the other each does so as early as it can, the last no later than before, and from then on they are spread over time.
    """

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(PLACES)
        self._waiting = 0

    async def enter(self) -> Callable[[], None]:
        """Wait for a place. It is kept until what this returns is called, which may be done more than once, or for `LONGEST_S`."""
        held = ExitStack()
        if self._waiting >= LINE:
            return held.close
        self._waiting += 1
        try:
            await self._places.acquire()
        finally:
            self._waiting -= 1
        held.callback(self._places.release)
        asyncio.get_running_loop().call_later(LONGEST_S, held.close)
        return held.close
