"""Whatever is sent to these doors, the answer says what is wrong with it."""

import json
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.service import Live

TEXTS = ["", " ", "\x00", "a\x07b", "../../etc/passwd", "library/../library/ferry.txt", "\U0001f4a3" * 400, "x" * 3000, "%00", "'; --", "<b>"]  # fmt: skip
VALUES: list[Any] = [None, True, 0, -1, 10**30, 1.5, "", "x", "\ud800", "\x00", [], {}, [[]], {"a": 1}, "x" * 6000]


def reads() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for text in TEXTS:
        for number in ("", "-1", str(10**30), "x"):
            yield "GET", "/source", {"params": {"uri": text, "start": number, "end": "5"}}
            yield "GET", "/threads", {"params": {"limit": number, "before": text[:50]}}
        yield "GET", "/source/file", {"params": {"uri": text}}
        yield "GET", "/feedback", {"params": {"thread_id": text}}
        yield "GET", f"/v1/models/{quote(text, safe='')}", {}
        yield "PATCH", f"/threads/{quote(text, safe='')}", {"json": {"title": "x"}}
        yield "DELETE", "/uploads", {"params": {"name": text}}
        yield "POST", "/uploads", {
            "params": {"name": text}, "content": b"x", "headers": {"content-type": "application/octet-stream"},
        }  # fmt: skip
    yield "GET", "/source", {"params": {"uri": "library/ferry.txt", "start": str(10**18), "end": str(-(10**18))}}
    yield "GET", "/threads", {"params": {"before": "2024-01-01T00:00:00"}}
    yield "GET", "/threads", {"params": {"before": "0001-01-01T00:00:00+14:00"}}
    yield "POST", "/uploads", {"params": {"name": "a.md"}, "content": b"x", "headers": {"content-type": "text/plain"}}


def bodies() -> Iterator[tuple[str, str, dict[str, Any]]]:
    whole: dict[str, dict[str, Any]] = {
        "/feedback": {"thread_id": "t", "rating": "up", "message": 1, "reason": "", "comment": ""},
        "/search": {"question": "How long is the crossing?", "top_k": 3, "filter": {"type": "md"}},
        "/v1/chat/completions": {
            "model": "citewell", "messages": [{"role": "user", "content": "How long is the crossing?"}], "user": "u",
            "temperature": 0, "max_tokens": 5, "stream_options": {}, "filter": {}, "thread_id": "t", "tools": [], "n": 1,
        },
    }  # fmt: skip
    for path, body in whole.items():
        for name, value in product(body, VALUES):
            yield "POST", path, {"body": body | {name: value}}
    for value in VALUES:
        yield "POST", "/v1/chat/completions", {"body": {"model": "citewell", "messages": [value]}}
        yield (
            "POST",
            "/v1/chat/completions",
            {"body": {"model": "citewell", "messages": [{"role": "user", "content": value}]}},
        )
        yield (
            "POST",
            "/v1/chat/completions",
            {"body": {"model": "citewell", "messages": [{"role": "user", "content": [value]}]}},
        )
        for path in whole:
            yield "POST", path, {"body": value}


@pytest.mark.parametrize("calls", [reads, bodies], ids=lambda calls: calls.__name__)
async def test_nothing_that_is_sent_breaks_the_service(start: Callable[..., Live], calls: Any) -> None:
    live = start()  # its own, for some of this uploads and deletes
    async with httpx.AsyncClient(base_url=live.url, timeout=60) as client:
        for method, path, request in calls():
            if "body" in request:
                content = json.dumps(request.pop("body")).encode()
                request |= {"content": content, "headers": {"content-type": "application/json"}}
            reply = await client.request(method, path, **request)
            assert reply.status_code < 500, (method, path, request, reply.text)
            if reply.is_error:
                problem = reply.json()
                problem = problem.get("error", problem)
                assert problem["code"], reply.text
                assert problem.get("detail") or problem.get("message"), reply.text
