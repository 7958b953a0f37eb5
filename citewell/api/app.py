"""The web application: the doors, and what opens and closes with it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi_offline import FastAPIOffline

from citewell import __version__
from citewell.api import langserve, ops, problems, rest, websocket
from citewell.api.edge import Edge
from citewell.settings import Settings
from citewell.wiring import open_service

ABOUT = """Answers from your own documents, streamed, remembered, and with every citation checked.

Playgrounds: [/rag/playground/](/rag/playground/) and [/chat/playground/](/chat/playground/).
"""


def create_app(settings: Settings) -> FastAPI:
    """Build the application. Nothing is opened before it starts."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_service(settings) as app.state.service:
            yield

    # The offline flavour serves the API page's script and style itself; FastAPI's own fetches them from a CDN.
    app = FastAPIOffline(
        title="Citewell", version=__version__, description=ABOUT, lifespan=lifespan, redoc_url=None,
        static_url="/docs/static",
    )  # fmt: skip
    problems.install(app)
    langserve.install(app, settings)
    app.include_router(rest.router)
    app.include_router(websocket.router)
    app.include_router(ops.router)
    app.add_middleware(Edge, max_body_bytes=settings.max_body_bytes)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(settings.cors_origins), allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["authorization", "content-type"], expose_headers=["x-request-id", "retry-after"],
        )  # fmt: skip
    return app
