"""A model server that takes its time: the benchmarks' paced upstream in a process of its own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.service import free_port

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Paced:
    """Where it listens."""

    url: str

    def model(self, pace: float) -> dict[str, str]:
        """Settings of a service whose answers take 0.35 s times `pace`, in 60 pieces."""
        base = f"{self.url}/pace/{pace:g}"
        return {"CITEWELL_CHAT_MODEL": "openai:paced", "OPENAI_API_KEY": "none", "OPENAI_BASE_URL": base}

    def calls(self) -> dict[str, int]:
        """How many calls `started`, `finished`, and were `left` by their caller."""
        counts: dict[str, int] = httpx.get(f"{self.url}/stats").raise_for_status().json()
        return counts

    async def until(self, holds: Callable[[dict[str, int]], bool]) -> None:
        """Wait until this is so of the counts."""
        async with asyncio.timeout(60):
            while not holds(await asyncio.to_thread(self.calls)):
                await asyncio.sleep(0.02)


@pytest.fixture(scope="session")
def paced() -> Iterator[Paced]:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.upstream", str(port)], cwd=ROOT)
    server = Paced(f"http://127.0.0.1:{port}")
    try:
        while True:
            assert process.poll() is None
            try:
                server.calls()
                break
            except httpx.TransportError:
                time.sleep(0.05)
        yield server
    finally:
        process.terminate()
        process.wait()
