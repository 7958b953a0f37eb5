"""Many wrong keys: refused by where they come from, without shutting out anybody who holds a good one."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from structlog.testing import capture_logs

from citewell.api import problems
from citewell.api.identity import Identification
from citewell.errors import RateLimited
from citewell.identity import Attempts, open_identity
from citewell.identity.attempts import MOST_ADDRESSES
from citewell.identity.keys import new_key
from citewell.settings import Settings


@pytest.fixture
async def door(tmp_path: Path) -> tuple[FastAPI, list[str]]:
    """The middleware over one route, and two good keys."""
    made = [new_key(name, (), None) for name in ("alice", "bob")]
    (tmp_path / "keys").write_text("\n".join(entry.line() for _, entry in made))
    settings = Settings(_env_file=None, api_keys_file=tmp_path / "keys", wrong_keys_per_minute=3)  # type: ignore[call-arg]
    app = FastAPI()
    problems.install(app)
    app.state.identity = await open_identity(settings)
    app.add_middleware(Identification, settings=settings)

    @app.get("/who")
    async def who() -> str:
        return "you"

    return app, [key for key, _ in made]


async def status(app: FastAPI, key: str | None, address: str = "10.0.0.1") -> int:
    transport = httpx.ASGITransport(app, client=(address, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        reply = await client.get("/who", headers={"authorization": f"Bearer {key}"} if key else {})
    if reply.status_code == 429:
        assert reply.json()["code"] == "rate_limited"
        assert 0 < int(reply.headers["retry-after"]) <= 60
    return reply.status_code


async def test_wrong_keys_are_refused_unlooked_at_and_known_good_ones_go_on(door: tuple[FastAPI, list[str]]) -> None:
    app, (alice, bob) = door
    assert await status(app, alice) == 200
    assert [await status(app, f"wrong {number}") for number in range(5)] == [401, 401, 401, 429, 429]
    assert await status(app, alice) == 200, "she was known before"
    assert await status(app, bob) == 429, "nobody knows yet that this one is good"
    assert await status(app, None) == 401
    assert await status(app, bob, "10.0.0.2") == 200
    assert await status(app, bob) == 200
    assert await status(app, "wrong", "10.0.0.2") == 401


def test_a_minute_slides_and_one_ipv6_network_is_one_address() -> None:
    now = 0.0
    attempts = Attempts(2, clock=lambda: now)
    for at in (0.0, 30.0):
        now = at
        attempts.failed("2001:db8::1", f"wrong {at}")
    with pytest.raises(RateLimited) as refused:
        attempts.check("2001:db8::ffff", "other")
    assert refused.value.retry_after_s == 30
    attempts.check("2001:db8:0:1::1", "other")
    now = 60.0
    attempts.check("2001:db8::1", "other")


def test_the_log_tells_of_many_wrong_ones_within_a_minute_and_of_no_fewer() -> None:
    now = 0.0
    attempts = Attempts(2, clock=lambda: now)
    with capture_logs() as logged:
        for at in (0.0, 60.0):
            now = at
            attempts.failed("host", "wrong")
        assert logged == []
        attempts.failed("host", "wrong")
    assert [line["event"] for line in logged] == ["credentials.many_wrong"]


def test_what_is_remembered_is_bounded() -> None:
    attempts = Attempts(1)
    for number in range(MOST_ADDRESSES + 1):
        attempts.failed(f"host-{number}", "wrong")
        attempts.succeeded(f"good {number}")
    assert len(attempts._failed) == len(attempts._good) == MOST_ADDRESSES
    with pytest.raises(RateLimited):
        attempts.check(f"host-{MOST_ADDRESSES}", "good 0")
    attempts.check(f"host-{MOST_ADDRESSES}", f"good {MOST_ADDRESSES}")
    attempts.check("host-0", "other")


def test_an_address_that_failed_again_is_not_the_first_to_be_forgotten() -> None:
    attempts = Attempts(1)
    for number in range(MOST_ADDRESSES):
        attempts.failed(f"host-{number}", "wrong")
    attempts.failed("host-0", "wrong")
    attempts.failed("another", "wrong")
    with pytest.raises(RateLimited):
        attempts.check("host-0", "other")
    attempts.check("host-1", "other")


def test_a_credential_that_is_good_no_longer_is_unknown_again() -> None:
    attempts = Attempts(1, clock=lambda: 0.0)
    attempts.succeeded("key")
    attempts.failed("host", "wrong")
    attempts.check("host", "key")
    attempts.failed("host", "key")
    with pytest.raises(RateLimited):
        attempts.check("host", "key")


def test_the_wait_is_until_the_oldest_failure_that_counts_is_a_minute_old() -> None:
    now = 0.0
    attempts = Attempts(2, clock=lambda: now)
    for at in (0.0, 30.0, 50.0):
        now = at
        attempts.failed("host", f"wrong {at}")
    with pytest.raises(RateLimited) as refused:
        attempts.check("host", "other")
    assert refused.value.retry_after_s == 40
