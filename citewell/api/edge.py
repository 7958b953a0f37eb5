"""What happens to every HTTP request before a route sees it: a bound on the body, and a watch on the client.

HEAD is what GET is, to every route; the server leaves the body out.
"""

import asyncio

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from citewell.api import problems
from citewell.errors import BodyTooLarge


class Edge:
    """Pure ASGI middleware.

    A client that leaves before its response is complete ends the work done for it: the route's task is cancelled,
    also where the framework would not notice, as for a plain JSON response.
    """

    def __init__(self, app: ASGIApp, *, max_body_bytes: int, unbounded: tuple[str, ...] = ()) -> None:
        self._app = app
        self._max = max_body_bytes
        self._unbounded = unbounded
        """Paths that read large bodies in pieces and bound them themselves."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"] in self._unbounded:
            await self._app(scope, receive, send)
            return
        try:
            body = await self._body(scope, receive)
        except BodyTooLarge as exc:
            await problems.response(exc, Request(scope))(scope, receive, send)
            return
        if body is not None:
            if scope["method"] == "HEAD":
                scope = {**scope, "method": "GET"}  # a copy: the server looks into its own for whether to send the body
            await self._watched(scope, receive, send, body)

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; None when the client left while sending it."""
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
