"""What all predictors have in common: what they take, what they give, and what they learn.

A predictor is a function `fit_X(inputs, targets, seed)` of n inputs and their (n,) targets. It
returns `predict`, a function of m inputs that gives (m,) float64 predictions. Inputs are an (n, D)
matrix or, for graph networks, `Graphs`. The same seed gives the same bits on one thread.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ionas.space.cells import CellSet

Predict = Callable[[Any], np.ndarray]


@dataclass(frozen=True, eq=False)
class Graphs:
    """N cells as inputs of a graph network, with an (N, D) matrix of features or without any."""

    cells: CellSet
    features: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, rows: np.ndarray | slice) -> "Graphs":
        features = None if self.features is None else self.features[rows]
        return Graphs(self.cells[rows], features)


def normal_scores(values: np.ndarray) -> np.ndarray:
    """Quantiles of the normal distribution at the ranks of (n,) values (Blom 1958).

    A predictor of ranks learns these in place of accuracies, whose few very low ones would decide
    everything. Equal values have the same score.
    """
    from scipy.stats import norm, rankdata

    return norm.ppf((rankdata(values) - 0.375) / (len(values) + 0.25))


def standard_scale(inputs: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A function that gives the columns of (n, D) inputs mean 0 and deviation 1, as float32.

    Columns that are constant in these inputs become 0 wherever they are.
    """
    mean, deviation = inputs.mean(0, dtype=np.float64), inputs.std(0, dtype=np.float64)
    varies = deviation > 1e-9 * np.maximum(abs(mean), 1)
    factor = np.where(varies, 1 / np.where(varies, deviation, 1), 0)
    return lambda other: ((other - mean) * factor).astype(np.float32)
