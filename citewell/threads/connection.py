"""From a URL to a Redis client, and from its exceptions to ours."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from citewell.errors import CheckpointError, ConfigurationError
from citewell.telemetry import metrics

Client = redis.asyncio.Redis | redis.asyncio.RedisCluster

SCHEMES = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel")

TRANSIENT = (
    redis.exceptions.ConnectionError,  # includes BusyLoadingError, MaxConnectionsError, a closed pool
    redis.exceptions.TimeoutError,
    redis.exceptions.ReadOnlyError,  # a primary that has just become a replica
    redis.exceptions.ClusterDownError,
    redis.exceptions.ClusterError,
    redis.exceptions.MasterDownError,
    redis.exceptions.TryAgainError,
    redis.exceptions.RedisClusterException,
    OSError,
    TimeoutError,
    AttributeError,  # redis-py 8.1 writes to a connection that another task has just closed: `_writer` is None
)
"""What may pass by itself: a restart, a failover, a network that blinks."""

_PASSES = re.compile(r"(?:^|-)(?:READONLY|NOREPLICAS|BUSY) ")
"""More of that, which redis-py has no class for: a script that runs for too long, a primary without replicas; and what Redis 6
says of a write in a script (`Error running script ...: -READONLY You can't write against a read only replica.`)."""
_FULL = "-OOM "
"""The same of a full server."""

PERMANENT = (redis.exceptions.AuthenticationError, redis.exceptions.AuthorizationError)
"""Subclasses of ConnectionError that no second try will mend."""


def connect(url: str, *, max_connections: int, timeout_s: float) -> Client:
    """A client for a URL; nothing is sent yet.

    Args:
        url: `redis://`, `rediss://` (TLS), `unix://`; `redis+cluster://host:port` (any node of the cluster);
            `redis+sentinel://host:port,host:port/SERVICE/DB`. User, password and query as redis-py has them.

    Raises:
        ConfigurationError: The URL cannot be read. The message does not repeat it: it may hold a password.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ConfigurationError(f"CITEWELL_REDIS_URL must begin with one of {', '.join(f'{s}://' for s in SCHEMES)}")
    # Retries are ours (Connection.run): one place that knows the deadline.
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "socket_keepalive": True,
        # A new connection says HELLO and AUTH and no more: proxies know few commands, and each is a round trip.
        "driver_info": None,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        "retry": Retry(NoBackoff(), 0),
    }
    base, _, kind = parts.scheme.partition("+")
    plain = urlunsplit(parts._replace(scheme=base))
    try:
        if kind == "cluster":
            return redis.asyncio.RedisCluster.from_url(plain, max_connections=max_connections, **options)
        if kind == "sentinel":
            return _sentinel(url, base, max_connections, options)
        return redis.asyncio.Redis.from_url(plain, max_connections=max_connections, **options)
    except ValueError as exc:
        raise ConfigurationError("CITEWELL_REDIS_URL cannot be read as a Redis URL") from exc


def _sentinel(url: str, base: str, max_connections: int, options: dict[str, Any]) -> Client:
    match = re.fullmatch(r"rediss?\+sentinel://(?:([^@]*)@)?([^/]+)/([^/?]+)(?:/(\d+))?(?:\?(.*))?", url)
    if match is None:
        raise ConfigurationError("CITEWELL_REDIS_URL must look like redis+sentinel://host:port,host:port/SERVICE/DB")
    credentials, hosts, service, db, query = match.groups()
    user, _, password = (credentials or "").rpartition(":")
    extra: dict[str, Any] = {name: values[-1] for name, values in parse_qs(query or "").items()}
    if base == "rediss":
        extra["ssl"] = True
    if password:
        extra["password"] = unquote(password)
    if user:
        extra["username"] = unquote(user)
    nodes = []
    for host in hosts.split(","):
        name, _, port = host.rpartition(":")
        nodes.append((name, int(port)) if name else (port, 26379))
    secure = {name: value for name, value in extra.items() if name.startswith("ssl")}
    sentinel = Sentinel(nodes, sentinel_kwargs={**options, **secure}, **options)  # type: ignore[no-untyped-call]
    client: Client = sentinel.master_for(service, db=int(db or 0), max_connections=max_connections, **extra, **options)
    return client


