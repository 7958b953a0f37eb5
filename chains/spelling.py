"""Misspelt words of a question, put right by the documents' own words."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from chains.condense import word_ranks
from citewell.documents import Chunk
from citewell.terms import stem

_WORD = re.compile(r"[A-Za-z\u00c0-\u024f]+")
_SHORTEST = 4
"""Letters. A shorter word is one slip away from too many others."""


def doubtful(question: str, found: Iterable[Chunk]) -> set[str]:
    """The words, in lower case, that are not English and that stand in none of the chunks as they were typed, endings aside."""
    words = {match[0].casefold() for match in _WORD.finditer(question)}
    strange = {word for word in words if len(word) >= _SHORTEST and not _is_english(word)}
    if not strange:
        return strange
    texts = [text.casefold() for chunk in found for text in _texts(chunk)]
    return {word for word in strange if not any(stem(word) in text for text in texts)}


def respelt(question: str, found: Sequence[Chunk]) -> str:
    """Put right words with one wrong letter: a doubtful word becomes the commonest word of the chunks that is one slip away from it.

    A slip is a letter left out, put in or exchanged, or two neighbours swapped, after the first letter. English. Reads all of
    the chunks where a word is doubtful: 2 ms for 50 of them.

    Args:
        question: As it was typed.
        found: What was found for it, misspelt as it may be: by its other words, and by its meaning.
    """
    words = doubtful(question, found)
    if not words:
        return question
    known = Counter(match[0].casefold() for chunk in found for text in _texts(chunk) for match in _WORD.finditer(text))
    stems = {stem(word) for word in known}
    # Few are of one letter and length, so that a long question of unknown words takes no time to speak of.
    alike: dict[tuple[str, int], list[str]] = defaultdict(list)
    for word in known:
        alike[word[0], len(word)].append(word)
    meant = {}
    for word in words:
        nearest = [
            other for length in (-1, 0, 1) for other in alike[word[0], len(word) + length] if _is_slip(word, other)
        ]
        if nearest and stem(word) not in stems:
            meant[word] = max(nearest, key=known.__getitem__)
    return _WORD.sub(lambda match: _as_typed(match[0], meant), question)


def _texts(chunk: Chunk) -> tuple[str, ...]:
    return (chunk.title, *chunk.headings, chunk.text)


def _is_english(word: str) -> bool:
    return word in word_ranks() or stem(word) in word_ranks()


def _is_slip(typed: str, word: str) -> bool:
    """Whether two words differ by one letter, or by the order of two neighbours."""
    start = _in_common(typed, word)
    end = _in_common(typed[start:][::-1], word[start:][::-1])
    left, right = typed[start : len(typed) - end], word[start : len(word) - end]
    return max(len(left), len(right)) <= 1 or (len(left) == 2 and left == right[::-1])


def _in_common(left: str, right: str) -> int:
    """Letters with which both begin."""
    return next(
        (i for i, (one, other) in enumerate(zip(left, right, strict=False)) if one != other), min(len(left), len(right))
    )


def _as_typed(word: str, meant: Mapping[str, str]) -> str:
    right = meant.get(word.casefold())
    return word if right is None else right.capitalize() if word[0].isupper() else right
