"""Embedding models, chat models and rerankers, chosen by name."""

from __future__ import annotations

from citewell.models.embedder import Embedder, Encoded, Progress, Vectors
from citewell.settings import Settings

__all__ = ["Embedder", "Encoded", "Progress", "Vectors", "open_embedder"]


def open_embedder(settings: Settings) -> Embedder:
    """The embedding model that `CITEWELL_EMBEDDING_MODEL` names; `load()` it to know that it works, `close()` it when done.

    Raises:
        MissingExtra: It needs packages that are not installed.
        ConfigurationError: It cannot be loaded; the message says why.
        ModelError: A hosted model of unknown dimension cannot be reached.
    """
    name = settings.embedding_model
    if name == "minilm":
        from citewell.models.minilm import MiniLM

        return MiniLM()
    if name.startswith("openai:"):
        from citewell.models.hosted import OpenAIEmbedder

        return OpenAIEmbedder(settings)
    from citewell.models.sbert import SentenceTransformerEmbedder

    return SentenceTransformerEmbedder(name)
