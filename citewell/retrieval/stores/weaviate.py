"""Weaviate, through langchain-weaviate. The extra `weaviate`.

`weaviate+http://host:port` or `weaviate+https://host:port`, with `?grpc=PORT` where gRPC is not on 50051.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from functools import reduce
from typing import Any
from urllib.parse import parse_qs, urlsplit

import grpc
import httpx
import weaviate
from langchain_weaviate import WeaviateVectorStore
from weaviate import exceptions as vendor
from weaviate.classes.init import AdditionalConfig, Auth, Timeout
from weaviate.classes.query import Filter as Where
from weaviate.classes.query import MetadataQuery

from citewell.documents import Chunk
from citewell.errors import ConfigurationError, StoreError, StoreTimeout, StoreUnavailable
from citewell.models import Vectors
from citewell.retrieval.filters import All, Either, Filter, Test
from citewell.retrieval.stores import metadata
from citewell.retrieval.stores.faults import Faults, mapped
from citewell.retrieval.stores.hand_over import HandOver

FAULTS: Faults = {
    vendor.WeaviateBaseError: StoreError,
    vendor.WeaviateConnectionError: StoreUnavailable,
    vendor.WeaviateGRPCUnavailableError: StoreUnavailable,
    vendor.WeaviateStartUpError: StoreUnavailable,
    vendor.WeaviateRetryError: StoreUnavailable,
    vendor.WeaviateTimeoutError: StoreTimeout,
    vendor.AuthenticationFailedError: ConfigurationError,
    vendor.InsufficientPermissionsError: ConfigurationError,
    vendor.MissingScopeError: ConfigurationError,
    grpc.RpcError: StoreUnavailable,
    httpx.TimeoutException: StoreTimeout,
    httpx.HTTPError: StoreUnavailable,
    OSError: StoreUnavailable,
    ValueError: StoreError,  # langchain-weaviate's word for a failed query, and the JSON decoder's
}
_DELETE = 1000
_KEYS = uuid.UUID("6f0d1d2e-0c5e-5b0a-9d3b-6b1f5c2a7e11")
"""Namespace of the UUIDs under which Weaviate stores our keys."""


class WeaviateStore:
    """One collection of a Weaviate."""

    is_prompt = True

    def __init__(self, url: str, namespace: str, *, api_key: str | None, timeout_s: float) -> None:
        """`url` is http(s)://host:port, with `?grpc=PORT` where gRPC is not on 50051."""
        address = urlsplit(url)
        assert address.hostname, "the settings see to it"
        secure = address.scheme == "https"
        self._name = collection_name(namespace)
        self._held = HandOver()
        with mapped(FAULTS, "Weaviate"):
            self._client = weaviate.connect_to_custom(
                http_host=address.hostname, http_port=address.port or (443 if secure else 8080), http_secure=secure,
                grpc_host=address.hostname, grpc_port=int(parse_qs(address.query).get("grpc", ["50051"])[0]),
                grpc_secure=secure, auth_credentials=Auth.api_key(api_key) if api_key else None,
                additional_config=AdditionalConfig(timeout=Timeout(init=timeout_s, query=timeout_s, insert=timeout_s * 6)),
            )  # fmt: skip
            self._store = WeaviateVectorStore(self._client, self._name, "key", self._held, schema=_schema(self._name))

    def add(self, keys: Sequence[int], vectors: Vectors, chunks: Sequence[Chunk]) -> None:
        ids = [str(key) for key in keys]
        self._held.hold(ids, vectors)
        with mapped(FAULTS, "Weaviate"):
            self._store.add_texts(ids, [dict(metadata(chunk)) for chunk in chunks], ids=[_uuid(key) for key in keys])
            failed = len(self._client.batch.failed_objects)
        if failed:  # langchain-weaviate only logs them
            raise StoreError(f"Weaviate did not take {failed} of {len(keys)} vectors.")

    def delete(self, keys: Sequence[int]) -> None:
        collection = self._client.collections.get(self._name)
        for start in range(0, len(keys), _DELETE):
            some = [_uuid(key) for key in keys[start : start + _DELETE]]
            with mapped(FAULTS, "Weaviate"):
                collection.data.delete_many(where=Where.by_id().contains_any(some))

    def search(self, vector: Vectors, limit: int, filter_: Filter | None = None) -> list[tuple[int, float]]:
        where = _translate(filter_) if filter_ is not None else None
        with mapped(FAULTS, "Weaviate"):
            # langchain-weaviate only offers `hybrid`, whose scores rank hits but do not say how near they are.
            found = self._client.collections.get(self._name).query.near_vector(
                vector.tolist(), limit=limit, filters=where, return_properties=["key"],
                return_metadata=MetadataQuery(distance=True),
            )  # fmt: skip
        # Weaviate's cosine distance is 1 - cosine, 0..2.
        return [
            (int(str(o.properties["key"])), min(1.0, max(0.0, 1 - (o.metadata.distance or 0.0) / 2)))
            for o in found.objects
        ]

    def ping(self) -> None:
        with mapped(FAULTS, "Weaviate"):
            self._client.get_meta()  # `is_ready` says no more than false, and prints why

    def refresh(self) -> None:
        """Nothing to do: the server sees every write."""

    def drop(self) -> None:
        with mapped(FAULTS, "Weaviate"):
            self._client.collections.delete(self._name)

    def close(self) -> None:
        self._client.close()


def _schema(name: str) -> dict[str, Any]:
    def text(field: str, kind: str = "text") -> dict[str, Any]:
        return {"name": field, "dataType": [kind], "tokenization": "field"}  # filters compare whole values, not words

    return {
        "class": name, "vectorizer": "none", "vectorIndexType": "hnsw", "vectorIndexConfig": {"distance": "cosine"},
        "properties": [
            *map(text, ("key", "source", "title", "type", "access")), text("tags", "text[]"),
            {"name": "date", "dataType": ["int"]},
        ],
    }  # fmt: skip


def collection_name(namespace: str) -> str:
    """Weaviate's names are letters, digits and `_`, the first a capital."""
    return "N" + re.sub(r"[^A-Za-z0-9]", lambda found: f"_{ord(found[0]):x}_", namespace)


def _uuid(key: int) -> str:
    return str(uuid.uuid5(_KEYS, str(key)))


def _translate(tree: Filter) -> Any:
    match tree:
        case All(parts):
            return reduce(lambda one, other: one & other, map(_translate, parts))
        case Either(parts):
            return reduce(lambda one, other: one | other, map(_translate, parts))
        case Test(field, "in", tuple() as values) if field != "date":
            return Where.by_property(field).contains_any([str(value) for value in values])
        case Test(field, "in", tuple() as values):
            return reduce(lambda one, other: one | other, [Where.by_property(field).equal(value) for value in values])
        case Test(field, "nin", tuple() as values):
            return reduce(
                lambda one, other: one & other, [Where.by_property(field).not_equal(value) for value in values]
            )
        case Test(field, "has", value):
            return Where.by_property(field).contains_any([str(value)])
        case Test(field, "lacks", str() as value):
            return Where.by_property(field).not_equal(value)  # on a list: no element is equal
        case Test(field, operator, str() | int() as value):
            by = Where.by_property(field)
            compare = {"eq": by.equal, "ne": by.not_equal, "lt": by.less_than, "lte": by.less_or_equal,
                       "gt": by.greater_than, "gte": by.greater_or_equal}  # fmt: skip
            return compare[operator](value)
    raise AssertionError(tree)  # `parse` makes no other test
