"""Small servers on loopback that remember what was sent to them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx


class Recorder:
    """Takes every POST, and passes it on where it is given somewhere to pass it to.

    Attributes:
        requests: (path, headers, body) of each, in their order.
        is_broken: Whether it answers 503 to all.
    """

    def __init__(self, forward: str = "") -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.is_broken = False
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                recorder.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                status, content = (503, b'{"error": {"message": "broken"}}') if recorder.is_broken else (200, b"{}")
                if forward and not recorder.is_broken:
                    reply = httpx.post(forward + self.path, content=body, headers={"content-type": "application/json"})
                    status, content = reply.status_code, reply.content
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_GET(self) -> None:
                recorder.requests.append((self.path, dict(self.headers), b""))
                self.send_response(200)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_PATCH = do_POST  # the name that the base class looks for

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def running(self) -> Iterator[Recorder]:
        thread = threading.Thread(target=self._server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()
