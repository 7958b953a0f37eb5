"""Documents that are sent: what the service holds of them meanwhile."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil

from tests.service import Live, problem, resident_mb

MB = 1 << 20


def test_files_that_are_sent_slowly_side_by_side_do_not_fill_the_memory(start: Callable[..., Live]) -> None:
    live = start(CITEWELL_MAX_SOURCE_BYTES=str(40 * MB))
    place = urlsplit(live.url)
    before = resident_mb(live.process.pid)
    senders = [socket.create_connection((place.hostname, place.port)) for _ in range(6)]
    try:
        for number, sender in enumerate(senders):
            head = f"POST /uploads?name=slow-{number}.txt HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Length: {32 * MB}\r\n"
            sender.sendall(head.encode() + b"Content-Type: application/octet-stream\r\n\r\n" + b"x" * 30 * MB)
        assert httpx.get(f"{live.url}/healthz").status_code == 200
        assert resident_mb(live.process.pid) - before < 90  # of 180
    finally:
        for sender in senders:
            sender.close()
    page = b"<p>High water.</p><!--" + b"x" * 2 * MB + b"-->"  # large, but quickly read
    taken = httpx.post(
        f"{live.url}/uploads", params={"name": "high.html"}, content=page, timeout=60,
        headers={"content-type": "application/octet-stream"},
    )  # fmt: skip
    assert (taken.status_code, taken.json()["status"]) == (200, "new")
    too_large = httpx.post(
        f"{live.url}/uploads", params={"name": "large.txt"}, content=b"x" * 41 * MB, timeout=60,
        headers={"content-type": "application/octet-stream"},
    )  # fmt: skip
    problem(too_large, "body_too_large", 413)
    assert '"error"' not in live.log.read_text(), "that a sender leaves is no fault of the service"


def test_a_disk_that_takes_no_document_is_named_so(start: Callable[..., Live]) -> None:
    live = start()

    def send(size: int) -> httpx.Response:
        return httpx.post(
            f"{live.url}/uploads", params={"name": "high.txt"}, content=b"High water. " * (size // 12), timeout=60,
            headers={"content-type": "application/octet-stream"},
        )  # fmt: skip

    service = psutil.Process(live.process.pid)
    most = service.rlimit(psutil.RLIMIT_FSIZE)
    service.rlimit(psutil.RLIMIT_FSIZE, (1000, most[1]))
    try:
        for size in (5000, 10 * MB):  # the second is on disk before it is whole
            assert "cannot be written" in str(problem(send(size), "store_error", 502)["detail"])
    finally:
        service.rlimit(psutil.RLIMIT_FSIZE, most)
    assert send(5000).json()["status"] == "new"


def test_what_a_killed_process_left_of_an_upload_goes_with_a_later_start(
    start: Callable[..., Live], tmp_path: Path
) -> None:
    uploads = tmp_path / "data/uploads"
    live = start()
    taken = httpx.post(
        f"{live.url}/uploads", params={"name": "high.txt"}, content=b"High water.", timeout=60,
        headers={"content-type": "application/octet-stream"},
    )  # fmt: skip
    assert taken.json()["status"] == "new"
    left, now = uploads / ".upload-left", uploads / ".upload-now"
    for kept in (left, now):
        kept.mkdir()
        (kept / "high.txt").write_bytes(b"Low water.")
    part = uploads / ".upload-part"
    part.write_bytes(b"Low")
    for each in (left, part):
        os.utime(each, (0, 0))
    start()
    assert {path.name for path in uploads.iterdir()} - {"high.txt.access"} == {"high.txt", ".upload-now"}


def test_many_at_once_do_not_start_a_process_each(start: Callable[..., Live]) -> None:
    live = start()
    most, over = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.wait(0.02):
            most = max(most, len(psutil.Process(live.process.pid).children()))

    def send(number: int) -> int:
        return httpx.post(
            f"{live.url}/uploads", params={"name": f"{number}.md"}, content=b"# Tide\n\nHigh water at seven.", timeout=60,
            headers={"content-type": "application/octet-stream"},
        ).status_code  # fmt: skip

    with ThreadPoolExecutor(17) as pool:
        watching = pool.submit(watch)
        statuses = list(pool.map(send, range(16)))
        over.set()
        watching.result()
    assert most <= 1
    assert {200, 409} >= set(statuses) >= {200}
    assert send(17) == 200, "one after the other, all are taken"
