"""What both clients share."""

from __future__ import annotations

import os
from typing import Any, ClassVar
from urllib.parse import urlencode

import httpx

from . import wire
from .values import ServiceError


class Door:
    """The address of the service and the options of the HTTP client: the base of both clients."""

    TIMEOUT: ClassVar[httpx.Timeout] = httpx.Timeout(10, read=180)
    """Seconds; `read` is the longest silence, so it must outlast the wait for a busy thread."""

    def __init__(self, url: str, *, key: str | None, timeout: httpx.Timeout | float | None) -> None:
        self.url = url.rstrip("/")
        key = (
            os.environ.get("CITEWELL_API_KEY", "") if key is None else key
        ).strip()  # one from a file ends with a line break
        if not (key.isascii() and key.isprintable()):
            raise ServiceError({"code": "not_authenticated", "detail": "The key holds characters that no key has."})
        with wire.faults(self.url):
            address = httpx.URL(self.url)
        self._options: dict[str, Any] = {
            "base_url": address,
            "headers": {"authorization": f"Bearer {key}"} if key else {},
            "timeout": self.TIMEOUT if timeout is None else timeout,
        }

    def file_url(self, uri: str, page: int | None = None) -> str:
        """The URL of the original file, which a browser opens at the page if it is a PDF."""
        return f"{self.url}/source/file?{urlencode({'uri': uri})}" + (f"#page={page}" if page else "")
