"""Finding the chunks that answer a question: stores, keyword index, fusion, reranking, and the index over all of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from citewell.models import Embedder
from citewell.retrieval.generation import NewSource
from citewell.retrieval.index import Index
from citewell.retrieval.trace import Trace
from citewell.settings import Settings

__all__ = ["Index", "NewSource", "Trace", "open_index"]


@asynccontextmanager
async def open_index(settings: Settings, embedder: Embedder) -> AsyncIterator[Index]:
    """The index under `settings.data_dir`, made empty where there is none yet.

    Opening does not look at the index: the first read or write does, and raises `IndexMismatch` when it was built with
    other settings; `Index.rebuilding` works all the same.
    """
    index = Index(settings, embedder)
    try:
        yield index
    finally:
        await index.close()
