"""Who gets in: every door without a credential, with a wrong one, from another machine, another name, another page."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import websockets
import websockets.sync.client
from fastapi import FastAPI
from playwright.sync_api import Browser

from citewell.api.app import create_app
from citewell.api.identity import Identification
from citewell.errors import ConfigurationError
from citewell.settings import Settings
from tests.identity.callers import DOORS, Caller, basic
from tests.identity.conftest import World
from tests.identity.issuer import by_hand
from tests.service import ROOT, Live, environment, problem

TOWER = "How high is the tower of the lighthouse?"
OPEN = ("/healthz", "/readyz", "/docs", "/openapi.json")


def paths() -> Iterator[tuple[str, str]]:
    """Every route of the application, documented or not, so that a new door cannot be forgotten here."""
    app = create_app(Settings(_env_file=None))
    found = {(method.upper(), path) for path, calls in app.openapi()["paths"].items() for method in calls}
    for route in app.routes:
        found |= {(method, getattr(route, "path", "")) for method in getattr(route, "methods", None) or ()}
    for method, path in sorted(found):
        if path and method != "HEAD":
            yield method, re.sub(r"\{[^}]*\}", "x", path)


def test_every_route_asks_for_a_credential_but_those_that_are_open(world: World) -> None:
    asked = set()
    for method, path in paths():
        if path in ("/", "/ws/chat") or path.startswith(OPEN):
            continue
        response = httpx.request(method, world.live.url + path, timeout=30)
        assert response.status_code == 401, (method, path)
        if not path.startswith("/v1/"):
            problem(response, "not_authenticated", 401)
        assert response.headers["www-authenticate"].startswith("Bearer"), path
        assert response.headers["x-request-id"], path
        asked.add(path)
    assert {
        "/rag/invoke",
        "/rag/c/x/invoke",
        "/chat",
        "/threads",
        "/sources",
        "/metrics",
        "/uploads",
        "/feedback",
    } <= asked
    for path in ("/", *OPEN):
        assert httpx.get(world.live.url + path, timeout=30).status_code == 200, path


def test_the_api_page_asks_for_a_key_and_sends_it(world: World, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(f"{world.live.url}/docs")
    page.get_by_role("button", name="Authorize").first.click()
    page.get_by_label("auth-bearer-value").fill(world.keys["alice"])
    page.get_by_role("button", name="Apply credentials").first.click()
    page.get_by_role("button", name="Close", exact=True).first.click()
    page.locator("#operations-documents-sources_sources_get").click()
    page.get_by_role("button", name="Try it out").click()
    with page.expect_response("**/sources") as response:
        page.get_by_role("button", name="Execute").click()
    assert response.value.status == 200
    page.close()


def test_what_is_open_is_described_so(world: World) -> None:
    described = httpx.get(f"{world.live.url}/openapi.json", timeout=30).json()
    assert described["security"] == [{"bearer": []}, {"key": []}]
    for path in ("/", "/healthz"):
        assert described["paths"][path]["get"]["security"] == []
    assert "security" not in described["paths"]["/metrics"]["get"]
    assert "security" not in create_app(Settings(_env_file=None)).openapi()


@pytest.mark.parametrize(
    "credential",
    ["", "cw_" + "0" * 43, "Bearer", "a.b.c", "x" * 9000],
    ids=["empty", "made up", "word", "dots", "long"],
)
def test_wrong_credentials_are_refused_at_every_door_and_not_repeated(world: World, credential: str) -> None:
    for name, door in DOORS.items():
        if name == "WS":
            continue
        with pytest.raises(AssertionError) as caught:
            door(Caller(world.live, "mallory", credential), TOWER, "t")
        text = str(caught.value)
        assert "not_authenticated" in text
        assert "42 metres" not in text
        assert not credential or credential == "Bearer" or credential not in text


def test_forged_tokens_are_refused_over_the_wire(world: World) -> None:
    expired = world.issuer.token(exp=int(time.time()) - 3600)
    for token in (
        expired, world.issuer.token(aud="another"), by_hand({"alg": "none", "kid": "rsa-1"}, world.issuer.claims()),
        jwt.encode(world.issuer.claims(), world.issuer.rsa, "RS256", headers={"kid": "unknown"}),
    ):  # fmt: skip
        refused = Caller(world.live, "mallory", token).send("GET", "/threads")
        problem(refused, "not_authenticated", 401)
        assert token not in refused.text


def test_openais_clients_read_the_refusal_in_their_own_shape(world: World) -> None:
    response = httpx.get(f"{world.live.url}/v1/models", headers={"authorization": "Bearer nobody"})
    assert response.status_code == 401
    assert response.json()["error"]["type"] == "authentication_error"


@pytest.mark.parametrize(
    "headers",
    [lambda key: {"authorization": f"bearer {key}"}, lambda key: {"x-api-key": key}, basic],
    ids=["bearer", "x-api-key", "basic"],
)
def test_a_key_may_come_in_several_headers(world: World, headers: Callable[[str], dict[str, str]]) -> None:
    response = httpx.get(f"{world.live.url}/threads", headers=headers(world.keys["alice"]))
    assert response.status_code == 200


def test_a_socket_is_refused_before_it_opens(world: World) -> None:
    for options in (
        {},
        {"additional_headers": {"authorization": "Bearer nobody"}},
        {"subprotocols": ["citewell", "citewell.key.x"]},
    ):
        with pytest.raises(websockets.InvalidStatus) as caught:
            websockets.sync.client.connect(world.live.ws, **options)  # type: ignore[arg-type]
        assert caught.value.response.status_code == 401
        assert json.loads(caught.value.response.body or b"")["code"] == "not_authenticated"


def test_a_browsers_socket_brings_its_key_as_a_subprotocol(world: World) -> None:
    offered: Any = ["citewell", f"citewell.key.{world.keys['alice']}"]
    with websockets.sync.client.connect(world.live.ws, subprotocols=offered, origin=world.live.url) as socket:  # type: ignore[arg-type]
        assert socket.subprotocol == "citewell"
        socket.send(json.dumps({"message": TOWER}))
        assert "token" in json.loads(socket.recv(30))


def test_a_socket_ends_when_its_token_does(world: World) -> None:
    for good_s in (2, 10, 60):  # longer where a slow machine was too late for it
        ends = int(time.time()) + good_s
        who = Caller(world.live, "alice", world.issuer.token(exp=ends - 30))  # the leeway
        with suppress(websockets.InvalidStatus):
            connection = websockets.sync.client.connect(world.live.ws, additional_headers=who.headers)
            break
    with connection as socket:
        time.sleep(max(0.0, ends + 0.5 - time.time()))
        socket.send(json.dumps({"message": TOWER}))
        assert json.loads(socket.recv(30))["error"]["code"] == "not_authenticated"
        with pytest.raises(websockets.ConnectionClosed):
            socket.recv(30)


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1.evil.example"])
def test_a_page_of_another_origin_cannot_act(world: World, live: Live, origin: str) -> None:
    with_key = {"authorization": f"Bearer {world.keys['alice']}", "origin": origin, "content-type": "text/plain"}
    body = json.dumps({"input": {"question": TOWER}})
    problem(httpx.post(f"{world.live.url}/rag/invoke", content=body, headers=with_key), "not_authorized", 403)
    problem(httpx.post(f"{live.url}/rag/invoke", content=body, headers={"origin": origin}), "not_authorized", 403)
    for verb in ("DELETE", "PATCH"):
        problem(httpx.request(verb, f"{world.live.url}/threads/x", headers=with_key), "not_authorized", 403)
    read = httpx.get(f"{world.live.url}/threads", headers=with_key)
    assert "access-control-allow-origin" not in read.headers
    preflight = {"origin": origin, "access-control-request-method": "POST"}
    assert "access-control-allow-origin" not in httpx.options(f"{live.url}/rag/invoke", headers=preflight).headers
    with pytest.raises(websockets.InvalidStatus) as caught:
        websockets.sync.client.connect(live.ws, origin=origin)  # type: ignore[arg-type]
    assert caught.value.response.status_code == 403


def test_without_keys_only_loopback_names_are_answered(live: Live) -> None:
    """A page whose own name leads to 127.0.0.1 (DNS rebinding) sends that name as Host, and as its Origin."""
    for host in ("evil.example:8000", "127.0.0.1.evil.example", "[", ""):
        response = httpx.get(f"{live.url}/sources", headers={"host": host, "origin": f"http://{host}"})
        assert response.status_code in (400, 403), host
    assert httpx.get(f"{live.url}/sources", headers={"host": "localhost:1"}).status_code == 200


async def test_without_keys_only_this_machine_is_answered() -> None:
    """As behind a proxy, or where uvicorn was started by hand on an address that others reach."""
    app = FastAPI()
    app.add_middleware(Identification, settings=Settings(_env_file=None))
    transport = httpx.ASGITransport(app, client=("192.0.2.7", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        problem(await client.get("/sources"), "not_authorized", 403)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::", "citewell.example"])
def test_the_service_does_not_start_open_to_others(host: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="CITEWELL_KEYLESS=anywhere"):
        create_app(Settings(_env_file=None, host=host))
    create_app(Settings(_env_file=None, host=host, keyless="anywhere"))
    create_app(Settings(_env_file=None, host=host, api_keys_file=tmp_path / "keys"))
    create_app(Settings(_env_file=None, host="127.0.0.2"))


def test_the_server_says_so_in_one_sentence(tmp_path: Path) -> None:
    for settings, named in (
        ({"CITEWELL_HOST": "0.0.0.0"}, "CITEWELL_KEYLESS"),
        ({"CITEWELL_API_KEYS_FILE": "nowhere"}, "nowhere"),
    ):
        done = subprocess.run(
            [sys.executable, str(ROOT / "server.py")], env=environment(tmp_path / "data", CITEWELL_PORT="0", **settings),
            cwd=tmp_path, capture_output=True, text=True, timeout=200,
        )  # fmt: skip
        assert done.returncode == 2
        assert named in done.stderr
        assert "Traceback" not in done.stderr


def test_a_browser_asks_for_the_key_and_the_pages_work(world: World, browser: Browser) -> None:
    assert httpx.get(world.live.url, headers={"accept": "text/html"}).headers["www-authenticate"].startswith("Basic")
    typed: Any = {"username": "anybody", "password": world.keys["alice"]}
    context = browser.new_context(http_credentials=typed | {"send": "unauthorized"})
    page = context.new_page()
    page.goto(world.live.url)
    page.fill("#question", TOWER)
    page.click("#send")
    page.wait_for_selector("details")
    assert "42 metres" in page.inner_text("#turns")
    page.goto(f"{world.live.url}/rag/playground/")
    page.locator("textarea").last.fill(TOWER)
    page.get_by_role("button", name="Start").click()
    page.wait_for_selector("text=42 metres")
    context.close()


def test_a_documents_own_markup_does_not_run_on_our_origin(world: World) -> None:
    who = Caller(world.live, "alice", world.keys["alice"])
    for uri in ("papers/handbook.html", "papers/lighthouse.md"):
        headers = who.send("GET", "/source/file", params={"uri": uri}).raise_for_status().headers
        assert headers["content-type"] == "text/plain; charset=utf-8"
        assert headers["x-content-type-options"] == "nosniff"


def test_nothing_secret_is_logged_or_told(world: World) -> None:
    """Last in this file: what all of it has logged."""
    good, wrong = world.keys["alice"], "cw_not-a-key-but-somebodys-secret"
    token = world.issuer.token()
    for credential in (good, wrong, token):
        who = Caller(world.live, "alice", credential)
        for response in (
            who.send("POST", "/rag/invoke", content=b"{"),
            who.send("GET", "/conversation/none"),
            who.send("GET", "/nowhere"),
        ):
            assert credential not in response.text
            assert credential not in str(response.headers)
    log = world.live.log.read_text()
    for secret in (good, world.keys["bob"], wrong, token, token.rpartition(".")[2], "Bearer "):
        assert secret not in log
