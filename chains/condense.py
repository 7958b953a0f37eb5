"""Turn a follow-up into a question that stands alone: the prompt for a chat model, and the rule that does without one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from math import log

from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from typing_extensions import TypedDict

from citewell.small_talk import is_small_talk


class CondenseInput(TypedDict):
    question: str
    history: list[BaseMessage]


PROMPT = ChatPromptTemplate.from_messages([
    (
        "system",
        "Rewrite the user's last question so that it can be understood without the conversation: put names in place of "
        "pronouns and fill in what is left out. Keep its language. Do not answer it. Write the question and nothing else.",
    ),
    MessagesPlaceholder("history"),
    ("human", "{question}"),
])  # fmt: skip


# --- without a chat model -----------------------------------------------------------------------
# The constants were chosen on the public halves of CAsT and MTRAG: `python -m evals.condense`.

CONTEXT_WORDS = 4
"""Words a follow-up is given from the conversation."""
DECAY = 0.6
"""Factor on a word's weight for each question between it and the follow-up."""
TOPIC_DECAY = 0.77
"""The same for words of the first question, which names the topic: the square root of DECAY."""
RARE = 0.7
"""Share of a word's weight that depends on how rare it is in English."""
ENOUGH_WORDS = 3
"""A question that has so many content words and refers to nothing before it is left as it is."""

_WORD = re.compile(r"[^\W_]+(?:[-'’.][^\W_]+)*")
_REFERS = re.compile(
    r"\b(it|its|it's|he|him|his|she|her|hers|they|them|their|theirs|this|that|these|those|there|ones?|he's|she's|they're|"
    r"that's|others?|another|else|same|both|more|instead|too|first|second|third|last|next|former|latter|such|then|also)\b",
    re.IGNORECASE,
)
_GOES_ON = re.compile(
    r"\W*(and|but|so|also|or|what about|how about|how so|why|ok|okay|no|yes|thanks|thank you|interesting|which|any|"
    r"anything)\b",
    re.IGNORECASE,
)
_PREPOSITIONS = "after|at|before|between|by|during|for|from|in|of|on|to|under|until|with|without"
_ELLIPSIS = re.compile(
    rf"\W*(?:and|but|or|(?:and )?(?:what|how) about)\s+(?P<said>(?P<preposition>{_PREPOSITIONS})\s+(?:[\w'\u2019-]+\s+){{0,3}}[\w'\u2019-]+)\W*",
    re.IGNORECASE,
)
"""A follow-up that is nothing but a preposition and up to four words: "and on Sundays?"."""
_DETERMINER = re.compile(r"(?:(?:an?|my|our|that|the|this|your)\s+)?", re.IGNORECASE)
_ASKS = re.compile(r"\b(?:who|whom|whose|what|which|when|where|why|how|it|them|that|this|these|those)\b", re.IGNORECASE)
LONGEST_COMPLETED = 200
"""Characters of a question that a follow-up is completed by."""
_STANDS_FOR = re.compile(
    r"\b(?:its|he|him|his|she|her|hers|they|them|their|theirs|these|those|he's|she's|they're)\b", re.IGNORECASE
)
"""Without "it" and "that", which need not refer to anything said before: "is it allowed to smoke?"."""
_EMPTY = frozenset(
    """a an the and or but if then than so of to in on at by for with from as into about over under between out up down off
    is are was were be been being am do does did done doing have has had having can could will would shall should may might
    must i you he she it we they me him her us them my your his its our their mine yours hers ours theirs this that these
    those there here what which who whom whose when where why how not no nor yes ok okay yeah please tell know want like get
    got give make go going say said see think find need one ones some any all each every other others another such same more
    most much many few less least also too very just only even still again ever never else thing things something anything
    lot lots kind kinds type types way ways example examples mean means meant interesting thanks thank sure hi hello hey
    well really good great sorry cool im ive id dont doesnt didnt isnt arent wasnt cant wont let lets first second last next
    new old different difference differences information info heard sounds wow oh""".split()
)


def by_rule(question: str, history: Sequence[BaseMessage]) -> tuple[str, str]:
    """A follow-up put in full, with the words it still leaves out and without them: `completed`, then `condense_rule`."""
    typed, before = completed(question, history)
    return condense_rule(typed, before), typed


