"""The event loop's clock, for tests of what happens after a time: nobody waits for it, and a slow machine does not come late."""

import asyncio
from collections.abc import Callable

import pytest

Forward = Callable[[float], None]


@pytest.fixture
async def forward() -> Forward:
    """Sets the clock of the test's event loop forward by so many seconds, and goes on from there."""
    loop = asyncio.get_running_loop()
    really, ahead = loop.time, 0.0

    def set_forward(seconds: float) -> None:
        nonlocal ahead
        ahead += seconds

    loop.time = lambda: really() + ahead  # type: ignore[method-assign]
    return set_forward
