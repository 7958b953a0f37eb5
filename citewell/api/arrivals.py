"""The outermost middleware: notes each request's door and id, and counts the statuses of responses."""

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from citewell.telemetry import arrival, metrics
from citewell.telemetry.arrival import Arrival

_TRACE = ("traceparent", "tracestate")


class Arrivals:
    """Pure ASGI middleware: gives HTTP requests and WebSockets an id, which it returns in `X-Request-ID`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        came = Arrival(
            door=arrival.door(scope["path"]),
            request_id=arrival.request_id(headers.get("x-request-id", "")),
            trace={name: headers[name] for name in _TRACE if name in headers},
        )
        arrival.current.set(came)
        scope["request_id"] = came.request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=came.request_id)

        async def leave(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.accept"):
                MutableHeaders(scope=message)["x-request-id"] = came.request_id
                metrics.RESPONSES.labels(came.door, str(message.get("status", 101))).inc()
            await send(message)

        await self._app(scope, receive, leave)
