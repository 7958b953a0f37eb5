"""How vectors get into LangChain's stores, which would rather compute them."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.embeddings import Embeddings

from citewell.models import Vectors


class HandOver(Embeddings):
    """Gives LangChain's stores vectors that are already computed, under the texts they stand for (here: the keys).

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
