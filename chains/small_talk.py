"""Greetings, thanks and questions about the service itself, which no document answers."""

import re
from typing import Final

REPLY: Final = (
    "I answer questions from the documents that this service holds, and show the passage behind every sentence: "
    "ask me about what they say."
)
"""For an answerer that can only quote."""

_SMALL_TALK: Final = re.compile(
    r"(?:\W*\b(?:hi|hello|hey|welcome|greetings|good (?:morning|afternoon|evening|day|night)|(?:good)?bye|see you|"
    r"(?:many )?thanks|thank you|cheers|(?:so|very) much|a lot|(?:that(?:'|\u2019)?s|that is) (?:great|good|nice|all|helpful)|"
    r"(?:that|it) (?:helped|helps|worked|works)|got it|i see|understood|"
    r"great|nice|perfect|cool|ok|okay|there|please|how are you|(?:who|what) are you|what(?:'|\u2019)?s your name|help(?: me)?|"
    r"what (?:can|do) you do|what can (?:you help me with|i ask(?: you)?)|how (?:can you help(?: me)?|do you work))\b)+\W*",
    re.IGNORECASE,
)


def is_small_talk(text: str) -> bool:
    """Whether a text consists of such phrases alone. English; any other text is a question."""
    return _SMALL_TALK.fullmatch(text) is not None
