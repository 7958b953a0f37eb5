"""Embeddings from a server on loopback that speaks OpenAI's API, from the command line to an answer."""

import hashlib
import http.server
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest

from citewell.errors import BudgetExceeded, ConfigurationError, ModelRefused
from citewell.ingestion.upload import Upload, ingest_upload
from citewell.models.payer import paid_by
from citewell.service import Service
from citewell.settings import Settings
from citewell.wiring import open_service
from graph.state import RunContext
from tests.service import LIBRARY, ROOT, environment, ingest, running

DIMENSION = 64
TOWER = "How high is the tower of the lighthouse?"
REQUESTS: Counter[str] = Counter()
"""Made so far, by the server's address."""


class _Embeddings(http.server.BaseHTTPRequestHandler):
    """Counts words (in a vector, and of tokens one a text): texts that share some are near each other, in every process."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        texts = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
        rows = [
            {"object": "embedding", "index": number, "embedding": _counts(text)} for number, text in enumerate(texts)
        ]
        REQUESTS[f"http://{self.headers['host']}/v1"] += 1
        if any("refuse" in text for text in texts):
            self._answer(400, {"error": {"message": "as told"}})
            return
        usage = (
            None
            if any("nothing" in text for text in texts)
            else {"prompt_tokens": len(texts), "total_tokens": len(texts)}
        )
        self._answer(200, {"object": "list", "model": asked["model"], "data": rows, "usage": usage})

    def _answer(self, status: int, whole: dict[str, object]) -> None:
        body = json.dumps(whole).encode()
        self.send_response(status)
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


@asynccontextmanager
async def opened(data_dir: Path, hosted: dict[str, str], **limits: Any) -> AsyncIterator[Service]:
    settings = Settings(
        _env_file=None, data_dir=data_dir, embedding_model=hosted["CITEWELL_EMBEDDING_MODEL"], reranker="none",
        openai_api_key="none", openai_base_url=hosted["OPENAI_BASE_URL"], answer_from=0.0, **limits,
    )  # type: ignore[call-arg, arg-type]  # fmt: skip
    async with open_service(settings) as service:
        yield service


@pytest.fixture
def filled(tmp_path: Path, hosted: dict[str, str]) -> Path:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    ingest(data_dir, LIBRARY, **hosted)
    return data_dir


def context(caller: str) -> RunContext:
    return RunContext(caller=caller)


async def test_each_request_is_paid_for_by_who_asks_and_settled_at_what_the_provider_counts(
    filled: Path, hosted: dict[str, str]
) -> None:
    async with opened(filled, hosted, budget_usd_per_day=1.0, tokens_per_day=1_000_000) as service:
        await service.search(service.prepare(TOWER, context=context("ann")))
        assert await service.limits.spent("ann") == {
            "usd": 2e-8,
            "tokens": 1,
        }  # one text, a token by the server's count
        await service.search(service.prepare(TOWER, context=context("ann")))
        assert (await service.limits.spent("ann"))["tokens"] == 1  # remembered
        await service.search(service.prepare(TOWER, context=context("bob")))
        assert (await service.limits.spent("bob"))["tokens"] == 1  # but at nobody else's expense
        result = await service.ask(service.prepare(TOWER, context=context("bob")))
        assert "42 metres" in result.answer
        sentences = (await service.limits.spent("bob"))["tokens"] - 1
        assert sentences > 1  # the answerer without a key reads them in a thread
        assert (await service.limits.spent("ann"))["tokens"] == 1


async def test_no_request_is_made_that_the_day_has_no_room_for(filled: Path, hosted: dict[str, str]) -> None:
    async with opened(filled, hosted, tokens_per_day=2) as service:
        before = REQUESTS[hosted["OPENAI_BASE_URL"]]
        with pytest.raises(BudgetExceeded, match="2 tokens"):
            await service.ask(service.prepare(TOWER, context=context("ann")))
        assert REQUESTS[hosted["OPENAI_BASE_URL"]] == before
        with paid_by(service.limits, "ann"), pytest.raises(BudgetExceeded):
            await ingest_upload(
                service.index, service.settings, Upload("new.txt"), BytesIO(b"The new harbour opens in May.")
            )
        assert all("new.txt" not in source.uri for source in await service.index.sources())
        assert not list(filled.glob("uploads/**/new.txt"))


async def test_a_request_that_was_refused_is_given_back_and_one_without_a_count_stays_charged(
    filled: Path, hosted: dict[str, str]
) -> None:
    async with opened(filled, hosted, tokens_per_day=100_000, model_retries=0) as service:
        for words, expected in (("refuse this", 0), ("count nothing", len("count nothing") + 2)):
            asking = service.search(service.prepare(words, context=context(words)))
            if words.startswith("refuse"):
                with pytest.raises(ModelRefused):
                    await asking
            else:
                await asking
            assert (await service.limits.spent(words))["tokens"] == expected


async def test_a_model_without_a_price_stops_the_start_under_a_budget(tmp_path: Path, hosted: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="CITEWELL_EMBEDDING_MODEL: openai:own has no price"):
        async with opened(tmp_path, hosted | {"CITEWELL_EMBEDDING_MODEL": "openai:own"}, budget_usd_per_day=1.0):
            pass
