"""Chroma, embedded or as a server, through langchain-chroma."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import chromadb
import chromadb.errors
import httpx
from chromadb.api.collection_configuration import CreateHNSWConfiguration
from chromadb.config import Settings as ChromaSettings
from langchain_chroma import Chroma
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random

from citewell.documents import Chunk
from citewell.errors import CitewellError, ConfigurationError, StoreError, StoreTimeout, StoreUnavailable
from citewell.models import Vectors
from citewell.retrieval.filters import All, Either, Filter, Operator, Test, passes
from citewell.retrieval.stores import metadata
from citewell.retrieval.stores.faults import LOST, Faults, mapped
from citewell.retrieval.stores.hand_over import HandOver

FAULTS: Faults = {
    chromadb.errors.ChromaError: StoreError,
    chromadb.errors.RateLimitError: StoreUnavailable,
    chromadb.errors.ChromaAuthError: ConfigurationError,
    chromadb.errors.AuthorizationError: ConfigurationError,
    httpx.TimeoutException: StoreTimeout,
    httpx.HTTPError: StoreUnavailable,
    OSError: StoreUnavailable,
    ValueError: StoreError,  # the client raises bare ones, also where a server cannot be reached
}
_REFUSALS: dict[int, type[CitewellError]] = {
    401: ConfigurationError, 403: ConfigurationError, 429: StoreUnavailable,
}  # fmt: skip
HNSW: CreateHNSWConfiguration = {
    "space": "cosine",
    "ef_construction": 100,
    "max_neighbors": 16,
    "ef_search": 400,
    "sync_threshold": 2000,
}
"""`ef_search` is how broadly the graph is searched. Given the same vectors in the same calls, Chroma builds another graph each time, whatever
`num_threads` says. At 100, two indexes of the same 15,988 chunks gave different ones among the 50 nearest for 11 of 30 questions; at 400 for
one, as they find nearly all that an exact search finds.

`sync_threshold` is how many vectors the graph on disk may lag behind. Opening the store inserts them anew, at .13 ms each: with
5,000 every start took half a second longer than with 1,000. Writing the graph takes about .9 s per million vectors each time."""
_WIDER = 4
"""How many times the hits asked for are filtered here before Chroma's own filter is used."""
_BATCH = 1000
"""Vectors per call; the SQLite inside Chroma takes about 5,400."""

_OPERATORS: dict[Operator, str] = {
    "eq": "$eq", "ne": "$ne", "in": "$in", "nin": "$nin", "lt": "$lt", "lte": "$lte", "gt": "$gt", "gte": "$gte",
    "has": "$contains", "lacks": "$not_contains",
}  # fmt: skip


_again = retry(
    retry=retry_if_exception_type(StoreUnavailable), stop=stop_after_attempt(3), wait=wait_random(0.05, 0.25), reraise=True
)  # fmt: skip
"""A refused read is tried up to three times: unlike Pinecone's and Weaviate's, this client does not try again by itself."""

_spellings: set[str] = set()
_spelling = threading.Lock()


