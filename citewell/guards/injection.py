"""Prompt injection: a small trained head over the built-in embeddings and hashed character n-grams.

A question is judged whole and by its sentences; a document by its sentences, since an instruction planted in
a page of honest text hardly moves the page's embedding. A text's score is its highest window's.
`python -m evals.train_injection` makes the weights, `python -m evals.injection` measures them.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from threading import Lock
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from citewell.errors import ConfigurationError
from citewell.guards.features import BUCKETS, READING, in_context, merged, ngram_buckets, sentences, unhide
from citewell.guards.skim import Skim, load_skim
from citewell.guards.weights import open_weights
from citewell.models.embedder import Embedder, Encoded
from citewell.models.minilm import MiniLM
from citewell.settings import Settings

WEIGHTS: Final = "injection.npz"
CACHED_TEXTS: Final = 20_000
"""Scores of texts kept in memory, by digest: about 2 MB."""

DIRECT_CHARS: Final = 24
"""Shorter sentences of a document are left to the head that sees their context."""

Form = Literal["question", "document"]


@dataclass(frozen=True, slots=True)
class Head:
    """A logistic regression: a weight per dense feature and per n-gram bucket."""

    form: Form
    dense: NDArray[np.float32]
    ngrams: NDArray[np.float32]
    bias: float
    threshold: float
    """0..1; a text that scores this or more is taken for an attack."""
    whole: Head | None = None
    """For questions: judges the first window, which is the whole of it, once more; the logits are added."""
    direct: Head | None = None
    """For documents: a head that learnt from questions, for plain attacks that happen to stand in a document. Its threshold
    is taken from benign documents."""

    def probability(self, windows: Sequence[str], vectors: NDArray[np.float32]) -> float:
        """Probability by the most suspicious window; 0 for a text without windows."""
        if not windows:
            return 0.0
        logit = self._logits(windows, vectors).max()
        if self.whole is not None:
            logit += self.whole._logits(windows[:1], vectors[:1])[0]
        long = [i for i, window in enumerate(windows) if len(window) >= DIRECT_CHARS]
        if self.direct is not None and long:
            # moved so that its own threshold falls on this head's
            found = self.direct._logits([windows[i] for i in long], vectors[long]).max()
            logit = max(logit, found - _logit(self.direct.threshold) + _logit(self.threshold))
        return float(1 / (1 + np.exp(-logit)))

    def _logits(self, windows: Sequence[str], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = dense_features(windows, vectors, self.form) @ self.dense + np.float32(self.bias)
        rows, buckets, weights = ngram_buckets(windows)
        logits += np.bincount(rows, self.ngrams[buckets] * weights, minlength=len(windows)).astype(np.float32)
        return logits

    def numbers(self) -> list[NDArray[np.generic]]:
        """All that a probability is made of."""
        own = [self.dense, self.ngrams, np.array([self.bias, self.threshold])]
        return [*own, *(number for one in (self.whole, self.direct) if one for number in one.numbers())]


def windows_of(text: str, form: Form) -> list[str]:
    """What is judged of a text: its sentences, and for a question also its whole."""
    shown = unhide(text)
    parts = merged(sentences(shown))
    if form == "question" and len(parts) > 1:
        parts.insert(0, shown.strip())
    return parts


def dense_features(windows: Sequence[str], vectors: NDArray[np.float32], form: Form) -> NDArray[np.float32]:
    """One row per window: for a question its embedding, for a document also how it stands to the rest."""
    return vectors if form == "question" else in_context(windows, vectors)


class InjectionScanner:
    """Scores texts. Safe to call from several threads; holds the processor, so call it off the event loop."""

    def __init__(self, encoder: Embedder, heads: dict[Form, Head], skim: Skim) -> None:
        self._encoder = encoder
        self._heads = heads
        self._skim = skim
        self.fingerprint = f"{_digest(heads['document'], skim)}-{READING}-{encoder.fingerprint}"
        """Changes whenever the same document could get another score."""
        self._cache: OrderedDict[bytes, float] = OrderedDict()
        self._lock = Lock()

    def load(self) -> None:
        """Read the embedding model now. Blocking. Raises ConfigurationError."""
        self._encoder.load()

    def threshold(self, form: Form) -> float:
        return self._heads[form].threshold

    def scores(self, texts: Sequence[tuple[Form, str]]) -> list[float]:
        """0..1 for each text, how much some sentence of it addresses the assistant. Remembered by text: neighbouring turns
        find the same chunks, and a client that keeps its own transcript sends all of it each time."""
        keys = [
            hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, key=form.encode()).digest()
            for form, text in texts
        ]
        with self._lock:
            known = {key: self._cache[key] for key in keys if key in self._cache}
        for form in ("question", "document"):
            missing = {
                key: text for key, (kind, text) in zip(keys, texts, strict=True) if kind == form and key not in known
            }
            if missing:
                known |= dict(zip(missing, self._score(list(missing.values()), form), strict=True))
        with self._lock:
            self._cache.update(known)
            while len(self._cache) > CACHED_TEXTS:
                self._cache.popitem(last=False)
        return [known[key] for key in keys]

    def score_question(self, text: str) -> float:
        """0..1, how much a question reads as an attempt to change the assistant's instructions."""
        return self.scores([("question", text)])[0]

    def skim(self, texts: Sequence[str], encoded: Encoded) -> list[float | None]:
        """A score for each text that is plainly harmless, by what embedding it has left behind; an estimate of what
        `score_documents` would say, below the threshold.

        Args:
            texts: Documents.
            encoded: What embedding made of them; something may have been embedded before each, such as its title.

        Returns:
            None for a text that is not plainly harmless, and for all where the built-in model has not embedded them:
            `score_documents` has to say.
        """
        if encoded.early is None or encoded.token_ids is None:
            return [None] * len(texts)
        bags = [windows_of(text, "document") for text in texts]
        logits = self._skim.logits(bags, encoded.early, [ids.tolist() for ids in encoded.token_ids])
        return [
            float(1 / (1 + np.exp(-logit))) if logit is not None and logit < self._skim.limit[0] else None
            for logit in logits
        ]

    def score_documents(self, texts: Sequence[str]) -> list[float]:
        """`scores` of documents."""
        return self.scores([("document", text) for text in texts])

    def _score(self, texts: Sequence[str], form: Form) -> list[float]:
        windows = [windows_of(text, form) for text in texts]
        # Neighbouring chunks overlap: a seventh of the windows of a document's chunks come twice.
        rows = {window: row for row, window in enumerate(dict.fromkeys(chain.from_iterable(windows)))}
        if not rows:
            return [0.0] * len(texts)
        vectors = self._encoder.encode(list(rows)).vectors
        return [self._heads[form].probability(group, vectors[[rows[one] for one in group]]) for group in windows]


