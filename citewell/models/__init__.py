"""Embedding models, chat models and rerankers, chosen by name."""

from __future__ import annotations

from citewell.errors import ConfigurationError
from citewell.models.embedder import Embedder, Encoded, Progress, Vectors
from citewell.settings import Settings

__all__ = ["Embedder", "Encoded", "Progress", "Vectors", "open_embedder"]


def open_embedder(settings: Settings) -> Embedder:
    """The embedding model that `CITEWELL_EMBEDDING_MODEL` names; `close()` it when done.

    Raises:
        MissingExtra: It needs packages that are not installed.
        ConfigurationError: It cannot be loaded; the message says why.
    """
    name = settings.embedding_model
    if name == "minilm":
        from citewell.models.minilm import MiniLM

        return MiniLM()
    raise ConfigurationError(f"CITEWELL_EMBEDDING_MODEL: no embedding model is called {name!r}")
