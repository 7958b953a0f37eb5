"""One service that knows keys and tokens, over documents of which some are not for everybody."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from citewell.identity.keys import new_key
from tests.identity.callers import Caller
from tests.identity.issuer import AUDIENCE, ISSUER, Issuer, issuing
from tests.service import LIBRARY, Live, ingest, running

SECRET = "quokka-marzipan"
"""Stands in the board's minutes only."""


@dataclass(frozen=True)
class World:
    """Alice is of the board, Bob is not; each comes with a key and with a token."""

    live: Live
    issuer: Issuer
    keys: dict[str, str]

    def caller(self, name: str, by: str) -> Caller:
        if by == "key":
            return Caller(self.live, name, self.keys[name])
        access = {"alice": ["board"], "bob": []}[name]
        return Caller(self.live, f"jwt:{name}", self.issuer.token(name, access=access))


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with _world(tmp_path_factory.mktemp("identity")) as made:
        yield made


@pytest.fixture
def redis_world(tmp_path: Path, redis_url: str) -> Iterator[World]:
    """The same, with its conversations in Redis."""
    with _world(tmp_path, CITEWELL_REDIS_URL=redis_url) as made:
        yield made


@pytest.fixture
def own_world(tmp_path: Path) -> Iterator[World]:
    """The same, for a test that changes it."""
    with _world(tmp_path) as made:
        yield made


@contextmanager
def _world(place: Path, **settings: str) -> Iterator[World]:
    library, data_dir = place / "papers", place / "data"
    data_dir.mkdir()
    library.mkdir()
    for file in LIBRARY.iterdir():
        (library / file.name).write_bytes(file.read_bytes())
    (library / "minutes.md").write_text(
        f"---\naccess: [board]\n---\n# Heliotrope\n\nThe vault code of the observatory is {SECRET}.\n"
    )
    ingest(data_dir, library)
    keys, lines = {}, []
    for name, access in (("alice", ("board",)), ("bob", ())):
        keys[name], entry = new_key(name, access, None)
        lines.append(entry.line())
    (place / "keys").write_text("\n".join(lines) + "\n")
    with (
        issuing() as issuer,
        running(
            data_dir, CITEWELL_API_KEYS_FILE=str(place / "keys"), CITEWELL_JWT_JWKS=issuer.url,
            CITEWELL_JWT_ISSUER=ISSUER, CITEWELL_JWT_AUDIENCE=AUDIENCE, CITEWELL_MCP="on",
            CITEWELL_ON_DISCONNECT="continue", CITEWELL_ANSWER_CACHE_S="600", CITEWELL_WRONG_KEYS_PER_MINUTE="10000", **settings,
        ) as live,
    ):  # fmt: skip
        yield World(live, issuer, keys)
