"""Logs: one JSON object per line on standard output."""

import logging
import select
import sys
from typing import Final, TextIO, cast
from urllib.parse import unquote, urlsplit

import structlog
from pydantic import SecretStr

from citewell.guards.logs import RedactText
from citewell.settings import Settings
from citewell.telemetry import metrics

SHORTEST_SECRET: Final = 6


class _Out:
    """Standard output, except that lines that cannot be written, because the disk is full or the reader is gone or reads nothing, are
    dropped and counted, so that no turn fails with them or waits for them.

    Not an `io` class, as those flush once more while the interpreter shuts down.
    """

    def write(self, text: str) -> int:
        at_once = select.PIPE_BUF if text.isascii() else select.PIPE_BUF // 4
        try:
            for start in range(0, len(text), at_once):
                if not _takes_more():
                    metrics.LOG_LOST.inc()
                    break
                sys.stdout.write(text[start : start + at_once])
                sys.stdout.flush()
        except (OSError, ValueError):  # ValueError: closed, or half of a character
            metrics.LOG_LOST.inc()
        return len(text)

    def flush(self) -> None:
        """Nothing waits here."""


def _takes_more() -> bool:
    """Whether standard output takes `PIPE_BUF` bytes now. A pipe that nobody reads takes none, and whoever writes to it waits."""
    try:
        return bool(select.select([], [sys.stdout], [], 0)[1])
    except (OSError, ValueError):  # none of the system's: in memory, or closed
        return True


def configure_logging(settings: Settings) -> None:
    """Set up structlog, and pass libraries' log records through it.

    The format is `log_format`; `auto` means coloured text on a terminal and JSON elsewhere.
    """
    level = getattr(logging, settings.log_level)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    as_text = settings.log_format == "text" or (settings.log_format == "auto" and sys.stdout.isatty())
    render: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())
        if as_text
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    last: list[structlog.typing.Processor] = [
        structlog.processors.format_exc_info,
        RedactText(secrets=secrets(settings)),
        render,
    ]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _Out())),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(cast("TextIO", _Out()))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(level)
    # it repeats headers that it cannot read, keys in them too
    logging.getLogger("opentelemetry.util.re").setLevel(logging.ERROR)


def secrets(settings: Settings) -> set[str]:
    """All secrets of the settings, and the passwords in their URLs. Those shorter than `SHORTEST_SECRET`, which also occur within words, are
    left out."""
    values = {value.get_secret_value() for _, value in settings if isinstance(value, SecretStr)}
    plain = {value for _, value in settings if isinstance(value, str)}
    passwords = {_password(value) for value in values | plain if "://" in value}
    return {value for value in values | passwords if len(value) >= SHORTEST_SECRET}


def _password(url: str) -> str:
    try:
        return unquote(urlsplit(url).password or "")
    except ValueError:  # no URL
        return ""
