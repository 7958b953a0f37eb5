"""From a URL to a Redis client, its exceptions by what may be done about them, and Lua scripts by their digest."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

import redis.asyncio
import redis.exceptions
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from citewell.errors import ConfigurationError

Client = redis.asyncio.Redis | redis.asyncio.RedisCluster

SCHEMES = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel")

_UNREADABLE = "CITEWELL_REDIS_URL cannot be read as a Redis URL"

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
    # redis-py 8.1 writes to a connection that another task has just closed, as a cluster's client does when slots have moved:
    AttributeError,  # `_writer` is None
    RuntimeError,  # uvloop's "the handler is closed"
)
"""Errors that may pass by themselves: a restart, a failover, a network interruption."""

PERMANENT = (redis.exceptions.AuthenticationError, redis.exceptions.AuthorizationError)
"""Subclasses of ConnectionError that no further attempt will cure."""


def connect(url: str, *, max_connections: int, timeout_s: float) -> Client:
    """A client for a URL; nothing is sent yet.

    Args:
        url: `redis://`, `rediss://` (TLS), `unix://`; `redis+cluster://host:port,host:port` (nodes of the cluster, of which one
            must be up); `redis+sentinel://host:port,host:port/SERVICE/DB`. User, password and query as redis-py has them.

    Raises:
        ConfigurationError: The URL cannot be read. The message does not repeat it: it may hold a password.
    """
    try:
        parts = urlsplit(url)
    except ValueError as exc:
        raise ConfigurationError(_UNREADABLE) from exc
    if parts.scheme not in SCHEMES:
        raise ConfigurationError(f"CITEWELL_REDIS_URL must begin with one of {', '.join(f'{s}://' for s in SCHEMES)}")
    # Callers make the retries, as they know the deadline.
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
    try:
        if kind == "cluster":
            credentials, at, hosts = parts.netloc.rpartition("@")
            first, *others = hosts.split(",")
            plain = urlunsplit(parts._replace(scheme=base, netloc=f"{credentials}{at}{first}"))
            nodes = [ClusterNode(*node) for node in _nodes(others, 6379)]
            return redis.asyncio.RedisCluster.from_url(
                plain, startup_nodes=nodes, max_connections=max_connections, **options
            )
        if kind == "sentinel":
            return _sentinel(url, base, max_connections, options)
        plain = urlunsplit(parts._replace(scheme=base))
        client = redis.asyncio.Redis.from_url(plain, max_connections=max_connections, **options)
        client.connection_pool.make_connection()  # type: ignore[no-untyped-call]  # refuses names in the query that redis-py does not know
        return client
    except (TypeError, ValueError) as exc:
        raise ConfigurationError(_UNREADABLE) from exc


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
    nodes = _nodes(hosts.split(","), 26379)
    secure = {name: value for name, value in extra.items() if name.startswith("ssl")}
    sentinel = Sentinel(nodes, sentinel_kwargs={**options, **secure}, **options)  # type: ignore[no-untyped-call]
    client: Client = sentinel.master_for(service, db=int(db or 0), max_connections=max_connections, **extra, **options)
    return client


def _nodes(hosts: Sequence[str], port: int) -> list[tuple[str, int]]:
    """Names and ports. Raises ValueError for a port that is none."""
    nodes = []
    for host in hosts:
        name, _, given = host.rpartition(":")
        nodes.append((name.strip("[]"), int(given)) if name else (given, port))
    return nodes


async def evaluate(client: Client, script: str, keys: Sequence[bytes | str], *args: bytes | str | int) -> Any:
    """Run a Lua script by its digest, in one round trip; once after a server's start, when it knows none, in two."""
    try:
        return await client.evalsha(_digest(script), len(keys), *keys, *args)
    except redis.exceptions.NoScriptError:
        return await client.eval(script, len(keys), *keys, *args)


@functools.cache
def _digest(script: str) -> str:
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