async def evaluate(client: Client, script: str, keys: Sequence[bytes | str], *args: bytes | str | int) -> Any:
    """Run a Lua script by its digest, in one round trip; once after a server's start, when it knows none, in two."""
    try:
        return await client.evalsha(_digest(script), len(keys), *keys, *args)
    except redis.exceptions.NoScriptError:
        return await client.eval(script, len(keys), *keys, *args)


@functools.cache
def _digest(script: str) -> str:
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


@functools.cache
def script(name: str) -> str:
    """A Lua script of this package."""
    folder = files("citewell.threads") / "lua"
    return (folder / "common.lua").read_text() + (folder / f"{name}.lua").read_text()


def load_scripts() -> None:
    """Read all scripts now, so that the first call of each does not read a file."""
    for file in (files("citewell.threads") / "lua").iterdir():
        if file.name.endswith(".lua") and file.name != "common.lua":
            script(file.name.removesuffix(".lua"))


class Connection:
    """Runs scripts on one thread's key, with a deadline.

    Args:
        client: A client that does not decode replies.
        max_connections: Calls under way at once; further ones wait.
        patience_s: How long a server that cannot be reached is tried again, in seconds.
    """

    def __init__(self, client: Client, *, max_connections: int, patience_s: float) -> None:
        self.client = client
        self._slots = asyncio.Semaphore(max_connections)
        metrics.REDIS_LIMIT.set(max_connections)
        self._patience_s = patience_s
        self.calls = 0
        """Scripts and commands sent so far, tries included."""

    async def run(self, name: str, key: bytes, *args: bytes | str | int) -> Any:
        """Run a script.

        Raises:
            CheckpointError: The server could not be reached for `patience_s` seconds, or refused.
        """
        return await self._try(lambda: evaluate(self.client, script(name), [key], *args))

    async def command(self, *args: bytes | str | int) -> Any:
        """Run a command, see `run`."""
        return await self._try(lambda: self.client.execute_command(*args))

    async def _try(self, call: Callable[[], Awaitable[Any]]) -> Any:
        deadline = time.monotonic() + self._patience_s
        pause_s = 0.02
        async with self._slots:
            while True:
                self.calls += 1
                try:
                    with metrics.redis_call():
                        return await call()
                except PERMANENT as exc:
                    raise CheckpointError("Redis refuses the credentials it was given.") from exc
                except TRANSIENT as exc:
                    if time.monotonic() + pause_s > deadline:
                        raise CheckpointError(
                            "The Redis server that keeps the conversations cannot be reached."
                        ) from exc
                except redis.exceptions.RedisError as exc:
                    if isinstance(exc, redis.exceptions.OutOfMemoryError) or _FULL in str(exc):
                        raise CheckpointError(
                            "The Redis server that keeps the conversations is out of memory."
                        ) from exc
                    if not _PASSES.search(str(exc)) or time.monotonic() + pause_s > deadline:
                        raise CheckpointError(
                            "The Redis server that keeps the conversations refused a command."
                        ) from exc
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, 0.5)

    async def keys(self, prefix: bytes) -> AsyncIterator[bytes]:
        """Every key that begins with `prefix`, with SCAN, on every primary of a cluster."""
        pattern = re.sub(rb"([\\*?\[\]])", rb"\\\1", prefix) + b"*"
        try:
            async for key in self.client.scan_iter(match=pattern, count=1000):
                yield key
        except (*TRANSIENT, redis.exceptions.RedisError) as exc:
            raise CheckpointError("The Redis server that keeps the conversations cannot be reached.") from exc

    async def close(self) -> None:
        await self.client.aclose()
