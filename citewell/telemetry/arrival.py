"""How a request came in: by which door, under which id, as part of which trace. Set at the edge, read by whoever tells
of the turn."""

import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final
from uuid import uuid4

_DOORS: Final = (
    ("/rag", "langserve"), ("/chat/", "langserve"), ("/chat", "rest"), ("/ws/", "websocket"), ("/v1/", "openai"),
    ("/mcp", "mcp"), ("/metrics", "operations"), ("/healthz", "operations"), ("/readyz", "operations"),
)  # fmt: skip
"""Path -> door, the first that fits. Few and fixed: each is a value of a metric's label."""
_ID: Final = re.compile(r"[A-Za-z0-9._~:/+=-]{1,128}")
"""Ids that are taken over from a caller: what proxies make, and nothing that could break a log line or a header."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request, or one call from within the process."""

    door: str = "local"
    request_id: str = ""
    trace: Mapping[str, str] = field(default_factory=dict)
    """The caller's `traceparent` and `tracestate`, where it sent them."""


current: ContextVar[Arrival] = ContextVar("arrival", default=Arrival())  # noqa: B039  # frozen


def door(path: str) -> str:
    """The door a path belongs to; `other` for every path that asks no question."""
    return next((name for prefix, name in _DOORS if path.startswith(prefix)), "other")


def request_id(given: str) -> str:
    """The caller's own id where it can be used, else a fresh one."""
    return given if _ID.fullmatch(given) else str(uuid4())
