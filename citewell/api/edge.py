"""Bounds the body of every HTTP request and watches whether its client leaves, before a route sees it.

To the routes HEAD is the same as GET; the server leaves out the body.
"""

import asyncio

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from citewell.api import openai
from citewell.errors import BodyTooLarge


class Edge:
    """Pure ASGI middleware.

    When a client leaves before its response is complete, the route's task is cancelled, even where the framework would not notice, as
    for a plain JSON response.

    Args:
        app: The application.
        max_body_bytes: Largest body that is accepted.
        unbounded: Paths that read large bodies in pieces and bound them themselves.
    """

    def __init__(self, app: ASGIApp, *, max_body_bytes: int, unbounded: tuple[str, ...] = ()) -> None:
        self._app = app
        self._max = max_body_bytes
        self._unbounded = unbounded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._unbounded:
            await self._app(scope, receive, send)
            return
        try:
            body = await self._body(scope, receive)
        except BodyTooLarge as exc:
            await openai.response(exc, Request(scope))(scope, receive, send)
            return
        if body is not None:
            if scope["method"] == "HEAD":
                scope = {**scope, "method": "GET"}  # a copy: the server reads in its own whether to send the body
            await self._watched(scope, receive, send, body)

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; None where the client left while sending it."""
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if length.isdigit() and int(length) > self._max:
            raise BodyTooLarge(f"The body has {int(length):,} bytes; at most {self._max:,} are accepted.")
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > self._max:
                raise BodyTooLarge(f"The body has more than {self._max:,} bytes.")
            if not message.get("more_body"):
                return bytes(body)

    async def _watched(self, scope: Scope, receive: Receive, send: Send, body: bytes) -> None:
        left = asyncio.Event()
        replayed = False

        async def replay() -> Message:
            nonlocal replayed
            if not replayed:
                replayed = True
                return {"type": "http.request", "body": body, "more_body": False}
            await left.wait()
            return {"type": "http.disconnect"}

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            left.set()

        work = asyncio.ensure_future(self._app(scope, replay, send))
        watcher = asyncio.create_task(watch())
        try:
            await asyncio.wait({work, watcher}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                work.cancel()
            await asyncio.wait([work])
            if not work.cancelled():
                work.result()
        finally:
            watcher.cancel()
            work.cancel()
