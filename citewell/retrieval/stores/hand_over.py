"""Hands vectors to LangChain's stores, which expect to compute them."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.embeddings import Embeddings

from citewell.models import Vectors


class HandOver(Embeddings):
    """An "embedding model" that returns vectors computed before, by the text they belong to (here: the key).

    LangChain's `add_texts` takes an embedding model and no vectors; ours come with token vectors from one pass.
    """

    def __init__(self) -> None:
        self._vectors: dict[str, Vectors] = {}

    def hold(self, texts: Sequence[str], vectors: Vectors) -> None:
        self._vectors = dict(zip(texts, vectors, strict=True))

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self._vectors[text].tolist() for text in texts]

    def embed_query(self, text: str) -> list[float]:
        found: list[float] = self._vectors[text].tolist()
        return found
