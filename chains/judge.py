"""How probable it is that a sentence answers a question: logistic regression over `chains.features`."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import numpy as np

from chains.features import FEATURES, Floats
from citewell import blas


@cache
def _fitted() -> tuple[Floats, float]:
    """Weights and bias. Made by `python -m evals.train_sentences`."""
    blas.one_thread()
    with files("chains").joinpath("judge.npz").open("rb") as file, np.load(file) as data:
        if tuple(data["names"]) != FEATURES:
            raise RuntimeError("chains/judge.npz was made for other features: run python -m evals.train_sentences")
        return np.asarray(data["weights"], np.float32), float(data["bias"])


def probabilities(rows: Floats) -> Floats:
    """The probability (0..1) of each row: float32[n, len(FEATURES)] in, float32[n] out."""
    weights, bias = _fitted()
    return np.asarray(1 / (1 + np.exp(-(rows @ weights + bias))), np.float32)
