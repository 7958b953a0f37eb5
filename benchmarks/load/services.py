"""The services that are compared, each started when its turn comes and stopped after it."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import redis

from benchmarks.load.doors import DOORS
from tests.redis_servers import free_port, server

ROOT = Path(__file__).parents[2]
DOCUMENTS = ROOT / "examples"
FLOOR = "one-node LangGraph"
TUTORIAL = "tutorial's design"
REDIS = "citewell, Redis"
WEBSOCKET = ("websocket",)


@dataclass(frozen=True)
class Service:
    """How one is started. `{port}`, `{data}`, `{redis}` and `{chroma}` are filled in."""

    name: str
    command: Sequence[str] = ("server.py",)
    environment: Mapping[str, str] = field(default_factory=dict)
    doors: Sequence[str] = WEBSOCKET


def services(workers: Sequence[int]) -> list[Service]:
    """All that are compared. Each number of workers is one more, on a Chroma server, which several workers need."""
    own = {"CITEWELL_CHAT_MODEL": "openai:paced", "CITEWELL_PORT": "{port}", "CITEWELL_DATA_DIR": "{data}"}
    redis = own | {"CITEWELL_REDIS_URL": "{redis}"}
    return [
        Service(FLOOR, ("-m", "benchmarks.one_node", "{port}")),
        Service("citewell, SQLite", environment=own),
        Service(REDIS, environment=redis, doors=tuple(DOORS)),
        *(
            Service(
                f"citewell, Redis, Chroma server, {number} worker{'s' * (number > 1)}",
                environment=redis | {"CITEWELL_VECTOR_STORE": "chroma+{chroma}", "CITEWELL_WORKERS": str(number)},
            )
            for number in workers
        ),
        Service(TUTORIAL, ("-m", "benchmarks.tutorial", "{port}", "{redis}", "{data}", str(DOCUMENTS))),
    ]


@dataclass(frozen=True)
class Upstream:
    """The paced model server."""

    url: str

    @property
    def variables(self) -> dict[str, str]:
        """Those by which a service finds it."""
        return {"OPENAI_API_KEY": "none", "OPENAI_BASE_URL": f"{self.url}/v1"}

    def calls(self) -> int:
        return int(httpx.get(f"{self.url}/stats", timeout=60).raise_for_status().json()["started"])


@contextmanager
def upstream() -> Iterator[Upstream]:
    port = free_port()
    started = Upstream(f"http://127.0.0.1:{port}")
    with process([sys.executable, "-m", "benchmarks.upstream", str(port)], f"{started.url}/stats"):
        yield started


@dataclass(frozen=True)
class Running:
    """A service that has been started."""

    name: str
    url: str
    root: psutil.Process
    redis: str | None
    """Address of the Redis that it uses."""

    def round_trips(self) -> int:
        """Requests its Redis has read so far; what goes in one pipeline is one, and so is a script with all that it calls."""
        if self.redis is None:
            return 0
        with redis.Redis.from_url(self.redis) as client:
            return int(client.info("stats")["total_reads_processed"])


@contextmanager
def running(service: Service, model: Upstream, redis_url: str | None) -> Iterator[Running]:
    """Start a service and what it needs."""
    with ExitStack() as stack:
        data = stack.enter_context(tempfile.TemporaryDirectory())
        given = {"port": str(free_port()), "data": data}
        wanted = " ".join([*service.command, *service.environment.values()])
        if "{redis}" in wanted:
            given["redis"] = redis_url or stack.enter_context(server()).url
        if "{chroma}" in wanted:
            given["chroma"] = stack.enter_context(_chroma())
        environment = {name: value.format(**given) for name, value in service.environment.items()}
        if "CITEWELL_DATA_DIR" in environment:
            ingest = [sys.executable, "ingest.py", str(DOCUMENTS)]
            subprocess.run(
                ingest,
                cwd=ROOT,
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=clean_environment(environment),
            )
        command = [sys.executable, *(part.format(**given) for part in service.command)]
        url = f"http://127.0.0.1:{given['port']}"
        root = stack.enter_context(process(command, f"{url}/readyz", **model.variables, **environment))
        yield Running(service.name, url, root, given.get("redis"))


@contextmanager
def _chroma() -> Iterator[str]:
    program = shutil.which("chroma", path=f"{sys.prefix}/bin")
    if program is None:
        raise SystemExit("the command chroma, which chromadb brings, is not there")
    url = f"http://127.0.0.1:{(port := free_port())}"
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "run", "--path", folder, "--host", "127.0.0.1", "--port", str(port)]
        with process(command, f"{url}/api/v2/heartbeat"):
            yield url


@contextmanager
def process(command: Sequence[str], ready: str, **environment: str) -> Iterator[psutil.Process]:
    """Run a server until its `ready` address answers 200; stop it at the end."""
    started = subprocess.Popen(command, cwd=ROOT, env=clean_environment(environment), stdout=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                if httpx.get(ready, timeout=5).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            if started.poll() is not None:
                raise SystemExit(f"{' '.join(command)} ended before it was ready")
            time.sleep(0.1)
        else:
            raise SystemExit(f"{' '.join(command)} was not ready within 60 seconds")
        yield psutil.Process(started.pid)
    finally:
        _stop(started)


def _stop(started: subprocess.Popen[bytes]) -> None:
    started.terminate()
    try:
        started.wait(20)
    except subprocess.TimeoutExpired:
        for each in [*psutil.Process(started.pid).children(recursive=True), started]:
            each.kill()  # workers outlive the process that started them
        started.wait()


def clean_environment(more: Mapping[str, str]) -> dict[str, str]:
    """This machine's, without what would set up a service of ours."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("CITEWELL_", "OPENAI_", "REDIS_"))
    }
    return kept | dict(more)
