"""What a guard answers."""

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
    INJECTION: "The text reads as an attempt to change the assistant's instructions.",
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
    """What decided or changed the text: one of the constants above; None when nothing was found."""
    reason: str = ""
    """A sentence for the person who asked; empty when nothing was found. Never repeats the text."""
    score: float = 0.0
    """0..1, how sure the deciding rule is that something is wrong."""
    text: str | None = None
    """What to go on with instead of the text, where a rule changed it (redacted, defused); else None."""


def allow(score: float = 0.0) -> Verdict:
    return Verdict(allowed=True, score=score)


def block(rule: str, score: float = 1.0, *, about: str = "") -> Verdict:
    """Refuse; `about` is said in brackets after the reason, and is safe to show as well."""
    reason = f"{REASONS[rule]} ({about})" if about else REASONS[rule]
    return Verdict(allowed=False, rule=rule, reason=reason, score=score)


def change(rule: str, text: str) -> Verdict:
    """Allow, with `text` in the place of what was given."""
    return Verdict(allowed=True, rule=rule, reason=REASONS[rule], score=1.0, text=text)