def embedded(folder: Path, namespace: str) -> ChromaStore:
    """Chroma inside this process, with its files in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    return ChromaStore(lambda: _Connection.to_folder(folder), namespace, lock=folder / "writing.lock")


def server(url: str, namespace: str, *, timeout_s: float) -> ChromaStore:
    """A Chroma server at `http://host:port` or `https://host:port`."""
    return ChromaStore(lambda: _Connection.to_server(url, timeout_s), namespace, lock=None)


class _Connection:
    """A Chroma client, and what must be undone when it is closed."""

    def __init__(self, client: Any, spelling: str | None = None) -> None:
        self.client = client
        self._path = spelling
        self.collection: Any = None

    @classmethod
    def to_folder(cls, folder: Path) -> _Connection:
        """A view of the files as they are now.

        Within a process Chroma shares one view per spelling of the path, and that view never sees what another process writes. A
        spelling that is not in use gives a fresh view, while searches go on in the old one.
        """
        with _spelling:
            path = next(name for n in itertools.count() if (name := f"{folder}{'/.' * n}") not in _spellings)
            _spellings.add(path)
        return cls(chromadb.PersistentClient(path, settings=ChromaSettings(anonymized_telemetry=False)), path)

    @classmethod
    def to_server(cls, url: str, timeout_s: float) -> _Connection:
        address = urlsplit(url)
        client = chromadb.HttpClient(
            str(address.hostname), address.port or 8000, ssl=address.scheme == "https",
            settings=ChromaSettings(anonymized_telemetry=False),
        )  # fmt: skip
        client._server._session.timeout = httpx.Timeout(timeout_s)  # type: ignore[attr-defined]  # its own is endless, and no setting changes it
        return cls(client)

    def close(self) -> None:
        self.client.close()
        with _spelling:
            _spellings.discard(self._path or "")


class ChromaStore:
    """One collection of a Chroma.

    Args:
        connect: Makes a connection.
        namespace: The collection's name.
        lock: File that keeps other processes from reading the graph while it is being written; embedded only.
    """

    is_prompt = True

    def __init__(self, connect: Callable[[], _Connection], namespace: str, *, lock: Path | None) -> None:
        self._connect = connect
        self._namespace = namespace
        self._lock = lock
        self._held = HandOver()
        self._previous: _Connection | None = None
        self._has_failed = False
        self._connection, self._chroma = self._open()

    def add(self, keys: Sequence[int], vectors: Vectors, chunks: Sequence[Chunk]) -> None:
        for start in range(0, len(keys), _BATCH):
            ids = [str(key) for key in keys[start : start + _BATCH]]
            self._held.hold(ids, vectors[start : start + _BATCH])
            kept = [metadata(chunk) for chunk in chunks[start : start + _BATCH]]
            with self._writing():
                self._chroma.add_texts(ids, metadatas=kept, ids=ids)

    def delete(self, keys: Sequence[int]) -> None:
        for start in range(0, len(keys), _BATCH):
            with self._writing():
                self._chroma.delete([str(key) for key in keys[start : start + _BATCH]])

    def search(self, vector: Vectors, limit: int, filter_: Filter | None = None) -> list[tuple[int, float]]:
        if filter_ is None:
            return [hit for hit, _ in self._query(vector, limit, include=["distances"])]
        # Chroma evaluates a filter in SQLite and lists all that pass, which takes longer the larger the index is (60 ms at 21,000
        # chunks). Mostly the nearest that pass are among the nearest of all, which are filtered here with the same result.
        wide = self._query(vector, limit * _WIDER, include=["distances", "metadatas"])
        passing = [hit for hit, kept in wide if passes(filter_, kept.__getitem__)]
        if len(passing) >= limit:
            return passing[:limit]
        return [hit for hit, _ in self._query(vector, limit, where=_translate(filter_), include=["distances"])]

    @_again
    def _query(self, vector: Vectors, limit: int, **how: Any) -> list[tuple[tuple[int, float], dict[str, Any]]]:
        """(key, score) and metadata (empty unless included), nearest first."""
        with _mapped():
            # LangChain's own search also fetches text and metadata of every hit, which is 3 of its 5 milliseconds.
            found = self._connection.collection.query(query_embeddings=[vector], n_results=limit, **how)
        kept = found["metadatas"][0] if found["metadatas"] else [{}] * len(found["ids"][0])
        # Chroma's cosine distance is 1 - cosine, 0..2, give or take rounding.
        return [
            ((int(id_), min(1.0, max(0.0, 1 - distance / 2))), metadata)
            for id_, distance, metadata in zip(found["ids"][0], found["distances"][0], kept, strict=True)
        ]

    def ping(self) -> None:
        with _mapped():
            self._connection.client.heartbeat()

    def refresh(self) -> None:
        if self._lock is None:
            return
        before = self._connection
        self._connection, self._chroma = self._open()
        if self._previous is not None:  # a search may still run in the view before this one, not in the one before that
            self._previous.close()
        self._previous = before

    def drop(self) -> None:
        with _mapped(), contextlib.suppress(chromadb.errors.NotFoundError):
            self._connection.client.delete_collection(self._namespace)

    def close(self) -> None:
        for connection in (self._previous, self._connection):
            if connection is not None:
                connection.close()

    def _open(self) -> tuple[_Connection, Chroma]:
        with _mapped(), self._alone():
            connection = self._connect()
            chroma = Chroma(
                self._namespace, self._held, client=connection.client, collection_configuration={"hnsw": HNSW},
            )  # fmt: skip
            connection.collection = connection.client.get_collection(self._namespace)
            # The client would build the embedding function that the server names, with each write, though vectors are given. One of
            # sentence-transformers runs code of the model's repository.
            for collection in (chroma._collection, connection.collection):
                collection._model.serialized_schema = None
            if self._lock is not None and connection.collection.count():
                # Chroma reads its graph at first use, which must be now, while nobody writes it.
                some = connection.collection.peek(1)
                connection.collection.query(query_embeddings=some["embeddings"], n_results=1, include=["distances"])
        return connection, chroma

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Write, in a fresh view where the last write failed: after a full disk, embedded Chroma may wait for itself for ever."""
        if self._has_failed:
            self.refresh()
        self._has_failed = True
        with _mapped(), self._alone():
            yield
        self._has_failed = False

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if self._lock is None:
            yield
            return
        with self._lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


@contextmanager
def _mapped() -> Iterator[None]:
    """Map errors to ours. What is no answer of Chroma's, such as a proxy's page, the client raises as a bare error with that text; httpx's
    own error is in its context."""
    with mapped(FAULTS, "Chroma"):
        try:
            yield
        except chromadb.errors.NotFoundError as exc:  # the collection, which was made when it was opened
            raise StoreError(LOST) from exc
        except Exception as exc:
            behind = exc.__context__ if type(exc) in (Exception, ValueError) else None
            while behind is not None and not isinstance(behind, httpx.HTTPError):
                behind = behind.__context__
            if isinstance(behind, httpx.HTTPStatusError):
                status = behind.response.status_code
                ours = _REFUSALS.get(status, StoreUnavailable if status >= 500 else StoreError)
                raise ours(f"{ours.title}: Chroma, or a proxy before it, answered {status}.") from exc
            if behind is None:
                raise
            raise behind from exc


def _translate(tree: Filter) -> dict[str, Any]:
    match tree:
        case All(parts):
            return {"$and": [_translate(part) for part in parts]}
        case Either(parts):
            return {"$or": [_translate(part) for part in parts]}
        case Test(field, operator, value):
            return {field: {_OPERATORS[operator]: list(value) if isinstance(value, tuple) else value}}
