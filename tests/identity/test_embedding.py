"""What a page of another origin finds out by putting parts of this service into itself."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator

import httpx
import pytest
from playwright.sync_api import Page

from tests.service import Live, problem

THERE, NOT_THERE = "library/ferry.txt", "library/none.txt"
EMBED = """([tag, attribute, url]) => new Promise(done => {
    const element = document.createElement(tag);
    element.onload = () => done("loads");
    element.onerror = () => done("fails");
    element[attribute] = url;
    document.body.append(element);
})"""


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """The address of somebody else's page."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><link rel=icon href=data:,><p>Another page")

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.mark.parametrize("place", ["/source", "/source/file"])
def test_a_page_cannot_tell_by_what_loads_which_documents_there_are(
    live: Live, page: Page, elsewhere: str, place: str
) -> None:
    page.goto(elsewhere)
    for tag, attribute in (("object", "data"), ("script", "src"), ("img", "src")):
        there, not_there = (
            page.evaluate(EMBED, [tag, attribute, f"{live.url}{place}?uri={uri}"]) for uri in (THERE, NOT_THERE)
        )
        assert there == not_there, tag
    page.goto(f"{live.url}{place}?uri={THERE}")
    assert "ferry" in page.content()


def test_who_may_put_it_into_a_page(start: Callable[..., Live]) -> None:
    live = start(CITEWELL_CORS_ORIGINS='["https://app.example"]')
    for site, destination, more, status in (
        ("cross-site", "image", {}, 403),
        ("same-site", "iframe", {}, 403),
        ("cross-site", "iframe", {"referer": "https://x.example/"}, 403),
        ("cross-site", "iframe", {"referer": "https://app.example/"}, 200),
        ("cross-site", "empty", {"origin": "https://x.example"}, 200),  # CORS hides it from the page
        ("cross-site", "document", {}, 200),
        ("same-origin", "image", {}, 200),
        ("none", "document", {}, 200),
    ):
        headers = {"sec-fetch-site": site, "sec-fetch-dest": destination} | more
        reply = httpx.get(f"{live.url}/source/file", params={"uri": THERE}, headers=headers)
        assert reply.status_code == status, headers
        if status == 403:
            problem(reply, "not_authorized", 403)
