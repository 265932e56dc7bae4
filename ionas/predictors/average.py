"""The average of several predictions of the same cells."""

from collections.abc import Sequence

import numpy as np


def average(predictions: Sequence[np.ndarray], by_rank: bool) -> np.ndarray:
    """Mean of (m,) predictions or, `by_rank`, of their ranks, which lie above 0 and up to 1.

    Ranks are those among the m inputs that are predicted together.
    """
    from scipy.stats import rankdata

    if by_rank:
        predictions = [rankdata(values) / len(values) for values in predictions]
    return np.mean(predictions, 0)
