"""The head of a request is read before anybody knows whose it is."""

import asyncio
import resource
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx
import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from citewell.api.serve import BRINGS_WITHIN_S, MOST_HEAD_BYTES, READS_WITHIN_S, Bounded, BoundedSocket
from tests.clock import Forward
from tests.service import ROOT, Live

START = b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\nx-long: "


def connected(live: Live) -> socket.socket:
    url = httpx.URL(live.url)
    return socket.create_connection((url.host, url.port or 80), timeout=30)


def test_one_that_goes_on_and_on_is_cut_off(live: Live) -> None:
    taken = 0
    with connected(live) as client, suppress(BrokenPipeError, ConnectionResetError):
        client.sendall(START)
        while taken < 100_000_000:
            taken += client.send(b"a" * 1_000_000)
    assert taken < 50_000_000  # what the system holds of it is much, too
    assert httpx.get(f"{live.url}/healthz", timeout=30).status_code == 200


def test_one_of_ordinary_length_and_a_body_of_any_length_are_read(live: Live) -> None:
    with connected(live) as client:
        client.sendall(START + b"a" * (MOST_HEAD_BYTES // 2) + b"\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200")
    with httpx.Client(base_url=live.url) as client:
        for _ in range(3):  # on one connection
            reply = client.post("/chat", json={"message": "x", "padding": "a" * 500_000})
            assert (reply.status_code, "padding" in reply.text) == (422, True)


def test_a_connection_that_a_proxy_keeps_is_kept(live: Live) -> None:
    with connected(live) as client, client.makefile("rb") as replies:
        for pause in (0, 6):
            time.sleep(pause)
            client.sendall(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
            assert replies.readline().startswith(b"HTTP/1.1 200")
            while replies.readline().strip():
                pass
            assert replies.read(15) == b'{"status":"ok"}'


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse(await Request(scope, receive).body())(scope, receive, send)


@asynccontextmanager
async def served(app: ASGIApp = echo, *, system_holds: int = 0, **options: float) -> AsyncIterator[int]:
    """An application over the service's protocols, at a port.

    Args:
        system_holds: Bytes of answers that the system takes before somebody reads them, about; 0: as many as it likes.
    """
    with socket.create_server(("127.0.0.1", 0)) as bound:
        if system_holds:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, system_holds)  # each connection takes it over
        config = uvicorn.Config(app, http=Bounded, ws=BoundedSocket, lifespan="off", log_config=None, **options)  # type: ignore[arg-type]  # its options are of many types
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[bound]))
        try:
            yield bound.getsockname()[1]
        finally:
            server.should_exit = True
            await serving


POST = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n"
FOR_EVER = {"timeout_keep_alive": 3600}
"""uvicorn's own patience with a connection on which nothing comes."""


