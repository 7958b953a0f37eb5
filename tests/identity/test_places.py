"""Where a request may come from, and what is open to all."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from citewell.api import problems
from citewell.api.identity import Identification
from citewell.identity import is_loopback, open_identity
from citewell.identity.keys import new_key
from citewell.settings import Settings


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True), ("127.8.9.10", True), ("[::1]", True), ("::ffff:127.0.0.1", True),
        ("::ffff:192.0.2.7", False), ("192.0.2.7", False), ("localhost.example", False), ("", False),
    ],
)  # fmt: skip
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) == expected


@pytest.fixture
async def door(tmp_path: Path) -> tuple[httpx.AsyncClient, str]:
    """A client of an app that takes any path and verb, and a good key."""
    key, entry = new_key("alice", (), None)
    (tmp_path / "keys").write_text(entry.line())
    settings = Settings(_env_file=None, api_keys_file=tmp_path / "keys")  # type: ignore[call-arg]
    app = FastAPI(docs_url=None)
    problems.install(app)
    app.state.identity = await open_identity(settings)
    app.add_middleware(Identification, settings=settings)

    @app.api_route("/{path:path}", methods=["GET", "POST", "DELETE", "PATCH", "PUT"])
    async def everything(path: str) -> str:
        return path

    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service"), key


async def test_what_begins_like_an_open_path_is_not_open(door: tuple[httpx.AsyncClient, str]) -> None:
    client, _ = door
    for path, status in {"/docs": 200, "/docs/x.js": 200, "/docs-of-ours": 401, "/healthz2": 401}.items():
        assert (await client.get(path)).status_code == status, path


@pytest.mark.parametrize("verb", ["POST", "DELETE", "PATCH", "PUT"])
async def test_a_page_acts_only_where_it_comes_from_here(door: tuple[httpx.AsyncClient, str], verb: str) -> None:
    client, key = door
    headers = {"authorization": f"Bearer {key}", "origin": "https://name.of.the.proxy"}
    assert (await client.request(verb, "/x", headers=headers)).status_code == 403
    for site, status in {"cross-site": 403, "same-site": 403, "same-origin": 200}.items():
        reply = await client.request(verb, "/x", headers=headers | {"sec-fetch-site": site})
        assert reply.status_code == status, "a proxy may have changed the name that the browser called"
