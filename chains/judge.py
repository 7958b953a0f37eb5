"""How probable it is that a sentence answers: logistic regression over the features of `chains.reading`."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import numpy as np

from chains.reading import FEATURES, Floats
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
    """For each row of features, 0..1. float32[n, len(FEATURES)] in, float32[n] out."""
    weights, bias = _fitted()
    return np.asarray(1 / (1 + np.exp(-(rows @ weights + bias))), np.float32)
