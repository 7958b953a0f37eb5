"""The public keys of a token issuer (JWKS, RFC 7517), from a URL or a file; cached, and fetched again as they age."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, Final

import httpx
import orjson
import structlog
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from citewell.errors import ConfigurationError, IdentityUnavailable, NotAuthenticated

FETCH_TIMEOUT_S: Final = 5.0
REFRESH_S: Final = 300.0
"""Age from which the keys are fetched again, in seconds."""
OLDEST_S: Final = 3600.0
"""Age up to which they are used while the issuer cannot be reached, in seconds; after that nobody is let in."""
RETRY_S: Final = 10.0
"""Least time between two fetches, in seconds, however many unknown key ids callers send."""
MOST_BYTES: Final = 1_000_000

log = structlog.get_logger()


class KeySet:
    """Public keys by id.

    Args:
        place: `https://...`, or a file's path.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._is_url = place.startswith(("https://", "http://"))
        self._keys: dict[str | None, dict[str, Any]] = {}
        self._fetched: float | None = None
        self._tried: float | None = None
        self._fetching = asyncio.Lock()
        self._has_failed = False
        self._trying: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Fetch the keys for the first time. An issuer that does not answer yet may do so later; a file must be there.

        Raises:
            ConfigurationError: The file cannot be used.
        """
        await self._refresh(None)
        if self._fetched is None and not self._is_url:
            raise ConfigurationError(
                f"CITEWELL_JWT_JWKS: {self._place} is no file of public keys (JWKS) that can be read"
            )

    async def key(self, kid: str | None, algorithm: str) -> PyJWK:
        """The key of this id, for this algorithm.

        Args:
            kid: The id in the token's header; None is allowed where the issuer has only one key.
            algorithm: The algorithm in the header, which must be one of those allowed.

        Raises:
            NotAuthenticated: The issuer has no such key, or not for this algorithm.
            IdentityUnavailable: The keys cannot be fetched.
        """
        if self._find(kid) is None or self._age() > OLDEST_S or (self._age() > REFRESH_S and not self._has_failed):
            await self._refresh(kid)
        elif self._age() > REFRESH_S and not self._fetching.locked():
            # The issuer did not answer last time: nobody waits for it once more as long as the keys may be used.
            self._trying = asyncio.create_task(self._refresh(kid))
        if self._age() > OLDEST_S:
            raise IdentityUnavailable()
        found = self._find(kid)
        if found is None:
            raise NotAuthenticated("The token was signed with a key that its issuer does not list.")
        if found.get("alg", algorithm) != algorithm:
            raise NotAuthenticated("The token's algorithm is not that of its key.")
        try:
            return PyJWK(found, algorithm)  # refuses a key of another family
        except PyJWTError:
            raise NotAuthenticated("The token's algorithm is not that of its key.") from None

    def _find(self, kid: str | None) -> dict[str, Any] | None:
        if kid is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid)

    def _age(self) -> float:
        return float("inf") if self._fetched is None else time.monotonic() - self._fetched

    async def _refresh(self, kid: str | None) -> None:
        async with self._fetching:
            if self._tried is not None and time.monotonic() - self._tried < RETRY_S:
                return
            if self._age() <= REFRESH_S and self._find(kid) is not None:
                return  # another call did it while this one waited
            self._tried = time.monotonic()
            try:
                async with asyncio.timeout(FETCH_TIMEOUT_S):
                    data = await self._fetch()
                self._keys = _usable(orjson.loads(data))
            except (OSError, TimeoutError, httpx.HTTPError, ValueError) as exc:
                self._has_failed = True
                log.error("jwks.unavailable", error=type(exc).__name__)
                return
            self._has_failed = False
            self._fetched = time.monotonic()

    async def _fetch(self) -> bytes:
        if not self._is_url:
            return await asyncio.to_thread(Path(self._place).read_bytes)
        data = bytearray()
        async with (
            httpx.AsyncClient(timeout=FETCH_TIMEOUT_S, follow_redirects=False) as client,
            client.stream("GET", self._place, headers={"accept": "application/json"}) as response,
        ):
            if response.status_code != 200:
                raise ValueError(f"status {response.status_code}")
            async for piece in response.aiter_bytes():
                data += piece
                if len(data) > MOST_BYTES:
                    raise ValueError("too long")
        return bytes(data)


def _usable(document: Any) -> dict[str | None, dict[str, Any]]:
    """The keys that verify signatures; not symmetric ones, which are no secret in a public document."""
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list):
        raise ValueError("no JWKS")
    return {
        key.get("kid"): key
        for key in keys
        if isinstance(key, dict) and key.get("kty") in ("RSA", "EC", "OKP") and key.get("use", "sig") == "sig"
    }
