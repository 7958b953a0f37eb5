"""Vector stores: each a small adapter over its LangChain integration, chosen by `CITEWELL_VECTOR_STORE`."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from citewell.documents import Chunk, Source
from citewell.errors import MissingExtra
from citewell.models import Vectors
from citewell.retrieval.filters import Filter, field_value
from citewell.settings import Settings

_PACKAGES: Final = {"pinecone": "langchain_pinecone", "weaviate": "langchain_weaviate"}
"""What has to be installed for a store, by the extra that brings it."""


class VectorStore(Protocol):
    """What the index needs of a vector store. Blocking; the index calls it from threads, with its own deadline.

    Every method raises `StoreError` or one of its kinds, and no other error. An adapter holds one namespace, which it makes if there is none.
    """

    is_prompt: bool
    """Whether a search finds what was added a moment ago."""

    def add(self, keys: Sequence[int], vectors: Vectors, chunks: Sequence[Chunk]) -> None:
        """Insert or overwrite. `vectors`: float32[n, dimension], rows of length 1. Any number."""

    def delete(self, keys: Sequence[int]) -> None:
        """Remove any number of keys; they need not exist."""

    def search(self, vector: Vectors, limit: int, filter_: Filter | None = None) -> list[tuple[int, float]]:
        """Nearest first, as (key, score); score = (1 + cosine) / 2, so 0..1. Only what passes the filter is ranked."""

    def ping(self) -> None:
        """Raise what a search would where the store cannot be reached; one inside this process always can."""

    def refresh(self) -> None:
        """See what another process wrote since."""

    def drop(self) -> None:
        """Remove the whole namespace and everything in it."""

    def close(self) -> None:
        """Release connections and memory."""


def open_store(settings: Settings, *, namespace: str, folder: Path, dimension: int) -> VectorStore:
    """Open the store that the settings name.

    Args:
        settings: `vector_store` decides.
        namespace: What keeps this generation apart from everything else in the store.
        folder: Where an embedded store may keep its files.
        dimension: Length of a vector.

    Raises:
        MissingExtra: The store's packages are not installed.
        ConfigurationError: The store does not fit the settings.
        StoreError: It cannot be reached.
    """
    # The whole package, before a store's packages import parts of it: another thread may be importing it for the embedding model, and
    # they would find it half initialised.
    import numpy  # noqa: F401

    check_extra(settings)
    kind, _, rest = settings.vector_store.partition(":")
    if settings.vector_store == "chroma":
        from citewell.retrieval.stores.chroma import embedded

        return embedded(folder, namespace)
    if kind.startswith("chroma+"):
        from citewell.retrieval.stores.chroma import server

        return server(settings.vector_store.removeprefix("chroma+"), namespace, timeout_s=settings.retrieval_timeout_s)
    if kind == "pinecone":
        from citewell.retrieval.stores.pinecone import PineconeStore

        assert settings.pinecone_api_key is not None, "the settings see to it"
        key = settings.pinecone_api_key.get_secret_value()
        return PineconeStore(rest, namespace, api_key=key, dimension=dimension)
    from citewell.retrieval.stores.weaviate import WeaviateStore

    secret = settings.weaviate_api_key
    return WeaviateStore(
        settings.vector_store.removeprefix("weaviate+"), namespace,
        api_key=secret.get_secret_value() if secret else None, timeout_s=settings.retrieval_timeout_s,
    )  # fmt: skip


def check_extra(settings: Settings) -> None:
    """Check that the packages that the store needs are installed.

    Raises:
        MissingExtra: They are not.
    """
    extra = re.split("[:+]", settings.vector_store)[0]
    if extra in _PACKAGES and importlib.util.find_spec(_PACKAGES[extra]) is None:
        raise MissingExtra(extra, needed_for=f"CITEWELL_VECTOR_STORE={extra}")


def metadata(chunk: Chunk | Source) -> dict[str, str | int | list[str]]:
    """What a store keeps with a vector: exactly what can be filtered on. The text is in the catalog alone."""
    return {
        "source": str(field_value(chunk, "source")), "title": str(field_value(chunk, "title")),
        "type": str(field_value(chunk, "type")), "date": int(str(field_value(chunk, "date"))),
        "tags": ["", *chunk.tags], "access": str(field_value(chunk, "access")),
    }  # fmt: skip
