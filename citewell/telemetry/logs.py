"""Logs: one JSON object a line on standard output."""

import logging
import sys

import structlog

from citewell.guards.logs import RedactText
from citewell.settings import Settings


def configure_logging(settings: Settings) -> None:
    """Set up structlog, and let libraries' own records take the same way out.

    `log_format` chooses; `auto` is coloured text when a person is watching and JSON otherwise.
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
    last: list[structlog.typing.Processor] = [structlog.processors.format_exc_info, RedactText(), render]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(level)
