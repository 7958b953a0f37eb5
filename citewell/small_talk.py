"""Greetings, thanks, complaints and questions about the service itself, which no document answers. English."""

import re
from typing import Final

REPLY: Final = (
    "I answer questions from the documents that this service holds, and show the passage behind every sentence: "
    "ask me about what they say."
)
"""For an answerer that can only quote."""
SORRY: Final = (
    "I am sorry that this did not help. I can only quote what the documents of this service say: other words, or one "
    "thing at a time, may find it."
)
"""The same, to somebody who complains."""

_APOSTROPHE: Final = "['\u2019]?"
_VERY: Final = r"(?:(?:an?|just|pretty|quite|really|so|such an?|the|too|totally|very)\s+)*"
_COMPLAINT: Final = re.compile(
    rf"\b(?:you(?:{_APOSTROPHE}re|\s+are)\s+(?:not\s+{_VERY}(?:clever|helpful|helping|listening|smart|useful)|{_VERY}(?:annoying|bad|"
    rf"dumb|idiot|joking|lying|mistaken|rude|silly|stupid|terrible|useless|worst|wrong))|(?:this|that|(?:the|this|your) answer)"
    rf"(?:{_APOSTROPHE}s|\s+(?:is|was))\s+(?:not\s+(?:{_VERY}(?:correct|helpful|right|true|useful)|what i (?:asked|meant|wanted)(?: for)?)|"
    rf"{_VERY}(?:annoying|bad|incorrect|nonsense|ridiculous|rubbish|silly|stupid|terrible|unhelpful|useless|wrong))|you suck|"
    rf"(?:bad|dumb|stupid|useless) (?:answer|bot)|i hate (?:this|you)|that (?:didn{_APOSTROPHE}t|did not) help|you "
    rf"(?:didn{_APOSTROPHE}t|did not) answer (?:my|the) question|i (?:don{_APOSTROPHE}t|do not) understand)\b",
    re.IGNORECASE,
)
_SMALL_TALK: Final = re.compile(
    rf"(?:\W*(?:\band\s+)?(?:{_COMPLAINT.pattern}|\b(?:hi|hello|hey|welcome|greetings|good (?:morning|afternoon|evening|day|night)|(?:good)?bye|"
    rf"see you|(?:many )?thanks|thank (?:you|u)|thx|cheers|(?:so|very) much|a lot|(?:that|this|it)(?:{_APOSTROPHE}s|\s+(?:is|was))\s+"
    rf"{_VERY}(?:great|good|helpful|nice|useful)|that(?:{_APOSTROPHE}s| is) all|you(?:{_APOSTROPHE}re|\s+are)\s+{_VERY}(?:best|clever|"
    rf"funny|great|good|helpful|kind|nice|smart|welcome)|(?:that|it) (?:helped|helps|worked|works)|got it|i see|understood|well done|"
    rf"good (?:bot|job)|great|nice|perfect|cool|ok|okay|there|please|sorry|wow|how are you|(?:who|what) are you|are you (?:(?:an?|the) )?"
    rf"(?:ai|bot|chatbot|human|machine|person|real|robot|stupid)|what(?:{_APOSTROPHE}s| is) your name|help(?: me)?|"
    rf"what (?:can|do) you do|what can (?:you help me with|i ask(?: you)?)|how (?:can you help(?: me)?|do you work))\b))+\W*",
    re.IGNORECASE,
)


def is_small_talk(text: str) -> bool:
    """Whether a text consists of such phrases alone; any other text is a question. None of them tells anybody what to do."""
    return _SMALL_TALK.fullmatch(text) is not None


def reply(text: str) -> str | None:
    """What is said to small talk; None to a question."""
    if not is_small_talk(text):
        return None
    return SORRY if _COMPLAINT.search(text) else REPLY
