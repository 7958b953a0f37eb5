"""A stand-in for Pinecone's HTTP API, on loopback: control plane and data plane, as far as the adapter uses them.

It is not Pinecone. It keeps vectors in memory, compares them exactly, and reads filters as Pinecone's documentation
defines them. Where PINECONE_API_KEY is set, the same tests run against the real one.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np


class PineconeStandIn:
    """Serves until `close`. `refuse_with` makes it answer everything with that status."""

    def __init__(self) -> None:
        self.indexes: dict[str, dict[str, Any]] = {}
        self.namespaces: dict[str, dict[str, tuple[np.ndarray, dict[str, Any]]]] = {}
        self.refuse_with: int | None = None
        self.api_key = "pcsk-stand-in"
        handler = type("Handler", (_Handler,), {"stand_in": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, object]:
        match method, path.strip("/").split("/"):
            case "GET", ["indexes"]:
                return 200, {"indexes": list(self.indexes.values())}
            case "POST", ["indexes"]:
                self.indexes[body["name"]] = {
                    "name": body["name"], "dimension": body["dimension"], "metric": body["metric"], "host": self.address,
                    "spec": body["spec"], "status": {"ready": True, "state": "Ready"}, "vector_type": "dense",
                    "deletion_protection": "disabled",
                }  # fmt: skip
                return 201, self.indexes[body["name"]]
            case "GET", ["indexes", name]:
                return (200, self.indexes[name]) if name in self.indexes else (404, {"error": {"message": "no index"}})
            case "POST", ["vectors", "upsert"]:
                space = self.namespaces.setdefault(body.get("namespace", ""), {})
                for each in body["vectors"]:
                    space[each["id"]] = (np.array(each["values"]), each.get("metadata", {}))
                return 200, {"upsertedCount": len(body["vectors"])}
            case "POST", ["vectors", "delete"]:
                return self._delete(body)
            case "POST", ["describe_index_stats"]:
                spaces = {name: {"vectorCount": len(space)} for name, space in self.namespaces.items()}
                return 200, {"namespaces": spaces, "dimension": 384, "indexFullness": 0, "totalVectorCount": 0}
            case "POST", ["query"]:
                return 200, self._query(body)
        return 404, {"code": 5, "message": f"the stand-in has no {method} {path}"}

    def _delete(self, body: dict[str, Any]) -> tuple[int, object]:
        name = body.get("namespace", "")
        if name not in self.namespaces:
            return 404, {"code": 5, "message": "Namespace not found", "details": []}
        if body.get("deleteAll"):
            del self.namespaces[name]
        for id_ in body.get("ids", []):
            self.namespaces[name].pop(id_, None)
        return 200, {}

    def _query(self, body: dict[str, Any]) -> dict[str, Any]:
        wanted = np.array(body["vector"])
        hits = [
            (float(vector @ wanted / (np.linalg.norm(vector) * np.linalg.norm(wanted))), id_, kept)
            for id_, (vector, kept) in self.namespaces.get(body.get("namespace", ""), {}).items()
            if passes(body.get("filter") or {}, kept)
        ]
        best = sorted(hits, key=lambda hit: -hit[0])[: body["topK"]]
        return {
            "matches": [{"id": id_, "score": score, "values": [], "metadata": kept} for score, id_, kept in best],
            "namespace": body.get("namespace", ""), "usage": {"readUnits": 1},
        }  # fmt: skip


def passes(where: dict[str, Any], kept: dict[str, Any]) -> bool:
    for key, wanted in where.items():
        if key == "$and":
            held = all(passes(part, kept) for part in wanted)
        elif key == "$or":
            held = any(passes(part, kept) for part in wanted)
        else:
            held = all(_compare(operator, kept.get(key), value) for operator, value in wanted.items())
        if not held:
            return False
    return True


def _compare(operator: str, have: Any, want: Any) -> bool:
    values = have if isinstance(have, list) else [have]
    if operator in ("$gt", "$gte", "$lt", "$lte"):
        return isinstance(have, int | float) and {
            "$gt": have > want, "$gte": have >= want, "$lt": have < want, "$lte": have <= want,
        }[operator]  # fmt: skip
    found = any(value in want for value in values) if isinstance(want, list) else want in values
    return found if operator in ("$eq", "$in") else not found


class _Handler(BaseHTTPRequestHandler):
    stand_in: PineconeStandIn
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._handle({})

    def do_POST(self) -> None:
        self._handle(json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}"))

    def _handle(self, body: dict[str, Any]) -> None:
        if self.stand_in.refuse_with is not None:
            status, said = self.stand_in.refuse_with, {"code": 2, "message": "secret words of the vendor"}
        elif self.headers.get("Api-Key") != self.stand_in.api_key:
            status, said = 401, {"code": 16, "message": "Invalid API key"}
        else:
            status, said = self.stand_in.answer(self.command, self.path.split("?")[0], body)  # type: ignore[assignment]
        data = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
