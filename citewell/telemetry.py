"""Logs and metrics."""

import logging
import sys

import structlog

from citewell.settings import Settings


def configure_logging(settings: Settings) -> None:
    """One JSON object per line on standard output; coloured text when a person is watching.

    Libraries' own log records take the same way out.
    """
    level = getattr(logging, settings.log_level)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    pretty = sys.stdout.isatty()
    last: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer()] if pretty
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )  # fmt: skip
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
