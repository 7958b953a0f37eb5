"""Keeps the text of users, documents and models out of logs above DEBUG, and personal data out of all of them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from structlog.typing import EventDict, WrappedLogger

from citewell.guards.personal import Detector

TEXT_KEYS: Final = frozenset({
    "answer", "chunk", "chunks", "content", "document", "history", "message", "messages", "passage", "prompt", "query",
    "question", "quote", "sentence", "standalone", "standalone_question", "summary", "text", "title", "token",
})  # fmt: skip
"""Keys whose values are text of users, documents or models; above DEBUG only its length is logged."""
KEPT_KEYS: Final = frozenset({
    "level", "timestamp", "logger", "door", "outcome", "code", "request_id", "trace_id", "thread",
})  # fmt: skip
"""Keys whose values the program writes: an id whose digits look like a telephone number must stay whole. A request id may come
from the caller, but has only the characters that ids may have. `event` is not one of them: a library's is a sentence."""
UNCUT_KEYS: Final = frozenset({"event", "exception", "exc_info", "stack"})
"""Keys whose values may be tracebacks, which end with what matters."""
LONGEST_VALUE: Final = 500
"""Longest value, in characters; the rest is cut off, since a document does not belong in a log line."""


class RedactText:
    """A structlog processor; put it after `format_exc_info`, so that it sees tracebacks too, and before the renderer.

    Above DEBUG the values of `TEXT_KEYS`, at any depth, are replaced by their length. All other strings, at every level, are
    cut and redacted. Of a value that is not plain data only the class is logged.

    Args:
        secrets: Strings that are always replaced, since a dependency may repeat them in an error.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._detector = Detector()
        longest_first = sorted(filter(None, secrets), key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        level = logging.getLevelNamesMapping().get(str(event.get("level", method)).upper(), logging.INFO)
        omit = level > logging.DEBUG
        return {key: value if key in KEPT_KEYS else self._clean(key, value, omit) for key, value in event.items()}

    def _clean(self, key: str, value: Any, omit: bool) -> Any:  # log values are of any type
        if value is None or isinstance(value, bool | int | float):
            return value
        if omit and key in TEXT_KEYS:
            return f"<{len(value):,} characters>" if isinstance(value, str) else f"<{type(value).__name__}>"
        if isinstance(value, str):
            value = self._secrets.sub("[secret]", value)
            return self._detector.redact(value if key in UNCUT_KEYS else value[:LONGEST_VALUE])
        if isinstance(value, Mapping):
            return {str(name): self._clean(str(name), item, omit) for name, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._clean(key, item, omit) for item in value]
        return f"<{type(value).__name__}>"
