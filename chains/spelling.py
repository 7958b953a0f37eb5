"""Misspelt words of a question, put right by the documents' own words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from string import ascii_lowercase

from chains.condense import word_ranks
from citewell.documents import Chunk
from citewell.terms import stem

_WORD = re.compile(r"[A-Za-z\u00c0-\u024f]+")
_SHORTEST = 4
"""Letters. A shorter word is one slip away from too many others."""


def respelt(question: str, found: Iterable[Chunk]) -> str:
    """Put right words with one wrong letter: a word that neither English nor the chunks know becomes the commonest word of the chunks
    that is one slip away from it.

    A slip is a letter left out, put in or exchanged, or two neighbours swapped, after the first letter. English.

    Args:
        question: As it was typed.
        found: What was found for it, misspelt as it may be: by its other words, and by its meaning.
    """
    words = {match[0].casefold() for match in _WORD.finditer(question)}
    doubtful = {word for word in words if len(word) >= _SHORTEST and not _is_english(word)}
    if not doubtful:
        return question
    known = Counter(
        match[0].casefold()
        for chunk in found
        for text in (chunk.title, *chunk.headings, chunk.text)
        for match in _WORD.finditer(text)
    )
    stems = {stem(word) for word in known}
    meant = {}
    for word in doubtful:
        if stem(word) not in stems and (near := [slip for slip in _slips(word) if slip in known]):
            meant[word] = max(near, key=lambda slip: (known[slip], slip))
    return _WORD.sub(lambda match: _as_typed(match[0], meant), question)


def _is_english(word: str) -> bool:
    return word in word_ranks() or stem(word) in word_ranks()


def _slips(word: str) -> set[str]:
    """After Norvig's spelling corrector."""
    halves = [(word[:i], word[i:]) for i in range(1, len(word) + 1)]
    return (
        {a + b[1:] for a, b in halves if b}
        | {a + letter + b[1:] for a, b in halves if b for letter in ascii_lowercase}
        | {a + letter + b for a, b in halves for letter in ascii_lowercase}
        | {a + b[1] + b[0] + b[2:] for a, b in halves if len(b) > 1}
    )


def _as_typed(word: str, meant: Mapping[str, str]) -> str:
    right = meant.get(word.casefold())
    return word if right is None else right.capitalize() if word[0].isupper() else right
