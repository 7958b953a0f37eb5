"""Start the service: read the settings, say where it listens, run until told to stop."""

import sys

import uvicorn
from rich.console import Console

from citewell.api.app import create_app
from citewell.errors import ConfigurationError
from citewell.settings import Settings
from citewell.telemetry import configure_logging


def app() -> object:
    """What each worker process runs."""
    settings = Settings.load()
    configure_logging(settings)
    return create_app(settings)


def main() -> None:
    """Serve until interrupted. Exit code 2 when the settings do not fit."""
    try:
        settings = Settings.load()
    except ConfigurationError as exc:
        print(f"citewell: {exc.detail}", file=sys.stderr)
        raise SystemExit(2) from None
    configure_logging(settings)
    _announce(settings)
    uvicorn.run(
        "citewell.api.serve:app",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        ws_max_size=settings.max_body_bytes,
        log_config=None,
        access_log=False,
        server_header=False,
    )


def _announce(settings: Settings) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    base = f"http://{host}:{settings.port}"
    out = Console(stderr=True, highlight=False)
    out.print(f"[bold]Citewell[/] answers at {base} with [bold]{settings.chat_model}[/]")
    for path, what in (
        ("/", "ask in a browser"),
        ("/rag/playground/", "LangServe playground"),
        ("/chat/playground/", "LangServe chat playground"),
        ("/docs", "every door, described"),
        ("/readyz", "is everything there?"),
    ):
        out.print(f"  {base}{path:<20} {what}")
