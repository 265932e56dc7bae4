"""How well the accuracies of a table can be predicted at all, given that training is random."""

from itertools import combinations

import numpy as np

from ionas.predictors.interface import normal_scores


def ceiling(repeats: np.ndarray, passed: np.ndarray) -> dict[str, float]:
    """Scores of a predictor that knows the expected accuracy of every cell.

    Takes (N, k) accuracies of k repeats, 2 at least, and whether a cell has passed, (N,) bool. Two
    repeats correlate by rho on average over their pairs. Their mean then has the reliability
    rho_k = k rho / (1 + (k - 1) rho) (Spearman 1910, Brown 1910), and the expected accuracies
    correlate with it by sqrt(rho_k). Returns this as `pearson`, for the cells that have passed;
    `rmse`, the error that remains there; and `kendall`, tau = 2 / pi asin(sqrt(rho_k)) of all
    cells, with rho between normal scores, as tau and r belong together in a bivariate normal
    distribution.

    The noise counts as equally large for all cells and as independent between repeats.
    """
    known = np.isfinite(repeats).all(1)
    everywhere, values = repeats[known], repeats[known & passed]
    ranks = np.stack([normal_scores(column) for column in everywhere.T], 1)
    of_ranks, of_values = reliability(ranks), reliability(values)
    return {
        "kendall": float(2 / np.pi * np.arcsin(np.sqrt(of_ranks))),
        "pearson": float(np.sqrt(of_values)),
        "rmse": float(values.mean(1).std() * np.sqrt(1 - of_values)),
    }


def reliability(repeats: np.ndarray) -> float:
    """Reliability of the mean of (N, k) repeats, by the formula of Spearman and Brown; 0 to 1."""
    count = repeats.shape[1]
    correlations = np.corrcoef(repeats.T)
    rho = np.mean([correlations[pair] for pair in combinations(range(count), 2)])
    return float(np.clip(count * rho / (1 + (count - 1) * rho), 0, 1))
