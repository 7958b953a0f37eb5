"""The LangServe door: `/rag` (question in, cited answer out) and `/chat` (messages in, text out).

LangServe's own `APIHandler` does the work. The routes are added here instead of by `add_routes`, so that a fault before the first byte is a
problem response and a later one an `error` event with the same body.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any, Literal

from fastapi import FastAPI, HTTPException, Path, Request, Response
from fastapi.responses import JSONResponse

from citewell.api.langserve.handler import Handler
from citewell.api.langserve.runnables import Chat, Door, Rag
from citewell.service import Service
from citewell.settings import Settings

ConfigHash = Annotated[str, Path(max_length=4096)]
"""A compressed configuration in a playground's address; a longer one could unpack to hundreds of megabytes."""


_EVENT = {"type": "object", "properties": {"event": {"type": "string"}, "data": {"type": "string"}}}


class Events(Response):
    """Server-sent events, for the OpenAPI document."""

    media_type = "text/event-stream"


def install(app: FastAPI, settings: Settings) -> None:
    """Add the routes of both doors."""

    def service() -> Service:
        return app.state.service  # type: ignore[no-any-return]  # opened by the lifespan

    doors: list[tuple[str, Door, Literal["default", "chat"]]] = [
        ("/rag", Rag(service, settings, "rag"), "default"),
        ("/chat", Chat(service, settings, "chat"), "chat"),
    ]
    for path, door, playground in doors:
        _lay(app, path, Handler(door, path=path, config_keys=("configurable",), playground_type=playground))


def _lay(app: FastAPI, path: str, handler: Handler) -> None:
    tag = path.strip("/")

    def route(verb: str, name: str, call: Callable[..., Any]) -> None:
        async def plain(request: Request) -> Response:
            return await call(request)  # type: ignore[no-any-return]

        async def with_config(request: Request, config_hash: ConfigHash) -> Response:
            return await call(request, config_hash=config_hash)  # type: ignore[no-any-return]

        app.add_api_route(f"{path}/{name}", plain, methods=[verb], include_in_schema=False)
        app.add_api_route(f"{path}/c/{{config_hash}}/{name}", with_config, methods=[verb], include_in_schema=False)

    for name in ("invoke", "batch", "stream", "stream_log"):
        route("POST", name, getattr(handler, name))
    route("POST", "stream_events", handler.astream_events)
    for name in ("input_schema", "output_schema", "config_schema"):
        route("GET", name, _as_json(getattr(handler, name)))

    async def file(path: str, request: Request, config_hash: str = "") -> Response:
        with suppress(IsADirectoryError):
            response = await handler.playground(path, request, config_hash=config_hash)
            if response.status_code != 404:
                return response  # type: ignore[no-any-return]
        raise HTTPException(404)

    async def playground(request: Request, file_path: str = "") -> Response:
        return await file(file_path, request)

    async def shared_playground(request: Request, config_hash: ConfigHash, file_path: str = "") -> Response:
        return await file(file_path, request, config_hash)

    for suffix in ("/playground", "/playground/{file_path:path}"):
        app.add_api_route(f"{path}{suffix}", playground, methods=["GET"], include_in_schema=False)
        app.add_api_route(
            f"{path}/c/{{config_hash}}{suffix}", shared_playground, methods=["GET"], include_in_schema=False
        )
    _document(app, path, tag, handler)


def _document(app: FastAPI, path: str, tag: str, handler: Handler) -> None:
    """Describe the doors in the OpenAPI document, with routes that are never reached, as the real ones come first."""

    def describe(name: str, body: Any, answer: Any, kind: type[Response] = JSONResponse) -> None:
        async def never(request: Annotated[Any, body]) -> Any:
            raise AssertionError("reached a route that only documents")

        never.__annotations__["request"] = body
        app.add_api_route(
            f"{path}/{name}", never, methods=["POST"], response_model=answer, response_class=kind, tags=[tag],
            name=f"{tag} {name}", responses={200: {"content": {kind.media_type: {"schema": _EVENT}}}} if kind is Events else {},
        )  # fmt: skip

    describe("invoke", handler.InvokeRequest, handler.InvokeResponse)
    describe("batch", handler.BatchRequest, handler.BatchResponse)
    describe("stream", handler.StreamRequest, None, Events)
    describe("stream_events", handler.StreamEventsRequest, None, Events)


def _as_json(call: Callable[..., Any]) -> Callable[..., Any]:
    async def answer(request: Request, **kwargs: Any) -> Response:
        return Response(json.dumps(await call(request, **kwargs)), media_type="application/json")

    return answer
