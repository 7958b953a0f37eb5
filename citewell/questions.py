"""Checks on questions, thread ids and transcripts, made at every door; the graph checks the question again."""

import re
from collections.abc import Iterable

from citewell.errors import InvalidRequest, MessageTooLong

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_ANY_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
"""Barred from ids, which stand in addresses, headers and log lines, where no line may break."""


def check_question(text: object, *, limit: int) -> str:
    """Return the question without surrounding space; line breaks and tabs inside stay.

    Raises:
        InvalidRequest: Not text, empty, or with characters that are not text (NUL, control, lone surrogates).
        MessageTooLong: More than `limit` characters; no question is ever cut silently.
    """
    if not isinstance(text, str):
        raise InvalidRequest("The question must be text.")
    if len(text) > limit:
        raise MessageTooLong(len(text), limit)
    check_text(text, "question")
    text = text.strip()
    if not text:
        raise InvalidRequest("The question is empty.")
    return text


def check_thread_id(thread_id: object) -> str | None:
    """Return the id, or None when there is none (absent, null or empty).

    Raises:
        InvalidRequest: Not text, longer than 1,024 characters, with control characters, or `.` or `..`.
    """
    if thread_id is None or thread_id == "":
        return None
    if not isinstance(thread_id, str):
        raise InvalidRequest("The conversation id must be text.")
    if len(thread_id) > 1024:
        raise InvalidRequest("The conversation id is longer than 1,024 characters.")
    if thread_id in (".", ".."):
        raise InvalidRequest("A conversation cannot be called . or .., which no client can send within an address.")
    check_text(thread_id, "conversation id", _ANY_CONTROL)
    return thread_id


def check_history(texts: Iterable[str]) -> None:
    """Check the earlier messages that a client sends.

    Raises:
        InvalidRequest: One of them is not Unicode text.
    """
    for text in texts:
        _check_unicode(text, "conversation")


def check_text(text: str, what: str, barred: re.Pattern[str] = _CONTROL) -> None:
    """Check that every terminal and store can take a text.

    Raises:
        InvalidRequest: It holds a control character, or half of a surrogate pair; the message calls it `what`.
    """
    if found := barred.search(text):
        raise InvalidRequest(f"The {what} holds a control character (U+{ord(found[0]):04X}).")
    _check_unicode(text, what)


def _check_unicode(text: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"The {what} holds half of a surrogate pair, which is not a character.") from None
