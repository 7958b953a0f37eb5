"""The verdicts of guards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

INJECTION: Final = "injection"
PERSONAL_DATA: Final = "personal_data"
PROMPT_LEAK: Final = "prompt_leak"
ACTIVE_MARKUP: Final = "active_markup"
MODERATION: Final = "moderation"
UNDECIDED: Final = "undecided"
TOO_LONG_AGO: Final = "too_long_ago"

REASONS: Final[Mapping[str, str]] = {
    INJECTION: "The text reads as if it told the assistant what to do, or were talk with it, and not a question to the documents.",
    PERSONAL_DATA: "The text holds personal data, which this service is set up not to accept.",
    PROMPT_LEAK: "The answer repeated the assistant's own instructions and was withheld.",
    ACTIVE_MARKUP: "The answer held markup that could run in a page; it is shown as plain text.",
    MODERATION: "The text was judged harmful, which this service is set up not to pass on.",
    UNDECIDED: "The text could not be checked, so it was not used.",
    TOO_LONG_AGO: "The text lies too far back in the conversation to be checked, so it was not used.",
}
"""Rule -> a sentence that is safe to show: it never repeats what was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A guard's judgement of one text."""

    allowed: bool
    rule: str | None = None
    """The rule that blocked or changed the text: one of the constants above; None where nothing was found."""
    reason: str = ""
    """A sentence for the user that never repeats the text; empty where nothing was found."""
    score: float = 0.0
    """How sure the rule is that something is wrong, 0..1."""
    text: str | None = None
    """The text to use instead, where a rule changed it (redacted or defused it); else None."""


def allow(score: float = 0.0) -> Verdict:
    return Verdict(allowed=True, score=score)


def block(rule: str, score: float = 1.0, *, about: str = "") -> Verdict:
    """Refuse; `about`, which must be safe to show, is added in brackets to the reason."""
    reason = f"{REASONS[rule]} ({about})" if about else REASONS[rule]
    return Verdict(allowed=False, rule=rule, reason=reason, score=score)


def change(rule: str, text: str) -> Verdict:
    """Allow, with another text."""
    return Verdict(allowed=True, rule=rule, reason=REASONS[rule], score=1.0, text=text)
