"""A cheap look at chunks that spares most of them the scan of their sentences.

Embedding a chunk computes the states of its tokens layer by layer. After the first layers they still depend mostly on their own
sentence. So the mean state of a sentence, its relation to the rest and its n-grams are enough to estimate what the scan would
find: a small network, trained on the scan's own logits, does so at almost no cost. It only decides which chunks need the scan.
`python -m evals.train_skim` makes the weights and measures what is missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from itertools import chain
from typing import Final

import numpy as np
from numpy.typing import NDArray

from citewell.guards.features import BUCKETS, asks, ngram_buckets
from citewell.guards.weights import open_weights
from citewell.models.embedder import unit
from citewell.models.minilm import DIMENSION, token_ids

WEIGHTS: Final = "skim.npz"
AT_ONCE: Final = 64
"""Chunks in one batch: about 10 MB of states."""
FEATURES: Final = 3 * DIMENSION + 4
DROPPED: Final = "\"'”’)]"
"""Characters that may follow the end of a sentence and belong to no window (`features.sentences`)."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Skim:
    """The network: one hidden layer beside a linear part, both over the same features, and a weight per n-gram bucket."""

    centre: Floats
    """[DIMENSION], the mean state of a window."""
    inner: Floats
    """[FEATURES, hidden]"""
    inner_bias: Floats
    """[hidden]"""
    outer: Floats
    """[hidden]"""
    linear: Floats
    """[FEATURES]"""
    ngrams: Floats
    """[BUCKETS]"""
    bias: Floats
    """[1]"""
    limit: Floats
    """[1], a logit: a chunk with this estimate or more has to be scanned. Below the threshold of the scan."""

    def logits(self, bags: Sequence[Sequence[str]], states: Sequence[Floats], ids: Sequence[Sequence[int]]) -> list[float | None]:  # fmt: skip
        """Estimate the logits that the scan of texts would give.

        Args:
            bags: The windows of each text.
            states: Per text float32[t_i, DIMENSION], the states of its tokens after the first layers, including those of anything
                embedded before the text, such as its title.
            ids: Per text the t_i vocabulary ids of these tokens.

        Returns:
            Per text the highest logit of its windows. None if its tokens are not those of its windows one after the other: it is
            longer than the model reads, contains hidden characters, or has no window.
        """
        found: list[float | None] = []
        for start in range(0, len(bags), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            found += self._some(bags[part], states[part], ids[part])
        return found

    def _some(self, bags: Sequence[Sequence[str]], states: Sequence[Floats], ids: Sequence[Sequence[int]]) -> list[float | None]:  # fmt: skip
        spans = spans_of(bags, ids)
        read = [i for i, of_text in enumerate(spans) if of_text]
        found: list[float | None] = [None] * len(bags)
        if read:
            windows = list(chain.from_iterable(bags[i] for i in read))
            dense, firsts = features([bags[i] for i in read], [states[i] for i in read], [spans[i] or [] for i in read], self.centre)  # fmt: skip
            rows, buckets, weights = ngram_buckets(windows)
            logits = self.of_windows(dense) + np.bincount(rows, self.ngrams[buckets] * weights, minlength=len(windows))
            for i, logit in zip(read, np.maximum.reduceat(logits, firsts), strict=True):
                found[i] = float(logit)
        return found

    def of_windows(self, dense: Floats) -> Floats:
        """The network's logits for `features`, to which those of the n-grams are added."""
        hidden = np.maximum(dense @ self.inner + self.inner_bias, 0)
        logits: Floats = hidden @ self.outer + dense @ self.linear + self.bias
        return logits

    def numbers(self) -> list[Floats]:
        """All arrays that a logit depends on."""
        return [getattr(self, one.name) for one in fields(self)]


@cache
def load_skim() -> Skim:
    """The trained weights.

    Raises:
        ConfigurationError: They are missing or are not in the format of this version.
    """
    with open_weights(WEIGHTS) as data:
        skim = Skim(**{one.name: data[one.name].astype(np.float32) for one in fields(Skim)})
        if skim.ngrams.shape != (BUCKETS,) or skim.linear.shape != (FEATURES,):
            raise ValueError("unexpected shape")
        return skim


def spans_of(bags: Sequence[Sequence[str]], ids: Sequence[Sequence[int]]) -> list[list[tuple[int, int]] | None]:
    """Per text, the range (start, end) of each window's tokens among those of the text; None as for `Skim.logits`."""
    of_windows = iter(token_ids(list(chain.from_iterable(bags))))
    return [_spans([next(of_windows) for _ in bag], list(whole)) for bag, whole in zip(bags, ids, strict=True)]


def _spans(windows: Sequence[list[int]], whole: list[int]) -> list[tuple[int, int]] | None:
    """Matched from the end, so that whatever was embedded before the text is left over."""
    dropped = _dropped()
    spans: list[tuple[int, int]] = []
    end = len(whole)
    for ids in reversed(windows):
        while whole[max(end - len(ids), 0) : end] != ids and end and whole[end - 1] in dropped:
            end -= 1
        start = end - len(ids)
        if not ids or start < 0 or whole[start:end] != ids:
            return None
        spans.append((start, end))
        end = start
    return spans[::-1] or None


@cache
def _dropped() -> frozenset[int]:
    return frozenset(chain.from_iterable(token_ids(list(DROPPED))))


def features(
    bags: Sequence[Sequence[str]], states: Sequence[Floats], spans: Sequence[Sequence[tuple[int, int]]], centre: Floats
) -> tuple[Floats, NDArray[np.intp]]:
    """The features of each window, from the states of its tokens.

    Args:
        bags, states: As for `Skim.logits`.
        spans: As from `spans_of`, none empty.
        centre: [DIMENSION], subtracted from the states.

    Returns:
        float32[windows, FEATURES]: the mean state; the mean of the text's other windows, of length 1; the elementwise product
        of both directions; their cosine; and three plain features. And the number of each text's first window.
    """
    before = np.cumsum([0, *(len(one) for one in states)])
    bounds = np.concatenate([np.array(of_text) + start for of_text, start in zip(spans, before, strict=False)])
    # One more row, so that the end of the last window is an index too. Every second sum is of the tokens between two windows.
    rows = np.concatenate([*states, np.zeros((1, DIMENSION), np.float32)])
    counts = (bounds[:, 1] - bounds[:, 0]).astype(np.float32)[:, None]
    sums = np.add.reduceat(rows, bounds.ravel())[::2] - centre * counts
    sizes = np.array([len(bag) for bag in bags])
    firsts = np.cumsum(sizes) - sizes
    rest = unit(np.repeat(np.add.reduceat(sums, firsts), sizes, axis=0) - sums)
    product = unit(sums) * rest
    windows = list(chain.from_iterable(bags))
    alone = np.repeat(sizes == 1, sizes)
    plain = np.column_stack(
        [product.sum(axis=1), np.log([len(window) for window in windows]) / 5, asks(windows), alone]
    )
    return np.hstack([sums / counts, rest, product, plain.astype(np.float32)]), firsts
