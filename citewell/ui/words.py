"""Errors in words a person can act on."""

import math

from citewell.client import ServiceError
from citewell.wording import count

_ACTION = {
    "unreachable": "Is it running? Start it with `make run`, or set CITEWELL_UI_SERVICE_URL to where it is.",
    "timeout": "Ask again; if it stays so, the service is overloaded.",
    "broken_off": "What had come so far is above. Ask again.",
    "thread_busy": "Wait until the other answer is finished, or start a new conversation.",
    "run_replaced": "The newer message is being answered.",
    "thread_not_found": "It was deleted or has expired. Start a new conversation.",
    "not_authenticated": "Set CITEWELL_UI_API_KEY to a valid key and start the page again.",
    "model_unavailable": "Ask again in a moment, or choose another model under “Model and retrieval”.",
    "model_timeout": "Ask again, or choose another model under “Model and retrieval”.",
    "model_error": "Choose another model under “Model and retrieval”.",
    "context_overflow": "Start a new conversation or ask a shorter question.",
    "message_too_long": "Shorten the question.",
    "store_unavailable": "The documents cannot be searched right now. Ask again in a moment.",
    "checkpoint_error": "Conversations cannot be kept right now. Ask again in a moment.",
    "draining": "The service is being restarted. Ask again in a moment.",
    "ingest_busy": "Wait until it is done, then add the document again.",
    "source_unreadable": "See whether it opens elsewhere, save it anew and add that.",
    "source_unsupported": "What can be added is a PDF, Markdown, text, HTML or Word document with text in it.",
    "internal": "Ask again; if it stays so, tell the operator.",
}


def explain(fault: ServiceError) -> str:
    """What happened and what to do about it, in Markdown."""
    happened = fault.detail[:1].upper() + fault.detail[1:]
    happened += "" if happened.endswith((".", "!", "?")) else "."
    action = _ACTION.get(fault.code, "Ask again in a moment." if fault.retryable else "")
    if fault.retry_after_s is not None:
        action = f"Try again in {_span(fault.retry_after_s)}."
    told = f"\n\nRequest {fault.request_id}" if fault.status >= 500 and fault.request_id else ""
    return f"{happened} {action}".strip() + told


def _span(seconds: float) -> str:
    for unit, lasts_s in (("hour", 3600), ("minute", 60)):
        if seconds > 2 * lasts_s:
            return count(math.ceil(seconds / lasts_s), unit)
    return count(max(1, math.ceil(seconds)), "second")
