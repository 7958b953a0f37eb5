"""`/ws/chat`."""

import json
from typing import Any

import httpx
import pytest
import websockets

from tests.service import Live, problem


async def turn(socket: Any, **message: Any) -> tuple[list[str], dict[str, Any]]:
    await socket.send(json.dumps(message))
    tokens = []
    while True:
        frame = json.loads(await socket.recv())
        if frame.get("done") or "error" in frame:
            return tokens, frame
        tokens.append(frame["token"])


async def test_a_socket_has_one_conversation_of_its_own(live: Live) -> None:
    async with websockets.connect(live.ws) as socket:
        _, first = await turn(socket, message="What does a return ticket of the ferry cost?")
        tokens, second = await turn(socket, message="And how long is it valid?", conversation_id=None)
    assert first["conversation_id"] == second["conversation_id"]
    assert "three days" in "".join(tokens)
    async with websockets.connect(live.ws) as socket:
        _, other = await turn(socket, message="How high is the tower?")
    assert other["conversation_id"] != first["conversation_id"]


async def test_messages_sent_ahead_are_answered_in_order(live: Live) -> None:
    async with websockets.connect(live.ws) as socket:
        for message in ("How high is the tower?", "When was the fog horn added?"):
            await socket.send(json.dumps({"message": message}))
        texts = ["", ""]
        for i in range(2):
            while not (frame := json.loads(await socket.recv())).get("done"):
                texts[i] += frame["token"]
    assert "42 metres" in texts[0]
    assert "1903" in texts[1]


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        ("{", "invalid_request"), ("[]", "invalid_request"), ("{}", "invalid_request"),
        ('{"message": ""}', "invalid_request"), ('{"message": "\\ud800"}', "invalid_request"),
        ('{"message": "hi", "colour": 1}', "invalid_request"), (json.dumps({"message": "y" * 5001}), "message_too_long"),
        (b"\xff\xfe", "invalid_request"), (b'{"message": "tower \xff"}', "invalid_request"),
        ('{"message": "hi", "chat_model": "openai:x"}', "unknown_model"),
    ],
)  # fmt: skip
async def test_a_bad_frame_gets_an_error_frame_and_the_socket_lives_on(live: Live, raw: str | bytes, code: str) -> None:
    async with websockets.connect(live.ws) as socket:
        await socket.send(raw)
        fault = json.loads(await socket.recv())["error"]
        assert fault["code"] == code
        assert raw not in ("{", "[]") or '{"message": "..."}' in fault["detail"]
        tokens, last = await turn(socket, message="How high is the tower?")
        assert last["done"]
        assert "42 metres" in "".join(tokens)


def test_a_proxy_that_hands_on_no_websocket_is_told_of(live: Live) -> None:
    assert "Upgrade" in str(problem(httpx.get(f"{live.url}/ws/chat"), "invalid_request", 422)["detail"])


async def test_an_address_that_takes_no_websocket_is_told_from_one_that_needs_a_key(live: Live) -> None:
    for address in (f"{live.ws}/", live.ws.removesuffix("/chat")):
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(address)
        assert refused.value.response.status_code == 404
        assert b"/docs describes what there is" in (refused.value.response.body or b"")


async def test_a_page_from_elsewhere_is_turned_away(live: Live) -> None:
    with pytest.raises(websockets.InvalidStatus):
        await websockets.connect(live.ws, origin="https://elsewhere.example")  # type: ignore[arg-type]
    async with websockets.connect(live.ws, origin=live.url) as socket:  # type: ignore[arg-type]
        assert (await turn(socket, message="How high is the tower?"))[1]["done"]


async def test_a_frame_over_the_bound_closes_the_socket(live: Live) -> None:
    async with websockets.connect(live.ws) as socket:
        await socket.send("x" * 1_000_001)
        with pytest.raises(websockets.ConnectionClosedError):
            await socket.recv()
    assert httpx.get(f"{live.url}/healthz").status_code == 200
