"""One line a turn, under the request's id, which every answer carries."""

import asyncio
import fcntl
import json
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets

from citewell.settings import Settings
from citewell.telemetry.logs import secrets
from citewell.telemetry.turns import thread_digest
from tests.service import ROOT, START_WITHIN_S, STOP_WITHIN_S, Live, environment, free_port, problem

QUESTION = "How high is the tower of the lighthouse?"


def lines(live: Live) -> list[dict[str, Any]]:
    """The log's JSON lines; what is printed for a person at the start is none."""
    return [json.loads(line) for line in live.log.read_text().splitlines() if line.startswith("{")]


async def test_each_turn_is_one_line_under_the_id_of_its_request(start: Callable[..., Live]) -> None:
    live = start(
        CITEWELL_LOG_FORMAT="json", CITEWELL_MODEL_RETRIES="0", CITEWELL_CHAT_MODELS='["openai:gone"]',
        OPENAI_BASE_URL="http://127.0.0.1:9/v1",
    )  # fmt: skip
    async with httpx.AsyncClient(base_url=live.url, timeout=60) as client:
        body = {"message": QUESTION, "conversation_id": "ada"}
        reply = await client.post("/chat", json=body, headers={"x-request-id": "from-the-proxy.1"})
        assert reply.headers["x-request-id"] == "from-the-proxy.1"
        streamed = await client.post("/rag/stream", json={"input": {"question": QUESTION}})
        fails = await client.post("/chat", json={"message": QUESTION, "chat_model": "openai:gone"})
        reason = problem(fails, "model_unavailable", 503)
    async with websockets.connect(live.ws, additional_headers={"x-request-id": "socket-1"}) as socket:
        assert socket.response is not None
        assert socket.response.headers["x-request-id"] == "socket-1"
        await socket.send(json.dumps({"message": QUESTION}))
        while not json.loads(await socket.recv()).get("done"):
            pass
        await socket.send("{}")
        assert json.loads(await socket.recv())["error"]["request_id"] == "socket-1"
    *turns, last = [line for line in lines(live) if line["event"] == "turn.finished"]
    turns, failed = [*turns[:2], last], turns[2]
    assert (failed["outcome"], failed["code"]) == ("failed", "model_unavailable")
    assert failed["request_id"] == reason["request_id"] == fails.headers["x-request-id"]
    assert "Connect" in failed["cause"]
    assert [turn["request_id"] for turn in turns] == ["from-the-proxy.1", streamed.headers["x-request-id"], "socket-1"]
    assert [turn["door"] for turn in turns] == ["rest", "langserve", "websocket"]
    for turn in turns:
        assert (turn["outcome"], turn["code"], turn["model"], turn["level"]) == ("answered", None, "extractive", "info")
        assert 0 <= turn["first_token_ms"] <= turn["ms"]
        assert turn["input_tokens"] > turn["output_tokens"] > 0
    assert turns[0]["thread"] == thread_digest("ada")
    assert '"ada"' not in live.log.read_text()


def test_text_can_be_had_instead(start: Callable[..., Live]) -> None:
    live = start(CITEWELL_LOG_FORMAT="text")
    httpx.post(f"{live.url}/chat", json={"message": QUESTION}, timeout=60).raise_for_status()
    assert not lines(live)
    assert "turn.finished" in live.log.read_text()


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/no/such", "/docs", "/v1/models/none", "/rag/input_schema"])
def test_every_answer_has_an_id(live: Live, path: str) -> None:
    first, second = (httpx.get(live.url + path, timeout=30) for _ in range(2))
    assert first.headers["x-request-id"] != second.headers["x-request-id"]


def test_so_has_what_is_too_large(live: Live) -> None:
    reply = httpx.post(f"{live.url}/chat", content=b"x" * 1_000_001, timeout=30)
    assert problem(reply, "body_too_large", 413)["request_id"] == reply.headers["x-request-id"]


@pytest.mark.parametrize("given", ["", "two words", "x" * 129, "a{b}", "é"])
def test_an_id_that_could_break_a_log_is_not_taken_over(live: Live, given: str) -> None:
    reply = httpx.get(f"{live.url}/healthz", headers={"x-request-id": given.encode()})
    assert reply.headers["x-request-id"] != given
    assert len(reply.headers["x-request-id"]) == 36


