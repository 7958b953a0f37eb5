"""Originals: given as they were ingested or not at all, and not read anew for each part of them; and passages of their texts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil

from tests.service import Live, copied, problem, resident_mb, running

MB = 1 << 20


def test_a_part_of_a_large_file_does_not_cost_all_of_it_each_time(start: Callable[..., Live], tmp_path: Path) -> None:
    """Who asked for one byte of it thirty times had everybody else's search wait for thirteen seconds."""
    papers = tmp_path / "papers"
    papers.mkdir()
    original = papers / "tide.html"
    original.write_bytes(b"<p>High water at seven.</p><!--" + b"x" * 40 * MB + b"-->")
    live = start(papers)
    process = psutil.Process(live.process.pid)

    def first_byte() -> httpx.Response:
        return httpx.get(
            f"{live.url}/source/file", params={"uri": "papers/tide.html"}, headers={"range": "bytes=0-0"}, timeout=60
        )

    assert first_byte().content == b"<"
    before = process.io_counters().read_chars
    assert {first_byte().status_code for _ in range(5)} == {206}
    assert process.io_counters().read_chars - before < 10 * MB

    with original.open("r+b") as file:
        file.write(b"<q>")  # of the same length
    problem(first_byte(), "source_not_found", 404)


def test_what_was_uploaded_is_found_where_its_data_directory_is_copied_or_moved_to(tmp_path: Path) -> None:
    """The copy named uploads by another folder, and a directory that had been moved no longer gave out their files."""

    def upload(to: Live, content: bytes) -> dict[str, object]:
        sent = httpx.post(
            f"{to.url}/uploads", params={"name": "tide.txt"}, content=content, timeout=60,
            headers={"content-type": "application/octet-stream"},
        )  # fmt: skip
        return {name: sent.json()[name] for name in ("uri", "status")}

    (data := tmp_path / "first/data").mkdir(parents=True)
    with running(data) as live:
        assert upload(live, b"High water at seven.") == {"uri": "uploads/tide.txt", "status": "new"}
    with running(copied(data, tmp_path / "copy")) as copy:
        assert upload(copy, b"Low water at one.") == {"uri": "uploads/tide.txt", "status": "changed"}
    (tmp_path / "first").rename(tmp_path / "gone")
    (tmp_path / "copy").rename(tmp_path / "moved")
    with running(tmp_path / "moved/data") as moved:
        assert httpx.get(f"{moved.url}/source/file", params={"uri": "uploads/tide.txt"}).text == "Low water at one."


def test_a_passage_of_a_long_text_does_not_cost_all_of_it(start: Callable[..., Live]) -> None:
    """Of 20 KB that were sent came 20 million characters, all of them for each passage: 40 at once took 1.3 GB."""
    live = start(CITEWELL_RETRIEVAL_TIMEOUT_S="60")
    text = f"High water at seven.{' ' * 20_000_000}\U0001f30a Low water at one."
    page = f"<pre>{text}</pre>".encode()
    sent = httpx.post(
        f"{live.url}/uploads", params={"name": "tide.html"}, content=page, timeout=60,
        headers={"content-type": "application/octet-stream"},
    )  # fmt: skip
    assert sent.json()["chunks"] == 2
    most, over = 0.0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.wait(0.01):
            most = max(most, resident_mb(live.process.pid))

    def passage(start: int, end: int) -> httpx.Response:
        place = {"uri": "uploads/tide.html", "start": start, "end": end}
        return httpx.get(f"{live.url}/source", params=place, timeout=60)

    passage(0, 20)
    before = resident_mb(live.process.pid)
    with ThreadPoolExecutor(17) as pool:
        watching = pool.submit(watch)
        answers = list(pool.map(lambda _: passage(len(text) - 17, len(text)), range(16)))
        over.set()
        watching.result()
    assert [one.text for one in answers if not one.is_success] == []
    found = [one.json() for one in answers]
    assert {(one["before"].strip(), one["quote"], one["goes_on"]) for one in found} == {
        ("\U0001f30a", "Low water at one.", False)
    }
    assert most - before < 60
    problem(passage(0, 100_001), "invalid_request", 422)
