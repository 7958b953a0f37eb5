"""One service for two callers, by keys and by tokens, and every door as a function."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import websockets.sync.client
from langserve.lzstring import LZString

from tests.service import Live


@dataclass(frozen=True)
class Caller:
    """Somebody with a credential."""

    live: Live
    name: str
    credential: str

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.credential}".strip()}

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = self.headers | options.pop("headers", {})
        return httpx.request(method, self.live.url + path, headers=headers, timeout=60, **options)


Ask = Callable[[Caller, str, str], str]
"""(who, question, thread id) -> everything the service sent back, raw."""


def _rag(verb: str) -> Ask:
    def ask(who: Caller, question: str, thread: str) -> str:
        config = {"configurable": {"thread_id": thread, "trace": True}}
        body: dict[str, Any] = {"input": {"question": question}, "config": config}
        if verb == "batch":
            body = {"inputs": [{"question": question}], "config": [config]}
        return _sent(who.send("POST", f"/rag/{verb}", json=body))

    return ask


def _by_hash(who: Caller, question: str, thread: str) -> str:
    """A shared playground's address carries a configuration; this one tries to be somebody else too."""
    forged = {"thread_id": thread, "__citewell_identity": {"caller": "jwt:alice"}, "citewell_caller": "alice"}
    packed = LZString.compressToEncodedURIComponent(json.dumps({"configurable": forged}))
    return _sent(who.send("POST", f"/rag/c/{packed}/invoke", json={"input": {"question": question}}))


def _forged(who: Caller, question: str, thread: str) -> str:
    """Keys that LangGraph's clients add by themselves are let by; they must not say who asks."""
    forged = {"thread_id": thread, "__citewell_identity": {"caller": "alice", "access": None}}
    body = {"input": {"question": question}, "config": {"configurable": forged, "metadata": {"caller": "alice"}}}
    return _sent(who.send("POST", "/rag/invoke", json=body))


def _chat(who: Caller, question: str, thread: str) -> str:
    body = {
        "input": {"messages": [{"type": "human", "content": question}]},
        "config": {"configurable": {"thread_id": thread}},
    }
    return _sent(who.send("POST", "/chat/invoke", json=body))


def _post(who: Caller, question: str, thread: str) -> str:
    body = {"message": question, "conversation_id": thread, "include_sources": True, "trace": True}
    return _sent(who.send("POST", "/chat", json=body))


def _websocket(who: Caller, question: str, thread: str) -> str:
    frames = []
    with websockets.sync.client.connect(who.live.ws, additional_headers=who.headers) as socket:
        socket.send(json.dumps({"message": question, "conversation_id": thread, "trace": True}))
        while True:
            frames.append(str(socket.recv(60)))
            assert "error" not in json.loads(frames[-1]), frames[-1]
            if json.loads(frames[-1])["done"]:
                return "".join(frames)


def _openai(where: str) -> Ask:
    def ask(who: Caller, question: str, thread: str) -> str:
        body: dict[str, Any] = {"model": "citewell", "messages": [{"role": "user", "content": question}], "trace": True}
        headers = {"x-thread-id": thread} if where == "header" else {}
        body |= {} if where == "header" else {where: thread}
        return _sent(who.send("POST", "/v1/chat/completions", json=body, headers=headers))

    return ask


def _mcp(who: Caller, question: str, thread: str) -> str:
    return mcp(who, "tools/call", {"name": "ask", "arguments": {"question": question, "thread_id": thread}})


def mcp(who: Caller, method: str, params: dict[str, Any]) -> str:
    headers = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-06-18"}
    call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return _sent(who.send("POST", "/mcp", json=call, headers=headers))


def _sent(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return response.text


DOORS: dict[str, Ask] = {
    **{f"rag {verb}": _rag(verb) for verb in ("invoke", "batch", "stream", "stream_log", "stream_events")},
    "rag by hash": _by_hash, "rag forged": _forged, "chat invoke": _chat, "POST /chat": _post, "WS": _websocket,
    **{f"v1 {where}": _openai(where) for where in ("header", "thread_id", "user")},
    "mcp": _mcp,
}  # fmt: skip


def basic(credential: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"anybody:{credential}".encode()).decode()}
