"""Readiness says it when what a turn needs has died, and when it is back."""

import resource
import sqlite3
import time
from contextlib import closing
from io import BytesIO
from pathlib import Path

import chromadb
import httpx
import pytest

from citewell.errors import CheckpointError, StoreError
from citewell.ingestion.upload import Upload, ingest_upload
from citewell.settings import Settings
from citewell.wiring import open_service
from graph.state import RunContext
from tests.chroma_server import chroma_process
from tests.operations.scraping import scrape, total
from tests.redis_servers import Server, server
from tests.service import LIBRARY, Live, ingest, problem, running

WITHIN_S = 30.0


def becomes(live: Live, status: int, part: str, *errors: str) -> str:
    """Wait until `/readyz` answers so, see that it is this part's doing and stands in the metrics, and return what is said of it."""
    deadline = time.monotonic() + WITHIN_S
    while (ready := httpx.get(f"{live.url}/readyz", timeout=10)).status_code != status:
        assert time.monotonic() < deadline, ready.text
        time.sleep(0.2)
    checks = ready.json()["checks"]
    assert checks[part].get("error") in (errors or (None,))
    assert all("error" not in check for name, check in checks.items() if name != part)
    assert total(scrape(live.url), "citewell_ready", part=part) == (status == 200)
    return str(checks[part].get("detail", ""))


def test_a_vector_store_that_dies_takes_the_service_out(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    with chroma_process(tmp_path / "server") as (url, process):
        store = {"CITEWELL_VECTOR_STORE": f"chroma+{url}"}
        ingest(data_dir, LIBRARY, **store)
        with running(data_dir, **store) as live:
            becomes(live, 200, "index")
            process.kill()
            process.wait()
            becomes(live, 503, "index", "store_unavailable")
            asked = httpx.post(f"{live.url}/chat", json={"message": "How high is the tower?"}, timeout=60)
            assert (asked.status_code, asked.json()["code"]) == (503, "store_unavailable")


def lose_all(url: str) -> None:
    """What a server without its volume is like."""
    client = chromadb.HttpClient("127.0.0.1", int(url.rpartition(":")[2]))
    for collection in client.list_collections():
        client.delete_collection(collection.name)


async def test_a_vector_store_that_lost_what_it_held_is_not_taken_for_documents_without_an_answer(
    tmp_path: Path,
) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    with chroma_process(tmp_path / "server") as (url, _):
        store = f"chroma+{url}"
        ingest(data_dir, LIBRARY, CITEWELL_VECTOR_STORE=store)
        with running(data_dir, CITEWELL_VECTOR_STORE=store) as live:
            becomes(live, 200, "index")
            lose_all(url)
            assert "ingest with --rebuild" in becomes(live, 503, "index", "store_error")
            added = httpx.post(
                f"{live.url}/uploads", params={"name": "note.txt"}, content=b"The boat leaves at nine.", timeout=60,
                headers={"content-type": "application/octet-stream"},
            )  # fmt: skip
            assert "ingest with --rebuild" in str(problem(added, "store_error", 502)["detail"])
        settings = Settings(_env_file=None, data_dir=data_dir, vector_store=store)
        async with open_service(settings) as service:  # which makes the collection anew, with nothing in it
            for access in (None, ("public",)):
                with pytest.raises(StoreError, match="holds nothing of this index"):
                    await service.ask(service.prepare("How high is the tower?", context=RunContext(access=access)))
            with pytest.raises(StoreError, match="ingest with --rebuild"):
                await service.checks()["index"]()
            with pytest.raises(StoreError, match="holds nothing of this index"):  # it would hide what is lost
                await ingest_upload(service.index, settings, Upload("note.txt"), BytesIO(b"The boat leaves at nine."))
        ingest(data_dir, "--rebuild", LIBRARY, CITEWELL_VECTOR_STORE=store)
        async with open_service(settings) as service:
            assert "42 metres" in (await service.ask(service.prepare("How high is the tower?"))).answer


async def test_a_disk_that_is_full_takes_the_service_out_until_there_is_room(data_dir: Path) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with open_service(Settings(_env_file=None, data_dir=data_dir)) as service:
        await service.checks()["threads"]()
        await service.ask(service.prepare("How high is the tower?", thread_id="before"))
        with closing(sqlite3.connect(data_dir / "threads.db")) as db, db:
            db.execute("UPDATE threads SET expires = expires - 3600")  # so that to read it is to write when it was read
        resource.setrlimit(resource.RLIMIT_FSIZE, ((data_dir / "threads.db-wal").stat().st_size, most))
        try:
            with pytest.raises(CheckpointError):
                await service.ask(service.prepare("How high is the tower?"))
            with pytest.raises(CheckpointError):
                await service.checks()["threads"]()
            transcript = await service.transcript("local", "before")
            assert transcript is not None
            assert "42 metres" in transcript.messages[-1].text
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        await service.checks()["threads"]()
        assert "42 metres" in (await service.ask(service.prepare("How high is the tower?"))).answer


def test_a_redis_that_is_full_or_dies_takes_the_service_out_until_it_is_back(data_dir: Path, own_redis: Server) -> None:
    with running(data_dir, CITEWELL_REDIS_URL=own_redis.url) as live:
        becomes(live, 200, "threads")
        own_redis.client.config_set("maxmemory", 1)
        becomes(live, 503, "threads", "checkpoint_error")
        own_redis.client.config_set("maxmemory", 0)
        becomes(live, 200, "threads")
        own_redis.kill()
        assert "cannot be reached" in becomes(live, 503, "threads", "checkpoint_error")
        own_redis.start()
        becomes(live, 200, "threads")


def test_a_redis_that_is_a_replica_is_named_so(data_dir: Path, own_redis: Server) -> None:
    with (
        server(replicaof=f"127.0.0.1 {own_redis.port}", repl_diskless_sync_delay="0") as replica,
        running(data_dir, CITEWELL_REDIS_URL=own_redis.url) as live,
    ):
        becomes(live, 200, "threads")
        own_redis.client.execute_command("REPLICAOF", "127.0.0.1", replica.port)
        assert "it is a replica" in becomes(live, 503, "threads", "checkpoint_error")
        own_redis.client.execute_command("REPLICAOF", "NO", "ONE")
        becomes(live, 200, "threads")
