"""The caller who pays for embedding, in a context variable: embedding is called through the interfaces of the index, the ingestion and
the answerer, none of which knows about callers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from citewell.limits import Limits


@dataclass(frozen=True, slots=True)
class Payer:
    """A caller, and the limits that count what they spend."""

    limits: Limits
    caller: str
    loop: asyncio.AbstractEventLoop
    """The loop of `limits`, for threads that need it."""


payer: ContextVar[Payer | None] = ContextVar("payer", default=None)
"""None: no limits apply, as for an ingestion from the command line."""


@contextmanager
def paid_by(limits: Limits, caller: str) -> Iterator[None]:
    """In this block, and in tasks and threads that are started in it, the caller pays."""
    token = payer.set(Payer(limits, caller, asyncio.get_running_loop()))
    try:
        yield
    finally:
        payer.reset(token)
