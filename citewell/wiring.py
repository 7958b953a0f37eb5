"""The composition root: settings in, live parts out. Only this module knows which class does which job."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from chains.evidence import Evidence
from chains.extract import extractive_answerer
from citewell.cache import open_cache
from citewell.guards.checks import open_guards
from citewell.limits import open_limits
from citewell.models import open_embedder
from citewell.models.chat import open_chat_models
from citewell.retrieval import open_index
from citewell.service import Service
from citewell.settings import Settings
from citewell.threads import open_threads
from graph.build import build_graph
from graph.parts import Parts


@asynccontextmanager
async def open_parts(settings: Settings) -> AsyncIterator[Parts]:
    """Open models, index and guards; close them in reverse order."""
    async with AsyncExitStack() as stack:
        embedder = open_embedder(settings)
        stack.callback(embedder.close)
        models = await stack.enter_async_context(open_chat_models(settings))
        guards = open_guards(settings, embedder, models)
        for model in (embedder, guards.scanner):
            if model is not None:
                await asyncio.to_thread(model.load)  # a damaged file stops the start
        index = await stack.enter_async_context(open_index(settings, embedder, guard=guards.scanner))
        yield Parts(
            settings=settings,
            index=index,
            models=models,
            extractive=extractive_answerer(embedder),
            guards=guards,
            evidence=Evidence(embedder, settings.answer_from),
            limits=await stack.enter_async_context(open_limits(settings)),
            cache=await stack.enter_async_context(open_cache(settings)),
        )


@asynccontextmanager
async def open_service(settings: Settings) -> AsyncIterator[Service]:
    """Everything a door needs: the compiled graph over live parts, and the threads."""
    async with open_parts(settings) as parts, open_threads(settings) as threads:
        graph = build_graph(parts)
        service = Service(
            parts, threads, graph=graph.compile(checkpointer=threads.checkpointer), stateless=graph.compile()
        )
        try:
            yield service
        finally:
            await service.runs.drain(0)
