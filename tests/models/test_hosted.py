"""Embeddings from a server on loopback that speaks OpenAI's API, from the command line to an answer."""

import hashlib
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.service import LIBRARY, ROOT, environment, ingest, running

DIMENSION = 64


class _Embeddings(http.server.BaseHTTPRequestHandler):
    """Counts words: texts that share some are near each other, in every process."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        texts = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
        rows = [
            {"object": "embedding", "index": number, "embedding": _counts(text)} for number, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
        body = json.dumps({"object": "list", "model": asked["model"], "data": rows, "usage": usage}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _counts(text: str) -> list[float]:
    counts = [0.01] * DIMENSION
    for word in text.lower().split():
        counts[hashlib.sha256(word.encode()).digest()[0] % DIMENSION] += 1.0
    return counts


@contextmanager
def embeddings() -> Iterator[dict[str, str]]:
    """Settings for the server that runs meanwhile."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Embeddings) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield {
                "CITEWELL_EMBEDDING_MODEL": "openai:text-embedding-3-small", "CITEWELL_RERANKER": "none",
                "OPENAI_API_KEY": "none", "OPENAI_BASE_URL": f"http://127.0.0.1:{server.server_port}/v1",
            }  # fmt: skip
        finally:
            server.shutdown()


@pytest.fixture
def hosted() -> Iterator[dict[str, str]]:
    with embeddings() as settings:
        yield settings


def test_httpx_is_whole_before_a_hosted_model_is_called(tmp_path: Path) -> None:
    """The SDK looks it up in `sys.modules` at each call, where another thread may just be importing it."""
    code = "import sys, citewell.models.hosted; sys.exit(not hasattr(sys.modules.get('httpx'), 'Timeout'))"
    subprocess.run([sys.executable, "-c", code], env=environment(tmp_path), cwd=ROOT, check=True)


def test_documents_are_ingested_and_asked_with_hosted_embeddings(tmp_path: Path, hosted: dict[str, str]) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    ingest(data_dir, LIBRARY, **hosted)
    with running(data_dir, **hosted) as live:
        asked = {"message": "How high is the tower of the lighthouse?", "include_sources": True}
        answer = httpx.post(f"{live.url}/chat", json=asked, timeout=60).json()
    assert "42 metres" in answer["response"]
    assert answer["sources"][0]["status"] == "verified"
