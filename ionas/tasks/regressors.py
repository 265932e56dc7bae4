"""Regressors of accuracy, and how well one predicts (paper, appendix H; METHOD 10)."""

import warnings
from typing import Any

import numpy as np

from ionas.predictors.trees import fit_forest

METRICS = ("pearson", "rmse", "kendall", "spearman")
FOREST, GAUSSIAN = "random_forest", "gaussian_process"
CHUNK = 20_000  # cells predicted at a time, so that a kernel matrix stays small


def fit_and_score(
    sample: str,
    size: int,
    seed: int,
    threshold: float,
    regressor: str,
    trees: int,
    max_features: int | float,
    accuracy: np.ndarray,
    labeled: np.ndarray,
    embedding: np.ndarray,
) -> dict[str, Any]:
    """Fit a regressor on a sample of cells and score it on all others above the threshold.

    Takes (N,) accuracies, NaN where unknown, row numbers of the labeled cells and (N, D)
    embeddings; for the other arguments and the result see `prediction.score_all`. A sample that is
    restricted to cells above the threshold is not fitted if there are fewer than two of them.
    """
    from threadpoolctl import threadpool_limits

    cells = sample_cells(accuracy, labeled, sample, size, seed)
    passed = accuracy > threshold  # false where it is NaN
    scored = passed.copy()
    scored[cells] = False
    fitted = cells[passed[cells]] if sample.endswith("passed") else cells
    result: dict[str, Any] = dict.fromkeys(METRICS, float("nan"))
    if len(fitted) < 2:
        result["note"] = f"not fitted: {len(fitted)} cells above the threshold"
    else:
        inputs, outputs, others = embedding[fitted], accuracy[fitted], embedding[scored]
        with threadpool_limits(1):  # the same bits whatever the number of processes
            if regressor == FOREST:
                predicted = predict_forest(inputs, outputs, others, seed, trees, max_features)
            else:
                predicted = predict_gaussian_process(inputs, outputs, others)
        result = score(accuracy[scored], predicted)
    note, failed = result.pop("note"), int((~passed[cells]).sum())
    return {**result, "scored": int(scored.sum()), "failed": failed, "note": note}


def sample_cells(
    accuracy: np.ndarray, labeled: np.ndarray, sample: str, size: int, seed: int
) -> np.ndarray:
    """Row numbers of the cells in a sample of `prediction.score_all`, including failed ones."""
    known = np.flatnonzero(np.isfinite(accuracy))
    first = np.isin(known, labeled) & (not sample.startswith("random"))
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.permutation(known[first]), rng.permutation(known[~first])])[:size]


def score(truth: np.ndarray, prediction: np.ndarray) -> dict[str, Any]:
    """Pearson's r, RMSE, Kendall's tau-b and Spearman's rho of (n,) predictions, n at least 2.

    If the truth or the prediction is constant, the correlations are NaN and `note` says so.
    """
    from scipy.stats import kendalltau, rankdata

    truth, prediction = np.asarray(truth, np.float64), np.asarray(prediction, np.float64)
    values = {"accuracies": truth, "predictions": prediction}
    constant = [name for name, v in values.items() if np.ptp(v) <= 1e-12 * abs(v).max()]
    found = dict.fromkeys(METRICS, float("nan"))
    found["rmse"] = float(np.sqrt(np.mean((truth - prediction) ** 2)))
    if constant:
        note = f"no correlation: all {' and '.join(constant)} are equal"
        return {**found, "note": note}
    found["pearson"] = _pearson(truth, prediction)
    found["kendall"] = float(kendalltau(truth, prediction).statistic)
    found["spearman"] = _pearson(rankdata(truth), rankdata(prediction))
    return {**found, "note": ""}


def predict_forest(
    inputs: np.ndarray,
    outputs: np.ndarray,
    others: np.ndarray,
    seed: int,
    trees: int,
    max_features: int | float,
) -> np.ndarray:
    """Fit a random forest on (n, D) inputs and (n,) outputs; predict the others, (m, D) -> (m,).

    The paper's forest has 200 trees and tries 4 inputs per split.
    """
    return fit_forest(inputs, outputs, seed, trees, max_features)(others)


def predict_gaussian_process(
    inputs: np.ndarray, outputs: np.ndarray, others: np.ndarray
) -> np.ndarray:
    """Predict as `predict_forest` does, by the regressor of the original arch2vec experiment.

    Its settings were not published. Here inputs and outputs are standardised; the kernel is a
    constant times a squared exponential with one length scale, plus white noise. All three
    parameters are fitted by maximum likelihood from 1, sqrt(D) and 0.1, without restarts.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
    from sklearn.preprocessing import StandardScaler

    width = inputs.shape[1]
    kernel = ConstantKernel(1.0) * RBF(np.sqrt(width), (1e-2, 1e4)) + WhiteKernel(0.1, (1e-4, 1e2))
    scaler = StandardScaler().fit(inputs)
    process = GaussianProcessRegressor(kernel, normalize_y=True)
    with warnings.catch_warnings():  # a parameter at its bound: the inputs say nothing
        warnings.simplefilter("ignore", ConvergenceWarning)
        process.fit(scaler.transform(inputs), outputs)
    chunks = (others[start : start + CHUNK] for start in range(0, len(others), CHUNK))
    return np.concatenate([process.predict(scaler.transform(chunk)) for chunk in chunks])


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))
