"""Finding the chunks that answer a question: stores, keyword index, fusion, reranking, and the index over all of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from citewell.errors import ConfigurationError
from citewell.models import Embedder
from citewell.retrieval.generation import NewSource
from citewell.retrieval.index import Index
from citewell.retrieval.packing import has_tokens
from citewell.retrieval.stores import check_extra
from citewell.retrieval.trace import Trace
from citewell.retrieval.verdicts import ChunkGuard
from citewell.settings import Settings

__all__ = ["ChunkGuard", "Index", "NewSource", "Trace", "open_index"]


@asynccontextmanager
async def open_index(
    settings: Settings, embedder: Embedder, *, guard: ChunkGuard | None = None
) -> AsyncIterator[Index]:
    """Open the index under `settings.data_dir`, or make an empty one.

    Opening does not read the index: the first read or write does, and raises `IndexMismatch` where it was built with other settings.
    `Index.rebuilding` works nevertheless.

    Raises:
        ConfigurationError: The data directory cannot be made; the reranker cannot be loaded, or needs token vectors that the
            embedding model does not give.
        MissingExtra: The reranker's packages, or the vector store's, are not installed.
    """
    await asyncio.to_thread(settings.make_data_dir)
    check_extra(settings)  # before a generation is made for a store that cannot be opened
    cross_encoder = None
    if settings.reranker == "maxsim":
        if not has_tokens(embedder):
            raise ConfigurationError(
                f"CITEWELL_RERANKER is maxsim, but the embedding model {embedder.name} gives no token vectors that fit: set "
                "CITEWELL_RERANKER to none or to a cross-encoder, or CITEWELL_EMBEDDING_MODEL to minilm"
            )
    elif settings.reranker != "none":
        from citewell.models.cross_encoder import CrossEncoderReranker

        cross_encoder = await asyncio.to_thread(CrossEncoderReranker, settings.reranker)
    index = Index(settings, embedder, cross_encoder=cross_encoder, guard=guard)
    try:
        yield index
    finally:
        await index.close()
        if cross_encoder is not None:
            cross_encoder.close()
