"""A real Chroma server on loopback."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.service import free_port

START_WITHIN_S = 120.0


@pytest.fixture(scope="session")
def chroma_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its URL."""
    with chroma_process(tmp_path_factory.mktemp("chroma-server")) as (url, _):
        yield url


@contextmanager
def chroma_process(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A server of a test's own, to kill: its URL and its process."""
    port = free_port()
    program = shutil.which("chroma", path=str(sys.prefix + "/bin"))
    assert program, "chromadb brings the command"
    process = subprocess.Popen(
        [program, "run", "--path", str(folder), "--port", str(port), "--host", "127.0.0.1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + START_WITHIN_S
    try:
        while True:
            try:
                if httpx.get(f"{url}/api/v2/heartbeat", timeout=5).is_success:
                    break
            except httpx.HTTPError:
                assert time.monotonic() < deadline, "the Chroma server did not start"
                time.sleep(0.1)
        yield url, process
    finally:
        process.terminate()
        process.wait()
