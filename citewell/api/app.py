"""The web application: all doors, and the lifespan of what they need."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi_offline import FastAPIOffline

from citewell import __version__
from citewell.api import feedback, langserve, openai, ops, problems, rest, runs, sources, threads, uploads, websocket
from citewell.api.arrivals import Arrivals
from citewell.api.edge import Edge
from citewell.api.identity import Identification, describe
from citewell.errors import ConfigurationError, MissingExtra
from citewell.feedback import open_feedback
from citewell.identity import is_loopback, open_identity
from citewell.ingestion.upload import remove_left_over
from citewell.settings import Settings
from citewell.telemetry.tracing import open_tracing
from citewell.wiring import open_service

ABOUT = """Answers from your own documents, streamed, remembered, and with every citation checked.

Playgrounds: [/rag/playground/](/rag/playground/) and [/chat/playground/](/chat/playground/).
"""


def create_app(settings: Settings) -> FastAPI:
    """Build the application. Nothing is opened before it starts.

    Raises:
        ConfigurationError: Without keys or tokens it would serve everybody who can reach it, and no setting allows that.
    """
    if settings.is_keyless and settings.keyless == "loopback" and not is_loopback(settings.host):
        raise ConfigurationError(
            f"CITEWELL_HOST is {settings.host}, which others can reach: set CITEWELL_API_KEYS_FILE or CITEWELL_JWT_JWKS, or "
            "CITEWELL_KEYLESS=anywhere to serve whoever comes"
        )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.identity = await open_identity(settings)
        await asyncio.to_thread(remove_left_over, settings)
        async with (
            open_tracing(settings),
            open_service(settings) as app.state.service,
            open_feedback(settings) as app.state.feedback,
            mcp,
        ):
            yield

    # The offline flavour serves the API page's script and style itself; FastAPI's own fetches them from a CDN.
    app = FastAPIOffline(
        title="Citewell", version=__version__, description=ABOUT, lifespan=lifespan, redoc_url=None,
        static_url="/docs/static", responses=problems.DOCUMENTED,
    )  # fmt: skip
    problems.install(app)
    langserve.install(app, settings)
    app.include_router(rest.router)
    app.include_router(websocket.router)
    app.include_router(runs.router)
    app.include_router(openai.router)
    app.include_router(openai.beside)
    app.include_router(threads.router)
    app.include_router(feedback.router)
    app.include_router(sources.router)
    app.include_router(uploads.router)
    app.include_router(ops.router)
    mcp = _mcp(app, settings)
    app.add_middleware(Edge, max_body_bytes=settings.max_body_bytes, unbounded=(uploads.UPLOADS,))
    app.add_middleware(Identification, settings=settings)
    describe(app, settings)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(settings.cors_origins), allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["*"],  # clients add some of their own, as OpenAI's and MCP's do
            expose_headers=["x-request-id", "retry-after", "x-thread-id"],
        )  # fmt: skip
    app.add_middleware(Arrivals)  # the last one added is the first that sees a request
    return app


def _mcp(app: FastAPI, settings: Settings) -> AbstractAsyncContextManager[None]:
    if settings.mcp == "off":
        return nullcontext()
    try:
        from citewell.api import mcp
    except ModuleNotFoundError as exc:
        raise MissingExtra("mcp", "CITEWELL_MCP=on") from exc
    return mcp.install(app, settings)
