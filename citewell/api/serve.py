"""Starts the service: reads the settings, runs until told to stop, and announces its address once it answers there."""

import asyncio
import gc
import multiprocessing
import resource
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import httptools
import structlog
import uvicorn
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send
from uvicorn.config import STARTUP_FAILURE
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.supervisors import Multiprocess

from citewell.api.app import create_app
from citewell.api.drain import Drain
from citewell.errors import CitewellError, ConfigurationError
from citewell.service import Service
from citewell.settings import Settings
from citewell.telemetry.logs import configure_logging
from citewell.telemetry.workers import shared_metrics

WORKER_STARTS_WITHIN_S = 60
"""Time for a worker to start, in seconds: until it has imported everything, which on a busy machine takes more than uvicorn's 5."""

IDLE_S = 75
"""Time for a connection between two requests, in seconds: longer than proxies keep theirs (nginx and AWS for 60), so that they are the
ones who close it, and never send a request into one that is just being closed here."""

CLOSE_WITHIN_S = 5
"""Time for connections to close once no turn is under way, in seconds."""

GC_AFTER = 10_000
"""New objects before Python looks for cycles. A turn makes thousands, nearly all of which are freed without that."""


MOST_HEAD_BYTES = 65_536
"""Longest head of a request, its address and headers together. Whoever sends it has not been asked for a key yet."""


BRINGS_WITHIN_S = 30.0
"""Time for a head, and between two parts of a body, in seconds. Who connects and says nothing holds one of the files that the
process may have open, and strangers can do that too."""


READS_WITHIN_S = 60.0
"""Time for a client to take some of what waits for it, when that is more than its connection holds, in seconds."""

log = structlog.get_logger()


class Parser(httptools.HttpRequestParser):
    """httptools takes what follows the head of a request that asks for another protocol for that protocol, and the body for a request of
    its own if that is not spoken here: of somebody else, where a proxy sends the requests of many. Here such a request is read once
    more, as one that does not ask.
    """

    def __init__(self, protocol: "Bounded") -> None:
        super().__init__(protocol)
        self.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self._protocol = protocol

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]  # which is what uvicorn gives it
        rest = memoryview(data)
        while True:
            try:
                super().feed_data(rest)
            except httptools.HttpParserUpgrade as exc:
                if not self._protocol.is_to_be_read_again():
                    raise
                rest = rest[exc.args[0] :]
                super().feed_data(self._protocol.head_without_upgrade())
            else:
                return


