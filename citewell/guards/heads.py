"""The trained weights of the injection guard, and how a score is computed from them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from citewell import blas
from citewell.guards.features import BUCKETS, Form, in_context, ngram_buckets, windows_of
from citewell.guards.skim import Skim, load_skim
from citewell.guards.weights import open_weights

WEIGHTS: Final = "injection.npz"
DIRECT_CHARS: Final = 24
"""Shorter sentences of a document are left to the head that sees their context."""


@dataclass(frozen=True, slots=True)
class Head:
    """A logistic regression: a weight per dense feature and per n-gram bucket."""

    form: Form
    dense: NDArray[np.float32]
    ngrams: NDArray[np.float32]
    bias: float
    threshold: float
    """0..1; a text with this score or more is taken for an attack."""
    whole: Head | None = None
    """For questions: judges the first window, which is the whole question, once more; the logits are added."""
    direct: Head | None = None
    """For documents: a head trained on questions, for direct attacks that occur in a document. Its threshold is set on benign
    documents."""

    def probability(self, windows: Sequence[str], vectors: NDArray[np.float32]) -> float:
        """The probability of the most suspicious window; 0 for a text without windows."""
        if not windows:
            return 0.0
        logit = self._logits(windows, vectors).max()
        if self.whole is not None:
            logit += self.whole._logits(windows[:1], vectors[:1])[0]
        long = [i for i, window in enumerate(windows) if len(window) >= DIRECT_CHARS]
        if self.direct is not None and long:
            # shifted so that its own threshold coincides with this head's
            found = self.direct._logits([windows[i] for i in long], vectors[long]).max()
            logit = max(logit, found - _logit(self.direct.threshold) + _logit(self.threshold))
        return float(1 / (1 + np.exp(-logit)))

    def _logits(self, windows: Sequence[str], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = dense_features(windows, vectors, self.form) @ self.dense + np.float32(self.bias)
        rows, buckets, weights = ngram_buckets(windows)
        logits += np.bincount(rows, self.ngrams[buckets] * weights, minlength=len(windows)).astype(np.float32)
        return logits

    def numbers(self) -> list[NDArray[np.generic]]:
        """All arrays that a probability depends on."""
        own = [self.dense, self.ngrams, np.array([self.bias, self.threshold])]
        return [*own, *(number for one in (self.whole, self.direct) if one for number in one.numbers())]


def dense_features(windows: Sequence[str], vectors: NDArray[np.float32], form: Form) -> NDArray[np.float32]:
    """One row per window: for a question its embedding, for a document also its relation to the other windows."""
    return vectors if form == "question" else in_context(windows, vectors)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """All weights that scores depend on."""

    heads: dict[Form, Head]
    skim: Skim
    model: str
    """Fingerprint of the embedding model that they were trained on."""

    @property
    def digest(self) -> str:
        """A digest of all weights that the score of a document depends on."""
        whole = hashlib.blake2b(digest_size=6)
        for part in (self.heads["document"], self.skim):
            for array in part.numbers():
                whole.update(array.tobytes())
        return whole.hexdigest()

    def skimmed(
        self, texts: Sequence[str], states: Sequence[NDArray[np.float32]], ids: Sequence[Sequence[int]]
    ) -> list[float | None]:
        """An estimated score for each document that is plainly harmless; None for the others.

        Args:
            texts: Documents.
            states, ids: As for `Skim.logits`.
        """
        logits = self.skim.logits([windows_of(text, "document") for text in texts], states, ids)
        return [
            float(1 / (1 + np.exp(-logit))) if logit is not None and logit < self.skim.limit[0] else None
            for logit in logits
        ]


@cache
def load_weights() -> Weights:
    """The weights that ship.

    Raises:
        ConfigurationError: They are missing or are not in the format of this version.
    """
    heads, model = load_heads()
    return Weights(heads=heads, skim=load_skim(), model=model)


def load_heads() -> tuple[dict[Form, Head], str]:
    """The trained weights, and the name of the embedding model they were trained on.

    Raises:
        ConfigurationError: The weights are missing or are not in the format of this version.
    """
    blas.one_thread()
    with open_weights(WEIGHTS) as data:
        question, document = _head(data, "question", "question"), _head(data, "document", "document")
        whole, direct = _head(data, "whole", "question"), _head(data, "direct", "question")
        heads: dict[Form, Head] = {
            "question": replace(question, whole=whole), "document": replace(document, direct=direct)
        }  # fmt: skip
        return heads, str(data["model"])


def _head(data: np.lib.npyio.NpzFile, name: str, form: Form) -> Head:
    dense, ngrams = _floats(data[f"{name}_dense"]), _floats(data[f"{name}_ngrams"])
    if ngrams.shape != (BUCKETS,) or dense.ndim != 1:
        raise ValueError("unexpected shape")
    bias, threshold = (float(x) for x in data[f"{name}_bias_threshold"])
    return Head(form, dense, ngrams, bias, threshold)


def _floats(array: NDArray[np.generic]) -> NDArray[np.float32]:
    return array.astype(np.float32)


def _logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))
