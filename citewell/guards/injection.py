"""Detects prompt injection with a small trained classifier over the built-in embeddings and hashed character n-grams.

A question is judged as a whole and sentence by sentence. A document is judged only by its sentences, since one instruction
in a page of honest text hardly changes the embedding of the page. The score of a text is the highest of its windows.
`python -m evals.train_injection` makes the weights, `python -m evals.injection` measures them.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from threading import Lock
from typing import TYPE_CHECKING, Final

from citewell.errors import ConfigurationError
from citewell.models.embedder import Embedder, Encoded
from citewell.models.minilm import MiniLM
from citewell.settings import Settings

if TYPE_CHECKING:
    from citewell.guards.features import Form
    from citewell.guards.heads import Weights

DIGEST: Final = "ff84cdd6e291"
"""`Weights.digest` of the weights that ship, and checked when they are loaded. It is a constant so that ingestion which finds
nothing changed need not load them."""
READING: Final = 3
"""Increase it when the same text would give other windows or features, so that stored scores are computed again."""
CACHED_TEXTS: Final = 20_000
"""Scores kept in memory, by the digest of the text: about 2 MB."""


class InjectionScanner:
    """Scores texts. Safe to call from several threads; it is bound by the processor, so call it off the event loop.

    The weights are read at the first use or by `load`.

    Args:
        encoder: The embedding model that the weights were trained on.

    Raises:
        ConfigurationError: At the first use: the weights are missing, or are not those of this version.
    """

    def __init__(self, encoder: Embedder) -> None:
        self._encoder = encoder
        self.fingerprint = f"{DIGEST}-{READING}-{encoder.fingerprint}"
        """Changes whenever a document could get another score."""
        self._cache: OrderedDict[bytes, float] = OrderedDict()
        self._lock = Lock()

    def load(self) -> None:
        """Read the weights and the embedding model now. Blocking.

        Raises:
            ConfigurationError: One of them is missing, or is not that of this version.
        """
        _ = self._weights
        self._encoder.load()

    def threshold(self, form: Form) -> float:
        return self._weights.heads[form].threshold

    def scores(self, texts: Sequence[tuple[Form, str]]) -> list[float]:
        """For each text how likely a sentence of it addresses the assistant, 0..1. Cached by text: consecutive turns
        find the same chunks, and a client that keeps its own transcript sends all of it each time."""
        keys = _keys(texts)
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

    def remembered(self, texts: Sequence[tuple[Form, str]]) -> list[float] | None:
        """The same where every one is in the cache; otherwise None, at once."""
        with self._lock:
            known = [self._cache.get(key) for key in _keys(texts)]
        found = [score for score in known if score is not None]
        return found if len(found) == len(known) else None

    def score_question(self, text: str) -> float:
        """How likely a question is an attempt to change the assistant's instructions, 0..1."""
        return self.scores([("question", text)])[0]

    def skim(self, texts: Sequence[str], encoded: Encoded) -> list[float | None]:
        """Estimate the scores of plainly harmless texts from intermediate results of their embedding.

        Args:
            texts: Documents.
            encoded: Their embeddings; each text may have been embedded behind others, such as its title.

        Returns:
            For each text an estimate of `score_documents`, below the threshold. None for a text that is not plainly harmless, and
            for all texts if they were not embedded by the built-in model: these need `score_documents`.
        """
        if encoded.early is None or encoded.token_ids is None:
            return [None] * len(texts)
        return self._weights.skimmed(texts, encoded.early, [ids.tolist() for ids in encoded.token_ids])

    def score_documents(self, texts: Sequence[str]) -> list[float]:
        """`scores` of documents."""
        return self.scores([("document", text) for text in texts])

    @cached_property
    def _weights(self) -> Weights:
        from citewell.guards.heads import load_weights  # late: NumPy comes with it

        weights = load_weights()
        if weights.digest != DIGEST or weights.model != self._encoder.fingerprint:
            raise ConfigurationError(
                "The injection guard's weights are not those of this version; reinstall citewell, or set "
                "CITEWELL_INJECTION_GUARD to off."
            )
        return weights

    def _score(self, texts: Sequence[str], form: Form) -> list[float]:
        from citewell.guards.features import windows_of

        windows = [windows_of(text, form) for text in texts]
        # Neighbouring chunks overlap: a seventh of the windows of a document's chunks occur twice.
        rows = {window: row for row, window in enumerate(dict.fromkeys(chain.from_iterable(windows)))}
        if not rows:
            return [0.0] * len(texts)
        vectors = self._encoder.encode(list(rows)).vectors
        return [
            self._weights.heads[form].probability(group, vectors[[rows[one] for one in group]]) for group in windows
        ]


def _keys(texts: Sequence[tuple[Form, str]]) -> list[bytes]:
    return [
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, key=form.encode()).digest()
        for form, text in texts
    ]


def open_scanner(settings: Settings, embedder: Embedder) -> InjectionScanner | None:
    """The injection guard alone, which is all that ingestion needs; None where the settings switch it off.

    Args:
        settings: `injection_guard` is read.
        embedder: Shared if it is the built-in model, which the classifier was trained on; otherwise the guard opens the
            built-in one as well.
    """
    if settings.injection_guard == "off":
        return None
    return InjectionScanner(embedder if embedder.fingerprint == MiniLM.fingerprint else MiniLM())
