"""Identifies the caller before any route sees the request and before its body is read."""

import base64
import binascii
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from citewell.api import openai
from citewell.errors import CitewellError, NotAuthenticated, NotAuthorized
from citewell.identity import Attempts, Authenticator, Identity, is_loopback
from citewell.settings import Settings

SUBPROTOCOL = "citewell"
"""What a browser's WebSocket asks for beside its key, and what the answer names."""
_IN_SUBPROTOCOL = "citewell.key."
"""A browser can give a socket no header but this one: `new WebSocket(url, ["citewell", "citewell.key." + key])`."""
_OPEN = ("/healthz", "/readyz", "/openapi.json", "/docs")
_SAFE = ("GET", "HEAD", "OPTIONS")
_NOT_FROM_THERE = "Pages of this origin may not call; the operator names those that may in CITEWELL_CORS_ORIGINS."
_NOBODY = Identity(caller="", access=frozenset())
"""The caller of a path that is open to all: no route there looks at it, and it could read nothing."""


class Identification:
    """Pure ASGI middleware, for HTTP and WebSocket alike: puts an `Identity` into the scope, or refuses.

    It also refuses pages of another origin: a browser sends their requests with the password that was typed into its prompt, and to a
    service on loopback, which asks for none.
    """

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self._app = app
        self._origins = settings.cors_origins
        self._is_local_only = settings.is_keyless and settings.keyless == "loopback"
        self._attempts = Attempts(settings.wrong_keys_per_minute)
        self._open = open_paths(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        try:
            self._check_place(connection)
            if self._is_open(connection):
                scope["citewell_identity"] = _NOBODY
            else:
                authenticator: Authenticator = scope["app"].state.identity
                identify = partial(authenticator.identify, _credential(connection))
                scope["citewell_identity"] = await self._counted(identify, connection)
                scope["citewell_identify"] = identify
        except CitewellError as exc:
            await self._refuse(exc, connection, receive, send)
            return
        await self._app(scope, receive, send)

    async def _counted(self, identify: Callable[[], Awaitable[Identity]], connection: HTTPConnection) -> Identity:
        credential = _credential(connection)
        if credential is None:  # asks without a key, as browsers first do: nothing is tried out
            return await identify()
        address = connection.client.host if connection.client else ""
        self._attempts.check(address, credential)
        try:
            identity = await identify()
        except NotAuthenticated:
            self._attempts.failed(address, credential)
            raise
        self._attempts.succeeded(credential)
        return identity

    def _check_place(self, connection: HTTPConnection) -> None:
        """Whether a request may come from where it comes from, whoever sends it.

        Raises:
            NotAuthorized: From another machine, by a name that is not ours, or out of a page of another origin.
        """
        headers = connection.headers
        if self._is_local_only:
            # The name too: a page can make its own name lead here (DNS rebinding).
            client = connection.client.host if connection.client else ""
            if not is_loopback(client) or not is_loopback(_host(headers)):
                raise NotAuthorized("Without keys this service answers on its own machine only.")
        if self._is_part_of_another_page(headers):
            raise NotAuthorized(_NOT_FROM_THERE)
        origin = headers.get("origin")
        if origin is None or origin in self._origins or headers.get("sec-fetch-site") == "same-origin":
            return
        if connection.scope["type"] == "http" and connection.scope["method"] in _SAFE:
            return  # what comes back is CORS's to show or not
        if origin.partition("://")[2] != headers.get("host"):
            raise NotAuthorized(_NOT_FROM_THERE)

    def _is_part_of_another_page(self, headers: Headers) -> bool:
        """Whether a browser asks for something to put into a page of another origin, which cannot read it, but can tell by
        whether it loads what documents there are. Going there is no such thing, and what scripts ask for says its origin."""
        return (
            "origin" not in headers
            and headers.get("sec-fetch-site") in ("cross-site", "same-site")
            and headers.get("sec-fetch-dest") != "document"
            and not any(headers.get("referer", "").startswith(f"{origin}/") for origin in self._origins)
        )

    def _is_open(self, connection: HTTPConnection) -> bool:
        if connection.scope["type"] != "http":
            return False
        path = connection.scope["path"]
        if path == "/":
            return not _is_browser(connection.headers)  # its page calls what needs a key
        return any(path == one or path.startswith(f"{one}/") for one in self._open)

    async def _refuse(self, exc: CitewellError, connection: HTTPConnection, receive: Receive, send: Send) -> None:
        scope = connection.scope
        if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008, "reason": exc.code})
            return
        response = openai.response(exc, connection)
        if exc.status == 401 and scope["type"] == "http" and _can_prompt(connection.headers):
            # A browser asks its user then, and sends the answer along with every call of the page.
            response.headers["www-authenticate"] = (
                'Basic realm="Citewell: any name, your key as password", charset="UTF-8"'
            )
        await response(scope, receive, send)


def describe(app: FastAPI, settings: Settings) -> None:
    """Name keys and tokens in the OpenAPI description, so that the API page asks for one ("Authorize") and sends it.

    Without either there is nothing to name. What is open to all is described so.
    """
    if settings.is_keyless:
        return
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        schema = plain()
        schema.setdefault("components", {})["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, or a token (JWT)."},
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key or token."},
        }
        schema["security"] = [{"bearer": []}, {"key": []}]
        for path in ("/", *open_paths(settings)):
            for call in schema["paths"].get(path, {}).values():
                call["security"] = []
        return schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation says to extend it


def open_paths(settings: Settings) -> Sequence[str]:
    """Where nobody is asked who they are, with what lies below."""
    return _OPEN if settings.metrics_access == "key" else (*_OPEN, "/metrics")


def _credential(connection: HTTPConnection) -> str | None:
    """The key or token that came along; None when there is none."""
    scheme, _, value = connection.headers.get("authorization", "").partition(" ")
    match scheme.lower():
        case "bearer":
            return value.strip()
        case "basic":
            return _password(value.strip())
    if key := connection.headers.get("x-api-key"):
        return key.strip()
    if connection.scope["type"] == "websocket":
        return _offered(connection.scope.get("subprotocols", ()))
    return None


def _password(value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        raise NotAuthenticated("The Authorization header cannot be read.") from None


def _offered(subprotocols: Sequence[str]) -> str | None:
    return next((one.removeprefix(_IN_SUBPROTOCOL) for one in subprotocols if one.startswith(_IN_SUBPROTOCOL)), None)


def _host(headers: Headers) -> str:
    try:
        return urlsplit(f"//{headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""


def _is_browser(headers: Headers) -> bool:
    return "text/html" in headers.get("accept", "")


def _can_prompt(headers: Headers) -> bool:
    return _is_browser(headers) or headers.get("sec-fetch-site") == "same-origin"