async def sent(port: int, begun: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which this is there as soon as the service sees it."""
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(begun)
    return await asyncio.open_connection(sock=client)


@pytest.mark.parametrize("cut", [0, 40, 140, 200])
@pytest.mark.parametrize("length", [b"content-length: %d", b"transfer-encoding: chunked"])
async def test_the_body_of_who_asks_for_another_protocol_is_its_body(length: bytes, cut: int) -> None:
    inner = b"GET /inner HTTP/1.1\r\nhost: a\r\n\r\n"
    body = inner if b"%d" in length else b"%x\r\n%b\r\n0\r\n\r\n" % (len(inner), inner)
    ask = b"POST / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAA\r\n"
    ask += (length % len(inner) if b"%d" in length else length) + b"\r\n\r\n" + body
    async with served() as port, asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for part in (ask[:cut], ask[cut:] + ask + POST + b"last"):  # three on one connection
            writer.write(part)
            await asyncio.sleep(0.05)
        said = await reader.readuntil(b"last")
        writer.close()
    assert said.count(b"HTTP/1.1 200") == 3
    assert said.count(inner) == 2


@pytest.mark.parametrize("begun", [b"", b"GET / HT", POST, POST + b"ab", POST + b"abcd" + POST + b"a"])
async def test_who_brings_no_whole_request_is_not_waited_for(begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("citewell.api.serve.BRINGS_WITHIN_S", 0.2)
    async with served(**FOR_EVER) as port:
        reader, writer = await sent(port, begun)
        said = await reader.read()
        writer.close()
    assert said.count(b"HTTP/1.1 200") == begun.startswith(POST + b"abcd")


async def test_who_sends_a_blank_line_after_a_request_is_not_waited_for_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("citewell.api.serve.BRINGS_WITHIN_S", 0.2)
    async with served(**FOR_EVER) as port:
        reader, writer = await sent(port, POST + b"abcd")
        assert (await reader.readuntil(b"abcd")).startswith(b"HTTP/1.1 200")
        writer.write(b"\r\n")
        assert not await reader.read()
        writer.close()


async def test_who_brings_it_slowly_is(forward: Forward) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def listen(scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while len(body) < 4:
            part = (await receive())["body"]
            body += part
            heard.put_nowait(part)
        await PlainTextResponse(body)(scope, receive, send)

    async with served(listen, **FOR_EVER) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):  # on one connection
            writer.write(POST)
            for letter in b"slow":
                writer.write(bytes([letter]))
                while await heard.get() != bytes([letter]):
                    pass
                forward(0.6 * BRINGS_WITHIN_S)
            assert (await reader.readuntil(b"slow")).startswith(b"HTTP/1.1 200")
        writer.close()


@asynccontextmanager
async def reading(port: int) -> AsyncIterator[socket.socket]:
    """A connection that holds little of an answer to the question sent on it."""
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", port))
        await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        yield client


@pytest.mark.parametrize("whole", [60_000, 16_000_000])
async def test_who_reads_nothing_of_an_answer_is_left(whole: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("citewell.api.serve.READS_WITHIN_S", 0.5)
    lost, really = asyncio.Event(), Bounded.connection_lost

    def connection_lost(self: Bounded, exc: Exception | None) -> None:
        really(self, exc)
        lost.set()

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(b"a" * whole)(scope, receive, send)

    monkeypatch.setattr(Bounded, "connection_lost", connection_lost)
    async with served(answer, system_holds=8192) as port, reading(port) as client:
        await lost.wait()
        got = 0
        with suppress(ConnectionResetError):
            while piece := await asyncio.get_running_loop().sock_recv(client, whole):
                got += len(piece)
    assert got < whole


async def test_who_reads_an_answer_slowly_gets_all_of_it(forward: Forward) -> None:
    """In several times as long as nothing of it may be read."""
    whole, got = 4_000_000, 0
    loop = asyncio.get_running_loop()

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(b"a" * whole)(scope, receive, send)

    async with served(answer, system_holds=8192) as port, reading(port) as client:
        for end in range(whole // 8, whole + 1, whole // 8):
            while got < end:
                piece = await loop.sock_recv(client, whole // 8)
                assert piece, f"it was cut off after {got:,} bytes"
                got += len(piece)
            forward(0.6 * READS_WITHIN_S)


async def test_a_socket_that_answers_no_ping_is_left_though_it_was_sent_much() -> None:
    ended = asyncio.Event()

    async def talk(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "a" * 16_000_000})
        assert (await receive())["type"] == "websocket.disconnect"
        ended.set()

    async with served(talk, ws_ping_interval=0.2, ws_ping_timeout=0.2) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**12)
        writer.write(
            b"GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
            b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        await ended.wait()
        writer.close()


def test_as_many_files_may_be_open_as_the_system_allows() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    code = "from citewell.api.serve import _open_as_many_files_as_may_be as more; more(); import resource; print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
    few = ["sh", "-c", f"ulimit -Sn 256; exec {sys.executable} -c '{code}'"]
    done = subprocess.run(few, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.stdout.split() == [str(hard), str(hard)], done.stderr
