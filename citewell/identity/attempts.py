"""Counts wrong keys and tokens by address; after too many, unknown ones from there are refused without being checked."""

from __future__ import annotations

import hashlib
import ipaddress
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

import structlog

from citewell.errors import RateLimited

MINUTE_S: Final = 60.0
MOST_ADDRESSES: Final = 10_000
"""Most addresses that are remembered, and most valid credentials; the oldest is forgotten first."""

log = structlog.get_logger()


class Attempts:
    """For one process. A credential that was valid before is always checked, from whichever address, so that nobody can lock out those with
    whom they share one, a proxy's for instance.

    Args:
        per_minute: Failures from one address in any 60 seconds after which unknown credentials are refused; 0: no limit.
        clock: Seconds since any moment.
    """

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = per_minute
        self._clock = clock
        self._failed: OrderedDict[str, deque[float]] = OrderedDict()
        self._good: OrderedDict[bytes, None] = OrderedDict()

    def check(self, address: str, credential: str) -> None:
        """To be called before a credential is checked.

        Raises:
            RateLimited: It is unknown, and too many wrong ones came from this address; `retry_after_s` is the time to wait.
        """
        failed = self._failed.get(_network(address))
        if not self._most or failed is None or len(failed) < self._most or _digest(credential) in self._good:
            return
        wait_s = failed[0] + MINUTE_S - self._clock()
        if wait_s > 0:
            raise RateLimited("Too many wrong keys or tokens came from this address.", retry_after_s=wait_s)

    def failed(self, address: str, credential: str) -> None:
        """Note that the credential was wrong."""
        if not self._most:
            return
        self._good.pop(_digest(credential), None)
        network = _network(address)
        times = self._failed.setdefault(network, deque(maxlen=self._most))
        times.append(self._clock())
        self._failed.move_to_end(network)
        if len(self._failed) > MOST_ADDRESSES:
            self._failed.popitem(last=False)
        if len(times) == self._most and times[-1] - times[0] < MINUTE_S:
            log.warning("credentials.many_wrong", limit=self._most)

    def succeeded(self, credential: str) -> None:
        """Note that the credential was valid."""
        if not self._most:
            return
        digest = _digest(credential)
        self._good[digest] = None
        self._good.move_to_end(digest)
        if len(self._good) > MOST_ADDRESSES:
            self._good.popitem(last=False)


def _network(address: str) -> str:
    """The address, or of an IPv6 address its /64, which belongs to one customer."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:  # a Unix socket has none
        return address
    return str(ipaddress.ip_network((ip, 64), strict=False)) if ip.version == 6 else str(ip)


def _digest(credential: str) -> bytes:
    return hashlib.sha256(credential.encode(errors="surrogateescape")).digest()
