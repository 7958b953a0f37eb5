"""A proxy on loopback that refuses some requests with a page of its own, as those in front of servers do."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

PAGE = b"<html><body><h1>Out of service</h1>secret words of the proxy</body></html>"


class Proxy:
    """Hands on what it is sent to `upstream`, but refuses the next `refusals` requests with `status`."""

    def __init__(self, upstream: str) -> None:
        self.status = 503
        self.refusals = 0
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def hand_on(self) -> None:
                sent = self.rfile.read(int(self.headers.get("content-length") or 0))
                if proxy.refusals:
                    proxy.refusals -= 1
                    self._answer(proxy.status, "text/html", PAGE)
                    return
                kept = {name: self.headers[name] for name in ("content-type", "accept") if self.headers[name]}
                reply = httpx.request(self.command, upstream + self.path, content=sent, headers=kept)
                self._answer(reply.status_code, reply.headers["content-type"], reply.content)

            do_GET = do_POST = do_PUT = do_DELETE = hand_on

            def _answer(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
