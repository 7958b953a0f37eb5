"""A real service: ingested documents, its own process, a free port on loopback."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from tests.forked_services import Started, starter

ROOT = Path(__file__).parents[1]
LIBRARY = Path(__file__).with_name("library")
START_WITHIN_S = 120.0
STOP_WITHIN_S = 60.0
"""Long, because uvicorn's parent process does not hear the signal while a worker it replaces is starting."""


@dataclass(frozen=True)
class Live:
    """A running service."""

    url: str
    process: subprocess.Popen[bytes] | Started
    log: Path
    data_dir: Path
    environment: Mapping[str, str]

    @property
    def ws(self) -> str:
        return self.url.replace("http://", "ws://") + "/ws/chat"


def environment(data_dir: Path, **settings: str) -> dict[str, str]:
    """The environment of a service that knows nothing of this machine's own settings and keys."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("CITEWELL_", "OPENAI_", "REDIS_"))
    }
    return (
        kept
        | {
            "CITEWELL_DATA_DIR": str(data_dir),
            "CITEWELL_DRAIN_NOTICE_S": "0",
            "CITEWELL_RETRIEVAL_TIMEOUT_S": "60",
            "PYTHONPATH": str(ROOT),
        }
        | settings
    )


def ingest(data_dir: Path, *paths: Path | str, **settings: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "ingest.py"), *map(str, paths)],
        env=environment(data_dir, **settings), cwd=data_dir.parent, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def resident_mb(process: int) -> float:
    """The memory that a process holds, in MiB."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


_given: list[socket.socket] = []


def free_port() -> int:
    """A port that the system gives to nobody else: it stays bound here, which is not in the way of a server that may reuse its address."""
    probe = socket.socket()
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probe.bind(("127.0.0.1", 0))
    _given.append(probe)
    return int(probe.getsockname()[1])


@contextmanager
def running(data_dir: Path, **settings: str) -> Iterator[Live]:
    """Start the service over an index that stands, wait until it is ready, stop it."""
    port = free_port()
    log = data_dir.parent / f"server-{port}.log"
    url = f"http://127.0.0.1:{port}"
    variables = environment(data_dir, CITEWELL_PORT=str(port), **settings)
    process = _start(variables, data_dir.parent, log)
    try:
        deadline = time.monotonic() + START_WITHIN_S
        while True:
            assert process.poll() is None, f"the service ended:\n{log.read_text()}"
            try:
                if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline, f"not ready within {START_WITHIN_S:g} s:\n{log.read_text()}"
            time.sleep(0.1)
        yield Live(url, process, log, data_dir, variables)
    finally:
        process.terminate()
        try:
            process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            for each in [*psutil.Process(process.pid).children(recursive=True), process]:
                each.kill()  # workers outlive the process that started them
            process.wait()
            pytest.fail(f"the service did not stop within {STOP_WITHIN_S:g} s:\n{log.read_text()}")


def _start(environment: dict[str, str], folder: Path, log: Path) -> subprocess.Popen[bytes] | Started:
    if environment.get("CITEWELL_WORKERS", "1") == "1":
        return starter().start(environment, folder, log)
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "server.py")], env=environment, cwd=folder, stdout=out, stderr=subprocess.STDOUT
        )


@pytest.fixture(scope="session")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with the test library ingested."""
    data_dir = tmp_path_factory.mktemp("indexed") / "data"
    data_dir.mkdir()
    ingest(data_dir, LIBRARY)
    return data_dir


def copied(indexed: Path, folder: Path) -> Path:
    """A data directory in `folder` with what is `indexed`, without the conversations that other tests may be having there."""
    return Path(shutil.copytree(indexed, folder / "data", ignore=shutil.ignore_patterns("threads.db*")))


@pytest.fixture
def data_dir(indexed: Path, tmp_path: Path) -> Path:
    """A data directory of the test's own, with the test library ingested."""
    return copied(indexed, tmp_path)


@pytest.fixture(scope="session")
def live(indexed: Path) -> Iterator[Live]:
    """The service with default settings, shared by tests that do not change it."""
    with running(indexed) as service:
        yield service


@pytest.fixture
def start(tmp_path: Path, indexed: Path) -> Iterator[Callable[..., Live]]:
    """Start services with settings of the test's own: `start(CITEWELL_CHAT_MODEL=...)`."""
    with ExitStack() as stack:

        def begin(documents: Path | None = LIBRARY, **settings: str) -> Live:
            data_dir = tmp_path / "data"
            if documents == LIBRARY and not data_dir.exists():
                copied(indexed, tmp_path)
            elif not data_dir.exists():
                data_dir.mkdir()
                if documents is not None:
                    ingest(data_dir, documents)
            return stack.enter_context(running(data_dir, **settings))

        yield begin


def problem(response: httpx.Response, code: str, status: int) -> Mapping[str, object]:
    """Assert that a response is a problem of this kind, and return its body."""
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json"), (
        response.text
    )
    body: Mapping[str, object] = response.json()
    assert body["code"] == code
    return body
