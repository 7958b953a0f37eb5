"""The features of the injection classifier: the windows of a text, and the hashed character n-grams of a window."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from citewell.small_talk import is_small_talk

Form = Literal["question", "document"]

BUCKETS: Final = 2**15
"""Buckets that the character n-grams are hashed to (Weinberger et al. 2009, arXiv:0902.2206)."""
NGRAMS: Final = (2, 3, 4, 5)
WINDOW_CHARS: Final = 700
"""Longest window, in characters: well within what the embedding model can read."""
MAX_WINDOWS: Final = 400
"""Most windows of a text; a longer text is judged in larger windows, never in part."""

_SENTENCE = re.compile(r"(?<=[.!?。！？;])[\"'”’)\]]*\s+|\n|(?<=[。！？])")
_STOP = re.compile(r"[.!?。！？;][\"'”’)\]]*\Z")
_NEXT_LINE = re.compile(r"\s*\n")
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffc\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""What no program shows: Unicode's Default_Ignorable_Code_Point, the blank Braille pattern and what stands for objects."""
_ALIKE = (
    "\u0430\u0435\u043e\u0441\u0440\u0445\u0443\u0456\u0458\u0455\u04bb\u0501\u051b\u051d\u043a"
    "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0423\u0425\u0406\u0408\u0405"
    "\u03bf\u03b1\u03bd\u03b9\u03ba\u03c1\u03c4\u03c5\u03c7\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7"
)
"""Letters of Cyrillic and Greek that look like the Latin ones below."""
_LATIN = str.maketrans(_ALIKE, "aeocpxyijshdqwkABEKMHOPCTYXIJSoavikptuxABEZHIKMNOPTYX")
_HAS_ALIKE = re.compile(f"[{_ALIKE}]")
_HAS_LATIN = re.compile("[A-Za-z]")
_WORD = re.compile(r"\w+")
_TAGS = re.compile("[\U000e0020-\U000e007e]+")
_SPACED = re.compile(r"(?:(?<=\s)|^)(?:\w[ \t]{1,2}){5,}\w(?=\s|[.,!?:]|$)")
_SPACE = re.compile(r"\s+")


def unhide(text: str) -> str:
    """The text as a model would read it: NFKC, without invisible characters, hidden ASCII tags and s p a c e d words written out,
    and words of Latin letters without those of other scripts that look alike."""
    text = _TAGS.sub(lambda match: " " + "".join(chr(ord(c) - 0xE0000) for c in match.group()) + " ", text)
    text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
    if _HAS_ALIKE.search(text):
        text = _WORD.sub(lambda word: word[0].translate(_LATIN) if _HAS_LATIN.search(word[0]) else word[0], text)
    return _SPACED.sub(lambda match: re.sub(r"[ \t]", "", match.group()), text)


def sentences(text: str) -> list[str]:
    """Sentences, lines and table rows of an unhidden text, none empty, none longer than `WINDOW_CHARS`."""
    found: list[str] = []
    for piece in _SENTENCE.split(text):
        line = _SPACE.sub(" ", piece).strip()
        parts = (line[start : start + WINDOW_CHARS].strip() for start in range(0, len(line), WINDOW_CHARS))
        found.extend(part for part in parts if part)
    return found


def ends_at(text: str, place: int) -> bool:
    """Whether a sentence or line ends at a place of a text, so that no window crosses it.

    `unhide` removes no such end; one that only `unhide` makes is not seen here.
    """
    if text[place - 1 : place] == "。" or _NEXT_LINE.match(text, place):
        return True
    return text[place : place + 1].isspace() and _STOP.search(text, max(0, place - 8), place) is not None


def merged(windows: list[str]) -> list[str]:
    """The same text in at most `MAX_WINDOWS` windows."""
    if len(windows) <= MAX_WINDOWS:
        return windows
    step = -(-len(windows) // MAX_WINDOWS)
    return [" ".join(windows[i : i + step]) for i in range(0, len(windows), step)]


def windows_of(text: str, form: Form) -> list[str]:
    """The parts of a text that are judged: its sentences, and before those of a question the whole. Not small talk in a question,
    which consists of known phrases: "you are stupid" reads like "you are a pirate"."""
    shown = unhide(text)
    parts = merged(sentences(shown))
    if form == "document":
        return parts
    if len(parts) > 1:
        parts.insert(0, shown.strip())
    return [part for part in parts if not is_small_talk(part)]


def ngram_buckets(windows: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Hashed character n-grams of windows, all at once: one after the other takes five times as long.

    Returns:
        Numbers of windows (ascending), bucket numbers (distinct within a window), and a weight each: 1 + ln(count), all of
        a window of Euclidean length 1.
    """
    texts = [f" {_SPACE.sub(' ', window).strip().lower()} " for window in windows]
    points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    owner = np.repeat(np.arange(len(texts)), lengths)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(points))  # characters up to the window's end
    found = []
    for n in NGRAMS:
        value = np.full(max(len(points) - n + 1, 0), n, dtype=np.uint64)
        for i in range(n):  # FNV-1a over code points, wrapping at 64 bits
            value = (value ^ points[i : len(value) + i]) * np.uint64(0x100000001B3)
        buckets = ((value ^ (value >> np.uint64(29))) % np.uint64(BUCKETS)).astype(np.int64)
        found.append((owner[: len(value)] * BUCKETS + buckets)[left[: len(value)] >= n])
    places, counts = np.unique(np.concatenate(found), return_counts=True)
    rows, buckets = np.divmod(places, BUCKETS)
    weights = 1 + np.log(counts)
    norms = np.sqrt(np.bincount(rows, weights**2, minlength=len(texts)))
    return rows, buckets, (weights / norms[rows]).astype(np.float32)


def asks(windows: Sequence[str]) -> NDArray[np.float32]:
    """1 for each window that ends like a question, else 0."""
    return np.array([any(mark in window[-3:] for mark in "?？؟") for window in windows], dtype=np.float32)


def in_context(windows: Sequence[str], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features of a window in relation to the rest of its document: an instruction to the assistant is off topic there.

    Args:
        windows: All windows of one document.
        vectors: float32[n, d], their embeddings.

    Returns:
        float32[n, 3 d + 5]: the embedding, the mean of the rest, their elementwise product, and five plain features.
    """
    n = len(windows)
    rest = (vectors.sum(axis=0) - vectors) / max(n - 1, 1)
    lengths = np.linalg.norm(rest, axis=1, keepdims=True)
    rest = rest / np.maximum(lengths, 1e-9)
    likeness = np.einsum("nd,nd->n", vectors, rest)
    questions = asks(windows)
    size = np.log([len(window) for window in windows]) / 5
    plain = np.column_stack([likeness, np.full(n, float(n == 1)), questions, questions * (1 - likeness), size])
    return np.hstack([vectors, rest * 0.5, vectors * rest * 3, plain]).astype(np.float32)
