"""The head of a request is read before anybody knows whose it is."""

import socket
import time

import httpx
import pytest

from citewell.api.serve import MOST_HEAD_BYTES
from tests.service import Live

START = b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\nx-long: "


def connected(live: Live) -> socket.socket:
    url = httpx.URL(live.url)
    return socket.create_connection((url.host, url.port or 80), timeout=30)


def test_one_that_goes_on_and_on_is_cut_off(live: Live) -> None:
    begun = time.monotonic()
    with connected(live) as client, pytest.raises((BrokenPipeError, ConnectionResetError)):
        client.sendall(START + b"a" * 100_000_000)
    assert time.monotonic() - begun < 20
    assert httpx.get(f"{live.url}/healthz", timeout=30).status_code == 200


def test_one_of_ordinary_length_and_a_body_of_any_length_are_read(live: Live) -> None:
    with connected(live) as client:
        client.sendall(START + b"a" * (MOST_HEAD_BYTES // 2) + b"\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200")
    with httpx.Client(base_url=live.url) as client:
        for _ in range(3):  # on one connection
            reply = client.post("/chat", json={"message": "x", "padding": "a" * 500_000})
            assert (reply.status_code, "padding" in reply.text) == (422, True)