@pytest.mark.parametrize("gone", ["disk", "reader", "interest"])
def test_a_log_that_cannot_be_written_fails_no_turn(data_dir: Path, gone: str) -> None:
    """Of the reader or, the last, of its interest: it is there and reads nothing."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with Path("/dev/full").open("wb") as full:
        process = subprocess.Popen(
            [sys.executable, ROOT / "server.py"], env=environment(data_dir, CITEWELL_PORT=str(port)),
            stdout=full if gone == "disk" else subprocess.PIPE,
            stderr=subprocess.DEVNULL if gone == "interest" else subprocess.STDOUT,
        )  # fmt: skip
    try:
        if process.stdout is not None and gone == "reader":
            process.stdout.close()
        elif process.stdout is not None:
            fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, select.PIPE_BUF)
        deadline = time.monotonic() + START_WITHIN_S
        while True:
            with suppress(httpx.TransportError):
                if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                    break
            assert time.monotonic() < deadline, "not ready"
            time.sleep(0.1)
        body = {"message": QUESTION, "conversation_id": "t"}
        assert "42 metres" in httpx.post(f"{url}/chat", json=body, timeout=60).raise_for_status().json()["response"]
        for _ in range(10):  # more lines than the pipe holds
            httpx.post(f"{url}/chat", json=body, timeout=60).raise_for_status()
        events = httpx.post(f"{url}/chat", json=body, headers={"accept": "text/event-stream"}, timeout=60).text
        assert "event: done" in events
        lost = re.search(
            r"^citewell_log_writes_lost_total (\S+)", httpx.get(f"{url}/metrics", timeout=60).text, re.MULTILINE
        )
        assert lost is not None
        assert float(lost[1]) >= 2
        process.terminate()
        assert process.wait(STOP_WITHIN_S) == 0
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_passwords_in_addresses_are_secrets_too() -> None:
    settings = Settings(
        redis_url="redis://user:for-redis@[::1", vector_store="chroma+http://user:for-chroma@127.0.0.1:8010",
        openai_base_url="https://user:for%20models@127.0.0.1/v1", otlp_endpoint="http://user:for-traces@127.0.0.1:4318",
        instructions="Answer as on https://[wiki] and no longer.",
    )  # fmt: skip
    assert {"for-chroma", "for models", "for-traces", "redis://user:for-redis@[::1"} <= secrets(settings)


async def test_what_a_provider_repeats_of_secrets_and_text_is_not_logged(start: Callable[..., Live]) -> None:
    key, said = "our-own-key-without-a-pattern", "The keeper's name is Tomas"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        asked = json.loads(await reader.readexactly(int(length.split(b":")[1])))
        if asked["model"] == "refuses":
            kind, text = (
                "401 No\r\ncontent-type: application/json",
                json.dumps({"error": {"message": f"Wrong key: {key}"}}),
            )
        else:
            choice = {"index": 0, "delta": {"content": {"text": said}}}
            kind, text = "200 OK\r\ncontent-type: text/event-stream", f"data: {json.dumps({'choices': [choice]})}\n\n"
        writer.write(f"HTTP/1.1 {kind}\r\nconnection: close\r\ncontent-length: {len(text)}\r\n\r\n{text}".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        live = start(
            CITEWELL_LOG_FORMAT="json", CITEWELL_MODEL_RETRIES="0", CITEWELL_CHAT_MODELS='["openai:refuses", "openai:babbles"]',
            OPENAI_BASE_URL=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", OPENAI_API_KEY=key,
        )  # fmt: skip
        async with httpx.AsyncClient(base_url=live.url, timeout=60) as client:
            for name, code in (("refuses", "model_refused"), ("babbles", "model_error")):
                body = {"message": QUESTION, "chat_model": f"openai:{name}"}
                problem(await client.post("/chat", json=body), code, 502)
    refused, babbled = [line for line in lines(live) if line["event"] == "turn.finished"]
    assert "Wrong key: [secret]" in refused["cause"]
    assert babbled["cause"] == "ValidationError"
    assert key not in live.log.read_text()
    assert "Tomas" not in live.log.read_text()
