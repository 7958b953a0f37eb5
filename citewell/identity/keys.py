"""API keys: 256 random bits each, of which only the digest is stored.

A key is not a password: as it is random and cannot be guessed, one round of SHA-256 protects it as well as a slow hash would.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Final

import structlog
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, field_validator

from citewell.documents import PUBLIC
from citewell.errors import ConfigurationError, IdentityUnavailable, NotAuthenticated
from citewell.identity.caller import LOCAL, OWN, Identity

EVERYTHING: Final = "*"
"""Instead of labels: everything may be read."""
LOOK_EVERY_S: Final = 1.0
"""Seconds between two checks whether the file has changed: how long a withdrawn key remains valid at most."""

log = structlog.get_logger()


class KeyEntry(BaseModel):
    """One line of the file of keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    caller: Annotated[str, StringConstraints(pattern=r"^[\w.@+-]{1,64}$")]
    """Letters, digits and `_.@+-`. No colon, so that it is never the name of a token's caller (`jwt:...`)."""
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    access: tuple[Annotated[str, StringConstraints(pattern=r"^(\*|[\w.:@/-]{1,64})$")], ...] = ()
    expires: date | None = None
    """The last day on which it is valid, UTC."""

    @field_validator("caller")
    @classmethod
    def _is_not_everybody(cls, caller: str) -> str:
        if caller == LOCAL:
            raise ValueError(f"{LOCAL} stands for everybody where no keys are asked for")
        return caller

    @field_validator("access")
    @classmethod
    def _is_for_several(cls, access: tuple[str, ...]) -> tuple[str, ...]:
        if any(label.startswith(OWN) for label in access):
            raise ValueError(f"labels beginning with {OWN} are each caller's own")
        return access

    @property
    def identity(self) -> Identity:
        access = None if EVERYTHING in self.access else frozenset({PUBLIC, *self.access})
        return Identity(caller=self.caller, access=access)

    def is_expired(self) -> bool:
        return self.expires is not None and datetime.now(UTC).date() > self.expires

    def line(self) -> str:
        """The entry as a line of the file."""
        return self.model_dump_json(exclude_defaults=True)


def new_key(caller: str, access: tuple[str, ...], expires: date | None) -> tuple[str, KeyEntry]:
    """A new key, to be shown once, and the entry to store.

    Raises:
        ConfigurationError: The name or a label cannot be used.
    """
    key = f"cw_{secrets.token_urlsafe(32)}"
    try:
        return key, KeyEntry(caller=caller, sha256=_digest(key), access=access, expires=expires)
    except ValidationError as exc:
        raise ConfigurationError("; ".join(f"{error['loc'][0]}: {error['msg']}" for error in exc.errors())) from None


class KeyFile:
    """The valid keys. The file is read again when it changes, so a key is withdrawn by deleting its line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: list[tuple[bytes, KeyEntry]] = []
        self._version: tuple[int, int, int] | None = None
        self._next_look = 0.0

    def load(self) -> None:
        """Read the file. Blocking.

        Raises:
            ConfigurationError: It cannot be read or a line is wrong; the message names the line, not what it holds.
        """
        try:
            self._entries, self._version = self._read()
        except ConfigurationError:
            self._entries, self._version = [], None  # it is not known which keys were withdrawn
            raise

    def _read(self) -> tuple[list[tuple[bytes, KeyEntry]], tuple[int, int, int]]:
        try:
            stat = self._path.stat()
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError as exc:
            raise ConfigurationError(
                f"CITEWELL_API_KEYS_FILE: there is no {self._path}; "
                f"`python -m citewell.identity new --caller NAME --file {self._path}` makes it, with a first key"
            ) from exc
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigurationError(
                f"CITEWELL_API_KEYS_FILE: {self._path} cannot be read ({type(exc).__name__})"
            ) from exc
        entries = []
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            try:
                entry = KeyEntry.model_validate_json(line)
            except ValidationError as exc:
                fault = exc.errors(include_input=False)[0]
                where = ".".join(map(str, fault["loc"]))
                raise ConfigurationError(
                    f"CITEWELL_API_KEYS_FILE: line {number} of {self._path} cannot be used ({where or 'JSON'}: {fault['type']})"
                ) from None
            entries.append((bytes.fromhex(entry.sha256), entry))
        return entries, (stat.st_mtime_ns, stat.st_size, stat.st_ino)

    async def identify(self, key: str) -> Identity:
        """Identify the caller to whom a key belongs.

        Raises:
            NotAuthenticated: It is nobody's, or has expired.
            IdentityUnavailable: The file cannot be read any more.
        """
        await self._look()
        digest = hashlib.sha256(key.encode(errors="surrogateescape")).digest()
        found: KeyEntry | None = None
        for known, entry in self._entries:  # all of them, so that the time taken reveals nothing
            if hmac.compare_digest(known, digest):
                found = entry
        if found is None:
            raise NotAuthenticated("The key is not valid.")
        if found.is_expired():
            raise NotAuthenticated("The key has expired.")
        return found.identity

    async def _look(self) -> None:
        now = time.monotonic()
        if now < self._next_look:
            if self._version is None:
                raise IdentityUnavailable()
            return
        self._next_look = now + LOOK_EVERY_S
        try:
            await asyncio.to_thread(self._reload)
        except ConfigurationError as exc:
            log.error("keys.unreadable", error=exc.detail)
            raise IdentityUnavailable() from exc

    def _reload(self) -> None:
        try:
            stat = self._path.stat()
        except OSError:
            self.load()  # raises what is wrong with it
            return
        if (stat.st_mtime_ns, stat.st_size, stat.st_ino) != self._version:
            self.load()


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
