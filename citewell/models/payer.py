"""Who pays for what is done in a task, where it cannot be handed down: embedding is called through the vector store's, the
ingestion's and the answerer's interfaces, none of which knows of callers."""

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
    """A caller, and what keeps count."""

    limits: Limits
    caller: str
    loop: asyncio.AbstractEventLoop
    """Where `limits` lives, for threads that must ask it."""


payer: ContextVar[Payer | None] = ContextVar("payer", default=None)
"""None: nobody's limits hold, as when documents are ingested from the command line."""


@contextmanager
def paid_by(limits: Limits, caller: str) -> Iterator[None]:
    """Within it, the caller pays. Tasks and threads begun there inherit it."""
    token = payer.set(Payer(limits, caller, asyncio.get_running_loop()))
    try:
        yield
    finally:
        payer.reset(token)
