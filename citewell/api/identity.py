"""Who asks, found out before any route sees the request."""

from starlette.types import ASGIApp, Receive, Scope, Send

from citewell.identity import Identity


class Identification:
    """Pure ASGI middleware, for HTTP and WebSocket alike: puts an `Identity` into the scope."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            scope["citewell_identity"] = Identity()
        await self._app(scope, receive, send)
