"""A stand-in for Weaviate's REST and gRPC APIs, on loopback, as far as the adapter uses them.

It is not Weaviate. The messages are the client's own generated ones; vectors are kept in memory and compared exactly,
and filters mean what Weaviate's documentation says of properties with `field` tokenization. Where
CITEWELL_TEST_WEAVIATE_URL is set, the same tests run against the real one.
"""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from weaviate.proto.v1 import base_pb2, batch_delete_pb2, batch_pb2, properties_pb2, search_get_pb2, weaviate_pb2_grpc


class WeaviateStandIn(weaviate_pb2_grpc.WeaviateServicer):
    """Serves until `close`. `refuse_with` makes every gRPC call end with that status; `drop_objects` refuses objects."""

    def __init__(self) -> None:
        self.schema: dict[str, dict[str, Any]] = {}
        self.objects: dict[str, dict[str, tuple[np.ndarray, dict[str, Any]]]] = {}
        self.refuse_with: grpc.StatusCode | None = None
        self.drop_objects = False
        self._grpc = grpc.server(ThreadPoolExecutor(4))
        weaviate_pb2_grpc.add_WeaviateServicer_to_server(self, self._grpc)  # type: ignore[no-untyped-call]
        healthy = health.HealthServicer()
        healthy.set("weaviate.v1.Weaviate", health_pb2.HealthCheckResponse.SERVING)
        healthy.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(healthy, self._grpc)
        self.grpc_port = self._grpc.add_insecure_port("127.0.0.1:0")
        self._grpc.start()
        handler = type("Handler", (_Handler,), {"stand_in": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}?grpc={self.grpc_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._grpc.stop(None)
        self._server.shutdown()
        self._server.server_close()

    # --- gRPC -----------------------------------------------------------------------------------

    def BatchObjects(self, request: batch_pb2.BatchObjectsRequest, context: Any) -> batch_pb2.BatchObjectsReply:
        self._refuse(context)
        reply = batch_pb2.BatchObjectsReply(took=0.001)
        for number, each in enumerate(request.objects):
            if self.drop_objects:
                reply.errors.append(batch_pb2.BatchObjectsReply.BatchError(index=number, error="disk full"))
                continue
            kept: dict[str, Any] = dict(each.properties.non_ref_properties)
            kept |= {many.prop_name: list(many.values) for many in each.properties.text_array_properties}
            raw = each.vector_bytes or (each.vectors[0].vector_bytes if each.vectors else b"")
            self.objects.setdefault(each.collection, {})[each.uuid] = (np.frombuffer(raw, "<f4"), kept)
        return reply

    def BatchDelete(
        self, request: batch_delete_pb2.BatchDeleteRequest, context: Any
    ) -> batch_delete_pb2.BatchDeleteReply:
        self._refuse(context)
        held = self.objects.setdefault(request.collection, {})
        gone = [id_ for id_, (_, kept) in held.items() if passes(request.filters, {**kept, "_id": id_})]
        for id_ in gone:
            del held[id_]
        return batch_delete_pb2.BatchDeleteReply(took=0.001, failed=0, matches=len(gone), successful=len(gone))

    def Search(self, request: search_get_pb2.SearchRequest, context: Any) -> search_get_pb2.SearchReply:
        self._refuse(context)
        near = request.near_vector
        wanted = np.frombuffer(near.vector_bytes or near.vectors[0].vector_bytes, "<f4")
        hits = sorted(
            (1 - float(vector @ wanted / (np.linalg.norm(vector) * np.linalg.norm(wanted))), id_, kept)
            for id_, (vector, kept) in self.objects.get(request.collection, {}).items()
            if not request.HasField("filters") or passes(request.filters, {**kept, "_id": id_})
        )[: request.limit]
        reply = search_get_pb2.SearchReply(took=0.001)
        for distance, id_, kept in hits:
            reply.results.append(search_get_pb2.SearchResult(
                metadata=search_get_pb2.MetadataResult(id=id_, distance=distance, distance_present=True),
                properties=search_get_pb2.PropertiesResult(
                    target_collection=request.collection,
                    non_ref_props=properties_pb2.Properties(fields={"key": properties_pb2.Value(text_value=kept["key"])}),
                ),
            ))  # fmt: skip
        return reply

    def _refuse(self, context: Any) -> None:
        if self.refuse_with is not None:
            context.abort(self.refuse_with, "secret words of the vendor")

    # --- REST -----------------------------------------------------------------------------------

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, object]:
        match method, path.strip("/").split("/")[1:]:
            case "GET", ["meta"]:
                return 200, {"hostname": "http://[::]:8080", "modules": {}, "version": "1.30.0"}
            case "GET", ["nodes"]:
                return 200, {
                    "nodes": [
                        {"name": "one", "status": "HEALTHY", "batchStats": {"queueLength": 0, "ratePerSecond": 100}}
                    ]
                }
            case "GET", [".well-known", "ready" | "live"]:
                return 200, {}
            case "POST", ["schema"]:
                described = {**_DEFAULTS, **body}
                described["vectorIndexConfig"] = {**_DEFAULTS["vectorIndexConfig"], **body.get("vectorIndexConfig", {})}
                described["properties"] = [
                    {"indexFilterable": True, "indexSearchable": each["dataType"] == ["text"], **each}
                    for each in body["properties"]
                ]
                self.schema[body["class"]] = described
                return 200, described
            case "GET", ["schema"]:
                return 200, {"classes": list(self.schema.values())}
            case "GET", ["schema", name]:
                return (200, self.schema[name]) if name in self.schema else (404, None)
            case "DELETE", ["schema", name]:
                self.schema.pop(name, None)
                self.objects.pop(name, None)
                return 200, None
        return 404, None


def passes(where: base_pb2.Filters, kept: dict[str, Any]) -> bool:
    kind = base_pb2.Filters.Operator.Name(where.operator).removeprefix("OPERATOR_")
    if kind in ("AND", "OR"):
        return (all if kind == "AND" else any)(passes(part, kept) for part in where.filters)
    name = where.target.property or (where.on[0] if where.on else "")
    have = kept.get(name)
    values = have if isinstance(have, list) else [have]
    want: Any = getattr(where, str(where.WhichOneof("test_value")))
    if kind in ("CONTAINS_ANY", "CONTAINS_ALL"):
        return (any if kind == "CONTAINS_ANY" else all)(value in values for value in want.values)
    compare: dict[str, Callable[[], bool]] = {
        "EQUAL": lambda: want in values, "NOT_EQUAL": lambda: want not in values,
        "GREATER_THAN": lambda: have > want, "GREATER_THAN_EQUAL": lambda: have >= want,
        "LESS_THAN": lambda: have < want, "LESS_THAN_EQUAL": lambda: have <= want,
    }  # fmt: skip
    return compare[kind]()


_DEFAULTS: dict[str, Any] = {
    "description": "", "vectorizer": "none", "vectorIndexType": "hnsw", "properties": [], "moduleConfig": {},
    "multiTenancyConfig": {"enabled": False, "autoTenantCreation": False, "autoTenantActivation": False},
    "replicationConfig": {"factor": 1, "asyncEnabled": False, "deletionStrategy": "NoAutomatedResolution"},
    "invertedIndexConfig": {
        "bm25": {"b": 0.75, "k1": 1.2}, "cleanupIntervalSeconds": 60, "indexNullState": False, "indexTimestamps": False,
        "indexPropertyLength": False, "stopwords": {"preset": "en", "additions": None, "removals": None},
    },
    "shardingConfig": {
        "virtualPerPhysical": 128, "desiredCount": 1, "actualCount": 1, "desiredVirtualCount": 128,
        "actualVirtualCount": 128, "key": "_id", "strategy": "hash", "function": "murmur3",
    },
    "vectorIndexConfig": {
        "distance": "cosine", "ef": -1, "efConstruction": 128, "maxConnections": 32, "dynamicEfMin": 100,
        "dynamicEfMax": 500, "dynamicEfFactor": 8, "vectorCacheMaxObjects": 1_000_000, "flatSearchCutoff": 40_000,
        "cleanupIntervalSeconds": 300, "skip": False, "filterStrategy": "sweeping", "pq": {"enabled": False},
        "bq": {"enabled": False}, "sq": {"enabled": False},
    },
}  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    stand_in: WeaviateStandIn
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_DELETE(self) -> None:
        self._handle()

    def _handle(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, said = self.stand_in.answer(self.command, self.path.split("?")[0], json.loads(sent) if sent else {})
        data = b"" if said is None else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
