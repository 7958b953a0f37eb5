"""Pinecone, through langchain-pinecone. The extra `pinecone`.

`pinecone:INDEX`, or `pinecone:INDEX@http://host:port` for a control plane elsewhere (Pinecone Local). `?cloud=…&region=…`
says where an index that is not there yet is made. Writes become visible to reads within seconds; until then keyword search
alone finds the new chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl

import urllib3.exceptions
from langchain_pinecone import PineconeVectorStore
from pinecone import Pinecone, ServerlessSpec
from pinecone import exceptions as vendor

from citewell.documents import Chunk
from citewell.errors import ConfigurationError, StoreError, StoreTimeout, StoreUnavailable
from citewell.models import Vectors
from citewell.retrieval.filters import All, Either, Filter, Operator, Test
from citewell.retrieval.stores import metadata
from citewell.retrieval.stores.faults import Faults, mapped
from citewell.retrieval.stores.hand_over import HandOver

FAULTS: Faults = {
    vendor.PineconeException: StoreError,
    vendor.ServiceException: StoreUnavailable,
    vendor.UnauthorizedException: ConfigurationError,
    vendor.ForbiddenException: ConfigurationError,
    vendor.PineconeConfigurationError: ConfigurationError,
    urllib3.exceptions.HTTPError: StoreUnavailable,
    urllib3.exceptions.TimeoutError: StoreTimeout,
    OSError: StoreUnavailable,
}
WHERE = {"cloud": "aws", "region": "us-east-1"}
"""Where a missing index is made: the region that every Pinecone plan has."""
_UPSERT = 200
"""Vectors per request: Pinecone takes 2 MB, and 384 numbers as JSON are about 8 KB."""
_DELETE = 1000
"""Ids per request: Pinecone's limit."""

_OPERATORS: dict[Operator, str] = {
    "eq": "$eq", "ne": "$ne", "in": "$in", "nin": "$nin", "lt": "$lt", "lte": "$lte", "gt": "$gt", "gte": "$gte",
    "has": "$in", "lacks": "$nin",
}  # fmt: skip


class PineconeStore:
    """One namespace of a Pinecone index, which is made (serverless, cosine) where there is none."""

    is_prompt = False

    def __init__(self, place: str, namespace: str, *, api_key: str, dimension: int) -> None:
        """`place` is INDEX or INDEX@CONTROL-PLANE-URL, either with ?cloud=CLOUD&region=REGION.

        Raises:
            ConfigurationError: `place` asks for something else, or the index that is there has another shape.
        """
        place, _, query = place.partition("?")
        where = dict(parse_qsl(query))
        if where.keys() - WHERE.keys() or (query and not where):
            raise ConfigurationError(
                f"CITEWELL_VECTOR_STORE: after pinecone:INDEX? only {' and '.join(WHERE)} can be said"
            )
        name, _, url = place.partition("@")
        self._held = HandOver()
        with mapped(FAULTS, "Pinecone"):
            client = Pinecone(api_key=api_key, host=url or None)
            if not client.has_index(name):
                client.create_index(name, ServerlessSpec(**WHERE | where), dimension=dimension, metric="cosine")
            described = client.describe_index(name)
            if (described.dimension, described.metric) != (dimension, "cosine"):
                raise ConfigurationError(
                    f"The Pinecone index {name} has {described.dimension} dimensions and metric {described.metric}; "
                    f"the embedding model needs {dimension} and cosine. Name another index in CITEWELL_VECTOR_STORE."
                )
            host = f"http://{described.host}" if url.startswith("http://") else described.host
            self._store = PineconeVectorStore(index=client.Index(host=host), embedding=self._held, namespace=namespace)

    def add(self, keys: Sequence[int], vectors: Vectors, chunks: Sequence[Chunk]) -> None:
        ids = [str(key) for key in keys]
        self._held.hold(ids, vectors)
        with mapped(FAULTS, "Pinecone"):
            self._store.add_texts(
                ids, [dict(metadata(chunk)) for chunk in chunks], ids, async_req=False, embedding_chunk_size=_UPSERT
            )

    def delete(self, keys: Sequence[int]) -> None:
        for start in range(0, len(keys), _DELETE):
            with mapped(FAULTS, "Pinecone"):
                self._forgiving(ids=[str(key) for key in keys[start : start + _DELETE]])

    def search(self, vector: Vectors, limit: int, filter_: Filter | None = None) -> list[tuple[int, float]]:
        where = _translate(filter_) if filter_ is not None else None
        with mapped(FAULTS, "Pinecone"):
            found = self._store.similarity_search_by_vector_with_score(vector.tolist(), k=limit, filter=where)
        return [(int(str(hit.id)), min(1.0, max(0.0, (1 + cosine) / 2))) for hit, cosine in found]

    def ping(self) -> None:
        with mapped(FAULTS, "Pinecone"):
            self._store.index.describe_index_stats()

    def refresh(self) -> None:
        """Nothing to do: the server sees every write."""

    def drop(self) -> None:
        with mapped(FAULTS, "Pinecone"):
            self._forgiving(delete_all=True)

    def close(self) -> None:
        with mapped(FAULTS, "Pinecone"):
            self._store.index.close()  # type: ignore[no-untyped-call]

    def _forgiving(self, **what: Any) -> None:
        try:
            self._store.delete(**what)
        except vendor.NotFoundException:  # a namespace exists only once something is in it
            return


def _translate(tree: Filter) -> dict[str, Any]:
    match tree:
        case All(parts):
            return {"$and": [_translate(part) for part in parts]}
        case Either(parts):
            return {"$or": [_translate(part) for part in parts]}
        case Test(field, "has" | "lacks" as operator, value):
            return {field: {_OPERATORS[operator]: [value]}}
        case Test(field, operator, value):
            return {field: {_OPERATORS[operator]: list(value) if isinstance(value, tuple) else value}}
