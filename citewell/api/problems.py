"""Errors on the wire: one mapping for all doors (RFC 9457 problem details).

Before the first byte a problem is the response; after it, it is the body of an `error` event or frame.
"""

from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.routing import Match

from citewell.errors import CitewellError, InvalidRequest
from citewell.telemetry import arrival

MEDIA_TYPE = "application/problem+json"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""All that a route may take; HEAD is taken where GET is."""
INTERNAL = "Something went wrong inside the service"
"""The title of unforeseen faults."""
OTHERS = (
    ("http_404", 404, "There is nothing at this address", False),
    ("http_405", 405, "This address does not take this method", False),
    ("internal", 500, INTERNAL, False),
)
"""(code, status, title, retryable) of the problems that are not a `CitewellError`."""
NO_JSON = (
    "The body cannot be read as JSON. It must be UTF-8, not compressed, not nested a thousand deep, and hold no integer of "
    "more than 64 bits."
)
"""What is said of a body where no parser says at which character it goes wrong."""
log = structlog.get_logger()


class Fault(BaseModel):
    """One field that cannot be used."""

    field: str
    message: str


class Problem(BaseModel):
    """What went wrong, for people (`title`, `detail`) and for programs (`code`, `retryable`)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    retryable: bool = False
    instance: str | None = None
    request_id: str | None = None
    errors: list[Fault] | None = None
    retry_after_s: float | None = None


def _schema() -> dict[str, Any]:
    """The problem's JSON schema without references, which would not resolve within a response of the OpenAPI document."""
    whole = Problem.model_json_schema()
    fault = whole.pop("$defs")["Fault"]
    whole["properties"]["errors"]["anyOf"][0]["items"] = fault
    return whole


DOCUMENTED: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {MEDIA_TYPE: {"schema": _schema()}}}
    for status, text in (
        ("4XX", "The request cannot be used, or not now."),
        (422, "The request cannot be used."),
        ("5XX", "The service, or one it depends on, failed."),
    )
}
"""For every route of the OpenAPI document."""


def to_problem(exc: BaseException) -> Problem:
    """Turn any exception into a problem. An unforeseen one is logged and becomes a 500 that reveals nothing of it."""
    match exc:
        case CitewellError():
            return _problem(exc.code, exc.title, exc.status, exc.detail, exc.retryable, retry_after_s=exc.retry_after_s)
        case RequestValidationError() | ValidationError():
            faults = [_fault(error) for error in exc.errors()]
            detail = "; ".join(f"{fault.field}: {fault.message}" if fault.field else fault.message for fault in faults)
            return _problem("invalid_request", "The request cannot be used", 422, detail, errors=faults)
        case HTTPException(status_code=404, detail="Not Found"):  # the router's own words
            return _problem(
                *_named("http_404"), detail="There is nothing at this address. /docs describes what there is."
            )
        case HTTPException(status_code=405):
            allowed = (exc.headers or {}).get("Allow", "another method")
            return _problem(*_named("http_405"), detail=f"This address takes {allowed}. /docs describes how.")
        case HTTPException(status_code=400 | 422):
            # FastAPI's, of a body that it cannot read, has a cause; LangServe's say themselves what is wrong.
            return to_problem(InvalidRequest(NO_JSON if exc.__cause__ else exc.detail))
        case HTTPException():
            detail = exc.detail if isinstance(exc.detail, str) else "The request cannot be used."
            return _problem(f"http_{exc.status_code}", "The request was refused", exc.status_code, detail)
    log.error("request.failed", exc_info=exc)
    return _problem("internal", INTERNAL, 500, "The fault has been logged.")


def _problem(code: str, title: str, status: int, detail: str, retryable: bool = False, **more: Any) -> Problem:
    return Problem(
        type=f"/docs/errors#{code}", title=title, status=status, detail=detail, code=code, retryable=retryable,
        request_id=arrival.current.get().request_id or None, **more
    )  # fmt: skip


def _named(code: str) -> tuple[str, str, int]:
    """An entry of `OTHERS`, as `_problem` takes it."""
    status, title = next((status, title) for name, status, title, _ in OTHERS if name == code)
    return code, title, status


def _fault(error: Any) -> Fault:
    # The value itself is left out: it may be private, huge, or no valid text.
    if not isinstance(error, dict):
        return Fault(field="", message=str(error))
    match error:
        case {"type": "json_invalid", "loc": ("body", int(place))}:
            return Fault(field="", message=f"The body is no valid JSON: it goes wrong at character {place}.")
        case {"type": "model_attributes_type" | "model_type" | "dict_type" | "missing", "loc": ("body",)}:
            return Fault(field="", message="Send a JSON object as the body, with Content-Type: application/json.")
        case {"type": "model_type", "loc": ()}:
            return Fault(field="", message="The input must be a JSON object with the fields that its schema names.")
    where = ".".join(str(part) for part in error.get("loc", ()) if part not in ("body", "root"))
    return Fault(field=where, message=error.get("msg", "cannot be used").removeprefix("Value error, "))


def response(exc: BaseException, request: HTTPConnection) -> JSONResponse:
    problem = to_problem(exc)
    problem.instance = request.url.path
    headers = dict(getattr(exc, "headers", None) or {})
    if problem.request_id:  # the middleware that adds this header does not see the response to an unforeseen fault
        headers["X-Request-ID"] = problem.request_id
    if problem.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, round(problem.retry_after_s)))
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = problem.model_dump(exclude_none=True)
    return JSONResponse(body, status_code=problem.status, media_type=MEDIA_TYPE, headers=headers)


def _methods(request: Request) -> list[str]:
    """What the address of a request takes, of all routes that match it; nothing where files are mounted."""

    def is_taken(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    return [method for method in METHODS if is_taken(method)]


def install(app: FastAPI) -> None:
    """Answer every exception of every route with `response`."""

    async def handle(request: Request, exc: Exception) -> JSONResponse:
        if isinstance(exc, HTTPException) and exc.status_code == 405 and (methods := _methods(request)):
            exc = HTTPException(405, headers={"Allow": ", ".join(methods)})  # the router names those of the first route
        return response(exc, request)

    async def left(request: Request, exc: Exception) -> Response:
        return Response(status_code=499)  # nobody reads it; nothing of ours failed

    for kind in (CitewellError, RequestValidationError, ValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, handle)
    app.add_exception_handler(ClientDisconnect, left)
