"""Original files: given as they were ingested or not at all, and not read anew for each part of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import psutil

from tests.service import Live, problem

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
