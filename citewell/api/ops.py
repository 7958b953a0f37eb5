"""The front page, liveness, readiness and metrics."""

import asyncio
import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from citewell import __version__
from citewell.api.problems import OTHERS
from citewell.errors import CitewellError, Draining, every_kind
from citewell.service import Service
from citewell.telemetry import metrics as figures
from citewell.telemetry.workers import exposition

router = APIRouter(tags=["operations"])
READY_WITHIN_S = 3.0
_PAGE = Path(__file__).with_name("page.html")


@router.get("/", response_model=None)
async def front(request: Request) -> Response:
    """A page for browsers, a status for programs."""
    if "text/html" in request.headers.get("accept", ""):
        page, policy = _page()
        return HTMLResponse(page, headers={"content-security-policy": policy})
    return JSONResponse({"status": "ok", "service": "citewell", "version": __version__, "docs": "/docs"})


@cache
def _page() -> tuple[str, str]:
    """The page, and what a browser may do for it: run its own script, call this service, and nothing else, whatever an answer or
    a title may have smuggled in; nor is it shown within another page."""
    text = _PAGE.read_text(encoding="utf-8")
    own = {tag: _digest(text.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]) for tag in ("script", "style")}
    return text, (
        f"default-src 'none'; script-src '{own['script']}'; style-src '{own['style']}'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _digest(code: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}"


@router.get("/docs/errors", include_in_schema=False)
async def errors() -> HTMLResponse:
    """What a problem's `type` leads to."""
    kinds = [(kind.code, kind.status, kind.title, kind.retryable) for kind in every_kind()]
    kinds += OTHERS
    rows = "".join(
        f'<tr id="{code}"><td><code>{code.replace("_", "_<wbr>")}</code></td><td>{status}</td>'
        f"<td>{title}{'; worth another try' if again else ''}</td></tr>"
        for code, status, title, again in kinds
    )
    return HTMLResponse(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Citewell: errors</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><style>:root{color-scheme:light dark}'
        "body{font:1rem/1.6 system-ui,sans-serif;margin:1rem}td,th{padding:.2rem .4rem;text-align:left;vertical-align:top}"
        ":target{background:#fff3bf;color:#1b1f24}</style><h1>Errors</h1><table><thead><tr><th>code<th>status<th>what happened"
        f"</thead><tbody>{rows}</tbody></table></html>"
    )


@router.get("/healthz")
async def alive() -> dict[str, str]:
    """Liveness: the process answers. Calls nothing."""
    return {"status": "ok"}


@router.get("/readyz", response_model=None, responses={503: {"description": "Not ready; `checks` says why."}})
async def ready(request: Request) -> Response:
    """Readiness: index and vector store can be reached, threads be written, and the process is not about to go. No model is
    asked."""
    service: Service = request.app.state.service
    if service.runs.is_leaving:  # no further checks: the load balancer must know soon
        drain = {"error": Draining.code, "detail": Draining.title}
        return JSONResponse({"status": "not ready", "checks": {"drain": drain}}, 503)
    checks = await _checked(service)
    fit = not any("error" in check for check in checks.values())
    return JSONResponse({"status": "ready" if fit else "not ready", "checks": checks}, 200 if fit else 503)


async def _checked(service: Service) -> dict[str, dict[str, Any]]:
    """What each part of the service says of itself, or its `error` and `detail`. Kept in the metrics."""
    checks: dict[str, dict[str, Any]] = {}
    for name, check in service.checks().items():
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                checks[name] = await check()
        except CitewellError as exc:
            checks[name] = {"error": exc.code, "detail": exc.detail}
        except TimeoutError:
            checks[name] = {"error": "timeout", "detail": f"No answer within {READY_WITHIN_S:g} s."}
        figures.READY.labels(name).set("error" not in checks[name])
    return checks


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> PlainTextResponse:
    """Prometheus text format; of several workers any answers for all. Asks what readiness asks: nobody else may, and a service that
    takes no turns has no failed ones to show."""
    checks = await _checked(request.app.state.service)
    if "error" not in checks["index"]:  # otherwise the last figures stay
        figures.index_size(checks["index"])
    return PlainTextResponse(await asyncio.to_thread(exposition), media_type=CONTENT_TYPE_LATEST)
