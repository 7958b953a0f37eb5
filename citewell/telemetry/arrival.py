"""How a request arrived: by which door, with which id, as part of which trace. Set by the outermost middleware and read by logs, metrics
and traces."""

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
"""(prefix of the path, door); the first that fits counts. A small, fixed set, as each is a value of a metric's label."""
_ID: Final = re.compile(r"[A-Za-z0-9._~:/+=-]{1,128}")
"""Request ids that are accepted from callers: those that proxies make, without anything that could break a log line or a header."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request, or one call from within the process."""

    door: str = "local"
    request_id: str = ""
    trace: Mapping[str, str] = field(default_factory=dict)
    """The caller's `traceparent` and `tracestate`, where it sent them."""


current: ContextVar[Arrival] = ContextVar("arrival", default=Arrival())  # noqa: B039  # frozen


def door(path: str) -> str:
    """The door to which a path belongs; `other` for paths that are no door."""
    return next((name for prefix, name in _DOORS if path.startswith(prefix)), "other")


def request_id(given: str) -> str:
    """The caller's id if it can be used, else a new one."""
    return given if _ID.fullmatch(given) else str(uuid4())