def open_scanner(settings: Settings, embedder: Embedder) -> InjectionScanner | None:
    """The injection guard alone, which is all that ingestion needs; None where the settings switch it off.

    Args:
        settings: `injection_guard` is read.
        embedder: Shared when it is the built-in model, which the injection head was trained on; otherwise the
            guard opens the built-in one beside it.

    Raises:
        ConfigurationError: It cannot start.
    """
    if settings.injection_guard == "off":
        return None
    heads, model = load_heads()
    encoder = embedder if embedder.fingerprint == model else MiniLM()
    if encoder.fingerprint != model:
        raise ConfigurationError(
            "The injection guard's weights were trained on another embedding model; reinstall citewell, or set "
            "CITEWELL_INJECTION_GUARD to off."
        )
    return InjectionScanner(encoder, heads, load_skim())


def load_heads() -> tuple[dict[Form, Head], str]:
    """The trained weights, and the name of the embedding model they were trained on.

    Raises:
        ConfigurationError: The weights are missing or not what this version reads.
    """
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


def _digest(*parts: Head | Skim) -> str:
    """Of all numbers that a score is made of."""
    whole = hashlib.blake2b(digest_size=6)
    for part in parts:
        for array in part.numbers():
            whole.update(array.tobytes())
    return whole.hexdigest()


def _logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))