def completed(question: str, history: Sequence[BaseMessage]) -> tuple[str, Sequence[BaseMessage]]:
    """Put in full a follow-up that changes one thing in the question before it: "and on Sundays?" after "When are you open on
    Thursday?" asks "When are you open on Sundays?", after "When are you open?" as well. English.

    Args:
        question: The newest question.
        history: What came before it, oldest first.

    Returns:
        The question in full, and the history before the question that it changes. Both as given where it is no such follow-up.
    """
    ellipsis = _ELLIPSIS.fullmatch(question)
    earlier = [i for i, one in enumerate(history) if isinstance(one, HumanMessage) and not is_small_talk(one.text)]
    if ellipsis is None or _ASKS.search(ellipsis["said"]) or not earlier:
        return question, history
    before, older = completed(history[earlier[-1]].text, history[: earlier[-1]])
    asked = before.rstrip(" .?!")
    if len(asked) > LONGEST_COMPLETED or any(mark in asked for mark in ".?!\n"):
        return question, history
    _, *new = _DETERMINER.sub("", ellipsis["said"]).split()
    same = re.match(
        rf"(.*\s){ellipsis['preposition']}\s+{_DETERMINER.pattern}(?:\S+\s+){{0,{len(new) - 1}}}\S+(?P<rest>.*)",
        asked,
        re.IGNORECASE,
    )
    if same is None:
        return f"{asked} {ellipsis['said']}?", older
    if len(same["rest"].split()) > 1:  # "What is on the menu for Friday?"
        return question, history
    return f"{same[1]}{ellipsis['said']}{same['rest']}?", older


def condense_rule(question: str, history: Sequence[BaseMessage]) -> str:
    """Add to a follow-up the words it leaves out, without a chat model.

    A question that refers to nothing before it is returned as it is. To any other, the words of earlier questions that say most about
    the topic are added in brackets. Recent words and those of the first question weigh more, so do rare words, and a word's weight
    adds up over the questions that repeat it (after HQExp, Yang et al. 2019, TREC CAsT). Answers are ignored: two words of the last
    one helped on MTRAG (BM25 nDCG@10 +.011) and hurt on CAsT (-.032).

    Args:
        question: The newest question.
        history: What came before it, oldest first.

    Returns:
        The question, unchanged or followed by the words in brackets. Takes well under a millisecond.
    """
    earlier = [message.text for message in history if isinstance(message, HumanMessage)]
    if not earlier or _stands_alone(question):
        return question
    own = {_stem(word) for word in _content(question)}
    weights: dict[str, float] = {}
    spelling: dict[str, str] = {}
    for number, text in enumerate(earlier):
        age = len(earlier) - 1 - number
        weight = DECAY**age if number else max(DECAY**age, TOPIC_DECAY**age)
        for word in dict.fromkeys(_content(text)):
            stem = _stem(word)
            if stem not in own:
                weights[stem] = weights.get(stem, 0.0) + weight * (1 - RARE + RARE * _rarity(word))
                spelling.setdefault(stem, word)
    chosen = set(sorted(weights, key=lambda stem: -weights[stem])[:CONTEXT_WORDS])
    words = [word for stem, word in spelling.items() if stem in chosen]
    return f"{question} ({' '.join(words)})" if words else question


def _refers(question: str) -> bool:
    """Whether a question must be about the conversation, because a pronoun in it stands for something it does not name: "when may they
    open again?". English."""
    return _STANDS_FOR.search(question) is not None


def readings(question: str, typed: str) -> list[str]:
    """What to search for: the standalone question, and the typed one too where the two may be about different things."""
    return [question] if typed == question or _refers(typed) else [question, typed]


def _stands_alone(question: str) -> bool:
    return (
        len(_content(question)) >= ENOUGH_WORDS
        and not _REFERS.search(question)
        and not _GOES_ON.match(question)
    )  # fmt: skip


def _content(text: str) -> list[str]:
    """The content words, as written."""
    return [word for word in _WORD.findall(text) if len(word) > 1 and _plain(word).replace("'", "") not in _EMPTY]


def _plain(word: str) -> str:
    return word.lower().replace("’", "'").removesuffix("'s").removesuffix("'")


def _stem(word: str) -> str:
    """Enough to see that "trees" and "tree" are one word. Never shown; `citewell.terms.stem` is more careful."""
    plain = _plain(word)
    for ending, replacement in (("ies", "y"), ("sses", "ss"), ("ing", ""), ("ed", ""), ("s", "")):
        if plain.endswith(ending) and len(plain) - len(ending) >= 3 and not plain.endswith("ss"):
            return plain.removesuffix(ending) + replacement
    return plain


@cache
def word_ranks() -> dict[str, int]:
    """Ranks in the tokenizer's vocabulary, which lists whole words by falling frequency."""
    pieces = files("citewell.models").joinpath("vocab.txt").read_text("utf-8").splitlines()
    return {piece: rank for rank, piece in enumerate(pieces)}


def _rarity(word: str) -> float:
    """0 for the commonest words, 1 for those at rank 30,000 and beyond, by the logarithm of the rank."""
    rank = word_ranks().get(_plain(word), 30_000)
    return min(1.0, max(0.0, log(max(rank, 1) / 1000) / log(30)))