class Bounded(HttpToolsProtocol):
    """uvicorn's HTTP protocol with bounds: on the head of a request, which httptools otherwise joins however long it is; and on the time
    that uvicorn waits for a request to come, or to come whole, and for a client to read its answer.
    """

    _unread = 0
    _overdue: asyncio.TimerHandle | None = None
    _unmoved: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.parser = Parser(self)
        transport.set_write_buffer_limits(high=0)  # so that `pause_writing` tells of whatever is left to be read
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        self._moved()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        self._moved()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        self._unread += len(data)
        if self._overdue is None and (self.cycle is None or self.cycle.response_complete):
            self._wait()  # uvicorn's own wait for the next request ends with whatever comes, if it is but a blank line
        super().data_received(data)
        if self._unread > MOST_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The request's head is too long.")

    def handle_websocket_upgrade(self) -> None:
        self._wait_no_more()
        super().handle_websocket_upgrade()

    def on_message_begin(self) -> None:
        if self._overdue is None:
            self._wait()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._unread = 0
        if not self.is_to_be_read_again():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        self._wait()
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.is_to_be_read_again():
            return
        self._unread = 0
        self._wait_no_more()
        super().on_message_complete()

    def is_to_be_read_again(self) -> bool:
        """Whether a request asks for a protocol that is not spoken here, such as HTTP/2, which Java's client asks for."""
        return self.parser.should_upgrade() and not self._should_upgrade() and self.parser.get_method() != b"CONNECT"

    def head_without_upgrade(self) -> bytes:
        head = [self.parser.get_method(), b" ", self.url, b" HTTP/", self.parser.get_http_version().encode(), b"\r\n"]
        for name, value in self.headers:
            if name != b"upgrade":
                head += [name, b": ", value, b"\r\n"]
        return b"".join([*head, b"\r\n"])

    def _wait(self) -> None:
        self._wait_no_more()
        self._overdue = self.loop.call_later(BRINGS_WITHIN_S, self._give_up)

    def _wait_no_more(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _watch(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._unmoved = self.loop.call_later(READS_WITHIN_S, self._leave_unless_less_than, left)

    def _leave_unless_less_than(self, left: int) -> None:
        if self.transport.get_write_buffer_size() < left:
            self._watch()
        else:
            self.transport.abort()

    def _moved(self) -> None:
        if self._unmoved is not None:
            self._unmoved.cancel()
            self._unmoved = None

    def _give_up(self) -> None:
        if self.flow.read_paused:  # what was sent has not been looked at yet
            self._wait()
        else:
            self.transport.close()


class BoundedSocket(WebSocketsSansIOProtocol):
    """uvicorn closes a socket whose client answers no ping within 20 seconds, and then waits for ever for that client to read what
    was sent before."""

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self.transport.abort()


class Process:
    """The application as a process of its own: it shuts down gracefully, and reports in one sentence, instead of a traceback, why it could
    not start."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self.fault: CitewellError | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return

        async def say(message: Message) -> None:
            cause = sys.exc_info()[1]  # the framework calls this from its except clause
            if message["type"] == "lifespan.startup.complete":
                service: Service = self._app.state.service
                Drain(service.runs, self._settings).listen()
                _end_with_parent()
                _spare_what_stays()
            if message["type"] == "lifespan.startup.failed" and isinstance(cause, CitewellError):
                self.fault = cause
                message = {**message, "message": cause.detail}
            await send(message)

        await self._app(scope, receive, say)


class Server(uvicorn.Server):
    """uvicorn's, which says where it answers once it does."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._announce()


class Workers(Multiprocess):
    """uvicorn's, which says where they answer once one does, and how one ended, and notices at once when one ends before it has answered
    its parent."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket], announce: Callable[[], None]) -> None:
        super().__init__(config, sockets)
        self._announce: Callable[[], None] | None = announce

    def keep_subprocess_alive(self) -> None:
        before = [*self.processes]
        for worker in before:
            worker.child_conn.close()  # the worker's own end: while it is open here too, the parent waits for an answer
        super().keep_subprocess_alive()
        for worker in before:
            was_seen = worker not in self.processes or self.should_exit.is_set()  # else the next look replaces it
            if was_seen and (code := worker.exitcode) is not None:
                by = signal.Signals(-code).name if code < 0 else None
                log.error("worker.ended", pid=worker.pid, exit_code=code, signal=by)
        if self._announce and any(worker.is_ready(WORKER_STARTS_WITHIN_S) for worker in self.processes):
            self._announce()
            self._announce = None


def _end_with_parent() -> None:
    """As a worker, end as on SIGTERM when the parent is gone: after `kill -9` it tells nobody, and workers would hold its port for ever."""
    if (parent := multiprocessing.parent_process()) is None:
        return
    loop = asyncio.get_running_loop()

    def end() -> None:
        loop.remove_reader(parent.sentinel)
        signal.raise_signal(signal.SIGTERM)

    loop.add_reader(parent.sentinel, end)


def _spare_what_stays() -> None:
    """Take what the start made out of every later garbage collection: it lives as long as the
    process does, and looking it all over again and again took 4 % of a turn's CPU (`benchmarks.load`, 16 clients)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_AFTER)


def app() -> Process:
    """What each worker process runs."""
    settings = Settings.load()
    configure_logging(settings)
    return Process(create_app(settings), settings)


def main() -> None:
    """Serve until interrupted. Exit code 2 when the settings do not fit."""
    try:
        settings = Settings.load()
        configure_logging(settings)
        first = app()
        bound = _bound(settings)
        _open_as_many_files_as_may_be()
    except ConfigurationError as exc:
        print(f"citewell: {exc.detail}", file=sys.stderr)
        raise SystemExit(2) from None
    announce = partial(_announce, settings, bound.getsockname()[1])
    options = {
        "host": settings.host, "port": settings.port, "http": Bounded, "ws": BoundedSocket,
        "ws_max_size": settings.max_body_bytes,
        "ws_per_message_deflate": False,  # a token's frame is shorter than what compressing it costs
        "log_config": None, "access_log": False, "server_header": False,
        "timeout_keep_alive": IDLE_S, "timeout_graceful_shutdown": CLOSE_WITHIN_S,
    }  # fmt: skip
    if settings.workers > 1:
        config = uvicorn.Config(
            "citewell.api.serve:app", factory=True, workers=settings.workers,
            timeout_worker_healthcheck=WORKER_STARTS_WITHIN_S, **options,  # type: ignore[arg-type]  # its options are of many types
        )  # fmt: skip
        workers = Workers(config, [bound], announce)
        with shared_metrics(), suppress(KeyboardInterrupt):
            workers.run()
        if any(worker.exitcode == STARTUP_FAILURE for worker in workers.processes):
            raise SystemExit(STARTUP_FAILURE)
        return
    server = Server(uvicorn.Config(first, **options), announce)  # type: ignore[arg-type]  # as above
    # The server raises the signal that ended it once more when it is done; by then all is in order.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with suppress(SystemExit, KeyboardInterrupt):  # its own exit code for a start that failed
        server.run(sockets=[bound])
    if first.fault:
        print(f"citewell: {first.fault.detail}", file=sys.stderr)
    if not server.started:
        raise SystemExit(2 if isinstance(first.fault, ConfigurationError) else STARTUP_FAILURE)


def _bound(settings: Settings) -> socket.socket:
    """A socket at the address that the settings name.

    Raises:
        ConfigurationError: It cannot be bound.
    """
    try:
        family, kind, _, _, address = min(socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM))
        bound = socket.socket(family, kind)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what a former process leaves is no hindrance
        bound.bind(address)
    except OSError as exc:
        raise ConfigurationError(
            f"Nothing can listen at {_address(settings, settings.port)} ({exc.strerror}): set CITEWELL_PORT, or CITEWELL_HOST, "
            "to what is free."
        ) from exc
    bound.set_inheritable(True)  # by the workers
    return bound


def _open_as_many_files_as_may_be() -> None:
    """Each connection is one, and what many systems begin with, 1,024, are few. Workers inherit it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # a system may allow less than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _address(settings: Settings, port: int) -> str:
    return f"[{settings.host}]:{port}" if ":" in settings.host else f"{settings.host}:{port}"


def _announce(settings: Settings, port: int) -> None:
    base = f"http://{_address(settings, port)}"
    lines = [f"Citewell answers at {base} with {settings.chat_model}"]
    for path, what in (
        ("/", "ask in a browser"),
        ("/rag/playground/", "LangServe playground"),
        ("/chat/playground/", "LangServe chat playground"),
        ("/docs", "every door, described"),
        ("/readyz", "is everything there?"),
    ):
        lines.append(f"  {base}{path:<20} {what}")
    with suppress(OSError):  # a reader that is gone, or a full disk
        print(*lines, sep="\n", file=sys.stderr, flush=True)
